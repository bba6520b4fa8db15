//! The window: driven without a worker by events and clicks, and once for real on a virtual display.
#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

mod audience;
mod branches;
mod data;
mod drawing;
mod export;
mod film;
mod film_states;
mod hub;
mod noise;
mod race;
mod recall;
mod run_form;
mod runs;
mod schedule;
mod shared;
mod step;
mod support;
mod timeline;
mod training;
mod training_tabs;
mod unsaved;
mod watch;
mod window;
