//! A picture drowned to some t and brought back from there, through the worker.

use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, ForwardSource, Options, Origin, Outcome, Predictor, Provenance,
    SampleRequest, SamplerKind, Trajectory, Variance, Which,
};
use std::sync::Arc;
use std::time::Duration;

/// A vertical bar.
fn drawing() -> Arc<[u8]> {
    (0..784).map(|i| if (12..16).contains(&(i % 28)) && (4..24).contains(&(i / 28)) { 255 } else { 0 }).collect()
}

fn bring_back(
    engine: &Engine,
    source: ForwardSource,
    doses: usize,
) -> Result<(Trajectory, Arc<Images>, Provenance), String> {
    let job = engine.new_job();
    let request = SampleRequest {
        which: Which::Loaded,
        predictor: Predictor::Ema,
        seed: 3,
        first: 0,
        n: 3,
        sampler: SamplerKind::Ddpm { variance: Variance::FixedSmall },
        steps: Some(50),
        clip: true,
        from: Some((source, doses)),
        every_frame: true,
    };
    engine.send(Command::Sample(job, request)).unwrap();
    let (mut film, mut last) = (None, None);
    loop {
        match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            Event::SampleStarted(id, empty, whose) if id == job => film = Some((*empty, whose)),
            Event::Frame(id, frame) if id == job => film.as_mut().unwrap().0.insert(frame),
            Event::Sampled(id, images) if id == job => last = Some(images),
            Event::Finished(id, Outcome::Done) if id == job => {
                let (film, whose) = film.unwrap();
                return Ok((film, last.unwrap(), whose));
            }
            Event::Finished(id, Outcome::Failed(e)) if id == job => return Err(e.to_string()),
            _ => {}
        }
    }
}

#[test]
fn little_noise_keeps_the_picture_and_much_noise_makes_others() {
    let options = Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) };
    let engine = Engine::start(options, || ()).unwrap();
    let bar: Vec<f32> = drawing().iter().map(|b| f32::from(*b) / 127.5 - 1.0).collect();
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / 784.0;
    let (film, near, whose) = bring_back(&engine, ForwardSource::Drawn(drawing()), 215).unwrap();
    // 50 of 1000 steps: 201 is the noisiest state that is not beyond 215
    assert_eq!((film.beginning(), film.len(), whose.calls), (201, 12, 11));
    assert_eq!(whose.from.as_deref(), Some("your drawing at t = 201"));
    assert!((0..3).all(|i| far(near.one(i), &bar) < 0.1), "{}", far(near.one(0), &bar));
    assert!(near.one(0) != near.one(1), "each has noise of its own");
    let (_, others, _) = bring_back(&engine, ForwardSource::Drawn(drawing()), 900).unwrap();
    assert!((0..3).any(|i| far(others.one(i), &bar) > 0.1));
    assert_eq!(bring_back(&engine, ForwardSource::Drawn(drawing()), 215).unwrap().1, near, "the same seed, the same");
    assert!(bring_back(&engine, ForwardSource::Drawn(drawing()), 0).unwrap_err().contains("larger t"));
    assert!(bring_back(&engine, ForwardSource::Drawn([0; 3].into()), 500).unwrap_err().contains("3 values"));
}
