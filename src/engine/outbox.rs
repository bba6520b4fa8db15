//! The way out of the worker and of the threads beside it.

use super::{Event, JobId, Outcome};
use crate::error::{Kind, Result};
use crossbeam_channel::{Sender, TrySendError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The way out for events.
#[derive(Clone)]
pub(super) struct Outbox {
    sender: Sender<Event>,
    quit: Arc<AtomicBool>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Outbox {
    pub(super) fn new(sender: Sender<Event>, quit: Arc<AtomicBool>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { sender, quit, wake }
    }

    /// Delivers an event; while the window is behind, waits in short turns.
    pub(super) fn send(&self, mut event: Event) {
        while !self.quit() {
            match self.sender.try_send(event) {
                Ok(()) => return (self.wake)(),
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => event = back,
            }
            (self.wake)();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Delivers an event, or leaves it out when the window is behind; the next one holds all that this one told.
    pub(super) fn send_or_skip(&self, event: Event) {
        if self.sender.try_send(event).is_ok() {
            (self.wake)();
        }
    }

    /// Says what failed, where that stops nothing.
    pub(super) fn warn(&self, result: Result<()>) {
        if let Err(e) = result {
            self.send(Event::Warning(e.to_string()));
        }
    }

    pub(super) fn finished(&self, job: JobId, result: Result<()>) {
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(e) if e.kind == Kind::Cancelled => Outcome::Cancelled,
            Err(e) => Outcome::Failed(e),
        };
        self.send(Event::Finished(job, outcome));
    }

    /// Whether the other end is being dropped.
    pub(super) fn quit(&self) -> bool {
        self.quit.load(Ordering::Relaxed)
    }
}
