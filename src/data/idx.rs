//! IDX, the format of MNIST: a big-endian header and raw bytes, plain or gzipped.

use super::resize::Resizer;
use super::{DAMAGED, MAX_BYTES, MAX_PICTURE_BYTES, Progress, too_large};
use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use rayon::prelude::*;
use std::io::{BufRead, ErrorKind, Read};

/// Third byte: unsigned bytes; fourth: number of dimensions.
const IMAGES_MAGIC: u32 = 0x0803;
const LABELS_MAGIC: u32 = 0x0801;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const FOREIGN: &str =
    "give an IDX file such as train-images-idx3-ubyte, a CIFAR batch such as data_batch_1.bin, or a folder of pictures";

/// Whether a file that starts like this may be IDX, plain or gzipped.
pub(super) fn looks_like_idx(start: &[u8]) -> bool {
    start.starts_with(&GZIP_MAGIC) || start.starts_with(&[0, 0, 8])
}

/// Pixels, NCHW, and the [width, height] that the images had.
type ImagesOfSize = (Vec<u8>, [usize; 2]);

/// Reads an images file and scales it to `shape`.
pub(super) fn read_images(reader: impl BufRead, [c, h, w]: [usize; 3], progress: Progress) -> Result<ImagesOfSize> {
    let mut reader = unpacked(reader)?;
    match read_u32(&mut reader)? {
        IMAGES_MAGIC => {}
        LABELS_MAGIC => return Err(fail("this IDX file holds labels, not images", FOREIGN)),
        _ => return Err(fail("the file is not an IDX file of images", FOREIGN)),
    }
    let [n, rows, columns] =
        [read_u32(&mut reader)?, read_u32(&mut reader)?, read_u32(&mut reader)?].map(|v| v as usize);
    if n == 0 || rows == 0 || columns == 0 {
        return Err(fail(&format!("its header announces {n} images of {columns}x{rows}"), FOREIGN));
    }
    let fits = |one: Option<usize>| one.and_then(|v| v.checked_mul(n)).is_some_and(|v| v <= MAX_BYTES);
    if !fits(rows.checked_mul(columns)) || !fits(Some(c * h * w)) {
        return Err(too_large(&format!("{n} images of {columns}x{rows}")));
    }
    if (rows as u64).saturating_mul(columns as u64) > MAX_PICTURE_BYTES {
        return Err(fail(&format!("its header announces images of {columns}x{rows}"), "give smaller images"));
    }

    let resizer = Resizer::new([rows, columns], [h, w]);
    let one = rows * columns;
    let images_at_once = ((1 << 20) / one).clamp(1, 4096);
    let mut buffer = vec![0; one * images_at_once.min(n)];
    let mut pixels = Vec::new();
    for done in (0..n).step_by(images_at_once) {
        let source = &mut buffer[..one * images_at_once.min(n - done)];
        reader.read_exact(source).map_err(|e| cut_short(&e, &format!("{n} images of {columns}x{rows}")))?;
        let start = pixels.len();
        pixels.resize(start + source.len() / one * c * h * w, 0);
        pixels[start..].par_chunks_mut(c * h * w).zip(source.par_chunks(one)).for_each(|(out, image)| {
            let (first, others) = out.split_at_mut(h * w);
            resizer.channel(image, 1, first);
            others.chunks_exact_mut(h * w).for_each(|channel| channel.copy_from_slice(first));
        });
        if !progress((done + images_at_once).min(n), n) {
            return Err(Error::cancelled());
        }
    }
    end(&mut reader)?;
    Ok((pixels, [columns, rows]))
}

/// Reads the labels of `n` images.
pub(super) fn read_labels(reader: impl BufRead, n: usize) -> Result<Vec<u8>> {
    let mut reader = unpacked(reader)?;
    if read_u32(&mut reader)? != LABELS_MAGIC {
        return Err(fail("the file is not an IDX file of labels", ""));
    }
    let labels = read_u32(&mut reader)? as usize;
    if labels != n {
        return Err(fail(&format!("it holds {labels} labels for {n} images"), ""));
    }
    let mut values = vec![0; n];
    reader.read_exact(&mut values).map_err(|e| cut_short(&e, &format!("{n} labels")))?;
    end(&mut reader)?;
    Ok(values)
}

fn unpacked<'a>(mut reader: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let start = reader.fill_buf().map_err(|e| fail(&e.to_string(), DAMAGED))?;
    if start.is_empty() {
        return Err(fail("the file is empty", DAMAGED));
    }
    let gzipped = start.starts_with(&GZIP_MAGIC);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) })
}

fn read_u32(reader: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).map_err(|e| cut_short(&e, "an IDX header"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Reading on past the last byte also makes gzip compare its checksum.
fn end(reader: &mut impl Read) -> Result<()> {
    match reader.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(fail("the file is longer than its header says", DAMAGED)),
        Err(e) => Err(cut_short(&e, "gzipped data")),
    }
}

fn cut_short(e: &std::io::Error, expected: &str) -> Error {
    match e.kind() {
        ErrorKind::UnexpectedEof => fail(&format!("the file is cut short: it should hold {expected}"), DAMAGED),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => fail("its gzip data are damaged", DAMAGED),
        _ => fail(&e.to_string(), DAMAGED),
    }
}

fn fail(why: &str, hint: &str) -> Error {
    Error::new("cannot read the data set", why, hint)
}
