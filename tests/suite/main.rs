//! All tests but those of the window, in one binary to keep linking short.

mod checkpoint;
mod data;
mod engine;
mod golden;
mod golden_diffusion;
mod training;
