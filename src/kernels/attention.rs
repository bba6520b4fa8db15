//! Attention among the pixels of each image, one (image, head) at a time.

use super::matrix::{Matrix, Panels, multiply};
use super::memory::{Reader, Target, part, slice, storage, tensor, written};
use super::pixels::exp;
use super::simd::{Scratch, Simd, dispatch};
use super::tape::{apply3, wants_gradient};
use super::threads::{self, for_each};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::ops::Range;
use std::sync::OnceLock;

/// Pixels of one image that are worth a thread of their own.
const PART: usize = 64;

/// Most pixels whose weights are in memory at once in a forward pass.
const LARGEST_PART: usize = 1024;

/// Most pixels whose weights a training keeps for the gradient, which is faster than to compute them again.
const MOST_KEPT: usize = 256;

/// softmax(q kᵀ / √d) v for `q`, `k`, `v` [n, h, w, c] in `heads` heads of d = c / `heads` channels.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (_, h, w, _) = q.dims4()?;
    let keeps = h * w <= MOST_KEPT && [q, k, v].into_iter().any(wants_gradient);
    apply3(q, k, v, Attention { heads, keeps, kept: OnceLock::new() })
}

struct Attention {
    heads: usize,
    /// Whether the weights are kept.
    keeps: bool,
    /// Those of the forward pass, [n, heads, pixels, pixels].
    kept: OnceLock<Vec<f32>>,
}

/// Sizes of one attention: images, pixels, channels, channels per head.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    pixels: usize,
    c: usize,
    d: usize,
}

impl Sizes {
    fn new(q: &Shape, k: &Shape, v: &Shape, heads: usize) -> Result<Self> {
        let (n, h, w, c) = q.dims4()?;
        if q != k || q != v || heads == 0 || c == 0 || !c.is_multiple_of(heads) {
            bail!("cannot attend in {heads} heads among maps of shapes {q:?}, {k:?} and {v:?}");
        }
        Ok(Self { n, pixels: h * w, c, d: c / heads })
    }

    fn scale(self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// Where a head's channels start, and their matrix, [pixels, d].
    fn head(self, x: &[f32], image: usize, head: usize) -> (usize, Matrix<'_>) {
        let start = image * self.pixels * self.c + head * self.d;
        (start, Matrix::new(&x[start..], self.pixels, self.d, self.c))
    }

    /// The part of a head's matrix that some pixels have in it.
    fn pixels<'a>(self, x: &'a [f32], image: usize, head: usize, pixels: &Range<usize>) -> Matrix<'a> {
        let start = (image * self.pixels + pixels.start) * self.c + head * self.d;
        Matrix::new(&x[start..], pixels.len(), self.d, self.c)
    }

    /// softmax(q kᵀ · scale) for the pixels of q, [those, pixels].
    fn weights(self, q: Matrix, k: Matrix, weights: &mut [f32]) {
        multiply(weights, self.pixels, q, &Panels::of(k.t()), false);
        // SAFETY: no contract beyond its slices.
        unsafe { softmax(weights, self.pixels, self.scale()) }
    }
}

dispatch!(softmax = softmax_simd(x: &mut [f32], row: usize, scale: f32));

/// Each row x becomes softmax(scale·x); where a number is infinite or none at all, all of its row are none.
#[inline(always)]
unsafe fn softmax_simd<S: Simd>(x: &mut [f32], row: usize, scale: f32) {
    for row in x.chunks_exact_mut(row) {
        // SAFETY: each pointer is to a whole vector, or to one number.
        unsafe {
            let max = reduce::<S, Max>(row, row);
            let nothing = reduce::<S, Nothing>(row, row);
            let mut vectors = row.chunks_exact_mut(S::LANES);
            for v in &mut vectors {
                exp_scaled::<S>(v.as_mut_ptr(), max, scale);
            }
            for v in vectors.into_remainder() {
                exp_scaled::<S::One>(v, max, scale);
            }
            let factor = (1.0 + nothing) / reduce::<S, Sum>(row, row);
            for v in row {
                *v *= factor;
            }
        }
    }
}

dispatch!(
    /// ∂L/∂x of p = softmax(scale·x) by rows, in the place of `dp` = ∂L/∂p: scale p (dp − Σ p dp).
    softmax_gradient = softmax_gradient_simd(dp: &mut [f32], p: &[f32], row: usize, scale: f32)
);

#[inline(always)]
unsafe fn softmax_gradient_simd<S: Simd>(dp: &mut [f32], p: &[f32], row: usize, scale: f32) {
    for (dp, p) in dp.chunks_exact_mut(row).zip(p.chunks_exact(row)) {
        // SAFETY: no contract beyond its slices.
        let dot = unsafe { reduce::<S, Dot>(dp, p) };
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - dot) * scale;
        }
    }
}

/// What [`reduce`] makes of two rows.
trait Reduction {
    const START: f32;
    unsafe fn add<V: Simd>(so_far: V, x: V, y: V) -> V;
    /// Joins two results.
    fn join(a: f32, b: f32) -> f32;
}

struct Max;
/// Zero, or no number if one of them is infinite or none: neither [`Max`] nor [`exp`] would tell.
struct Nothing;
struct Sum;
struct Dot;

impl Reduction for Max {
    const START: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    unsafe fn add<V: Simd>(so_far: V, x: V, _: V) -> V {
        // SAFETY: the caller's contract.
        unsafe { x.max(so_far) }
    }
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        a.max(b)
    }
}

impl Reduction for Nothing {
    const START: f32 = 0.0;
    #[inline(always)]
    unsafe fn add<V: Simd>(so_far: V, x: V, _: V) -> V {
        // SAFETY: the caller's contract.
        unsafe { x.mul_add(V::splat(0.0), so_far) }
    }
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        a + b
    }
}

impl Reduction for Sum {
    const START: f32 = 0.0;
    #[inline(always)]
    unsafe fn add<V: Simd>(so_far: V, x: V, _: V) -> V {
        // SAFETY: the caller's contract.
        unsafe { so_far.add(x) }
    }
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        a + b
    }
}

impl Reduction for Dot {
    const START: f32 = 0.0;
    #[inline(always)]
    unsafe fn add<V: Simd>(so_far: V, x: V, y: V) -> V {
        // SAFETY: the caller's contract.
        unsafe { x.mul_add(y, so_far) }
    }
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        a + b
    }
}

/// Sixteen results, of every sixteenth number each, whatever the vectors; then these two by two.
#[inline(always)]
unsafe fn reduce<S: Simd, R: Reduction>(x: &[f32], y: &[f32]) -> f32 {
    const WIDTH: usize = 16;
    let whole = x.len() - x.len() % WIDTH;
    let mut results = [R::START; WIDTH];
    // SAFETY: each pointer is to a whole vector, or to one number.
    unsafe {
        for lane in (0..WIDTH).step_by(S::LANES) {
            let mut result = S::splat(R::START);
            for i in (lane..whole).step_by(WIDTH) {
                result = R::add(result, S::load(x.as_ptr().add(i)), S::load(y.as_ptr().add(i)));
            }
            result.store(results.as_mut_ptr().add(lane));
        }
        for i in whole..x.len() {
            let result = &raw mut results[i - whole];
            R::add(S::One::load(result), S::One::load(&raw const x[i]), S::One::load(&raw const y[i])).store(result);
        }
    }
    let mut width = WIDTH / 2;
    while width > 0 {
        for i in 0..width {
            results[i] = R::join(results[i], results[i + width]);
        }
        width /= 2;
    }
    results[0]
}

/// x becomes exp(scale·(x − max)).
#[inline(always)]
unsafe fn exp_scaled<V: Simd>(x: *mut f32, max: f32, scale: f32) {
    // SAFETY: the caller passes a pointer to a whole vector.
    unsafe { exp(V::load(x).sub(V::splat(max)).mul(V::splat(scale))).store(x) }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Sizes::new(lq.shape(), lk.shape(), lv.shape(), self.heads)?;
        let (q, k, v) = (slice(q, lq)?, slice(k, lk)?, slice(v, lv)?);
        // no number depends on how pixels are shared out
        let parts = s.pixels.div_ceil(PART).min(threads::count()).max(s.pixels.div_ceil(LARGEST_PART));
        let kept_len = if self.keeps { s.n * self.heads * s.pixels * s.pixels } else { 0 };
        let mut kept = Vec::with_capacity(kept_len);
        let room = Target::room(&mut kept);
        // SAFETY: the heads of all pixels cover the output and what is kept, and each task has pixels of its own.
        let y = unsafe {
            written(q.len(), |y| {
                for_each(s.n * parts, |task| {
                    let (image, pixels) = (task / parts, part(s.pixels, parts, task % parts));
                    let y = y.part((image * s.pixels + pixels.start) * s.c, pixels.len() * s.c);
                    let len = pixels.len() * s.pixels;
                    let mut scratch = Scratch::new(if self.keeps { 0 } else { len });
                    for head in 0..self.heads {
                        let [(_, k), (_, v)] = [k, v].map(|x| s.head(x, image, head));
                        let weights = match self.keeps {
                            true => room.part(((image * self.heads + head) * s.pixels + pixels.start) * s.pixels, len),
                            false => std::slice::from_raw_parts_mut(scratch.as_mut_ptr(), len),
                        };
                        s.weights(s.pixels(q, image, head, &pixels), k, weights);
                        let weights = Matrix::new(weights, pixels.len(), s.pixels, s.pixels);
                        multiply(&mut y[head * s.d..], s.c, weights, &Panels::of(v), false);
                    }
                });
            })
        };
        if self.keeps {
            // SAFETY: all of them were written.
            unsafe { kept.set_len(kept_len) };
            self.kept.set(kept).ok();
        }
        Ok(storage(y, lq.shape()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let s = Sizes::new(q.shape(), k.shape(), v.shape(), self.heads)?;
        let grad = grad.contiguous()?;
        let readers = [q, k, v, &grad].map(Reader::new);
        let (q_data, k_data, v_data) = (readers[0].slice()?, readers[1].slice()?, readers[2].slice()?);
        let dy = readers[3].slice()?;
        let l = s.pixels;
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; dy.len()]);
        let (mut dp, mut again) = (vec![0.0; l * l], vec![0.0; if self.keeps { 0 } else { l * l }]);
        for image in 0..s.n {
            for head in 0..self.heads {
                let [(at, q), (_, k), (_, v), (_, dy)] = [q_data, k_data, v_data, dy].map(|x| s.head(x, image, head));
                let p = match self.kept.get() {
                    Some(kept) => &kept[(image * self.heads + head) * l * l..][..l * l],
                    None => {
                        s.weights(q, k, &mut again);
                        &again
                    }
                };
                multiply(&mut dv[at..], s.c, Matrix::new(p, l, l, l).t(), &Panels::of(dy), false);
                multiply(&mut dp, l, dy, &Panels::of(v.t()), false);
                // SAFETY: no contract beyond its slices.
                unsafe { softmax_gradient(&mut dp, p, l, s.scale()) };
                let ds = Matrix::new(&dp, l, l, l);
                multiply(&mut dq[at..], s.c, ds, &Panels::of(k), false);
                multiply(&mut dk[at..], s.c, ds.t(), &Panels::of(q), false);
            }
        }
        let give = |data, of: &Tensor| wants_gradient(of).then(|| tensor(data, of.shape())).transpose();
        Ok((give(dq, q)?, give(dk, k)?, give(dv, v)?))
    }
}
