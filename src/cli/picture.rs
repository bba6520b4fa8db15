//! `ddpm-film sample` and `ddpm-film film`.

use super::session::{Session, progress_bar};
use super::{Machine, ModelArg, SamplerArg, WeightsArg};
use crate::diffusion::Images;
use crate::engine::{
    Command, Error, Event, ForwardRequest, ForwardSource, Predictor, Provenance, Quantity, Result, SampleRequest,
    SamplerKind, Trajectory, Variance, Which,
};
use crate::export::files::check_file;
use crate::export::{self, FilmFrame, FilmOptions};
use clap::Args;
use std::path::{Path, PathBuf};

/// Pictures computed at a time; which ones are together changes none of them.
const CHUNK: usize = 64;

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
    /// .gif (animated) or .png (strip)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl SamplingArgs {
    fn request(&self, first: usize, n: usize, every_frame: bool) -> SampleRequest {
        let (sampler, steps) = match self.sampler {
            SamplerArg::Ddpm => (SamplerKind::Ddpm { variance: Variance::FixedSmall }, self.steps),
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
            clip: true,
            from: None,
            every_frame,
        }
    }

    /// Seed and settings as they travel inside a file.
    fn provenance(&self, p: &Provenance) -> String {
        let step = p.step.map_or_else(|| "unknown step".to_owned(), |s| format!("step {s}"));
        let weights = if p.predictor == Predictor::Ema { "EMA" } else { "raw" };
        format!(
            "ddpm-film; model {}, {step}, {weights}; {} with {} steps; seed {}",
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

fn check_out(path: &Path, allowed: [&str; 2]) -> Result<()> {
    if allowed.contains(&extension(path).as_str()) {
        return Ok(());
    }
    let hint = format!("name a file that ends in .{} or .{}", allowed[0], allowed[1]);
    Err(Error::usage("cannot write that kind of file", "its ending says no format that we write", hint).at(path))
}

pub(super) fn sample(args: &SampleArgs, machine: &Machine) -> Result<()> {
    check_out(&args.out, ["npz", "png"])?;
    if args.n == 0 {
        return Err(Error::usage("cannot sample", "the number of pictures is 0", "ask for at least 1"));
    }
    check_file(&args.out)?;
    let session = Session::start(machine, Some(args.sampling.model.origin()))?;
    let mut all: Option<Images> = None;
    let mut whose = String::new();
    let bar = progress_bar(args.n as u64, "pictures");
    for first in (0..args.n).step_by(CHUNK) {
        let n = CHUNK.min(args.n - first);
        session.drive(
            |job| Command::Sample(job, args.sampling.request(first, n, false)),
            |event| match event {
                Event::SampleStarted(_, _, p) => whose = args.sampling.provenance(&p),
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
    }
    bar.finish_and_clear();
    let images = all.ok_or_else(|| Error::new("cannot sample", "no picture arrived", "report this"))?;
    if extension(&args.out) == "npz" {
        export::write_npz(&args.out, &images)?;
    } else {
        export::write_png(&args.out, &export::grid(&images, columns(images.n), 2, 2), &[("Comment", &whose)])?;
    }
    println!("{} pictures in {} ({whose})", images.n, args.out.display());
    Ok(())
}

pub(super) fn film(args: &FilmArgs, machine: &Machine) -> Result<()> {
    check_out(&args.out, ["gif", "png"])?;
    check_file(&args.out)?;
    let session = Session::start(machine, Some(args.sampling.model.origin()))?;
    let mut forward = None;
    let (seed, n) = (args.sampling.seed, args.n);
    let request = ForwardRequest { which: Which::Loaded, schedule: None, seed, n, source: ForwardSource::Data };
    session.drive(
        |job| Command::Forward(job, request),
        |event| {
            if let Event::Forward(_, film, _) = event {
                forward = Some(film);
            }
        },
    )?;
    let mut reverse: Option<Box<Trajectory>> = None;
    let mut whose = String::new();
    let bar = progress_bar(0, "network calls");
    session.drive(
        |job| Command::Sample(job, args.sampling.request(0, args.n, true)),
        |event| match event {
            Event::SampleStarted(_, film, p) => {
                whose = args.sampling.provenance(&p);
                reverse = Some(film);
            }
            Event::Frame(_, frame) => {
                if let Some(film) = &mut reverse {
                    film.insert(frame);
                }
            }
            Event::Progress { done, total, .. } => {
                bar.set_length(total);
                bar.set_position(done);
            }
            _ => {}
        },
    )?;
    bar.finish_and_clear();
    let (Some(forward), Some(reverse)) = (forward, reverse) else {
        return Err(Error::new("cannot write the film", "no frame arrived", "report this"));
    };
    let gif = extension(&args.out) == "gif";
    let shown = if gif { 100 } else { 10 };
    let view = |film: &Trajectory, doses| film.view(film.at(doses)?, Quantity::State);
    let total = forward.steps();
    let frames: Vec<FilmFrame> = (0..=shown)
        .rev()
        .filter_map(|k| {
            let doses = total * k / shown;
            Some(FilmFrame { t: doses, forward: view(&forward, doses)?, reverse: view(&reverse, doses)? })
        })
        .collect();
    let scale = (112 / forward.shape()[1]).max(1);
    let total_frames = frames.len();
    if gif {
        let options =
            FilmOptions { timesteps: total, columns: columns(args.n), scale, delay_ms: 60, comment: whose.clone() };
        export::write_film_gif(&args.out, frames.into_iter(), &options, &|_, _| true)?;
    } else {
        export::write_film_strip(&args.out, &frames, scale.min(2), &[("Comment", &whose)])?;
    }
    println!("{} frames in {} ({whose})", total_frames, args.out.display());
    Ok(())
}
