//! The one place where actions are run.

use super::actions::{PathUse, UiAction, View};
use super::canvas::Canvas;
use super::dialogs::PathDialog;
use super::export::{ExportDialog, Exporting};
use super::state::{FilmSettings, GRIDS, Phase, RunSettings, Training, next_seed};
use super::tree::{Growing, Plan, Travel};
use super::unsaved::{Parting, Unsaved, Wish};
use super::window::Window;
use crate::engine::{Command, Error, ForwardSource, Origin, RunConfig, Source, TrainingState, Which, hub};
use std::path::{Path, PathBuf};

impl Window {
    /// Does what a person asked for.
    pub(super) fn act(&mut self, action: UiAction) {
        use UiAction as A;
        let playback = &mut self.state.playback;
        match action {
            A::PlayPause => playback.toggle(),
            A::Play(direction) => playback.play(direction),
            A::Step(n) => self.step(n),
            A::Seek(doses) => playback.seek(doses),
            A::ToNoise => playback.seek(usize::MAX),
            A::ToImage => playback.seek(0),
            A::Turn => playback.turn(),
            A::Pause => playback.pause(),
            A::Shuttle(direction) => playback.shuttle(direction),
            A::NextRepeat => playback.repeat = playback.repeat.next(),
            A::SetIn => playback.set_in(),
            A::SetOut => playback.set_out(),
            A::WholeFilm => playback.whole_film(),
            A::NextScale => self.state.scale = self.state.scale.next(),
            A::Faster => playback.change_speed(true),
            A::Slower => playback.change_speed(false),
            A::SetSpeed(speed) => playback.speed = speed,
            A::Look(quantity) => self.film.quantity = Some(quantity),
            A::ToggleDrawing => {
                self.view = View::Film;
                playback.pause();
                self.film.drawing = match self.film.drawing {
                    Some(_) => None,
                    None => self.shape().map(|shape| Canvas::new(shape, &self.state.settings.source)),
                };
            }
            A::Drawn(bytes) => {
                let (source, canvas) = (ForwardSource::Drawn(bytes), self.film.drawing.take());
                self.set_film(FilmSettings { source, ..self.state.settings.clone() });
                self.film.drawing = canvas;
            }
            A::BringBack if self.state.playback.doses() == 0 => {
                let why = "at t = 0 it holds no noise";
                let hint = "move the playhead towards noise first";
                self.state.fail(&Error::usage("cannot bring the picture back", why, hint));
            }
            A::BringBack if self.state.settings.schedule.is_some() => {
                let why = "it drowned on another schedule than the model knows";
                let hint = "choose “As trained” in the schedule view (F7)";
                self.state.fail(&Error::usage("cannot bring the picture back", why, hint));
            }
            A::BringBack => {
                let from = Some(self.state.playback.doses());
                self.film.drawing = None;
                if self.state.settings.from == from {
                    // again, with other noise
                    self.act(UiAction::NewSeed);
                } else {
                    self.set_film(FilmSettings { from, ..self.state.settings.clone() });
                }
            }
            A::NoisePicture(picture) => self.state.noise.picture = picture,
            A::NextLine => self.film.step.advance = self.view == View::Step,
            A::NewSeed => {
                self.set_film(FilmSettings { seed: next_seed(self.state.settings.seed), ..self.state.settings.clone() })
            }
            A::NextGrid => {
                let i = GRIDS.iter().position(|n| *n == self.state.settings.n).unwrap_or(0);
                let n = GRIDS[(i + 1) % GRIDS.len()];
                self.set_film(FilmSettings { n, ..self.state.settings.clone() });
            }
            A::SetFilm(settings) => self.set_film(settings),
            A::Resample => self.sample(),
            A::Restart => {
                self.sample();
                self.drown();
            }
            A::StopFilm => {
                let film = self.state.shown();
                self.commands.extend(film.job.filter(|_| film.phase == Phase::Busy).map(Command::Cancel));
            }
            A::SetRun(run) => self.state.run = run,
            A::SetRunsFolder(folder) => self.state.runs.folder = folder,
            A::ReadRuns => self.read_runs(),
            A::SaveNotes(dir, notes) => self.save_notes(dir, notes),
            A::StartFrom(run) => {
                self.stop_watch();
                self.state.run = *run;
                self.preferences.run_settings = true;
                self.view = View::Training;
            }
            A::ReadData => self.look_at_data(true),
            A::StopReading => self.stop_looking(),
            A::StartTraining => self.start_training(),
            A::StartLecture if self.state.running_training().is_some() => {}
            A::StartLecture => self.start(Wish::TrainForLecture),
            A::GoOn => {
                let job = self.state.new_job();
                if let Some(training) = self.state.training.as_ref().and_then(|training| training.going_on(job)) {
                    self.begin(training);
                }
            }
            A::ChangeTraining(changes) => self.commands.push(Command::Change(changes)),
            A::HoldTraining => {
                if let Some(training) = self.state.running_training() {
                    let paused = training.is_paused();
                    let next = if paused { TrainingState::Running } else { TrainingState::Paused };
                    self.commands.push(Command::SetTraining(next));
                }
            }
            A::SampleNow => self.commands.extend(self.state.running_training().map(|_| Command::Preview)),
            A::StopTraining => {
                if let Some(training) = self.state.running_training() {
                    self.commands.push(Command::Cancel(training.job));
                }
            }
            A::EnlargeSnapshots => self.training.snapshots.enlarged ^= true,
            A::SetCurve(curve) => self.preferences.curve = curve,
            A::ToggleLog => self.preferences.curve.log ^= true,
            A::Show(view) => {
                if view == View::Runs && self.view != view {
                    self.read_runs();
                }
                self.view = view;
                self.state.presenting &= view.has_timeline();
                if view == View::Data {
                    self.look_at_data(false);
                }
            }
            A::ToggleKeys => self.keys_open ^= true,
            A::ToggleSettings => match self.view {
                View::Film | View::Noise | View::Schedule | View::Step => self.preferences.film_settings ^= true,
                View::Training => self.preferences.run_settings ^= true,
                View::Branches | View::Race | View::Shared | View::Runs | View::Data => {}
            },
            A::Dismiss => {
                if self.keys_open {
                    self.keys_open = false;
                } else if self.state.banners.pop().is_none() {
                    self.state.presenting = false;
                }
            }
            A::AskPath(usage) => self.ask_path(usage),
            A::UsePath(usage, path) => self.use_path(usage, path),
            A::LoadShipped => self.load(Origin::Shipped),
            A::FetchCifar => self.fetch(hub::CIFAR10),
            A::StopFetch => self.stop_fetch(),
            A::StopWatch => self.stop_watch(),
            A::ToggleContrast => self.preferences.high_contrast ^= true,
            // these need the context: `ui_root` runs them
            A::NextTheme | A::FullScreen | A::Present | A::CopyFrame => {}
            A::StartRace => self.start_race(),
            A::StopRace => self.stop_race(),
            A::StartShared => self.start_shared(),
            A::StopShared => self.stop_shared(),
            A::Branch(action) => self.branch(action),
            A::AskExport => self.export = Some(ExportDialog::default()),
            A::Export(settings) => self.start_export(*settings),
            A::CancelExport => {
                let job = self.state.exporting.as_ref().map(Exporting::job);
                self.commands.extend(job.map(Command::Cancel));
            }
            A::Dropped(path) if path.is_dir() => self.use_path(PathUse::OpenModel, path),
            A::Dropped(path) => {
                let job = self.state.new_job();
                self.state.file_jobs.push(job);
                self.commands.push(Command::ReadRecipe(job, path));
            }
            A::Restore(version, way) => self.restore(version, way),
        }
    }

    /// Goes to another state of the reverse film, which may have fewer than there are timesteps; the schedule has them all.
    fn step(&mut self, n: isize) {
        let film = self.state.shown().film.as_ref().filter(|_| self.view != View::Schedule);
        let doses = self.state.playback.doses();
        match film.and_then(|(_, film)| film.states_away(doses, n)) {
            Some(state) => self.state.playback.seek(state),
            None => self.state.playback.step(n),
        }
    }

    /// Computes what the changed settings change.
    fn set_film(&mut self, mut settings: FilmSettings) {
        if settings.source != self.state.settings.source && !matches!(settings.source, ForwardSource::Drawn(_)) {
            // what was brought back was the picture before
            settings.from = None;
        }
        let old = self.replace_settings(settings);
        if self.state.settings.which != old.which {
            self.state.fit_settings();
        }
        let new = &self.state.settings;
        let (sample, drown) =
            (new.sample_request() != old.sample_request(), new.forward_request() != old.forward_request());
        if drown {
            self.drown();
        }
        if sample {
            self.sample();
        }
    }

    /// Takes these settings, and tells the former ones. A drawing that is open was of their picture and model.
    pub(super) fn replace_settings(&mut self, settings: FilmSettings) -> FilmSettings {
        let old = std::mem::replace(&mut self.state.settings, settings);
        let new = &self.state.settings;
        self.film.drawing.take_if(|_| (new.which, &new.source) != (old.which, &old.source));
        old
    }

    pub(super) fn has_model(&self) -> bool {
        self.shape().is_some()
    }

    /// [c, h, w] of the pictures of the chosen model.
    fn shape(&self) -> Option<[usize; 3]> {
        self.state.chosen_model().map(|model| model.shape)
    }

    fn sample(&mut self) {
        self.sample_then(Vec::new(), None);
    }

    /// Asks for the film of the settings, to have these branches. Those that could never be made again are asked about first.
    pub(super) fn sample_then(&mut self, plans: Vec<Plan>, way: Option<Travel>) {
        if !self.has_model() {
            return;
        }
        if self.state.would_lose_branches() {
            self.parting = Some(Parting { plans, way, shown: false });
        } else {
            self.sample_now(plans, way);
        }
    }

    pub(super) fn sample_now(&mut self, plans: Vec<Plan>, way: Option<Travel>) {
        // what was asked is out of date
        self.parting = None;
        let job = self.state.new_job();
        self.state.reverse.expect(job, self.state.settings.clone());
        self.state.branches.to_grow = Some(Growing { job, plans, way });
        self.commands.push(Command::Sample(job, self.state.settings.sample_request()));
    }

    pub(super) fn drown(&mut self) {
        if self.has_model() {
            let job = self.state.new_job();
            self.state.forward.expect(job, self.state.settings.clone());
            self.commands.push(Command::Forward(job, self.state.settings.forward_request()));
        }
    }

    fn start_training(&mut self) {
        if self.state.running_training().is_some() {
            return;
        }
        match self.state.run.config.validate() {
            Ok(_) => self.start(Wish::Train),
            Err(e) => self.state.fail(&e),
        }
    }

    /// Does what is wished, after a question if it would end a training that is not saved.
    fn start(&mut self, wish: Wish) {
        let unsaved = self.state.training.as_ref().is_some_and(|t| t.unsaved().is_some());
        self.unsaved = Some(Unsaved::new(wish));
        if !unsaved {
            self.grant();
        }
    }

    pub(super) fn train(&mut self) {
        self.train_with(&self.state.run.clone());
    }

    /// The settings of the form stay as they are.
    pub(super) fn train_for_lecture(&mut self) {
        self.train_with(&RunSettings { config: RunConfig::lecture(), ..RunSettings::default() });
    }

    fn train_with(&mut self, run: &RunSettings) {
        let job = self.state.new_job();
        self.begin(Training::new(job, run.request()));
    }

    fn begin(&mut self, mut training: Training) {
        self.commands.push(Command::Train(training.job, Box::new(training.request.clone())));
        let runs = training.request.out.as_deref().and_then(Path::parent);
        if let Some(runs) = runs.filter(|_| self.state.runs.folder.is_empty()) {
            self.state.runs.folder = runs.display().to_string();
        }
        training.before = self.state.training.take().map(|mut before| {
            before.before = None;
            Box::new(before)
        });
        self.state.training = Some(training);
        self.stop_watch();
        self.state.banners.retain(|banner| !banner.diverged);
        self.preferences.run_settings = false;
    }

    pub(super) fn load(&mut self, origin: Origin) {
        let job = self.state.new_job();
        self.state.file_jobs.push(job);
        self.commands.push(Command::Load(job, origin));
    }

    /// Asks for a path; what is saved there is decided now.
    pub(super) fn ask_path(&mut self, usage: PathUse) {
        let asked = self.unsaved.is_some() || self.view == View::Training || self.state.model.is_none();
        let at_risk = |t: &Training| t.phase == Phase::Busy || t.unsaved().is_some();
        let training = self.state.training.as_ref().filter(|t| t.held().is_some() && (asked || at_risk(t)));
        self.to_save = if training.is_some() { Which::Training } else { Which::Loaded };
        let model = training.map_or(self.state.model.as_ref(), Training::held);
        let name = model.filter(|_| usage == PathUse::SaveModel).map(|model| model.name.clone());
        self.path = Some(PathDialog::new(usage, name));
    }

    fn use_path(&mut self, usage: PathUse, path: PathBuf) {
        match usage {
            PathUse::OpenModel => match hub::name_in(&path) {
                Some(name) => self.fetch(name),
                None => self.load(Origin::Folder(path)),
            },
            PathUse::SaveModel => {
                let job = self.state.new_job();
                self.state.file_jobs.push(job);
                if let Some(unsaved) = &mut self.unsaved {
                    unsaved.saving = Some(job);
                }
                self.commands.push(Command::Save(job, self.to_save, path));
            }
            PathUse::Watch => self.watch(path),
            PathUse::OpenImage => {
                self.view = View::Film;
                let source = ForwardSource::File(path);
                if self.state.settings.source == source {
                    // the file may have changed
                    self.drown();
                } else {
                    self.set_film(FilmSettings { source, ..self.state.settings.clone() });
                }
            }
            PathUse::Runs => {
                self.state.runs.folder = path.display().to_string();
                self.read_runs();
            }
            PathUse::TrainingOut => self.state.run.out = path.display().to_string(),
            PathUse::TrainingData => {
                self.state.run.config.data = Source::join([path.to_string_lossy().as_ref()]);
                if self.view == View::Data {
                    self.look_at_data(false);
                }
            }
        }
    }
}
