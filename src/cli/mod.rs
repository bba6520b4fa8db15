//! The command line: what the window does, for scripts and machines with no display.
/// A line on standard output; leaves the function with an error where it cannot be written.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::say(format_args!($($text)*))? };
}

mod bench;
mod inspect;
mod picture;
mod session;
mod train;
mod watch;

use crate::engine::{DeviceChoice, Error, Options, Origin, Result, hub};
use crate::ui;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

/// Watch a denoising diffusion model: a photo drowns in noise, a network learns to predict each dose, and static becomes
/// an image that never existed. Without a command, opens the window.
#[derive(Debug, Parser)]
#[command(name = "ddpm-film", version)]
pub struct Cli {
    #[command(flatten)]
    machine: Machine,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args, Debug)]
struct Machine {
    /// What computes: auto, cpu, cuda, cuda:N or metal
    #[arg(long, global = true, default_value = "auto")]
    device: DeviceChoice,
    /// CPU threads; 0 for one per core
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    threads: u16,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network, with a progress bar; Ctrl-C saves and stops
    Train(train::TrainArgs),
    /// Follow a run from outside, in the window
    Watch(watch::WatchArgs),
    /// Make pictures that never existed
    Sample(picture::SampleArgs),
    /// Write the forward and the reverse film side by side
    Film(picture::FilmArgs),
    /// Predict the noise in given pictures at given timesteps
    Predict(inspect::PredictArgs),
    /// Say what a model folder holds
    Info(inspect::InfoArgs),
    /// Measure speed, accuracy and memory on this machine, and beside a baseline
    Bench(bench::BenchArgs),
}

/// Which model; the shipped one unless another is named.
#[derive(Args, Debug)]
struct ModelArg {
    /// Model folder in diffusers layout, or hf:owner/name of the Hugging Face hub [default: the shipped mnist28]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

impl ModelArg {
    /// Fetches a model of the hub that is not here yet, with a progress bar.
    fn origin(&self) -> Result<Origin> {
        let Some(path) = &self.model else { return Ok(Origin::Shipped) };
        let Some(name) = hub::name_in(path) else { return Ok(Origin::Folder(path.clone())) };
        let bar = session::progress_bar(0, "bytes");
        let folder = hub::Hub::from_env()?.fetch(name, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            true
        });
        bar.finish_and_clear();
        folder.map(Origin::Folder)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WeightsArg {
    /// The moving average
    Ema,
    /// As the optimiser left them
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SamplerArg {
    /// Ancestral sampling, Ho et al. 2020
    Ddpm,
    /// Song et al. 2020 with eta 0
    Ddim,
}

impl Machine {
    fn options(&self, model: Option<Origin>) -> Options {
        Options { device: self.device, threads: usize::from(self.threads), model }
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// As the command says; the error's kind gives the exit code.
pub fn run(cli: &Cli) -> Result<()> {
    let machine = &cli.machine;
    match &cli.command {
        None => window(machine, None),
        Some(Command::Watch(args)) => watch::run(args, machine),
        Some(Command::Train(args)) => train::run(args, machine),
        Some(Command::Sample(args)) => picture::sample(args, machine),
        Some(Command::Film(args)) => picture::film(args, machine),
        Some(Command::Predict(args)) => inspect::predict(args, machine),
        Some(Command::Info(args)) => inspect::info(args),
        Some(Command::Bench(args)) => bench::run(args, machine),
    }
}

fn window(machine: &Machine, watch: Option<PathBuf>) -> Result<()> {
    ui::run(machine.options(Some(Origin::Shipped)), watch, None, |end| {
        if let Err(e) = ctrlc::set_handler(end) {
            log::warn!("cannot watch for Ctrl-C: {e}");
        }
    })
}

fn say(text: std::fmt::Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Error::new("cannot go on", "nobody reads what this prints", "let it print to a file"),
        _ => Error::new("cannot print the answer", e.to_string(), "let it print to another file"),
    })
}
