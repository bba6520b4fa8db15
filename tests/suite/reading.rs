//! Data are read beside everything else: a training goes on, what waits keeps its order, what was read is kept.

use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, ForwardSource, JobId, LookRequest, Options, Origin, Outcome, Predictor,
    RunConfig, SampleRequest, SamplerKind, TrainRequest, TrainingState, Which,
};
use std::path::Path;
use std::time::{Duration, Instant};

fn engine() -> Engine {
    Engine::start(Options { device: DeviceChoice::Cpu, threads: 2, model: None }, || ()).unwrap()
}

/// So many pictures of 400x400 in little room on the disk.
fn folder(pictures: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    image::GrayImage::from_fn(400, 400, |x, y| image::Luma([(x ^ y) as u8])).save(dir.path().join("0.png")).unwrap();
    for i in 1..pictures {
        std::fs::hard_link(dir.path().join("0.png"), dir.path().join(format!("{i}.png"))).unwrap();
    }
    dir
}

fn look(job: JobId, dir: &Path, again: bool) -> Command {
    let config = RunConfig { data: dir.display().to_string(), ..RunConfig::default() };
    Command::Look(job, LookRequest { data: config.source(), shape: [1, 16, 16], again })
}

fn train(job: JobId, data: String) -> Command {
    let config = RunConfig { preset: "digits16".into(), data, batch: 4, preview_every: 0, ..RunConfig::default() };
    Command::Train(
        job,
        Box::new(TrainRequest { config, out: None, resume: None, save_every: None, preview_share: None }),
    )
}

/// All events until `last` says that one of them is the last.
fn until(engine: &Engine, mut last: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let (deadline, mut events) = (Instant::now() + Duration::from_secs(240), Vec::new());
    while Instant::now() < deadline {
        if let Some(event) = engine.wait(Duration::from_secs(1)).unwrap() {
            events.push(event);
            if last(&events[events.len() - 1]) {
                return events;
            }
        }
    }
    panic!("it did not come");
}

fn finished(event: &Event, job: JobId) -> bool {
    matches!(event, Event::Finished(j, Outcome::Done) if *j == job)
}

fn steps(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|e| if let Event::Metrics(_, m) = e { Some(m.step) } else { None }).collect()
}

fn count_progress(events: &[Event], job: JobId) -> usize {
    events.iter().filter(|e| matches!(e, Event::Progress { job: j, .. } if *j == job)).count()
}

#[test]
fn a_training_goes_on_while_data_are_read_and_they_are_read_once() {
    let (engine, dir) = (engine(), folder(3000));
    let jobs = [(); 4].map(|()| engine.new_job());
    engine.send(train(jobs[0], "mnist".into())).unwrap();
    until(&engine, |e| matches!(e, Event::Metrics(_, m) if m.step > 0));
    engine.send(look(jobs[1], dir.path(), false)).unwrap();
    let events = until(&engine, |e| finished(e, jobs[1]));
    assert!(count_progress(&events, jobs[1]) > 3, "{} times", count_progress(&events, jobs[1]));
    let from = events.iter().position(|e| matches!(e, Event::Progress { .. })).unwrap();
    let during = steps(&events[from..]);
    assert!(during.len() > 3 && during[during.len() - 1] > during[0], "steps while data were read: {during:?}");
    let data = events.iter().find_map(|e| if let Event::Data(_, data) = e { Some(data) } else { None }).unwrap();
    assert_eq!((data.n, data.shape, &data.found.sizes), (2880, [1, 16, 16], &[([400, 400], 3000)].into()));

    // kept
    engine.send(look(jobs[2], dir.path(), false)).unwrap();
    let events = until(&engine, |e| finished(e, jobs[2]));
    assert_eq!(count_progress(&events, jobs[2]), 0);
    // unless they are to be read again; then a cancel ends it
    engine.send(look(jobs[3], dir.path(), true)).unwrap();
    until(&engine, |e| matches!(e, Event::Progress { job, .. } if *job == jobs[3]));
    engine.send(Command::Cancel(jobs[3])).unwrap();
    let events = until(&engine, |e| matches!(e, Event::Finished(job, _) if *job == jobs[3]));
    assert!(matches!(events.last(), Some(Event::Finished(_, Outcome::Cancelled))));
    assert!(!events.iter().any(|e| matches!(e, Event::Finished(job, _) if *job == jobs[0])), "the training goes on");
}

#[test]
fn what_is_about_a_training_waits_until_its_data_are_read() {
    let (engine, dir, out) = (engine(), folder(300), tempfile::tempdir().unwrap());
    let [looking, training, saving] = [(); 3].map(|()| engine.new_job());
    engine.send(look(looking, dir.path(), false)).unwrap();
    engine.send(train(training, dir.path().display().to_string())).unwrap();
    engine.send(Command::SetTraining(TrainingState::Paused)).unwrap();
    engine.send(Command::Save(saving, Which::Training, out.path().join("model"))).unwrap();
    let events = until(&engine, |e| finished(e, saving));
    assert!(events.iter().any(|e| finished(e, looking)), "one reading served both");
    let last = events.iter().rev().find_map(|e| if let Event::Metrics(_, m) = e { Some(m.clone()) } else { None });
    assert_eq!(last.map(|m| (m.step, m.state)), Some((0, TrainingState::Paused)));
    assert!(out.path().join("model/film/state.json").is_file());
}

#[test]
fn a_run_that_may_not_write_is_refused_before_its_data_are_read() {
    let (engine, dir, out) = (engine(), folder(3000), tempfile::tempdir().unwrap());
    std::fs::write(out.path().join("model_index.json"), "{}").unwrap();
    let job = engine.new_job();
    let Command::Train(_, mut request) = train(job, dir.path().display().to_string()) else { unreachable!() };
    request.out = Some(out.path().to_owned());
    engine.send(Command::Train(job, request)).unwrap();
    let events = until(&engine, |e| matches!(e, Event::Finished(j, _) if *j == job));
    let Some(Event::Finished(_, Outcome::Failed(e))) = events.last() else { panic!("{events:?}") };
    assert!(e.to_string().contains("model_index.json"), "{e}");
    assert_eq!(count_progress(&events, job), 0);
}

#[test]
fn data_that_cannot_be_read_end_what_waits_for_them() {
    let engine = engine();
    let [looking, training] = [engine.new_job(), engine.new_job()];
    engine.send(look(looking, Path::new("/nowhere/at/all"), false)).unwrap();
    engine.send(train(training, "/nowhere/at/all".into())).unwrap();
    let mut failed = Vec::new();
    until(&engine, |e| {
        if let Event::Finished(job, Outcome::Failed(e)) = e {
            assert!(e.to_string().contains("/nowhere/at/all"), "{e}");
            failed.push(*job);
        }
        failed.len() == 2
    });
    assert_eq!(failed, [looking, training]);
}

#[test]
fn films_that_start_from_data_or_follow_the_oracle_wait_for_them() {
    let options = Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) };
    let engine = Engine::start(options, || ()).unwrap();
    let film = |predictor, from| SampleRequest {
        which: Which::Loaded,
        predictor,
        seed: 1,
        first: 0,
        n: 1,
        sampler: SamplerKind::Ddim { eta: 0.0 },
        steps: Some(5),
        clip: true,
        from,
        every_frame: false,
    };
    for request in [film(Predictor::Oracle, None), film(Predictor::Ema, Some((ForwardSource::Data, 500)))] {
        let job = engine.new_job();
        engine.send(Command::Sample(job, request)).unwrap();
        let events = until(&engine, |e| matches!(e, Event::Finished(j, _) if *j == job));
        assert!(matches!(events.last(), Some(Event::Finished(_, Outcome::Done))), "{:?}", events.last());
    }
}

#[test]
fn a_training_that_is_held_draws_when_asked_and_stands_still_while_data_are_read() {
    let (engine, dir) = (engine(), folder(40));
    let (job, other) = (engine.new_job(), engine.new_job());
    engine.send(train(job, "mnist".into())).unwrap();
    until(&engine, |e| matches!(e, Event::Metrics(_, m) if m.step > 0));
    engine.send(Command::SetTraining(TrainingState::Paused)).unwrap();
    let held = |e: &Event| matches!(e, Event::Metrics(_, m) if m.state == TrainingState::Paused);
    let at = *steps(&until(&engine, held)).last().unwrap();
    engine.send(Command::Preview).unwrap();
    let events = until(&engine, |e| matches!(e, Event::Preview(..)));
    assert!(matches!(events.last(), Some(Event::Preview(j, step, images)) if (*j, *step, images.n) == (job, at, 8)));
    let cost = |e: &Event| matches!(e, Event::Metrics(_, m) if m.preview_share > 0.0 && m.step == at);
    until(&engine, cost);
    engine.send(look(other, dir.path(), false)).unwrap();
    let events = until(&engine, |e| finished(e, other));
    assert!(count_progress(&events, other) > 0);
    engine.send(Command::SetTraining(TrainingState::Running)).unwrap();
    let events = [events, until(&engine, |e| matches!(e, Event::Metrics(..)))].concat();
    assert!(steps(&events).iter().all(|step| *step == at), "{:?} after {at}", steps(&events));
}
