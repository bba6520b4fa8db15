//! What the worker tells, and what the film view makes of it: empty, busy, failed, stale.

use crate::support::{Gui, STEPS, bare, begin, export, film, film_jobs, frame, model, schedule, tell, with_films};
use ddpm_film::engine::{Command, Error, Event, JobId, Outcome, Quantity, Trajectory};
use ddpm_film::ui::actions::View;
use ddpm_film::ui::playback::Mode;
use ddpm_film::ui::state::Phase;
use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;

fn failure() -> Error {
    Error::new("cannot read the image", "it is not a PNG", "open it in a viewer").at("/tmp/cat.png")
}

/// A window with so many states of a reverse film.
fn computed(film: Trajectory, states: impl IntoIterator<Item = usize>) -> (Gui, JobId) {
    let mut gui = bare(1280.0, 800.0);
    tell(&mut gui, Event::ModelChanged(model()));
    let (Some(sample), _) = film_jobs(&mut gui) else { panic!() };
    begin(&mut gui, sample, film);
    states.into_iter().for_each(|doses| tell(&mut gui, Event::Frame(sample, frame(4, doses))));
    (gui, sample)
}

#[test]
fn without_a_model_the_view_says_so_and_offers_to_open_one() {
    let mut gui = bare(1280.0, 800.0);
    gui.run();
    assert_eq!(gui.get_all_by_label("No model").count(), 2);
    gui.get_all_by_label("Open model…").next().unwrap().click();
    gui.run();
    gui.get_by_label("Cancel").click();
    gui.run();
    assert!(gui.query_by_label("Cancel").is_none());
}

#[test]
fn the_opening_film_starts_by_itself_and_follows_its_computation() {
    let mut gui = bare(1280.0, 800.0);
    tell(&mut gui, Event::ModelChanged(model()));
    let (Some(sample), Some(_)) = film_jobs(&mut gui) else { panic!("both films are asked for") };
    gui.run();
    assert_eq!(gui.get_all_by_label("Computing").count(), 2);
    begin(&mut gui, sample, film(4, STEPS));
    for doses in [STEPS, STEPS - 1] {
        tell(&mut gui, Event::Frame(sample, frame(4, doses)));
    }
    gui.run_steps(8);
    assert_eq!(gui.state().state.playback.mode, Mode::Following);
    gui.get_by_label("Reverse process, x_t at t = 49");
    // scrubbing works while it is computed
    gui.key_press(Key::Home);
    gui.run();
    tell(&mut gui, Event::Frame(sample, frame(4, STEPS - 2)));
    gui.run();
    gui.get_by_label("Reverse process, x_t at t = 50");
}

#[test]
fn a_stopped_film_says_where_it_ends() {
    let (mut gui, sample) = computed(film(4, STEPS), [STEPS, STEPS - 1]);
    tell(&mut gui, Event::Finished(sample, Outcome::Cancelled));
    gui.key_press(Key::End);
    gui.run();
    gui.get_by_label("The film was stopped at t = 49");
    gui.get_by_label("Go there").click();
    gui.run();
    gui.get_by_label("Reverse process, x_t at t = 49");
    // no step leads away from there, so none is written
    for (key, modifiers) in [(Key::C, Modifiers::NONE), (Key::E, Modifiers::COMMAND)] {
        gui.key_press_modifiers(modifiers, key);
        gui.run();
    }
    gui.state_mut().take_commands();
    export(&mut gui);
    let commands = gui.state_mut().take_commands();
    let [Command::Export(_, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((request.quantity, &request.moments), (Quantity::Dose, &vec![STEPS]));
}

#[test]
fn a_step_goes_to_the_next_state_of_the_film() {
    let states: Vec<usize> = (0..=STEPS).step_by(10).collect();
    let film = Trajectory::new(4, [1, 8, 8], schedule()).with_states(states.clone().into(), usize::MAX);
    let (mut gui, sample) = computed(film, states);
    tell(&mut gui, Event::Finished(sample, Outcome::Done));
    gui.key_press(Key::Home);
    let mut at = |key: Key| {
        gui.key_press(key);
        gui.run();
        gui.state().state.playback.doses()
    };
    assert_eq!([Key::ArrowRight, Key::ArrowRight, Key::ArrowLeft].map(&mut at), [40, 30, 40]);
    at(Key::F7);
    // a schedule has all timesteps
    assert_eq!(at(Key::ArrowRight), 39);
    at(Key::F2);
    // shown there is the state at 40
    assert_eq!([Key::ArrowRight, Key::End].map(&mut at), [30, 0]);
}

#[test]
fn frames_may_come_in_any_order() {
    let (mut gui, _) = computed(film(4, STEPS), [3, 0, STEPS, 20, 1, 49]);
    let (_, film) = gui.state().state.reverse.film.as_ref().unwrap();
    assert_eq!((film.len(), film.reached()), (6, Some(0)));
    gui.run_steps(3);
}

#[test]
fn what_a_replaced_job_still_sends_is_dropped() {
    let mut gui = with_films(1280.0, 800.0);
    let (old, _) = gui.state().state.reverse.film.clone().unwrap();
    gui.key_press(Key::R);
    gui.run();
    let (Some(new), Some(forward)) = film_jobs(&mut gui) else { panic!("a new seed makes new films") };
    // the old film stays on screen until the new one begins
    gui.get_by_label("Reverse process, x_t at t = 50");
    begin(&mut gui, new, film(4, STEPS));
    tell(&mut gui, Event::Frame(old, frame(4, 10)));
    begin(&mut gui, old, film(4, STEPS));
    tell(&mut gui, Event::Finished(old, Outcome::Failed(failure())));
    tell(&mut gui, Event::Forward(forward + 100, film(4, STEPS).into(), "someone else's".into()));
    let state = &gui.state().state;
    let (job, film) = state.reverse.film.as_ref().unwrap();
    assert_eq!((*job, film.len()), (new, 0));
    assert_eq!((&state.reverse.phase, state.banners.len()), (&Phase::Busy, 0));
    assert_eq!(state.forward.source.as_deref(), Some("MNIST"));
}

#[test]
fn a_failure_stays_on_screen_until_it_is_dismissed() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::R);
    gui.run();
    let (_, Some(forward)) = film_jobs(&mut gui) else { panic!() };
    for _ in 0..2 {
        tell(&mut gui, Event::Finished(forward, Outcome::Failed(failure())));
    }
    gui.run();
    gui.get_by_label("cannot read the image");
    gui.get_by_label("it is not a PNG; open it in a viewer (/tmp/cat.png)");
    gui.get_by_label("Copy").click();
    gui.run();
    assert_eq!(gui.state().state.banners.len(), 1, "said once");
    gui.get_by_label("Dismiss").click();
    gui.run();
    assert!(gui.query_by_label("Dismiss").is_none());
}

#[test]
fn a_start_that_fails_is_told_though_nobody_asked_for_it() {
    let mut gui = bare(1280.0, 800.0);
    tell(&mut gui, Event::Finished(0, Outcome::Failed(failure())));
    tell(&mut gui, Event::Finished(77, Outcome::Failed(failure())));
    for n in 0..9 {
        tell(&mut gui, Event::Warning(format!("warning {n}")));
    }
    gui.run();
    assert_eq!(gui.state().state.banners.len(), 4, "bounded");
    gui.key_press(Key::Escape);
    gui.run();
    assert_eq!(gui.state().state.banners.len(), 3);
    // while something is typed the key only ends that
    gui.state_mut().view = View::Training;
    gui.run();
    gui.get_by_role_and_label(Role::TextInput, "Output folder").click();
    gui.run();
    for left in [3, 2] {
        gui.key_press(Key::Escape);
        gui.run();
        assert_eq!(gui.state().state.banners.len(), left);
    }
}

#[test]
fn a_film_can_be_stopped_and_kept_as_far_as_it_has_come() {
    let mut gui = bare(1280.0, 800.0);
    tell(&mut gui, Event::ModelChanged(model()));
    let (Some(sample), _) = film_jobs(&mut gui) else { panic!() };
    begin(&mut gui, sample, film(4, STEPS));
    for doses in [STEPS, 40] {
        tell(&mut gui, Event::Frame(sample, frame(4, doses)));
    }
    gui.key_press(Key::End);
    gui.run();
    gui.get_by_label("Reverse process, x_t at t = 0");
    gui.key_press(Key::S);
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Cancel(job)] if *job == sample), "{commands:?}");
    tell(&mut gui, Event::Finished(sample, Outcome::Cancelled));
    gui.key_press(Key::S);
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty() && gui.state().state.banners.is_empty());
}

#[test]
fn a_cancelled_film_is_no_failure() {
    let mut gui = bare(1280.0, 800.0);
    tell(&mut gui, Event::ModelChanged(model()));
    let (Some(sample), _) = film_jobs(&mut gui) else { panic!() };
    tell(&mut gui, Event::Finished(sample, Outcome::Cancelled));
    gui.run();
    assert!(gui.state().state.banners.is_empty());
    gui.get_by_label("Stopped");
    gui.get_by_label("Start again").click();
    gui.run();
    assert!(matches!(film_jobs(&mut gui), (Some(_), Some(_))));
}
