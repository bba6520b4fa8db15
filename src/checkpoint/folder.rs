//! Whose a folder is: what is not ours is never replaced, and two runs never write into one.

use super::{CHECKSUMS, CONFIG, MODEL_INDEX, PLACING, RAW, SAVING, STATE, WEIGHTS};
use crate::error::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// A folder that no other run can claim until this is dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<File>,
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
    Ok(Claim { _lock: lock })
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
