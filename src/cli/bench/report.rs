//! What a measurement says: a line of a table, or a JSON object.

use crate::engine::Result;
use crate::kernels;
use crate::model::compute::Compute;
use serde_json::{Value, json};

/// Where results go, one line each.
pub(super) struct Report<'a> {
    json: bool,
    config: &'a str,
    threads: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(json: bool, config: &'a str, compute: &Compute) -> Self {
        Self { json, config, threads: compute.threads() }
    }

    /// The network's name.
    pub(super) fn config(&self) -> &str {
        self.config
    }

    /// Threads that compute.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// What computes, and how busy it already is.
    pub(super) fn machine(&self, device: &str) -> Result<()> {
        let cpu = cpu_model();
        let load = load_average();
        let vectors = kernels::vectors();
        let busy = load.map_or_else(String::new, |load| format!(", load average {load:.2}"));
        self.line(
            "machine",
            json!({ "device": device, "cpu": cpu, "vectors": vectors, "load": load }),
            &format!("{device}; {cpu}, {vectors}{busy}"),
        )
    }

    /// A result that is not there, and why.
    pub(super) fn not_measured(&self, what: &str, why: &str) -> Result<()> {
        self.line(what, json!({ "not_measured": why }), &format!("NOT MEASURED: {why}"))
    }

    /// One result: `values` is an object, `text` the same for people.
    pub(super) fn line(&self, what: &str, values: Value, text: &str) -> Result<()> {
        if self.json {
            let mut line = json!({ "what": what, "config": self.config, "threads": self.threads });
            if let (Some(line), Value::Object(values)) = (line.as_object_mut(), values) {
                line.extend(values);
            }
            say!("{line}");
        } else {
            say!("{what:<8} {text}");
        }
        Ok(())
    }
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split(':').nth(1));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |name| name.trim().to_owned())
}

/// Processes that wanted to run over the last minute; on Linux.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The `p`th quantile, interpolated; 0 of nothing. The median is that of one half.
pub(super) fn quantile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = p * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (sorted.get(at.floor() as usize), sorted.get(at.ceil() as usize));
    let (low, high) = (low.copied().unwrap_or(0.0), high.copied().unwrap_or(0.0));
    low + (high - low) * at.fract()
}

pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub(super) fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// To `digits` after the point.
pub(super) fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_values_beside_them() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(quantile(&(0..=100).map(f64::from).collect::<Vec<_>>(), 0.99), 99.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(round(2.468, 1), 2.5);
    }
}
