//! NumPy arrays: what FID and other evaluation tools read.

use super::draw::to_u8;
use super::files::{cannot_write, save_atomically};
use crate::diffusion::Images;
use crate::error::{Error, Result};
use flate2::Crc;
use std::path::Path;

const NAME: &[u8] = b"arr_0.npy";

/// Writes the images as array `arr_0`, uint8 [N, H, W, C]; equal images make equal files. Fails past 4 GiB.
pub fn write_npz(path: &Path, images: &Images) -> Result<()> {
    let bytes = npz(images).ok_or_else(|| {
        Error::new("cannot write the array", format!("{} images are past 4 GiB", images.n), "write fewer at once")
            .at(path)
    })?;
    save_atomically(path, |file| file.write_all(&bytes).map_err(|e| cannot_write(&e)))
}

/// The array in NumPy's format 1.0.
fn npy(images: &Images) -> Vec<u8> {
    let Images { n, c, h, w, .. } = *images;
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({n}, {h}, {w}, {c}), }}");
    let filled = (10 + header.len() + 1).next_multiple_of(64) - 11;
    header = format!("{header:filled$}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    let planes = to_u8(images);
    for image in planes.chunks_exact(c * h * w) {
        bytes.extend((0..h * w).flat_map(|at| image[at..].iter().step_by(h * w)));
    }
    bytes
}

/// A ZIP archive of one uncompressed member dated 1980-01-01; None if a length does not fit the format.
fn npz(images: &Images) -> Option<Vec<u8>> {
    let array = npy(images);
    let len = u32::try_from(array.len()).ok()?;
    let mut crc = Crc::new();
    crc.update(&array);
    // What the local header and the central directory share, from "version needed" to the lengths of name and extra.
    let mut member = [20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0].to_vec();
    [crc.sum(), len, len].iter().for_each(|v| member.extend(v.to_le_bytes()));
    [NAME.len() as u16, 0].iter().for_each(|v| member.extend(v.to_le_bytes()));

    let local = [b"PK\x03\x04", member.as_slice(), NAME].concat();
    let directory = [b"PK\x01\x02\x14\0", member.as_slice(), &[0; 14], NAME].concat();
    let start = u32::try_from(local.len() + array.len()).ok()?;
    let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
    [directory.len() as u32, start].iter().for_each(|v| end.extend(v.to_le_bytes()));
    end.extend([0, 0]);
    Some([local, array, directory, end].concat())
}
