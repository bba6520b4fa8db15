//! What the next training learns from: all of its pictures, how many there are of each kind, what could not be read, and the
//! batches as the network gets them.

use super::actions::{PathUse, UiAction};
use super::film_settings::section;
use super::numbers;
use super::pictures::{Atlas, Map};
use super::state::{AppState, Phase, RunSettings};
use super::style::{self, GRID};
use super::window::Window;
use crate::engine::{Command, Dataset, Drawn, JobId, LookRequest, Number, Outcome};
use egui::{
    Align2, DragValue, FontId, Margin, Panel, Rect, RichText, Role, ScrollArea, Sense, Stroke, Ui, Vec2, WidgetInfo,
    pos2, vec2,
};
use std::sync::Arc;

/// Width of the numbers at the left.
const SIDE: f32 = 320.0;
/// Height of a row of numbers.
const ROW: f32 = 22.0;
/// Kinds of size and of colour that are listed by themselves.
const KINDS: usize = 6;
/// Classes, and files that could not be read, on screen at once; more are scrolled to.
const LINES: f32 = 10.0;
/// The least side of a picture, in points.
const PICTURE: f32 = 56.0;

/// The data set of the next training, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Data {
    job: Option<JobId>,
    /// What was asked for last.
    asked: Option<LookRequest>,
    phase: Phase,
    /// Pictures read, and in all.
    progress: Option<(u64, u64)>,
    set: Option<Arc<Dataset>>,
}

impl Data {
    /// Takes in how far reading is.
    pub fn follow(&mut self, job: JobId, done: u64, total: u64) {
        if self.job == Some(job) {
            self.progress = Some((done, total));
        }
    }

    /// Takes in what was read.
    pub fn arrived(&mut self, job: JobId, set: Arc<Dataset>) {
        if self.job == Some(job) {
            self.set = Some(set);
        }
    }

    /// Takes in that `job` is over; whether it was this one.
    pub fn finished(&mut self, job: JobId, outcome: &Outcome) -> bool {
        let own = self.job == Some(job);
        if own {
            self.phase = outcome.into();
        }
        own
    }
}

impl Window {
    /// Asks for the data of the next training, unless they are there or on their way.
    pub(super) fn look_at_data(&mut self, again: bool) {
        let config = &self.state.run.config;
        let plan = match config.validate() {
            Ok(plan) => plan,
            Err(e) if again => return self.state.fail(&e),
            Err(_) => return,
        };
        let (_, shape) = plan.data_place();
        let request = LookRequest { data: config.source(), shape, again: false };
        let data = &self.state.data;
        let known = data.asked.as_ref() == Some(&request) && matches!(data.phase, Phase::Busy | Phase::Done);
        if again || !known {
            let job = self.state.new_job();
            let asked = Some(request.clone());
            self.state.data = Data { job: Some(job), asked, phase: Phase::Busy, progress: None, set: None };
            self.commands.push(Command::Look(job, LookRequest { again, ..request }));
        }
    }

    /// Stops reading.
    pub(super) fn stop_looking(&mut self) {
        let job = self.state.data.job.filter(|_| self.state.data.phase == Phase::Busy);
        self.commands.extend(job.map(Command::Cancel));
    }
}

/// What fills the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shown {
    #[default]
    All,
    Batch,
}

/// What the data view keeps for itself.
#[derive(Default)]
pub struct DataView {
    shown: Shown,
    /// The training step whose batch is shown, from 1.
    step: u64,
    /// Only pictures of this class.
    class: Option<u32>,
    /// The path while it is typed.
    draft: Option<String>,
    /// The numbers of the data that job read.
    summary: Option<(JobId, Summary)>,
    atlas: Atlas,
    /// Which pictures are in the atlas: data, rows, and what decides the order.
    holds: Option<(JobId, std::ops::Range<usize>, Selection)>,
    /// The pictures in their order, and what decides it.
    order: Option<(JobId, Selection, Vec<Drawn>)>,
}

/// How many pictures there are of each kind.
struct Summary {
    classes: Vec<usize>,
    sizes: Vec<(String, usize)>,
    modes: Vec<(String, usize)>,
}

impl Summary {
    fn new(set: &Dataset) -> Self {
        let mut classes = vec![0; set.classes.len()];
        set.labels.iter().for_each(|label| classes[*label as usize] += 1);
        let sizes = set.found.sizes.iter().map(|(size, n)| (size, *n)).collect();
        let modes = set.found.modes.iter().map(|(mode, n)| (mode, *n)).collect();
        Self { classes, sizes: frequent(sizes, |[w, h]| format!("{w} × {h}")), modes: frequent(modes, String::clone) }
    }
}

/// The most frequent kinds, and all others together.
fn frequent<T>(mut kinds: Vec<(&T, usize)>, name: impl Fn(&T) -> String) -> Vec<(String, usize)> {
    // of the same number in the order they came in
    kinds.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let others = kinds.split_off(kinds.len().min(KINDS));
    let mut named: Vec<_> = kinds.into_iter().map(|(kind, n)| (name(kind), n)).collect();
    if !others.is_empty() {
        let count = numbers::thousands(others.len() as u64);
        named.push((format!("{count} others"), others.iter().map(|(_, n)| n).sum()));
    }
    named
}

/// What decides which pictures are shown, and in what order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Selection {
    Class(Option<u32>),
    Batch { seed: u64, step: u64, batch: usize, flip: bool },
}

impl DataView {
    /// Draws the view.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        let p = style::palette(ui);
        let frame = egui::Frame::new().fill(p.background);
        Panel::top("data-source")
            .resizable(false)
            .show_separator_line(false)
            .frame(frame.inner_margin(Margin { left: 16, right: 16, top: 12, bottom: 4 }))
            .show(ui, |ui| self.source(ui, state, out));
        let data = &state.data;
        if let (Some(job), Some(set)) = (data.job, &data.set) {
            let frame = egui::Frame::new().fill(p.panel).inner_margin(Margin::same(16));
            Panel::left("data-numbers").resizable(false).exact_size(SIDE).frame(frame).show(ui, |ui| {
                ScrollArea::vertical().show(ui, |ui| self.numbers(ui, job, set));
            });
            let frame = egui::Frame::new().fill(p.background).inner_margin(Margin::same(16));
            egui::CentralPanel::default().frame(frame).show(ui, |ui| self.pictures(ui, state, job, set, out));
            return;
        }
        egui::CentralPanel::default().frame(frame).show(ui, |ui| match &data.phase {
            Phase::Busy => {
                let reason = match data.progress {
                    Some((0, found)) => format!("{} files found", numbers::thousands(found)),
                    Some((done, total)) => format!("{} of {}", numbers::thousands(done), numbers::thousands(total)),
                    None => "The first pictures come in a moment".to_owned(),
                };
                let stop = Some(("Stop reading", UiAction::StopReading));
                style::placeholder(ui, "Reading the data", &reason, stop, out);
            }
            Phase::Failed(e) => {
                let why = if e.hint.is_empty() { e.why.clone() } else { format!("{}; {}", e.why, e.hint) };
                style::placeholder(ui, "These data cannot be read", &why, again(), out);
            }
            _ => style::placeholder(ui, "Nothing read", "Choose what the next training learns from", again(), out),
        });
    }

    fn source(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
        let p = style::palette(ui);
        ui.horizontal(|ui| {
            ui.label(RichText::new("Data").font(style::semibold(style::LARGE)));
            ui.add_space(GRID);
            let free = state.running_training().is_none();
            ui.add_enabled_ui(free, |ui| {
                let mut text = self.draft.take().unwrap_or_else(|| state.run.config.data.clone());
                let width = (ui.available_width() - 200.0).max(80.0);
                let says = "mnist, IDX or CIFAR files, or folders of images; several with a semicolon between";
                let field = style::text_field(ui, &mut text, "Data", width).on_hover_text(says);
                let field = field.on_disabled_hover_text("It can be changed when this training is over");
                if field.lost_focus() && text != state.run.config.data {
                    let mut run = state.run.clone();
                    run.config.data = text;
                    out.extend([UiAction::SetRun(run), UiAction::ReadData]);
                } else if field.has_focus() {
                    self.draft = Some(text);
                }
                if ui.button("Browse…").on_hover_text("Ask the system for a path").clicked() {
                    out.push(UiAction::AskPath(PathUse::TrainingData));
                }
            });
            style::button(ui, &UiAction::ReadData, out);
        });
        if state.data.asked.as_ref().is_some_and(|asked| asked.data != state.run.config.source()) {
            ui.label(RichText::new("Other data were chosen since; read them to see them").color(p.warning));
        }
    }

    fn numbers(&mut self, ui: &mut Ui, job: JobId, set: &Dataset) {
        let p = style::palette(ui);
        let count = numbers::thousands(set.n as u64);
        ui.label(RichText::new(format!("{count} pictures")).font(style::semibold(style::LARGE)));
        let [c, h, w] = set.shape;
        let colours = if c == 1 { "grey" } else { "RGB" };
        ui.label(RichText::new(format!("The network gets them as {w}×{h} {colours}")).color(p.weak));
        if let Some(held_out) = &set.held_out {
            let count = numbers::thousands(held_out.n as u64);
            let says = format!("{count} more are held out: never trained on, they show whether it memorises");
            ui.label(RichText::new(says).color(p.weak));
        }

        if self.summary.as_ref().is_none_or(|(made, _)| *made != job) {
            self.summary = Some((job, Summary::new(set)));
        }
        let Some((_, Summary { classes, sizes, modes })) = &self.summary else { return };
        let most = classes.iter().copied().max().unwrap_or(1);
        section(ui, &format!("Classes: {}", numbers::thousands(classes.len() as u64)));
        scrolled(ui, "classes", classes.len(), |ui, i| {
            let says = "Show only this class; again: all";
            let chosen = self.class == Some(i as u32);
            if bar(ui, &set.classes[i], classes[i], most, Some(chosen)).on_hover_text(says).clicked() {
                self.class = (!chosen).then_some(i as u32);
                self.shown = Shown::All;
            }
        });
        for (caption, kinds) in [("Width × height on disk", sizes), ("Colours on disk", modes)] {
            section(ui, caption);
            let most = kinds.iter().map(|(_, n)| *n).max().unwrap_or(1);
            kinds.iter().for_each(|(name, n)| drop(bar(ui, name, *n, most, None)));
        }
        match set.skipped.len() {
            0 => section(ui, "All files could be read"),
            n => section(ui, &format!("Not read: {}", numbers::thousands(n as u64))),
        };
        scrolled(ui, "skipped", set.skipped.len(), |ui, i| {
            let (path, why) = &set.skipped[i];
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let text = RichText::new(format!("{name}: {why}")).color(p.warning);
            ui.add(egui::Label::new(text).truncate()).on_hover_text(format!("{}: {why}", path.display()));
        });
    }

    fn pictures(&mut self, ui: &mut Ui, state: &AppState, job: JobId, set: &Dataset, out: &mut Vec<UiAction>) {
        let run = &state.run.config;
        let flip = run.flip.unwrap_or(set.flip);
        self.step = self.step.max(1);
        ui.horizontal(|ui| {
            let choices = [
                (Shown::All, "All pictures", "Every picture of the data"),
                (Shown::Batch, "A training batch", "The pictures of one training step, as the network gets them"),
            ];
            style::segments(ui, &choices, &mut self.shown);
            ui.add_space(GRID);
            if self.shown == Shown::Batch {
                let label = ui.label("Step");
                let step = DragValue::new(&mut self.step).range(1..=run.steps.max(1)).speed(1.0);
                ui.add(step).labelled_by(label.id).on_hover_text("The training step, with the seed of the settings");
                ui.add_space(GRID);
            }
            mirroring(ui, &state.run, set.flip, state.running_training().is_none(), out);
        });
        if self.shown == Shown::Batch
            && let Err(e) = run.check(Number::Batch)
        {
            return style::placeholder(ui, "There is no such batch", &format!("{}; {}", e.why, e.hint), None, out);
        }
        let selection = match self.shown {
            Shown::All => Selection::Class(self.class.filter(|class| (*class as usize) < set.classes.len())),
            Shown::Batch => Selection::Batch { seed: run.seed, step: self.step - 1, batch: run.batch, flip },
        };
        if self.order.as_ref().is_none_or(|(made, for_this, _)| (*made, *for_this) != (job, selection)) {
            self.order = Some((job, selection, ordered(set, selection)));
        }
        let Some((.., order)) = &self.order else { return };
        let what = match selection {
            Selection::Class(None) => format!("DATA · {}, all {}", set.name, numbers::thousands(set.n as u64)),
            Selection::Class(Some(class)) => {
                let n = numbers::thousands(order.len() as u64);
                format!("DATA · {}, the {n} of class {}", set.name, set.classes[class as usize])
            }
            Selection::Batch { step, .. } => {
                let mirrored = order.iter().filter(|d| d.mirrored).count();
                let of = format!("{mirrored} of {} mirrored, underlined", order.len());
                format!("DATA · {}, step {}, {of}", set.name, numbers::thousands(step + 1))
            }
        };
        style::badge(ui, &what, "");
        ui.add_space(4.0);
        gallery(ui, set, order, (job, selection), &mut self.atlas, &mut self.holds);
    }
}

fn again() -> Option<(&'static str, UiAction)> {
    Some(("Read", UiAction::ReadData))
}

/// Whether pictures are mirrored, which belongs to the settings of the run.
fn mirroring(ui: &mut Ui, run: &RunSettings, by_data: bool, free: bool, out: &mut Vec<UiAction>) {
    let usual = if by_data { "as usual: on" } else { "as usual: off" };
    let name = |flip: Option<bool>| match flip {
        None => usual,
        Some(true) => "on",
        Some(false) => "off",
    };
    let mut flip = run.config.flip;
    let label = ui.label("Mirrored at random");
    ui.add_enabled_ui(free, |ui| {
        let list = egui::ComboBox::from_id_salt("flip").selected_text(name(flip)).show_ui(ui, |ui| {
            for choice in [None, Some(true), Some(false)] {
                ui.selectable_value(&mut flip, choice, name(choice));
            }
        });
        let says = "Left and right exchanged with probability 1/2, as in the paper for CIFAR-10; usual for pictures, not for digits";
        list.response.labelled_by(label.id).on_hover_text(says);
    });
    if flip != run.config.flip {
        let mut run = run.clone();
        run.config.flip = flip;
        out.push(UiAction::SetRun(run));
    }
}

fn ordered(set: &Dataset, selection: Selection) -> Vec<Drawn> {
    let plain = |index| Drawn { index, mirrored: false };
    match selection {
        Selection::Class(None) => (0..set.n).map(plain).collect(),
        Selection::Class(Some(class)) => (0..set.n).filter(|i| set.labels[*i] == class).map(plain).collect(),
        Selection::Batch { seed, step, batch, flip } => set.draw(seed, step, batch, flip),
    }
}

/// Rows of pictures of which only those on screen are looked up and on the graphics card.
fn gallery(
    ui: &mut Ui,
    set: &Dataset,
    order: &[Drawn],
    (job, selection): (JobId, Selection),
    atlas: &mut Atlas,
    holds: &mut Option<(JobId, std::ops::Range<usize>, Selection)>,
) {
    let p = style::palette(ui);
    let ppp = ui.pixels_per_point();
    let [_, h, w] = set.shape;
    let scale = (PICTURE * ppp / w.max(h) as f32).round().max(1.0) / ppp;
    let side = vec2(w as f32, h as f32) * scale;
    let cell = side + Vec2::splat(6.0);
    let columns = ((ui.available_width() - 16.0) / cell.x).floor().max(1.0) as usize;
    let rows = order.len().div_ceil(columns);
    ScrollArea::vertical().id_salt(("gallery", job, selection)).auto_shrink(false).show_viewport(ui, |ui, viewport| {
        ui.set_height(rows as f32 * cell.y);
        let first = ((viewport.top() / cell.y).floor().max(0.0) as usize).min(rows);
        let last = ((viewport.bottom() / cell.y).ceil().max(0.0) as usize).min(rows);
        let end = (last * columns).min(order.len());
        let shown = (first * columns).min(end)..end;
        let key = (job, shown.clone(), selection);
        if holds.as_ref() != Some(&key) {
            let images = set.drawn(&order[shown.clone()]);
            atlas.set(ui, std::iter::once((&images, images.n, Map::Picture)));
            *holds = Some(key);
        }
        let corner = ui.max_rect().min;
        let place = |i: usize| {
            let at = vec2((i % columns) as f32 * cell.x, (i / columns) as f32 * cell.y);
            let min = ((corner + at).to_vec2() * ppp).round() / ppp;
            Rect::from_min_size(min.to_pos2(), side)
        };
        for (k, i) in shown.clone().enumerate() {
            let rect = place(i);
            atlas.paint(ui, k, rect);
            if order[i].mirrored {
                let y = rect.bottom() + 2.0;
                ui.painter().hline(rect.x_range(), y, Stroke::new(2.0, p.accent));
            }
        }
        let area = Rect::from_min_size(pos2(corner.x, corner.y + viewport.top()), viewport.size());
        let response = ui.interact(area, ui.scope_id().with("pictures"), Sense::hover());
        let [from, to, all] = [shown.start + 1, shown.end, order.len()].map(|v| numbers::thousands(v as u64));
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, format!("Pictures {from} to {to} of {all}")));
        let under = response.hover_pos().and_then(|at| shown.clone().find(|i| place(*i).contains(at)));
        if let Some(drawn) = under.map(|i| order[i]) {
            let class = &set.classes[set.labels[drawn.index] as usize];
            let mirrored = if drawn.mirrored { ", mirrored" } else { "" };
            response.on_hover_text_at_pointer(format!("Picture {}, class {class}{mirrored}", drawn.index));
        }
    });
}

/// Lines of which some are on screen.
fn scrolled(ui: &mut Ui, name: &str, n: usize, mut line: impl FnMut(&mut Ui, usize)) {
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing.y = 0.0;
        ScrollArea::vertical().id_salt(name).max_height(ROW * LINES).show_rows(ui, ROW, n, |ui, rows| {
            for i in rows {
                ui.allocate_ui(vec2(ui.available_width(), ROW), |ui| line(ui, i));
            }
        });
    });
}

/// A name, a number, and a bar behind both; one that can be chosen says whether it is.
fn bar(ui: &mut Ui, name: &str, n: usize, most: usize, chosen: Option<bool>) -> egui::Response {
    let p = style::palette(ui);
    let sense = if chosen.is_some() { Sense::click() } else { Sense::hover() };
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), sense);
    let rect = rect.shrink2(vec2(0.0, 1.0));
    let mut full = rect;
    full.set_width(rect.width() * n as f32 / most.max(1) as f32);
    ui.painter().rect_filled(full, 2.0, p.hover);
    if chosen == Some(true) || response.has_focus() {
        ui.painter().rect_stroke(rect, 2.0, Stroke::new(2.0, p.accent), egui::StrokeKind::Inside);
    }
    let font = FontId::proportional(style::SMALL);
    let count = numbers::thousands(n as u64);
    let number =
        ui.painter().text(rect.right_center() - vec2(6.0, 0.0), Align2::RIGHT_CENTER, &count, font.clone(), p.text);
    let job = egui::text::LayoutJob {
        wrap: egui::text::TextWrapping::truncate_at_width((number.left() - rect.left() - 14.0).max(8.0)),
        ..egui::text::LayoutJob::simple_singleline(name.to_owned(), font, p.text)
    };
    let galley = ui.painter().layout_job(job);
    ui.painter().galley(pos2(rect.left() + 6.0, rect.center().y - galley.size().y / 2.0), galley, p.text);
    let says = format!("{name}: {count}");
    response.widget_info(|| match chosen {
        Some(on) => WidgetInfo::selected(Role::CheckBox, true, on, &says),
        None => WidgetInfo::labeled(Role::Label, true, &says),
    });
    response
}
