//! The training view: from the settings to a finished run.

use crate::support::{Gui, bare, model, schedule, tell, type_number, with_films};
use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Changes, Command, Error, Event, ForwardSource, Frame, History, JobId, Kind, Metrics, ModelInfo, Outcome, RunConfig,
    ScheduleConfig, Snapshot, StepStats, TrainingState, Trajectory, Which,
};
use ddpm_film::ui::actions::View;
use ddpm_film::ui::state::Phase;
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;

/// What a training tells after that step.
pub fn metrics(step: u64, state: TrainingState) -> Arc<Metrics> {
    let mut history = History::default();
    for step in 1..=step {
        history.push(StepStats {
            step,
            loss: 1.0 / step as f32,
            grad_norm: 0.5,
            learning_rate: 2e-4,
            update_ratio: 1e-3,
            ema_decay: 0.99,
        });
    }
    Arc::new(Metrics {
        step,
        total: 20_000,
        images_per_s: 321.0,
        seconds_left: 75.0,
        preview_share: 0.012,
        state,
        save_failed: None,
        settings: Changes { learning_rate: Some(2e-4), ema_decay: Some(0.9999), preview_every: Some(100) },
        history: Arc::new(history),
        floor: Arc::default(),
        verdicts: Arc::default(),
    })
}

/// The training view with a run that has begun.
pub fn running() -> (Gui, JobId) {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::F3);
    gui.run();
    gui.get_all_by_label("Start training").next().unwrap().click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Train(job, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((request.config.preset.as_str(), request.config.data.as_str()), ("mnist28", "mnist"));
    assert!(request.out.is_none() && request.resume.is_none());
    let job = *job;
    tell(&mut gui, Event::TrainingStarted(job, model()));
    tell(&mut gui, Event::Metrics(job, metrics(1234, TrainingState::Running)));
    gui.run();
    (gui, job)
}

#[test]
fn a_run_starts_pauses_resumes_and_stops() {
    let (mut gui, job) = running();
    for (text, value) in
        [("Step", "1,234 of 20,000"), ("Images/s", "321"), ("Time left", "1:15"), ("Learning rate", "2.0e-4")]
    {
        gui.get_by_label(&format!("{text} {value}"));
    }
    let next = |gui: &mut Gui| gui.state_mut().take_commands().pop();
    gui.get_by_label("Pause").click();
    gui.run();
    assert!(matches!(next(&mut gui), Some(Command::SetTraining(TrainingState::Paused))));
    tell(&mut gui, Event::Metrics(job, metrics(1234, TrainingState::Paused)));
    gui.run();
    gui.get_by_label("Paused");
    gui.key_press(Key::Space);
    gui.run();
    assert!(matches!(next(&mut gui), Some(Command::SetTraining(TrainingState::Running))));
    gui.get_by_label("Stop").click();
    gui.run();
    assert!(matches!(next(&mut gui), Some(Command::Cancel(j)) if j == job));
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    gui.run();
    gui.get_by_label("Stopped");
    gui.get_by_label("Start again");
}

#[test]
fn samples_can_be_asked_for_and_their_cost_is_said() {
    let (mut gui, job) = running();
    tell(&mut gui, Event::Snapshot(job, snapshot(0)));
    gui.run();
    gui.get_by_label("samples cost 1.2 %");
    gui.get_by_label("MODEL · EMA, step below each");
    gui.get_by_label("Sample now").click();
    gui.key_press(Key::S);
    gui.run();
    assert!(matches!(gui.state_mut().take_commands().as_slice(), [Command::Preview, Command::Preview]));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.key_press(Key::S);
    gui.run();
    assert!(gui.query_by_label("Sample now").is_none() && gui.state_mut().take_commands().is_empty());
}

#[test]
fn a_second_start_waits_for_the_first_run_to_end() {
    let (mut gui, job) = running();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty());
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    gui.get_by_label("Finished");
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    gui.run();
    // the first run was kept in memory only
    gui.get_by_label("1,234 steps are in memory only and would be lost");
    assert!(gui.state_mut().take_commands().is_empty());
    gui.get_by_label("Discard").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Train(new, _)] if *new != job), "{commands:?}");
}

#[test]
fn a_failed_run_says_so_and_keeps_its_curve() {
    let (mut gui, job) = running();
    let e = Error::new("cannot save the model", "the disk is full", "free some space").at("/data/run");
    tell(&mut gui, Event::Finished(job, Outcome::Failed(e)));
    gui.run();
    gui.get_by_label("Failed: cannot save the model");
    gui.get_by_label("the disk is full; free some space (/data/run)");
    gui.get_by_label("Step 1,234 of 20,000");
}

#[test]
fn a_run_that_diverged_goes_on_with_half_the_rate_at_one_press() {
    let (mut gui, job) = running();
    let save = |gui: &mut Gui| {
        gui.state_mut().state.file_jobs.push(9);
        tell(gui, Event::Saved(9, Which::Training, "/tmp/model".into()));
        tell(gui, Event::Finished(9, Outcome::Done));
    };
    let e = Error {
        kind: Kind::Diverged,
        ..Error::new("training stopped", "at step 1250 the loss is NaN", "the run is back at step 1200")
    };
    tell(&mut gui, Event::Metrics(job, metrics(1200, TrainingState::Running)));
    tell(&mut gui, Event::Finished(job, Outcome::Failed(e.clone())));
    gui.run();
    gui.get_by_label("Diverged");
    gui.get_by_label("at step 1250 the loss is NaN; the run is back at step 1200");
    assert_eq!(
        gui.get_all_by_label("Go on with half the rate, 1.0e-4").count(),
        2,
        "the message and the view offer it"
    );
    save(&mut gui);
    // the message stays in every view
    gui.key_press(Key::F2);
    gui.run();
    gui.get_by_label("Go on with half the rate, 1.0e-4").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let request = commands.iter().find_map(|c| if let Command::Train(new, r) = c { Some((*new, r)) } else { None });
    let (new, request) = request.unwrap();
    let half = Changes { learning_rate: Some(1e-4), ..Changes::default() };
    assert!(new != job && request.out.is_none() && request.resume == Some(half), "{request:?}");
    assert!(gui.query_by_label("training stopped").is_none() && gui.state().state.running_training().is_some());

    // what was saved is not lost a second time, what comes after is
    tell(&mut gui, Event::TrainingStarted(new, model()));
    tell(&mut gui, Event::Metrics(new, metrics(1200, TrainingState::Running)));
    assert_eq!(gui.state().state.training.as_ref().unwrap().unsaved(), None);
    tell(&mut gui, Event::Metrics(new, metrics(1300, TrainingState::Running)));
    assert_eq!(gui.state().state.training.as_ref().unwrap().unsaved(), Some(100));
    tell(&mut gui, Event::Finished(new, Outcome::Failed(Error::new("cannot compute", "no memory", ""))));
    gui.run();
    assert!(gui.query_by_label_contains("Go on with half").is_none(), "it did not diverge");
}

#[test]
fn the_curve_has_its_choices() {
    let (mut gui, _) = running();
    for label in ["Linear", "Recent", "Whole run", "Logarithmic"] {
        gui.get_by_label(label).click();
        gui.run();
    }
    gui.get_by_role_and_label(Role::Slider, "Smoothing").set_value_accesskit(0.5);
    gui.key_press(Key::L);
    gui.run();
}

/// Films of three states whose pictures are as bright as their step is late.
fn snapshot(step: u64) -> Arc<Snapshot> {
    let film = |raw: f32| {
        let mut film = Trajectory::new(8, [1, 8, 8], schedule());
        for doses in [50, 25, 0] {
            let value = step as f32 / 1000.0 - doses as f32 / 50.0 + raw;
            film.insert(Arc::new(Frame::state(doses, &Images::new(8, [1, 8, 8], vec![value; 8 * 64]))));
        }
        film
    };
    Arc::new(Snapshot { step, ema: film(0.0), raw: film(0.1) })
}

#[test]
fn the_same_noise_is_scrubbed_over_training_steps_and_over_t() {
    let (mut gui, job) = running();
    let images = Arc::new(Images::zeros(8, [1, 8, 8]));
    for step in [0, 42, 84] {
        tell(&mut gui, Event::Snapshot(job, snapshot(step)));
        tell(&mut gui, Event::Snapshot(job + 1, snapshot(step + 1)));
    }
    tell(&mut gui, Event::Preview(job, 100, images));
    gui.run();
    assert_eq!(gui.state().state.training.as_ref().unwrap().snapshots.len(), 3);
    gui.get_by_label("EMA samples of 4 training steps, up to step 100");
    gui.key_press(Key::E);
    gui.run();
    let says = |gui: &Gui, step: u64, t: usize| {
        for copy in ["EMA", "raw"] {
            gui.get_by_label(&format!("MODEL · tiny, step {step}, {copy}, DDIM, t = {t}"));
        }
    };
    says(&gui, 84, 0);
    // it follows the newest until it is moved
    tell(&mut gui, Event::Snapshot(job, snapshot(126)));
    gui.run();
    says(&gui, 126, 0);
    gui.get_by_role_and_label(Role::Slider, "Training step").set_value_accesskit(1.0);
    gui.run();
    gui.get_by_role_and_label(Role::Slider, "t").set_value_accesskit(1.0);
    gui.run();
    says(&gui, 42, 25);
    // a preview has no state at t = 25
    gui.get_by_label("EMA samples of 4 training steps, up to step 126");
    tell(&mut gui, Event::Snapshot(job, snapshot(168)));
    gui.run();
    says(&gui, 42, 25);
    gui.get_by_role_and_label(Role::Slider, "Training step").set_value_accesskit(4.0);
    gui.run();
    tell(&mut gui, Event::Snapshot(job, snapshot(210)));
    gui.run();
    says(&gui, 210, 25);
    gui.get_by_label("Show the curve").click();
    gui.run();
    gui.get_by_label("Whole run");
}

#[test]
fn settings_that_make_no_sense_are_named_before_the_start() {
    let mut gui = bare(1280.0, 800.0);
    gui.state_mut().view = View::Training;
    gui.state_mut().state.run.config.preset = "huge".into();
    gui.run();
    assert!(gui.query_all_by_label_contains("there is no preset \"huge\"").next().is_some());
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty());
    assert_eq!(gui.state().state.banners.len(), 1);
}

#[test]
fn a_folder_for_checkpoints_is_passed_on() {
    let mut gui = bare(1280.0, 800.0);
    gui.state_mut().view = View::Training;
    gui.run();
    gui.get_by_role_and_label(Role::TextInput, "Output folder").click();
    gui.run();
    gui.event(egui::Event::Text("/tmp/run".into()));
    gui.run();
    gui.get_by_label("Go on from the checkpoint there").click();
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Train(_, request)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(
        (request.out.as_deref(), request.resume),
        (Some(std::path::Path::new("/tmp/run")), Some(Changes::default()))
    );
    assert_eq!(gui.state().state.runs.folder, "/tmp", "there it is found among the runs");
}

#[test]
fn a_film_of_the_training_can_be_asked_for_while_it_runs() {
    let (mut gui, _) = running();
    gui.key_press(Key::F2);
    gui.run();
    gui.key_press(Key::F4);
    gui.run();
    gui.get_by_label("In training").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(commands.iter().any(|c| matches!(c, Command::Sample(_, r) if r.which == Which::Training)), "{commands:?}");
}

/// Saves what the window saves, into that folder.
/// Asks to save what the window shows.
pub fn save_as(gui: &mut Gui, path: &str) {
    gui.key_press_modifiers(Modifiers::COMMAND, Key::S);
    gui.run();
    save_to(gui, path);
}

/// Answers the question for a path.
pub fn save_to(gui: &mut Gui, path: &str) {
    gui.event(egui::Event::Text(path.into()));
    gui.run();
    gui.get_by_label("Save").click();
    gui.run();
}

#[test]
fn saving_names_the_folder_and_says_when_it_is_done() {
    let mut gui = with_films(1280.0, 800.0);
    save_as(&mut gui, "/tmp/model");
    let commands = gui.state_mut().take_commands();
    let [Command::Save(job, Which::Loaded, path)] = commands.as_slice() else { panic!("{commands:?}") };
    let (job, path) = (*job, path.clone());
    tell(&mut gui, Event::Saved(job, Which::Loaded, path));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    gui.get_by_label("Model saved");
    gui.get_by_label("/tmp/model");
    assert!(gui.state().state.file_jobs.is_empty() && gui.state().state.reverse.phase == Phase::Done);
}

/// Asks the window to close; whether it does.
pub fn closes(gui: &mut Gui) -> bool {
    let root = gui.input_mut().viewports.get_mut(&egui::ViewportId::ROOT).unwrap();
    root.events.push(egui::ViewportEvent::Close);
    gui.step();
    let commands = &gui.output().viewport_output[&egui::ViewportId::ROOT].commands;
    let held = commands.contains(&egui::ViewportCommand::CancelClose);
    gui.input_mut().viewports.get_mut(&egui::ViewportId::ROOT).unwrap().events.clear();
    gui.run();
    !held
}

/// Whether one of the next frames asks for the end of the window.
pub fn leaves(gui: &mut Gui) -> bool {
    (0..8).any(|_| {
        gui.step();
        gui.output().viewport_output[&egui::ViewportId::ROOT].commands.contains(&egui::ViewportCommand::Close)
    })
}

#[test]
fn closing_asks_before_a_training_is_lost() {
    let mut gui = with_films(1280.0, 720.0);
    assert!(closes(&mut gui), "there is nothing to lose");
    let (mut gui, _) = running();
    assert!(!closes(&mut gui));
    gui.get_by_label("1,234 steps are in memory only and would be lost");
    gui.get_by_label("Cancel").click();
    gui.run();
    assert!(gui.query_by_label("This training is not saved").is_none() && !leaves(&mut gui));
    assert!(!closes(&mut gui));
    gui.get_by_label("Discard").click();
    assert!(leaves(&mut gui) && closes(&mut gui));
}

#[test]
fn closing_waits_for_the_save_and_asks_again_if_it_fails() {
    let (mut gui, _) = running();
    let ask_and_save = |gui: &mut Gui| {
        gui.get_by_label("Save…").click();
        gui.run();
        save_to(gui, "/tmp/model");
        let commands = gui.state_mut().take_commands();
        let [Command::Save(job, Which::Training, _)] = commands.as_slice() else { panic!("{commands:?}") };
        assert!(gui.query_by_label("This training is not saved").is_none() && !leaves(gui));
        *job
    };
    assert!(!closes(&mut gui));
    let job = ask_and_save(&mut gui);
    let e = Error::new("cannot save the model", "the disk is full", "free some space").at("/tmp/model");
    tell(&mut gui, Event::Finished(job, Outcome::Failed(e)));
    gui.run();
    assert!(!leaves(&mut gui));
    gui.get_by_label("This training is not saved");
    let job = ask_and_save(&mut gui);
    tell(&mut gui, Event::Saved(job, Which::Training, "/tmp/model".into()));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    assert!(leaves(&mut gui) && closes(&mut gui));
}

#[test]
fn several_file_jobs_keep_their_own_results() {
    let (mut gui, job) = running();
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    let mut jobs = Vec::new();
    for path in ["/tmp/a", "/tmp/b"] {
        save_as(&mut gui, path);
        jobs.extend(gui.state_mut().take_commands().iter().filter_map(Command::job));
    }
    assert_eq!(gui.state().state.file_jobs, jobs);
    assert!(gui.state().state.training.as_ref().unwrap().unsaved().is_some());
    tell(&mut gui, Event::Saved(jobs[0], Which::Training, "/tmp/a".into()));
    tell(&mut gui, Event::Finished(jobs[0], Outcome::Done));
    tell(
        &mut gui,
        Event::Finished(jobs[1], Outcome::Failed(Error::new("cannot save the model", "why", "").at("/tmp/b"))),
    );
    gui.run();
    gui.get_by_label("/tmp/a");
    gui.get_by_label("why (/tmp/b)");
    assert!(gui.state().state.file_jobs.is_empty());
    assert!(gui.state().state.training.as_ref().unwrap().unsaved().is_none(), "it is in /tmp/a");
    // from now on the loaded model is what is saved, and that is no save of the training
    let saves = |gui: &mut Gui| {
        gui.key_press(Key::F2);
        save_as(gui, "/tmp/d");
        match gui.state_mut().take_commands().as_slice() {
            [.., Command::Save(job, which, _)] => (*job, *which),
            commands => panic!("{commands:?}"),
        }
    };
    let (job, which) = saves(&mut gui);
    assert_eq!(which, Which::Loaded);
    gui.state_mut().state.training.as_mut().unwrap().metrics = Some(metrics(2000, TrainingState::Running));
    tell(&mut gui, Event::Saved(job, which, "/tmp/d".into()));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    assert!(gui.state().state.training.as_ref().unwrap().unsaved().is_some());
    let (job, which) = saves(&mut gui);
    assert_eq!(which, Which::Training, "of its last steps no file holds anything");
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    // what the worker could not even be asked is over, too
    save_as(&mut gui, "/tmp/c");
    let job = gui.state_mut().take_commands()[0].job();
    gui.state_mut().refused(job, Error::new("cannot do that now", "the worker is busy", ""));
    assert!(gui.state().state.file_jobs.is_empty());
}

#[test]
fn reading_the_data_shows_how_far_it_is() {
    let mut gui = with_films(1280.0, 720.0);
    gui.key_press(Key::F3);
    gui.run();
    gui.get_all_by_label("Start training").next().unwrap().click();
    gui.run();
    let job = gui.state_mut().take_commands()[0].job().unwrap();
    tell(&mut gui, Event::Progress { job, done: 1200, total: 50_000 });
    gui.run();
    gui.get_by_label("Reading the data: 1,200 of 50,000");
}

#[test]
fn the_learning_rate_can_be_changed_while_it_runs_and_is_marked() {
    let (mut gui, job) = running();
    gui.key_press(Key::F4);
    gui.run();
    let field = gui.get_all_by_role_and_label(Role::SpinButton, "Learning rate").next().unwrap();
    field.click();
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::A);
    gui.event(egui::Event::Text("0.0005".into()));
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty(), "not before it is whole");
    gui.key_press(Key::Enter);
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Change(changes)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(changes.learning_rate, Some(5e-4));
    let mut told = Metrics::clone(&metrics(1234, TrainingState::Running));
    told.settings = *changes;
    tell(&mut gui, Event::Metrics(job, Arc::new(told)));
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty());
    // its bounds are those of the settings before a start
    for (name, typed, least) in [("Learning rate", "0.00000002", 2e-8), ("EMA decay", "0.9999995", 0.999_999_5)] {
        type_number(&mut gui, name, typed);
        let commands = gui.state_mut().take_commands();
        let [Command::Change(changes)] = commands.as_slice() else { panic!("{commands:?}") };
        assert!([changes.learning_rate, changes.ema_decay].contains(&Some(least)), "{changes:?}");
    }
}

#[test]
fn what_does_not_fit_another_training_gives_way_when_films_are_made_of_it() {
    let (mut gui, job) = running();
    gui.key_press(Key::F2);
    gui.key_press(Key::F4);
    gui.run();
    gui.get_by_label("In training").click();
    gui.run();
    let of_training = |gui: &mut Gui| {
        let commands = gui.state_mut().take_commands();
        let forward = commands.iter().find_map(|c| if let Command::Forward(_, r) = c { Some(r.clone()) } else { None });
        let sample = commands.iter().find_map(|c| if let Command::Sample(_, r) = c { Some(r.clone()) } else { None });
        let (forward, sample) = (forward.expect("a forward film"), sample.expect("a reverse film"));
        assert_eq!((forward.which, sample.which), (Which::Training, Which::Training));
        (forward, sample)
    };
    of_training(&mut gui);
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    // a drawing of 8 x 8, and more steps and a later start than the next network knows
    let settings = &mut gui.state_mut().state.settings;
    settings.source = ForwardSource::Drawn(vec![0; 64].into());
    (settings.steps, settings.from) = (Some(40), Some(30));
    gui.key_press(Key::F3);
    gui.run();
    gui.get_by_label("Start again").click();
    gui.run();
    gui.get_by_label("Discard").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let job = commands.iter().find_map(|c| if let Command::Train(job, _) = c { Some(*job) } else { None }).unwrap();
    let schedule_config = ScheduleConfig { steps: 20, ..Default::default() };
    let schedule = Arc::new(ddpm_film::engine::Schedule::new(&schedule_config).unwrap());
    let next = ModelInfo { shape: [1, 16, 16], schedule, schedule_config, ..model().as_ref().clone() };
    tell(&mut gui, Event::TrainingStarted(job, Arc::new(next)));
    let (forward, sample) = of_training(&mut gui);
    assert_eq!((forward.source, sample.steps, sample.from), (ForwardSource::Data, None, None));
    // the schedule view is that of the films
    gui.key_press(Key::F7);
    gui.run();
    assert_eq!(gui.get_by_role_and_label(Role::SpinButton, "T").value().as_deref(), Some("20"));
    // one that cannot begin leaves the one before it
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.key_press(Key::F3);
    gui.run();
    let again = |gui: &mut Gui| {
        gui.get_by_label("Start again").click();
        gui.run();
        let commands = gui.state_mut().take_commands();
        commands.iter().find_map(|c| if let Command::Train(job, _) = c { Some(*job) } else { None }).unwrap()
    };
    let refused = again(&mut gui);
    let e = Error::new("cannot take this folder", "another run is writing there", "choose another folder");
    tell(&mut gui, Event::Finished(refused, Outcome::Failed(e)));
    assert!(gui.state_mut().take_commands().is_empty());
    assert_eq!(gui.state().state.training.as_ref().map(|t| t.job), Some(job));
    gui.run();
    gui.get_by_label("Finished");
    // one that is stopped before it began leaves the loaded model
    let stopped = again(&mut gui);
    tell(&mut gui, Event::Finished(stopped, Outcome::Cancelled));
    let commands = gui.state_mut().take_commands();
    assert!(commands.iter().any(|c| matches!(c, Command::Sample(_, r) if r.which == Which::Loaded)), "{commands:?}");
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::S);
    gui.run();
    gui.get_by_label("Save model: tiny");
}

/// A run that was stopped and is asked to go on; its data are still on their way.
pub fn going_on() -> Gui {
    let (mut gui, job) = running();
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    gui.run();
    gui.get_by_label("Go on").click();
    gui.run();
    gui
}

#[test]
fn a_training_that_was_stopped_goes_on() {
    let commands = going_on().state_mut().take_commands();
    assert!(
        matches!(&commands[..], [Command::Train(_, request)] if request.resume == Some(Changes::default())),
        "{commands:?}"
    );
}

#[test]
fn the_training_of_the_lecture_is_not_followed_by_that_of_the_form() {
    let mut gui = with_films(1280.0, 800.0);
    gui.state_mut().take_commands();
    gui.key_press(Key::F3);
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::L);
    gui.run();
    let job = gui.state_mut().take_commands().iter().find_map(Command::job).unwrap();
    tell(&mut gui, Event::TrainingStarted(job, model()));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    gui.get_by_label("Digits again").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(
        matches!(&commands[..], [Command::Train(_, request)] if request.config == RunConfig::lecture()),
        "{commands:?}"
    );
}

#[test]
fn closing_while_another_training_is_asked_about_closes() {
    let (mut gui, job) = running();
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    gui.run();
    gui.get_by_label("Start again").click();
    gui.run();
    gui.get_by_label("This training is not saved");
    assert!(!closes(&mut gui));
    gui.get_by_label("Discard").click();
    assert!(leaves(&mut gui) && closes(&mut gui));
    assert!(!gui.state_mut().take_commands().iter().any(|c| matches!(c, Command::Train(..))));
}

#[test]
fn the_name_of_a_model_keeps_its_underscores() {
    let (mut gui, _) = running();
    tell(&mut gui, Event::ModelChanged(Arc::new(ModelInfo { name: "my_run_2".into(), ..model().as_ref().clone() })));
    gui.key_press(Key::F2);
    gui.key_press(Key::F4);
    gui.run();
    gui.get_by_label("my_run_2");
}
