//! The rules of ARCHITECTURE.md that a reader of one file cannot see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn sources() -> BTreeMap<String, String> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, out) } else { out.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let name = |p: &Path| p.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
    paths.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

/// The part of a file before its unit tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// First path segments of what a file uses: `use a::b` and inline `crate::b`.
fn used(text: &str, prefix: &str) -> Vec<String> {
    let lines = code(text).lines().filter(|l| !l.trim_start().starts_with("//"));
    let mut found: Vec<String> = lines
        .flat_map(|l| l.split(prefix).skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()))
        .flatten()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// module: (modules of this crate, outside crates) that it may use; the table of ARCHITECTURE.md.
const LAYERS: [(&str, &[&str], &[&str]); 11] = [
    ("diffusion", &[], &["rand_chacha", "rand_distr", "half"]),
    ("kernels", &[], &["candle_core", "candle_nn", "libmimalloc_sys", "mimalloc"]),
    ("model", &["diffusion", "kernels", "error"], &["candle_core", "serde"]),
    ("data", &["diffusion", "error"], &["image", "flate2", "rayon"]),
    ("export", &["diffusion", "error"], &["image", "png", "gif", "webp_animation", "flate2", "rayon"]),
    (
        "checkpoint",
        &["diffusion", "model", "error"],
        &["candle_core", "flate2", "hf_hub", "safetensors", "serde", "serde_json", "log"],
    ),
    (
        "train",
        &["diffusion", "kernels", "model", "data", "checkpoint", "error"],
        &["candle_core", "serde", "serde_json", "tempfile"],
    ),
    ("monitor", &["diffusion", "export", "error"], &["crc32c", "image", "prost"]),
    (
        "engine",
        &["diffusion", "model", "data", "train", "checkpoint", "export", "monitor", "error"],
        &["candle_core", "crossbeam_channel", "rayon", "serde_json", "log", "rustix"],
    ),
    ("ui", &["diffusion", "engine"], &["eframe", "egui", "egui_plot", "rfd", "serde", "log"]),
    (
        "cli",
        &["diffusion", "kernels", "model", "train", "checkpoint", "export", "engine", "error", "ui"],
        &["candle_core", "clap", "indicatif", "ctrlc", "safetensors", "serde_json", "log"],
    ),
];

const OUTSIDE: [&str; 31] = [
    "candle_core",
    "candle_nn",
    "clap",
    "crc32c",
    "crossbeam_channel",
    "ctrlc",
    "eframe",
    "egui",
    "egui_plot",
    "env_logger",
    "flate2",
    "gif",
    "half",
    "hf_hub",
    "image",
    "indicatif",
    "libmimalloc_sys",
    "log",
    "mimalloc",
    "png",
    "prost",
    "rand_chacha",
    "rand_distr",
    "rayon",
    "rfd",
    "rustix",
    "safetensors",
    "serde",
    "serde_json",
    "tempfile",
    "webp_animation",
];

#[test]
fn modules_use_only_what_their_layer_allows() {
    for (file, text) in sources() {
        if file.ends_with("tests.rs") {
            continue;
        }
        let Some((module, rest)) = file.split_once('/') else { continue };
        let (_, inside, outside) = LAYERS.iter().find(|(name, ..)| *name == module).expect(module);
        for name in used(&text, "crate::") {
            assert!(name == module || inside.contains(&name.as_str()), "{module}/{rest} uses crate::{name}");
        }
        for name in OUTSIDE {
            let uses = code(&text).lines().any(|l| {
                !l.trim_start().starts_with("//")
                    && (l.contains(&format!("{name}::")) && !l.contains(&format!("::{name}::")))
            });
            assert!(!uses || outside.contains(&name), "{module}/{rest} uses {name}");
        }
    }
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    for (file, text) in sources() {
        assert!(text.lines().count() <= 600, "{file} has {} lines", text.lines().count());
    }
}

#[test]
fn unsafe_stays_in_kernels_and_colours_in_style() {
    for (file, text) in sources() {
        let lines = || code(&text).lines().filter(|l| !l.trim_start().starts_with("//"));
        if !file.starts_with("kernels/") {
            assert!(!lines().any(|l| l.contains("unsafe {") || l.contains("unsafe fn")), "{file} has unsafe code");
        }
        if file.starts_with("ui/") && file != "ui/style.rs" {
            for constructor in ["Color32::from_", "hex_color!", "Color32::WHITE", "Color32::BLACK", "Color32::GRAY"] {
                assert!(!lines().any(|l| l.contains(constructor)), "{file} makes a colour: {constructor}");
            }
        }
    }
}

#[test]
fn randomness_has_one_source() {
    for (file, text) in sources() {
        if file != "diffusion/noise.rs" {
            let uses = ["rand_chacha", "rand_distr", "Tensor::randn", "Tensor::rand(", "thread_rng"];
            assert!(!uses.iter().any(|u| code(&text).contains(u)), "{file} has randomness of its own");
        }
    }
}
