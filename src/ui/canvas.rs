//! A picture drawn with the mouse, on the model's own grid.

use super::pictures::{self, Atlas, Map};
use super::style::{self, GRID};
use crate::diffusion::Images;
use crate::engine::ForwardSource;
use egui::{CursorIcon, PointerButton, Rect, Role, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo, vec2};
use std::sync::Arc;

/// Width of the brush as a share of the picture's: about that of a pen in MNIST.
const BRUSH: f32 = 0.045;

/// A picture that is being drawn.
#[derive(Default)]
pub struct Canvas {
    shape: [usize; 3],
    /// c·h·w bytes, 0 black.
    pixels: Vec<u8>,
    /// What the picture was before the stroke under way, and how far the stroke covers each pixel.
    before: Vec<u8>,
    covered: Vec<f32>,
    last: Option<Vec2>,
    ink: [u8; 3],
    atlas: Atlas,
    stale: bool,
}

impl Canvas {
    /// A white brush, on what was drawn before if that has this `shape` = [c, h, w], or on black.
    pub fn new(shape: [usize; 3], source: &ForwardSource) -> Self {
        let [c, h, w] = shape;
        let pixels = match source {
            ForwardSource::Drawn(bytes) if bytes.len() == c * h * w => bytes.to_vec(),
            _ => vec![0; c * h * w],
        };
        Self {
            shape,
            before: pixels.clone(),
            pixels,
            covered: vec![0.0; h * w],
            ink: [255; 3],
            stale: true,
            ..Self::default()
        }
    }

    /// Whether pictures of this shape can be drawn on it.
    pub fn fits(&self, shape: [usize; 3]) -> bool {
        self.shape == shape
    }

    /// Draws the canvas into `area`, its tools under it. Returns the picture when a stroke ends or all is cleared.
    pub fn ui(&mut self, ui: &mut Ui, area: Rect) -> Option<Arc<[u8]>> {
        let mut tools = area;
        tools.set_top((area.bottom() - style::CONTROL - GRID).max(area.top()));
        let cleared = self.tools(ui, tools);
        let drawn = self.paper(ui, Rect::from_min_max(area.min, tools.right_top()));
        (cleared || drawn).then(|| self.pixels.as_slice().into())
    }

    fn tools(&mut self, ui: &mut Ui, area: Rect) -> bool {
        let mut cleared = false;
        ui.scope_builder(egui::UiBuilder::new().max_rect(area.shrink2(vec2(0.0, GRID / 2.0))), |ui| {
            ui.horizontal(|ui| {
                if self.shape[0] == 3 {
                    ui.color_edit_button_srgb(&mut self.ink).on_hover_text("Colour of the brush");
                } else {
                    let inks = [([255; 3], "White", "Draw"), ([0; 3], "Black", "Rub out")];
                    style::segments(ui, &inks, &mut self.ink);
                }
                cleared = ui.button("Clear").on_hover_text("A black picture").clicked();
                let says = "Draw with the mouse; the right button rubs out";
                ui.label(egui::RichText::new(says).color(style::palette(ui).weak));
            });
        });
        if cleared {
            *self = Self { ink: self.ink, ..Self::new(self.shape, &ForwardSource::Data) };
        }
        cleared
    }

    fn paper(&mut self, ui: &Ui, area: Rect) -> bool {
        let [_, h, w] = self.shape;
        let place = pictures::layout(area.shrink(2.0), 1, [w, h], ui.pixels_per_point()).cells.first().copied();
        let Some(place) = place.filter(|p| p.is_positive()) else { return false };
        let response = ui.interact(place, ui.scope_id().with("canvas"), Sense::drag());
        response.widget_info(|| WidgetInfo::labeled(Role::Canvas, true, "Your picture"));
        let mut ended = false;
        let rubs = response.dragged_by(PointerButton::Secondary);
        if let Some(at) = response.interact_pointer_pos().filter(|_| response.dragged() || response.drag_started()) {
            let scale = vec2(w as f32 / place.width(), h as f32 / place.height());
            self.draw((at - place.min) * scale, if rubs { [0; 3] } else { self.ink });
        }
        if response.drag_stopped() {
            self.lift();
            ended = true;
        }
        if std::mem::take(&mut self.stale) {
            let values = self.pixels.iter().map(|b| f32::from(*b) / 127.5 - 1.0).collect();
            self.atlas.set(ui, std::iter::once((&Images::new(1, self.shape, values), 1, Map::Picture)));
        }
        self.atlas.paint(ui, 0, place);
        let stroke = Stroke::new(2.0, style::palette(ui).state);
        ui.painter().rect_stroke(place, 0.0, stroke, StrokeKind::Outside);
        response.on_hover_cursor(CursorIcon::Crosshair);
        ended
    }

    /// The brush goes on to `at`, in pixels of the picture.
    fn draw(&mut self, at: Vec2, ink: [u8; 3]) {
        let [c, h, w] = self.shape;
        let from = self.last.replace(at).unwrap_or(at);
        let radius = (BRUSH * w.max(h) as f32).max(0.6);
        for (i, covered) in self.covered.iter_mut().enumerate() {
            let centre = vec2((i % w) as f32 + 0.5, (i / w) as f32 + 0.5);
            let far = distance(centre, from, at);
            *covered = covered.max((radius + 0.5 - far).clamp(0.0, 1.0));
            for (plane, ink) in ink.into_iter().enumerate().take(c) {
                let before = f32::from(self.before[plane * h * w + i]);
                let value = before + (f32::from(ink) - before) * *covered;
                self.pixels[plane * h * w + i] = value.round() as u8;
            }
        }
        self.stale = true;
    }

    /// The stroke is over.
    fn lift(&mut self) {
        self.last = None;
        self.before.clone_from(&self.pixels);
        self.covered.fill(0.0);
    }
}

/// Of `p` from the line between `a` and `b`.
fn distance(p: Vec2, a: Vec2, b: Vec2) -> f32 {
    let (way, to) = (b - a, p - a);
    let share = if way == Vec2::ZERO { 0.0 } else { (to.dot(way) / way.dot(way)).clamp(0.0, 1.0) };
    (to - way * share).length()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stroke_leaves_an_even_line_and_black_rubs_it_out() {
        let mut canvas = Canvas::new([1, 28, 28], &ForwardSource::Data);
        for x in [4.0, 4.5, 12.0, 20.0] {
            canvas.draw(vec2(x, 14.0), [255; 3]);
        }
        canvas.lift();
        let pixel = |canvas: &Canvas, x: usize, y: usize| canvas.pixels[y * 28 + x];
        for x in 5..20 {
            assert_eq!([12, 13, 14, 15].map(|y| pixel(&canvas, x, y)), [66, 255, 255, 66], "at {x}");
        }
        assert_eq!((pixel(&canvas, 12, 10), pixel(&canvas, 25, 14)), (0, 0));
        canvas.draw(vec2(12.0, 14.0), [0; 3]);
        canvas.lift();
        assert_eq!((pixel(&canvas, 12, 13), pixel(&canvas, 6, 13)), (0, 255));
    }

    #[test]
    fn colours_cover_each_other_and_strokes_outside_do_nothing() {
        let mut canvas = Canvas::new([3, 8, 16], &ForwardSource::Data);
        canvas.draw(vec2(4.0, 4.0), [255, 0, 0]);
        canvas.lift();
        canvas.draw(vec2(4.5, 4.5), [0, 0, 255]);
        canvas.draw(vec2(-50.0, 900.0), [0, 0, 255]);
        canvas.lift();
        let at = 4 * 16 + 4;
        assert_eq!([0, 128, 256].map(|plane| canvas.pixels[plane + at]), [0, 0, 255]);
        assert!(canvas.pixels[..128].iter().any(|v| *v > 0), "the first stroke still shows at its edge");
        let before = canvas.pixels.clone();
        canvas.draw(vec2(-90.0, -90.0), [0, 255, 0]);
        canvas.lift();
        assert_eq!(canvas.pixels, before);
    }
}
