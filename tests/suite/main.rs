//! The tests of the library and the command line, in one binary.

mod data;
mod export;
