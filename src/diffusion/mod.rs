//! The mathematics of diffusion on plain numbers: no tensor library, no files, no clock.
//!
//! Index `t = 0` is one dose of noise, `t = T - 1` the noisiest. Names are those of the reference implementations.
//!
//! | symbol | name here | Ho et al. 2020 |
//! | --- | --- | --- |
//! | β_t | `betas[t]` | Eq. 2 |
//! | ᾱ_t | `alphas_cumprod[t]` | Eq. 4 |
//! | x_0, x_t | `x_start`, `x_t` | Eq. 1 |
//! | ε, ε̂ | `noise`, predicted `eps` | Eq. 11, 14 |
//! | x̂_0 | `pred_xstart` | Eq. 15 |
//! | μ̃_t, β̃_t | `posterior_mean_*`, `posterior_variance` | Eq. 6, 7 |
//! | z | noise of a reverse step | Algorithm 2 |

pub mod bound;
pub mod noise;
pub mod prediction;
pub mod process;
pub mod reel;
pub mod sampler;
pub mod schedule;
pub mod terms;
pub mod trajectory;

use std::fmt;

/// A batch of pictures, NCHW, data in [-1, 1] where it is an image; the plain type that every layer shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Number of pictures.
    pub n: usize,
    /// Channels: 1 or 3.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// n·c·h·w values.
    pub data: Vec<f32>,
}

impl Images {
    /// All values zero.
    pub fn zeros(n: usize, [c, h, w]: [usize; 3]) -> Self {
        Self { n, c, h, w, data: vec![0.0; n * c * h * w] }
    }

    /// Takes `data` of n·c·h·w values.
    pub fn new(n: usize, [c, h, w]: [usize; 3], data: Vec<f32>) -> Self {
        assert_eq!(data.len(), n * c * h * w, "pixel count");
        Self { n, c, h, w, data }
    }

    /// [c, h, w].
    pub fn shape(&self) -> [usize; 3] {
        [self.c, self.h, self.w]
    }

    /// Values per picture.
    pub fn len_one(&self) -> usize {
        self.c * self.h * self.w
    }

    /// The values of picture `i`.
    pub fn one(&self, i: usize) -> &[f32] {
        &self.data[i * self.len_one()..][..self.len_one()]
    }

    /// Picture `i` alone.
    pub fn picture(&self, i: usize) -> Self {
        Self::new(1, self.shape(), self.one(i).to_vec())
    }

    /// The values of picture `i`, to change.
    pub fn one_mut(&mut self, i: usize) -> &mut [f32] {
        let len = self.len_one();
        &mut self.data[i * len..][..len]
    }
}

/// A setting that the mathematics does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
