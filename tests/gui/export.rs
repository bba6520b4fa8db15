//! A film as a file: the question, the progress, the clipboard, and a film made again.

use crate::support::{self, Gui, STEPS, begin, export, film_jobs, frame, known, model, provenance, tell, with_films};
use ddpm_film::engine::{
    Command, Container, Error, Event, ExportRequest, ForkRequest, Format, ForwardSource, JobId, Left, Maker, ModelInfo,
    Outcome, Provenance, Quantity, Recipe, SamplerKind,
};
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;
use std::path::Path;
use std::sync::Arc;

fn asked(gui: &mut Gui) -> (JobId, Box<ExportRequest>) {
    let commands = gui.state_mut().take_commands();
    let [Command::Export(job, request)] = commands.as_slice() else { panic!("{commands:?}") };
    (*job, request.clone())
}

fn open(gui: &mut Gui) {
    gui.key_press_modifiers(Modifiers::COMMAND, Key::E);
    gui.run();
    gui.get_by_label("Export film");
}

/// Names the file to write.
fn name(gui: &mut Gui, path: &Path) {
    gui.get_by_role_and_label(Role::TextInput, "File").focus();
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::A);
    gui.get_by_role_and_label(Role::TextInput, "File").type_text(path.to_str().unwrap());
    gui.run();
}

#[test]
fn a_file_that_is_there_is_replaced_only_when_asked_twice() {
    let tmp = tempfile::tempdir().unwrap();
    let [old, other] = ["old.gif", "other.gif"].map(|name| tmp.path().join(name));
    std::fs::write(&old, "precious").unwrap();
    let mut gui = with_films(1280.0, 800.0);
    open(&mut gui);
    name(&mut gui, &old);
    gui.get_by_label("Export").click();
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty());
    gui.get_by_label("A file of this name is there already");
    // another name is no replacement
    name(&mut gui, &other);
    assert!(gui.query_by_label("Replace").is_none());
    name(&mut gui, &old);
    gui.get_by_label("Replace").click();
    gui.run();
    assert_eq!(asked(&mut gui).1.path, old);
    assert_eq!(std::fs::read(&old).unwrap(), b"precious", "the worker writes it, whole or not at all");
}

#[test]
fn a_film_is_exported_as_it_was_asked_for() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::P);
    gui.run();
    open(&mut gui);
    gui.get_by_label("APNG").click();
    gui.run();
    gui.get_by_label("There and back").click();
    export(&mut gui);
    let (job, request) = asked(&mut gui);
    assert_eq!(request.format, Format::Movie(Container::Apng));
    assert!(request.path.ends_with("film.png"), "{:?}", request.path);
    assert_eq!((request.moments.len(), request.moments[0], request.moments[STEPS]), (2 * STEPS + 1, STEPS, 0));
    assert!(request.forward.is_some() && request.reverse.is_some() && request.captions);
    assert_eq!(request.quantity, Quantity::PredictedStart);
    assert_eq!((request.recipe.hash.as_str(), request.recipe.sample.seed), (model().hash.as_str(), 3));
    // while it is written the dialog says how far it has come, and can stop it
    tell(&mut gui, Event::Progress { job, done: 40, total: 101 });
    gui.run();
    gui.get_by_label("Cancel export").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    assert!(matches!(commands.as_slice(), [Command::Cancel(cancelled)] if *cancelled == job), "{commands:?}");
    tell(&mut gui, Event::Finished(job, Outcome::Cancelled));
    gui.run();
    gui.get_by_label("Export");
    assert!(gui.state().state.banners.is_empty());
}

#[test]
fn the_part_that_repeats_is_what_is_exported() {
    let mut gui = with_films(1280.0, 800.0);
    for (doses, key) in [(40, Key::I), (10, Key::O)] {
        gui.state_mut().state.playback.seek(doses);
        gui.key_press(key);
        gui.run();
    }
    open(&mut gui);
    gui.get_by_role_and_label(Role::Button, "Reverse").click();
    gui.run();
    gui.get_by_label("CSV").click();
    gui.run();
    export(&mut gui);
    let (job, request) = asked(&mut gui);
    assert_eq!((request.moments.first(), request.moments.last()), (Some(&40), Some(&10)));
    assert!(request.forward.is_none() && request.path.ends_with("film.csv"));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.run();
    gui.get_by_label("Film saved");
}

#[test]
fn the_frame_goes_to_the_clipboard() {
    let mut gui = with_films(1280.0, 800.0);
    gui.event(egui::Event::Copy);
    gui.step();
    let copied = gui.output().platform_output.commands.iter().any(|c| matches!(c, egui::OutputCommand::CopyImage(_)));
    gui.run();
    assert!(copied || gui.query_by_label("Frame copied").is_some());
}

fn recipe(hash: &str, model: &str) -> Box<Recipe> {
    let mut gui = with_films(1280.0, 800.0);
    let settings = gui.state_mut().state.settings.clone();
    let mut sample = settings.sample_request();
    let mut forward = settings.forward_request();
    (sample.seed, sample.n, sample.sampler) = (77, 9, SamplerKind::Ddim { eta: 0.5 });
    (forward.seed, forward.n, forward.source) = (77, 9, ForwardSource::Photo(1));
    Box::new(Recipe { model: model.into(), hash: hash.into(), step: Some(5), sample, forks: Vec::new(), forward })
}

#[test]
fn a_dropped_film_is_made_again_exactly() {
    let mut gui = with_films(1280.0, 800.0);
    let recipe = recipe(&model().hash, "tiny");
    tell(&mut gui, Event::Recipe(9, "/tmp/film.gif".into(), Some(recipe.clone())));
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Sample(_, sample), Command::Forward(_, forward)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!((sample, forward), (&recipe.sample, &recipe.forward));
}

#[test]
fn a_branch_is_exported_with_what_it_left_and_made_again_from_its_recipe() {
    let mut gui = with_films(1280.0, 800.0);
    let root = gui.state().state.reverse.job.unwrap();
    let mut jobs = Vec::new();
    for doses in [30, 20] {
        gui.state_mut().state.playback.seek(doses);
        gui.key_press(Key::F);
        gui.run();
        let commands = gui.state_mut().take_commands();
        let [Command::Fork(job, _)] = commands.as_slice() else { panic!("{commands:?}") };
        jobs.push(*job);
        let oracle = (doses == 30).then(known);
        let by = Provenance { oracle, ..provenance() };
        tell(&mut gui, Event::SampleStarted(*job, Box::new(support::film(4, doses)), by));
        (0..=doses).rev().for_each(|doses| tell(&mut gui, Event::Frame(*job, frame(4, doses))));
        tell(&mut gui, Event::Finished(*job, Outcome::Done));
    }
    open(&mut gui);
    export(&mut gui);
    let (_, request) = asked(&mut gui);
    assert_eq!(request.reverse.as_ref().map(|(job, film)| (*job, film.beginning())), Some((jobs[1], STEPS)));
    let left = [
        Left { job: jobs[0], doses: 20, by: Maker::Oracle },
        Left { job: root, doses: 30, by: Maker::Model { step: Some(40_000), weights: "EMA" } },
    ];
    assert!(request.left == left && request.by != Maker::Oracle, "{:?}", request.left);
    let forks = request.recipe.forks.clone();
    assert_eq!(forks.iter().map(|fork| fork.doses).collect::<Vec<_>>(), [30, 20]);
    assert_eq!(request.recipe.sample.seed, 3);
    // such a file, dropped: the film first, then each branch of the one before
    tell(&mut gui, Event::Recipe(9, "/tmp/film.gif".into(), Some(Box::new(request.recipe))));
    let (Some(film), _) = film_jobs(&mut gui) else { panic!() };
    begin(&mut gui, film, support::film(4, STEPS));
    let commands = gui.state_mut().take_commands();
    let [Command::Fork(first, one), Command::Fork(second, two)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((one, two), (&forks[0].request(film), &forks[1].request(*first)));
    tell(&mut gui, Event::Frame(film, frame(4, STEPS)));
    gui.run();
    let state = &gui.state().state;
    assert_eq!((state.shown().job, state.extent().reached, state.branches.len()), (Some(*second), Some(STEPS), 2));
    // without its branches the next film has none
    tell(&mut gui, Event::Recipe(9, "/tmp/film.gif".into(), Some(recipe(&model().hash, "tiny"))));
    let (Some(film), _) = film_jobs(&mut gui) else { panic!() };
    begin(&mut gui, film, support::film(9, STEPS));
    assert!(gui.state().state.branches.is_empty() && gui.state_mut().take_commands().is_empty());
}

#[test]
fn a_film_of_another_model_says_which() {
    let mut gui = with_films(1280.0, 800.0);
    tell(&mut gui, Event::Recipe(9, "/tmp/film.gif".into(), Some(recipe("f00d", "cats"))));
    gui.run();
    gui.get_by_label("This film needs the model cats, step 5");
    assert_eq!(film_jobs(&mut gui), (None, None));
    // another model makes its own film, the one that is needed that of the file
    let cats = |hash: &str| ModelInfo { name: "cats".into(), hash: hash.into(), ..ModelInfo::clone(&model()) }.into();
    assert_ne!(opened(&mut gui, ModelInfo { hash: "beef".into(), ..ModelInfo::clone(&model()) }.into()), 77);
    assert_ne!(opened(&mut gui, cats("beef")), 77);
    assert_eq!(opened(&mut gui, cats("f00d")), 77);
    assert!(gui.state().state.to_restore.is_none());
    // the model inside the program is loaded by itself, and asked for once, or again where that failed
    let drop = |gui: &mut Gui| {
        tell(gui, Event::Recipe(9, "/tmp/film.gif".into(), Some(recipe("1dea", "mnist28"))));
        gui.state_mut().take_commands()
    };
    let commands = drop(&mut gui);
    let [Command::Load(job, _)] = commands.as_slice() else { panic!("{commands:?}") };
    assert!(drop(&mut gui).is_empty());
    let failed = Error::usage("cannot open the model", "it is gone", "open another one");
    tell(&mut gui, Event::Finished(*job, Outcome::Failed(failed)));
    assert_ne!(opened(&mut gui, cats("dada")), 77);
    let commands = drop(&mut gui);
    assert!(matches!(commands.as_slice(), [Command::Load(..)]), "{commands:?}");
    let shipped = ModelInfo { name: "mnist28".into(), hash: "beef".into(), ..ModelInfo::clone(&model()) };
    assert_ne!(opened(&mut gui, shipped.into()), 77, "a film of the model that is there now");
    gui.run();
    gui.get_by_label("This film needs the model mnist28, step 5");
}

/// The seed of the film that is asked for when a model has come.
fn opened(gui: &mut Gui, model: Arc<ModelInfo>) -> u64 {
    gui.state_mut().state.settings.seed = 3;
    tell(gui, Event::ModelChanged(model));
    let seeds = gui.state_mut().take_commands().into_iter().filter_map(|command| match command {
        Command::Sample(_, request) => Some(request.seed),
        _ => None,
    });
    let seeds: Vec<_> = seeds.collect();
    let [seed] = seeds[..] else { panic!("{seeds:?}") };
    seed
}

#[test]
fn branches_of_a_dropped_film_are_not_those_of_the_same_film_before() {
    let mut gui = with_films(1280.0, 800.0);
    let mut forks = Vec::new();
    for doses in [40, 20] {
        if let Some(film) = gui.query_by_label("The film: t = 50 → 0") {
            film.click();
            gui.run();
        }
        gui.state_mut().state.playback.seek(doses);
        gui.key_press(Key::F);
        gui.run();
        let commands = gui.state_mut().take_commands();
        let [Command::Fork(job, fork)] = commands.as_slice() else { panic!("{commands:?}") };
        begin(&mut gui, *job, support::film(4, doses));
        (0..=doses).rev().for_each(|doses| tell(&mut gui, Event::Frame(*job, frame(4, doses))));
        tell(&mut gui, Event::Finished(*job, Outcome::Done));
        forks.push(fork.clone());
    }
    assert_eq!(forks[0].parent, forks[1].parent, "both leave the film");
    open(&mut gui);
    export(&mut gui);
    let (export, request) = asked(&mut gui);
    assert_eq!(request.recipe.forks.len(), 1, "the second");
    tell(&mut gui, Event::Recipe(9, "/tmp/film.gif".into(), Some(Box::new(request.recipe))));
    let (Some(film), _) = film_jobs(&mut gui) else { panic!() };
    begin(&mut gui, film, support::film(4, STEPS));
    let commands = gui.state_mut().take_commands();
    let [Command::Fork(dropped, same)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(*same, ForkRequest { parent: film, ..forks[1].clone() });
    tell(&mut gui, Event::Finished(export, Outcome::Done));
    gui.key_press(Key::Escape);
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Forget(gone), Command::Fork(_, first), Command::Fork(_, second)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!(*gone, [*dropped]);
    for (made, fork) in [first, second].into_iter().zip(forks) {
        assert_eq!(*made, ForkRequest { parent: film, ..fork });
    }
}
