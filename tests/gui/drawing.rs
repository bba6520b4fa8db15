//! A picture of one's own, and its way back.

use crate::support::{Gui, export, film, model, provenance, tell, with_films};
use ddpm_film::engine::{Command, Event, ForwardSource, Outcome, Provenance};
use egui::{Key, accesskit::Role};
use egui_kittest::kittest::Queryable as _;

#[test]
fn a_stroke_on_the_models_grid_is_drowned() {
    let mut gui = with_films(1280.0, 720.0);
    gui.state_mut().take_commands();
    gui.key_press(Key::W);
    gui.run();
    let paper = gui.get_by_role_and_label(Role::Canvas, "Your picture").rect();
    let at = |x: f32, y: f32| paper.min + paper.size() * egui::vec2(x, y);
    gui.drag_at(at(0.2, 0.5));
    gui.run_steps(2);
    gui.hover_at(at(0.8, 0.5));
    gui.run_steps(2);
    gui.drop_at(at(0.8, 0.5));
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Forward(_, request)] = commands.as_slice() else { panic!("{commands:?}") };
    let ForwardSource::Drawn(bytes) = &request.source else { panic!("{request:?}") };
    assert_eq!(bytes.len(), 64);
    assert!((2..6).all(|x| bytes[4 * 8 + x] > 100) && bytes[..16].iter().all(|b| *b == 0), "{bytes:?}");
    gui.get_by_label("Clear").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Forward(..)]), "{commands:?}");
    gui.get_by_label("Done").click();
    gui.run();
    assert!(gui.query_by_role_and_label(Role::Canvas, "Your picture").is_none());
}

#[test]
fn the_model_brings_the_picture_back_from_the_playhead() {
    let mut gui = with_films(1280.0, 720.0);
    gui.state_mut().state.playback.seek(30);
    gui.state_mut().take_commands();
    gui.run();
    gui.get_by_label("Bring back").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Sample(job, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(request.from, Some((ForwardSource::Data, 30)));
    let provenance = Provenance { from: Some("MNIST at t = 30".into()), calls: 30, ..provenance() };
    tell(&mut gui, Event::SampleStarted(*job, Box::new(film(4, 30)), provenance));
    assert_eq!(gui.state().state.playback.doses(), 30, "the film begins there");
    gui.run();
    gui.get_by_label("MODEL · step 40,000 EMA · DDPM, t = 30 → 0");
    gui.key_press(Key::F8);
    gui.run();
    gui.get_by_label("Line 1: MNIST at t = 30");
    gui.key_press(Key::F2);
    gui.state_mut().state.playback.seek(31);
    gui.run();
    gui.get_by_label("The film begins at t = 30");
    gui.get_by_label("Go there").click();
    gui.run();
    assert_eq!(gui.state().state.playback.doses(), 30);
    // nor is it written as the model's what it did not make
    gui.key_press_modifiers(egui::Modifiers::COMMAND, Key::E);
    gui.run();
    export(&mut gui);
    let commands = gui.state_mut().take_commands();
    let [Command::Export(job, written)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((written.moments[0], written.moments.len()), (30, 31));
    tell(&mut gui, Event::Finished(*job, Outcome::Cancelled));
    gui.key_press(Key::Escape);
    gui.run();
    // once more: other noise, the same start
    gui.key_press(Key::V);
    gui.run();
    let commands = gui.state_mut().take_commands();
    let again = commands.iter().find_map(|c| match c {
        Command::Sample(_, again) => Some(again),
        _ => None,
    });
    assert!(again.is_some_and(|again| again.from == request.from && again.seed != request.seed), "{commands:?}");
    gui.key_press(Key::F4);
    gui.run();
    gui.get_by_label("Pure noise").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Sample(_, r)] if r.from.is_none()), "{commands:?}");
}

#[test]
fn a_picture_without_noise_is_not_brought_back() {
    let mut gui = with_films(1280.0, 720.0);
    gui.state_mut().state.playback.seek(0);
    gui.state_mut().take_commands();
    gui.key_press(Key::V);
    gui.run();
    gui.get_by_label("cannot bring the picture back");
    assert!(gui.state_mut().take_commands().is_empty() && gui.state().state.settings.from.is_none());
}

#[test]
fn a_drawing_goes_when_another_picture_or_model_comes() {
    let mut gui = with_films(1280.0, 720.0);
    let draws = |gui: &Gui| gui.query_by_role_and_label(Role::Canvas, "Your picture").is_some();
    gui.key_press(Key::W);
    gui.run();
    gui.get_by_label("DATA · your drawing");
    tell(&mut gui, Event::Recipe(7, "/tmp/photo.png".into(), None));
    gui.run();
    assert!(!draws(&gui) && matches!(gui.state().state.settings.source, ForwardSource::File(_)));
    gui.key_press(Key::W);
    gui.run();
    assert!(draws(&gui));
    tell(&mut gui, Event::ModelChanged(model()));
    gui.run();
    assert!(!draws(&gui));
}
