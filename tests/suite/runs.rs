//! The list of runs: whole, broken, foreign, many.

use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, JobId, ListedRun, Options, Outcome, RunConfig, TrainRequest,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn engine() -> Engine {
    Engine::start(Options { device: DeviceChoice::Cpu, threads: 2, model: None }, || ()).unwrap()
}

fn wait(engine: &Engine, job: JobId) -> (Vec<Arc<ListedRun>>, u64, Outcome) {
    let (mut runs, mut read) = (Vec::new(), 0);
    for _ in 0..100_000 {
        match engine.wait(Duration::from_secs(120)).unwrap().unwrap() {
            Event::Run(id, run) if id == job => runs.push(run),
            Event::Progress { job: id, done, .. } if id == job => read = done,
            Event::Finished(id, outcome) if id == job => return (runs, read, outcome),
            _ => {}
        }
    }
    panic!("job {job} did not end");
}

fn list(engine: &Engine, folder: &Path) -> Vec<Arc<ListedRun>> {
    let job = engine.new_job();
    engine.send(Command::ReadRuns(job, folder.to_owned())).unwrap();
    let (runs, _, outcome) = wait(engine, job);
    assert_eq!(outcome, Outcome::Done);
    runs
}

fn train(engine: &Engine, out: &Path) {
    let config =
        RunConfig { preset: "digits16".into(), steps: 3, batch: 8, seed: 9, preview_every: 0, ..RunConfig::default() };
    let request =
        TrainRequest { config, out: Some(out.to_owned()), resume: None, save_every: None, preview_share: None };
    let job = engine.new_job();
    engine.send(Command::Train(job, Box::new(request))).unwrap();
    assert_eq!(wait(engine, job).2, Outcome::Done);
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn runs_are_listed_with_what_they_say_and_broken_ones_with_a_sentence() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = engine();
    let [whole, damaged, empty] = ["whole", "damaged", "empty"].map(|name| tmp.path().join(name));
    train(&engine, &whole);
    copy(&whole, &damaged);
    // without its previous save nothing is left to read
    fs::remove_dir_all(damaged.join("film/previous")).unwrap();
    fs::write(damaged.join("film/state.json"), "{").unwrap();
    fs::create_dir_all(empty.join("film")).unwrap();
    fs::create_dir(tmp.path().join("holiday pictures")).unwrap();
    fs::write(tmp.path().join("film"), "a file").unwrap();

    let runs = list(&engine, tmp.path());
    let names: Vec<String> = runs.iter().map(|run| run.name()).collect();
    assert_eq!(names, ["damaged", "empty", "whole"]);
    for broken in &runs[..2] {
        let sentence = broken.read.as_ref().unwrap_err().to_string();
        assert!(sentence.starts_with("cannot read this run: ") && !sentence.contains('\n'), "{sentence}");
    }
    let summary = runs[2].read.as_ref().unwrap();
    assert_eq!((summary.step, summary.config.seed, summary.config.steps), (3, 9, 3));
    assert_eq!(summary.history.whole().len(), 3);
    assert!(runs[2].saved.unwrap().elapsed().unwrap() < Duration::from_secs(3600));
    let (step, pictures) = summary.pictures.as_ref().unwrap();
    assert_eq!((*step, pictures.n, pictures.shape()), (0, 8, [1, 16, 16]));
    assert!(summary.notes.is_empty());

    let job = engine.new_job();
    engine.send(Command::SaveNotes(job, whole.clone(), "the good one ✓".into())).unwrap();
    assert_eq!(wait(&engine, job).2, Outcome::Done);
    assert_eq!(list(&engine, tmp.path())[2].read.as_ref().unwrap().notes, "the good one ✓");
    // what another program left there stays
    let notes = whole.join("film/notes.txt");
    fs::write(&notes, b"caf\xe9").unwrap();
    let job = engine.new_job();
    engine.send(Command::SaveNotes(job, whole.clone(), "new".into())).unwrap();
    let refused = |e: &ddpm_film::error::Error| e.to_string().contains("the notes that are there cannot be read");
    assert!(matches!(wait(&engine, job).2, Outcome::Failed(e) if refused(&e)));
    assert_eq!(fs::read(&notes).unwrap(), b"caf\xe9");
    let job = engine.new_job();
    engine.send(Command::SaveNotes(job, tmp.path().join("nowhere"), "lost".into())).unwrap();
    assert!(matches!(wait(&engine, job).2, Outcome::Failed(e) if e.to_string().contains("cannot save the notes")));
    let job = engine.new_job();
    engine.send(Command::ReadRuns(job, tmp.path().join("nowhere"))).unwrap();
    assert!(matches!(wait(&engine, job).2, Outcome::Failed(e) if e.to_string().contains("cannot list the runs")));
}

#[test]
fn of_a_folder_with_more_runs_than_a_list_holds_the_rest_is_said() {
    let tmp = tempfile::tempdir().unwrap();
    (0..1002).for_each(|i| fs::create_dir_all(tmp.path().join(format!("{i:04}/film"))).unwrap());
    let engine = engine();
    let job = engine.new_job();
    engine.send(Command::ReadRuns(job, tmp.path().to_owned())).unwrap();
    let said = loop {
        if let Some(Event::Warning(said)) = engine.wait(Duration::from_secs(60)).unwrap() {
            break said;
        }
    };
    assert!(said.contains("it holds 1002 runs; the first 1000 by name are listed"), "{said}");
    assert_eq!(wait(&engine, job).0.len(), 1000);
}

#[test]
fn a_hundred_runs_are_read_one_a_unit_and_can_be_stopped() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = engine();
    let first = tmp.path().join("000");
    train(&engine, &first);
    for file in ["unet", "scheduler", "film/raw.safetensors", "film/adam.safetensors", "film/previous"] {
        let path = first.join(file);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    (1..100).for_each(|i| copy(&first, &tmp.path().join(format!("{i:03}"))));
    let start = Instant::now();
    assert_eq!(list(&engine, tmp.path()).len(), 100);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let (job, newer) = (engine.new_job(), engine.new_job());
    engine.send(Command::ReadRuns(job, tmp.path().to_owned())).unwrap();
    engine.send(Command::ReadRuns(newer, tmp.path().to_owned())).unwrap();
    assert_eq!(wait(&engine, job).2, Outcome::Cancelled);
    assert_eq!(wait(&engine, newer).0.len(), 100);
}
