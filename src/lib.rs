//! ddpm-film: watch a denoising diffusion model (Ho, Jain & Abbeel 2020) train, drown pictures in noise, and bring
//! them back. ARCHITECTURE.md says which module may use which.

pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod diffusion;
pub mod engine;
pub mod error;
pub mod export;
pub mod kernels;
pub mod model;
pub mod monitor;
pub mod train;
pub mod ui;
