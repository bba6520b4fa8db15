//! True noise beside predicted noise: what the training loss (Ho et al. 2020, Eq. 14) compares, on one picture.

use super::denoiser::{Opening, Predicting};
use super::film::pictures;
use super::worker::Model;
use super::{ForwardSource, Predictor, Provenance, Which};
use crate::diffusion::noise::Purpose;
use crate::diffusion::{Images, process};
use crate::error::{Error, Result};

/// Asks what is predicted in one picture at one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareRequest {
    /// Which model.
    pub which: Which,
    /// Whose prediction is set beside the oracle's.
    pub predictor: Predictor,
    /// The address of the noise, and of the choice of pictures.
    pub seed: u64,
    /// Where the picture comes from.
    pub source: ForwardSource,
    /// Which of the forward film's pictures.
    pub picture: u64,
    /// Doses of noise, 1 to T.
    pub doses: usize,
}

/// x_0, the ε mixed into it, the x_t that results, and what is predicted in x_t. All are one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Doses of noise in x_t.
    pub doses: usize,
    /// ᾱ_t.
    pub alpha_bar: f64,
    /// Where x_0 comes from, in words.
    pub source: String,
    /// x_0.
    pub x_start: Images,
    /// ε, the same at every t.
    pub noise: Images,
    /// x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε (Eq. 4).
    pub x_t: Images,
    /// What was asked for.
    pub predicted: Prediction,
    /// What the exact oracle of the model's data says.
    pub oracle: Prediction,
}

/// A prediction of the noise in x_t.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Whose it is.
    pub by: Provenance,
    /// ε̂.
    pub eps: Images,
    /// ε̂ - ε.
    pub error: Images,
    /// The x̂_0 that follows (Eq. 15), not clipped.
    pub xstart: Images,
    /// The mean of (ε̂ - ε)² over all values (Eq. 14).
    pub loss: f64,
}

/// All of a comparison but the timestep, kept from one to the next.
pub(super) struct Comparer {
    request: CompareRequest,
    model: Model,
    source: String,
    x_start: Images,
    noise: Images,
    predicting: Predicting,
    oracle: Predicting,
}

impl Comparer {
    pub(super) fn new(request: CompareRequest, model: Model, with: &mut Opening<'_>) -> Result<Self> {
        let (x_start, source) = pictures(&request.source, request.seed, request.picture, 1, &model, with)?;
        let noise = process::noise_images(request.seed, Purpose::Forward, request.picture, 0, 1, model.info.shape);
        let predicting = Predicting::open(request.predictor, &model, with)?;
        let oracle = Predicting::open(Predictor::Oracle, &model, with)?;
        Ok(Self { request, model, source, x_start, noise, predicting, oracle })
    }

    /// Whether this is about the same picture and prediction.
    pub(super) fn fits(&self, request: &CompareRequest, step: Option<u64>) -> bool {
        self.model.info.step == step && self.request == CompareRequest { doses: self.request.doses, ..request.clone() }
    }

    pub(super) fn compare(&self, doses: usize, with: &Opening<'_>) -> Result<Comparison> {
        let schedule = &self.model.info.schedule;
        let Some(t) = doses.checked_sub(1).filter(|t| *t < schedule.steps()) else {
            let why = format!("t = {doses} is not one of its timesteps, 1 to {}", schedule.steps());
            return Err(Error::usage("cannot compare noise", why, "choose another timestep"));
        };
        let x_t = process::q_sample(schedule, &self.x_start, &[t], &self.noise);
        let predict = |predicting: &Predicting, predictor: Predictor| -> Result<Prediction> {
            let eps = predicting.predict(with.compute, &x_t, t)?;
            let error = Images { data: process::weighted_sum(1.0, &eps.data, -1.0, &self.noise.data), ..eps };
            let squares = error.data.iter().map(|v| f64::from(*v).powi(2));
            let loss = squares.sum::<f64>() / error.data.len() as f64;
            let xstart = process::predict_xstart_from_eps(schedule, &x_t, t, &eps);
            let by = predicting.provenance(predictor, &self.model, "", 1);
            Ok(Prediction { by, eps, error, xstart, loss })
        };
        Ok(Comparison {
            doses,
            alpha_bar: schedule.alpha_bar(doses),
            source: self.source.clone(),
            x_start: self.x_start.clone(),
            noise: self.noise.clone(),
            predicted: predict(&self.predicting, self.request.predictor)?,
            oracle: predict(&self.oracle, Predictor::Oracle)?,
            x_t,
        })
    }
}
