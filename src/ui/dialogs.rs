//! What lies over the views: messages, the list of keys, and the question for a path.

use super::actions::{self, PathUse, Scope, UiAction, View};
use super::state::{AppState, Severity, typed_path};
use super::style::{self, GRID};
use super::training;
use egui::{Align, Id, Key, Label, Layout, Margin, Modal, Panel, RichText, ScrollArea, Stroke, Ui, vec2};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};

/// Draws the messages at the top of the window. Returns the one that was closed.
pub fn banners(ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) -> Option<usize> {
    let mut closed = None;
    for (i, banner) in state.banners.iter().enumerate() {
        let p = style::palette(ui);
        let color = match banner.severity {
            Severity::Info => p.state,
            Severity::Warning => p.warning,
            Severity::Error => p.error,
        };
        let frame = egui::Frame::new().fill(p.panel).inner_margin(Margin::symmetric(16, 6));
        let panel = Panel::top(Id::unique(("banner", i))).resizable(false).frame(frame).show(ui, |ui| {
            ui.horizontal(|ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let newest = i + 1 == state.banners.len();
                    let says = if newest { "Close this message (Esc)" } else { "Close this message" };
                    if ui.button("Dismiss").on_hover_text(says).clicked() {
                        closed = Some(i);
                    }
                    if ui.button("Copy").on_hover_text("Copy this message").clicked() {
                        ui.copy_text(banner.line.clone());
                    }
                    if let Some(training) = state.training.as_ref().filter(|_| banner.diverged) {
                        training::go_on(ui, training, false, out);
                    }
                    ui.with_layout(Layout::left_to_right(Align::Center).with_main_wrap(true), |ui| {
                        ui.label(RichText::new(&banner.what).font(style::semibold(style::BODY)).color(color));
                        ui.add(Label::new(&banner.details).wrap());
                    });
                });
            });
        });
        let edge = panel.response.rect;
        ui.painter().vline(edge.left() + 2.0, edge.y_range(), Stroke::new(4.0, color));
    }
    closed
}

/// Width of the list of keys, if there is room; then it has three columns.
const KEYS_WIDTH: f32 = 1080.0;

/// Height of a line in it.
const KEY_ROW: f32 = 22.0;

/// Draws the list of all keys over the window. Returns whether it was closed.
pub fn keys(ui: &Ui) -> bool {
    let height = (ui.ctx().content_rect().height() - 176.0).max(80.0);
    let modal = Modal::new(Id::unique("keys")).frame(frame(ui)).show(ui.ctx(), |ui| {
        // and a scroll bar
        ui.set_width((KEYS_WIDTH + GRID).min(ui.ctx().content_rect().width() - 48.0).max(120.0));
        ui.label(RichText::new("Keys").font(style::semibold(style::LARGE)));
        ScrollArea::vertical().max_height(height).min_scrolled_height(height).show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 4.0;
            ui.spacing_mut().interact_size.y = KEY_ROW;
            for (title, scope) in [
                ("Everywhere", Scope::Window),
                ("In the views with a timeline", Scope::In(View::Film)),
                ("In the branches view", Scope::In(View::Branches)),
                ("In the race view", Scope::In(View::Race)),
                ("With shared latents", Scope::In(View::Shared)),
                ("In the data view", Scope::In(View::Data)),
                ("In the training view", Scope::In(View::Training)),
                ("In the runs view", Scope::In(View::Runs)),
            ] {
                let entries: Vec<_> =
                    actions::table().into_iter().filter(|e| e.scope == scope && e.keys.is_some()).collect();
                if !entries.is_empty() {
                    super::film_settings::section(ui, title);
                    key_columns(ui, title, &entries);
                }
            }
            super::film_settings::section(ui, "Size of everything: Ctrl with + and −, Ctrl+0 for the usual size; Ctrl+C copies the pictures at the playhead");
        });
        ui.add_space(GRID);
        ui.button("Close").on_hover_text("Back to the view (Esc)").clicked()
    });
    modal.inner || modal.should_close()
}

fn frame(ui: &Ui) -> egui::Frame {
    egui::Frame::popup(ui.style()).inner_margin(Margin::same(24))
}

fn key_columns(ui: &mut Ui, title: &str, entries: &[actions::Entry]) {
    let columns = if ui.available_width() < KEYS_WIDTH { 2 } else { 3 };
    let rows = entries.len().div_ceil(columns);
    let grid = egui::Grid::new(Id::unique(("keys", title)));
    grid.num_columns(2 * columns).min_col_width(110.0).min_row_height(KEY_ROW).spacing(vec2(2.0 * GRID, 0.0)).show(
        ui,
        |ui| {
            for i in 0..rows {
                for entry in entries.iter().skip(i).step_by(rows) {
                    let keys = entry.keys.map_or_else(String::new, |k| ui.ctx().format_shortcut(&k));
                    ui.label(RichText::new(keys).font(style::mono(style::SMALL)).color(style::palette(ui).weak));
                    ui.scope(|ui| {
                        ui.set_min_width(200.0);
                        let color = ui.visuals().text_color();
                        ui.label(style::indexed(entry.label, style::BODY, color)).on_hover_text(entry.tooltip);
                    });
                }
                ui.end_row();
            }
        },
    );
}

/// Asks before something is lost. The answers are buttons, each with what it does, the first of them primary.
pub fn question<A: Copy>(
    ui: &Ui,
    [title, why]: [&str; 2],
    answers: &[(A, &str, &str)],
    escape: A,
    first_frame: bool,
) -> Option<A> {
    let modal = Modal::new(Id::unique("question")).frame(frame(ui)).show(ui.ctx(), |ui| {
        ui.set_width(520.0_f32.min(ui.ctx().content_rect().width() - 48.0).max(120.0));
        ui.label(RichText::new(title).font(style::semibold(style::LARGE)));
        ui.label(RichText::new(why).color(style::palette(ui).weak));
        ui.add_space(GRID);
        ui.horizontal(|ui| {
            let mut given = None;
            for (i, (answer, label, says)) in answers.iter().enumerate() {
                let button = if i == 0 { style::primary(ui, label) } else { ui.button(*label) };
                if first_frame && i == 0 {
                    button.request_focus();
                }
                if button.on_hover_text(*says).clicked() {
                    given = Some(*answer);
                }
            }
            given
        })
        .inner
    });
    modal.inner.or_else(|| modal.should_close().then_some(escape))
}

/// The question for a path: a field to type in, and the system's dialog beside it.
pub struct PathDialog {
    usage: PathUse,
    /// What is saved.
    name: Option<String>,
    text: String,
    system: Option<JoinHandle<Option<PathBuf>>>,
    /// Whether the field has been given the keyboard.
    focused: bool,
}

impl PathDialog {
    /// Asks for a path, for what has this name.
    pub fn new(usage: PathUse, name: Option<String>) -> Self {
        Self { usage, name, text: String::new(), system: None, focused: false }
    }

    fn words(&self) -> (&'static str, &'static str, &'static str) {
        match self.usage {
            PathUse::OpenModel => (
                "Open model",
                "A diffusers folder (UNet2DModel or DDPM pipeline), or hf:owner/name of the Hugging Face hub",
                "Open",
            ),
            PathUse::SaveModel => (
                "Save model",
                "A new folder, or one that this window saved to before; it keeps the last two saves",
                "Save",
            ),
            PathUse::OpenImage => ("Open image", "A PNG, JPEG, GIF, BMP or WebP file", "Open"),
            PathUse::TrainingOut => ("Folder for checkpoints", "A folder to write to", "Choose"),
            PathUse::Runs => ("Runs folder", "The folder that your runs are in", "Choose"),
            PathUse::Watch => {
                ("Watch a run", "The folder of a run, or TensorBoard event files or a folder of them", "Watch")
            }
            PathUse::TrainingData => {
                ("Training data", "A folder of images, IDX files or CIFAR batches, or one such file", "Choose")
            }
        }
    }

    /// Draws the dialog. Returns whether it is over; a chosen path goes to `out`.
    pub fn ui(&mut self, ui: &Ui, out: &mut Vec<UiAction>) -> bool {
        if self.system.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(Ok(Some(path))) = self.system.take().map(JoinHandle::join)
        {
            // without a chosen path the person cancelled, or the system has no dialog: the field is still there
            out.push(UiAction::UsePath(self.usage, path));
            return true;
        }
        let (title, help, verb) = self.words();
        let modal = Modal::new(Id::unique("path")).frame(frame(ui)).show(ui.ctx(), |ui| {
            ui.set_width(520.0_f32.min(ui.ctx().content_rect().width() - 48.0).max(120.0));
            let heading = self.name.as_ref().map_or_else(|| title.to_owned(), |name| format!("{title}: {name}"));
            ui.label(RichText::new(heading).font(style::semibold(style::LARGE)));
            ui.label(RichText::new(help).color(style::palette(ui).weak));
            let mut enter = false;
            ui.horizontal(|ui| {
                let width = (ui.available_width() - 96.0).max(60.0);
                let field = style::text_field(ui, &mut self.text, "Path", width).on_hover_text("~ is the home folder");
                enter = field.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter));
                if !std::mem::replace(&mut self.focused, true) {
                    field.request_focus();
                }
                ui.add_enabled_ui(self.system.is_none(), |ui| {
                    if ui.button("Browse…").on_hover_text("Ask the system for a path").clicked() {
                        self.system = ask_system(self.usage, title, ui.ctx().clone());
                    }
                });
            });
            ui.add_space(GRID);
            ui.horizontal(|ui| {
                let path = typed_path(&self.text);
                let go = ui.add_enabled_ui(path.is_some(), |ui| style::primary(ui, verb)).inner.on_hover_text(help);
                (
                    path.filter(|_| enter || go.clicked()),
                    ui.button("Cancel").on_hover_text("Choose no path (Esc)").clicked(),
                )
            })
            .inner
        });
        let closed = modal.should_close();
        let (path, cancelled) = modal.inner;
        let over = cancelled || path.is_some() || closed;
        out.extend(path.map(|path| UiAction::UsePath(self.usage, path)));
        over
    }
}

/// Opens the system's file dialog; another thread waits for it.
fn ask_system(usage: PathUse, title: &str, ctx: egui::Context) -> Option<JoinHandle<Option<PathBuf>>> {
    let dialog = rfd::AsyncFileDialog::new().set_title(title);
    let answer: std::pin::Pin<Box<dyn Future<Output = Option<rfd::FileHandle>> + Send>> = match usage {
        PathUse::OpenImage => {
            Box::pin(dialog.add_filter("Images", &["png", "jpg", "jpeg", "gif", "bmp", "webp"]).pick_file())
        }
        PathUse::OpenModel
        | PathUse::SaveModel
        | PathUse::TrainingOut
        | PathUse::TrainingData
        | PathUse::Runs
        | PathUse::Watch => Box::pin(dialog.pick_folder()),
    };
    let wait = move || {
        let path = block_on(answer).map(|file| file.path().to_owned());
        // by then this thread is over, which is what the dialog looks for
        ctx.request_repaint_after(std::time::Duration::from_millis(50));
        path
    };
    std::thread::Builder::new().name("file-dialog".into()).spawn(wait).ok()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(mut future: std::pin::Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
