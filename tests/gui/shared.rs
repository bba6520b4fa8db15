//! Shared latents: branches of the film at four t, by a press.

use crate::support::{STEPS, begin, film, frame, tell, with_films};
use ddpm_film::engine::{Command, Error, Event, ForkRequest, JobId, Outcome};
use ddpm_film::ui::actions::View;
use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;
use std::collections::HashSet;

/// The branches that were asked for.
fn asked(commands: &[Command]) -> Vec<(JobId, ForkRequest)> {
    let forks = commands.iter().filter_map(|command| match command {
        Command::Fork(job, fork) => Some((*job, fork.clone())),
        _ => None,
    });
    let forks: Vec<_> = forks.collect();
    let seeds: HashSet<_> = forks.iter().map(|(_, fork)| fork.seed).collect();
    assert_eq!((seeds.len(), seeds.contains(&3)), (4, false), "all noise is new");
    forks
}

#[test]
fn the_film_is_branched_at_four_t_and_again_for_its_next_picture() {
    let mut gui = with_films(1280.0, 720.0);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Num7);
    gui.run();
    gui.get_by_label("How much is decided, and when?");
    gui.get_by_label("Branch the film").click();
    gui.run();
    let forks = asked(&gui.state_mut().take_commands());
    assert_eq!(forks.iter().map(|(_, fork)| fork.doses).collect::<Vec<_>>(), [50, 37, 25, 12]);
    assert!(forks.iter().all(|(_, fork)| fork.repeat == Some((0, 6))));
    let jobs: Vec<_> = forks.iter().map(|(job, _)| *job).collect();
    assert!(gui.query_by_label("Next picture").is_none(), "not before it is made");
    gui.get_by_label("Stop").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(&commands[..], [Command::Forget(all)] if *all == jobs), "{commands:?}");
    for (job, last) in jobs.iter().zip([0, 0, 9]) {
        begin(&mut gui, *job, film(6, STEPS));
        for doses in (last..=STEPS).rev() {
            tell(&mut gui, Event::Frame(*job, frame(6, doses)));
        }
    }
    gui.run();
    gui.get_by_label("MODEL · step 40,000 EMA · DDPM");
    gui.get_by_label("6 branches of x_t at t = 50 → t = 0");
    gui.get_by_label("6 branches of x_t at t = 25 → t = 9");
    assert!(gui.query_by_label("6 branches of x_t at t = 12 → t = 0").is_none(), "it waits for its turn");
    let failed = Error::usage("cannot branch the film", "the film it leaves is gone", "branch the film on screen");
    for (i, job) in jobs.iter().enumerate() {
        let outcome = if i == 3 { Outcome::Failed(failed.clone()) } else { Outcome::Done };
        tell(&mut gui, Event::Finished(*job, outcome));
    }
    gui.run();
    assert_eq!(gui.state().state.banners.len(), 1);
    gui.get_by_label("Next picture").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let let_go = commands.iter().filter(|command| matches!(command, Command::Forget(old) if old.len() == 1));
    assert_eq!(let_go.count(), 4, "what is over need not be held: {commands:?}");
    assert!(asked(&commands).iter().all(|(_, fork)| fork.repeat == Some((1, 6))));
}

#[test]
fn the_branch_on_screen_is_branched_from_the_states_that_it_shows() {
    let mut gui = with_films(1280.0, 720.0);
    let root = gui.state().state.reverse.job.unwrap();
    gui.state_mut().state.playback.seek(30);
    gui.key_press(Key::F);
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Fork(branch, fork)] = &commands[..] else { panic!("{commands:?}") };
    begin(&mut gui, *branch, film(4, 30));
    (0..=30).rev().for_each(|doses| tell(&mut gui, Event::Frame(*branch, frame(4, doses))));
    tell(&mut gui, Event::Finished(*branch, Outcome::Done));
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Num7);
    gui.run();
    gui.key_press(Key::Enter);
    gui.run();
    let forks = asked(&gui.state_mut().take_commands());
    let left: Vec<_> = forks.iter().map(|(_, fork)| (fork.parent, fork.doses)).collect();
    assert_eq!(left, [(root, 50), (root, 37), (*branch, 25), (*branch, 12)]);
    assert!(forks.iter().all(|(_, row)| row.seed != fork.seed), "other noise than that of the branch");
    gui.get_by_label("picture 1 of “new noise from t = 30”");
}

#[test]
fn escape_closes_a_menu_and_a_key_that_acts_does_too() {
    let mut gui = with_films(1280.0, 720.0);
    for (modifiers, key, view) in
        [(Modifiers::NONE, Key::Escape, View::Film), (Modifiers::COMMAND, Key::Num7, View::Shared)]
    {
        gui.get_by_label("View ⏷").click();
        gui.run();
        gui.get_by_label_contains("High contrast");
        gui.key_press_modifiers(modifiers, key);
        gui.run();
        assert!(gui.query_by_label_contains("High contrast").is_none(), "{key:?}");
        assert_eq!(gui.state().view, view);
    }
}

#[test]
fn the_size_of_everything_takes_as_many_clicks_as_it_takes() {
    let mut gui = with_films(1280.0, 720.0);
    gui.get_by_label("View ⏷").click();
    gui.run();
    for _ in 0..2 {
        let zoom = gui.ctx.zoom_factor();
        gui.get_by_label("+").click();
        gui.run();
        assert!(gui.ctx.zoom_factor() > zoom);
    }
    gui.get_by_label_contains("Presentation").click();
    gui.run();
    assert!(gui.query_by_label_contains("High contrast").is_none());
}

#[test]
fn shared_latents_fit_any_window() {
    for (width, height) in [(1920.0, 1080.0), (640.0, 400.0), (1.0, 1.0)] {
        let mut gui = with_films(width, height);
        gui.key_press_modifiers(Modifiers::COMMAND, Key::Num7);
        gui.run_steps(3);
        gui.key_press(Key::Enter);
        gui.run_steps(2);
        let forks = asked(&gui.state_mut().take_commands());
        tell(&mut gui, Event::Frame(forks[0].0, frame(6, STEPS)));
        gui.run_steps(3);
    }
}
