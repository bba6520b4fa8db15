//! A run of another program, or another process of this one, watched from outside: its newest numbers, the curve of one of
//! them, and its pictures.

use super::actions::{UiAction, View};
use super::curve::{self, CurveSettings};
use super::film_settings::{WIDTH, section};
use super::numbers;
use super::pictures::{Atlas, Map};
use super::state::AppState;
use super::style::{self, GRID};
use super::window::Window;
use crate::engine::{Command, JobId, Run, STRIP, Watched};
use egui::{Align, FontId, Layout, Margin, Panel, Rect, RichText, ScrollArea, Sense, Ui, pos2, vec2};
use egui_plot::{Line, PlotPoints};
use std::path::PathBuf;
use std::sync::Arc;

/// Room for the step under a picture.
const CAPTION: f32 = 20.0;
/// The part of the view that pictures take, if there are some.
const PICTURES: f32 = 0.34;

/// What is watched.
#[derive(Clone, Debug)]
pub struct Watching {
    job: JobId,
    path: PathBuf,
    /// All that was read, once something was.
    seen: Option<Arc<Watched>>,
}

impl Watching {
    /// Whether it is that job.
    pub fn is(&self, job: JobId) -> bool {
        self.job == job
    }

    /// Takes in what was read by now.
    pub fn follow(&mut self, job: JobId, seen: Arc<Watched>) {
        if self.is(job) {
            self.seen = Some(seen);
        }
    }
}

impl Window {
    /// Watches the runs in a folder.
    pub(super) fn watch(&mut self, path: PathBuf) {
        self.stop_watch();
        let job = self.state.new_job();
        self.view = View::Training;
        self.state.presenting = false;
        self.state.watching = Some(Watching { job, path: path.clone(), seen: None });
        self.commands.push(Command::Watch(job, path));
    }

    /// Ends that.
    pub(super) fn stop_watch(&mut self) {
        self.commands.extend(self.state.watching.take().map(|watching| Command::Cancel(watching.job)));
    }
}

/// What the view keeps for itself.
#[derive(Default)]
pub struct WatchView {
    /// The chosen run and tags, by name.
    run: String,
    scalar: String,
    pictures: String,
    atlas: Atlas,
    /// What the atlas holds.
    holds: Option<(Arc<Watched>, String, String)>,
}

impl WatchView {
    /// Draws the view, if something is watched.
    pub fn ui(&mut self, ui: &mut Ui, state: &AppState, settings: CurveSettings, out: &mut Vec<UiAction>) {
        let Some(watching) = &state.watching else { return };
        let p = style::palette(ui);
        let run = watching.seen.as_ref().and_then(|seen| self.choose(seen));
        let (Some(seen), Some(run)) = (&watching.seen, run) else {
            egui::CentralPanel::default().frame(egui::Frame::new().fill(p.background)).show(ui, |ui| {
                let place = watching.path.display();
                let reason = match &watching.seen {
                    None => format!("Reading {place}"),
                    Some(seen) => match seen.problems.first() {
                        Some(problem) => problem.clone(),
                        None => format!("There are no TensorBoard event files in {place} yet; they are looked for"),
                    },
                };
                let stop = Some(("Stop watching", UiAction::StopWatch));
                style::placeholder(ui, "Nothing to show yet", &reason, stop, out);
            });
            return;
        };
        let frame = egui::Frame::new().fill(p.panel).inner_margin(Margin::same(16));
        Panel::right("watched").resizable(false).exact_size(WIDTH).frame(frame).show(ui, |ui| {
            ScrollArea::vertical().show(ui, |ui| self.side(ui, seen, run));
        });
        let frame = egui::Frame::new().fill(p.background);
        if !run.pictures.is_empty() {
            let height = ui.available_height() * PICTURES;
            Panel::bottom("watched-pictures")
                .resizable(false)
                .show_separator_line(false)
                .frame(frame.inner_margin(Margin { left: 16, right: 16, top: 4, bottom: 12 }))
                .exact_size(height)
                .show(ui, |ui| self.strips(ui, seen, run));
        }
        egui::CentralPanel::default()
            .frame(frame.inner_margin(Margin { left: 16, right: 16, top: 8, bottom: 0 }))
            .show(ui, |ui| {
                let bar = vec2(ui.available_width(), style::CONTROL);
                ui.allocate_ui_with_layout(bar, Layout::right_to_left(Align::Center), |ui| {
                    out.extend(controls(ui, settings).map(UiAction::SetCurve));
                    ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                        style::button(ui, &UiAction::StopWatch, out);
                        let text = format!("{} · only read", watching.path.display());
                        ui.add(egui::Label::new(RichText::new(text).color(p.weak)).truncate());
                    });
                });
                if let Some(problem) = seen.problems.first() {
                    ui.label(RichText::new(problem).color(p.warning));
                }
                self.curve(ui, run, settings);
            });
    }

    /// Keeps to what was chosen while it is there; else the first run, its loss, and its first pictures.
    fn choose<'a>(&mut self, seen: &'a Watched) -> Option<&'a Run> {
        let run = seen.runs.iter().find(|run| run.name == self.run).or_else(|| seen.runs.first())?;
        self.run.clone_from(&run.name);
        if !run.scalars.contains_key(&self.scalar) {
            let tags = || run.scalars.keys();
            let loss = tags().find(|tag| tag.to_lowercase().contains("loss")).or_else(|| tags().next());
            self.scalar = loss.cloned().unwrap_or_default();
        }
        if !run.pictures.contains_key(&self.pictures) {
            self.pictures = run.pictures.keys().next().cloned().unwrap_or_default();
        }
        Some(run)
    }

    fn side(&mut self, ui: &mut Ui, seen: &Watched, run: &Run) {
        ui.spacing_mut().interact_size.y = 28.0;
        if seen.runs.len() > 1 {
            let caption = section(ui, "Run");
            let list = egui::ComboBox::from_id_salt("watched-run").selected_text(&self.run).width(WIDTH - 40.0);
            let list = list.show_ui(ui, |ui| {
                for run in &seen.runs {
                    ui.selectable_value(&mut self.run, run.name.clone(), &run.name);
                }
            });
            list.response.labelled_by(caption.id).on_hover_text("Folders with event files");
        } else {
            ui.label(RichText::new(&run.name).font(style::semibold(style::LARGE)));
        }
        section(ui, "Newest values");
        for (tag, series) in &run.scalars {
            let Some((step, value)) = series.points().last() else { continue };
            let words = format!("{tag}  {}", number(*value));
            let row = ui.selectable_label(*tag == self.scalar, words);
            if row.on_hover_text(format!("At step {}; press for its curve", numbers::thousands(*step as u64))).clicked()
            {
                self.scalar.clone_from(tag);
            }
        }
        if run.pictures.len() > 1 {
            section(ui, "Pictures");
            for tag in run.pictures.keys() {
                let row = ui.selectable_label(*tag == self.pictures, tag);
                if row.on_hover_text("Show these pictures").clicked() {
                    self.pictures.clone_from(tag);
                }
            }
        }
    }

    fn curve(&self, ui: &mut Ui, run: &Run, settings: CurveSettings) {
        let p = style::palette(ui);
        let Some(series) = run.scalars.get(&self.scalar) else {
            ui.label(RichText::new("This run has told no numbers yet").color(p.weak));
            return;
        };
        let whole = || series.points().iter().filter(|(_, v)| v.is_finite()).map(|(s, v)| (*s as f64, f64::from(*v)));
        // only what is positive has a logarithm
        let log = settings.log && whole().all(|(_, v)| v > 0.0);
        let axis = |v: f64| if log { v.log10() } else { v };
        let value = move |v: f64| if log { 10f64.powf(v) } else { v };
        let values: Vec<f64> = whole().map(|(_, v)| v).collect();
        let smooth = curve::smoothed(&values, f64::from(settings.smoothing));
        let line = |values: &[f64]| -> PlotPoints<'static> {
            whole().zip(values).map(|((step, _), v)| [step, axis(*v)]).collect()
        };
        let tag = self.scalar.clone();
        style::still_plot(ui, "watched-curve")
            .x_axis_label("training step")
            .y_axis_label(tag.clone())
            .y_axis_min_width(56.0)
            .x_axis_formatter(|mark, _| curve::step_mark(mark.value))
            .y_axis_formatter(move |mark, _| number(value(mark.value) as f32))
            .set_margin_fraction(vec2(0.01, 0.05))
            .show(ui, |plot| {
                plot.line(Line::new("as written", line(&values)).color(p.state.gamma_multiply(0.4)).width(1.0));
                plot.line(Line::new(tag, line(&smooth)).color(p.state).width(2.5));
            });
    }

    /// The chosen pictures from left to right, the newest last, with their steps.
    fn strips(&mut self, ui: &mut Ui, seen: &Arc<Watched>, run: &Run) {
        let Some((points, (_, newest))) =
            run.pictures.get(&self.pictures).and_then(|s| Some((s.points(), s.points().last()?)))
        else {
            return;
        };
        let (kind, words) = whose(&self.pictures);
        style::badge_of(ui, kind, &words.each_ref().map(String::as_str));
        let area = ui.available_rect_before_wrap();
        let [w, h] = [newest.w as f32, newest.h as f32];
        let same: Vec<_> = points.iter().filter(|(_, images)| (images.w, images.h) == (newest.w, newest.h)).collect();
        // wide strips stand one under the other, pictures side by side
        let rows = if w > 3.0 * h { ((area.height() / (h * 2.0 + CAPTION)) as usize).clamp(1, 4) } else { 1 };
        let cell = area.height() / rows as f32;
        let scale = ((cell - CAPTION) / h).min(area.width() / w);
        let scale = if scale >= 1.0 { scale.floor() } else { scale.max(0.01) };
        let size = vec2(w, h) * scale;
        let columns = (((area.width() + GRID) / (size.x + GRID)) as usize).max(1);
        let shown = &same[same.len().saturating_sub(rows * columns)..];
        let key = (Arc::clone(seen), self.run.clone(), self.pictures.clone());
        let held =
            |(old, run, tag): &(Arc<Watched>, String, String)| Arc::ptr_eq(old, seen) && (run, tag) == (&key.1, &key.2);
        if !self.holds.as_ref().is_some_and(held) {
            self.atlas.set(ui, same.iter().map(|(_, images)| (&**images, 1, Map::Picture)));
            self.holds = Some(key);
        }
        let first = same.len() - shown.len();
        for (i, (step, _)) in shown.iter().enumerate() {
            let at = pos2(area.left() + (i / rows) as f32 * (size.x + GRID), area.top() + (i % rows) as f32 * cell);
            self.atlas.paint(ui, first + i, Rect::from_min_size(at.round(), size));
            let text = pos2(at.x, at.y + size.y + 2.0);
            let font = FontId::proportional(style::SMALL);
            let words = format!("step {}", numbers::thousands(*step as u64));
            ui.painter().text(text, egui::Align2::LEFT_TOP, words, font, style::palette(ui).weak);
        }
        let spoken = format!("Pictures of {}", self.pictures);
        let response = ui.allocate_rect(area, Sense::hover());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &spoken));
        response.on_hover_text(format!("{}, as the run wrote them", self.pictures));
    }
}

/// Whose pictures of that tag are, as far as it is known.
fn whose(tag: &str) -> (&'static str, [String; 2]) {
    match tag {
        STRIP => ("MODEL", [format!("EMA, written as {tag}"), "EMA".to_owned()]),
        _ => ("UNKNOWN", [format!("written as {tag}"), tag.to_owned()]),
    }
}

/// Draws the choices above the curve. Returns what changed.
fn controls(ui: &mut Ui, settings: CurveSettings) -> Option<CurveSettings> {
    let mut s = settings;
    ui.add(egui::Slider::new(&mut s.smoothing, 0.0..=0.99).text("Smoothing").show_value(false))
        .on_hover_text("Weight of the past in the smoothed curve");
    ui.add_space(style::BODY);
    let axes = [(true, "Logarithmic", "Axis of the values (L)"), (false, "Linear", "Axis of the values (L)")];
    style::segments(ui, &axes, &mut s.log);
    (s != settings).then_some(s)
}

/// Four digits, or a power of ten.
fn number(v: f32) -> String {
    match v.abs() {
        0.0 => "0".to_owned(),
        a if !(1e-3..1e5).contains(&a) => format!("{v:.1e}"),
        a if a >= 100.0 => format!("{v:.0}"),
        a if a >= 1.0 => format!("{v:.2}"),
        _ => format!("{v:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{STRIP, number, whose};

    #[test]
    fn only_pictures_of_our_own_tag_are_said_to_be_a_models() {
        assert_eq!(whose(STRIP).0, "MODEL");
        assert_eq!(whose("validation/inputs").0, "UNKNOWN");
    }

    #[test]
    fn numbers_of_any_size_are_short() {
        let texts = [0.0, 2e-4, 0.0312, -1.5, 1234.0, 4e7].map(number);
        assert_eq!(texts, ["0", "2.0e-4", "0.0312", "-1.50", "1234", "4.0e7"]);
    }
}
