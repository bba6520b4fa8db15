//! Training: settings, the step, the optimiser, the curves.

pub mod adam;
pub mod changes;
pub mod config;
pub mod metrics;
pub mod trainer;
