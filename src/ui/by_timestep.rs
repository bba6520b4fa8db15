//! The loss by timestep beside the oracle's, and over the run as a map: whether the loss is as low as it can be.

use super::numbers;
use super::style::{self, GRID};
use crate::engine::{Floor, Metrics, timesteps};
use egui::{Color32, ColorImage, RichText, TextureHandle, TextureOptions, Ui, Vec2b, vec2};
use egui_plot::{Corner, FilledArea, HoverPosition, Legend, Line, LineStyle, PlotImage, PlotPoint, PlotPoints};
use std::sync::Arc;

/// Powers of ten between which the map's colours lie.
const MAP_RANGE: [f32; 2] = [-3.0, 0.0];
/// How far below the model's least loss the axis goes, in powers of ten: further down lies only a floor of nearly zero.
const BELOW: f64 = 1.0;
/// Share of the axis that stays free above.
const MARGIN: f64 = 0.05;

/// What is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Loss {
    #[default]
    Simple,
    Bits,
}

/// What this panel keeps for itself.
#[derive(Default)]
pub struct ByTimestep {
    loss: Loss,
    drawn: Option<(Arc<Metrics>, Loss, Color32)>,
    /// Timesteps and logarithms of losses, by bin.
    model: Vec<PlotPoint>,
    floor: Vec<PlotPoint>,
    heat: Option<TextureHandle>,
}

/// Middle of the bin, from 1 dose of noise to `steps`, and the logarithm of its value.
fn points(values: impl Iterator<Item = Option<f32>>, steps: usize) -> Vec<PlotPoint> {
    let point = |(i, value): (usize, Option<f32>)| {
        let all = timesteps::timesteps(i, steps);
        let t = (all.start + all.end + 1) as f64 / 2.0;
        value.filter(|v| *v > 0.0 && !all.is_empty()).map(|v| PlotPoint::new(t, f64::from(v).log10()))
    };
    values.enumerate().filter_map(point).collect()
}

/// "0.0213", or "1.2e−5" where that would be all zeros.
fn number(v: f64) -> String {
    if v >= 1e-3 || v == 0.0 { format!("{v:.4}") } else { format!("{v:.1e}").replace('-', "−") }
}

/// What is known of the bin around the dose `x`.
fn words(model: &[PlotPoint], floor: &[PlotPoint], x: f64) -> Option<String> {
    let near = |points: &[PlotPoint]| points.iter().copied().min_by(|a, b| (a.x - x).abs().total_cmp(&(b.x - x).abs()));
    let model = near(model)?;
    let value = 10_f64.powf(model.y);
    let mut text = format!("t near {:.0}\nloss {}", model.x, number(value));
    if let Some(floor) = near(floor).filter(|floor| floor.x == model.x).map(|floor| 10_f64.powf(floor.y)) {
        text += &format!("\nfloor {}\ngap {}", number(floor), number((value - floor).max(0.0)));
    }
    Some(text)
}

impl ByTimestep {
    /// The choices above the panel.
    pub fn controls(&mut self, ui: &mut Ui) {
        let choices = [
            (Loss::Simple, "L_simple", "Mean squared error of the predicted noise (Ho et al. 2020, Eq. 14)"),
            (Loss::Bits, "L_vlb", "Terms of the variational bound, bits per dimension (Ho et al. 2020, Eq. 12)"),
        ];
        style::segments(ui, &choices, &mut self.loss);
    }

    fn update(&mut self, ui: &Ui, metrics: &Arc<Metrics>, steps: usize) {
        let empty = style::palette(ui).background;
        let is_drawn =
            |(of, loss, on): &(Arc<Metrics>, _, _)| Arc::ptr_eq(of, metrics) && (*loss, *on) == (self.loss, empty);
        if self.drawn.as_ref().is_some_and(is_drawn) {
            return;
        }
        self.drawn = Some((Arc::clone(metrics), self.loss, empty));
        let (by_t, floor) = (metrics.history.timesteps(), &*metrics.floor);
        let (model, floor) = match self.loss {
            Loss::Simple => (by_t.simple(), &floor.simple),
            Loss::Bits => (by_t.bits(), &floor.bits),
        };
        self.model = points(model.iter().map(|average| average.get()), steps);
        self.floor = points(floor.iter().copied(), steps);
        let columns = by_t.columns();
        let size = [columns.len(), timesteps::BINS];
        let [low, high] = MAP_RANGE;
        let cells = (0..timesteps::BINS).rev().flat_map(|bin| columns.iter().map(move |column| column.mean(bin)));
        let color = |loss: Option<f32>| match loss {
            Some(loss) => style::sequential((loss.max(1e-9).log10() - low) / (high - low)),
            None => empty,
        };
        let image = ColorImage::new(size, cells.map(color).collect());
        match &mut self.heat {
            Some(heat) => heat.set(image, TextureOptions::NEAREST),
            None => self.heat = Some(ui.load_texture("loss by timestep", image, TextureOptions::NEAREST)),
        }
    }

    /// Draws both plots into all the room there is, for a schedule of `steps` timesteps.
    pub fn ui(&mut self, ui: &mut Ui, metrics: &Arc<Metrics>, steps: usize) {
        self.update(ui, metrics, steps);
        let size = vec2((ui.available_width() - 2.0 * GRID) / 2.0, (ui.available_height() - 64.0).max(80.0));
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 2.0 * GRID;
            ui.allocate_ui(size, |ui| self.curve(ui, steps));
            ui.allocate_ui(size, |ui| self.map(ui, metrics, steps));
        });
        let weak = style::palette(ui).weak;
        ui.label(style::indexed(&bound_words(metrics, steps), style::BODY, weak));
        ui.label(RichText::new(floor_words(&metrics.floor)).color(weak));
    }

    fn curve(&self, ui: &mut Ui, steps: usize) {
        let p = style::palette(ui);
        let least = self.model.iter().map(|point| point.y).fold(f64::INFINITY, f64::min);
        let bottom = if least.is_finite() { (least - BELOW).floor() } else { -4.0 };
        let top = self.model.iter().chain(&self.floor).map(|point| point.y).fold(bottom + 1.0, f64::max);
        let gap = self.model.iter().filter_map(|m| Some((m, self.floor.iter().find(|f| f.x == m.x)?)));
        let (x, ends): (Vec<f64>, Vec<(f64, f64)>) = gap.map(|(m, f)| (m.x, (f.y.max(bottom).min(m.y), m.y))).unzip();
        let (low, high): (Vec<f64>, Vec<f64>) = ends.into_iter().unzip();
        let label = match self.loss {
            Loss::Simple => "L_simple (error of the noise)",
            Loss::Bits => "L_vlb, bits per dimension and timestep",
        };
        let hover = move |at: &HoverPosition<'_>| match at {
            HoverPosition::NearDataPoint { position, .. } | HoverPosition::Elsewhere { position } => {
                words(&self.model, &self.floor, position.x)
            }
        };
        let label = style::indexed(label, style::BODY, p.text);
        // at small t, the right end, the model's loss is largest
        let plot = style::still_plot(ui, "loss by timestep")
            .legend(Legend::default().position(Corner::RightBottom).background_alpha(0.8))
            .invert_x(true)
            .include_x(0.0)
            .include_x(steps as f64)
            .y_axis_min_width(56.0)
            .x_axis_label("t, from noise to picture")
            .y_axis_label(label)
            .y_axis_formatter(|mark, _| power(mark.value))
            .label_formatter(hover)
            .auto_bounds(Vec2b::TRUE);
        plot.show(ui, |plot| {
            // an oracle's line that goes below leaves the plot
            plot.set_plot_bounds_y(bottom..=top + MARGIN * (top - bottom));
            let area = FilledArea::new("gap", &x, &low, &high).allow_hover(false);
            plot.add(area.fill_color(p.state.gamma_multiply(0.15)).stroke(egui::Stroke::NONE));
            let oracle = Line::new("oracle", PlotPoints::Borrowed(&self.floor)).color(p.oracle).width(2.0);
            plot.line(oracle.style(LineStyle::dashed_dense()).allow_hover(false));
            plot.line(Line::new("model", PlotPoints::Borrowed(&self.model)).color(p.state).width(2.5));
        });
    }

    fn map(&self, ui: &mut Ui, metrics: &Arc<Metrics>, steps: usize) {
        let columns = metrics.history.timesteps().columns();
        let (Some(first), Some(last), Some(heat)) = (columns.first(), columns.last(), &self.heat) else { return };
        let stride = metrics.history.timesteps().stride();
        let begin = if columns.len() > 1 { first.step.saturating_sub(stride) } else { 0 };
        let width = if columns.len() > 1 { stride * columns.len() as u64 } else { last.step };
        let size = vec2(width as f32, steps as f32);
        let center = PlotPoint::new(begin as f64 + width as f64 / 2.0, steps as f64 / 2.0);
        let plot = style::still_plot(ui, "loss over the run")
            .y_axis_min_width(48.0)
            .x_axis_label("training step")
            .y_axis_label("t")
            .show_grid(false)
            .label_formatter(move |at| {
                let (HoverPosition::NearDataPoint { position, .. } | HoverPosition::Elsewhere { position }) = at;
                let column = columns.iter().find(|column| column.step as f64 >= position.x)?;
                let t = (0.0..steps as f64).contains(&position.y).then_some(position.y as usize)?;
                let loss = column.mean(timesteps::bin(t, steps))?;
                let step = numbers::thousands(column.step);
                Some(format!("step {step}, t near {}\nerror of the noise {}", t + 1, number(f64::from(loss))))
            })
            .auto_bounds(Vec2b::TRUE)
            .set_margin_fraction(vec2(0.0, 0.0));
        plot.show(ui, |plot| plot.image(PlotImage::new("L_simple", heat.id(), center, size)));
    }
}

/// A whole power of ten; nothing between.
fn power(log: f64) -> String {
    if log.fract().abs() > 1e-6 {
        return String::new();
    }
    let v = 10_f64.powf(log);
    if v >= 1e-4 { format!("{v}") } else { format!("{v:e}").replace('-', "−") }
}

fn bound_words(metrics: &Metrics, steps: usize) -> String {
    let by_t = metrics.history.timesteps();
    let map = "Map: L_simple of each t over the run, from 0.001, dark, to 1, bright";
    match (by_t.total_bits(steps), by_t.decoder().get()) {
        (Some(total), Some(decoder)) => format!(
            "Bound without L_T: {total:.3} bits/dim on training images, of which L_0, the pixels, {decoder:.3} and the steps {:.3}.  {map}",
            total - decoder
        ),
        _ => format!("The bound is known once every timestep bin has been met.  {map}"),
    }
}

fn floor_words(floor: &Floor) -> String {
    if floor.pictures == 0 {
        let known = floor.simple.iter().flatten().count();
        return format!("Floor: the loss of the exact oracle, {known} of {} bins by now", timesteps::BINS);
    }
    format!(
        "Floor: the oracle of {} training images, {} pictures a bin. It knows them by heart: at small t only a network that \
         memorises comes near",
        numbers::thousands(floor.images as u64),
        floor.pictures
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_stand_at_their_middle_and_empty_ones_nowhere() {
        let values = (0..timesteps::BINS).map(|i| (i != 3).then_some(0.01));
        let points = points(values, 640);
        assert_eq!((points.len(), points[0].x, points[1].x), (63, 5.5, 15.5));
        assert!(points.iter().all(|p| (p.y + 2.0).abs() < 1e-6));
    }

    #[test]
    fn the_gap_is_said_in_plain_numbers() {
        let (model, floor) = ([PlotPoint::new(8.0, -1.0)], [PlotPoint::new(8.0, -2.0)]);
        assert_eq!(words(&model, &floor, 100.0).unwrap(), "t near 8\nloss 0.1000\nfloor 0.0100\ngap 0.0900");
        assert_eq!(words(&model, &[], 0.0).unwrap(), "t near 8\nloss 0.1000");
        assert_eq!(
            (number(1.2e-5), power(-5.0), power(-2.0), power(-2.5)),
            ("1.2e−5".into(), "1e−5".into(), "0.01".into(), String::new())
        );
    }
}
