//! Moving pictures, one frame at a time: GIF, animated PNG and WebP, and MP4 by way of an `ffmpeg` on the PATH.

use super::files::{Pending, cannot_write};
use super::film::fail;
use super::png_error;
use super::webp::Webp;
use crate::error::{Error, Result};
use gif::{Encoder, EncodingError, Extension, Frame, Repeat};
use image::RgbImage;
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// 1 the best palette, 30 the fastest.
const QUANTISER_SPEED: i32 = 10;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// Every program shows it; 256 colours a frame.
    Gif,
    /// Every colour exactly; browsers show it.
    Apng,
    /// Every colour exactly, in a fraction of the bytes; browsers show it.
    Webp,
    /// Small; needs `ffmpeg`.
    Mp4,
}

/// A film being written. It gets its name when it is finished; dropped before, it leaves nothing.
pub struct Movie {
    encoder: Kind,
    pending: Pending,
    target: PathBuf,
    size: [u32; 2],
    delay_ms: u32,
    /// Frames written so far.
    frames: u32,
}

/// Browsers show a frame of less than 20 ms for longer than that.
pub const SHORTEST_MS: u32 = 20;

/// What writes the file.
enum Kind {
    Gif(Box<Encoder<BufWriter<File>>>),
    Apng(Box<png::Writer<BufWriter<File>>>),
    Webp { encoder: Box<Webp>, file: File, comment: String },
    Mp4(Running),
}

/// Ends its process when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The `ffmpeg` on the PATH.
pub fn ffmpeg() -> Option<PathBuf> {
    let name = format!("ffmpeg{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(&name)).find(|path| path.is_file())
}

impl Movie {
    /// Begins a looping film of `frames` frames of `size` pixels, each shown for `delay_ms`, or [`SHORTEST_MS`] if that is
    /// longer; `comment` travels inside.
    ///
    /// # Errors
    /// If nothing can be written there, if a GIF would be past 65,535 pixels a side or a WebP past 16,383, or without an `ffmpeg` for MP4.
    pub fn create(
        path: &Path,
        container: Container,
        size: [u32; 2],
        frames: usize,
        delay_ms: u32,
        comment: &str,
    ) -> Result<Self> {
        Self::open(path, container, size, frames, delay_ms, comment).map_err(|e| at(e, path))
    }

    fn open(
        path: &Path,
        container: Container,
        [width, height]: [u32; 2],
        frames: usize,
        delay_ms: u32,
        comment: &str,
    ) -> Result<Self> {
        let delay_ms = delay_ms.clamp(SHORTEST_MS, u32::from(u16::MAX));
        let (file, pending) = Pending::create(path)?;
        let encoder = match container {
            Container::Gif => {
                let (Ok(w), Ok(h)) = (u16::try_from(width), u16::try_from(height)) else {
                    let hint = "choose a smaller scale or fewer pictures";
                    return Err(fail("a GIF has at most 65,535 pixels a side", hint));
                };
                let grey: Vec<u8> = (0..=255).flat_map(|v| [v; 3]).collect();
                let mut gif = Encoder::new(BufWriter::new(file), w, h, &grey).map_err(|e| gif_error(&e))?;
                gif.set_repeat(Repeat::Infinite).map_err(|e| gif_error(&e))?;
                if !comment.is_empty() {
                    gif.write_raw_extension(Extension::Comment.into(), &[comment.as_bytes()])
                        .map_err(|e| gif_error(&e))?;
                }
                Kind::Gif(Box::new(gif))
            }
            Container::Apng => {
                let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
                encoder.set_color(png::ColorType::Rgb);
                encoder.set_animated(frames as u32, 0).map_err(|e| png_error(&e))?;
                encoder.set_frame_delay(delay_ms as u16, 1000).map_err(|e| png_error(&e))?;
                super::add_text(&mut encoder, "Comment", comment)?;
                Kind::Apng(Box::new(encoder.write_header().map_err(|e| png_error(&e))?))
            }
            Container::Webp => {
                let encoder = Box::new(Webp::new([width, height], delay_ms as i32)?);
                Kind::Webp { encoder, file, comment: comment.to_owned() }
            }
            Container::Mp4 => {
                let program = ffmpeg().ok_or_else(|| {
                    fail("no ffmpeg was found on the PATH", "install it, or write a GIF or an animated PNG")
                })?;
                drop(file);
                let rate = format!("1000/{delay_ms}");
                let child = Command::new(program)
                    .args(["-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s"])
                    .arg(format!("{width}x{height}"))
                    .args(["-r", &rate, "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"])
                    .args(["-crf", "18", "-movflags", "+faststart", "-metadata"])
                    .arg(format!("comment={comment}"))
                    .args(["-f", "mp4"])
                    .arg(pending.path())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
                    .map_err(|e| fail(&format!("ffmpeg does not start: {e}"), "write a GIF or an animated PNG"))?;
                Kind::Mp4(Running(child))
            }
        };
        Ok(Self { encoder, pending, target: path.to_owned(), size: [width, height], delay_ms, frames: 0 })
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// If it has another size than the first, or cannot be written.
    pub fn add(&mut self, picture: &RgbImage) -> Result<()> {
        self.write(picture).map_err(|e| at(e, &self.target))
    }

    fn write(&mut self, picture: &RgbImage) -> Result<()> {
        if <[u32; 2]>::from(picture.dimensions()) != self.size {
            return Err(fail("its pictures differ in number or size", ""));
        }
        match &mut self.encoder {
            Kind::Gif(gif) => {
                let [width, height] = self.size.map(|v| v as u16);
                let grey = picture.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]);
                let mut frame = if grey {
                    let buffer: Vec<u8> = picture.pixels().map(|p| p.0[0]).collect();
                    Frame { width, height, buffer: buffer.into(), ..Frame::default() }
                } else {
                    Frame::from_rgb_speed(width, height, picture, QUANTISER_SPEED)
                };
                // hundredths of a second, which add up to the film's length
                let at = |frame: u32| (u64::from(frame) * u64::from(self.delay_ms) + 5) / 10;
                frame.delay = (at(self.frames + 1) - at(self.frames)) as u16;
                self.frames += 1;
                gif.write_frame(&frame).map_err(|e| gif_error(&e))
            }
            Kind::Apng(png) => png.write_image_data(picture).map_err(|e| png_error(&e)),
            Kind::Webp { encoder, .. } => encoder.add(picture),
            Kind::Mp4(Running(child)) => {
                let input = child.stdin.as_mut().ok_or_else(|| fail("ffmpeg takes no pictures", ""))?;
                input.write_all(picture).map_err(|_closed| said(child))
            }
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<()> {
        let Self { encoder, pending, target, .. } = self;
        let written = match encoder {
            Kind::Gif(gif) => gif
                .into_inner()
                .map_err(|e| gif_error(&e))
                .and_then(|mut file| file.flush().map_err(|e| cannot_write(&e))),
            // its header and its last chunk are written by the encoder itself; dropped, it closes the file
            Kind::Apng(png) => png.finish().map_err(|e| png_error(&e)),
            Kind::Webp { encoder, mut file, comment } => {
                encoder.finish(&comment).and_then(|bytes| file.write_all(&bytes).map_err(|e| cannot_write(&e)))
            }
            Kind::Mp4(mut running) => {
                drop(running.0.stdin.take());
                match running.0.wait() {
                    Ok(status) if status.success() => Ok(()),
                    _ => Err(said(&mut running.0)),
                }
            }
        };
        written.and_then(|()| pending.commit()).map_err(|e| at(e, &target))
    }
}

/// What `ffmpeg` had against it.
fn said(child: &mut Child) -> Error {
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut text).ok();
    }
    let why = text.lines().next().unwrap_or("it ended without a word");
    fail(&format!("ffmpeg failed: {why}"), "write a GIF or an animated PNG")
}

fn at(e: Error, path: &Path) -> Error {
    if e.path.is_none() { e.at(path) } else { e }
}

fn gif_error(e: &EncodingError) -> Error {
    match e {
        EncodingError::Io(e) => cannot_write(e),
        _ => fail(&e.to_string(), ""),
    }
}
