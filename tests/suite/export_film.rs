//! Films written by the worker, decoded again and compared.

use ddpm_film::diffusion::Images;
use ddpm_film::engine::{
    Command, Container, DeviceChoice, Engine, Event, ExportRequest, Format, ForwardRequest, ForwardSource, Maker,
    Options, Outcome, Predictor, Quantity, Recipe, SampleRequest, SamplerKind, Schedule, ScheduleConfig, Trajectory,
    Variance, Which, ffmpeg,
};
use ddpm_film::export::grid;
use image::{AnimationDecoder as _, codecs::webp::WebPDecoder};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const STEPS: usize = 20;

fn film() -> Trajectory {
    let schedule = Schedule::new(&ScheduleConfig { steps: STEPS, beta_end: 0.2, ..Default::default() }).unwrap();
    let x_start = Images::new(4, [1, 6, 8], (0..192).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect());
    Trajectory::forward(Arc::new(schedule), &x_start, 5)
}

fn recipe() -> Recipe {
    let which = Which::Loaded;
    Recipe {
        model: "mnist28".into(),
        hash: "0123456789abcdef".into(),
        step: Some(6000),
        forks: Vec::new(),
        sample: SampleRequest {
            which,
            predictor: Predictor::Ema,
            seed: 3,
            first: 0,
            n: 4,
            sampler: SamplerKind::Ddpm { variance: Variance::FixedSmall },
            steps: Some(250),
            from: None,
            clip: true,
            every_frame: true,
        },
        forward: ForwardRequest {
            schedule: None,
            which,
            seed: 3,
            n: 4,
            source: ForwardSource::File("/a/very/long/name".repeat(30).into()),
        },
    }
}

fn request(path: PathBuf, format: Format) -> ExportRequest {
    ExportRequest {
        path,
        format,
        forward: Some((1, film())),
        reverse: Some((2, film())),
        quantity: Quantity::State,
        moments: (0..=STEPS).rev().step_by(5).collect(),
        scale: 2,
        delay_ms: 40,
        captions: false,
        left: Vec::new(),
        by: Maker::Model { step: None, weights: "EMA" },
        recipe: recipe(),
    }
}

fn engine() -> Engine {
    Engine::start(Options { device: DeviceChoice::Cpu, threads: 1, model: None }, || {}).unwrap()
}

fn write(request: ExportRequest) -> (Outcome, Option<Recipe>) {
    let engine = engine();
    let path = request.path.clone();
    engine.send(Command::Export(7, Box::new(request))).unwrap();
    engine.send(Command::ReadRecipe(8, PathBuf::from("/"))).unwrap();
    let mut outcome = None;
    let mut found = None;
    let mut asked = false;
    loop {
        match engine.wait(Duration::from_secs(60)).unwrap().expect("the worker answers") {
            Event::Finished(7, o) => {
                let done = o == Outcome::Done;
                outcome = Some(o);
                if !done {
                    break;
                }
                engine.send(Command::ReadRecipe(9, path.clone())).unwrap();
                asked = true;
            }
            Event::Recipe(9, _, recipe) => found = recipe.map(|r| *r),
            Event::Finished(9, _) if asked => break,
            _ => {}
        }
    }
    (outcome.unwrap(), found)
}

/// The pictures of a side at that moment, as they shall stand in a file.
fn expected(doses: usize) -> image::RgbImage {
    let film = film();
    grid(&film.view(film.at(doses).unwrap(), Quantity::State).unwrap(), 2, 2, 2)
}

fn compare(frame: &dyn Fn(u32, u32) -> [u8; 3], doses: usize) {
    let side = expected(doses);
    for (x, y, pixel) in side.enumerate_pixels() {
        assert_eq!(frame(x, y), pixel.0, "left at t = {doses}, {x}, {y}");
        assert_eq!(frame(x + side.width() + 8, y), pixel.0, "right at t = {doses}, {x}, {y}");
    }
}

#[test]
fn a_gif_shows_the_very_frames_and_holds_its_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.gif");
    assert_eq!(write(request(path.clone(), Format::Movie(Container::Gif))), (Outcome::Done, Some(recipe())));
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(std::fs::File::open(&path).unwrap()).unwrap();
    let width = u32::from(decoder.width());
    for doses in [20, 15, 10, 5, 0] {
        let frame = decoder.read_next_frame().unwrap().unwrap();
        let at = |x: u32, y: u32| frame.buffer[(y * width + x) as usize * 4..][..3].try_into().unwrap();
        compare(&at, doses);
    }
    assert!(decoder.read_next_frame().unwrap().is_none());
}

#[test]
fn an_animated_png_does_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.png");
    assert_eq!(write(request(path.clone(), Format::Movie(Container::Apng))), (Outcome::Done, Some(recipe())));
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let control = *reader.info().animation_control().unwrap();
    assert_eq!((control.num_frames, control.num_plays), (5, 0));
    let width = reader.info().width;
    let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
    for doses in [20, 15, 10, 5, 0] {
        reader.next_frame(&mut buffer).unwrap();
        let at = |x: u32, y: u32| buffer[(y * width + x) as usize * 3..][..3].try_into().unwrap();
        compare(&at, doses);
    }
}

#[test]
fn an_animated_webp_does_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.webp");
    assert_eq!(write(request(path.clone(), Format::Movie(Container::Webp))), (Outcome::Done, Some(recipe())));
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let decoder = WebPDecoder::new(file).unwrap();
    assert!(matches!(decoder.loop_count(), image::metadata::LoopCount::Infinite));
    let frames = decoder.into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), 5);
    for (frame, doses) in frames.iter().zip([20, 15, 10, 5, 0]) {
        assert_eq!(frame.delay().numer_denom_ms(), (40, 1));
        compare(&|x, y| frame.buffer().get_pixel(x, y).0[..3].try_into().unwrap(), doses);
    }
}

#[test]
fn strips_grids_and_tables_hold_their_recipe() {
    let dir = tempfile::tempdir().unwrap();
    for (name, format) in [("strip.png", Format::Strip), ("grid.png", Format::Grid), ("table.csv", Format::Csv)] {
        let path = dir.path().join(name);
        assert_eq!(write(request(path.clone(), format)), (Outcome::Done, Some(recipe())), "{name}");
    }
    let table = std::fs::read_to_string(dir.path().join("table.csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 5);
    assert_eq!(
        lines[1],
        "t,beta,alphas_cumprod,snr,data_mean,data_sd,reverse_mean,reverse_sd,reverse_by,c_x_t,c_xstart,c_eps,sigma"
    );
    let schedule = Arc::clone(film().schedule());
    for (line, doses) in lines[2..].iter().zip([20_usize, 15, 10, 5, 0]) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!((cells.len(), cells[0]), (13, doses.to_string().as_str()));
        let beta = doses.checked_sub(1).map(|t| schedule.betas[t].to_string());
        assert_eq!((cells[1], cells[8]), (beta.unwrap_or_default().as_str(), "model ema"));
        assert_eq!(cells[2].parse::<f64>().unwrap(), schedule.alpha_bar(doses));
    }
    let one = ExportRequest { forward: None, ..request(dir.path().join("one.png"), Format::Grid) };
    assert_eq!(write(one).0, Outcome::Done);
    let picture = image::open(dir.path().join("one.png")).unwrap().into_rgb8();
    assert_eq!(picture.width(), expected(0).width());
}

#[test]
fn captions_make_room_for_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let plain = request(dir.path().join("plain.png"), Format::Grid);
    let named = ExportRequest { captions: true, path: dir.path().join("named.png"), ..plain.clone() };
    write(plain);
    write(named);
    let open = |name: &str| image::open(dir.path().join(name)).unwrap().into_rgb8();
    let (plain, named) = (open("plain.png"), open("named.png"));
    let top = named.height() - plain.height();
    // two lines of seven pixels
    assert_eq!(top, 20);
    // the sides stand further apart where their captions are wider, eight pixels between them
    let side = expected(0).width();
    let second = (named.width() + 8) / 2;
    assert!(second >= side + 8, "{second}");
    for (from, to) in [(0, 0), (second, side + 8)] {
        let part = |image, x, y| image::imageops::crop_imm(image, x, y, side, plain.height() - 6).to_image();
        assert!(part(&named, from, top) == part(&plain, to, 0), "the side at {from}");
    }
    let ink = named.enumerate_pixels().filter(|(_, y, p)| *y < top && p.0 == [240; 3]).count();
    assert!(ink > 100, "{ink}");
    // each caption begins two pixels into its side
    let column = |x: u32| (0..top).any(|y| named.get_pixel(x, y).0 == [240; 3]);
    assert!(column(2) && !column(1) && column(second + 2) && !column(second + 1));
}

#[test]
fn a_cancelled_or_failed_export_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.gif");
    let engine = engine();
    let moments = (0..=STEPS).rev().cycle().take(5000).collect();
    let long = ExportRequest { moments, ..request(path, Format::Movie(Container::Gif)) };
    engine.send(Command::Export(1, Box::new(long))).unwrap();
    loop {
        match engine.wait(Duration::from_secs(60)).unwrap().expect("the worker answers") {
            // those that come while the channel is full are left out
            Event::Progress { job: 1, done, .. } if done >= 2 => engine.send(Command::Cancel(1)).unwrap(),
            Event::Finished(1, outcome) => {
                assert_eq!(outcome, Outcome::Cancelled);
                break;
            }
            _ => {}
        }
    }
    let nowhere = request(Path::new("/no/such/folder/film.gif").into(), Format::Movie(Container::Gif));
    assert!(matches!(write(nowhere).0, Outcome::Failed(e) if e.to_string().contains("the folder does not exist")));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn mp4_needs_ffmpeg_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, found) = write(request(dir.path().join("film.mp4"), Format::Movie(Container::Mp4)));
    if ffmpeg().is_some() {
        assert_eq!((outcome, found), (Outcome::Done, Some(recipe())));
    } else {
        assert!(matches!(outcome, Outcome::Failed(e) if e.to_string().contains("no ffmpeg was found")));
    }
}
