//! The one error type above the mathematics: what failed, why, and what to try, with the path last.

use std::fmt;
use std::path::{Path, PathBuf};

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Decides the exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work failed (exit code 1).
    Failed,
    /// The request makes no sense (exit code 2).
    Usage,
    /// A training came to what is not a number, and is back at its last good state (exit code 1).
    Diverged,
    /// A person stopped it (exit code 130).
    Cancelled,
}

/// A failure as a person reads it: one sentence, the path last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Sort of failure.
    pub kind: Kind,
    /// What could not be done: "cannot read the model".
    pub what: String,
    /// The reason, with the cause chain.
    pub why: String,
    /// What to try; may be empty.
    pub hint: String,
    /// The file or folder concerned.
    pub path: Option<PathBuf>,
}

impl Error {
    /// A failure: `what` could not be done, `why`, and a `hint` (empty for none).
    pub fn new(what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into(), why: why.into(), hint: hint.into(), path: None }
    }

    /// A request that makes no sense.
    pub fn usage(what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(what, why, hint) }
    }

    /// Stopped by a person.
    pub fn cancelled() -> Self {
        Self { kind: Kind::Cancelled, ..Self::new("stopped", "cancelled on request", "") }
    }

    /// Names the file or folder concerned.
    #[must_use]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(path.as_ref().to_owned());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        match &self.path {
            Some(path) => write!(f, " ({})", path.display()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        // candle appends a backtrace after a newline; people get the sentence.
        let why = e.to_string();
        Self::new("cannot compute", why.lines().next().unwrap_or("unknown reason"), "")
    }
}

impl From<crate::diffusion::Error> for Error {
    fn from(e: crate::diffusion::Error) -> Self {
        Self::usage("cannot use these settings", e.to_string(), "")
    }
}
