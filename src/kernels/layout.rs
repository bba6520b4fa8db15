//! Moving numbers about: NCHW and NHWC, concatenation, nearest-neighbour upsampling.

use super::memory::{Numbers, Reader, part, slice, storage, tensor, written};
use super::tape::{apply1, apply2, wants_gradient};
use super::threads::{self, for_each};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::ops::Range;

/// [n, c, h, w] to [n, h, w, c].
pub(super) fn to_nhwc(x: &Tensor) -> Result<Tensor> {
    apply1(&x.contiguous()?, Permute { to_nhwc: true })
}

/// [n, h, w, c] to [n, c, h, w].
pub(super) fn to_nchw(x: &Tensor) -> Result<Tensor> {
    apply1(x, Permute { to_nhwc: false })
}

struct Permute {
    to_nhwc: bool,
}

/// Each of `n` matrices of `rows` x `cols` transposed.
fn transposed(x: &[f32], n: usize, rows: usize, cols: usize) -> Vec<f32> {
    if rows == 1 || cols == 1 {
        return x.to_vec();
    }
    // SAFETY: the index runs over all n * rows * cols elements.
    unsafe {
        written(n * rows * cols, |y| {
            for_each(n, |i| {
                let start = i * rows * cols;
                let y = y.part(start, rows * cols);
                for (row, line) in x[start..start + rows * cols].chunks_exact(cols).enumerate() {
                    for (col, &v) in line.iter().enumerate() {
                        y[col * rows + row] = v;
                    }
                }
            });
        })
    }
}

impl CustomOp1 for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let (n, a, b, c) = layout.shape().dims4()?;
        Ok(match self.to_nhwc {
            true => storage(transposed(x, n, a, b * c), (n, b, c, a)),
            false => storage(transposed(x, n, a * b, c), (n, c, a, b)),
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&Self { to_nhwc: !self.to_nhwc })?))
    }
}

/// Adds each pixel of `image` to `sums`.
pub(super) fn add_pixels(sums: &mut [f32], image: &[f32]) {
    for pixel in image.chunks_exact(sums.len()) {
        sums.iter_mut().zip(pixel).for_each(|(s, v)| *s += v);
    }
}

/// Some of the channels of all pixels, in a map of their own.
pub(super) struct Strip<'a> {
    pub x: &'a [f32],
    /// Which they are among all.
    pub channels: Range<usize>,
}

impl<'a> Strip<'a> {
    /// The channels, the last dimension, of one map after the other; and the shape of a map that has them all.
    pub(super) fn all(maps: &[Numbers<'a>]) -> Result<(Vec<Self>, Shape)> {
        let split = |map: &Numbers<'a>| map.shape.dims().split_last();
        let Some((_, pixels)) = maps.first().and_then(split) else { bail!("no map with channels") };
        let (mut strips, mut end) = (Vec::new(), 0);
        for map in maps {
            let Some((c, _)) = split(map).filter(|(_, same)| *same == pixels) else {
                bail!("maps of shapes {:?} and {:?} have not the same pixels", maps[0].shape, map.shape);
            };
            strips.push(Self { x: map.data, channels: end..end + c });
            end += c;
        }
        Ok((strips, [pixels, &[end]].concat().into()))
    }

    /// What it holds of these pixels.
    pub(super) fn pixels(&self, pixels: &Range<usize>) -> &'a [f32] {
        let c = self.channels.len();
        &self.x[pixels.start * c..pixels.end * c]
    }
}

/// The channels of one map after the other, in one map.
pub(super) fn concat(maps: &[&Tensor]) -> Result<Tensor> {
    let Some((first, rest)) = maps.split_first() else { bail!("no maps to concatenate") };
    rest.iter().try_fold((*first).clone(), |all, map| apply2(&all, map, Concat))
}

struct Concat;

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (slice(a, la)?, slice(b, lb)?);
        let (n, h, w, c) = la.shape().dims4()?;
        let (nb, hb, wb, d) = lb.shape().dims4()?;
        if (n, h, w) != (nb, hb, wb) {
            bail!("cannot concatenate maps of shapes {:?} and {:?}", la.shape(), lb.shape());
        }
        let rows = n * h;
        let parts = rows.min(threads::count());
        // SAFETY: the rows cover the output.
        let y = unsafe {
            written(a.len() + b.len(), |y| {
                for_each(parts, |k| {
                    let pixels = part(rows, parts, k);
                    let pixels = pixels.start * w..pixels.end * w;
                    let y = y.part(pixels.start * (c + d), pixels.len() * (c + d)).chunks_exact_mut(c + d);
                    let a = a[pixels.start * c..].chunks_exact(c);
                    for ((y, a), b) in y.zip(a).zip(b[pixels.start * d..].chunks_exact(d)) {
                        let (left, right) = y.split_at_mut(c);
                        left.copy_from_slice(a);
                        right.copy_from_slice(b);
                    }
                });
            })
        };
        Ok(storage(y, (n, h, w, c + d)))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let data = Reader::new(&grad);
        let (c, d) = (a.dim(3)?, b.dim(3)?);
        let channels = |first: usize, of: &Tensor| -> Result<Option<Tensor>> {
            if !wants_gradient(of) {
                return Ok(None);
            }
            let len = of.dim(3)?;
            let mut part = Vec::with_capacity(of.elem_count());
            for pixel in data.slice()?.chunks_exact(c + d) {
                part.extend_from_slice(&pixel[first..first + len]);
            }
            tensor(part, of.shape()).map(Some)
        };
        Ok((channels(0, a)?, channels(c, b)?))
    }
}

/// Each pixel becomes a square of 2x2.
pub(super) fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    apply1(x, Upsample)
}

struct Upsample;

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "upsample-nearest2x"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let (n, h, w, c) = layout.shape().dims4()?;
        let mut y = Vec::with_capacity(4 * x.len());
        for row in x.chunks_exact(w * c) {
            let start = y.len();
            for pixel in row.chunks_exact(c) {
                y.extend_from_slice(pixel);
                y.extend_from_slice(pixel);
            }
            y.extend_from_within(start..);
        }
        Ok(storage(y, (n, 2 * h, 2 * w, c)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let data = Reader::new(&grad);
        let (_, _, w, c) = x.dims4()?;
        let mut dx = Vec::with_capacity(x.elem_count());
        for rows in data.slice()?.chunks_exact(4 * w * c) {
            let (top, bottom) = rows.split_at(2 * w * c);
            for (top, bottom) in top.chunks_exact(2 * c).zip(bottom.chunks_exact(2 * c)) {
                dx.extend((0..c).map(|i| (top[i] + top[c + i]) + (bottom[i] + bottom[c + i])));
            }
        }
        tensor(dx, x.shape()).map(Some)
    }
}
