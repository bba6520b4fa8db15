//! Writing a file whole or not at all.

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Puts what `write` writes at `path`, over a file that may be there. It goes to a temporary file beside the target,
/// then to the disk, then gets its name: whatever fails, the target stays as it was and no other file is left.
pub fn save_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    save(path, write).map_err(|e| if e.path.is_none() { e.at(path) } else { e })
}

fn save(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let (file, pending) = Pending::create(path)?;
    let mut file = BufWriter::new(file);
    write(&mut file)?;
    drop(file.into_inner().map_err(|e| cannot_write(e.error()))?); // Windows renames closed files only
    pending.commit()
}

/// A file that does not have its name yet: it is there under a temporary one beside it, and goes when this is dropped.
pub struct Pending {
    temporary: Temporary,
    target: PathBuf,
}

impl Pending {
    /// Opens a temporary file beside `target`.
    ///
    /// # Errors
    /// As [`save_atomically`].
    pub fn create(target: &Path) -> Result<(File, Self)> {
        // a link stays a link
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let (file, temporary) = Temporary::create(&parent(&target)?).map_err(|e| cannot_write(&e))?;
        Ok((file, Self { temporary, target }))
    }

    /// Where it is until then.
    pub fn path(&self) -> &Path {
        &self.temporary.0
    }

    /// Sees that its closed file is on the disk and gives it its name, over a file that may be there.
    ///
    /// # Errors
    /// As [`save_atomically`].
    pub fn commit(self) -> Result<()> {
        let on_disk = OpenOptions::new().write(true).open(&self.temporary.0).and_then(|file| {
            if let Ok(before) = fs::metadata(&self.target) {
                file.set_permissions(before.permissions()).ok();
            }
            file.sync_all()
        });
        on_disk.and_then(|()| fs::rename(&self.temporary.0, &self.target)).map_err(|e| cannot_write(&e))?;
        if let Ok(folder) = File::open(parent(&self.target)?) {
            folder.sync_all().ok(); // the name too; not every system can
        }
        Ok(())
    }
}

/// Finds out before hours of work whether a file can be written at `path`.
///
/// # Errors
/// As [`save_atomically`].
pub fn check_file(path: &Path) -> Result<()> {
    let created = Temporary::create(&parent(path)?).map(drop).and_then(|()| {
        // its own name, too, may be one that no file can have
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|_| fs::remove_file(path)),
        }
    });
    created.map_err(|e| cannot_write(&e).at(path))
}

/// Finds out before hours of work whether files can be written into `folder`, which is made if need be.
///
/// # Errors
/// It cannot be made, or nothing can be written there.
pub fn check_folder(folder: &Path) -> Result<()> {
    let made = fs::create_dir_all(folder).and_then(|()| Temporary::create(folder).map(drop));
    made.map_err(|e| cannot_write(&e).at(folder))
}

fn parent(path: &Path) -> Result<PathBuf> {
    let names_a_folder = path.to_string_lossy().ends_with(std::path::is_separator);
    if names_a_folder || path.is_dir() || path.file_name().is_none() {
        return Err(Error::new("cannot write the file", "this is a folder", "add a file name").at(path));
    }
    // the new file would take the place of a pipe or a device
    if path.exists() && !path.is_file() {
        return Err(Error::new("cannot write the file", "this is not a regular file", "choose another name").at(path));
    }
    if fs::metadata(path).is_ok_and(|there| there.permissions().readonly()) {
        let hint = "choose another name, or allow writing to it";
        return Err(Error::new("cannot write the file", "the one that is there is write-protected", hint).at(path));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(folder.unwrap_or(Path::new(".")).to_owned())
}

/// What an input/output error means for a person who wanted a file written.
pub fn cannot_write(e: &io::Error) -> Error {
    let (why, hint) = match e.kind() {
        ErrorKind::NotFound => ("the folder does not exist", "create it, or choose another"),
        ErrorKind::NotADirectory => ("what should be its folder is a file", "choose another folder"),
        ErrorKind::PermissionDenied => ("writing here is not permitted", "choose another folder"),
        ErrorKind::ReadOnlyFilesystem => ("the disk is read-only", "choose another folder"),
        ErrorKind::InvalidFilename => {
            ("no file can have this name here", "choose a shorter one, without special characters")
        }
        ErrorKind::StorageFull => ("the disk is full", "free some space, or choose another disk"),
        ErrorKind::QuotaExceeded => ("the disk quota is used up", "free some space, or choose another disk"),
        _ => return Error::new("cannot write the file", e.to_string(), "try another folder"),
    };
    Error::new("cannot write the file", why, hint)
}

/// A file under a temporary name, which goes when this is dropped unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn create(folder: &Path) -> io::Result<(File, Self)> {
        let mut attempt = 0;
        loop {
            let path = folder.join(format!(".ddpm-film-{}-{attempt}.part", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                opened => return opened.map(|file| (file, Self(path))),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_to_try() {
        for (kind, expected) in [
            (ErrorKind::NotFound, "does not exist; create it"),
            (ErrorKind::PermissionDenied, "not permitted; choose another folder"),
            (ErrorKind::ReadOnlyFilesystem, "read-only; choose another"),
            (ErrorKind::InvalidFilename, "no file can have this name here; choose a shorter one"),
            (ErrorKind::StorageFull, "full; free some space"),
        ] {
            let text = cannot_write(&kind.into()).to_string();
            assert!(text.starts_with("cannot write the file: ") && text.contains(expected), "{text}");
        }
    }
}
