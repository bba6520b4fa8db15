//! A file that only grows, by whole entries, whatever the disk does.

use crate::error::{Error, Result};
use crate::export::files::cannot_write;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Bytes that wait for a disk that takes none; what comes after them is lost.
const MOST_PENDING: usize = 16 << 20;

/// Entries on their way to the end of a file, which is made when there is a first one.
pub(super) struct Appender {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of whole entries in the file.
    written: u64,
    pending: Vec<u8>,
    /// Whether the file could not be written when it was last tried.
    stuck: bool,
}

impl Appender {
    /// Goes on where the file ends, if there is one.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, written: 0, pending: Vec::new(), stuck: false }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing was ever added.
    pub fn is_unused(&self) -> bool {
        self.file.is_none() && self.pending.is_empty()
    }

    pub fn add(&mut self, entry: &[u8]) {
        if self.pending.len() + entry.len() <= MOST_PENDING {
            self.pending.extend(entry);
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The first of several failures in a row; what waits is tried again the next time.
    pub fn flush(&mut self) -> Result<()> {
        match self.write() {
            Ok(()) => {
                self.stuck = false;
                Ok(())
            }
            Err(_) if self.stuck => Ok(()),
            Err(e) => {
                self.stuck = true;
                let Error { why, hint, .. } = cannot_write(&e);
                let hint = format!("{hint}; training goes on, and the curves are written once that is possible");
                Err(Error::new("cannot write the run's curves", why, hint).at(&self.path))
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                self.written = file.metadata()?.len();
                none.insert(file)
            }
        };
        if let Err(e) = file.write_all(&self.pending) {
            // no half entry may stand before the next one
            file.set_len(self.written)?;
            return Err(e);
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Writes what waits, through a power cut too. What fails is tried again, and reported, by the next flush.
    pub fn sync(&mut self) {
        let synced = self.write().and_then(|()| self.file.as_ref().map_or(Ok(()), File::sync_data));
        synced.unwrap_or_default();
    }
}
