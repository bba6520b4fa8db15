//! A run as others see it: TensorBoard event files and a table of its curves.

mod appender;
mod curves;
mod event;
mod record;

pub use curves::{RunLog, STRIP, TAGS};
