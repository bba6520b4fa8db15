//! The two passes over all weights that follow the backward pass.

use super::memory::{Reader, part, tensor, written, written_all};
use super::simd::{Simd, dispatch};
use super::threads::map_each;
use candle_core::{Result, Tensor, bail};

/// Numbers that one task takes. Squares are summed by chunk, so that no result depends on the number of threads.
const CHUNK: usize = 1 << 14;

/// Kingma & Ba 2015, Algorithm 1, and the moving average: the numbers of one step, ready for use.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// The gradient is multiplied by this (clipping).
    pub grad_scale: f32,
    /// β₁.
    pub beta1: f32,
    /// β₂.
    pub beta2: f32,
    /// ε.
    pub eps: f32,
    /// α / (1 − β₁ᵗ).
    pub rate: f32,
    /// 1 / √(1 − β₂ᵗ).
    pub root: f32,
    /// Decay of the moving average.
    pub ema_decay: f32,
}

/// The sum of CPU tensors of one shape, added in their order, and the sum of its squares.
pub fn sum_with_squares(parts: &[Tensor]) -> Result<(Tensor, f64)> {
    let Some((first, rest)) = parts.split_first() else { bail!("no gradient to sum") };
    let len = first.elem_count();
    if rest.iter().any(|t| t.elem_count() != len) {
        bail!("gradients of one weight differ in size");
    }
    let readers: Vec<Reader> = parts.iter().map(Reader::new).collect();
    let slices = readers.iter().map(Reader::slice).collect::<Result<Vec<_>>>()?;
    let chunks = len.div_ceil(CHUNK);
    let mut squares = Vec::new();
    // SAFETY: the chunks cover the sum, and each task has its own.
    let sum = unsafe {
        written(len, |sum| {
            squares = map_each(chunks, |i| {
                let range = part(len, chunks, i);
                let sum = sum.part(range.start, range.len());
                sum.copy_from_slice(&slices[0][range.clone()]);
                for slice in &slices[1..] {
                    sum.iter_mut().zip(&slice[range.clone()]).for_each(|(sum, v)| *sum += v);
                }
                sum_squares(sum)
            });
        })
    };
    Ok((tensor(sum, first.shape())?, squares.iter().sum()))
}

fn sum_squares(x: &[f32]) -> f64 {
    let (vectors, rest) = x.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for v in vectors {
        for (sum, &v) in sums.iter_mut().zip(v) {
            *sum += f64::from(v) * f64::from(v);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>()
}

fn sum_squared_differences(x: &[f32], y: &[f32]) -> f64 {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    let square = |x: f32, y: f32| f64::from(x - y) * f64::from(x - y);
    let mut sums = [0.0; 8];
    for (x, y) in x.iter().zip(y) {
        for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += square(x, y);
        }
    }
    sums.iter().sum::<f64>() + x_rest.iter().zip(y_rest).map(|(&x, &y)| square(x, y)).sum::<f64>()
}

/// One step of Adam, then one of the moving average: the new [weight, m, v, average] from the old, all on the CPU; also
/// Σ of the squares of the new weights, and of what they moved by.
pub fn adam(grad: &Tensor, state: [&Tensor; 4], numbers: &Adam) -> Result<([Tensor; 4], [f64; 2])> {
    let (grad_reader, [p, m, v, ema]) = (Reader::new(grad), state.map(Reader::new));
    let (grad, from) = (grad_reader.slice()?, [p.slice()?, m.slice()?, v.slice()?, ema.slice()?]);
    let len = grad.len();
    if from.iter().any(|s| s.len() != len) {
        bail!("a gradient of {len} numbers does not fit its weight or moments");
    }
    let chunks = len.div_ceil(CHUNK);
    let mut squares = Vec::new();
    // SAFETY: all have `len` numbers, the chunks cover them, and each task has its own.
    let to = unsafe {
        written_all(len, |to| {
            squares = map_each(chunks, |i| {
                let range = part(len, chunks, i);
                let from = from.map(|s| &s[range.clone()]);
                adam_range(&grad[range.clone()], from, to.map(|t| t.ptr(range.start)), numbers);
                let new = to[0].part(range.start, range.len());
                [sum_squares(new), sum_squared_differences(new, from[0])]
            });
        })
    };
    let [p, m, v, ema] = to.map(|data| tensor(data, state[0].shape()));
    let squares = squares.iter().fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
    Ok(([p?, m?, v?, ema?], squares))
}

dispatch!(
    /// # Safety
    /// `from` and `to` must have as many numbers as `grad`.
    adam_range = adam_range_simd(grad: &[f32], from: [&[f32]; 4], to: [*mut f32; 4], numbers: &Adam)
);

#[inline(always)]
unsafe fn adam_range_simd<S: Simd>(grad: &[f32], from: [&[f32]; 4], to: [*mut f32; 4], numbers: &Adam) {
    let mut i = 0;
    // SAFETY: the caller's contract.
    unsafe {
        while i + S::LANES <= grad.len() {
            adam_at::<S>(i, grad, from, to, numbers);
            i += S::LANES;
        }
        while i < grad.len() {
            adam_at::<S::One>(i, grad, from, to, numbers);
            i += 1;
        }
    }
}

/// The numbers at `i`.
#[inline(always)]
unsafe fn adam_at<V: Simd>(i: usize, grad: &[f32], from: [&[f32]; 4], to: [*mut f32; 4], numbers: &Adam) {
    // SAFETY: the caller's contract.
    unsafe {
        let Adam { grad_scale, beta1, beta2, eps, rate, root, ema_decay } = *numbers;
        let g = V::load(grad.as_ptr().add(i)).mul(V::splat(grad_scale));
        let (p, m) = (V::load(from[0].as_ptr().add(i)), V::load(from[1].as_ptr().add(i)));
        let (v, ema) = (V::load(from[2].as_ptr().add(i)), V::load(from[3].as_ptr().add(i)));
        let m = V::splat(beta1).mul_add(m, V::splat(1.0 - beta1).mul(g));
        let v = V::splat(beta2).mul_add(v, V::splat(1.0 - beta2).mul(g).mul(g));
        let step = m.div(v.sqrt().mul_add(V::splat(root), V::splat(eps)));
        let p = V::splat(-rate).mul_add(step, p);
        let ema = V::splat(ema_decay).mul_add(ema, V::splat(1.0 - ema_decay).mul(p));
        p.store(to[0].add(i));
        m.store(to[1].add(i));
        v.store(to[2].add(i));
        ema.store(to[3].add(i));
    }
}
