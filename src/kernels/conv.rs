//! 3x3 convolution of NHWC maps: the differentiable operation, and which algorithm computes it.

use super::direct;
use super::layout::add_pixels;
use super::memory::{Reader, slice, storage, tensor};
use super::winograd::{self, Gradients};
use super::{Path, Window};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// What a layer prepares from its weight, when first needed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    direct_forward: OnceLock<direct::Weights>,
    direct_backward: OnceLock<direct::Weights>,
    winograd_forward: OnceLock<winograd::Weights>,
    winograd_backward: OnceLock<winograd::Weights>,
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

/// Pixels of a batch up to which reading the transformed weights costs more than Winograd saves.
const FEW_PIXELS: usize = 64;

struct Conv {
    window: Window,
    path: Path,
    prepared: Arc<Prepared>,
}

impl Conv {
    fn by_winograd(&self, g: &Geometry) -> bool {
        let fits = self.window == Window::Same && g.ci % 16 == 0 && g.co % 16 == 0;
        self.path == Path::Fast && fits && g.n * g.h * g.w > FEW_PIXELS
    }
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
        let y = if self.by_winograd(&g) {
            let weights = self.prepared.winograd_forward.get_or_init(|| winograd::Weights::forward(weight, &g));
            winograd::forward(x, weights, bias, &g)
        } else {
            let weights = self.prepared.direct_forward.get_or_init(|| direct::Weights::forward(weight, &g));
            direct::forward(x, weights, bias, &g)
        };
        Ok(storage(y, (g.n, g.ho, g.wo, g.co)))
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
        let room = |of: &Tensor| of.track_op().then(|| vec![0.0; of.elem_count()]);
        let (mut dx, mut dw, mut db) = (room(x), room(weight), room(bias));
        let (x_data, w_data) = (x_data.slice()?, w_data.slice()?);
        if self.by_winograd(&g) {
            let weights = || self.prepared.winograd_backward.get_or_init(|| winograd::Weights::backward(w_data, &g));
            let dx = dx.as_deref_mut().map(|dx| (dx, weights()));
            let gradients = Gradients { dx, dw: dw.as_deref_mut(), db: db.as_deref_mut() };
            winograd::backward(x_data, dy, &g, gradients);
        } else {
            let weights = self.prepared.direct_backward.get_or_init(|| direct::Weights::backward(w_data, &g));
            direct::backward(x_data, dy, weights, &g, dx.as_deref_mut(), dw.as_deref_mut());
            if let Some(db) = &mut db {
                add_bias_gradient(db, dy, &g);
            }
        }
        let give = |data: Option<Vec<f32>>, of: &Tensor| data.map(|data| tensor(data, of.shape())).transpose();
        Ok((give(dx, x)?, give(dw, weight)?, give(db, bias)?))
    }
}

/// Adds sums of `dy` over pixels, and over images unless the bias is per image.
fn add_bias_gradient(db: &mut [f32], dy: &[f32], g: &Geometry) {
    let per_image = db.len() != g.co;
    for (i, image) in dy.chunks_exact(g.ho * g.wo * g.co).enumerate() {
        let first = if per_image { i * g.co } else { 0 };
        add_pixels(&mut db[first..first + g.co], image);
    }
}
