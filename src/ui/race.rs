//! DDPM's thousand steps beside DDIM's fifty, from the same noise, started together.

use super::actions::UiAction;
use super::film::whose;
use super::pictures::{self, Atlas, Map};
use super::state::AppState;
use super::style::{self, GRID};
use super::window::Window;
use crate::engine::{Command, JobId, Lane, RaceRequest};
use egui::{Align, Layout, RichText, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder, WidgetInfo, vec2};

/// Steps of DDIM.
const DDIM_STEPS: usize = 50;

/// A race, under way or over.
#[derive(Clone, Debug)]
pub struct Race {
    /// Its job.
    pub job: JobId,
    /// Both lanes, once it has begun.
    pub lanes: Option<Box<[Lane; 2]>>,
    /// Whether it is over.
    pub over: bool,
}

impl Race {
    /// A race that was asked for.
    pub fn new(job: JobId) -> Self {
        Self { job, lanes: None, over: false }
    }
}

/// The race of these settings.
fn request(state: &AppState) -> RaceRequest {
    let s = &state.settings;
    RaceRequest { which: s.which, predictor: s.predictor, seed: s.seed, n: s.n, steps: DDIM_STEPS }
}

impl Window {
    /// Starts a race with the model and the seed of the films.
    pub(super) fn start_race(&mut self) {
        if self.has_model() {
            let job = self.state.new_job();
            self.state.race = Some(Race::new(job));
            self.commands.push(Command::Race(job, request(&self.state)));
        }
    }

    /// Ends it where it is.
    pub(super) fn stop_race(&mut self) {
        let job = self.state.race.as_ref().filter(|race| !race.over).map(|race| race.job);
        self.commands.extend(job.map(Command::Cancel));
    }
}

/// Width from which a lane has room for large numbers.
const HUGE_FROM: f32 = 500.0;

/// The view of a race.
#[derive(Default)]
pub struct RaceView {
    atlases: [Atlas; 2],
    holds: [Option<(JobId, usize)>; 2],
}

impl RaceView {
    /// Draws the view.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        let fill = style::palette(ui).background;
        let frame = egui::Frame::new().fill(fill).inner_margin(egui::Margin::same(16));
        egui::CentralPanel::default().frame(frame).show(ui, |ui| {
            ui.horizontal(|ui| {
                ui.label(RichText::new("Race").font(style::semibold(style::LARGE)));
                ui.label(RichText::new("from the same noise, a call each in turn").color(style::palette(ui).weak));
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let Some(race) = &state.race else { return };
                    if race.over {
                        style::labelled_button(ui, "Start again", &UiAction::StartRace, true, out);
                    } else {
                        style::button(ui, &UiAction::StopRace, out);
                    }
                    if let Some([Lane { by, .. }, _]) = race.lanes.as_deref() {
                        let (kind, rest) = whose(by);
                        style::badge(ui, kind, &rest).on_hover_text(&by.model);
                    }
                });
            });
            let lanes = state.race.as_ref().and_then(|race| Some((race.job, race.lanes.as_ref()?)));
            let Some((job, lanes)) = lanes else {
                let why = "DDPM takes every step, DDIM fifty; both start from the same noise";
                let mend = state.model.is_some().then_some(("Start the race", UiAction::StartRace));
                return style::placeholder(ui, "Who is first?", why, mend, out);
            };
            let whole = ui.available_rect_before_wrap();
            for (i, lane) in lanes.iter().enumerate() {
                let mut half = whole;
                half.set_width((whole.width() - 3.0 * GRID) / 2.0);
                let half = half.translate(vec2(i as f32 * (half.width() + 3.0 * GRID), 0.0));
                ui.scope_builder(UiBuilder::new().max_rect(half).id_salt(i), |ui| self.lane(ui, job, i, lane));
            }
        });
    }

    fn lane(&mut self, ui: &mut Ui, job: JobId, i: usize, lane: &Lane) {
        let p = style::palette(ui);
        let ([calls, all], sampler) = (lane.calls, lane.by.sampler);
        let (size, gap) = if ui.available_width() > HUGE_FROM { (style::HUGE, 3.0) } else { (style::LARGE, 1.0) };
        ui.horizontal(|ui| {
            ui.label(RichText::new(sampler).font(style::semibold(size)));
            ui.add_space(gap * GRID);
            let text = format!("{calls:>4} of {all}");
            let says = "Network calls for each picture";
            style::readout(ui, "Calls", &text, "0000 of 0000", size, says);
            ui.add_space(gap * GRID);
            let seconds = format!("{:.1} s", lane.time.as_secs_f64());
            style::readout(ui, "Time", &seconds, "000.0 s", size, "What its calls took");
        });
        if self.holds[i] != Some((job, calls)) {
            self.holds[i] = Some((job, calls));
            self.atlases[i].set(ui, std::iter::once((&*lane.x, lane.x.n, Map::Picture)));
        }
        let area = ui.available_rect_before_wrap();
        let atlas = &self.atlases[i];
        let grid = pictures::layout(area.shrink(4.0), atlas.count(), atlas.size(), ui.pixels_per_point());
        ui.painter().rect_filled(grid.outer, 0.0, style::MID_GREY);
        for (k, cell) in grid.cells.iter().enumerate() {
            atlas.paint(ui, k, *cell);
        }
        let edge = if calls == all { Stroke::new(4.0, p.xstart) } else { Stroke::new(2.0, p.state) };
        ui.painter().rect_stroke(grid.outer, 0.0, edge, StrokeKind::Outside);
        let name = format!("{sampler} at t = {}{}", lane.doses, if calls == all { ", arrived" } else { "" });
        ui.interact(grid.outer, ui.scope_id().with("grid"), Sense::hover())
            .widget_info(|| WidgetInfo::labeled(Role::Image, true, &name));
    }
}
