//! The paper's symbols and short formulas, painted: a letter, its hat or bar, its index, its one colour.

use super::style::{self, Palette};
use crate::engine::PredictionType;
use egui::{Color32, FontId, Pos2, Rect, Sense, Stroke, Ui, pos2};

/// What stands over a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    Hat,
    Bar,
}

/// A symbol of the notation table.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    letter: &'static str,
    mark: Mark,
    index: &'static str,
    color: fn(&Palette) -> Color32,
    /// Its name, formula and equation number.
    pub tooltip: &'static str,
}

impl Symbol {
    /// Its one colour.
    pub fn color(&self, palette: &Palette) -> Color32 {
        (self.color)(palette)
    }

    /// ε̂ and x̂_0 as they follow from what a network predicts, or from the oracle (`None`); all other symbols as they are.
    pub fn by(self, network: Option<PredictionType>) -> Self {
        let tooltip = match (network, self.mark, self.letter) {
            (None, Mark::Hat, "ε") => {
                "ε̂, the noise in x_t that follows from the oracle's x̂_0: (x_t − √ᾱ_t x̂_0) / √(1−ᾱ_t)"
            }
            (None, Mark::Hat, _) => {
                "x̂_0, the oracle's: the mean of the data's images, weighted by how likely each of them led to x_t: E[x_0 | x_t]"
            }
            (Some(PredictionType::Velocity), Mark::Hat, "ε") => {
                "ε̂, the noise in x_t that follows from the network's v̂: √ᾱ_t v̂ + √(1−ᾱ_t) x_t (Salimans & Ho 2022, section 4)"
            }
            (Some(PredictionType::Velocity), Mark::Hat, _) => {
                "x̂_0, the picture that follows from the network's v̂, √ᾱ_t x_t − √(1−ᾱ_t) v̂ (Salimans & Ho 2022, section 4), in −1 to 1 where the film clips"
            }
            _ => self.tooltip,
        };
        Self { tooltip, ..self }
    }

    /// Its letter and index as plain text.
    pub fn name(&self) -> String {
        let mark = match self.mark {
            Mark::None => "",
            Mark::Hat => "\u{302}",
            Mark::Bar => "\u{304}",
        };
        let index = if self.has_index() { format!("_{}", self.index) } else { String::new() };
        format!("{}{mark}{index}", self.letter)
    }

    /// Whether it carries an index.
    pub fn has_index(&self) -> bool {
        !self.index.is_empty()
    }
}

const fn symbol(
    letter: &'static str,
    mark: Mark,
    index: &'static str,
    color: fn(&Palette) -> Color32,
    tooltip: &'static str,
) -> Symbol {
    Symbol { letter, mark, index, color, tooltip }
}

/// x_t.
pub const STATE: Symbol = symbol(
    "x",
    Mark::None,
    "t",
    |p| p.state,
    "x_t, the state after t doses of noise: √ᾱ_t x_0 + √(1−ᾱ_t) ε (Ho et al. 2020, Eq. 4)",
);
/// x_{t-1}.
pub const PREVIOUS: Symbol =
    symbol("x", Mark::None, "t−1", |p| p.state, "x_{t−1}, the state with one dose of noise less");
/// The state after a step that skips timesteps.
pub const NEXT_KEPT: Symbol =
    symbol("x", Mark::None, "t′", |p| p.state, "x_{t′}, the state at the next timestep that this sampler visits");
/// x̂_0.
pub const XSTART: Symbol = symbol(
    "x",
    Mark::Hat,
    "0",
    |p| p.xstart,
    "x̂_0, the picture that the network expects: (x_t − √(1−ᾱ_t) ε̂) / √ᾱ_t (Ho et al. 2020, Eq. 15), in −1 to 1 where the film clips",
);
/// x_0.
pub const START: Symbol =
    symbol("x", Mark::None, "0", |p| p.text, "x_0, the picture itself: data, or the end of the film");
/// ε of the jump to a state of the chain.
pub const JUMP_EPS: Symbol = symbol(
    "ε",
    Mark::None,
    "",
    |p| p.eps,
    "ε, all noise in x_t as one: (x_t − √ᾱ_t x_0) / √(1−ᾱ_t) (Ho et al. 2020, Eq. 4)",
);
/// α_t.
pub const ALPHA: Symbol = symbol(
    "α",
    Mark::None,
    "t",
    |p| p.text,
    "α_t = 1 − β_t (Ho et al. 2020, section 2); of a step that skips timesteps ᾱ_t / ᾱ_{t′}",
);
/// σ_t.
pub const SIGMA: Symbol =
    symbol("σ", Mark::None, "t", |p| p.text, "σ_t, the spread of the fresh noise (Ho et al. 2020, section 3.2)");
/// ε̂.
pub const EPS: Symbol = symbol(
    "ε",
    Mark::Hat,
    "",
    |p| p.eps,
    "ε̂, the noise that the network finds in x_t: ε_θ(x_t, t) (Ho et al. 2020, Eq. 11)",
);
/// ε̂ of a step that is written with β_t and clips.
pub const CLIPPED_EPS: Symbol = symbol(
    "ε",
    Mark::Hat,
    "",
    |p| p.eps,
    "ε̂, the noise that belongs to x̂_0 where that was clipped to −1 to 1: (x_t − √ᾱ_t x̂_0) / √(1−ᾱ_t)",
);
/// x_0.
pub const DATA: Symbol = symbol("x", Mark::None, "0", |p| p.text, "x_0, the picture before any noise");
/// ε.
pub const TRUE_EPS: Symbol = symbol(
    "ε",
    Mark::None,
    "",
    |p| p.eps,
    "ε, the noise that was mixed in, from N(0, I) (Ho et al. 2020, Eq. 4); it is the same at every t here",
);
/// The oracle's ε.
pub const ORACLE_EPS: Symbol = symbol(
    "ε",
    Mark::None,
    "*",
    |p| p.oracle,
    "ε*, the noise that the exact oracle of the data finds in x_t: on average over the images that it knows, no network can have a lower loss",
);
/// The oracle's x_0.
pub const ORACLE_XSTART: Symbol = symbol(
    "x",
    Mark::None,
    "0*",
    |p| p.oracle,
    "x_0*, the mean of the data's images, weighted by how likely each of them led to x_t: E[x_0 | x_t]",
);
/// x_{t-1} - x_t.
pub const DOSE: Symbol = symbol(
    "Δ",
    Mark::None,
    "t",
    |p| p.noise,
    "x_{t−1} − x_t, what the step from this state changes; x_{t′} − x_t where the sampler skips timesteps",
);
/// z.
pub const NOISE: Symbol =
    symbol("z", Mark::None, "", |p| p.noise, "z, fresh noise from N(0, I) (Ho et al. 2020, Algorithm 2)");
/// t.
pub const TIME: Symbol = symbol("t", Mark::None, "", |p| p.text, "t, the timestep: T is pure noise, 0 the picture");
/// β_t.
pub const BETA: Symbol = symbol(
    "β",
    Mark::None,
    "t",
    |p| p.text,
    "β_t, the variance of one dose of noise (Ho et al. 2020, Eq. 2); of a step that skips timesteps 1 − ᾱ_t / ᾱ_{t′}",
);
/// ᾱ_t.
pub const ALPHA_BAR: Symbol = symbol(
    "α",
    Mark::Bar,
    "t",
    |p| p.text,
    "ᾱ_t, the share of x_0's variance left: the product of 1 − β (Ho et al. 2020, Eq. 4)",
);
/// p_θ.
pub const MODEL: Symbol = symbol(
    "p",
    Mark::None,
    "θ",
    |p| p.state,
    "p_θ(x_{t−1} | x_t), the network's step towards the picture (Ho et al. 2020, Eq. 1)",
);
/// q.
pub const DIFFUSION: Symbol =
    symbol("q", Mark::None, "", |p| p.noise, "q(x_t | x_{t−1}), one dose of noise (Ho et al. 2020, Eq. 2)");
/// ε_θ.
pub const NETWORK: Symbol =
    symbol("ε", Mark::None, "θ", |p| p.eps, "ε_θ(x_t, t), the noise that the network finds (Ho et al. 2020, Eq. 11)");
/// v.
pub const VELOCITY: Symbol = symbol(
    "v",
    Mark::None,
    "",
    |p| p.text,
    "v = √ᾱ_t ε − √(1−ᾱ_t) x_0, what this network learns to predict (Salimans & Ho 2022, section 4)",
);
/// v_θ.
pub const VELOCITY_NETWORK: Symbol = symbol(
    "v",
    Mark::None,
    "θ",
    |p| p.text,
    "v_θ(x_t, t), the network's v̂: ε̂ = √ᾱ_t v̂ + √(1−ᾱ_t) x_t and x̂_0 = √ᾱ_t x_t − √(1−ᾱ_t) v̂ (Salimans & Ho 2022, section 4)",
);
const ONE_MINUS: &str = "1 − ";

/// A piece of a formula.
#[derive(Clone, Debug)]
pub enum Part {
    /// A symbol.
    Symbol(Symbol),
    /// √ᾱ_t.
    RootAlphaBar,
    /// √(1-ᾱ_t).
    RootOneMinusAlphaBar,
    /// √α_t.
    RootAlpha,
    /// What stands over a line, and under it.
    Fraction(&'static [Self], &'static [Self]),
    /// Words and signs.
    Text(&'static str),
    /// A number that changes.
    Number(String),
    /// x at the timestep of that name.
    StateAt(String),
}

struct Pen<'a> {
    ui: &'a Ui,
    palette: &'static Palette,
    size: f32,
    /// Where the next piece starts, and the baseline.
    at: Pos2,
    /// Measures only.
    dry: bool,
}

impl Pen<'_> {
    fn write(&mut self, text: &str, font: FontId, color: Color32, drop: f32) -> Rect {
        let galley = self.ui.painter().layout_no_wrap(text.to_owned(), font, color);
        let ascent = galley.rows.first().and_then(|r| r.row.glyphs.first()).map_or(0.0, |g| g.pos.y);
        let min = pos2(self.at.x, self.at.y + drop - ascent);
        let ink = galley.mesh_bounds.translate(min.to_vec2());
        self.at.x += galley.size().x;
        if !self.dry {
            self.ui.painter().galley(min, galley, color);
        }
        ink
    }

    fn symbol(&mut self, s: &Symbol) -> Rect {
        self.indexed(s, s.index)
    }

    fn indexed(&mut self, s: &Symbol, index: &str) -> Rect {
        let start = self.at.x;
        let color = (s.color)(self.palette);
        let ink = self.write(s.letter, style::semibold(self.size), color, 0.0);
        let stroke = Stroke::new((self.size / 11.0).max(1.2), color);
        let (y, half) = (ink.top() - self.size * 0.1, self.size * 0.2);
        if !self.dry {
            let p = self.ui.painter();
            match s.mark {
                Mark::None => {}
                Mark::Hat => {
                    let tip = pos2(ink.center().x, y - self.size * 0.16);
                    p.line_segment([pos2(tip.x - half, y), tip], stroke);
                    p.line_segment([tip, pos2(tip.x + half, y)], stroke);
                }
                Mark::Bar => {
                    p.line_segment([pos2(ink.left(), y), pos2(ink.right(), y)], stroke);
                }
            }
        }
        if !index.is_empty() {
            self.at.x += self.size * 0.04;
            self.write(index, style::semibold(self.size * 0.68), color, self.size * 0.24);
        }
        Rect::from_x_y_ranges(start..=self.at.x, self.at.y - self.size..=self.at.y + self.size * 0.4)
    }

    fn root(&mut self, one_minus: bool, under: &Symbol) -> Rect {
        let color = self.palette.text;
        let start = self.at.x;
        let top = self.at.y - self.size * 0.98;
        let stroke = Stroke::new((self.size / 14.0).max(1.0), color);
        let hook = self.size * 0.45;
        self.at.x += hook + self.size * 0.08;
        if one_minus {
            self.write(ONE_MINUS, style::semibold(self.size), color, 0.0);
        }
        self.symbol(under);
        self.at.x += self.size * 0.06;
        if !self.dry {
            let points = [(0.0, -0.38), (0.14, -0.46), (0.27, 0.12), (0.45, -0.98)]
                .map(|(x, y)| pos2(start + x * self.size, self.at.y + y * self.size));
            self.ui.painter().add(egui::Shape::line(points.to_vec(), stroke));
            self.ui.painter().line_segment([pos2(start + hook, top), pos2(self.at.x, top)], stroke);
        }
        Rect::from_x_y_ranges(start..=self.at.x, top..=self.at.y + self.size * 0.4)
    }

    /// Both parts centred on a line at half the height of a small letter.
    fn fraction(&mut self, over: &[Part], under: &[Part]) -> Vec<Place> {
        let (size, start) = (self.size, self.at);
        let small = size * 0.8;
        let widths = [over, under].map(|parts| width(self.ui, parts, small));
        let whole = widths[0].max(widths[1]) + 0.3 * size;
        let line = start.y - 0.36 * size;
        let mut places = Vec::new();
        self.size = small;
        for (parts, width, baseline) in [(over, widths[0], line - 0.36 * small), (under, widths[1], line + 1.2 * small)]
        {
            self.at = pos2(start.x + (whole - width) / 2.0, baseline);
            parts.iter().for_each(|part| places.extend(self.part(part)));
        }
        (self.size, self.at) = (size, pos2(start.x + whole + 0.1 * size, start.y));
        if !self.dry {
            let stroke = Stroke::new((size / 14.0).max(1.0), self.palette.text);
            self.ui.painter().line_segment([pos2(start.x, line), pos2(start.x + whole, line)], stroke);
        }
        places
    }

    /// Returns the places of its symbols and what their tooltips say.
    fn part(&mut self, part: &Part) -> Vec<Place> {
        let color = self.palette.text;
        match part {
            Part::Symbol(s) => vec![(self.symbol(s), s.tooltip)],
            Part::RootAlphaBar => {
                vec![(self.root(false, &ALPHA_BAR), "√ᾱ_t, the weight of x_0 in x_t (Ho et al. 2020, Eq. 4)")]
            }
            Part::RootOneMinusAlphaBar => {
                vec![(self.root(true, &ALPHA_BAR), "√(1−ᾱ_t), the weight of the noise in x_t (Ho et al. 2020, Eq. 4)")]
            }
            Part::RootAlpha => vec![(self.root(false, &ALPHA), ALPHA.tooltip)],
            Part::Fraction(over, under) => self.fraction(over, under),
            Part::StateAt(index) => vec![(self.indexed(&STATE, index), STATE.tooltip)],
            Part::Text(text) => {
                self.write(text, FontId::proportional(self.size), color, 0.0);
                Vec::new()
            }
            Part::Number(text) => {
                self.write(text, style::mono(self.size), color, 0.0);
                self.at.x += self.size * 0.25;
                Vec::new()
            }
        }
    }
}

/// Where a symbol stands, and its tooltip.
type Place = (Rect, &'static str);

/// Width of a formula.
pub fn width(ui: &Ui, parts: &[Part], size: f32) -> f32 {
    let mut pen = Pen { ui, palette: style::palette(ui), size, at: Pos2::ZERO, dry: true };
    for part in parts {
        pen.part(part);
    }
    pen.at.x
}

/// Writes a formula into `rect`, from its left end. Returns for each symbol its part's index, its place
/// and its tooltip.
pub fn write(ui: &Ui, parts: &[Part], size: f32, rect: Rect) -> Vec<(usize, Rect, &'static str)> {
    let at = pos2(rect.left(), rect.center().y + size * 0.38);
    let mut pen = Pen { ui, palette: style::palette(ui), size, at, dry: false };
    let places = parts.iter().enumerate().map(|(i, part)| (i, pen.part(part)));
    places.flat_map(|(i, places)| places.into_iter().map(move |(rect, tooltip)| (i, rect, tooltip))).collect()
}

/// Writes a formula in which each symbol explains itself in a tooltip.
pub fn paint(ui: &Ui, parts: &[Part], size: f32, rect: Rect) {
    for (i, (_, place, tooltip)) in write(ui, parts, size, rect).into_iter().enumerate() {
        let id = ui.scope_id().with(("symbol", rect.min.x as i32, rect.min.y as i32, i));
        ui.interact(place, id, Sense::hover()).on_hover_text(tooltip);
    }
}
