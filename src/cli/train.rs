//! `ddpm-film train`.

use super::Machine;
use super::session::{Session, progress_bar};
use crate::checkpoint;
use crate::engine::{Changes, Command, Event, Kind, Metrics, Result, RunConfig, Source, TrainRequest};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(super) struct TrainArgs {
    /// Network: digits16, mnist28, color32 or cifar10
    #[arg(long, default_value = "mnist28")]
    preset: String,
    /// "mnist", an IDX file or folder (plain or .gz), CIFAR-10 or CIFAR-100 batches (.bin), or a folder of images; again for
    /// more of them
    #[arg(long, default_value = "mnist")]
    data: Vec<String>,
    /// Noise schedule: linear (Ho et al. 2020), scaled_linear, squaredcos_cap_v2 (the cosine of Nichol & Dhariwal 2021) or
    /// sigmoid
    #[arg(long, value_name = "NAME", default_value_t = RunConfig::default().beta_schedule)]
    beta_schedule: String,
    /// What the network predicts: epsilon (Ho et al. 2020) or v_prediction (Salimans & Ho 2022)
    #[arg(long, value_name = "NAME", default_value_t = RunConfig::default().prediction_type)]
    prediction_type: String,
    /// Mirror images at random, left and right [default: on for pictures, off for digits]
    #[arg(long, value_name = "on|off", value_parser = clap::builder::BoolishValueParser::new())]
    flip: Option<bool>,
    /// Optimiser steps in all [default: 20000; with --resume that of the run]
    #[arg(long)]
    steps: Option<u64>,
    /// Images per step
    #[arg(long, default_value_t = RunConfig::default().batch)]
    batch: usize,
    /// The same seed and settings give the same bytes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Adam's learning rate [default: 0.0002; with --resume that of the run]; another one is noted in the run's curves
    #[arg(long)]
    lr: Option<f64>,
    /// Steps of linear warm-up of the learning rate
    #[arg(long, default_value_t = RunConfig::default().warmup)]
    warmup: u64,
    /// Steps at the end over which the learning rate falls linearly to zero
    #[arg(long, default_value_t = RunConfig::default().decay)]
    decay: u64,
    /// Decay of the moving average of the weights [default: 0.9999; with --resume that of the run]
    #[arg(long)]
    ema: Option<f64>,
    /// Folder for the model, saved at the start, every two minutes and at the end; a new run needs a folder without one
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Save every so many steps, too
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    save_every: Option<u64>,
    /// Samples into the run's event file every so many steps [default: 0 for none; with --resume as before]
    #[arg(long, value_name = "STEPS")]
    preview_every: Option<u64>,
    /// Go on from the checkpoint in --out; ends with the same bytes as a run that never stopped
    #[arg(long)]
    resume: bool,
}

pub(super) fn run(args: &TrainArgs, machine: &Machine) -> Result<()> {
    let usual = RunConfig::default();
    let of_the_run = args.resume.then(|| steps_of(&args.out)).flatten();
    let config = RunConfig {
        preset: args.preset.clone(),
        data: Source::join(args.data.iter().map(String::as_str)),
        beta_schedule: args.beta_schedule.clone(),
        prediction_type: args.prediction_type.clone(),
        flip: args.flip,
        seed: args.seed,
        steps: args.steps.or(of_the_run).unwrap_or(usual.steps),
        batch: args.batch,
        learning_rate: args.lr.unwrap_or(usual.learning_rate),
        warmup: args.warmup,
        decay: args.decay,
        ema_decay: args.ema.unwrap_or(usual.ema_decay),
        preview_every: args.preview_every.unwrap_or(0),
        ..usual
    };
    config.validate()?;
    let session = Session::start(machine, None)?;
    let bar = progress_bar(config.steps, "steps");
    let begun = Instant::now();
    let mut last = None::<Arc<Metrics>>;
    let mut logged = Instant::now();
    let changes = Changes { learning_rate: args.lr, ema_decay: args.ema, preview_every: args.preview_every };
    let resume = args.resume.then_some(changes);
    let request =
        TrainRequest { config, out: Some(args.out.clone()), resume, save_every: args.save_every, preview_share: None };
    let result = session.drive(
        |job| Command::Train(job, Box::new(request)),
        |event| match event {
            Event::Ready { device } => bar.println(format!("training on {device}")),
            Event::Progress { done, total, .. } => bar.set_message(format!("reading the data: {done} of {total}")),
            Event::Metrics(_, m) => {
                bar.set_length(m.total);
                bar.set_position(m.step);
                bar.set_message(words(&m));
                if bar.is_hidden() && logged.elapsed() > Duration::from_secs(30) {
                    log::info!("step {} of {}, {}", m.step, m.total, words(&m));
                    logged = Instant::now();
                }
                last = Some(m);
            }
            _ => {}
        },
    );
    bar.finish_and_clear();
    let saved = result.as_ref().err().is_none_or(|e| e.kind == Kind::Cancelled);
    let said = last.map_or(Ok(()), |m| {
        let loss = |loss| format!(", loss {loss:.5} (mean of the last {} steps)", m.step.min(500));
        say!(
            "step {} of {} after {:.1} s{}{}",
            m.step,
            m.total,
            begun.elapsed().as_secs_f64(),
            m.history.mean_loss(500).map_or_else(String::new, loss),
            if saved { format!(", saved in {}", args.out.display()) } else { String::new() }
        );
        Ok(())
    });
    result.and(said)
}

/// Steps in all of the run in that folder; what is wrong with it is said when the run goes on.
fn steps_of(dir: &Path) -> Option<u64> {
    checkpoint::read_state(dir).ok()?["run"]["steps"].as_u64()
}

fn words(m: &Metrics) -> String {
    let loss = m.history.mean_loss(100).map_or_else(String::new, |loss| format!("loss {loss:.4}  "));
    let left = m.seconds_left.round() as u64;
    format!("{loss}{:.0} images/s  {}:{:02} min left", m.images_per_s, left / 60, left % 60)
}
