//! 3x3 convolution of NHWC maps: the differentiable operation, and which algorithm computes it.

use super::direct;
use super::layout::{add_pixels, upsample_nearest2x};
use super::matrix::PANEL;
use super::memory::{Reader, slice, storage, tensor};
use super::tape::{apply3, wants_gradient};
use super::winograd::{self, Gradients};
use super::{Path, Window, narrow};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// Past so many kernels a transformed weight is not kept while training: those of a large network would be eight times
/// the network, and each is used but a few times.
const KEPT: usize = 40_000;

/// What a layer prepares from its weight, when first needed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    direct_forward: OnceLock<direct::Weights>,
    direct_backward: OnceLock<direct::Weights>,
    narrow_forward: OnceLock<narrow::Weights>,
    narrow_backward: OnceLock<narrow::Weights>,
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
    /// Height and width of the output, larger than h and w if the input's pixels are doubled.
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
            Window::Same | Window::Doubled => (1, 1, 2),
            Window::HalfSymmetric => (2, 1, 2),
            Window::HalfRightBottom => (2, 0, 1),
        };
        if (wi, kh, kw) != (ci, 3, 3) || h + padded < 3 || w + padded < 3 || n * ci * co == 0 {
            bail!("cannot convolve maps of shape {x:?} (n, h, w, c) with a weight of shape {weight:?}");
        }
        let times = if window == Window::Doubled { 2 } else { 1 };
        let (ho, wo) = ((times * h + padded - 3) / stride + 1, (times * w + padded - 3) / stride + 1);
        Ok(Self { n, h, w, ci, co, ho, wo, stride, pad })
    }
}

/// Whether Winograd's algorithm computes such a convolution. Only it can double pixels itself.
pub(super) fn is_winograd(window: Window, path: Path, ci: usize, co: usize) -> bool {
    let multiples = ci.is_multiple_of(PANEL) && co.is_multiple_of(PANEL);
    path == Path::Fast && matches!(window, Window::Same | Window::Doubled) && multiples
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
    let (co, ci, ..) = weight.dims4()?;
    if window == Window::Doubled && !is_winograd(window, path, ci, co) {
        let x = upsample_nearest2x(x)?;
        return conv3x3(&x, weight, bias, Window::Same, path, prepared);
    }
    let large = co * ci > KEPT;
    let op = Conv { window, path, prepared: prepared.clone(), keeps: !(large && wants_gradient(weight)) };
    apply3(x, &weight.contiguous()?, &bias.contiguous()?, op)
}

/// The operation of [`conv3x3`].
pub(super) struct Conv {
    pub window: Window,
    pub path: Path,
    pub prepared: Arc<Prepared>,
    /// Whether transformed weights are kept in `prepared`.
    pub keeps: bool,
}

/// The ways to compute a convolution.
enum Algorithm {
    Direct,
    Narrow,
    Winograd,
}

impl Conv {
    fn algorithm(&self, g: &Geometry) -> Algorithm {
        if self.window == Window::Same && g.co <= narrow::MAX_OUT {
            Algorithm::Narrow
        } else if is_winograd(self.window, self.path, g.ci, g.co) {
            Algorithm::Winograd
        } else {
            Algorithm::Direct
        }
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
        let Prepared { direct_forward, narrow_forward, winograd_forward, .. } = &*self.prepared;
        let y = match self.algorithm(&g) {
            Algorithm::Direct => {
                direct::forward(x, direct_forward.get_or_init(|| direct::Weights::forward(weight, &g)), bias, &g)
            }
            Algorithm::Narrow => {
                narrow::forward(x, narrow_forward.get_or_init(|| narrow::Weights::forward(weight, &g)), bias, &g)
            }
            Algorithm::Winograd => {
                let own = OnceLock::new();
                let weights = if self.keeps { winograd_forward } else { &own };
                winograd::forward(x, weights.get_or_init(|| winograd::Weights::forward(weight, &g)), bias, &g)
            }
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
        if dy.len() != g.n * g.ho * g.wo * g.co {
            bail!("a gradient of shape {:?} does not fit {g:?}", grad.shape());
        }
        let room = |of: &Tensor| wants_gradient(of).then(|| vec![0.0; of.elem_count()]);
        let (mut dx, mut dw, mut db) = (room(x), room(weight), room(bias));
        let (x_data, w_data) = (x_data.slice()?, w_data.slice()?);
        let Prepared { direct_backward, narrow_backward, winograd_backward, .. } = &*self.prepared;
        let (dx_room, dw_room) = (dx.as_deref_mut(), dw.as_deref_mut());
        let algorithm = self.algorithm(&g);
        if let (Some(db), Algorithm::Direct | Algorithm::Narrow) = (&mut db, &algorithm) {
            add_bias_gradient(db, dy, &g);
        }
        match algorithm {
            Algorithm::Direct => {
                let weights = || direct_backward.get_or_init(|| direct::Weights::backward(w_data, &g));
                direct::backward(x_data, dy, &g, dx_room.map(|dx| (dx, weights())), dw_room);
            }
            Algorithm::Narrow => {
                let weights = || narrow_backward.get_or_init(|| narrow::Weights::backward(w_data, &g));
                narrow::backward(x_data, dy, &g, dx_room.map(|dx| (dx, weights())), dw_room);
            }
            Algorithm::Winograd => {
                let own = OnceLock::new();
                let weights = if self.keeps { winograd_backward } else { &own };
                let dx = dx_room.map(|dx| (dx, weights.get_or_init(|| winograd::Weights::backward(w_data, &g))));
                winograd::backward(x_data, dy, &g, Gradients { dx, dw: dw_room, db: db.as_deref_mut() });
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
