//! Pictures to learn from: held as bytes at the model's size, handed out as f32 in [-1, 1], NCHW.

mod batching;
mod idx;
mod pictures;
mod resize;

pub use pictures::{decode_picture, load_picture, photos};

use crate::diffusion::Images;
use crate::error::{Error, Result};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Told (done, total) while loading; answers whether to go on.
type Progress<'a> = &'a dyn Fn(usize, usize) -> bool;

/// The most that a data set may hold, both as it comes and at the model's size.
const MAX_BYTES: usize = 2 << 30;

/// The most that one picture may take unpacked.
const MAX_PICTURE_BYTES: u64 = 256 << 20;

const MNIST_IMAGES: &[u8] = include_bytes!("../../assets/mnist/train-images-idx3-ubyte.gz");
const MNIST_LABELS: &[u8] = include_bytes!("../../assets/mnist/train-labels-idx1-ubyte.gz");
const MNIST_TEST_IMAGES: &[u8] = include_bytes!("../../assets/mnist/t10k-images-idx3-ubyte.gz");
const MNIST_TEST_LABELS: &[u8] = include_bytes!("../../assets/mnist/t10k-labels-idx1-ubyte.gz");

/// Where a data set comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The 60,000 training images of MNIST, part of this program.
    Mnist,
    /// An IDX file or a folder with one, a folder of pictures, or one picture.
    Path(PathBuf),
}

impl Source {
    /// "mnist", or a path; a folder of that name is "./mnist".
    pub fn parse(text: &str) -> Self {
        if text == "mnist" { Self::Mnist } else { Self::Path(text.into()) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mnist => f.write_str("mnist"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

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
    /// One class per image.
    pub labels: Option<Vec<u8>>,
    /// Whether a mirrored image is as good an example: so for pictures, not so for digits.
    pub flip: bool,
    /// Files that could not be read, each with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

impl Dataset {
    /// Loads `source`, scaled and centre-cropped to `shape` = [c, h, w] of the model, grey or colour as c is 1 or 3.
    ///
    /// `progress` hears (done, total) and stops the loading by answering false. Fails if nothing can be read, or past
    /// 2 GiB of pixels.
    pub fn load(source: &Source, shape: [usize; 3], progress: &dyn Fn(usize, usize) -> bool) -> Result<Self> {
        check_shape(shape)?;
        match source {
            Source::Mnist => Self::bundled("mnist", MNIST_IMAGES, MNIST_LABELS, shape, progress),
            Source::Path(path) => Self::open(path, shape, progress),
        }
    }

    /// The 10,000 test images of MNIST, as [`Dataset::load`].
    pub fn mnist_test(shape: [usize; 3], progress: &dyn Fn(usize, usize) -> bool) -> Result<Self> {
        check_shape(shape)?;
        Self::bundled("mnist-test", MNIST_TEST_IMAGES, MNIST_TEST_LABELS, shape, progress)
    }

    fn bundled(name: &str, images: &[u8], labels: &[u8], shape: [usize; 3], progress: Progress) -> Result<Self> {
        let mut data = Self::new(name.to_owned(), shape, idx::read_images(images, shape, progress)?);
        data.labels = Some(idx::read_labels(labels, data.n)?);
        Ok(data)
    }

    fn open(path: &Path, shape: [usize; 3], progress: Progress) -> Result<Self> {
        let name = path.canonicalize().map_err(|e| unreadable(&e, path))?;
        let name = name.file_name().map_or_else(|| "folder".to_owned(), |v| v.to_string_lossy().into_owned());
        match idx_images(path)? {
            Some(images) => Self::open_idx(name, &images, shape, progress),
            None => {
                let (pixels, skipped) = pictures::read(path, shape, progress)?;
                Ok(Self { flip: true, skipped, ..Self::new(name, shape, pixels) })
            }
        }
    }

    fn open_idx(name: String, images: &Path, shape: [usize; 3], progress: Progress) -> Result<Self> {
        let file = File::open(images).map_err(|e| unreadable(&e, images))?;
        let pixels = idx::read_images(BufReader::new(file), shape, progress).map_err(|e| e.at(images))?;
        let mut data = Self::new(name, shape, pixels);
        if let Some(path) = labels_beside(images) {
            let labels = File::open(&path)
                .map_err(|e| unreadable(&e, &path))
                .and_then(|file| idx::read_labels(BufReader::new(file), data.n));
            match labels {
                Ok(labels) => data.labels = Some(labels),
                Err(e) => data.skipped.push((path, e.why)), // an unconditional model does without
            }
        }
        Ok(data)
    }

    fn new(name: String, shape: [usize; 3], pixels: Vec<u8>) -> Self {
        let n = pixels.len() / shape.iter().product::<usize>();
        Self { name, shape, n, pixels, labels: None, flip: false, skipped: Vec::new() }
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
    let why = format!("it holds {what}, which is past {} GiB of pixels", MAX_BYTES >> 30);
    Error::new("cannot read the data set", why, "give a smaller part of it")
}

fn unreadable(e: &std::io::Error, path: &Path) -> Error {
    Error::new("cannot read the data set", e.to_string(), "").at(path)
}
