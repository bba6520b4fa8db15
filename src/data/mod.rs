//! Pictures to learn from: held as bytes at the model's size, handed out as f32 in [-1, 1], NCHW.

mod batching;
mod cifar;
mod held_out;
mod idx;
mod part;
mod pictures;
mod resize;
mod source;

pub use batching::Drawn;
pub use part::Found;
pub use pictures::{decode_picture, load_picture, photos};
pub use source::Source;

use crate::diffusion::Images;
use crate::error::{Error, Kind, Result};
use part::Part;
use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Told (done, total) while loading; answers whether to go on.
type Progress<'a> = &'a dyn Fn(usize, usize) -> bool;

/// The most that a data set may hold, both as it comes and at the model's size.
const MAX_BYTES: usize = 2 << 30;

/// The most that one picture may take unpacked.
const MAX_PICTURE_BYTES: u64 = 256 << 20;

const DAMAGED: &str = "copy or download the file again";

const MNIST_IMAGES: &[u8] = include_bytes!("../../assets/mnist/train-images-idx3-ubyte.gz");
const MNIST_LABELS: &[u8] = include_bytes!("../../assets/mnist/train-labels-idx1-ubyte.gz");
const MNIST_TEST_IMAGES: &[u8] = include_bytes!("../../assets/mnist/t10k-images-idx3-ubyte.gz");
const MNIST_TEST_LABELS: &[u8] = include_bytes!("../../assets/mnist/t10k-labels-idx1-ubyte.gz");

/// Images of one size, and what is known about them.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// "mnist", or the name of the file or folder.
    pub name: String,
    /// [c, h, w] of every image.
    pub shape: [usize; 3],
    /// Number of images, never 0.
    pub n: usize,
    /// n·c·h·w bytes, NCHW, 0 black.
    pub pixels: Vec<u8>,
    /// Names of the classes, in the order in which they first appear: digits, CIFAR's classes, or folders.
    pub classes: Vec<String>,
    /// Index into `classes`, one per image. Where nothing says what an image is, its class is its file or folder.
    pub labels: Vec<u32>,
    /// Whether a mirrored image is as good an example: so for pictures, not so for digits.
    pub flip: bool,
    /// What the images were on disk.
    pub found: Found,
    /// Files that could not be read, each with the reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// Those of its images that are left out of all the above, never to be trained on.
    pub held_out: Option<Arc<Self>>,
}

impl Dataset {
    /// Loads `source`, scaled and centre-cropped to `shape` = [c, h, w] of the model, grey or colour as c is 1 or 3.
    ///
    /// `progress` hears (done, total) and stops the loading by answering false. Fails if one of its places cannot be read
    /// at all, or past 2 GiB of pixels. Of [`Source::Rest`] a few images are held out.
    pub fn load(source: &Source, shape: [usize; 3], progress: &dyn Fn(usize, usize) -> bool) -> Result<Self> {
        check_shape(shape)?;
        let places = source.places();
        let mut seen = (places.len() > 1).then(HashSet::new);
        let (mut all, mut names) = (Part { flip: true, ..Part::default() }, Vec::new());
        let (before, last) = (Cell::new(0), Cell::new(0));
        let progress = |done, total| {
            last.set(total);
            progress(before.get() + done, before.get() + total)
        };
        for (i, place) in places.iter().enumerate() {
            let (name, part) = match place {
                Source::Path(path) => Self::open(path, shape, &mut seen, &progress)?,
                _ if places[..i].contains(place) => ("mnist".to_owned(), Part::default()),
                _ => ("mnist".to_owned(), bundled(MNIST_IMAGES, MNIST_LABELS, shape, &progress)?),
            };
            let flip = all.flip && part.flip;
            all.append(part)?;
            all.flip = flip;
            names.push(name);
            before.set(before.get() + last.get());
        }
        if all.pixels.is_empty() {
            return Err(Error::usage("cannot read the data set", "no path was named", "name a file or a folder"));
        }
        let mut set = Self::new(names.join(" + "), shape, all);
        if matches!(source, Source::Rest(_)) {
            set.hold_out();
        }
        Ok(set)
    }

    /// The 10,000 test images of MNIST, as [`Dataset::load`].
    pub fn mnist_test(shape: [usize; 3], progress: &dyn Fn(usize, usize) -> bool) -> Result<Self> {
        check_shape(shape)?;
        let part = bundled(MNIST_TEST_IMAGES, MNIST_TEST_LABELS, shape, progress)?;
        Ok(Self::new("mnist-test".to_owned(), shape, part))
    }

    /// The name and the images of a file or folder, without the files that were `seen`.
    fn open(path: &Path, shape: [usize; 3], seen: &mut Seen, progress: Progress) -> Result<(String, Part)> {
        let place = path.canonicalize().map_err(|e| unreadable(&e, path))?;
        let name = place.file_name().map_or_else(|| "folder".to_owned(), |v| v.to_string_lossy().into_owned());
        let part = if let Some(images) = idx_images(path)? {
            match known(&images, seen) {
                Some(part) => part,
                None => open_idx(&name, &images, shape, progress)?,
            }
        } else if let Some((files, missing)) = cifar::batches(path) {
            open_cifar(files, missing, shape, seen, progress)?
        } else if let Some(e) = cifar::for_python(path) {
            return Err(e);
        } else {
            pictures::read(path, &name, shape, seen, progress)?
        };
        Ok((name, part))
    }

    fn new(name: String, shape: [usize; 3], part: Part) -> Self {
        let Part { pixels, labels, classes, found, flip, skipped } = part;
        Self { name, shape, n: labels.len(), pixels, classes, labels, flip, found, skipped, held_out: None }
    }

    /// Number, shape and CRC-32 of all that decides a batch: "60000 images of 1x28x28, CRC-32 0a1b2c3d".
    pub fn fingerprint(&self) -> String {
        let mut crc = flate2::Crc::new();
        crc.update(&self.pixels);
        crc.update(&[u8::from(self.flip)]);
        let [c, h, w] = self.shape;
        format!("{} images of {c}x{h}x{w}, CRC-32 {:08x}", self.n, crc.sum())
    }

    /// Number of images.
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.n
    }

    /// The c·h·w bytes of image `i` < n.
    pub fn image(&self, i: usize) -> &[u8] {
        let len = self.pixels.len() / self.n;
        &self.pixels[i * len..][..len]
    }

    /// The images of these indices, each < n, in their order.
    pub fn images(&self, indices: &[usize]) -> Images {
        let pixels: Vec<u8> = indices.iter().flat_map(|&i| self.image(i)).copied().collect();
        to_images(indices.len(), self.shape, &pixels)
    }
}

/// All pixels.
impl AsRef<[u8]> for Dataset {
    fn as_ref(&self) -> &[u8] {
        &self.pixels
    }
}

/// 0..=255 to [-1, 1].
fn to_images(n: usize, shape: [usize; 3], pixels: &[u8]) -> Images {
    Images::new(n, shape, pixels.iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect())
}

/// Files that were read, where a data set has several places.
type Seen = Option<HashSet<PathBuf>>;

/// Notes that a file is read; if it was before, what it adds, which is nothing.
fn known(file: &Path, seen: &mut Seen) -> Option<Part> {
    let is_new = seen.as_mut().is_none_or(|seen| file.canonicalize().is_ok_and(|place| seen.insert(place)));
    (!is_new).then(|| Part { flip: true, skipped: vec![(file.to_owned(), READ_BEFORE.to_owned())], ..Part::default() })
}

const READ_BEFORE: &str = "it was read already, under another of the paths";

fn bundled(images: &[u8], labels: &[u8], shape: [usize; 3], progress: Progress) -> Result<Part> {
    let (mut part, n) = idx_part(idx::read_images(images, shape, progress)?, shape);
    set_labels(&mut part, &idx::read_labels(labels, n)?);
    Ok(part)
}

fn open_idx(name: &str, images: &Path, shape: [usize; 3], progress: Progress) -> Result<Part> {
    let file = File::open(images).map_err(|e| unreadable(&e, images))?;
    let read = idx::read_images(BufReader::new(file), shape, progress).map_err(|e| e.at(images))?;
    let (mut part, n) = idx_part(read, shape);
    let labels = labels_beside(images).map(|path| {
        let file = File::open(&path).map_err(|e| unreadable(&e, &path));
        file.and_then(|file| idx::read_labels(BufReader::new(file), n)).map_err(|e| (path, e.why))
    });
    match labels {
        Some(Ok(labels)) => set_labels(&mut part, &labels),
        // an unconditional model does without
        missing => {
            part.skipped.extend(missing.and_then(|result| result.err()));
            (part.classes, part.labels) = (vec![name.to_owned()], vec![0; n]);
        }
    }
    Ok(part)
}

fn idx_part((pixels, size): (Vec<u8>, [usize; 2]), shape: [usize; 3]) -> (Part, usize) {
    let n = pixels.len() / shape.iter().product::<usize>();
    let mut part = Part { pixels, ..Part::default() };
    part.found.note(size, "IDX, grey", n);
    (part, n)
}

fn set_labels(part: &mut Part, labels: &[u8]) {
    part.classes = (0..=labels.iter().copied().max().unwrap_or(0)).map(|label| label.to_string()).collect();
    part.labels = labels.iter().map(|&label| label.into()).collect();
}

/// All batches that can be read, if any can.
fn open_cifar(
    files: Vec<PathBuf>,
    missing: Vec<PathBuf>,
    shape: [usize; 3],
    seen: &mut Seen,
    progress: Progress,
) -> Result<Part> {
    let mut all = Part { flip: true, ..Part::default() };
    let (count, mut failed) = (files.len(), None);
    for (i, file) in files.into_iter().enumerate() {
        // batches have one size, so the first tells how many images there are in all
        let progress = |done, total| progress(i * total + done, count * total);
        let part = match known(&file, seen) {
            Some(part) => Ok(part),
            None => cifar::read(&file, shape, &progress),
        };
        match part {
            Ok(part) => all.append(part)?,
            Err(e) if e.kind == Kind::Cancelled => return Err(e),
            Err(e) => {
                all.skipped.push((file, e.why.clone()));
                failed = Some(e);
            }
        }
    }
    all.skipped.extend(missing.into_iter().map(|file| (file, "the file is missing".to_owned())));
    match failed {
        Some(e) if all.pixels.is_empty() => Err(e),
        _ => Ok(all),
    }
}

/// The IDX file of images that `path` is or, if a folder, holds under one of the usual names.
fn idx_images(path: &Path) -> Result<Option<PathBuf>> {
    if path.is_dir() {
        let names = ["train-images-idx3-ubyte", "train-images.idx3-ubyte"];
        let files = names.iter().flat_map(|name| [path.join(name), path.join(format!("{name}.gz"))]);
        return Ok(files.into_iter().find(|file| file.is_file()));
    }
    if !path.is_file() {
        return Err(Error::new("cannot read the data set", "it is neither a file nor a folder", "").at(path));
    }
    // of CIFAR's batches some begin as IDX does, and a picture may have idx in its name
    if cifar::batches(path).is_some() || pictures::named(path) {
        return Ok(None);
    }
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut start)).map_err(|e| unreadable(&e, path))?;
    let named_idx = path.file_name().is_some_and(|name| name.to_string_lossy().contains("idx"));
    Ok((named_idx || idx::looks_like_idx(&start)).then(|| path.to_owned()))
}

/// The labels that belong to "…images-idx3…", if they are there, gzipped or not.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let labels = name.trim_end_matches(".gz").replace("images", "labels").replace("idx3", "idx1");
    let files = [labels.clone(), format!("{labels}.gz")].map(|labels| images.with_file_name(labels));
    files.into_iter().find(|file| name.contains("images") && file.is_file())
}

fn check_shape([c, h, w]: [usize; 3]) -> Result<()> {
    let size = c.checked_mul(h).and_then(|v| v.checked_mul(w)).unwrap_or(0);
    if matches!(c, 1 | 3) && (1..=MAX_BYTES).contains(&size) {
        return Ok(());
    }
    let why = format!("the model takes {c} channels of {w}x{h}");
    Err(Error::usage("cannot fit pictures to the model", why, "pictures have 1 or 3 channels"))
}

fn too_large(what: &str) -> Error {
    let why = format!("it holds {what}, and at most {} GiB of pixels are kept in memory", MAX_BYTES >> 30);
    Error::new("cannot read the data set", why, "give a smaller part of it, or choose a preset with smaller pictures")
}

fn unreadable(e: &std::io::Error, path: &Path) -> Error {
    let (why, hint) = match e.kind() {
        ErrorKind::NotFound => ("there is no such file or folder".to_owned(), "look for a typing error in its name"),
        ErrorKind::PermissionDenied => ("reading it is not permitted".to_owned(), "copy it to a folder of your own"),
        _ => (e.to_string(), DAMAGED),
    };
    Error::new("cannot read the data set", why, hint).at(path)
}
