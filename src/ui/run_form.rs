//! The settings of the next training: every field of its one `RunConfig` but what the run decides, with unit, bounds, what
//! the paper used, and what is wrong with it.

use super::actions::{PathUse, UiAction};
use super::film_settings::section;
use super::numbers;
use super::schedule::name as schedule_name;
use super::state::{AppState, RunSettings};
use super::style::{self, GRID};
use crate::engine::{self, About, BetaSchedule, Number, PredictionType, RunConfig};
use egui::{Align, CursorIcon, DragValue, Layout, Response, RichText, Ui, vec2};

/// Width of the panel.
pub const WIDTH: f32 = 376.0;
/// Width of a value.
const VALUE: f32 = 136.0;
/// Width of what the paper used.
const PAPER: f32 = 72.0;

/// What the window calls that which a network predicts.
pub(super) fn predicted(kind: PredictionType) -> &'static str {
    match kind {
        PredictionType::Epsilon => "ε",
        PredictionType::Velocity => "v",
    }
}

/// Draws the form.
pub fn ui(ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
    let mut s = state.run.clone();
    ui.spacing_mut().interact_size.y = 28.0;
    ui.spacing_mut().item_spacing.y = 6.0;
    let running = state.running_training().is_some();
    let valid = s.config.validate();
    ui.horizontal(|ui| {
        ui.label(RichText::new("Training settings").font(style::semibold(style::LARGE)));
        if !running && valid.is_ok() {
            let label = if s.goes_on() { "Go on training" } else { "Start training" };
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                // without a run the middle of the view has the button
                style::labelled_button(ui, label, &UiAction::StartTraining, state.training.is_some(), out);
            });
        }
    });
    if running {
        ui.label(RichText::new("The others can be changed when this training is over").color(style::palette(ui).weak));
    }
    // what is wrong with a number stands beside it
    if let Err(e) = valid
        && Number::ALL.iter().all(|number| s.config.check(*number).is_ok())
    {
        ui.label(RichText::new(e.to_string()).color(style::palette(ui).error));
    }
    ui.add_enabled_ui(!running, |ui| fields(ui, &mut s, out));
    if s != state.run {
        out.push(UiAction::SetRun(s));
    }
}

fn fields(ui: &mut Ui, s: &mut RunSettings, out: &mut Vec<UiAction>) {
    let RunConfig { preset, data, flip, beta_schedule, prediction_type, .. } = &mut s.config;
    let caption = section(ui, "Network");
    let list = egui::ComboBox::from_id_salt("preset").selected_text(preset.as_str()).width(160.0).show_ui(ui, |ui| {
        for name in engine::preset_names() {
            ui.selectable_value(preset, (*name).to_owned(), *name);
        }
    });
    list.response.labelled_by(caption.id).on_hover_text("Size and shape of the network, and of its pictures");
    ui.horizontal(|ui| {
        let caption = ui.label("Schedule");
        let name = |kind: BetaSchedule| schedule_name(kind).to_owned();
        let chosen = BetaSchedule::from_name(beta_schedule).map_or_else(|| beta_schedule.clone(), name);
        let list = egui::ComboBox::from_id_salt("schedule").selected_text(chosen).width(120.0).show_ui(ui, |ui| {
            for kind in BetaSchedule::ALL {
                ui.selectable_value(beta_schedule, kind.name().to_owned(), name(kind));
            }
        });
        let says = "How the doses of noise grow with t; the paper's is linear";
        list.response.labelled_by(caption.id).on_hover_text(says);
        ui.label("Predicts");
        let choices = [
            (Some(PredictionType::Epsilon), predicted(PredictionType::Epsilon), "The noise, as the paper does"),
            (
                Some(PredictionType::Velocity),
                predicted(PredictionType::Velocity),
                "v = √ᾱ ε − √(1−ᾱ) x_0 (Salimans & Ho 2022), from which the noise follows",
            ),
        ];
        let mut chosen = PredictionType::from_name(prediction_type);
        if style::segments(ui, &choices, &mut chosen) {
            *prediction_type = chosen.map_or_else(String::new, |kind| kind.name().to_owned());
        }
    });
    section(ui, "Data: mnist, IDX or CIFAR files, or folders of images; several with a semicolon between");
    path_field(ui, data, "Data", PathUse::TrainingData, out);
    ui.horizontal(|ui| {
        ui.label("Mirror pictures");
        let choices = [
            (None, "As usual", "Pictures but not digits, as the paper does"),
            (Some(true), "Yes", "Each picture at random as it is or mirrored"),
            (Some(false), "No", "Every picture as it is"),
        ];
        style::segments(ui, &choices, flip);
    });
    section(ui, "Checkpoints: a folder, or empty to keep the run in memory");
    path_field(ui, &mut s.out, "Output folder", PathUse::TrainingOut, out);
    ui.add_enabled_ui(!s.out.trim().is_empty(), |ui| {
        let says = "The run ends with the same numbers as one that never stopped; it needs an output folder";
        style::checkbox(ui, &mut s.resume, "Go on from the checkpoint there")
            .on_hover_text(says)
            .on_disabled_hover_text(says);
    });
    if s.goes_on() {
        let says = "Learning rate, EMA decay and samples stay as the run has them until it goes on";
        ui.label(RichText::new(says).color(style::palette(ui).weak));
    }
    ui.add_space(GRID);
    ui.horizontal(|ui| {
        let font = style::semibold(style::SMALL);
        let caption = |text| RichText::new(text).font(font.clone()).color(style::palette(ui).weak);
        let (run, paper) = (caption("Run"), caption("Ho et al. 2020"));
        ui.label(run);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.label(paper).on_hover_text("What the paper used for CIFAR-10; a value that is clicked is used here");
        });
    });
    number(ui, s, Number::Steps, "Steps", "Updates of the weights in all");
    number(ui, s, Number::Batch, "Batch", "Images behind each update");
    number(ui, s, Number::LearningRate, "Learning rate", "Step size of Adam");
    number(ui, s, Number::Warmup, "Warm-up", "Steps over which the learning rate rises linearly");
    number(
        ui,
        s,
        Number::Decay,
        "Final decay",
        "Steps at the end over which the learning rate falls to zero; 0 for none",
    );
    number(ui, s, Number::GradClip, "Gradient clip", "Largest global norm of a gradient; what is longer is shortened");
    number(ui, s, Number::EmaDecay, "EMA decay", "Weight of the past in the moving average of the weights");
    let says = "The decay rises from near 0 at first, so that a short run does not sample from its initial weights; the \
                paper's does not";
    style::checkbox(ui, &mut s.config.ema_warmup, "EMA warm-up").on_hover_text(says);
    number(ui, s, Number::PreviewEvery, "Samples every", "Training steps between samples; 0 for none");
    let seed = DragValue::new(&mut s.config.seed).speed(0.1);
    row(ui, "Seed", "The same seed gives the same training", |ui| value(ui, seed, true), |_| {});
}

/// A number with its unit, what the paper used, and under it what is wrong.
fn number(ui: &mut Ui, s: &mut RunSettings, number: Number, name: &str, says: &str) {
    let problem = s.config.check(number).err();
    let old = number.of(&s.config);
    let mut new = old;
    let paper = number.about().paper;
    let mut chosen = None;
    let kept = matches!(number, Number::LearningRate | Number::EmaDecay | Number::PreviewEvery) && s.goes_on();
    ui.add_enabled_ui(!kept, |ui| {
        row(
            ui,
            name,
            &with_bounds(number, says),
            |ui| value(ui, field(number, &mut new), problem.is_none()),
            |ui| {
                let Some(paper) = paper else { return };
                let text = if paper >= 1e3 { numbers::thousands(paper as u64) } else { number.words(paper) };
                let same = paper == old;
                let text = if same { RichText::new(text).strong() } else { RichText::new(text) };
                let button = egui::Button::new(text).frame(false);
                let response = ui.add_enabled(!same, button);
                let spoken = format!("{name} as in Ho et al. 2020: {}", number.words(paper));
                response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, !same, &spoken));
                let response = response.on_hover_cursor(CursorIcon::PointingHand);
                let response = response.on_hover_text(&spoken).on_disabled_hover_text(&spoken);
                chosen = response.clicked().then_some(paper);
            },
        );
    });
    if let Some(value) = chosen.or((new != old).then_some(new)) {
        number.set(&mut s.config, value);
    }
    if let Some(e) = problem {
        ui.label(RichText::new(format!("{}; {}", e.why, e.hint)).color(style::palette(ui).error));
    }
}

/// A field to type or drag that number in.
pub(super) fn field(number: Number, value: &mut f64) -> DragValue<'_> {
    // a step of the mouse is a hundredth, or one of what is counted
    let speed = if number.is_count() { (*value * 0.01).max(0.2) } else { value.abs().max(1e-9) * 0.01 };
    let drag = DragValue::new(value).speed(speed).suffix(number.about().unit);
    match number {
        Number::EmaDecay => drag.speed(1e-5).max_decimals(7),
        Number::LearningRate => drag.custom_formatter(|v, _| format!("{v:e}")),
        _ if number.is_count() => drag.max_decimals(0).custom_formatter(|v, _| counted(v)).custom_parser(uncounted),
        _ => drag,
    }
}

/// 20000 as "20,000"; what is no count, as it was typed.
fn counted(v: f64) -> String {
    if (0.0..1e15).contains(&v) { numbers::thousands(v.round() as u64) } else { v.to_string() }
}

fn uncounted(text: &str) -> Option<f64> {
    text.replace([',', ' '], "").parse().ok()
}

/// What that number is for, and its bounds.
pub(super) fn with_bounds(number: Number, says: &str) -> String {
    let About { least, most, unit, .. } = number.about();
    format!("{says}: {} to {}{unit}", number.words(least), number.words(most))
}

/// A name at the left, a value, and what the paper used at the right.
fn row(ui: &mut Ui, name: &str, says: &str, value: impl FnOnce(&mut Ui) -> Response, paper: impl FnOnce(&mut Ui)) {
    let height = ui.spacing().interact_size.y;
    ui.allocate_ui_with_layout(vec2(ui.available_width(), height), Layout::left_to_right(Align::Center), |ui| {
        ui.spacing_mut().item_spacing.x = GRID;
        let room = (ui.available_width() - VALUE - PAPER - 2.0 * GRID).floor();
        let label = ui.allocate_ui_with_layout(vec2(room, height), Layout::left_to_right(Align::Center), |ui| {
            ui.set_min_width(room);
            ui.label(name)
        });
        value(ui).labelled_by(label.inner.id).on_hover_text(says);
        ui.with_layout(Layout::right_to_left(Align::Center), paper);
    });
}

fn value(ui: &mut Ui, drag: DragValue<'_>, good: bool) -> Response {
    ui.scope(|ui| {
        if !good {
            let error = style::palette(ui).error;
            ui.visuals_mut().override_text_color = Some(error);
        }
        ui.add_sized(vec2(VALUE, ui.spacing().interact_size.y), drag.update_while_editing(false))
    })
    .inner
}

fn path_field(ui: &mut Ui, text: &mut String, name: &str, usage: PathUse, out: &mut Vec<UiAction>) {
    ui.horizontal(|ui| {
        let width = (ui.available_width() - 96.0).max(60.0);
        style::text_field(ui, text, name, width).on_hover_text("A path; ~ is the home folder");
        if ui.button("Browse…").on_hover_text("Ask the system for a path").clicked() {
            out.push(UiAction::AskPath(usage));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed() {
        for (v, shown) in [(20_000.0, "20,000"), (0.0, "0"), (-5.0, "-5"), (2e20, "200000000000000000000")] {
            assert_eq!((counted(v), uncounted(shown)), (shown.to_owned(), Some(v)));
        }
        assert_eq!(uncounted("1 000"), Some(1000.0));
        assert_eq!(uncounted("many"), None);
    }
}
