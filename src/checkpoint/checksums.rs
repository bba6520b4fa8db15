//! `film/checksums.json`: length and CRC-32 of every file of a save, so that a damaged or half-written one is noticed.

use flate2::Crc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a save consists of, by path inside its folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Checksums(BTreeMap<String, Checksum>);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Checksum {
    bytes: u64,
    /// Eight hexadecimal digits.
    crc32: String,
}

impl Checksum {
    fn of(bytes: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(bytes);
        Self { bytes: bytes.len() as u64, crc32: format!("{:08x}", crc.sum()) }
    }
}

impl Checksums {
    /// Takes in a file.
    pub fn add(&mut self, path: &str, bytes: &[u8]) {
        self.0.insert(path.to_owned(), Checksum::of(bytes));
    }

    /// Whether the save holds a file of that path.
    pub fn lists(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Whether these are the bytes that were saved under that path.
    pub fn fits(&self, path: &str, bytes: &[u8]) -> bool {
        self.0.get(path).is_some_and(|saved| *saved == Checksum::of(bytes))
    }

    /// The files of the save.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
