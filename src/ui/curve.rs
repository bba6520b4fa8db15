//! The loss over a run: the newest steps one by one, or the whole run as a mean within its least and largest values.

use super::changes;
use super::numbers;
use super::style::{self, BODY};
use crate::engine::{Evaluation, History, Metrics};
use egui::{Color32, Stroke, Ui, Vec2b};
use egui_plot::{
    Corner, FilledArea, GridInput, GridMark, HoverPosition, Legend, Line, LineStyle, Plot, PlotPoint, PlotPoints,
};
use std::sync::Arc;

/// Height from which the axis has room for its whole name.
const LABEL_FROM: f32 = 280.0;
/// Width from which the slider has room beside the choices.
const SLIDER_FROM: f32 = 600.0;

/// How the loss is drawn.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CurveSettings {
    /// Logarithmic axis.
    pub log: bool,
    /// The newest steps only.
    pub recent: bool,
    /// Weight of the past in the smoothed curve, 0 to 0.99.
    pub smoothing: f32,
}

impl Default for CurveSettings {
    fn default() -> Self {
        Self { log: true, recent: false, smoothing: 0.9 }
    }
}

/// The points on screen, made again only when there are new ones.
#[derive(Default)]
pub struct Curve {
    from: Option<(Arc<Metrics>, CurveSettings)>,
    steps: Vec<f64>,
    low: Vec<f64>,
    high: Vec<f64>,
    raw: Vec<PlotPoint>,
    /// Fixed images: trained on, and held out.
    evaluated: [Vec<PlotPoint>; 2],
    smooth: Vec<PlotPoint>,
}

/// Exponential smoothing without lag: the mean of a pass forwards and a pass backwards, each of which starts at its first
/// value rather than at zero (the bias correction of Adam).
pub fn smoothed(values: &[f64], weight: f64) -> Vec<f64> {
    let pass = |values: &mut dyn Iterator<Item = &f64>| -> Vec<f64> {
        let (mut sum, mut mass) = (0.0, 0.0);
        values
            .map(|v| {
                sum = weight * sum + (1.0 - weight) * v;
                mass = weight * mass + (1.0 - weight);
                sum / mass
            })
            .collect()
    };
    let (on, back) = (pass(&mut values.iter()), pass(&mut values.iter().rev()));
    on.iter().zip(back.iter().rev()).map(|(a, b)| (a + b) / 2.0).collect()
}

impl Curve {
    fn update(&mut self, metrics: &Arc<Metrics>, settings: CurveSettings) {
        let same = |(m, s): &(Arc<Metrics>, CurveSettings)| Arc::ptr_eq(m, metrics) && *s == settings;
        if self.from.as_ref().is_some_and(same) {
            return;
        }
        self.from = Some((Arc::clone(metrics), settings));
        let history: &History = &metrics.history;
        let rows: Vec<[f32; 4]> = if settings.recent {
            history.recent().map(|s| [s.step as f32, s.loss, s.loss, s.loss]).collect()
        } else {
            history.whole().iter().map(|p| [p.step as f32, p.loss_min, p.loss, p.loss_max]).collect()
        };
        let axis = |v: f64| if settings.log { v.max(1e-6).log10() } else { v };
        let rows: Vec<[f32; 4]> = rows.into_iter().filter(|r| r.iter().all(|v| v.is_finite())).collect();
        let column = |i: usize| rows.iter().map(move |r| f64::from(r[i]));
        self.steps = column(0).collect();
        self.low = column(1).map(axis).collect();
        self.high = column(3).map(axis).collect();
        self.raw = column(0).zip(column(2).map(axis)).map(|(x, y)| PlotPoint::new(x, y)).collect();
        let first = self.steps.first().copied().unwrap_or(0.0);
        self.evaluated = [|e: &Evaluation| e.train, |e: &Evaluation| e.held_out].map(|of| {
            let shown = history.evaluations().iter().filter(|e| e.step as f64 >= first && of(e).is_finite());
            shown.map(|e| PlotPoint::new(e.step as f64, axis(f64::from(of(e))))).collect()
        });
        let smooth = smoothed(&column(2).collect::<Vec<_>>(), f64::from(settings.smoothing));
        self.smooth = column(0).zip(smooth.into_iter().map(axis)).map(|(x, y)| PlotPoint::new(x, y)).collect();
    }

    /// Draws the curve into all the room there is.
    pub fn ui(&mut self, ui: &mut Ui, metrics: &Arc<Metrics>, settings: CurveSettings) {
        self.update(metrics, settings);
        let p = style::palette(ui);
        let value = move |v: f64| if settings.log { 10f64.powf(v) } else { v };
        let hover = move |at: &HoverPosition<'_>| match at {
            HoverPosition::NearDataPoint { plot_name, position, .. } => Some(format!(
                "{plot_name}\nstep {}\nloss {:.4}",
                numbers::thousands(position.x as u64),
                value(position.y)
            )),
            HoverPosition::Elsewhere { .. } => None,
        };
        let weak = |c: Color32, alpha: f32| c.gamma_multiply(alpha);
        let plot = Plot::new("loss")
            .show_background(false)
            .grid_color(p.hairline)
            .y_axis_min_width(56.0)
            .x_axis_label("training step")
            .y_axis_label(if ui.available_height() > LABEL_FROM {
                "loss (mean squared error of the noise)"
            } else {
                "loss"
            })
            .label_formatter(hover)
            .show_crosshair(false)
            .allow_scroll(false)
            .auto_bounds(Vec2b::TRUE)
            .set_margin_fraction(egui::vec2(0.01, 0.05));
        let plot = match self.evaluated[1].is_empty() {
            true => plot,
            false => plot.legend(Legend::default().position(Corner::RightTop).background_alpha(0.8)),
        };
        let plot = axes(plot, settings.log);
        let shown = plot.show(ui, |plot| {
            if settings.recent {
                plot.line(
                    Line::new("each step", PlotPoints::Borrowed(&self.raw)).color(weak(p.state, 0.35)).width(1.0),
                );
            } else {
                let band = FilledArea::new("least to largest", &self.steps, &self.low, &self.high);
                plot.add(band.fill_color(weak(p.state, 0.22)).stroke(Stroke::NONE).allow_hover(false));
                let mean = Line::new("mean", PlotPoints::Borrowed(&self.raw));
                plot.line(mean.color(weak(p.state, 0.5)).width(1.0).allow_hover(false));
            }
            plot.line(Line::new("smoothed", PlotPoints::Borrowed(&self.smooth)).color(p.state).width(2.5));
            let [train, held_out] = &self.evaluated;
            if !held_out.is_empty() {
                let train = Line::new("training images", PlotPoints::Borrowed(train)).color(p.weak);
                plot.line(train.style(LineStyle::dashed_dense()).width(1.5));
                plot.line(Line::new("held-out images", PlotPoints::Borrowed(held_out)).color(p.text).width(1.5));
            }
        });
        changes::marks(ui, metrics.history.changes(), &shown.transform);
    }
}

/// The axes of a plot of losses over training steps; on a logarithmic one, values are powers of ten.
pub fn axes(plot: Plot<'_>, log: bool) -> Plot<'_> {
    // over several powers of ten only 1, 2 and 5 are named
    let tick = move |mark: GridMark, wide: bool| {
        let named = !log || !wide || mark.step_size > 0.4;
        let value = if log { 10f64.powf(mark.value) } else { mark.value };
        if named { number(value) } else { String::new() }
    };
    let plot = plot
        .x_axis_formatter(|mark, _| step_mark(mark.value))
        .y_axis_formatter(move |mark, range| tick(mark, range.end() - range.start() > 0.8));
    if log { plot.y_grid_spacer(decades) } else { plot }
}

/// Lines at 1, 2, 5 of each power of ten that is in sight, and fainter ones between: where hardly any is, every tenth.
pub(super) fn decades(input: GridInput) -> Vec<GridMark> {
    let (low, high) = input.bounds;
    let mut marks = Vec::new();
    for decade in (low.floor().max(-12.0) as i32)..=(high.ceil().min(12.0) as i32) {
        for tenths in 10..100 {
            let step_size = match tenths {
                10 => 1.0,
                20 | 50 => 0.5,
                _ if tenths % 10 == 0 => 0.1,
                _ => 0.02,
            };
            marks.push(GridMark { value: f64::from(decade - 1) + f64::from(tenths).log10(), step_size });
        }
    }
    marks.retain(|m| (low..=high).contains(&m.value));
    if marks.iter().filter(|m| m.step_size >= 0.1).count() > 1 {
        marks.retain(|m| m.step_size >= 0.1);
    }
    marks
}

/// There is no half of a training step.
pub(super) fn step_mark(value: f64) -> String {
    if value >= 0.0 && value.fract().abs() < 1e-6 { numbers::thousands(value as u64) } else { String::new() }
}

fn number(v: f64) -> String {
    match v {
        v if v >= 9.95 => format!("{v:.0}"),
        v if v >= 0.995 => format!("{v:.1}"),
        v if v >= 0.0995 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// Draws the choices above the curve. Returns what changed.
pub fn controls(ui: &mut Ui, settings: CurveSettings) -> Option<CurveSettings> {
    let mut s = settings;
    if ui.available_width() > SLIDER_FROM {
        ui.add(egui::Slider::new(&mut s.smoothing, 0.0..=0.99).text("Smoothing").show_value(false))
            .on_hover_text("Weight of the past in the smoothed curve");
        ui.add_space(BODY);
    }
    let axes = [(true, "Logarithmic", "Loss axis (L)"), (false, "Linear", "Loss axis (L)")];
    style::segments(ui, &axes, &mut s.log);
    ui.add_space(BODY);
    let ranges = [(false, "Whole run", "All steps, thinned out"), (true, "Recent", "The newest steps, one by one")];
    style::segments(ui, &ranges, &mut s.recent);
    (s != settings).then_some(s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Changes, StepStats, TrainingState};

    #[test]
    fn smoothing_keeps_the_mean_and_the_place() {
        assert!(smoothed(&[4.0; 5], 0.9).iter().all(|v| (v - 4.0).abs() < 1e-12));
        let wave: Vec<f64> = (0..2000).map(|i| f64::from(i % 2)).collect();
        assert!(smoothed(&wave, 0.99)[100..1900].iter().all(|v| (v - 0.5).abs() < 0.01));
        let ramp: Vec<f64> = (0..500).map(f64::from).collect();
        assert!((smoothed(&ramp, 0.9)[250] - 250.0).abs() < 1e-6, "it does not lag");
        assert_eq!(smoothed(&[1.0, 3.0], 0.0), [1.0, 3.0]);
        assert!(smoothed(&[], 0.5).is_empty());
    }

    #[test]
    fn a_logarithmic_axis_has_lines_however_near_the_values_are() {
        let lines = |low: f64, high: f64| -> Vec<f64> {
            let marks = decades(GridInput { bounds: (low.log10(), high.log10()), base_step_size: 1.0 });
            marks.iter().map(|mark| (1000.0 * 10_f64.powf(mark.value)).round()).collect()
        };
        assert_eq!(lines(0.15, 0.45), [200.0, 300.0, 400.0]);
        assert_eq!(lines(0.255, 0.295), [260.0, 270.0, 280.0, 290.0]);
        assert_eq!(lines(0.95, 1.15), [950.0, 960.0, 970.0, 980.0, 990.0, 1000.0, 1100.0]);
        // and each its own name
        let names = [0.098, 0.099, 0.1, 0.11, 0.95, 0.96, 0.99, 1.0, 1.1, 9.8, 9.9, 10.0, 11.0].map(number);
        let expected =
            ["0.098", "0.099", "0.10", "0.11", "0.95", "0.96", "0.99", "1.0", "1.1", "9.8", "9.9", "10", "11"];
        assert_eq!(names, expected);
    }

    #[test]
    fn values_that_are_no_numbers_leave_the_curve_whole() {
        let mut history = History::default();
        for (step, loss) in [(1, 1.0), (2, f32::NAN), (3, 0.0), (4, f32::INFINITY), (5, 0.1)] {
            history.push(StepStats {
                step,
                loss,
                grad_norm: 1.0,
                learning_rate: 1e-4,
                update_ratio: 1e-3,
                ema_decay: 0.9,
            });
        }
        let metrics = Arc::new(Metrics {
            step: 5,
            total: 5,
            images_per_s: 1.0,
            seconds_left: 0.0,
            preview_share: 0.012,
            state: TrainingState::Running,
            save_failed: None,
            settings: Changes::default(),
            history: Arc::new(history),
            floor: Arc::default(),
            verdicts: Arc::default(),
        });
        for recent in [false, true] {
            let mut curve = Curve::default();
            curve.update(&metrics, CurveSettings { log: true, recent, smoothing: 0.5 });
            assert_eq!(curve.raw.len(), 3);
            assert!(curve.smooth.iter().chain(&curve.raw).all(|p| p.y.is_finite()));
        }
    }
}
