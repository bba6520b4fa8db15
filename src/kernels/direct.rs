//! Direct 3x3 convolution for any sizes: the pixels under the window, gathered row by row (im2col), times the weights.

use super::affine::fill_rows;
use super::conv::Geometry;
use super::matrix::{Matrix, Panels, multiply};
use super::memory::{for_each, part, written};
use super::simd::Scratch;
use std::ops::Range;

/// Numbers of gathered input that one task holds: well inside a second-level cache.
const BAND: usize = 40_000;

/// A weight [out, in, 3, 3], packed.
#[derive(Debug)]
pub(super) struct Weights(Panels);

impl Weights {
    /// As [9 * in, out].
    pub(super) fn forward(weight: &[f32], g: &Geometry) -> Self {
        Self(Panels::pack(Matrix::new(&by_window(weight, g), 9 * g.ci, g.co, g.co)))
    }

    /// As [out, 9 * in].
    pub(super) fn backward(weight: &[f32], g: &Geometry) -> Self {
        Self(Panels::pack(Matrix::new(&by_window(weight, g), 9 * g.ci, g.co, g.co).t()))
    }
}

/// [out, in, 9] to [9, in, out].
fn by_window(weight: &[f32], g: &Geometry) -> Vec<f32> {
    let mut to = vec![0.0; weight.len()];
    for (o, kernels) in weight.chunks_exact(9 * g.ci).enumerate() {
        for (i, kernel) in kernels.chunks_exact(9).enumerate() {
            for (k, &v) in kernel.iter().enumerate() {
                to[(k * g.ci + i) * g.co + o] = v;
            }
        }
    }
    to
}

/// Bands of output rows per image. It depends on sizes alone, and leaves a single small image work for several threads.
fn bands(g: &Geometry) -> usize {
    (g.ho * g.wo * 9 * g.ci).div_ceil(BAND).max(4).min(g.ho)
}

/// Runs `on_pixels(column, source)` for the window of each output pixel in `rows`: which part of the gathered matrix is
/// which run of the image's numbers. `source` is `None` where the window hangs over the border.
fn windows(g: &Geometry, rows: Range<usize>, mut each: impl FnMut(Range<usize>, Option<Range<usize>>)) {
    let mut at = 0;
    for y in rows {
        for x in 0..g.wo {
            for ky in 0..3 {
                let row = (y * g.stride + ky).checked_sub(g.pad).filter(|&row| row < g.h);
                let left = x * g.stride;
                match row {
                    // all three pixels lie inside: one run
                    Some(row) if left >= g.pad && left + 3 - g.pad <= g.w => {
                        let from = (row * g.w + left - g.pad) * g.ci;
                        each(at..at + 3 * g.ci, Some(from..from + 3 * g.ci));
                    }
                    _ => {
                        for kx in 0..3 {
                            let col = (left + kx).checked_sub(g.pad).filter(|&col| col < g.w);
                            let from = row.zip(col).map(|(row, col)| (row * g.w + col) * g.ci);
                            let at = at + kx * g.ci;
                            each(at..at + g.ci, from.map(|from| from..from + g.ci));
                        }
                    }
                }
                at += 3 * g.ci;
            }
        }
    }
}

fn gather(image: &[f32], g: &Geometry, rows: Range<usize>, gathered: &mut [f32]) {
    windows(g, rows, |to, from| match from {
        Some(from) => gathered[to].copy_from_slice(&image[from]),
        None => gathered[to].fill(0.0),
    });
}

/// Convolves `x` [n, h, w, in]; `bias` is [out] or [n, out].
pub(super) fn forward(x: &[f32], weights: &Weights, bias: &[f32], g: &Geometry) -> Vec<f32> {
    let bands = bands(g);
    // SAFETY: the bands of all images cover the output.
    unsafe {
        written(g.n * g.ho * g.wo * g.co, |y| {
            for_each(g.n * bands, |task| {
                let (i, rows) = (task / bands, part(g.ho, bands, task % bands));
                let image = &x[i * g.h * g.w * g.ci..(i + 1) * g.h * g.w * g.ci];
                let pixels = rows.len() * g.wo;
                let mut gathered = Scratch::new(pixels * 9 * g.ci);
                let gathered = gathered.slice_mut(pixels * 9 * g.ci);
                gather(image, g, rows.clone(), gathered);
                let bias = if bias.len() == g.co { bias } else { &bias[i * g.co..(i + 1) * g.co] };
                let y = fill_rows(y.ptr((i * g.ho + rows.start) * g.wo * g.co), pixels, bias);
                multiply(y, g.co, Matrix::new(gathered, pixels, 9 * g.ci, 9 * g.ci), &weights.0, true);
            });
        })
    }
}

/// Adds to `dx` [n, h, w, in] and `dw` [out, in, 3, 3] the gradients for `dy` [n, ho, wo, out].
pub(super) fn backward(
    x: &[f32],
    dy: &[f32],
    weights: &Weights,
    g: &Geometry,
    mut dx: Option<&mut [f32]>,
    dw: Option<&mut [f32]>,
) {
    let bands = bands(g);
    let depth = 9 * g.ci;
    let image = g.h * g.w * g.ci;
    let mut by_window = vec![0.0; if dw.is_some() { depth * g.co } else { 0 }];
    let mut gathered = Scratch::new(g.ho.div_ceil(bands) * g.wo * depth);
    for i in 0..g.n {
        for band in 0..bands {
            let rows = part(g.ho, bands, band);
            let pixels = rows.len() * g.wo;
            let gathered = gathered.slice_mut(pixels * depth);
            let dy = &dy[(i * g.ho + rows.start) * g.wo * g.co..][..pixels * g.co];
            let dy = Matrix::new(dy, pixels, g.co, g.co);
            if dw.is_some() {
                gather(&x[i * image..(i + 1) * image], g, rows.clone(), gathered);
                multiply(
                    &mut by_window,
                    g.co,
                    Matrix::new(gathered, pixels, depth, depth).t(),
                    &Panels::pack(dy),
                    true,
                );
            }
            if let Some(dx) = &mut dx {
                multiply(gathered, depth, dy, &weights.0, false);
                let dx = &mut dx[i * image..(i + 1) * image];
                windows(g, rows, |from, to| {
                    if let Some(to) = to {
                        dx[to].iter_mut().zip(&gathered[from]).for_each(|(sum, v)| *sum += v);
                    }
                });
            }
        }
    }
    if let Some(dw) = dw {
        for (o, kernels) in dw.chunks_exact_mut(depth).enumerate() {
            for (i, kernel) in kernels.chunks_exact_mut(9).enumerate() {
                kernel.iter_mut().enumerate().for_each(|(k, v)| *v += by_window[(k * g.ci + i) * g.co + o]);
            }
        }
    }
}
