//! `scheduler_config.json`: the noise that a network was trained on.

use super::unreadable;
use crate::diffusion::prediction::PredictionType;
use crate::diffusion::sampler::Variance;
use crate::diffusion::schedule::{BetaSchedule, Schedule, ScheduleConfig};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

const FIXED_SMALL: &str = "fixed_small";
const FIXED_LARGE: &str = "fixed_large";

/// The fields of diffusers' `DDPMScheduler` that decide its numbers, with its names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleSettings {
    /// T.
    pub num_train_timesteps: usize,
    /// β of the first dose.
    pub beta_start: f64,
    /// β of the last dose.
    pub beta_end: f64,
    /// "linear", "scaled_linear", "squaredcos_cap_v2" or "sigmoid".
    pub beta_schedule: String,
    /// What the network predicts: "epsilon" or "v_prediction".
    pub prediction_type: String,
    /// Variance of a reverse step: "fixed_small" or "fixed_large".
    pub variance_type: String,
    /// Whether x̂_0 is kept within [-1, 1].
    pub clip_sample: bool,
    /// Betas that no formula gives: not supported.
    #[serde(skip_serializing)]
    trained_betas: Option<serde_json::Value>,
    #[serde(skip_serializing)]
    rescale_betas_zero_snr: bool,
    #[serde(skip_serializing)]
    thresholding: bool,
    #[serde(skip_serializing)]
    clip_sample_range: f64,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self::new(ScheduleConfig::default(), PredictionType::Epsilon, Variance::FixedSmall, true)
    }
}

impl ScheduleSettings {
    /// Settings of a network that was trained with these.
    pub fn new(
        schedule: ScheduleConfig,
        prediction_type: PredictionType,
        variance: Variance,
        clip_sample: bool,
    ) -> Self {
        Self {
            num_train_timesteps: schedule.steps,
            beta_start: schedule.beta_start,
            beta_end: schedule.beta_end,
            beta_schedule: schedule.kind.name().to_owned(),
            prediction_type: prediction_type.name().to_owned(),
            variance_type: match variance {
                Variance::FixedSmall => FIXED_SMALL,
                Variance::FixedLarge => FIXED_LARGE,
            }
            .to_owned(),
            clip_sample,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            thresholding: false,
            clip_sample_range: 1.0,
        }
    }

    /// What the schedule is made from.
    ///
    /// # Errors
    /// `beta_schedule` is of an unknown kind.
    pub fn schedule(&self) -> Result<ScheduleConfig> {
        let kind = BetaSchedule::from_name(&self.beta_schedule).ok_or_else(|| {
            let known = BetaSchedule::ALL.map(BetaSchedule::name).join(", ");
            unsupported("beta_schedule", &self.beta_schedule, &known)
        })?;
        Ok(ScheduleConfig {
            kind,
            steps: self.num_train_timesteps,
            beta_start: self.beta_start,
            beta_end: self.beta_end,
        })
    }

    /// What the network predicts.
    ///
    /// # Errors
    /// `prediction_type` is of an unknown kind.
    pub fn prediction_type(&self) -> Result<PredictionType> {
        PredictionType::from_name(&self.prediction_type).ok_or_else(|| {
            let known = PredictionType::ALL.map(PredictionType::name).join(" or ");
            unsupported("prediction_type", &self.prediction_type, &known)
        })
    }

    /// Variance of a reverse step.
    ///
    /// # Errors
    /// `variance_type` is of an unknown kind.
    pub fn variance(&self) -> Result<Variance> {
        match self.variance_type.as_str() {
            FIXED_SMALL => Ok(Variance::FixedSmall),
            FIXED_LARGE => Ok(Variance::FixedLarge),
            other => Err(unsupported("variance_type", other, "fixed_small or fixed_large")),
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.prediction_type()?;
        if self.trained_betas.is_some() {
            return Err(unsupported("trained_betas", "given", "null"));
        }
        for (field, on) in
            [("rescale_betas_zero_snr", self.rescale_betas_zero_snr), ("thresholding", self.thresholding)]
        {
            if on {
                return Err(unsupported(field, "true", "false"));
            }
        }
        if self.clip_sample && self.clip_sample_range != 1.0 {
            return Err(unsupported("clip_sample_range", &self.clip_sample_range.to_string(), "1.0"));
        }
        self.variance()?;
        Schedule::new(&self.schedule()?).map_err(|e| unreadable(e.to_string(), ""))?;
        Ok(())
    }
}

fn unsupported(field: &str, value: &str, known: &str) -> Error {
    unreadable(format!("{field} is {value}, which is not supported"), &format!("use {known}"))
}
