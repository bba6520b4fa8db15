//! What the model drew at chosen training steps, always from the same noise: a strip over training steps, two sliders, for
//! the training step and for t, and EMA beside raw.

use super::actions::UiAction;
use super::numbers;
use super::pictures::{Atlas, Map};
use super::state::{Phase, Training};
use super::style::{self, GRID};
use crate::diffusion::Images;
use crate::engine::{JobId, Snapshot, Trajectory};
use egui::{
    Align, Align2, CursorIcon, FontId, Layout, Rect, RichText, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder,
    WidgetInfo, pos2, vec2,
};
use std::sync::Arc;

/// Pictures of one training step in the strip, one under the other.
const ROWS: usize = 2;
/// Room for the training step under its pictures.
const CAPTION: f32 = 20.0;
/// The line of the sliders.
const SLIDERS: f32 = style::CONTROL + GRID;
/// Pictures of one copy of the weights side by side.
const COLUMNS: usize = 4;

/// Width that it takes to say what samples cost.
const COST: f32 = 150.0;
/// Width that it takes to say whose they are.
const BADGE: f32 = 240.0;
/// Width of all that stands in the line of the sliders but for these.
const REST: f32 = 700.0;

/// Where a person has moved the sliders.
#[derive(Default)]
pub struct SnapshotsView {
    /// Whether EMA and raw stand in the middle of the view.
    pub enlarged: bool,
    /// The training step; `None` follows the newest.
    step: Option<u64>,
    /// Doses of noise in what is shown.
    doses: usize,
    strip: Atlas,
    sides: [Atlas; 2],
    /// What is in the strip: training, doses, and steps.
    strip_holds: Option<(JobId, usize, Vec<u64>)>,
    /// What is in both sides: training, doses, and step.
    sides_hold: Option<(JobId, usize, u64)>,
}

/// Room for the strip at the whole-number scale that comes nearest to `wish`, and for the sliders over it.
pub fn height(training: &Training, wish: f32, pixels_per_point: f32) -> f32 {
    let tallest = training.snapshots.last().map(|s| s.ema.shape()[1]);
    let tallest = tallest.or(training.preview.as_ref().map(|(_, images)| images.h)).unwrap_or(28);
    let rows = (ROWS * tallest).max(1) as f32;
    let scale = ((wish - CAPTION) * pixels_per_point / rows).round().max(1.0);
    // one point of slack, so that rounding never costs a whole scale
    SLIDERS + rows * scale / pixels_per_point + CAPTION + 1.0
}

impl SnapshotsView {
    /// The snapshot that is looked at.
    fn shown<'a>(&self, training: &'a Training) -> Option<&'a Arc<Snapshot>> {
        let n = training.snapshots.partition_point(|s| self.step.is_none_or(|step| s.step <= step));
        training.snapshots.get(n.saturating_sub(1))
    }

    /// Draws the sliders and the strip.
    pub fn ui(&mut self, ui: &mut Ui, training: &Training, out: &mut Vec<UiAction>) {
        let Some(shown) = self.shown(training) else {
            ui.label(
                RichText::new("Pictures that the model draws, always from the same noise, will stand here")
                    .color(style::palette(ui).weak),
            );
            return;
        };
        let shown = Arc::clone(shown);
        let area = ui.available_rect_before_wrap();
        let (line, strip) = area.split_top_bottom_at_y(area.top() + SLIDERS);
        let line = UiBuilder::new().max_rect(line).layout(Layout::left_to_right(Align::Center));
        self.sliders(&mut ui.new_child(line), training, &shown, out);
        self.columns(&mut ui.new_child(UiBuilder::new().max_rect(strip)), training, &shown);
        ui.allocate_rect(area, Sense::hover());
    }

    fn sliders(&mut self, ui: &mut Ui, training: &Training, shown: &Snapshot, out: &mut Vec<UiAction>) {
        ui.spacing_mut().slider_width = ((ui.available_width() - REST - BADGE) / 2.0).clamp(60.0, 480.0);
        let newest = training.snapshots.len() - 1;
        let mut i = training.snapshots.partition_point(|s| s.step < shown.step);
        let says = "The same noise after so many steps of training; at the right end it follows the newest";
        if slider(ui, "Training step", says, &mut i, newest, &numbers::thousands(shown.step), "00,000,000") {
            self.step = training.snapshots.get(i).filter(|_| i < newest).map(|s| s.step);
        }
        let states = shown.states();
        let last = states.len().saturating_sub(1);
        let mut i = states.iter().position(|doses| *doses <= self.doses).unwrap_or(last);
        let doses = states.get(i).copied().unwrap_or(0);
        if slider(ui, "t", "From noise to picture", &mut i, last, &numbers::thousands(doses as u64), "1,000") {
            self.doses = states.get(i).copied().unwrap_or(0);
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let label = if self.enlarged { "Show the curve" } else { "Enlarge" };
            style::labelled_button(ui, label, &UiAction::EnlargeSnapshots, false, out);
            if training.phase == Phase::Busy {
                style::button(ui, &UiAction::SampleNow, out);
            }
            if let Some(metrics) = training.metrics.as_ref().filter(|_| ui.available_width() > COST + BADGE) {
                let text = format!("samples cost {:.1} %", 100.0 * metrics.preview_share);
                ui.label(RichText::new(text).color(style::palette(ui).weak)).on_hover_text(
                    "Of the time of training. Regular samples wait so that they stay within 5 %; pictures of the steps that \
                     are kept are not counted: they are at most 5 % of the work",
                );
            }
            style::badge_of(ui, "MODEL", &["EMA, step below each", "EMA"]).on_hover_text(
                "What the training's model draws with the moving average of its weights, by DDIM; Enlarge shows the raw \
                 weights beside it",
            );
        });
    }

    fn columns(&mut self, ui: &mut Ui, training: &Training, shown: &Snapshot) {
        let p = style::palette(ui);
        let (area, ppp) = (ui.available_rect_before_wrap(), ui.pixels_per_point());
        let [_, h, w] = shown.ema.shape();
        let exact = (area.height() - CAPTION) * ppp / (ROWS * h.max(1)) as f32;
        let scale = if exact >= 1.0 { exact.floor() } else { exact.max(0.01) } / ppp;
        let side = vec2(w as f32, h as f32) * scale;
        let column = side.x.max(56.0) + GRID;
        let room = ((area.width() + GRID) / column).floor().max(1.0) as usize;
        // a preview shows x_0 only
        let preview = training.preview.as_ref().filter(|(step, images)| {
            self.doses == 0 && [images.h, images.w] == [h, w] && training.snapshots.iter().all(|s| s.step < *step)
        });
        let chosen = spread(training.snapshots.len(), room - usize::from(preview.is_some() && room > 1));
        let mut columns: Vec<(u64, Option<Images>)> = Vec::new();
        let mut steps: Vec<u64> = chosen.iter().filter_map(|i| Some(training.snapshots.get(*i)?.step)).collect();
        steps.extend(preview.filter(|_| room > 1).map(|(step, _)| *step));
        let key = (training.job, self.doses, steps);
        if self.strip_holds.as_ref() != Some(&key) {
            let kept = chosen.iter().filter_map(|i| training.snapshots.get(*i));
            columns.extend(kept.map(|s| (s.step, Snapshot::pictures(&s.ema, self.doses))));
            columns.extend(preview.filter(|_| room > 1).map(|(step, images)| (*step, Some(Images::clone(images)))));
            let batches = columns.iter().filter_map(|(_, images)| Some((images.as_ref()?, ROWS, Map::Picture)));
            self.strip.set(ui, batches);
            self.strip_holds = Some(key.clone());
        }
        for (n, step) in key.2.iter().enumerate() {
            let left = ((area.left() + n as f32 * column) * ppp).round() / ppp;
            let picture = |row: usize| {
                let min = pos2(left, area.top() + row as f32 * (side.y + 1.0 / ppp));
                Rect::from_min_size(min, side)
            };
            (0..ROWS).for_each(|row| self.strip.paint(ui, n * ROWS + row, picture(row)));
            let here = *step == shown.step;
            if here {
                let around = picture(0).union(picture(ROWS - 1)).expand(1.0);
                ui.painter().rect_stroke(around, 0.0, Stroke::new(2.0, p.accent), StrokeKind::Outside);
            }
            let at = pos2(left, picture(ROWS - 1).bottom() + 4.0);
            let font = if here { style::semibold(style::SMALL) } else { FontId::proportional(style::SMALL) };
            let color = if here { p.text } else { p.weak };
            ui.painter().text(at, Align2::LEFT_TOP, numbers::thousands(*step), font, color);
        }
        let response = ui.allocate_rect(area, Sense::click_and_drag());
        let newest = key.2.last().copied().unwrap_or(0);
        let spoken = format!("EMA samples of {} training steps, up to step {newest}", key.2.len());
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &spoken));
        if let Some(at) = response.interact_pointer_pos() {
            let n = ((at.x - area.left()) / column).max(0.0) as usize;
            let picked = key.2.get(n).or(key.2.last()).copied();
            let last = training.snapshots.last().map_or(0, |s| s.step);
            self.step = picked.filter(|step| *step < last);
        }
        response
            .on_hover_cursor(CursorIcon::PointingHand)
            .on_hover_text("MODEL · in training, EMA: always from the same noise; the number is the training step");
    }

    /// Draws EMA and raw of the chosen training step into all the room there is.
    pub fn large(&mut self, ui: &mut Ui, training: &Training) {
        let Some(shown) = self.shown(training).map(Arc::clone) else {
            return style::placeholder(ui, "Nothing drawn yet", "The first pictures come soon", None, &mut Vec::new());
        };
        let films: [(&str, &Trajectory); 2] = [("EMA", &shown.ema), ("raw", &shown.raw)];
        let key = (training.job, self.doses, shown.step);
        if self.sides_hold != Some(key) {
            for (atlas, (_, film)) in self.sides.iter_mut().zip(films) {
                let images = Snapshot::pictures(film, self.doses);
                atlas.set(ui, images.iter().map(|images| (images, images.n, Map::Picture)));
            }
            self.sides_hold = Some(key);
        }
        let area = ui.available_rect_before_wrap();
        let width = (area.width() - 2.0 * GRID) / 2.0;
        let t = shown.ema.at(self.doses).map_or(0, |frame| frame.doses);
        for (i, (atlas, (copy, _))) in self.sides.iter().zip(films).enumerate() {
            let min = pos2(area.left() + i as f32 * (width + 2.0 * GRID), area.top());
            let half = Rect::from_min_size(min, vec2(width, area.height()));
            let mut ui = ui.new_child(UiBuilder::new().max_rect(half));
            let name = training.model.as_ref().map_or("in training", |m| m.name.as_str());
            let whose = format!("{name}, step {}, {copy}, DDIM, t = {t}", numbers::thousands(shown.step));
            style::badge(&mut ui, "MODEL", &whose);
            let rest = ui.available_rect_before_wrap();
            let cells = cells(rest, atlas.count(), atlas.size(), ui.pixels_per_point());
            cells.iter().enumerate().for_each(|(i, cell)| atlas.paint(&ui, i, *cell));
            let response = ui.allocate_rect(rest, Sense::hover());
            let spoken = format!("{} pictures: {whose}", atlas.count());
            response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &spoken));
            response.on_hover_text(match i {
                0 => "The moving average of the weights: what one samples with",
                _ => "The weights as the optimiser left them, from the same noise",
            });
        }
        ui.allocate_rect(area, Sense::hover());
    }
}

/// Places for `n` pictures in rows of four, at a whole-number scale where one fits.
pub fn cells(area: Rect, n: usize, size: [usize; 2], pixels_per_point: f32) -> Vec<Rect> {
    let columns = COLUMNS.min(n).max(1);
    let grid = vec2((columns * size[0]).max(1) as f32, (n.div_ceil(columns) * size[1]).max(1) as f32);
    let room = (area.size() - vec2(GRID, GRID)) * pixels_per_point;
    let exact = (room.x / grid.x).min(room.y / grid.y).max(0.01);
    let scale = if exact >= 1.0 { exact.floor() } else { exact } / pixels_per_point;
    let gap = 1.0 / pixels_per_point;
    let side = vec2(size[0] as f32, size[1] as f32) * scale;
    let place = |v: f32| (v * pixels_per_point).round() / pixels_per_point;
    let corner = pos2(place(area.left()), place(area.top() + GRID));
    (0..n)
        .map(|i| {
            let (x, y) = ((i % columns) as f32, (i / columns) as f32);
            Rect::from_min_size(corner + vec2(x * (side.x + gap), y * (side.y + gap)), side)
        })
        .collect()
}

/// A named slider over `0..=most` with `text` for its place. Returns whether it was moved.
fn slider(ui: &mut Ui, name: &str, tooltip: &str, i: &mut usize, most: usize, text: &str, widest: &str) -> bool {
    let label = ui.label(name);
    let slider = egui::Slider::new(i, 0..=most).show_value(false);
    let moved = ui.add_enabled(most > 0, slider).labelled_by(label.id).on_hover_text(tooltip).changed();
    let font = style::mono(style::BODY);
    let width = ui.painter().layout_no_wrap(widest.to_owned(), font.clone(), style::palette(ui).text).size().x;
    let value = egui::Label::new(RichText::new(text).font(font));
    ui.allocate_ui_with_layout(vec2(width + GRID, style::CONTROL), Layout::left_to_right(Align::Center), |ui| {
        ui.set_min_width(width + GRID);
        ui.add(value);
    });
    moved
}

/// `room` of `n` places, evenly, with the first and the last.
fn spread(n: usize, room: usize) -> Vec<usize> {
    if n <= room {
        return (0..n).collect();
    }
    if room <= 1 {
        return vec![n - 1];
    }
    (0..room).map(|i| i * (n - 1) / (room - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_strip_keeps_its_ends() {
        assert_eq!(spread(3, 5), [0, 1, 2]);
        assert_eq!(spread(9, 3), [0, 4, 8]);
        assert_eq!(spread(24, 1), [23]);
        assert_eq!(spread(24, 7).len(), 7);
    }

    #[test]
    fn pictures_stand_in_rows_of_four_inside_their_room() {
        for (n, ppp) in [(1, 1.0), (8, 1.0), (8, 1.5)] {
            let area = Rect::from_min_size(pos2(10.3, 7.0), vec2(600.0, 330.0));
            let cells = cells(area, n, [28, 28], ppp);
            assert_eq!(cells.len(), n);
            assert!(cells.iter().all(|cell| area.expand(1.0).contains_rect(*cell)));
            let scale = cells[0].width() * ppp / 28.0;
            assert!(scale >= 3.0 && (scale - scale.round()).abs() < 1e-3, "{scale}");
        }
        assert!(cells(Rect::ZERO, 8, [28, 28], 1.0).iter().all(|cell| cell.is_finite()));
    }
}
