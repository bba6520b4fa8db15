//! The noise view: the ε that was mixed into a picture, the ε̂ that the network finds there, and the oracle's.

use super::film::whose;
use super::pictures::{Atlas, Map};
use super::state::{AppState, FilmSettings};
use super::style::{self, GRID};
use super::symbols::{self, Part, Symbol};
use crate::engine::{Command, CompareRequest, Comparison, JobId, Outcome, Prediction, Predictor};
use egui::{Align2, FontId, Rect, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder, Vec2b, WidgetInfo, pos2, vec2};
use egui_plot::{Line, PlotPoint, PlotPoints, Points, VLine};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Height of the line over three pictures.
const HEADER: f32 = 32.0;
/// Height of the formula under a picture.
const CAPTION: f32 = 28.0;
/// Between pictures.
const GAP: f32 = 3.0 * GRID;

/// Pictures that can be chosen.
const MOST_CHOICES: usize = 16;

/// What the noise view knows.
#[derive(Clone, Debug, Default)]
pub struct Noise {
    /// Which of the forward film's pictures.
    pub picture: usize,
    /// The newest request, answered or not.
    asked: Option<CompareRequest>,
    /// Its job, until that is over.
    job: Option<JobId>,
    shown: Option<Arc<Comparison>>,
    /// Losses of the network and the oracle at the states that were looked at.
    losses: BTreeMap<usize, [f64; 2]>,
}

impl Noise {
    /// Takes in an answer; one to an old question is dropped.
    pub fn compared(&mut self, job: JobId, comparison: Arc<Comparison>) {
        if self.job == Some(job) {
            // a line joins losses of the same weights only
            if self.shown.as_ref().is_some_and(|shown| shown.predicted.by.step != comparison.predicted.by.step) {
                self.losses.clear();
            }
            self.losses.insert(comparison.doses, [comparison.predicted.loss, comparison.oracle.loss]);
            self.shown = Some(comparison);
        }
    }

    /// Whether the job was its own.
    pub fn finished(&mut self, job: JobId, outcome: &Outcome) -> bool {
        let own = self.job == Some(job);
        if own {
            self.job = None;
            if matches!(outcome, Outcome::Failed(_)) {
                self.shown = None;
            }
        }
        own
    }

    /// Forgets what was asked of a model that is gone.
    pub fn forget(&mut self) {
        *self = Self { picture: self.picture, ..Self::default() };
    }
}

impl AppState {
    /// What the noise view has to ask for the state at the playhead: one question at a time, so that the newest is
    /// never behind others.
    pub fn compare(&mut self) -> Option<Command> {
        let FilmSettings { which, predictor, seed, n, source, .. } = self.settings.clone();
        self.noise.picture = self.noise.picture.min(n - 1);
        let doses = self.playback.doses();
        // beside the oracle stands a network
        let predictor = if predictor == Predictor::Oracle { Predictor::Ema } else { predictor };
        let request = CompareRequest { which, predictor, seed, source, picture: self.noise.picture as u64, doses };
        if doses == 0 || self.noise.job.is_some() || self.noise.asked.as_ref() == Some(&request) {
            return None;
        }
        let other = |asked: &CompareRequest| *asked != CompareRequest { doses: asked.doses, ..request.clone() };
        if self.noise.asked.as_ref().is_some_and(other) {
            self.noise.losses.clear();
        }
        let job = self.new_job();
        (self.noise.job, self.noise.asked) = (Some(job), Some(request.clone()));
        Some(Command::Compare(job, request))
    }
}

/// The pictures on screen.
#[derive(Default)]
pub struct NoiseView {
    atlas: Atlas,
    holds: Option<Arc<Comparison>>,
}

impl NoiseView {
    /// Draws the view for the state at `doses`; until its answer comes, the one before. Returns another picture that was
    /// chosen.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, doses: usize) -> Option<usize> {
        let chosen = heading(ui, state);
        let area = ui.available_rect_before_wrap();
        let Some(comparison) = state.noise.shown.as_ref().filter(|_| doses > 0) else {
            let mut ui = ui.new_child(UiBuilder::new().max_rect(area));
            let (headline, reason) = match (&state.model, doses, state.noise.job) {
                (None, ..) => ("No model", "Open a model to see what it takes for noise"),
                (_, 0, _) => ("No noise", "At t = 0 nothing is mixed in yet; move the playhead towards noise"),
                (.., Some(_)) => ("Computing", "The first prediction comes in a moment"),
                (.., None) => ("Nothing here", "The prediction failed; move the playhead to try again"),
            };
            style::placeholder(&mut ui, headline, reason, None, &mut Vec::new());
            return chosen;
        };
        self.fill(ui, comparison);
        self.parts(ui, area, state, comparison);
        chosen
    }

    fn fill(&mut self, ui: &Ui, c: &Arc<Comparison>) {
        if self.holds.as_ref().is_some_and(|held| Arc::ptr_eq(held, c)) {
            return;
        }
        let of = |p: &'_ Prediction| {
            [(p.eps.clone(), Map::Noise), (p.error.clone(), Map::Error), (p.xstart.clone(), Map::Picture)]
        };
        let data = [(c.x_start.clone(), Map::Picture), (c.noise.clone(), Map::Noise), (c.x_t.clone(), Map::Picture)];
        let all: Vec<_> = data.into_iter().chain(of(&c.predicted)).chain(of(&c.oracle)).collect();
        self.atlas.set(ui, all.iter().map(|(images, map)| (images, 1, *map)));
        self.holds = Some(Arc::clone(c));
    }

    fn parts(&self, ui: &mut Ui, area: Rect, state: &AppState, c: &Comparison) {
        let p = style::palette(ui);
        let (middle, half) = (area.center(), area.size() / 2.0 - vec2(1.5 * GRID, GRID / 2.0));
        let quarter = |right: f32, down: f32| {
            let min = pos2(
                if right > 0.0 { middle.x + 1.5 * GRID } else { area.left() },
                if down > 0.0 { middle.y + GRID / 2.0 } else { area.top() },
            );
            Rect::from_min_size(min, half.max(vec2(1.0, 1.0)))
        };
        ui.painter().vline(middle.x, area.shrink2(vec2(0.0, GRID)).y_range(), Stroke::new(1.0, p.hairline));
        let alpha_bar = c.alpha_bar;
        let number = |v: f64| Part::Number(format!("{v:.3}"));
        let time = format!("{:>4}", c.doses);
        let data = [
            (symbols::DATA, vec![number(alpha_bar.sqrt()), Part::Symbol(symbols::DATA)], "the picture"),
            (
                symbols::TRUE_EPS,
                vec![Part::Text("+ "), number((1.0 - alpha_bar).sqrt()), Part::Symbol(symbols::TRUE_EPS)],
                "the noise mixed in",
            ),
            (symbols::STATE, vec![Part::Text("= "), Part::Symbol(symbols::STATE)], "the noisy picture"),
        ];
        self.triple(ui, quarter(0.0, 0.0), 0, ("DATA", &c.source), None, data);
        losses(ui, quarter(1.0, 0.0), state, c);
        let three = |eps: Symbol, xstart: Symbol| {
            let difference = vec![Part::Symbol(eps), Part::Text(" − "), Part::Symbol(symbols::TRUE_EPS)];
            [
                (eps, vec![Part::Symbol(eps)], "the noise predicted"),
                (symbols::NOISE, difference, "the error of that prediction"),
                (xstart, vec![Part::Symbol(xstart)], "the picture that follows"),
            ]
        };
        let network = Some(state.predicts());
        for (right, first, prediction, eps, xstart) in [
            (0.0, 3, &c.predicted, symbols::EPS.by(network), symbols::XSTART.by(network)),
            (1.0, 6, &c.oracle, symbols::ORACLE_EPS, symbols::ORACLE_XSTART),
        ] {
            let (kind, rest) = whose(&prediction.by);
            let loss = Some((time.as_str(), prediction.loss));
            self.triple(ui, quarter(right, 1.0), first, (kind, &rest), loss, three(eps, xstart));
        }
    }

    /// A line that says whose they are, three pictures, a formula under each.
    fn triple(
        &self,
        ui: &mut Ui,
        rect: Rect,
        first: usize,
        (kind, rest): (&str, &str),
        loss: Option<(&str, f64)>,
        pictures: [(Symbol, Vec<Part>, &str); 3],
    ) {
        let p = style::palette(ui);
        let header = Rect::from_min_size(rect.min, vec2(rect.width(), HEADER));
        ui.scope_builder(UiBuilder::new().max_rect(header).id_salt(("header", first)), |ui| {
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if let Some((time, loss)) = loss {
                    let text = egui::RichText::new(format!("loss {loss:.4}")).font(style::mono(style::LARGE));
                    ui.label(text).on_hover_text(format!("The mean of the squared error at t = {time} (Eq. 14)"));
                }
                ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                    style::badge(ui, kind, rest);
                });
            });
        });
        let [w, h] = self.atlas.size().map(|v| v as f32);
        let room = vec2((rect.width() - 2.0 * GAP) / 3.0, rect.height() - HEADER - CAPTION);
        let ppp = ui.pixels_per_point();
        let exact = (room.x / w).min(room.y / h) * ppp;
        let cell = vec2(w, h) * if exact >= 1.0 { exact.floor() } else { exact.max(0.0) } / ppp;
        let left = rect.center().x - (3.0 * cell.x + 2.0 * GAP) / 2.0;
        for (i, (symbol, formula, words)) in pictures.into_iter().enumerate() {
            let min = pos2(left + i as f32 * (cell.x + GAP), header.bottom());
            let place = Rect::from_min_size((min.to_vec2() * ppp).round().to_pos2() / ppp, cell);
            self.atlas.paint(ui, first + i, place);
            ui.painter().rect_stroke(place, 0.0, Stroke::new(2.0, symbol.color(p)), StrokeKind::Outside);
            let image = ui.interact(place, ui.scope_id().with(("picture", first + i)), Sense::hover());
            image.widget_info(|| WidgetInfo::labeled(Role::Image, true, format!("{kind}: {words}")));
            image.on_hover_text(format!("{words}\n{}", map_words(first + i)));
            let size = style::BODY + 2.0;
            let width = symbols::width(ui, &formula, size);
            let below = Rect::from_min_size(pos2(place.center().x - width / 2.0, place.bottom()), vec2(width, CAPTION));
            symbols::paint(ui, &formula, size, below);
        }
    }
}

fn map_words(picture: usize) -> &'static str {
    match picture {
        1 | 3 | 6 => style::NOISE_MAP,
        4 | 7 => style::ERROR_MAP,
        _ => style::GREY_MAP,
    }
}

/// Names the view; returns another picture that was chosen.
fn heading(ui: &mut Ui, state: &AppState) -> Option<usize> {
    let mut picture = state.noise.picture;
    ui.horizontal(|ui| {
        ui.label(egui::RichText::new("True noise and predicted noise").font(style::semibold(style::LARGE)));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let n = state.settings.n.min(MOST_CHOICES);
            if n > 1 {
                let texts: Vec<String> = (1..=n).map(|i| i.to_string()).collect();
                let choices: Vec<_> = texts
                    .iter()
                    .enumerate()
                    .map(|(i, text)| (i, text.as_str(), "Which picture is looked into"))
                    .collect();
                style::segments(ui, &choices, &mut picture);
                ui.label(egui::RichText::new("Picture").color(style::palette(ui).weak));
            }
        });
    });
    (picture != state.noise.picture).then_some(picture)
}

/// The losses seen so far on this picture.
fn losses(ui: &mut Ui, rect: Rect, state: &AppState, c: &Comparison) {
    let p = style::palette(ui);
    let steps = state.playback.steps() as f64;
    let points = |i: usize| -> Vec<PlotPoint> {
        let seen = state.noise.losses.iter();
        seen.map(|(t, loss)| PlotPoint::new(*t as f64, loss[i].max(1e-6).log10())).collect()
    };
    let (network, oracle) = (points(0), points(1));
    ui.scope_builder(UiBuilder::new().max_rect(rect).id_salt("losses"), |ui| {
        let plot = style::still_plot(ui, "losses")
            .include_x(0.0)
            .include_x(steps)
            .include_y(-3.0)
            .include_y(0.0)
            .invert_x(true)
            .x_axis_label("t")
            .y_axis_label("loss on this picture")
            .y_axis_min_width(72.0)
            .y_axis_formatter(|mark, _| {
                if mark.value.fract().abs() < 1e-6 { format!("{}", 10f64.powf(mark.value)) } else { String::new() }
            })
            .auto_bounds(Vec2b::TRUE);
        plot.show(ui, |plot| {
            plot.vline(VLine::new("t", c.doses as f64).color(p.text).width(1.0).allow_hover(false));
            for (name, points, color) in [("network", &network, p.eps), ("oracle", &oracle, p.oracle)] {
                plot.line(Line::new(name, PlotPoints::Borrowed(points)).color(color.gamma_multiply(0.6)).width(1.0));
                plot.points(Points::new(name, PlotPoints::Borrowed(points)).color(color).radius(2.5));
            }
        });
    });
    let key = rect.right_top() + vec2(-GRID, GRID);
    for (i, (text, color)) in [("network", p.eps), ("oracle", p.oracle)].into_iter().enumerate() {
        let at = key + vec2(0.0, 18.0 * i as f32);
        ui.painter().text(at, Align2::RIGHT_TOP, text, FontId::proportional(style::SMALL), color);
    }
}
