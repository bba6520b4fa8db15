//! Where the files of a checkpoint come from: a folder or the program itself.

use super::checksums::Checksums;
use super::{CHECKSUMS, unreadable};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The most that a file of settings may hold.
const MOST_TEXT: u64 = 64 << 20;

pub(super) enum Files {
    /// With what its save consisted of, where that is known.
    Folder(PathBuf, Option<Checksums>),
    /// Path inside the folder, content.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Files {
    /// The files of a folder, checked against its checksums if it has some.
    pub fn folder(dir: &Path) -> Result<Self> {
        let unchecked = Self::Folder(dir.to_owned(), None);
        let Some(text) = unchecked.text(CHECKSUMS)? else { return Ok(unchecked) };
        let checksums = serde_json::from_slice(&text).map_err(|e| unchecked.damaged(CHECKSUMS, &e.to_string()))?;
        Ok(Self::Folder(dir.to_owned(), Some(checksums)))
    }

    /// Whether there are checksums, and every file is there as it was saved.
    pub fn are_whole(&self) -> bool {
        let Self::Folder(_, Some(checksums)) = self else { return false };
        checksums.paths().all(|path| matches!(self.read(path, u64::MAX), Ok(Some(_))))
    }

    /// A file of settings, or `None` where there is no such file.
    pub fn text(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        self.read(path, MOST_TEXT)
    }

    /// The file's bytes, `most` of them at most, or `None` where there is no such file.
    pub fn read(&self, path: &str, most: u64) -> Result<Option<Cow<'static, [u8]>>> {
        let (dir, checksums) = match self {
            Self::Folder(dir, checksums) => (dir, checksums.as_ref().filter(|_| path != CHECKSUMS)),
            Self::Embedded(files) => {
                let found = files.iter().find(|(name, _)| *name == path);
                return Ok(found.map(|(_, bytes)| Cow::Borrowed(*bytes)));
            }
        };
        if checksums.is_some_and(|c| !c.lists(path)) {
            return Ok(None);
        }
        // looked at before it is opened: a pipe would wait, a device would never end
        let there = fs::metadata(dir.join(path));
        let bytes = match there.map(|file| (file.is_file(), file.len())) {
            Ok((true, len)) if len > most => {
                let why = format!("it holds {len} bytes, far more than such a file needs");
                return Err(self.error(path, &why, "choose another model"));
            }
            Ok((true, _)) => fs::read(dir.join(path)),
            Ok((false, _)) => return Err(self.error(path, "this is not a regular file", "choose another model")),
            Err(e) => Err(e),
        };
        match (bytes, checksums) {
            (Ok(bytes), Some(c)) if !c.fits(path, &bytes) => Err(self.damaged(path, "it is not as it was saved")),
            (Ok(bytes), _) => Ok(Some(Cow::Owned(bytes))),
            (Err(e), None) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => Ok(None),
            (Err(e), None) => Err(self.error(path, &e.to_string(), "")),
            (Err(e), Some(_)) => Err(self.damaged(path, &e.to_string())),
        }
    }

    pub fn has(&self, path: &str) -> bool {
        match self {
            Self::Folder(dir, checksums) => {
                checksums.as_ref().map_or_else(|| dir.join(path).is_file(), |c| c.lists(path))
            }
            Self::Embedded(files) => files.iter().any(|(name, _)| *name == path),
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        match self {
            Self::Folder(dir, _) => dir.join(path),
            Self::Embedded(_) => PathBuf::from("inside the program").join(path),
        }
    }

    pub fn error(&self, path: &str, why: &str, hint: &str) -> Error {
        unreadable(why, hint).at(self.path(path))
    }

    fn damaged(&self, path: &str, why: &str) -> Error {
        let hint = "copy the model again, or delete film/checksums.json if it was changed on purpose";
        self.error(path, &format!("the file is damaged: {why}"), hint)
    }
}
