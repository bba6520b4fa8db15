//! Watching a run of another program.

use crate::support::{Gui, tell, with_films};
use ddpm_film::diffusion::Images;
use ddpm_film::engine::{Command, Error, Event, JobId, Outcome, Watch};
use ddpm_film::monitor::{RunLog, STRIP};
use ddpm_film::ui::actions::View;
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;
use std::path::Path;
use std::sync::Arc;

fn watching(path: &Path) -> (Gui, JobId) {
    let mut gui = with_films(1280.0, 720.0);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::W);
    gui.run();
    gui.get_by_role(Role::TextInput).type_text(&path.display().to_string());
    gui.run();
    gui.key_press(Key::Enter);
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Watch(job, asked)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((asked.as_path(), gui.state().view), (path, View::Training));
    (gui, *job)
}

#[test]
fn a_watched_run_shows_its_numbers_its_curve_and_its_pictures() {
    let tmp = tempfile::tempdir().unwrap();
    let run = tmp.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let (mut gui, job) = watching(&run);
    let mut watch = Watch::open(&run).unwrap();
    watch.look();
    tell(&mut gui, Event::Watched(job, Arc::new(watch.watched())));
    gui.run();
    gui.get_by_label("Nothing to show yet");

    let (mut log, _) = RunLog::open(&run, 0);
    for step in 1..=300 {
        log.step(step, [Some(1.0 / step as f32), Some(0.25), Some(2e-4), Some(1000.0)], &[]).unwrap();
    }
    log.strip(300, &Images::zeros(8, [1, 16, 16])).unwrap();
    drop(log);
    let mut watch = Watch::open(&run).unwrap();
    while watch.look().1 {}
    tell(&mut gui, Event::Watched(job, Arc::new(watch.watched())));
    gui.run();
    for row in ["loss  0.0033", "learning_rate  2.0e-4", "images_per_s  1000"] {
        gui.get_by_label(row);
    }
    gui.get_by_label(&format!("Pictures of {STRIP}"));
    gui.get_by_label(&format!("MODEL · EMA, written as {STRIP}"));
    gui.get_by_label("grad_norm  0.2500").click();
    gui.run();
    gui.get_by_label("Stop watching").click();
    gui.run();
    assert!(matches!(gui.state_mut().take_commands()[..], [Command::Cancel(stopped)] if stopped == job));
    gui.get_by_label("No training yet");
}

#[test]
fn a_folder_that_cannot_be_watched_is_one_message() {
    let (mut gui, job) = watching(Path::new("nowhere"));
    tell(&mut gui, Event::Finished(job, Outcome::Failed(Error::new("cannot watch this run", "there is none", ""))));
    gui.run();
    gui.get_by_label("No training yet");
    assert_eq!(gui.state().state.banners.len(), 1);
}

#[test]
fn keys_of_the_own_training_rest_while_another_run_is_watched() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut gui, job) = watching(tmp.path());
    for (modifiers, key) in
        [(Modifiers::NONE, Key::Space), (Modifiers::COMMAND, Key::Period), (Modifiers::NONE, Key::S)]
    {
        gui.key_press_modifiers(modifiers, key);
        gui.run();
    }
    assert!(gui.state_mut().take_commands().is_empty());
    // a training that begins takes the place of what is watched
    gui.key_press_modifiers(Modifiers::COMMAND, Key::L);
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands[..], [Command::Train(..), Command::Cancel(stopped)] if stopped == job), "{commands:?}");
    assert!(gui.query_by_label("Stop watching").is_none() && gui.query_all_by_label("Starting").count() > 0);
}
