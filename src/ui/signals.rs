//! How the optimiser is doing: gradient norm, update-to-weight ratio and learning rate over the run.

use super::curve;
use super::numbers;
use super::style::{self, GRID};
use crate::engine::{Metrics, Point};
use egui::{RichText, Ui, Vec2b, vec2};
use egui_plot::{Line, PlotPoint, PlotPoints};
use std::sync::Arc;

/// Title, tooltip, value.
type Signal = (&'static str, &'static str, fn(&Point) -> f32);

const SIGNALS: [Signal; 3] = [
    ("Gradient norm", "Norm of the gradient over all weights, before clipping", |p| p.grad_norm),
    (
        "Update-to-weight ratio",
        "How far a step moves the weights, as a share of their norm; near 0.001 is usual",
        |p| p.update_ratio,
    ),
    ("Learning rate", "Step size of Adam", |p| p.learning_rate),
];

/// The points on screen, made again only when there are new ones.
#[derive(Default)]
pub struct SignalCurves {
    from: Option<Arc<Metrics>>,
    lines: [Vec<PlotPoint>; 3],
}

impl SignalCurves {
    /// Draws the three curves side by side, and what the EMA looks back on.
    pub fn ui(&mut self, ui: &mut Ui, metrics: &Arc<Metrics>) {
        if self.from.as_ref().is_none_or(|from| !Arc::ptr_eq(from, metrics)) {
            self.from = Some(Arc::clone(metrics));
            let point = |of: fn(&Point) -> f32| {
                let known = metrics.history.whole().iter().filter(move |p| of(p) > 0.0 && of(p).is_finite());
                known.map(|p| PlotPoint::new(p.step as f64, f64::from(of(p)).log10())).collect()
            };
            self.lines = SIGNALS.map(|(_, _, of)| point(of));
        }
        let p = style::palette(ui);
        let size = vec2((ui.available_width() - 4.0 * GRID) / 3.0, (ui.available_height() - 36.0).max(80.0));
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 2.0 * GRID;
            for ((title, tooltip, _), points) in SIGNALS.iter().zip(&self.lines) {
                ui.allocate_ui(size, |ui| {
                    ui.vertical(|ui| {
                        ui.label(RichText::new(*title).color(p.weak)).on_hover_text(*tooltip);
                        let plot = style::still_plot(ui, title)
                            .y_axis_min_width(56.0)
                            .x_axis_label("training step")
                            .y_grid_spacer(curve::decades)
                            .y_axis_formatter(
                                |mark, _| if mark.step_size > 0.4 { value(mark.value) } else { String::new() },
                            )
                            .label_formatter(|at| {
                                let egui_plot::HoverPosition::NearDataPoint { position, .. } = at else { return None };
                                let step = numbers::thousands(position.x as u64);
                                Some(format!("step {step}\n{}", value(position.y)))
                            })
                            .auto_bounds(Vec2b::TRUE);
                        let spread = points.iter().fold([f64::MAX, f64::MIN], |[a, b], p| [a.min(p.y), b.max(p.y)]);
                        // a rate that stays the same still gets an axis of some height
                        let plot = if spread[1] - spread[0] < 0.5 && !points.is_empty() {
                            plot.include_y(spread[0] - 0.5).include_y(spread[1] + 0.5)
                        } else {
                            plot
                        };
                        plot.show(ui, |plot| {
                            plot.line(Line::new(*title, PlotPoints::Borrowed(points)).color(p.state).width(2.0));
                        });
                    });
                });
            }
        });
        ui.label(RichText::new(ema_words(metrics)).color(p.weak))
            .on_hover_text("The moving average looks back on about 1 / (1 − decay) steps");
    }
}

fn value(log: f64) -> String {
    let v = 10_f64.powf(log);
    if (0.01..1000.0).contains(&v) { format!("{v:.2}") } else { format!("{v:.1e}").replace('-', "−") }
}

fn ema_words(metrics: &Metrics) -> String {
    let Some(last) = metrics.history.last() else { return String::new() };
    let horizon = numbers::thousands((1.0 / (1.0 - f64::from(last.ema_decay)).max(1e-9)).round() as u64);
    let mut text = format!("EMA horizon {horizon} steps");
    if let Some(share) = metrics.history.ema_initial() {
        text += &format!(", initial weights in it {:.1} %", 100.0 * share);
    }
    text += &format!(".  Update-to-weight ratio {}", value(f64::from(last.update_ratio).log10()));
    text
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_are_read_back_from_their_logarithms() {
        assert_eq!([-3.0, -1.0, 2.0].map(value), ["1.0e−3", "0.10", "100.00"]);
    }
}
