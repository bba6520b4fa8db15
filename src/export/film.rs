//! The film as pictures: the forward process on the left, the reverse process on the right, a playhead under them.

use super::caption;
use super::draw::{MID_GREY, grid, paste};
use super::write_png;
use crate::diffusion::Images;
use crate::error::{Error, Result};
use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};
use std::path::Path;

/// Doses of noise still to go, and done, on the playhead bar.
const BAR: Rgb<u8> = Rgb([72; 3]);
const BAR_PLAYED: Rgb<u8> = Rgb([232; 3]);
/// Pixels of the models' size between the pictures, and between the two sides and the bar.
const GAP: usize = 1;
const WIDE_GAP: u32 = 4;
const STRIP_LIMIT: usize = 1 << 30;

/// One moment of a film.
#[derive(Clone, Debug)]
pub struct FilmFrame {
    /// Doses of noise in the pictures: 0 none, T pure noise.
    pub t: usize,
    /// The pictures of each side, from left to right: as many on each, of the same size.
    pub sides: Vec<Images>,
}

/// How a film is laid out.
#[derive(Clone, Debug)]
pub struct FilmOptions {
    /// T, where the playhead bar begins; at t = 0 it is full.
    pub timesteps: usize,
    /// Pictures in a row of each side.
    pub columns: usize,
    /// Screen pixels per pixel of the model, each way.
    pub scale: usize,
    /// Two lines over the pictures of each side; empty for no captions. Of capitals, digits, spaces and t.
    pub captions: Vec<[String; 2]>,
}

/// A PNG with time running from left to right through `frames`; every picture has a row for each side. `text` as in
/// [`write_png`].
pub fn write_film_strip(path: &Path, frames: &[FilmFrame], scale: usize, text: &[(&str, &str)]) -> Result<()> {
    let (first, shape) = check(frames)?;
    let (n, sides, [_, h, w], scale) = (first.n, frames[0].sides.len(), shape, scale.max(1));
    let (step_x, step_y, wide) = ((w + GAP) * scale, (h + GAP) * scale, WIDE_GAP as usize * scale);
    let width = frames.len() * step_x - GAP * scale;
    let group = sides * step_y - GAP * scale + wide;
    let height = n * group - wide;
    if width.saturating_mul(height).saturating_mul(3) > STRIP_LIMIT {
        return Err(fail("the picture would be past 1 GiB", "choose a smaller scale, fewer steps or fewer pictures"));
    }
    let mut canvas = RgbImage::from_pixel(width as u32, height as u32, MID_GREY);
    for (column, frame) in frames.iter().enumerate() {
        for (row, images) in frame.sides.iter().enumerate() {
            for i in 0..n {
                let at = [column * step_x, i * group + row * step_y].map(|v| v as u32);
                paste(&mut canvas, images, i, scale, at);
            }
        }
    }
    write_png(path, &canvas, text)
}

/// A frame of a film, at its full size.
///
/// # Errors
/// If its sides differ in number or size of pictures, if there is none, or if the frame would be past 1 GiB.
pub fn render(frame: &FilmFrame, options: &FilmOptions) -> Result<RgbImage> {
    check(std::slice::from_ref(frame))?;
    let small = draw(frame, options);
    let scale = options.scale.max(1) as u32;
    let (width, height) = (small.width().saturating_mul(scale), small.height().saturating_mul(scale));
    if width as usize * height as usize > STRIP_LIMIT / 3 {
        return Err(fail(
            "a frame would be past 1 GiB; a GIF has at most 65,535 pixels a side",
            "choose a smaller scale",
        ));
    }
    let large = resize(&small, width, height, FilterType::Nearest);
    if options.captions.is_empty() {
        return Ok(large);
    }
    let step = (width + WIDE_GAP * scale) / frame.sides.len().max(1) as u32;
    let size = caption::size(scale, step - WIDE_GAP * scale);
    let line = caption::HEIGHT * size + 2 * size;
    let top = 2 * line + 2 * size;
    let mut canvas = RgbImage::from_pixel(width, height + top, Rgb([24; 3]));
    replace(&mut canvas, &large, 0, i64::from(top));
    for (i, lines) in options.captions.iter().enumerate() {
        for (text, y) in lines.iter().zip([2 * size, 2 * size + line]) {
            caption::write(&mut canvas, text, [i as u32 * step + 2 * size, y], size);
        }
    }
    Ok(canvas)
}

/// All sides of every frame must hold as many pictures of one shape; returns the first side.
fn check(frames: &[FilmFrame]) -> Result<(&Images, [usize; 3])> {
    let first = frames.first().and_then(|frame| frame.sides.first());
    let first = first.ok_or_else(|| fail("it has no frames", "choose at least one step"))?;
    let (count, shape) = (frames[0].sides.len(), first.shape());
    let fits = |images: &Images| first.n > 0 && images.n == first.n && images.shape() == shape;
    if frames.iter().all(|frame| frame.sides.len() == count && frame.sides.iter().all(fits)) {
        return Ok((first, shape));
    }
    Err(fail("its pictures differ in number or size", ""))
}

/// Of a side of `width`, so that its caption is never cut: a t without its last digit would be another t.
fn least_width(width: u32, options: &FilmOptions) -> u32 {
    let scale = options.scale.max(1) as u32;
    match options.captions.is_empty() {
        true => 0,
        false => caption::width(caption::size(scale, width * scale)).div_ceil(scale),
    }
}

/// A frame before it is enlarged.
fn draw(frame: &FilmFrame, options: &FilmOptions) -> RgbImage {
    let sides: Vec<RgbImage> = frame.sides.iter().map(|images| grid(images, options.columns, 1, GAP)).collect();
    let (side, height) = sides.first().map_or((0, 0), RgbImage::dimensions);
    let side = side.max(least_width(side, options));
    let width = sides.len() as u32 * (side + WIDE_GAP) - WIDE_GAP;
    let bar = height + WIDE_GAP / 2;
    let mut canvas = RgbImage::from_pixel(width, bar + 1, MID_GREY);
    for (i, picture) in sides.iter().enumerate() {
        replace(&mut canvas, picture, i64::from(i as u32 * (side + WIDE_GAP)), 0);
    }
    let steps = options.timesteps.max(1);
    let played = steps.saturating_sub(frame.t) as f64 / steps as f64 * f64::from(width);
    for x in 0..width {
        canvas.put_pixel(x, bar, if f64::from(x) < played.round() { BAR_PLAYED } else { BAR });
    }
    canvas
}

pub(super) fn fail(why: &str, hint: &str) -> Error {
    Error::new("cannot write the film", why, hint)
}
