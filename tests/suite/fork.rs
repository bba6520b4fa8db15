//! Branches of a film, through the worker.

use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Command, DeviceChoice, Engine, Event, ExportRequest, Fork, ForkRequest, Format, ForwardRequest, ForwardSource,
    Frame, JobId, Left, Maker, Options, Origin, Outcome, Predictor, Quantity, Recipe, SampleRequest, SamplerKind,
    Trajectory, Variance, Which,
};
use std::sync::Arc;
use std::time::Duration;

const SMALL: SamplerKind = SamplerKind::Ddpm { variance: Variance::FixedSmall };

struct Made {
    film: Trajectory,
    last: Arc<Images>,
    calls: usize,
}

fn wait(engine: &Engine, job: JobId) -> Result<Made, String> {
    let (mut film, mut last) = (None, None);
    loop {
        match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            Event::SampleStarted(id, empty, whose) if id == job => film = Some((*empty, whose.calls)),
            Event::Frame(id, frame) if id == job => film.as_mut().unwrap().0.insert(frame),
            Event::Sampled(id, images) if id == job => last = Some(images),
            Event::Finished(id, Outcome::Done) if id == job => {
                let (film, calls) = film.unwrap();
                return Ok(Made { film, last: last.unwrap(), calls });
            }
            Event::Finished(id, Outcome::Failed(e)) if id == job => return Err(e.to_string()),
            _ => {}
        }
    }
}

fn request() -> SampleRequest {
    SampleRequest {
        which: Which::Loaded,
        predictor: Predictor::Ema,
        seed: 3,
        first: 0,
        n: 2,
        sampler: SMALL,
        steps: Some(20),
        clip: true,
        from: None,
        every_frame: true,
    }
}

fn film(engine: &Engine) -> (JobId, Made) {
    let job = engine.new_job();
    engine.send(Command::Sample(job, request())).unwrap();
    (job, wait(engine, job).unwrap())
}

fn fork(parent: JobId, doses: usize) -> ForkRequest {
    ForkRequest { parent, doses, repeat: None, predictor: Predictor::Ema, sampler: SMALL, clip: true, seed: 3 }
}

fn branch(engine: &Engine, request: ForkRequest) -> Result<(JobId, Made), String> {
    let job = engine.new_job();
    engine.send(Command::Fork(job, request)).unwrap();
    wait(engine, job).map(|made| (job, made))
}

fn with_threads(threads: usize) -> Engine {
    Engine::start(Options { device: DeviceChoice::Cpu, threads, model: Some(Origin::Shipped) }, || ()).unwrap()
}

fn engine() -> Engine {
    with_threads(2)
}

#[test]
fn a_branch_with_nothing_changed_is_the_film_it_leaves_bit_for_bit_and_computes_only_what_follows() {
    let engine = engine();
    let (root, whole) = film(&engine);
    let (_, same) = branch(&engine, fork(root, 501)).unwrap();
    assert_eq!((same.film.beginning(), same.calls), (501, 11), "20 of 1000 steps: 951, 901, …, 1");
    assert_eq!(same.last, whole.last);
    assert!((0..=501).all(|doses| same.film.at(doses) == whole.film.at(doses)));
    let (job, other) = branch(&engine, ForkRequest { seed: 4, ..fork(root, 501) }).unwrap();
    assert_ne!(other.last, whole.last);
    let state = |made: &Made, doses| made.film.view(made.film.at(doses).unwrap(), Quantity::State).unwrap();
    assert_eq!(state(&other, 501), state(&whole, 501), "the state that it leaves is shared");
    // a branch of a branch, by its own settings
    let large = SamplerKind::Ddpm { variance: Variance::FixedLarge };
    for changed in [
        ForkRequest { sampler: large, seed: 4, ..fork(job, 251) },
        ForkRequest { clip: false, seed: 4, ..fork(job, 251) },
        ForkRequest { predictor: Predictor::Raw, seed: 4, ..fork(job, 251) },
        ForkRequest { sampler: SamplerKind::Ddim { eta: 0.0 }, seed: 4, ..fork(job, 251) },
    ] {
        match branch(&engine, changed.clone()) {
            Ok((_, made)) => {
                assert_eq!(state(&made, 251), state(&other, 251));
                assert_ne!(made.last, other.last, "{changed:?}");
            }
            Err(why) => assert!(changed.predictor == Predictor::Raw && why.contains("only one copy"), "{why}"),
        }
    }
    let (_, same) = branch(&engine, ForkRequest { seed: 4, ..fork(job, 251) }).unwrap();
    assert_eq!(same.last, other.last);
}

#[test]
fn figure_7_branches_share_their_state_exactly_and_differ_after_it() {
    let engine = engine();
    let (root, whole) = film(&engine);
    for doses in [951, 701, 451, 251] {
        let (_, made) = branch(&engine, ForkRequest { repeat: Some((1, 4)), seed: 9, ..fork(root, doses) }).unwrap();
        let view = |film: &Trajectory| film.view(film.at(doses).unwrap(), Quantity::State).unwrap();
        let (shared, state) = (view(&whole.film), view(&made.film));
        assert!((0..4).all(|i| state.one(i) == shared.one(1)), "at {doses}");
        assert!((1..4).all(|i| made.last.one(i) != made.last.one(0)), "from {doses}");
    }
}

#[test]
fn what_cannot_be_branched_is_refused_in_a_sentence() {
    let engine = engine();
    let (root, _) = film(&engine);
    for (request, why) in [
        (fork(root, 0), "no state"),
        (fork(root, 500), "no state"),
        (fork(77, 501), "gone"),
        (ForkRequest { repeat: Some((2, 4)), ..fork(root, 501) }, "no picture 2"),
        (ForkRequest { repeat: Some((0, 0)), ..fork(root, 501) }, "0 pictures"),
        (ForkRequest { sampler: SamplerKind::Ddim { eta: 2.0 }, ..fork(root, 501) }, "eta"),
    ] {
        let refused = branch(&engine, request.clone()).map(|_| ()).unwrap_err();
        assert!(refused.contains(why), "{request:?}: {refused}");
    }
    let jobs: Vec<JobId> = (0..8).map(|_| branch(&engine, fork(root, 51)).unwrap().0).collect();
    assert!(branch(&engine, fork(root, 51)).map(|_| ()).unwrap_err().contains("delete one"));
    engine.send(Command::Forget(jobs)).unwrap();
    assert!(branch(&engine, fork(root, 51)).is_ok());
}

#[test]
fn a_branch_that_waits_for_one_that_is_dropped_is_cancelled_like_it() {
    let engine = engine();
    let (root, _) = film(&engine);
    let (first, _) = branch(&engine, fork(root, 951)).unwrap();
    let [busy, waits, twig] = [(); 3].map(|()| engine.new_job());
    for (job, parent) in [(busy, root), (waits, first), (twig, waits)] {
        engine.send(Command::Fork(job, fork(parent, 951))).unwrap();
    }
    engine.send(Command::Forget(vec![first])).unwrap();
    let mut ends = Vec::new();
    while ends.len() < 3 {
        if let Event::Finished(job, outcome) = engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            ends.push((job, outcome));
        }
    }
    assert_eq!(ends, [(waits, Outcome::Cancelled), (twig, Outcome::Cancelled), (busy, Outcome::Done)]);
}

#[test]
fn branches_of_branches_are_the_same_for_any_number_of_threads() {
    let ends = |threads| {
        let engine = with_threads(threads);
        let (root, _) = film(&engine);
        let (first, _) = branch(&engine, ForkRequest { seed: 4, ..fork(root, 701) }).unwrap();
        let oracle = ForkRequest { predictor: Predictor::Oracle, seed: 5, ..fork(first, 101) };
        let (second, _) = branch(&engine, ForkRequest { seed: 5, clip: false, ..fork(first, 351) }).unwrap();
        [oracle, fork(second, 201)].map(|request| branch(&engine, request).unwrap().1.last)
    };
    let one = ends(1);
    assert_ne!(one[0], one[1]);
    assert_eq!(one, ends(2));
}

/// Follows a film until it has come to `last`, stops it there, and hands back what it showed.
fn stop_at(engine: &Engine, job: JobId, last: usize) -> (Trajectory, Vec<Arc<Frame>>) {
    let (mut film, mut frames, mut stopping) = (None, Vec::new(), false);
    loop {
        match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
            Event::SampleStarted(id, empty, _) if id == job => film = Some(*empty),
            Event::Frame(id, frame) if id == job => {
                if frame.doses <= last && !stopping {
                    stopping = true;
                    engine.send(Command::Cancel(job)).unwrap();
                }
                // the first state comes once more, with its prediction
                frames.retain(|held: &Arc<Frame>| held.doses != frame.doses);
                frames.push(Arc::clone(&frame));
                film.as_mut().unwrap().insert(frame);
            }
            Event::Finished(id, outcome) if id == job => {
                assert_eq!(outcome, Outcome::Cancelled);
                return (film.unwrap(), frames);
            }
            _ => {}
        }
    }
}

#[test]
fn states_that_a_branch_left_out_come_again_bit_for_bit_and_a_stopped_film_can_be_branched() {
    let engine = engine();
    let root = engine.new_job();
    engine.send(Command::Sample(root, SampleRequest { n: 4, steps: None, ..request() })).unwrap();
    let (begun, _) = stop_at(&engine, root, 999);
    let job = engine.new_job();
    engine.send(Command::Fork(job, ForkRequest { seed: 4, ..fork(root, 1000) })).unwrap();
    let (mut film, frames) = stop_at(&engine, job, 760);
    let missing: Vec<_> = frames.iter().filter(|f| film.missing(f.doses, Quantity::State).is_some()).collect();
    let bounded = film.clone();
    assert!(missing.len() > 20, "a branch has its share of memory: {}", missing.len());
    for frame in [missing[0], missing[missing.len() / 2], missing[missing.len() - 1]] {
        let recall = engine.new_job();
        engine.send(Command::Recall { job: recall, film: job, doses: frame.doses }).unwrap();
        loop {
            match engine.wait(Duration::from_secs(120)).unwrap().expect("an event") {
                Event::Frame(id, again) if id == job => film.insert(again),
                Event::Finished(id, outcome) if id == recall => {
                    assert_eq!(outcome, Outcome::Done);
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(film.at(frame.doses), Some(frame));
    }
    // they are written, too, by what made each of them
    let kept = &frames[frames.len() - 1];
    let written = |moments: Vec<usize>, reverse: (JobId, Trajectory), left: Vec<Left>| {
        let folder = tempfile::tempdir().unwrap();
        let (path, export) = (folder.path().join("strip.png"), engine.new_job());
        let request = ExportRequest {
            path: path.clone(),
            format: Format::Strip,
            forward: None,
            reverse: Some(reverse),
            left,
            quantity: Quantity::State,
            moments,
            scale: 1,
            delay_ms: 20,
            captions: false,
            by: Maker::Model { step: None, weights: "EMA" },
            recipe: recipe(),
        };
        engine.send(Command::Export(export, Box::new(request))).unwrap();
        loop {
            if let Event::Finished(id, outcome) = engine.wait(Duration::from_secs(120)).unwrap().expect("an event")
                && id == export
            {
                let read = Recipe::read(&path);
                return match outcome {
                    Outcome::Done => Ok((image::open(&path).unwrap().into_rgb8(), read.unwrap().unwrap())),
                    other => Err(other),
                };
            }
        }
    };
    let branch = begun.left_at(1000, Some(&bounded));
    let left = vec![Left { job: root, doses: 1000, by: Maker::Model { step: None, weights: "EMA" } }];
    let moments = vec![missing[3].doses, kept.doses];
    let (strip, read) = written(moments.clone(), (job, branch), left).unwrap();
    assert_eq!(read, recipe());
    let mut exact = begun.left_at(1000, None).with_states((kept.doses..=1000).collect(), usize::MAX);
    [missing[3], kept].into_iter().for_each(|frame| exact.insert(Arc::clone(frame)));
    assert_eq!(strip, written(moments, (job, exact), Vec::new()).unwrap().0);
}

/// Of a branch of a branch.
fn recipe() -> Recipe {
    let forward = ForwardRequest { which: Which::Loaded, schedule: None, seed: 3, n: 2, source: ForwardSource::Data };
    let fork = Fork { doses: 501, predictor: Predictor::Ema, sampler: SMALL, clip: true, seed: 4 };
    let forks = vec![fork, Fork { sampler: SamplerKind::Ddim { eta: 0.25 }, clip: false, doses: 251, seed: 5, ..fork }];
    Recipe { model: "mnist28".into(), hash: String::new(), step: None, sample: request(), forks, forward }
}

#[test]
fn what_a_recipe_says_makes_the_same_branch_again() {
    let engine = engine();
    let made = |recipe: Recipe| {
        let (mut parent, mut last) = film(&engine);
        for fork in recipe.forks {
            (parent, last) = branch(&engine, fork.request(parent)).unwrap();
        }
        last.last
    };
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("film");
    let read = |recipe: &Recipe| {
        std::fs::write(&file, recipe.to_text()).unwrap();
        Recipe::read(&file)
    };
    assert_eq!(made(read(&recipe()).unwrap().unwrap()), made(recipe()));
    let fork = recipe().forks[0];
    let many = Recipe { forks: vec![fork; 9], ..recipe() };
    assert!(!matches!(read(&many), Ok(Some(_))), "more branches than are held");
}
