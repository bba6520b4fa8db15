//! A film as a file: what is asked, how far it has come, and a film made again from such a file.

use super::actions::{UiAction, View};
use super::pictures::{self, Map};
use super::state::{AppState, FilmSettings, Method, Severity, typed_path};
use super::style::{self, GRID};
use super::tree::{Plan, Travel, Version, describe};
use super::window::Window;
use crate::engine::{
    Command, Container, ExportRequest, Fork, Format, JobId, Maker, Origin, Outcome, Quantity, Recipe, SHORTEST_MS,
    SamplerKind, Trajectory, Variance, Which, ffmpeg,
};
use egui::{DragValue, Id, Margin, Modal, ProgressBar, RichText, Ui};
use std::path::PathBuf;

/// The model inside the program.
const SHIPPED: &str = "mnist28";
/// Screen pixels per pixel of a picture on the clipboard.
const CLIPBOARD_SCALE: usize = 8;
/// What is written, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportSettings {
    /// Where to.
    pub path: PathBuf,
    /// As what.
    pub format: Format,
    /// Whether the forward film is seen.
    pub forward: bool,
    /// Whether the reverse film is seen.
    pub reverse: bool,
    /// The states, in doses, in the order in which they are shown.
    pub moments: Vec<usize>,
    /// Screen pixels per pixel of the model.
    pub scale: usize,
    /// Time that a frame stays.
    pub delay_ms: u32,
    /// Whether captions stand over the pictures.
    pub captions: bool,
}

/// An export under way.
#[derive(Clone, Debug)]
pub struct Exporting {
    job: JobId,
    path: PathBuf,
    /// Frames written, and in all.
    progress: [u64; 2],
}

impl Exporting {
    /// An export that was asked for.
    pub fn new(job: JobId, request: &ExportRequest) -> Self {
        Self { job, path: request.path.clone(), progress: [0, request.moments.len() as u64] }
    }

    /// Its job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Takes in how far a job has come.
    pub fn follow(&mut self, job: JobId, done: u64, total: u64) {
        if job == self.job {
            self.progress = [done, total];
        }
    }

    /// What to say when it is over.
    pub fn words(&self, outcome: &Outcome) -> Option<(String, String)> {
        (*outcome == Outcome::Done).then(|| ("Film saved".to_owned(), self.path.display().to_string()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToImage,
    ToNoise,
    Bounce,
}

/// So many states, evenly spaced between two, in the order of showing.
fn moments([noise, image]: [usize; 2], count: usize, way: Way) -> Vec<usize> {
    let last = count.max(2) - 1;
    let at = |i: usize| noise - (noise - image) * i / last;
    let mut there: Vec<usize> = (0..=last).map(at).collect();
    there.dedup();
    match way {
        Way::ToImage => there,
        Way::ToNoise => there.into_iter().rev().collect(),
        Way::Bounce => {
            let back: Vec<usize> = there.iter().rev().skip(1).copied().collect();
            there.into_iter().chain(back).collect()
        }
    }
}

/// The question how a film is to be written.
pub struct ExportDialog {
    format: Format,
    sides: [bool; 2],
    way: Way,
    count: usize,
    seconds: f64,
    scale: usize,
    captions: bool,
    path: String,
    /// A file that was there when it was to be written, and may be replaced if that is asked again.
    there: Option<PathBuf>,
    has_ffmpeg: bool,
}

impl Default for ExportDialog {
    fn default() -> Self {
        Self {
            format: Format::Movie(Container::Gif),
            sides: [true, true],
            way: Way::ToImage,
            count: 100,
            seconds: 8.0,
            scale: 6,
            captions: true,
            path: "~/film.gif".to_owned(),
            there: None,
            has_ffmpeg: ffmpeg().is_some(),
        }
    }
}

fn ending(format: Format) -> &'static str {
    match format {
        Format::Movie(Container::Gif) => "gif",
        Format::Movie(Container::Apng) | Format::Strip | Format::Grid => "png",
        Format::Movie(Container::Webp) => "webp",
        Format::Movie(Container::Mp4) => "mp4",
        Format::Csv => "csv",
    }
}

impl ExportDialog {
    /// Draws the dialog. Returns whether it is over.
    pub fn ui(&mut self, ui: &Ui, state: &AppState, out: &mut Vec<UiAction>) -> bool {
        let frame = egui::Frame::popup(ui.style()).inner_margin(Margin::same(24));
        let modal = Modal::new(Id::unique("export")).frame(frame).show(ui.ctx(), |ui| {
            ui.set_width(560.0_f32.min(ui.ctx().content_rect().width() - 48.0).max(120.0));
            ui.label(RichText::new("Export film").font(style::semibold(style::LARGE)));
            match &state.exporting {
                Some(export) => progress(ui, state, export, out),
                None => self.form(ui, state, out),
            }
        });
        modal.inner || modal.should_close()
    }

    fn form(&mut self, ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) -> bool {
        let before = ending(self.format);
        let mut formats = vec![
            (Format::Movie(Container::Gif), "GIF", "A looping film that every program shows"),
            (Format::Movie(Container::Apng), "APNG", "A looping film with every colour exact; browsers show it"),
            (Format::Movie(Container::Webp), "WebP", "The same in a fraction of the bytes; browsers show it"),
            (Format::Strip, "Strip", "A PNG with time from left to right"),
            (Format::Grid, "Grid", "A PNG of the last state"),
            (Format::Csv, "CSV", "The numbers of every state"),
        ];
        if self.has_ffmpeg {
            formats.push((Format::Movie(Container::Mp4), "MP4", "A small film, by the ffmpeg on the PATH"));
        }
        style::segments(ui, &formats, &mut self.format);
        if ending(self.format) != before
            && let Some(stem) = self.path.strip_suffix(before)
        {
            self.path = format!("{stem}{}", ending(self.format));
        }
        let sides = [
            ([true, true], "Both", "The forward film and the reverse film"),
            ([true, false], "Forward", "The forward film alone"),
            ([false, true], "Reverse", "The reverse film alone, of what the film view shows"),
        ];
        style::segments(ui, &sides, &mut self.sides);
        let ways = [
            (Way::ToImage, "To image", "From noise to the image"),
            (Way::ToNoise, "To noise", "From the image to noise"),
            (Way::Bounce, "There and back", "To the image and back to noise"),
        ];
        style::segments(ui, &ways, &mut self.way);
        let [from, to] = state.playback.marks();
        let reached = state.extent().reached.filter(|_| self.sides[1]).unwrap_or(0);
        let image = to.unwrap_or(0).max(reached);
        // above its beginning a film that brings a picture back has nothing of its own
        let begins = state.begins().filter(|_| self.sides[1]).unwrap_or(usize::MAX);
        let range = [from.unwrap_or(state.playback.steps()).min(begins).max(image), image];
        ui.horizontal(|ui| {
            let number = |ui: &mut Ui, name: &str, tooltip: &str, value: DragValue<'_>| {
                let label = ui.label(name);
                ui.add(value).labelled_by(label.id).on_hover_text(tooltip);
            };
            let says = "States shown, evenly spaced over the part that repeats";
            number(ui, "States", says, DragValue::new(&mut self.count).range(2..=2000));
            number(ui, "Seconds", "How long the film takes", DragValue::new(&mut self.seconds).range(0.1..=600.0));
            number(ui, "Scale", "Pixels for each pixel of the model", DragValue::new(&mut self.scale).range(1..=32));
        });
        let least = f64::from(SHORTEST_MS) / 1000.0 * moments(range, self.count, self.way).len() as f64;
        if matches!(self.format, Format::Movie(_)) && least > self.seconds {
            let most = 1000 / SHORTEST_MS;
            let says = format!("A film shows at most {most} states a second: this one takes {least:.1} s");
            ui.label(RichText::new(says).color(style::palette(ui).weak));
        }
        let apart = state.forward.film.is_some() && forward_beside(state).is_none();
        let nothing = apart && self.sides == [true, false];
        if apart && self.sides[0] {
            let says = "The forward film has another number of timesteps than the reverse film, so it is left out";
            ui.label(RichText::new(says).color(style::palette(ui).warning));
        }
        style::checkbox(ui, &mut self.captions, "Captions: t, and data or model")
            .on_hover_text("They stand over the pictures of GIF, APNG, WebP, MP4 and grid");
        ui.label(RichText::new("Seed, settings and the weights' hash travel inside").color(style::palette(ui).weak))
            .on_hover_text("Such a file dropped on the window makes the same film again");
        let width = ui.available_width() - 2.0 * GRID;
        style::text_field(ui, &mut self.path, "File", width).on_hover_text("Where to; ~ is the home folder");
        let path = typed_path(&self.path);
        let replaces = path.is_some() && self.there == path;
        let (verb, says) = if replaces {
            ui.label(RichText::new("A file of this name is there already").color(style::palette(ui).warning));
            ("Replace", "Write the film in the place of that file")
        } else {
            ("Export", "Write the file")
        };
        ui.add_space(GRID);
        ui.horizontal(|ui| {
            let ready = path.is_some() && state.reverse.film.is_some() && !nothing;
            let go = ui.add_enabled_ui(ready, |ui| style::primary(ui, verb)).inner;
            let go = go.on_disabled_hover_text("There is no such film, or no file is named");
            if let Some(path) = path.filter(|_| go.on_hover_text(says).clicked()) {
                if replaces || !path.is_file() {
                    self.there = None;
                    out.push(UiAction::Export(Box::new(self.settings(path, range))));
                } else {
                    self.there = Some(path);
                }
            }
            ui.button("Close").on_hover_text("Back to the film (Esc)").clicked()
        })
        .inner
    }

    fn settings(&self, path: PathBuf, range: [usize; 2]) -> ExportSettings {
        let moments = moments(range, self.count, self.way);
        ExportSettings {
            path,
            format: self.format,
            forward: self.sides[0],
            reverse: self.sides[1],
            delay_ms: (self.seconds * 1000.0 / moments.len() as f64).round() as u32,
            moments,
            scale: self.scale,
            captions: self.captions,
        }
    }
}

fn progress(ui: &mut Ui, state: &AppState, export: &Exporting, out: &mut Vec<UiAction>) -> bool {
    let [done, total] = export.progress;
    ui.label(export.path.display().to_string());
    ui.label(match done {
        0 if state.extent().growing => "Waits until the film is computed".to_owned(),
        _ => format!("{done} of {total} frames"),
    });
    ui.add(ProgressBar::new(done as f32 / total.max(1) as f32));
    ui.add_space(GRID);
    ui.horizontal(|ui| {
        style::button(ui, &UiAction::CancelExport, out);
        ui.button("Hide").on_hover_text("The export goes on").clicked()
    })
    .inner
}

/// The forward film, but on a schedule of another length than the reverse film's: the two share no timesteps.
fn forward_beside(state: &AppState) -> Option<&(JobId, Trajectory)> {
    state.forward.film.as_ref().filter(|(_, film)| film.steps() == state.playback.steps())
}

/// What the worker is asked for.
pub fn request(state: &AppState, quantity: Quantity, settings: ExportSettings) -> Option<ExportRequest> {
    let ExportSettings { path, format, forward, reverse, moments, scale, delay_ms, captions } = settings;
    let forward = forward_beside(state).filter(|_| forward).cloned();
    let reverse = state.shown().film.clone().filter(|_| reverse);
    let mut moments = moments;
    if let Some((_, film)) = &reverse {
        if format == Format::Csv {
            // one row for each state that a film of fewer steps passes
            moments.iter_mut().for_each(|doses| *doses = film.state(*doses));
            moments.dedup();
        }
        // at the end nothing is left to predict, and no step leads away from where a film was stopped
        let stopped = film.reached().filter(|_| !state.extent().growing).unwrap_or(0);
        moments.retain(|doses| match quantity {
            Quantity::State | Quantity::PredictedStart => true,
            Quantity::PredictedNoise => *doses > 0,
            Quantity::Dose => film.state(*doses) > stopped,
        });
    }
    Some(ExportRequest {
        path,
        format,
        forward,
        reverse,
        left: state.left(),
        quantity,
        moments,
        scale,
        delay_ms,
        captions,
        by: Maker::of(state.shown().source.as_ref()?),
        recipe: recipe(state)?,
    })
}

/// How the films on screen can be made again.
fn recipe(state: &AppState) -> Option<Recipe> {
    let by = state.reverse.source.as_ref()?;
    let made = state.reverse.made.as_ref()?;
    let forward = state.forward.made.as_ref().unwrap_or(made);
    Some(Recipe {
        model: by.model.clone(),
        hash: by.hash.clone(),
        step: by.step,
        sample: made.sample_request(),
        forks: state.forks(),
        forward: forward.forward_request(),
    })
}

fn rule(sampler: SamplerKind) -> (Method, Variance, f64) {
    match sampler {
        SamplerKind::Ddpm { variance } => (Method::Ddpm, variance, 0.0),
        SamplerKind::Ddim { eta } => (Method::Ddim, Variance::FixedSmall, eta),
    }
}

/// The settings of a branch of a recipe, of the film that `old` made.
fn following(old: &FilmSettings, fork: &Fork) -> FilmSettings {
    let (method, variance, eta) = rule(fork.sampler);
    let Fork { predictor, clip, seed, .. } = *fork;
    FilmSettings { predictor, method, variance, eta, clip, seed, ..old.clone() }
}

/// The film of a recipe with its branches, each of the one before.
pub fn version(recipe: Recipe) -> Version {
    let (method, variance, eta) = rule(recipe.sample.sampler);
    let settings = FilmSettings {
        which: Which::Loaded,
        predictor: recipe.sample.predictor,
        method,
        variance,
        eta,
        steps: recipe.sample.steps,
        clip: recipe.sample.clip,
        n: recipe.sample.n,
        seed: recipe.sample.seed,
        source: recipe.forward.source,
        from: recipe.sample.from.map(|(_, doses)| doses),
        schedule: recipe.forward.schedule,
    };
    let (mut plans, mut old) = (Vec::new(), settings.clone());
    for (parent, fork) in recipe.forks.iter().enumerate() {
        let settings = following(&old, fork);
        let name = describe(&old, &settings, fork.doses);
        old = settings.clone();
        plans.push(Plan { id: parent + 1, name, parent, doses: fork.doses, settings });
    }
    Version { model: recipe.model, hash: recipe.hash, step: recipe.step, settings, plans }
}

impl AppState {
    /// Lets a film and its branches be made once their model is there, and says so.
    fn wait_for_model(&mut self, version: Box<Version>, way: Option<Travel>) {
        let step = version.step.map_or_else(String::new, |step| format!(", step {step}"));
        let what = format!("This film needs the model {}{step}", version.model);
        let details = format!(
            "it is made as soon as a model with the very same weights is opened (their hash is {})",
            version.hash
        );
        self.notify(Severity::Warning, what, details);
        self.to_restore = Some((version, way));
    }

    /// The film that has waited for the model that is there now.
    pub(super) fn awaited(&mut self) -> Option<UiAction> {
        let model = self.model.as_ref()?;
        let (version, way) =
            self.to_restore.take_if(|(version, _)| version.hash == model.hash || version.model == model.name)?;
        if way.is_some_and(|way| self.branches.ahead(way) != Some(&*version)) {
            // another change has come since
            None
        } else if version.hash == model.hash {
            Some(UiAction::Restore(version, way))
        } else {
            // the name is the same, the weights are not
            self.wait_for_model(version, way);
            None
        }
    }
}

impl Window {
    pub(super) fn start_export(&mut self, settings: ExportSettings) {
        let job = self.state.new_job();
        if let Some(request) = request(&self.state, self.film.quantity(), settings) {
            self.state.exporting = Some(Exporting::new(job, &request));
            self.commands.push(Command::Export(job, Box::new(request)));
        }
    }

    /// Makes a film and its branches again, with its model if that is there or inside the program.
    pub(super) fn restore(&mut self, mut version: Box<Version>, way: Option<Travel>) {
        let shipped = version.model == SHIPPED;
        match &self.state.model {
            Some(model) if model.hash == version.hash => {
                self.state.to_restore = None;
                if way.is_none() {
                    self.view = View::Film;
                    version.renumber(self.state.branches.last_id);
                } else {
                    version.settings = version.settings.beside(&self.state.settings);
                }
                self.replace_settings(version.settings);
                self.sample_then(version.plans, way);
                self.drown();
            }
            Some(model) if shipped && model.name != SHIPPED => {
                let old = self.state.to_restore.replace((version, way));
                // once, also while the key is held
                let loading = old.is_some_and(|(old, _)| old.model == SHIPPED) && !self.state.file_jobs.is_empty();
                if !loading {
                    self.load(Origin::Shipped);
                }
            }
            _ => self.state.wait_for_model(version, way),
        }
    }

    pub(super) fn copy_frame(&mut self, ctx: &egui::Context) {
        let (doses, quantity) = (self.state.playback.doses(), self.film.quantity());
        // what the view shows: nothing before a film's beginning, or after what was computed of it
        let view = |film: &Option<(JobId, Trajectory)>, doses, quantity| {
            let (_, film) = film.as_ref()?;
            film.at(doses).filter(|frame| frame.doses == film.state(doses)).and_then(|frame| film.view(frame, quantity))
        };
        let map = match quantity {
            Quantity::PredictedNoise => Map::Noise,
            Quantity::Dose => Map::Error,
            _ => Map::Picture,
        };
        let forward = view(&self.state.forward.film, self.state.forward_doses(doses), Quantity::State)
            .map(|images| (images, Map::Picture));
        let begun = self.state.begins().is_none_or(|begins| doses <= begins);
        let reverse = view(&self.state.shown().film, doses, quantity).filter(|_| begun).map(|images| (images, map));
        let sides: Vec<_> = forward.into_iter().chain(reverse).collect();
        if let Some(image) = pictures::contact(&sides, CLIPBOARD_SCALE) {
            ctx.copy_image(image);
            self.state.notify(Severity::Info, "Frame copied".to_owned(), format!("t = {doses}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_run_both_ways_and_keep_their_ends() {
        assert_eq!(moments([1000, 0], 5, Way::ToImage), [1000, 750, 500, 250, 0]);
        assert_eq!(moments([1000, 0], 3, Way::ToNoise), [0, 500, 1000]);
        assert_eq!(moments([800, 700], 3, Way::Bounce), [800, 750, 700, 750, 800]);
        assert_eq!(moments([3, 0], 100, Way::ToImage), [3, 2, 1, 0], "no state twice");
        assert_eq!(moments([5, 0], 0, Way::ToImage), [5, 0]);
    }
}
