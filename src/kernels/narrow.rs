//! Direct 3x3 convolution of stride 1 to few channels, such as the last layer's 1 or 3.
//!
//! With fewer outputs than a register is wide, the products of each input pixel with the nine window positions come
//! first, [pixels, in] times [in, 9 * out], and the nine shifted sums after.

use super::conv::Geometry;
use super::direct::gather;
use super::matrix::{Matrix, Panels, multiply};
use super::memory::{part, written};
use super::threads::for_each;

/// Most output channels for which this pays.
pub(super) const MAX_OUT: usize = 4;

/// A weight [out, in, 3, 3], packed.
#[derive(Debug)]
pub(super) struct Weights(Panels<'static>);

impl Weights {
    /// As [in, 9 * out].
    pub(super) fn forward(weight: &[f32], g: &Geometry) -> Self {
        let mut to = vec![0.0; weight.len()];
        for_each_weight(g, |from, i, k, o| to[(i * 9 + k) * g.co + o] = weight[from]);
        Self(Panels::pack(Matrix::new(&to, g.ci, 9 * g.co, 9 * g.co)))
    }

    /// As [9 * out, in], the window turned by half a circle.
    pub(super) fn backward(weight: &[f32], g: &Geometry) -> Self {
        let mut to = vec![0.0; weight.len()];
        for_each_weight(g, |from, i, k, o| to[((8 - k) * g.co + o) * g.ci + i] = weight[from]);
        Self(Panels::pack(Matrix::new(&to, 9 * g.co, g.ci, g.ci)))
    }
}

/// Calls `each(index, in, window position, out)` for each number of a weight.
fn for_each_weight(g: &Geometry, mut each: impl FnMut(usize, usize, usize, usize)) {
    for index in 0..9 * g.ci * g.co {
        each(index, index / 9 % g.ci, index % 9, index / 9 / g.ci);
    }
}

/// Convolves `x` [n, h, w, in]; `bias` is [out] or [n, out].
pub(super) fn forward(x: &[f32], weights: &Weights, bias: &[f32], g: &Geometry) -> Vec<f32> {
    let bands = g.h.min(4);
    let (inputs, outputs, products) = (g.w * g.ci, g.w * g.co, 9 * g.co);
    let line = (g.w + 2) * products;
    // SAFETY: the bands of all images cover the output.
    unsafe {
        written(g.n * g.h * outputs, |y| {
            for_each(g.n * bands, |task| {
                let (image, rows) = (task / bands, part(g.h, bands, task % bands));
                let bias = if bias.len() == g.co { bias } else { &bias[image * g.co..(image + 1) * g.co] };
                // products of the rows and of one more on each side, in a margin of zeros
                let mut t = vec![0.0; (rows.len() + 2) * line];
                for row in rows.start.saturating_sub(1)..(rows.end + 1).min(g.h) {
                    let x = Matrix::new(&x[(image * g.h + row) * inputs..], g.w, g.ci, g.ci);
                    let to = (row + 1 - rows.start) * line + products;
                    multiply(&mut t[to..], products, x, &weights.0, false);
                }
                for (i, row) in rows.enumerate() {
                    let y = y.part((image * g.h + row) * outputs, outputs);
                    for (x, y) in y.chunks_exact_mut(g.co).enumerate() {
                        for (o, y) in y.iter_mut().enumerate() {
                            let mut sum = bias[o];
                            for k in 0..9 {
                                sum += t[(i + k / 3) * line + (x + k % 3) * products + k * g.co + o];
                            }
                            *y = sum;
                        }
                    }
                }
            });
        })
    }
}

/// Adds to `dx` [n, h, w, in] and `dw` [out, in, 3, 3] the gradients for `dy` [n, h, w, out]. `dx` comes with the
/// weight for it.
pub(super) fn backward(
    x: &[f32],
    dy: &[f32],
    g: &Geometry,
    mut dx: Option<(&mut [f32], &Weights)>,
    dw: Option<&mut [f32]>,
) {
    let (pixels, products) = (g.h * g.w, 9 * g.co);
    let windows_of_dy = Geometry { ci: g.co, ..*g };
    let mut gathered = vec![0.0; pixels * products];
    let mut sums = vec![0.0; if dw.is_some() { products * g.ci } else { 0 }];
    for (i, dy) in dy.chunks_exact(pixels * g.co).enumerate() {
        gather(dy, &windows_of_dy, 0..g.h, &mut gathered);
        let gathered = Matrix::new(&gathered, pixels, products, products);
        let image = i * pixels * g.ci..(i + 1) * pixels * g.ci;
        if dw.is_some() {
            let x = Panels::of(Matrix::new(&x[image.clone()], pixels, g.ci, g.ci));
            multiply(&mut sums, g.ci, gathered.t(), &x, true);
        }
        if let Some((dx, weights)) = &mut dx {
            multiply(&mut dx[image], g.ci, gathered, &weights.0, true);
        }
    }
    if let Some(dw) = dw {
        for_each_weight(g, |to, i, k, o| dw[to] += sums[((8 - k) * g.co + o) * g.ci + i]);
    }
}
