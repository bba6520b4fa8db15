//! The exact denoiser of a data set: what the best possible network would predict, had it only these images to learn from.

use super::Denoiser;
use crate::diffusion::Images;
use crate::diffusion::process;
use crate::diffusion::schedule::Schedule;
use crate::error::{Error, Result};
use crate::kernels::threads::map_each;
use std::sync::Arc;

/// Pixel values that an oracle looks through: all 60,000 images of 28x28, or 21,845 of 3x32x32. Of a larger data set it
/// knows evenly spaced images.
pub const MOST_VALUES: usize = 1 << 26;
/// Images that one task works through. Sums are taken task by task in order, so threads change no bit.
const TASK: usize = 512;
/// Weights below this share of the largest are left out: 2^26 of them together change no bit of an f32.
const NEGLIGIBLE: f64 = 1.0 / (1_u64 << 60) as f64;

type Pixels = dyn AsRef<[u8]> + Send + Sync;

/// E[x_0 | x_t] where x_0 is one of N images, each as likely as the other: their mean, weighted by the softmax of
/// -||x_t - √ᾱ_t x_0||² / 2(1-ᾱ_t).
pub struct Oracle {
    /// Images of c·h·w bytes one after the other, 0 black.
    pixels: Arc<Pixels>,
    /// Which of them it knows.
    known: Vec<usize>,
    shape: [usize; 3],
    schedule: Arc<Schedule>,
}

impl Oracle {
    /// An oracle of the images in `pixels`, each of `shape` = [c, h, w], on the full `schedule`.
    ///
    /// # Errors
    /// If `pixels` holds no image, or not a whole number of them.
    pub fn new(pixels: Arc<Pixels>, shape: [usize; 3], schedule: Arc<Schedule>) -> Result<Self> {
        Self::of(pixels, shape, schedule, MOST_VALUES)
    }

    /// One that knows so many pixel values at most.
    pub(crate) fn of(pixels: Arc<Pixels>, shape: [usize; 3], schedule: Arc<Schedule>, most: usize) -> Result<Self> {
        let (bytes, len) = ((*pixels).as_ref().len(), shape.iter().product::<usize>());
        if len == 0 || bytes == 0 || !bytes.is_multiple_of(len) {
            let why = format!("{bytes} bytes are no images of {shape:?}");
            return Err(Error::new("cannot make an oracle", why, "choose other data"));
        }
        let all = bytes / len;
        let n = all.min((most / len).max(1));
        let known = (0..n).map(|i| (i as u128 * all as u128 / n as u128) as usize).collect();
        Ok(Self { pixels, known, shape, schedule })
    }

    /// Number of images it knows.
    pub fn images(&self) -> usize {
        self.known.len()
    }

    /// Which of all images it knows.
    pub fn known(&self) -> &[usize] {
        &self.known
    }

    /// x̂_0 = E[x_0 | x_t] for each picture of `x_t` at timestep `t`, which the schedule must have. The same bytes on any
    /// number of threads.
    pub fn posterior_mean(&self, x_t: &Images, t: usize) -> Images {
        let alpha_bar = self.schedule.alphas_cumprod[t];
        let weights: Vec<Vec<f64>> = self.squared_distances(x_t, alpha_bar.sqrt() as f32).map_pictures(|distances| {
            let nearest = distances.iter().copied().fold(f64::INFINITY, f64::min);
            distances.iter().map(|d| ((nearest - d) / (2.0 * (1.0 - alpha_bar))).exp()).collect()
        });
        self.weighted_mean(x_t, &weights)
    }

    fn image(&self, known: usize) -> &[u8] {
        let len: usize = self.shape.iter().product();
        &(*self.pixels).as_ref()[known * len..][..len]
    }

    /// ||x_t - `scale`·x_0||² of each picture to each known image.
    fn squared_distances(&self, x_t: &Images, scale: f32) -> Distances {
        let known: Vec<&[usize]> = self.known.chunks(TASK).collect();
        let tasks = map_each(known.len(), |task| {
            let mut image = vec![0.0; x_t.len_one()];
            let mut distances = Vec::with_capacity(known[task].len() * x_t.n);
            for &i in known[task] {
                unpack(self.image(i), scale, &mut image);
                distances.extend((0..x_t.n).map(|picture| squared_distance(x_t.one(picture), &image)));
            }
            distances
        });
        Distances { n: x_t.n, tasks }
    }

    /// Σ w x_0 / Σ w for each picture.
    fn weighted_mean(&self, x_t: &Images, weights: &[Vec<f64>]) -> Images {
        let len = x_t.len_one();
        let known: Vec<&[usize]> = self.known.chunks(TASK).collect();
        let tasks = map_each(known.len(), |task| {
            let mut image = vec![0.0; len];
            let mut sums = vec![0.0; len * x_t.n];
            for (k, &i) in known[task].iter().enumerate() {
                let at = task * TASK + k;
                if weights.iter().all(|w| w[at] < NEGLIGIBLE) {
                    continue;
                }
                unpack(self.image(i), 1.0, &mut image);
                for (sums, weights) in sums.chunks_exact_mut(len).zip(weights) {
                    let w = weights[at] as f32;
                    if weights[at] >= NEGLIGIBLE {
                        sums.iter_mut().zip(&image).for_each(|(sum, x)| *sum += w * x);
                    }
                }
            }
            sums
        });
        let mut mean = Images::zeros(x_t.n, self.shape);
        for (picture, weights) in weights.iter().enumerate() {
            let total: f64 = weights.iter().filter(|w| **w >= NEGLIGIBLE).sum();
            for (j, out) in mean.one_mut(picture).iter_mut().enumerate() {
                let sum: f64 = tasks.iter().map(|sums| f64::from(sums[picture * len + j])).sum();
                *out = (sum / total) as f32;
            }
        }
        mean
    }
}

/// Distances of `n` pictures, by task, then image, then picture.
struct Distances {
    n: usize,
    tasks: Vec<Vec<f64>>,
}

impl Distances {
    /// `f` of the distances of each picture to all images, in their order.
    fn map_pictures(&self, f: impl Fn(&[f64]) -> Vec<f64> + Sync) -> Vec<Vec<f64>> {
        let of = |picture: usize| -> Vec<f64> {
            self.tasks.iter().flat_map(|task| task.iter().skip(picture).step_by(self.n)).copied().collect()
        };
        map_each(self.n, |picture| f(&of(picture)))
    }
}

/// Bytes as `scale` times their values in [-1, 1].
fn unpack(bytes: &[u8], scale: f32, out: &mut [f32]) {
    let step = scale / 127.5;
    out.iter_mut().zip(bytes).for_each(|(x, b)| *x = f32::from(*b) * step - scale);
}

/// ||a - b||², sixteen sums at a time and in f64 every 128 values.
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut total = 0.0;
    for (a, b) in a.chunks(8 * LANES).zip(b.chunks(8 * LANES)) {
        let mut sums = [0.0_f32; LANES];
        let (a16, b16) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = a16.remainder().iter().zip(b16.remainder()).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        for (a, b) in a16.zip(b16) {
            for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum += (a - b) * (a - b);
            }
        }
        total += rest + sums.iter().map(|v| f64::from(*v)).sum::<f64>();
    }
    total
}

impl Denoiser for Oracle {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// As the trait says; `t` whole, and the same for all pictures.
    fn predict(&self, x_t: &Images, t: &[f32]) -> Result<Images> {
        let wrong = |why: String| Error::new("the oracle cannot predict the noise", why, "");
        if x_t.shape() != self.shape {
            return Err(wrong(format!("pictures of {:?} do not fit images of {:?}", x_t.shape(), self.shape)));
        }
        let step = t.first().map_or(0, |t| *t as usize);
        if step >= self.schedule.steps() || t.iter().any(|t| *t != step as f32) {
            return Err(wrong(format!(
                "it knows the whole timesteps 0 to {}, one at a time",
                self.schedule.steps() - 1
            )));
        }
        Ok(process::predict_eps_from_xstart(&self.schedule, x_t, step, &self.posterior_mean(x_t, step)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::noise::{Purpose, stream};
    use crate::diffusion::sampler::{Sampler, SamplerKind, Variance};
    use crate::diffusion::schedule::{ScheduleConfig, Spacing};
    use crate::kernels::threads::Team;

    const SHAPE: [usize; 3] = [1, 5, 7];
    const LEN: usize = 35;

    fn schedule() -> Arc<Schedule> {
        Arc::new(Schedule::new(&ScheduleConfig::default()).unwrap())
    }

    fn oracle(n: usize) -> Oracle {
        let mut stream = stream(4, Purpose::Pick, [0, 0]);
        let pixels: Vec<u8> = (0..n * LEN).map(|_| stream.below(256) as u8).collect();
        Oracle::new(Arc::new(pixels), SHAPE, schedule()).unwrap()
    }

    fn data(oracle: &Oracle, i: usize) -> Vec<f64> {
        oracle.image(i).iter().map(|b| f64::from(*b) / 127.5 - 1.0).collect()
    }

    /// x_t of the data image `i` of an oracle.
    fn drowned(oracle: &Oracle, i: usize, t: usize) -> Images {
        let x = Images::new(1, SHAPE, data(oracle, i).iter().map(|v| *v as f32).collect());
        process::q_sample(&schedule(), &x, &[t], &process::noise_images(1, Purpose::Forward, 0, t as u64, 1, SHAPE))
    }

    #[test]
    fn of_two_images_it_is_the_closed_form() {
        // log p(a|x_t) / p(b|x_t) is linear in x_t: x̂_0 = b + σ(logit) (a - b)
        let oracle = oracle(2);
        let (a, b) = (data(&oracle, 0), data(&oracle, 1));
        let mut undecided = 0;
        for t in [0, 30, 200, 500, 700, 850, 999] {
            let x_t = drowned(&oracle, t % 2, t);
            let ac = schedule().alphas_cumprod[t];
            let logit: f64 = (0..LEN)
                .map(|j| {
                    let x = f64::from(x_t.data[j]);
                    (ac.sqrt() * x * (a[j] - b[j]) - ac * (a[j] * a[j] - b[j] * b[j]) / 2.0) / (1.0 - ac)
                })
                .sum();
            let share = 1.0 / (1.0 + (-logit).exp());
            undecided += usize::from((0.01..0.99).contains(&share));
            let xstart = oracle.posterior_mean(&x_t, t);
            let eps = oracle.predict(&x_t, &[t as f32]).unwrap();
            for j in 0..LEN {
                let exact = b[j] + share * (a[j] - b[j]);
                assert!((f64::from(xstart.data[j]) - exact).abs() < 2e-6, "t = {t}: {} {exact}", xstart.data[j]);
                let noise = (f64::from(x_t.data[j]) - ac.sqrt() * exact) / (1.0 - ac).sqrt();
                assert!((f64::from(eps.data[j]) - noise).abs() < 1e-4, "t = {t}: {} {noise}", eps.data[j]);
            }
        }
        assert!(undecided >= 2, "both images count at {undecided} of these timesteps");
    }

    #[test]
    fn samplers_driven_by_it_land_on_data_images() {
        let (oracle, n) = (oracle(20), 6);
        let mut reached = Vec::new();
        for (kind, steps) in [
            (SamplerKind::Ddpm { variance: Variance::FixedSmall }, 1000),
            (SamplerKind::Ddpm { variance: Variance::FixedLarge }, 250),
            (SamplerKind::Ddim { eta: 0.0 }, 50),
            (SamplerKind::Ddim { eta: 1.0 }, 100),
        ] {
            let x = process::noise_images(8, Purpose::Start, 0, 0, n, SHAPE);
            let spaced = schedule().spaced(steps, Spacing::Leading).unwrap();
            let mut sampler = Sampler::new(spaced, kind, true, x).unwrap();
            while let Some(t) = sampler.wants() {
                let eps = oracle.predict(sampler.x(), &vec![t as f32; n]).unwrap();
                sampler.advance(&eps, |t| process::noise_images(8, Purpose::Step, 0, t as u64, n, SHAPE)).unwrap();
            }
            for picture in 0..n {
                let miss = |i: usize| {
                    let far = |(x, d): (&f32, &f64)| (f64::from(*x) - d).abs();
                    sampler.x().one(picture).iter().zip(&data(&oracle, i)).map(far).fold(0.0, f64::max)
                };
                let landed = (0..20).find(|i| miss(*i) < 1e-3).unwrap_or_else(|| panic!("{kind:?}: no data image"));
                reached.push(landed);
            }
        }
        reached.sort_unstable();
        reached.dedup();
        assert!(reached.len() > 4, "different noise finds different images: {reached:?}");
    }

    #[test]
    fn threads_change_no_bit() {
        let oracle = oracle(3 * TASK + 77);
        let mut x_t = Images::zeros(5, SHAPE);
        (0..5).for_each(|i| x_t.one_mut(i).copy_from_slice(&drowned(&oracle, 100 * i, 600).data));
        let on =
            |threads: usize| Team::new(threads, || ()).unwrap().lead(|| oracle.predict(&x_t, &[600.0; 5]).unwrap());
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(3));
        let alone = Images::new(1, SHAPE, x_t.one(3).to_vec());
        assert_eq!(oracle.predict(&alone, &[600.0]).unwrap().data, one.one(3), "a picture depends on its neighbours");
    }

    #[test]
    fn nothing_overflows_far_from_all_images() {
        let oracle = oracle(9);
        for value in [1e4, -1e4, 0.0] {
            for t in [0, 999] {
                let mean = oracle.posterior_mean(&Images::new(1, SHAPE, vec![value; LEN]), t);
                assert!(mean.data.iter().all(|v| (-1.000_001..=1.000_001).contains(v)), "{value} {t}: {mean:?}");
            }
        }
    }

    #[test]
    fn of_too_many_images_it_knows_evenly_spaced_ones() {
        let side = 4096;
        let oracle = Oracle::new(Arc::new(vec![0; 9 * side * side]), [1, side, side], schedule()).unwrap();
        assert_eq!((oracle.images(), oracle.known.as_slice()), (4, [0, 2, 4, 6].as_slice()));
        for (bytes, shape) in [(20, SHAPE), (0, SHAPE), (20, [1, 0, 7])] {
            let error = Oracle::new(Arc::new(vec![0; bytes]), shape, schedule()).err().unwrap();
            assert!(error.to_string().contains("no images"), "{error}");
        }
    }

    #[test]
    fn what_it_cannot_predict_is_said() {
        let oracle = oracle(2);
        let x = Images::zeros(1, SHAPE);
        assert!(oracle.predict(&x, &[1000.0]).unwrap_err().to_string().contains("0 to 999"));
        assert!(oracle.predict(&x, &[0.5]).is_err() && oracle.predict(&x, &[f32::NAN]).is_err());
        assert!(oracle.predict(&Images::zeros(1, [1, 2, 2]), &[1.0]).is_err());
    }
}
