//! Training: settings, the step, the optimiser, the curves.

pub mod config;
pub mod metrics;
