//! What other programs make of our files: TensorBoard reads our curves, diffusers opens our models, and we
//! read what its trainers write.
//! Python is `python3`, or what DDPM_FILM_PYTHON
//! names; without the packages these tests say aloud that they are skipped.

use crate::cli::works;
use crate::saves::{Killed, training, trains, wait_for, workplace};
use candle_core::{Device, Tensor};
use ddpm_film::diffusion::noise::{Purpose, stream};
use ddpm_film::monitor::Watch;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a script of `tests/python`, if its packages are there.
fn script(name: &str, packages: &str, args: &[&Path]) -> Option<String> {
    let python = std::env::var("DDPM_FILM_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", &format!("import {packages}")]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        // past the test harness, which would swallow it
        let words = format!("SKIPPED: {name}: {python} has no {packages}\n");
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        return None;
    }
    let path = format!("{}/tests/python/{name}", env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(python).arg(path).args(args).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap())
}

#[test]
fn tensorboard_reads_every_step_of_a_killed_run_once() {
    let tmp = workplace();
    let dir = tmp.path();
    const RUN: [&str; 4] = ["--out", "run", "--preview-every", "2"];
    trains(dir, &[&RUN[..], &["--steps", "3"]].concat());
    let on = [&RUN[..], &["--resume", "--steps"]].concat();
    let killed = training(dir, &[&on[..], &["100000"]].concat()).stderr(Stdio::null()).spawn().unwrap();
    let killed = Killed(killed);
    let table = dir.join("run/scalars.csv");
    let rows = || std::fs::read_to_string(&table).map_or(0, |text| text.lines().count());
    wait_for("steps past the last save", || rows() > 12);
    drop(killed);
    trains(dir, &[&on[..], &["8"]].concat());

    let text = std::fs::read_to_string(&table).unwrap();
    let losses: Vec<(u64, f32)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (cells[0].parse().unwrap(), cells[2].parse().unwrap())
        })
        .collect();
    assert!(losses.iter().map(|(step, _)| *step).eq(1..=8), "{text}");
    let Some(said) = script("read_events.py", "tensorboard", &[&dir.join("run")]) else { return };
    let read: serde_json::Value = serde_json::from_str(&said).unwrap();
    let scalars = |tag: &str| -> Vec<(u64, f32)> {
        let points = read["scalars"][tag].as_array().unwrap();
        points.iter().map(|p| (p[0].as_u64().unwrap(), p[1].as_f64().unwrap() as f32)).collect()
    };
    assert_eq!(scalars("loss"), losses);
    for tag in ["grad_norm", "learning_rate", "update_ratio", "ema_decay"] {
        assert!(scalars(tag).iter().map(|(step, _)| *step).eq(1..=8), "{tag}: {said}");
    }
    assert!(scalars("images_per_s").iter().all(|(_, speed)| *speed > 0.0), "{said}");
    let strips = [0, 2, 3, 4, 6, 8].map(|step| serde_json::json!([step, 8 * 17 - 1, 16]));
    assert_eq!(read["images"]["samples/EMA"], serde_json::json!(strips), "{said}");
}

#[test]
fn diffusers_opens_a_saved_model_and_predicts_the_same() {
    let tmp = workplace();
    let dir = tmp.path();
    let (input, eps) = (dir.join("in.safetensors"), dir.join("eps.safetensors"));
    let mut noise = vec![0.0; 4 * 256];
    stream(1, Purpose::Start, [0, 0]).fill_normal(&mut noise);
    let x = Tensor::from_vec(noise, (4, 1, 16, 16), &Device::Cpu).unwrap();
    let t = Tensor::new(&[0_i64, 1, 500, 999], &Device::Cpu).unwrap();
    candle_core::safetensors::save(&HashMap::from([("x", x), ("t", t)]), &input).unwrap();
    let of_v = ["--prediction-type", "v_prediction", "--beta-schedule", "squaredcos_cap_v2"];
    for (run, args) in [("run", &of_v[..0]), ("run of v", &of_v[..])] {
        trains(dir, &[&["--out", run, "--steps", "2"], args].concat());
        works(dir, &["predict", "--model", run, "--input", "in.safetensors", "--out", "eps.safetensors"]);
        let Some(said) = script("open_in_diffusers.py", "diffusers", &[&dir.join(run), &input, &eps]) else { return };
        let differences: Vec<f64> = said.lines().map(|line| line.parse().unwrap()).collect();
        assert!(differences.len() == 2 && differences.iter().all(|d| *d < 1e-4), "{differences:?}");
    }
}

#[test]
fn what_trainers_on_pytorch_write_can_be_watched() {
    let tmp = tempfile::tempdir().unwrap();
    if script("write_events.py", "tensorboard, torch", &[tmp.path()]).is_none() {
        return;
    }
    let mut watch = Watch::open(tmp.path()).unwrap();
    while watch.look().1 {}
    let seen = watch.watched();
    assert!(seen.problems.is_empty() && seen.runs.len() == 1, "{seen:?}");
    let run = &seen.runs[0];
    assert_eq!(run.name, "logs/train_unconditional");
    let losses: Vec<(i64, f32)> = (1..=5).map(|step| (step, 1.0 / step as f32)).collect();
    assert_eq!(run.scalars["loss"].points(), losses);
    assert_eq!(run.scalars["lr"].points().last(), Some(&(5, 1e-4)));
    let (step, picture) = run.pictures["test_samples"].points().last().unwrap();
    assert_eq!((*step, picture.c, picture.h), (5, 3, 8));
    assert!(picture.w >= 16 && picture.data.iter().any(|v| *v > 0.9), "{picture:?}");
}
