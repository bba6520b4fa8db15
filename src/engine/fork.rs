//! A film that leaves another at one of its states: only what follows is computed.

use super::denoiser::{Opening, Predicting};
use super::film::{FilmJob, check_count};
use super::{JobId, Predictor, SamplerKind};
use crate::diffusion::Images;
use crate::diffusion::reel::Again;
use crate::error::{Error, Result};
use crate::model::compute::Compute;
use std::sync::Arc;

/// A branch of a reverse film.
#[derive(Clone, Debug, PartialEq)]
pub struct ForkRequest {
    /// The job that made the film it leaves: the newest reverse film, or a branch of it.
    pub parent: JobId,
    /// The state in which it leaves that film.
    pub doses: usize,
    /// This picture alone, so many times, each with noise of its own (Fig. 7 of Ho et al. 2020); `None` for all pictures.
    pub repeat: Option<(usize, usize)>,
    /// Whose prediction it follows.
    pub predictor: Predictor,
    /// The rule of a step.
    pub sampler: SamplerKind,
    /// Keep x̂_0 within [-1, 1].
    pub clip: bool,
    /// The address of its noise: with that of the film it leaves and the same settings it is the same film.
    pub seed: u64,
}

/// How a film leaves another, for a recipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fork {
    /// The state in which it leaves.
    pub doses: usize,
    /// Whose prediction it follows from there on.
    pub predictor: Predictor,
    /// The rule of a step.
    pub sampler: SamplerKind,
    /// Keep x̂_0 within [-1, 1].
    pub clip: bool,
    /// The address of its noise.
    pub seed: u64,
}

impl Fork {
    /// The branch that leaves the film of `parent` in this way.
    pub fn request(self, parent: JobId) -> ForkRequest {
        let Self { doses, predictor, sampler, clip, seed } = self;
        ForkRequest { parent, doses, repeat: None, predictor, sampler, clip, seed }
    }
}

/// A branch on its way to the state where it begins.
pub(super) struct ForkJob {
    pub job: JobId,
    pub request: ForkRequest,
    again: Again,
}

pub(super) fn cannot(why: String, hint: &str) -> Error {
    Error::usage("cannot branch the film", why, hint)
}

impl ForkJob {
    pub(super) fn start(job: JobId, request: ForkRequest, parent: Option<&FilmJob>) -> Result<Self> {
        let parent =
            parent.ok_or_else(|| cannot("the film it leaves is gone".to_owned(), "branch the film on screen"))?;
        if let Some((picture, n)) = request.repeat {
            check_count(n)?;
            if picture >= parent.pictures() {
                let why = format!("the film has {} pictures, and no picture {picture}", parent.pictures());
                return Err(cannot(why, "choose one of them"));
            }
        }
        let again = parent.state(request.doses).filter(|_| request.doses > 0).ok_or_else(|| {
            let why = format!("at t = {} it has no state with steps left", request.doses);
            cannot(why, "choose a state that it has passed")
        })?;
        Ok(Self { job, request, again })
    }

    /// One network call towards the state; true when it is there.
    pub(super) fn advance(&mut self, parent: &FilmJob, compute: &Compute) -> Result<bool> {
        if let Some((x, t)) = self.again.wants() {
            let eps = parent.denoiser().predict(compute, x, t)?;
            self.again.step(&eps);
        }
        Ok(self.again.wants().is_none())
    }

    /// The film from there on.
    pub(super) fn film(self, parent: &FilmJob, predicting: Arc<Predicting>, with: &Opening<'_>) -> Result<FilmJob> {
        let Self { request, again, .. } = self;
        let state = again.state();
        let mut sampler = state.rule(request.sampler, request.clip)?;
        if let Some((picture, n)) = request.repeat {
            let x = state.x();
            let repeated = Images::new(n, x.shape(), x.one(picture).repeat(n));
            sampler = sampler.at(sampler.steps_left(), repeated);
        }
        Ok(parent.branch(&request, sampler, predicting, with))
    }
}
