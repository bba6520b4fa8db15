//! Frames that a film left out, computed again by the worker.

use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, ExportRequest, Format, ForwardRequest, ForwardSource, Frame, JobId, Maker,
    Options, Origin, Outcome, Predictor, Quantity, Recipe, SampleRequest, SamplerKind, Trajectory, Variance, Which,
};
use std::sync::Arc;
use std::time::Duration;

fn engine() -> Engine {
    let options = Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) };
    Engine::start(options, || ()).unwrap()
}

/// Hands `each` the events until it says that it is done or `job` is over.
fn follow(engine: &Engine, job: JobId, mut each: impl FnMut(Event) -> bool) -> Option<Outcome> {
    loop {
        match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            Event::Finished(id, outcome) if id == job => return Some(outcome),
            event => {
                if each(event) {
                    return None;
                }
            }
        }
    }
}

fn forward(engine: &Engine, n: usize) -> (JobId, Trajectory) {
    let (job, mut film) = (engine.new_job(), None);
    let request = ForwardRequest { which: Which::Loaded, schedule: None, seed: 3, n, source: ForwardSource::Data };
    engine.send(Command::Forward(job, request)).unwrap();
    let outcome = follow(engine, job, |event| {
        if let Event::Forward(_, made, _) = event {
            film = Some(Trajectory::clone(&made));
        }
        false
    });
    assert_eq!(outcome, Some(Outcome::Done));
    (job, film.unwrap())
}

fn recall(engine: &Engine, film: JobId, doses: usize) -> Vec<Arc<Frame>> {
    let (job, mut frames) = (engine.new_job(), Vec::new());
    engine.send(Command::Recall { job, film, doses }).unwrap();
    let outcome = follow(engine, job, |event| {
        if let Event::Frame(id, frame) = event {
            assert_eq!(id, film);
            frames.push(frame);
        }
        false
    });
    assert_eq!(outcome, Some(Outcome::Done));
    frames
}

#[test]
fn a_forward_film_of_many_pictures_shows_every_state() {
    let engine = engine();
    let (_, single) = forward(&engine, 1);
    let (job, mut film) = forward(&engine, 256);
    for doses in [1, 500, 997, 3, 500] {
        if let Some(state) = film.missing(doses, Quantity::State) {
            recall(&engine, job, state).into_iter().for_each(|frame| film.insert(frame));
        }
        let shown = film.at(doses).unwrap();
        let first = film.view(shown, Quantity::State).unwrap();
        let alone = single.view(single.at(doses).unwrap(), Quantity::State).unwrap();
        assert!(shown.doses == doses && first.one(0) == alone.one(0), "t = {doses}");
    }
    assert!(film.missing(700, Quantity::State).is_some(), "it is not held whole");
    assert!(recall(&engine, job + 1000, 5).is_empty(), "a film that is gone has no frames");
}

/// A film of 200 pictures that is stopped after three steps: empty, and its frames.
fn stopped(engine: &Engine) -> (JobId, Trajectory, Vec<Arc<Frame>>) {
    let job = engine.new_job();
    engine.send(Command::Sample(job, request())).unwrap();
    let (mut film, mut frames) = (None, Vec::new());
    let mut take = |event| match event {
        Event::SampleStarted(_, empty, _) => film = Some(*empty),
        Event::Frame(_, frame) => frames.extend(frame.step().is_some().then_some(frame)),
        _ => {}
    };
    let mut steps = 0;
    follow(engine, job, |event| {
        steps += usize::from(matches!(&event, Event::Frame(_, frame) if frame.step().is_some()));
        take(event);
        steps == 3
    });
    engine.send(Command::Cancel(job)).unwrap();
    let outcome = follow(engine, job, |event| {
        take(event);
        false
    });
    assert_eq!(outcome, Some(Outcome::Cancelled));
    (job, film.unwrap(), frames)
}

fn request() -> SampleRequest {
    SampleRequest {
        which: Which::Loaded,
        predictor: Predictor::Ema,
        seed: 3,
        first: 0,
        n: 200,
        sampler: SamplerKind::Ddpm { variance: Variance::FixedLarge },
        steps: None,
        clip: true,
        from: None,
        every_frame: true,
    }
}

#[test]
fn a_reverse_film_that_was_stopped_computes_its_frames_again_bit_for_bit() {
    let engine = engine();
    let (job, _, first) = stopped(&engine);
    let again = recall(&engine, job, 999);
    for frame in first {
        let twin = again.iter().find(|f| f.doses == frame.doses).expect("each frame comes again");
        assert!(*twin == frame, "t = {}", frame.doses);
    }
}

#[test]
fn an_export_writes_the_very_frames_that_a_film_left_out() {
    let (engine, dir) = (engine(), tempfile::tempdir().unwrap());
    let (reverse, empty, frames) = stopped(&engine);
    let (mut whole, mut part) = (empty.clone(), empty);
    frames.iter().for_each(|frame| whole.insert(Arc::clone(frame)));
    let moments: Vec<usize> = frames.iter().map(|frame| frame.doses).collect();
    for frame in [&frames[0], &frames[frames.len() - 1]] {
        part.insert(Arc::clone(frame));
    }
    assert!(part.missing(moments[1], Quantity::PredictedStart).is_some());
    let export = |name: &str, film, moments| {
        let (job, path) = (engine.new_job(), dir.path().join(name));
        let forward =
            ForwardRequest { which: Which::Loaded, schedule: None, seed: 3, n: 1, source: ForwardSource::Data };
        let recipe = Recipe {
            model: String::new(),
            hash: String::new(),
            step: None,
            sample: request(),
            forks: Vec::new(),
            forward,
        };
        let request = ExportRequest {
            path: path.clone(),
            format: Format::Strip,
            forward: None,
            reverse: Some((reverse, film)),
            quantity: Quantity::PredictedStart,
            moments,
            scale: 1,
            delay_ms: 40,
            captions: false,
            left: Vec::new(),
            by: Maker::Model { step: None, weights: "EMA" },
            recipe,
        };
        engine.send(Command::Export(job, Box::new(request))).unwrap();
        (follow(&engine, job, |_| false).unwrap(), path)
    };
    let (done, held) = export("held.png", whole, moments.clone());
    assert_eq!(done, Outcome::Done);
    let (done, again) = export("again.png", part.clone(), moments.clone());
    assert_eq!(done, Outcome::Done);
    assert!(image::open(held).unwrap() == image::open(again).unwrap());
    // what was never computed is not written as if it were there
    let early = moments[moments.len() - 1] - 100;
    let said = |outcome| matches!(outcome, Outcome::Failed(e) if e.to_string().contains("has not come to"));
    assert!(said(export("early.png", part.clone(), vec![early]).0));
    // and a film that has been replaced says so
    stopped(&engine);
    let said = |outcome| matches!(outcome, Outcome::Failed(e) if e.to_string().contains("took its place"));
    assert!(said(export("replaced.png", part, moments).0));
}
