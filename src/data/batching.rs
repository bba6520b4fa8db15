//! Training batches by address: (seed, step, batch size) alone says which images a batch holds and which are mirrored.

use super::Dataset;
use crate::diffusion::Images;
use crate::diffusion::noise::{Purpose, stream};

/// An image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Which image of the data set.
    pub index: usize,
    /// Whether left and right are exchanged.
    pub mirrored: bool,
}

impl Dataset {
    /// The images of training step `step`, from 0. Each epoch visits every image once in an order of its own, and batches
    /// run on across its end; with `flip` an image is mirrored with probability 1/2 (Ho et al. 2020, Appendix B).
    pub fn draw(&self, seed: u64, step: u64, batch: usize, flip: bool) -> Vec<Drawn> {
        let mut coin = stream(seed, Purpose::Flip, [step, 0]);
        let order = self.order(seed, step, batch).into_iter();
        order.map(|index| Drawn { index, mirrored: flip && coin.below(2) == 1 }).collect()
    }

    /// The pictures of [`Dataset::draw`].
    pub fn batch(&self, seed: u64, step: u64, batch: usize, flip: bool) -> Images {
        self.drawn(&self.draw(seed, step, batch, flip))
    }

    /// These pictures, as a network gets them.
    pub fn drawn(&self, drawn: &[Drawn]) -> Images {
        let mut images = self.images(&drawn.iter().map(|d| d.index).collect::<Vec<_>>());
        for (i, _) in drawn.iter().enumerate().filter(|(_, d)| d.mirrored) {
            let w = images.w;
            images.one_mut(i).chunks_exact_mut(w).for_each(<[f32]>::reverse);
        }
        images
    }

    /// The indices of the images of training step `step`.
    fn order(&self, seed: u64, step: u64, batch: usize) -> Vec<usize> {
        let n = self.n as u128;
        let start = u128::from(step) * batch as u128;
        let end = start + batch as u128;
        let mut indices = Vec::with_capacity(batch);
        for epoch in start / n..end.div_ceil(n) {
            let order = stream(seed, Purpose::Shuffle, [epoch as u64, 0]).permutation(self.n);
            let [from, to] = [start, end].map(|at| at.saturating_sub(epoch * n).min(n) as usize);
            indices.extend(order[from..to].iter().map(|&i| i as usize));
        }
        indices
    }
}

#[cfg(test)]
mod tests {
    use super::super::part::Part;
    use super::*;

    /// Image i is [i, 255 - i].
    fn dataset(n: usize) -> Dataset {
        let pixels = (0..n).flat_map(|i| [i as u8, 255 - i as u8]).collect();
        let labels = vec![0; n];
        Dataset::new("test".to_owned(), [1, 1, 2], Part { pixels, labels, ..Part::default() })
    }

    #[test]
    fn an_epoch_holds_every_image_once_across_ragged_batches() {
        let data = dataset(100);
        let seen: Vec<usize> = (0..100).flat_map(|step| data.order(3, step, 7)).collect();
        let mut epochs: Vec<Vec<usize>> = seen.chunks(100).map(<[_]>::to_vec).collect();
        assert_ne!(epochs[0], epochs[1]);
        for epoch in &mut epochs {
            epoch.sort_unstable();
            assert_eq!(*epoch, (0..100).collect::<Vec<_>>());
        }
        assert_eq!(dataset(3).order(1, 5, 10).len(), 10);
    }

    #[test]
    fn the_address_decides_the_batch() {
        let data = dataset(100);
        assert_eq!(data.batch(5, 1_000_000, 16, true), data.batch(5, 1_000_000, 16, true));
        assert_ne!(data.batch(5, 0, 16, true), data.batch(5, 1, 16, true));
        assert_ne!(data.batch(5, 0, 16, true), data.batch(6, 0, 16, true));
        let far = data.order(5, u64::MAX, 16);
        assert!(far.len() == 16 && far.iter().all(|&i| i < 100));
    }

    #[test]
    fn half_of_the_images_are_mirrored_if_it_is_asked_for() {
        let data = dataset(100);
        let mirrored = |flip| {
            let batch = data.batch(1, 0, 1000, flip);
            (0..1000).zip(data.order(1, 0, 1000)).filter(|&(i, k)| batch.one(i) != data.images(&[k]).one(0)).count()
        };
        assert_eq!(mirrored(false), 0);
        assert!((400..600).contains(&mirrored(true)), "{}", mirrored(true));
    }
}
