//! The curves of a run, in bounded memory: the newest steps one by one, the whole run decimated.

use super::changes::Change;
use super::evaluation::{self, Evaluation};
use super::table;
use super::timesteps::{Sample, TimestepLoss};
use serde::{Deserialize, Serialize};

const RECENT: usize = 2048;
const WHOLE: usize = 2048;

/// The nearest number that can be saved: JSON has no others.
pub(super) fn finite(value: f64) -> f32 {
    if value.is_nan() { f32::MAX } else { value.clamp(f32::MIN.into(), f32::MAX.into()) as f32 }
}

/// What one training step measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStats {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean squared error of the predicted noise (Eq. 14).
    pub loss: f32,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f32,
    /// Learning rate of the step.
    pub learning_rate: f32,
    /// How far the step moved the weights, as a share of their norm: ‖Δθ‖ / ‖θ‖.
    #[serde(default)]
    pub update_ratio: f32,
    /// Decay of the moving average at the step.
    #[serde(default)]
    pub ema_decay: f32,
}

/// Several consecutive steps as one point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Last step in the point.
    pub step: u64,
    /// Mean loss.
    pub loss: f32,
    /// Least loss.
    pub loss_min: f32,
    /// Largest loss.
    pub loss_max: f32,
    /// Mean gradient norm.
    pub grad_norm: f32,
    /// Mean learning rate.
    #[serde(default)]
    pub learning_rate: f32,
    /// Mean of ‖Δθ‖ / ‖θ‖.
    #[serde(default)]
    pub update_ratio: f32,
}

/// The curves of a run of any length, at most [`RECENT`] + [`WHOLE`] points, and what else is known of its course.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    #[serde(with = "table")]
    recent: std::collections::VecDeque<StepStats>,
    #[serde(with = "table")]
    whole: Vec<Point>,
    /// Steps per point of `whole`.
    stride: u64,
    /// Steps in the last, still open point.
    open: u64,
    /// Settings that changed on the way, oldest first.
    #[serde(default)]
    pub(super) changes: Vec<Change>,
    /// The loss by timestep.
    #[serde(default)]
    timesteps: TimestepLoss,
    /// Training against held-out images, oldest first.
    #[serde(default, with = "table")]
    evaluations: Vec<Evaluation>,
    /// What the moving average still holds of the initial weights, 0 to 1; `None` in runs of older versions.
    #[serde(default)]
    ema_initial: Option<f32>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            recent: std::collections::VecDeque::new(),
            whole: Vec::new(),
            stride: 1,
            open: 0,
            changes: Vec::new(),
            timesteps: TimestepLoss::default(),
            evaluations: Vec::new(),
            ema_initial: Some(1.0),
        }
    }
}

impl History {
    /// Takes in the next step.
    pub fn push(&mut self, s: StepStats) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(s);
        if let Some(share) = &mut self.ema_initial {
            *share *= s.ema_decay;
        }
        let StepStats { step, loss, grad_norm, learning_rate, update_ratio, .. } = s;
        let point = Point { step, loss, loss_min: loss, loss_max: loss, grad_norm, learning_rate, update_ratio };
        match self.whole.last_mut() {
            Some(last) if self.open < self.stride => {
                *last = merge(*last, self.open, point, 1);
                self.open += 1;
            }
            _ => {
                if self.whole.len() == WHOLE {
                    self.halve();
                }
                self.whole.push(point);
                self.open = 1;
            }
        }
    }

    /// Takes in the images of the newest step, on a schedule of `steps` timesteps.
    pub fn push_samples(&mut self, step: u64, samples: &[Sample], steps: usize) {
        self.timesteps.push(step, samples, steps);
    }

    /// The loss by timestep.
    pub fn timesteps(&self) -> &TimestepLoss {
        &self.timesteps
    }

    /// Takes in the next evaluation.
    pub fn push_evaluation(&mut self, Evaluation { step, train, held_out }: Evaluation) {
        let [train, held_out] = [train, held_out].map(|loss| finite(loss.into()));
        evaluation::push(&mut self.evaluations, Evaluation { step, train, held_out });
    }

    /// Training against held-out images, oldest first.
    pub fn evaluations(&self) -> &[Evaluation] {
        &self.evaluations
    }

    /// What the moving average still holds of the initial weights, 0 to 1, where known.
    pub fn ema_initial(&self) -> Option<f32> {
        self.ema_initial
    }

    /// The newest steps, oldest first.
    pub fn recent(&self) -> impl ExactSizeIterator<Item = &StepStats> + DoubleEndedIterator {
        self.recent.iter()
    }

    /// The whole run, decimated.
    pub fn whole(&self) -> &[Point] {
        &self.whole
    }

    /// Settings that changed on the way, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The newest step.
    pub fn last(&self) -> Option<&StepStats> {
        self.recent.back()
    }

    /// Mean loss of the newest `n` steps.
    pub fn mean_loss(&self, n: usize) -> Option<f32> {
        let n = n.min(self.recent.len());
        (n > 0).then(|| self.recent.iter().rev().take(n).map(|s| s.loss).sum::<f32>() / n as f32)
    }

    fn halve(&mut self) {
        let stride = self.stride;
        self.whole =
            self.whole.chunks(2).map(|p| if let [a, b] = *p { merge(a, stride, b, stride) } else { p[0] }).collect();
        self.stride *= 2;
    }
}

fn merge(a: Point, na: u64, b: Point, nb: u64) -> Point {
    // in f64, where a sum of the largest numbers is still one
    let mean = |x: f32, y: f32| ((f64::from(x) * na as f64 + f64::from(y) * nb as f64) / (na + nb) as f64) as f32;
    Point {
        step: b.step,
        loss: mean(a.loss, b.loss),
        loss_min: a.loss_min.min(b.loss_min),
        loss_max: a.loss_max.max(b.loss_max),
        grad_norm: mean(a.grad_norm, b.grad_norm),
        learning_rate: mean(a.learning_rate, b.learning_rate),
        update_ratio: mean(a.update_ratio, b.update_ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_back_whatever_was_measured() {
        let mut h = History::default();
        for (step, value) in [f32::MAX, f32::MAX, f32::NAN, f32::INFINITY].into_iter().enumerate() {
            h.push_evaluation(Evaluation { step: step as u64, train: value, held_out: value });
            let simple = value.min(f32::MAX);
            h.push_samples(step as u64, &[Sample { t: 1, simple, bits: -simple }; 2], 1000);
        }
        let text = serde_json::to_string(&h).unwrap();
        assert!(serde_json::from_str::<History>(&text).is_ok_and(|back| back == h), "{text}");
    }

    #[test]
    fn a_long_run_stays_bounded_and_keeps_its_mean_and_extremes() {
        let mut h = History::default();
        let n = 100_000_u64;
        for step in 1..=n {
            let loss = if step == 777 { 50.0 } else { (step % 10) as f32 };
            h.push(StepStats { step, loss, grad_norm: 1.0, learning_rate: 1.0, update_ratio: 1e-3, ema_decay: 0.9999 });
        }
        assert!(h.whole().len() <= WHOLE && h.recent().len() == RECENT);
        assert_eq!(h.last().unwrap().step, n);
        assert_eq!(h.whole().last().unwrap().step, n);
        assert!(h.whole().windows(2).all(|w| w[0].step < w[1].step));
        assert_eq!(h.whole().iter().map(|p| p.loss_max).fold(0.0, f32::max), 50.0);
        let mean = h.whole().iter().map(|p| p.loss).sum::<f32>() / h.whole().len() as f32;
        assert!((mean - 4.5).abs() < 0.05, "{mean}");
        assert!((h.mean_loss(1000).unwrap() - 4.5).abs() < 1e-3);
        // 0.9999^100000
        assert!((h.ema_initial().unwrap() / 4.54e-5 - 1.0).abs() < 0.02, "{:?}", h.ema_initial());
    }
}
