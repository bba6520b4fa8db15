//! The worker: takes commands, advances the current job by one unit (ARCHITECTURE.md says what that is), sends events.

use super::aside::Aside;
use super::comparison::{CompareRequest, Comparer};
use super::denoiser::Opening;
use super::export::ExportJob;
use super::film::{FilmJob, forward_film};
use super::films::Films;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::race::RaceJob;
use super::reading::{Place, Readings};
use super::recipe::{Recipe, weights_hash};
use super::runs::{self, RunsJob};
use super::training::TrainingJob;
use super::{Command, Event, ForwardSource, JobId, ModelInfo, Options, Origin, Predictor, Which, device};
use crate::checkpoint::{self, Checkpoint};
use crate::data::Source;
use crate::diffusion::reel::ForwardReel;
use crate::diffusion::schedule::Schedule;
use crate::error::{Error, Result};
use crate::model::compute::Compute;
use crate::train::trainer::State;
use candle_core::Device;
use crossbeam_channel::{Receiver, TryRecvError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at data being read, while nothing else is to be done.
const POLL: Duration = Duration::from_millis(5);

/// A model to make films with.
#[derive(Clone)]
pub(super) struct Model {
    pub info: Arc<ModelInfo>,
    pub checkpoint: Arc<Checkpoint>,
    /// The data it was trained on.
    pub data: Source,
    /// [`Dataset::fingerprint`](crate::data::Dataset::fingerprint) of these, where known.
    pub fingerprint: Option<String>,
    /// Why nobody knows which these are, if so; then MNIST stands for them.
    unknown_data: Option<String>,
}

/// Reads a model; also its short name. `warn` hears why an older save was read, or which schedule is assumed, if so.
pub(crate) fn load_model(origin: &Origin, device: &Device, warn: impl FnOnce(String)) -> Result<(Checkpoint, String)> {
    match origin {
        Origin::Shipped => Ok((checkpoint::shipped(device)?, "mnist28".to_owned())),
        Origin::Folder(dir) => {
            let folder = || dir.canonicalize().ok().and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()));
            let name = checkpoint::hub::name_of(dir).or_else(folder);
            let (checkpoint, warning) = checkpoint::load_saying(dir, device)?;
            warning.map(warn);
            Ok((checkpoint, name.unwrap_or_else(|| dir.display().to_string())))
        }
    }
}

impl Model {
    /// With what its own state says of steps and data.
    pub(super) fn new(checkpoint: Checkpoint, name: String) -> Result<Self> {
        let training = checkpoint.training.as_ref();
        let state = match training.map(|t| serde_json::from_value::<State>(t.state.clone())) {
            Some(Ok(state)) => Ok(state),
            Some(Err(e)) => Err(format!("what it says of its training is not understood ({e})")),
            None => Err("it does not say what it learned from".to_owned()),
        };
        let schedule_config = checkpoint.schedule.schedule()?;
        let info = ModelInfo {
            name,
            shape: checkpoint.config.image_shape(),
            params: checkpoint.ema.count(),
            step: state.as_ref().ok().map(|s| s.step),
            hash: weights_hash(&checkpoint.ema)?,
            has_raw: training.is_some(),
            schedule: Arc::new(Schedule::new(&schedule_config)?),
            schedule_config,
            prediction_type: checkpoint.schedule.prediction_type()?,
            variance: checkpoint.schedule.variance()?,
            clip: checkpoint.schedule.clip_sample,
        };
        let (data, fingerprint, unknown_data) = match state {
            Ok(state) => (state.source(), state.data, None),
            Err(why) => (Source::Mnist, None, Some(why)),
        };
        Ok(Self { info: Arc::new(info), checkpoint: Arc::new(checkpoint), data, fingerprint, unknown_data })
    }
}

struct Worker<'a> {
    compute: Arc<Compute>,
    out: &'a Outbox,
    loaded: Option<Model>,
    films: Films,
    race: Option<RaceJob>,
    export: Option<ExportJob>,
    runs: Option<RunsJob>,
    training: Option<TrainingJob>,
    readings: Readings,
    /// The newest forward film.
    forward: Option<(JobId, Rc<ForwardReel>)>,
    /// What the last comparison of noise was made with.
    comparer: Option<Comparer>,
    /// Folders that were saved to by hand.
    saved: Vec<PathBuf>,
    /// A model on its way from the hub.
    fetch: Option<Aside>,
    /// Runs of others.
    watch: Option<Aside>,
}

/// Runs until the other end is gone; then saves what a run would lose.
pub(super) fn run(options: Options, inbox: &Receiver<Command>, out: &Outbox) {
    device::lower_priority();
    let (compute, words) = match device::open(options.device, options.threads, true) {
        Ok(opened) => opened,
        Err(e) => return out.finished(0, Err(e)),
    };
    out.send(Event::Ready { device: words });
    let inbox = Inbox::new(inbox, out);
    let mut worker = Worker {
        compute: Arc::new(compute),
        out,
        loaded: None,
        films: Films::default(),
        race: None,
        export: None,
        runs: None,
        training: None,
        readings: Readings::default(),
        forward: None,
        comparer: None,
        saved: Vec::new(),
        fetch: None,
        watch: None,
    };
    if let Some(origin) = options.model {
        worker.guard(0, |w| w.load(&origin));
    }
    while !out.quit() {
        match inbox.next(worker.idle() && worker.readings.is_empty()) {
            Ok(command) => worker.take(command),
            Err(TryRecvError::Empty) => {
                worker.follow_readings();
                worker.advance();
            }
            Err(TryRecvError::Disconnected) => break,
        }
    }
    let waiting = worker.readings.rest();
    worker.save_what_was_asked(waiting.into_iter().chain(inbox.rest()));
    if let Some(Err(e)) = worker.training.as_mut().map(TrainingJob::save_if_due_at_exit) {
        log::error!("{e}");
    }
}

impl Worker<'_> {
    fn idle(&self) -> bool {
        let nothing = self.films.next().is_none() && self.race.is_none() && self.export.is_none();
        let nothing = nothing && self.runs.is_none();
        nothing && !self.training.as_ref().is_some_and(TrainingJob::has_work)
    }

    /// Runs one unit; a panic is an error like others.
    fn attempt(&mut self, unit: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        catch_unwind(AssertUnwindSafe(|| unit(self))).unwrap_or_else(|panic| {
            let why = panic.downcast_ref::<String>().map(String::as_str);
            let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown reason");
            Err(Error::new("the program made a mistake", why.to_owned(), "please report this"))
        })
    }

    /// Runs one unit; a failure or panic ends its job, not the worker.
    fn guard(&mut self, job: JobId, unit: impl FnOnce(&mut Self) -> Result<()>) -> bool {
        let result = self.attempt(unit);
        let failed = result.is_err();
        if failed {
            self.out.finished(job, result);
        }
        !failed
    }

    /// Begins a command, or sets it aside until the data that it needs are read.
    fn take(&mut self, mut command: Command) {
        match &mut command {
            Command::Train(_, request) => TrainingJob::decide(request, self.training.as_ref()),
            Command::Look(_, request) => request.data = request.data.decided(),
            _ => {}
        }
        for free in self.readings.make_way(&command, self.out) {
            self.take(free);
        }
        let Some(command) = self.readings.behind_training(command) else { return };
        let (Some(place), Some(job)) = (self.needs(&command), command.job()) else { return self.begin(command) };
        let mut ready = None;
        self.guard(job, |w| {
            if let Command::Train(_, request) = &command {
                w.end_training();
                TrainingJob::check(request)?;
            }
            ready = w.readings.when_read(place, command)?;
            Ok(())
        });
        if let Some(command) = ready {
            self.begin(command);
        }
    }

    /// The data without which it cannot begin.
    fn needs(&self, command: &Command) -> Option<Place> {
        let of = |which| match which {
            Which::Loaded => self.loaded.as_ref().map(|m| (m.data.clone(), m.info.shape)),
            Which::Training => self.training.as_ref().map(TrainingJob::place),
        };
        match command {
            Command::Train(_, request) => request.config.validate().ok().map(|plan| plan.data_place()),
            Command::Look(_, request) => Some(request.place()),
            Command::Sample(_, r) if r.predictor == Predictor::Oracle => of(r.which),
            Command::Sample(_, r) if matches!(r.from, Some((ForwardSource::Data, _))) => of(r.which),
            Command::Fork(_, r) if r.predictor == Predictor::Oracle || self.readings.holds(r.parent) => {
                self.films.data()
            }
            Command::Race(_, r) if r.predictor == Predictor::Oracle => of(r.which),
            Command::Forward(_, r) if r.source == ForwardSource::Data => of(r.which),
            Command::Compare(_, r) => of(r.which),
            _ => None,
        }
    }

    fn follow_readings(&mut self) {
        for command in self.readings.follow(self.out) {
            self.take(command);
        }
        if self.idle() && !self.readings.is_empty() {
            std::thread::sleep(POLL);
        }
    }

    fn begin(&mut self, command: Command) {
        match command {
            Command::Look(job, request) => {
                let done = self.guard(job, |w| {
                    let data = w.readings.cache.get(&request.place())?;
                    w.out.send(Event::Data(job, data));
                    Ok(())
                });
                if done {
                    self.out.finished(job, Ok(()));
                }
            }
            Command::Load(job, origin) => {
                if self.guard(job, |w| w.load(&origin)) {
                    self.out.finished(job, Ok(()));
                }
            }
            Command::Fetch(job, name) => {
                self.fetch = None;
                self.guard(job, |w| {
                    w.fetch = Some(Aside::fetch(job, name, w.out)?);
                    Ok(())
                });
            }
            Command::Watch(job, path) => {
                self.watch = None;
                self.guard(job, |w| {
                    w.watch = Some(Aside::watch(job, path, w.out)?);
                    Ok(())
                });
            }
            Command::Forward(job, request) => {
                let done = self.guard(job, |w| {
                    let model = w.model(request.which)?;
                    w.forward = None;
                    let (reel, film, words) = forward_film(&request, &model, &mut w.opening(job))?;
                    w.forward = Some((job, Rc::new(reel)));
                    w.out.send(Event::Forward(job, Arc::new(film), words));
                    Ok(())
                });
                if done {
                    self.out.finished(job, Ok(()));
                }
            }
            Command::Sample(job, request) => {
                self.films.stop(self.out);
                self.guard(job, |w| {
                    let model = w.model(request.which)?;
                    let film = FilmJob::start(request, &model, &mut w.opening(job))?;
                    w.keep_for_export();
                    w.films.begin(film);
                    Ok(())
                });
            }
            Command::Fork(job, request) => {
                self.guard(job, |w| w.films.branch(job, request));
            }
            Command::Forget(jobs) => self.films.forget(&jobs, self.out),
            Command::Recall { job, film, doses } => self.recall(job, film, doses),
            Command::Compare(job, request) => {
                if self.guard(job, |w| w.compare(job, request)) {
                    self.out.finished(job, Ok(()));
                }
            }
            Command::Train(job, request) => {
                self.end_training();
                if let Some(dir) = &request.out {
                    // from now on a run's
                    self.saved.retain(|saved| *saved != place(dir));
                }
                // it may be of the training before
                self.comparer = None;
                self.guard(job, |w| {
                    let last = w.training.as_ref();
                    w.training = Some(TrainingJob::start(job, *request, last, &w.compute, &w.readings.cache, w.out)?);
                    Ok(())
                });
            }
            Command::SetTraining(state) => {
                if let Some(training) = &mut self.training {
                    training.set_state(state, self.out);
                }
            }
            Command::Preview => self.training.iter_mut().for_each(TrainingJob::ask_preview),
            Command::Change(changes) => {
                if let Some(training) = &mut self.training {
                    training.change(&changes, self.out);
                }
            }
            Command::Save(job, which, dir) => {
                if self.guard(job, |w| w.save(which, &dir)) {
                    self.out.send(Event::Saved(job, which, dir));
                    self.out.finished(job, Ok(()));
                }
            }
            Command::Race(job, request) => {
                self.end_race();
                self.guard(job, |w| {
                    let model = w.model(request.which)?;
                    w.race = Some(RaceJob::start(request, &model, &mut w.opening(job))?);
                    Ok(())
                });
            }
            Command::Export(job, request) => {
                self.end_export();
                let mut export = ExportJob::new(job, *request);
                export.keep(self.films.over(), self.forward.as_ref());
                self.export = Some(export);
            }
            Command::ReadRecipe(job, path) => {
                let done = self.guard(job, |w| {
                    let recipe = Recipe::read(&path)?;
                    w.out.send(Event::Recipe(job, path, recipe.map(Box::new)));
                    Ok(())
                });
                if done {
                    self.out.finished(job, Ok(()));
                }
            }
            Command::ReadRuns(job, folder) => {
                self.end_runs();
                self.guard(job, |w| {
                    w.runs = Some(RunsJob::start(job, &folder, w.out)?);
                    Ok(())
                });
            }
            Command::SaveNotes(job, dir, text) => {
                if self.guard(job, |_| runs::save_notes(&dir, &text)) {
                    self.out.finished(job, Ok(()));
                }
            }
            Command::Cancel(job) => {
                if self.runs.as_ref().is_some_and(|r| r.job() == job) {
                    self.end_runs();
                }
                for aside in [&mut self.fetch, &mut self.watch] {
                    aside.take_if(|aside| aside.job == job);
                }
                if self.race.as_ref().is_some_and(|r| r.job() == job) {
                    self.end_race();
                }
                if self.export.as_ref().is_some_and(|e| e.job() == job) {
                    self.end_export();
                }
                self.films.end(job, self.out);
                self.keep_for_export();
                if self.training.as_ref().is_some_and(|t| t.job() == job) {
                    self.end_training();
                }
            }
        }
    }

    fn advance(&mut self) {
        if let Some(mut runs) = self.runs.take() {
            self.guard(runs.job(), |w| {
                if runs.advance(w.out) {
                    w.out.finished(runs.job(), Ok(()));
                } else {
                    w.runs = Some(runs);
                }
                Ok(())
            });
        } else if let Some(job) = self.films.next() {
            // what fails is taken out of the films before its unit begins
            let mut films = std::mem::take(&mut self.films);
            self.guard(job, |w| films.advance(&mut w.opening(job)));
            self.films = films;
            self.keep_for_export();
        } else if let Some(race) = &self.race {
            let job = race.job();
            let ok = self.guard(job, |w| {
                let Some(race) = &mut w.race else { return Ok(()) };
                if race.advance(&w.compute, w.out)? {
                    w.race = None;
                    w.out.finished(job, Ok(()));
                }
                Ok(())
            });
            if !ok {
                self.race = None;
            }
        } else if let Some(export) = &self.export {
            let job = export.job();
            let ok = self.guard(job, |w| {
                let Some(export) = &mut w.export else { return Ok(()) };
                if export.advance(&w.compute, w.out)? {
                    w.export = None;
                    w.out.finished(job, Ok(()));
                }
                Ok(())
            });
            if !ok {
                self.export = None;
            }
        } else if let Some(training) = self.training.as_ref().filter(|training| training.has_work()) {
            let job = training.job();
            let result = self.attempt(|w| match &mut w.training {
                Some(training) => training.advance(w.out),
                None => Ok(()),
            });
            if let Err(e) = result {
                // after a mistake of the program: the state of the step before is whole
                let saved = self.attempt(|w| w.training.as_mut().map_or(Ok(()), TrainingJob::save_if_due_at_exit));
                if let Some(training) = &mut self.training {
                    training.halt();
                    training.tell_surely(self.out);
                }
                // a failed last save is told once
                self.out.warn(saved.or_else(|again| if again == e { Ok(()) } else { Err(again) }));
                self.out.finished(job, Err(e));
            }
        }
    }

    /// An export may need films that newer ones will replace.
    fn keep_for_export(&mut self) {
        if let Some(export) = &mut self.export {
            export.keep(self.films.over(), self.forward.as_ref());
        }
    }

    /// Computes missing frames of a film again: of a forward film at once, of a reverse film call by call.
    fn recall(&mut self, job: JobId, film: JobId, doses: usize) {
        if let Some((_, reel)) = self.forward.as_ref().filter(|(made, _)| *made == film) {
            reel.again(doses).into_iter().for_each(|frame| self.out.send(Event::Frame(film, frame)));
        }
        self.films.recall(job, film, doses, self.out);
    }

    fn end_race(&mut self) {
        if let Some(race) = self.race.take() {
            self.out.finished(race.job(), Err(Error::cancelled()));
        }
    }

    fn end_runs(&mut self) {
        if let Some(runs) = self.runs.take() {
            self.out.finished(runs.job(), Err(Error::cancelled()));
        }
    }

    fn end_export(&mut self) {
        if let Some(job) = self.export.take().map(|export| export.job()) {
            // by now its unfinished file is gone
            self.out.finished(job, Err(Error::cancelled()));
        }
    }

    /// Stops the training; its model stays at hand.
    fn end_training(&mut self) {
        let out = self.out;
        if let Some(training) = &mut self.training
            && training.is_open()
        {
            let result = training.save_if_due_at_exit();
            training.tell_surely(out);
            training.halt();
            out.finished(training.job(), result.and(Err(Error::cancelled())));
        }
    }

    fn load(&mut self, origin: &Origin) -> Result<()> {
        let (checkpoint, name) =
            load_model(origin, self.compute.device(), |words| self.out.send(Event::Warning(words)))?;
        let model = Model::new(checkpoint, name)?;
        if let Some(why) = &model.unknown_data {
            self.out.send(Event::Warning(format!("{}: {why}, so MNIST stands for its data", model.info.name)));
        }
        self.out.send(Event::ModelChanged(Arc::clone(&model.info)));
        self.loaded = Some(model);
        self.comparer = None;
        Ok(())
    }

    fn opening(&self, job: JobId) -> Opening<'_> {
        Opening { job, compute: &self.compute, data: &self.readings.cache, out: self.out }
    }

    fn compare(&mut self, job: JobId, request: CompareRequest) -> Result<()> {
        let step = match request.which {
            Which::Loaded => self.loaded.as_ref().and_then(|m| m.info.step),
            Which::Training => self.training.as_ref().map(TrainingJob::step),
        };
        let doses = request.doses;
        let comparer = match self.comparer.take().filter(|c| c.fits(&request, step)) {
            Some(comparer) => comparer,
            None => Comparer::new(request.clone(), self.model(request.which)?, &mut self.opening(job))?,
        };
        let comparison = comparer.compare(doses, &self.opening(job))?;
        self.out.send(Event::Compared(job, Arc::new(comparison)));
        self.comparer = Some(comparer);
        Ok(())
    }

    fn model(&self, which: Which) -> Result<Model> {
        let missing = |why: &str, hint: &str| Error::new("cannot make a film", why, hint);
        match which {
            Which::Loaded => self.loaded.clone().ok_or_else(|| missing("no model is loaded", "open a model folder")),
            Which::Training => match &self.training {
                Some(training) => training.model(),
                None => Err(missing("nothing has been trained yet", "start a training, or choose the loaded model")),
            },
        }
    }

    /// Saves that were asked for before the end, each of the model of its turn.
    fn save_what_was_asked(&mut self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            let done = match command {
                Command::Load(_, origin) => self.load(&origin),
                Command::Save(_, which, dir) => self.save(which, &dir),
                Command::SaveNotes(_, dir, text) => runs::save_notes(&dir, &text),
                _ => Ok(()),
            };
            if let Err(e) = done {
                log::error!("{e}");
            }
        }
    }

    /// Saves that model; only a save of this session may be replaced.
    fn save(&mut self, which: Which, dir: &Path) -> Result<()> {
        let training = self.training.as_mut().filter(|_| which == Which::Training);
        let own = training.as_ref().is_some_and(|training| training.writes_to(dir));
        if let Some(training) = training.filter(|_| own) {
            self.out.warn(training.end_saving());
            training.hold_folder()?;
        }
        let _claim = if own { None } else { Some(checkpoint::claim(dir, self.saved.contains(&place(dir)))?) };
        checkpoint::save(dir, &self.model(which)?.checkpoint)?;
        match (which, &self.training) {
            _ if own => {}
            (Which::Training, Some(training)) => training.album().copy_to(dir)?,
            _ => checkpoint::drop_snapshots(dir, None)?,
        }
        if !own {
            self.saved.push(place(dir));
        }
        Ok(())
    }
}

/// The one name of a folder.
fn place(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap_or_else(|_| dir.to_owned())
}
