//! The vocabulary in candle's own ops, on NCHW tensors: CUDA, Metal, and a second opinion on the CPU in tests.

use super::Window;
use candle_core::{D, Result, Tensor, bail};

pub(super) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (n, c) = bias.dims2()?;
    x.broadcast_add(&bias.reshape((n, c, 1, 1))?)
}

/// Not candle's `upsample_nearest2d`: its gradient replaces, rather than adds to, that of other uses of `x`.
fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    x.reshape((n, c, h, 1, w, 1))?.broadcast_as((n, c, h, 2, w, 2))?.contiguous()?.reshape((n, c, 2 * h, 2 * w))
}

pub(super) fn conv3x3(x: &Tensor, weight: &Tensor, bias: &Tensor, window: Window) -> Result<Tensor> {
    let y = match window {
        Window::Same => x.conv2d(weight, 1, 1, 1, 1)?,
        Window::HalfSymmetric => x.conv2d(weight, 1, 2, 1, 1)?,
        Window::HalfRightBottom => {
            let padded = x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
            padded.conv2d(weight, 0, 2, 1, 1)?
        }
        Window::Doubled => upsample_nearest2x(x)?.conv2d(weight, 1, 1, 1, 1)?,
    };
    y.broadcast_add(&bias.reshape((1, (), 1, 1))?)
}

pub(super) fn conv1x1(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let out = bias.elem_count();
    let weight = weight.reshape((1, out, c))?.broadcast_as((n, out, c))?;
    let y = weight.contiguous()?.matmul(&x.reshape((n, c, h * w))?)?;
    y.reshape((n, out, h, w))?.broadcast_add(&bias.reshape((1, out, 1, 1))?)
}

pub(super) fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let x = x.reshape((n, groups, ()))?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.reshape((n, c, h, w))?;
    normal.broadcast_mul(&weight.reshape((1, c, 1, 1))?)?.broadcast_add(&bias.reshape((1, c, 1, 1))?)
}

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, c, h, w) = q.dims4()?;
    let d = c / heads;
    let split = |x: &Tensor| x.reshape((n * heads, d, h * w));
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let scores = (q.t()?.contiguous()?.matmul(&k)? / (d as f64).sqrt())?;
    // not softmax_last_dim: it has no gradient
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    v.matmul(&weights.t()?.contiguous()?)?.reshape((n, c, h, w))
}

/// See [`super::gradients`].
pub(super) fn gradients<L>(
    weights: &[Tensor],
    output: impl FnOnce() -> Result<Tensor>,
    loss: impl FnOnce(&Tensor) -> Result<(L, Tensor)>,
) -> Result<(L, Vec<Tensor>)> {
    let output = output()?;
    let (loss, grad) = loss(&output.detach())?;
    let mut gradients = (output * grad)?.sum_all()?.backward()?;
    // each remembers how it was computed, which would keep all maps of this step alive, and those of all steps before
    let of = |weight: &Tensor| gradients.remove(weight).map(|gradient| gradient.detach());
    match weights.iter().map(of).collect() {
        Some(gradients) => Ok((loss, gradients)),
        None => bail!("a weight has no part in the output"),
    }
}
