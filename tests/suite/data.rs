//! Data sets from real, odd and hostile files.

use ddpm_film::data::{Dataset, Source, decode_picture, load_picture, photos};
use ddpm_film::error::{Kind, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, RgbaImage};
use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::Path;

fn load(path: &Path, shape: [usize; 3]) -> Result<Dataset> {
    Dataset::load(&Source::Path(path.to_owned()), shape, &|_, _| true)
}

fn mnist(shape: [usize; 3]) -> Dataset {
    Dataset::load(&Source::Mnist, shape, &|_, _| true).unwrap()
}

fn idx(dims: &[u32], pixels: &[u8]) -> Vec<u8> {
    let magic = 0x0800 | dims.len() as u32;
    [magic].iter().chain(dims).flat_map(|v| v.to_be_bytes()).chain(pixels.iter().copied()).collect()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sums taken from the files with NumPy.
#[test]
fn the_bundled_digits_are_mnist() {
    let sum = |pixels: &[u8]| pixels.iter().map(|&v| u64::from(v)).sum::<u64>();
    let data = mnist([1, 28, 28]);
    assert_eq!((data.len(), data.n, data.shape, data.flip), (60_000, 60_000, [1, 28, 28], false));
    assert_eq!(data.labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(sum(&data.pixels), 1_567_298_545);
    assert_eq!([0, 1, 2, 59_999].map(|i| sum(data.image(i))), [27_525, 31_095, 19_443, 20_920]);
    let pair = data.images(&[1, 0]);
    assert_eq!((pair.n, pair.shape()), (2, [1, 28, 28]));
    assert!(pair.one(1).iter().zip(data.image(0)).all(|(x, &v)| ((x + 1.0) * 127.5 - f32::from(v)).abs() < 1e-4));
    assert!(pair.data.contains(&-1.0) && pair.data.contains(&1.0));

    let test = Dataset::mnist_test([1, 28, 28], &|_, _| true).unwrap();
    assert_eq!((test.n, sum(&test.pixels)), (10_000, 264_923_200));
    assert_eq!(test.labels[..5], [7, 2, 1, 0, 4]);
}

#[test]
fn digits_come_in_any_size_and_in_colour() {
    let whole = mnist([1, 28, 28]);
    for shape in [[1, 16, 16], [3, 32, 32]] {
        let data = mnist(shape);
        assert_eq!((data.n, data.pixels.len()), (60_000, 60_000 * shape.iter().product::<usize>()));
        let mean = |d: &Dataset| d.pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / d.pixels.len() as f64;
        assert!((mean(&data) - mean(&whole)).abs() < 2.0, "{} against {}", mean(&data), mean(&whole));
        let plane = shape[1] * shape[2];
        assert!(data.image(7).chunks(plane).all(|channel| channel == &data.image(7)[..plane]));
    }
}

#[test]
fn batches_are_decided_by_seed_and_step() {
    let data = mnist([1, 28, 28]);
    let batch = data.batch(1, 937, 64, false);
    assert_eq!((batch.n, batch.shape()), (64, [1, 28, 28]));
    assert_eq!(batch, mnist([1, 28, 28]).batch(1, 937, 64, false));
    assert_ne!(batch, data.batch(1, 938, 64, false));
}

#[test]
fn loading_reports_progress_and_stops_when_told() {
    let seen = RefCell::new(Vec::new());
    let remember = |done, total| {
        seen.borrow_mut().push((done, total));
        done < 20_000
    };
    let e = Dataset::load(&Source::Mnist, [1, 28, 28], &remember).unwrap_err();
    assert_eq!(e.kind, Kind::Cancelled);
    let seen = seen.into_inner();
    assert!(seen.iter().all(|s| s.1 == 60_000) && seen.windows(2).all(|s| s[0].0 < s[1].0), "{seen:?}");
    assert!(seen.last().unwrap().0 < 30_000);
}

#[test]
fn idx_files_plain_gzipped_or_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..5 * 4 * 3).map(|v| v as u8 * 4).collect();
    let images = idx(&[5, 4, 3], &pixels);
    fs::write(dir.path().join("anything"), &images).unwrap();
    fs::write(dir.path().join("train-images-idx3-ubyte.gz"), gz(&images)).unwrap();
    fs::write(dir.path().join("train-labels-idx1-ubyte"), idx(&[5], &[3, 1, 4, 1, 5])).unwrap();

    let plain = load(&dir.path().join("anything"), [1, 4, 3]).unwrap();
    assert_eq!((plain.n, &plain.pixels, plain.flip), (5, &pixels, false));
    assert_eq!((plain.classes, plain.labels), (vec!["anything".to_owned()], vec![0; 5]));
    assert_eq!(plain.found.sizes, [([3, 4], 5)].into());
    for path in [dir.path().to_owned(), dir.path().join("train-images-idx3-ubyte.gz")] {
        let data = load(&path, [1, 4, 3]).unwrap();
        assert_eq!((data.pixels, data.labels), (pixels.clone(), vec![3, 1, 4, 1, 5]));
    }

    fs::write(dir.path().join("train-labels-idx1-ubyte"), idx(&[4], &[3, 1, 4, 1])).unwrap();
    let data = load(dir.path(), [1, 4, 3]).unwrap();
    assert_eq!((data.n, data.labels), (5, vec![0; 5]));
    assert!(data.skipped[0].1.contains("4 labels for 5 images"), "{:?}", data.skipped);
}

#[test]
fn broken_idx_files_get_one_sentence_each() {
    let dir = tempfile::tempdir().unwrap();
    let good = idx(&[5, 4, 3], &[7; 60]);
    let mut damaged = gz(&idx(&[5, 40, 30], &(0..6000_u32).map(|v| ((v * v) >> 3) as u8).collect::<Vec<_>>()));
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    let longer: Vec<u8> = good.iter().copied().chain([0]).collect();
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("empty", Vec::new(), "the file is empty"),
        ("header", good[..9].to_vec(), "cut short"),
        ("short", good[..70].to_vec(), "cut short: it should hold 5 images of 3x4"),
        ("long", longer, "longer than its header says"),
        ("short-gz", gz(&good)[..20].to_vec(), "cut short"),
        ("damaged-gz", damaged, "damaged"),
        ("labels", idx(&[5], &[0; 5]), "holds labels"),
        ("foreign", b"%PDF-1.7 and so on".to_vec(), "not an IDX file"),
        ("none", idx(&[0, 28, 28], &[]), "0 images"),
        ("overflow", idx(&[u32::MAX; 3], &[1; 100]), "at most 2 GiB"),
        ("one-huge", idx(&[1, 40_000, 40_000], &[1; 100]), "images of 40000x40000"),
        ("huge", idx(&[70_000, 1000, 1000], &[1; 100]), "at most 2 GiB"),
    ];
    for (name, bytes, expected) in cases {
        let path = dir.path().join(format!("{name}-idx3-ubyte"));
        fs::write(&path, bytes).unwrap();
        let e = load(&path, [1, 28, 28]).unwrap_err();
        let text = e.to_string();
        assert!(text.contains(expected) && text.ends_with("ubyte)") && !text.contains('\n'), "{name}: {text}");
        assert_eq!(e.kind, Kind::Failed);
    }
    let missing = load(&dir.path().join("nowhere"), [1, 28, 28]).unwrap_err().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
    // 2^25 images of one pixel are small, but not at 3x32x32.
    let path = dir.path().join("tiny-idx3-ubyte");
    fs::write(&path, idx(&[1 << 25, 1, 1], &[])).unwrap();
    assert!(load(&path, [3, 32, 32]).unwrap_err().to_string().contains("at most 2 GiB"));
    assert_eq!(load(&path, [4, 32, 32]).unwrap_err().kind, Kind::Usage);
}

/// Grey 100 everywhere; black of opacity 155/255 on white is that grey too.
#[test]
fn every_mode_of_picture_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let save = |name: &str, picture: DynamicImage| picture.save(dir.path().join(name)).unwrap();
    save("grey.png", GrayImage::from_pixel(9, 7, Luma([100])).into());
    save("grey-alpha.png", GrayAlphaImage::from_pixel(9, 7, image::LumaA([0, 155])).into());
    save("rgb.png", RgbImage::from_pixel(9, 7, Rgb([100; 3])).into());
    save("rgb.bmp", RgbImage::from_pixel(9, 7, Rgb([100; 3])).into());
    save("rgb.webp", RgbImage::from_pixel(9, 7, Rgb([100; 3])).into());
    save("rgb.gif", RgbaImage::from_pixel(9, 7, image::Rgba([100, 100, 100, 255])).into());
    save("rgb.JPG", RgbImage::from_pixel(9, 7, Rgb([100; 3])).into());
    save("rgba.png", RgbaImage::from_pixel(9, 7, image::Rgba([0, 0, 0, 155])).into());
    save("grey16.png", ImageBuffer::from_pixel(9, 7, Luma([100_u16 * 257])).into());
    save("rgb16.png", ImageBuffer::from_pixel(9, 7, Rgb([100_u16 * 257; 3])).into());
    palette_png(&dir.path().join("palette.png"));
    fs::rename(dir.path().join("rgb.gif"), dir.path().join("gif-by-another-name.png")).unwrap();
    for c in [1, 3] {
        let data = load(dir.path(), [c, 8, 8]).unwrap();
        assert!((data.n, data.skipped.len(), data.flip) == (11, 0, true), "{:?}", data.skipped);
        assert!(data.pixels.iter().all(|v| v.abs_diff(100) <= 1), "{:?}", data.pixels);
        assert_eq!(data.found.sizes, [([9, 7], 11)].into());
        let modes: Vec<_> = data.found.modes.iter().map(|(mode, n)| (mode.as_str(), *n)).collect();
        let expected = [
            ("BMP, RGB", 1),
            ("GIF, palette", 1),
            ("JPEG, RGB", 1),
            ("PNG, RGB", 1),
            ("PNG, RGB 16 bit", 1),
            ("PNG, RGBA", 1),
            ("PNG, grey", 1),
            ("PNG, grey 16 bit", 1),
            ("PNG, grey and alpha", 1),
            ("PNG, palette", 1),
            ("WEBP, RGB", 1),
        ];
        assert_eq!(modes, expected);
    }
}

/// Two entries that look alike, one of them half-transparent black.
fn palette_png(path: &Path) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 9, 7);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette([100, 100, 100, 0, 0, 0].as_slice());
    encoder.set_trns([255, 155].as_slice());
    let pixels: Vec<u8> = (0..63).map(|i| i % 2).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

#[test]
fn colour_turns_to_grey_and_pictures_turn_as_their_camera_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("red.png");
    RgbImage::from_pixel(8, 8, Rgb([255, 0, 0])).save(&path).unwrap();
    assert_eq!(load(&path, [3, 1, 1]).unwrap().pixels, [255, 0, 0]);
    assert_eq!(load(&path, [1, 1, 1]).unwrap().pixels, [54]);

    // Left half black, right half white; "rotate by 90 degrees" puts black on top.
    let halves = GrayImage::from_fn(16, 16, |x, _| Luma([if x < 8 { 0 } else { 255 }]));
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100).encode_image(&halves).unwrap();
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let marker = [&[0xff, 0xe1, 0, exif.len() as u8 + 2], exif.as_slice()].concat();
    let turned = [&jpeg[..2], &marker, &jpeg[2..]].concat();
    let rows = |bytes: &[u8]| decode_picture("halves.jpg", bytes, [1, 2, 2]).unwrap().data;
    let dark = |v: &f32| *v < 0.0;
    assert_eq!(rows(&jpeg).iter().map(dark).collect::<Vec<_>>(), [true, false, true, false]);
    assert_eq!(rows(&turned).iter().map(dark).collect::<Vec<_>>(), [true, true, false, false]);
}

#[test]
fn folders_are_read_by_path_and_what_is_no_picture_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("b/deep");
    fs::create_dir_all(&sub).unwrap();
    for (name, v) in [("c.png", 3), ("a.png", 1), ("b/deep/x.png", 2)] {
        GrayImage::from_pixel(4, 4, Luma([v])).save(dir.path().join(name)).unwrap();
    }
    let whole = fs::read(dir.path().join("c.png")).unwrap();
    fs::write(dir.path().join("aa-broken.png"), b"not a picture").unwrap();
    fs::write(dir.path().join("bb-short.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(dir.path().join("empty.jpg"), b"").unwrap();
    let photo = include_bytes!("../../assets/photos/rocket.jpg");
    fs::write(dir.path().join("photo.jpg"), &photo[..photo.len() / 2]).unwrap();
    fs::write(dir.path().join("notes.txt"), b"no picture, and not meant as one").unwrap();
    fs::write(dir.path().join(".hidden.png"), b"?").unwrap();
    let data = load(dir.path(), [1, 1, 1]).unwrap();
    assert_eq!(data.pixels, [1, 2, 3]);
    let skipped: Vec<_> = data.skipped.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(skipped, ["aa-broken.png", "bb-short.png", "empty.jpg", "photo.jpg"]);
    assert_eq!(data.skipped[3].1, "the file is cut short");
    // what follows a whole picture is no part of it
    let more = [&photo[..], &[0, 0xff, 0xda, 7]].concat();
    assert_eq!(decode_picture("more", &more, [3, 8, 8]).unwrap(), decode_picture("less", photo, [3, 8, 8]).unwrap());
    let mut damaged = include_bytes!("../../assets/photos/coffee.png").to_vec();
    damaged[5000] ^= 1;
    let damaged = decode_picture("coffee", &damaged, [1, 8, 8]).unwrap_err().to_string();
    assert!(damaged.starts_with("cannot open the picture: the picture is damaged ("), "{damaged}");
    assert!(data.skipped.iter().all(|(_, why)| !why.is_empty() && !why.contains('\n')), "{:?}", data.skipped);

    fs::copy(dir.path().join("c.png"), dir.path().join("c_idx.png")).unwrap();
    let one = load(&dir.path().join("c_idx.png"), [1, 1, 1]).unwrap();
    assert_eq!((one.n, one.pixels, one.name.as_str()), (1, vec![3], "c_idx.png"));
}

#[test]
fn folders_and_pictures_that_cannot_be_used_get_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let none = load(dir.path(), [1, 8, 8]).unwrap_err().to_string();
    assert!(none.contains("no pictures in this folder"), "{none}");
    let nothing = load(&dir.path().join("nothing"), [1, 8, 8]).unwrap_err().to_string();
    assert!(nothing.contains("no such file or folder; look for a typing error"), "{nothing}");

    // A header, and nothing behind it.
    let png = |width: u32, height: u32| {
        let mut header = vec![0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13];
        let chunk = [b"IHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&chunk);
        let rest = [0, 0, 0, 0, b'I', b'D', b'A', b'T', 0x35, 0xaf, 0x06, 0x1e];
        header.extend([&chunk[..], &crc.sum().to_be_bytes(), &rest].concat());
        header
    };
    fs::write(dir.path().join("huge.png"), png(60_000, 60_000)).unwrap();
    for bomb in [png(60_000, 60_000), png(30_000, 30_000), png(10_000, 10_000)] {
        let huge = decode_picture("bomb", &bomb, [1, 8, 8]).unwrap_err().to_string();
        assert!(huge.contains("32768 pixels a side or 256 MiB"), "{huge}");
    }
    for side in [0, 9] {
        let gif = [b"GIF89a".as_slice(), &[side, 0, 0, 0, 0, 0, 0, b',', 0, 0, 0, 0, side, 0, 0, 0, 0, 2, 0, b';']];
        let none = decode_picture("none.gif", &gif.concat(), [1, 8, 8]).unwrap_err().to_string();
        assert!(none.starts_with("cannot open the picture: ") && !none.contains('\n'), "{none}");
        let none = decode_picture("none.png", &png(side.into(), 0), [1, 8, 8]).unwrap_err().to_string();
        assert!(none.starts_with("cannot open the picture: ") && !none.contains('\n'), "{none}");
    }

    let all = load(dir.path(), [1, 8, 8]).unwrap_err().to_string();
    assert!(all.contains("nothing in this folder can be read") && all.contains("huge.png"), "{all}");
    let folder = load_picture(dir.path(), [1, 8, 8]).unwrap_err().to_string();
    assert!(folder.contains("it is a folder"), "{folder}");
    let foreign = decode_picture("foreign", b"GIF89a", [1, 8, 8]).unwrap_err().to_string();
    assert!(foreign.starts_with("cannot open the picture: ") && foreign.ends_with("(foreign)"), "{foreign}");
}

#[test]
fn large_pictures_are_read_among_small_ones() {
    let dir = tempfile::tempdir().unwrap();
    // 36 MB unpacked: past what is decoded beside others
    RgbImage::from_pixel(4000, 3000, Rgb([50; 3])).save(dir.path().join("b.png")).unwrap();
    for (name, v) in [("a.png", 1), ("c.png", 3)] {
        GrayImage::from_pixel(4, 4, Luma([v])).save(dir.path().join(name)).unwrap();
    }
    let data = load(dir.path(), [1, 1, 1]).unwrap();
    assert_eq!((data.pixels, data.skipped.len()), (vec![1, 50, 3], 0));
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_devices_are_refused_before_they_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, Path::new("/dev/zero")] {
        let picture = load_picture(path, [1, 8, 8]).unwrap_err().to_string();
        assert!(picture.contains("not a regular file"), "{picture}");
        let data = load(path, [1, 8, 8]).unwrap_err().to_string();
        assert!(data.contains("neither a file nor a folder"), "{data}");
    }
    assert!(load(dir.path(), [1, 8, 8]).unwrap_err().to_string().contains("no pictures in this folder"));
    // a file that is written takes the place of another, but never of a pipe
    let refused = ddpm_film::export::files::save_atomically(&pipe, |_| Ok(())).unwrap_err().to_string();
    assert!(refused.contains("not a regular file"), "{refused}");
    assert!(!pipe.is_file() && pipe.exists());
}

#[test]
fn the_bundled_photos_decode_to_grey_and_colour() {
    assert_eq!(photos().iter().map(|p| p.0).collect::<Vec<_>>(), ["astronaut", "chelsea", "coffee", "rocket"]);
    for (name, bytes) in photos() {
        for shape in [[1, 28, 28], [3, 32, 32]] {
            let picture = decode_picture(name, bytes, shape).unwrap();
            assert_eq!((picture.n, picture.shape()), (1, shape));
            let low = picture.data.iter().copied().fold(f32::MAX, f32::min);
            let high = picture.data.iter().copied().fold(f32::MIN, f32::max);
            assert!(low >= -1.0 && high <= 1.0 && high - low > 1.0, "{name}: {low} to {high}");
        }
    }
}

#[test]
fn sources_parse() {
    assert_eq!(Source::parse("mnist"), Source::Mnist);
    assert_eq!(Source::parse("./mnist"), Source::Path("./mnist".into()));
    assert_eq!(Source::parse("mnist").to_string(), "mnist");
    assert_eq!(Source::parse("a;;b"), Source::Path("a;b".into()));
    assert_eq!(Source::parse("a b "), Source::Path("a b ".into()));
    let several = Source::parse("mnist; ./a;;b ;c;");
    let places = ["./a;b", "c"].map(|path| Source::Path(path.into()));
    assert_eq!(several, Source::Several([Source::Mnist].into_iter().chain(places).collect()));
    assert_eq!(Source::parse(&several.to_string()), several);
    assert_eq!(Source::parse(&Source::join(["x;y"])), Source::Path("x;y".into()));
    let e = Dataset::load(&Source::parse("; "), [1, 8, 8], &|_, _| true).unwrap_err();
    assert_eq!(e.kind, Kind::Usage);
}

#[test]
fn pictures_that_memory_could_not_hold_are_refused_before_any_is_decoded() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name).with_extension("png"), b"never looked at").unwrap();
    }
    // 768 MiB each
    let e = load(dir.path(), [3, 16_384, 16_384]).unwrap_err().to_string();
    let says = "cannot read the data set: it holds more than 2 pictures, and at most 2 GiB of pixels are kept in memory; \
                give a smaller part of it, or choose a preset with smaller pictures (";
    assert!(e.starts_with(says), "{e}");
}
