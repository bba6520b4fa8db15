//! y = x Wᵀ + b along the last axis: linear layers, and 1x1 convolutions of NHWC maps.

use super::layout::add_pixels;
use super::matrix::{Matrix, Panels, multiply};
use super::memory::{Reader, part, slice, storage, tensor, written};
use super::tape::{apply3, wants_gradient};
use super::threads::{self, for_each};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Most rows of x that one task takes.
const CHUNK: usize = 192;

/// Products that are worth a thread of their own.
const SHARE: usize = 500_000;

/// What a layer prepares from its weight.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    forward: OnceLock<Panels<'static>>,
    backward: OnceLock<Panels<'static>>,
}

/// `x` [.., in] to [.., out] with `weight` [out, in] (or [out, in, 1, 1]) and `bias` [out].
pub(super) fn affine(x: &Tensor, weight: &Tensor, bias: &Tensor, prepared: &Arc<Prepared>) -> Result<Tensor> {
    apply3(&x.contiguous()?, weight, bias, Affine { prepared: prepared.clone() })
}

/// The operation of [`affine`].
pub(super) struct Affine {
    pub prepared: Arc<Prepared>,
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "affine"
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
        let (x, weight, bias) = (slice(x, lx)?, slice(weight, lw)?, slice(bias, lb)?);
        let (co, ci) = sizes(lx.shape(), lw.shape())?;
        let panels = self.prepared.forward.get_or_init(|| Panels::pack(Matrix::new(weight, co, ci, ci).t()));
        let rows = x.len() / ci;
        // no number depends on how rows are shared out
        let shares = (rows * ci * co).div_ceil(SHARE).clamp(1, threads::count());
        let parts = rows.div_ceil(CHUNK).next_multiple_of(shares).min(rows);
        // SAFETY: the parts cover all rows; each is first filled with the bias.
        let y = unsafe {
            written(rows * co, |y| {
                for_each(parts, |i| {
                    let Range { start, end } = part(rows, parts, i);
                    let y = fill_rows(y.ptr(start * co), end - start, bias);
                    let x = Matrix::new(&x[start * ci..], end - start, ci, ci);
                    multiply(y, co, x, panels, true);
                });
            })
        };
        let mut dims = lx.shape().dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = co;
        }
        Ok(storage(y, dims))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (co, ci) = sizes(x.shape(), weight.shape())?;
        let grad = grad.contiguous()?;
        let (x_data, w_data, grad_data) = (Reader::new(x), Reader::new(weight), Reader::new(&grad));
        let (x_data, dy) = (x_data.slice()?, grad_data.slice()?);
        let rows = dy.len() / co;
        let dx = match wants_gradient(x) {
            true => {
                let w = w_data.slice()?;
                let panels = self.prepared.backward.get_or_init(|| Panels::pack(Matrix::new(w, co, ci, ci)));
                // SAFETY: one product writes all rows; nothing is read before.
                let dx = unsafe {
                    written(rows * ci, |dx| {
                        multiply(dx.part(0, rows * ci), ci, Matrix::new(dy, rows, co, co), panels, false);
                    })
                };
                Some(tensor(dx, x.shape())?)
            }
            false => None,
        };
        let dw = match wants_gradient(weight) {
            true => {
                let mut dw = vec![0.0; co * ci];
                for (dy, x) in dy.chunks(CHUNK * co).zip(x_data.chunks(CHUNK * ci)) {
                    let rows = dy.len() / co;
                    let x = Panels::of(Matrix::new(x, rows, ci, ci));
                    multiply(&mut dw, ci, Matrix::new(dy, rows, co, co).t(), &x, true);
                }
                Some(tensor(dw, weight.shape())?)
            }
            false => None,
        };
        let db = match wants_gradient(bias) {
            true => {
                let mut sums = vec![0.0; co];
                add_pixels(&mut sums, dy);
                Some(tensor(sums, bias.shape())?)
            }
            false => None,
        };
        Ok((dx, dw, db))
    }
}

/// (out, in).
fn sizes(x: &Shape, weight: &Shape) -> Result<(usize, usize)> {
    let ci = x.dims().last().copied().unwrap_or(0);
    let co = weight.dims().first().copied().unwrap_or(0);
    if ci == 0 || co * ci != weight.elem_count() {
        candle_core::bail!("cannot apply a linear map of shape {weight:?} to {x:?}");
    }
    Ok((co, ci))
}

/// Writes `row` to each of `count` rows at `to` and hands them out.
///
/// # Safety
/// The rows must be valid for writing and used by nobody else.
pub(super) unsafe fn fill_rows<'a>(to: *mut f32, count: usize, row: &[f32]) -> &'a mut [f32] {
    for i in 0..count {
        // SAFETY: the caller's contract.
        unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to.add(i * row.len()), row.len()) };
    }
    // SAFETY: just written.
    unsafe { std::slice::from_raw_parts_mut(to, count * row.len()) }
}
