//! 3x3 convolution of NHWC maps: the differentiable operation, and which algorithm computes it.

use super::direct;
use super::layout::add_pixels;
use super::memory::{Reader, slice, storage, tensor};
use super::{Path, Window};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// What a layer prepares from its weight, when first needed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    direct_forward: OnceLock<direct::Weights>,
    direct_backward: OnceLock<direct::Weights>,
}

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub ci: usize,
    pub co: usize,
    /// Height and width of the output.
    pub ho: usize,
    pub wo: usize,
    pub stride: usize,
    /// Rows of zeros above, and columns to the left.
    pub pad: usize,
}

impl Geometry {
    fn new(x: &Shape, weight: &Shape, window: Window) -> Result<Self> {
        let (n, h, w, ci) = x.dims4()?;
        let (co, wi, kh, kw) = weight.dims4()?;
        let (stride, pad, padded) = match window {
            Window::Same => (1, 1, 2),
            Window::HalfSymmetric => (2, 1, 2),
            Window::HalfRightBottom => (2, 0, 1),
        };
        if (wi, kh, kw) != (ci, 3, 3) || h + padded < 3 || w + padded < 3 || n * ci * co == 0 {
            bail!("cannot convolve maps of shape {x:?} (n, h, w, c) with a weight of shape {weight:?}");
        }
        let (ho, wo) = ((h + padded - 3) / stride + 1, (w + padded - 3) / stride + 1);
        Ok(Self { n, h, w, ci, co, ho, wo, stride, pad })
    }
}

/// `x` [n, h, w, in] to [n, ho, wo, out] with `weight` [out, in, 3, 3] and `bias` [out] or, per image, [n, out].
pub(super) fn conv3x3(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    path: Path,
    prepared: &Arc<Prepared>,
) -> Result<Tensor> {
    let op = Conv { window, path, prepared: prepared.clone() };
    x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

struct Conv {
    window: Window,
    path: Path,
    prepared: Arc<Prepared>,
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv3x3"
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
        let g = Geometry::new(lx.shape(), lw.shape(), self.window)?;
        let (x, weight, bias) = (slice(x, lx)?, slice(weight, lw)?, slice(bias, lb)?);
        if bias.len() != g.co && bias.len() != g.n * g.co {
            bail!("a bias of shape {:?} does not fit {} images of {} channels", lb.shape(), g.n, g.co);
        }
        let weights = self.prepared.direct_forward.get_or_init(|| direct::Weights::forward(weight, &g));
        Ok(storage(direct::forward(x, weights, bias, &g), (g.n, g.ho, g.wo, g.co)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = Geometry::new(x.shape(), weight.shape(), self.window)?;
        let grad = grad.contiguous()?;
        let (x_data, w_data, grad_data) = (Reader::new(x), Reader::new(weight), Reader::new(&grad));
        let dy = grad_data.slice()?;
        let mut dx = match x.track_op() {
            true => Some(vec![0.0; x.elem_count()]),
            false => None,
        };
        let mut dw = match weight.track_op() {
            true => Some(vec![0.0; weight.elem_count()]),
            false => None,
        };
        let w = w_data.slice()?;
        let weights = self.prepared.direct_backward.get_or_init(|| direct::Weights::backward(w, &g));
        direct::backward(x_data.slice()?, dy, weights, &g, dx.as_deref_mut(), dw.as_deref_mut());
        let db = match bias.track_op() {
            true => Some(tensor(bias_gradient(dy, bias.elem_count(), &g), bias.shape())?),
            false => None,
        };
        let dx = dx.map(|dx| tensor(dx, x.shape())).transpose()?;
        let dw = dw.map(|dw| tensor(dw, weight.shape())).transpose()?;
        Ok((dx, dw, db))
    }
}

/// Sums of `dy` over pixels, and over images unless the bias is per image.
fn bias_gradient(dy: &[f32], len: usize, g: &Geometry) -> Vec<f32> {
    let mut db = vec![0.0; len];
    for (i, image) in dy.chunks_exact(g.ho * g.wo * g.co).enumerate() {
        let first = if len == g.co { 0 } else { i * g.co };
        add_pixels(&mut db[first..first + g.co], image);
    }
    db
}
