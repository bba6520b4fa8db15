//! What happens in one step: its equation as pictures that add up, the algorithm line by line, and one pixel's history.

use super::actions::UiAction;
use super::algorithm::{self, Algorithm};
use super::film;
use super::pictures::{Atlas, Map};
use super::pixel::{self, PixelView};
use super::state::AppState;
use super::style::{self, GRID};
use super::symbols::{self, Part, Symbol};
use super::weights::WeightsView;
use crate::diffusion::Images;
use crate::diffusion::noise::{self, Purpose};
use crate::diffusion::terms::{self, Factor, Form, Term};
use crate::engine::{JobId, PredictionType, Quantity, SamplerKind, Spacing, Trajectory};
use egui::{
    Align, Align2, DragValue, FontId, Layout, Rect, Response, RichText, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder,
    WidgetInfo, pos2, vec2,
};

/// Width of the sign and the weight between two pictures.
const WEIGHT: f32 = 88.0;
const CAPTION: f32 = 30.0;
/// Height of a product, as a share of its picture.
const PRODUCT: f32 = 0.4;
const VALUE: f32 = 20.0;
/// Share of the width that the algorithm takes, and the most that it takes.
const LISTING: f32 = 0.38;
const LISTING_LEAST: f32 = 400.0;
const LISTING_WIDEST: f32 = 620.0;
const LISTING_HEIGHT: f32 = 240.0;
/// Share of the rest that the pixel takes.
const PROBE: f32 = 0.55;
/// Width from which the weights have room beside it.
const WEIGHTS_FROM: f32 = 560.0;

/// Which way the step goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Process {
    /// Towards the picture.
    #[default]
    Reverse,
    /// Towards noise.
    Forward,
}

impl Process {
    /// Its film, and the state of it that stands at `doses` of the timeline.
    pub(super) fn film(self, state: &AppState, doses: usize) -> (Option<&(JobId, Trajectory)>, usize) {
        match self {
            Self::Reverse => (state.shown().film.as_ref(), doses),
            Self::Forward => (state.forward.film.as_ref(), state.forward_doses(doses)),
        }
    }
}

/// A picture as the sum of others.
pub struct Equation {
    /// The sum.
    pub result: Images,
    symbol: Symbol,
    /// What is added up.
    pub terms: Vec<Term>,
    /// How well that agrees, in words.
    note: String,
    /// Whether its ε̂ is that of a clipped x̂_0.
    pub clipped: bool,
}

/// What the equations on screen were made from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    job: JobId,
    doses: usize,
    /// The state of the film that is there for it.
    held: Option<usize>,
    frames: usize,
    picture: usize,
    process: Process,
    form: Form,
}

/// The view of one step.
#[derive(Default)]
pub struct StepView {
    /// The side that is taken apart.
    pub process: Process,
    form: Option<Form>,
    picture: usize,
    /// The factor under the pointer in the last frame.
    lit: Option<Factor>,
    atlas: Atlas,
    holds: Option<Key>,
    equations: Vec<Equation>,
    algorithm: Algorithm,
    pixel: PixelView,
    weights: WeightsView,
    /// Whether the algorithm is to go to its next line.
    pub advance: bool,
}

impl StepView {
    /// Draws the step that leaves the state at `doses`, or on the forward side the one that led to it.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        let kind = state.made_at(doses).map(|made| made.sample_request().sampler);
        let own = if matches!(kind, Some(SamplerKind::Ddim { .. })) { Form::Ddim } else { Form::Posterior };
        self.header(ui, state, doses, own);
        let form = self.form.unwrap_or(own);
        self.update(ui, state, doses, form);
        let advance = std::mem::take(&mut self.advance);
        let mut lit = None;
        let area = ui.available_rect_before_wrap();
        let (mut top, mut bottom) = (area, area);
        top.set_bottom(area.top() + (area.height() - LISTING_HEIGHT).clamp(area.height() * 0.5, area.height() * 0.65));
        bottom.set_top(top.bottom() + GRID);
        if self.equations.is_empty() {
            let (headline, why) = self.nothing(state, doses);
            ui.scope_builder(UiBuilder::new().max_rect(top), |ui| style::placeholder(ui, headline, why, None, out));
        }
        let count = self.equations.len().max(1) as f32;
        let network = state.predicts_at(doses);
        for i in 0..self.equations.len() {
            let width = (top.width() - (count - 1.0) * 3.0 * GRID) / count;
            let left = top.left() + i as f32 * (width + 3.0 * GRID);
            let place = Rect::from_min_size(pos2(left, top.top()), vec2(width, top.height()));
            lit = self.strip(ui, place, i, network).or(lit);
        }
        let (mut left, mut right) = (bottom, bottom);
        left.set_right(
            bottom.left() + (bottom.width() * LISTING).clamp(LISTING_LEAST.min(bottom.width()), LISTING_WIDEST),
        );
        right.set_left(left.right() + 2.0 * GRID);
        let lines = match self.process {
            Process::Reverse => algorithm::sampling(state, doses, form, self.equations.first()),
            Process::Forward => algorithm::training(state, state.forward_doses(doses), self.equations.get(1)),
        };
        let mut go = None;
        ui.scope_builder(UiBuilder::new().max_rect(left).id_salt("algorithm"), |ui| {
            lit = self.algorithm.ui(ui, &lines, self.lit, advance, &mut go, out).or(lit);
        });
        if let Some(target) = go.and_then(|go| algorithm::target(go, state, doses)) {
            out.push(UiAction::Seek(target));
        }
        let mut probe = right;
        if right.width() > WEIGHTS_FROM {
            probe.set_right(right.left() + right.width() * PROBE - GRID);
            let mut weights = right;
            weights.set_left(probe.right() + 2.0 * GRID);
            ui.scope_builder(UiBuilder::new().max_rect(weights).id_salt("weights"), |ui| {
                self.weights.ui(ui, state, self.process, form, doses, self.lit);
            });
        }
        ui.scope_builder(UiBuilder::new().max_rect(probe).id_salt("probe"), |ui| {
            self.pixel.ui(ui, state, self.process, self.picture, doses, self.lit);
        });
        if lit != self.lit {
            self.lit = lit;
            ui.ctx().request_repaint_after(std::time::Duration::from_millis(1));
        }
    }

    fn header(&mut self, ui: &mut Ui, state: &AppState, doses: usize, own: Form) {
        ui.horizontal(|ui| {
            ui.set_min_height(36.0);
            ui.label(RichText::new("One step").font(style::semibold(style::LARGE)));
            let ways = [
                (Process::Reverse, "Reverse", "The step that the sampler takes from the playhead"),
                (Process::Forward, "Forward", "The dose of noise that led to the playhead"),
            ];
            style::segments(ui, &ways, &mut self.process);
            if self.process == Process::Reverse {
                let forms = [
                    (Form::Posterior, "In x̂_0", "DDPM's step in x_t and x̂_0 (Ho et al. 2020, Eq. 7)"),
                    (Form::Epsilon, "In ε̂", "DDPM's step in x_t and ε̂ (Ho et al. 2020, Algorithm 2)"),
                    (Form::Ddim, "DDIM", "DDIM's step (Song et al. 2020, Eq. 12)"),
                ];
                let mut form = self.form.unwrap_or(own);
                if style::segments(ui, &forms, &mut form) {
                    self.form = Some(form);
                }
            }
            let n = self.process.film(state, doses).0.map_or(1, |(_, film)| film.n());
            self.picture = self.picture.min(n - 1);
            let label = ui.label("Picture");
            let mut number = self.picture + 1;
            ui.add(DragValue::new(&mut number).range(1..=n).speed(0.05).suffix(format!(" of {n}")))
                .labelled_by(label.id)
                .on_hover_text("Which of the pictures is taken apart");
            self.picture = number - 1;
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| match self.process {
                Process::Forward => film::data_badge(ui, state, state.forward.source.as_deref()),
                Process::Reverse => {
                    if let Some(by) = state.source_at(doses) {
                        film::badge(ui, by);
                    }
                }
            });
        });
    }

    /// Why there is no step to show.
    fn nothing(&self, state: &AppState, doses: usize) -> (&'static str, &'static str) {
        match (self.process, doses) {
            (Process::Reverse, 0) => ("The film is over", "At t = 0 no step is left"),
            (Process::Forward, 0) => ("The data itself", "At t = 0 no dose of noise has been given"),
            _ if state.extent().growing => ("Computing", "This step comes in a moment"),
            _ => ("No step here", "The film keeps no step at this timestep; go to one that it keeps"),
        }
    }

    fn update(&mut self, ui: &Ui, state: &AppState, doses: usize, form: Form) {
        let (Some((job, film)), at) = self.process.film(state, doses) else { return self.equations.clear() };
        let (frames, held) = (film.len(), film.at(at).map(|frame| frame.doses));
        let key = Key { job: *job, doses, held, frames, picture: self.picture, process: self.process, form };
        if self.holds == Some(key) {
            return;
        }
        self.holds = Some(key);
        self.equations = match self.process {
            Process::Reverse => reverse(state, doses, self.picture, form).into_iter().collect(),
            Process::Forward => forward(state, doses, self.picture).unwrap_or_default(),
        };
        let all: Vec<(Images, Map)> = self
            .equations
            .iter()
            .flat_map(|e| {
                let terms =
                    e.terms.iter().flat_map(|t| [(t.images.clone(), map(t.factor)), (t.product(), map(t.factor))]);
                std::iter::once((e.result.clone(), Map::Picture)).chain(terms)
            })
            .collect();
        self.atlas.set(ui, all.iter().map(|(images, map)| (images, 1, *map)));
    }

    /// Draws an equation as pictures. Returns the factor under the pointer.
    fn strip(&mut self, ui: &Ui, area: Rect, number: usize, network: Option<PredictionType>) -> Option<Factor> {
        let first: usize = self.equations[..number].iter().map(|e| 1 + 2 * e.terms.len()).sum();
        let equation = &self.equations[number];
        let count = equation.terms.len() as f32;
        let [w, h] = self.atlas.size().map(|v| v.max(1) as f32);
        let room = vec2(
            (area.width() - count * WEIGHT) / (count + 1.0),
            (area.height() - CAPTION - VALUE - GRID) / (1.0 + PRODUCT),
        );
        let whole = |side: f32, pixels: f32| {
            let ppp = ui.pixels_per_point();
            let scale = side * ppp / pixels;
            (if scale >= 1.0 { scale.floor() } else { scale.max(0.1) }) / ppp
        };
        let scale = whole(room.x, w).min(whole(room.y, h));
        let side = vec2(w, h) * scale;
        let small = vec2(w, h) * whole(side.y * PRODUCT, h);
        let total = (count + 1.0) * side.x + count * WEIGHT;
        let (mut x, y) = ((area.center().x - total / 2.0).max(area.left()), area.top() + CAPTION);
        let p = style::palette(ui);
        let mut lit = None;
        let pixel = self.pixel.pixel(self.atlas.size());
        let value = |images: &Images| format!("{:+.3}", PixelView::of(images, pixel)).replace('-', "−");
        let mut picked = None;
        let mut place = |i: usize, at: f32, symbol: &Symbol, name: &str, images: &Images, lit: bool| -> Response {
            let rect = Rect::from_min_size(pos2(at, y).round(), side);
            self.atlas.paint(ui, i, rect);
            let stroke = Stroke::new(if lit { 4.0 } else { 2.0 }, symbol.color(p));
            ui.painter().rect_stroke(rect, 0.0, stroke, StrokeKind::Outside);
            let part = [Part::Symbol(*symbol)];
            let width = symbols::width(ui, &part, style::LARGE);
            let caption =
                Rect::from_min_size(pos2(rect.center().x - width / 2.0, area.top()), vec2(width, CAPTION - 10.0));
            symbols::write(ui, &part, style::LARGE, caption);
            let cell =
                Rect::from_min_size(rect.min + vec2(pixel[0] as f32, pixel[1] as f32) * scale, vec2(scale, scale));
            ui.painter().rect_stroke(cell, 0.0, Stroke::new(2.0, p.warning), StrokeKind::Outside);
            let response = ui.interact(rect, ui.scope_id().with(("factor", i)), Sense::click());
            response.widget_info(|| WidgetInfo::labeled(Role::Image, true, name));
            if let Some(at) = response.interact_pointer_pos().or(response.hover_pos()) {
                let at = (at - rect.min) / scale;
                let under = [at.x, at.y].map(|v| v.max(0.0) as usize);
                if response.clicked() {
                    picked = Some(under);
                }
                let said = format!(
                    "{}\n{}: {:+.3}",
                    symbol.tooltip,
                    pixel::name(under, images.c),
                    PixelView::of(images, under)
                );
                return response.on_hover_text(said);
            }
            response
        };
        let name =
            if self.process == Process::Reverse { "The state after the step" } else { "The state at the playhead" };
        place(first, x, &equation.symbol, name, &equation.result, false);
        let under = y + side.y + GRID;
        let write = |at: egui::Pos2, text: String, font: FontId| {
            ui.painter().text(at, Align2::CENTER_TOP, text, font, p.text);
        };
        // the note reaches under the first weight
        let width = side.x + WEIGHT - GRID;
        let note = ui.painter().layout(equation.note.clone(), FontId::proportional(style::SMALL), p.weak, width);
        let fits = note.size().y <= area.bottom() - VALUE - under;
        let last = under + small.y.max(if fits { note.size().y } else { 0.0 }) + 2.0;
        write(pos2(x + side.x / 2.0, last), value(&equation.result), style::mono(style::SMALL));
        let note_rect = Rect::from_min_size(pos2(x, under), note.size());
        if fits {
            ui.painter().galley(note_rect.min, note, p.weak);
        }
        ui.interact(note_rect, ui.scope_id().with(("note", number)), Sense::hover())
            .widget_info(|| WidgetInfo::labeled(Role::Label, true, &equation.note));
        x += side.x;
        for (k, term) in equation.terms.iter().enumerate() {
            let sign = match (k, term.weight < 0.0) {
                (0, false) => "=",
                (0, true) => "= −",
                (_, false) => "+",
                (_, true) => "−",
            };
            let weight = format!("{sign} {:.4}", term.weight.abs());
            let middle = pos2(x + WEIGHT / 2.0, y + side.y / 2.0);
            ui.painter().text(middle, Align2::CENTER_CENTER, &weight, style::mono(style::BODY), p.text);
            let spoken = Rect::from_center_size(middle, vec2(WEIGHT, 20.0));
            ui.interact(spoken, ui.scope_id().with(("weight", number, k)), Sense::hover())
                .widget_info(|| WidgetInfo::labeled(Role::Label, true, format!("Weight {weight}")));
            x += WEIGHT;
            let symbol = match term.factor {
                Factor::Noise if equation.clipped => symbols::CLIPPED_EPS,
                factor => symbol(factor, self.process).by(network),
            };
            let i = first + 1 + 2 * k;
            let on = self.lit == Some(term.factor);
            if place(i, x, &symbol, factor_name(term.factor), &term.images, on).hovered() {
                lit = Some(term.factor);
            }
            let product = Rect::from_min_size(pos2(x + (side.x - small.x) / 2.0, under).round(), small);
            self.atlas.paint(ui, i + 1, product);
            ui.painter().rect_stroke(product, 0.0, Stroke::new(1.0, symbol.color(p)), StrokeKind::Outside);
            write(pos2(x + side.x / 2.0, last), value(&term.product()), style::mono(style::SMALL));
            x += side.x;
        }
        if let Some(pixel) = picked {
            self.pixel.choose(pixel);
        }
        lit
    }
}

fn map(factor: Factor) -> Map {
    match factor {
        Factor::Noise | Factor::Fresh => Map::Noise,
        Factor::Start | Factor::Previous | Factor::State | Factor::PredictedStart => Map::Picture,
    }
}

/// The symbol of a factor, in the one colour of its picture and its curve.
pub fn symbol(factor: Factor, process: Process) -> Symbol {
    match (factor, process) {
        (Factor::Start, _) => symbols::START,
        (Factor::Previous, _) => symbols::PREVIOUS,
        (Factor::State, _) => symbols::STATE,
        (Factor::PredictedStart, _) => symbols::XSTART,
        (Factor::Noise, Process::Reverse) => symbols::EPS,
        (Factor::Noise, Process::Forward) => symbols::JUMP_EPS,
        (Factor::Fresh, _) => symbols::NOISE,
    }
}

fn factor_name(factor: Factor) -> &'static str {
    match factor {
        Factor::Start => "The data",
        Factor::Previous => "The state before the dose",
        Factor::State => "The state at the playhead",
        Factor::PredictedStart => "Predicted x_0",
        Factor::Noise => "The noise",
        Factor::Fresh => "Fresh noise",
    }
}

/// The reverse step from `doses`, if the film holds it.
fn reverse(state: &AppState, doses: usize, picture: usize, form: Form) -> Option<Equation> {
    let (_, film) = state.shown().film.as_ref()?;
    let made = state.made_at(doses)?;
    let frame = film.at(doses)?;
    let extent = state.extent();
    if frame.step().is_none() || extent.growing && extent.reached.is_some_and(|reached| doses < reached) {
        return None;
    }
    let steps = made.steps.unwrap_or(film.steps());
    let schedule = film.schedule().spaced(steps, Spacing::Leading).ok()?;
    let i = (0..schedule.steps()).find(|i| schedule.doses(*i) == frame.doses)?;
    let [x_t, xstart, eps] = [Quantity::State, Quantity::PredictedStart, Quantity::PredictedNoise]
        .map(|quantity| Some(film.view(frame, quantity)?.picture(picture)));
    let (x_t, xstart, eps) = (x_t?, xstart?, eps?);
    let index = [picture as u64, schedule.timesteps[i] as u64];
    let z = noise::normal(made.seed, Purpose::Step, index, x_t.data.len());
    let z = Images { data: z, ..x_t };
    let kind = made.sample_request().sampler;
    let step = terms::Step { schedule: &schedule, i, kind, x_t: &x_t, xstart: &xstart, eps: &eps, z: &z };
    let terms = terms::reverse(&step, form);
    let result = terms::sum(&terms)?;
    let next = i.checked_sub(1).map_or(0, |i| schedule.doses(i));
    let kept = film.at(next).filter(|f| f.doses == next).and_then(|f| film.view(f, Quantity::State));
    let note = match (form.is_own(kind), kept) {
        (true, Some(kept)) => {
            let apart = terms::largest_difference(&kept.picture(picture), &result);
            format!("the film's state at t = {next}, to within {apart:.4}")
        }
        (true, None) => format!("the film's state at t = {next}, which it does not keep"),
        (false, _) if form == Form::Ddim => format!("where DDIM with η = 0 would go, to t = {next}"),
        (false, _) => format!("where DDPM would go, to t = {next}"),
    };
    let symbol = if steps == film.steps() { symbols::PREVIOUS } else { symbols::NEXT_KEPT };
    Some(Equation { result, symbol, terms, note, clipped: made.clip && form == Form::Epsilon })
}

/// The dose that led to the state at `doses`, and the jump from the data to it.
fn forward(state: &AppState, doses: usize, picture: usize) -> Option<Vec<Equation>> {
    let (_, film) = state.forward.film.as_ref()?;
    let made = state.forward.made.as_ref()?;
    let doses = state.forward_doses(doses);
    let t = doses.checked_sub(1)?;
    let at = |doses: usize| {
        let frame = film.at(doses).filter(|f| f.doses == doses)?;
        Some(film.view(frame, Quantity::State)?.picture(picture))
    };
    let (x_start, x_prev, x_t) = (at(0)?, at(t)?, at(doses)?);
    let z = noise::normal(made.seed, Purpose::Chain, [picture as u64, t as u64], x_t.data.len());
    let z = Images { data: z, ..x_t };
    let chained = terms::dose(film.schedule(), doses, &x_prev, &z);
    let jumped = terms::jump(film.schedule(), doses, &x_start, &x_t);
    let (dose, jump) = (terms::sum(&chained)?, terms::sum(&jumped)?);
    let apart = terms::largest_difference(&dose, &jump);
    let [mean, sd] = jumped.get(1).map(|noise| terms::moments(&noise.images))?;
    let words = format!("one dose more; the jump agrees to within {apart:.4}");
    let noise = format!("in one jump; ε: mean {mean:.2}, standard deviation {sd:.2}").replace('-', "−");
    let equation = |result, terms, note| Equation { result, symbol: symbols::STATE, terms, note, clipped: false };
    Some(vec![equation(dose, chained, words), equation(jump, jumped, noise)])
}
