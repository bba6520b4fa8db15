//! All tests but those of the window, in one binary to keep linking short.
#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

mod bench;
mod bring_back;
mod checkpoint;
mod cli;
mod comparison;
mod data;
mod divergence;
mod engine;
mod export;
mod export_film;
mod fork;
mod golden;
mod golden_diffusion;
mod hub;
mod oracle;
mod own_data;
mod python;
mod race;
mod reading;
mod recall;
mod runs;
mod saves;
mod snapshots;
mod structure;
mod training;
mod watch;
