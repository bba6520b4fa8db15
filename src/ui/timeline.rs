//! The one slider over the whole film, with its filmstrip: noise at the left, the picture at the right.

use super::actions::UiAction;
use super::axis::{self, Axis, Scale};
use super::branches::BranchAction;
use super::numbers;
use super::pictures::{Atlas, Map};
use super::style;
use super::symbols::{self, Part};
use super::top_bar;
use super::tree::{Branches, Id};
use crate::engine::{JobId, Quantity, Schedule, Trajectory};
use egui::{
    Align2, CursorIcon, Event, FontId, InputState, Key, MouseWheelUnit, Rect, Response, Sense, Stroke, StrokeKind, Ui,
    Vec2, WidgetInfo, pos2, vec2,
};

/// The row over the strip, where ᾱ is marked.
const MARKS: f32 = 18.0;
const STRIP: f32 = 36.0;
const TICKS: f32 = 20.0;
/// The playhead stands out of the strip by this much.
const GRIP: f32 = 4.0;
/// Radius of the mark where branches leave, and of the room in which it is clicked.
const FORK: f32 = 5.0;
const FORK_REACH: f32 = 9.0;
/// Points that a touchpad scrolls for a notch.
const NOTCH: f32 = 40.0;
/// Room that the words at either end of the ticks take.
const END_WORDS: f32 = 104.0;

/// What the slider runs over.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// T.
    pub steps: usize,
    /// The playhead, in doses.
    pub doses: usize,
    /// The state in which a film begins that was brought back from a picture.
    pub begins: Option<usize>,
    /// The least noisy state that is there.
    pub reached: Option<usize>,
    /// Whether more will come.
    pub growing: bool,
    /// Both ends of the part that repeats.
    pub marks: [Option<usize>; 2],
    /// What the length stands for.
    pub scale: Scale,
    /// The schedule that the marks and the names of the timesteps are of.
    pub schedule: Option<&'a Schedule>,
    /// The film in the strip, and what of it.
    pub film: Option<(JobId, &'a Trajectory, Quantity)>,
    /// What leaves the film.
    pub branches: &'a Branches,
}

impl Span<'_> {
    /// What the schedule calls the state at `doses`.
    fn t(&self, doses: usize) -> usize {
        axis::along(doses, self.steps, self.schedule.map_or(self.steps, Schedule::steps))
    }
}

/// Which thumbnails the strip holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Holds {
    job: JobId,
    quantity: Quantity,
    scale: Scale,
    count: usize,
    /// The first and the one past the last.
    there: [usize; 2],
}

/// The slider.
#[derive(Default)]
pub struct Timeline {
    strip: Atlas,
    holds: Option<Holds>,
    /// Parts of a wheel notch not yet used.
    wheel: f32,
}

impl Timeline {
    /// Draws the slider over the whole width. Returns where the pointer, the wheel or the keys put the playhead.
    pub fn ui(&mut self, ui: &mut Ui, span: Span<'_>, out: &mut Vec<UiAction>) -> Option<usize> {
        let width = ui.available_width().max(1.0);
        ui.spacing_mut().item_spacing.y = 0.0;
        let (marks, _) = ui.allocate_exact_size(vec2(width, MARKS), Sense::hover());
        let (rect, response) = ui.allocate_exact_size(vec2(width, STRIP + TICKS), Sense::click_and_drag());
        let track = Rect::from_min_size(rect.min, vec2(width, STRIP));
        let axis = Axis::new(span.scale, span.steps, span.schedule);
        response.widget_info(|| WidgetInfo::slider(ui.is_enabled(), span.doses as f64, "Timestep"));
        let mut seek = None;
        if (response.is_pointer_button_down_on() || response.clicked())
            && ui.input(|i| !i.pointer.secondary_down())
            && let Some(p) = response.interact_pointer_pos()
        {
            seek = Some(axis.doses((p.x - track.left()) / width));
        }
        seek = self.by_wheel_or_keys(ui, &response, &span).or(seek);
        if ui.is_rect_visible(rect) {
            self.fill_strip(ui, width, &span, &axis);
            let strip = Strip { ui, track, span: &span, axis: &axis };
            self.paint(&strip, seek.unwrap_or(span.doses));
            if response.has_focus() {
                let stroke = Stroke::new(1.0, style::palette(ui).text);
                ui.painter().rect_stroke(track, 2.0, stroke, StrokeKind::Outside);
            }
            seek = quarters(&strip, marks).or(seek);
            if let Some((doses, id)) = forks(&strip) {
                out.push(UiAction::Branch(BranchAction::Choose(id)));
                seek = Some(doses);
            }
        }
        response.context_menu(|ui| {
            for action in [UiAction::SetIn, UiAction::SetOut, UiAction::WholeFilm, UiAction::NextScale] {
                if top_bar::menu_item(ui, &action, out) {
                    ui.close();
                }
            }
        });
        let under = response.hover_pos().map_or(span.doses, |p| axis.doses((p.x - track.left()) / width));
        response.on_hover_cursor(CursorIcon::ResizeHorizontal).on_hover_text_at_pointer(format!(
            "t = {}; drag, click or wheel to go there, right click for more",
            span.t(under)
        ));
        seek.filter(|s| *s != span.doses)
    }

    fn by_wheel_or_keys(&mut self, ui: &Ui, response: &Response, span: &Span<'_>) -> Option<usize> {
        let steps = span.steps.max(1);
        let mut way = 0;
        if response.hovered() {
            self.wheel += ui.input(notches);
            let notches = self.wheel.trunc();
            self.wheel -= notches;
            way += notches as isize * (steps as isize / 100).max(1);
        }
        if response.has_focus() {
            let filter = egui::EventFilter { horizontal_arrows: true, ..Default::default() };
            ui.memory_mut(|m| m.set_focus_lock_filter(response.id, filter));
            let presses = |key| ui.input(|i| i.num_presses(key)) as isize;
            let each = if ui.input(|i| i.modifiers.shift) { 10 } else { 1 };
            way += (presses(Key::ArrowLeft) - presses(Key::ArrowRight)) * each;
        }
        (way != 0).then(|| span.doses.saturating_add_signed(way).min(steps))
    }

    fn fill_strip(&mut self, ui: &Ui, width: f32, span: &Span<'_>, axis: &Axis<'_>) {
        let Some((job, film, quantity)) = span.film else { return };
        let count = (width / (STRIP + 2.0)).round().max(1.0) as usize;
        let reached = film.reached().unwrap_or(usize::MAX);
        let middle = |i: usize| axis.doses((i as f32 + 0.5) / count as f32);
        // the newest state may still lack its prediction
        let at = |i: usize| film.at(axis::along(middle(i), span.steps, film.steps()));
        let frame = |i: usize| at(i).filter(|f| quantity == Quantity::State || f.step().is_some());
        let first = (0..count).find(|i| span.begins.is_none_or(|begins| middle(*i) <= begins)).unwrap_or(count);
        let there = (first..count).take_while(|i| middle(*i) >= reached && frame(*i).is_some()).count();
        let key = Holds { job, quantity, scale: span.scale, count, there: [first, first + there] };
        if self.holds == Some(key) {
            return;
        }
        self.holds = Some(key);
        let map = if quantity == Quantity::PredictedNoise { Map::Noise } else { Map::Picture };
        let thumbs: Vec<_> = (first..first + there).filter_map(|i| film.view(frame(i)?, quantity)).collect();
        self.strip.set(ui, thumbs.iter().map(|images| (images, 1, map)));
    }

    fn paint(&self, strip: &Strip<'_>, doses: usize) {
        let Strip { ui, track, span, .. } = *strip;
        let p = style::palette(ui);
        let painter = ui.painter().with_clip_rect(track.expand2(vec2(GRIP, GRIP)));
        ui.painter().rect_filled(track, 3.0, p.control);
        let frontier = span.reached.map_or(track.left(), |doses| strip.x(doses));
        let start = span.begins.map_or(track.left(), |doses| strip.x(doses));
        let done = Rect::from_x_y_ranges(start..=frontier.max(start), track.y_range());
        ui.painter().rect_filled(done, 3.0, style::MID_GREY);
        if let Some(key) = self.holds.filter(|_| span.film.is_some()) {
            let cell = track.width() / key.count as f32;
            let side = STRIP.min(cell - 2.0).max(1.0);
            for (place, i) in (key.there[0]..key.there[1]).enumerate().take(self.strip.count()) {
                let middle = pos2(track.left() + (i as f32 + 0.5) * cell, track.center().y);
                self.strip.paint(ui, place, Rect::from_center_size(middle, vec2(side, side)));
            }
        }
        if span.growing && track.right() - frontier > 300.0 {
            let [left, steps] = [span.reached.unwrap_or(span.steps), span.steps].map(|n| numbers::thousands(n as u64));
            let text = format!("computing: {left} of {steps} timesteps to come");
            let at = pos2((frontier + track.right()) / 2.0, track.center().y);
            painter.text(at, Align2::CENTER_CENTER, text, FontId::proportional(style::SMALL), p.weak);
        }
        ui.painter().rect_stroke(track, 3.0, Stroke::new(1.0, p.edge), StrokeKind::Outside);
        strip.part();
        strip.ticks();
        let x = strip.x(doses);
        let line = Rect::from_center_size(pos2(x, track.center().y), vec2(3.0, STRIP + 2.0 * GRIP));
        painter.rect_filled(line.expand(1.0), 2.0, p.background);
        painter.rect_filled(line, 1.5, p.accent);
        let grip = Rect::from_center_size(pos2(x, track.bottom() + 1.0), vec2(14.0, 8.0));
        painter.rect(grip, 3.0, p.accent, Stroke::new(1.0, p.background), StrokeKind::Outside);
    }
}

/// How far the wheel was turned in this frame, each notch by itself: smoothed, they would not all be the same.
fn notches(input: &InputState) -> f32 {
    let turned = input.events.iter().map(|event| match event {
        Event::MouseWheel { unit, delta, modifiers, .. } if !modifiers.command => match unit {
            MouseWheelUnit::Point => (delta.x + delta.y) / NOTCH,
            MouseWheelUnit::Line | MouseWheelUnit::Page => delta.x + delta.y,
        },
        _ => 0.0,
    });
    turned.sum()
}

/// Where things stand on the strip.
#[derive(Clone, Copy)]
struct Strip<'a> {
    ui: &'a Ui,
    track: Rect,
    span: &'a Span<'a>,
    axis: &'a Axis<'a>,
}

impl Strip<'_> {
    fn x(&self, doses: usize) -> f32 {
        self.at(self.axis.share(doses))
    }

    fn at(&self, share: f32) -> f32 {
        self.track.left() + share * self.track.width()
    }

    /// Dims what lies outside the part that repeats, and brackets it.
    fn part(&self) {
        let (p, painter, track) = (style::palette(self.ui), self.ui.painter(), self.track);
        let stroke = Stroke::new(3.0, p.text);
        let bracket = |x: f32, inwards: f32, outside: Rect| {
            painter.rect_filled(outside, 0.0, p.background.gamma_multiply(0.7));
            painter.vline(x, track.y_range(), stroke);
            for y in [track.top() + 1.5, track.bottom() - 1.5] {
                painter.hline(x.min(x + inwards)..=x.max(x + inwards), y, stroke);
            }
        };
        let [start, end] = self.span.marks.map(|mark| mark.map(|doses| self.x(doses)));
        if let Some(x) = start {
            bracket(x, 7.0, Rect::from_x_y_ranges(track.left()..=x, track.y_range()));
        }
        if let Some(x) = end {
            bracket(x, -7.0, Rect::from_x_y_ranges(x..=track.right(), track.y_range()));
        }
    }

    fn ticks(&self) {
        let p = style::palette(self.ui);
        let (track, steps) = (self.track, self.span.steps);
        let y = track.bottom() + TICKS;
        let write = |x: f32, text: String, align| {
            self.ui.painter().text(pos2(x, y), align, text, FontId::proportional(style::SMALL), p.weak);
        };
        write(track.left(), format!("noise  t = {}", self.span.t(steps)), Align2::LEFT_BOTTOM);
        write(track.right(), "t = 0  image".to_owned(), Align2::RIGHT_BOTTOM);
        let between = |x: f32| (track.left() + END_WORDS..=track.right() - END_WORDS).contains(&x);
        let Some([noise, picture]) = self.axis.log_snr_range() else {
            for doses in (1..4).map(|quarter| steps * quarter / 4) {
                write(self.x(doses), self.span.t(doses).to_string(), Align2::CENTER_BOTTOM);
            }
            return;
        };
        for value in (-8..=8).map(|i| f64::from(5 * i)) {
            let x = self.at(((value - noise) / (picture - noise)) as f32);
            if between(x) {
                let text = if value == 0.0 { "log-SNR 0".to_owned() } else { format!("{value:+}").replace('-', "−") };
                write(x, text, Align2::CENTER_BOTTOM);
            }
        }
    }
}

/// Marks where branches leave, at the upper edge of the strip; those on the way of the film on screen are filled. Returns the
/// state of a mark that was clicked and the branch to show: the next one of those that leave there.
fn forks(strip: &Strip<'_>) -> Option<(usize, Id)> {
    let (ui, p, branches) = (strip.ui, style::palette(strip.ui), strip.span.branches);
    let on_the_way: Vec<Id> = branches.chain().into_iter().map(|branch| branch.plan.id).collect();
    let mut clicked = None;
    for (doses, ids) in branches.forks() {
        let middle = pos2(strip.x(doses), strip.track.top());
        let place = Rect::from_center_size(middle, Vec2::splat(2.0 * FORK_REACH));
        let response = ui.interact(place, ui.scope_id().with(("fork", doses)), Sense::click());
        let names = ids.iter().map(|id| branches.name(*id)).collect::<Vec<_>>().join(", ");
        response
            .widget_info(|| WidgetInfo::labeled(egui::Role::Button, true, format!("Branch at t = {doses}: {names}")));
        let filled = ids.iter().any(|id| on_the_way.contains(id));
        let ink = if response.hovered() || response.has_focus() { p.text } else { p.state };
        ui.painter().vline(middle.x, strip.track.y_range(), Stroke::new(1.5, ink));
        ui.painter().circle(middle, FORK, if filled { ink } else { p.background }, Stroke::new(2.0, ink));
        let says = format!("Here, at t = {doses}, leaves {names}: go there and show it");
        if response.on_hover_text(says).on_hover_cursor(CursorIcon::PointingHand).clicked() {
            let shown = ids.iter().position(|id| *id == branches.chosen());
            let next = shown.map_or(0, |shown| (shown + 1) % ids.len());
            clicked = ids.get(next).map(|id| (doses, *id));
        }
    }
    clicked
}

/// Marks where each quarter of ᾱ is crossed, in the row over the strip. Returns the state of a mark that was clicked.
fn quarters(strip: &Strip<'_>, row: Rect) -> Option<usize> {
    let schedule = strip.span.schedule?;
    let (ui, p) = (strip.ui, style::palette(strip.ui));
    let mut chosen = None;
    // labels that would touch the one before them are left out
    let mut free = row.right() + 1.0;
    for (quarter, text) in [(0.75, " = ¾"), (0.5, " = ½"), (0.25, " = ¼")] {
        let Some(t) = axis::crossing(schedule, quarter) else { continue };
        let doses = axis::along(t, schedule.steps(), strip.span.steps);
        let parts = [Part::Symbol(symbols::ALPHA_BAR), Part::Text(text)];
        let width = symbols::width(ui, &parts, style::SMALL);
        let x = strip.x(doses);
        let place = Rect::from_center_size(pos2(x, row.center().y - 2.0), vec2(width, row.height()));
        let place = place.translate(vec2((row.right() - place.right()).min(0.0).max(row.left() - place.left()), 0.0));
        ui.painter().vline(x, row.bottom() - 4.0..=row.bottom(), Stroke::new(1.5, p.weak));
        if place.right() > free {
            continue;
        }
        free = place.left() - style::GRID;
        let response = ui.interact(place, ui.scope_id().with(("quarter", t)), Sense::click());
        let name = format!("alphas_cumprod falls to {quarter} at t = {t}");
        response.widget_info(|| WidgetInfo::labeled(egui::Role::Button, true, &name));
        symbols::write(ui, &parts, style::SMALL, place);
        let tooltip = format!("Here, at t = {t}, ᾱ_t falls to {quarter}: go there");
        if response.on_hover_text(tooltip).on_hover_cursor(CursorIcon::PointingHand).clicked() {
            chosen = Some(doses);
        }
    }
    chosen
}
