//! Frames that a film left out, computed again by the worker.

use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, ForwardRequest, ForwardSource, Frame, JobId, Options, Origin, Outcome,
    Predictor, Quantity, SampleRequest, SamplerKind, Trajectory, Variance, Which,
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

#[test]
fn a_reverse_film_that_was_stopped_computes_its_frames_again_bit_for_bit() {
    let engine = engine();
    let job = engine.new_job();
    let request = SampleRequest {
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
    };
    engine.send(Command::Sample(job, request)).unwrap();
    let mut first = Vec::new();
    follow(&engine, job, |event| {
        if let Event::Frame(_, frame) = event {
            first.extend(frame.step().is_some().then_some(frame));
        }
        first.len() == 3
    });
    engine.send(Command::Cancel(job)).unwrap();
    let outcome = follow(&engine, job, |event| {
        if let Event::Frame(_, frame) = event {
            first.push(frame);
        }
        false
    });
    assert_eq!(outcome, Some(Outcome::Cancelled));
    let again = recall(&engine, job, 999);
    for frame in first {
        let twin = again.iter().find(|f| f.doses == frame.doses).expect("each frame comes again");
        assert!(*twin == frame, "t = {}", frame.doses);
    }
}
