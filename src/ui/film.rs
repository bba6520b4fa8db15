//! The film view: the forward and the reverse process side by side, over one timeline.

use super::actions::{self, PathUse, UiAction, View};
use super::branch_view::BranchView;
use super::canvas::Canvas;
use super::chain;
use super::equations;
use super::film_bar::FilmBar;
use super::film_settings;
use super::noise::NoiseView;
use super::numbers;
use super::pictures::{self, Atlas, Map};
use super::playback::Extent;
use super::schedule::{self, ScheduleView};
use super::state::{AppState, Film, Method, Phase};
use super::step::{Process, StepView};
use super::style::{self, GRID};
use super::symbols::{self, Part, Symbol};
use super::timeline::{Span, Timeline};
use super::tree::ROOT;
use crate::diffusion::Images;
use crate::engine::{self, ForwardSource, JobId, Known, Quantity, Trajectory};
use egui::{
    Align2, Color32, FontId, Panel, Rect, Response, RichText, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder,
    WidgetInfo, vec2,
};

/// Room beside the name of a side from which its direction stands there too, and still leaves all of the badge.
const WAY_FROM: f32 = 620.0;
/// And its name, beside whose picture it is.
const NAME_FROM: f32 = 330.0;
/// Height of the line that names a side.
const HEADING: f32 = 32.0;
/// Height of the room for the pictures from which the chain is shown under them.
const CHAIN_FROM: f32 = 440.0;
/// Height of the equation under a side.
const EQUATION: f32 = 34.0;
/// Width of the room for the button beside it.
const BRING_BACK: f32 = 112.0;
/// Width from which it has room beside the equation.
const BRING_BACK_FROM: f32 = 380.0;

/// What the film view keeps for itself.
#[derive(Default)]
pub struct FilmView {
    timeline: Timeline,
    bar: FilmBar,
    forward: Side,
    reverse: Side,
    /// The picture that is being drawn.
    pub drawing: Option<Canvas>,
    noise: NoiseView,
    schedule: ScheduleView,
    branches: BranchView,
    /// What happens in one step.
    pub step: StepView,
    /// What the reverse side shows.
    pub quantity: Option<Quantity>,
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
        let Some(frame) = film.at(doses) else { return false };
        let key = (*job, frame.doses, quantity);
        if self.holds != Some(key) {
            let Some(images) = film.view(frame, quantity) else { return false };
            let map = map(quantity);
            self.atlas.set(ui, std::iter::once((&images as &Images, images.n, map)));
            self.holds = Some(key);
        }
        true
    }
}

impl FilmView {
    /// What the reverse side shows.
    pub fn quantity(&self) -> Quantity {
        self.quantity.unwrap_or(Quantity::State)
    }

    /// Draws the view.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, view: View, settings_open: bool, out: &mut Vec<UiAction>) {
        let margin = egui::Margin::symmetric(16, 0);
        let bar = egui::Frame::new().inner_margin(margin).fill(style::palette(ui).background);
        let of_forward = view == View::Schedule || view == View::Step && self.step.process == Process::Forward;
        let drawn = of_forward.then(|| schedule::drawn(state)).flatten();
        let span = span(state, self.quantity(), drawn.as_ref());
        let seek = Panel::bottom("timeline")
            .resizable(false)
            .show_separator_line(false)
            .frame(bar.inner_margin(egui::Margin { left: 16, right: 16, top: 4, bottom: 8 }))
            .show(ui, |ui| self.timeline.ui(ui, span, out))
            .inner;
        // what is drawn below shows the state that the pointer has just chosen, not that of the frame before
        let doses = seek.unwrap_or(state.playback.doses());
        out.extend(seek.map(UiAction::Seek));
        Panel::bottom("controls")
            .resizable(false)
            .show_separator_line(true)
            .frame(bar.inner_margin(egui::Margin { left: 16, right: 16, top: 8, bottom: 4 }))
            .show(ui, |ui| self.bar.ui(ui, state, span.schedule, doses, out));
        if view == View::Film && ui.available_height() > CHAIN_FROM && !state.presenting {
            let frame = bar.inner_margin(egui::Margin { left: 16, right: 16, top: 4, bottom: 4 });
            Panel::bottom("chain").resizable(false).show_separator_line(false).frame(frame).show(ui, |ui| {
                let film = state.shown().film.as_ref().map(|(_, film)| film);
                // one that was brought back begins at its picture, which drowned dose by dose
                let film = film.filter(|film| state.begins().is_none() || doses <= film.beginning());
                chain::ui(ui, state.playback.steps(), doses, film, out);
            });
        }
        if settings_open && !state.presenting && view != View::Branches {
            film_settings::panel(ui, state, out);
        }
        let quantity = self.quantity();
        egui::CentralPanel::default().frame(bar).show(ui, |ui| match view {
            View::Noise => {
                let chosen = self.noise.ui(ui, state, doses);
                out.extend(chosen.map(UiAction::NoisePicture));
            }
            View::Schedule => self.schedule.ui(ui, state, doses, out),
            View::Step => self.step.ui(ui, state, doses, out),
            View::Branches => self.branches.ui(ui, state, doses, quantity, out),
            View::Film | View::Race | View::Shared | View::Training | View::Runs | View::Data => {
                self.sides(ui, state, doses, out);
            }
        });
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
        let doses = state.forward_doses(doses);
        heading(ui, "Forward", "data → noise", |ui| {
            let source = match &self.drawing {
                Some(_) => Some("your drawing"),
                None => state.forward.source.as_deref(),
            };
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if !state.presenting {
                    source_menu(ui, state, out);
                }
                data_badge(ui, state, source);
            });
        });
        let area = picture_area(ui);
        if let Some(canvas) = &mut self.drawing {
            out.extend(canvas.ui(ui, area).map(UiAction::Drawn));
            return bring_back(ui, below(ui, area), "Done", &UiAction::ToggleDrawing, out);
        }
        if self.forward.show(ui, state.forward.film.as_ref(), doses, Quantity::State) {
            let spoken = format!("Forward process at t = {doses}");
            grid(ui, &self.forward.atlas, area, p.state, &spoken);
        } else {
            let mut ui = ui.new_child(UiBuilder::new().max_rect(area));
            missing(&mut ui, &state.forward, state, "no picture to drown", out);
        }
        if let Some((_, film)) = &state.forward.film {
            let rest = below(ui, area);
            let room = rest.width() > BRING_BACK_FROM && !state.presenting;
            if doses > 0 && state.settings.schedule.is_none() && room {
                bring_back(ui, rest, "Bring back", &UiAction::BringBack, out);
            }
            equations::forward(ui, rest, film.schedule(), doses);
        }
    }

    fn reverse_side(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        let p = style::palette(ui);
        let quantity = self.quantity();
        heading(ui, "Reverse", "noise → image", |ui| {
            quantity_choice(ui, state, quantity, out);
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if let Some(by) = state.source_at(doses) {
                    let (kind, rest) = whose(by);
                    let calls = if by.oracle.is_some() { "oracle" } else { "network" };
                    let mut says = format!("{}, {rest}, {} {calls} calls per picture", by.model, by.calls);
                    let mut steps = format!("{} {}", by.sampler, by.calls);
                    if let Some(from) = &by.from {
                        says = format!("{says}, from {from}");
                    }
                    if let Some(begins) = state.leaves(doses).or(state.begins()) {
                        steps = format!("{}, t = {begins} → 0", by.sampler);
                    }
                    if state.branches.chosen() != ROOT {
                        says = format!("{says}, branch “{}”", state.branches.name(state.branches.chosen()));
                    }
                    let (long, middle) = (format!("{rest} · {steps}"), format!("{rest} · {}", by.sampler));
                    let [whole, short, weights, none] = ever_shorter(by, rest);
                    let texts = [long, middle, whole, short, weights, none];
                    style::badge_of(ui, kind, &texts.each_ref().map(String::as_str)).on_hover_text(says);
                }
            });
        });
        let (color, name) = symbol(p, quantity);
        let area = picture_area(ui);
        if let Some(begins) = state.begins().filter(|begins| doses > *begins) {
            let mut ui = ui.new_child(UiBuilder::new().max_rect(area));
            let headline = format!("The film begins at t = {begins}");
            let reason =
                "There it was given the noisy picture; “Pure noise” in the settings (F4) starts from noise again";
            let mend = Some(("Go there", UiAction::Seek(begins)));
            return style::placeholder(&mut ui, &headline, reason, mend, out);
        }
        let extent = state.extent();
        if let Some(reached) = extent.reached.filter(|reached| !extent.growing && doses < *reached) {
            let mut ui = ui.new_child(UiBuilder::new().max_rect(area));
            let headline = format!("The film was stopped at t = {reached}");
            let mend = Some(("Go there", UiAction::Seek(reached)));
            return style::placeholder(&mut ui, &headline, "What comes after it was not computed", mend, out);
        }
        if self.reverse.show(ui, state.shown().film.as_ref(), doses, quantity) {
            let spoken = format!("Reverse process, {name} at t = {doses}");
            let pictures = grid(ui, &self.reverse.atlas, area, color, &spoken);
            if quantity == Quantity::PredictedNoise && self.reverse.atlas.is_grey() {
                noise_scale(ui, pictures, area);
            }
        } else {
            let mut ui = ui.new_child(UiBuilder::new().max_rect(area));
            // a frame that holds no prediction is the first, before its network call, or the last
            if state.shown().film.as_ref().is_some_and(|(_, f)| f.at(doses).is_some_and(|frame| frame.doses == 0)) {
                style::placeholder(&mut ui, "The film is over", "At t = 0 nothing is left to predict", None, out);
            } else {
                missing(&mut ui, state.shown(), state, "no film yet", out);
            }
        }
        if let Some((_, film)) = &state.shown().film
            && let Some(frame) = film.at(doses)
        {
            let made = state.made_at(doses);
            let ddim = made.is_some_and(|made| made.method == Method::Ddim);
            let all = made.and_then(|made| made.steps).is_none_or(|steps| steps == film.steps());
            match extent.reached.filter(|reached| extent.growing && doses < *reached) {
                Some(reached) => equations::pending(ui, below(ui, area), reached),
                None => equations::reverse(ui, below(ui, area), frame, ddim, all, state.predicts_at(doses)),
            }
        }
    }
}

/// What the timeline runs over: the film on screen, or the forward film where that is looked at, on the `drawn` schedule.
fn span<'a>(state: &'a AppState, quantity: Quantity, drawn: Option<&'a engine::Schedule>) -> Span<'a> {
    let film = state.shown().film.as_ref().filter(|_| drawn.is_none());
    let film = match (film, &state.forward.film) {
        // thumbnails lie apart, and a change is between neighbours
        (Some((job, film)), _) if quantity == Quantity::Dose => Some((*job, film, Quantity::State)),
        (Some((job, film)), _) => Some((*job, film, quantity)),
        (None, Some((job, film))) => Some((*job, film, Quantity::State)),
        (None, None) => None,
    };
    // a forward film is there as a whole
    let extent = if drawn.is_some() { Extent { reached: Some(0), growing: false } } else { state.extent() };
    Span {
        steps: state.playback.steps(),
        doses: state.playback.doses(),
        begins: state.begins().filter(|_| drawn.is_none()),
        reached: extent.reached,
        growing: extent.growing,
        marks: state.playback.marks(),
        scale: state.scale,
        schedule: drawn.or(film.map(|(_, film, _)| film.schedule().as_ref())),
        film,
        branches: &state.branches,
    }
}

/// The colour around a quantity, and its name.
pub fn symbol(p: &style::Palette, quantity: Quantity) -> (Color32, &'static str) {
    match quantity {
        Quantity::State => (p.state, "x_t"),
        Quantity::PredictedStart => (p.xstart, "predicted x_0"),
        Quantity::PredictedNoise => (p.eps, "predicted noise"),
        Quantity::Dose => (p.noise, "the change of this step"),
    }
}

/// How a quantity is painted.
pub fn map(quantity: Quantity) -> Map {
    match quantity {
        Quantity::State | Quantity::PredictedStart => Map::Picture,
        Quantity::PredictedNoise => Map::Noise,
        Quantity::Dose => Map::Error,
    }
}

/// "MODEL", "step 40,000 EMA"; "ORACLE", "exact oracle of mnist, 60,000 images".
pub fn whose(by: &engine::Provenance) -> (&'static str, String) {
    match &by.oracle {
        Some(Known { data, images: 1 }) => ("ORACLE", format!("exact oracle of {data}, one image")),
        Some(Known { data, images }) => {
            ("ORACLE", format!("exact oracle of {data}, {} images", numbers::thousands(*images as u64)))
        }
        None => {
            let step = by.step.map_or_else(|| by.model.clone(), |s| format!("step {}", numbers::thousands(s)));
            ("MODEL", format!("{step} {}", by.weights()).trim_end().to_owned())
        }
    }
}

/// `rest`, what [`whose`] says of a film, in fewer and fewer words.
fn ever_shorter(by: &engine::Provenance, rest: String) -> [String; 4] {
    let (short, weights) = match &by.oracle {
        Some(known) => (known.data.clone(), String::new()),
        None => (rest.trim_start_matches("step ").to_owned(), by.weights().to_owned()),
    };
    [rest, short, weights, String::new()]
}

/// Whose a film is, as far as there is room.
pub fn badge(ui: &mut Ui, by: &engine::Provenance) -> Response {
    let (kind, rest) = whose(by);
    style::badge_of(ui, kind, &ever_shorter(by, rest).each_ref().map(String::as_str))
}

/// Whose the forward film is.
pub fn data_badge(ui: &mut Ui, state: &AppState, source: Option<&str>) {
    let source = source.unwrap_or("…");
    let other = if state.settings.schedule.is_some() { " · edited schedule" } else { "" };
    style::badge(ui, "DATA", &format!("{source}{other}")).on_hover_text(style::GREY_MAP);
}

fn heading(ui: &mut Ui, name: &str, way: &str, rest: impl FnOnce(&mut Ui)) {
    let size = vec2(ui.available_width(), HEADING);
    ui.spacing_mut().item_spacing.y = 0.0;
    ui.allocate_ui_with_layout(size, egui::Layout::left_to_right(egui::Align::Center), |ui| {
        ui.set_min_size(size);
        ui.spacing_mut().interact_size.y = 28.0;
        if ui.available_width() > NAME_FROM {
            ui.label(RichText::new(name).font(style::semibold(style::LARGE)));
        }
        if ui.available_width() > WAY_FROM {
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

/// A button at the right end of the line under the pictures.
fn bring_back(ui: &mut Ui, line: Rect, label: &str, action: &UiAction, out: &mut Vec<UiAction>) {
    let place = Rect::from_min_max(line.right_top() - vec2(BRING_BACK, 0.0), line.max).shrink2(vec2(0.0, 2.0));
    ui.scope_builder(UiBuilder::new().max_rect(place).id_salt("bring back"), |ui| {
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.spacing_mut().interact_size.y = 28.0;
            style::labelled_button(ui, label, action, false, out);
        });
    });
}

/// The room for the equation under the pictures.
fn below(ui: &Ui, area: Rect) -> Rect {
    Rect::from_min_max(area.left_bottom(), ui.max_rect().max.max(area.left_bottom()))
}

/// Draws the pictures and returns where they stand.
pub fn grid(ui: &Ui, atlas: &Atlas, area: Rect, color: Color32, spoken: &str) -> Rect {
    let grid = pictures::layout(area.shrink(2.0), atlas.count(), atlas.size(), ui.pixels_per_point());
    ui.painter().rect_filled(grid.outer, 0.0, style::MID_GREY);
    for (i, cell) in grid.cells.iter().enumerate() {
        atlas.paint(ui, i, *cell);
    }
    ui.painter().rect_stroke(grid.outer, 0.0, Stroke::new(2.0, color), StrokeKind::Outside);
    let response = ui.interact(grid.outer, ui.scope_id().with("grid"), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, spoken));
    grid.outer
}

/// What the colours of noise mean, beside the pictures where there is room.
fn noise_scale(ui: &Ui, pictures: Rect, area: Rect) {
    let bar = Rect::from_min_size(pictures.right_top() + vec2(GRID, 0.0), vec2(12.0, 120.0));
    if bar.right() + 28.0 > area.right() || bar.bottom() > area.bottom() {
        return;
    }
    let p = style::palette(ui);
    pictures::scale(ui, bar);
    for (y, text) in [(6.0, "+3"), (60.0, "0"), (114.0, "−3")] {
        let at = bar.right_top() + vec2(4.0, y);
        ui.painter().text(at, Align2::LEFT_CENTER, text, FontId::proportional(style::SMALL), p.weak);
    }
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
    let mut draw = false;
    let menu = ui.menu_button("Pictures ⏷", |ui| {
        choose(ui, "From the data set", ForwardSource::Data);
        for (i, name) in engine::photo_names().into_iter().enumerate() {
            choose(ui, &format!("Photo: {name}"), ForwardSource::Photo(i));
        }
        ui.separator();
        let says = actions::tooltip(ui.ctx(), &UiAction::ToggleDrawing);
        draw = ui.button("Draw…").on_hover_text(says).clicked();
        ui.button("Open image…").clicked()
    });
    out.extend(draw.then_some(UiAction::ToggleDrawing));
    if menu.inner == Some(true) {
        out.push(UiAction::AskPath(PathUse::OpenImage));
    }
    menu.response.on_hover_text("What is drowned in noise; an image can also be dropped on the window");
}

/// The choice of what the reverse side shows; before an audience only what is chosen.
pub fn quantity_choice(ui: &mut Ui, state: &AppState, chosen: Quantity, out: &mut Vec<UiAction>) {
    let network = state.predicts_at(state.playback.doses());
    let choices: [(Quantity, Symbol, &str); 4] = [
        (Quantity::State, symbols::STATE, "Show x_t"),
        (Quantity::PredictedStart, symbols::XSTART.by(network), "Show predicted x_0"),
        (Quantity::PredictedNoise, symbols::EPS.by(network), "Show predicted noise"),
        (Quantity::Dose, symbols::DOSE, "Show the change of a step"),
    ];
    ui.spacing_mut().item_spacing.x = 2.0;
    for (quantity, symbol, name) in choices {
        let on = quantity == chosen;
        if state.presenting && !on {
            continue;
        }
        let (rect, response) = ui.allocate_exact_size(vec2(44.0, 28.0), Sense::click());
        response.widget_info(|| WidgetInfo::selected(Role::RadioButton, true, on, name));
        let p = style::palette(ui);
        let fill = if on || response.hovered() { p.hover } else { p.control };
        ui.painter().rect_filled(rect, 4.0, fill);
        if on || response.has_focus() {
            let stroke = Stroke::new(2.0, symbol.color(p));
            ui.painter().rect_stroke(rect, 4.0, stroke, StrokeKind::Inside);
        }
        let inner = Rect::from_min_max(rect.min + vec2(if symbol.has_index() { 13.0 } else { 17.0 }, 0.0), rect.max);
        symbols::paint(ui, &[Part::Symbol(symbol)], 18.0, inner);
        let map = match map(quantity) {
            Map::Picture => style::GREY_MAP,
            Map::Noise => style::NOISE_MAP,
            Map::Error => style::ERROR_MAP,
        };
        let says = super::actions::tooltip(ui.ctx(), &UiAction::Look(quantity));
        let tooltip = format!("{says}\n{}\n{map}", symbol.tooltip);
        if response.on_hover_text(tooltip).clicked() {
            out.push(UiAction::Look(quantity));
        }
    }
}
