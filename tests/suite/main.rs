//! All tests but those of the window, in one binary to keep linking short.

mod checkpoint;
mod golden;
