//! The worker behind its protocol: films, cancelling, replacing, dropping.

use ddpm_film::checkpoint::{self, Checkpoint, ScheduleSettings};
use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Changes, Command, DeviceChoice, Engine, Event, ForwardRequest, ForwardSource, JobId, Options, Origin, Outcome,
    Predictor, Quantity, RunConfig, SampleRequest, SamplerKind, TrainRequest, TrainingState, Trajectory, Variance,
    Which,
};
use ddpm_film::model::{Config, Params, SampleSize};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn engine(threads: usize) -> Engine {
    let options = Options { device: DeviceChoice::Cpu, threads, model: Some(Origin::Shipped) };
    Engine::start(options, || ()).unwrap()
}

fn request(seed: u64) -> SampleRequest {
    SampleRequest {
        which: Which::Loaded,
        predictor: Predictor::Ema,
        seed,
        first: 0,
        n: 2,
        sampler: SamplerKind::Ddpm { variance: Variance::FixedSmall },
        steps: Some(4),
        clip: true,
        from: None,
        every_frame: true,
    }
}

/// All events up to the end of `job`.
fn until_finished(engine: &Engine, job: JobId) -> (Vec<Event>, Outcome) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut events = Vec::new();
    while Instant::now() < deadline {
        match engine.wait(Duration::from_secs(1)).unwrap() {
            Some(Event::Finished(id, outcome)) if id == job => return (events, outcome),
            Some(event) => events.push(event),
            None => {}
        }
    }
    panic!("job {job} did not end");
}

fn film(engine: &Engine, request: SampleRequest) -> (Trajectory, Arc<Images>) {
    let job = engine.new_job();
    engine.send(Command::Sample(job, request)).unwrap();
    let (events, outcome) = until_finished(engine, job);
    assert_eq!(outcome, Outcome::Done);
    let (mut film, mut last) = (None, None);
    for event in events {
        match event {
            Event::SampleStarted(id, empty, _) if id == job => film = Some(*empty),
            Event::Frame(id, frame) if id == job => film.as_mut().unwrap().insert(frame),
            Event::Sampled(id, images) if id == job => last = Some(images),
            _ => {}
        }
    }
    (film.unwrap(), last.unwrap())
}

#[test]
fn a_film_is_whole_and_the_same_for_any_threads_and_grouping() {
    let (one, pictures) = film(&engine(1), request(5));
    assert_eq!(one.len(), 5, "four steps have five states");
    let shown: Vec<usize> = (0..=one.steps()).rev().filter_map(|d| Some(one.at(d)?.doses)).collect();
    assert!(shown.is_sorted_by(|a, b| a >= b) && *shown.last().unwrap() == 0);
    let engine = engine(2);
    let (two, same) = film(&engine, request(5));
    assert_eq!(pictures, same);
    assert_eq!(one.at(0), two.at(0));
    assert_eq!(
        one.view(one.at(500).unwrap(), Quantity::PredictedNoise),
        two.view(two.at(500).unwrap(), Quantity::PredictedNoise)
    );
    let (_, second) = film(&engine, SampleRequest { first: 1, n: 1, every_frame: false, ..request(5) });
    assert!(second.one(0) == pictures.one(1), "a picture depends on its neighbours");
    let (_, other) = film(&engine, request(6));
    assert_ne!(other, pictures);
}

#[test]
fn a_new_film_replaces_the_old_one_and_cancel_ends_it_within_one_call() {
    let engine = engine(2);
    let (old, new) = (engine.new_job(), engine.new_job());
    let long = SampleRequest { steps: None, n: 8, ..request(1) };
    engine.send(Command::Sample(old, long.clone())).unwrap();
    engine.send(Command::Sample(new, long)).unwrap();
    assert_eq!(until_finished(&engine, old).1, Outcome::Cancelled);
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    engine.send(Command::Cancel(new)).unwrap();
    let (events, outcome) = until_finished(&engine, new);
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(events.iter().filter(|e| matches!(e, Event::Frame(id, _) if *id == new)).count() < 900);
}

#[test]
fn dropping_the_engine_under_full_load_does_not_hang() {
    let engine = engine(2);
    engine.send(Command::Sample(engine.new_job(), SampleRequest { steps: None, ..request(1) })).unwrap();
    let config = RunConfig { preset: "digits16".into(), ..RunConfig::default() };
    let request = TrainRequest { config, out: None, resume: None, save_every: None, preview_share: None };
    engine.send(Command::Train(engine.new_job(), Box::new(request))).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    drop(engine);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn training_is_the_same_whatever_the_window_did_meanwhile() {
    let train = |disturb: bool| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        let engine = engine(2);
        let config =
            RunConfig { preset: "digits16".into(), steps: 6, batch: 32, preview_every: 2, ..RunConfig::default() };
        let job = engine.new_job();
        let request =
            TrainRequest { config, out: Some(out.clone()), resume: None, save_every: None, preview_share: None };
        engine.send(Command::Train(job, Box::new(request))).unwrap();
        if disturb {
            engine.send(Command::Sample(engine.new_job(), self::request(1))).unwrap();
            engine.send(Command::SetTraining(TrainingState::Paused)).unwrap();
            let forward =
                ForwardRequest { which: Which::Loaded, schedule: None, seed: 1, n: 2, source: ForwardSource::Data };
            engine.send(Command::Forward(engine.new_job(), forward)).unwrap();
            engine.send(Command::SetTraining(TrainingState::Running)).unwrap();
            engine
                .send(Command::Sample(engine.new_job(), SampleRequest { which: Which::Training, ..self::request(1) }))
                .unwrap();
        }
        let (events, outcome) = until_finished(&engine, job);
        assert_eq!(outcome, Outcome::Done);
        let previews = events.iter().filter(|e| matches!(e, Event::Preview(..))).count();
        assert_eq!(previews, 3);
        let file = |name: &str| std::fs::read(out.join(name)).unwrap();
        (file("film/raw.safetensors"), file("unet/diffusion_pytorch_model.safetensors"), file("film/adam.safetensors"))
    };
    assert!(train(false) == train(true));
}

#[test]
fn what_cannot_be_done_is_said_and_the_worker_lives_on() {
    let engine = engine(1);
    let fails = |command: &dyn Fn(JobId) -> Command, word: &str| {
        let job = engine.new_job();
        engine.send(command(job)).unwrap();
        match until_finished(&engine, job).1 {
            Outcome::Failed(e) => assert!(e.to_string().contains(word) && !e.to_string().contains('\n'), "{e}"),
            other => panic!("{other:?}"),
        }
    };
    let sample = |change: fn(&mut SampleRequest)| {
        move |job| {
            let mut r = request(1);
            change(&mut r);
            Command::Sample(job, r)
        }
    };
    fails(&sample(|r| r.n = 0), "0 pictures");
    fails(&sample(|r| r.steps = Some(0)), "steps");
    fails(&sample(|r| r.steps = Some(2000)), "2000");
    fails(&sample(|r| r.which = Which::Training), "trained");
    fails(&sample(|r| r.sampler = SamplerKind::Ddim { eta: 2.0 }), "eta");
    fails(&|job| Command::Load(job, Origin::Folder("/nonexistent/model".into())), "/nonexistent/model");
    fails(&|job| Command::Save(job, Which::Loaded, "/proc/model".into()), "/proc/model");
    let bad = |config: RunConfig| {
        move |job| {
            Command::Train(
                job,
                Box::new(TrainRequest {
                    config: config.clone(),
                    out: None,
                    resume: None,
                    save_every: None,
                    preview_share: None,
                }),
            )
        }
    };
    fails(&bad(RunConfig { steps: 0, ..RunConfig::default() }), "steps");
    fails(&bad(RunConfig { data: "/nonexistent/data".into(), ..RunConfig::default() }), "/nonexistent/data");
    film(&engine, request(1));
}

#[test]
fn saves_that_were_asked_for_before_the_end_are_made() {
    let tmp = tempfile::tempdir().unwrap();
    let dirs = [tmp.path().join("first"), tmp.path().join("second")];
    let engine = engine(1);
    // behind a film, and behind a model that cannot be read
    engine.send(Command::Sample(engine.new_job(), SampleRequest { steps: None, ..request(1) })).unwrap();
    engine.send(Command::Save(engine.new_job(), Which::Loaded, dirs[0].clone())).unwrap();
    engine.send(Command::Load(engine.new_job(), Origin::Folder("/nonexistent/model".into()))).unwrap();
    engine.send(Command::Save(engine.new_job(), Which::Loaded, dirs[1].clone())).unwrap();
    drop(engine);
    for dir in dirs {
        let model = ddpm_film::checkpoint::load(&dir, &candle_core::Device::Cpu).unwrap();
        assert_eq!(model.ema.count(), 1_112_801);
    }
}

#[cfg(unix)]
#[test]
fn a_save_goes_into_the_folder_of_its_own_run_and_never_into_that_of_another() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("run");
    let config = RunConfig { preset: "digits16".into(), ..Default::default() };
    let engines = [engine(1), engine(1)];
    let job = engines[0].new_job();
    let request = TrainRequest { config, out: Some(dir.clone()), resume: None, save_every: None, preview_share: None };
    engines[0].send(Command::Train(job, Box::new(request))).unwrap();
    let save = |engine: &Engine, which: Which| {
        let job = engine.new_job();
        engine.send(Command::Save(job, which, dir.clone())).unwrap();
        until_finished(engine, job).1
    };
    assert_eq!(save(&engines[0], Which::Training), Outcome::Done);
    let Outcome::Failed(e) = save(&engines[0], Which::Loaded) else { panic!("a model replaced a run") };
    assert!(e.to_string().contains("another run is writing there"), "{e}");
    let Outcome::Failed(e) = save(&engines[1], Which::Loaded) else { panic!("two programs wrote into one folder") };
    assert!(e.to_string().contains("another run is writing there"), "{e}");
    engines[0].send(Command::Cancel(job)).unwrap();
    assert_eq!(until_finished(&engines[0], job).1, Outcome::Cancelled);
    // nor by the program that made it, although it saved there by hand
    for engine in &engines {
        let Outcome::Failed(e) = save(engine, Which::Loaded) else { panic!("a run was replaced") };
        assert!(e.to_string().contains("would be replaced"), "{e}");
    }
    let dir = tmp.path().join("by hand");
    for _ in 0..2 {
        let job = engines[1].new_job();
        engines[1].send(Command::Save(job, Which::Loaded, dir.clone())).unwrap();
        assert_eq!(until_finished(&engines[1], job).1, Outcome::Done);
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_is_over_is_never_saved_over_one_that_went_on_in_its_folder() {
    let tmp = tempfile::tempdir().unwrap();
    let [dir, aside] = ["run", "aside"].map(|name| tmp.path().join(name));
    let request = |steps, resume| {
        let config = RunConfig { preset: "digits16".into(), steps, batch: 2, preview_every: 0, ..Default::default() };
        TrainRequest { config, out: Some(dir.clone()), resume, save_every: None, preview_share: None }
    };
    let [first, second] = [engine(1), engine(1)];
    let job = first.new_job();
    first.send(Command::Train(job, Box::new(request(100_000, None)))).unwrap();
    let mut step = 0;
    while step == 0 {
        if let Some(Event::Metrics(_, m)) = first.wait(Duration::from_secs(120)).unwrap() {
            step = m.step;
        }
    }
    // its end cannot be saved
    std::fs::rename(&dir, &aside).unwrap();
    std::fs::create_dir_all(dir.join("unet/mine")).unwrap();
    first.send(Command::SetTraining(TrainingState::Paused)).unwrap();
    first.send(Command::Cancel(job)).unwrap();
    let (events, outcome) = until_finished(&first, job);
    assert!(matches!(&outcome, Outcome::Failed(e) if e.to_string().contains("another is in its place")), "{outcome:?}");
    let told = events.iter().filter_map(|e| if let Event::Metrics(_, m) = e { Some(m.step) } else { None });
    let end = told.max().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&aside, &dir).unwrap();

    let job = second.new_job();
    second.send(Command::Train(job, Box::new(request(end + 2, Some(Changes::default()))))).unwrap();
    assert_eq!(until_finished(&second, job).1, Outcome::Done);
    drop(first);
    assert_eq!(checkpoint::read_state(&dir).unwrap()["step"], end + 2);
}

#[cfg(unix)]
#[test]
fn a_run_whose_folder_was_moved_never_writes_into_the_one_in_its_place() {
    let tmp = tempfile::tempdir().unwrap();
    let [dir, aside] = ["run", "aside"].map(|name| tmp.path().join(name));
    let config = RunConfig { preset: "digits16".into(), batch: 2, preview_every: 0, ..Default::default() };
    let request = TrainRequest { config, out: Some(dir.clone()), resume: None, save_every: None, preview_share: None };
    let engine = engine(1);
    let job = engine.new_job();
    engine.send(Command::Train(job, Box::new(request))).unwrap();
    let mut step = 0;
    while step < 2 {
        if let Some(Event::Metrics(_, m)) = engine.wait(Duration::from_secs(120)).unwrap() {
            step = m.step;
        }
    }
    std::fs::rename(&dir, &aside).unwrap();
    crate::runs::copy(&aside, &dir);
    let there = || ["film/state.json", "film/checksums.json"].map(|name| std::fs::read(dir.join(name)).unwrap());
    let before = there();
    // by hand, at its end, and when the program ends
    let save = engine.new_job();
    engine.send(Command::Save(save, Which::Training, dir.clone())).unwrap();
    let Outcome::Failed(e) = until_finished(&engine, save).1 else { panic!("it was replaced") };
    assert!(e.to_string().contains("another is in its place"), "{e}");
    engine.send(Command::Cancel(job)).unwrap();
    assert!(matches!(until_finished(&engine, job).1, Outcome::Failed(_)));
    drop(engine);
    assert!(there() == before);
}

#[test]
fn reading_the_data_tells_how_far_it_is_and_can_be_stopped() {
    let tmp = tempfile::tempdir().unwrap();
    let picture = image::GrayImage::from_pixel(400, 400, image::Luma([9]));
    picture.save(tmp.path().join("0.png")).unwrap();
    for i in 1..8000 {
        std::fs::hard_link(tmp.path().join("0.png"), tmp.path().join(format!("{i}.png"))).unwrap();
    }
    let engine = engine(1);
    let config = RunConfig { data: tmp.path().display().to_string(), preset: "digits16".into(), ..Default::default() };
    let train = |job| {
        let config = config.clone();
        Command::Train(
            job,
            Box::new(TrainRequest { config, out: None, resume: None, save_every: None, preview_share: None }),
        )
    };
    let progress = |job: JobId| {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            match engine.wait(Duration::from_secs(1)).unwrap() {
                Some(Event::Progress { job: j, done, total: 8000 }) if j == job && done > 0 => return done,
                Some(Event::TrainingStarted(..)) => panic!("all was read before anything was told"),
                _ => {}
            }
        }
        panic!("nothing was told");
    };
    let [first, second] = [engine.new_job(), engine.new_job()];
    engine.send(train(first)).unwrap();
    assert!(progress(first) < 1000);
    // a newer run replaces it, and a cancel ends that
    engine.send(train(second)).unwrap();
    assert_eq!(until_finished(&engine, first).1, Outcome::Cancelled);
    progress(second);
    engine.send(Command::Cancel(second)).unwrap();
    let (events, outcome) = until_finished(&engine, second);
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(!events.iter().any(|e| matches!(e, Event::TrainingStarted(..))), "{events:?}");
}

#[test]
fn films_that_no_machine_could_hold_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let config = Config {
        sample_size: Some(SampleSize::Square(1024)),
        block_out_channels: vec![8],
        down_block_types: vec!["DownBlock2D".into()],
        up_block_types: vec!["UpBlock2D".into()],
        mid_block_type: None,
        norm_num_groups: Some(2),
        attention_head_dim: None,
        ..Config::default()
    };
    let ema = Params::init(&config, 0, &candle_core::Device::Cpu).unwrap();
    let large = Checkpoint { ema, schedule: ScheduleSettings::default(), training: None, config };
    checkpoint::save(tmp.path(), &large).unwrap();
    let engine = engine(1);
    engine.send(Command::Load(engine.new_job(), Origin::Folder(tmp.path().into()))).unwrap();
    let forward =
        ForwardRequest { which: Which::Loaded, schedule: None, seed: 1, n: 256, source: ForwardSource::Photo(0) };
    let [a, b] = [engine.new_job(), engine.new_job()];
    for (job, command) in
        [(a, Command::Sample(a, SampleRequest { n: 256, ..request(1) })), (b, Command::Forward(b, forward))]
    {
        engine.send(command).unwrap();
        let Outcome::Failed(e) = until_finished(&engine, job).1 else { panic!("8 GiB were asked of the machine") };
        assert!(e.to_string().contains("256 pictures of 1024x1024 takes 8 GiB"), "{e}");
    }
}
