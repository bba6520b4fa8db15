//! The real window, opened in a process of its own: how soon it shows a film, and how smooth it stays.

use super::Machine;
use super::report::{Report, quantile, round};
use crate::engine::{Command, Engine, Error, Event, Origin, Outcome, Result, RunConfig, TrainRequest};
use crate::ui::{self, Probe, Task};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the probed window is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Purpose {
    /// Its first picture.
    Start,
    /// A film that plays, and its slider.
    Film,
    /// The same during training.
    Training,
    /// A film that stands still during training.
    Paused,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Film => "film",
            Self::Training => "training",
            Self::Paused => "paused",
        }
    }
}

/// The child's part: opens the window and prints what its probe saw, in seconds.
pub(super) fn probe(purpose: Purpose, seconds: u16, machine: &Machine) -> Result<()> {
    let task = match purpose {
        Purpose::Start => Task::Start,
        Purpose::Film => Task::Film,
        Purpose::Training => Task::Training,
        Purpose::Paused => Task::Paused,
    };
    let probe = Rc::new(RefCell::new(Probe::new(task, f64::from(seconds))));
    ui::run(machine.options(Some(Origin::Shipped)), None, Some(Rc::clone(&probe)), |_| ())?;
    let seen = &probe.borrow().seen;
    let first = seen.first_picture.map(unix_seconds);
    say!(
        "{}",
        json!({ "first": first, "frames": seen.frames, "gaps": seen.gaps, "slider": seen.slider,
        "steps_per_s": seen.steps_per_s })
    );
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
            Seen::Nothing(why) => return report.not_measured("start", &why),
        }
    }
    if ms.is_empty() {
        return report.not_measured("start", "the window closed before it showed a picture");
    }
    let text = format!("{:>10.0} ms (best {:.0}) to the first picture", quantile(&ms, 0.5), quantile(&ms, 0.0));
    let values = json!({ "ms": round(quantile(&ms, 0.5), 1), "best_ms": round(quantile(&ms, 0.0), 1) });
    report.line("start", values, &text)
}

/// `seconds` of a film in the window, and moves of its slider, without and with training.
pub(super) fn frames(seconds: u16, machine: &Machine, report: &Report<'_>) -> Result<()> {
    for purpose in [Purpose::Film, Purpose::Training] {
        let seen = match open(purpose, seconds, machine)? {
            Seen::Window(seen) => seen,
            Seen::Nothing(why) => return report.not_measured("window", &why),
        };
        let mut values = json!({ "during": purpose.name() });
        let mut text = format!("during {:<9} ms p50/p99", purpose.name());
        for (key, says) in [("frames", "a frame"), ("gaps", "between frames"), ("slider", "slider to picture")] {
            let ms: Vec<f64> =
                seen[key].as_array().into_iter().flatten().filter_map(|v| Some(v.as_f64()? * 1e3)).collect();
            if ms.is_empty() {
                let why = format!("the window closed before it was measured during {}", purpose.name());
                return report.not_measured("window", &why);
            }
            let [p50, p99] = [0.5, 0.99].map(|p| quantile(&ms, p));
            values[key] = json!({ "p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "n": ms.len() });
            text += &format!("  {says} {p50:.1}/{p99:.1}");
        }
        report.line("window", values, &text)?;
    }
    Ok(())
}

/// Training steps a second, with the window's own settings: without a window, and behind one whose film is paused, in turn.
pub(super) fn paused(seconds: u16, rounds: u16, machine: &Machine, report: &Report<'_>) -> Result<()> {
    let (mut alone, mut behind) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(training_alone(f64::from(seconds), machine)?);
        match open(Purpose::Paused, seconds, machine)? {
            Seen::Window(seen) => behind.extend(seen["steps_per_s"].as_f64()),
            Seen::Nothing(why) => return report.not_measured("paused", &why),
        }
    }
    if behind.is_empty() {
        return report.not_measured("paused", "the window closed before it was measured");
    }
    let [without, with] = [&alone, &behind].map(|speeds| quantile(speeds, 0.5));
    let slower = 100.0 * (1.0 - with / without);
    let values = json!({ "steps_per_s": round(without, 3), "behind_window": round(with, 3),
        "slower_percent": round(slower, 1), "rounds": rounds });
    let text =
        format!("{without:>10.2} steps/s without a window, {with:.2} behind a paused film: {slower:.1} % slower");
    report.line("paused", values, &text)
}

/// Steps a second of the training that the window starts, by an engine without one.
fn training_alone(seconds: f64, machine: &Machine) -> Result<f64> {
    let engine = Engine::start(machine.options(None), || ())?;
    let job = engine.new_job();
    let request =
        TrainRequest { config: RunConfig::default(), out: None, resume: None, save_every: None, preview_share: None };
    engine.send(Command::Train(job, Box::new(request)))?;
    let mut first: Option<(u64, Instant)> = None;
    loop {
        match engine.wait(Duration::from_millis(100))? {
            Some(Event::Metrics(_, metrics)) if metrics.step >= 2 => {
                let &mut (step, since) = first.get_or_insert((metrics.step, Instant::now()));
                let passed = since.elapsed().as_secs_f64();
                if passed > seconds {
                    return Ok((metrics.step - step) as f64 / passed);
                }
            }
            Some(Event::Finished(_, Outcome::Failed(e))) => return Err(e),
            _ => {}
        }
    }
}

enum Seen {
    Window(Value),
    /// There was no window, for this reason.
    Nothing(String),
}

fn open(purpose: Purpose, seconds: u16, machine: &Machine) -> Result<Seen> {
    let fail = |why: String| Error::new("cannot measure the window", why, "");
    let program = std::env::current_exe().map_err(|e| fail(e.to_string()))?;
    let mut command = std::process::Command::new(program);
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
