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
    /// Network: digits16, mnist28, color32 or cifar10 [default: mnist28]
    #[arg(long)]
    preset: Option<String>,
    /// "mnist", an IDX file or folder (plain or .gz), CIFAR-10 or CIFAR-100 batches (.bin), or a folder of images; again for
    /// more of them [default: mnist]
    #[arg(long)]
    data: Vec<String>,
    /// Noise schedule: linear (Ho et al. 2020), scaled_linear, squaredcos_cap_v2 (the cosine of Nichol & Dhariwal 2021) or
    /// sigmoid [default: linear]
    #[arg(long, value_name = "NAME")]
    beta_schedule: Option<String>,
    /// What the network predicts: epsilon (Ho et al. 2020) or v_prediction (Salimans & Ho 2022) [default: epsilon]
    #[arg(long, value_name = "NAME")]
    prediction_type: Option<String>,
    /// Mirror images at random, left and right [default: on for pictures, off for digits]
    #[arg(long, value_name = "on|off", hide_possible_values = true, value_parser = clap::builder::BoolishValueParser::new())]
    flip: Option<bool>,
    /// Optimiser steps in all [default: 20000]
    #[arg(long)]
    steps: Option<u64>,
    /// Images per step [default: 64]
    #[arg(long)]
    batch: Option<usize>,
    /// The same seed and settings give the same bytes [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// Adam's learning rate; another one at --resume is noted in the run's curves [default: 0.0002]
    #[arg(long)]
    lr: Option<f64>,
    /// Steps of linear warm-up of the learning rate [default: 500]
    #[arg(long)]
    warmup: Option<u64>,
    /// Steps at the end over which the learning rate falls linearly to zero [default: 0]
    #[arg(long)]
    decay: Option<u64>,
    /// Decay of the moving average of the weights [default: 0.9999]
    #[arg(long)]
    ema: Option<f64>,
    /// Folder for the model, saved at the start, every two minutes and at the end; a new run needs a folder without one
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Save every so many steps, too
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    save_every: Option<u64>,
    /// Samples into the run's event file every so many steps; 0 for none [default: 0]
    #[arg(long, value_name = "STEPS")]
    preview_every: Option<u64>,
    /// Go on from the checkpoint in --out, with its settings in place of the defaults; ends with the same bytes as a run that
    /// never stopped
    #[arg(long)]
    resume: bool,
}

impl TrainArgs {
    /// What was asked for; the rest is as in `usual`.
    fn config(&self, usual: RunConfig) -> RunConfig {
        RunConfig {
            preset: self.preset.clone().unwrap_or(usual.preset),
            data: if self.data.is_empty() { usual.data } else { Source::join(self.data.iter().map(String::as_str)) },
            beta_schedule: self.beta_schedule.clone().unwrap_or(usual.beta_schedule),
            prediction_type: self.prediction_type.clone().unwrap_or(usual.prediction_type),
            flip: self.flip.or(usual.flip),
            seed: self.seed.unwrap_or(usual.seed),
            steps: self.steps.unwrap_or(usual.steps),
            batch: self.batch.unwrap_or(usual.batch),
            learning_rate: self.lr.unwrap_or(usual.learning_rate),
            warmup: self.warmup.unwrap_or(usual.warmup),
            decay: self.decay.unwrap_or(usual.decay),
            ema_decay: self.ema.unwrap_or(usual.ema_decay),
            preview_every: self.preview_every.unwrap_or(usual.preview_every),
            ..usual
        }
    }
}

pub(super) fn run(args: &TrainArgs, machine: &Machine) -> Result<()> {
    let of_the_run = args.resume.then(|| run_in(&args.out)).flatten();
    let usual = of_the_run.unwrap_or_else(|| RunConfig { preview_every: 0, ..RunConfig::default() });
    let config = args.config(usual);
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

/// The settings of the run in that folder; what is wrong with it is said when the run goes on.
fn run_in(dir: &Path) -> Option<RunConfig> {
    serde_json::from_value(checkpoint::read_state(dir).ok()?["run"].take()).ok()
}

fn words(m: &Metrics) -> String {
    let loss = m.history.mean_loss(100).map(|loss| format!("loss {loss:.4}"));
    let left = m.seconds_left.round() as u64;
    // not known in the first steps after a pause for pictures
    let speed = (m.images_per_s > 0.0)
        .then(|| format!("{:.0} images/s  {}:{:02} min left", m.images_per_s, left / 60, left % 60));
    loss.into_iter().chain(speed).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        train: TrainArgs,
    }

    #[test]
    fn the_defaults_are_those_that_the_help_names() {
        let usual = RunConfig::default();
        let expected = [
            ("preset", usual.preset),
            ("data", usual.data),
            ("beta_schedule", usual.beta_schedule),
            ("prediction_type", usual.prediction_type),
            ("steps", usual.steps.to_string()),
            ("batch", usual.batch.to_string()),
            ("seed", usual.seed.to_string()),
            ("lr", usual.learning_rate.to_string()),
            ("warmup", usual.warmup.to_string()),
            ("decay", usual.decay.to_string()),
            ("ema", usual.ema_decay.to_string()),
        ];
        let command = Cli::command();
        let help = |id: &str| command.get_arguments().find(|arg| arg.get_id() == id).unwrap().get_help().unwrap();
        for (id, value) in expected {
            let help = help(id).to_string();
            assert!(help.ends_with(&format!("[default: {value}]")), "{id}: {help}");
        }
        assert!(crate::engine::preset_names().iter().all(|name| help("preset").to_string().contains(name)));
    }
}
