//! Group normalisation (Wu & He 2018) with or without SiLU, in one operation each way.

use super::memory::{Reader, Target, part, slice, storage, tensor, written};
use super::pixels::{RUN, SumProducts, finish_gradient, normalise, sum, sum_squares};
use super::tape::{apply3, wants_gradient};
use super::threads::{self, for_each};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// Pixels of one image that are worth a thread of their own.
const PART: usize = 64;

/// Normalises each of `groups` groups of channels of each image of `x` [n, h, w, c], scales by `weight` [c], shifts by
/// `bias` [c]; then x·sigmoid(x) with `silu`.
pub(super) fn group_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let op = GroupNorm { groups, eps, silu, moments: OnceLock::new() };
    apply3(x, &weight.contiguous()?, &bias.contiguous()?, op)
}

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
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        weight: &CpuStorage,
        lw: &Layout,
        bias: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, pixels, c) = self.sizes(lx.shape())?;
        let (x, weight, bias) = (slice(x, lx)?, slice(weight, lw)?, slice(bias, lb)?);
        if weight.len() != c || bias.len() != c {
            bail!("group norm of {c} channels has {} scales and {} shifts", weight.len(), bias.len());
        }
        let mut moments = vec![0.0; 2 * n * c];
        let (mean, rstd) = moments.split_at_mut(n * c);
        let (mean, rstd) = (Target::new(mean), Target::new(rstd));
        // SAFETY: the images cover the output and the moments, and each task has an image of its own.
        let y = unsafe {
            written(x.len(), |y| {
                for_each(n, |i| {
                    let x = &x[i * pixels * c..(i + 1) * pixels * c];
                    let (mean, rstd) = (mean.part(i * c, c), rstd.part(i * c, c));
                    find_moments(x, self.groups, self.eps, mean, rstd);
                    let (scale, shift) = scale_and_shift(weight, bias, mean, rstd);
                    let parts = pixels.div_ceil(PART).min(threads::count());
                    for_each(parts, |k| {
                        let part = part(pixels, parts, k);
                        let y = y.ptr((i * pixels + part.start) * c);
                        normalise(&x[part.start * c..part.end * c], &scale, &shift, self.silu, y);
                    });
                });
            })
        };
        // a second forward pass of the same operation finds the same moments
        self.moments.get_or_init(|| moments);
        Ok(storage(y, lx.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (n, pixels, c) = self.sizes(x.shape())?;
        let grad = grad.contiguous()?;
        let (x_data, w_data, b_data) = (Reader::new(x), Reader::new(weight), Reader::new(bias));
        let grad_data = Reader::new(&grad);
        let (x_data, w_data, b_data, dy) = (x_data.slice()?, w_data.slice()?, b_data.slice()?, grad_data.slice()?);
        let Some(moments) = self.moments.get() else { bail!("group norm was not computed before its gradient") };
        let (mean, rstd) = moments.split_at(n * c);
        let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
        // SAFETY: the images cover dx, and `image_backward` writes before it reads.
        let dx = unsafe {
            written(x_data.len(), |dx| {
                for i in 0..n {
                    let image = i * pixels * c..(i + 1) * pixels * c;
                    let pass = Backward {
                        x: &x_data[image.clone()],
                        dy: &dy[image.clone()],
                        weight: w_data,
                        bias: b_data,
                        mean: &mean[i * c..(i + 1) * c],
                        rstd: &rstd[i * c..(i + 1) * c],
                        groups: self.groups,
                        silu: self.silu,
                    };
                    pass.run(dx.part(image.start, image.len()), &mut dw, &mut db);
                }
            })
        };
        Ok((
            Some(tensor(dx, x.shape())?),
            wants_gradient(weight).then(|| tensor(dw, weight.shape())).transpose()?,
            wants_gradient(bias).then(|| tensor(db, bias.shape())).transpose()?,
        ))
    }
}

/// Replaces per-channel sums over pixels by the mean over each group, given to each of its channels.
fn mean_by_group(sums: &[f64], groups: usize, pixels: usize) -> Vec<f64> {
    let size = sums.len() / groups;
    let mean = |group: &[f64]| group.iter().sum::<f64>() / (pixels * size) as f64;
    sums.chunks_exact(size).flat_map(|group| std::iter::repeat_n(mean(group), size)).collect()
}

/// Sums within a run of pixels are made in f32, those of runs in f64.
fn find_moments(x: &[f32], groups: usize, eps: f64, mean: &mut [f32], rstd: &mut [f32]) {
    let c = mean.len();
    let pixels = x.len() / c;
    let mut sums = vec![0.0; c];
    let mut run_sums = vec![0.0; c];
    for run in x.chunks(RUN * c) {
        sum(run, &mut run_sums);
        flush(&mut run_sums, &mut sums);
    }
    for (to, from) in mean.iter_mut().zip(mean_by_group(&sums, groups, pixels)) {
        *to = from as f32;
    }
    sums.fill(0.0);
    for run in x.chunks(RUN * c) {
        sum_squares(run, mean, &mut run_sums);
        flush(&mut run_sums, &mut sums);
    }
    for (to, from) in rstd.iter_mut().zip(mean_by_group(&sums, groups, pixels)) {
        *to = (1.0 / (from + eps).sqrt()) as f32;
    }
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
struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    groups: usize,
    silu: bool,
}

impl Backward<'_> {
    /// With x̂ = (x − mean)·rstd and z = weight·x̂ + bias: writes dx and adds to dw = Σ dz·x̂ and db = Σ dz.
    fn run(&self, dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
        let c = self.weight.len();
        let pixels = self.x.len() / c;
        let (scale, shift) = scale_and_shift(self.weight, self.bias, self.mean, self.rstd);
        let (mut sum_dz, mut sum_dzx) = (vec![0.0; c], vec![0.0; c]);
        let (mut run_dz, mut run_dzx) = (vec![0.0; c], vec![0.0; c]);
        let runs = self.x.chunks(RUN * c).zip(self.dy.chunks(RUN * c)).zip(dx.chunks_mut(RUN * c));
        let pass = SumProducts { scale: &scale, shift: &shift, mean: self.mean, silu: self.silu };
        for ((x, dy), dz) in runs {
            // SAFETY: the three have one length.
            unsafe { pass.run(x, dy, dz.as_mut_ptr(), &mut run_dz, &mut run_dzx) };
            flush(&mut run_dz, &mut sum_dz);
            flush(&mut run_dzx, &mut sum_dzx);
        }
        for (sum, r) in sum_dzx.iter_mut().zip(self.rstd) {
            *sum *= f64::from(*r);
        }
        dw.iter_mut().zip(&sum_dzx).for_each(|(d, s)| *d += *s as f32);
        db.iter_mut().zip(&sum_dz).for_each(|(d, s)| *d += *s as f32);
        // dx = rstd (weight dz − mean(weight dz) − x̂ mean(weight dz x̂)), as scale dz + slope (x − mean) + offset
        let weigh =
            |sums: &[f64]| -> Vec<f64> { sums.iter().zip(self.weight).map(|(s, w)| s * f64::from(*w)).collect() };
        let mean_dz = mean_by_group(&weigh(&sum_dz), self.groups, pixels);
        let mean_dzx = mean_by_group(&weigh(&sum_dzx), self.groups, pixels);
        let slope: Vec<f32> = mean_dzx.iter().zip(self.rstd).map(|(m, r)| -(m * f64::from(r * r)) as f32).collect();
        let offset: Vec<f32> = mean_dz.iter().zip(self.rstd).map(|(m, r)| -(m * f64::from(*r)) as f32).collect();
        finish_gradient(self.x, self.mean, [&scale, &slope, &offset], dx);
    }
}
