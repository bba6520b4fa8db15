//! The runs view: a list of the runs in a folder, the curves of several in one plot, notes, and ways to go on from one.

use super::actions::{PathUse, UiAction};
use super::curve::{self, CurveSettings};
use super::numbers;
use super::pictures::{Atlas, Map};
use super::run_form;
use super::schedule;
use super::snapshots::cells;
use super::state::{AppState, RunSettings, typed_path};
use super::style::{self, GRID};
use super::window::Window;
use crate::engine::{BetaSchedule, Command, JobId, ListedRun, Outcome, PredictionType, RunConfig, RunSummary, Source};
use egui::{
    Align, Color32, Label, Layout, Panel, Rect, RichText, Role, ScrollArea, Sense, Ui, UiBuilder, WidgetInfo, vec2,
};
use egui_plot::{Legend, Line, LineStyle, PlotPoint, PlotPoints};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Height of a run in the list.
const ROW: f32 = 72.0;
/// Room for its pictures.
const PICTURES: f32 = 144.0;
/// Curves in one plot: five colours, each solid, dashed and dotted.
const MOST_CURVES: usize = 15;
/// Seconds without a key after which notes are saved.
const IDLE: f64 = 1.0;

/// What is known of the runs in a folder.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// The folder, as typed.
    pub folder: String,
    /// The reading under way.
    job: Option<JobId>,
    /// Runs read, and in all.
    progress: (u64, u64),
    /// Whether that folder was read.
    read: bool,
    /// What was read, the one saved last first.
    pub listed: Vec<Arc<ListedRun>>,
}

impl Runs {
    /// Takes in how far the reading has come.
    pub fn follow(&mut self, job: JobId, done: u64, total: u64) {
        if self.job == Some(job) {
            self.progress = (done, total);
        }
    }

    /// Takes in a run.
    pub fn add(&mut self, job: JobId, run: Arc<ListedRun>) {
        if self.job == Some(job) {
            let place = self.listed.partition_point(|other| other.saved >= run.saved);
            self.listed.insert(place, run);
        }
    }

    /// Whether the job was its own, which is over now.
    pub fn finished(&mut self, job: JobId) -> bool {
        self.job.take_if(|own| *own == job).is_some()
    }
}

impl Window {
    /// Reads the runs folder, if one was chosen.
    pub(super) fn read_runs(&mut self) {
        if let Some(folder) = typed_path(&self.state.runs.folder) {
            let job = self.state.new_job();
            let folder_text = self.state.runs.folder.clone();
            self.state.runs = Runs { folder: folder_text, job: Some(job), read: true, ..Runs::default() };
            self.runs.forget();
            self.commands.push(Command::ReadRuns(job, folder));
        }
    }

    /// Saves the notes that were written last, since their view or the window goes.
    pub(super) fn leave_runs(&mut self) {
        if let Some(draft) = self.runs.draft.take_if(|draft| draft.changed.is_some()) {
            self.save_notes(draft.dir, draft.text);
        }
    }

    /// Saves also the notes that their folders did not take before.
    pub(super) fn leave_all_runs(&mut self) {
        self.leave_runs();
        for (dir, text) in std::mem::take(&mut self.runs.failed) {
            self.save_notes(dir, text);
        }
    }

    /// Keeps notes in a run's folder, and in the list.
    pub(super) fn save_notes(&mut self, dir: PathBuf, notes: String) {
        for run in self.state.runs.listed.iter_mut().filter(|run| run.dir == dir) {
            if let Ok(summary) = &mut Arc::make_mut(run).read {
                summary.notes.clone_from(&notes);
            }
        }
        let job = self.state.new_job();
        self.state.file_jobs.push(job);
        self.runs.failed.remove(&dir);
        self.runs.saving.push((job, dir.clone(), notes.clone()));
        self.commands.push(Command::SaveNotes(job, dir, notes));
    }

    /// Takes in that a job is over: notes that it could not save are not let go of.
    pub(super) fn notes_saved(&mut self, job: JobId, outcome: &Outcome) {
        for (_, dir, text) in self.runs.saving.extract_if(.., |(saving, ..)| *saving == job) {
            if *outcome == Outcome::Done {
                self.runs.failed.remove(&dir);
            } else {
                self.runs.failed.insert(dir, text);
            }
        }
    }
}

/// Notes that are being written.
struct Draft {
    dir: PathBuf,
    text: String,
    /// When the last key was pressed, if that is not saved yet.
    changed: Option<f64>,
}

/// What the view keeps for itself.
#[derive(Default)]
pub struct RunsView {
    /// Runs whose curves are shown, in the order of their colours.
    ticked: Vec<PathBuf>,
    chosen: Option<PathBuf>,
    draft: Option<Draft>,
    /// Notes on their way to their folders.
    saving: Vec<(JobId, PathBuf, String)>,
    /// Notes that their folders did not take.
    failed: BTreeMap<PathBuf, String>,
    /// Pictures of the runs that were in sight.
    pictures: BTreeMap<PathBuf, Atlas>,
    curves: BTreeMap<PathBuf, Vec<PlotPoint>>,
    drawn_with: Option<CurveSettings>,
}

impl RunsView {
    /// Forgets what was made of runs that are read again.
    fn forget(&mut self) {
        (self.pictures, self.curves) = (BTreeMap::new(), BTreeMap::new());
        self.draft.take_if(|draft| draft.changed.is_none());
    }

    /// Draws the view.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, curve: CurveSettings, out: &mut Vec<UiAction>) {
        let frame = egui::Frame::new().fill(style::palette(ui).background).inner_margin(egui::Margin::same(16));
        egui::CentralPanel::default().frame(frame).show(ui, |ui| {
            self.bar(ui, state, out);
            if state.runs.job.is_none() {
                // those of another folder, and those that are gone
                self.ticked.retain(|dir| state.runs.listed.iter().any(|run| run.dir == *dir));
            }
            ui.add_space(GRID);
            if state.runs.listed.is_empty() {
                let (headline, reason) = match (&state.runs.job, state.runs.read) {
                    (Some(_), _) => ("Reading the runs", "They appear here one by one"),
                    (None, true) => ("No runs here", "A run is a folder that a training has saved into"),
                    (None, false) => ("No runs yet", "Choose the folder that your runs are in"),
                };
                let mend = state.runs.job.is_none().then_some(("Choose a folder…", UiAction::AskPath(PathUse::Runs)));
                return style::placeholder(ui, headline, reason, mend, out);
            }
            let width = (ui.available_width() * 0.5).clamp(300.0, 760.0);
            let frame = egui::Frame::new().inner_margin(egui::Margin { right: 16, ..Default::default() });
            Panel::left("runs").resizable(false).exact_size(width).frame(frame).show(ui, |ui| {
                self.list(ui, state);
            });
            let frame = egui::Frame::new().inner_margin(egui::Margin { left: 16, ..Default::default() });
            egui::CentralPanel::default().frame(frame).show(ui, |ui| {
                let chosen = state.runs.listed.iter().find(|run| Some(&run.dir) == self.chosen.as_ref());
                if let Some(run) = chosen {
                    Panel::bottom("run")
                        .resizable(false)
                        .show_separator_line(false)
                        .frame(egui::Frame::new())
                        .show(ui, |ui| self.details(ui, run, out));
                }
                self.plot(ui, state, curve, out);
            });
        });
        self.save_draft(ui, false, out);
    }

    fn bar(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        ui.horizontal(|ui| {
            let mut folder = state.runs.folder.clone();
            ui.label("Folder");
            let width = (ui.available_width() - 420.0).clamp(120.0, 640.0);
            let field = style::text_field(ui, &mut folder, "Runs folder", width).on_hover_text("~ is the home folder");
            let enter = field.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter));
            if folder != state.runs.folder {
                out.push(UiAction::SetRunsFolder(folder));
            }
            if ui.button("Browse…").on_hover_text("Ask the system for the folder that your runs are in").clicked() {
                out.push(UiAction::AskPath(PathUse::Runs));
            }
            style::button(ui, &UiAction::ReadRuns, out);
            if enter {
                out.push(UiAction::ReadRuns);
            }
            let (done, total) = state.runs.progress;
            let words = match state.runs.job {
                Some(_) => format!("{done} of {total}"),
                None if state.runs.read && state.runs.listed.len() == 1 => "1 run".to_owned(),
                None if state.runs.read => format!("{} runs", state.runs.listed.len()),
                None => String::new(),
            };
            ui.label(RichText::new(words).color(style::palette(ui).weak));
        });
    }

    fn list(&mut self, ui: &mut Ui, state: &AppState) {
        let now = SystemTime::now();
        ui.spacing_mut().item_spacing.y = 0.0;
        ScrollArea::vertical().auto_shrink(false).show_rows(ui, ROW, state.runs.listed.len(), |ui, rows| {
            for run in state.runs.listed.get(rows).into_iter().flatten() {
                self.row(ui, run, now);
            }
        });
    }

    fn row(&mut self, ui: &mut Ui, run: &Arc<ListedRun>, now: SystemTime) {
        let p = style::palette(ui);
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), Sense::click());
        let chosen = self.chosen.as_ref() == Some(&run.dir);
        let words = match &run.read {
            Ok(summary) => about(summary, run.saved, now),
            Err(e) => e.why.clone(),
        };
        let name = run.name();
        let spoken = format!("{name}: {words}");
        response.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen, &spoken));
        if chosen || response.hovered() || response.has_focus() {
            ui.painter().rect_filled(rect.shrink2(vec2(0.0, 1.0)), 4.0, if chosen { p.hover } else { p.control });
        }
        let inner = rect.shrink2(vec2(GRID, 4.0));
        let mut ui = ui.new_child(UiBuilder::new().max_rect(inner).layout(Layout::left_to_right(Align::Center)));
        let mark = self.ticked.iter().position(|dir| *dir == run.dir);
        let mut ticked = mark.is_some();
        let room = ticked || self.ticked.len() < MOST_CURVES;
        ui.add_enabled_ui(run.read.is_ok() && room, |ui| {
            let says = "Draw its curve with those of the other ticked runs: fifteen at most";
            let tick = style::checkbox(ui, &mut ticked, "").on_hover_text(says).on_disabled_hover_text(says);
            tick.widget_info(|| WidgetInfo::selected(Role::CheckBox, true, ticked, format!("Curve of {name}")));
        });
        match mark {
            None if ticked => self.ticked.push(run.dir.clone()),
            Some(i) if !ticked => {
                self.ticked.remove(i);
            }
            _ => {}
        }
        self.thumbnail(&mut ui, run);
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            ui.add(Label::new(RichText::new(&name).font(style::semibold(style::BODY))).truncate().selectable(false));
            let color = if run.read.is_ok() { p.weak } else { p.error };
            let small = RichText::new(&words).size(style::SMALL).color(color);
            ui.add(Label::new(small).truncate().selectable(false));
            if let Some((step, _)) = run.read.as_ref().ok().and_then(|summary| summary.pictures.as_ref()) {
                let step = format!("step {} EMA", numbers::thousands(*step));
                style::badge_of(ui, "MODEL", &[&step, step.trim_start_matches("step "), "EMA"]);
            }
        });
        if response.on_hover_text(run.read.as_ref().err().map_or(spoken, ToString::to_string)).clicked() {
            self.chosen = (!chosen).then(|| run.dir.clone());
        }
    }

    fn thumbnail(&mut self, ui: &mut Ui, run: &ListedRun) {
        let (rect, _) = ui.allocate_exact_size(vec2(PICTURES, ui.available_height()), Sense::hover());
        let Some((_, images)) = run.read.as_ref().ok().and_then(|summary| summary.pictures.as_ref()) else { return };
        let atlas = self.pictures.entry(run.dir.clone()).or_insert_with(|| {
            let mut atlas = Atlas::default();
            atlas.set(ui, std::iter::once((images, images.n, Map::Picture)));
            atlas
        });
        let room = Rect::from_min_max(rect.min - vec2(0.0, GRID), rect.max + vec2(0.0, GRID));
        let places = cells(room, atlas.count(), atlas.size(), ui.pixels_per_point());
        places.iter().enumerate().for_each(|(i, place)| atlas.paint(ui, i, *place));
    }

    fn plot(&mut self, ui: &mut Ui, state: &AppState, settings: CurveSettings, out: &mut Vec<UiAction>) {
        if self.drawn_with != Some(settings) {
            (self.drawn_with, self.curves) = (Some(settings), BTreeMap::new());
        }
        let readable = |dir: &Path| {
            let run = state.runs.listed.iter().find(|run| run.dir == dir)?;
            Some((run.name(), run.read.as_ref().ok()?))
        };
        // one that is only looked at is drawn, too, in the next free colour
        let chosen = self.chosen.iter().filter(|dir| !self.ticked.contains(dir) && self.ticked.len() < MOST_CURVES);
        let shown: Vec<_> = self.ticked.iter().chain(chosen).map(|dir| (dir, readable(dir))).collect();
        for (dir, read) in &shown {
            if let Some((_, summary)) = read {
                self.curves.entry((*dir).clone()).or_insert_with(|| points(summary, settings));
            }
        }
        let mut lines = Vec::new();
        for (i, (dir, read)) in shown.iter().enumerate() {
            if let (Some((name, _)), Some(points)) = (read, self.curves.get(*dir)) {
                lines.push((i, name.clone(), points));
            }
        }
        if lines.is_empty() {
            let reason = "Tick runs at the left to lay their curves over each other";
            return style::placeholder(ui, "No curve chosen", reason, None, out);
        }
        let p = style::palette(ui);
        let colors: [Color32; 5] = [p.state, p.eps, p.xstart, p.oracle, p.noise];
        let styles = [LineStyle::Solid, LineStyle::dashed_loose(), LineStyle::dotted_loose()];
        let plot = style::still_plot(ui, "runs")
            .legend(Legend::default())
            .y_axis_min_width(56.0)
            .x_axis_label("training step")
            .y_axis_label("loss (mean squared error of the noise)");
        let plot = curve::axes(plot, settings.log);
        plot.show(ui, |plot| {
            for (i, name, points) in lines {
                let line = Line::new(name, PlotPoints::Borrowed(points)).color(colors[i % colors.len()]).width(2.0);
                plot.line(line.style(styles[i / colors.len() % styles.len()]));
            }
        });
    }

    fn details(&mut self, ui: &mut Ui, run: &ListedRun, out: &mut Vec<UiAction>) {
        ui.add_space(GRID);
        ui.label(RichText::new(run.name()).font(style::semibold(style::LARGE)));
        let summary = match &run.read {
            Ok(summary) => summary,
            Err(e) => {
                ui.add(Label::new(RichText::new(e.to_string()).color(style::palette(ui).error)).wrap());
                return;
            }
        };
        let c = &summary.config;
        let words = format!(
            "batch {}, learning rate {:e}, EMA {}, warm-up {}, seed {}",
            c.batch, c.learning_rate, c.ema_decay, c.warmup, c.seed
        );
        ui.add(Label::new(RichText::new(words).color(style::palette(ui).weak)).truncate());
        ui.horizontal_wrapped(|ui| {
            let says = "A new training with these settings: they can be changed before it starts";
            if ui.button("Start from its settings").on_hover_text(says).clicked() {
                let config = RunConfig { hold_out: true, ..c.clone() };
                let settings = RunSettings { config, ..RunSettings::default() };
                out.push(UiAction::StartFrom(Box::new(settings)));
            }
            if ui.button("Go on with it").on_hover_text("Resume this run from its checkpoint").clicked() {
                let out_dir = run.dir.display().to_string();
                let settings = RunSettings { config: c.clone(), out: out_dir, resume: true };
                out.push(UiAction::StartFrom(Box::new(settings)));
            }
            if ui.button("Open its model").on_hover_text("Make films with it").clicked() {
                out.push(UiAction::UsePath(PathUse::OpenModel, run.dir.clone()));
            }
        });
        self.notes(ui, run, summary, out);
    }

    fn notes(&mut self, ui: &mut Ui, run: &ListedRun, summary: &RunSummary, out: &mut Vec<UiAction>) {
        if self.draft.as_ref().is_none_or(|draft| draft.dir != run.dir) {
            self.save_draft(ui, true, out);
            let text = self.failed.get(&run.dir).unwrap_or(&summary.notes).clone();
            self.draft = Some(Draft { dir: run.dir.clone(), text, changed: None });
        }
        let Some(draft) = &mut self.draft else { return };
        ui.label("Notes");
        let field = egui::TextEdit::multiline(&mut draft.text).desired_rows(3).desired_width(f32::INFINITY);
        let response = ScrollArea::vertical().max_height(96.0).show(ui, |ui| ui.add(field)).inner;
        response.widget_info(|| WidgetInfo::labeled(Role::MultilineTextInput, true, "Notes"));
        if response.changed() {
            draft.changed = Some(ui.input(|i| i.time));
        }
        let left = response.lost_focus();
        response.on_hover_text("Kept in the run's folder");
        self.save_draft(ui, left, out);
    }

    /// Saves notes that no file holds yet: at once if `now`, or else when no key was pressed for a while.
    fn save_draft(&mut self, ui: &Ui, now: bool, out: &mut Vec<UiAction>) {
        let Some((draft, changed)) = self.draft.as_mut().and_then(|d| d.changed.map(|at| (d, at))) else { return };
        let idle = ui.input(|i| i.time) - changed;
        if now || idle >= IDLE {
            draft.changed = None;
            out.push(UiAction::SaveNotes(draft.dir.clone(), draft.text.clone()));
        } else {
            ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(IDLE - idle + 0.01));
        }
    }
}

/// "mnist28 · mnist · step 20,000 of 20,000 · loss 0.0234 · 3 h ago".
fn about(summary: &RunSummary, saved: Option<SystemTime>, now: SystemTime) -> String {
    let RunSummary { config, step, history, .. } = summary;
    let data: Vec<_> = Source::parse(&config.data).places().iter().map(|place| last_name(&place.to_string())).collect();
    let data = data.join(" + ");
    let loss = history.mean_loss(100).map_or_else(String::new, |loss| format!(" · loss {loss:.4}"));
    let age = saved.map_or_else(String::new, |saved| format!(" · {}", age(saved, now)));
    let [step, steps] = [*step, config.steps].map(numbers::thousands);
    let usual = RunConfig::default();
    let schedule = Some(config.beta_schedule.as_str()).filter(|name| *name != usual.beta_schedule);
    let schedule = schedule.map(|name| BetaSchedule::from_name(name).map_or(name, |kind| schedule::name(kind)));
    let predicts = Some(config.prediction_type.as_str()).filter(|name| *name != usual.prediction_type);
    let predicts = predicts.map(|name| PredictionType::from_name(name).map_or(name, |kind| run_form::predicted(kind)));
    let [schedule, predicts] = [(schedule, ""), (predicts, "predicts ")]
        .map(|(name, before)| name.map_or_else(String::new, |name| format!(" · {before}{name}")));
    format!("{}{schedule}{predicts} · {data} · step {step} of {steps}{loss}{age}", config.preset)
}

/// What a path ends with.
fn last_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn age(saved: SystemTime, now: SystemTime) -> String {
    let minutes = now.duration_since(saved).unwrap_or_default().as_secs() / 60;
    match minutes {
        0 => "just now".to_owned(),
        1..60 => format!("{minutes} min ago"),
        60..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", numbers::thousands(minutes / 1440)),
    }
}

fn points(summary: &RunSummary, settings: CurveSettings) -> Vec<PlotPoint> {
    let points: Vec<_> = summary.history.whole().iter().filter(|point| point.loss.is_finite()).collect();
    let losses: Vec<f64> = points.iter().map(|point| f64::from(point.loss)).collect();
    let smooth = curve::smoothed(&losses, f64::from(settings.smoothing));
    let axis = |v: f64| if settings.log { v.max(1e-6).log10() } else { v };
    points.iter().zip(smooth).map(|(point, loss)| PlotPoint::new(point.step as f64, axis(loss))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ages_read_well() {
        let now = SystemTime::now();
        let ago = |seconds| age(now - Duration::from_secs(seconds), now);
        assert_eq!([30, 90, 7200, 259_200].map(ago), ["just now", "1 min ago", "2 h ago", "3 days ago"]);
        assert_eq!(age(now + Duration::from_secs(999), now), "just now", "clocks differ");
    }
}
