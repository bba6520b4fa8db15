//! All of the window but the worker: state, views, and the one place where actions are run. What it wants from the worker
//! it collects as commands, so tests can drive it without one.

use super::actions::{self, PathUse, UiAction, View};
use super::axis::Scale;
use super::curve::CurveSettings;
use super::dialogs::{self, Answer, PathDialog};
use super::export::{ExportDialog, Exporting};
use super::film::FilmView;
use super::playback::{Mode, Repeat};
use super::race::RaceView;
use super::state::{AppState, FilmSettings, GRIDS, Phase, Training, next_seed};
use super::style::{self, Icon};
use super::training::TrainingView;
use crate::engine::{Command, Error, Event, ForwardSource, JobId, Origin, Outcome, TrainingState, Which};
use egui::{Align, Layout, Margin, Panel, RichText, ThemePreference, Ui, ViewportCommand};
use std::path::PathBuf;
use std::time::Duration;

/// Time between frames while the film plays: more would cost the worker time on machines without a graphics card.
const FRAME: Duration = Duration::from_millis(33);
/// The same while the film is still being computed.
const FRAME_GROWING: Duration = Duration::from_millis(80);

/// How much larger everything is in a presentation.
const PRESENTATION: f32 = 1.5;

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
    high_contrast: bool,
    /// The zoom to go back to after a presentation.
    usual_zoom: Option<f32>,
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
            high_contrast: false,
            usual_zoom: None,
        }
    }
}

/// Gives the context its fonts and themes; once, before the first frame.
pub fn set_up(ctx: &egui::Context) {
    style::set_fonts(ctx);
    style::set_themes(ctx, false);
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
    pub(super) film: FilmView,
    training: TrainingView,
    race: RaceView,
    path: Option<PathDialog>,
    unsaved: Option<Unsaved>,
    closing: Closing,
    export: Option<ExportDialog>,
    preferences: Preferences,
    pub(super) commands: Vec<Command>,
    /// The contrast that the themes were made with.
    high_contrast: bool,
    /// When the film was last moved, while it plays, in seconds.
    clock: Option<f64>,
}

/// Whether the window closes whatever is not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// To be asked for in the next frame.
    Due,
    /// Asked for.
    Now,
}

/// What a person wants to do although a training is not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Close,
    Train,
}

/// The question what is to become of that training.
#[derive(Clone, Copy, Debug)]
struct Unsaved {
    wish: Wish,
    /// Whether it has been on screen.
    shown: bool,
    /// The save after which the wish is granted.
    saving: Option<JobId>,
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
            race: RaceView::default(),
            path: None,
            unsaved: None,
            closing: Closing::No,
            export: None,
            preferences,
            commands: Vec::new(),
            high_contrast: false,
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
        if let Event::Finished(job, outcome) = &event
            && let Some(unsaved) = self.unsaved.filter(|u| u.saving == Some(*job))
        {
            // a failed save asks again, under its message
            self.unsaved = Some(Unsaved { saving: None, shown: false, ..unsaved });
            if *outcome == Outcome::Done {
                self.grant();
            }
        }
        if let Some(action) = self.state.apply(event) {
            self.act(action);
        }
    }

    /// Takes in that the command which begins `job`, if any, could not be sent.
    pub fn refused(&mut self, job: Option<JobId>, why: Error) {
        match job {
            Some(job) => self.handle(Event::Finished(job, Outcome::Failed(why))),
            None => self.state.fail(&why),
        }
    }

    /// Closes without a question, whatever is lost.
    pub(super) fn never_ask(&mut self) {
        self.closing = Closing::Now;
    }

    /// Holds a window that is about to close while a training is not saved. To be called in every frame, drawn or not.
    pub fn hold_close(&mut self, ctx: &egui::Context) {
        let unsaved = self.state.training.as_ref().is_some_and(|t| t.unsaved().is_some());
        if ctx.input(|i| i.viewport().close_requested()) && unsaved && self.closing == Closing::No {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            if self.unsaved.is_none() {
                self.unsaved = Some(Unsaved { wish: Wish::Close, shown: false, saving: None });
            }
        }
    }

    /// Does what waited for the training to be saved or given up.
    fn grant(&mut self) {
        match self.unsaved.take().map(|u| u.wish) {
            Some(Wish::Close) => self.closing = Closing::Due,
            Some(Wish::Train) => self.train(),
            None => {}
        }
    }

    fn ask_unsaved(&mut self, ui: &Ui) {
        let Some(unsaved) = self.unsaved.as_mut().filter(|u| u.saving.is_none()) else { return };
        let Some(steps) = self.state.training.as_ref().and_then(Training::unsaved) else { return self.grant() };
        let first_frame = !std::mem::replace(&mut unsaved.shown, true);
        match dialogs::unsaved(ui, steps, first_frame) {
            Some(Answer::Save) => {
                self.path = Some(PathDialog::new(PathUse::SaveModel));
                unsaved.shown = false;
            }
            Some(Answer::Discard) => self.grant(),
            Some(Answer::Cancel) => self.unsaved = None,
            None => {}
        }
    }

    /// What the worker is to be asked since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Draws one frame and runs what was done in it.
    pub fn ui_root(&mut self, ui: &mut Ui) {
        self.follow_preferences(ui.ctx());
        let mut out = Vec::new();
        self.hold_close(ui.ctx());
        if self.path.is_none() && self.unsaved.is_none() && self.export.is_none() {
            actions::pressed(ui.ctx(), self.view, &mut out);
        }
        dropped_files(ui, &mut out);
        self.play(ui);
        if !self.state.presenting {
            self.top_bar(ui, &mut out);
        }
        if let Some(i) = dialogs::banners(ui, &self.state) {
            self.state.banners.remove(i);
        }
        match self.view {
            View::Film | View::Noise | View::Schedule | View::Step => {
                self.film.ui(ui, &self.state, self.view, self.preferences.film_settings, &mut out);
            }
            View::Race => self.race.ui(ui, &self.state, &mut out),
            View::Training => {
                let Preferences { curve, run_settings, .. } = self.preferences;
                self.training.ui(ui, &self.state, curve, run_settings, &mut out);
            }
        }
        if self.keys_open && dialogs::keys(ui) {
            self.keys_open = false;
        }
        match &mut self.path {
            Some(dialog) => {
                if dialog.ui(ui, &mut out) {
                    self.path = None;
                }
            }
            None => self.ask_unsaved(ui),
        }
        if self.closing == Closing::Due {
            self.closing = Closing::Now;
            ui.ctx().send_viewport_cmd(ViewportCommand::Close);
        }
        if self.export.as_mut().is_some_and(|dialog| dialog.ui(ui, &self.state, &mut out)) {
            self.export = None;
        }
        let copies = |i: &egui::InputState| i.events.contains(&egui::Event::Copy);
        if self.view.has_timeline() && !ui.ctx().text_edit_focused() && ui.input(copies) {
            out.push(UiAction::CopyFrame);
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
                UiAction::Present => self.present(ui.ctx()),
                UiAction::CopyFrame => self.copy_frame(ui.ctx()),
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

    /// Brings the context to the contrast and zoom that were chosen.
    fn follow_preferences(&mut self, ctx: &egui::Context) {
        if self.high_contrast != self.preferences.high_contrast {
            self.high_contrast = self.preferences.high_contrast;
            style::set_themes(ctx, self.high_contrast);
        }
        // also after a start that follows an end while presenting: egui remembers its zoom
        if !self.state.presenting
            && let Some(zoom) = self.preferences.usual_zoom.take()
        {
            ctx.set_zoom_factor(zoom);
        }
    }

    fn present(&mut self, ctx: &egui::Context) {
        self.state.presenting ^= true;
        if self.state.presenting {
            if !self.view.has_timeline() {
                self.view = View::Film;
            }
            let usual = self.preferences.usual_zoom.get_or_insert(ctx.zoom_factor());
            ctx.set_zoom_factor(*usual * PRESENTATION);
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
                    (View::Step, "Step", "What happens in one step: its equation as pictures that add up (F8)"),
                    (View::Race, "Race", "DDPM beside DDIM from the same noise (F9)"),
                    (View::Training, "Training", "Watch a model learn (F3)"),
                ];
                let mut view = self.view;
                if style::segments(ui, &views, &mut view) {
                    out.push(UiAction::Show(view));
                }
                let menu = ui.menu_button("File ⏷", |ui| {
                    for usage in [PathUse::OpenModel, PathUse::OpenImage, PathUse::SaveModel] {
                        style::button(ui, &UiAction::AskPath(usage), out);
                    }
                    for action in [UiAction::LoadShipped, UiAction::AskExport, UiAction::CopyFrame] {
                        style::button(ui, &action, out);
                    }
                });
                menu.response.on_hover_text("Open and save models, open images, export films");
                let menu = ui.menu_button("View ⏷", |ui| {
                    use UiAction::{FullScreen, NextTheme, Present, ToggleContrast};
                    for action in [Present, FullScreen, ToggleContrast, NextTheme] {
                        if actions::menu_item(ui, &action, out) {
                            ui.close();
                        }
                    }
                });
                menu.response.on_hover_text("What is shown, and how");
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.spacing_mut().item_spacing.x = 2.0;
                    style::icon_button(ui, Icon::Keys, &UiAction::ToggleKeys, false, out);
                    style::icon_button(ui, Icon::Theme, &UiAction::NextTheme, false, out);
                    if self.view != View::Race {
                        style::icon_button(ui, Icon::Settings, &UiAction::ToggleSettings, false, out);
                    }
                    ui.add_space(style::GRID);
                    let model = match &self.state.model {
                        _ if !self.state.file_jobs.is_empty() => "reading or writing…",
                        Some(model) => model.name.as_str(),
                        None => "no model yet",
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
                if let Some(job) = self.state.reverse.job.filter(|_| self.state.reverse.phase == Phase::Busy) {
                    self.commands.push(Command::Cancel(job));
                }
            }
            A::SetRun(run) => self.state.run = run,
            A::StartTraining => self.start_training(),
            A::ChangeTraining(changes) => self.commands.push(Command::Change(changes)),
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
            A::EnlargeSnapshots => self.training.snapshots.enlarged ^= true,
            A::SetCurve(curve) => self.preferences.curve = curve,
            A::ToggleLog => self.preferences.curve.log ^= true,
            A::Show(view) => {
                self.view = view;
                self.state.presenting &= view.has_timeline();
            }
            A::ToggleKeys => self.keys_open ^= true,
            A::ToggleSettings => match self.view {
                View::Film | View::Noise | View::Schedule | View::Step => self.preferences.film_settings ^= true,
                View::Training => self.preferences.run_settings ^= true,
                View::Race => {}
            },
            A::Dismiss => {
                if self.keys_open {
                    self.keys_open = false;
                } else if self.state.banners.pop().is_none() {
                    self.state.presenting = false;
                }
            }
            A::AskPath(usage) => self.path = Some(PathDialog::new(usage)),
            A::UsePath(usage, path) => self.use_path(usage, path),
            A::LoadShipped => self.load(Origin::Shipped),
            A::ToggleContrast => self.preferences.high_contrast ^= true,
            // these need the context: `ui_root` runs them
            A::NextTheme | A::FullScreen | A::Present | A::CopyFrame => {}
            A::StartRace => self.start_race(),
            A::StopRace => self.stop_race(),
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
            A::Restore(recipe) => self.restore(recipe),
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

    pub(super) fn has_model(&self) -> bool {
        match self.state.settings.which {
            Which::Loaded => self.state.model.is_some(),
            Which::Training => self.state.training.as_ref().is_some_and(|t| t.model.is_some()),
        }
    }

    fn sample(&mut self) {
        if self.has_model() {
            let job = self.state.new_job();
            self.state.reverse.expect(job, self.state.settings.clone());
            self.commands.push(Command::Sample(job, self.state.settings.sample_request()));
        }
    }

    fn drown(&mut self) {
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
        let run = &self.state.run;
        if let Err(e) = run.config.validate() {
            self.state.fail(&e);
        } else if self.state.training.as_ref().is_some_and(|t| t.unsaved().is_some()) {
            self.unsaved = Some(Unsaved { wish: Wish::Train, shown: false, saving: None });
        } else {
            self.train();
        }
    }

    fn train(&mut self) {
        let request = self.state.run.request();
        let job = self.state.new_job();
        self.state.training = Some(Training::new(job, request.out.is_none()));
        self.preferences.run_settings = false;
        self.commands.push(Command::Train(job, Box::new(request)));
    }

    pub(super) fn load(&mut self, origin: Origin) {
        let job = self.state.new_job();
        self.state.file_jobs.push(job);
        self.commands.push(Command::Load(job, origin));
    }

    fn use_path(&mut self, usage: PathUse, path: PathBuf) {
        match usage {
            PathUse::OpenModel => self.load(Origin::Folder(path)),
            PathUse::SaveModel => {
                let job = self.state.new_job();
                self.state.file_jobs.push(job);
                if let Some(unsaved) = &mut self.unsaved {
                    unsaved.saving = Some(job);
                }
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

fn next_theme(ui: &Ui) {
    let next = match ui.ctx().options(|o| o.theme_preference) {
        ThemePreference::System => ThemePreference::Light,
        ThemePreference::Light => ThemePreference::Dark,
        ThemePreference::Dark => ThemePreference::System,
    };
    ui.ctx().set_theme(next);
}

/// A dropped file is a film to make again or a picture to drown, a dropped folder a model.
fn dropped_files(ui: &Ui, out: &mut Vec<UiAction>) {
    let last = ui.input(|i| i.raw.dropped_files.last().map(|f| f.path().to_owned()));
    out.extend(last.map(UiAction::Dropped));
}
