//! Snapshots of a training: at chosen steps the model draws from the same noise, so that the same static is seen learning
//! to become a picture.

use super::denoiser::Predicting;
use super::outbox::Outbox;
use super::{Event, JobId};
use crate::checkpoint;
use crate::diffusion::noise::Purpose;
use crate::diffusion::sampler::{Sampler, SamplerKind};
use crate::diffusion::schedule::{Schedule, Spacing};
use crate::diffusion::trajectory::{Frame, Quantity, Trajectory};
use crate::diffusion::{Images, process};
use crate::error::Result;
use crate::model::compute::Compute;
use crate::model::{Denoiser as _, Params};
use crate::monitor::RunLog;
use crate::train::trainer::Trainer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PICTURES: usize = 8;
/// DDIM steps of a film.
pub(super) const STEPS: usize = 20;
/// The films of every run start from the noise of this seed, so runs can be compared.
const SEED: u64 = 42;
/// Share of a run's network passes that its snapshots may take.
const SHARE: f64 = 0.04;
/// How much further a run has come from one snapshot to the next, at least.
const GROWTH: f64 = 1.25;

/// What a model in training drew after so many steps: every state of two short films from the noise that all snapshots
/// of all runs share.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Training steps behind it.
    pub step: u64,
    /// The film of the moving average.
    pub ema: Trajectory,
    /// The film of the weights as the optimiser left them.
    pub raw: Trajectory,
}

/// The last EMA pictures of a run's newest snapshot, with their training step.
pub(super) fn newest_pictures(dir: &Path) -> Option<(u64, Images)> {
    let saved = checkpoint::newest_snapshot(dir)?;
    let [n, c, h, w] = saved.shape;
    let i = saved.doses.iter().position(|doses| *doses == 0)?;
    let len = 2 * n * c * h * w;
    let film = Frame::from_bytes(0, saved.ema.get(i * len..(i + 1) * len)?);
    Some((saved.step, film.pictures(n, [c, h, w])?))
}

/// Whether a snapshot is due after `step` steps of `batch` images: their number grows like the logarithm of the steps,
/// and their films take a bounded share of the work. It depends on nothing else, so a resumed run has the same ones. The
/// `end` of a run has one, too, if the last is not near.
fn due(step: u64, batch: usize, end: bool) -> bool {
    let (passes, per_step) = (2 * PICTURES * STEPS, 3 * batch);
    let gap = (passes as f64 / (SHARE * per_step as f64)).ceil() as u64;
    let (mut last, mut at) = (0, 0);
    while at < step {
        last = at;
        at = (at + gap).max((at as f64 * GROWTH) as u64);
    }
    at == step || end && step - last >= gap
}

/// A film under way.
struct Sketch {
    network: Predicting,
    sampler: Sampler,
    film: Trajectory,
}

impl Sketch {
    fn start(trainer: &Trainer, weights: &Params) -> Result<Self> {
        let network = trainer.network(weights)?;
        let schedule = trainer.schedule().spaced(STEPS, Spacing::Trailing)?;
        let x = process::noise_images(SEED, Purpose::Start, 0, 0, PICTURES, network.shape());
        let mut film = Trajectory::new(x.n, x.shape(), Arc::clone(trainer.schedule()));
        let sampler = Sampler::new(schedule, SamplerKind::Ddim { eta: 0.0 }, true, x)?;
        film.insert(Arc::new(Frame::state(sampler.doses(), sampler.x())));
        Ok(Self { network: Predicting::Network(Box::new(network)), sampler, film })
    }

    /// One network call; true when the film is done.
    fn advance(&mut self, compute: &Compute) -> Result<bool> {
        if let Some(t) = self.sampler.wants() {
            let eps = self.network.predict(compute, self.sampler.x(), t)?;
            // DDIM with eta 0 draws no noise
            self.sampler.advance(&eps, |_| Images::zeros(0, [0; 3]));
            self.film.insert(Arc::new(Frame::state(self.sampler.doses(), self.sampler.x())));
        }
        Ok(self.sampler.wants().is_none())
    }
}

/// What is drawn between two training steps: a preview, a snapshot, or both.
pub(super) struct Drawing {
    step: u64,
    preview: bool,
    ema: Sketch,
    /// For a snapshot; before the first step both copies are the same.
    raw: Option<Sketch>,
    snapshot: bool,
    /// Whether it goes into the curves for other programs: never what depends on the clock or on a person.
    logged: bool,
}

impl Drawing {
    /// What is to be drawn of the trainer's state, if anything.
    pub(super) fn due(trainer: &Trainer, album: &Album, preview: bool) -> Result<Option<Self>> {
        let step = trainer.steps_done();
        let snapshot = due(step, trainer.plan().run.batch, trainer.is_done()) && !album.has(step);
        if !snapshot && !preview {
            return Ok(None);
        }
        let raw = (snapshot && step > 0).then(|| Sketch::start(trainer, &trainer.raw())).transpose()?;
        let ema = Sketch::start(trainer, &trainer.ema())?;
        Ok(Some(Self { step, preview, ema, raw, snapshot, logged: snapshot }))
    }

    /// Its EMA pictures go into the curves for other programs, too.
    pub(super) fn log(&mut self) {
        self.logged = true;
    }

    /// Its EMA pictures are shown at once, too.
    pub(super) fn show(&mut self) {
        self.preview = true;
    }

    pub(super) fn is_shown(&self) -> bool {
        self.preview
    }

    pub(super) fn is_kept(&self) -> bool {
        self.snapshot
    }

    /// One network call; true when all is drawn.
    pub(super) fn advance(&mut self, compute: &Compute) -> Result<bool> {
        match &mut self.raw {
            Some(raw) if self.ema.sampler.wants().is_none() => raw.advance(compute),
            Some(_) => self.ema.advance(compute).map(|_| false),
            None => self.ema.advance(compute),
        }
    }

    /// Tells what was drawn, notes it in the curves for other programs, and keeps it.
    pub(super) fn finish(self, job: JobId, album: &mut Album, log: Option<&mut RunLog>, out: &Outbox) {
        out.warn(log.filter(|_| self.logged).map(|log| log.strip(self.step, self.ema.sampler.x())).unwrap_or(Ok(())));
        if self.preview {
            out.send(Event::Preview(job, self.step, Arc::new(self.ema.sampler.x().clone())));
        }
        if self.snapshot {
            let (ema, raw) = (self.ema.film, self.raw.map(|raw| raw.film));
            let snapshot = Arc::new(Snapshot { step: self.step, raw: raw.unwrap_or_else(|| ema.clone()), ema });
            out.send(Event::Snapshot(job, Arc::clone(&snapshot)));
            album.held.push(snapshot);
        }
    }
}

/// The snapshots of a run, in memory and in its folder.
#[derive(Default)]
pub(super) struct Album {
    held: Vec<Arc<Snapshot>>,
    dir: Option<PathBuf>,
    /// How many of them the folder holds.
    written: usize,
}

impl Album {
    /// The snapshots that the trainer's run left in `dir`; those of steps that are to be done again are removed.
    pub(super) fn open(dir: Option<&Path>, trainer: &Trainer, job: JobId, out: &Outbox) -> Self {
        let mut album = Self { dir: dir.map(Path::to_owned), ..Self::default() };
        let Some(dir) = dir else { return album };
        out.warn(checkpoint::drop_snapshots(dir, Some(trainer.steps_done())));
        let (saved, errors) = checkpoint::read_snapshots(dir);
        if let Some(first) = errors.first() {
            let others = if errors.len() > 1 { format!(" and {} more", errors.len() - 1) } else { String::new() };
            out.send(Event::Warning(format!("a snapshot{others} is left out, training goes on: {first}")));
        }
        let shape = trainer.plan().model.image_shape();
        album.held.extend(saved.iter().filter_map(|saved| open(saved, shape, trainer.schedule())).map(Arc::new));
        album.written = album.held.len();
        album.held.iter().for_each(|snapshot| out.send(Event::Snapshot(job, Arc::clone(snapshot))));
        album
    }

    /// Those of a run that goes on in memory from there.
    pub(super) fn go_on(&self, job: JobId, out: &Outbox) -> Self {
        self.held.iter().for_each(|snapshot| out.send(Event::Snapshot(job, Arc::clone(snapshot))));
        Self { held: self.held.clone(), ..Self::default() }
    }

    /// Forgets those of steps after `step`, which are to be done again.
    pub(super) fn rewind(&mut self, step: u64) {
        self.held.retain(|snapshot| snapshot.step <= step);
        self.written = self.written.min(self.held.len());
    }

    /// Removes what the run's folder holds of steps after `step`.
    pub(super) fn drop_later(&self, step: u64) -> Result<()> {
        self.dir.as_deref().map_or(Ok(()), |dir| checkpoint::drop_snapshots(dir, Some(step)))
    }

    fn has(&self, step: u64) -> bool {
        self.held.iter().any(|snapshot| snapshot.step == step)
    }

    /// Writes those that the run's folder lacks.
    pub(super) fn write(&mut self) -> Result<()> {
        if let Some(dir) = &self.dir {
            for snapshot in &self.held[self.written..] {
                checkpoint::write_snapshot(dir, &on_disk(snapshot))?;
                self.written += 1;
            }
        }
        Ok(())
    }

    /// Takes in that the run's folder is a new one: all are to be written again.
    pub(super) fn lost_its_files(&mut self) {
        self.written = 0;
    }

    /// Writes all of them into another folder, in the place of those that are there.
    pub(super) fn copy_to(&self, dir: &Path) -> Result<()> {
        checkpoint::drop_snapshots(dir, None)?;
        self.held.iter().try_for_each(|snapshot| checkpoint::write_snapshot(dir, &on_disk(snapshot)))
    }
}

fn on_disk(snapshot: &Snapshot) -> checkpoint::Snapshot {
    let Snapshot { step, ema, raw } = snapshot;
    let [c, h, w] = ema.shape();
    let doses: Vec<usize> = states(ema).map(|frame| frame.doses).collect();
    let bytes = |film| states(film).flat_map(|frame| frame.to_bytes()).collect();
    checkpoint::Snapshot { step: *step, shape: [ema.n(), c, h, w], doses, ema: bytes(ema), raw: bytes(raw) }
}

/// The states of a short film, the noisiest first.
fn states(film: &Trajectory) -> impl Iterator<Item = &Arc<Frame>> {
    (0..=film.steps()).rev().filter_map(|doses| film.at(doses).filter(|frame| frame.doses == doses))
}

/// A snapshot of pictures of that shape as it was saved; `None` if it is of another network.
fn open(saved: &checkpoint::Snapshot, shape: [usize; 3], schedule: &Arc<Schedule>) -> Option<Snapshot> {
    let [n, c, h, w] = saved.shape;
    let fits = [c, h, w] == shape && n > 0 && saved.doses.iter().all(|doses| *doses <= schedule.steps());
    fits.then(|| {
        let film = |bytes: &[u8]| {
            let mut film = Trajectory::new(n, shape, Arc::clone(schedule));
            for (doses, state) in saved.doses.iter().zip(bytes.chunks(2 * n * c * h * w)) {
                film.insert(Arc::new(Frame::from_bytes(*doses, state)));
            }
            film
        };
        Snapshot { step: saved.step, ema: film(&saved.ema), raw: film(&saved.raw) }
    })
}

impl Snapshot {
    /// Doses of noise in the states of its films, the noisiest first.
    pub fn states(&self) -> Vec<usize> {
        states(&self.ema).map(|frame| frame.doses).collect()
    }

    /// The pictures of one of its films at `doses`.
    pub fn pictures(film: &Trajectory, doses: usize) -> Option<Images> {
        film.view(film.at(doses)?, Quantity::State)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::RunConfig;

    #[test]
    fn snapshots_are_bounded_in_number_bytes_and_share_of_the_work() {
        let mut bytes = 0;
        for preset in crate::model::PRESETS {
            let plan = RunConfig { preset: preset.to_owned(), ..RunConfig::default() }.validate().unwrap();
            bytes = bytes.max(plan.model.image_shape().iter().product::<usize>() * 2 * PICTURES * (STEPS + 1) * 2);
        }
        for batch in [1, 4, 64, 128, 4096] {
            let steps: Vec<u64> = (0..200_000).filter(|step| due(*step, batch, false)).collect();
            assert_eq!(steps[0], 0);
            for (n, step) in steps.iter().enumerate().skip(1) {
                let share = (n * 2 * PICTURES * STEPS) as f64 / (*step as f64 * 3.0 * batch as f64);
                assert!(share < 0.05, "{share} of the work after {step} steps of {batch}");
            }
            // each further factor of 10 in steps gives ten more at most
            let longest = steps.len() + 2 * 11;
            assert!(longest < 85 && longest * bytes < 192 << 20, "{longest} of {bytes} bytes");
        }
        let usual: Vec<u64> = (0..20_001).filter(|step| due(*step, 64, false)).collect();
        assert!(usual.len() > 20 && usual[1] < 50, "{usual:?}");
        assert!(due(20_000, 64, true) && !due(20_000, 64, false) && !due(usual[1] + 1, 64, true));
    }
}
