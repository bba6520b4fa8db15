//! A training as the window knows it.

use super::state::Phase;
use crate::diffusion::Images;
use crate::engine::{Changes, Error, JobId, Kind, Metrics, ModelInfo, Snapshot, TrainRequest, TrainingState};
use std::sync::Arc;

/// A training run, under way or over.
#[derive(Clone, Debug)]
pub struct Training {
    /// Its job.
    pub job: JobId,
    /// Its model, once it has begun.
    pub model: Option<Arc<ModelInfo>>,
    /// Whether it is under way.
    pub phase: Phase,
    /// Its numbers.
    pub metrics: Option<Arc<Metrics>>,
    /// The newest EMA samples, with their training step.
    pub preview: Option<(u64, Arc<Images>)>,
    /// What it drew at the training steps that are kept, from the same noise, earliest first.
    pub snapshots: Vec<Arc<Snapshot>>,
    /// Data read so far, and in all, before it begins.
    pub reading: Option<(u64, u64)>,
    /// What was asked for.
    pub request: TrainRequest,
    /// The one before it, which is shown again if this one cannot begin.
    pub before: Option<Box<Self>>,
    /// The step at which it was saved by hand.
    saved_step: u64,
}

impl Training {
    /// A run that was asked for.
    pub fn new(job: JobId, request: TrainRequest) -> Self {
        Self {
            job,
            model: None,
            phase: Phase::Busy,
            metrics: None,
            preview: None,
            snapshots: Vec::new(),
            reading: None,
            request,
            before: None,
            saved_step: 0,
        }
    }

    /// Half the learning rate of the last good state, if the run diverged and is back there.
    pub fn half_rate(&self) -> Option<f64> {
        let rate = self.metrics.as_ref()?.settings.learning_rate?;
        self.diverged().then_some(rate / 2.0)
    }

    /// Whether it was stopped before its end.
    pub fn can_go_on(&self) -> bool {
        self.phase == Phase::Stopped && self.metrics.as_ref().is_some_and(|m| m.step < m.total)
    }

    /// The run that goes on from where it was stopped, or from its last good state at half the rate.
    pub fn going_on(&self, job: JobId) -> Option<Self> {
        let learning_rate = self.half_rate();
        if learning_rate.is_none() && !self.can_go_on() {
            return None;
        }
        let resume = Some(Changes { learning_rate, ..Changes::default() });
        let request = TrainRequest { resume, ..self.request.clone() };
        let saved_step = self.saved_before(self.metrics.as_ref()?.step);
        Some(Self { saved_step, metrics: self.metrics.clone(), ..Self::new(job, request) })
    }

    /// Takes in that it was saved by hand.
    pub(super) fn saved(&mut self) {
        self.saved_step = self.metrics.as_ref().map_or(0, |m| m.step);
    }

    fn diverged(&self) -> bool {
        matches!(self.phase, Phase::Failed(Error { kind: Kind::Diverged, .. }))
    }

    /// Steps that no file may hold, if there are some: of a run without a folder, or one whose last save failed.
    pub fn unsaved(&self) -> Option<u64> {
        let metrics = self.metrics.as_ref()?;
        // one that diverged has saved its last good state
        let failed = matches!(self.phase, Phase::Failed(_)) && !self.diverged();
        let at_risk = self.request.out.is_none() || failed || metrics.save_failed.is_some();
        let in_its_folder = metrics.save_failed.filter(|at| *at <= metrics.step).unwrap_or_default();
        let saved = self.saved_before(metrics.step).max(in_its_folder);
        metrics.step.checked_sub(saved).filter(|steps| at_risk && *steps > 0)
    }

    /// The step at which it was saved by hand. What was saved past its last good state is of the run that diverged.
    fn saved_before(&self, step: u64) -> u64 {
        if self.saved_step <= step { self.saved_step } else { 0 }
    }

    /// The model that the worker holds of it: until a run that goes on has begun, that of the one before.
    pub fn held(&self) -> Option<&Arc<ModelInfo>> {
        let before = || self.before.as_ref().filter(|_| self.metrics.is_some())?.model.as_ref();
        self.model.as_ref().or_else(before)
    }

    /// Whether it is held.
    pub fn is_paused(&self) -> bool {
        self.phase == Phase::Busy && self.metrics.as_ref().is_some_and(|m| m.state == TrainingState::Paused)
    }
}
