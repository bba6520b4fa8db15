//! The runs view: read, laid over each other, noted, started from.

use crate::support::{Gui, bare, tell};
use ddpm_film::diffusion::Images;
use ddpm_film::engine::{Command, Error, Event, History, JobId, ListedRun, Outcome, RunConfig, RunSummary, StepStats};
use ddpm_film::ui::actions::View;
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn run(name: &str, age: u64, steps: u64) -> Arc<ListedRun> {
    let mut history = History::default();
    for step in 1..=steps {
        history.push(StepStats {
            step,
            loss: 1.0 / step as f32,
            grad_norm: 1.0,
            learning_rate: 1e-4,
            update_ratio: 1e-3,
            ema_decay: 0.99,
        });
    }
    let usual = RunConfig::default();
    let (beta_schedule, prediction_type) = match name {
        "old" => ("squaredcos_cap_v2".to_owned(), "v_prediction".to_owned()),
        _ => (usual.beta_schedule.clone(), usual.prediction_type.clone()),
    };
    let usual = RunConfig { beta_schedule, prediction_type, ..usual };
    let config = RunConfig { preset: "digits16".into(), seed: age, batch: 32, ..usual };
    let pictures = Some((steps, Images::zeros(8, [1, 16, 16])));
    Arc::new(ListedRun {
        dir: format!("/runs/{name}").into(),
        saved: Some(SystemTime::now() - Duration::from_secs(age)),
        read: Ok(RunSummary { config, step: steps, history, pictures, notes: format!("on {name}") }),
    })
}

/// A window that has read three runs, one of them broken.
pub fn read() -> (Gui, JobId) {
    let mut gui = bare(1280.0, 720.0);
    gui.state_mut().state.runs.folder = "/runs".into();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::R);
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::ReadRuns(job, folder)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(folder, std::path::Path::new("/runs"));
    let job = *job;
    gui.get_by_label("Reading the runs");
    tell(&mut gui, Event::Run(job, run("old", 200_000, 500)));
    tell(&mut gui, Event::Run(job, run("new", 60, 1500)));
    tell(&mut gui, Event::Run(job + 1, run("other", 60, 1500)));
    let e = Error::new("cannot read this run", "the file is damaged", "copy it again").at("/runs/broken/film");
    tell(&mut gui, Event::Run(job, Arc::new(ListedRun { dir: "/runs/broken".into(), saved: None, read: Err(e) })));
    tell(&mut gui, Event::Progress { job, done: 3, total: 3 });
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    (gui, job)
}

#[test]
fn runs_are_listed_newest_first_and_broken_ones_say_why() {
    let (gui, _) = read();
    let names: Vec<String> = gui.state().state.runs.listed.iter().map(|run| run.name()).collect();
    assert_eq!(names, ["new", "old", "broken"]);
    gui.get_by_label("new: digits16 · mnist · step 1,500 of 20,000 · loss 0.0007 · 1 min ago");
    gui.get_by_label("old: digits16 · Cosine · predicts v · mnist · step 500 of 20,000 · loss 0.0022 · 2 days ago");
    gui.get_by_label("broken: the file is damaged");
    for step in ["500", "1,500"] {
        gui.get_by_label(&format!("MODEL · step {step} EMA"));
    }
    gui.get_by_label("3 runs");
    gui.get_by_label("No curve chosen");
}

#[test]
fn ticked_runs_share_one_plot_and_stay_ticked() {
    let (mut gui, _) = read();
    for name in ["new", "old"] {
        gui.get_by_label(&format!("Curve of {name}")).click();
        gui.run();
    }
    assert!(gui.query_by_label("No curve chosen").is_none());
    gui.get_by_label("Curve of new").click();
    gui.run();
    gui.get_by_label("Curve of old").click();
    gui.run();
    gui.get_by_label("No curve chosen");
}

#[test]
fn a_training_starts_from_the_settings_of_another_run() {
    let (mut gui, _) = read();
    gui.get_by_label_contains("new: digits16").click();
    gui.run();
    gui.get_by_label("Start from its settings").click();
    gui.run();
    assert_eq!(gui.state().view, View::Training);
    let settings = gui.state().state.run.clone();
    assert_eq!(
        (settings.config.batch, settings.config.seed, settings.out.as_str(), settings.resume),
        (32, 60, "", false)
    );
    gui.state_mut().view = View::Runs;
    gui.run();
    gui.get_by_label("Go on with it").click();
    gui.run();
    let settings = gui.state().state.run.clone();
    assert_eq!((settings.out.as_str(), settings.resume), ("/runs/new", true));
}

/// Types into the notes of a run.
pub fn note(gui: &mut Gui, run: &str, text: &str) {
    gui.get_by_label_contains(run).click();
    gui.run();
    gui.get_by_role_and_label(Role::MultilineTextInput, "Notes").click();
    gui.run();
    gui.event(egui::Event::Text(text.into()));
}

#[test]
fn notes_are_saved_when_the_keys_rest_and_shown_again() {
    let (mut gui, _) = read();
    note(&mut gui, "old: digits16", "!");
    (0..8).for_each(|_| gui.step());
    // another run is chosen: nothing that was typed is lost
    gui.get_by_label_contains("new: digits16").click();
    (0..8).for_each(|_| gui.step());
    let commands = gui.state_mut().take_commands();
    let [Command::SaveNotes(_, dir, text)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((dir.as_path(), text.as_str()), (std::path::Path::new("/runs/old"), "on old!"));
    let noted = |gui: &Gui| gui.state().state.runs.listed[1].read.as_ref().unwrap().notes.clone();
    assert_eq!(noted(&gui), "on old!");
    note(&mut gui, "old: digits16", "?");
    gui.step();
    gui.key_press(Key::F2);
    gui.step();
    let saved = |c: &Command| matches!(c, Command::SaveNotes(_, _, text) if text == "on old!?");
    assert!(gui.state_mut().take_commands().iter().any(saved), "the view goes before the keys have rested");
}

#[test]
fn the_folder_is_remembered() {
    let (gui, _) = read();
    let again = ddpm_film::ui::Window::new(gui.state().preferences());
    assert_eq!(again.state.runs.folder, "/runs");
}

#[test]
fn ticks_of_another_folder_are_gone() {
    let (mut gui, _) = read();
    gui.get_by_label("Curve of new").click();
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    gui.run();
    let job = gui.state_mut().take_commands().iter().find_map(Command::job).unwrap();
    tell(&mut gui, Event::Run(job, run("elsewhere", 60, 1500)));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    gui.get_by_label("No curve chosen");
}
