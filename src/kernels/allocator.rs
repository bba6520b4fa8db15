//! What the arithmetic needs of the global allocator, mimalloc.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc 3, which the bindings do not name: milliseconds until freed pages go back to the
/// system.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed pages for a minute instead of a second. A training step of a large network takes longer than a second, and
/// clearing its pages anew each time took a third of it. To be called first in `main`.
pub fn keep_freed_pages() {
    // SAFETY: no other thread runs yet that could read the option
    unsafe { mi_option_set(PURGE_DELAY, 60_000) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: no other test changes options.
        let value = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(value(), 1000, "mimalloc's default purge delay");
        keep_freed_pages();
        assert_eq!(value(), 60_000);
    }
}
