//! Train against held-out: the loss on fixed images of both, with the same timesteps and noise each time.

use crate::data::Dataset;
use crate::diffusion::noise::Purpose;
use crate::diffusion::process;
use crate::diffusion::schedule::Schedule;
use crate::error::Result;
use crate::model::Network;
use crate::model::compute::Compute;
use serde::{Deserialize, Serialize};

/// Images of each set.
pub const IMAGES: usize = 128;
/// Images per network call, which bounds the memory.
const CHUNK: usize = 32;
/// Share of training that an evaluation may cost; a step takes each image forward and backward, the work of three calls.
const SHARE: f64 = 0.02;
/// All runs are measured with the noise of this seed, so those on one schedule can be compared.
const SEED: u64 = 42;
/// Evaluations that are kept; past that every second one goes.
const MOST: usize = 256;

/// L_simple of the raw weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Steps done.
    pub step: u64,
    /// On images of the training set.
    pub train: f32,
    /// On images that are never trained on.
    pub held_out: f32,
}

/// Steps between two evaluations of a run with batches of that size.
pub fn every(batch: usize) -> u64 {
    let steps = (2 * IMAGES) as f64 / (3.0 * batch as f64 * SHARE);
    (steps.ceil() as u64).next_multiple_of(100)
}

/// Adds an evaluation; of many, evenly thinned ones stay, and the newest.
pub(super) fn push(all: &mut Vec<Evaluation>, new: Evaluation) {
    if all.len() == MOST {
        *all = all.iter().skip(1).step_by(2).copied().collect();
    }
    all.push(new);
}

/// L_simple (Eq. 14) of `network` on [`IMAGES`] images, evenly spaced in `data`, at timesteps evenly spaced in all.
pub(super) fn loss(network: &Network, compute: &Compute, schedule: &Schedule, data: &Dataset) -> Result<f32> {
    let mut sum = 0.0;
    for first in (0..IMAGES).step_by(CHUNK) {
        let chunk = first..(first + CHUNK).min(IMAGES);
        let picked: Vec<usize> = chunk.clone().map(|i| i * data.len() / IMAGES).collect();
        let t: Vec<usize> = chunk.clone().map(|i| (2 * i + 1) * schedule.steps() / (2 * IMAGES)).collect();
        let noise = process::noise_images(SEED, Purpose::Evaluation, first as u64, 0, chunk.len(), data.shape);
        let x_t = process::q_sample(schedule, &data.images(&picked), &t, &noise);
        let times: Vec<f32> = t.iter().map(|t| *t as f32).collect();
        let eps = compute.predict(network, &x_t, &times)?;
        sum += eps.data.iter().zip(&noise.data).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    Ok((sum / (IMAGES * data.shape.iter().product::<usize>()) as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluating_costs_two_percent_at_most() {
        for batch in [1, 2, 33, 64, 128, 4096] {
            let (cost, training) = (2.0 * IMAGES as f64, 3.0 * batch as f64 * every(batch) as f64);
            assert!(cost / training <= SHARE, "{batch}: every {}", every(batch));
        }
        assert_eq!((every(64), every(128)), (100, 100));
    }

    #[test]
    fn many_evaluations_stay_bounded_and_keep_the_newest() {
        let mut all = Vec::new();
        for step in 1..=10_000 {
            push(&mut all, Evaluation { step, train: 0.1, held_out: 0.1 });
        }
        assert!(all.len() <= MOST && all.last().map(|e| e.step) == Some(10_000));
        assert!(all.windows(2).all(|w| w[0].step < w[1].step));
    }
}
