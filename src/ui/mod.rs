//! The window.
use crate::engine::{Options, Result};
/// Opens the window.
pub fn run(_o: Options) -> Result<()> {
    Ok(())
}
