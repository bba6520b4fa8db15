//! y = x Wᵀ + b along the last axis: linear layers, and 1x1 convolutions of NHWC maps.

use super::elementwise;
use super::layout::{self, Strip, add_pixels};
use super::matrix::{Matrix, PANEL, Panels, multiply};
use super::memory::{Reader, part, slice, storage, tensor, written};
use super::tape::{Fused, apply_fused, wants_gradient, with_known};
use super::threads::{self, for_each};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
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
    let forward = |op: &Affine| {
        let shape = layout::shape_of_all(x)?;
        let readers: Vec<Reader> = x.iter().map(|x| Reader::new(x)).collect();
        let (weight_data, bias, addend) = (Reader::new(weight), Reader::new(bias), addend.map(Reader::new));
        let addend = addend.as_ref().map(Reader::slice).transpose()?;
        let sizes = sizes(&shape, weight.shape())?;
        let y = op.forward(&Strip::all(&readers, &shape)?, sizes, weight_data.slice()?, bias.slice()?, addend)?;
        tensor(y, with_channels(&shape, sizes.0))
    };
    let apart = || {
        let y = layout::concat(x)?.apply_op3(weight, bias, op(1))?;
        addend.map_or_else(|| Ok(y.clone()), |addend| elementwise::add(&y, addend))
    };
    apply_fused(&[x, &[weight, bias], addend.as_slice()].concat(), op(x.len()), forward, apart)
}

fn pixels(x: &Tensor) -> usize {
    x.dims().iter().rev().skip(1).product()
}

/// The operation of [`affine`].
pub(super) struct Affine {
    pub prepared: Arc<Prepared>,
    /// Tensors that make up the input.
    pub strips: usize,
}

impl Affine {
    fn forward(
        &self,
        strips: &[Strip],
        (co, ci): (usize, usize),
        weight: &[f32],
        bias: &[f32],
        addend: Option<&[f32]>,
    ) -> Result<Vec<f32>> {
        let panels = self.prepared.forward.get_or_init(|| Panels::pack(Matrix::new(weight, co, ci, ci).t()));
        let rows = strips.iter().map(|strip| strip.x.len()).sum::<usize>() / ci;
        if bias.len() != co || addend.is_some_and(|addend| addend.len() != rows * co) {
            bail!("{rows} x {co} numbers do not fit a bias of {} or what is to be added", bias.len());
        }
        // no number depends on how rows are shared out
        let shares = (rows * ci * co).div_ceil(SHARE).clamp(1, threads::count());
        let parts = rows.div_ceil(CHUNK).next_multiple_of(shares).min(rows);
        // SAFETY: the parts cover all rows; each is first filled with what the products are added to.
        Ok(unsafe {
            written(rows * co, |y| {
                for_each(parts, |i| {
                    let rows = part(rows, parts, i);
                    let y = fill_rows(y.ptr(rows.start * co), rows.len(), bias);
                    if let Some(addend) = addend {
                        y.iter_mut().zip(&addend[rows.start * co..rows.end * co]).for_each(|(y, a)| *y += a);
                    }
                    for strip in strips {
                        let c = strip.channels.len();
                        let x = Matrix::new(strip.pixels(&rows), rows.len(), c, c);
                        multiply(y, co, x, &panels.part(strip.channels.clone(), 0..co), true);
                    }
                });
            })
        })
    }
}

impl Fused for Affine {
    fn gradients(
        &self,
        arguments: &[Tensor],
        grad: &Tensor,
        known: Vec<Option<Tensor>>,
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, others) = arguments.split_at(self.strips);
        let [weight, bias, addend @ ..] = others else { bail!("a linear map without a weight") };
        let shape = layout::shape_of_all(&x.iter().collect::<Vec<_>>())?;
        let (co, ci) = sizes(&shape, weight.shape())?;
        let grad = grad.contiguous()?;
        let (w_data, grad_data) = (Reader::new(weight), Reader::new(&grad));
        let readers: Vec<Reader> = x.iter().map(Reader::new).collect();
        let strips = Strip::all(&readers, &shape)?;
        let dy = grad_data.slice()?;
        let rows = dy.len() / co;
        let mut gradients = Vec::with_capacity(arguments.len());
        for (x, strip) in x.iter().zip(&strips) {
            gradients.push(if wants_gradient(x) {
                let w = w_data.slice()?;
                let panels = self.prepared.backward.get_or_init(|| Panels::pack(Matrix::new(w, co, ci, ci)));
                let (panels, c) = (panels.part(0..co, strip.channels.clone()), strip.channels.len());
                // SAFETY: one product writes all rows; nothing is read before.
                let dx = unsafe {
                    written(rows * c, |dx| {
                        multiply(dx.part(0, rows * c), c, Matrix::new(dy, rows, co, co), &panels, false);
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
        let sizes = sizes(lx.shape(), lw.shape())?;
        let strip = Strip { x: slice(x, lx)?, channels: 0..sizes.1 };
        let y = self.forward(&[strip], sizes, slice(weight, lw)?, slice(bias, lb)?, None)?;
        Ok(storage(y, with_channels(lx.shape(), sizes.0)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut all = self.gradients(&[x.clone(), weight.clone(), bias.clone()], grad, vec![None; 3])?.into_iter();
        let mut next = || all.next().flatten();
        Ok((next(), next(), next()))
    }
}

/// The shape of `x` with other channels.
fn with_channels(x: &Shape, c: usize) -> Shape {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = c;
    }
    dims.into()
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
