//! The window: it shows what the worker tells and asks it for more; it never runs a network, reads a file or waits.

mod acting;
pub mod actions;
mod algorithm;
mod axis;
mod bend;
mod branch_view;
pub mod branches;
mod by_timestep;
mod canvas;
mod chain;
mod changes;
pub mod curve;
mod data;
mod dialogs;
mod doctor;
mod equations;
pub mod export;
mod fetch;
mod film;
mod film_bar;
mod film_settings;
mod icons;
mod keys;
mod noise;
mod numbers;
mod pictures;
mod pixel;
pub mod playback;
mod preferences;
mod probe;
mod race;
mod recall;
mod run_form;
mod runs;
mod schedule;
mod shared;
mod signals;
mod snapshots;
pub mod state;
mod step;
mod style;
mod symbols;
mod timeline;
mod top_bar;
mod training;
mod training_run;
mod tree;
mod unsaved;
mod watch;
mod weights;
mod window;

pub use preferences::Preferences;
pub use probe::{Probe, Seen, Task};
pub use window::{Window, set_up};

use crate::engine::{Command, Engine, Error, Event, Options, Outcome, Result};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks whether the worker takes commands again.
const WAIT: Duration = Duration::from_millis(50);
/// Time that a frame may spend on the worker's news.
const DRAIN: Duration = Duration::from_millis(5);
/// Seconds after the start in which the window's place on the monitor becomes known.
const SETTLING: f64 = 3.0;
/// Least time between two frames that only the worker asked for. Without a graphics card each frame takes time from it.
const WAKE: Duration = Duration::from_millis(80);

/// Opens the window and stays until it is closed; `watch` is a run to watch. A `probe` drives and measures it, and nothing is remembered of it.
/// `on_signal` is given what is to be done when the system asks the program to end: the same as when a person closes the
/// window.
///
/// # Errors
/// If there is no display, no OpenGL, or no thread for the worker.
pub fn run(
    options: Options,
    watch: Option<PathBuf>,
    probe: Option<Rc<RefCell<Probe>>>,
    on_signal: impl FnOnce(Box<dyn FnMut() + Send>),
) -> Result<()> {
    if !has_display() {
        return Err(no_window("there is no display: neither WAYLAND_DISPLAY nor DISPLAY is set"));
    }
    let native = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("ddpm-film")
            .with_app_id("ddpm-film")
            .with_inner_size([1280.0, 720.0])
            .with_min_inner_size([880.0, 560.0])
            .with_drag_and_drop(true),
        system_font_fallback: false,
        persist_window: probe.is_none(),
        ..Default::default()
    };
    let start = |cc: &eframe::CreationContext<'_>| -> std::result::Result<Box<dyn eframe::App>, _> {
        let ctx = cc.egui_ctx.clone();
        on_signal(Box::new(move || ctx.send_viewport_cmd(egui::ViewportCommand::Close)));
        let mut app = App::new(cc, options, probe)?;
        watch.into_iter().for_each(|path| app.window.watch(path));
        Ok(Box::new(app))
    };
    eframe::run_native("ddpm-film", native, Box::new(start)).map_err(|e| no_window(&e.to_string()))
}

/// Whether a window can be opened here, as far as the environment says.
pub fn has_display() -> bool {
    display_in(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()))
}

fn display_in(is_set: impl Fn(&str) -> bool) -> bool {
    cfg!(not(target_os = "linux")) || is_set("WAYLAND_DISPLAY") || is_set("WAYLAND_SOCKET") || is_set("DISPLAY")
}

fn no_window(why: &str) -> Error {
    Error::new("cannot open a window", why, "without a display, use the command line: ddpm-film sample --help")
}

/// The size at which a window fits on its monitor with the frame around it, where it does not yet.
fn fitting(inner: egui::Vec2, outer: egui::Vec2, monitor: egui::Vec2) -> Option<egui::Vec2> {
    let over = (outer - monitor).max(egui::Vec2::ZERO);
    (over != egui::Vec2::ZERO).then(|| (inner - over).max(egui::vec2(1.0, 1.0)))
}

/// The window and the worker behind it.
struct App {
    engine: Engine,
    window: Window,
    /// What waits while the worker, in a long unit of work, takes no more.
    unsent: Vec<Command>,
    /// The worker is gone; said once.
    orphaned: bool,
    /// A window larger than its monitor was made smaller, once.
    fitted: bool,
    probe: Option<Rc<RefCell<Probe>>>,
}

impl App {
    fn new(cc: &eframe::CreationContext<'_>, options: Options, probe: Option<Rc<RefCell<Probe>>>) -> Result<Self> {
        set_up(&cc.egui_ctx);
        let preferences = cc
            .storage
            .filter(|_| probe.is_none())
            .and_then(|s| eframe::get_value(s, eframe::APP_KEY))
            .unwrap_or_default();
        let engine = Engine::start(options, waker(cc.egui_ctx.clone()))?;
        let mut window = Window::new(preferences);
        if probe.is_some() {
            window.never_ask();
        }
        Ok(Self { engine, window, unsent: Vec::new(), orphaned: false, fitted: false, probe })
    }

    fn drain(&mut self, ctx: &egui::Context) {
        let start = Instant::now();
        while !self.orphaned {
            match self.engine.poll() {
                Ok(Some(event)) => self.window.handle(event),
                Ok(None) => return,
                Err(e) => {
                    self.orphaned = true;
                    self.window.state.fail(&e);
                }
            }
            if start.elapsed() > DRAIN {
                ctx.request_repaint();
                return;
            }
        }
    }

    /// Lets a window that its frame makes larger than the monitor be smaller.
    fn fit(&mut self, ctx: &egui::Context) {
        let size = ctx.input(|i| {
            let v = i.viewport();
            if v.maximized == Some(true) || v.fullscreen == Some(true) {
                return None;
            }
            fitting(v.inner_rect?.size(), v.outer_rect?.size(), v.monitor_size?).filter(|_| i.time < SETTLING)
        });
        if let Some(size) = size.filter(|_| !std::mem::replace(&mut self.fitted, true)) {
            ctx.send_viewport_cmd(egui::ViewportCommand::InnerSize(size));
        }
    }

    fn send(&mut self, ctx: &egui::Context) {
        for command in self.window.take_commands() {
            let ended: Vec<_> = self.unsent.extract_if(.., |old| command.replaces(old)).collect();
            for job in ended.iter().filter_map(Command::job) {
                self.window.handle(Event::Finished(job, Outcome::Cancelled));
            }
            self.unsent.push(command);
        }
        while !self.unsent.is_empty() && !self.engine.is_full() {
            let command = self.unsent.remove(0);
            let job = command.job();
            if let Err(e) = self.engine.send(command) {
                self.window.refused(job, e);
            }
        }
        if !self.unsent.is_empty() {
            ctx.request_repaint_after(WAIT);
        }
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        self.drain(ctx);
        self.fit(ctx);
        self.window.hold_close(ctx);
        self.send(ctx);
    }

    fn raw_input_hook(&mut self, _ctx: &egui::Context, input: &mut egui::RawInput) {
        if let Some(probe) = &self.probe {
            probe.borrow_mut().begin(input);
        }
    }

    fn ui(&mut self, ui: &mut egui::Ui, frame: &mut eframe::Frame) {
        if let (Some(probe), Some(took)) = (&self.probe, frame.info().cpu_usage) {
            probe.borrow_mut().note(f64::from(took));
        }
        self.window.ui_root(ui);
        if let Some(probe) = &self.probe {
            probe.borrow_mut().follow(ui.ctx(), &mut self.window);
        }
        self.send(&ui.ctx().clone());
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        if self.probe.is_none() {
            eframe::set_value(storage, eframe::APP_KEY, &self.window.preferences());
        }
    }

    fn persist_egui_memory(&self) -> bool {
        self.probe.is_none()
    }
}

/// What the worker calls when it has news: the next frame comes soon, but not more often than every [`WAKE`].
fn waker(ctx: egui::Context) -> impl Fn() + Send + Sync + 'static {
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    move || {
        let now = begun.elapsed().as_millis() as u64;
        let due = next.load(Ordering::Relaxed);
        if due > now {
            // a frame is already on its way, unless it was drawn before this event: one more follows at its time
            ctx.request_repaint_after(Duration::from_millis(due - now + 1));
        } else {
            ctx.request_repaint_after(Duration::from_millis(1));
            next.store(now + WAKE.as_millis() as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_fits_on_its_monitor_with_its_title_bar() {
        let fit = |inner: [f32; 2], outer: [f32; 2]| fitting(inner.into(), outer.into(), egui::vec2(1280.0, 720.0));
        assert_eq!(fit([1280.0, 690.0], [1280.0, 720.0]), None);
        assert_eq!(fit([1280.0, 720.0], [1282.0, 745.0]), Some(egui::vec2(1278.0, 695.0)));
        assert_eq!(fit([1900.0, 300.0], [1902.0, 325.0]), Some(egui::vec2(1278.0, 300.0)));
    }

    #[test]
    fn without_a_display_one_sentence_names_the_command_line() {
        assert!(cfg!(not(target_os = "linux")) || !display_in(|_| false));
        assert!(display_in(|name| name == "DISPLAY") && display_in(|name| name == "WAYLAND_DISPLAY"));
        let sentence = no_window("there is no display").to_string();
        assert!(sentence.contains("ddpm-film sample --help") && !sentence.contains('\n'));
    }
}
