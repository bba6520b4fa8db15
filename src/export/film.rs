//! The film as a file: pictures drowning in noise on the left, static becoming pictures on the right.

use super::draw::{MID_GREY, grid, paste};
use super::files::{cannot_write, save_atomically};
use super::write_png;
use crate::diffusion::Images;
use crate::error::{Error, Result};
use gif::{Encoder, EncodingError, Extension, Frame, Repeat};
use image::imageops::replace;
use image::{Rgb, RgbImage};
use rayon::prelude::*;
use std::path::Path;

/// Doses of noise still to go, and done, on the playhead bar.
const BAR: Rgb<u8> = Rgb([72; 3]);
const BAR_PLAYED: Rgb<u8> = Rgb([232; 3]);
/// Pixels of the models' size between the pictures, and between the two sides and the bar.
const GAP: usize = 1;
const WIDE_GAP: u32 = 4;
/// 1 the best palette, 30 the fastest; pictures are quantised before they are enlarged.
const QUANTISER_SPEED: i32 = 10;
const STRIP_LIMIT: usize = 1 << 30;

/// One moment of both processes.
#[derive(Clone, Debug)]
pub struct FilmFrame {
    /// Doses of noise in the pictures: 0 none, T pure noise.
    pub t: usize,
    /// x_t of the forward process.
    pub forward: Images,
    /// x_t of the reverse process, or what else is to be shown; as many as `forward`, of the same size.
    pub reverse: Images,
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
    /// Time a frame stays, in steps of 10 ms, 20 at least.
    pub delay_ms: u32,
    /// Where the film comes from: goes into the file as a comment.
    pub comment: String,
}

/// Writes a looping GIF: forward pictures left, reverse ones right, a playhead bar under them. Grey films keep every
/// grey exactly; a frame in colour gets the best 256 colours for it.
///
/// `progress` hears (done, total) frames and stops the export by answering false; then no file is left. Fails without
/// frames, if the frames differ in size, or past 65,535 pixels a side.
pub fn write_film_gif(
    path: &Path,
    mut frames: impl ExactSizeIterator<Item = FilmFrame>,
    options: &FilmOptions,
    progress: &dyn Fn(usize, usize) -> bool,
) -> Result<()> {
    let total = frames.len();
    let first = frames.next().ok_or_else(|| fail("it has no frames", "choose at least one step"))?;
    let (count, shape) = (first.forward.n, first.forward.shape());
    let scale = options.scale.max(1);
    let size = draw(&first, options).dimensions();
    let [width, height] = [size.0, size.1].map(|v| u16::try_from(v as usize * scale).ok());
    let (Some(width), Some(height)) = (width, height) else {
        return Err(fail("a GIF has at most 65,535 pixels a side", "choose a smaller scale or fewer pictures"));
    };

    save_atomically(path, |file| {
        let grey: Vec<u8> = (0..=255).flat_map(|v| [v; 3]).collect();
        let mut gif = Encoder::new(file, width, height, &grey).map_err(|e| gif_error(&e))?;
        gif.set_repeat(Repeat::Infinite).map_err(|e| gif_error(&e))?;
        if !options.comment.is_empty() {
            gif.write_raw_extension(Extension::Comment.into(), &[options.comment.as_bytes()])
                .map_err(|e| gif_error(&e))?;
        }
        let mut frames = std::iter::once(first).chain(frames);
        let mut done = 0;
        loop {
            let some: Vec<FilmFrame> = frames.by_ref().take(2 * rayon::current_num_threads()).collect();
            if some.is_empty() {
                break;
            }
            check(&some, count, shape)?;
            let encoded: Vec<Frame> = some.par_iter().map(|frame| encode(frame, [width, height], options)).collect();
            for frame in &encoded {
                gif.write_lzw_pre_encoded_frame(frame).map_err(|e| gif_error(&e))?;
                done += 1;
                if !progress(done, total) {
                    return Err(Error::cancelled());
                }
            }
        }
        gif.into_inner().map_err(|e| gif_error(&e))?;
        Ok(())
    })
}

/// Writes a PNG with time running from left to right through `frames`; every picture has two rows, forward above
/// reverse. `text` as in [`write_png`].
pub fn write_film_strip(path: &Path, frames: &[FilmFrame], scale: usize, text: &[(&str, &str)]) -> Result<()> {
    let first = frames.first().ok_or_else(|| fail("it has no frames", "choose at least one step"))?;
    let (n, [_, h, w], scale) = (first.forward.n, first.forward.shape(), scale.max(1));
    check(frames, n, first.forward.shape())?;
    let (step_x, step_y, wide) = ((w + GAP) * scale, (h + GAP) * scale, WIDE_GAP as usize * scale);
    let width = frames.len() * step_x - GAP * scale;
    let pair = 2 * step_y - GAP * scale + wide;
    let height = n * pair - wide;
    if width.saturating_mul(height).saturating_mul(3) > STRIP_LIMIT {
        return Err(fail("the picture would be past 1 GiB", "choose a smaller scale, fewer steps or fewer pictures"));
    }
    let mut canvas = RgbImage::from_pixel(width as u32, height as u32, MID_GREY);
    for (column, frame) in frames.iter().enumerate() {
        for i in 0..n {
            let at = [column * step_x, i * pair].map(|v| v as u32);
            paste(&mut canvas, &frame.forward, i, scale, at);
            paste(&mut canvas, &frame.reverse, i, scale, [at[0], at[1] + step_y as u32]);
        }
    }
    write_png(path, &canvas, text)
}

/// Both sides of every frame must hold `n` pictures of `shape`.
fn check(frames: &[FilmFrame], n: usize, shape: [usize; 3]) -> Result<()> {
    let fits = |images: &Images| n > 0 && images.n == n && images.shape() == shape;
    if frames.iter().all(|frame| fits(&frame.forward) && fits(&frame.reverse)) {
        return Ok(());
    }
    Err(fail("its pictures differ in number or size", ""))
}

/// A frame before it is enlarged.
fn draw(frame: &FilmFrame, options: &FilmOptions) -> RgbImage {
    let [forward, reverse] = [&frame.forward, &frame.reverse].map(|images| grid(images, options.columns, 1, GAP));
    let (side, height) = forward.dimensions();
    let (width, bar) = (2 * side + WIDE_GAP, height + WIDE_GAP / 2);
    let mut canvas = RgbImage::from_pixel(width, bar + 1, MID_GREY);
    replace(&mut canvas, &forward, 0, 0);
    replace(&mut canvas, &reverse, i64::from(side + WIDE_GAP), 0);
    let steps = options.timesteps.max(1);
    let played = steps.saturating_sub(frame.t) as f64 / steps as f64 * f64::from(width);
    for x in 0..width {
        canvas.put_pixel(x, bar, if f64::from(x) < played.round() { BAR_PLAYED } else { BAR });
    }
    canvas
}

/// A frame of the file: palette, enlarged indices, compressed.
fn encode(frame: &FilmFrame, [width, height]: [u16; 2], options: &FilmOptions) -> Frame<'static> {
    let canvas = draw(frame, options);
    let (small_width, small_height) = canvas.dimensions();
    let (palette, small) = if frame.forward.c == 1 {
        (None, canvas.pixels().map(|pixel| pixel.0[0]).collect())
    } else {
        let quantised = Frame::from_rgb_speed(small_width as u16, small_height as u16, &canvas, QUANTISER_SPEED);
        (quantised.palette, quantised.buffer.into_owned())
    };
    let scale = options.scale.max(1);
    let buffer: Vec<u8> = small
        .chunks_exact(small_width as usize)
        .flat_map(|row| {
            let row: Vec<u8> = row.iter().flat_map(|&v| std::iter::repeat_n(v, scale)).collect();
            std::iter::repeat_n(row, scale).flatten()
        })
        .collect();
    let delay = (options.delay_ms / 10).clamp(2, u32::from(u16::MAX)) as u16;
    let mut out = Frame { width, height, delay, palette, buffer: buffer.into(), ..Frame::default() };
    out.make_lzw_pre_encoded();
    out
}

fn fail(why: &str, hint: &str) -> Error {
    Error::new("cannot write the film", why, hint)
}

fn gif_error(e: &EncodingError) -> Error {
    match e {
        EncodingError::Io(e) => cannot_write(e),
        _ => fail(&e.to_string(), ""),
    }
}
