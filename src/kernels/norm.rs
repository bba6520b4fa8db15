//! Group normalisation (Wu & He 2018) with or without SiLU, in one operation each way.

use super::layout::{self, Strip};
use super::memory::{Numbers, Reader, Target, part, tensor, written};
use super::pixels::{RUN, SumProducts, finish_gradient, normalise, sum, sum_squares};
use super::tape::{Fused, OfThree, apply_fused, wants_gradient, with_known};
use super::threads::{self, for_each};
use candle_core::{Result, Shape, Tensor, bail};
use std::ops::Range;
use std::sync::OnceLock;

/// Pixels of one image that are worth a thread of their own.
const PART: usize = 64;

/// Normalises each of `groups` groups of channels of each image, scales by `weight` [c], shifts by `bias` [c]; then
/// x·sigmoid(x) with `silu`. The channels are those of `x`, one map [n, h, w, ..] after the other.
pub(super) fn group_norm(
    x: &[&Tensor],
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let op = || GroupNorm { groups, eps, silu, moments: OnceLock::new() };
    let apart = || layout::concat(x)?.apply_op3(&weight, &bias, OfThree(op()));
    apply_fused(&[x, &[&weight, &bias]].concat(), op(), apart)
}

/// The operation of [`group_norm`], of the maps, the weight and the bias.
struct GroupNorm {
    groups: usize,
    eps: f64,
    silu: bool,
    /// What the forward pass found, for the backward pass: per image and channel its group's mean, then, in the second
    /// half, 1/√(variance + eps).
    moments: OnceLock<Vec<f32>>,
}

impl GroupNorm {
    fn sizes(&self, x: &Shape) -> Result<(usize, usize, usize)> {
        let (n, h, w, c) = x.dims4()?;
        if self.groups == 0 || c == 0 || !c.is_multiple_of(self.groups) {
            bail!("cannot normalise {c} channels in {} groups", self.groups);
        }
        Ok((n, h * w, c))
    }

    fn find_moments(&self, strips: &[Strip], image: Range<usize>, mean: &mut [f32], rstd: &mut [f32]) {
        for (to, from) in mean.iter_mut().zip(self.means(strips, &image, |run, _, sums| sum(run, sums))) {
            *to = from as f32;
        }
        let squares = |run: &[f32], of: Range<usize>, sums: &mut [f32]| sum_squares(run, &mean[of], sums);
        for (to, from) in rstd.iter_mut().zip(self.means(strips, &image, squares)) {
            *to = (1.0 / (from + self.eps).sqrt()) as f32;
        }
    }

    /// For each channel the mean over its group in an image of what `add` adds up: runs of pixels in f32, their sums in f64.
    fn means(
        &self,
        strips: &[Strip],
        image: &Range<usize>,
        add: impl Fn(&[f32], Range<usize>, &mut [f32]),
    ) -> Vec<f64> {
        let c = strips.last().map_or(0, |strip| strip.channels.end);
        let (mut sums, mut run_sums) = (vec![0.0; c], vec![0.0; c]);
        for strip in strips {
            let of = || strip.channels.clone();
            for run in strip.pixels(image).chunks(RUN * strip.channels.len()) {
                add(run, of(), &mut run_sums[of()]);
                flush(&mut run_sums[of()], &mut sums[of()]);
            }
        }
        mean_by_group(&sums, self.groups, image.len())
    }

    /// The gradients for each strip, with what is `known` of it already, then those for `weight` and `bias`.
    fn backward(
        &self,
        strips: &[Strip],
        known: &[Option<&[f32]>],
        shape: &Shape,
        [weight, bias, dy]: [&[f32]; 3],
    ) -> Result<Vec<Vec<f32>>> {
        let (n, pixels, c) = self.sizes(shape)?;
        let Some(moments) = self.moments.get() else { bail!("group norm was not computed before its gradient") };
        let (mean, rstd) = moments.split_at(n * c);
        let mut dx: Vec<Vec<f32>> = strips.iter().map(|strip| Vec::with_capacity(strip.x.len())).collect();
        let targets: Vec<Target> = dx.iter_mut().map(Target::room).collect();
        let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
        for i in 0..n {
            let (mean, rstd) = (&mean[i * c..(i + 1) * c], &rstd[i * c..(i + 1) * c]);
            let image = ImageGradient { norm: self, strips, pixels: i * pixels..(i + 1) * pixels, mean, rstd };
            // SAFETY: there is room for all images of all strips.
            unsafe { image.run([weight, bias, dy], known, &targets, &mut dw, &mut db) };
        }
        for (dx, strip) in dx.iter_mut().zip(strips) {
            // SAFETY: all images were written.
            unsafe { dx.set_len(strip.x.len()) };
        }
        dx.extend([dw, db]);
        Ok(dx)
    }
}

impl Fused for GroupNorm {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn forward(&self, arguments: &[Numbers]) -> Result<(Vec<f32>, Shape)> {
        let [x @ .., weight, bias] = arguments else { bail!("a group norm of nothing") };
        let (strips, shape) = Strip::all(x)?;
        let (weight, bias) = (weight.data, bias.data);
        let (n, pixels, c) = self.sizes(&shape)?;
        if weight.len() != c || bias.len() != c {
            bail!("group norm of {c} channels has {} scales and {} shifts", weight.len(), bias.len());
        }
        let mut moments = vec![0.0; 2 * n * c];
        let (mean, rstd) = moments.split_at_mut(n * c);
        let (mean, rstd) = (Target::new(mean), Target::new(rstd));
        // SAFETY: the images cover the output and the moments, and each task has an image of its own.
        let y = unsafe {
            written(n * pixels * c, |y| {
                for_each(n, |i| {
                    let (mean, rstd) = (mean.part(i * c, c), rstd.part(i * c, c));
                    self.find_moments(&strips, i * pixels..(i + 1) * pixels, mean, rstd);
                    let (scale, shift) = scale_and_shift(weight, bias, mean, rstd);
                    let parts = pixels.div_ceil(PART).min(threads::count());
                    for_each(parts, |k| {
                        let part = part(pixels, parts, k);
                        let part = i * pixels + part.start..i * pixels + part.end;
                        for strip in &strips {
                            let (channels, y) = (strip.channels.clone(), y.ptr(part.start * c + strip.channels.start));
                            let (scale, shift) = (&scale[channels.clone()], &shift[channels]);
                            normalise(strip.pixels(&part), scale, shift, self.silu, y, c);
                        }
                    });
                });
            })
        };
        // a second forward pass of the same operation finds the same moments
        self.moments.get_or_init(|| moments);
        Ok((y, shape))
    }

    fn gradients(
        &self,
        arguments: &[Tensor],
        grad: &Tensor,
        known: Vec<Option<Tensor>>,
    ) -> Result<Vec<Option<Tensor>>> {
        let [x @ .., weight, bias] = arguments else { bail!("a group norm of nothing") };
        let grad = grad.contiguous()?;
        let readers: Vec<Reader> = x.iter().map(Reader::new).collect();
        let (strips, shape) = Strip::all(&readers.iter().map(Reader::numbers).collect::<Result<Vec<_>>>()?)?;
        let (weight, bias, dy) = (Reader::new(weight), Reader::new(bias), Reader::new(&grad));
        let readers: Vec<_> = known[..x.len()].iter().map(|known| known.as_ref().map(Reader::new)).collect();
        let of_strips = readers.iter().map(|known| known.as_ref().map(Reader::slice).transpose());
        let of_strips: Vec<_> = of_strips.collect::<Result<_>>()?;
        let gradients = self.backward(&strips, &of_strips, &shape, [weight.slice()?, bias.slice()?, dy.slice()?])?;
        let give = |(i, data): (usize, Vec<f32>)| {
            let of = &arguments[i];
            let gradient = wants_gradient(of).then(|| tensor(data, of.shape())).transpose()?;
            if i < x.len() { Ok(gradient) } else { with_known(known[i].clone(), gradient) }
        };
        gradients.into_iter().enumerate().map(give).collect()
    }
}

/// Replaces per-channel sums over pixels by the mean over each group, given to each of its channels.
fn mean_by_group(sums: &[f64], groups: usize, pixels: usize) -> Vec<f64> {
    let size = sums.len() / groups;
    let mean = |group: &[f64]| group.iter().sum::<f64>() / (pixels * size) as f64;
    sums.chunks_exact(size).flat_map(|group| std::iter::repeat_n(mean(group), size)).collect()
}

/// Moves the sums of a run to the totals.
fn flush(run: &mut [f32], totals: &mut [f64]) {
    for (total, sum) in totals.iter_mut().zip(run) {
        *total += f64::from(std::mem::take(sum));
    }
}

/// weight·(x − mean)·rstd + bias as scale·x + shift.
fn scale_and_shift(weight: &[f32], bias: &[f32], mean: &[f32], rstd: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let scale: Vec<f32> = weight.iter().zip(rstd).map(|(w, r)| w * r).collect();
    let shift = bias.iter().zip(&scale).zip(mean).map(|((b, s), m)| b - s * m).collect();
    (scale, shift)
}

/// The gradient of one image.
struct ImageGradient<'a> {
    norm: &'a GroupNorm,
    strips: &'a [Strip<'a>],
    /// Its pixels among all.
    pixels: Range<usize>,
    mean: &'a [f32],
    rstd: &'a [f32],
}

impl ImageGradient<'_> {
    /// With x̂ = (x − mean)·rstd and z = weight·x̂ + bias: writes dx, with what is `known` of it, and adds to dw = Σ dz·x̂ and
    /// db = Σ dz.
    ///
    /// # Safety
    /// `dx` must have room for all of the strips.
    unsafe fn run(
        &self,
        [weight, bias, dy]: [&[f32]; 3],
        known: &[Option<&[f32]>],
        dx: &[Target],
        dw: &mut [f32],
        db: &mut [f32],
    ) {
        let Self { norm, strips, pixels, mean, rstd } = self;
        let c = weight.len();
        let (scale, shift) = scale_and_shift(weight, bias, mean, rstd);
        let (mut sum_dz, mut sum_dzx) = (vec![0.0; c], vec![0.0; c]);
        let (mut run_dz, mut run_dzx) = (vec![0.0; c], vec![0.0; c]);
        for (strip, dx) in strips.iter().zip(dx) {
            let of = strip.channels.clone();
            let pass = SumProducts {
                scale: &scale[of.clone()],
                shift: &shift[of.clone()],
                mean: &mean[of.clone()],
                silu: norm.silu,
            };
            let (run_dz, run_dzx) = (&mut run_dz[of.clone()], &mut run_dzx[of.clone()]);
            for first in pixels.clone().step_by(RUN) {
                let run = first..pixels.end.min(first + RUN);
                // SAFETY: the caller's contract; dy has all channels of these pixels.
                unsafe {
                    let dy = (&dy[run.start * c..run.end * c][of.start..], c);
                    pass.run(strip.pixels(&run), dy, dx.ptr(run.start * of.len()), run_dz, run_dzx);
                }
                flush(run_dz, &mut sum_dz[of.clone()]);
                flush(run_dzx, &mut sum_dzx[of.clone()]);
            }
        }
        for (sum, r) in sum_dzx.iter_mut().zip(*rstd) {
            *sum *= f64::from(*r);
        }
        dw.iter_mut().zip(&sum_dzx).for_each(|(d, s)| *d += *s as f32);
        db.iter_mut().zip(&sum_dz).for_each(|(d, s)| *d += *s as f32);
        // dx = rstd (weight dz − mean(weight dz) − x̂ mean(weight dz x̂)), as scale dz + slope (x − mean) + offset
        let weigh = |sums: &[f64]| -> Vec<f64> { sums.iter().zip(weight).map(|(s, w)| s * f64::from(*w)).collect() };
        let mean_dz = mean_by_group(&weigh(&sum_dz), norm.groups, pixels.len());
        let mean_dzx = mean_by_group(&weigh(&sum_dzx), norm.groups, pixels.len());
        let slope: Vec<f32> = mean_dzx.iter().zip(*rstd).map(|(m, r)| -(m * f64::from(r * r)) as f32).collect();
        let offset: Vec<f32> = mean_dz.iter().zip(*rstd).map(|(m, r)| -(m * f64::from(*r)) as f32).collect();
        for ((strip, known), dx) in strips.iter().zip(known).zip(dx) {
            let of = strip.channels.clone();
            let numbers = pixels.start * of.len()..pixels.end * of.len();
            // SAFETY: the caller's contract; the loop above wrote them.
            let dx = unsafe { dx.part(numbers.start, numbers.len()) };
            let coefficients = [&scale[of.clone()], &slope[of.clone()], &offset[of.clone()]];
            finish_gradient(&strip.x[numbers.clone()], &mean[of], coefficients, known.map(|k| &k[numbers]), dx);
        }
    }
}
