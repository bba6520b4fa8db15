//! The training view: the loss, the few numbers that matter, and what the model can draw by now.

use super::actions::{PathUse, UiAction};
use super::by_timestep::ByTimestep;
use super::changes::ChangesForm;
use super::curve::{self, Curve, CurveSettings};
use super::doctor;
use super::numbers;
use super::run_form;
use super::signals::SignalCurves;
use super::snapshots::{self, SnapshotsView};
use super::state::{AppState, Phase, Training};
use super::style::{self, GRID};
use crate::engine::{Kind, PredictionType, RunConfig};
use egui::{Align, Layout, Margin, Panel, RichText, ScrollArea, Ui, vec2};

/// Width that the buttons of a run that is over take.
const ALL_BUTTONS: f32 = 410.0;

/// What the upper part of the view shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tab {
    #[default]
    Loss,
    ByTimestep,
    Signals,
    Doctor,
}

/// What the training view keeps for itself.
#[derive(Default)]
pub struct TrainingView {
    tab: Tab,
    curve: Curve,
    by_timestep: ByTimestep,
    signals: SignalCurves,
    pub(super) snapshots: SnapshotsView,
    changes: ChangesForm,
}

impl TrainingView {
    /// Draws the view.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        state: &AppState,
        curve: CurveSettings,
        settings_open: bool,
        out: &mut Vec<UiAction>,
    ) {
        let p = style::palette(ui);
        if settings_open {
            let frame = egui::Frame::new().fill(p.panel).inner_margin(Margin::same(16));
            Panel::right("run-settings").resizable(false).exact_size(run_form::WIDTH).frame(frame).show(ui, |ui| {
                ScrollArea::vertical().show(ui, |ui| {
                    if let Some(metrics) = state.running_training().and_then(|t| t.metrics.as_ref()) {
                        self.changes.ui(ui, metrics.settings, out);
                        ui.add_space(2.0 * GRID);
                    }
                    run_form::ui(ui, state, out);
                });
            });
        }
        let Some(training) = &state.training else {
            egui::CentralPanel::default().frame(egui::Frame::new().fill(p.background)).show(ui, |ui| {
                let start = Some(("Start training", UiAction::StartTraining));
                let reason = "Choose the settings (F4) at the right, or start with these";
                style::placeholder(ui, "No training yet", reason, start, out);
                ui.vertical_centered(|ui| style::button(ui, &UiAction::StartLecture, out));
            });
            return;
        };
        let frame = egui::Frame::new().fill(p.background);
        let height = ui.available_height();
        Panel::bottom("snapshots")
            .resizable(false)
            .show_separator_line(false)
            .frame(frame.inner_margin(Margin { left: 16, right: 16, top: 4, bottom: 12 }))
            .exact_size(snapshots::height(training, height * 0.22, ui.pixels_per_point()))
            .show(ui, |ui| self.snapshots.ui(ui, training, out));
        Panel::bottom("numbers")
            .resizable(false)
            .show_separator_line(false)
            .frame(frame.inner_margin(Margin::symmetric(16, 8)))
            .show(ui, |ui| numbers(ui, training));
        egui::CentralPanel::default()
            .frame(frame.inner_margin(Margin { left: 16, right: 16, top: 8, bottom: 0 }))
            .show(ui, |ui| {
                let bar = vec2(ui.available_width(), style::CONTROL);
                ui.allocate_ui_with_layout(bar, Layout::right_to_left(Align::Center), |ui| {
                    if !self.snapshots.enlarged {
                        self.tabs(ui, training);
                    }
                    ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                        run_buttons(ui, state, training, out);
                        status(ui, training);
                    });
                });
                if !self.snapshots.enlarged && matches!(self.tab, Tab::Loss | Tab::ByTimestep) {
                    ui.allocate_ui_with_layout(bar, Layout::right_to_left(Align::Center), |ui| match self.tab {
                        Tab::ByTimestep => self.by_timestep.controls(ui),
                        _ => out.extend(curve::controls(ui, curve).map(UiAction::SetCurve)),
                    });
                }
                match &training.metrics {
                    _ if self.snapshots.enlarged => self.snapshots.large(ui, training),
                    Some(metrics) if metrics.history.last().is_some() => match self.tab {
                        Tab::Loss => self.curve.ui(ui, metrics, curve),
                        Tab::ByTimestep => {
                            let steps = training.model.as_ref().map_or(1000, |model| model.schedule.steps());
                            self.by_timestep.ui(ui, metrics, steps);
                        }
                        Tab::Signals => self.signals.ui(ui, metrics),
                        Tab::Doctor => doctor::ui(ui, &metrics.verdicts),
                    },
                    _ if training.phase == Phase::Busy && state.extent().growing => {
                        let stop = Some(("Stop computing the film", UiAction::StopFilm));
                        style::placeholder(ui, "Waiting", "Training goes on when the film is computed", stop, out);
                    }
                    _ if training.phase == Phase::Busy => {
                        let reason = match training.reading {
                            Some((done, total)) if training.model.is_none() => {
                                let [done, total] = [done, total].map(numbers::thousands);
                                format!("Reading the data: {done} of {total}")
                            }
                            _ => "The first steps come in a moment".to_owned(),
                        };
                        style::placeholder(ui, "Starting", &reason, None, out);
                    }
                    _ => style::placeholder(ui, "Nothing to show", "This run ended before its first step", None, out),
                }
            });
    }

    fn tabs(&mut self, ui: &mut Ui, training: &Training) {
        let doctor = doctor::label(training.metrics.as_ref().map_or(&[], |metrics| &metrics.verdicts));
        let tabs = [
            (Tab::Loss, "Loss", "The loss over the run"),
            (Tab::ByTimestep, "By timestep", "The loss of each timestep, beside the least there can be"),
            (Tab::Signals, "Signals", "Gradient norm, update-to-weight ratio, learning rate, EMA"),
            (Tab::Doctor, doctor.as_str(), "What the signals say, in plain words"),
        ];
        style::segments(ui, &tabs, &mut self.tab);
    }
}

fn run_buttons(ui: &mut Ui, state: &AppState, training: &Training, out: &mut Vec<UiAction>) {
    if training.phase == Phase::Busy {
        let label = if training.is_paused() { "Resume" } else { "Pause" };
        style::labelled_button(ui, label, &UiAction::HoldTraining, true, out);
        style::button(ui, &UiAction::StopTraining, out);
    } else {
        let goes_on = go_on(ui, training, true, out);
        // the others have keys, too
        let room = ui.available_width() > ALL_BUTTONS;
        // it was not made from the form
        let lecture = training.request.config == RunConfig::lecture();
        if lecture && (room || !goes_on) {
            style::labelled_button(ui, "Digits again", &UiAction::StartLecture, !goes_on, out);
        }
        ui.add_enabled_ui(state.run.config.validate().is_ok(), |ui| {
            let label = if lecture { "Start training" } else { "Start again" };
            style::labelled_button(ui, label, &UiAction::StartTraining, !goes_on && !lecture, out);
        });
        if !goes_on && !lecture && room {
            style::button(ui, &UiAction::StartLecture, out);
        }
        if room {
            style::button(ui, &UiAction::AskPath(PathUse::SaveModel), out);
        }
    }
}

/// The way on for a training that diverged or was stopped, if it did or was.
pub fn go_on(ui: &mut Ui, training: &Training, primary: bool, out: &mut Vec<UiAction>) -> bool {
    let label = match training.half_rate() {
        Some(rate) => format!("Go on with half the rate, {rate:.1e}"),
        None if training.can_go_on() => "Go on".to_owned(),
        None => return false,
    };
    style::labelled_button(ui, &label, &UiAction::GoOn, primary, out);
    true
}

fn status(ui: &mut Ui, training: &Training) {
    let p = style::palette(ui);
    let (text, color) = match &training.phase {
        Phase::Failed(e) if e.kind == Kind::Diverged => ("Diverged".to_owned(), p.error),
        Phase::Failed(e) => (format!("Failed: {}", e.what), p.error),
        Phase::Done => ("Finished".to_owned(), p.xstart),
        Phase::Stopped => ("Stopped".to_owned(), p.warning),
        Phase::Idle | Phase::Busy if training.is_paused() => ("Paused".to_owned(), p.warning),
        Phase::Idle | Phase::Busy => match &training.model {
            Some(m) => (format!("{}, {} weights", m.name, numbers::thousands(m.params as u64)), p.weak),
            None => ("Starting".to_owned(), p.weak),
        },
    };
    ui.add(egui::Label::new(RichText::new(text).color(color)).truncate());
}

fn numbers(ui: &mut Ui, training: &Training) {
    let size = if ui.available_width() > 900.0 { style::HUGE } else { style::LARGE };
    let none = || "–".to_owned();
    let predicts_v = training.model.as_ref().is_some_and(|model| model.prediction_type == PredictionType::Velocity);
    let of_loss = if predicts_v {
        "Mean of the last 100 steps: the error of the ε̂ that follows from v̂; the network learns v itself"
    } else {
        "Mean of the last 100 steps (Ho et al. 2020, Eq. 14)"
    };
    let (mut step, mut loss, mut speed, mut left, mut rate, mut norm) =
        (none(), none(), none(), none(), none(), none());
    let mut widest = "000,000 of 000,000".to_owned();
    if let Some(m) = &training.metrics {
        let total = numbers::thousands(m.total);
        widest = format!("{total} of {total}");
        step = format!("{} of {total}", numbers::thousands(m.step));
        if training.phase == Phase::Busy && !training.is_paused() {
            speed = if m.images_per_s > 0.0 { format!("{:.0}", m.images_per_s) } else { none() };
            left = if m.seconds_left > 0.0 { numbers::duration(m.seconds_left) } else { none() };
        }
        if let Some(s) = m.history.last() {
            loss = m.history.mean_loss(100).map_or_else(none, |l| format!("{l:.4}"));
            rate = format!("{:.1e}", s.learning_rate);
            norm = format!("{:.3}", s.grad_norm);
        }
    }
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = (ui.available_width() * 0.025).clamp(8.0, 40.0);
        style::readout(ui, "Step", &step, &widest, size, "Optimiser steps done");
        style::readout(ui, "Loss, 100 steps", &loss, "0.0000", size, of_loss);
        style::readout(ui, "Images/s", &speed, "00000", size, "Speed over the last steps, samples left out");
        style::readout(ui, "Time left", &left, "00:00:00", size, "Estimated from the speed and from what samples cost");
        style::readout(ui, "Learning rate", &rate, "0.0e-4", size, "Rises linearly at first; may fall at the end");
        style::readout(ui, "Gradient norm", &norm, "00.000", size, "Before clipping");
    });
}
