//! Figure 7 of Ho et al. 2020: branches of one picture from x_t at four t; the less noise they leave from, the more they share.

use super::actions::UiAction;
use super::film::whose;
use super::pictures::{Atlas, Map};
use super::state::{AppState, FilmSettings, next_seed};
use super::style::{self, GRID};
use super::tree::ROOT;
use super::window::Window;
use crate::diffusion::Images;
use crate::diffusion::reel::MOST_BRANCHES;
use crate::engine::{Command, Error, ForkRequest, Frame, JobId, Outcome, Provenance, SamplerKind};
use egui::{Align, Align2, Layout, Rect, RichText, Role, Sense, Stroke, StrokeKind, Ui, WidgetInfo, pos2, vec2};

/// Branches of each state.
const BRANCHES: usize = 6;
/// Where they leave the film, in quarters of its length.
const QUARTERS: [usize; 4] = [4, 3, 2, 1];
/// Width of the room for the words beside a row.
const WORDS: f32 = 132.0;
/// Height of the line over the rows.
const HEADER: f32 = 28.0;
/// Between pictures.
const GAP: f32 = 4.0;

/// Branches of one state.
#[derive(Clone, Debug)]
struct Row {
    job: JobId,
    /// The state that they share.
    doses: usize,
    shared: Option<Images>,
    /// The states that they have come to.
    now: Option<(usize, Images)>,
    over: bool,
}

/// The newest figure.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The film that they leave.
    film: JobId,
    /// Which of its pictures.
    picture: usize,
    shape: [usize; 3],
    /// What that film was made from.
    settings: FilmSettings,
    /// Which film that is, in words.
    of: String,
    rows: Vec<Row>,
    by: Option<Provenance>,
}

impl Shared {
    /// Takes in whose it is.
    pub fn begin(&mut self, job: JobId, by: Provenance) {
        if self.rows.iter().any(|row| row.job == job) {
            self.by = Some(by);
        }
    }

    /// Takes in a state of a row.
    pub fn follow(&mut self, job: JobId, frame: &Frame) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.job == job)
            && let Some(images) = frame.pictures(BRANCHES, self.shape)
        {
            if frame.doses == row.doses {
                row.shared = Some(images.clone());
            }
            row.now = Some((frame.doses, images));
        }
    }

    /// Whether the job that is over was one of its rows.
    pub fn finished(&mut self, job: JobId, outcome: &Outcome) -> bool {
        let row = self.rows.iter_mut().find(|row| row.job == job);
        // a row that was not made has come nowhere
        row.is_some_and(|row| {
            row.over = true;
            row.now = row.now.take().filter(|_| !matches!(outcome, Outcome::Failed(_)));
            true
        })
    }

    /// The jobs of the rows that are not over.
    pub fn under_way(&self) -> impl Iterator<Item = JobId> {
        self.rows.iter().filter(|row| !row.over).map(|row| row.job)
    }
}

impl Window {
    /// Branches the film on screen, with its rule and weights as they are at its end; again: the next of its pictures.
    pub(super) fn start_shared(&mut self) {
        let state = &mut self.state;
        let (held, room) = (state.branches.len(), MOST_BRANCHES - QUARTERS.len());
        if held > room {
            let why = format!("{held} branches are held, and this takes {} more", QUARTERS.len());
            let hint = format!("keep {room} of them (Ctrl+B) and delete the others");
            return state.fail(&Error::usage("cannot branch the film", why, hint));
        }
        let chosen = state.branches.chosen();
        let (Some((film, trajectory)), Some(settings)) = (&state.shown().film, state.made(chosen)) else { return };
        let (film, shape, settings) = (*film, trajectory.shape(), settings.clone());
        let (n, beginning) = (trajectory.n(), trajectory.beginning());
        let states = QUARTERS.map(|quarter| trajectory.state(beginning * quarter / QUARTERS.len()));
        let parents = states.iter().map(|doses| state.branches.job(state.branches.parent_at(*doses)));
        let Some(parents) = parents.collect::<Option<Vec<_>>>() else { return };
        let of = match chosen {
            ROOT => format!("seed {}", settings.seed),
            _ => format!("“{}”", state.branches.name(chosen)),
        };
        let mut picture = 0;
        if let Some(old) = state.shared.take() {
            let left: Vec<JobId> = old.under_way().collect();
            self.commands.extend((!left.is_empty()).then_some(Command::Forget(left)));
            if old.film == film {
                picture = (old.picture + 1) % n;
            }
        }
        let request = settings.sample_request();
        let mut seed = settings.seed;
        let mut rows = Vec::new();
        for (doses, parent) in states.into_iter().zip(parents) {
            seed = next_seed(seed);
            let job = state.new_job();
            let fork = ForkRequest {
                parent,
                doses,
                repeat: Some((picture, BRANCHES)),
                predictor: request.predictor,
                sampler: request.sampler,
                clip: request.clip,
                seed,
            };
            self.commands.push(Command::Fork(job, fork));
            rows.push(Row { job, doses, shared: None, now: None, over: false });
        }
        state.shared = Some(Shared { film, picture, shape, settings, of, rows, by: None });
    }

    /// Keeps the rows as far as they have come.
    pub(super) fn stop_shared(&mut self) {
        let left: Vec<JobId> = self.state.shared.iter().flat_map(Shared::under_way).collect();
        self.commands.extend((!left.is_empty()).then_some(Command::Forget(left)));
    }

    /// The worker need not hold a row that is over: its pictures are here.
    pub(super) fn let_go_of_row(&mut self, job: JobId) {
        if self.state.shared.as_ref().is_some_and(|shared| shared.rows.iter().any(|row| row.job == job)) {
            self.commands.push(Command::Forget(vec![job]));
        }
    }
}

/// The view of the figure.
#[derive(Default)]
pub struct SharedView {
    atlas: Atlas,
    holds: Vec<(JobId, Option<usize>)>,
}

impl SharedView {
    /// Draws the view.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        let fill = style::palette(ui).background;
        let frame = egui::Frame::new().fill(fill).inner_margin(egui::Margin::same(16));
        egui::CentralPanel::default().frame(frame).show(ui, |ui| {
            let figure = state.shared.as_ref();
            ui.horizontal(|ui| {
                ui.label(RichText::new("Shared latents").font(style::semibold(style::LARGE)));
                if let Some(figure) = figure {
                    let words = format!("picture {} of {}", figure.picture + 1, figure.of);
                    ui.label(RichText::new(words).color(style::palette(ui).weak));
                }
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    match figure.map(|figure| figure.under_way().next()) {
                        Some(None) => style::labelled_button(ui, "Next picture", &UiAction::StartShared, true, out),
                        Some(Some(_)) => style::button(ui, &UiAction::StopShared, out),
                        None => {}
                    }
                    if let Some(by) = figure.and_then(|figure| figure.by.as_ref()) {
                        let (kind, rest) = whose(by);
                        style::badge(ui, kind, &format!("{rest} · {}", by.sampler)).on_hover_text(&by.model);
                    }
                });
            });
            let Some(figure) = figure else {
                let why = "The film is branched at four t, each time with new noise: what do the pictures share?";
                let mend = state.reverse.made.is_some().then_some(("Branch the film", UiAction::StartShared));
                return style::placeholder(ui, "How much is decided, and when?", why, mend, out);
            };
            self.fill(ui, figure);
            self.rows(ui, figure);
        });
    }

    fn fill(&mut self, ui: &Ui, figure: &Shared) {
        let holds: Vec<_> = figure.rows.iter().map(|r| (r.job, r.now.as_ref().map(|(doses, _)| *doses))).collect();
        if self.holds == holds {
            return;
        }
        let none = Images::zeros(BRANCHES, figure.shape);
        let batches = figure.rows.iter().flat_map(|row| {
            let now = row.now.as_ref().map_or(&none, |(_, images)| images);
            [(row.shared.as_ref().unwrap_or(&none), 1, Map::Picture), (now, BRANCHES, Map::Picture)]
        });
        self.atlas.set(ui, batches);
        self.holds = holds;
    }

    fn rows(&self, ui: &mut Ui, figure: &Shared) {
        let p = style::palette(ui);
        let area = ui.available_rect_before_wrap();
        let count = figure.rows.len() as f32;
        let [_, h, w] = figure.shape.map(|v| v.max(1) as f32);
        // the shared state stands apart by three gaps
        let gaps = BRANCHES as f32 + 3.0;
        let room = vec2(area.width() - WORDS - gaps * GAP, area.height() - HEADER - (count - 1.0) * 2.0 * GRID);
        let exact = (room.x / ((BRANCHES + 1) as f32 * w)).min(room.y / (count * h)) * ui.pixels_per_point();
        let scale = if exact >= 1.0 { exact.floor() } else { exact.max(0.0) } / ui.pixels_per_point();
        let size = vec2(w, h) * scale;
        let width = WORDS + (BRANCHES + 1) as f32 * size.x + gaps * GAP;
        let left = area.left() + ((area.width() - width) / 2.0).max(0.0);
        let column = |i: usize| {
            let apart = if i == 0 { 0.0 } else { 3.0 * GAP };
            left + WORDS + i as f32 * (size.x + GAP) + apart
        };
        let say = |at: f32, top: f32, text: String, font, color| {
            ui.painter().text(pos2(at, top), Align2::LEFT_TOP, text, font, color);
        };
        let top = area.top();
        say(column(0), top, "shared".into(), egui::FontId::proportional(style::SMALL), p.weak);
        let frozen = matches!(figure.settings.sample_request().sampler, SamplerKind::Ddim { eta: 0.0 });
        let head = if frozen {
            "branches: DDIM with η = 0 draws no noise, so all are equal"
        } else {
            "branches, each with its own noise"
        };
        say(column(1), top, head.into(), egui::FontId::proportional(style::SMALL), p.weak);
        for (i, row) in figure.rows.iter().enumerate() {
            let top = area.top() + HEADER + i as f32 * (size.y + 2.0 * GRID);
            let now = row.now.as_ref().map(|(doses, _)| *doses);
            let came = match now {
                Some(0) => "→ t = 0".to_owned(),
                Some(doses) if row.over => format!("stopped at t = {doses}"),
                Some(doses) => format!("→ t = {doses}"),
                None if row.over => "not made".to_owned(),
                None => "waits".to_owned(),
            };
            say(left, top, format!("t = {}", row.doses), style::semibold(style::LARGE), p.text);
            say(left, top + style::LARGE + GRID, came.clone(), egui::FontId::proportional(style::BODY), p.weak);
            if now.is_none() {
                continue;
            }
            for k in 0..=BRANCHES {
                let cell = Rect::from_min_size(pos2(column(k), top), size);
                self.atlas.paint(ui, i * (BRANCHES + 1) + k, cell);
                let edge = if k > 0 && now == Some(0) { p.xstart } else { p.state };
                ui.painter().rect_stroke(cell, 0.0, Stroke::new(1.0, edge), StrokeKind::Outside);
            }
            let whole = Rect::from_min_max(pos2(column(0), top), pos2(column(BRANCHES) + size.x, top + size.y));
            let name = format!("{BRANCHES} branches of x_t at t = {} {came}", row.doses);
            ui.interact(whole, ui.scope_id().with(i), Sense::hover())
                .widget_info(|| WidgetInfo::labeled(Role::Image, true, &name));
        }
    }
}
