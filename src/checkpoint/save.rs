//! Writing a checkpoint so that a loadable one is there at every moment.

use super::{ADAM, CONFIG, Checkpoint, MODEL_INDEX, RAW, SCHEDULER, STATE, WEIGHTS, tensors};
use crate::error::{Error, Result};
use crate::model::Params;
use serde::Serialize;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The version of diffusers whose files these are like.
const DIFFUSERS_VERSION: &str = "0.42.1";

/// What [`save`] owns in a folder; whatever else lies there stays.
const OURS: [&str; 4] = [MODEL_INDEX, "unet", "scheduler", "film"];

/// Writes the checkpoint into the folder `dir`, which diffusers' `DDPMPipeline.from_pretrained` reads.
///
/// It is written beside `dir`, flushed to disk and renamed, so that after a crash at any moment [`super::load`] finds a
/// whole checkpoint, at worst the previous one. Other files in `dir` stay.
///
/// # Errors
/// The folder cannot be written; the checkpoint that was there is untouched.
pub fn save(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    // a link to a folder stays a link
    let dir = &fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    if dir.exists() && !dir.is_dir() {
        return Err(Error::new("cannot save the model", "this is a file", "choose a folder").at(dir));
    }
    replace(dir, |folder| write(folder, checkpoint)).map_err(|e| e.at(dir))
}

/// Where the old checkpoint is while the new one takes its place.
pub(super) fn previous(dir: &Path) -> PathBuf {
    with_suffix(dir, ".previous")
}

fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.components().as_path().file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    dir.with_file_name(name)
}

fn write(folder: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let index = json!({"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]});
    let file = |path: &str, bytes: Vec<u8>| write_file(&folder.join(path), &bytes);
    file(MODEL_INDEX, described("DDPMPipeline", &index)?)?;
    file(&format!("unet/{CONFIG}"), described("UNet2DModel", &checkpoint.config)?)?;
    file(&format!("unet/{WEIGHTS}"), weights(&checkpoint.ema)?)?;
    file(&format!("scheduler/{SCHEDULER}"), described("DDPMScheduler", &checkpoint.schedule)?)?;
    if let Some(training) = &checkpoint.training {
        file(RAW, weights(&training.raw)?)?;
        if let Some((m, v)) = &training.adam {
            let m = m.iter().map(|(name, t)| (format!("m.{name}"), t));
            let v = v.iter().map(|(name, t)| (format!("v.{name}"), t));
            file(ADAM, tensors::write(m.chain(v))?)?;
        }
        file(STATE, pretty(&training.state)?)?;
    }
    Ok(())
}

/// Writes a file and its folder, to disk and not only to memory.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(not_saved)
}

fn weights(params: &Params) -> Result<Vec<u8>> {
    tensors::write(params.iter().map(|(name, tensor)| (name.to_owned(), tensor)))
}

/// A diffusers configuration: the class, the version, then the fields.
fn described(class: &str, fields: &impl Serialize) -> Result<Vec<u8>> {
    let mut all = json!({"_class_name": class, "_diffusers_version": DIFFUSERS_VERSION});
    if let (Value::Object(all), Value::Object(fields)) = (&mut all, serde_json::to_value(fields).map_err(not_saved)?) {
        all.extend(fields);
    }
    pretty(&all)
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(not_saved)?;
    text.push(b'\n');
    Ok(text)
}

fn not_saved(e: impl Display) -> Error {
    Error::new("cannot save the model", e.to_string(), "")
}

/// Has `fill` write a folder, which then takes the place of `dir`.
fn replace(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (new, old) = (with_suffix(dir, ".saving"), previous(dir));
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if new.exists() {
        fs::remove_dir_all(&new).map_err(not_saved)?;
    }
    fill(&new)?;
    let swap = || {
        for folder in OURS.map(|name| new.join(name)).iter().filter(|path| path.is_dir()) {
            sync_folder(folder)?;
        }
        sync_folder(&new)?;
        if dir.exists() {
            retire(&old, dir)?;
            fs::rename(dir, &old)?;
        }
        fs::rename(&new, dir)?;
        sync_folder(parent)?;
        retire(&old, dir)
    };
    swap().map_err(not_saved)
}

/// Removes the checkpoint in `old`; what else lies there moves to `dir`.
fn retire(old: &Path, dir: &Path) -> io::Result<()> {
    if !old.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(old)? {
        let (name, path) = entry.map(|e| (e.file_name(), e.path()))?;
        if !OURS.iter().any(|own| name == *own) {
            if !dir.join(&name).exists() {
                fs::rename(&path, dir.join(&name))?;
            }
        } else if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    fs::remove_dir(old)
}

/// Makes renames inside a folder last through a power cut; Windows cannot and need not.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
