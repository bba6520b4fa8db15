//! Where the files of a checkpoint come from: a folder or the program itself.

use super::unreadable;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::PathBuf;

pub(super) enum Files {
    Folder(PathBuf),
    /// Path inside the folder, content.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Files {
    /// The file's bytes, or `None` where there is no such file.
    pub fn read(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self {
            Self::Folder(dir) => match std::fs::read(dir.join(path)) {
                Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
                Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => Ok(None),
                Err(e) => Err(self.error(path, &e.to_string(), "")),
            },
            Self::Embedded(files) => {
                let found = files.iter().find(|(name, _)| *name == path);
                Ok(found.map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
        }
    }

    pub fn has(&self, path: &str) -> bool {
        match self {
            Self::Folder(dir) => dir.join(path).is_file(),
            Self::Embedded(files) => files.iter().any(|(name, _)| *name == path),
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        match self {
            Self::Folder(dir) => dir.join(path),
            Self::Embedded(_) => PathBuf::from("inside the program").join(path),
        }
    }

    pub fn error(&self, path: &str, why: &str, hint: &str) -> Error {
        unreadable(why, hint).at(self.path(path))
    }
}
