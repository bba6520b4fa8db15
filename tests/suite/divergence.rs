//! A training that comes to what is no number: it stops, nothing of that reaches the disk, and it can go on from its last
//! good state.

use candle_core::Device;
use ddpm_film::checkpoint;
use ddpm_film::engine::{
    Changes, Command, DeviceChoice, Engine, Event, JobId, Kind, Metrics, Options, Outcome, RunConfig, TrainRequest,
    Which,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BROKEN: &str = "mid_block.resnets.0.conv1.weight";

struct Trained {
    outcome: Outcome,
    last: Arc<Metrics>,
}

fn until_finished(engine: &Engine, job: JobId) -> (Option<Arc<Metrics>>, Outcome) {
    let (deadline, mut last) = (Instant::now() + Duration::from_secs(120), None);
    while Instant::now() < deadline {
        match engine.wait(Duration::from_secs(1)).unwrap() {
            Some(Event::Finished(id, outcome)) if id == job => return (last, outcome),
            Some(Event::Metrics(id, metrics)) if id == job => last = Some(metrics),
            _ => {}
        }
    }
    panic!("job {job} did not end");
}

fn train(engine: &Engine, steps: u64, out: Option<PathBuf>, resume: Option<f64>) -> Trained {
    let config =
        RunConfig { preset: "digits16".into(), steps, batch: 4, warmup: 0, preview_every: 0, ..RunConfig::default() };
    let resume = resume.map(|rate| Changes { learning_rate: Some(rate), ..Changes::default() });
    let job = engine.new_job();
    let request = TrainRequest { config, out, resume, save_every: None, preview_share: None };
    engine.send(Command::Train(job, Box::new(request))).unwrap();
    let (last, outcome) = until_finished(engine, job);
    Trained { outcome, last: last.expect("a training tells how it goes") }
}

fn engine() -> Engine {
    Engine::start(Options { device: DeviceChoice::Cpu, threads: 2, model: None }, || ()).unwrap()
}

fn raw(dir: &Path) -> Vec<f32> {
    checkpoint::load(dir, &Device::Cpu).unwrap().training.unwrap().raw.to_flat().unwrap()
}

/// Two steps of a run, then moments of one layer with which an update at rate 1 overflows and one at rate 1/2 does not.
fn close_to_overflow(engine: &Engine, dir: &Path) {
    assert_eq!(train(engine, 2, Some(dir.to_owned()), None).outcome, Outcome::Done);
    let mut saved = checkpoint::load(dir, &Device::Cpu).unwrap();
    let (m, v) = saved.training.as_mut().unwrap().adam.as_mut().unwrap();
    for (moment, value) in [(m, 2.2e37), (v, 1e-4)] {
        let broken: Vec<_> = moment
            .iter()
            .map(|(name, t)| if name == BROKEN { (t.ones_like().unwrap() * value).unwrap() } else { t.clone() })
            .collect();
        *moment = moment.with_tensors(broken.into_iter());
    }
    checkpoint::save(dir, &saved).unwrap();
}

#[test]
fn an_update_that_overflows_stops_the_run_and_half_the_rate_goes_on() {
    let tmp = tempfile::tempdir().unwrap();
    let [dir, by_hand] = ["run", "by hand"].map(|name| tmp.path().join(name));
    let engine = engine();
    close_to_overflow(&engine, &dir);
    let before = raw(&dir);

    let stopped = train(&engine, 3, Some(dir.clone()), Some(1.0));
    let Outcome::Failed(e) = &stopped.outcome else { panic!("it went on") };
    assert_eq!((e.kind, e.what.as_str()), (Kind::Diverged, "training stopped"));
    assert!(e.why.contains(&format!("step 3 makes {BROKEN} not a number")), "{e}");
    assert!(raw(&dir) == before, "what is no number, or no good state, reached the disk");
    assert_eq!((stopped.last.step, stopped.last.settings.learning_rate), (2, Some(1.0)));

    // without a folder it goes on from what is in memory
    let half = train(&engine, 3, None, Some(0.5));
    assert_eq!((&half.outcome, half.last.step), (&Outcome::Done, 3));
    let change = half.last.history.changes().last().unwrap();
    assert_eq!((change.after, change.to), (2, 0.5));
    let job = engine.new_job();
    engine.send(Command::Save(job, Which::Training, by_hand.clone())).unwrap();
    assert_eq!(until_finished(&engine, job).1, Outcome::Done);

    let same = train(&engine, 3, Some(dir.clone()), Some(0.5));
    assert_eq!((same.outcome, same.last.step), (Outcome::Done, 3));
    assert!(raw(&dir) == raw(&by_hand) && raw(&dir).iter().all(|v| v.is_finite()));
}

#[test]
fn a_run_in_memory_goes_on_as_if_it_had_not_stopped() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = engine();
    let save = |name: &str| {
        let (job, dir) = (engine.new_job(), tmp.path().join(name));
        engine.send(Command::Save(job, Which::Training, dir.clone())).unwrap();
        assert_eq!(until_finished(&engine, job).1, Outcome::Done);
        raw(&dir)
    };
    assert_eq!(train(&engine, 2, None, None).outcome, Outcome::Done);
    let on = train(&engine, 4, None, Some(2e-4));
    assert_eq!((&on.outcome, on.last.step, on.last.history.recent().len()), (&Outcome::Done, 4, 4));
    let halves = save("halves");
    let snapshots = std::fs::read_dir(tmp.path().join("halves/film/snapshots")).unwrap().count();
    assert_eq!(snapshots, 1, "the start of the run is lost");
    let whole = train(&engine, 4, None, None);
    assert!(whole.outcome == Outcome::Done && save("whole") == halves);
    assert_eq!(whole.last.history, on.last.history);
}

#[test]
fn without_a_folder_and_a_training_there_is_nothing_to_go_on_with() {
    let engine = engine();
    let config = RunConfig { preset: "digits16".into(), ..RunConfig::default() };
    let resume = Some(Changes::default());
    let request = TrainRequest { config, out: None, resume, save_every: None, preview_share: None };
    engine.send(Command::Train(1, Box::new(request))).unwrap();
    let (_, Outcome::Failed(e)) = until_finished(&engine, 1) else { panic!("it went on with nothing") };
    let says = "cannot resume: no folder was named, and no training is in memory; name the folder of the run";
    assert_eq!((e.kind, e.to_string().as_str()), (Kind::Usage, says));
}
