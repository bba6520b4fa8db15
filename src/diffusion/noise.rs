//! Randomness by address: the same (seed, purpose, index) gives the same numbers, in any order and on any thread.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use rand_distr::{Distribution as _, StandardNormal};

/// What a stream of random numbers is for. Streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// x_T, the static a reverse film starts from; index: image.
    Start = 1,
    /// z of a reverse step; index: image, step.
    Step = 2,
    /// ε of the closed form q(x_t|x_0); index: image.
    Forward = 3,
    /// ε of one link of the chain x_{t-1} → x_t; index: image, t.
    Chain = 4,
    /// Timesteps of a training batch; index: step.
    TrainTime = 5,
    /// ε of a training batch; index: step.
    TrainNoise = 6,
    /// Order of the data in an epoch; index: epoch.
    Shuffle = 7,
    /// Mirroring of images; index: step.
    Flip = 8,
    /// Dropout masks; index: step, then micro-batch and residual block in one number.
    Dropout = 9,
    /// Initial weights; index: parameter.
    Init = 10,
    /// Which images of the data set a film shows; index: image.
    Pick = 11,
    /// ε of the images that a run is measured with; index: image.
    Evaluation = 12,
    /// Images and ε of the oracle's loss; index: unit of work.
    Floor = 13,
}

/// A stream of random numbers at one address.
pub struct Stream(ChaCha8Rng);

/// Opens the stream at `(seed, purpose, index)`; up to two numbers of index, see [`Purpose`].
pub fn stream(seed: u64, purpose: Purpose, index: [u64; 2]) -> Stream {
    let mut key = [0; 32];
    for (word, value) in key.chunks_exact_mut(8).zip([seed, purpose as u64, index[0], index[1]]) {
        word.copy_from_slice(&value.to_le_bytes());
    }
    Stream(ChaCha8Rng::from_seed(key))
}

/// `n` standard normal deviates at an address.
pub fn normal(seed: u64, purpose: Purpose, index: [u64; 2], n: usize) -> Vec<f32> {
    let mut values = vec![0.0; n];
    stream(seed, purpose, index).fill_normal(&mut values);
    values
}

impl Stream {
    /// Fills `out` with standard normal deviates.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for v in out {
            *v = StandardNormal.sample(&mut self.0);
        }
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in 0..n; `n` must not be 0. The bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A uniformly random order of 0..n (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_always_gives_the_same_numbers_and_no_other_address_does() {
        let a = normal(7, Purpose::Start, [3, 0], 64);
        assert_eq!(a, normal(7, Purpose::Start, [3, 0], 64));
        for (seed, purpose, index) in
            [(8, Purpose::Start, [3, 0]), (7, Purpose::Step, [3, 0]), (7, Purpose::Start, [0, 3])]
        {
            assert_ne!(a, normal(seed, purpose, index, 64));
        }
    }

    #[test]
    fn deviates_are_standard_normal() {
        let z = normal(1, Purpose::Forward, [0, 0], 200_000);
        let n = z.len() as f64;
        let moment = |k: i32| z.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.01, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "variance {}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.1, "fourth moment {}", moment(4));
    }

    #[test]
    fn a_permutation_holds_each_index_once_and_below_covers_its_range() {
        let mut order = stream(1, Purpose::Shuffle, [0, 0]).permutation(1000);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i == v as usize));
        let mut s = stream(2, Purpose::TrainTime, [0, 0]);
        let mut seen = [0; 10];
        (0..10_000).for_each(|_| seen[s.below(10)] += 1);
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
    }
}
