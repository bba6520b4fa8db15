//! The race view: started by a press, counted, stopped.

use crate::support::{Gui, provenance, tell, with_films};
use ddpm_film::diffusion::Images;
use ddpm_film::engine::{Command, Event, JobId, Lane, Outcome, Provenance};
use egui::Key;
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;
use std::time::Duration;

fn lane(sampler: &'static str, calls: [usize; 2], seconds: f64) -> Lane {
    let x = Arc::new(Images::zeros(4, [1, 8, 8]));
    let by = Provenance { sampler, calls: calls[1], ..provenance() };
    Lane { by, calls, time: Duration::from_secs_f64(seconds), doses: calls[1] - calls[0], x }
}

fn started() -> (Gui, JobId) {
    let mut gui = with_films(1280.0, 720.0);
    gui.key_press(Key::F9);
    gui.run();
    gui.get_by_label("Who is first?");
    assert!(gui.query_by_label("Settings").is_none(), "a race has no settings to open");
    gui.get_by_label("Start the race").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Race(job, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((request.seed, request.n, request.steps), (3, 4, 50));
    let job = *job;
    (gui, job)
}

#[test]
fn calls_and_seconds_are_counted_for_both() {
    let (mut gui, job) = started();
    tell(&mut gui, Event::Race(job, Box::new([lane("DDPM", [50, 1000], 1.25), lane("DDIM", [50, 50], 1.5)])));
    gui.run();
    for label in ["Calls   50 of 1000", "Time 1.2 s", "Calls   50 of 50", "Time 1.5 s"] {
        gui.get_by_label(label);
    }
    gui.get_by_label("DDPM at t = 950");
    gui.get_by_label("DDIM at t = 0, arrived");
    gui.get_by_label("MODEL · step 40,000 EMA");
    // what another race tells is not this one's
    tell(&mut gui, Event::Race(job + 5, Box::new([lane("DDPM", [9, 1000], 0.0), lane("DDIM", [9, 50], 0.0)])));
    gui.run();
    gui.get_by_label("DDPM at t = 950");
    gui.get_by_label("Stop the race").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Cancel(stopped)] if *stopped == job), "{commands:?}");
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    gui.run();
    gui.get_by_label("Start again");
    assert!(gui.state().state.banners.is_empty());
}

#[test]
fn a_race_fits_any_window() {
    for (width, height) in [(1920.0, 1080.0), (640.0, 400.0), (1.0, 1.0)] {
        let mut gui = with_films(width, height);
        gui.key_press(Key::F9);
        gui.run_steps(3);
        gui.key_press(Key::Enter);
        gui.run_steps(2);
        let commands = gui.state_mut().take_commands();
        let [Command::Race(job, _)] = commands.as_slice() else { panic!("{commands:?}") };
        let job = *job;
        tell(&mut gui, Event::Race(job, Box::new([lane("DDPM", [5, 1000], 0.1), lane("DDIM", [5, 50], 0.1)])));
        gui.run_steps(3);
    }
}
