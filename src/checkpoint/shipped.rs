//! The model inside the program, so that it works from anywhere.

use super::{Checkpoint, load_embedded};
use crate::error::Result;
use candle_core::Device;

macro_rules! embedded {
    ($model:literal, [$($file:literal),* $(,)?]) => {
        &[$(($file, include_bytes!(concat!("../../checkpoints/", $model, "/", $file)))),*]
    };
}

/// Files of `checkpoints/mnist28`.
const MNIST28: &[(&str, &[u8])] = embedded!(
    "mnist28",
    [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "film/raw.safetensors",
        "film/state.json",
    ]
);

/// The shipped mnist28.
///
/// # Errors
/// If the device has no memory for it.
pub fn shipped(device: &Device) -> Result<Checkpoint> {
    load_embedded(MNIST28, device)
}
