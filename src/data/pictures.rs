//! Pictures as people have them: PNG, JPEG, GIF (first frame), BMP and WebP of any size and mode, alone or in folders.

use super::part::Part;
use super::resize::Resizer;
use super::{MAX_BYTES, MAX_PICTURE_BYTES, Progress, Seen, check_shape, too_large};
use crate::diffusion::Images;
use crate::error::{Error, Result};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;
use std::error::Error as _;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a JPEG begins.
const JPEG: &[u8] = &[0xff, 0xd8, 0xff];
const CUT_SHORT: &str = "the file is cut short";

const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "gif", "bmp", "webp"];
const READS: &str = "PNG, JPEG, GIF, BMP and WebP pictures are read";
/// Pixels a side of one picture.
const MAX_SIDE: u32 = 32_768;
/// Larger pictures are decoded one at a time, so that many together do not take the memory of all.
const LARGE_BYTES: u64 = 32 << 20;
/// Pictures are decoded so many at once that it takes about this long.
const LEAST: Duration = Duration::from_millis(10);
const MOST_AT_ONCE: usize = 1024;

/// The bundled photos: name and file contents, for [`decode_picture`].
pub fn photos() -> &'static [(&'static str, &'static [u8])] {
    &[
        ("astronaut", include_bytes!("../../assets/photos/astronaut.png")),
        ("chelsea", include_bytes!("../../assets/photos/chelsea.png")),
        ("coffee", include_bytes!("../../assets/photos/coffee.png")),
        ("rocket", include_bytes!("../../assets/photos/rocket.jpg")),
    ]
}

/// Reads one picture and fits it to `shape` = [c, h, w]; fails if the file is no picture or a side of it is past 32,768.
pub fn load_picture(path: &Path, shape: [usize; 3]) -> Result<Images> {
    check_shape(shape)?;
    let picture = decode_file(path, shape, MAX_PICTURE_BYTES)
        .and_then(|picture| picture.ok_or_else(past_limits))
        .map_err(|why| Error::new("cannot open the picture", why, READS).at(path))?;
    Ok(super::to_images(1, shape, &picture.pixels))
}

/// As [`load_picture`], from the contents of a file called `name`.
pub fn decode_picture(name: &str, bytes: &[u8], shape: [usize; 3]) -> Result<Images> {
    check_shape(shape)?;
    let picture = decode(Cursor::new(bytes), None, shape, MAX_PICTURE_BYTES)
        .and_then(|picture| picture.ok_or_else(past_limits))
        .map_err(|why| Error::new("cannot open the picture", why, READS).at(name))?;
    Ok(super::to_images(1, shape, &picture.pixels))
}

/// Reads all pictures below `folder`, or the single picture `folder`, in the order of their paths. The class of a picture
/// is the folder that it is in, next below `folder`, or else `name`.
pub(super) fn read(folder: &Path, name: &str, shape: [usize; 3], seen: &mut Seen, progress: Progress) -> Result<Part> {
    let fail = |why: String| Error::new("cannot read the data set", why, READS).at(folder);
    let len_one: usize = shape.iter().product();
    let (mut files, skipped) = if folder.is_dir() {
        find(folder, MAX_BYTES / len_one, progress)?
    } else {
        (vec![folder.to_owned()], Vec::new())
    };
    let mut part = Part { flip: true, skipped, ..Part::default() };
    if files.is_empty() && part.skipped.is_empty() {
        return Err(fail("there are no pictures in this folder".to_owned()));
    }
    let all = files.len();
    if let Some(seen) = seen {
        files.retain(|file| file.canonicalize().is_ok_and(|place| seen.insert(place)));
    }
    if files.len() < all {
        let read_before = match all - files.len() {
            1 => "one of its pictures was".to_owned(),
            n => format!("{n} of its pictures were"),
        };
        part.skipped.push((folder.to_owned(), format!("{read_before} read already, under another of the paths")));
        if files.is_empty() {
            return Ok(part);
        }
    }
    part.pixels.reserve_exact(files.len() * len_one);
    let (mut done, mut at_once) = (0, rayon::current_num_threads());
    while done < files.len() {
        let begun = Instant::now();
        let files_at_once = &files[done..files.len().min(done + at_once)];
        let decoded: Vec<_> = files_at_once.par_iter().map(|path| decode_file(path, shape, LARGE_BYTES)).collect();
        for (path, decoded) in files_at_once.iter().zip(decoded) {
            let decoded = match decoded {
                Ok(None) => decode_file(path, shape, MAX_PICTURE_BYTES),
                decoded => decoded,
            };
            match decoded.and_then(|picture| picture.ok_or_else(past_limits)) {
                Ok(picture) => {
                    part.pixels.extend_from_slice(&picture.pixels);
                    part.found.note(picture.size, &picture.mode, 1);
                    let mut below = path.strip_prefix(folder).unwrap_or(path).components();
                    let class = match (below.next(), below.next()) {
                        (Some(class), Some(_)) => class.as_os_str().to_string_lossy(),
                        _ => name.into(),
                    };
                    let label = part.class(&class);
                    part.labels.push(label);
                }
                Err(why) => part.skipped.push((path.clone(), why)),
            }
        }
        done += files_at_once.len();
        if !progress(done, files.len()) {
            return Err(Error::cancelled());
        }
        // so few that a cancel is soon heard, so many that the threads rarely wait for each other
        at_once = match begun.elapsed() {
            took if took < LEAST => at_once.saturating_mul(2).min(MOST_AT_ONCE),
            took if took > 4 * LEAST => (at_once / 2).max(rayon::current_num_threads()),
            _ => at_once,
        };
    }
    match part.skipped.first() {
        Some((_, why)) if part.pixels.is_empty() && !folder.is_dir() => Err(fail(why.clone())),
        Some((path, why)) if part.pixels.is_empty() => {
            let name = path.strip_prefix(folder).unwrap_or(path).display();
            Err(fail(format!("nothing in this folder can be read, and for {name} the reason is: {why}")))
        }
        _ => Ok(part),
    }
}

/// Files and what could not be looked into.
type Listed = (Vec<PathBuf>, Vec<(PathBuf, String)>);

/// Every picture file below `root`, sorted by path. Hidden files and links to folders are left out, so that no chain of
/// links has no end.
fn find(root: &Path, most: usize, progress: Progress) -> Result<Listed> {
    let (mut files, mut skipped, mut folders) = (Vec::new(), Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        if !progress(0, files.len()) {
            return Err(Error::cancelled());
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) => {
                skipped.push((folder, e.to_string()));
                continue;
            }
        };
        for (i, entry) in entries.flatten().enumerate() {
            if i % 4096 == 4095 && !progress(0, files.len()) {
                return Err(Error::cancelled());
            }
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let kind = entry.file_type();
            if kind.as_ref().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
                continue;
            }
            if !named(&path) {
                continue;
            }
            let is_file = match kind {
                Ok(kind) if !kind.is_symlink() => Ok(kind.is_file()),
                _ => fs::metadata(&path).map(|target| target.is_file()),
            };
            match is_file {
                Ok(true) => files.push(path),
                Ok(false) => {}
                Err(e) => skipped.push((path, e.to_string())),
            }
            if files.len() > most {
                return Err(too_large(&format!("more than {most} pictures")).at(root));
            }
        }
    }
    files.sort();
    skipped.sort();
    Ok((files, skipped))
}

/// Whether a file has the name of a picture.
pub(super) fn named(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(is_picture)
}

fn is_picture(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// As [`decode`].
fn decode_file(path: &Path, shape: [usize; 3], most: u64) -> Decoded {
    // looked at before it is opened: a pipe would wait, a device would never end
    let kind = fs::metadata(path).map_err(|e| e.to_string())?;
    if !kind.is_file() {
        return Err(if kind.is_dir() { "it is a folder" } else { "it is not a regular file" }.to_owned());
    }
    if kind.len() > most {
        // some decoders read all of it first
        return Ok(None);
    }
    let file = File::open(path).map_err(|e| e.to_string())?;
    decode(BufReader::new(file), ImageFormat::from_path(path).ok(), shape, most)
}

/// None of a picture that is past its limits; or the reason why not.
type Decoded = std::result::Result<Option<Picture>, String>;

/// A picture at the model's size, and what it was before.
struct Picture {
    /// c·h·w bytes.
    pixels: Vec<u8>,
    /// [width, height] as it is seen.
    size: [usize; 2],
    /// Format and colour mode.
    mode: String,
}

/// One picture of [`MAX_SIDE`] and `most` bytes unpacked. What the contents look like counts more than the file's name.
fn decode(mut file: impl BufRead + Seek, named: Option<ImageFormat>, shape: [usize; 3], most: u64) -> Decoded {
    // decoders unfold palettes; byte 25 of a PNG tells
    let palette = file.fill_buf().is_ok_and(|start| start.starts_with(b"\x89PNG") && start.get(25) == Some(&3));
    if file.fill_buf().is_ok_and(|start| start.starts_with(JPEG))
        && is_cut_jpeg(&mut file).map_err(|e| e.to_string())?
    {
        return Err(CUT_SHORT.to_owned());
    }
    let mut reader = ImageReader::new(file);
    if let Some(format) = named {
        reader.set_format(format);
    }
    let mut reader = reader.with_guessed_format().map_err(|e| e.to_string())?;
    let format = reader.format();
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    limits.max_alloc = Some(most);
    reader.limits(limits);
    let past = |e: ImageError| if matches!(e, ImageError::Limits(_)) { Ok(None) } else { Err(reason(&e)) };
    let mut decoder = match reader.into_decoder() {
        Ok(decoder) => decoder,
        Err(e) => return past(e),
    };
    if decoder.total_bytes() > most {
        return Ok(None);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = match DynamicImage::from_decoder(decoder) {
        Ok(picture) => picture,
        Err(e) => return past(e),
    };
    if picture.width() == 0 || picture.height() == 0 {
        return Err("the picture has no pixels".to_owned());
    }
    picture.apply_orientation(orientation);
    let size = [picture.width(), picture.height()].map(|v| v as usize);
    let mode = mode(format, palette, picture.color());
    Ok(Some(Picture { pixels: fit(picture, shape), size, mode }))
}

/// Whether the segments of a JPEG come to no end: its decoder would make up the rest. After the end anything may follow.
fn is_cut_jpeg(file: &mut (impl BufRead + Seek)) -> std::io::Result<bool> {
    /// How the mark of its end goes on after 0xff.
    const END: u8 = 0xd9;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    file.rewind()?;
    let mut at = 2;
    while let Some(next) = bytes.iter().skip(at).position(|&byte| byte == 0xff) {
        at += next + 1;
        match bytes[at..] {
            [END, ..] => return Ok(false),
            // part of the data, filling, or a mark without a segment
            [0 | 1 | 0xd0..=0xd8 | 0xff, ..] => {}
            [_, high, low, ..] => at += 1 + usize::from(u16::from_be_bytes([high, low])),
            _ => break,
        }
    }
    Ok(true)
}

/// "PNG, RGB 16 bit".
fn mode(format: Option<ImageFormat>, palette: bool, color: ColorType) -> String {
    let format_name = format.map_or_else(String::new, |format| format!("{format:?}").to_uppercase());
    let colours = match (color.has_color(), color.has_alpha()) {
        _ if palette || format == Some(ImageFormat::Gif) => "palette",
        (false, false) => "grey",
        (false, true) => "grey and alpha",
        (true, false) => "RGB",
        (true, true) => "RGBA",
    };
    let bits = 8 * u16::from(color.bytes_per_pixel() / color.channel_count());
    if bits == 8 { format!("{format_name}, {colours}") } else { format!("{format_name}, {colours} {bits} bit") }
}

/// Grey or colour as `c` asks, transparency on white, scaled and cropped to h × w.
pub(super) fn fit(picture: DynamicImage, [c, h, w]: [usize; 3]) -> Vec<u8> {
    let size = [picture.height() as usize, picture.width() as usize];
    let transparent = picture.color().has_alpha();
    let (mut pixels, stride) = match (c, transparent) {
        (1, false) => (picture.into_luma8().into_raw(), 1),
        (1, true) => (picture.into_luma_alpha8().into_raw(), 2),
        (_, false) => (picture.into_rgb8().into_raw(), 3),
        (_, true) => (picture.into_rgba8().into_raw(), 4),
    };
    if transparent {
        for pixel in pixels.chunks_exact_mut(stride) {
            if let Some((&mut alpha, colour)) = pixel.split_last_mut() {
                let alpha = u32::from(alpha);
                colour.iter_mut().for_each(|v| *v = ((u32::from(*v) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
            }
        }
    }
    let resizer = Resizer::new(size, [h, w]);
    let mut out = vec![0; c * h * w];
    for (k, channel) in out.chunks_exact_mut(h * w).enumerate() {
        resizer.channel(&pixels[k..], stride, channel);
    }
    out
}

fn reason(e: &ImageError) -> String {
    match e {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => CUT_SHORT.to_owned(),
        ImageError::Decoding(e) => {
            let said = e.source().map_or_else(|| e.to_string(), ToString::to_string);
            format!("the picture is damaged ({})", said.lines().next().unwrap_or_default().trim_end_matches('.'))
        }
        // some decoders explain themselves over several lines
        _ => e.to_string().lines().next().unwrap_or("unknown reason").to_owned(),
    }
}

fn past_limits() -> String {
    format!("it is past {MAX_SIDE} pixels a side or {} MiB unpacked", MAX_PICTURE_BYTES >> 20)
}
