//! The network: diffusers' `UNet2DModel`, its settings, its weights, and what the rest of the program sees of it.

use crate::diffusion::Images;
use crate::error::Result;
use crate::kernels::Path;
use candle_core::{Device, Tensor};

mod blocks;
pub mod compute;
mod config;
mod network;
pub mod oracle;
mod params;
mod plan;
mod unet;

pub use config::{Config, PRESETS, SampleSize};
pub use network::Network;
pub use params::Params;
pub use unet::{Dropout, UNet};

/// Predicts the noise in pictures.
pub trait Denoiser {
    /// [c, h, w] of its pictures.
    fn shape(&self) -> [usize; 3];

    /// ε̂(x_t, t), one `t` for each picture.
    ///
    /// # Errors
    /// The pictures do not fit, the device fails, or the denoiser has no such timestep: one that predicts v wants whole ones,
    /// the oracle one for all pictures.
    fn predict(&self, x_t: &Images, t: &[f32]) -> Result<Images>;
}

/// Which kernels suit a device: ours on the CPU, candle's elsewhere.
pub fn path_for(device: &Device) -> Path {
    if device.is_cpu() { Path::Fast } else { Path::Candle }
}

impl Denoiser for UNet {
    fn shape(&self) -> [usize; 3] {
        Self::shape(self)
    }

    fn predict(&self, x_t: &Images, t: &[f32]) -> Result<Images> {
        let shape = (x_t.n, x_t.c, x_t.h, x_t.w);
        let x = Tensor::from_slice(&x_t.data, shape, self.device())?;
        let eps = self.forward(&x, t, None)?.flatten_all()?.to_vec1()?;
        Ok(Images::new(x_t.n, x_t.shape(), eps))
    }
}
