//! What is written can be read again, and what fails leaves nothing behind.

use candle_core::npy::NpzTensors;
use ddpm_film::data::{Dataset, Source, decode_picture, photos};
use ddpm_film::diffusion::Images;
use ddpm_film::error::{Error, Kind, Result};
use ddpm_film::export::files::{cannot_write, check_file, save_atomically};
use ddpm_film::export::{
    Container, FilmFrame, FilmOptions, Movie, grid, render, to_u8, write_film_strip, write_npz, write_png,
};
use image::{Rgb, RgbImage};
use std::fs;
use std::path::Path;

/// Picture i is flat, with channel k at `v(i, k)`.
fn flat(n: usize, shape: [usize; 3], v: impl Fn(usize, usize) -> f32) -> Images {
    let plane = shape[1] * shape[2];
    let data = (0..n * shape[0]).flat_map(|at| std::iter::repeat_n(v(at / shape[0], at % shape[0]), plane)).collect();
    Images::new(n, shape, data)
}

/// A looping GIF; `progress` hears (done, total) frames and stops the export by answering false.
fn write_film_gif(
    path: &Path,
    frames: impl ExactSizeIterator<Item = FilmFrame>,
    options: &FilmOptions,
    progress: &dyn Fn(usize, usize) -> bool,
) -> Result<()> {
    let total = frames.len();
    let mut movie: Option<Movie> = None;
    for (i, frame) in frames.enumerate() {
        let picture = render(&frame, options)?;
        let movie = match &mut movie {
            Some(movie) => movie,
            none => {
                let size = picture.dimensions().into();
                none.insert(Movie::create(path, Container::Gif, size, total, 40, COMMENT)?)
            }
        };
        movie.add(&picture)?;
        if !progress(i + 1, total) {
            return Err(Error::cancelled());
        }
    }
    movie.map_or(Ok(()), Movie::finish)
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn values_map_to_bytes_as_in_the_official_code() {
    let values = vec![-1.0, 1.0, 0.0, -2.0, 7.5, f32::NAN, 100.0 / 127.5 - 1.0, -0.9999];
    assert_eq!(to_u8(&Images::new(1, [1, 2, 4], values)), [0, 255, 128, 0, 255, 0, 100, 0]);
    let bytes: Vec<u8> = (0..=255).collect();
    let there = bytes.iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect();
    assert_eq!(to_u8(&Images::new(1, [1, 16, 16], there)), bytes);
}

#[test]
fn a_grid_places_pictures_in_rows() {
    let images = flat(3, [3, 2, 4], |i, k| if i == 2 && k == 1 { 1.0 } else { -1.0 });
    let picture = grid(&images, 2, 3, 5);
    assert_eq!(picture.dimensions(), (2 * 12 + 5, 2 * 6 + 5));
    let (black, green, grey) = (Rgb([0; 3]), Rgb([0, 255, 0]), Rgb([128; 3]));
    for ((x, y), colour) in [((0, 0), black), ((11, 5), black), ((12, 0), grey), ((17, 0), black), ((0, 6), grey)]
        .into_iter()
        .chain([((0, 11), green), ((11, 16), green), ((17, 11), grey)])
    {
        assert_eq!(*picture.get_pixel(x, y), colour, "at {x}, {y}");
    }
    assert_eq!(grid(&flat(2, [1, 2, 2], |_, _| 1.0), 0, 0, 1), grid(&flat(2, [1, 2, 2], |_, _| 1.0), 1, 1, 1));
    let one = Images::new(1, [1, 1, 2], vec![-1.0, 1.0]);
    assert_eq!(grid(&one, 4, 1, 9).as_raw(), &[0, 0, 0, 255, 255, 255]);
}

#[test]
fn a_png_keeps_pixels_and_provenance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.png");
    let picture = RgbImage::from_fn(31, 17, |x, y| Rgb([x as u8 * 8, y as u8 * 15, (x * y) as u8]));
    write_png(&path, &picture, &[("Software", "ddpm-film"), ("Comment", "seed 1, x²"), ("Source", "β 0.02")]).unwrap();
    assert_eq!(image::open(&path).unwrap().into_rgb8(), picture);

    let reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(&path).unwrap())).read_info().unwrap();
    let text: Vec<_> = reader.info().uncompressed_latin1_text.iter().map(|t| (&*t.keyword, &*t.text)).collect();
    assert_eq!(text, [("Software", "ddpm-film"), ("Comment", "seed 1, x²")]);
    assert_eq!(reader.info().utf8_text[0].get_text().unwrap(), "β 0.02");
    assert_eq!(files(dir.path()), ["out.png"]);
}

#[test]
fn an_npz_holds_the_bytes_with_channels_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("samples.npz");
    let images = Images::new(5, [3, 4, 7], (0..5 * 84).map(|i| (i * 37 % 256) as f32 / 127.5 - 1.0).collect());
    write_npz(&path, &images).unwrap();
    let bytes = to_u8(&images);
    let last: Vec<u8> = (0..5 * 84).map(|at| bytes[at / 84 * 84 + at % 3 * 28 + at % 84 / 3]).collect();

    let archive = NpzTensors::new(&path).unwrap();
    assert_eq!(archive.names(), ["arr_0"]);
    let array = archive.get("arr_0").unwrap().unwrap();
    assert_eq!(array.dims(), [5, 4, 7, 3]);
    assert_eq!(array.flatten_all().unwrap().to_vec1::<u8>().unwrap(), last);

    let file = fs::read(&path).unwrap();
    assert!(file.ends_with(&last) || file.windows(last.len()).any(|part| part == last), "stored as it is");
    write_npz(&path, &images).unwrap();
    assert_eq!(fs::read(&path).unwrap(), file);
}

fn frames(shape: [usize; 3]) -> Vec<FilmFrame> {
    let at = |t: usize| FilmFrame {
        t,
        sides: vec![
            flat(4, shape, |i, k| (i + k) as f32 / 4.0 - t as f32 / 10.0),
            flat(4, shape, |i, k| (i * k) as f32 / 4.0 - t as f32 / 10.0),
        ],
    };
    [10, 5, 0].map(at).into()
}

/// Travels inside the films.
const COMMENT: &str = "model mnist28, seed 7";

fn options() -> FilmOptions {
    FilmOptions { timesteps: 10, columns: 2, scale: 3, captions: Vec::new() }
}

/// All frames of a GIF, as RGBA.
fn decode(path: &Path) -> (gif::Decoder<fs::File>, Vec<gif::Frame<'static>>) {
    let mut read = gif::DecodeOptions::new();
    read.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = read.read_info(fs::File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        frames.push(frame.clone());
    }
    (decoder, frames)
}

#[test]
fn a_film_loops_and_shows_both_sides_over_a_playhead() {
    let dir = tempfile::tempdir().unwrap();
    for shape in [[1, 6, 8], [3, 6, 8]] {
        let path = dir.path().join("film.gif");
        let seen = std::cell::RefCell::new(Vec::new());
        let remember = |done, total| {
            seen.borrow_mut().push((done, total));
            true
        };
        write_film_gif(&path, frames(shape).into_iter(), &options(), &remember).unwrap();
        assert_eq!(seen.into_inner(), [(1, 3), (2, 3), (3, 3)]);

        let (decoder, decoded) = decode(&path);
        assert_eq!((decoded.len(), decoder.repeat()), (3, gif::Repeat::Infinite));
        // Two sides of 2 x 8 + 1, 4 between; 2 x 6 + 1 high, 2 free, a bar of 1; threefold.
        let (width, height) = ((17 + 4 + 17) * 3, (13 + 2 + 1) * 3);
        assert_eq!((usize::from(decoder.width()), usize::from(decoder.height())), (width, height));
        for (frame, film) in decoded.iter().zip(frames(shape)) {
            assert_eq!(frame.delay, 4);
            let pixel = |x: usize, y: usize| &frame.buffer[(y * width + x) * 4..][..3];
            for (side, images) in [(0, &film.sides[0]), (21 * 3, &film.sides[1])] {
                let expected = grid(images, 2, 3, 3);
                for (x, y, colour) in expected.enumerate_pixels() {
                    assert_eq!(pixel(side + x as usize, y as usize), colour.0, "t {} at {x}, {y}", film.t);
                }
            }
            let played = (0..width).filter(|&x| pixel(x, height - 1)[0] > 200).count();
            assert_eq!(played, (10 - film.t) * width / 10);
            assert_eq!(pixel(17 * 3 + 1, 0), [128; 3]);
        }
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.windows(21).any(|part| part == b"model mnist28, seed 7"));
    }
    assert_eq!(files(dir.path()), ["film.gif"]);
}

#[test]
fn a_film_takes_as_long_as_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.gif");
    let length = |delay_ms| {
        let mut movie = Movie::create(&path, Container::Gif, [2, 2], 100, delay_ms, "").unwrap();
        (0..100).for_each(|_| movie.add(&image::RgbImage::new(2, 2)).unwrap());
        movie.finish().unwrap();
        decode(&path).1.iter().map(|frame| u64::from(frame.delay) * 10).sum::<u64>()
    };
    // browsers show frames of less than 20 ms for longer
    assert_eq!([27, 33, 20, 8].map(length), [2700, 3300, 2000, 2000]);
}

#[test]
fn a_caption_is_never_cut() {
    let frame = FilmFrame { t: 1000, sides: vec![Images::new(1, [1, 8, 8], vec![0.0; 64]); 2] };
    let render = |last: &str| {
        let captions = vec![["DATA t=1000".to_owned(), String::new()], ["MODEL t=1000".to_owned(), last.to_owned()]];
        render(&frame, &FilmOptions { timesteps: 1000, columns: 1, scale: 2, captions }).unwrap()
    };
    let [one, ten] = ["STEP 1000000 RAW", "STEP 1000000 RA "].map(render);
    assert_eq!(one.dimensions(), ten.dimensions());
    assert!(one != ten, "the last letter is not there");
}

#[test]
fn a_photo_in_a_film_keeps_its_colours_nearly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.gif");
    let photo = decode_picture(photos()[1].0, photos()[1].1, [3, 64, 64]).unwrap();
    let frame = FilmFrame { t: 0, sides: vec![photo.clone(), photo.clone()] };
    write_film_gif(&path, std::iter::once(frame), &FilmOptions { columns: 1, ..options() }, &|_, _| true).unwrap();
    let (decoder, decoded) = decode(&path);
    let (width, expected) = (usize::from(decoder.width()), grid(&photo, 1, 3, 0));
    let mut squares = 0.0;
    for (x, y, colour) in expected.enumerate_pixels() {
        let pixel = &decoded[0].buffer[(y as usize * width + x as usize) * 4..][..3];
        squares += pixel.iter().zip(colour.0).map(|(&a, b)| f64::from(a.abs_diff(b)).powi(2)).sum::<f64>();
    }
    let psnr = 20.0 * 255_f64.log10() - 10.0 * (squares / expected.len() as f64).log10();
    assert!(psnr > 33.0, "{psnr:.1} dB");
}

#[test]
fn a_film_that_fails_or_is_stopped_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.gif");
    fs::write(&path, b"before").unwrap();
    let gif = |frames: Vec<FilmFrame>, options: FilmOptions| {
        write_film_gif(&path, frames.into_iter(), &options, &|done, _| done < 2).unwrap_err()
    };
    assert_eq!(gif(frames([1, 4, 4]), options()).kind, Kind::Cancelled);
    let large = gif(frames([1, 4, 4]), FilmOptions { scale: 9_999, ..options() }).to_string();
    assert!(large.contains("65,535"), "{large}");
    let mut uneven = frames([1, 4, 4]);
    uneven[1].sides[1] = flat(3, [1, 4, 4], |_, _| 0.0);
    assert!(gif(uneven.clone(), options()).to_string().contains("differ"));
    let strip = |frames: &[FilmFrame], scale| write_film_strip(&path, frames, scale, &[]).unwrap_err().to_string();
    assert!(strip(&uneven, 1).contains("differ") && strip(&[], 1).contains("no frames"));
    assert!(strip(&frames([1, 4, 4]), 1_000_000).contains("smaller scale"));
    assert_eq!((files(dir.path()), fs::read(&path).unwrap()), (vec!["film.gif".to_owned()], b"before".to_vec()));
}

#[test]
fn a_strip_runs_from_left_to_right_in_pairs_of_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("strip.png");
    let frames = frames([3, 6, 8]);
    write_film_strip(&path, &frames, 2, &[("Comment", "seed 7")]).unwrap();
    let strip = image::open(&path).unwrap().into_rgb8();
    // 3 columns of 8 with 1 between; 4 pairs of 6 + 1 + 6 with 4 between; twofold.
    assert_eq!(strip.dimensions(), (2 * (3 * 8 + 2), 2 * (4 * 13 + 3 * 4)));
    for (column, frame) in frames.iter().enumerate() {
        for (row, images) in frame.sides.iter().enumerate() {
            let expected = to_u8(images);
            for i in 0..4 {
                let pixel = strip.get_pixel(column as u32 * 18 + 15, (i * 34 + row * 14 + 11) as u32);
                assert_eq!(pixel.0, [0, 1, 2].map(|k| expected[(i * 3 + k) * 48]), "column {column}, row {row}, {i}");
            }
        }
    }
    assert_eq!(*strip.get_pixel(16, 0), Rgb([128; 3]));
}

#[test]
fn saving_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let put = |path: &Path, text: &'static str| {
        save_atomically(path, |file| file.write_all(text.as_bytes()).map_err(|e| cannot_write(&e)))
    };
    put(&path, "one").unwrap();
    put(&path, "two").unwrap();
    let failing = save_atomically(&path, |file| -> Result<()> {
        file.write_all(&[0; 100_000]).unwrap();
        Err(Error::new("cannot finish", "a test says so", ""))
    });
    assert_eq!(failing.unwrap_err().path.as_deref(), Some(&*path));
    assert_eq!((files(dir.path()), fs::read_to_string(&path).unwrap().as_str()), (vec!["file".to_owned()], "two"));

    for (target, expected) in [
        (dir.path().join("nowhere/file"), "the folder does not exist; create it, or choose another"),
        (path.join("file"), "what should be its folder is a file; choose another folder"),
        (dir.path().to_owned(), "this is a folder; add a file name"),
    ] {
        let text = put(&target, "three").unwrap_err().to_string();
        assert!(text.starts_with("cannot write the file: ") && text.contains(expected), "{text}");
        assert!(text.ends_with(&format!("({})", target.display())), "{text}");
    }
    for (target, expected) in [
        (dir.path().join("x".repeat(300)), "no file can have this name here; choose a shorter one"),
        (dir.path().join("new.png/"), "this is a folder; add a file name"),
    ] {
        let text = check_file(&target).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    check_file(&path).unwrap();
    check_file(&dir.path().join("new")).unwrap();
    assert_eq!(files(dir.path()), ["file"]);

    let writable = fs::metadata(&path).unwrap().permissions();
    let mut protected = writable.clone();
    protected.set_readonly(true);
    fs::set_permissions(&path, protected).unwrap();
    for said in [check_file(&path), put(&path, "three")] {
        let text = said.unwrap_err().to_string();
        assert!(text.contains("is write-protected; choose another name"), "{text}");
    }
    assert_eq!((files(dir.path()), fs::read_to_string(&path).unwrap().as_str()), (vec!["file".to_owned()], "two"));
    fs::set_permissions(&path, writable).unwrap();

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        put(&path, "three").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        put(&link, "four").unwrap();
        assert!(link.is_symlink() && fs::read_to_string(&path).unwrap() == "four");
    }
}

/// A whole film of sixteen digits is written in seconds.
#[test]
fn digits_make_a_film() {
    let dir = tempfile::tempdir().unwrap();
    let data = Dataset::load(&Source::Mnist, [1, 28, 28], &|_, _| true).unwrap();
    let digits = data.images(&(0..16).collect::<Vec<_>>());
    let path = dir.path().join("digits.gif");
    let film = (0..50).map(|k| FilmFrame { t: 50 - k, sides: vec![digits.clone(), digits.clone()] });
    let options = FilmOptions { timesteps: 50, columns: 4, ..options() };
    write_film_gif(&path, film, &options, &|_, _| true).unwrap();
    assert_eq!(decode(&path).1.len(), 50);
}
