//! A picture drowned to some t and brought back from there, through the worker.

use ddpm_film::data::{Dataset, Source};
use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, ForwardSource, Known, Options, Origin, Outcome, Predictor, Provenance,
    Quantity, SampleRequest, SamplerKind, Trajectory, Variance, Which,
};
use std::sync::Arc;
use std::time::Duration;

fn engine() -> Engine {
    Engine::start(Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) }, || ()).unwrap()
}

/// A vertical bar.
fn drawing() -> Arc<[u8]> {
    (0..784).map(|i| if (12..16).contains(&(i % 28)) && (4..24).contains(&(i / 28)) { 255 } else { 0 }).collect()
}

fn from_drawing(doses: usize) -> SampleRequest {
    SampleRequest {
        which: Which::Loaded,
        predictor: Predictor::Ema,
        seed: 3,
        first: 0,
        n: 3,
        sampler: SamplerKind::Ddpm { variance: Variance::FixedSmall },
        steps: Some(50),
        clip: true,
        from: Some((ForwardSource::Drawn(drawing()), doses)),
        every_frame: true,
    }
}

fn film(engine: &Engine, request: SampleRequest) -> Result<(Trajectory, Arc<Images>, Provenance), String> {
    let job = engine.new_job();
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
    let engine = engine();
    let bar: Vec<f32> = drawing().iter().map(|b| f32::from(*b) / 127.5 - 1.0).collect();
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / 784.0;
    let (first, near, whose) = film(&engine, from_drawing(215)).unwrap();
    // 50 of 1000 steps: 201 is the noisiest state that is not beyond 215
    assert_eq!((first.beginning(), first.len(), whose.calls), (201, 12, 11));
    assert_eq!(whose.from.as_deref(), Some("your drawing at t = 201"));
    assert!((0..3).all(|i| far(near.one(i), &bar) < 0.1), "{}", far(near.one(0), &bar));
    assert!(near.one(0) != near.one(1), "each has noise of its own");
    let (_, others, _) = film(&engine, from_drawing(900)).unwrap();
    assert!((0..3).any(|i| far(others.one(i), &bar) > 0.1));
    let (again, same, _) = film(&engine, from_drawing(215)).unwrap();
    assert_eq!(same, near, "the same seed, the same bytes");
    assert!((0..=201).all(|doses| again.at(doses) == first.at(doses)));
    assert!(film(&engine, from_drawing(0)).unwrap_err().contains("larger t"));
    let other = Some((ForwardSource::Drawn([0; 3].into()), 500));
    assert!(film(&engine, SampleRequest { from: other, ..from_drawing(0) }).unwrap_err().contains("3 values"));
}

#[test]
fn the_oracle_brings_a_drawing_back_to_images_of_the_data() {
    let engine = engine();
    let sampler = SamplerKind::Ddim { eta: 0.0 };
    let request = SampleRequest { predictor: Predictor::Oracle, sampler, ..from_drawing(600) };
    let (_, pictures, whose) = film(&engine, request).unwrap();
    assert_eq!(whose.oracle, Some(Known { data: "mnist".into(), images: 60_000 }));
    let data = Dataset::load(&Source::Mnist, [1, 28, 28], &|_, _| true).unwrap();
    for i in 0..pictures.n {
        let bytes: Vec<u8> = pictures.one(i).iter().map(|v| ((v + 1.0) * 127.5).round() as u8).collect();
        assert!((0..data.n).any(|k| data.image(k) == bytes), "picture {i} is no image of the data");
    }
}

#[test]
fn from_t_equal_to_all_steps_only_the_last_trace_of_the_picture_is_left() {
    let engine = engine();
    let request = SampleRequest { steps: None, ..from_drawing(1000) };
    let begin = |request: SampleRequest| {
        let job = engine.new_job();
        engine.send(Command::Sample(job, request)).unwrap();
        let mut film = None;
        loop {
            match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
                Event::SampleStarted(id, empty, _) if id == job => film = Some(*empty),
                Event::Frame(id, frame) if id == job => {
                    engine.send(Command::Cancel(job)).unwrap();
                    assert_eq!(frame.doses, 1000);
                    let film = film.unwrap();
                    return (film.view(&frame, Quantity::State).unwrap(), film.schedule().alpha_bar(1000));
                }
                _ => {}
            }
        }
    };
    let (drowned, alpha_bar) = begin(request.clone());
    let (noise, _) = begin(SampleRequest { from: None, ..request });
    let trace = alpha_bar.sqrt() as f32;
    assert!(trace < 0.01, "{trace}");
    for (i, (x, z)) in drowned.data.iter().zip(&noise.data).enumerate() {
        let start = f32::from(drawing()[i % 784]) / 127.5 - 1.0;
        let expected = trace * start + (1.0 - alpha_bar as f32).sqrt() * z;
        // both come in half precision
        assert!((x - expected).abs() < 2e-3 * z.abs().max(1.0), "{i}: {x} {expected}");
        assert!((x - z).abs() <= trace + 2e-3 * z.abs().max(1.0), "{i}: {x} {z}");
    }
}
