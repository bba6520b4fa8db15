//! Snapshots of a training: the same ones after a stop, whatever lies in their folder.

use ddpm_film::engine::Which;
use ddpm_film::engine::{
    Changes, Command, DeviceChoice, Engine, Event, JobId, Options, Outcome, RunConfig, Snapshot, TrainRequest,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn engine() -> Engine {
    Engine::start(Options { device: DeviceChoice::Cpu, threads: 2, model: None }, || ()).unwrap()
}

/// A training of so many steps, whose snapshots are due at 0 and 21.
fn request(out: Option<&Path>, steps: u64, resume: bool) -> TrainRequest {
    let config = RunConfig { preset: "digits16".into(), steps, batch: 128, preview_every: 10, ..RunConfig::default() };
    let resume = resume.then(Changes::default);
    TrainRequest { config, out: out.map(Path::to_owned), resume, save_every: None, preview_share: None }
}

struct Run {
    snapshots: Vec<Arc<Snapshot>>,
    warnings: Vec<String>,
    outcome: Outcome,
}

fn wait(engine: &Engine, job: JobId) -> Run {
    let (mut snapshots, mut warnings) = (Vec::new(), Vec::new());
    for _ in 0..100_000 {
        match engine.wait(Duration::from_secs(120)).unwrap().unwrap() {
            Event::Snapshot(id, snapshot) if id == job => snapshots.push(snapshot),
            Event::Warning(words) => warnings.push(words),
            Event::Finished(id, outcome) if id == job => return Run { snapshots, warnings, outcome },
            _ => {}
        }
    }
    panic!("job {job} did not end");
}

fn train(engine: &Engine, request: TrainRequest) -> Run {
    let job = engine.new_job();
    engine.send(Command::Train(job, Box::new(request))).unwrap();
    let run = wait(engine, job);
    assert_eq!(run.outcome, Outcome::Done);
    run
}

fn steps(run: &Run) -> Vec<u64> {
    run.snapshots.iter().map(|s| s.step).collect()
}

/// Names and bytes of the snapshots in a run's folder.
fn files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(run.join("film/snapshots")).unwrap().map(|e| e.unwrap());
    let mut files: Vec<_> =
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_resumed_run_has_the_snapshots_of_one_that_never_stopped() {
    let tmp = tempfile::tempdir().unwrap();
    let [whole, stopped] = ["whole", "stopped"].map(|name| tmp.path().join(name));
    let engine = engine();
    let first = train(&engine, request(Some(&whole), 23, false));
    assert_eq!(steps(&first), [0, 21]);
    let film = |s: &Snapshot| s.states().len();
    assert!(first.snapshots.iter().all(|s| film(s) == 21 && s.states()[20] == 0));
    // one noise: what all films start from
    let static_of = |s: &Snapshot| (Snapshot::pictures(&s.ema, 1000), Snapshot::pictures(&s.raw, 1000));
    assert!(first.snapshots.iter().all(|s| static_of(s) == static_of(&first.snapshots[0])));
    let last = &first.snapshots[1];
    assert_ne!(Snapshot::pictures(&last.ema, 0), Snapshot::pictures(&last.raw, 0));

    // the run ends, or is killed, while the snapshot of its step is still being drawn
    assert_eq!(steps(&train(&engine, request(Some(&stopped), 21, false))), [0, 21]);
    let of_21 = files(&stopped).remove(1);
    fs::remove_file(stopped.join("film/snapshots").join(&of_21.0)).unwrap();
    assert_eq!(steps(&train(&engine, request(Some(&stopped), 21, true))), [0, 21]);
    assert!(files(&stopped).remove(1) == of_21);
    fs::remove_file(stopped.join("film/snapshots").join(&of_21.0)).unwrap();
    // and a later one lies there whose steps were lost
    let late = files(&whole).remove(1);
    fs::write(stopped.join("film/snapshots").join(late.0.replace("21", "22")), late.1).unwrap();
    let second = train(&engine, request(Some(&stopped), 23, true));
    assert_eq!(steps(&second), [0, 21]);
    assert!(second.warnings.is_empty(), "{:?}", second.warnings);
    assert!(files(&stopped) == files(&whole));
    assert_eq!(files(&stopped)[1], of_21);
}

#[test]
fn nothing_in_the_folder_of_the_snapshots_can_break_a_resume() {
    let tmp = tempfile::tempdir().unwrap();
    let run = tmp.path().join("run");
    let engine = engine();
    train(&engine, request(Some(&run), 22, false));
    let folder = run.join("film/snapshots");
    let names: Vec<String> = files(&run).into_iter().map(|f| f.0).collect();
    let mut bytes = fs::read(folder.join(&names[1])).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(folder.join(&names[1]), bytes).unwrap();
    fs::write(folder.join("000000005.safetensors"), "not one").unwrap();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    fs::create_dir(folder.join("000000006.safetensors")).unwrap();
    let again = train(&engine, request(Some(&run), 23, true));
    assert_eq!(steps(&again), [0]);
    let words = &again.warnings[0];
    assert!(words.contains("snapshot") && words.contains("training goes on") && !words.contains('\n'), "{words}");
    assert_eq!(again.warnings.len(), 1);
    assert_eq!(fs::read_to_string(folder.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_run_in_memory_keeps_its_snapshots_and_a_save_by_hand_writes_them() {
    let tmp = tempfile::tempdir().unwrap();
    let [by_hand, in_folder] = ["by hand", "in folder"].map(|name| tmp.path().join(name));
    let engine = engine();
    assert_eq!(steps(&train(&engine, request(Some(&in_folder), 22, false))), [0, 21]);
    assert_eq!(steps(&train(&engine, request(None, 22, false))), [0, 21]);
    let save = engine.new_job();
    engine.send(Command::Save(save, Which::Training, by_hand.clone())).unwrap();
    assert_eq!(wait(&engine, save).outcome, Outcome::Done);
    assert!(files(&by_hand) == files(&in_folder));
}
