//! An engine driven from the command line.

use super::Machine;
use crate::engine::{Command, Engine, Error, Event, JobId, ModelInfo, Origin, Outcome, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) struct Session {
    engine: Engine,
    interrupted: Arc<AtomicBool>,
}

/// A session with a model loaded.
pub(super) struct ModelSession {
    session: Session,
    pub model: Arc<ModelInfo>,
}

impl ModelSession {
    /// As [`Session::start`], until the model is there.
    pub(super) fn start(machine: &Machine, model: Origin) -> Result<Self> {
        let session = Session::start(machine, Some(model))?;
        loop {
            match session.engine.wait(POLL)? {
                Some(Event::ModelChanged(model)) => return Ok(Self { session, model }),
                Some(Event::Finished(_, Outcome::Failed(e))) => return Err(e),
                Some(Event::Warning(words)) => log::warn!("{words}"),
                _ if session.interrupted.load(Ordering::Relaxed) => return Err(Error::cancelled()),
                _ => {}
            }
        }
    }
}

impl std::ops::Deref for ModelSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// How often Ctrl-C is looked for.
const POLL: Duration = Duration::from_millis(100);

impl Session {
    /// Starts the engine; Ctrl-C and SIGTERM end the current job in good order.
    pub(super) fn start(machine: &Machine, model: Option<Origin>) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
            .map_err(|e| Error::new("cannot watch for Ctrl-C", e.to_string(), ""))?;
        Ok(Self { engine: Engine::start(machine.options(model), || ())?, interrupted })
    }

    /// Sends the command that `make` builds for a new job and hands on its events until the job is over.
    pub(super) fn drive(&self, make: impl FnOnce(JobId) -> Command, mut on: impl FnMut(Event)) -> Result<()> {
        let job = self.engine.new_job();
        self.engine.send(make(job))?;
        let mut cancelled = false;
        loop {
            if self.interrupted.load(Ordering::Relaxed) && !cancelled {
                self.engine.send(Command::Cancel(job))?;
                cancelled = true;
            }
            match self.engine.wait(POLL)? {
                // job 0 is the start itself: device and first model
                Some(Event::Finished(id, outcome)) if id == job || id == 0 => {
                    return match outcome {
                        Outcome::Done => Ok(()),
                        Outcome::Cancelled => Err(Error::cancelled()),
                        Outcome::Failed(e) => Err(e),
                    };
                }
                Some(Event::Warning(words)) => log::warn!("{words}"),
                Some(event) => on(event),
                None => {}
            }
        }
    }
}

/// A progress bar on a terminal, nothing in a file.
pub(super) fn progress_bar(total: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit}  {{msg}}");
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
