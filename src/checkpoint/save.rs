//! Writing a checkpoint so that a whole one is there at every moment, and the one before it as well.

use super::checksums::Checksums;
use super::files::Files;
use super::folder::check_ours;
use super::{
    ADAM, CHECKSUMS, CONFIG, Checkpoint, MODEL_INDEX, PLACING, PREVIOUS, RAW, SAVING, SCHEDULERS, STATE, WEIGHTS,
    tensors,
};
use crate::error::{Error, Result};
use crate::model::Params;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{Value, json};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// The version of diffusers whose files these are like.
const DIFFUSERS_VERSION: &str = "0.42.1";

/// All that [`save`] writes in a folder; whatever else lies there stays. The checksums come first: until the last file
/// is in place they say that the save is not whole.
const OURS: [&str; 8] = [
    CHECKSUMS,
    MODEL_INDEX,
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    SCHEDULERS[0],
    RAW,
    ADAM,
    STATE,
];

/// Writes the checkpoint into the folder `dir`, which diffusers' `DDPMPipeline.from_pretrained` reads.
///
/// It is written into `film/.saving` and flushed; then the files in place become `film/previous`, and the new ones take
/// their places one by one. So after a crash at any moment [`super::load`] finds a whole checkpoint: the new one or the
/// one before it.
///
/// # Errors
/// The folder cannot be written, or holds files of these names that are not ours; the checkpoint that was there is
/// untouched.
pub fn save(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    if dir.exists() && !dir.is_dir() {
        return Err(Error::new("cannot save the model", "this is a file", "choose a folder").at(dir));
    }
    check_ours(dir).and_then(|()| put(dir, checkpoint)).map_err(|e| e.at(dir))
}

fn put(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let new = dir.join(SAVING);
    let whole = |folder: &Path| Files::folder(folder).is_ok_and(|files| files.are_whole());
    // a save that was cut off while it took its place
    if whole(&new) && !whole(dir) {
        place(&new, dir).map_err(|e| disk_failed(&e))?;
    }
    remove(&new).map_err(|e| disk_failed(&e))?;
    if let Err(e) = write(&new, checkpoint) {
        remove(&new).unwrap_or_default();
        return Err(e);
    }
    let swap = || {
        if whole(dir) {
            remove(&dir.join(PREVIOUS))?;
            place(dir, &dir.join(PREVIOUS))?;
        }
        place(&new, dir)?;
        remove(&new)
    };
    swap().map_err(|e| disk_failed(&e))
}

fn write(folder: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let index = json!({"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]});
    let mut checksums = Checksums::default();
    let mut file = |path: &str, bytes: Vec<u8>| {
        checksums.add(path, &bytes);
        write_file(&folder.join(path), &bytes)
    };
    file(MODEL_INDEX, described("DDPMPipeline", &index)?)?;
    file(&format!("unet/{CONFIG}"), described("UNet2DModel", &checkpoint.config)?)?;
    file(&format!("unet/{WEIGHTS}"), weights(&checkpoint.ema)?)?;
    file(SCHEDULERS[0], described("DDPMScheduler", &checkpoint.schedule)?)?;
    if let Some(training) = &checkpoint.training {
        file(RAW, weights(&training.raw)?)?;
        if let Some((m, v)) = &training.adam {
            let m = m.iter().map(|(name, t)| (format!("m.{name}"), t));
            let v = v.iter().map(|(name, t)| (format!("v.{name}"), t));
            file(ADAM, tensors::write(m.chain(v))?)?;
        }
        file(STATE, pretty(&training.state)?)?;
    }
    write_file(&folder.join(CHECKSUMS), &pretty(&checksums)?)?;
    sync_folders(folder).map_err(|e| disk_failed(&e))
}

/// Writes a file and its folder, to disk and not only to memory.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        make_parent(path)?;
        let mut file = change(|| File::create(path))?;
        change(|| file.write_all(bytes))?;
        change(|| file.sync_all())
    };
    write().map_err(|e| disk_failed(&e))
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

fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let lines = Lines(PrettyFormatter::new());
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, lines)).map_err(not_saved)?;
    text.push(b'\n');
    Ok(text)
}

/// A line for each field, as people read them, but only one for a list, since curves are long.
struct Lines(PrettyFormatter<'static>);

impl Formatter for Lines {
    fn begin_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object(to)
    }

    fn end_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object(to)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(to, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object_value(to)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object_value(to)
    }
}

pub(super) fn not_saved(e: impl Display) -> Error {
    Error::new("cannot save the model", e.to_string(), "")
}

pub(super) fn disk_failed(e: &io::Error) -> Error {
    let (why, hint) = match e.kind() {
        ErrorKind::StorageFull => ("the disk is full".to_owned(), "free some space, or choose another disk"),
        ErrorKind::QuotaExceeded => ("the disk quota is used up".to_owned(), "free some space, or choose another disk"),
        _ => (e.to_string(), "choose another folder"),
    };
    Error::new("cannot save the model", why, hint)
}

/// Puts the files of the save in `from` where those of the save in `to` are, one by one; `from` keeps them too.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    let beside = to.join(PLACING);
    for path in OURS {
        let (source, target) = (from.join(path), to.join(path));
        if source.is_file() {
            make_parent(&target)?;
            make_parent(&beside)?;
            remove(&beside)?;
            link_or_copy(&source, &beside)?;
            change(|| fs::rename(&beside, &target))?;
        } else {
            remove(&target)?;
        }
    }
    sync_folders(to)
}

/// Both names mean the same file; on disks that cannot, a copy.
fn link_or_copy(source: &Path, target: &Path) -> io::Result<()> {
    if change(|| fs::hard_link(source, target)).is_ok() {
        return Ok(());
    }
    change(|| fs::copy(source, target))?;
    change(|| File::open(target)?.sync_all())
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| change(|| fs::create_dir_all(folder)))
}

/// Removes a file, or a folder with all that is in it; nothing there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = change(|| if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes names inside a save's folders last through a power cut; Windows cannot and need not.
fn sync_folders(save: &Path) -> io::Result<()> {
    if cfg!(unix) {
        for folder in ["unet", "scheduler", "film", "."].map(|name| save.join(name)).iter().filter(|f| f.is_dir()) {
            match change(|| File::open(folder)?.sync_all()) {
                // some network disks flush files only
                Err(e) if [ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&e.kind()) => {}
                flushed => flushed?,
            }
        }
    }
    Ok(())
}

/// Every change on disk goes through here, so that a test can cut the power before any of them.
pub(super) fn change<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    tests::power()?;
    f()
}

#[cfg(test)]
mod tests {
    use super::super::{ScheduleSettings, Training, load, load_saying};
    use super::*;
    use crate::model::{Config, SampleSize};
    use candle_core::Device;
    use std::cell::Cell;

    thread_local! {
        /// Changes on disk before the power is cut.
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn power() -> io::Result<()> {
        match LEFT.get() {
            0 => Err(io::Error::other("the power is cut")),
            left => {
                LEFT.set(left - 1);
                Ok(())
            }
        }
    }

    fn checkpoint(step: u64) -> Checkpoint {
        let config = Config {
            sample_size: Some(SampleSize::Square(2)),
            block_out_channels: vec![4],
            down_block_types: vec!["DownBlock2D".into()],
            up_block_types: vec!["UpBlock2D".into()],
            norm_num_groups: Some(2),
            attention_head_dim: None,
            ..Config::default()
        };
        let params = |seed| Params::init(&config, seed, &Device::Cpu).unwrap();
        let training = Training {
            raw: params(10 * step),
            adam: Some((params(10 * step + 1), params(10 * step + 2))),
            state: json!({"step": step}),
        };
        let ema = params(10 * step + 3);
        Checkpoint { schedule: ScheduleSettings::default(), training: Some(training), ema, config }
    }

    /// All values and the step of what is read, which must come from one and the same save.
    fn step_of(dir: &Path) -> u64 {
        let read = load(dir, &Device::Cpu).unwrap();
        let training = read.training.unwrap();
        let step = training.state["step"].as_u64().unwrap();
        let expected = checkpoint(step);
        let values = |params: &Params| params.to_flat().unwrap();
        assert_eq!(values(&read.ema), values(&expected.ema));
        assert_eq!(values(&training.raw), values(&expected.training.as_ref().unwrap().raw));
        assert_eq!(values(&training.adam.unwrap().1), values(&expected.training.unwrap().adam.unwrap().1));
        step
    }

    /// Where flushing costs nothing, if there is such a place.
    fn in_memory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    #[test]
    fn the_power_may_be_cut_before_any_change_on_disk() {
        let tmp = in_memory();
        let two_saves = tmp.path().join("two saves");
        save(&two_saves, &checkpoint(1)).unwrap();
        save(&two_saves, &checkpoint(2)).unwrap();
        let mut cuts = 0;
        loop {
            let dir = tmp.path().join(cuts.to_string());
            for path in ["", PREVIOUS].iter().flat_map(|save| OURS.map(|path| Path::new(save).join(path))) {
                fs::create_dir_all(dir.join(&path).parent().unwrap()).unwrap();
                fs::copy(two_saves.join(&path), dir.join(&path)).unwrap();
            }
            LEFT.set(cuts);
            let done = save(&dir, &checkpoint(3)).is_ok();
            LEFT.set(usize::MAX);
            let step = step_of(&dir);
            assert!(step == 3 || step == 2 && !done, "step {step} after {cuts} changes");
            // and again while the next save mends it
            LEFT.set(cuts / 2);
            let mended = save(&dir, &checkpoint(4)).is_ok();
            LEFT.set(usize::MAX);
            assert!(step_of(&dir) >= step, "after {cuts} and {} changes", cuts / 2);
            save(&dir, &checkpoint(5)).unwrap();
            assert_eq!(step_of(&dir), 5);
            let before = step_of(&dir.join(PREVIOUS));
            assert!(before == 4 || !mended && before >= 2, "{before}");
            assert!(!dir.join(SAVING).exists());
            if done {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 60, "a save is {cuts} changes");
    }

    #[test]
    fn the_power_may_be_cut_during_the_first_save() {
        let tmp = in_memory();
        for cuts in 0.. {
            let dir = tmp.path().join(cuts.to_string());
            LEFT.set(cuts);
            let done = save(&dir, &checkpoint(1)).is_ok();
            LEFT.set(usize::MAX);
            let half = load(&dir, &Device::Cpu).ok().map(|c| c.training.is_some());
            assert_ne!(half, Some(false), "a model without its training after {cuts} changes");
            save(&dir, &checkpoint(2)).unwrap();
            assert_eq!(step_of(&dir), 2);
            if done {
                return;
            }
        }
    }

    #[test]
    fn whatever_is_damaged_in_the_newest_save_the_one_before_it_is_read() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("run");
        save(&dir, &checkpoint(1)).unwrap();
        save(&dir, &checkpoint(2)).unwrap();
        assert_eq!(load_saying(&dir, &Device::Cpu).unwrap().1, None);
        // other programs read the index, not this one
        for path in OURS.into_iter().filter(|path| *path != MODEL_INDEX) {
            let whole = fs::read(dir.join(path)).unwrap();
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            for damage in [Some(flipped), Some(whole[..whole.len() / 2].to_vec()), Some(Vec::new()), None] {
                fs::remove_file(dir.join(path)).unwrap();
                if let Some(bytes) = &damage {
                    fs::write(dir.join(path), bytes).unwrap();
                }
                // without its checksums a folder is a model of unknown origin
                if (path, &damage) != (CHECKSUMS, &None) {
                    assert_eq!(step_of(&dir), 1, "{path}");
                    let (_, words) = load_saying(&dir, &Device::Cpu).unwrap();
                    let words = words.unwrap();
                    assert!(words.contains("one before it is used") && words.contains(path), "{words}");
                }
                fs::write(dir.join(path), &whole).unwrap();
            }
        }
        assert_eq!(step_of(&dir), 2);
    }
}
