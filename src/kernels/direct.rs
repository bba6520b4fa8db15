//! Direct 3x3 convolution for any sizes: the pixels under the window, gathered row by row (im2col), times the weights.

use super::affine::fill_rows;
use super::conv::Geometry;
use super::matrix::{Matrix, Panels, multiply};
use super::memory::{part, written};
use super::simd::Scratch;
use super::threads::for_each;
use std::ops::Range;

/// Numbers of gathered input that one task holds: well inside a second-level cache.
const BAND: usize = 40_000;

/// A weight [out, in, 3, 3], packed.
#[derive(Debug)]
pub(super) struct Weights(Panels<'static>);

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

/// Where the windows of some output rows lie: rows of the image with a margin of zeros.
struct Margin {
    /// Rows and numbers per row, with the margin.
    rows: usize,
    line: usize,
    /// Numbers of the image in each row, and how many zeros are before them.
    used: usize,
    left: usize,
    /// Image rows that are needed, and how many rows of zeros are above them.
    image: Range<usize>,
    above: usize,
}

impl Margin {
    fn new(g: &Geometry, rows: &Range<usize>) -> Self {
        // in rows counted from `pad` above the image
        let (first, end) = (rows.start * g.stride, (rows.end - 1) * g.stride + 3);
        let image = first.saturating_sub(g.pad)..(end - g.pad).min(g.h);
        Self {
            rows: end - first,
            line: (g.wo * g.stride + 2) * g.ci,
            used: g.w * g.ci,
            left: g.pad * g.ci,
            above: g.pad.saturating_sub(first),
            image,
        }
    }

    fn len(&self) -> usize {
        self.rows * self.line
    }

    /// Pairs of (row of the image, its place among the rows with margin).
    fn places(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        self.image.clone().enumerate().map(|(i, row)| {
            let to = (self.above + i) * self.line + self.left;
            (row * self.used..(row + 1) * self.used, to..to + self.used)
        })
    }
}

/// Writes for each output pixel in `rows` the nine input pixels under its window: [pixels, 9, in].
pub(super) fn gather(image: &[f32], g: &Geometry, rows: Range<usize>, gathered: &mut [f32]) {
    let margin = Margin::new(g, &rows);
    let mut padded = vec![0.0; margin.len()];
    for (from, to) in margin.places() {
        // with a window at the right border only, the last column may not be needed
        let len = from.len().min(margin.line - margin.left);
        padded[to.start..to.start + len].copy_from_slice(&image[from.start..from.start + len]);
    }
    let run = 3 * g.ci;
    for (i, line) in gathered.chunks_exact_mut(3 * run).enumerate() {
        let first = (i / g.wo) * g.stride * margin.line + (i % g.wo) * g.stride * g.ci;
        for (ky, to) in line.chunks_exact_mut(run).enumerate() {
            let from = &padded[first + ky * margin.line..][..run];
            // a loop for runs too short for a call
            if run < 16 { to.iter_mut().zip(from).for_each(|(to, v)| *to = *v) } else { to.copy_from_slice(from) }
        }
    }
}

/// The opposite of [`gather`]: adds what was gathered to where it came from.
fn scatter(gathered: &[f32], g: &Geometry, rows: Range<usize>, image: &mut [f32]) {
    let margin = Margin::new(g, &rows);
    let mut padded = vec![0.0; margin.len()];
    let run = 3 * g.ci;
    for (i, line) in gathered.chunks_exact(3 * run).enumerate() {
        let first = (i / g.wo) * g.stride * margin.line + (i % g.wo) * g.stride * g.ci;
        for (ky, from) in line.chunks_exact(run).enumerate() {
            let to = &mut padded[first + ky * margin.line..][..run];
            to.iter_mut().zip(from).for_each(|(sum, v)| *sum += v);
        }
    }
    for (to, from) in margin.places() {
        let len = to.len().min(margin.line - margin.left);
        let (to, from) = (&mut image[to.start..to.start + len], &padded[from.start..from.start + len]);
        to.iter_mut().zip(from).for_each(|(sum, v)| *sum += v);
    }
}

/// Convolves `x` [n, h, w, in]; `bias` is [out] or [n, out].
pub(super) fn forward(x: &[f32], weights: &Weights, bias: &[f32], g: &Geometry) -> Vec<f32> {
    let bands = bands(g);
    let depth = 9 * g.ci;
    // SAFETY: the bands of all images cover the output; the scratch memory is written before it is read.
    unsafe {
        written(g.n * g.ho * g.wo * g.co, |y| {
            for_each(g.n * bands, |task| {
                let (i, rows) = (task / bands, part(g.ho, bands, task % bands));
                let image = &x[i * g.h * g.w * g.ci..(i + 1) * g.h * g.w * g.ci];
                let pixels = rows.len() * g.wo;
                let mut gathered = Scratch::new(pixels * depth);
                let gathered = gathered.slice_mut(pixels * depth);
                gather(image, g, rows.clone(), gathered);
                let bias = if bias.len() == g.co { bias } else { &bias[i * g.co..(i + 1) * g.co] };
                let y = fill_rows(y.ptr((i * g.ho + rows.start) * g.wo * g.co), pixels, bias);
                multiply(y, g.co, Matrix::new(gathered, pixels, depth, depth), &weights.0, true);
            });
        })
    }
}

/// Adds to `dx` [n, h, w, in] and `dw` [out, in, 3, 3] the gradients for `dy` [n, ho, wo, out]. `dx` comes with the
/// weight for it.
pub(super) fn backward(
    x: &[f32],
    dy: &[f32],
    g: &Geometry,
    mut dx: Option<(&mut [f32], &Weights)>,
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
            // SAFETY: written before it is read, by `gather` and by `multiply`.
            let gathered = unsafe { gathered.slice_mut(pixels * depth) };
            let dy = &dy[(i * g.ho + rows.start) * g.wo * g.co..][..pixels * g.co];
            let dy = Matrix::new(dy, pixels, g.co, g.co);
            if dw.is_some() {
                gather(&x[i * image..(i + 1) * image], g, rows.clone(), gathered);
                multiply(&mut by_window, g.co, Matrix::new(gathered, pixels, depth, depth).t(), &Panels::of(dy), true);
            }
            if let Some((dx, weights)) = &mut dx {
                multiply(gathered, depth, dy, &weights.0, false);
                scatter(gathered, g, rows, &mut dx[i * image..(i + 1) * image]);
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
