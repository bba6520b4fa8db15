//! The film view: the forward and the reverse process side by side, over one timeline.

use super::actions::{PathUse, UiAction};
use super::film_settings;
use super::pictures::{self, Atlas, Map};
use super::playback::{Direction, Mode, Repeat, SPEEDS};
use super::state::{AppState, Film, Phase};
use super::style::{self, GRID, Icon};
use super::symbols::{self, Part, Symbol};
use super::timeline::{Span, Timeline};
use crate::diffusion::Images;
use crate::diffusion::sampler::Coefficients;
use crate::engine::{self, ForwardSource, JobId, Quantity, Schedule, Trajectory, Weights};
use egui::{Color32, Panel, Rect, RichText, Sense, Stroke, StrokeKind, Ui, UiBuilder, WidgetInfo, WidgetType, vec2};

/// Height of the line that names a side.
const HEADING: f32 = 36.0;
/// Height of the equation under a side.
const EQUATION: f32 = 36.0;

/// What the film view keeps for itself.
#[derive(Default)]
pub struct FilmView {
    timeline: Timeline,
    forward: Side,
    reverse: Side,
    /// What the reverse side shows.
    pub quantity: Option<Quantity>,
    /// The seed while it is being typed or dragged.
    seed: Option<u64>,
}

/// The pictures of one side.
#[derive(Default)]
struct Side {
    atlas: Atlas,
    holds: Option<(JobId, usize, Quantity)>,
}

impl Side {
    /// Brings the texture up to date. Returns whether there is something to see.
    fn show(&mut self, ui: &Ui, film: Option<&(JobId, Trajectory)>, doses: usize, quantity: Quantity) -> bool {
        let Some((job, film)) = film else { return false };
        let Some(frame) = frame_at(film, doses) else { return false };
        let key = (*job, frame.doses, quantity);
        if self.holds != Some(key) {
            let Some(images) = film.view(frame, quantity) else { return false };
            let map = if quantity == Quantity::PredictedNoise { Map::Noise } else { Map::Picture };
            self.atlas.set(ui, std::iter::once((&images as &Images, images.n, map)));
            self.holds = Some(key);
        }
        true
    }
}

/// The state to show at `doses`; before a sampler's first timestep, its first state.
fn frame_at(film: &Trajectory, doses: usize) -> Option<&engine::Frame> {
    film.reached()?;
    (0..=doses).rev().find_map(|d| film.at(d)).map(AsRef::as_ref)
}

impl FilmView {
    /// What the reverse side shows.
    pub fn quantity(&self) -> Quantity {
        self.quantity.unwrap_or(Quantity::State)
    }

    /// Draws the view.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, settings_open: bool, out: &mut Vec<UiAction>) {
        if settings_open {
            film_settings::panel(ui, state, out);
        }
        let margin = egui::Margin::symmetric(16, 0);
        let bar = egui::Frame::new().inner_margin(margin).fill(style::palette(ui).background);
        let seek = Panel::bottom("timeline")
            .resizable(false)
            .show_separator_line(false)
            .frame(bar.inner_margin(egui::Margin { left: 16, right: 16, top: 4, bottom: 8 }))
            .show(ui, |ui| self.timeline.ui(ui, span(state, self.quantity())))
            .inner;
        // what is drawn below shows the state that the pointer has just chosen, not that of the frame before
        let doses = seek.unwrap_or(state.playback.doses());
        out.extend(seek.map(UiAction::Seek));
        Panel::bottom("controls")
            .resizable(false)
            .show_separator_line(true)
            .frame(bar.inner_margin(egui::Margin { left: 16, right: 16, top: 8, bottom: 4 }))
            .show(ui, |ui| self.controls(ui, state, doses, out));
        egui::CentralPanel::default().frame(bar).show(ui, |ui| self.sides(ui, state, doses, out));
    }

    fn sides(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        let whole = ui.available_rect_before_wrap();
        let middle = whole.center().x;
        let stroke = Stroke::new(1.0, style::palette(ui).hairline);
        ui.painter().vline(middle, whole.shrink2(vec2(0.0, GRID)).y_range(), stroke);
        let half = |ui: &mut Ui, rect: Rect, draw: &mut dyn FnMut(&mut Ui)| {
            let rect = Rect::from_min_max(rect.min, rect.max.max(rect.min));
            ui.scope_builder(UiBuilder::new().max_rect(rect).id_salt(rect.left() > middle), |ui| draw(ui));
        };
        let (mut left, mut right) = (whole, whole);
        left.set_right((middle - GRID * 1.5).max(whole.left()));
        right.set_left((middle + GRID * 1.5).min(whole.right()));
        half(ui, left, &mut |ui| self.forward_side(ui, state, doses, out));
        half(ui, right, &mut |ui| self.reverse_side(ui, state, doses, out));
    }

    fn forward_side(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        let p = style::palette(ui);
        heading(ui, "Forward", "data → noise", |ui| {
            let source = state.forward.source.as_deref().unwrap_or("…");
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                source_menu(ui, state, out);
                style::badge(ui, "DATA", source, p.text);
            });
        });
        let area = picture_area(ui);
        if self.forward.show(ui, state.forward.film.as_ref(), doses, Quantity::State) {
            let spoken = format!("Forward process at t = {doses}");
            grid(ui, &self.forward.atlas, area, p.state, style::GREY_MAP, &spoken);
        } else {
            let mut ui = ui.new_child(UiBuilder::new().max_rect(area));
            missing(&mut ui, &state.forward, state, "no picture to drown", out);
        }
        ui.advance_cursor_after_rect(area);
        if let Some((_, film)) = &state.forward.film {
            forward_equation(ui, film.schedule(), doses);
        }
    }

    fn reverse_side(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        let p = style::palette(ui);
        let quantity = self.quantity();
        heading(ui, "Reverse", "noise → image", |ui| {
            quantity_choice(ui, quantity, out);
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if let Some(by) = &state.reverse.source {
                    style::badge(ui, "MODEL", &provenance(by), p.text)
                        .on_hover_text(format!("{}, {} network calls per picture", by.model, by.calls));
                }
            });
        });
        let (color, map, name) = match quantity {
            Quantity::State => (p.state, style::GREY_MAP, "x_t"),
            Quantity::PredictedStart => (p.xstart, style::GREY_MAP, "predicted x_0"),
            Quantity::PredictedNoise => (p.eps, style::NOISE_MAP, "predicted noise"),
        };
        let area = picture_area(ui);
        if self.reverse.show(ui, state.reverse.film.as_ref(), doses, quantity) {
            let spoken = format!("Reverse process, {name} at t = {doses}");
            grid(ui, &self.reverse.atlas, area, color, map, &spoken);
        } else {
            let mut ui = ui.new_child(UiBuilder::new().max_rect(area));
            if state.reverse.film.as_ref().is_some_and(|(_, f)| !f.is_empty()) {
                style::placeholder(&mut ui, "The film is over", "At t = 0 nothing is left to predict", None, out);
            } else {
                missing(&mut ui, &state.reverse, state, "no film yet", out);
            }
        }
        ui.advance_cursor_after_rect(area);
        if let Some((_, film)) = &state.reverse.film {
            let ddim = state.reverse.source.as_ref().is_some_and(|s| s.sampler == "DDIM");
            let all = state.reverse.source.as_ref().is_none_or(|s| s.calls == film.steps());
            reverse_equation(ui, film, doses, ddim, all);
        }
    }

    fn controls(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            transport(ui, state, out);
            ui.add_space(2.0 * GRID);
            ui.spacing_mut().item_spacing.x = if ui.available_width() > 780.0 { 28.0 } else { 14.0 };
            numbers(ui, state, doses);
            ui.spacing_mut().item_spacing.x = GRID;
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| self.seed(ui, state, out));
        });
    }

    /// The seed is used when the typing or dragging ends, not at each digit.
    fn seed(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        style::button(ui, &UiAction::NewSeed, out);
        let mut seed = self.seed.unwrap_or(state.settings.seed);
        let field = ui.add(egui::DragValue::new(&mut seed).speed(0.1).update_while_editing(false));
        let label = ui.label(RichText::new("Seed").color(style::palette(ui).weak));
        let field =
            field.labelled_by(label.id).on_hover_text("The address of all noise: the same seed gives the same film");
        if field.dragged() {
            self.seed = Some(seed);
        } else {
            self.seed = None;
            if seed != state.settings.seed {
                out.push(UiAction::SetFilm(super::state::FilmSettings { seed, ..state.settings.clone() }));
            }
        }
    }
}

fn span(state: &AppState, quantity: Quantity) -> Span<'_> {
    let extent = state.extent();
    let film = match (&state.reverse.film, &state.forward.film) {
        (Some((job, film)), _) => Some((*job, film, quantity)),
        (None, Some((job, film))) => Some((*job, film, Quantity::State)),
        (None, None) => None,
    };
    Span {
        steps: state.playback.steps(),
        doses: state.playback.doses(),
        reached: extent.reached,
        growing: extent.growing,
        film,
    }
}

/// "step 40,000 EMA · DDPM 1000".
fn provenance(by: &engine::Provenance) -> String {
    let weights = match by.weights {
        Weights::Ema => "EMA",
        Weights::Raw => "raw",
    };
    let step = by.step.map_or_else(|| by.model.clone(), |s| format!("step {}", style::thousands(s)));
    format!("{step} {weights} · {} {}", by.sampler, by.calls)
}

fn heading(ui: &mut Ui, name: &str, way: &str, rest: impl FnOnce(&mut Ui)) {
    let size = vec2(ui.available_width(), HEADING);
    ui.allocate_ui_with_layout(size, egui::Layout::left_to_right(egui::Align::Center), |ui| {
        ui.set_min_size(size);
        ui.label(RichText::new(name).font(style::semibold(style::LARGE)));
        if ui.available_width() > 420.0 {
            ui.label(RichText::new(way).color(style::palette(ui).weak));
        }
        rest(ui);
    });
}

fn picture_area(ui: &Ui) -> Rect {
    let mut area = ui.available_rect_before_wrap();
    area.set_bottom((area.bottom() - EQUATION).max(area.top()));
    area
}

fn grid(ui: &Ui, atlas: &Atlas, area: Rect, color: Color32, map: &str, spoken: &str) {
    let grid = pictures::layout(area.shrink(2.0), atlas.count(), atlas.size(), ui.pixels_per_point());
    ui.painter().rect_filled(grid.outer, 0.0, style::MID_GREY);
    for (i, cell) in grid.cells.iter().enumerate() {
        atlas.paint(ui, i, *cell, false);
    }
    ui.painter().rect_stroke(grid.outer, 0.0, Stroke::new(2.0, color), StrokeKind::Outside);
    let response = ui.interact(grid.outer, ui.id().with("grid"), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Image, true, spoken));
    response.on_hover_text_at_pointer(map);
}

fn missing<T>(ui: &mut Ui, film: &Film<T>, state: &AppState, what: &str, out: &mut Vec<UiAction>) {
    let (headline, reason, mend) = match &film.phase {
        Phase::Failed(e) => ("This film failed", e.to_string(), Some(("Try again", UiAction::Restart))),
        Phase::Busy => ("Computing", "The first picture comes in a moment".to_owned(), None),
        Phase::Stopped => ("Stopped", format!("There is {what}"), Some(("Start again", UiAction::Restart))),
        Phase::Idle | Phase::Done if state.model.is_none() => (
            "No model",
            format!("There is {what}, for no model is loaded"),
            Some(("Open model…", UiAction::AskPath(PathUse::OpenModel))),
        ),
        Phase::Idle | Phase::Done => ("Nothing here", format!("There is {what}"), Some(("Start", UiAction::Restart))),
    };
    style::placeholder(ui, headline, &reason, mend, out);
}

fn source_menu(ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
    let mut choose = |ui: &mut Ui, label: &str, source: ForwardSource| {
        let chosen = state.settings.source == source;
        if ui.selectable_label(chosen, label).clicked() {
            out.push(UiAction::SetFilm(super::state::FilmSettings { source, ..state.settings.clone() }));
            ui.close();
        }
    };
    let menu = ui.menu_button("Pictures ⏷", |ui| {
        choose(ui, "From the data set", ForwardSource::Data);
        for (i, name) in engine::photo_names().into_iter().enumerate() {
            choose(ui, &format!("Photo: {name}"), ForwardSource::Photo(i));
        }
        ui.separator();
        ui.button("Open image…").clicked()
    });
    if menu.inner == Some(true) {
        out.push(UiAction::AskPath(PathUse::OpenImage));
    }
    menu.response.on_hover_text("What is drowned in noise; an image can also be dropped on the window");
}

fn quantity_choice(ui: &mut Ui, chosen: Quantity, out: &mut Vec<UiAction>) {
    let choices: [(Quantity, Symbol, &str); 3] = [
        (Quantity::State, symbols::STATE, "Show x_t"),
        (Quantity::PredictedStart, symbols::XSTART, "Show predicted x_0"),
        (Quantity::PredictedNoise, symbols::EPS, "Show predicted noise"),
    ];
    ui.spacing_mut().item_spacing.x = 2.0;
    for (quantity, symbol, name) in choices {
        let on = quantity == chosen;
        let (rect, response) = ui.allocate_exact_size(vec2(44.0, 30.0), Sense::click());
        response.widget_info(|| WidgetInfo::selected(WidgetType::RadioButton, true, on, name));
        let p = style::palette(ui);
        let fill = if on || response.hovered() { p.hover } else { p.control };
        ui.painter().rect_filled(rect, 4.0, fill);
        if on || response.has_focus() {
            let stroke = Stroke::new(2.0, symbol.color(p));
            ui.painter().rect_stroke(rect, 4.0, stroke, StrokeKind::Inside);
        }
        let inner = Rect::from_min_max(rect.min + vec2(if symbol.has_index() { 13.0 } else { 17.0 }, 0.0), rect.max);
        symbols::paint(ui, &[Part::Symbol(symbol)], 18.0, inner);
        let tooltip = format!("{}\n{}", super::actions::tooltip(ui.ctx(), &UiAction::Look(quantity)), symbol.tooltip);
        if response.on_hover_text(tooltip).clicked() {
            out.push(UiAction::Look(quantity));
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
    let way = ui.add(way).on_hover_text(super::actions::tooltip(ui.ctx(), &UiAction::Turn));
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

fn numbers(ui: &mut Ui, state: &AppState, doses: usize) {
    let film = state.reverse.film.as_ref().or(state.forward.film.as_ref());
    let schedule = film.map(|(_, f)| f.schedule());
    let text = |f: &dyn Fn(&Schedule) -> Option<String>| schedule.and_then(|s| f(s)).unwrap_or_else(|| "–".into());
    let steps = state.playback.steps();
    let beta = text(&|s| doses.checked_sub(1).and_then(|t| s.betas.get(t)).map(|b| format!("{b:.5}")));
    let signal = text(&|s| Some(format!("{:.4}", s.alpha_bar(doses).sqrt())));
    let noise = text(&|s| Some(format!("{:.4}", (1.0 - s.alpha_bar(doses)).sqrt())));
    let snr = text(&|s| {
        let decibels = 10.0 * s.snr(doses).log10();
        Some(if decibels.is_finite() { format!("{decibels:+.1} dB") } else { "∞ dB".into() }.replace('-', "−"))
    });
    let wide = "0".repeat(steps.to_string().len());
    number(
        ui,
        "t",
        &[Part::Symbol(symbols::TIME)],
        &format!("{doses:>w$} of {steps}", w = wide.len()),
        &format!("{wide} of {wide}"),
    );
    number(ui, "beta_t", &[Part::Symbol(symbols::BETA)], &beta, "0.00000");
    number(ui, "sqrt(alphas_cumprod_t)", &[Part::RootAlphaBar], &signal, "0.0000");
    number(ui, "sqrt(1-alphas_cumprod_t)", &[Part::RootOneMinusAlphaBar], &noise, "0.0000");
    number(ui, "Signal-to-noise", &[Part::Text("SNR")], &snr, "−00.0 dB");
}

/// A symbol over its value, right-aligned so that digits stand still.
fn number(ui: &mut Ui, spoken: &str, symbol: &[Part], value: &str, sample: &str) {
    let p = style::palette(ui);
    let font = style::mono(style::LARGE);
    let text = ui.painter().layout_no_wrap(value.to_owned(), font.clone(), p.text);
    let widest = ui.painter().layout_no_wrap(sample.to_owned(), font, p.text).size();
    let caption = 22.0;
    let size = vec2(widest.x.max(text.size().x), caption + widest.y);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Label, true, format!("{spoken} = {value}")));
    let top = Rect::from_min_size(rect.min, vec2(rect.width(), caption));
    symbols::paint(ui, symbol, style::BODY, top);
    ui.painter().galley(rect.left_bottom() - vec2(0.0, widest.y), text, p.text);
}

fn forward_equation(ui: &mut Ui, schedule: &Schedule, doses: usize) {
    let beta = doses.checked_sub(1).and_then(|t| schedule.betas.get(t));
    let number = |v: Option<f64>| Part::Number(v.map_or_else(|| "   –  ".into(), |v| format!("{v:.4} ")));
    equation(
        ui,
        "The step of the forward process",
        &[
            Part::Symbol(symbols::STATE),
            Part::Text(" = "),
            number(beta.map(|b| (1.0 - b).sqrt())),
            Part::Symbol(symbols::PREVIOUS),
            Part::Text(" + "),
            number(beta.map(|b| b.sqrt())),
            Part::Symbol(symbols::NOISE),
        ],
    );
}

fn reverse_equation(ui: &mut Ui, film: &Trajectory, doses: usize, ddim: bool, all: bool) {
    let step = frame_at(film, doses).and_then(engine::Frame::step);
    let number =
        |v: fn(&Coefficients) -> f64| Part::Number(step.map_or_else(|| "   –  ".into(), |c| format!("{:.4} ", v(&c))));
    let mut parts = vec![Part::Symbol(if all { symbols::PREVIOUS } else { symbols::NEXT_KEPT }), Part::Text(" = ")];
    if !ddim {
        parts.extend([number(|c| c.x_t), Part::Symbol(symbols::STATE), Part::Text(" + ")]);
    }
    parts.extend([number(|c| c.xstart), Part::Symbol(symbols::XSTART), Part::Text(" + ")]);
    if ddim {
        parts.extend([number(|c| c.eps), Part::Symbol(symbols::EPS), Part::Text(" + ")]);
    }
    parts.extend([number(|c| c.noise), Part::Symbol(symbols::NOISE)]);
    equation(ui, "The step of the reverse process", &parts);
}

fn equation(ui: &mut Ui, spoken: &str, parts: &[Part]) {
    let size = if ui.available_width() > 520.0 { style::LARGE } else { style::BODY };
    ui.vertical_centered(|ui| symbols::formula(ui, parts, size, spoken));
}
