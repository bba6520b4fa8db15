//! The real program in a real window on a virtual display, under keys and mouse.

use image::RgbaImage;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends its process when it goes out of scope: politely, so that a display server takes its lock and socket with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        Command::new("kill").arg(self.0.id().to_string()).status().map(drop).unwrap_or_default();
        for _ in 0..50 {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

struct Desktop {
    display: String,
    _window_manager: Running,
    _server: Running,
}

fn missing_tool() -> Option<&'static str> {
    let there = |tool: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|p| p.join(tool).exists())
    };
    ["Xvfb", "openbox", "xdotool", "import"].into_iter().find(|tool| !there(tool))
}

impl Desktop {
    /// A display of its own, on a number that the server finds free.
    fn start() -> Self {
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp", "-noreset"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let display = format!(":{}", number.trim());
        let window_manager = Command::new("openbox")
            .env("DISPLAY", &display)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let desktop = Self { display, _window_manager: Running(window_manager), _server: Running(server) };
        // a window that comes while the window manager starts may stay unmanaged, and then it is never shown
        wait_for("the window manager", || {
            let reply = desktop.xdotool(&["get_desktop"]);
            (!reply.is_empty()).then_some(())
        });
        desktop
    }

    fn program(&self, data_home: &Path) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddpm-film"));
        command
            .env("RUST_LOG", "error")
            .env("DISPLAY", &self.display)
            .env("XDG_DATA_HOME", data_home)
            .env_remove("WAYLAND_DISPLAY");
        Running(command.spawn().unwrap())
    }

    /// What `ddpm-film bench` prints with these arguments: one JSON object.
    fn bench(&self, args: &[&str]) -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddpm-film"));
        command.arg("bench").args(args).env("DISPLAY", &self.display).env_remove("WAYLAND_DISPLAY");
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    }

    fn xdotool(&self, args: &[&str]) -> String {
        let output = Command::new("xdotool").args(args).env("DISPLAY", &self.display).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn key(&self, key: &str) {
        self.xdotool(&["key", key]);
    }

    fn screenshot(&self) -> RgbaImage {
        let output =
            Command::new("import").args(["-window", "root", "png:-"]).env("DISPLAY", &self.display).output().unwrap();
        image::load_from_memory(&output.stdout).unwrap().into_rgba8()
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Pixels that differ in the middle band of the left or right half, where the pictures are.
fn changed(a: &RgbaImage, b: &RgbaImage, right: bool) -> usize {
    let (w, h) = a.dimensions();
    let xs = if right { w / 2..w } else { 0..w / 2 };
    xs.flat_map(|x| (h / 4..h * 5 / 8).map(move |y| (x, y)))
        .filter(|(x, y)| a.get_pixel(*x, *y) != b.get_pixel(*x, *y))
        .count()
}

const MANY: usize = 5000;

#[test]
fn a_real_window_plays_scrubs_trains_and_closes() {
    if let Some(tool) = missing_tool() {
        // past the test harness, which would swallow it
        writeln!(std::io::stderr(), "SKIPPED: the real-window test needs {tool}, which is not installed").unwrap();
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let desktop = Desktop::start();
    let mut program = desktop.program(home.path());
    let start = Instant::now();
    let window = wait_for("the window", || {
        assert_eq!(program.0.try_wait().unwrap(), None, "the program ended before its window was there");
        let search = |options: &[&str]| desktop.xdotool(&[&["search"], options, &["--name", "^ddpm-film$"]].concat());
        let found = search(&["--onlyvisible"]);
        if found.is_empty() && start.elapsed() > Duration::from_secs(20) {
            // a window that the window manager overlooked while it started is shown when it is mapped again
            search(&[]).lines().for_each(|id| drop(desktop.xdotool(&["windowmap", id])));
        }
        found.lines().last().map(str::to_owned).filter(|id| !id.is_empty())
    });
    desktop.xdotool(&["windowactivate", "--sync", &window]);
    desktop.xdotool(&["windowsize", "--sync", &window, "1280", "760"]);

    let mut before = desktop.screenshot();
    wait_for("the film to play by itself", || {
        let now = desktop.screenshot();
        let moved = changed(&before, &now, true) > MANY && changed(&before, &now, false) > MANY;
        before = now;
        moved.then_some(())
    });

    // on a busy machine a key may come before the window listens, so each is pressed until it has worked
    let looks_after = |key: &str| {
        desktop.key(key);
        std::thread::sleep(Duration::from_millis(500));
        desktop.screenshot()
    };
    let paused = wait_for("the film to stand at noise, and the predicted noise", || {
        // one that the window manager overlooked has no keyboard
        desktop.xdotool(&["windowactivate", &window]);
        looks_after("Home");
        let (state, noise) = (looks_after("x"), looks_after("e"));
        (changed(&state, &noise, true) > MANY && changed(&state, &noise, false) == 0).then_some(noise)
    });
    desktop.key("x");
    wait_for("the data at the end of the timeline", || {
        desktop.key("End");
        (changed(&paused, &desktop.screenshot(), false) > MANY).then_some(())
    });

    // a click near the left end of the timeline: back towards noise, on both sides
    let end = desktop.screenshot();
    let place = desktop.xdotool(&["getwindowgeometry", "--shell", &window]);
    let field = |name: &str| -> i32 {
        place.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).unwrap()
    };
    let (x, y) = (field("X") + 80, field("Y") + field("HEIGHT") - 48);
    desktop.xdotool(&[
        "mousemove",
        &x.to_string(),
        &y.to_string(),
        "sleep",
        "0.3",
        "mousedown",
        "1",
        "sleep",
        "0.3",
        "mouseup",
        "1",
    ]);
    wait_for("the click on the timeline", || (changed(&end, &desktop.screenshot(), false) > MANY).then_some(()));

    // a film under way goes before training
    desktop.key("s");
    let film = desktop.screenshot();
    let empty = wait_for("the training view", || {
        desktop.key("F3");
        let now = desktop.screenshot();
        (changed(&film, &now, true) > MANY && changed(&now, &desktop.screenshot(), false) == 0).then_some(now)
    });
    let mut curve = wait_for("the training view to fill", || {
        desktop.key("ctrl+Return");
        let now = desktop.screenshot();
        (changed(&empty, &now, false) > 500).then_some(now)
    });
    for _ in 0..2 {
        let now = wait_for("the curve to move", || {
            let now = desktop.screenshot();
            (changed(&curve, &now, false) > 20).then_some(now)
        });
        curve = now;
    }

    // the training is in memory only: the window asks, also when the system ends it; the second button discards
    let pid = program.0.id().to_string();
    let changes = |what: &str, by: &dyn Fn()| {
        let before = desktop.screenshot();
        wait_for(what, || {
            by();
            std::thread::sleep(Duration::from_millis(500));
            (changed(&before, &desktop.screenshot(), false) > MANY).then_some(())
        });
    };
    changes("the question what is to become of the training", &|| desktop.key("alt+F4"));
    changes("the end of the question", &|| desktop.key("Escape"));
    changes("the question after a signal", &|| {
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    });
    assert_eq!(program.0.try_wait().unwrap(), None, "it closed without asking");
    desktop.key("Tab");
    desktop.key("Return");
    let status = wait_for("the program to end", || program.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn bench_measures_the_real_window() {
    if let Some(tool) = missing_tool() {
        writeln!(std::io::stderr(), "SKIPPED: the measured-window test needs {tool}, which is not installed").unwrap();
        return;
    }
    let desktop = Desktop::start();
    let start = desktop.bench(&["--what", "start", "--steps", "1", "--json"]);
    assert_eq!(start["what"], "start");
    assert!((1.0..60_000.0).contains(&start["ms"].as_f64().unwrap()), "{start}");
    let seen = desktop.bench(&["--probe", "film", "--steps", "1"]);
    let seconds = |key: &str| seen[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let [frames, gaps, slider] = ["frames", "gaps", "slider"].map(seconds);
    assert!(frames.len() == gaps.len() && gaps.iter().sum::<f64>() > 0.9, "{seen}");
    assert_eq!(slider.len(), 10, "{seen}");
    for v in frames.iter().chain(&gaps).chain(&slider) {
        assert!((1e-5..30.0).contains(v), "{seen}");
    }
}

#[test]
fn without_a_display_one_sentence_names_the_command_line() {
    if cfg!(not(target_os = "linux")) {
        return;
    }
    let refused = |display: Option<&str>| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ddpm-film"));
        program.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").env_remove("WAYLAND_SOCKET");
        program.envs(display.map(|name| ("DISPLAY", name)));
        let output = program.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("ddpm-film sample --help") && !said.contains("panicked"), "{said}");
        said
    };
    let said = refused(None);
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    // a display that does not answer
    refused(Some(":4242"));
}
