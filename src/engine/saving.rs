//! Saves on a thread of their own, so that training goes on meanwhile.

use super::device;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::train::trainer::Snapshot;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// A save under way. It was handed all that it needs, and is waited for with [`Saving::end`].
pub(super) struct Saving {
    step: u64,
    thread: JoinHandle<Result<()>>,
}

impl Saving {
    /// Begins to save the state of a run into its folder.
    pub(super) fn start(dir: PathBuf, step: u64, state: Snapshot) -> Result<Self> {
        let save = move || {
            device::lower_priority();
            checkpoint::save(&dir, &state.checkpoint()?)
        };
        let thread = std::thread::Builder::new().name("ddpm-save".into()).spawn(save);
        let thread = thread.map_err(|e| Error::new("cannot save the run", e.to_string(), "close other programs"))?;
        Ok(Self { step, thread })
    }

    /// Whether [`Saving::end`] would not wait.
    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end; the step that was saved.
    pub(super) fn end(self) -> Result<u64> {
        let mistake = |_| Err(Error::new("cannot save the run", "the program made a mistake", "please report this"));
        self.thread.join().unwrap_or_else(mistake).map(|()| self.step)
    }
}
