//! The training job: steps, previews between them, metrics for the window, saves on a schedule.

use super::outbox::Outbox;
use super::previews::Previews;
use super::reading::{DataCache, Place, held_out};
use super::saving::Saving;
use super::snapshots::{Album, Drawing};
use super::worker::Model;
use super::{Event, JobId, Metrics, TrainRequest, TrainingState};
use crate::checkpoint::{self, Claim};
use crate::data::{Dataset, Source};
use crate::error::{Error, Result};
use crate::export::files::check_folder;
use crate::model::compute::Compute;
use crate::monitor::RunLog;
use crate::train::changes::Changes;
use crate::train::floor::{Floor, FloorJob};
use crate::train::metrics::StepStats;
use crate::train::trainer::{State, Trainer};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SAVE_EVERY: Duration = Duration::from_secs(120);
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Share of the time that the oracle's loss may cost, after a start of so long.
const FLOOR_SHARE: f64 = 0.03;
const FLOOR_START: Duration = Duration::from_secs(3);

/// A training, under way, held, or over.
pub(super) struct TrainingJob {
    job: JobId,
    trainer: Trainer,
    data: Arc<Dataset>,
    /// Images that are never trained on, where there are any.
    held_out: Option<Arc<Dataset>>,
    floor: FloorJob,
    /// Whether the floor has its turn before the next step.
    floor_next: bool,
    /// What it has cost so far, and how far it is.
    floored: (Duration, Arc<Floor>),
    begun: Instant,
    out_dir: Option<PathBuf>,
    /// Held while the run is open.
    claim: Option<Claim>,
    save_every: Option<u64>,
    /// The curves for other programs, of a run with a folder.
    log: Option<RunLog>,
    compute: Arc<Compute>,
    phase: Phase,
    drawing: Option<Drawing>,
    previews: Previews,
    /// Whether all samples go into the curves for other programs.
    log_previews: bool,
    album: Album,
    /// Ends of the last steps, for the speed.
    pace: VecDeque<Instant>,
    told: Instant,
    saved: Instant,
    saved_step: u64,
    /// Whether settings changed since the last save.
    changed: bool,
    saving: Option<Saving>,
    /// Whether a save became due while another one was under way.
    save_next: bool,
    /// Whether the last save failed.
    save_failed: bool,
    /// Whether the folder was made anew and holds no save yet.
    folder_is_new: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Over,
}

impl TrainingJob {
    pub(super) fn start(
        job: JobId,
        request: TrainRequest,
        last: Option<&Self>,
        compute: &Arc<Compute>,
        cache: &DataCache,
        out: &Outbox,
    ) -> Result<Self> {
        let goes_on = request.resume.is_some();
        let plan = request.config.validate()?;
        let place = plan.data_place();
        let mut changed = false;
        let (mut trainer, claim) = match &request.out {
            Some(dir) if let Some(changes) = &request.resume => {
                // first, since another run may be saving there
                let claim = checkpoint::claim(dir, true)?;
                let (checkpoint, warning) = checkpoint::load_saying(dir, compute.device())?;
                if let Some(words) = warning {
                    out.send(Event::Warning(words));
                }
                let mut trainer = Trainer::resume(plan, Arc::clone(compute), &checkpoint).map_err(|e| e.at(dir))?;
                trainer.change(changes)?;
                let before = checkpoint.training.as_ref().map(|training| &training.state["run"]);
                changed = serde_json::to_value(&trainer.plan().run).ok().as_ref() != before;
                check_folder(dir)?;
                (trainer, Some(claim))
            }
            None if let Some(changes) = &request.resume => {
                let why = "no folder was named, and no training is in memory";
                let last = last.ok_or_else(|| Error::usage("cannot resume", why, "name the folder of the run"))?;
                let mut trainer = Trainer::resume(plan, Arc::clone(compute), &last.trainer.checkpoint()?)?;
                trainer.change(changes)?;
                (trainer, None)
            }
            Some(dir) => {
                check_folder(dir)?;
                let claim = checkpoint::claim(dir, false)?;
                RunLog::check_new(dir)?;
                (Trainer::new(plan, Arc::clone(compute))?, Some(claim))
            }
            None => (Trainer::new(plan, Arc::clone(compute))?, None),
        };
        let data = cache.get(&place)?;
        trainer.bind(&data)?;
        let held_out = trainer.bind_held_out(held_out(&place, &data, out)?)?;
        let floor = FloorJob::new(Arc::clone(&data), Arc::clone(trainer.schedule()))?;
        let now = Instant::now();
        let mut training = Self {
            job,
            saved_step: trainer.steps_done(),
            changed,
            album: Album::default(),
            trainer,
            data,
            held_out,
            floored: (Duration::ZERO, Arc::new(floor.floor())),
            floor,
            floor_next: false,
            begun: now,
            out_dir: request.out,
            claim,
            save_every: request.save_every,
            log: None,
            compute: Arc::clone(compute),
            phase: Phase::Running,
            drawing: None,
            previews: Previews::new(request.preview_share),
            log_previews: request.preview_share.is_none(),
            pace: VecDeque::new(),
            told: now,
            saved: now,
            saving: None,
            save_next: false,
            save_failed: false,
            folder_is_new: false,
        };
        if !goes_on {
            // so that there is something to resume from the first moment, and a disk that is full is known now
            training.save()?;
        }
        training.open_log(out);
        out.send(Event::TrainingStarted(job, training.model()?.info));
        training.album = match last.filter(|_| training.out_dir.is_none() && goes_on) {
            Some(last) => last.album.go_on(job, out),
            None => Album::open(training.out_dir.as_deref(), &training.trainer, job, out),
        };
        training.draw_if_due()?;
        training.tell(out);
        Ok(training)
    }

    /// What can be said before the data are read.
    ///
    /// # Errors
    /// The folder of a new run holds a model, or another run has it.
    pub(super) fn check(request: &TrainRequest) -> Result<()> {
        match &request.out {
            Some(dir) if request.resume.is_none() => {
                check_folder(dir)?;
                checkpoint::claim(dir, false).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Decides whether images are held out; a run that goes on has decided when it began.
    pub(super) fn decide(request: &mut TrainRequest, last: Option<&Self>) {
        // what is wrong with the folder is said when the run goes on
        let saved = |dir: &PathBuf| serde_json::from_value::<State>(checkpoint::read_state(dir).ok()?).ok();
        let begun = match (&request.resume, &request.out) {
            (None, _) => None,
            (Some(_), Some(dir)) => saved(dir).map(|state| state.source()),
            (Some(_), None) => last.map(|last| last.place().0),
        };
        let source = begun.unwrap_or_else(|| request.config.source().decided());
        request.config.hold_out = matches!(source, Source::Rest(_));
    }

    /// The data that it learns from.
    pub(super) fn place(&self) -> Place {
        self.trainer.plan().data_place()
    }

    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// Steps done.
    pub(super) fn step(&self) -> u64 {
        self.trainer.steps_done()
    }

    fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether [`TrainingJob::advance`] has something to do.
    pub(super) fn has_work(&self) -> bool {
        self.is_running() || self.is_open() && self.previews.asked()
    }

    /// Draws samples of the model as it is, also while training is held.
    pub(super) fn ask_preview(&mut self) {
        if self.is_open() {
            self.previews.ask();
            self.drawing.iter_mut().for_each(Drawing::show);
        }
    }

    /// Running or paused.
    pub(super) fn is_open(&self) -> bool {
        self.phase != Phase::Over
    }

    /// No more steps; the model stays.
    pub(super) fn halt(&mut self) {
        // the folder is held until nothing is written there any more
        if let Err(e) = self.end_saving() {
            log::error!("{e}");
        }
        self.phase = Phase::Over;
        self.drawing = None;
        self.log = None;
        self.claim.iter_mut().for_each(Claim::release);
    }

    pub(super) fn set_state(&mut self, state: TrainingState, out: &Outbox) {
        if self.is_open() {
            self.phase = match state {
                TrainingState::Running => Phase::Running,
                TrainingState::Paused => Phase::Paused,
            };
            self.pace.clear();
            self.tell(out);
        }
    }

    pub(super) fn change(&mut self, changes: &Changes, out: &Outbox) {
        if self.is_open() {
            match self.trainer.change(changes) {
                Ok(()) => self.changed = true,
                Err(e) => out.send(Event::Warning(e.to_string())),
            }
            self.tell(out);
        }
    }

    /// One step, or one network call of a preview or snapshot.
    pub(super) fn advance(&mut self, out: &Outbox) -> Result<()> {
        if let Some(mut drawing) = self.drawing.take() {
            let begun = Instant::now();
            let done = drawing.advance(&self.compute)?;
            self.previews.call_took(begun.elapsed(), !drawing.is_kept());
            if !done {
                self.drawing = Some(drawing);
                return Ok(());
            }
            if drawing.is_shown() {
                self.previews.done();
            }
            drawing.finish(self.job, &mut self.album, self.log.as_mut(), out);
            out.warn(self.write_album());
            // the pause for the pictures is not training speed
            self.pace.clear();
            self.tell(out);
            return Ok(());
        }
        if self.previews.asked() {
            self.drawing = Drawing::due(&self.trainer, &self.album, true)?;
            return Ok(());
        }
        if self.trainer.is_done() {
            self.save_if_due_at_exit()?;
            self.halt();
            self.tell_surely(out);
            out.finished(self.job, Ok(()));
            return Ok(());
        }
        if std::mem::take(&mut self.floor_next) && self.floor_is_due() {
            return self.advance_floor();
        }
        #[cfg(test)]
        tests::mishap(self.trainer.steps_done());
        let begun = Instant::now();
        let stats = match self.trainer.step(&self.data) {
            Ok(stats) => stats,
            Err(e) => {
                // the trainer is back at a good state: keep that, and not what may have been saved since
                self.tell_surely(out);
                let step = self.trainer.steps_done();
                self.album.rewind(step);
                let kept = self.hold_folder().and_then(|_| self.album.drop_later(step));
                out.warn(kept);
                out.warn(self.save_if_due_at_exit());
                return Err(e);
            }
        };
        if let Some(held_out) = self.held_out.as_ref().filter(|_| self.trainer.evaluation_due()) {
            // before any save, so that a resumed run has it, too
            self.trainer.evaluate(&self.data, held_out)?;
        }
        self.previews.step_took(begun.elapsed());
        self.floor_next = true;
        self.pace.push_back(Instant::now());
        if self.pace.len() > 64 {
            self.pace.pop_front();
        }
        self.note(&stats, out);
        let step = self.trainer.steps_done();
        self.draw_if_due()?;
        if self.told.elapsed() >= TELL_EVERY || self.trainer.is_done() {
            self.tell(out);
            self.told = Instant::now();
        }
        self.save_next |= self.save_every.is_some_and(|every| step.is_multiple_of(every));
        self.save_next |= self.saved.elapsed() >= SAVE_EVERY;
        if let Err(e) = self.save_meanwhile(out) {
            // a full disk shall not end a run: the next save may work
            self.save_failed = true;
            out.send(Event::Warning(e.to_string()));
        }
        Ok(())
    }

    /// Begins what is to be drawn after the step that was just done.
    fn draw_if_due(&mut self) -> Result<()> {
        let (step, every) = (self.trainer.steps_done(), self.trainer.plan().run.preview_every);
        let preview = self.previews.due(step, every, self.trainer.is_done());
        self.drawing = Drawing::due(&self.trainer, &self.album, preview)?;
        if preview && self.log_previews {
            self.drawing.iter_mut().for_each(Drawing::log);
        }
        Ok(())
    }

    fn open_log(&mut self, out: &Outbox) {
        if let Some(dir) = &self.out_dir {
            let (log, failed) = RunLog::open(dir, self.trainer.steps_done());
            out.warn(failed.map_or(Ok(()), Err));
            self.log = Some(log);
        }
    }

    /// Notes a step in the curves for other programs, which never stop a run.
    fn note(&mut self, stats: &StepStats, out: &Outbox) {
        let speed = self.images_per_s().map(|v| v as f32);
        let values = [Some(stats.loss), Some(stats.grad_norm), Some(stats.learning_rate), speed];
        let mut others = vec![("update_ratio", stats.update_ratio), ("ema_decay", stats.ema_decay)];
        if let Some(e) = self.trainer.history().evaluations().last().filter(|e| e.step == stats.step) {
            others.extend([("loss/training_images", e.train), ("loss/held_out_images", e.held_out)]);
        }
        out.warn(self.log.as_mut().map(|log| log.step(stats.step, values, &others)).unwrap_or(Ok(())));
    }

    /// Speed over the last steps, after the first one.
    fn images_per_s(&self) -> Option<f64> {
        let (first, last) = (self.pace.front()?, self.pace.back()?);
        let images = (self.pace.len() - 1) * self.trainer.plan().run.batch;
        (last > first).then(|| images as f64 / (*last - *first).as_secs_f64())
    }

    /// Begins a save that is due, while training goes on. One that becomes due before the last one is over waits for it.
    fn save_meanwhile(&mut self, out: &Outbox) -> Result<()> {
        if self.saving.as_ref().is_some_and(Saving::is_over) {
            self.end_saving()?;
            out.warn(self.write_album());
        }
        let Some(dir) = self.out_dir.as_ref().filter(|_| self.save_next && self.saving.is_none()) else {
            return Ok(());
        };
        let dir = dir.clone();
        self.log.iter_mut().for_each(RunLog::sync);
        (self.save_next, self.saved) = (false, Instant::now());
        self.hold_folder()?;
        self.saving = Some(Saving::start(dir, self.trainer.steps_done(), self.trainer.snapshot())?);
        self.changed = false;
        Ok(())
    }

    /// Sees that the run's folder still is its own. Returns whether it was gone, and is a new one now.
    pub(super) fn hold_folder(&mut self) -> Result<bool> {
        let (Some(claim), Some(dir)) = (&mut self.claim, &self.out_dir) else { return Ok(false) };
        let is_new = claim.is_held() && claim.hold(dir)?;
        if is_new {
            // what a save under way wrote is gone, too
            self.saving.take().map(Saving::end);
            (self.folder_is_new, self.save_next, self.changed) = (true, true, true);
            self.album.lost_its_files();
            self.log = Some(RunLog::open(dir, self.trainer.steps_done()).0);
        }
        Ok(is_new)
    }

    /// Writes the snapshots that the folder lacks, beside a save.
    fn write_album(&mut self) -> Result<()> {
        self.hold_folder()?;
        if self.folder_is_new { Ok(()) } else { self.album.write() }
    }

    /// Waits for the save under way, if there is one.
    pub(super) fn end_saving(&mut self) -> Result<()> {
        let Some(saving) = self.saving.take() else { return Ok(()) };
        let saved = saving.end().and_then(|step| match self.hold_folder()? {
            true => {
                Err(Error::new("cannot save the run", "its folder was moved away", "the next save makes a new one"))
            }
            false => Ok(step),
        });
        self.save_failed = saved.is_err();
        // settings that it was to save are not
        self.changed |= saved.is_err();
        (self.saved_step, self.folder_is_new) = (saved?, false);
        Ok(())
    }

    fn floor_is_due(&self) -> bool {
        let budget = FLOOR_START + self.begun.elapsed().mul_f64(FLOOR_SHARE);
        !self.floor.is_done() && self.floored.0 < budget
    }

    fn advance_floor(&mut self) -> Result<()> {
        let begun = Instant::now();
        let (floor, compute) = (&mut self.floor, &self.compute);
        compute.run(|| floor.advance())?;
        self.floored = (self.floored.0 + begun.elapsed(), Arc::new(self.floor.floor()));
        Ok(())
    }

    /// Tells its numbers also where the window is behind.
    pub(super) fn tell_surely(&self, out: &Outbox) {
        out.send(Event::Metrics(self.job, self.metrics()));
    }

    /// Tells its numbers.
    pub(super) fn tell(&self, out: &Outbox) {
        out.send_or_skip(Event::Metrics(self.job, self.metrics()));
    }

    fn metrics(&self) -> Arc<Metrics> {
        let (step, run) = (self.trainer.steps_done(), &self.trainer.plan().run);
        let images_per_s = self.images_per_s().unwrap_or(0.0);
        let left = run.steps.saturating_sub(step) as f64 * run.batch as f64 / (1.0 - self.previews.share()).max(0.1);
        Arc::new(Metrics {
            step,
            total: run.steps,
            images_per_s,
            preview_share: self.previews.share(),
            seconds_left: if images_per_s > 0.0 { left / images_per_s } else { 0.0 },
            state: if self.is_running() { TrainingState::Running } else { TrainingState::Paused },
            settings: Changes {
                learning_rate: Some(run.learning_rate),
                ema_decay: Some(run.ema_decay),
                preview_every: Some(run.preview_every),
            },
            save_failed: self.save_failed.then_some(self.saved_step),
            history: Arc::new(self.trainer.history().clone()),
            floor: Arc::clone(&self.floored.1),
            verdicts: self.trainer.examine().into(),
        })
    }

    /// The model as it is now.
    pub(super) fn model(&self) -> Result<Model> {
        Model::new(self.trainer.checkpoint()?, format!("{} in training", self.trainer.plan().run.preset))
    }

    /// Its snapshots.
    pub(super) fn album(&self) -> &Album {
        &self.album
    }

    /// Whether this run holds that folder.
    pub(super) fn writes_to(&self, dir: &Path) -> bool {
        let same = |own: &PathBuf| {
            own == dir || own.canonicalize().is_ok_and(|own| dir.canonicalize().is_ok_and(|dir| dir == own))
        };
        self.is_claimed() && self.out_dir.as_ref().is_some_and(same)
    }

    fn is_claimed(&self) -> bool {
        self.claim.as_ref().is_some_and(Claim::is_held)
    }

    fn save(&mut self) -> Result<()> {
        let saved = self.try_to_save();
        self.save_failed = saved.is_err();
        saved
    }

    fn try_to_save(&mut self) -> Result<()> {
        self.hold_folder()?;
        let given_up = self.out_dir.as_ref().filter(|_| !self.is_claimed());
        let _claim = given_up.cloned().map(|dir| self.claim_again(&dir)).transpose()?;
        if let Some(dir) = &self.out_dir {
            self.log.iter_mut().for_each(RunLog::sync);
            checkpoint::save(dir, &self.trainer.checkpoint()?)?;
            self.saved = Instant::now();
            self.saved_step = self.trainer.steps_done();
            (self.changed, self.folder_is_new) = (false, false);
        }
        self.album.write()
    }

    /// Claims the folder of a run that is over, where another program may have gone on since.
    fn claim_again(&mut self, dir: &Path) -> Result<Claim> {
        if let Some(before) = &mut self.claim {
            before.hold(dir)?;
            before.release();
        }
        let claim = checkpoint::claim(dir, true)?;
        let there = checkpoint::read_state(dir).ok().and_then(|state| state["step"].as_u64());
        match there.filter(|there| *there != self.saved_step && *there > self.step()) {
            Some(there) => {
                let why = format!("another program went on there to step {there}, past step {}", self.step());
                Err(Error::new("cannot save the run", why, "resume from that step").at(dir))
            }
            None => Ok(claim),
        }
    }

    /// Saves a state that no file holds yet.
    pub(super) fn save_if_due_at_exit(&mut self) -> Result<()> {
        if let Err(e) = self.end_saving() {
            log::warn!("{e}");
        }
        if self.saved_step == self.trainer.steps_done() && !self.changed {
            self.save_failed = false;
            return self.write_album();
        }
        if self.trainer.is_lost() { Ok(()) } else { self.save() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Command, DeviceChoice, Engine, Options, Outcome};
    use crate::train::config::RunConfig;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Steps after which the program makes a mistake, once.
    static MISHAP: AtomicU64 = AtomicU64::new(u64::MAX);

    pub(super) fn mishap(step: u64) {
        let due = MISHAP.compare_exchange(step, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        assert!(!due, "a mishap after {step} steps");
    }

    #[test]
    fn a_panic_ends_the_run_with_its_last_step_saved_and_it_goes_on_to_the_same_bytes() {
        let tmp = tempfile::tempdir().unwrap();
        let train = |name: &str, resume: Option<Changes>| {
            let engine = Engine::start(Options { device: DeviceChoice::Cpu, threads: 1, model: None }, || ()).unwrap();
            let preset = "digits16".into();
            let config = RunConfig { preset, steps: 6, batch: 2, preview_every: 0, ..RunConfig::default() };
            let out = Some(tmp.path().join(name));
            let request = TrainRequest { config, out, resume, save_every: None, preview_share: None };
            let job = engine.new_job();
            engine.send(Command::Train(job, Box::new(request))).unwrap();
            loop {
                if let Some(Event::Finished(id, outcome)) = engine.wait(Duration::from_secs(60)).unwrap()
                    && id == job
                {
                    break outcome;
                }
            }
        };
        assert_eq!(train("whole", None), Outcome::Done);
        MISHAP.store(4, Ordering::Relaxed);
        let Outcome::Failed(e) = train("run", None) else { panic!("it did not fail") };
        assert!(e.to_string().contains("the program made a mistake: a mishap after 4 steps"), "{e}");
        assert_eq!(checkpoint::read_state(&tmp.path().join("run")).unwrap()["step"], 4);
        assert_eq!(train("run", Some(Changes::default())), Outcome::Done);
        for file in ["unet/diffusion_pytorch_model.safetensors", "film/checksums.json", "film/state.json"] {
            let read = |name: &str| std::fs::read(tmp.path().join(name).join(file)).unwrap();
            assert!(read("run") == read("whole"), "{file} differs");
        }
    }
}
