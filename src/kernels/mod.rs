//! The small vocabulary that networks are written in.
//!
//! A [`Map`] is a batch of feature maps. Its memory layout is nobody's business outside this module: NHWC on our own
//! CPU kernels, NCHW on candle's ops (CUDA, Metal, and the CPU in tests). A layer is an immutable view of its weights:
//! whatever it prepares from them (transformed, packed) lives as long as the layer, so weights never go stale.

#![allow(unsafe_code)]

use candle_core::{D, Result, Tensor, Var};
use std::sync::Arc;

pub use self_attention::SelfAttention;

mod affine;
pub mod allocator;
mod attention;
mod candle_path;
mod conv;
mod direct;
mod elementwise;
mod layout;
mod matrix;
mod memory;
mod narrow;
mod norm;
pub mod optimizer;
mod pixels;
mod self_attention;
mod simd;
mod tape;
#[cfg(test)]
mod tests;
pub mod threads;
mod tiles;
mod transforms;
pub mod trial;
mod winograd;

/// Which implementation computes a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// candle's own ops: CUDA and Metal; on the CPU only in tests.
    Candle,
    /// Our CPU kernels with their fastest algorithms.
    Fast,
    /// Our CPU kernels with direct algorithms only, for parity with other implementations.
    Exact,
}

/// The vectors in use on this processor, in words.
pub fn vectors() -> &'static str {
    match simd::level() {
        simd::Level::Portable => "no vector instructions",
        #[cfg(target_arch = "aarch64")]
        simd::Level::Neon => "NEON",
        #[cfg(target_arch = "x86_64")]
        simd::Level::Avx2 => "AVX2",
        #[cfg(target_arch = "x86_64")]
        simd::Level::Avx512 => "AVX-512",
    }
}

/// A batch of feature maps, [n, c, h, w] in the layout that suits its path.
#[derive(Clone, Debug)]
pub struct Map {
    /// On our kernels the channels may lie in several tensors, those of one after the other.
    strips: Vec<Tensor>,
    path: Path,
}

/// How a 3x3 convolution treats border and stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Stride 1, one pixel of zeros all around: the size stays.
    Same,
    /// Stride 2, one pixel of zeros all around (diffusers `downsample_padding` 1).
    HalfSymmetric,
    /// Stride 2, one pixel of zeros right and below only (diffusers `downsample_padding` 0).
    HalfRightBottom,
    /// Stride 1 over a map whose pixels are doubled both ways (nearest upsampling), one pixel of zeros all around.
    Doubled,
}

impl Map {
    /// From an NCHW tensor.
    pub fn from_nchw(x: &Tensor, path: Path) -> Result<Self> {
        let tensor = match path {
            Path::Candle => x.clone(),
            Path::Fast | Path::Exact => layout::to_nhwc(x)?,
        };
        Ok(Self { strips: vec![tensor], path })
    }

    fn strips(&self) -> Vec<&Tensor> {
        self.strips.iter().collect()
    }

    /// All channels in one tensor.
    fn whole(&self) -> Result<Tensor> {
        layout::concat(&self.strips())
    }

    /// Back to an NCHW tensor.
    pub fn to_nchw(&self) -> Result<Tensor> {
        match self.path {
            Path::Candle => self.whole(),
            Path::Fast | Path::Exact => layout::to_nchw(&self.whole()?),
        }
    }

    /// (n, c, h, w).
    pub fn dims(&self) -> Result<(usize, usize, usize, usize)> {
        let (n, a, b, _) = self.strips[0].dims4()?;
        let c = self.strips.iter().map(|strip| strip.dim(D::Minus1)).sum::<Result<usize>>()?;
        Ok(match self.path {
            Path::Candle => (n, a, b, c),
            Path::Fast | Path::Exact => (n, c, a, b),
        })
    }

    /// Elementwise sum of maps of one shape.
    pub fn add(&self, other: &Self) -> Result<Self> {
        match self.path {
            Path::Candle => self.with(self.whole()? + other.whole()?),
            Path::Fast | Path::Exact => self.with(elementwise::add(&self.whole()?, &other.whole()?)),
        }
    }

    /// Each value times `factor`.
    pub fn scale(&self, factor: f64) -> Result<Self> {
        match self.path {
            Path::Candle => self.with(self.whole()?.affine(factor, 0.0)),
            Path::Fast | Path::Exact => self.with(elementwise::scale(&self.whole()?, factor)),
        }
    }

    /// Elementwise product with `mask`, given as [n, c, h, w] on every path (dropout).
    pub fn mask(&self, mask: &Tensor) -> Result<Self> {
        match self.path {
            Path::Candle => self.with(self.whole()? * mask),
            Path::Fast | Path::Exact => self.with(elementwise::mask(&self.whole()?, &layout::to_nhwc(mask)?)),
        }
    }

    /// The channels of `self`, then those of `other`.
    pub fn concat(&self, other: &Self) -> Result<Self> {
        match self.path {
            Path::Candle => self.with(Tensor::cat(&[self.whole()?, other.whole()?], 1)),
            Path::Fast | Path::Exact => {
                Ok(Self { strips: [&self.strips[..], &other.strips].concat(), path: self.path })
            }
        }
    }

    fn with(&self, tensor: Result<Tensor>) -> Result<Self> {
        Ok(Self { strips: vec![tensor?], path: self.path })
    }
}

/// 3x3 convolution.
#[derive(Debug)]
pub struct Conv3x3 {
    weight: Tensor,
    bias: Tensor,
    window: Window,
    prepared: Arc<conv::Prepared>,
}

impl Conv3x3 {
    /// `weight` [out, in, 3, 3], `bias` [out].
    pub fn new(weight: Tensor, bias: Tensor, window: Window) -> Self {
        Self { weight, bias, window, prepared: Arc::default() }
    }

    /// [n, in, h, w] to [n, out, h, w], or half or twice of h and w.
    pub fn forward(&self, x: &Map) -> Result<Map> {
        self.convolve(x, &self.bias)
    }

    /// [`Conv3x3::forward`], then one value per image and channel is added: `bias` is [n, out].
    pub fn forward_with_bias(&self, x: &Map, bias: &Tensor) -> Result<Map> {
        match x.path {
            Path::Candle => x.with(candle_path::add_bias(&self.forward(x)?.whole()?, bias)),
            Path::Fast | Path::Exact => self.convolve(x, &elementwise::add_row(bias, &self.bias)?),
        }
    }

    fn convolve(&self, x: &Map, bias: &Tensor) -> Result<Map> {
        let Self { weight, window, prepared, .. } = self;
        x.with(match x.path {
            Path::Candle => candle_path::conv3x3(&x.whole()?, weight, bias, *window),
            path => conv::conv3x3(&x.whole()?, weight, bias, *window, path, prepared),
        })
    }
}

/// 1x1 convolution: the same linear map at each pixel.
#[derive(Debug)]
pub struct Conv1x1 {
    weight: Tensor,
    bias: Tensor,
    prepared: Arc<affine::Prepared>,
}

impl Conv1x1 {
    /// `weight` [out, in] or [out, in, 1, 1], `bias` [out].
    pub fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias, prepared: Arc::default() }
    }

    /// [n, in, h, w] to [n, out, h, w].
    pub fn forward(&self, x: &Map) -> Result<Map> {
        x.with(match x.path {
            Path::Candle => candle_path::conv1x1(&x.whole()?, &self.weight, &self.bias),
            Path::Fast | Path::Exact => affine::affine(&x.strips(), &self.weight, &self.bias, None, &self.prepared),
        })
    }

    /// [`Conv1x1::forward`], to which `addend` is added.
    pub fn forward_plus(&self, x: &Map, addend: &Map) -> Result<Map> {
        let Self { weight, bias, prepared } = self;
        match x.path {
            Path::Candle => self.forward(x)?.add(addend),
            _ => x.with(affine::affine(&x.strips(), weight, bias, Some(&addend.whole()?), prepared)),
        }
    }
}

/// Group normalisation with learned scale and shift per channel.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `weight` and `bias` [c]; `groups` divides c.
    pub fn new(weight: Tensor, bias: Tensor, groups: usize, eps: f64) -> Self {
        Self { weight, bias, groups, eps }
    }

    /// Normalises each group of channels of each image.
    pub fn forward(&self, x: &Map) -> Result<Map> {
        self.normalise(x, false)
    }

    /// [`GroupNorm::forward`], then x·sigmoid(x).
    pub fn forward_silu(&self, x: &Map) -> Result<Map> {
        self.normalise(x, true)
    }

    fn normalise(&self, x: &Map, silu: bool) -> Result<Map> {
        let Self { weight, bias, groups, eps } = self;
        x.with(match x.path {
            Path::Candle => {
                let y = candle_path::group_norm(&x.whole()?, weight, bias, *groups, *eps)?;
                if silu { y.silu() } else { Ok(y) }
            }
            Path::Fast | Path::Exact => norm::group_norm(&x.strips(), weight, bias, *groups, *eps, silu),
        })
    }
}

/// A linear map of vectors.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
    prepared: Arc<affine::Prepared>,
}

impl Linear {
    /// `weight` [out, in], `bias` [out].
    pub fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias, prepared: Arc::default() }
    }

    /// [n, in] to [n, out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match x.device().is_cpu() {
            true => affine::affine(&[&x.contiguous()?], &self.weight, &self.bias, None, &self.prepared),
            false => x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias),
        }
    }
}

/// x·sigmoid(x) for each number of `x` [n, c].
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { elementwise::silu(x) } else { x.silu() }
}

/// `weight` as a network is built on whose [`gradients`] are wanted: on candle's path a copy that its graph tracks, on ours
/// the weight itself, which must be contiguous and a tensor of its own.
pub fn tracked(path: Path, weight: &Tensor) -> Result<Tensor> {
    match path {
        Path::Candle => Ok(Var::from_tensor(weight)?.into_inner()),
        Path::Fast | Path::Exact => Ok(weight.clone()),
    }
}

/// A loss and its gradients for [`tracked`] `weights`. `output` runs a network on `path`, all on the calling thread; `loss`
/// tells how good its result is, and the gradient of that for the result.
///
/// # Errors
/// Those of `output` and `loss`, and if a weight has no part in the output.
pub fn gradients<L>(
    path: Path,
    weights: &[Tensor],
    output: impl FnOnce() -> Result<Tensor>,
    loss: impl FnOnce(&Tensor) -> Result<(L, Tensor)>,
) -> Result<(L, Vec<Tensor>)> {
    match path {
        Path::Candle => candle_path::gradients(weights, output, loss),
        Path::Fast | Path::Exact => tape::gradients(weights, output, loss),
    }
}
