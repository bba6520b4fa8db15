//! Peak memory of processes, as Linux counts it; elsewhere nothing is known.

use std::path::Path;

const PAGES_IN_MEMORY: &str = "VmRSS:";
const MOST_PAGES_IN_MEMORY: &str = "VmHWM:";

/// MiB that this process holds now; its peak counts from here.
pub(super) fn reset_peak() -> Option<f64> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    read("self", PAGES_IN_MEMORY)
}

/// The most MiB that this process held since [`reset_peak`].
pub(super) fn peak() -> Option<f64> {
    read("self", MOST_PAGES_IN_MEMORY)
}

/// The most MiB that a running process, or one of those it started, has held.
pub(super) fn peak_of(process: u32) -> Option<f64> {
    let name = process.to_string();
    let children = Path::new("/proc").join(&name).join("task").join(&name).join("children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| peak_of(child.parse().ok()?));
    read(&name, MOST_PAGES_IN_MEMORY).into_iter().chain(children).reduce(f64::max)
}

fn read(process: &str, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process).join("status")).ok()?;
    let kib: f64 = status.lines().find_map(|l| l.strip_prefix(field))?.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_knows_memory_that_was_given_back() {
        let before = reset_peak().unwrap();
        drop(std::hint::black_box(vec![1u8; 256 << 20]));
        let grown = peak().unwrap() - before;
        // other tests in this process may have given memory back meanwhile
        assert!(grown > 128.0, "{grown} MiB");
        assert!(peak_of(std::process::id()).unwrap() >= before);
        assert_eq!(peak_of(u32::MAX), None);
    }
}
