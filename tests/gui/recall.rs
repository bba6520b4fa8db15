//! Films too large for their memory: the window asks for what is missing.

use crate::support::{self, Gui, STEPS, begin, film_jobs, frame, tell, with_films};
use ddpm_film::engine::{Command, Event, JobId, Outcome};
use egui::Key;
use egui_kittest::kittest::Queryable as _;

fn recalls(gui: &mut Gui) -> Vec<(JobId, JobId, usize)> {
    let commands = gui.state_mut().take_commands();
    let recall = |command| match command {
        Command::Recall { job, film, doses } => Some((job, film, doses)),
        _ => None,
    };
    commands.into_iter().filter_map(recall).collect()
}

#[test]
fn a_state_that_is_not_held_is_asked_for_once_and_shown_when_it_comes() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::R);
    gui.run();
    let (Some(film), _) = film_jobs(&mut gui) else { panic!() };
    begin(&mut gui, film, support::film(4, STEPS).with_states((0..=STEPS).collect(), 10));
    (0..=STEPS).rev().for_each(|doses| tell(&mut gui, Event::Frame(film, frame(4, doses))));
    tell(&mut gui, Event::Finished(film, Outcome::Done));
    gui.key_press(Key::Home);
    gui.run();
    recalls(&mut gui);
    gui.state_mut().state.playback.seek(30);
    gui.run();
    gui.get_by_label("Reverse process, x_t at t = 30");
    let asked = recalls(&mut gui);
    // the request of Home waits for its answer first
    assert!(asked.is_empty(), "{asked:?}");
    let job = gui.state_mut().state.new_job() - 1;
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    let asked = recalls(&mut gui);
    let [(job, of, 30)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(of, film);
    gui.run();
    assert!(recalls(&mut gui).is_empty(), "once");
    tell(&mut gui, Event::Frame(film, frame(4, 30)));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    assert!(recalls(&mut gui).is_empty());
    let (_, shown) = gui.state().state.reverse.film.as_ref().unwrap();
    assert_eq!((shown.at(30).unwrap().doses, shown.len()), (30, 10));
    // others push it out, and it is asked for again
    (1..=20).for_each(|doses| tell(&mut gui, Event::Frame(film, frame(4, doses))));
    gui.run();
    let asked = recalls(&mut gui);
    let [(job, _, 30)] = asked[..] else { panic!("{asked:?}") };
    tell(&mut gui, Event::Frame(film, frame(4, 30)));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    // what a step changes needs both its states
    gui.key_press(Key::C);
    gui.run();
    assert!(matches!(recalls(&mut gui)[..], [(_, of, 29)] if of == film));
    tell(&mut gui, Event::Frame(film, frame(4, 29)));
    gui.run();
    gui.get_by_label("Reverse process, the change of this step at t = 30");
}

#[test]
fn a_film_that_is_held_whole_asks_for_nothing() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::C);
    for key in [Key::Home, Key::End, Key::ArrowLeft, Key::ArrowLeft] {
        gui.key_press(key);
        gui.run();
    }
    assert!(recalls(&mut gui).is_empty());
    gui.get_by_label("Reverse process, the change of this step at t = 2");
}
