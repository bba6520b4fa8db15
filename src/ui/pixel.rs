//! One pixel: its neighbourhood, enlarged, and its values over the whole film.

use super::pictures::{Atlas, Map};
use super::state::AppState;
use super::step::{self, Process};
use super::style::{self, GRID};
use super::symbols::{self, Part};
use crate::diffusion::Images;
use crate::diffusion::terms::Factor;
use crate::engine::{JobId, Quantity};
use egui::{Rect, RichText, Role, Sense, Stroke, StrokeKind, Ui, Vec2b, WidgetInfo, pos2, vec2};
use egui_plot::{Line, PlotPoint, PlotPoints, VLine};

/// Pixels on a side of the enlarged neighbourhood.
const PATCH: usize = 7;
const PATCH_SIDE: f32 = 126.0;
/// Share of the height below which the plot has no number beside it.
const LOWEST: f64 = 0.12;
/// Points of a curve.
const POINTS: usize = 500;

/// What the curves on screen were made from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    job: JobId,
    frames: usize,
    at: usize,
    process: Process,
}

/// A value of the pixel over the film.
struct Curve {
    factor: Factor,
    quantity: Quantity,
    points: Vec<PlotPoint>,
}

/// The pixel that is looked at.
#[derive(Default)]
pub struct PixelView {
    /// x and y; the middle of the picture until one is chosen.
    chosen: Option<[usize; 2]>,
    holds: Option<Key>,
    curves: Vec<Curve>,
    patch: Atlas,
    patch_of: Option<(Key, usize)>,
}

/// What is looked at in a picture of `channels`: "Pixel (14, 9)", of a picture in colours its first.
pub fn name([x, y]: [usize; 2], channels: usize) -> String {
    let colour = if channels == 3 { ", red" } else { "" };
    format!("Pixel ({x}, {y}){colour}")
}

impl PixelView {
    /// Looks at another pixel.
    pub fn choose(&mut self, pixel: [usize; 2]) {
        self.chosen = Some(pixel);
    }

    /// The pixel that is looked at in pictures of that size.
    pub fn pixel(&self, [w, h]: [usize; 2]) -> [usize; 2] {
        let [x, y] = self.chosen.unwrap_or([w / 2, h / 2]);
        [x.min(w.max(1) - 1), y.min(h.max(1) - 1)]
    }

    /// The value of a picture at `pixel`, in its first channel.
    pub fn of(images: &Images, [x, y]: [usize; 2]) -> f32 {
        images.data.get(y.min(images.h.max(1) - 1) * images.w + x.min(images.w.max(1) - 1)).copied().unwrap_or_default()
    }

    /// Draws the pixel's neighbourhood, its values at `doses`, and its curves.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        state: &AppState,
        process: Process,
        picture: usize,
        doses: usize,
        lit: Option<Factor>,
    ) {
        let (Some((job, film)), doses) = process.film(state, doses) else { return };
        let [c, h, w] = film.shape();
        let [x, y] = self.pixel([w, h]);
        let at = picture * film.shape().iter().product::<usize>() + y * w + x;
        let key = Key { job: *job, frames: film.len(), at, process };
        if self.holds != Some(key) {
            self.holds = Some(key);
            let wanted: &[(Factor, Quantity)] = match process {
                Process::Reverse => &[
                    (Factor::Noise, Quantity::PredictedNoise),
                    (Factor::State, Quantity::State),
                    (Factor::PredictedStart, Quantity::PredictedStart),
                ],
                Process::Forward => &[(Factor::State, Quantity::State)],
            };
            let every = film.steps().div_ceil(POINTS);
            let curve = |quantity| {
                let mut last = None;
                let points = (0..=film.steps()).rev().step_by(every).filter_map(|doses| {
                    let frame = film.at(doses).filter(|f| last.replace(f.doses) != Some(f.doses))?;
                    Some(PlotPoint::new(frame.doses as f64, film.value(frame, quantity, at)?))
                });
                points.collect()
            };
            let curves = wanted.iter().map(|&(factor, quantity)| Curve { factor, quantity, points: curve(quantity) });
            self.curves = curves.collect();
        }
        let Some(frame) = film.at(doses) else { return };
        ui.spacing_mut().item_spacing.y = 4.0;
        ui.horizontal(|ui| {
            let title = RichText::new(name([x, y], c)).font(style::semibold(style::BODY));
            ui.label(title).on_hover_text("Click a pixel of a picture above to look at it");
            for Curve { factor, quantity, .. } in &self.curves {
                let value = film.value(frame, *quantity, at);
                let value = value.map_or_else(|| "–".into(), |v| format!("{v:+.3}").replace('-', "−"));
                let symbol = step::symbol(*factor, process).by(state.predicts_at(doses));
                let spoken = format!("{} = {value}", symbol.name());
                let parts = [Part::Symbol(symbol), Part::Text(" "), Part::Number(value)];
                let width = symbols::width(ui, &parts, style::BODY);
                let (rect, response) = ui.allocate_exact_size(vec2(width, 24.0), Sense::hover());
                response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &spoken));
                symbols::paint(ui, &parts, style::BODY, rect);
            }
        });
        let area = ui.available_rect_before_wrap();
        let side = PATCH_SIDE.min(area.height() - 2.0).max(1.0);
        if self.patch_of != Some((key, frame.doses)) && area.height() > 40.0 {
            self.patch_of = Some((key, frame.doses));
            let patch = film.view(frame, Quantity::State).map(|images| neighbourhood(&images.picture(picture), [x, y]));
            self.patch.set(ui, patch.iter().map(|images| (images, 1, Map::Picture)));
        }
        let p = style::palette(ui);
        let patch = Rect::from_min_size(area.min + vec2(1.0, 1.0), vec2(side, side));
        self.patch.paint(ui, 0, patch);
        ui.painter().rect_stroke(patch, 0.0, Stroke::new(2.0, p.state), StrokeKind::Outside);
        let cell = Rect::from_center_size(patch.center(), patch.size() / PATCH as f32);
        ui.painter().rect_stroke(cell, 0.0, Stroke::new(2.0, p.warning), StrokeKind::Outside);
        ui.interact(patch, ui.scope_id().with("patch"), Sense::hover())
            .on_hover_text("The pixel and its neighbours in x_t")
            .widget_info(|| WidgetInfo::labeled(Role::Image, true, format!("Neighbours of pixel {x}, {y}")));
        let room = Rect::from_min_max(pos2(patch.right() + 2.0 * GRID, area.top()), area.max);
        ui.scope_builder(egui::UiBuilder::new().max_rect(room), |ui| self.plot(ui, film.steps(), doses, process, lit));
    }

    fn plot(&self, ui: &mut Ui, steps: usize, doses: usize, process: Process, lit: Option<Factor>) {
        let p = style::palette(ui);
        let plot = style::still_plot(ui, "pixel")
            .invert_x(true)
            .x_axis_label("t")
            .y_axis_min_width(36.0)
            .y_axis_formatter(|mark, range| {
                // at the lower end it would stand on the first number of the other axis
                let above = (mark.value - range.start()) / (range.end() - range.start());
                let decimals = (-mark.step_size.log10().round()).max(0.0) as usize;
                if above < LOWEST { String::new() } else { format!("{:.decimals$}", mark.value).replace('-', "−") }
            })
            .include_x(0.0)
            .include_x(steps as f64)
            .include_y(-1.0)
            .include_y(1.0)
            .auto_bounds(Vec2b::TRUE)
            .set_margin_fraction(vec2(0.01, 0.05));
        plot.show(ui, |plot| {
            for Curve { factor, points, .. } in &self.curves {
                let symbol = step::symbol(*factor, process);
                let width = if lit == Some(*factor) { 3.5 } else { 1.5 };
                let name = if *factor == Factor::Noise { "noise" } else { "value" };
                plot.line(Line::new(name, PlotPoints::Borrowed(points)).color(symbol.color(p)).width(width));
            }
            plot.vline(VLine::new("playhead", doses as f64).color(p.accent).width(2.0));
        });
    }
}

/// The pixels around one, at the edge the nearest that there are.
fn neighbourhood(images: &Images, [x, y]: [usize; 2]) -> Images {
    let place = |middle: usize, i: usize, len: usize| (middle + i).saturating_sub(PATCH / 2).min(len - 1);
    let plane = images.w * images.h;
    let value = |i: usize| {
        let (c, row, column) = (i / (PATCH * PATCH), i / PATCH % PATCH, i % PATCH);
        images.data[c * plane + place(y, row, images.h) * images.w + place(x, column, images.w)]
    };
    Images::new(1, [images.c, PATCH, PATCH], (0..images.c * PATCH * PATCH).map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbourhood_has_its_pixel_in_the_middle_and_stays_inside() {
        let images = Images::new(1, [1, 10, 12], (0..120).map(|v| v as f32).collect());
        for (pixel, corner) in [([5, 5], 2 * 12 + 2), ([0, 0], 0), ([11, 9], 6 * 12 + 8)] {
            let patch = neighbourhood(&images, pixel);
            assert_eq!(patch.data[PATCH * PATCH / 2], PixelView::of(&images, pixel));
            assert_eq!(patch.data[0], corner as f32);
        }
        assert_eq!(neighbourhood(&Images::zeros(1, [3, 1, 1]), [0, 0]).data.len(), 3 * PATCH * PATCH);
    }
}
