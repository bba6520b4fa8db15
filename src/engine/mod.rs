//! The protocol between the window (or the command line) and the one worker thread: what can be asked, and what comes
//! back. Nothing else crosses.

use crate::diffusion::Images;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

mod aside;
mod comparison;
mod denoiser;
mod device;
mod export;
mod film;
mod films;
mod fork;
mod inbox;
mod outbox;
mod previews;
mod race;
mod reading;
mod recipe;
mod runs;
mod saving;
mod snapshots;
mod training;
mod worker;

pub use crate::checkpoint::hub;
pub use crate::data::{Dataset, Drawn, Source};
pub use crate::diffusion::prediction::PredictionType;
pub use crate::diffusion::sampler::{SamplerKind, Variance};
pub use crate::diffusion::schedule::{BetaSchedule, Schedule, ScheduleConfig, Spacing};
pub use crate::diffusion::trajectory::{Frame, Quantity, Trajectory};
pub use crate::error::{Error, Kind, Result};
pub use crate::export::{Container, SHORTEST_MS, ffmpeg};
pub use crate::monitor::{Run, STRIP, Watch, Watched};
pub use crate::train::changes::{Change, Changes, Setting};
pub use crate::train::config::{About, Number, RunConfig};
pub use crate::train::doctor::{Finding, Verdict};
pub use crate::train::evaluation::Evaluation;
pub use crate::train::floor::Floor;
pub use crate::train::metrics::{History, Point, StepStats};
pub use crate::train::timesteps;
pub use comparison::{CompareRequest, Comparison, Prediction};
pub use device::{DeviceChoice, open as open_device};
pub use export::{ExportRequest, Format, Left, Maker};
pub use fork::{Fork, ForkRequest};
pub use race::{Lane, RaceRequest};
pub use recipe::Recipe;
pub use runs::{ListedRun, RunSummary};
pub use snapshots::Snapshot;
pub(crate) use worker::load_model;

/// Names a request, chosen by its sender: [`Engine::new_job`].
pub type JobId = u64;

/// What the worker can be asked.
#[derive(Clone, Debug)]
pub enum Command {
    /// Start training; ends a training under way.
    Train(JobId, Box<TrainRequest>),
    /// Hold or go on with the training under way.
    SetTraining(TrainingState),
    /// Draw samples of the training under way as it is now, whatever that costs; also while it is held.
    Preview,
    /// Other settings for the training under way, from its next step on.
    Change(Changes),
    /// Compute a reverse film; replaces the one under way.
    Sample(JobId, SampleRequest),
    /// Branch the newest reverse film, or a branch of it; branches are computed after one another.
    Fork(JobId, ForkRequest),
    /// Forget these branches and all that is needed for them alone.
    Forget(Vec<JobId>),
    /// Compute a forward film.
    Forward(JobId, ForwardRequest),
    /// Set the noise predicted in one picture beside the noise that is in it.
    Compare(JobId, CompareRequest),
    /// Send the frame of that film at that state again: films that exceed their share of memory leave frames out.
    Recall {
        /// This request.
        job: JobId,
        /// The job that made the film: the newest reverse or forward film.
        film: JobId,
        /// The state.
        doses: usize,
    },
    /// DDPM beside DDIM from the same noise; ends a race under way.
    Race(JobId, RaceRequest),
    /// Read a data set, to look at it.
    Look(JobId, LookRequest),
    /// Make this the loaded model.
    Load(JobId, Origin),
    /// Fetch that model of the Hugging Face hub, `owner/name`, into its cache; ends another one under way.
    Fetch(JobId, String),
    /// Tell what the runs in that folder write, as it grows, without ever touching it; ends another watch.
    Watch(JobId, PathBuf),
    /// Save that model as a diffusers folder.
    Save(JobId, Which, PathBuf),
    /// Write a film into a file; ends an export under way.
    Export(JobId, Box<ExportRequest>),
    /// Look for the recipe of a film in that file.
    ReadRecipe(JobId, PathBuf),
    /// Read what the runs in that folder are, one after the other; ends a reading under way.
    ReadRuns(JobId, PathBuf),
    /// Keep that text in the folder of a run.
    SaveNotes(JobId, PathBuf, String),
    /// Stop that job.
    Cancel(JobId),
}

impl Command {
    /// The job that begins with it.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Train(job, _)
            | Self::Sample(job, _)
            | Self::Fork(job, _)
            | Self::Forward(job, _)
            | Self::Compare(job, _)
            | Self::Race(job, _)
            | Self::Look(job, _)
            | Self::Recall { job, .. }
            | Self::Load(job, _)
            | Self::Fetch(job, _)
            | Self::Watch(job, _)
            | Self::Save(job, ..)
            | Self::Export(job, _)
            | Self::ReadRecipe(job, _)
            | Self::ReadRuns(job, _)
            | Self::SaveNotes(job, ..) => Some(*job),
            Self::Forget(_) | Self::SetTraining(_) | Self::Preview | Self::Change(_) | Self::Cancel(_) => None,
        }
    }
}

/// Whether training moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingState {
    /// One step after the other.
    Running,
    /// Held; all state is kept.
    Paused,
}

/// Whose prediction a film follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predictor {
    /// The exponential moving average: what one samples with.
    Ema,
    /// The weights as the optimiser left them.
    Raw,
    /// No network: the exact denoiser of the data that the model learns from, so its film plays before any training.
    Oracle,
}

/// Which model makes a film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that was loaded (at first the shipped one).
    Loaded,
    /// The one being trained, as it is when the film starts.
    Training,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The model inside the program.
    Shipped,
    /// A diffusers folder.
    Folder(PathBuf),
}

/// A training run.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// All settings.
    pub config: RunConfig,
    /// Where checkpoints go; `None` keeps the run in memory until it is saved.
    pub out: Option<PathBuf>,
    /// Go on with these changes from the checkpoint in `out`, or without a folder from the training before, which is
    /// still in memory.
    pub resume: Option<Changes>,
    /// Save every so many steps too, and not only by the clock and at the end.
    pub save_every: Option<u64>,
    /// Largest share of the time that samples every so many steps may cost. They come later where they would cost more, and
    /// are only shown, since what is written must not depend on the clock. `None` draws and writes every one.
    pub preview_share: Option<f64>,
}

/// A reverse film.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRequest {
    /// Which model.
    pub which: Which,
    /// Whose prediction.
    pub predictor: Predictor,
    /// The address of all noise.
    pub seed: u64,
    /// Index of the first picture: pictures 3 and 4 of a seed are the same however they are asked for.
    pub first: u64,
    /// Number of pictures.
    pub n: usize,
    /// The rule of a step.
    pub sampler: SamplerKind,
    /// Number of steps; `None` for all T.
    pub steps: Option<usize>,
    /// Keep x̂_0 within [-1, 1].
    pub clip: bool,
    /// Start from a picture drowned to that many doses, each time with new noise (SDEdit, Meng et al. 2021), not from static.
    pub from: Option<(ForwardSource, usize)>,
    /// Send every frame, or only the last.
    pub every_frame: bool,
}

/// A data set to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookRequest {
    /// Which, as [`RunConfig::source`] says.
    pub data: Source,
    /// [c, h, w] of the images.
    pub shape: [usize; 3],
    /// Read the files again, although they were read before.
    pub again: bool,
}

impl LookRequest {
    fn place(&self) -> reading::Place {
        (self.data.clone(), self.shape)
    }
}

/// Where a forward film starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardSource {
    /// Pictures of the model's data set, picked by the seed.
    Data,
    /// A bundled photo, an index into [`photo_names`].
    Photo(usize),
    /// An image file.
    File(PathBuf),
    /// A picture drawn on the model's grid: c·h·w bytes, 0 black.
    Drawn(Arc<[u8]>),
}

/// A forward film, in the shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardRequest {
    /// Whose shape and schedule.
    pub which: Which,
    /// Another schedule than the model's.
    pub schedule: Option<ScheduleConfig>,
    /// The address of all noise, and of the choice of pictures.
    pub seed: u64,
    /// Number of pictures; a single picture is drowned `n` times.
    pub n: usize,
    /// Where it starts.
    pub source: ForwardSource,
}

/// What a person should know about a model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Short name: the shipped one, its folder, its name on the hub, or "mnist28 in training".
    pub name: String,
    /// [c, h, w] of its pictures.
    pub shape: [usize; 3],
    /// Number of weights.
    pub params: usize,
    /// Training steps behind it, where known.
    pub step: Option<u64>,
    /// What its EMA weights hash to: the same in every file that was made with them.
    pub hash: String,
    /// Whether raw weights are there beside the EMA.
    pub has_raw: bool,
    /// Its noise schedule.
    pub schedule: Arc<Schedule>,
    /// What that is made from.
    pub schedule_config: ScheduleConfig,
    /// What it was trained to predict; what films follow is the noise either way.
    pub prediction_type: PredictionType,
    /// σ² of its reverse steps, as its scheduler has it.
    pub variance: Variance,
    /// Whether its scheduler keeps x̂_0 within [-1, 1].
    pub clip: bool,
}

/// The state of a training, cumulative.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Speed over the last 63 steps at most, without what lay between them.
    pub images_per_s: f64,
    /// Estimated time left.
    pub seconds_left: f64,
    /// Share of the time that samples have cost, beside training steps; snapshots, which are kept, have their own.
    pub preview_share: f64,
    /// Whether it moves.
    pub state: TrainingState,
    /// Settings that may change, as they are now: all three are there.
    pub settings: Changes,
    /// If its last save failed: the step that its folder holds.
    pub save_failed: Option<u64>,
    /// The curves.
    pub history: Arc<History>,
    /// The oracle's loss by timestep, as far as it is known.
    pub floor: Arc<Floor>,
    /// What the run doctor says.
    pub verdicts: Arc<[Verdict]>,
}

/// What the worker tells. `Progress`, `Metrics` and `Race` are cumulative and may be left out when the window is behind, but
/// for the last `Race`; all else arrives.
#[derive(Clone, Debug)]
pub enum Event {
    /// The worker runs; what computes, in words: "CPU, 2 threads".
    Ready {
        /// The device.
        device: String,
    },
    /// The loaded model is now this one.
    ModelChanged(Arc<ModelInfo>),
    /// A training has begun, with this model.
    TrainingStarted(JobId, Arc<ModelInfo>),
    /// A forward film is complete; where its pictures come from, in words.
    Forward(JobId, Arc<Trajectory>, String),
    /// True and predicted noise in one picture.
    Compared(JobId, Arc<Comparison>),
    /// A reverse film begins: an empty trajectory to fill, and whose it is ("mnist28, step 40,000, EMA").
    SampleStarted(JobId, Box<Trajectory>, Provenance),
    /// The next frame of a reverse film, or one of either film that was asked for again.
    Frame(JobId, Arc<Frame>),
    /// The last state of a reverse film in full precision.
    Sampled(JobId, Arc<Images>),
    /// Work done so far.
    Progress {
        /// Which job.
        job: JobId,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// The data set to look at.
    Data(JobId, Arc<Dataset>),
    /// How training goes.
    Metrics(JobId, Arc<Metrics>),
    /// EMA samples from the same noise at a training step.
    Preview(JobId, u64, Arc<Images>),
    /// What a training drew at a step that is kept; a run that goes on sends those that it has, too.
    Snapshot(JobId, Arc<Snapshot>),
    /// The model of the hub is in this folder.
    Fetched(JobId, PathBuf),
    /// All that was read of watched runs.
    Watched(JobId, Arc<Watched>),
    /// That model was saved into this folder.
    Saved(JobId, Which, PathBuf),
    /// How far both samplers of a race have come; cumulative.
    Race(JobId, Box<[Lane; 2]>),
    /// The recipe inside that file, if it holds one.
    Recipe(JobId, PathBuf, Option<Box<Recipe>>),
    /// One of the runs in a folder.
    Run(JobId, Arc<ListedRun>),
    /// Something to know that stops nothing.
    Warning(String),
    /// The job is over; nothing more comes from it.
    Finished(JobId, Outcome),
}

/// The images that an oracle knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Name of the data.
    pub data: String,
    /// Number of images.
    pub images: usize,
}

/// Whose picture it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Model name.
    pub model: String,
    /// What its EMA weights hash to.
    pub hash: String,
    /// Training steps behind it, where known.
    pub step: Option<u64>,
    /// EMA, raw, or the oracle.
    pub predictor: Predictor,
    /// The model holds one copy of its weights, of which nobody says whether it is an average.
    pub only_copy: bool,
    /// What its network predicts.
    pub prediction_type: PredictionType,
    /// What the oracle knows, where it predicts.
    pub oracle: Option<Known>,
    /// The picture it was brought back from, in words; `None` for static.
    pub from: Option<String>,
    /// "DDPM", "DDIM".
    pub sampler: &'static str,
    /// Network calls per picture.
    pub calls: usize,
}

impl Provenance {
    /// "EMA", "raw", or nothing where that is not known.
    pub fn weights(&self) -> &'static str {
        match self.predictor {
            Predictor::Raw => "raw",
            _ if self.only_copy => "",
            _ => "EMA",
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All done.
    Done,
    /// Stopped on request or replaced.
    Cancelled,
    /// It failed.
    Failed(Error),
}

/// How to start an [`Engine`].
#[derive(Clone, Debug)]
pub struct Options {
    /// What computes.
    pub device: DeviceChoice,
    /// CPU threads; 0 for one per core.
    pub threads: usize,
    /// The model to load first.
    pub model: Option<Origin>,
}

/// The worker's other end. Dropping it stops the worker and waits for it: at most one unit of work, and the saves that
/// were asked for.
pub struct Engine {
    // taken in `drop`: both ends must be gone before the join, or a worker at a full channel waits for ever
    channels: Option<(Sender<Command>, Receiver<Event>)>,
    quit: Arc<AtomicBool>,
    next_job: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the worker. It calls `wake` whenever an event waits, from threads of its own.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(options: Options, wake: impl Fn() + Send + Sync + 'static) -> Result<Self> {
        let (commands, command_inbox) = crossbeam_channel::bounded(64);
        let (event_outbox, events) = crossbeam_channel::bounded(1024);
        let quit = Arc::new(AtomicBool::new(false));
        let outbox = outbox::Outbox::new(event_outbox, Arc::clone(&quit), Arc::new(wake));
        let thread = std::thread::Builder::new()
            .name("ddpm-worker".into())
            .spawn(move || worker::run(options, &command_inbox, &outbox))
            .map_err(|e| Error::new("cannot start the worker", e.to_string(), "close other programs and try again"))?;
        Ok(Self { channels: Some((commands, events)), quit, next_job: AtomicU64::new(1), thread: Some(thread) })
    }

    /// A number for the next request.
    pub fn new_job(&self) -> JobId {
        self.next_job.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a command without ever waiting.
    ///
    /// # Errors
    /// If the worker is gone or sixty-four commands already wait.
    pub fn send(&self, command: Command) -> Result<()> {
        match self.channels.as_ref().map(|(commands, _)| commands.try_send(command)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => {
                Err(Error::new("cannot do that now", "the worker is busy", "try again in a moment"))
            }
            Some(Err(TrySendError::Disconnected(_))) | None => Err(gone()),
        }
    }

    /// Whether as many commands wait as can.
    pub fn is_full(&self) -> bool {
        self.channels.as_ref().is_some_and(|(commands, _)| commands.is_full())
    }

    /// The next event, if one is there.
    ///
    /// # Errors
    /// If the worker is gone.
    pub fn poll(&self) -> Result<Option<Event>> {
        match self.channels.as_ref().map(|(_, events)| events.try_recv()) {
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(TryRecvError::Empty)) => Ok(None),
            Some(Err(TryRecvError::Disconnected)) | None => Err(gone()),
        }
    }

    /// Waits a little for the next event: for the command line, never for a window.
    ///
    /// # Errors
    /// If the worker is gone.
    pub fn wait(&self, longest: Duration) -> Result<Option<Event>> {
        match self.channels.as_ref().map(|(_, events)| events.recv_timeout(longest)) {
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(RecvTimeoutError::Timeout)) => Ok(None),
            Some(Err(RecvTimeoutError::Disconnected)) | None => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::new("cannot go on", "the worker has stopped", "restart the program")
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        self.channels = None;
        if let Some(thread) = self.thread.take() {
            // a worker that panicked has nothing left to save
            thread.join().unwrap_or_default();
        }
    }
}

/// Names of the bundled photos.
pub fn photo_names() -> Vec<&'static str> {
    crate::data::photos().iter().map(|(name, _)| *name).collect()
}

/// Names of the presets, smallest network first.
pub fn preset_names() -> &'static [&'static str] {
    &crate::model::PRESETS
}
