//! Images of the same kind that are never trained on.

use super::part::Part;
use super::{Dataset, Progress, Source, cifar};
use crate::error::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of data without a test set one image in so many is held out: 4 %, evenly over folders and classes.
const ONE_IN: usize = 25;

impl Dataset {
    /// The test set that belongs to `source`, if there is one: that of MNIST, the IDX file or CIFAR batch of test images
    /// beside those of training images, or the folder "test" beside a folder "train"; of several places only all of them.
    /// As [`Dataset::load`].
    ///
    /// # Errors
    /// Those of [`Dataset::load`].
    pub fn test_set(source: &Source, shape: [usize; 3], progress: Progress<'_>) -> Result<Option<Self>> {
        match test_sets(source) {
            _ if *source == Source::Mnist => Self::mnist_test(shape, progress).map(Some),
            Some(tests) => Self::load(&Source::Several(tests), shape, progress).map(Some),
            None => Ok(None),
        }
    }

    /// Takes one of each [`ONE_IN`] images out, which are not trained on.
    pub(super) fn hold_out(&mut self) {
        let len = self.pixels.len() / self.n;
        let (mut pixels, mut labels, mut kept) = (Vec::new(), Vec::new(), 0);
        for i in 0..self.n {
            let image = i * len..(i + 1) * len;
            if i % ONE_IN == ONE_IN - 1 {
                pixels.extend_from_slice(&self.pixels[image]);
                labels.push(self.labels[i]);
            } else {
                self.pixels.copy_within(image, kept * len);
                self.labels[kept] = self.labels[i];
                kept += 1;
            }
        }
        self.pixels.truncate(kept * len);
        self.labels.truncate(kept);
        self.n = kept;
        if !labels.is_empty() {
            let part = Part { pixels, labels, classes: self.classes.clone(), flip: self.flip, ..Part::default() };
            self.held_out = Some(Arc::new(Self::new(format!("{}, held out", self.name), self.shape, part)));
        }
    }

    /// Least and largest byte, and the mean square of the pixels in [-1, 1].
    pub fn range(&self) -> ((u8, u8), f64) {
        let mut counts = [0_u64; 256];
        self.pixels.iter().for_each(|v| counts[usize::from(*v)] += 1);
        let present = || (0..=255_u8).filter(|v| counts[usize::from(*v)] > 0);
        let square = |v: u8| (f64::from(v) / 127.5 - 1.0).powi(2);
        let sum: f64 = present().map(|v| square(v) * counts[usize::from(v)] as f64).sum();
        let ends = present().next().zip(present().next_back());
        (ends.unwrap_or_default(), sum / self.pixels.len().max(1) as f64)
    }
}

impl Source {
    /// What is read of it today: nothing need be held out where a test set belongs to it.
    pub fn decided(&self) -> Self {
        match self {
            Self::Rest(all) if **all == Self::Mnist || test_sets(all).is_some() => Self::clone(all),
            decided => decided.clone(),
        }
    }
}

/// Those of all its places.
fn test_sets(source: &Source) -> Option<Vec<Source>> {
    let test_of = |place: &Source| match place {
        Source::Path(path) => test_set(path).map(Source::Path),
        _ => None,
    };
    source.places().iter().map(test_of).collect()
}

/// Where the test images that belong to these training images lie.
fn test_set(path: &Path) -> Option<PathBuf> {
    if path.is_dir() && path.file_name().is_some_and(|name| name == "train") {
        return Some(path.with_file_name("test")).filter(|test| test.is_dir());
    }
    // first, as the training images are looked for
    if let Some(images) = super::idx_images(path).ok()? {
        let name = images.file_name()?.to_str()?;
        let tests = ["t10k", "test"].map(|test| images.with_file_name(name.replacen("train", test, 1)));
        return tests.into_iter().find(|test| name.contains("train") && test.is_file());
    }
    let batch = cifar::batches(path)?.0.into_iter().next()?;
    let test = match batch.file_name()?.to_str()? {
        "train.bin" => "test.bin",
        name if name.starts_with("data_batch_") => "test_batch.bin",
        _ => return None,
    };
    Some(batch.with_file_name(test)).filter(|test| test.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_sets_are_found_beside_training_sets_and_nowhere_else() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let touch = |name: &str| std::fs::write(dir.join(name), [0, 0, 8, 3]).unwrap();
        touch("train-images-idx3-ubyte");
        assert_eq!(test_set(dir), None);
        touch("t10k-images-idx3-ubyte");
        let found = dir.join("t10k-images-idx3-ubyte");
        assert_eq!(test_set(dir).as_ref(), Some(&found));
        assert_eq!(test_set(&dir.join("train-images-idx3-ubyte")).as_ref(), Some(&found));
        assert_eq!(test_set(&found), None, "test images have no test images");
        for name in ["own/train", "own/test", "alone/train", "cifar"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        touch("cifar/data_batch_1.bin");
        assert_eq!(test_set(&dir.join("cifar")), None);
        touch("cifar/test_batch.bin");
        assert_eq!(test_set(&dir.join("cifar")), Some(dir.join("cifar/test_batch.bin")));
        assert_eq!(test_set(&dir.join("cifar/test_batch.bin")), None);
        assert_eq!(test_set(&dir.join("cifar/data_batch_1.bin")), Some(dir.join("cifar/test_batch.bin")));
        touch("cifar/train.bin");
        touch("cifar/test.bin");
        assert_eq!(test_set(&dir.join("cifar/train.bin")), Some(dir.join("cifar/test.bin")));
        std::fs::create_dir(dir.join("cifar-10-batches-bin")).unwrap();
        touch("cifar-10-batches-bin/data_batch_1.bin");
        touch("cifar-10-batches-bin/test_batch.bin");
        assert_eq!(test_set(dir), Some(found), "the IDX files beside them are what is trained on");
        assert_eq!(test_set(&dir.join("own/train")), Some(dir.join("own/test")));
        assert_eq!((test_set(&dir.join("own/test")), test_set(&dir.join("alone/train"))), (None, None));
    }

    #[test]
    fn one_image_in_twenty_five_is_held_out_and_no_other_image_is_lost() {
        let set = |n: usize| {
            let pixels = (0..n).flat_map(|i| [i as u8, 1]).collect();
            let labels = (0..n as u32).collect();
            let classes = (0..n).map(|i| i.to_string()).collect();
            let mut set = Dataset::new("own".into(), [1, 1, 2], Part { pixels, labels, classes, ..Part::default() });
            set.hold_out();
            set
        };
        let few = set(24);
        assert!(few.n == 24 && few.held_out.is_none() && few.image(23) == [23, 1]);
        let many = set(60);
        let held = many.held_out.as_deref().unwrap();
        assert_eq!((many.n, held.n, held.labels.as_slice()), (58, 2, &[24, 49][..]));
        assert_eq!((held.image(1), many.image(24), many.image(57)), (&[49, 1][..], &[25, 1][..], &[59, 1][..]));
        assert!((0..58).all(|i| many.labels[i] == u32::from(many.image(i)[0])));
    }

    #[test]
    fn the_range_is_that_of_the_pixels() {
        let pixels = vec![3, 255, 0, 10];
        let data = Dataset::new("test".into(), [1, 1, 2], Part { pixels, labels: vec![0; 2], ..Part::default() });
        let (ends, mean_square) = data.range();
        let expected: f64 = [3.0, 255.0, 0.0, 10.0_f64].iter().map(|v| (v / 127.5 - 1.0).powi(2)).sum::<f64>() / 4.0;
        assert!(ends == (0, 255) && (mean_square - expected).abs() < 1e-12);
    }
}
