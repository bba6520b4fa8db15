//! Whose prediction a film follows: a copy of the network's weights, or the exact oracle of the model's data.

use super::outbox::Outbox;
use super::reading::DataCache;
use super::worker::Model;
use super::{Event, JobId, Known, Predictor, Provenance};
use crate::data::Dataset;
use crate::diffusion::Images;
use crate::error::{Error, Result};
use crate::model::compute::Compute;
use crate::model::oracle::Oracle;
use crate::model::{Denoiser, Network};
use std::sync::Arc;

/// What predicts the noise.
pub(super) enum Predicting {
    Network(Box<Network>),
    /// With the name of its data.
    Oracle(Oracle, String),
}

/// What it takes to open one.
pub(super) struct Opening<'a> {
    pub job: JobId,
    pub compute: &'a Compute,
    pub data: &'a DataCache,
    pub out: &'a Outbox,
}

impl Opening<'_> {
    /// The data of `model`. If they are other ones by now than it learned from, that is said.
    ///
    /// # Errors
    /// They are not read yet.
    pub(super) fn data_of(&self, model: &Model) -> Result<Arc<Dataset>> {
        let place = (model.data.clone(), model.info.shape);
        let data = self.data.get(&place)?;
        if let Some(before) = &model.fingerprint
            && let Some(now) = self.data.fingerprint(&place).filter(|now| now != before)
        {
            let why = format!("{} learned from {before}, and the data there are now {now}", model.info.name);
            self.out
                .send(Event::Warning(format!("{why}: the oracle and pictures of the data are not of what it learned")));
        }
        Ok(data)
    }
}

impl Predicting {
    pub(super) fn open(predictor: Predictor, model: &Model, with: &mut Opening<'_>) -> Result<Self> {
        let checkpoint = &model.checkpoint;
        let params = match (predictor, &checkpoint.training) {
            (Predictor::Ema, _) => &checkpoint.ema,
            (Predictor::Raw, Some(training)) => &training.raw,
            (Predictor::Raw, None) => {
                let why = "this model holds only one copy";
                return Err(Error::new("cannot sample from raw weights", why, "choose EMA"));
            }
            (Predictor::Oracle, _) => {
                let data = with.data_of(model)?;
                let name = data.name.clone();
                let oracle = Oracle::new(data, model.info.shape, Arc::clone(&model.info.schedule))?;
                return Ok(Self::Oracle(oracle, name));
            }
        };
        let (prediction_type, schedule) = (model.info.prediction_type, Arc::clone(&model.info.schedule));
        let network = Network::new((&checkpoint.config, params), with.compute.path(), prediction_type, schedule)?;
        Ok(Self::Network(Box::new(network)))
    }

    /// What the oracle knows, if it is one.
    fn known(&self) -> Option<Known> {
        match self {
            Self::Network(_) => None,
            Self::Oracle(oracle, data) => Some(Known { data: data.clone(), images: oracle.images() }),
        }
    }

    /// Whose films these are.
    pub(super) fn provenance(
        &self,
        predictor: Predictor,
        model: &Model,
        sampler: &'static str,
        calls: usize,
    ) -> Provenance {
        let (hash, step) = (model.info.hash.clone(), model.info.step);
        Provenance {
            model: model.info.name.clone(),
            hash,
            step,
            predictor,
            only_copy: !model.info.has_raw,
            prediction_type: model.info.prediction_type,
            oracle: self.known(),
            from: None,
            sampler,
            calls,
        }
    }

    /// ε̂ for all of `x` at timestep `t`.
    pub(super) fn predict(&self, compute: &Compute, x: &Images, t: usize) -> Result<Images> {
        let times = vec![t as f32; x.n];
        let eps = match self {
            Self::Network(network) => compute.predict(&**network, x, &times),
            Self::Oracle(oracle, _) => compute.run(|| oracle.predict(x, &times)),
        }?;
        if eps.data.iter().all(|v| v.is_finite()) {
            Ok(eps)
        } else {
            let why = format!("at timestep {t} the network predicts values that are not numbers");
            Err(Error::new("cannot go on with this film", why, "its weights are damaged; use another model"))
        }
    }
}
