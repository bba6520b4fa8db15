//! The film view under mouse and keyboard.

use crate::support::{STEPS, bare, film, film_jobs, known, provenance, tell, with_films};
use ddpm_film::engine::{Command, Event, ForwardSource, Predictor, Provenance, SamplerKind};
use ddpm_film::ui::actions::View;
use ddpm_film::ui::playback::{Direction, Mode};
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;

#[test]
fn the_transport_buttons_move_the_film() {
    let mut gui = with_films(1280.0, 800.0);
    let doses = |gui: &crate::support::Gui| gui.state().state.playback.doses();
    gui.get_by_label("Step towards image").click();
    gui.run();
    assert_eq!(doses(&gui), STEPS - 1);
    gui.get_by_label("To image").click();
    gui.run();
    assert_eq!(doses(&gui), 0);
    gui.get_by_label("Step towards noise").click();
    gui.run();
    assert_eq!(doses(&gui), 1);
    gui.get_by_label("To noise").click();
    gui.run();
    assert_eq!(doses(&gui), STEPS);
    gui.get_by_label("Play").click();
    gui.run_steps(4);
    assert_eq!(gui.state().state.playback.mode, Mode::Playing);
    assert!(doses(&gui) < STEPS);
    gui.get_by_label("→ image").click();
    gui.run_steps(2);
    assert_eq!(gui.state().state.playback.direction, Direction::ToNoise);
}

#[test]
fn keys_move_the_film() {
    let mut gui = with_films(1280.0, 800.0);
    for (key, modifiers, doses) in [
        (Key::ArrowRight, Modifiers::NONE, STEPS - 1),
        (Key::ArrowRight, Modifiers::SHIFT, STEPS - 11),
        (Key::ArrowLeft, Modifiers::NONE, STEPS - 10),
        (Key::ArrowLeft, Modifiers::SHIFT, STEPS),
        (Key::End, Modifiers::NONE, 0),
        (Key::Home, Modifiers::NONE, STEPS),
    ] {
        gui.key_press_modifiers(modifiers, key);
        gui.run();
        assert_eq!(gui.state().state.playback.doses(), doses, "{modifiers:?} {key:?}");
    }
    gui.key_press(Key::Space);
    gui.run_steps(2);
    assert_eq!(gui.state().state.playback.mode, Mode::Playing);
    gui.key_press(Key::Space);
    gui.run();
    assert_eq!(gui.state().state.playback.mode, Mode::Paused);
    gui.key_press(Key::ArrowUp);
    gui.run();
    assert_eq!(gui.state().state.playback.speed, 2.0);
}

#[test]
fn the_timeline_runs_from_noise_at_the_left_to_the_picture_at_the_right() {
    let mut gui = with_films(1280.0, 800.0);
    let track = gui.get_by_role_and_label(Role::Slider, "Timestep").rect();
    let at = |share: f32| egui::pos2(track.left() + share * track.width(), track.top() + 12.0);
    gui.drag_at(at(0.3));
    gui.run_steps(2);
    assert_eq!(gui.state().state.playback.doses(), STEPS * 7 / 10);
    gui.hover_at(at(0.9));
    gui.run_steps(2);
    assert_eq!(gui.state().state.playback.doses(), STEPS / 10);
    gui.drop_at(at(1.0));
    gui.run();
    assert!(gui.state().state.playback.doses() <= STEPS / 10);
    // what the numbers say belongs to the same state
    let doses = gui.state().state.playback.doses();
    gui.get_by_label(&format!("t = {doses:>2} of {STEPS}"));
}

#[test]
fn the_wheel_moves_the_film_over_the_timeline() {
    let mut gui = with_films(1280.0, 800.0);
    gui.state_mut().state.playback.seek(30);
    let track = gui.get_by_role_and_label(Role::Slider, "Timestep").rect();
    gui.hover_at(track.center());
    gui.run();
    gui.event(egui::Event::MouseWheel {
        unit: egui::MouseWheelUnit::Line,
        delta: egui::vec2(0.0, -3.0),
        phase: egui::TouchPhase::Move,
        source: egui::MouseWheelSource::Wheel,
        modifiers: Modifiers::NONE,
    });
    gui.run_steps(16);
    assert_eq!(gui.state().state.playback.doses(), 27, "three notches");
}

#[test]
fn the_reverse_side_shows_the_state_the_picture_or_the_noise() {
    let mut gui = with_films(1280.0, 800.0);
    gui.get_by_label("Reverse process, x_t at t = 50");
    gui.get_by_label("Show predicted noise").click();
    gui.run();
    gui.get_by_label("Reverse process, predicted noise at t = 50");
    gui.key_press(Key::P);
    gui.run();
    gui.get_by_label("Reverse process, predicted x_0 at t = 50");
    // at the end nothing is left to predict
    gui.key_press(Key::E);
    gui.key_press(Key::End);
    gui.run();
    gui.get_by_label("The film is over");
}

#[test]
fn every_picture_says_whose_it_is() {
    let gui = with_films(1280.0, 800.0);
    gui.get_by_label("DATA · MNIST");
    gui.get_by_label("MODEL · step 40,000 EMA · DDPM 50");
    gui.get_by_label("tiny · CPU, 2 threads");
}

#[test]
fn a_film_of_the_oracle_is_asked_for_and_labelled() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::F4);
    gui.run();
    gui.get_by_label("Oracle").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Sample(job, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(request.predictor, Predictor::Oracle);
    let provenance = Provenance { predictor: Predictor::Oracle, oracle: Some(known()), ..provenance() };
    tell(&mut gui, Event::SampleStarted(*job, Box::new(film(4, STEPS)), provenance));
    gui.key_press(Key::F4);
    gui.run();
    gui.get_by_label("ORACLE · exact oracle of mnist, 60,000 images · DDPM 50");
    // nobody knows whether an only copy of the weights is their average
    gui.key_press(Key::R);
    gui.run();
    let (Some(job), _) = film_jobs(&mut gui) else { panic!("no film was asked for") };
    let provenance = Provenance { only_copy: true, ..crate::support::provenance() };
    tell(&mut gui, Event::SampleStarted(job, Box::new(film(4, STEPS)), provenance));
    gui.run();
    gui.get_by_label("MODEL · step 40,000 · DDPM 50");
}

#[test]
fn the_same_seed_is_asked_for_again_and_a_new_one_is_new() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::R);
    gui.run();
    let seed = gui.state().state.settings.seed;
    assert_ne!(seed, 3);
    let asked: Vec<u64> = gui
        .state_mut()
        .take_commands()
        .into_iter()
        .filter_map(|c| match c {
            Command::Sample(_, r) => Some(r.seed),
            Command::Forward(_, r) => Some(r.seed),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [seed; 2], "both films, one seed");
}

#[test]
fn a_typed_seed_makes_a_film_when_the_typing_ends() {
    let mut gui = with_films(1280.0, 800.0);
    let field = gui.get_by_role_and_label(Role::SpinButton, "Seed");
    field.click();
    gui.run();
    gui.key_combination_modifiers(Modifiers::COMMAND, &[Key::A]);
    gui.event(egui::Event::Text("12".into()));
    gui.run();
    assert_eq!(film_jobs(&mut gui), (None, None), "not at each digit");
    // a digit typed into the field is no shortcut
    gui.key_press(Key::Num3);
    gui.run();
    gui.get_by_label("Reverse process, x_t at t = 50");
    gui.key_press(Key::Enter);
    gui.run();
    assert_eq!(gui.state().state.settings.seed, 12);
    assert!(matches!(film_jobs(&mut gui), (Some(_), Some(_))));
}

#[test]
fn the_settings_ask_for_what_they_say() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::F4);
    gui.run();
    gui.get_by_label("DDIM").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Sample(_, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((request.sampler, request.steps), (SamplerKind::Ddim { eta: 0.0 }, Some(50)));
    gui.get_by_label("9").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(
        matches!(commands.as_slice(), [Command::Forward(_, f), Command::Sample(_, s)] if f.n == 9 && s.n == 9),
        "both sides have the same number of pictures: {commands:?}"
    );
}

#[test]
fn a_photo_or_an_image_file_is_drowned_on_the_forward_side_alone() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::I);
    gui.run();
    gui.event(egui::Event::Text("/no/such/cat.png".into()));
    gui.run();
    // while a path is asked for, keys are text
    assert_eq!(gui.state().state.settings.seed, 3);
    gui.get_by_label("Open").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Forward(_, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(request.source, ForwardSource::File("/no/such/cat.png".into()));
    gui.get_by_label("Pictures ⏷").click();
    gui.run();
    gui.get_by_label("From the data set").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Forward(_, r)] if r.source == ForwardSource::Data));
}

#[derive(Debug)]
struct Dropped(std::path::PathBuf);

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &std::path::Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        Err("the worker reads it".into())
    }
}

#[test]
fn an_image_dropped_on_any_view_is_drowned() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::F3);
    gui.run();
    gui.input_mut().dropped_files = vec![std::sync::Arc::new(Dropped("/tmp/dropped.png".into()))];
    gui.run();
    // the worker says whether it is a film to make again
    let commands = gui.state_mut().take_commands();
    let [Command::ReadRecipe(job, path)] = commands.as_slice() else { panic!("{commands:?}") };
    tell(&mut gui, Event::Recipe(*job, path.clone(), None));
    gui.run();
    assert_eq!(gui.state().view, View::Film);
    let commands = gui.state_mut().take_commands();
    assert!(
        matches!(commands.as_slice(), [Command::Forward(_, r)] if r.source == ForwardSource::File("/tmp/dropped.png".into())),
        "{commands:?}"
    );
}

#[test]
fn f1_lists_every_shortcut_and_escape_closes_the_list() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::F1);
    gui.run();
    assert!(gui.state().keys_open);
    for entry in ddpm_film::ui::actions::table().iter().filter(|e| e.keys.is_some()) {
        assert!(gui.query_all_by_label(entry.label).next().is_some(), "{}", entry.label);
    }
    gui.key_press(Key::Escape);
    gui.run();
    assert!(!gui.state().keys_open);
}

#[test]
fn both_themes_and_the_views_are_a_key_away() {
    let mut gui = with_films(1280.0, 800.0);
    let before = gui.ctx.options(|o| o.theme_preference);
    gui.key_press(Key::F6);
    gui.run();
    assert_ne!(gui.ctx.options(|o| o.theme_preference), before);
    gui.key_press(Key::F3);
    gui.run();
    assert_eq!(gui.state().view, View::Training);
    gui.get_by_label("Film").click();
    gui.run();
    assert_eq!(gui.state().view, View::Film);
}

#[test]
fn each_view_draws_at_any_size() {
    for (width, height) in [(1920.0, 1080.0), (640.0, 400.0), (1.0, 1.0), (0.0, 0.0)] {
        for view in [View::Film, View::Training] {
            let mut gui = with_films(width, height);
            gui.state_mut().view = view;
            gui.run_steps(3);
            gui.key_press(Key::F4);
            gui.run_steps(3);
            gui.key_press(Key::F1);
            gui.run_steps(3);
        }
    }
}

#[test]
fn a_window_that_waits_or_is_paused_asks_for_no_frames() {
    let mut gui = bare(1280.0, 800.0);
    gui.run();
    tell(&mut gui, Event::Ready { device: "CPU".into() });
    gui.run();
    assert!(!gui.ctx.has_requested_repaint());
    let mut gui = with_films(1280.0, 800.0);
    gui.run();
    assert!(!gui.ctx.has_requested_repaint());
}
