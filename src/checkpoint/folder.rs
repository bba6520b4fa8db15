//! Whose a folder is: what is not ours is never replaced, and two runs never write into one.

use super::{CHECKSUMS, CONFIG, MODEL_INDEX, PLACING, RAW, SAVING, STATE, WEIGHTS};
use crate::error::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// A folder that no other run can claim until this is released or dropped.
#[derive(Debug)]
pub struct Claim {
    lock: Option<File>,
    /// Which folder, where the system says it.
    folder: Option<(u64, u64)>,
    held: bool,
}

impl Claim {
    /// Lets others claim the folder, and remembers which it was.
    pub fn release(&mut self) {
        (self.lock, self.held) = (None, false);
    }

    /// Whether it was not released.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Checks that `dir` still is the claimed folder, or nothing: then it is made and claimed again. Returns whether that is
    /// so.
    ///
    /// # Errors
    /// Another folder is in its place, or it cannot be made.
    pub fn hold(&mut self, dir: &Path) -> Result<bool> {
        let Some(own) = self.folder else { return Ok(false) };
        let Ok(there) = fs::metadata(dir) else {
            fs::create_dir_all(dir).map_err(|e| Error::new("cannot save the run", e.to_string(), "").at(dir))?;
            *self = claim(dir, true)?;
            return Ok(true);
        };
        if identity(&there) == Some(own) {
            return Ok(false);
        }
        let why = "its folder was moved away, and another is in its place";
        Err(Error::new("cannot save the run", why, "move it back, or save to another folder").at(dir))
    }
}

/// What tells a folder from others, where the system says it.
#[cfg(unix)]
fn identity(folder: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((folder.dev(), folder.ino()))
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

/// Claims a folder for a run or a save, which may take the place of what a save left there only if `replace`.
///
/// # Errors
/// Another run is writing there, or something would be replaced.
pub fn claim(dir: &Path, replace: bool) -> Result<Claim> {
    let refuse = |why: String, hint: &str| Error::new("cannot take this folder", why, hint).at(dir);
    // the lock is on the folder itself, so it leaves no file; Windows opens no folders
    let lock = if cfg!(unix) { File::open(dir).ok() } else { None };
    if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock) {
        return Err(refuse("another run is writing there".into(), "wait for its end, or choose another folder"));
    }
    if !replace && let Some(name) = names(dir).or_else(|| bare_model(dir)) {
        let hint = "choose another folder, or go on with the run that is there (train --resume)";
        return Err(refuse(format!("there already is {name} in this folder, which would be replaced"), hint));
    }
    let folder = lock.as_ref().and_then(|lock| identity(&lock.metadata().ok()?));
    Ok(Claim { lock, folder, held: true })
}

/// Refuses a folder where a save would replace what this program did not write.
pub(super) fn check_ours(dir: &Path) -> Result<()> {
    // the first save of a run may have been cut off on its way here
    let ours = [CHECKSUMS.into(), Path::new(SAVING).join(CHECKSUMS)].iter().any(|path| dir.join(path).is_file());
    // the first version wrote no checksums
    let ours = ours || [RAW, STATE].iter().all(|path| dir.join(path).is_file());
    match names(dir) {
        Some(name) if !ours => {
            let why = format!("there already is {name} in this folder, which this program did not write");
            Err(Error::new("cannot save the model", why, "choose another folder"))
        }
        _ => Ok(()),
    }
}

/// The first thing in the folder that has a name of ours, but for a save that was cut off before it was whole.
fn names(dir: &Path) -> Option<&'static str> {
    let there = |name: &str| fs::symlink_metadata(dir.join(name)).is_ok();
    let film = || match fs::read_dir(dir.join("film")) {
        Ok(entries) => entries.flatten().any(|entry| {
            let path = Path::new("film").join(entry.file_name());
            ![SAVING, PLACING].iter().any(|cut_off| path == Path::new(cut_off))
        }),
        Err(_) => there("film"),
    };
    [MODEL_INDEX, "unet", "scheduler"].into_iter().find(|name| there(name)).or_else(|| film().then_some("film"))
}

fn bare_model(dir: &Path) -> Option<&'static str> {
    [CONFIG, WEIGHTS].iter().all(|name| dir.join(name).is_file()).then_some(WEIGHTS)
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    #[test]
    fn a_claim_notices_that_another_folder_is_in_the_place_of_its_own() {
        use super::{claim, fs};
        let tmp = tempfile::tempdir().unwrap();
        let [run, aside] = ["run", "aside"].map(|name| tmp.path().join(name));
        fs::create_dir(&run).unwrap();
        let mut first = claim(&run, false).unwrap();
        assert!(!first.hold(&run).unwrap());
        // moved away, with nothing in its place: a new folder, claimed as the first one was
        fs::rename(&run, &aside).unwrap();
        assert!(first.hold(&run).unwrap() && !first.hold(&run).unwrap());
        assert!(claim(&run, false).unwrap_err().to_string().contains("another run is writing there"));
        fs::remove_dir(&run).unwrap();
        fs::rename(&aside, &run).unwrap();
        let _second = claim(&run, false).unwrap();
        first.release();
        let e = first.hold(&run).unwrap_err().to_string();
        assert!(e.contains("its folder was moved away, and another is in its place"), "{e}");
    }
}
