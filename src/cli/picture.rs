//! `ddpm-film sample` and `ddpm-film film`.

use super::session::{ModelSession, progress_bar};
use super::{Machine, ModelArg, SamplerArg, WeightsArg};
use crate::diffusion::Images;
use crate::engine::{
    Command, Container, Error, Event, ExportRequest, Format, ForwardRequest, ForwardSource, Maker, ModelInfo,
    Predictor, Provenance, Quantity, Recipe, Result, SampleRequest, SamplerKind, Trajectory, Variance, Which,
};
use crate::export;
use crate::export::files::check_file;
use clap::Args;
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};

/// Pictures computed at a time; which ones are together changes none of them.
const CHUNK: usize = 64;
/// Values of all pictures of one file: 2 GiB.
const MOST_VALUES: usize = 1 << 29;
/// Size of a pixel in a grid, and pixels between its pictures.
const GRID_SCALE: usize = 2;
const GRID_GAP: usize = 2;

#[derive(Args, Debug)]
struct SamplingArgs {
    #[command(flatten)]
    model: ModelArg,
    /// The same seed gives the same pictures
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The rule of a reverse step
    #[arg(long, value_enum, default_value_t = SamplerArg::Ddpm)]
    sampler: SamplerArg,
    /// Reverse steps [default: all for ddpm, 50 for ddim]
    #[arg(long)]
    steps: Option<usize>,
    /// Which copy of the weights
    #[arg(long, value_enum, default_value_t = WeightsArg::Ema)]
    weights: WeightsArg,
}

#[derive(Args, Debug)]
pub(super) struct SampleArgs {
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Number of pictures
    #[arg(long, default_value_t = 16)]
    n: usize,
    /// .npz (arr_0, uint8 [N,H,W,C]) or .png (a grid)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct FilmArgs {
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Number of pictures on either side
    #[arg(long, default_value_t = 4)]
    n: usize,
    /// .gif or .webp (animated), or .png (strip)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl SamplingArgs {
    /// With σ² and clipping as the model's scheduler has them.
    fn request(&self, model: &ModelInfo, first: usize, n: usize, every_frame: bool) -> SampleRequest {
        let (sampler, steps) = match self.sampler {
            SamplerArg::Ddpm => (SamplerKind::Ddpm { variance: model.variance }, self.steps),
            SamplerArg::Ddim => (SamplerKind::Ddim { eta: 0.0 }, Some(self.steps.unwrap_or(50))),
        };
        SampleRequest {
            which: Which::Loaded,
            predictor: match self.weights {
                WeightsArg::Ema => Predictor::Ema,
                WeightsArg::Raw => Predictor::Raw,
            },
            seed: self.seed,
            first: first as u64,
            n,
            sampler,
            steps,
            clip: model.clip,
            from: None,
            every_frame,
        }
    }

    /// Seed and settings as they travel inside a file.
    fn provenance(&self, model: &ModelInfo, p: &Provenance) -> String {
        let step = p.step.map_or_else(|| "unknown step".to_owned(), |s| format!("step {s}"));
        let weights = if p.weights().is_empty() { "its only copy of the weights" } else { p.weights() };
        let large = matches!(self.sampler, SamplerArg::Ddpm) && model.variance == Variance::FixedLarge;
        let large = if large { ", σ² = β" } else { "" };
        let clip = if model.clip { "" } else { ", without clipping" };
        format!(
            "ddpm-film; model {}, {step}, {weights}; {} with {} steps{large}{clip}; seed {}",
            p.model, p.sampler, p.calls, self.seed
        )
    }
}

/// Columns of a grid that is nearly square.
fn columns(n: usize) -> usize {
    (n as f64).sqrt().ceil() as usize
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn check_out(path: &Path, allowed: &[&str]) -> Result<()> {
    if allowed.contains(&extension(path).as_str()) {
        return Ok(());
    }
    let hint = format!("name a file that ends in .{}", allowed.join(" or ."));
    Err(Error::usage("cannot write that kind of file", "its ending says no format that we write", hint).at(path))
}

/// All pictures are held until they are written, and so is the canvas of a grid.
fn check_total(n: usize, some: &Images, is_grid: bool) -> Result<()> {
    let [_, h, w] = some.shape();
    let canvas = if is_grid { 3 * (GRID_SCALE * h + GRID_GAP) * (GRID_SCALE * w + GRID_GAP) / 4 } else { 0 };
    if n.checked_mul(some.len_one() + canvas).is_some_and(|values| values <= MOST_VALUES) {
        return Ok(());
    }
    let why = format!("{n} pictures of {w}x{h} are past {} GiB in memory", MOST_VALUES >> 28);
    Err(Error::usage("cannot sample", why, "ask for fewer at a time, with other seeds"))
}

pub(super) fn sample(args: &SampleArgs, machine: &Machine) -> Result<()> {
    check_out(&args.out, &["npz", "png"])?;
    if args.n == 0 {
        return Err(Error::usage("cannot sample", "the number of pictures is 0", "ask for at least 1"));
    }
    check_file(&args.out)?;
    let is_grid = extension(&args.out) == "png";
    let session = ModelSession::start(machine, args.sampling.model.origin()?)?;
    let mut all: Option<Images> = None;
    let mut whose = String::new();
    let bar = progress_bar(args.n as u64, "pictures");
    for first in (0..args.n).step_by(CHUNK) {
        let n = CHUNK.min(args.n - first);
        session.drive(
            |job| Command::Sample(job, args.sampling.request(&session.model, first, n, false)),
            |event| match event {
                Event::SampleStarted(_, _, p) => whose = args.sampling.provenance(&session.model, &p),
                Event::Progress { done, total, .. } => {
                    bar.set_position((first as u64) + (n as u64) * done / total.max(1));
                }
                Event::Sampled(_, images) => match &mut all {
                    None => all = Some((*images).clone()),
                    Some(all) => {
                        all.n += images.n;
                        all.data.extend_from_slice(&images.data);
                    }
                },
                _ => {}
            },
        )?;
        if let Some(images) = &all {
            // known after the first pictures, not after all
            check_total(args.n, images, is_grid)?;
        }
    }
    bar.finish_and_clear();
    let images = all.ok_or_else(|| Error::new("cannot sample", "no picture arrived", "report this"))?;
    if is_grid {
        let grid = export::grid(&images, columns(images.n), GRID_SCALE, GRID_GAP);
        export::write_png(&args.out, &grid, &[("Comment", &whose)])?;
    } else {
        export::write_npz(&args.out, &images)?;
    }
    say!("{} pictures in {} ({whose})", images.n, args.out.display());
    Ok(())
}

pub(super) fn film(args: &FilmArgs, machine: &Machine) -> Result<()> {
    check_out(&args.out, &["gif", "webp", "png"])?;
    check_file(&args.out)?;
    let session = ModelSession::start(machine, args.sampling.model.origin()?)?;
    let (seed, n) = (args.sampling.seed, args.n);
    let forward = ForwardRequest { which: Which::Loaded, schedule: None, seed, n, source: ForwardSource::Data };
    let (mut drowned, mut made) = (None, None);
    session.drive(
        |job| Command::Forward(job, forward.clone()),
        |event| {
            if let Event::Forward(job, film, _) = event {
                drowned = Some((job, Trajectory::clone(&film)));
            }
        },
    )?;
    let bar = progress_bar(0, "network calls");
    let follow = |bar: &ProgressBar, done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    session.drive(
        |job| Command::Sample(job, args.sampling.request(&session.model, 0, n, true)),
        |event| match event {
            Event::SampleStarted(job, film, by) => made = Some((job, *film, by)),
            Event::Frame(_, frame) => {
                if let Some((_, film, _)) = &mut made {
                    film.insert(frame);
                }
            }
            Event::Progress { done, total, .. } => follow(&bar, done, total),
            _ => {}
        },
    )?;
    bar.finish_and_clear();
    let (Some((_, shape)), Some((job, film, by))) = (drowned.as_ref().map(|(job, film)| (job, film.shape())), made)
    else {
        return Err(Error::new("cannot write the film", "no frame arrived", "report this"));
    };
    let (format, shown) = match extension(&args.out).as_str() {
        "gif" => (Format::Movie(Container::Gif), 100),
        "webp" => (Format::Movie(Container::Webp), 100),
        _ => (Format::Strip, 10),
    };
    let moments: Vec<usize> = (0..=shown).rev().map(|k| film.steps() * k / shown).collect();
    let (frames, whose) = (moments.len(), args.sampling.provenance(&session.model, &by));
    let scale = (112 / shape[1]).max(1);
    let request = ExportRequest {
        path: args.out.clone(),
        format,
        forward: drowned,
        reverse: Some((job, film)),
        quantity: Quantity::State,
        moments,
        scale: if format == Format::Strip { scale.min(2) } else { scale },
        delay_ms: 60,
        captions: true,
        left: Vec::new(),
        by: Maker::of(&by),
        recipe: Recipe {
            model: by.model,
            hash: by.hash,
            step: by.step,
            sample: args.sampling.request(&session.model, 0, n, true),
            forks: Vec::new(),
            forward,
        },
    };
    let bar = progress_bar(frames as u64, "frames");
    session.drive(
        |job| Command::Export(job, Box::new(request)),
        |event| {
            if let Event::Progress { done, total, .. } = event {
                follow(&bar, done, total);
            }
        },
    )?;
    bar.finish_and_clear();
    say!("{frames} frames in {} ({whose})", args.out.display());
    Ok(())
}
