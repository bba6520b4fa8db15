//! What the window knows, and the one place where the worker's events change it.

use super::actions::{PathUse, UiAction};
use super::axis::{self, Scale};
use super::data::Data;
use super::export::{self, Exporting};
use super::fetch::Fetching;
use super::noise::Noise;
use super::playback::{Extent, Playback};
use super::race::Race;
use super::recall::Recall;
use super::runs::Runs;
use super::shared::Shared;
pub use super::training_run::Training;
use super::tree::{Branches, Travel, Version};
use super::watch::Watching;
use crate::engine::{
    Changes, Error, Event, ForwardRequest, ForwardSource, JobId, Kind, ModelInfo, Outcome, PredictionType, Predictor,
    Provenance, RunConfig, SampleRequest, SamplerKind, ScheduleConfig, TrainRequest, Trajectory, Variance, Which,
};
use std::path::PathBuf;
use std::sync::Arc;

/// Messages that wait to be read; past that the oldest goes.
const BANNERS: usize = 4;
/// Share of the time that samples of a training may cost.
const PREVIEW_SHARE: f64 = 0.05;
/// Grid sizes.
pub const GRIDS: [usize; 5] = [1, 4, 9, 16, 64];

/// The rule of a reverse step, before its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Ancestral sampling.
    Ddpm,
    /// Song et al. 2020.
    Ddim,
}

/// What both films are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct FilmSettings {
    /// Which model.
    pub which: Which,
    /// Whose prediction.
    pub predictor: Predictor,
    /// The rule of a reverse step.
    pub method: Method,
    /// σ² of DDPM.
    pub variance: Variance,
    /// η of DDIM.
    pub eta: f64,
    /// Reverse steps; `None` for all T.
    pub steps: Option<usize>,
    /// Keep x̂_0 within [-1, 1].
    pub clip: bool,
    /// Number of pictures.
    pub n: usize,
    /// The address of all noise.
    pub seed: u64,
    /// Where the forward film starts.
    pub source: ForwardSource,
    /// The reverse film brings the forward film's picture back from that many doses; `None` starts it from static.
    pub from: Option<usize>,
    /// The forward film's schedule, where it is not the model's.
    pub schedule: Option<ScheduleConfig>,
}

impl Default for FilmSettings {
    /// The opening film: four pictures of seed 3, in so many steps that two CPU cores have it whole within seconds.
    fn default() -> Self {
        Self {
            which: Which::Loaded,
            predictor: Predictor::Ema,
            method: Method::Ddpm,
            variance: Variance::FixedSmall,
            eta: 0.0,
            steps: Some(250),
            clip: true,
            n: 4,
            seed: 3,
            source: ForwardSource::Data,
            from: None,
            schedule: None,
        }
    }
}

impl FilmSettings {
    /// The reverse film of these settings.
    pub fn sample_request(&self) -> SampleRequest {
        SampleRequest {
            which: self.which,
            predictor: self.predictor,
            seed: self.seed,
            first: 0,
            n: self.n,
            sampler: match self.method {
                Method::Ddpm => SamplerKind::Ddpm { variance: self.variance },
                Method::Ddim => SamplerKind::Ddim { eta: self.eta },
            },
            steps: self.steps,
            clip: self.clip,
            from: self.from.map(|doses| (self.source.clone(), doses)),
            every_frame: true,
        }
    }

    /// The forward film of these settings.
    pub fn forward_request(&self) -> ForwardRequest {
        let Self { which, seed, n, schedule, .. } = *self;
        ForwardRequest { which, schedule, seed, n, source: self.source.clone() }
    }

    /// These, with the forward film of `now`; the picture that a reverse film begins from stays.
    pub fn beside(self, now: &Self) -> Self {
        let source = if self.from.is_some() { self.source } else { now.source.clone() };
        Self { source, schedule: now.schedule, ..self }
    }
}

/// What the next training is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSettings {
    /// All that decides its numbers.
    pub config: RunConfig,
    /// Folder for checkpoints, as typed; empty keeps the run in memory.
    pub out: String,
    /// Go on from the checkpoint in that folder.
    pub resume: bool,
}

impl RunSettings {
    /// Whether it is to go on from a checkpoint, which needs a folder.
    pub fn goes_on(&self) -> bool {
        self.resume && typed_path(&self.out).is_some()
    }

    /// The training of these settings. One that goes on keeps what may change on the way.
    pub fn request(&self) -> TrainRequest {
        let (out, resume) = (typed_path(&self.out), self.goes_on().then(Changes::default));
        TrainRequest { config: self.config.clone(), out, resume, save_every: None, preview_share: Some(PREVIEW_SHARE) }
    }
}

/// How far a film has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was asked for yet.
    #[default]
    Idle,
    /// Asked for or being computed.
    Busy,
    /// Complete.
    Done,
    /// Stopped before its end.
    Stopped,
    /// It failed.
    Failed(Error),
}

impl From<&Outcome> for Phase {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Cancelled => Self::Stopped,
            Outcome::Failed(e) => Self::Failed(e.clone()),
        }
    }
}

/// One of the two films.
#[derive(Clone, Debug)]
pub struct Film<T> {
    /// The job that may still change this film.
    pub job: Option<JobId>,
    /// How far that job has come.
    pub phase: Phase,
    /// The film, and the job that made it; an old one stays on screen until the new one begins.
    pub film: Option<(JobId, Trajectory)>,
    /// Whose it is.
    pub source: Option<T>,
    /// What it was made from.
    pub made: Option<FilmSettings>,
    /// What the expected one will be made from.
    asked: Option<FilmSettings>,
}

impl<T> Default for Film<T> {
    fn default() -> Self {
        Self { job: None, phase: Phase::Idle, film: None, source: None, made: None, asked: None }
    }
}

impl<T> Film<T> {
    /// Waits for that job's film of these settings from now on.
    pub fn expect(&mut self, job: JobId, settings: FilmSettings) {
        self.job = Some(job);
        self.phase = Phase::Busy;
        self.asked = Some(settings);
    }

    /// Takes in the film that it waits for.
    pub fn begin(&mut self, job: JobId, film: Trajectory, source: T) {
        self.film = Some((job, film));
        self.source = Some(source);
        self.made = self.asked.take();
    }

    /// Takes in how its job ended. Where that never began, the film on screen is as it was.
    pub fn finish(&mut self, outcome: &Outcome) {
        if let Some((job, film)) = self.film.as_ref().filter(|(job, _)| self.job != Some(*job)) {
            self.job = Some(*job);
            self.phase = if film.reached() == Some(0) { Phase::Done } else { Phase::Stopped };
            return;
        }
        self.phase = outcome.into();
    }
}

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something was done.
    Info,
    /// Something to know.
    Warning,
    /// Something failed.
    Error,
}

/// A message that stays until it is dismissed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banner {
    /// How grave it is.
    pub severity: Severity,
    /// What happened.
    pub what: String,
    /// Why, and what to try.
    pub details: String,
    /// All of it as one line, to copy.
    pub line: String,
    /// Whether it says that the training diverged, which can go on.
    pub diverged: bool,
}

/// All that the views show.
#[derive(Clone, Debug, Default)]
pub struct AppState {
    /// What computes, in words.
    pub device: Option<String>,
    /// The loaded model.
    pub model: Option<Arc<ModelInfo>>,
    /// From data to noise.
    pub forward: Film<String>,
    /// From noise to a picture.
    pub reverse: Film<Provenance>,
    /// What leaves the reverse film on its way.
    pub branches: Branches,
    /// The playhead over both.
    pub playback: Playback,
    /// What the length of the timeline stands for.
    pub scale: Scale,
    /// True and predicted noise at the playhead.
    pub noise: Noise,
    /// Frames that were asked for again.
    pub recall: Recall,
    /// Whether only the film, its timeline and its numbers are shown.
    pub presenting: bool,
    /// What both films are made from.
    pub settings: FilmSettings,
    /// What the next training is made from.
    pub run: RunSettings,
    /// What it learns from.
    pub data: Data,
    /// The newest training.
    pub training: Option<Training>,
    /// The runs in a folder.
    pub runs: Runs,
    /// Loading and saving under way.
    pub file_jobs: Vec<JobId>,
    /// DDPM beside DDIM.
    pub race: Option<Race>,
    /// Branches of the film at four t.
    pub shared: Option<Shared>,
    /// A run that is watched.
    pub watching: Option<Watching>,
    /// A model on its way from the hub.
    pub fetching: Option<Fetching>,
    /// A film being written into a file.
    pub exporting: Option<Exporting>,
    /// A film to make once its model is there.
    pub to_restore: Option<(Box<Version>, Option<Travel>)>,
    /// Messages, oldest first.
    pub banners: Vec<Banner>,
    last_job: JobId,
}

impl AppState {
    /// A number for the next request. The worker itself uses 0 for what it does unasked.
    pub fn new_job(&mut self) -> JobId {
        self.last_job += 1;
        self.last_job
    }

    /// The model that films are made with.
    pub fn chosen_model(&self) -> Option<&Arc<ModelInfo>> {
        match self.settings.which {
            Which::Loaded => self.model.as_ref(),
            Which::Training => self.training.as_ref()?.model.as_ref(),
        }
    }

    /// Takes out of the settings what the chosen model has not.
    pub(super) fn fit_settings(&mut self) {
        let Some(model) = self.chosen_model().cloned() else { return };
        let (s, values) = (&mut self.settings, model.shape.iter().product::<usize>());
        if matches!(&s.source, ForwardSource::Drawn(bytes) if bytes.len() != values) {
            s.source = ForwardSource::Data;
        }
        if !model.has_raw && s.predictor == Predictor::Raw {
            s.predictor = Predictor::Ema;
        }
        let steps = model.schedule.steps();
        (s.steps, s.from) = (s.steps.filter(|k| *k <= steps), s.from.filter(|t| *t <= steps));
    }

    /// After another model took the place of the chosen one: branches of what was there before are kept until a person wants
    /// a new film.
    fn films_anew(&mut self) -> Option<UiAction> {
        self.fit_settings();
        (!self.would_lose_branches()).then_some(UiAction::Restart)
    }

    /// What the network behind the reverse film predicts.
    pub fn predicts(&self) -> PredictionType {
        let of_film = self.reverse.source.as_ref().map(|by| by.prediction_type);
        of_film.or(self.model.as_ref().map(|model| model.prediction_type)).unwrap_or(PredictionType::Epsilon)
    }

    /// Takes in what the worker tells; what belongs to a job that is no longer current is dropped. Returns what must
    /// follow.
    #[must_use]
    pub fn apply(&mut self, event: Event) -> Option<UiAction> {
        match event {
            Event::Ready { device } => self.device = Some(device),
            Event::ModelChanged(model) => {
                self.settings.which = Which::Loaded;
                (self.settings.schedule, self.settings.from) = (None, None);
                (self.settings.variance, self.settings.clip) = (model.variance, model.clip);
                if matches!(self.settings.source, ForwardSource::Drawn(_)) {
                    // it was drawn on another model's grid
                    self.settings.source = ForwardSource::Data;
                }
                self.model = Some(model);
                self.fit_settings();
                self.noise.forget();
                return Some(self.awaited().unwrap_or(UiAction::Restart));
            }
            Event::TrainingStarted(job, model) => {
                if let Some(t) = self.training.as_mut().filter(|t| t.job == job) {
                    t.model = Some(model);
                    if self.settings.which == Which::Training {
                        // films and predictions of the training before
                        self.noise.forget();
                        return self.films_anew();
                    }
                }
            }
            Event::Forward(job, film, source) => {
                if self.forward.job == Some(job) {
                    if self.reverse.film.is_none() {
                        self.playback.set_steps(film.steps());
                    }
                    self.forward.begin(job, Trajectory::clone(&film), source);
                    self.forward.phase = Phase::Done;
                }
            }
            Event::Compared(job, comparison) => self.noise.compared(job, comparison),
            Event::SampleStarted(job, film, source) => {
                if self.reverse.job == Some(job) {
                    self.playback.restart(film.steps(), film.beginning());
                    self.take_branches(job);
                    self.reverse.begin(job, *film, source);
                } else if let Some(branch) = self.branches.of_job(job) {
                    branch.begin(job, *film, source);
                } else if let Some(shared) = &mut self.shared {
                    shared.begin(job, source);
                }
            }
            Event::Frame(job, frame) => {
                if let Some(shared) = &mut self.shared {
                    shared.follow(job, &frame);
                }
                let branch = self.branches.of_job(job).and_then(|branch| branch.film.as_mut());
                let films = [&mut self.reverse.film, &mut self.forward.film].into_iter().flatten().chain(branch);
                for (_, film) in films.filter(|(made, _)| *made == job) {
                    film.insert(Arc::clone(&frame));
                }
            }
            Event::Metrics(job, metrics) => {
                if let Some(t) = self.training.as_mut().filter(|t| t.job == job) {
                    t.metrics = Some(metrics);
                }
            }
            Event::Preview(job, step, images) => {
                if let Some(t) = self.training.as_mut().filter(|t| t.job == job) {
                    t.preview = Some((step, images));
                }
            }
            Event::Snapshot(job, snapshot) => {
                if let Some(t) = self.training.as_mut().filter(|t| t.job == job) {
                    t.snapshots.push(snapshot);
                }
            }
            Event::Saved(job, which, path) => {
                if self.file_jobs.contains(&job) {
                    if let Some(t) = self.training.as_mut().filter(|_| which == Which::Training) {
                        t.saved();
                    }
                    self.notify(Severity::Info, "Model saved".into(), path.display().to_string());
                }
            }
            Event::Warning(text) => self.notify(Severity::Warning, text, String::new()),
            Event::Finished(job, outcome) => {
                self.finished(job, &outcome);
                let never_began = self.training.as_ref().is_some_and(|t| t.job == job && t.model.is_none());
                if never_began && self.settings.which == Which::Training {
                    self.settings.which = Which::Loaded;
                    return self.films_anew();
                }
            }
            Event::Data(job, set) => self.data.arrived(job, set),
            Event::Progress { job, done, total } => {
                self.data.follow(job, done, total);
                if let Some(t) = self.training.as_mut().filter(|t| t.job == job) {
                    t.reading = Some((done, total));
                }
                self.runs.follow(job, done, total);
                if let Some(fetching) = &mut self.fetching {
                    fetching.follow(job, done, total);
                }
                if let Some(export) = &mut self.exporting {
                    export.follow(job, done, total);
                }
            }
            Event::Race(job, lanes) => {
                if let Some(race) = self.race.as_mut().filter(|race| race.job == job) {
                    race.lanes = Some(lanes);
                }
            }
            Event::Run(job, run) => self.runs.add(job, run),
            Event::Recipe(_, _, Some(recipe)) => {
                return Some(UiAction::Restore(Box::new(export::version(*recipe)), None));
            }
            Event::Recipe(_, path, None) => return Some(UiAction::UsePath(PathUse::OpenImage, path)),
            Event::Watched(job, seen) => {
                if let Some(watching) = &mut self.watching {
                    watching.follow(job, seen);
                }
            }
            Event::Fetched(job, folder) => {
                if self.fetching.as_ref().is_some_and(|fetching| fetching.is(job)) {
                    return Some(UiAction::UsePath(PathUse::OpenModel, folder));
                }
            }
            // a film shows how far it has come by its frames
            Event::Sampled(..) => {}
        }
        self.branches.follow(&self.reverse);
        None
    }

    fn finished(&mut self, job: JobId, outcome: &Outcome) {
        let mut known = job == 0
            || self.data.finished(job, outcome)
            || self.noise.finished(job, outcome)
            || self.recall.finished(job);
        known |= self.runs.finished(job);
        known |= self.shared.as_mut().is_some_and(|shared| shared.finished(job, outcome));
        if let Some(race) = self.race.as_mut().filter(|race| race.job == job) {
            race.over = true;
            known = true;
        }
        known |= self.watching.take_if(|watching| watching.is(job)).is_some();
        known |= self.fetching.take_if(|fetching| fetching.is(job)).is_some();
        if let Some(export) = self.exporting.take_if(|e| e.job() == job) {
            if let Some((what, details)) = export.words(outcome) {
                self.notify(Severity::Info, what, details);
            }
            known = true;
        }
        if self.forward.job == Some(job) {
            self.forward.finish(outcome);
            known = true;
        }
        let reverse = Some(&mut self.reverse).filter(|film| film.job == Some(job));
        for film in reverse.into_iter().chain(self.branches.of_job(job)) {
            film.finish(outcome);
            known = true;
        }
        if let Some(t) = self.training.as_mut().filter(|t| t.job == job) {
            t.phase = outcome.into();
            // what was to go on is there as before; instead of a new run that was stopped there is none
            if t.model.is_none()
                && (matches!(outcome, Outcome::Failed(_)) || t.metrics.is_some())
                && let Some(before) = t.before.take()
            {
                *t = *before;
            }
            known = true;
        }
        if self.file_jobs.contains(&job) {
            self.file_jobs.retain(|j| *j != job);
            known = true;
        }
        if known && let Outcome::Failed(e) = outcome {
            self.fail(e);
        }
    }

    /// Shows an error until it is dismissed.
    pub fn fail(&mut self, e: &Error) {
        if e.kind == Kind::Cancelled {
            return;
        }
        let mut details = e.why.clone();
        if !e.hint.is_empty() {
            details = format!("{details}; {}", e.hint);
        }
        if let Some(path) = &e.path {
            details = format!("{details} ({})", path.display());
        }
        let (what, line, diverged) = (e.what.clone(), e.to_string(), e.kind == Kind::Diverged);
        self.push(Banner { severity: Severity::Error, what, details, line, diverged });
    }

    /// Shows a message until it is dismissed.
    pub fn notify(&mut self, severity: Severity, what: String, details: String) {
        let line = if details.is_empty() { what.clone() } else { format!("{what}: {details}") };
        self.push(Banner { severity, what, details, line, diverged: false });
    }

    fn push(&mut self, banner: Banner) {
        if !self.banners.contains(&banner) {
            if self.banners.len() == BANNERS {
                self.banners.remove(0);
            }
            self.banners.push(banner);
        }
    }

    /// How much of the film can be played.
    pub fn extent(&self) -> Extent {
        let reverse = self.shown();
        match &reverse.film {
            Some((job, film)) => {
                let growing = reverse.phase == Phase::Busy && reverse.job == Some(*job);
                Extent { reached: film.reached(), growing }
            }
            None => Extent { reached: self.forward.film.as_ref().map(|_| 0), growing: false },
        }
    }

    /// The state in which the reverse film begins, if it was brought back from a picture.
    pub fn begins(&self) -> Option<usize> {
        let from_picture = self.reverse.source.as_ref().is_some_and(|by| by.from.is_some());
        self.shown().film.as_ref().filter(|_| from_picture).map(|(_, film)| film.beginning())
    }

    /// The state of the forward film at that place of the timeline, which a film on another schedule shares by length.
    pub fn forward_doses(&self, doses: usize) -> usize {
        let steps = self.forward.film.as_ref().map_or(0, |(_, film)| film.steps());
        axis::along(doses, self.playback.steps(), steps)
    }

    /// The training that is under way.
    pub fn running_training(&self) -> Option<&Training> {
        self.training.as_ref().filter(|t| t.phase == Phase::Busy)
    }
}

/// Any other seed, the same one for the same seed: splitmix64, kept short enough to read aloud.
pub fn next_seed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let short = (z ^ (z >> 31)) % 100_000;
    if short == seed { short + 1 } else { short }
}

/// A path as it is typed: empty for none, `~` for the home folder.
pub fn typed_path(text: &str) -> Option<PathBuf> {
    let text = text.trim();
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        _ if text.is_empty() => None,
        (Some(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(text.into()),
    }
}
