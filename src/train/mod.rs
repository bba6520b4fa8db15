//! Training: settings, the step, the optimiser, the curves.

pub mod adam;
pub mod changes;
pub mod config;
mod divergence;
pub mod doctor;
pub mod evaluation;
pub mod floor;
mod good;
pub mod metrics;
mod table;
pub mod timesteps;
pub mod trainer;
