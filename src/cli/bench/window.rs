//! The real window, opened in a process of its own: how soon it shows a film, and how smooth it stays.

use super::Machine;
use super::report::{Report, quantile, round};
use crate::engine::{Error, Origin, Result};
use crate::ui::{self, Probe, Task};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the probed window is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Purpose {
    /// Its first picture.
    Start,
    /// A film that plays, and its slider.
    Film,
    /// The same during training.
    Training,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Film => "film",
            Self::Training => "training",
        }
    }
}

/// The child's part: opens the window and prints what its probe saw, in seconds.
pub(super) fn probe(purpose: Purpose, seconds: u16, machine: &Machine) -> Result<()> {
    let task = match purpose {
        Purpose::Start => Task::Start,
        Purpose::Film => Task::Film,
        Purpose::Training => Task::Training,
    };
    let probe = Rc::new(RefCell::new(Probe::new(task, f64::from(seconds))));
    ui::run(machine.options(Some(Origin::Shipped)), Some(Rc::clone(&probe)), |_| ())?;
    let seen = &probe.borrow().seen;
    let first = seen.first_picture.map(unix_seconds);
    println!("{}", json!({ "first": first, "frames": seen.frames, "gaps": seen.gaps, "slider": seen.slider }));
    Ok(())
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// `times` starts of the program: from its process to the first picture of a film on the screen.
pub(super) fn start(times: u16, machine: &Machine, report: &Report<'_>) -> Result<()> {
    let mut ms = Vec::new();
    for _ in 0..times {
        let before = unix_seconds(SystemTime::now());
        match open(Purpose::Start, 1, machine)? {
            Seen::Window(seen) => ms.extend(seen["first"].as_f64().map(|first| (first - before) * 1e3)),
            Seen::Nothing(why) => return skip("start", &why, report),
        }
    }
    if ms.is_empty() {
        return skip("start", "the window closed before it showed a picture", report);
    }
    let text = format!("{:>10.0} ms (best {:.0}) to the first picture", quantile(&ms, 0.5), quantile(&ms, 0.0));
    let values = json!({ "ms": round(quantile(&ms, 0.5), 1), "best_ms": round(quantile(&ms, 0.0), 1) });
    report.line("start", values, &text);
    Ok(())
}

/// `seconds` of a film in the window, and moves of its slider, without and with training.
pub(super) fn frames(seconds: u16, machine: &Machine, report: &Report<'_>) -> Result<()> {
    for purpose in [Purpose::Film, Purpose::Training] {
        let seen = match open(purpose, seconds, machine)? {
            Seen::Window(seen) => seen,
            Seen::Nothing(why) => return skip("window", &why, report),
        };
        let mut values = json!({ "during": purpose.name() });
        let mut text = format!("during {:<9} ms p50/p99", purpose.name());
        for (key, says) in [("frames", "a frame"), ("gaps", "between frames"), ("slider", "slider to picture")] {
            let ms: Vec<f64> =
                seen[key].as_array().into_iter().flatten().filter_map(|v| Some(v.as_f64()? * 1e3)).collect();
            if ms.is_empty() {
                return skip(
                    "window",
                    &format!("the window closed before it was measured during {}", purpose.name()),
                    report,
                );
            }
            let [p50, p99] = [0.5, 0.99].map(|p| quantile(&ms, p));
            values[key] = json!({ "p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "n": ms.len() });
            text += &format!("  {says} {p50:.1}/{p99:.1}");
        }
        report.line("window", values, &text);
    }
    Ok(())
}

enum Seen {
    Window(Value),
    /// There was no window, for this reason.
    Nothing(String),
}

fn open(purpose: Purpose, seconds: u16, machine: &Machine) -> Result<Seen> {
    let fail = |why: String| Error::new("cannot measure the window", why, "");
    let program = std::env::current_exe().map_err(|e| fail(e.to_string()))?;
    let mut command = Command::new(program);
    command.args(["bench", "--probe", purpose.name(), "--steps", &seconds.to_string()]);
    command.args(["--threads", &machine.threads.to_string(), "--device", &machine.device.to_string()]);
    let out = command.env("RUST_LOG", "error").stdin(Stdio::null()).output().map_err(|e| fail(e.to_string()))?;
    if out.status.success() {
        return Ok(Seen::Window(serde_json::from_slice(&out.stdout).map_err(|e| fail(e.to_string()))?));
    }
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let why = said.lines().find_map(|l| l.strip_prefix("error: ")).map_or(said.trim(), |why| why);
    Ok(Seen::Nothing(why.to_owned()))
}

fn skip(what: &str, why: &str, report: &Report<'_>) -> Result<()> {
    report.line(what, json!({ "not_measured": why }), &format!("NOT MEASURED: {why}"));
    Ok(())
}
