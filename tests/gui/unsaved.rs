//! What is not saved yet: trainings and notes that the window must not let go of.

use crate::runs::{note, read};
use crate::support::{Gui, tell};
use crate::training::{closes, going_on, leaves, metrics, running, save_as, save_to};
use ddpm_film::engine::{Command, Error, Event, Kind, Metrics, Outcome, TrainingState, Which};
use egui::accesskit::Role;
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;

/// The save that was asked for.
fn asked(gui: &mut Gui) -> Command {
    gui.state_mut().take_commands().pop().unwrap()
}

#[test]
fn a_training_that_waits_to_go_on_is_what_is_saved() {
    let mut gui = going_on();
    assert!(!closes(&mut gui));
    gui.get_by_label("Save…").click();
    gui.run();
    save_to(&mut gui, "/tmp/model");
    assert!(matches!(asked(&mut gui), Command::Save(_, Which::Training, _)));
    // one that was stopped before it had begun gives way to the one that it was to go on with
    let mut gui = going_on();
    let on = gui.state_mut().take_commands().iter().find_map(Command::job).unwrap();
    tell(&mut gui, Event::Finished(on, Outcome::Cancelled));
    gui.run();
    gui.get_by_label("Go on");
    save_as(&mut gui, "/tmp/model");
    assert!(matches!(asked(&mut gui), Command::Save(_, Which::Training, _)));
}

#[test]
fn closing_asks_while_the_saves_of_a_run_fail() {
    let (mut gui, job) = running();
    gui.state_mut().state.training.as_mut().unwrap().request.out = Some("/tmp/run".into());
    assert!(closes(&mut gui), "its folder gets what is not saved");
    let (mut gui, second) = running();
    assert_eq!(job, second);
    gui.state_mut().state.training.as_mut().unwrap().request.out = Some("/tmp/run".into());
    let failed = Metrics { save_failed: Some(1000), ..Metrics::clone(&metrics(1234, TrainingState::Running)) };
    tell(&mut gui, Event::Metrics(job, Arc::new(failed)));
    assert!(!closes(&mut gui));
    gui.get_by_label("234 steps are in memory only and would be lost");
    // the next save works: that is no answer
    tell(&mut gui, Event::Metrics(job, metrics(1234, TrainingState::Running)));
    gui.run();
    assert!(gui.query_by_label("This training is not saved").is_none() && !leaves(&mut gui));
}

#[test]
fn closing_asks_about_the_last_good_state_of_a_run_that_was_saved_after_it() {
    let (mut gui, job) = running();
    save_as(&mut gui, "/tmp/model");
    let Command::Save(save, which, dir) = asked(&mut gui) else { panic!("it is not saved") };
    tell(&mut gui, Event::Saved(save, which, dir));
    tell(&mut gui, Event::Finished(save, Outcome::Done));
    gui.run();
    assert!(gui.state().state.training.as_ref().unwrap().unsaved().is_none());
    tell(&mut gui, Event::Metrics(job, metrics(1100, TrainingState::Running)));
    let e = Error { kind: Kind::Diverged, ..Error::new("training stopped", "the loss is NaN", "") };
    tell(&mut gui, Event::Finished(job, Outcome::Failed(e)));
    gui.run();
    assert!(!closes(&mut gui));
    gui.get_by_label("1,100 steps are in memory only and would be lost");
}

#[test]
fn notes_that_could_not_be_saved_are_shown_and_saved_when_the_window_closes() {
    let (mut gui, _) = read();
    note(&mut gui, "old: digits16", "!");
    gui.step();
    let saved = |gui: &mut Gui| {
        (0..200).find_map(|_| {
            gui.step();
            gui.state_mut().take_commands().into_iter().find(|c| matches!(c, Command::SaveNotes(..)))
        })
    };
    let Some(Command::SaveNotes(job, ..)) = saved(&mut gui) else { panic!("nothing is saved") };
    let e = Error::new("cannot save the notes", "the disk is full", "");
    tell(&mut gui, Event::Finished(job, Outcome::Failed(e)));
    gui.run();
    // another run in between, and its own again
    for run in ["new: digits16", "old: digits16"] {
        gui.get_by_label_contains(run).click();
        gui.run();
    }
    let field = gui.get_by_role_and_label(Role::MultilineTextInput, "Notes").value();
    assert_eq!(field.as_deref(), Some("on old!"));
    assert!(closes(&mut gui));
    let again = saved(&mut gui);
    assert!(matches!(&again, Some(Command::SaveNotes(_, _, text)) if text == "on old!"), "{again:?}");
}
