//! `ddpm-film bench`: how fast and how exact this machine computes, beside a baseline if one is named.

mod against;
mod film;
mod kernels;
mod layers;
mod memory;
mod network;
mod report;
mod window;

use super::Machine;
use crate::diffusion::schedule::Schedule;
use crate::engine::{self, Error, Result, RunConfig};
use against::Comparison;
use clap::{Args, ValueEnum};
use network::Network;
use report::Report;
use std::sync::Arc;

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// Network preset
    #[arg(long, visible_alias = "preset", default_value = "mnist28")]
    config: String,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "train,forward")]
    what: Vec<What>,
    /// Images per training step [default: 64; 8 for cifar10]
    #[arg(long)]
    batch: Option<usize>,
    /// Measured repetitions a round, after two unmeasured ones
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// A command run in turn with our training and forward passes; it prints lines like ours or like our --json
    #[arg(long, value_name = "CMD")]
    against: Option<String>,
    /// Turns; at least 2 for paused [default: 1; 3 with --against]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Opens the window, measures it from inside for --steps seconds, and closes it
    #[arg(long, hide = true, value_enum)]
    probe: Option<window::Purpose>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Each layer of the network: GFLOP/s of convolutions, ns a number of others, and the error against f64
    Kernels,
    /// Training steps, and their peak memory
    Train,
    /// Network calls without gradients, batch 1 and 16
    Forward,
    /// Whole reverse films, batch 1 and 16
    Film,
    /// Peak memory of both films of 64 pictures
    Memory,
    /// From the start of the program to the first picture in its window
    Start,
    /// Frames of the window and its slider, for --steps seconds each, without and with training
    Window,
    /// Training speed without a window and behind one whose film is paused, for --steps seconds each
    Paused,
}

pub(super) fn run(args: &BenchArgs, machine: &Machine) -> Result<()> {
    if let Some(purpose) = args.probe {
        return window::probe(purpose, args.steps, machine);
    }
    let batch = args.batch.unwrap_or(if args.config == "cifar10" { 8 } else { 64 });
    let config = RunConfig { preset: args.config.clone(), batch, ..RunConfig::default() };
    let plan = config.validate()?;
    let wants = |what| args.what.contains(&what);
    if args.against.is_some() && !wants(What::Train) && !wants(What::Forward) {
        let why = "nothing of what is measured can be compared";
        return Err(Error::usage("cannot run the baseline", why, "add train or forward to --what"));
    }
    if wants(What::Memory) && args.what.iter().any(|what| *what != What::Memory) {
        let why = "what is measured before leaves memory behind";
        return Err(Error::usage("cannot measure the films' memory", why, "ask for --what memory by itself"));
    }
    let window = [What::Start, What::Window, What::Paused].into_iter().any(wants);
    let shipped = RunConfig::default().preset;
    if window && args.config != shipped {
        let why = format!("it shows and trains {shipped}");
        return Err(Error::usage("cannot measure the window", why, "leave --config out"));
    }
    let (compute, device) = engine::open_device(machine.device, usize::from(machine.threads), false)?;
    let compute = Arc::new(compute);
    let steps = usize::from(args.steps);
    let report = Report::new(args.json, &args.config, &compute);
    report.machine(&device)?;
    let rounds = args.rounds.unwrap_or(if args.against.is_some() { 3 } else { 1 });
    // first, while the process is small: the peak of its memory is measured too
    if wants(What::Train) || wants(What::Forward) {
        let mut network = Network::new(plan.clone(), Arc::clone(&compute))?;
        let mut comparison = args.against.as_deref().map(|cmd| Comparison::new(cmd, machine.threads));
        let mut failed = None;
        for _ in 0..rounds {
            if wants(What::Train) {
                network.train(steps)?;
            }
            if wants(What::Forward) {
                network.forward(steps.max(3))?;
            }
            failed = comparison.as_mut().and_then(|comparison| comparison.round().err());
            if failed.is_some() {
                break;
            }
        }
        // ours is there whatever became of the baseline
        network.report(&report)?;
        match (failed, comparison) {
            (Some(e), _) => return Err(e),
            (None, Some(comparison)) => comparison.report(&network, &report)?,
            (None, None) => {}
        }
    }
    if wants(What::Kernels) {
        kernels::run(&plan.model, &compute, steps, &report)?;
        layers::run(&plan.model, &compute, steps, &report)?;
    }
    if wants(What::Film) {
        film::run(&plan.model, &Schedule::new(&plan.schedule)?, &compute, rounds, &report)?;
    }
    if wants(What::Memory) {
        film::memory(&plan.model, &Schedule::new(&plan.schedule)?, &compute, &report)?;
    }
    if wants(What::Start) {
        window::start(args.steps, machine, &report)?;
    }
    if wants(What::Window) {
        window::frames(args.steps, machine, &report)?;
    }
    if wants(What::Paused) {
        window::paused(args.steps, rounds.max(2), machine, &report)?;
    }
    Ok(())
}
