//! Runs of any program that writes TensorBoard event files, watched from outside: whatever lies in the folder is only
//! read, for a moment, and never locked.

use super::event::{Content, Event, START, Tensor, Value, What};
use super::tail::{Seen, Tail};
use crate::diffusion::Images;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Points kept of a scalar: when there are more, every other one goes.
const POINTS: usize = 4096;
/// Pictures kept under a tag, thinned in the same way.
const PICTURES: usize = 12;
/// Runs, and tags of scalars and of pictures of all of them; what comes after those is left out.
const RUNS: usize = 128;
const SCALAR_TAGS: usize = 2048;
const PICTURE_TAGS: usize = 32;
/// The longest tag.
const TAG: usize = 256;
/// Width and height of the largest picture that is read, and the pixels that are kept of one.
const SIDE: u32 = 4096;
const PIXELS: u32 = 1 << 16;
/// Folders inside folders, and entries that are looked through in all.
const DEPTH: usize = 8;
const ENTRIES: usize = 20_000;
/// New files are looked for so often.
const LIST_EVERY: Duration = Duration::from_secs(3);

/// Values with their steps, thinned evenly; the newest is always there.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<T> {
    points: Vec<(i64, T)>,
    most: usize,
    /// Of the values that came, one in so many is kept.
    stride: usize,
    came: usize,
}

impl<T> Series<T> {
    fn new(most: usize) -> Self {
        Self { points: Vec::new(), most, stride: 1, came: 0 }
    }

    /// Steps and values in the order of the steps.
    pub fn points(&self) -> &[(i64, T)] {
        &self.points
    }

    fn cut(&mut self, step: i64) {
        let before = self.points.len();
        self.points.retain(|(old, _)| *old < step);
        if self.points.len() < before {
            self.recount();
        }
    }

    /// As many as come up to the last point, which is one of those that are kept.
    fn recount(&mut self) {
        self.came = self.points.len().checked_sub(1).map_or(0, |before| before * self.stride + 1);
    }

    fn push(&mut self, step: i64, value: T) {
        // a trainer that went back writes its steps anew
        if self.points.last().is_some_and(|(last, _)| *last >= step) {
            self.cut(step);
        }
        if self.came > 0 && !(self.came - 1).is_multiple_of(self.stride) {
            self.points.pop();
        }
        self.points.push((step, value));
        self.came += 1;
        if self.points.len() > self.most {
            let mut i = 0;
            self.points.retain(|_| {
                i += 1;
                i % 2 == 1
            });
            self.stride *= 2;
            self.recount();
        }
    }
}

/// What one run has told so far.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Its folder, below the one that is watched.
    pub name: String,
    /// Scalars by tag.
    pub scalars: BTreeMap<String, Series<f32>>,
    /// Pictures by tag, each [1, 3, h, w] in [-1, 1].
    pub pictures: BTreeMap<String, Series<Arc<Images>>>,
}

/// All runs below a folder.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// In the order of their names.
    pub runs: Vec<Run>,
    /// What cannot be read, one sentence for each file.
    pub problems: Vec<String>,
}

/// Reads a folder of runs as they grow.
pub struct Watch {
    root: PathBuf,
    files: BTreeMap<PathBuf, Tail>,
    runs: BTreeMap<PathBuf, Run>,
    listed: Option<Instant>,
    /// Folders that could not be listed, one sentence for each.
    unlisted: Vec<String>,
}

impl Watch {
    /// Watches a folder of runs, the folder of a run, or an event file.
    ///
    /// # Errors
    /// If there is none, or it cannot be looked into.
    pub fn open(root: &Path) -> Result<Self> {
        let is_file = fs::metadata(root).map(|there| there.is_file());
        is_file.and_then(|is_file| if is_file { Ok(()) } else { fs::read_dir(root).map(drop) }).map_err(|e| {
            let hint = "name the folder of a run, or one of TensorBoard event files";
            Error::new("cannot watch this run", e.to_string(), hint).at(root)
        })?;
        Ok(Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            runs: BTreeMap::new(),
            listed: None,
            unlisted: Vec::new(),
        })
    }

    /// Reads what is new, a bounded piece of each file: whether something changed, and whether more is there already.
    /// A file waits for those before it in its folder, whose steps it may take the place of.
    pub fn look(&mut self) -> (bool, bool) {
        let mut changed = false;
        if self.listed.is_none_or(|listed| listed.elapsed() > LIST_EVERY) {
            self.listed = Some(Instant::now());
            let mut left = ENTRIES;
            let (mut found, mut unlisted) = (Vec::new(), Vec::new());
            list(&self.root, DEPTH, &mut left, &mut found, &mut unlisted);
            changed |= unlisted != self.unlisted;
            self.unlisted = unlisted;
            for path in found {
                changed |= !self.files.contains_key(&path);
                self.files.entry(path.clone()).or_insert_with(|| Tail::new(path));
            }
        }
        let (mut unfinished, mut replaced) = (BTreeSet::new(), Vec::new());
        for tail in self.files.values_mut() {
            let folder = tail.path().parent().unwrap_or(Path::new("")).to_owned();
            if unfinished.contains(&folder) {
                continue;
            }
            let problem = tail.problem().map(str::to_owned);
            match tail.look() {
                Seen::Replaced => replaced.push(folder),
                Seen::Grown(events, rest) => {
                    changed |= !events.is_empty() || tail.problem() != problem.as_deref();
                    if rest {
                        unfinished.insert(folder.clone());
                    }
                    if events.is_empty() || self.runs.len() >= RUNS && !self.runs.contains_key(&folder) {
                        continue;
                    }
                    let name = name(&self.root, &folder);
                    let tags = |count: fn(&Run) -> usize| self.runs.values().map(count).sum::<usize>();
                    let mut room = [
                        SCALAR_TAGS.saturating_sub(tags(|r| r.scalars.len())),
                        PICTURE_TAGS.saturating_sub(tags(|r| r.pictures.len())),
                    ];
                    let run = self.runs.entry(folder).or_insert_with(|| Run { name, ..Run::default() });
                    events.into_iter().for_each(|event| take(run, event, &mut room));
                }
            }
        }
        let mut more = !unfinished.is_empty();
        for folder in replaced {
            // read it all again, in the order of the files
            self.runs.remove(&folder);
            self.files.retain(|path, _| path.parent() != Some(&folder));
            (self.listed, changed, more) = (None, true, true);
        }
        (changed, more)
    }

    /// All that was read.
    pub fn watched(&self) -> Watched {
        let problem = |tail: &Tail| {
            let why = tail.problem()?;
            Some(Error::new("cannot read all of an event file", why, "").at(tail.path()).to_string())
        };
        Watched {
            runs: self.runs.values().cloned().collect(),
            problems: self.unlisted.iter().cloned().chain(self.files.values().filter_map(problem)).take(RUNS).collect(),
        }
    }
}

/// The folder as seen from the one that is watched; that one by its own name.
fn name(root: &Path, folder: &Path) -> String {
    let below = folder.strip_prefix(root).unwrap_or(Path::new(""));
    let own = || Some(folder.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned());
    if below.as_os_str().is_empty() { own().unwrap_or_default() } else { below.to_string_lossy().into_owned() }
}

/// Event files, from the outermost folder inwards; links to folders are not followed, so there is an end.
fn list(path: &Path, depth: usize, left: &mut usize, found: &mut Vec<PathBuf>, unlisted: &mut Vec<String>) {
    if path.is_file() {
        found.push(path.to_owned());
        return;
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) => {
            unlisted.push(Error::new("cannot look into a folder", e.to_string(), "").at(path).to_string());
            return;
        }
    };
    let mut folders = Vec::new();
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 {
            folders.push(entry.path());
        } else if !is_folder && entry.file_name().to_string_lossy().contains("tfevents") {
            found.push(entry.path());
        }
    }
    folders.iter().for_each(|folder| list(folder, depth - 1, left, found, unlisted));
}

/// Takes in an event; `room` is how many more tags of scalars and of pictures may come.
fn take(run: &mut Run, event: Event, room: &mut [usize; 2]) {
    let step = event.step;
    match event.what {
        Some(What::SessionLog(log)) if log.status == START => {
            run.scalars.values_mut().for_each(|series| series.cut(step));
            run.pictures.values_mut().for_each(|series| series.cut(step));
        }
        Some(What::Summary(summary)) => {
            for Value { tag, content } in summary.values {
                let (scalar, encoded) = match content {
                    Some(Content::Scalar(v)) => (Some(v), None),
                    Some(Content::Image(image)) => (None, Some(image.encoded)),
                    Some(Content::Tensor(tensor)) => (tensor.scalar(), tensor.picture()),
                    None => (None, None),
                };
                if let Some(v) = scalar {
                    add(&mut run.scalars, tag, POINTS, &mut room[0], step, v);
                } else if let Some(picture) = encoded.and_then(|bytes| decode(&bytes)) {
                    // what is no picture is left out, as in TensorBoard
                    add(&mut run.pictures, tag, PICTURES, &mut room[1], step, Arc::new(picture));
                }
            }
        }
        _ => {}
    }
}

fn add<T>(to: &mut BTreeMap<String, Series<T>>, tag: String, most: usize, room: &mut usize, step: i64, value: T) {
    if let Some(series) = to.get_mut(&tag) {
        series.push(step, value);
    } else if *room > 0 && tag.len() <= TAG {
        *room -= 1;
        to.entry(tag).or_insert_with(|| Series::new(most)).push(step, value);
    }
}

impl Tensor {
    /// One number, as newer writers wrap it.
    fn scalar(&self) -> Option<f32> {
        if self.shape.as_ref().is_some_and(|shape| !shape.dims.is_empty()) {
            return None;
        }
        let double = |v: &f64| *v as f32;
        match self.dtype {
            1 => self.floats.first().copied().or_else(|| Some(f32::from_le_bytes(*self.content.first_chunk()?))),
            2 => self
                .doubles
                .first()
                .map(double)
                .or_else(|| Some(f64::from_le_bytes(*self.content.first_chunk()?) as f32)),
            _ => None,
        }
    }

    /// Width, height, then the first picture of a batch.
    fn picture(self) -> Option<Vec<u8>> {
        self.strings.into_iter().nth(2).filter(|_| self.dtype == 7)
    }
}

/// A picture of at most [`SIDE`] pixels a side, made smaller if it has more than [`PIXELS`].
fn decode(bytes: &[u8]) -> Option<Images> {
    let mut reader = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let mut limits = image::Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE), Some(SIDE));
    limits.max_alloc = Some(64 << 20);
    reader.limits(limits);
    let mut picture = reader.decode().ok()?;
    let pixels = picture.width() * picture.height();
    if pixels > PIXELS {
        let share = (f64::from(PIXELS) / f64::from(pixels)).sqrt();
        let [w, h] = [picture.width(), picture.height()].map(|v| ((f64::from(v) * share) as u32).max(1));
        picture = picture.thumbnail_exact(w, h);
    }
    let picture = picture.to_rgb8();
    let [w, h] = [picture.width(), picture.height()].map(|v| v as usize);
    let plane = |k: usize| picture.pixels().map(move |p| f32::from(p.0[k]) / 127.5 - 1.0);
    Some(Images::new(1, [3, h, w], (0..3).flat_map(plane).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_series_keeps_its_points_when_a_run_goes_on() {
        let mut series = Series::new(4);
        let steps = |series: &Series<()>| series.points().iter().map(|(step, ())| *step).collect::<Vec<_>>();
        (1..=6).for_each(|step| series.push(step, ()));
        assert_eq!(steps(&series), [1, 3, 5, 6]);
        for _ in 0..3 {
            series.cut(6);
            series.push(6, ());
            assert_eq!(steps(&series), [1, 3, 5, 6]);
        }
        series.push(7, ());
        assert_eq!(steps(&series), [1, 3, 5, 7]);
        series.cut(0);
        series.push(0, ());
        assert_eq!(steps(&series), [0]);
    }
}
