//! The program as a script uses it: what it writes, what it says, how it exits.

use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn program(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ddpm-film"))
        .current_dir(dir)
        .args(args)
        .args(["--device", "cpu"])
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("WAYLAND_SOCKET")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

pub fn works(dir: &Path, args: &[&str]) -> String {
    let out = program(dir, args);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The program refuses with this exit code and one sentence that holds all `words`.
pub fn refuses(dir: &Path, args: &[&str], code: i32, words: &[&str]) {
    let out = program(dir, args);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{args:?}: {said}");
    let sentences: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(sentences.len(), 1, "{args:?}: {said}");
    for word in words {
        assert!(sentences[0].contains(word), "{args:?}: {said}");
    }
}

fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn bytes(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

const RUN: [&str; 9] = ["train", "--preset", "digits16", "--batch", "8", "--seed", "7", "--warmup", "2"];

#[cfg(target_os = "linux")]
#[test]
fn threads_are_as_many_as_asked_for_and_give_way() {
    use crate::saves::{Killed, wait_for};
    let tmp = tempfile::tempdir().unwrap();
    for (started_at, least) in [("0", 15), ("17", 17)] {
        let mut command = Command::new("nice");
        command.args(["-n", started_at, env!("CARGO_BIN_EXE_ddpm-film")]).args(RUN).current_dir(tmp.path());
        command.args(["--steps", "100000", "--threads", "3", "--device", "cpu", "--out", started_at]);
        let process = Killed(command.stderr(std::process::Stdio::null()).spawn().unwrap());
        wait_for("a training", || tmp.path().join(started_at).join("film/state.json").exists());
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process.0.id())).unwrap();
        // "id (name) state ..." with the niceness in the 17th place after the name
        let threads: Vec<(String, i32)> = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
            .map(|stat| {
                let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
                (name.to_owned(), rest.split(' ').nth(16).unwrap().parse().unwrap())
            })
            .collect();
        for (name, n) in [("ddpm-worker", 1), ("ddpm-help-", 2), ("ddpm-read-", 3)] {
            let of_it: Vec<_> = threads.iter().filter(|(thread, _)| thread.starts_with(name)).collect();
            assert!(of_it.len() == n && of_it.iter().all(|(_, nice)| *nice >= least), "{n} of {name}: {threads:?}");
        }
    }
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes_as_one_that_never_stopped() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let train = |more: &[&str]| works(dir, &[&RUN[..], more].concat());
    let said = train(&["--steps", "5", "--out", "whole", "--threads", "2"]);
    assert!(said.contains("step 5 of 5") && said.contains("loss"), "{said}");
    train(&["--steps", "2", "--out", "halves", "--threads", "1"]);
    train(&["--steps", "5", "--out", "halves", "--threads", "3", "--resume"]);
    for file in
        ["unet/diffusion_pytorch_model.safetensors", "film/raw.safetensors", "film/adam.safetensors", "film/state.json"]
    {
        assert!(bytes(&dir.join("whole"), file) == bytes(&dir.join("halves"), file), "{file} differs");
    }
    let said = works(dir, &["info", "whole"]);
    assert!(said.contains("1 x 16 x 16") && said.contains("step 5 of 5"), "{said}");
    refuses(
        dir,
        &[&RUN[..], &["--decay", "3", "--steps", "9", "--out", "halves", "--resume"]].concat(),
        1,
        &["settings differ", "decay was 0 and is now 3;"],
    );
}

#[test]
fn a_resumed_run_may_learn_at_another_rate_and_remembers_it() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let train = |more: &[&str]| works(dir, &[&RUN[..], more].concat());
    train(&["--steps", "2", "--out", "run"]);
    train(&["--steps", "3", "--out", "run", "--resume", "--lr", "0.001", "--ema", "0.9"]);
    // what is not named stays as it was last
    let said = train(&["--out", "run", "--resume"]);
    assert!(said.starts_with("step 3 of 3 "), "{said}");
    let said = works(dir, &["train", "--steps", "4", "--out", "run", "--resume"]);
    assert!(said.starts_with("step 4 of 4 "), "{said}");
    let state =
        || -> serde_json::Value { serde_json::from_slice(&bytes(&dir.join("run"), "film/state.json")).unwrap() };
    // also where no step is left to be done
    train(&["--out", "run", "--resume", "--lr", "0.002"]);
    assert_eq!((&state()["step"], &state()["run"]["learning_rate"]), (&4.into(), &0.002.into()));
    train(&["--out", "run", "--resume", "--lr", "0.001"]);
    let state = state();
    assert_eq!((&state["run"]["learning_rate"], &state["run"]["ema_decay"]), (&0.001.into(), &0.9.into()));
    let changes = state["history"]["changes"].as_array().unwrap();
    assert_eq!(changes[0], serde_json::json!({"after": 2, "setting": "learning_rate", "from": 2e-4, "to": 1e-3}));
    assert!(changes[1]["setting"] == "ema_decay", "{changes:?}");
    refuses(
        dir,
        &[&RUN[..], &["--steps", "9", "--out", "run", "--resume", "--lr=-1"]].concat(),
        2,
        &["learning rate is -1"],
    );
    refuses(dir, &["train", "--steps", "3", "--out", "run", "--resume"], 2, &["has done 4 steps", "ask for more"]);
}

#[test]
fn samples_are_decided_by_the_seed_and_readable() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let sample = |out: &str, more: &[&str]| {
        works(dir, &[&["sample", "--n", "3", "--sampler", "ddim", "--steps", "3", "--out", out], more].concat())
    };
    sample("a.npz", &["--seed", "5"]);
    sample("b.npz", &["--seed", "5", "--threads", "1"]);
    sample("c.npz", &["--seed", "6"]);
    sample("raw.npz", &["--seed", "5", "--weights", "raw"]);
    assert!(bytes(dir, "a.npz") == bytes(dir, "b.npz"));
    assert!(bytes(dir, "a.npz") != bytes(dir, "c.npz"));
    assert!(bytes(dir, "a.npz") != bytes(dir, "raw.npz"));
    sample("grid.png", &[]);
    let grid = image::open(dir.join("grid.png")).unwrap();
    assert!(grid.width() >= 2 * 28 && grid.height() >= 2 * 28);
}

#[test]
fn variance_and_clipping_are_those_of_the_models_scheduler() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    works(dir, &[&RUN[..], &["--steps", "1", "--out", "own"]].concat());
    // as another program leaves it
    std::fs::remove_dir_all(dir.join("own/film")).unwrap();
    let path = dir.join("own/scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let sample = |out: &str, change: (&str, &str)| {
        assert!(text.contains(change.0), "{text}");
        std::fs::write(&path, text.replace(change.0, change.1)).unwrap();
        works(dir, &["sample", "--model", "own", "--n", "1", "--steps", "3", "--out", out])
    };
    let said = sample("small.npz", ("fixed_small", "fixed_small"));
    assert!(said.contains("DDPM with 3 steps; seed 0"), "{said}");
    let said = sample("large.npz", ("fixed_small", "fixed_large"));
    assert!(said.contains("DDPM with 3 steps, σ² = β; seed 0"), "{said}");
    let said = sample("free.npz", ("\"clip_sample\": true", "\"clip_sample\": false"));
    assert!(said.contains("DDPM with 3 steps, without clipping; seed 0"), "{said}");
    let [small, large, free] = ["small.npz", "large.npz", "free.npz"].map(|name| bytes(dir, name));
    assert!(small != large && small != free);
}

#[test]
fn films_are_written_as_gif_and_as_strip() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for out in ["film.gif", "film.webp", "film.png"] {
        works(dir, &["film", "--n", "2", "--sampler", "ddim", "--steps", "4", "--seed", "3", "--out", out]);
    }
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut film = options.read_info(std::fs::File::open(dir.join("film.gif")).unwrap()).unwrap();
    let mut frames = 0;
    while film.read_next_frame().unwrap().is_some() {
        frames += 1;
    }
    assert!(frames > 50, "{frames} frames");
    assert!(image::open(dir.join("film.png")).unwrap().width() > 28 * 10);
}

#[test]
fn predict_gives_the_numbers_of_the_reference() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for model in ["unet_gray", "unet_cifar_layout"] {
        let folder = golden(model);
        let input = format!("{folder}/io.safetensors");
        works(dir, &["predict", "--model", &folder, "--input", &input, "--out", "eps.safetensors"]);
        let load =
            |path: &Path| -> HashMap<String, Tensor> { candle_core::safetensors::load(path, &Device::Cpu).unwrap() };
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = values(&load(&PathBuf::from(&input))["out"]);
        let eps = values(&load(&dir.join("eps.safetensors"))["eps"]);
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in eps.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-3 * largest, "{model}: {a} against {b}");
        }
    }
}

#[test]
fn broken_input_gets_one_sentence_and_no_panic() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28][..], &[7; 100][..]].concat();
    std::fs::write(dir.join("train-images-idx3-ubyte"), idx).unwrap();
    std::fs::create_dir(dir.join("pictures")).unwrap();
    std::fs::write(dir.join("pictures/not.png"), b"this is no picture").unwrap();
    let train = |data: &str, out: &str| [&RUN[..], &["--steps", "1", "--data", data, "--out", out]].concat().join(" ");
    let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let refuses = |line: &str, code, words: &[&str]| {
        let args = args(line);
        refuses(dir, &args.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
    };
    refuses(&train("train-images-idx3-ubyte", "run"), 1, &["train-images-idx3-ubyte"]);
    refuses(&train("pictures", "run"), 1, &["pictures"]);
    refuses(&train("nowhere", "run"), 1, &["nowhere"]);
    refuses(&train("mnist", "/proc/run"), 1, &["/proc/run"]);
    refuses(&train("mnist", "train-images-idx3-ubyte/run"), 1, &["train-images-idx3-ubyte"]);
    refuses("train --steps 0 --out run", 2, &["steps"]);
    refuses("train --preset mnist99 --out run", 2, &["mnist99", "mnist28"]);
    refuses("train --resume --steps 5 --out run", 1, &["run"]);
    refuses("sample --n 0 --out a.png", 2, &["0"]);
    refuses("sample --n 99999999999999 --steps 1 --out a.npz", 2, &["99999999999999 pictures of 28x28 are past 2 GiB"]);
    refuses("sample --steps 0 --out a.png", 2, &["steps"]);
    refuses("sample --out a.bmp", 2, &["a.bmp"]);
    refuses("sample --out nowhere/a.png", 1, &["nowhere"]);
    refuses("sample --model nowhere --out a.png", 1, &["nowhere"]);
    refuses("film --out film.mp4", 2, &["film.mp4"]);
    refuses("info nowhere", 1, &["nowhere"]);
    refuses("predict --input nowhere.safetensors --out a.safetensors", 1, &["nowhere.safetensors"]);
    assert!(!dir.join("a.png").exists());

    let copy = |name: &str| {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
            std::fs::copy(format!("{}/{file}", golden("unet_gray")), dir.join(name).join(file)).unwrap();
        }
    };
    copy("missing");
    let weights = dir.join("missing/diffusion_pytorch_model.safetensors");
    let mut tensors: HashMap<String, Tensor> = candle_core::safetensors::load(&weights, &Device::Cpu).unwrap();
    tensors.remove("conv_in.bias").unwrap();
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    refuses("info missing", 1, &["conv_in.bias"]);
    refuses("sample --model missing --out a.png", 1, &["conv_in.bias"]);
    copy("unknown");
    let config = dir.join("unknown/config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("AttnDownBlock2D", "SkipDownBlock2D");
    std::fs::write(&config, text).unwrap();
    refuses("info unknown", 1, &["SkipDownBlock2D"]);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_there_is_one_sentence() {
    let out = Command::new(env!("CARGO_BIN_EXE_ddpm-film")).args(["bench", "--device", "cuda:1"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("cuda:1") && said.contains("--device cpu") && !said.contains("panicked"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn with_no_display_the_program_names_the_command_line_and_exits_1() {
    let tmp = tempfile::tempdir().unwrap();
    refuses(tmp.path(), &[], 1, &["display", "ddpm-film"]);
}
