//! Pictures and files to share: grids, films, strips and arrays, each written whole or not at all.

mod caption;
mod draw;
pub mod files;
mod film;
mod movie;
mod npz;
mod webp;

pub use draw::{grid, to_u8};
pub use film::{FilmFrame, FilmOptions, render, write_film_strip};
pub use movie::{Container, Movie, SHORTEST_MS, ffmpeg};
pub use npz::write_npz;

use crate::error::{Error, Result};
use files::{cannot_write, save_atomically};
use image::RgbImage;
use std::path::Path;

/// Writes a PNG with `text` = (keyword, value) pairs inside it: tEXt where Latin-1 can hold the value, else iTXt.
/// Keywords are Latin-1, 1 to 79 characters.
pub fn write_png(path: &Path, picture: &RgbImage, text: &[(&str, &str)]) -> Result<()> {
    save_atomically(path, |file| encode_png(file, picture, text))
}

/// A PNG in memory.
pub fn png_bytes(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_png(&mut bytes, picture, &[]).map(|()| bytes)
}

fn encode_png(out: impl std::io::Write, picture: &RgbImage, text: &[(&str, &str)]) -> Result<()> {
    let mut encoder = png::Encoder::new(out, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    for (keyword, value) in text {
        add_text(&mut encoder, keyword, value)?;
    }
    let mut writer = encoder.write_header().map_err(|e| png_error(&e))?;
    writer.write_image_data(picture).map_err(|e| png_error(&e))?;
    writer.finish().map_err(|e| png_error(&e))
}

fn add_text<W: std::io::Write>(encoder: &mut png::Encoder<'_, W>, keyword: &str, value: &str) -> Result<()> {
    let latin1 = value.chars().all(|c| u32::from(c) < 256);
    let (keyword, value) = (keyword.to_owned(), value.to_owned());
    let added = if latin1 { encoder.add_text_chunk(keyword, value) } else { encoder.add_itxt_chunk(keyword, value) };
    added.map_err(|e| png_error(&e))
}

fn png_error(e: &png::EncodingError) -> Error {
    match e {
        png::EncodingError::IoError(e) => cannot_write(e),
        _ => Error::new("cannot write the PNG", e.to_string(), ""),
    }
}
