//! DDPM in all its steps beside DDIM in few, from the same noise: a call for each in turn.

use super::denoiser::{Opening, Predicting};
use super::film::{check_count, check_memory};
use super::outbox::Outbox;
use super::worker::Model;
use super::{Event, JobId, Predictor, Provenance, Which};
use crate::diffusion::noise::Purpose;
use crate::diffusion::sampler::{Sampler, SamplerKind};
use crate::diffusion::schedule::Spacing;
use crate::diffusion::{Images, process};
use crate::error::Result;
use crate::model::compute::Compute;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A race.
#[derive(Clone, Debug, PartialEq)]
pub struct RaceRequest {
    /// Which model.
    pub which: Which,
    /// Whose prediction.
    pub predictor: Predictor,
    /// The address of all noise.
    pub seed: u64,
    /// Number of pictures.
    pub n: usize,
    /// Steps of DDIM.
    pub steps: usize,
}

/// How far one of the two has come.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Whose it is.
    pub by: Provenance,
    /// Network calls made, and in all.
    pub calls: [usize; 2],
    /// What they took.
    pub time: Duration,
    /// Where it is, in doses of noise.
    pub doses: usize,
    /// Its state.
    pub x: Arc<Images>,
}

struct Runner {
    sampler: Sampler,
    by: Provenance,
    time: Duration,
}

/// A race under way.
pub(super) struct RaceJob {
    job: JobId,
    request: RaceRequest,
    denoiser: Predicting,
    runners: [Runner; 2],
}

impl RaceJob {
    pub(super) fn start(request: RaceRequest, model: &Model, with: &mut Opening<'_>) -> Result<Self> {
        check_count(request.n)?;
        check_memory(request.n, &model.checkpoint.config)?;
        let full = &model.info.schedule;
        let denoiser = Predicting::open(request.predictor, model, with)?;
        let runner = |kind: SamplerKind, steps: usize| {
            let x = process::noise_images(request.seed, Purpose::Start, 0, 0, request.n, model.info.shape);
            let sampler = Sampler::new(full.spaced(steps, Spacing::Leading)?, kind, model.info.clip, x)?;
            let by = denoiser.provenance(request.predictor, model, kind.name(), steps);
            Ok::<_, crate::error::Error>(Runner { sampler, by, time: Duration::ZERO })
        };
        let ddpm = runner(SamplerKind::Ddpm { variance: model.info.variance }, full.steps())?;
        let ddim = runner(SamplerKind::Ddim { eta: 0.0 }, request.steps.min(full.steps()))?;
        let race = Self { job: with.job, request, denoiser, runners: [ddpm, ddim] };
        with.out.send(Event::Race(race.job, Box::new(race.lanes())));
        Ok(race)
    }

    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// One call for each that has not arrived; true when both have.
    pub(super) fn advance(&mut self, compute: &Compute, out: &Outbox) -> Result<bool> {
        let RaceRequest { seed, n, .. } = self.request;
        for runner in &mut self.runners {
            let Some(t) = runner.sampler.wants() else { continue };
            let shape = runner.sampler.x().shape();
            let start = Instant::now();
            let eps = self.denoiser.predict(compute, runner.sampler.x(), t)?;
            runner.sampler.advance(&eps, |t| process::noise_images(seed, Purpose::Step, 0, t as u64, n, shape));
            runner.time += start.elapsed();
        }
        let over = self.runners.iter().all(|r| r.sampler.wants().is_none());
        let event = Event::Race(self.job, Box::new(self.lanes()));
        if over {
            out.send(event)
        } else {
            out.send_or_skip(event)
        }
        Ok(over)
    }

    fn lanes(&self) -> [Lane; 2] {
        self.runners.each_ref().map(|r| Lane {
            by: r.by.clone(),
            calls: [r.by.calls - r.sampler.steps_left(), r.by.calls],
            time: r.time,
            doses: r.sampler.doses(),
            x: Arc::new(r.sampler.x().clone()),
        })
    }
}
