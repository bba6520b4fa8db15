//! DDPM beside DDIM: the same noise, a call each in turn, and the very pictures that either makes alone.

use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, Lane, Options, Origin, Outcome, Predictor, RaceRequest, SampleRequest,
    SamplerKind, Which,
};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn both_start_from_the_same_noise_and_ddim_arrives_first_with_its_own_picture() {
    let options = Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) };
    let engine = Engine::start(options, || {}).unwrap();
    let next = || engine.wait(Duration::from_secs(60)).unwrap().expect("the worker answers");
    let (which, predictor, seed, n) = (Which::Loaded, Predictor::Ema, 3, 2);
    let request = RaceRequest { which, predictor, seed, n, steps: 10 };
    engine.send(Command::Race(1, request)).unwrap();
    let mut seen: Vec<Box<[Lane; 2]>> = Vec::new();
    let mut cancelled = false;
    loop {
        match next() {
            Event::Race(1, lanes) => {
                if lanes[1].calls == [10, 10] && !cancelled {
                    engine.send(Command::Cancel(1)).unwrap();
                    cancelled = true;
                }
                seen.push(lanes);
            }
            Event::Finished(1, outcome) => {
                assert_eq!(outcome, Outcome::Cancelled);
                break;
            }
            _ => {}
        }
    }
    let [ddpm, ddim] = &**seen.first().unwrap();
    assert_eq!((ddpm.by.sampler, ddim.by.sampler), ("DDPM", "DDIM"));
    assert_eq!((ddpm.calls, ddim.calls), ([0, 1000], [0, 10]));
    assert_eq!((ddpm.doses, &ddpm.x), (1000, &ddim.x), "the same noise");
    for pair in seen.windows(2) {
        for (before, after) in pair[0].iter().zip(pair[1].iter()) {
            assert!(after.calls[0] >= before.calls[0] && after.time >= before.time);
        }
        assert!(pair[1][1].calls[0] == pair[1][0].calls[0] || pair[1][1].calls[0] == 10, "a call each in turn");
    }
    let arrived = seen.iter().find(|lanes| lanes[1].calls == [10, 10]).unwrap();
    assert_eq!((arrived[1].doses, arrived[0].calls[0]), (0, 10));

    let sampler = SamplerKind::Ddim { eta: 0.0 };
    let alone = SampleRequest {
        which,
        predictor,
        seed,
        first: 0,
        n,
        sampler,
        steps: Some(10),
        clip: true,
        from: None,
        every_frame: false,
    };
    engine.send(Command::Sample(2, alone)).unwrap();
    let mut picture: Option<Arc<Images>> = None;
    loop {
        match next() {
            Event::Sampled(2, images) => picture = Some(images),
            Event::Finished(2, outcome) => {
                assert_eq!(outcome, Outcome::Done);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(picture.unwrap(), arrived[1].x, "bit for bit");
}
