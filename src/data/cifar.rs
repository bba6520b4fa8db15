//! CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky 2009): records of one or two label bytes and 3·32·32 bytes,
//! plane by plane.

use super::part::Part;
use super::{DAMAGED, MAX_BYTES, Progress, pictures, too_large, unreadable};
use crate::error::{Error, Result};
use image::RgbImage;
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORDS_AT_ONCE: usize = 1000;

/// What the records of a file are.
struct Kind {
    name: &'static str,
    mode: &'static str,
    label_bytes: usize,
    /// The last label byte, the fine label of CIFAR-100, is below.
    classes: u8,
    /// The file with their names, one a line.
    names: &'static str,
}

const CIFAR_10: Kind =
    Kind { name: "CIFAR-10", mode: "CIFAR-10, RGB", label_bytes: 1, classes: 10, names: "batches.meta.txt" };
const CIFAR_100: Kind =
    Kind { name: "CIFAR-100", mode: "CIFAR-100, RGB", label_bytes: 2, classes: 100, names: "fine_label_names.txt" };

impl Kind {
    fn record(&self) -> usize {
        self.label_bytes + 3 * PLANE
    }
}

/// The training batches that `path` is or, if a folder, holds under the usual names; and those of them that are not there.
pub(super) fn batches(path: &Path) -> Option<(Vec<PathBuf>, Vec<PathBuf>)> {
    if !path.is_dir() {
        let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("bin"));
        return named.then(|| (vec![path.to_owned()], Vec::new()));
    }
    let folders = [path.to_owned(), path.join("cifar-10-batches-bin"), path.join("cifar-100-binary")];
    folders.into_iter().find_map(|folder| {
        let files = (1..=5).map(|i| folder.join(format!("data_batch_{i}.bin")));
        let (there, missing): (Vec<_>, Vec<_>) = files.partition(|file| file.is_file());
        let train = folder.join("train.bin");
        match there.is_empty() {
            false => Some((there, missing)),
            true => train.is_file().then(|| (vec![train], Vec::new())),
        }
    })
}

/// Why a file or folder of the version for Python cannot be read, if `path` is that.
pub(super) fn for_python(path: &Path) -> Option<Error> {
    let batch = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        path.is_file() && name.is_some_and(|name| name.starts_with("data_batch_") && !name.contains('.'))
    };
    let why = "these are CIFAR batches in their version for Python";
    let found = batch(path) || batch(&path.join("data_batch_1"));
    found.then(|| Error::new("cannot read the data set", why, "download the binary version").at(path))
}

/// Reads one file of batches at `shape`.
pub(super) fn read(path: &Path, shape: [usize; 3], progress: Progress) -> Result<Part> {
    let fail = |why: String, hint: &str| Error::new("cannot read the data set", why, hint).at(path);
    let mut file = File::open(path).map_err(|e| unreadable(&e, path))?;
    let bytes = file.metadata().map_err(|e| unreadable(&e, path))?.len();
    let kind = kind(path, bytes).map_err(|why| fail(why, DAMAGED))?;
    let n = usize::try_from(bytes / kind.record() as u64).unwrap_or(usize::MAX);
    let len_one: usize = shape.iter().product();
    if n.checked_mul(len_one.max(kind.record())).is_none_or(|bytes| bytes > MAX_BYTES) {
        return Err(too_large(&format!("{n} images")).at(path));
    }

    let mut part = Part { classes: class_names(path, &kind), flip: true, ..Part::default() };
    let mut buffer = vec![0; kind.record() * RECORDS_AT_ONCE.min(n)];
    for first in (0..n).step_by(RECORDS_AT_ONCE) {
        let count = RECORDS_AT_ONCE.min(n - first);
        let records = &mut buffer[..count * kind.record()];
        file.read_exact(records).map_err(|e| unreadable(&e, path))?;
        for (i, record) in records.chunks_exact(kind.record()).enumerate() {
            let label = record[kind.label_bytes - 1];
            if label >= kind.classes {
                let why = format!(
                    "image {} has the label {label}, and {} has 0 to {}",
                    first + i,
                    kind.name,
                    kind.classes - 1
                );
                return Err(fail(why, DAMAGED));
            }
            part.labels.push(label.into());
        }
        let start = part.pixels.len();
        part.pixels.resize(start + count * len_one, 0);
        let records = records.par_chunks_exact(kind.record());
        part.pixels[start..].par_chunks_exact_mut(len_one).zip(records).for_each(|(out, record)| {
            let planes = &record[kind.label_bytes..];
            let picture = RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
                let at = y as usize * SIDE + x as usize;
                image::Rgb([planes[at], planes[PLANE + at], planes[2 * PLANE + at]])
            });
            out.copy_from_slice(&pictures::fit(picture.into(), shape));
        });
        if !progress(first + count, n) {
            return Err(Error::cancelled());
        }
    }
    part.found.note([SIDE; 2], kind.mode, n);
    Ok(part)
}

/// By its length; where both fit, by its name.
fn kind(path: &Path, bytes: u64) -> std::result::Result<Kind, String> {
    let fits = |kind: &Kind| bytes > 0 && bytes.is_multiple_of(kind.record() as u64);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match (fits(&CIFAR_10), fits(&CIFAR_100)) {
        (true, true) if name.starts_with("train") || name == "test.bin" => Ok(CIFAR_100),
        (true, _) => Ok(CIFAR_10),
        (false, true) => Ok(CIFAR_100),
        (false, false) => {
            let [ten, hundred] = [CIFAR_10.record(), CIFAR_100.record()];
            Err(format!(
                "it has {bytes} bytes, and CIFAR batches have a multiple of {ten} (CIFAR-10) or {hundred} (CIFAR-100)"
            ))
        }
    }
}

/// From the file beside the batches; numbers without it.
fn class_names(batches: &Path, kind: &Kind) -> Vec<String> {
    let file = batches.with_file_name(kind.names);
    let small = fs::metadata(&file).is_ok_and(|m| m.is_file() && m.len() < 1 << 16);
    let text = if small { fs::read_to_string(&file).unwrap_or_default() } else { String::new() };
    let names: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if names.len() == usize::from(kind.classes) { names } else { (0..kind.classes).map(|i| i.to_string()).collect() }
}
