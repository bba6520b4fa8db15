//! A model of the Hugging Face hub, from the menu to the film.

use crate::support::{Gui, tell, with_films};
use ddpm_film::engine::{Command, Error, Event, JobId, Origin, Outcome};
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;

fn fetching() -> (Gui, JobId) {
    let mut gui = with_films(1280.0, 720.0);
    gui.get_by_label("File ⏷").click();
    gui.run();
    gui.get_by_label("Fetch google/ddpm-cifar10-32").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Fetch(job, name)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(name, "google/ddpm-cifar10-32");
    (gui, *job)
}

#[test]
fn a_model_of_the_hub_is_fetched_then_loaded() {
    let (mut gui, job) = fetching();
    gui.get_by_label("Fetching google/ddpm-cifar10-32 from the Hugging Face hub");
    tell(&mut gui, Event::Progress { job, done: 40_000_000, total: 143_000_000 });
    gui.run();
    assert!(gui.query_by_role(Role::ProgressIndicator).is_some());
    tell(&mut gui, Event::Fetched(job, "cache/snapshot".into()));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(
        matches!(&commands[..], [Command::Load(_, Origin::Folder(dir))] if dir.ends_with("snapshot")),
        "{commands:?}"
    );
    assert!(gui.query_by_label("Stop fetching").is_none());
}

#[test]
fn fetching_stops_at_once_and_what_comes_late_is_dropped() {
    let (mut gui, job) = fetching();
    gui.get_by_label("Stop fetching").click();
    gui.run();
    assert!(matches!(gui.state_mut().take_commands()[..], [Command::Cancel(stopped)] if stopped == job));
    assert!(gui.query_by_label("Stop fetching").is_none());
    tell(&mut gui, Event::Fetched(job, "cache/snapshot".into()));
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty());
    assert!(gui.state().state.banners.is_empty());
}

#[test]
fn a_model_that_cannot_be_fetched_is_one_message() {
    let (mut gui, job) = fetching();
    let e = Error::new("cannot fetch hf:google/ddpm-cifar10-32", "the hub cannot be reached", "check the network");
    tell(&mut gui, Event::Finished(job, Outcome::Failed(e)));
    gui.run();
    assert_eq!(gui.state().state.banners.len(), 1);
    assert!(gui.query_by_label("Stop fetching").is_none());
}

#[test]
fn the_name_of_a_model_may_be_typed_where_a_folder_may() {
    let mut gui = with_films(1280.0, 720.0);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::O);
    gui.run();
    gui.get_by_role(Role::TextInput).type_text("hf:someone/tiny");
    gui.run();
    gui.key_press(Key::Enter);
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(&commands[..], [Command::Fetch(_, name)] if name == "someone/tiny"), "{commands:?}");
}
