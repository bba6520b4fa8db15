//! The settings of a run, one struct for the command line, the settings form and the checkpoint.

use crate::data::Source;
use crate::diffusion::schedule::ScheduleConfig;
use crate::error::{Error, Result};
use crate::model::Config;
use serde::{Deserialize, Serialize};

/// All that decides a run's bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Name of a network preset.
    pub preset: String,
    /// "mnist", or a path to IDX files, CIFAR batches or a folder of images; or several with semicolons between.
    pub data: String,
    /// Whether images are mirrored at random; `None` mirrors pictures but not digits.
    pub flip: Option<bool>,
    /// The address of all randomness.
    pub seed: u64,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Adam's learning rate after the warm-up.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises linearly.
    pub warmup: u64,
    /// Steps at the end of the run over which the learning rate falls linearly to zero; 0 for a constant rate, as in the
    /// paper.
    pub decay: u64,
    /// Largest global norm of a gradient.
    pub grad_clip: f64,
    /// Decay of the moving average.
    pub ema_decay: f64,
    /// Whether the decay rises from near 0 at first, so that a short run does not sample from its initial weights.
    pub ema_warmup: bool,
    /// EMA samples are shown every so many steps; 0 for never.
    pub preview_every: u64,
}

impl Default for RunConfig {
    /// Adam at 2e-4, clip 1.0 and EMA 0.9999 as in Ho et al. 2020; a warm-up and a run fit for one sitting.
    fn default() -> Self {
        Self {
            preset: "mnist28".into(),
            data: "mnist".into(),
            flip: None,
            seed: 0,
            steps: 20_000,
            batch: 64,
            learning_rate: 2e-4,
            warmup: 500,
            decay: 0,
            grad_clip: 1.0,
            ema_decay: 0.9999,
            ema_warmup: true,
            preview_every: 100,
        }
    }
}

/// Settings that were checked and belong together.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As given.
    pub run: RunConfig,
    /// The network.
    pub model: Config,
    /// The noise schedule.
    pub schedule: ScheduleConfig,
}

impl Plan {
    /// Which data, and [c, h, w] of its images.
    pub fn data_place(&self) -> (Source, [usize; 3]) {
        (Source::parse(&self.run.data), self.model.image_shape())
    }
}

impl RunConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first setting that makes no sense, and what would.
    pub fn validate(&self) -> Result<Plan> {
        let refuse = |why: String, hint: &str| Err(Error::usage("cannot train with these settings", why, hint));
        let Some(model) = Config::preset(&self.preset) else {
            return refuse(
                format!("there is no preset \"{}\"", self.preset),
                &format!("choose one of {}", crate::model::PRESETS.join(", ")),
            );
        };
        if self.steps == 0 {
            return refuse("the number of steps is 0".into(), "train for at least 1 step");
        }
        if !(1..=4096).contains(&self.batch) {
            return refuse(format!("the batch has {} images", self.batch), "use 1 to 4096");
        }
        for (name, value, max) in [
            ("learning rate", self.learning_rate, 1.0),
            ("gradient clip", self.grad_clip, 1e6),
            ("EMA decay", self.ema_decay, 0.999_999_9),
        ] {
            if !(value > 0.0 && value <= max) {
                return refuse(format!("the {name} is {value}"), &format!("use a number above 0, at most {max}"));
            }
        }
        Ok(Plan { run: self.clone(), model, schedule: ScheduleConfig::default() })
    }

    /// Learning rate of `step`, from 1: linear warm-up, then constant, then linear decay.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        let part = |of: u64, steps: u64| (of as f64 / steps.max(1) as f64).min(1.0);
        let left = (self.steps + 1).saturating_sub(step);
        let decayed = if self.decay == 0 { 1.0 } else { part(left, self.decay) };
        self.learning_rate * part(step, self.warmup).min(decayed)
    }

    /// EMA decay of `step`, from 1: with the warm-up (1 + step) / (10 + step) up to `ema_decay`.
    pub fn ema_decay_at(&self, step: u64) -> f64 {
        let ceiling = if self.ema_warmup { (1 + step) as f64 / (10 + step) as f64 } else { 1.0 };
        ceiling.min(self.ema_decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_in_one_sentence_that_names_it() {
        type Spoil = fn(&mut RunConfig);
        let cases: [(Spoil, &str); 6] = [
            (|c| c.preset = "huge".into(), "huge"),
            (|c| c.steps = 0, "steps"),
            (|c| c.batch = 0, "batch"),
            (|c| c.learning_rate = f64::NAN, "learning rate"),
            (|c| c.ema_decay = 1.0, "EMA"),
            (|c| c.grad_clip = -1.0, "clip"),
        ];
        for (spoil, word) in cases {
            let mut config = RunConfig::default();
            spoil(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(word) && !message.contains('\n'), "{message}");
        }
        assert!(RunConfig::default().validate().is_ok());
    }

    #[test]
    fn warm_ups_rise_and_end() {
        let c = RunConfig::default();
        assert!((c.learning_rate_at(250) - 1e-4).abs() < 1e-12);
        assert_eq!(c.learning_rate_at(500), 2e-4);
        assert_eq!(c.learning_rate_at(20_000), 2e-4);
        let decaying = RunConfig { decay: 1000, ..c.clone() };
        assert_eq!(decaying.learning_rate_at(19_001), 2e-4);
        assert!((decaying.learning_rate_at(19_501) - 1e-4).abs() < 1e-12);
        assert!((decaying.learning_rate_at(20_000) - 2e-7).abs() < 1e-12);
        // after 1000 steps the initial weights are all but forgotten
        let left: f64 = (1..=1000).map(|s| c.ema_decay_at(s)).product();
        assert!(left < 1e-12, "{left}");
        assert_eq!(c.ema_decay_at(1_000_000), 0.9999);
    }
}
