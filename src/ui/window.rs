//! All of the window but the worker: state, views, and the one place where actions are run. What it wants from the worker
//! it collects as commands, so tests can drive it without one.

use super::actions::{self, PathUse, UiAction, View};
use super::axis::Scale;
use super::canvas::Canvas;
use super::curve::CurveSettings;
use super::dialogs::{self, PathDialog};
use super::film::FilmView;
use super::playback::{Mode, Repeat};
use super::state::{AppState, FilmSettings, GRIDS, Phase, Training, typed_path};
use super::style::{self, Icon};
use super::training::TrainingView;
use crate::engine::{Command, Event, ForwardSource, Origin, TrainRequest, TrainingState, Which};
use egui::{Align, Layout, Margin, Panel, RichText, ThemePreference, Ui, ViewportCommand};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between frames while the film plays: more would cost the worker time on machines without a graphics card.
const FRAME: Duration = Duration::from_millis(33);
/// The same while the film is still being computed.
const FRAME_GROWING: Duration = Duration::from_millis(80);

/// What is remembered from one start to the next; theme and zoom are egui's own memory.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Preferences {
    speed: f64,
    repeat: Repeat,
    scale: Scale,
    grid: usize,
    curve: CurveSettings,
    film_settings: bool,
    run_settings: bool,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            speed: 1.0,
            repeat: Repeat::default(),
            scale: Scale::default(),
            grid: 4,
            curve: CurveSettings::default(),
            film_settings: false,
            run_settings: true,
        }
    }
}

/// Gives the context its fonts and themes; once, before the first frame.
pub fn set_up(ctx: &egui::Context) {
    style::apply(ctx);
    ctx.options_mut(|o| o.fallback_theme = egui::Theme::Dark);
}

/// The window without its worker.
pub struct Window {
    /// What is shown.
    pub state: AppState,
    /// The view on screen.
    pub view: View,
    /// Whether the list of keys is open.
    pub keys_open: bool,
    film: FilmView,
    training: TrainingView,
    path: Option<PathDialog>,
    preferences: Preferences,
    commands: Vec<Command>,
    /// When the film was last moved, while it plays, in seconds.
    clock: Option<f64>,
}

impl Window {
    /// A window that has heard nothing from the worker yet.
    pub fn new(preferences: Preferences) -> Self {
        let mut state = AppState::default();
        if super::playback::SPEEDS.contains(&preferences.speed) {
            state.playback.speed = preferences.speed;
        }
        state.playback.repeat = preferences.repeat;
        state.scale = preferences.scale;
        if GRIDS.contains(&preferences.grid) {
            state.settings.n = preferences.grid;
        }
        Self {
            state,
            view: View::default(),
            keys_open: false,
            film: FilmView::default(),
            training: TrainingView::default(),
            path: None,
            preferences,
            commands: Vec::new(),
            clock: None,
        }
    }

    /// What is to be remembered.
    pub fn preferences(&self) -> Preferences {
        let AppState { playback, settings, scale, .. } = &self.state;
        let (speed, repeat) = (playback.speed, playback.repeat);
        Preferences { speed, repeat, scale: *scale, grid: settings.n, ..self.preferences }
    }

    /// Takes in what the worker tells.
    pub fn handle(&mut self, event: Event) {
        if let Some(action) = self.state.apply(event) {
            self.act(action);
        }
    }

    /// What the worker is to be asked since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Draws one frame and runs what was done in it.
    pub fn ui_root(&mut self, ui: &mut Ui) {
        let mut out = Vec::new();
        if self.path.is_none() {
            actions::pressed(ui.ctx(), self.view, &mut out);
        }
        dropped_files(ui, &mut out);
        self.play(ui);
        self.top_bar(ui, &mut out);
        if let Some(i) = dialogs::banners(ui, &self.state) {
            self.state.banners.remove(i);
        }
        match self.view {
            View::Film | View::Noise | View::Schedule => {
                self.film.ui(ui, &self.state, self.view, self.preferences.film_settings, &mut out);
            }
            View::Training => {
                let Preferences { curve, run_settings, .. } = self.preferences;
                self.training.ui(ui, &self.state, curve, run_settings, &mut out);
            }
        }
        if self.keys_open && dialogs::keys(ui) {
            self.keys_open = false;
        }
        if self.path.as_mut().is_some_and(|dialog| dialog.ui(ui, &mut out)) {
            self.path = None;
        }
        if !out.is_empty() {
            ui.ctx().request_repaint_after(Duration::from_millis(1));
        }
        for action in out {
            match action {
                UiAction::NextTheme => next_theme(ui),
                UiAction::FullScreen => {
                    let full = ui.input(|i| i.viewport().fullscreen.unwrap_or(false));
                    ui.ctx().send_viewport_cmd(ViewportCommand::Fullscreen(!full));
                }
                action => self.act(action),
            }
        }
        if self.view.has_timeline() {
            self.commands.extend(self.state.recall_missing(self.film.quantity()));
        }
        if self.view == View::Noise && self.has_model() {
            self.commands.extend(self.state.compare());
        }
    }

    fn play(&mut self, ui: &Ui) {
        let extent = self.state.extent();
        let now = ui.input(|i| i.time);
        let dt = self.clock.map_or(0.0, |then| now - then);
        self.clock = (self.state.playback.mode != Mode::Paused).then_some(now);
        if self.state.playback.advance(dt, extent) && self.view.has_timeline() {
            ui.ctx().request_repaint_after(if extent.growing { FRAME_GROWING } else { FRAME });
        }
    }

    fn top_bar(&self, ui: &mut Ui, out: &mut Vec<UiAction>) {
        let p = style::palette(ui);
        let frame = egui::Frame::new().fill(p.panel).inner_margin(Margin::symmetric(16, 6));
        Panel::top("top").resizable(false).frame(frame).show(ui, |ui| {
            ui.horizontal(|ui| {
                ui.label(RichText::new("ddpm-film").font(style::semibold(style::LARGE)));
                ui.add_space(style::GRID);
                let views = [
                    (View::Film, "Film", "Watch the film run both ways (F2)"),
                    (View::Noise, "Noise", "True noise beside predicted noise (F5)"),
                    (View::Schedule, "Schedule", "How fast a picture drowns (F7)"),
                    (View::Training, "Training", "Watch a model learn (F3)"),
                ];
                let mut view = self.view;
                if style::segments(ui, &views, &mut view) {
                    out.push(UiAction::Show(view));
                }
                ui.menu_button("File ⏷", |ui| {
                    for usage in [PathUse::OpenModel, PathUse::OpenImage, PathUse::SaveModel] {
                        style::button(ui, &UiAction::AskPath(usage), out);
                    }
                    style::button(ui, &UiAction::LoadShipped, out);
                });
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.spacing_mut().item_spacing.x = 2.0;
                    style::icon_button(ui, Icon::Keys, &UiAction::ToggleKeys, false, out);
                    style::icon_button(ui, Icon::Theme, &UiAction::NextTheme, false, out);
                    style::icon_button(ui, Icon::Settings, &UiAction::ToggleSettings, false, out);
                    ui.add_space(style::GRID);
                    let model = match (&self.state.model, self.state.file_job) {
                        (_, Some(_)) => "reading or writing…",
                        (Some(model), None) => model.name.as_str(),
                        (None, None) => "no model yet",
                    };
                    let device = self.state.device.as_deref().unwrap_or("starting");
                    let text = RichText::new(format!("{model} · {device}")).color(p.weak);
                    ui.add(egui::Label::new(text).truncate());
                });
            });
        });
    }

    /// Does what a person asked for.
    pub(super) fn act(&mut self, action: UiAction) {
        use UiAction as A;
        let playback = &mut self.state.playback;
        match action {
            A::PlayPause => playback.toggle(),
            A::Play(direction) => playback.play(direction),
            A::Step(n) => playback.step(n),
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
                let shape = self.state.model.as_ref().map(|m| m.shape);
                self.film.drawing = shape.filter(|_| self.film.drawing.is_none()).map(Canvas::new);
            }
            A::Drawn(bytes) => {
                let source = ForwardSource::Drawn(bytes);
                self.set_film(FilmSettings { source, ..self.state.settings.clone() });
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
                if let Some(job) = self.state.reverse.job.filter(|_| self.state.reverse.phase == Phase::Busy) {
                    self.commands.push(Command::Cancel(job));
                }
            }
            A::SetRun(run) => self.state.run = run,
            A::StartTraining => self.start_training(),
            A::HoldTraining => {
                if let Some(training) = self.state.running_training() {
                    let paused = training.is_paused();
                    let next = if paused { TrainingState::Running } else { TrainingState::Paused };
                    self.commands.push(Command::SetTraining(next));
                }
            }
            A::StopTraining => {
                if let Some(training) = self.state.running_training() {
                    self.commands.push(Command::Cancel(training.job));
                }
            }
            A::SetCurve(curve) => self.preferences.curve = curve,
            A::ToggleLog => self.preferences.curve.log ^= true,
            A::Show(view) => self.view = view,
            A::ToggleKeys => self.keys_open ^= true,
            A::ToggleSettings => match self.view {
                View::Film | View::Noise | View::Schedule => self.preferences.film_settings ^= true,
                View::Training => self.preferences.run_settings ^= true,
            },
            A::Dismiss => {
                if self.keys_open {
                    self.keys_open = false;
                } else {
                    self.state.banners.pop();
                }
            }
            A::AskPath(usage) => self.path = Some(PathDialog::new(usage)),
            A::UsePath(usage, path) => self.use_path(usage, path),
            A::LoadShipped => self.load(Origin::Shipped),
            // these need the context: `ui_root` runs them
            A::NextTheme | A::FullScreen => {}
        }
    }

    /// Computes what the changed settings change.
    fn set_film(&mut self, settings: FilmSettings) {
        let old = std::mem::replace(&mut self.state.settings, settings);
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

    fn has_model(&self) -> bool {
        match self.state.settings.which {
            Which::Loaded => self.state.model.is_some(),
            Which::Training => self.state.training.as_ref().is_some_and(|t| t.model.is_some()),
        }
    }

    fn sample(&mut self) {
        if self.has_model() {
            let job = self.state.new_job();
            self.state.reverse.expect(job);
            self.commands.push(Command::Sample(job, self.state.settings.sample_request()));
        }
    }

    fn drown(&mut self) {
        if self.has_model() {
            let job = self.state.new_job();
            self.state.forward.expect(job);
            self.commands.push(Command::Forward(job, self.state.settings.forward_request()));
        }
    }

    fn start_training(&mut self) {
        if self.state.running_training().is_some() {
            return;
        }
        let run = &self.state.run;
        if let Err(e) = run.config.validate() {
            self.state.fail(&e);
            return;
        }
        let out = typed_path(&run.out);
        let request =
            TrainRequest { config: run.config.clone(), resume: run.resume && out.is_some(), out, save_every: None };
        let job = self.state.new_job();
        self.state.training = Some(Training::new(job));
        // nothing in it can be changed until the run is over
        self.preferences.run_settings = false;
        self.commands.push(Command::Train(job, Box::new(request)));
    }

    fn load(&mut self, origin: Origin) {
        let job = self.state.new_job();
        self.state.file_job = Some(job);
        self.commands.push(Command::Load(job, origin));
    }

    fn use_path(&mut self, usage: PathUse, path: PathBuf) {
        match usage {
            PathUse::OpenModel => self.load(Origin::Folder(path)),
            PathUse::SaveModel => {
                let job = self.state.new_job();
                self.state.file_job = Some(job);
                self.commands.push(Command::Save(job, path));
            }
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
            PathUse::TrainingOut => self.state.run.out = path.display().to_string(),
            PathUse::TrainingData => self.state.run.config.data = path.display().to_string(),
        }
    }
}

/// Any other seed, the same one for the same seed: splitmix64, kept short enough to read aloud.
fn next_seed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let short = (z ^ (z >> 31)) % 100_000;
    if short == seed { short + 1 } else { short }
}

fn next_theme(ui: &Ui) {
    let next = match ui.ctx().options(|o| o.theme_preference) {
        ThemePreference::System => ThemePreference::Light,
        ThemePreference::Light => ThemePreference::Dark,
        ThemePreference::Dark => ThemePreference::System,
    };
    ui.ctx().set_theme(next);
}

/// A dropped file is a picture to drown, a dropped folder a model.
fn dropped_files(ui: &Ui, out: &mut Vec<UiAction>) {
    let paths: Vec<PathBuf> = ui.input(|i| i.raw.dropped_files.iter().map(|f| f.path().to_owned()).collect());
    let usage = |path: &Path| if path.is_dir() { PathUse::OpenModel } else { PathUse::OpenImage };
    out.extend(paths.into_iter().next_back().map(|path| UiAction::UsePath(usage(&path), path)));
}
