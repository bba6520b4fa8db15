//! The schedule view: how fast a picture drowns. The curves of every schedule with a cursor at the playhead; T and the
//! ends can be changed, and the forward film follows.

use super::actions::UiAction;
use super::bend::{self, End};
use super::film;
use super::film_settings::{WIDTH, section};
use super::pictures::{self, Atlas, Map};
use super::state::{AppState, FilmSettings};
use super::style::{self, GRID, Palette};
use crate::diffusion::Images;
use crate::diffusion::process::prior_bits_per_dim;
use crate::engine::{BetaSchedule, JobId, ModelInfo, Quantity, Schedule, ScheduleConfig};
use egui::{
    Align2, CursorIcon, DragValue, FontId, Panel, Pos2, Rect, RichText, Role, ScrollArea, Sense, Shape, Stroke,
    StrokeKind, Ui, Vec2b, WidgetInfo, vec2,
};
use egui_plot::{Line, LineStyle, PlotBounds, PlotPoint, PlotPoints, PlotResponse, VLine};
use std::ops::RangeInclusive;

/// √ᾱ_T from which x_T still shows the picture.
const SIGNAL_LEFT: f64 = 0.05;
/// Points of a curve.
const POINTS: usize = 500;
const STEPS: RangeInclusive<usize> = 2..=4000;
const BETAS: RangeInclusive<f64> = 1e-6..=0.999;
/// So near to the pointer the curve can be taken hold of.
const REACH: f32 = 18.0;
const GRIP: f32 = 7.0;
/// Width of the names of the curves, and height of each.
const LEGEND: f32 = 160.0;
const LEGEND_ROW: f32 = 24.0;
/// Length of the piece of line beside a name.
const SAMPLE: f32 = 36.0;

/// What is drawn over t.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Curve {
    Beta,
    AlphaBar,
    #[default]
    Signal,
    Noise,
    LogSnr,
    Posterior,
}

impl Curve {
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Beta, "β", "β_t, the variance of one dose of noise (Ho et al. 2020, Eq. 2)"),
        (Self::AlphaBar, "ᾱ", "ᾱ_t, the share of the picture's variance left (Eq. 4)"),
        (Self::Signal, "√ᾱ", "√ᾱ_t, the weight of the picture in x_t (Eq. 4)"),
        (Self::Noise, "√(1−ᾱ)", "√(1−ᾱ_t), the weight of the noise in x_t (Eq. 4)"),
        (Self::LogSnr, "log SNR", "ln(ᾱ_t / (1−ᾱ_t)), the logarithm of the signal-to-noise ratio"),
        (Self::Posterior, "Posterior variance", "β̃_t, the variance of a reverse step if x_0 is known (Eq. 7)"),
    ];

    fn value(self, s: &Schedule, t: usize) -> f64 {
        let alpha_bar = s.alphas_cumprod[t];
        match self {
            Self::Beta => s.betas[t],
            Self::AlphaBar => alpha_bar,
            Self::Signal => alpha_bar.sqrt(),
            Self::Noise => (1.0 - alpha_bar).sqrt(),
            Self::LogSnr => (alpha_bar / (1.0 - alpha_bar)).ln(),
            Self::Posterior => s.posterior_variance[t],
        }
    }
}

/// A schedule's name, and the curve of a quantity over the share of T, where the schedule exists.
type Drawn = (&'static str, Vec<PlotPoint>);

/// What the schedule view keeps for itself.
#[derive(Default)]
pub struct ScheduleView {
    curve: Curve,
    drawn: Option<(ScheduleConfig, Curve)>,
    lines: Vec<Drawn>,
    atlas: Atlas,
    holds: Option<(JobId, usize)>,
    /// The forward film whose pictures' mean square this is.
    mean_square: Option<(JobId, f64)>,
    /// What the pointer holds, while it is down.
    hold: Option<Hold>,
}

/// What is being dragged in the plot.
#[derive(Clone, Copy, Debug)]
enum Hold {
    /// The curve, at step `t`, while the axes stand still.
    Curve { end: End, t: usize, bounds: PlotBounds },
    /// The playhead.
    Playhead,
}

/// Width from which the name of the view has room beside its curves.
const NAME_FROM: f32 = 600.0;

/// What the window calls a schedule.
pub(super) fn name(kind: BetaSchedule) -> &'static str {
    match kind {
        BetaSchedule::Linear => "Linear",
        BetaSchedule::ScaledLinear => "Scaled linear",
        BetaSchedule::Cosine => "Cosine",
        BetaSchedule::Sigmoid => "Sigmoid",
    }
}

/// How the `i`-th curve is drawn.
fn look(p: &Palette, i: usize, chosen: bool) -> (Stroke, LineStyle) {
    let dashes =
        [LineStyle::dashed_dense(), LineStyle::dashed_loose(), LineStyle::dotted_dense(), LineStyle::dotted_loose()];
    match chosen {
        true => (Stroke::new(3.0, p.text), LineStyle::Solid),
        false => (Stroke::new(1.5, p.weak), dashes[i % dashes.len()]),
    }
}

/// The schedule that the view is about: that of the forward film, also while the film is still on its way.
pub(super) fn drawn(state: &AppState) -> Option<Schedule> {
    Schedule::new(&state.settings.schedule.unwrap_or(state.chosen_model()?.schedule_config)).ok()
}

/// What is wrong with a schedule that leaves so much of the picture in x_T, in words.
fn warning(signal_left: f64) -> Option<String> {
    (signal_left > SIGNAL_LEFT).then(|| {
        format!(
            "At t = T the picture still has {:.0} % of its amplitude. Sampling starts from pure noise, which a network \
             trained on this schedule has never seen: its pictures come out wrong. Take more steps or larger doses.",
            100.0 * signal_left
        )
    })
}

impl ScheduleView {
    /// Draws the view for the state at `doses` of the timeline.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, doses: usize, out: &mut Vec<UiAction>) {
        let Some(model) = state.chosen_model() else {
            style::placeholder(ui, "No model", "Open a model to see its schedule", None, out);
            return;
        };
        let config = state.settings.schedule.unwrap_or(model.schedule_config);
        let share = doses as f64 / state.playback.steps().max(1) as f64;
        let fill = style::palette(ui).background;
        let frame = egui::Frame::new().fill(fill).inner_margin(egui::Margin { left: 16, right: 0, top: 0, bottom: 0 });
        Panel::right("schedule-settings").resizable(false).exact_size(WIDTH + 56.0).frame(frame).show(ui, |ui| {
            ScrollArea::vertical().show(ui, |ui| self.side(ui, state, model, config, doses, out));
        });
        ui.horizontal(|ui| {
            if ui.available_width() > NAME_FROM {
                ui.label(RichText::new("Noise schedule").font(style::semibold(style::LARGE)));
                ui.add_space(GRID);
            }
            style::segments(ui, &Curve::ALL, &mut self.curve);
        });
        let edited = self.plot(ui, config, share, |share| {
            out.push(UiAction::Seek((share * state.playback.steps() as f64).round() as usize));
        });
        if edited != config {
            set(state, model, edited, out);
        }
    }

    /// Draws the curves. Returns the schedule as it is to be, and hands `seek` the share of T where the playhead is to be.
    fn plot(&mut self, ui: &mut Ui, config: ScheduleConfig, share: f64, seek: impl FnOnce(f64)) -> ScheduleConfig {
        if self.drawn != Some((config, self.curve)) {
            self.drawn = Some((config, self.curve));
            let all = BetaSchedule::ALL.into_iter();
            let of =
                |kind| Some((name(kind), points(&Schedule::new(&ScheduleConfig { kind, ..config }).ok()?, self.curve)));
            self.lines = all.filter_map(of).collect();
        }
        let p = style::palette(ui);
        let plot = style::still_plot(ui, "schedule")
            .invert_x(true)
            .include_x(0.0)
            .include_x(config.steps as f64)
            .x_axis_label("t, from noise to picture")
            .y_axis_min_width(56.0)
            .auto_bounds(Vec2b::TRUE);
        let shown = plot.show(ui, |plot| {
            match self.hold {
                Some(Hold::Curve { bounds, .. }) => plot.set_plot_bounds(bounds),
                _ => plot.set_auto_bounds(Vec2b::TRUE),
            }
            for (i, (name, points)) in self.lines.iter().enumerate() {
                let (stroke, style) = look(p, i, *name == self::name(config.kind));
                let line = Line::new(*name, PlotPoints::Borrowed(points));
                plot.line(line.color(stroke.color).width(stroke.width).style(style));
            }
            let cursor = VLine::new("playhead", share * config.steps as f64).color(p.accent).width(2.0);
            plot.vline(cursor.allow_hover(false));
        });
        self.legend(ui, shown.response.rect, config);
        self.drag(ui, &shown, config, seek)
    }

    /// Names the curves, each beside a piece of its line, in the corner that they leave free.
    fn legend(&self, ui: &Ui, plot: Rect, config: ScheduleConfig) {
        let p = style::palette(ui);
        let rises = matches!(self.curve, Curve::AlphaBar | Curve::Signal | Curve::LogSnr);
        let size = vec2(LEGEND, self.lines.len() as f32 * LEGEND_ROW + GRID);
        let corner = if rises { plot.left_top() } else { plot.right_top() - vec2(size.x + 2.0 * GRID, 0.0) };
        let place = Rect::from_min_size(corner + vec2(GRID, GRID), size);
        ui.painter().rect(place, 4.0, p.panel, Stroke::new(1.0, p.hairline), StrokeKind::Inside);
        for (i, (name, _)) in self.lines.iter().enumerate() {
            let (stroke, style) = look(p, i, *name == self::name(config.kind));
            let left = place.left_top() + vec2(GRID, GRID / 2.0 + (i as f32 + 0.5) * LEGEND_ROW);
            let line = [left, left + vec2(SAMPLE, 0.0)];
            match style {
                LineStyle::Solid => {
                    ui.painter().line_segment(line, stroke);
                }
                LineStyle::Dotted { spacing } => {
                    ui.painter().extend(Shape::dotted_line(&line, stroke.color, spacing, stroke.width));
                }
                LineStyle::Dashed { length } => {
                    ui.painter().extend(Shape::dashed_line(&line, stroke, length, 0.6 * length));
                }
            }
            let font = FontId::proportional(style::BODY);
            ui.painter().text(line[1] + vec2(GRID, 0.0), Align2::LEFT_CENTER, name, font, p.text);
        }
    }

    /// Lets the pointer bend the chosen curve, or move the playhead from anywhere else.
    fn drag(
        &mut self,
        ui: &Ui,
        shown: &PlotResponse<()>,
        config: ScheduleConfig,
        seek: impl FnOnce(f64),
    ) -> ScheduleConfig {
        let (response, transform) = (&shown.response, &shown.transform);
        let down = response.is_pointer_button_down_on() && ui.input(|i| i.pointer.primary_down());
        let at = response.interact_pointer_pos().filter(|_| down).or(response.hover_pos());
        let Some(at) = at else {
            self.hold = None;
            return config;
        };
        if !down {
            self.hold = None;
        } else if self.hold.is_none() {
            self.hold = Some(match self.near(shown, config, at).filter(|_| bend::has_ends(config.kind)) {
                Some(t) => Hold::Curve { end: End::of(t, config.steps), t, bounds: *transform.bounds() },
                None => Hold::Playhead,
            });
        }
        let pulled = transform.value_from_position(at);
        let near = match self.hold {
            Some(Hold::Playhead) => {
                seek((pulled.x / config.steps as f64).clamp(0.0, 1.0));
                return config;
            }
            Some(Hold::Curve { t, .. }) => t,
            None => match self.near(shown, config, at) {
                Some(t) => t,
                None => return config,
            },
        };
        let edited = match self.hold {
            Some(Hold::Curve { end, t, .. }) => bend::bend(config, end, pulled.y, |s| self.curve.value(s, t)),
            _ => config,
        };
        if !bend::has_ends(config.kind) {
            response
                .clone()
                .on_hover_text_at_pointer("The cosine schedule has no ends to move: choose another to bend it");
            return config;
        }
        if let Ok(schedule) = Schedule::new(&edited) {
            let p = style::palette(ui);
            let grip =
                transform.position_from_point(&PlotPoint::new((near + 1) as f64, self.curve.value(&schedule, near)));
            ui.painter().circle(grip, GRIP, p.accent, Stroke::new(2.0, p.background));
        }
        ui.set_cursor_icon(if self.hold.is_some() { CursorIcon::Grabbing } else { CursorIcon::Grab });
        if self.hold.is_none() {
            let end = End::of(near, config.steps).name();
            let says = format!("Drag the curve: {end} follows; “As trained” takes it back");
            let says = style::indexed(&says, style::BODY, ui.visuals().text_color());
            response.clone().on_hover_text_at_pointer(says);
        }
        edited
    }

    /// The step of the chosen curve that is within reach of `at`.
    fn near(&self, shown: &PlotResponse<()>, config: ScheduleConfig, at: Pos2) -> Option<usize> {
        let (_, points) = self.lines.iter().find(|(name, _)| *name == self::name(config.kind))?;
        let apart = |point: &&PlotPoint| shown.transform.position_from_point(point).distance(at);
        let nearest = points.iter().min_by(|a, b| apart(a).total_cmp(&apart(b)))?;
        (apart(&nearest) < REACH).then(|| nearest.x as usize - 1)
    }

    fn side(
        &mut self,
        ui: &mut Ui,
        state: &AppState,
        model: &ModelInfo,
        config: ScheduleConfig,
        doses: usize,
        out: &mut Vec<UiAction>,
    ) {
        section(ui, "Schedule of the forward film");
        let mut edited = config;
        ui.horizontal_wrapped(|ui| {
            // all four beside each other
            ui.spacing_mut().item_spacing.x = 2.0;
            ui.spacing_mut().button_padding.x = GRID;
            for kind in BetaSchedule::ALL {
                if ui.selectable_label(edited.kind == kind, name(kind)).on_hover_text(kind.name()).clicked() {
                    edited.kind = kind;
                }
            }
        });
        if state.presenting {
            // before what there may be no room for
            self.picture(ui, state, doses);
            ui.add_space(GRID);
        }
        ui.horizontal(|ui| {
            field(ui, "T", "Number of doses", DragValue::new(&mut edited.steps).range(STEPS).speed(2.0));
            let cosine = edited.kind == BetaSchedule::Cosine;
            ui.add_enabled_ui(!cosine, |ui| {
                let ends = [
                    ("β₁", "Variance of the first dose", &mut edited.beta_start),
                    ("β_T", "Variance of the last dose", &mut edited.beta_end),
                ];
                for (name, says, beta) in ends {
                    let speed = *beta * 0.01;
                    field(ui, name, says, DragValue::new(beta).range(BETAS).speed(speed).max_decimals(6));
                }
            });
        });
        ui.add_enabled_ui(state.settings.schedule.is_some(), |ui| {
            let says = "The schedule that the model was trained with";
            if ui.button("As trained").on_hover_text(says).on_disabled_hover_text(says).clicked() {
                edited = model.schedule_config;
            }
        });
        match Schedule::new(&edited) {
            Err(e) => {
                ui.colored_label(style::palette(ui).warning, format!("There is no such schedule: {e}"));
            }
            Ok(schedule) => {
                if edited != config {
                    set(state, model, edited, out);
                }
                self.numbers(ui, state, &schedule);
            }
        }
        if state.settings.schedule.is_some() {
            let says = "The reverse film keeps the schedule that the model was trained with.";
            ui.label(RichText::new(says).color(style::palette(ui).weak));
        }
        if !state.presenting {
            self.picture(ui, state, doses);
        }
    }

    fn numbers(&mut self, ui: &mut Ui, state: &AppState, schedule: &Schedule) {
        let end = schedule.alpha_bar(schedule.steps());
        ui.add_space(GRID);
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 3.0 * GRID;
            let signal = format!("{:.4}", end.sqrt());
            style::readout(ui, "√ᾱ_T", &signal, "0.0000", style::LARGE, "The weight of the picture in x_T");
            if let Some(mean_square) = self.mean_square(state) {
                let gap = format!("{:.2e}", prior_bits_per_dim(end, mean_square)).replace('-', "−");
                let says = "L_T, the prior gap in bits per dimension (Ho et al. 2020, Eq. 5), of the forward film's pictures: \
                            what it costs that x_T is not quite N(0, I)";
                style::readout(ui, "L_T, bits/dim", &gap, "0.00e−00", style::LARGE, says);
            }
        });
        if let Some(text) = warning(end.sqrt()) {
            ui.colored_label(style::palette(ui).warning, text);
        }
    }

    /// E[x_0²] of the forward film's pictures.
    fn mean_square(&mut self, state: &AppState) -> Option<f64> {
        let (job, film) = state.forward.film.as_ref()?;
        if self.mean_square.is_none_or(|(of, _)| of != *job) {
            let x_start = film.view(film.at(0)?, Quantity::State)?;
            let sum: f64 = x_start.data.iter().map(|v| f64::from(*v).powi(2)).sum();
            self.mean_square = Some((*job, sum / x_start.data.len() as f64));
        }
        self.mean_square.map(|(_, value)| value)
    }

    /// The forward film at the playhead.
    fn picture(&mut self, ui: &mut Ui, state: &AppState, doses: usize) {
        let doses = state.forward_doses(doses);
        let Some((job, film)) = &state.forward.film else { return };
        let Some(frame) = film.at(doses) else { return };
        if self.holds != Some((*job, frame.doses)) {
            let Some(images) = film.view(frame, Quantity::State) else { return };
            self.atlas.set(ui, std::iter::once((&images as &Images, 1, Map::Picture)));
            self.holds = Some((*job, frame.doses));
        }
        section(ui, &format!("Forward film at t = {doses} of {}", film.steps()));
        film::data_badge(ui, state, state.forward.source.as_deref());
        let side = ui.available_width().min(ui.available_height().max(96.0)).min(200.0);
        let (area, response) = ui.allocate_exact_size(egui::Vec2::splat(side), Sense::hover());
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, format!("Forward film at t = {doses}")));
        let grid = pictures::layout(area, 1, self.atlas.size(), ui.pixels_per_point());
        let place = Rect::from_min_size(area.min, grid.cells.first().map_or(area.size(), |cell| cell.size()));
        self.atlas.paint(ui, 0, place);
    }
}

/// Makes the forward film on that schedule from now on.
fn set(state: &AppState, model: &ModelInfo, edited: ScheduleConfig, out: &mut Vec<UiAction>) {
    let schedule = (edited != model.schedule_config).then_some(edited);
    out.push(UiAction::SetFilm(FilmSettings { schedule, ..state.settings.clone() }));
}

/// A number with its name before it.
fn field(ui: &mut Ui, name: &str, says: &str, value: DragValue<'_>) {
    let label = ui.label(style::indexed(name, style::BODY, style::palette(ui).weak));
    ui.add(value).labelled_by(label.id).on_hover_text(says);
}

/// A curve over t, thinned out evenly, with both its ends.
fn points(schedule: &Schedule, curve: Curve) -> Vec<PlotPoint> {
    let steps = schedule.steps();
    let n = steps.min(POINTS);
    let at = |i: usize| if n > 1 { i * (steps - 1) / (n - 1) } else { 0 };
    (0..n).map(|i| PlotPoint::new((at(i) + 1) as f64, curve.value(schedule, at(i)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_tutorials_are_warned_about_and_the_paper_is_not() {
        let left = |steps| {
            let s = Schedule::new(&ScheduleConfig { steps, ..Default::default() }).unwrap();
            s.alpha_bar(steps).sqrt()
        };
        assert_eq!(warning(left(1000)), None);
        assert!(warning(left(200)).unwrap().contains("36 %"));
        assert!(warning(left(50)).unwrap().contains("78 %"));
    }

    #[test]
    fn curves_keep_both_ends_and_their_values() {
        for steps in [1, 2, 499, 1000, 4000] {
            let s = Schedule::new(&ScheduleConfig { steps, ..Default::default() }).unwrap();
            for (curve, ..) in Curve::ALL {
                let points = points(&s, curve);
                assert!(points.len() <= POINTS && points.iter().all(|p| p.y.is_finite()));
                assert_eq!((points[0].x, points[points.len() - 1].x), (1.0, steps as f64));
            }
            assert_eq!(points(&s, Curve::Signal)[0].y, s.alphas_cumprod[0].sqrt());
        }
    }
}
