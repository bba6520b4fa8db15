//! What one place holds, before the places of a data set are put together.

use super::{MAX_BYTES, too_large};
use crate::error::Result;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Images of one place at the model's size, and what is known about them.
#[derive(Default)]
pub(super) struct Part {
    /// NCHW.
    pub pixels: Vec<u8>,
    /// Index into `classes`, one per image.
    pub labels: Vec<u32>,
    pub classes: Vec<String>,
    pub found: Found,
    /// Whether a mirrored image is as good an example.
    pub flip: bool,
    pub skipped: Vec<(PathBuf, String)>,
}

/// Pictures as they are on disk, before they are brought to the model's size: how many there are of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Of each [width, height].
    pub sizes: BTreeMap<[usize; 2], usize>,
    /// Of each format and colour mode: "PNG, palette".
    pub modes: BTreeMap<String, usize>,
}

impl Found {
    pub(super) fn note(&mut self, size: [usize; 2], mode: &str, n: usize) {
        *self.sizes.entry(size).or_default() += n;
        match self.modes.get_mut(mode) {
            Some(count) => *count += n,
            None => drop(self.modes.insert(mode.to_owned(), n)),
        }
    }
}

impl Part {
    /// The index of a class, which is new if no image had it.
    pub fn class(&mut self, name: &str) -> u32 {
        // pictures come folder by folder, so it is mostly the last
        let known = self.classes.iter().rposition(|class| class == name);
        known.unwrap_or_else(|| {
            self.classes.push(name.to_owned());
            self.classes.len() - 1
        }) as u32
    }

    /// Puts the images of another place behind these; classes of the same name are the same.
    ///
    /// # Errors
    /// Together they are past [`MAX_BYTES`].
    pub fn append(&mut self, other: Self) -> Result<()> {
        if self.pixels.len() + other.pixels.len() > MAX_BYTES {
            return Err(too_large("too many pictures in all"));
        }
        if self.pixels.is_empty() {
            self.pixels = other.pixels;
        } else {
            self.pixels.extend_from_slice(&other.pixels);
        }
        let classes: Vec<u32> = other.classes.iter().map(|name| self.class(name)).collect();
        self.labels.extend(other.labels.iter().map(|&label| classes[label as usize]));
        self.flip |= other.flip;
        self.skipped.extend(other.skipped);
        other.found.sizes.iter().for_each(|(size, n)| *self.found.sizes.entry(*size).or_default() += n);
        other.found.modes.into_iter().for_each(|(mode, n)| *self.found.modes.entry(mode).or_default() += n);
        Ok(())
    }
}
