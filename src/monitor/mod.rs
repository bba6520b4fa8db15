//! A run as others see it: TensorBoard event files and a table of its curves, and such files of any program watched from
//! outside.

mod appender;
mod curves;
mod event;
mod record;
mod tail;
mod watch;

pub use curves::{RunLog, STRIP, TAGS};
pub use watch::{Run, Series, Watch, Watched};
