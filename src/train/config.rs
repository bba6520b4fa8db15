//! The settings of a run, one struct for the command line, the settings form and the checkpoint.

use crate::data::Source;
use crate::diffusion::prediction::PredictionType;
use crate::diffusion::schedule::{BetaSchedule, ScheduleConfig};
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
    /// Shape of β_t, by the name that diffusers gives it.
    pub beta_schedule: String,
    /// What the network predicts, by the name that diffusers gives it.
    pub prediction_type: String,
    /// Whether images are mirrored at random; `None` mirrors pictures but not digits.
    pub flip: Option<bool>,
    /// Whether a few images are held out; of a new run: if no test set belongs to its data. Runs of older versions hold none
    /// out.
    #[serde(default)]
    pub hold_out: bool,
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
            beta_schedule: BetaSchedule::Linear.name().into(),
            prediction_type: PredictionType::Epsilon.name().into(),
            flip: None,
            hold_out: true,
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

/// A number among the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// [`RunConfig::steps`].
    Steps,
    /// [`RunConfig::batch`].
    Batch,
    /// [`RunConfig::learning_rate`].
    LearningRate,
    /// [`RunConfig::warmup`].
    Warmup,
    /// [`RunConfig::decay`].
    Decay,
    /// [`RunConfig::grad_clip`].
    GradClip,
    /// [`RunConfig::ema_decay`].
    EmaDecay,
    /// [`RunConfig::preview_every`].
    PreviewEvery,
}

/// What is known of a number: one table for the check and for the form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct About {
    /// Its name in a sentence.
    pub name: &'static str,
    /// Its unit with a blank before it; empty for none.
    pub unit: &'static str,
    /// The least that makes sense.
    pub least: f64,
    /// The most that makes sense.
    pub most: f64,
    /// What Ho et al. 2020 used for CIFAR-10 (appendix B, and their code where that is silent).
    pub paper: Option<f64>,
}

impl Number {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Steps,
        Self::Batch,
        Self::LearningRate,
        Self::Warmup,
        Self::Decay,
        Self::GradClip,
        Self::EmaDecay,
        Self::PreviewEvery,
    ];

    /// What is known of it.
    pub fn about(self) -> About {
        const MOST_STEPS: f64 = 1e7;
        let about = |name, unit, least, most, paper| About { name, unit, least, most, paper };
        match self {
            Self::Steps => about("number of steps", " steps", 1.0, MOST_STEPS, Some(8e5)),
            Self::Batch => about("batch", " images", 1.0, 4096.0, Some(128.0)),
            Self::LearningRate => about("learning rate", "", 1e-9, 1.0, Some(2e-4)),
            Self::Warmup => about("warm-up", " steps", 0.0, MOST_STEPS, Some(5000.0)),
            Self::Decay => about("final decay", " steps", 0.0, MOST_STEPS, Some(0.0)),
            Self::GradClip => about("gradient clip", "", 1e-6, 1e6, Some(1.0)),
            Self::EmaDecay => about("EMA decay", "", 1e-6, 0.999_999_9, Some(0.9999)),
            Self::PreviewEvery => about("distance of samples", " steps", 0.0, MOST_STEPS, None),
        }
    }

    /// Its value in these settings.
    pub fn of(self, run: &RunConfig) -> f64 {
        match self {
            Self::Steps => run.steps as f64,
            Self::Batch => run.batch as f64,
            Self::LearningRate => run.learning_rate,
            Self::Warmup => run.warmup as f64,
            Self::Decay => run.decay as f64,
            Self::GradClip => run.grad_clip,
            Self::EmaDecay => run.ema_decay,
            Self::PreviewEvery => run.preview_every as f64,
        }
    }

    /// Whether it counts something.
    pub fn is_count(self) -> bool {
        matches!(self, Self::Steps | Self::Batch | Self::Warmup | Self::Decay | Self::PreviewEvery)
    }

    /// Another value; counts are rounded, and never below 0.
    pub fn set(self, run: &mut RunConfig, value: f64) {
        let count = value.round() as u64;
        match self {
            Self::Steps => run.steps = count,
            Self::Batch => run.batch = count as usize,
            Self::LearningRate => run.learning_rate = value,
            Self::Warmup => run.warmup = count,
            Self::Decay => run.decay = count,
            Self::GradClip => run.grad_clip = value,
            Self::EmaDecay => run.ema_decay = value,
            Self::PreviewEvery => run.preview_every = count,
        }
    }

    /// A value as it is written: what is very small as a power of ten.
    pub fn words(self, value: f64) -> String {
        let small = value != 0.0 && value.abs() < 1e-3;
        if small { format!("{value:e}") } else { value.to_string() }
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
    /// What the network predicts.
    pub prediction_type: PredictionType,
}

impl Plan {
    /// Which data, and [c, h, w] of its images.
    pub fn data_place(&self) -> (Source, [usize; 3]) {
        (self.run.source(), self.model.image_shape())
    }
}

impl RunConfig {
    /// From random weights to digits that can be read while an audience waits: 16 x 16 pictures, v instead of ε, the cosine
    /// schedule, and a learning rate that falls. Of 3,000 samples (DDPM, 50 steps) a classifier recognises 86 % (README).
    pub fn lecture() -> Self {
        Self {
            preset: "digits16".into(),
            beta_schedule: BetaSchedule::Cosine.name().into(),
            prediction_type: PredictionType::Velocity.name().into(),
            steps: 2800,
            batch: 32,
            learning_rate: 1e-3,
            warmup: 50,
            decay: 1400,
            ema_decay: 0.99,
            preview_every: 50,
            ..Self::default()
        }
    }

    /// Which images it learns from.
    pub fn source(&self) -> Source {
        match Source::parse(&self.data) {
            Source::Mnist => Source::Mnist,
            own if self.hold_out => Source::Rest(Box::new(own)),
            own => own,
        }
    }

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
        let Some(kind) = BetaSchedule::from_name(&self.beta_schedule) else {
            let known = BetaSchedule::ALL.map(BetaSchedule::name).join(", ");
            return refuse(
                format!("there is no schedule \"{}\"", self.beta_schedule),
                &format!("choose one of {known}"),
            );
        };
        let Some(prediction_type) = PredictionType::from_name(&self.prediction_type) else {
            let known = PredictionType::ALL.map(PredictionType::name).join(" or ");
            return refuse(format!("no network predicts \"{}\"", self.prediction_type), &format!("choose {known}"));
        };
        Number::ALL.iter().try_for_each(|number| self.check(*number))?;
        let schedule = ScheduleConfig { kind, ..ScheduleConfig::default() };
        Ok(Plan { run: self.clone(), model, schedule, prediction_type })
    }

    /// Checks one number.
    ///
    /// # Errors
    /// It is out of bounds; says which are.
    pub fn check(&self, number: Number) -> Result<()> {
        let (About { name, unit, least, most, .. }, value) = (number.about(), number.of(self));
        if (least..=most).contains(&value) {
            return Ok(());
        }
        let why = format!("the {name} is {}{unit}", number.words(value));
        let hint = format!("use {} to {}", number.words(least), number.words(most));
        Err(Error::usage("cannot train with these settings", why, hint))
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
        let cases: [(Spoil, &str); 10] = [
            (|c| c.beta_schedule = "laplace".into(), "laplace"),
            (|c| c.prediction_type = "sample".into(), "choose epsilon or v_prediction"),
            (|c| c.preset = "huge".into(), "huge"),
            (|c| c.steps = 0, "steps"),
            (|c| c.batch = 0, "batch"),
            (|c| c.learning_rate = f64::NAN, "learning rate"),
            (|c| c.ema_decay = 1.0, "EMA"),
            (|c| c.grad_clip = -1.0, "clip is -1; use 1e-6 to 1000000"),
            (|c| c.batch = 5000, "the batch is 5000 images; use 1 to 4096"),
            (|c| c.warmup = u64::MAX, "warm-up"),
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
    fn every_number_can_be_read_set_and_had_as_in_the_paper() {
        let mut run = RunConfig::default();
        for (i, number) in Number::ALL.into_iter().enumerate() {
            let About { least, most, paper, .. } = number.about();
            let value = paper.unwrap_or(least + i as f64);
            assert!((least..=most).contains(&value));
            number.set(&mut run, value);
            assert_eq!(number.of(&run), value);
        }
        let paper = (run.batch, run.learning_rate, run.ema_decay, run.warmup, run.grad_clip, run.steps, run.decay);
        assert_eq!(paper, (128, 2e-4, 0.9999, 5000, 1.0, 800_000, 0));
        assert!(run.validate().is_ok());
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
