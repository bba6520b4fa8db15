//! The bar under the pictures: moving the film, the numbers of its state, and the seed.

use super::actions::{self, UiAction};
use super::axis;
use super::playback::{Direction, Mode, Repeat, SPEEDS};
use super::state::{AppState, FilmSettings};
use super::style::{self, GRID, Icon};
use super::symbols::{self, Part};
use crate::engine::Schedule;
use egui::{Align, DragValue, Layout, Rect, RichText, Role, Sense, Ui, WidgetInfo, vec2};

/// Width from which all stands in one row.
const ONE_ROW: f32 = 1180.0;

/// Width of the numbers in a presentation.
const NUMBERS: f32 = 790.0;

/// What the bar keeps for itself.
#[derive(Default)]
pub struct FilmBar {
    /// The seed while it is being dragged.
    seed: Option<u64>,
}

impl FilmBar {
    /// Draws the bar for the state at `doses`, with the numbers of `schedule` there.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        state: &AppState,
        schedule: Option<&Schedule>,
        doses: usize,
        out: &mut Vec<UiAction>,
    ) {
        if state.presenting {
            ui.vertical_centered(|ui| {
                let width = NUMBERS.min(ui.available_width());
                ui.allocate_ui_with_layout(vec2(width, 0.0), Layout::left_to_right(Align::Center), |ui| {
                    numbers(ui, state, schedule, doses);
                });
            });
            return;
        }
        let one_row = ui.available_width() >= ONE_ROW;
        if !one_row {
            ui.horizontal(|ui| numbers(ui, state, schedule, doses));
        }
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            transport(ui, state, out);
            if one_row {
                ui.add_space(2.0 * GRID);
                numbers(ui, state, schedule, doses);
            }
            ui.spacing_mut().item_spacing.x = GRID;
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| self.seed(ui, state, out));
        });
    }

    /// The seed is used when the typing or dragging ends, not at each digit.
    fn seed(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        style::button(ui, &UiAction::NewSeed, out);
        let mut seed = self.seed.unwrap_or(state.settings.seed);
        let field = ui.add(DragValue::new(&mut seed).speed(0.1).update_while_editing(false));
        let label = ui.label(RichText::new("Seed").color(style::palette(ui).weak));
        let field =
            field.labelled_by(label.id).on_hover_text("The address of all noise: the same seed gives the same film");
        if field.dragged() {
            self.seed = Some(seed);
        } else {
            self.seed = None;
            if seed != state.settings.seed {
                out.push(UiAction::SetFilm(FilmSettings { seed, ..state.settings.clone() }));
            }
        }
    }
}

fn transport(ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
    let playback = &state.playback;
    let forwards = playback.direction == Direction::ToNoise;
    style::icon_button(ui, Icon::ToStart, &UiAction::ToNoise, false, out);
    style::icon_button(ui, Icon::StepBack, &UiAction::Step(-1), false, out);
    let icon = match (playback.mode, forwards) {
        (Mode::Paused, false) => Icon::Play,
        (Mode::Paused, true) => Icon::PlayBack,
        (Mode::Playing | Mode::Following, _) => Icon::Pause,
    };
    style::icon_button(ui, icon, &UiAction::PlayPause, true, out);
    style::icon_button(ui, Icon::StepOn, &UiAction::Step(1), false, out);
    style::icon_button(ui, Icon::ToEnd, &UiAction::ToImage, false, out);
    ui.add_space(GRID);
    let way = if forwards { "← noise" } else { "→ image" };
    let way = egui::Button::new(way).min_size(vec2(84.0, style::CONTROL));
    let way = ui.add(way).on_hover_text(actions::tooltip(ui.ctx(), &UiAction::Turn));
    if way.clicked() {
        out.push(UiAction::Turn);
    }
    ui.add_space(2.0);
    let repeat = match playback.repeat {
        Repeat::Once => Icon::Once,
        Repeat::Loop => Icon::Loop,
        Repeat::Bounce => Icon::Bounce,
    };
    style::icon_button(ui, repeat, &UiAction::NextRepeat, false, out);
    let menu = ui.menu_button(RichText::new(speed_text(playback.speed)).font(style::mono(style::BODY)), |ui| {
        for speed in SPEEDS {
            if ui.selectable_label(playback.speed == speed, speed_text(speed)).clicked() {
                out.push(UiAction::SetSpeed(speed));
                ui.close();
            }
        }
    });
    menu.response.on_hover_text("Speed: 1× takes ten seconds from noise to image");
}

fn speed_text(speed: f64) -> String {
    format!("{:<5}", format!("{speed}×"))
}

fn numbers(ui: &mut Ui, state: &AppState, schedule: Option<&Schedule>, doses: usize) {
    let text = |f: &dyn Fn(&Schedule) -> Option<String>| schedule.and_then(f).unwrap_or_else(|| "–".into());
    let all = state.playback.steps();
    let steps = schedule.map_or(all, Schedule::steps);
    let doses = axis::along(doses, all, steps);
    let beta = text(&|s| doses.checked_sub(1).and_then(|t| s.betas.get(t)).map(|b| format!("{b:.5}")));
    let signal = text(&|s| Some(format!("{:.4}", s.alpha_bar(doses).sqrt())));
    let noise = text(&|s| Some(format!("{:.4}", (1.0 - s.alpha_bar(doses)).sqrt())));
    let snr = text(&|s| {
        // rounded first, so that nothing is −0.0
        let decibels = (100.0 * s.snr(doses).log10()).round() / 10.0 + 0.0;
        let text = if decibels.is_finite() { format!("{decibels:+.1} dB") } else { "+∞ dB".into() };
        Some(text.replace('-', "−"))
    });
    let large = ui.available_width() > 1300.0 || state.presenting;
    ui.spacing_mut().item_spacing.x = if large && !state.presenting { 40.0 } else { 28.0 };
    let size = if large { style::HUGE } else { style::LARGE };
    let wide = "0".repeat(steps.to_string().len());
    number(
        ui,
        size,
        "t",
        &[Part::Symbol(symbols::TIME)],
        &format!("{doses:>w$} of {steps}", w = wide.len()),
        &format!("{wide} of {wide}"),
    );
    number(ui, size, "beta_t", &[Part::Symbol(symbols::BETA)], &beta, "0.00000");
    number(ui, size, "sqrt(alphas_cumprod_t)", &[Part::RootAlphaBar], &signal, "0.0000");
    number(ui, size, "sqrt(1-alphas_cumprod_t)", &[Part::RootOneMinusAlphaBar], &noise, "0.0000");
    number(ui, size, "Signal-to-noise", &[Part::Text("SNR")], &snr, "−00.0 dB");
}

/// A symbol over its value, right-aligned so that digits stand still.
fn number(ui: &mut Ui, size: f32, spoken: &str, symbol: &[Part], value: &str, sample: &str) {
    let p = style::palette(ui);
    let font = style::mono(size);
    let text = ui.painter().layout_no_wrap(value.to_owned(), font.clone(), p.text);
    let widest = ui.painter().layout_no_wrap(sample.to_owned(), font, p.text).size();
    let caption = 22.0;
    let size = vec2(widest.x.max(text.size().x).max(symbols::width(ui, symbol, style::BODY)), caption + widest.y);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, format!("{spoken} = {value}")));
    let mut top = Rect::from_min_size(rect.min, vec2(rect.width(), caption));
    top.set_left(rect.right() - symbols::width(ui, symbol, style::BODY));
    symbols::paint(ui, symbol, style::BODY, top);
    ui.painter().galley(rect.right_bottom() - vec2(text.size().x, widest.y), text, p.text);
}
