//! Algorithms 1 and 2 of the paper, line by line with live values.

use super::actions::UiAction;
use super::axis;
use super::state::AppState;
use super::step::Equation;
use super::style;
use super::symbols::{self, Part};
use crate::diffusion::noise::{Purpose, stream};
use crate::diffusion::terms::{Factor, Form};
use crate::engine::PredictionType;
use egui::{Align, Align2, Layout, Rect, RichText, Role, Sense, Ui, WidgetInfo, pos2, vec2};

const LINE: f32 = 24.0;
/// Of a line with a fraction.
const TALL: f32 = 40.0;
/// The least share of their height that lines keep where there is little room.
const CLOSEST: f32 = 0.64;

/// A line: its formula with what each piece stands for, and its value now.
pub struct Line {
    pieces: Vec<(Part, Option<Factor>)>,
    now: String,
    indent: bool,
}

/// An algorithm of the paper.
pub struct Listing {
    title: &'static str,
    lines: Vec<Line>,
    /// The first and the last line of its loop.
    body: [usize; 2],
    /// After that line the playhead moves.
    moves: (usize, Move),
}

/// What the playhead does when a line has been gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// To the next state of the film.
    Next,
    /// To the so-manieth timestep drawn.
    Drawn(u64),
}

/// Where the single-stepping stands.
#[derive(Default)]
pub struct Algorithm {
    line: Option<usize>,
    draws: u64,
}

/// Where `go` leads from `doses`.
pub fn target(go: Move, state: &AppState, doses: usize) -> Option<usize> {
    match go {
        Move::Next => {
            let (_, film) = state.shown().film.as_ref()?;
            let here = film.state(doses);
            film.states_away(here, 1).filter(|next| *next < here && film.reached().is_some_and(|r| *next >= r))
        }
        Move::Drawn(draw) => {
            let (steps, (_, film)) = (state.playback.steps(), state.forward.film.as_ref()?);
            let t = stream(state.settings.seed, Purpose::TrainTime, [draw, 0]).below(film.steps());
            Some(axis::along(t + 1, film.steps(), steps))
        }
    }
}

fn text(text: &'static str) -> (Part, Option<Factor>) {
    (Part::Text(text), None)
}

fn sign(symbol: symbols::Symbol, factor: Option<Factor>) -> (Part, Option<Factor>) {
    (Part::Symbol(symbol), factor)
}

fn line(indent: bool, pieces: Vec<(Part, Option<Factor>)>, now: String) -> Line {
    Line { pieces, now: now.replace('-', "−"), indent }
}

/// A timestep that the loops visit: the picture itself is none of them.
fn drawn(t: usize) -> String {
    if t == 0 { "–".to_owned() } else { format!("t = {t}") }
}

/// The line that says what the film on screen began with, and the pieces of the one that says from where t falls.
fn beginning(state: &AppState) -> (Line, Vec<(Part, Option<Factor>)>) {
    let mut range = vec![text("for "), sign(symbols::TIME, None), text(" = ")];
    let film = state.shown().film.as_ref().map(|(_, film)| film);
    // a sampler that skips timesteps may begin below T, too
    let first = film.map(|film| (film.beginning(), film.states_away(film.beginning(), 1)));
    let number = |text: String| (Part::Number(text), None);
    match first {
        Some((t, Some(0))) => range.extend([number(t.to_string()), text(" do")]),
        Some((t, Some(1))) => range.extend([number(format!("{t}, 1")), text(" do")]),
        Some((t, Some(next))) if next + 1 < t => range.extend([number(format!("{t}, {next},")), text("…, 1 do")]),
        Some((t, _)) if state.begins().is_some() => range.extend([number(format!("{t},")), text("…, 1 do")]),
        _ => range.push(text("T, …, 1 do")),
    }
    let Some(t) = state.begins() else {
        let seed = state.reverse.made.as_ref().map_or_else(String::new, |made| format!("seed {}", made.seed));
        let below = film.map(|film| film.beginning()).filter(|t| *t < state.playback.steps());
        let noise = Part::StateAt(below.map_or_else(|| "T".to_owned(), |t| t.to_string()));
        return (line(false, vec![(noise, None), text(" ~ N(0, I)")], seed), range);
    };
    let noisy = || (Part::StateAt(t.to_string()), None);
    let drawn = vec![noisy(), text(" ~ q("), noisy(), text(" | "), sign(symbols::START, None), text(")")];
    let from = state.reverse.source.as_ref().and_then(|by| by.from.clone()).unwrap_or_default();
    (line(false, drawn, from), range)
}

/// Algorithm 2, at the state after `doses` doses; `step` is the step that it takes there.
pub fn sampling(state: &AppState, doses: usize, form: Form, step: Option<&Equation>) -> Listing {
    let weight = |factor| step.and_then(|s| s.terms.iter().find(|t| t.factor == factor)).map(|t| t.weight);
    let number = |factor| weight(factor).map_or_else(|| "–".into(), |w: f64| format!("{:.4}", w.abs()));
    let steps = state.made_at(doses).and_then(|made| made.steps);
    let next = if steps.is_none() { symbols::PREVIOUS } else { symbols::NEXT_KEPT };
    let shown = state.shown().film.as_ref().and_then(|(_, film)| film.at(doses)).map_or(doses, |frame| frame.doses);
    let (first, range) = beginning(state);
    let [x, xstart, eps, z] = [Factor::State, Factor::PredictedStart, Factor::Noise, Factor::Fresh];
    let network = state.predicts_at(doses);
    let clipped = step.is_some_and(|step| step.clipped);
    let eps_hat = if clipped { symbols::CLIPPED_EPS } else { symbols::EPS.by(network) };
    let x_hat = symbols::XSTART.by(network);
    let mut rule = vec![sign(next, None), text(" = ")];
    match form {
        Form::Posterior => {
            rule.extend([text("a "), sign(symbols::STATE, Some(x)), text(" + b "), sign(x_hat, Some(xstart))])
        }
        Form::Epsilon => rule.extend([
            (Part::Fraction(&[Part::Text("1")], &[Part::RootAlpha]), None),
            text(" ("),
            sign(symbols::STATE, Some(x)),
            text(" − "),
            (Part::Fraction(&[Part::Symbol(symbols::BETA)], &[Part::RootOneMinusAlphaBar]), None),
            text(" "),
            sign(eps_hat, Some(eps)),
            text(")"),
        ]),
        Form::Ddim => rule.extend([text("a "), sign(x_hat, Some(xstart)), text(" + b "), sign(eps_hat, Some(eps))]),
    }
    rule.extend([text(" + "), sign(symbols::SIGMA, None), text(" "), sign(symbols::NOISE, Some(z))]);
    let weights = match form {
        Form::Posterior => format!("a {}, b {}", number(x), number(xstart)),
        Form::Epsilon => format!("{} and {}", number(x), number(eps)),
        Form::Ddim => format!("a {}, b {}", number(xstart), number(eps)),
    };
    Listing {
        title: if form == Form::Ddim { "Algorithm 2, with DDIM's step" } else { "Algorithm 2: sampling" },
        lines: vec![
            first,
            line(false, range, drawn(shown)),
            line(
                true,
                vec![
                    sign(symbols::NOISE, Some(z)),
                    text(" ~ N(0, I) if t > 1, else "),
                    sign(symbols::NOISE, Some(z)),
                    text(" = 0"),
                ],
                format!("σ = {}", number(z)),
            ),
            line(true, rule, weights),
            line(false, vec![text("end for")], String::new()),
            line(false, vec![text("return "), sign(symbols::START, None)], String::new()),
        ],
        body: [1, 3],
        moves: (3, Move::Next),
    }
}

/// Algorithm 1, with the state after `doses` doses as its example; `jump` is how that state was reached.
pub fn training(state: &AppState, doses: usize, jump: Option<&Equation>) -> Listing {
    let weight =
        |i: usize| jump.and_then(|j| j.terms.get(i)).map_or_else(|| "–".into(), |t| format!("{:.4}", t.weight));
    let (start, noise) = (Some(Factor::Start), Some(Factor::Noise));
    let source = state.forward.source.clone().unwrap_or_default();
    let [x_start, eps] = [sign(symbols::START, start), sign(symbols::JUMP_EPS, noise)];
    // √ᾱ of the first with √(1−ᾱ) of the second
    let mixed = |first, between, second| {
        let [left, right] = [(Part::RootAlphaBar, None), (Part::RootOneMinusAlphaBar, None)];
        [left, text(" "), first, text(between), right, text(" "), second]
    };
    let weights = format!("{}, {}", weight(0), weight(1));
    let mut lines = vec![
        line(false, vec![text("repeat")], String::new()),
        line(true, vec![sign(symbols::START, start), text(" ~ q("), sign(symbols::START, start), text(")")], source),
        line(true, vec![sign(symbols::TIME, None), text(" ~ Uniform({1, …, T})")], drawn(doses)),
        line(true, vec![sign(symbols::JUMP_EPS, noise), text(" ~ N(0, I)")], String::new()),
    ];
    let (title, target, network) = match state.predicts() {
        PredictionType::Epsilon => {
            ("Algorithm 1: training", sign(symbols::JUMP_EPS, noise), sign(symbols::NETWORK, None))
        }
        PredictionType::Velocity => {
            let v = [sign(symbols::VELOCITY, None), text(" = ")].into_iter();
            lines.push(line(true, v.chain(mixed(eps.clone(), " − ", x_start.clone())).collect(), weights.clone()));
            ("Algorithm 1: training, for v", sign(symbols::VELOCITY, None), sign(symbols::VELOCITY_NETWORK, None))
        }
    };
    let step = [text("step on ‖"), target, text(" − "), network, text("(")].into_iter();
    let jump = mixed(x_start, " + ", eps).into_iter().chain([text(", t)‖²")]);
    lines.push(line(true, step.chain(jump).collect(), weights));
    let last = lines.len() - 1;
    lines.push(line(false, vec![text("until converged")], String::new()));
    Listing { title, lines, body: [1, last], moves: (1, Move::Drawn(0)) }
}

impl Algorithm {
    /// Draws the listing. Returns the factor under the pointer; `go` becomes what the playhead is to do.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        listing: &Listing,
        lit: Option<Factor>,
        advance: bool,
        go: &mut Option<Move>,
        out: &mut Vec<UiAction>,
    ) -> Option<Factor> {
        if advance {
            *go = self.next(listing);
        }
        ui.spacing_mut().item_spacing.y = 0.0;
        ui.horizontal(|ui| {
            ui.label(RichText::new(listing.title).font(style::semibold(style::BODY)));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                style::button(ui, &UiAction::NextLine, out);
            });
        });
        let mut under = None;
        let width = ui.available_width();
        let height = |line: &Line| {
            let tall = line.pieces.iter().any(|(part, _)| matches!(part, Part::Fraction(..)));
            if tall { TALL } else { LINE }
        };
        // closer together where there is little room
        let all: f32 = listing.lines.iter().map(height).sum();
        let squeeze = (ui.available_height() / all).clamp(CLOSEST, 1.0);
        for (i, line) in listing.lines.iter().enumerate() {
            let (rect, _) = ui.allocate_exact_size(vec2(width, height(line) * squeeze), Sense::hover());
            if rect.bottom() > ui.max_rect().bottom() + 1.0 {
                break;
            }
            under = self.line(ui, rect, i, line, lit).or(under);
        }
        under
    }

    fn line(&self, ui: &Ui, rect: Rect, i: usize, line: &Line, lit: Option<Factor>) -> Option<Factor> {
        let p = style::palette(ui);
        let here = self.line == Some(i);
        let has_lit = lit.is_some() && line.pieces.iter().any(|(_, factor)| *factor == lit);
        if here || has_lit {
            ui.painter().rect_filled(rect, 3.0, p.hover);
        }
        if here {
            ui.painter().rect_filled(Rect::from_min_size(rect.min, vec2(4.0, rect.height())), 1.0, p.accent);
        }
        let number = pos2(rect.left() + 24.0, rect.center().y);
        ui.painter().text(number, Align2::RIGHT_CENTER, format!("{}", i + 1), style::mono(style::SMALL), p.weak);
        let left = rect.left() + if line.indent { 56.0 } else { 36.0 };
        let parts: Vec<Part> = line.pieces.iter().map(|(part, _)| part.clone()).collect();
        let place = Rect::from_min_max(pos2(left, rect.top()), rect.max);
        let (mut under, mut end) = (None, left);
        for (k, (piece, at, tooltip)) in symbols::write(ui, &parts, style::BODY, place).into_iter().enumerate() {
            end = at.right();
            let id = ui.scope_id().with(("piece", i, k));
            if ui.interact(at, id, Sense::hover()).on_hover_text(tooltip).hovered() {
                under = line.pieces.get(piece).and_then(|(_, factor)| *factor);
            }
        }
        let now = ui.painter().layout_no_wrap(line.now.clone(), style::mono(style::SMALL), p.text);
        let place = Align2::RIGHT_CENTER.anchor_size(rect.right_center() - vec2(8.0, 0.0), now.size());
        if place.left() > end + 8.0 {
            ui.painter().galley(place.min, now, p.text);
        }
        let marks = [(here, ", current"), (has_lit, ", highlighted")];
        let marks: String = marks.into_iter().filter_map(|(on, text)| on.then_some(text)).collect();
        let spoken = format!("Line {}{marks}: {}", i + 1, line.now);
        ui.interact(
            Rect::from_min_size(rect.min, vec2(28.0, rect.height())),
            ui.scope_id().with(("line", i)),
            Sense::hover(),
        )
        .widget_info(|| WidgetInfo::labeled(Role::Label, true, &spoken));
        under
    }

    /// Goes to the next line. Returns what the playhead does on the way.
    fn next(&mut self, listing: &Listing) -> Option<Move> {
        let before = self.line;
        let [first, last] = listing.body;
        let next = match before {
            None => 0,
            Some(line) if line == last => first,
            Some(line) => (line + 1).min(listing.lines.len() - 1),
        };
        self.line = Some(next);
        (before == Some(listing.moves.0)).then(|| match listing.moves.1 {
            Move::Next => Move::Next,
            Move::Drawn(_) => {
                self.draws += 1;
                Move::Drawn(self.draws)
            }
        })
    }
}
