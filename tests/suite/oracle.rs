//! Films of the exact oracle, through the worker.

use ddpm_film::data::{Dataset, Source};
use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, Known, Options, Origin, Outcome, Predictor, SampleRequest, SamplerKind, Which,
};
use std::time::Duration;

#[test]
fn its_film_ends_on_images_of_the_data() {
    let options = Options { device: DeviceChoice::Cpu, threads: 2, model: Some(Origin::Shipped) };
    let engine = Engine::start(options, || ()).unwrap();
    let request = SampleRequest {
        which: Which::Loaded,
        predictor: Predictor::Oracle,
        seed: 5,
        first: 0,
        n: 3,
        sampler: SamplerKind::Ddim { eta: 0.0 },
        steps: Some(20),
        clip: true,
        from: None,
        every_frame: false,
    };
    let job = engine.new_job();
    engine.send(Command::Sample(job, request)).unwrap();
    let (mut whose, mut pictures) = (None, None);
    let outcome = loop {
        match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            Event::SampleStarted(id, _, provenance) if id == job => whose = Some(provenance),
            Event::Sampled(id, images) if id == job => pictures = Some(images),
            Event::Finished(id, outcome) if id == job => break outcome,
            _ => {}
        }
    };
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(whose.unwrap().oracle, Some(Known { data: "mnist".into(), images: 60_000 }));
    let (pictures, data) = (pictures.unwrap(), Dataset::load(&Source::Mnist, [1, 28, 28], &|_, _| true).unwrap());
    for i in 0..pictures.n {
        let bytes: Vec<u8> = pictures.one(i).iter().map(|v| ((v + 1.0) * 127.5).round() as u8).collect();
        assert!((0..data.n).any(|k| data.image(k) == bytes), "picture {i} is no image of the data");
    }
}
