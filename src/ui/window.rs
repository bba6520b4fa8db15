//! All of the window but the worker: state and views. What it wants from the worker it collects as commands, so tests can
//! drive it without one.

use super::actions::{UiAction, View};
use super::data::DataView;
use super::dialogs::{self, PathDialog};
use super::export::ExportDialog;
use super::fetch;
use super::film::FilmView;
use super::keys;
use super::playback::Mode;
use super::preferences::Preferences;
use super::race::RaceView;
use super::runs::RunsView;
use super::shared::SharedView;
use super::state::{AppState, GRIDS};
use super::style;
use super::top_bar::next_theme;
use super::training::TrainingView;
use super::unsaved::{Closing, Parting, Unsaved};
use super::watch::WatchView;
use crate::engine::{Command, Error, Event, JobId, Outcome, Which};
use egui::text_selection::LabelSelectionState;
use egui::{Ui, ViewportCommand};
use std::time::Duration;

/// Time between frames while the film plays: more would cost the worker time on machines without a graphics card.
const FRAME: Duration = Duration::from_millis(33);
/// The same while the film is still being computed.
const FRAME_GROWING: Duration = Duration::from_millis(80);

/// How much larger everything is in a presentation, at least.
const PRESENTATION: f32 = 1.5;
/// A larger window only makes all of a presentation larger: what is in it fills so many points.
const STAGE: egui::Vec2 = egui::vec2(1280.0 / PRESENTATION, 720.0 / PRESENTATION);

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
    pub(super) training: TrainingView,
    watched: WatchView,
    race: RaceView,
    shared: SharedView,
    pub(super) runs: RunsView,
    data: DataView,
    pub(super) path: Option<PathDialog>,
    /// The model that is saved when a path was chosen for it.
    pub(super) to_save: Which,
    pub(super) unsaved: Option<Unsaved>,
    pub(super) parting: Option<Parting>,
    pub(super) closing: Closing,
    pub(super) export: Option<ExportDialog>,
    pub(super) preferences: Preferences,
    pub(super) commands: Vec<Command>,
    /// The contrast that the themes were made with.
    high_contrast: bool,
    /// The zoom and the size of the last frame, in points.
    measured: (f32, egui::Vec2),
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
        state.runs.folder.clone_from(&preferences.runs_folder);
        if GRIDS.contains(&preferences.grid) {
            state.settings.n = preferences.grid;
        }
        Self {
            state,
            view: View::default(),
            keys_open: false,
            film: FilmView::default(),
            training: TrainingView::default(),
            watched: WatchView::default(),
            race: RaceView::default(),
            shared: SharedView::default(),
            runs: RunsView::default(),
            data: DataView::default(),
            path: None,
            to_save: Which::Loaded,
            unsaved: None,
            parting: None,
            closing: Closing::No,
            export: None,
            preferences,
            commands: Vec::new(),
            high_contrast: false,
            measured: (1.0, egui::Vec2::ZERO),
            clock: None,
        }
    }

    /// What is to be remembered.
    pub fn preferences(&self) -> Preferences {
        let AppState { playback, settings, scale, runs, .. } = &self.state;
        let (speed, repeat, runs_folder) = (playback.speed, playback.repeat, runs.folder.clone());
        Preferences { speed, repeat, scale: *scale, grid: settings.n, runs_folder, ..self.preferences.clone() }
    }

    /// Takes in what the worker tells.
    pub fn handle(&mut self, event: Event) {
        if let Event::Finished(job, outcome) = &event {
            self.saved_before(*job, outcome);
            self.let_go_of_row(*job);
            self.notes_saved(*job, outcome);
            let exported = self.state.exporting.as_ref().is_some_and(|export| export.job() == *job);
            self.export.take_if(|_| exported && *outcome == Outcome::Done);
        }
        let loaded = matches!(event, Event::ModelChanged(_));
        let action = self.state.apply(event);
        let shape = self.state.chosen_model().map(|model| model.shape);
        self.film.drawing.take_if(|canvas| loaded || shape.is_some_and(|shape| !canvas.fits(shape)));
        if let Some(action) = action {
            self.act(action);
        }
        self.grow();
    }

    /// Takes in that the command which begins `job`, if any, could not be sent.
    pub fn refused(&mut self, job: Option<JobId>, why: Error) {
        match job {
            Some(job) => self.handle(Event::Finished(job, Outcome::Failed(why))),
            None => self.state.fail(&why),
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
        if self.path.is_none() && self.unsaved.is_none() && self.parting.is_none() && self.export.is_none() {
            keys::pressed(ui.ctx(), self.view, self.state.watching.is_some(), &mut out);
        }
        dropped_files(ui, &mut out);
        self.play(ui);
        if !self.state.presenting {
            self.top_bar(ui, &mut out);
        }
        fetch::panel(ui, &self.state, &mut out);
        if let Some(i) = dialogs::banners(ui, &self.state, &mut out) {
            self.state.banners.remove(i);
        }
        match self.view {
            View::Film | View::Noise | View::Schedule | View::Step | View::Branches => {
                self.film.ui(ui, &self.state, self.view, self.preferences.film_settings, &mut out);
            }
            View::Race => self.race.ui(ui, &self.state, &mut out),
            View::Shared => self.shared.ui(ui, &self.state, &mut out),
            View::Runs => self.runs.ui(ui, &self.state, self.preferences.curve, &mut out),
            View::Training if self.state.watching.is_some() => {
                self.watched.ui(ui, &self.state, self.preferences.curve, &mut out);
            }
            View::Data => self.data.ui(ui, &self.state, &mut out),
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
            None => {
                self.ask_unsaved(ui);
                if self.unsaved.is_none() {
                    self.ask_parting(ui);
                }
            }
        }
        self.close_if_due(ui.ctx());
        if self.export.as_mut().is_some_and(|dialog| dialog.ui(ui, &self.state, &mut out)) {
            self.export = None;
        }
        let copies = |i: &egui::InputState| i.events.contains(&egui::Event::Copy);
        let text = ui.ctx().text_edit_focused() || ui.ctx().plugin::<LabelSelectionState>().lock().has_selection();
        if self.view.has_timeline() && !text && ui.input(copies) {
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
        if self.view != View::Runs {
            self.leave_runs();
        }
        if self.view.has_timeline() {
            self.commands.extend(self.state.recall_missing(self.film.quantity(), self.view == View::Branches));
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
        let now = (ctx.zoom_factor(), ctx.content_rect().size().round());
        let (zoom, size) = std::mem::replace(&mut self.measured, now);
        if self.state.presenting && zoom == now.0 && size != now.1 {
            self.fit_presentation(ctx);
        }
    }

    fn present(&mut self, ctx: &egui::Context) {
        self.state.presenting ^= true;
        if self.state.presenting {
            if !self.view.has_timeline() {
                self.view = View::Film;
            }
            self.preferences.usual_zoom.get_or_insert(ctx.zoom_factor());
            self.fit_presentation(ctx);
        }
    }

    /// Makes all of a presentation as large as the window allows.
    fn fit_presentation(&self, ctx: &egui::Context) {
        let usual = self.preferences.usual_zoom.unwrap_or(1.0);
        let fits = ctx.content_rect().size() * ctx.zoom_factor() / STAGE;
        ctx.set_zoom_factor(fits.min_elem().max(usual * PRESENTATION));
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
}

/// A dropped file is a film to make again or a picture to drown, a dropped folder a model.
fn dropped_files(ui: &Ui, out: &mut Vec<UiAction>) {
    let last = ui.input(|i| i.raw.dropped_files.last().map(|f| f.path().to_owned()));
    out.extend(last.map(UiAction::Dropped));
}
