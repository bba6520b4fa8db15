//! The oracle's loss by timestep: what the best possible network would reach on these very images.

use super::timesteps::{BINS, timesteps};
use crate::data::Dataset;
use crate::diffusion::noise::{Purpose, stream};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::{bound, process};
use crate::error::Result;
use crate::model::Denoiser as _;
use crate::model::oracle::Oracle;
use std::sync::Arc;

/// Pictures of one unit of work.
const PICTURES: usize = 8;
/// Units for each bin, at as many timesteps spread over it.
const ROUNDS: usize = 4;
/// The floor is the same for all runs on the same data and schedule.
const SEED: u64 = 42;

/// The floor by now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floor {
    /// Images that the oracle knows.
    pub images: usize,
    /// L_simple of each bin, where it is known.
    pub simple: Vec<Option<f32>>,
    /// L_{t-1} of each bin, t = 1 and up, bits per dimension.
    pub bits: Vec<Option<f32>>,
    /// Pictures behind every bin; some bins may have more.
    pub pictures: usize,
}

/// Works out the floor in small units.
pub struct FloorJob {
    oracle: Oracle,
    data: Arc<Dataset>,
    schedule: Arc<Schedule>,
    units: usize,
    /// Sums over pictures: L_simple, then L_{t-1}, with their numbers.
    sums: Vec<[(f64, u32); 2]>,
}

impl FloorJob {
    /// The floor of `data`.
    ///
    /// # Errors
    /// Those of [`Oracle::new`].
    pub fn new(data: Arc<Dataset>, schedule: Arc<Schedule>) -> Result<Self> {
        let oracle = Oracle::new(Arc::clone(&data) as _, data.shape, Arc::clone(&schedule))?;
        Ok(Self::of(oracle, data, schedule))
    }

    fn of(oracle: Oracle, data: Arc<Dataset>, schedule: Arc<Schedule>) -> Self {
        Self { oracle, data, schedule, units: 0, sums: vec![[(0.0, 0); 2]; BINS] }
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.units == ROUNDS * BINS
    }

    /// The next few pictures, at one timestep. The same numbers on any number of threads.
    ///
    /// # Errors
    /// Those of the oracle.
    pub fn advance(&mut self) -> Result<()> {
        // neighbouring bins last, so that the whole curve is there early
        let (round, i) = (self.units / BINS, self.units % BINS);
        let bin = (i * 37) % BINS;
        let all = timesteps(bin, self.schedule.steps());
        self.units += 1;
        if all.is_empty() {
            return Ok(());
        }
        let t = all.start + (2 * round + 1) * all.len() / (2 * ROUNDS);
        let mut pick = stream(SEED, Purpose::Floor, [self.units as u64, 0]);
        // of an image that the oracle does not know its loss is no floor
        let known = self.oracle.known();
        let picked: Vec<usize> = (0..PICTURES).map(|_| known[pick.below(known.len())]).collect();
        let x_start = self.data.images(&picked);
        let noise = process::noise_images(SEED, Purpose::Floor, 1, self.units as u64, PICTURES, self.data.shape);
        let x_t = process::q_sample(&self.schedule, &x_start, &[t; PICTURES], &noise);
        let eps = self.oracle.predict(&x_t, &[t as f32; PICTURES])?;
        for i in 0..PICTURES {
            let error: Vec<f32> = eps.one(i).iter().zip(noise.one(i)).map(|(a, b)| a - b).collect();
            let simple = error.iter().map(|e| f64::from(*e).powi(2)).sum::<f64>() / error.len() as f64;
            let mut add = |kind: usize, value: f64| {
                let (sum, n) = &mut self.sums[bin][kind];
                (*sum, *n) = (*sum + value, *n + 1);
            };
            add(0, simple);
            if t > 0 {
                add(1, bound::bits_per_dim(&self.schedule, t, x_start.one(i), &error));
            }
        }
        Ok(())
    }

    /// What is known by now.
    pub fn floor(&self) -> Floor {
        let of = |kind: usize| {
            let mean = |bin: &[(f64, u32); 2]| (bin[kind].1 > 0).then(|| (bin[kind].0 / f64::from(bin[kind].1)) as f32);
            self.sums.iter().map(mean).collect()
        };
        Floor { images: self.oracle.images(), simple: of(0), bits: of(1), pictures: PICTURES * (self.units / BINS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Found;
    use crate::diffusion::schedule::ScheduleConfig;

    /// Pictures of one pixel each: black or white, so all is known in closed form.
    fn job() -> FloorJob {
        knowing(2)
    }

    /// Of the first so many of them.
    fn knowing(images: usize) -> FloorJob {
        let data = Dataset {
            name: "test".into(),
            shape: [1, 1, 1],
            n: 2,
            pixels: vec![0, 255],
            classes: vec!["ink".into()],
            labels: vec![0, 0],
            flip: false,
            found: Found::default(),
            skipped: Vec::new(),
            held_out: None,
        };
        let (data, schedule) = (Arc::new(data), Arc::new(Schedule::new(&ScheduleConfig::default()).unwrap()));
        let oracle = Oracle::of(Arc::clone(&data) as _, data.shape, Arc::clone(&schedule), images).unwrap();
        FloorJob::of(oracle, data, schedule)
    }

    #[test]
    fn of_black_and_white_it_is_the_closed_form() {
        let mut job = job();
        while !job.is_done() {
            job.advance().unwrap();
        }
        let floor = job.floor();
        assert_eq!((floor.images, floor.pictures, floor.simple.len()), (2, 32, BINS));
        let at = |bin: usize| f64::from(floor.simple[bin].unwrap());
        // x̂_0 = tanh(√ᾱ x_t / (1-ᾱ)), so E‖ε - ε*‖² = ᾱ/(1-ᾱ) E(x_0 - x̂_0)²; x_0 is certain at first
        assert!(at(0) < 1e-6 && at(5) < 1e-3, "{} {}", at(0), at(5));
        let schedule = Schedule::new(&ScheduleConfig::default()).unwrap();
        for bin in [36, 48, 63] {
            let expected: f64 = timesteps(bin, 1000)
                .map(|t| {
                    let ac = schedule.alphas_cumprod[t];
                    // E over x_t of 1 - tanh², by the midpoint rule
                    let (mean, sd) = (ac.sqrt(), (1.0 - ac).sqrt());
                    let grid = (0..4000).map(|i| -8.0 + 0.004 * (f64::from(i) + 0.5));
                    let square = |z: f64| 1.0 - ((mean * (mean + sd * z)) / (1.0 - ac)).tanh();
                    let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
                    ac / (1.0 - ac) * grid.map(|z| square(z) * density(z) * 0.004).sum::<f64>()
                })
                .sum::<f64>()
                / timesteps(bin, 1000).len() as f64;
            // 32 pictures of one pixel are few: within a factor of two
            assert!((0.5..2.0).contains(&(at(bin) / expected)), "{bin}: {} {expected}", at(bin));
        }
    }

    #[test]
    fn it_is_that_of_the_images_that_the_oracle_knows() {
        let mut job = knowing(1);
        (0..BINS).for_each(|_| job.advance().unwrap());
        let floor = job.floor();
        assert!(floor.images == 1 && floor.simple.iter().all(|loss| loss.unwrap() < 1e-6), "{floor:?}");
    }

    #[test]
    fn the_whole_curve_is_there_after_one_round() {
        let mut job = job();
        (0..BINS).for_each(|_| job.advance().unwrap());
        let floor = job.floor();
        assert!(floor.simple.iter().chain(&floor.bits).all(Option::is_some) && !job.is_done());
        assert_eq!(floor.pictures, 8);
    }
}
