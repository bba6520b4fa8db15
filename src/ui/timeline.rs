//! The one slider over the whole film, with its filmstrip: noise at the left, the picture at the right.

use super::pictures::{Atlas, Map};
use super::style;
use crate::engine::{JobId, Quantity, Trajectory};
use egui::{Align2, FontId, Key, Rect, Sense, Stroke, StrokeKind, Ui, WidgetInfo, pos2, vec2};

const STRIP: f32 = 40.0;
const TICKS: f32 = 20.0;
/// The playhead stands out of the strip by this much.
const GRIP: f32 = 4.0;

/// What the slider runs over.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// T.
    pub steps: usize,
    /// The playhead, in doses.
    pub doses: usize,
    /// The least noisy state that is there.
    pub reached: Option<usize>,
    /// Whether more will come.
    pub growing: bool,
    /// The film in the strip, and what of it.
    pub film: Option<(JobId, &'a Trajectory, Quantity)>,
}

/// Which thumbnails the strip holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Holds {
    job: JobId,
    quantity: Quantity,
    count: usize,
    there: usize,
}

/// The slider.
#[derive(Default)]
pub struct Timeline {
    strip: Atlas,
    holds: Option<Holds>,
    /// Parts of a wheel notch not yet used.
    wheel: f32,
}

/// Doses at that share of the way from noise to picture.
fn doses_at(share: f32, steps: usize) -> usize {
    ((1.0 - share.clamp(0.0, 1.0)) * steps as f32).round() as usize
}

impl Timeline {
    /// Draws the slider over the whole width. Returns where the pointer, the wheel or the keys put the playhead.
    pub fn ui(&mut self, ui: &mut Ui, span: Span<'_>) -> Option<usize> {
        let width = ui.available_width().max(1.0);
        let (rect, response) = ui.allocate_exact_size(vec2(width, STRIP + TICKS), Sense::click_and_drag());
        let track = Rect::from_min_size(rect.min, vec2(width, STRIP));
        let steps = span.steps.max(1);
        response.widget_info(|| WidgetInfo::slider(ui.is_enabled(), span.doses as f64, "Timestep"));
        let mut seek = None;
        if (response.is_pointer_button_down_on() || response.clicked())
            && let Some(p) = response.interact_pointer_pos()
        {
            seek = Some(doses_at((p.x - track.left()) / width, steps));
        }
        if response.hovered() {
            self.wheel += ui.input(|i| i.smooth_scroll_delta.y + i.smooth_scroll_delta.x) / 40.0;
            let notches = self.wheel.trunc();
            self.wheel -= notches;
            if notches != 0.0 {
                let way = notches as isize * (steps as isize / 100).max(1);
                seek = Some(span.doses.saturating_add_signed(way).min(steps));
            }
        }
        if response.has_focus() {
            let filter = egui::EventFilter { horizontal_arrows: true, ..Default::default() };
            ui.memory_mut(|m| m.set_focus_lock_filter(response.id, filter));
            let way = ui.input(|i| i.num_presses(Key::ArrowLeft) as isize - i.num_presses(Key::ArrowRight) as isize);
            if way != 0 {
                seek = Some(span.doses.saturating_add_signed(way).min(steps));
            }
        }
        if ui.is_rect_visible(rect) {
            self.fill_strip(ui, width, &span);
            self.paint(ui, track, &span, seek.unwrap_or(span.doses));
            if response.has_focus() {
                let stroke = Stroke::new(1.0, style::palette(ui).text);
                ui.painter().rect_stroke(track, 2.0, stroke, StrokeKind::Outside);
            }
        }
        response.on_hover_cursor(egui::CursorIcon::ResizeHorizontal);
        seek.filter(|s| *s != span.doses)
    }

    fn fill_strip(&mut self, ui: &Ui, width: f32, span: &Span<'_>) {
        let Some((job, film, quantity)) = span.film else { return };
        let count = (width / (STRIP + 2.0)).round().max(1.0) as usize;
        let reached = film.reached().unwrap_or(usize::MAX);
        let middle = |i: usize| doses_at((i as f32 + 0.5) / count as f32, film.steps());
        // the newest state may still lack its prediction
        let frame = |i: usize| film.at(middle(i)).filter(|f| quantity == Quantity::State || f.step().is_some());
        let there = (0..count).take_while(|i| middle(*i) >= reached && frame(*i).is_some()).count();
        let key = Holds { job, quantity, count, there };
        if self.holds == Some(key) {
            return;
        }
        self.holds = Some(key);
        let map = if quantity == Quantity::PredictedNoise { Map::Noise } else { Map::Picture };
        let thumbs: Vec<_> = (0..there).filter_map(|i| film.view(frame(i)?, quantity)).collect();
        self.strip.set(ui, thumbs.iter().map(|images| (images, 1, map)));
    }

    fn paint(&self, ui: &Ui, track: Rect, span: &Span<'_>, doses: usize) {
        let p = style::palette(ui);
        let painter = ui.painter().with_clip_rect(track.expand2(vec2(GRIP, GRIP)));
        let x_of = |doses: usize| {
            let share = doses as f32 / span.steps.max(1) as f32;
            track.right() - share * track.width()
        };
        ui.painter().rect_filled(track, 3.0, p.control);
        let frontier = span.reached.map_or(track.left(), x_of);
        let done = Rect::from_x_y_ranges(track.left()..=frontier, track.y_range());
        ui.painter().rect_filled(done, 3.0, style::MID_GREY);
        if let Some(key) = self.holds.filter(|_| span.film.is_some()) {
            let cell = track.width() / key.count as f32;
            let side = STRIP.min(cell - 2.0).max(1.0);
            for i in 0..key.there.min(self.strip.count()) {
                let middle = pos2(track.left() + (i as f32 + 0.5) * cell, track.center().y);
                self.strip.paint(ui, i, Rect::from_center_size(middle, vec2(side, side)));
            }
        }
        if span.growing && track.right() - frontier > 300.0 {
            let left = span.reached.unwrap_or(span.steps);
            let text = format!("computing: {} of {} timesteps to come", style::thousands(left as u64), span.steps);
            let at = pos2((frontier + track.right()) / 2.0, track.center().y);
            painter.text(at, Align2::CENTER_CENTER, text, FontId::proportional(style::SMALL), p.weak);
        }
        self.ticks(ui, track, span.steps, &x_of);
        let x = x_of(doses);
        let line = Rect::from_center_size(pos2(x, track.center().y), vec2(3.0, STRIP + 2.0 * GRIP));
        painter.rect_filled(line.expand(1.0), 2.0, p.background);
        painter.rect_filled(line, 1.5, p.accent);
        let grip = Rect::from_center_size(pos2(x, track.bottom() + 1.0), vec2(14.0, 8.0));
        painter.rect(grip, 3.0, p.accent, Stroke::new(1.0, p.background), StrokeKind::Outside);
    }

    fn ticks(&self, ui: &Ui, track: Rect, steps: usize, x_of: &dyn Fn(usize) -> f32) {
        let p = style::palette(ui);
        let y = track.bottom() + TICKS;
        for quarter in 0..=4 {
            let doses = steps * quarter / 4;
            let (text, align) = match quarter {
                0 => ("t = 0  image".to_owned(), Align2::RIGHT_BOTTOM),
                4 => (format!("noise  t = {steps}"), Align2::LEFT_BOTTOM),
                _ => (doses.to_string(), Align2::CENTER_BOTTOM),
            };
            ui.painter().text(pos2(x_of(doses), y), align, text, FontId::proportional(style::SMALL), p.weak);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_end_is_noise_and_the_right_end_the_picture() {
        assert_eq!([-1.0, 0.0, 0.5, 1.0, 2.0].map(|s| doses_at(s, 1000)), [1000, 1000, 500, 0, 0]);
        assert_eq!(doses_at(f32::NAN, 10), 0);
    }
}
