//! The whole network: training steps and calls without gradients.

use super::memory;
use super::report::{Report, median, round, smallest};
use crate::diffusion::noise::{Purpose, stream};
use crate::diffusion::process::noise_images;
use crate::engine::Result;
use crate::model::compute::Compute;
use crate::model::{Params, UNet};
use crate::train::config::Plan;
use crate::train::trainer::Trainer;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Repetitions before those that count.
const WARM_UP: usize = 2;

/// A preset with random weights, and how long it took so far.
pub(super) struct Network {
    plan: Plan,
    compute: Arc<Compute>,
    params: Params,
    runs: Vec<Run>,
    memory: Option<Memory>,
}

/// One thing that is measured: seconds of each repetition, by round.
pub(super) struct Run {
    /// "train" or "sample", as in the baseline.
    pub what: &'static str,
    pub batch: usize,
    rounds: Vec<Vec<f64>>,
}

/// Of the first training round, in MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// The most that the process held.
    pub peak: f64,
    /// The part of it that came with training.
    pub growth: f64,
}

impl Run {
    /// Median seconds of each round.
    pub(super) fn medians(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| median(round)).collect()
    }
}

impl Network {
    pub(super) fn new(plan: Plan, compute: Arc<Compute>) -> Result<Self> {
        let params = Params::init(&plan.model, 0, compute.device())?;
        Ok(Self { plan, compute, params, runs: Vec::new(), memory: None })
    }

    /// A round of `times` training steps: noise, forward, backward, clipping, Adam and EMA.
    pub(super) fn train(&mut self, times: usize) -> Result<()> {
        let (n, shape, steps) = (self.plan.run.batch, self.plan.model.image_shape(), self.plan.schedule.steps);
        let mut x_start = noise_images(1, Purpose::Pick, 0, 0, n, shape);
        x_start.data.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
        let before = memory::reset_peak().filter(|_| self.memory.is_none());
        let mut trainer = Trainer::from_params(self.plan.clone(), Arc::clone(&self.compute), self.params.clone())?;
        let seconds = seconds(times, || {
            let noise = noise_images(1, Purpose::TrainNoise, 0, 0, n, shape);
            let mut timesteps = stream(1, Purpose::TrainTime, [0, 0]);
            let t: Vec<usize> = (0..n).map(|_| timesteps.below(steps)).collect();
            trainer.step_on(&x_start, &t, &noise).map(|_| ())
        })?;
        if let (Some(before), Some(peak)) = (before, memory::peak()) {
            self.memory = Some(Memory { peak, growth: peak - before });
        }
        self.add("train", n, seconds);
        Ok(())
    }

    /// A round of `times` network calls with 1 and with 16 images.
    pub(super) fn forward(&mut self, times: usize) -> Result<()> {
        let network = UNet::new(&self.plan.model, &self.params, self.compute.path())?;
        for n in [1, 16] {
            let x = noise_images(2, Purpose::Start, 0, 0, n, self.plan.model.image_shape());
            let t = vec![500.0; n];
            let seconds = seconds(times, || self.compute.predict(&network, &x, &t).map(|_| ()))?;
            self.add("sample", n, seconds);
        }
        Ok(())
    }

    fn add(&mut self, what: &'static str, batch: usize, seconds: Vec<f64>) {
        match self.runs.iter_mut().find(|run| (run.what, run.batch) == (what, batch)) {
            Some(run) => run.rounds.push(seconds),
            None => self.runs.push(Run { what, batch, rounds: vec![seconds] }),
        }
    }

    /// All that was measured.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Peak memory of training, where it was measured.
    pub(super) fn memory(&self) -> Option<Memory> {
        self.memory
    }

    /// Median and best of all repetitions.
    pub(super) fn report(&self, report: &Report<'_>) -> Result<()> {
        let params = self.params.count();
        for run in &self.runs {
            let all = run.rounds.concat();
            let (typical, best) = (median(&all), smallest(&all));
            let speed = run.batch as f64 / typical;
            let mut values = json!({
                "params": params, "batch": run.batch, "ms": round(typical * 1e3, 2), "best_ms": round(best * 1e3, 2),
                "images_per_s": round(speed, 2),
            });
            let mut text = format!(
                "batch {:<4} {:>10.2} ms (best {:.2}) {speed:>10.1} images/s",
                run.batch,
                typical * 1e3,
                best * 1e3
            );
            if let (Some(memory), "train") = (self.memory, run.what) {
                values["peak_mib"] = round(memory.peak, 1).into();
                values["growth_mib"] = round(memory.growth, 1).into();
                text +=
                    &format!(", {:.0} MiB in memory at most, {:.0} of them for training", memory.peak, memory.growth);
            }
            report.line(run.what, values, &text)?;
        }
        Ok(())
    }
}

/// How long `f` takes, `times` times after the warm-up.
pub(super) fn seconds(times: usize, mut f: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    for _ in 0..WARM_UP {
        f()?;
    }
    let timed = |_| {
        let start = Instant::now();
        f()?;
        Ok(start.elapsed().as_secs_f64())
    };
    (0..times).map(timed).collect()
}
