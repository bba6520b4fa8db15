//! True noise beside predicted noise, through the worker.

use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Command, CompareRequest, Comparison, DeviceChoice, Engine, Event, ForwardSource, Known, Options, Origin, Outcome,
    Predictor, RunConfig, TrainRequest, Which,
};
use std::sync::Arc;
use std::time::Duration;

fn request(doses: usize) -> CompareRequest {
    CompareRequest {
        which: Which::Loaded,
        predictor: Predictor::Ema,
        seed: 3,
        source: ForwardSource::Data,
        picture: 1,
        doses,
    }
}

fn compare(engine: &Engine, request: CompareRequest) -> Result<Arc<Comparison>, String> {
    let job = engine.new_job();
    engine.send(Command::Compare(job, request)).unwrap();
    let mut answer = None;
    loop {
        match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            Event::Compared(id, comparison) if id == job => answer = Some(comparison),
            Event::Finished(id, Outcome::Done) if id == job => return Ok(answer.unwrap()),
            Event::Finished(id, Outcome::Failed(e)) if id == job => return Err(e.to_string()),
            _ => {}
        }
    }
}

/// a·x + b·y in f64, and how far `z` is from it.
fn far(z: &Images, a: f64, x: &Images, b: f64, y: &Images) -> f64 {
    let exact = x.data.iter().zip(&y.data).map(|(x, y)| a * f64::from(*x) + b * f64::from(*y));
    exact.zip(&z.data).map(|(exact, z)| (exact - f64::from(*z)).abs()).fold(0.0, f64::max)
}

#[test]
fn noise_prediction_error_loss_and_the_picture_that_follows_agree() {
    let options = Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) };
    let engine = Engine::start(options, || ()).unwrap();
    let schedule = loop {
        if let Event::ModelChanged(info) = engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            break Arc::clone(&info.schedule);
        }
    };
    let all: Vec<_> = [1, 300, 700, 1000].map(|doses| compare(&engine, request(doses)).unwrap()).into();
    for c in &all {
        let ac = schedule.alphas_cumprod[c.doses - 1];
        let (a, b) = (ac.sqrt(), (1.0 - ac).sqrt());
        assert!(c.noise == all[0].noise && c.x_start == all[0].x_start, "they are the same at every t");
        assert_eq!(c.alpha_bar, ac);
        assert!(far(&c.x_t, a, &c.x_start, b, &c.noise) < 1e-6);
        for p in [&c.predicted, &c.oracle] {
            assert!(far(&p.error, 1.0, &p.eps, -1.0, &c.noise) < 1e-6);
            assert!(far(&p.xstart, 1.0 / a, &c.x_t, -b / a, &p.eps) < 1e-4 / a);
            let squares = p.error.data.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            assert!((p.loss - squares / 784.0).abs() < 1e-12);
        }
        let known = Known { data: "mnist".into(), images: 60_000 };
        assert_eq!((&c.predicted.by.oracle, &c.oracle.by.oracle), (&None, &Some(known)));
    }
    let loss = |i: usize| (all[i].predicted.loss, all[i].oracle.loss);
    // a trained network finds noise well where there is much of it; the oracle knows this very picture
    assert!(loss(0).0 > 0.05 && loss(1).0 < 0.1 && loss(3).0 < 0.01, "{:?} {:?} {:?}", loss(0), loss(1), loss(3));
    assert!(loss(1).1 < 1e-6 && loss(3).1 < 0.01, "{:?} {:?}", loss(1), loss(3));
    // the same question has the same answer, whatever was asked in between
    assert_eq!(compare(&engine, request(300)).unwrap(), all[1]);
    let other = compare(&engine, CompareRequest { picture: 2, predictor: Predictor::Raw, ..request(300) }).unwrap();
    assert!(other.x_start != all[1].x_start && other.predicted.by.predictor == Predictor::Raw);
    for doses in [0, 1001] {
        assert!(compare(&engine, request(doses)).unwrap_err().contains("1 to 1000"));
    }
}

#[test]
fn another_training_is_another_answer_at_the_same_step() {
    let engine = Engine::start(Options { device: DeviceChoice::Cpu, threads: 2, model: None }, || ()).unwrap();
    let answers = [0, 1].map(|seed| {
        let config = RunConfig { preset: "digits16".into(), steps: 1, batch: 4, seed, ..RunConfig::default() };
        let request = TrainRequest { config, out: None, resume: None, save_every: None, preview_share: None };
        let job = engine.new_job();
        engine.send(Command::Train(job, Box::new(request))).unwrap();
        while !matches!(
            engine.wait(Duration::from_secs(120)).unwrap().expect("an event"),
            Event::Finished(id, Outcome::Done) if id == job
        ) {}
        compare(&engine, CompareRequest { which: Which::Training, ..self::request(500) }).unwrap()
    });
    assert_eq!(answers[0].x_start, answers[1].x_start);
    assert_ne!(answers[0].predicted.by.hash, answers[1].predicted.by.hash);
    assert_ne!(answers[0].predicted.eps, answers[1].predicted.eps);
}
