//! The loss by timestep: 64 bins as they are now, and how they came there, in bounded memory.

use super::metrics::finite;
use super::table;
use serde::{Deserialize, Serialize};

/// Bins of timesteps, of equal width.
pub const BINS: usize = 64;
/// Samples that the average of a bin looks back on.
const WINDOW: u32 = 128;
/// Moments that the map remembers.
const COLUMNS: usize = 128;
/// Steps per moment at first.
const FIRST_STRIDE: u64 = 8;

/// What one image of a batch measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its timestep, from 0.
    pub t: usize,
    /// Mean squared error of its predicted noise (Eq. 14).
    pub simple: f32,
    /// Its term of the variational bound, bits per dimension (Eq. 12 and 13).
    pub bits: f32,
}

/// An average over the newest samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// The average; 0 without samples.
    pub mean: f32,
    /// Samples behind it, at most [`WINDOW`].
    pub n: u32,
}

impl Average {
    fn push(&mut self, value: f32) {
        self.n = (self.n + 1).min(WINDOW);
        self.mean = finite((self.mean + (value - self.mean) / self.n as f32).into());
    }

    /// The average, where there are samples.
    pub fn get(self) -> Option<f32> {
        (self.n > 0).then_some(self.mean)
    }
}

/// L_simple of consecutive steps in each bin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Last step.
    pub step: u64,
    sums: Vec<f32>,
    counts: Vec<u32>,
}

impl Column {
    /// Mean in that bin, where there are samples.
    pub fn mean(&self, bin: usize) -> Option<f32> {
        let (sum, n) = (self.sums.get(bin)?, self.counts.get(bin)?);
        (*n > 0).then(|| sum / *n as f32)
    }

    fn merge(&mut self, other: &Self) {
        self.step = other.step;
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a = finite((*a + b).into()));
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }
}

/// Losses by timestep over a run of any length, at most [`COLUMNS`] moments of [`BINS`] bins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimestepLoss {
    #[serde(with = "table")]
    simple: Vec<Average>,
    /// Without t = 0.
    #[serde(with = "table")]
    bits: Vec<Average>,
    decoder: Average,
    #[serde(with = "table")]
    columns: Vec<Column>,
    /// Steps per column.
    stride: u64,
    /// Steps in the last, still open column.
    open: u64,
}

impl Default for TimestepLoss {
    fn default() -> Self {
        Self {
            simple: vec![Average::default(); BINS],
            bits: vec![Average::default(); BINS],
            decoder: Average::default(),
            columns: Vec::new(),
            stride: FIRST_STRIDE,
            open: 0,
        }
    }
}

/// The bin of a timestep among `steps`.
pub fn bin(t: usize, steps: usize) -> usize {
    (t * BINS / steps.max(1)).min(BINS - 1)
}

/// The timesteps of a bin.
pub fn timesteps(bin: usize, steps: usize) -> std::ops::Range<usize> {
    (bin * steps).div_ceil(BINS)..((bin + 1) * steps).div_ceil(BINS)
}

impl TimestepLoss {
    /// Takes in the images of the next step, on a schedule of `steps` timesteps.
    pub fn push(&mut self, step: u64, samples: &[Sample], steps: usize) {
        let mut column = Column { step, sums: vec![0.0; BINS], counts: vec![0; BINS] };
        for sample in samples {
            let bin = bin(sample.t, steps);
            self.simple[bin].push(sample.simple);
            if sample.t > 0 {
                self.bits[bin].push(sample.bits)
            } else {
                self.decoder.push(sample.bits)
            }
            column.sums[bin] = finite((column.sums[bin] + sample.simple).into());
            column.counts[bin] += 1;
        }
        match self.columns.last_mut() {
            Some(last) if self.open < self.stride => {
                last.merge(&column);
                self.open += 1;
            }
            _ => {
                if self.columns.len() == COLUMNS {
                    self.halve();
                }
                self.columns.push(column);
                self.open = 1;
            }
        }
    }

    fn halve(&mut self) {
        let pairs = self.columns.chunks(2).map(|pair| {
            let mut column = pair[0].clone();
            pair[1..].iter().for_each(|other| column.merge(other));
            column
        });
        self.columns = pairs.collect();
        self.stride *= 2;
    }

    /// L_simple of each bin by now.
    pub fn simple(&self) -> &[Average] {
        &self.simple
    }

    /// L_{t-1} of each bin by now, t = 1 and up, bits per dimension.
    pub fn bits(&self) -> &[Average] {
        &self.bits
    }

    /// L_0 by now, bits per dimension.
    pub fn decoder(&self) -> Average {
        self.decoder
    }

    /// L_0 + Σ L_{t-1}, bits per dimension, once every bin has samples.
    pub fn total_bits(&self, steps: usize) -> Option<f32> {
        let mut total = self.decoder.get()?;
        for (i, average) in self.bits.iter().enumerate() {
            let n = timesteps(i, steps).filter(|t| *t > 0).count();
            if n > 0 {
                total += average.get()? * n as f32;
            }
        }
        Some(total)
    }

    /// Steps of each column but the last.
    pub fn stride(&self) -> u64 {
        self.stride
    }

    /// L_simple over the run, oldest first.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(t: usize, simple: f32) -> Sample {
        Sample { t, simple, bits: simple / 1000.0 }
    }

    #[test]
    fn bins_cover_all_timesteps_once() {
        for steps in [1, 10, 64, 65, 1000, 4000] {
            let mut next = 0;
            for i in 0..BINS {
                for t in timesteps(i, steps) {
                    assert_eq!((t, bin(t, steps)), (next, i), "{steps}");
                    next += 1;
                }
            }
            assert_eq!(next, steps);
        }
    }

    #[test]
    fn a_long_run_stays_bounded_and_keeps_the_mean_of_each_bin() {
        let mut loss = TimestepLoss::default();
        for step in 1..=20_000_u64 {
            let t = (step * 37 % 1000) as usize;
            loss.push(step, &[sample(t, t as f32), sample(999, 2.0)], 1000);
        }
        assert!(loss.columns().len() <= COLUMNS && loss.columns().windows(2).all(|w| w[0].step < w[1].step));
        assert_eq!(loss.columns().last().unwrap().step, 20_000);
        let count: u32 = loss.columns().iter().flat_map(|c| &c.counts).sum();
        assert_eq!(count, 40_000, "no sample is lost");
        let middle = timesteps(30, 1000);
        let mean = (middle.start + middle.end - 1) as f32 / 2.0;
        assert!((loss.simple()[30].get().unwrap() / mean - 1.0).abs() < 0.02);
        assert!((loss.columns()[50].mean(30).unwrap() / mean - 1.0).abs() < 0.02);
        assert_eq!(loss.columns()[0].mean(BINS), None);
    }

    #[test]
    fn the_bound_adds_up_every_timestep_and_keeps_the_pixels_apart() {
        let mut loss = TimestepLoss::default();
        assert_eq!(loss.total_bits(1000), None);
        for t in 0..1000 {
            let bits = if t == 0 { 1.5 } else { 0.001 };
            loss.push(t as u64 + 1, &[Sample { t, simple: 0.1, bits }], 1000);
        }
        assert!((loss.total_bits(1000).unwrap() - 2.499).abs() < 1e-4);
        assert_eq!(loss.decoder(), Average { mean: 1.5, n: 1 });
        assert!((loss.bits()[0].get().unwrap() - 0.001).abs() < 1e-9);
    }

    #[test]
    fn an_average_forgets_what_was_long_ago() {
        let mut average = Average::default();
        (0..1000).for_each(|_| average.push(1.0));
        (0..1000).for_each(|_| average.push(0.1));
        assert!((average.mean - 0.1).abs() < 1e-3, "{average:?}");
    }
}
