//! A network whose output, whatever it was trained to be, is told as noise.

use super::{Config, Denoiser, Params, UNet};
use crate::diffusion::Images;
use crate::diffusion::prediction::PredictionType;
use crate::diffusion::schedule::Schedule;
use crate::error::{Error, Result};
use crate::kernels::Path;
use std::sync::Arc;

/// ε̂(x_t, t) of a network that predicts ε or v on a schedule.
#[derive(Debug)]
pub struct Network {
    unet: UNet,
    prediction_type: PredictionType,
    schedule: Arc<Schedule>,
}

impl Network {
    /// Builds the network of `config` over `params`, as [`UNet::new`].
    ///
    /// # Errors
    /// As [`UNet::new`].
    pub fn new(
        (config, params): (&Config, &Params),
        path: Path,
        prediction_type: PredictionType,
        schedule: Arc<Schedule>,
    ) -> Result<Self> {
        Ok(Self { unet: UNet::new(config, params, path)?, prediction_type, schedule })
    }
}

impl Denoiser for Network {
    fn shape(&self) -> [usize; 3] {
        self.unet.shape()
    }

    /// Noise follows from v at whole timesteps of the schedule only.
    fn predict(&self, x_t: &Images, t: &[f32]) -> Result<Images> {
        if self.prediction_type == PredictionType::Epsilon {
            return self.unet.predict(x_t, t);
        }
        let last = self.schedule.steps() - 1;
        if let Some(t) = t.iter().find(|t| t.fract() != 0.0 || !(0.0..=last as f32).contains(*t)) {
            let hint = format!("use whole timesteps from 0 to {last}");
            return Err(Error::usage("cannot predict the noise", format!("the model has no timestep {t}"), hint));
        }
        let steps: Vec<usize> = t.iter().map(|&t| t as usize).collect();
        Ok(self.prediction_type.to_eps(&self.schedule, x_t, &steps, self.unet.predict(x_t, t)?))
    }
}
