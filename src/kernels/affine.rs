//! y = x Wᵀ + b along the last axis: linear layers, and 1x1 convolutions of NHWC maps.

use super::elementwise;
use super::layout::{self, Strip, add_pixels};
use super::matrix::{Matrix, PANEL, Panels, multiply};
use super::memory::{Numbers, Reader, part, tensor, written};
use super::tape::{Fused, OfThree, apply_fused, wants_gradient, with_known};
use super::threads::{self, for_each};
use candle_core::{Result, Shape, Tensor, bail};
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

/// [.., in] to [.., out] with `weight` [out, in] (or [out, in, 1, 1]) and `bias` [out], plus `addend` [.., out] if there is
/// one. The input is that of `x`, one tensor [.., c] after the other.
pub(super) fn affine(
    x: &[&Tensor],
    weight: &Tensor,
    bias: &Tensor,
    addend: Option<&Tensor>,
    prepared: &Arc<Prepared>,
) -> Result<Tensor> {
    if x.iter().rev().skip(1).any(|x| !x.elem_count().is_multiple_of(PANEL * pixels(x))) {
        // only whole panels of the weight can be told apart
        return affine(&[&layout::concat(x)?], weight, bias, addend, prepared);
    }
    let op = |strips| Affine { prepared: prepared.clone(), strips };
    let apart = || {
        let y = layout::concat(x)?.apply_op3(weight, bias, OfThree(op(1)))?;
        match addend {
            Some(addend) => elementwise::add(&y, addend),
            None => Ok(y),
        }
    };
    apply_fused(&[x, &[weight, bias], addend.as_slice()].concat(), op(x.len()), apart)
}

fn pixels(x: &Tensor) -> usize {
    x.dims().iter().rev().skip(1).product()
}

/// The operation of [`affine`], of the tensors that make up the input, the weight, the bias and perhaps the addend.
pub(super) struct Affine {
    pub prepared: Arc<Prepared>,
    /// Tensors that make up the input.
    pub strips: usize,
}

impl Fused for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn forward(&self, arguments: &[Numbers]) -> Result<(Vec<f32>, Shape)> {
        let (x, others) = arguments.split_at(self.strips);
        let [weight, bias, addend @ ..] = others else { bail!("a linear map without a weight") };
        let (strips, shape) = Strip::all(x)?;
        let (co, ci) = sizes(&shape, weight.shape)?;
        let mut dims = shape.into_dims();
        dims.last_mut().into_iter().for_each(|c| *c = co);
        let shape = Shape::from(dims);
        if bias.data.len() != co || addend.iter().any(|addend| *addend.shape != shape) {
            bail!("a bias of {} numbers or what is to be added does not fit {shape:?}", bias.data.len());
        }
        let panels = self.prepared.forward.get_or_init(|| Panels::pack(Matrix::new(weight.data, co, ci, ci).t()));
        let rows = shape.elem_count() / co;
        // no number depends on how rows are shared out
        let shares = (rows * ci * co).div_ceil(SHARE).clamp(1, threads::count());
        let parts = rows.div_ceil(CHUNK).next_multiple_of(shares).min(rows);
        // SAFETY: the parts cover all rows; each is first filled with what the products are added to.
        let y = unsafe {
            written(rows * co, |y| {
                for_each(parts, |i| {
                    let rows = part(rows, parts, i);
                    let y = fill_rows(y.ptr(rows.start * co), rows.len(), bias.data);
                    for addend in addend {
                        y.iter_mut().zip(&addend.data[rows.start * co..rows.end * co]).for_each(|(y, a)| *y += a);
                    }
                    for strip in &strips {
                        let c = strip.channels.len();
                        let x = Matrix::new(strip.pixels(&rows), rows.len(), c, c);
                        multiply(y, co, x, &panels.part(strip.channels.clone(), 0..co), true);
                    }
                });
            })
        };
        Ok((y, shape))
    }

    fn gradients(
        &self,
        arguments: &[Tensor],
        grad: &Tensor,
        known: Vec<Option<Tensor>>,
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, others) = arguments.split_at(self.strips);
        let [weight, bias, addend @ ..] = others else { bail!("a linear map without a weight") };
        let grad = grad.contiguous()?;
        let (w_data, grad_data) = (Reader::new(weight), Reader::new(&grad));
        let readers: Vec<Reader> = x.iter().map(Reader::new).collect();
        let (strips, shape) = Strip::all(&readers.iter().map(Reader::numbers).collect::<Result<Vec<_>>>()?)?;
        let (co, ci) = sizes(&shape, weight.shape())?;
        let dy = grad_data.slice()?;
        let rows = dy.len() / co;
        let mut gradients = Vec::with_capacity(arguments.len());
        for (x, strip) in x.iter().zip(&strips) {
            gradients.push(if wants_gradient(x) {
                let w = w_data.slice()?;
                let panels = self.prepared.backward.get_or_init(|| Panels::pack(Matrix::new(w, co, ci, ci)));
                let (panels, c) = (panels.part(0..co, strip.channels.clone()), strip.channels.len());
                // SAFETY: the products write all rows; nothing is read before.
                let dx = unsafe {
                    written(rows * c, |dx| {
                        for first in (0..rows).step_by(CHUNK) {
                            let count = CHUNK.min(rows - first);
                            let dy = Matrix::new(&dy[first * co..], count, co, co);
                            multiply(dx.part(first * c, count * c), c, dy, &panels, false);
                        }
                    })
                };
                Some(tensor(dx, x.shape())?)
            } else {
                None
            });
        }
        gradients.push(if wants_gradient(weight) {
            let mut dw = vec![0.0; co * ci];
            for first in (0..rows).step_by(CHUNK) {
                let rows = first..rows.min(first + CHUNK);
                let dy = Matrix::new(&dy[rows.start * co..], rows.len(), co, co).t();
                for strip in &strips {
                    let c = strip.channels.len();
                    let x = Panels::of(Matrix::new(strip.pixels(&rows), rows.len(), c, c));
                    multiply(&mut dw[strip.channels.start..], ci, dy, &x, true);
                }
            }
            Some(tensor(dw, weight.shape())?)
        } else {
            None
        });
        gradients.push(if wants_gradient(bias) {
            let mut sums = vec![0.0; co];
            add_pixels(&mut sums, dy);
            Some(tensor(sums, bias.shape())?)
        } else {
            None
        });
        gradients.extend(addend.iter().map(|addend| wants_gradient(addend).then(|| grad.clone())));
        known.into_iter().zip(gradients).map(|(known, grad)| with_known(known, grad)).collect()
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
