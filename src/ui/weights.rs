//! The weights of a step's equation over the whole schedule, each in the colour of the symbol that it multiplies.

use super::state::AppState;
use super::step::{self, Process};
use super::style;
use crate::diffusion::Images;
use crate::diffusion::terms::{self, Factor, Form, Term};
use crate::engine::{JobId, SamplerKind, Schedule, Spacing};
use egui::{RichText, Ui, Vec2b, vec2};
use egui_plot::{Line, PlotPoint, PlotPoints, VLine};

/// Points of a curve.
const POINTS: usize = 250;

/// What the curves on screen were made from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    film: JobId,
    process: Process,
    form: Form,
    kind: Option<SamplerKind>,
    steps: Option<usize>,
}

/// The schedule plot of one step.
#[derive(Default)]
pub struct WeightsView {
    holds: Option<Key>,
    curves: Vec<(Factor, Vec<PlotPoint>)>,
}

impl WeightsView {
    /// Draws the curves with a cursor at `doses`, the curve of the factor under the pointer strongest.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        state: &AppState,
        process: Process,
        form: Form,
        doses: usize,
        lit: Option<Factor>,
    ) {
        let (Some((job, film)), doses) = process.film(state, doses) else { return };
        let made = state.made_at(doses);
        let key = Key {
            film: *job,
            process,
            form,
            kind: made.map(|made| made.sample_request().sampler),
            steps: made.and_then(|made| made.steps),
        };
        if self.holds != Some(key) {
            self.holds = Some(key);
            self.curves = match process {
                Process::Reverse => key
                    .kind
                    .zip(film.schedule().spaced(key.steps.unwrap_or(film.steps()), Spacing::Leading).ok())
                    .map_or_else(Vec::new, |(kind, s)| curves(&s, |i| reverse(&s, i, kind, form))),
                Process::Forward => curves(film.schedule(), |i| forward(film.schedule(), i)),
            };
        }
        ui.spacing_mut().item_spacing.y = 4.0;
        ui.horizontal(|ui| {
            ui.set_min_height(24.0);
            ui.label(RichText::new("Weights on the schedule").font(style::semibold(style::BODY)))
                .on_hover_text("What each picture is multiplied by, over t; point at a symbol to find its curve");
        });
        let p = style::palette(ui);
        let plot = style::still_plot(ui, "weights")
            .invert_x(true)
            .x_axis_label("t")
            .y_axis_min_width(30.0)
            .include_x(0.0)
            .include_x(film.steps() as f64)
            .include_y(0.0)
            .include_y(1.0)
            .auto_bounds(Vec2b::TRUE)
            .set_margin_fraction(vec2(0.01, 0.05));
        plot.show(ui, |plot| {
            for (factor, points) in &self.curves {
                let symbol = step::symbol(*factor, process);
                let on = lit == Some(*factor);
                let color = symbol.color(p);
                let color = if lit.is_none() || on { color } else { color.gamma_multiply(0.35) };
                let width = if on { 4.0 } else { 1.5 };
                plot.line(Line::new(symbol.name(), PlotPoints::Borrowed(points)).color(color).width(width));
            }
            plot.vline(VLine::new("playhead", doses as f64).color(p.accent).width(2.0).allow_hover(false));
        });
    }
}

/// The weights at steps spread evenly over a schedule, over the doses that each starts from.
fn curves(s: &Schedule, at: impl Fn(usize) -> Vec<Term>) -> Vec<(Factor, Vec<PlotPoint>)> {
    let (last, n) = (s.steps() - 1, s.steps().min(POINTS));
    let mut curves: Vec<(Factor, Vec<PlotPoint>)> = Vec::new();
    for k in 0..n {
        let i = last * k / (n - 1).max(1);
        for term in at(i) {
            let point = PlotPoint::new(s.doses(i) as f64, term.weight.abs());
            match curves.iter_mut().find(|(factor, _)| *factor == term.factor) {
                Some((_, points)) => points.push(point),
                None => curves.push((term.factor, vec![point])),
            }
        }
    }
    curves
}

fn reverse(s: &Schedule, i: usize, kind: SamplerKind, form: Form) -> Vec<Term> {
    let none = Images::zeros(0, [0; 3]);
    terms::reverse(&terms::Step { schedule: s, i, kind, x_t: &none, xstart: &none, eps: &none, z: &none }, form)
}

/// Of the dose and of the jump.
fn forward(s: &Schedule, i: usize) -> Vec<Term> {
    let none = Images::zeros(0, [0; 3]);
    let mut terms = terms::jump(s, i + 1, &none, &none);
    terms.extend(terms::dose(s, i + 1, &none, &none));
    terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ScheduleConfig;

    #[test]
    fn each_symbol_of_an_equation_has_its_curve_over_the_whole_schedule() {
        let s = Schedule::new(&ScheduleConfig::default()).unwrap();
        let jump = curves(&s, |i| forward(&s, i));
        let factors: Vec<Factor> = jump.iter().map(|(factor, _)| *factor).collect();
        assert_eq!(factors, [Factor::Start, Factor::Noise, Factor::Previous, Factor::Fresh]);
        for (_, points) in &jump {
            assert_eq!((points.len(), points[0].x, points[POINTS - 1].x), (POINTS, 1.0, 1000.0));
        }
        assert_eq!(jump[0].1[POINTS - 1].y, s.alphas_cumprod[999].sqrt());
        let spaced = s.spaced(50, Spacing::Leading).unwrap();
        let kind = SamplerKind::Ddim { eta: 0.0 };
        let steps = curves(&spaced, |i| reverse(&spaced, i, kind, Form::Ddim));
        assert_eq!(
            steps[0].1.iter().map(|p| p.x as usize).collect::<Vec<_>>(),
            (0..50).map(|i| 20 * i + 1).collect::<Vec<_>>()
        );
        assert_eq!(steps[0].1[30].y, kind.coefficients(&spaced, 30).xstart);
    }
}
