//! `film/snapshots/`: what the model drew at chosen training steps, a file each.
//!
//! A file is a safetensors file with the tensors `ema` and `raw`, [state, n, c, h, w] in half precision. Its metadata
//! hold the step, the doses of noise in each state, and a CRC-32 of all of it. No other file refers to them: one that is
//! damaged costs a snapshot and nothing else.

use super::files::Files;
use super::save::{change, disk_failed, not_saved, remove, write_file};
use super::unreadable;
use crate::error::{Error, Result};
use flate2::Crc;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

const FOLDER: &str = "film/snapshots";
/// A snapshot on its way to its name.
const SAVING: &str = "film/snapshots/.saving";
/// Most bytes of a file that is read.
const MOST_BYTES: u64 = 64 << 20;
/// Most files that are read.
const MOST_FILES: usize = 256;

/// Films from the same noise, one of each copy of the weights, as they lie on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Training steps behind the weights.
    pub step: u64,
    /// [n, c, h, w] of a state.
    pub shape: [usize; 4],
    /// Doses of noise in each state.
    pub doses: Vec<usize>,
    /// The states of the moving average's film in half precision, little-endian.
    pub ema: Vec<u8>,
    /// The same of the weights as the optimiser left them.
    pub raw: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct About {
    step: u64,
    doses: Vec<usize>,
}

fn path(step: u64) -> String {
    format!("{FOLDER}/{step:09}.safetensors")
}

fn checksum(about: &str, ema: &[u8], raw: &[u8]) -> String {
    let mut crc = Crc::new();
    [about.as_bytes(), ema, raw].into_iter().for_each(|part| crc.update(part));
    format!("{:08x}", crc.sum())
}

/// Writes a snapshot into the folder of its run: whole and flushed, or not at all.
///
/// # Errors
/// The folder cannot be written.
pub fn write_snapshot(dir: &Path, snapshot: &Snapshot) -> Result<()> {
    let about = About { step: snapshot.step, doses: snapshot.doses.clone() };
    let about = serde_json::to_string(&about).map_err(not_saved)?;
    let crc = checksum(&about, &snapshot.ema, &snapshot.raw);
    let shape: Vec<usize> = std::iter::once(snapshot.doses.len()).chain(snapshot.shape).collect();
    let views = [("ema", &snapshot.ema), ("raw", &snapshot.raw)].map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F16, shape.clone(), bytes).map_err(not_saved)?;
        Ok((name, view))
    });
    let views = views.into_iter().collect::<Result<Vec<_>>>()?;
    // its entries would be in any order
    let metadata = serde_json::to_string(&(about, crc)).map_err(not_saved)?;
    let bytes = safetensors::serialize(views, Some(HashMap::from([("snapshot".to_owned(), metadata)])));
    let (new, target) = (dir.join(SAVING), dir.join(path(snapshot.step)));
    let place = || {
        change(|| fs::rename(&new, &target))?;
        if cfg!(unix) { change(|| File::open(dir.join(FOLDER))?.sync_all()) } else { Ok(()) }
    };
    let written = write_file(&new, &bytes.map_err(not_saved)?).and_then(|()| place().map_err(|e| disk_failed(&e)));
    written.map_err(|e| {
        remove(&new).unwrap_or_default();
        Error { what: "cannot keep a snapshot".into(), ..e }.at(target)
    })
}

/// The snapshots of a run, the earliest first, and what is wrong with those that cannot be read.
pub fn read_snapshots(dir: &Path) -> (Vec<Snapshot>, Vec<Error>) {
    let (mut snapshots, mut errors) = (Vec::new(), Vec::new());
    for step in steps(dir) {
        match read(dir, step) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(e) => errors.push(e),
        }
    }
    (snapshots, errors)
}

/// The latest snapshot of a run that can be read.
pub fn newest_snapshot(dir: &Path) -> Option<Snapshot> {
    steps(dir).into_iter().rev().find_map(|step| read(dir, step).ok())
}

/// Removes the snapshots of steps past `after`, or all of them; nothing there is fine.
///
/// # Errors
/// The folder cannot be written.
pub fn drop_snapshots(dir: &Path, after: Option<u64>) -> Result<()> {
    for step in steps(dir).into_iter().filter(|step| after.is_none_or(|after| *step > after)) {
        remove(&dir.join(path(step))).map_err(|e| disk_failed(&e).at(dir))?;
    }
    Ok(())
}

fn steps(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir.join(FOLDER)).into_iter().flatten().flatten();
    let step = |name: &str| name.strip_suffix(".safetensors")?.parse().ok();
    let mut steps: Vec<u64> = entries.filter_map(|entry| step(entry.file_name().to_str()?)).collect();
    steps.sort_unstable();
    steps.truncate(MOST_FILES);
    steps
}

fn read(dir: &Path, step: u64) -> Result<Snapshot> {
    let path = path(step);
    let damaged = |why: &str| unreadable(format!("the snapshot is damaged: {why}"), "").at(dir.join(&path));
    let bytes = Files::Folder(dir.to_owned(), None).read(&path, MOST_BYTES)?;
    let bytes = bytes.ok_or_else(|| damaged("there is no such file"))?;
    let broken = |e: safetensors::SafeTensorError| damaged(&e.to_string());
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let metadata = header.metadata().as_ref().and_then(|entries| entries.get("snapshot"));
    let (about, crc): (String, String) = metadata
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| damaged("it does not say what it holds"))?;
    let (ema, raw) = (file.tensor("ema").map_err(broken)?, file.tensor("raw").map_err(broken)?);
    if crc != checksum(&about, ema.data(), raw.data()) {
        return Err(damaged("it is not as it was saved"));
    }
    let About { step: of, doses } = serde_json::from_str(&about).map_err(|e| damaged(&e.to_string()))?;
    let [states, n, c, h, w] = *ema.shape() else { return Err(damaged("its pictures have no five dimensions")) };
    let fits = of == step && states == doses.len() && ema.shape() == raw.shape();
    if !fits || [ema.dtype(), raw.dtype()] != [Dtype::F16; 2] {
        return Err(damaged("its parts do not belong together"));
    }
    Ok(Snapshot { step, shape: [n, c, h, w], doses, ema: ema.data().to_vec(), raw: raw.data().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(step: u64) -> Snapshot {
        let bytes = |seed: u8| (0..2 * 2 * 3 * 4).map(|i| (i as u8).wrapping_mul(seed)).collect();
        Snapshot { step, shape: [2, 1, 3, 2], doses: vec![1000, 0], ema: bytes(3), raw: bytes(5) }
    }

    #[test]
    fn a_snapshot_comes_back_and_is_the_same_bytes_again() {
        let tmp = tempfile::tempdir().unwrap();
        for step in [1000, 7, 0] {
            write_snapshot(tmp.path(), &snapshot(step)).unwrap();
        }
        let file = tmp.path().join(path(7));
        let first = fs::read(&file).unwrap();
        write_snapshot(tmp.path(), &snapshot(7)).unwrap();
        assert_eq!(fs::read(&file).unwrap(), first);
        assert_eq!(read_snapshots(tmp.path()), (vec![snapshot(0), snapshot(7), snapshot(1000)], vec![]));
        assert_eq!(newest_snapshot(tmp.path()), Some(snapshot(1000)));
        drop_snapshots(tmp.path(), Some(7)).unwrap();
        assert_eq!(read_snapshots(tmp.path()).0.len(), 2);
        drop_snapshots(tmp.path(), None).unwrap();
        assert_eq!(read_snapshots(tmp.path()), (vec![], vec![]));
        drop_snapshots(&tmp.path().join("nothing"), None).unwrap();
    }

    #[test]
    fn whatever_byte_is_wrong_only_that_snapshot_is_lost() {
        let tmp = tempfile::tempdir().unwrap();
        write_snapshot(tmp.path(), &snapshot(1)).unwrap();
        write_snapshot(tmp.path(), &snapshot(2)).unwrap();
        let file = tmp.path().join(path(1));
        let whole = fs::read(&file).unwrap();
        let flipped = (0..whole.len()).map(|i| {
            let mut bytes = whole.clone();
            bytes[i] ^= 4;
            bytes
        });
        let cut = (0..whole.len()).step_by(7).map(|n| whole[..n].to_vec());
        let mut harmless = 0;
        for bytes in flipped.chain(cut) {
            fs::write(&file, &bytes).unwrap();
            let (read, errors) = read_snapshots(tmp.path());
            assert_eq!(read.last(), Some(&snapshot(2)));
            // a blank of the header may become another
            harmless += usize::from(read.len() == 2);
            assert!(read.len() == 2 && read[0] == snapshot(1) || errors.len() == 1 && errors[0].path.is_some());
        }
        assert!(harmless < 10, "{harmless}");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(read_snapshots(tmp.path()).0, [snapshot(2)]);
    }
}
