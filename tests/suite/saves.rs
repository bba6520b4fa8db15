//! No work is lost: runs that are killed, disks that are full, folders that are taken.

use candle_core::Device;
use ddpm_film::checkpoint::{load, save};
use ddpm_film::diffusion::noise::{Purpose, stream};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder with forty pictures to learn from.
pub fn workplace() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    write_data(&tmp.path().join("data-idx3-ubyte"), 1);
    tmp
}

fn write_data(path: &Path, seed: usize) {
    let header = [0x803_u32, 40, 16, 16].into_iter().flat_map(u32::to_be_bytes);
    fs::write(path, header.chain((0..40 * 256).map(|i| ((i * (i + seed)) >> 7) as u8)).collect::<Vec<u8>>()).unwrap();
}

pub fn training(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddpm-film"));
    command
        .current_dir(dir)
        .args(["train", "--preset", "digits16", "--batch", "2", "--seed", "7", "--device", "cpu", "--threads", "1"])
        .args(args)
        .env_remove("RUST_LOG");
    if !args.contains(&"--data") {
        command.args(["--data", "data-idx3-ubyte"]);
    }
    command
}

fn train(dir: &Path, args: &[&str]) -> Output {
    training(dir, args).output().unwrap()
}

pub fn trains(dir: &Path, args: &[&str]) {
    let out = train(dir, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn refuses(dir: &Path, args: &[&str], words: &[&str]) {
    let out = train(dir, args);
    let said = String::from_utf8_lossy(&out.stderr);
    let sentences: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert!(!String::from_utf8_lossy(&out.stdout).contains("saved in"), "{args:?}: {said}");
    assert!(out.status.code() == Some(1) && sentences.len() == 1 && !said.contains("panicked"), "{args:?}: {said}");
    assert!(words.iter().all(|word| sentences[0].contains(word)), "{args:?}: {said}");
}

/// Steps done in what would be resumed.
fn step(run: &Path) -> Option<u64> {
    load(run, &Device::Cpu).ok()?.training?.state["step"].as_u64()
}

fn assert_same_run(a: &Path, b: &Path) {
    for file in [
        "unet/diffusion_pytorch_model.safetensors",
        "film/raw.safetensors",
        "film/adam.safetensors",
        "film/state.json",
        "film/checksums.json",
    ] {
        assert!(fs::read(a.join(file)).unwrap() == fs::read(b.join(file)).unwrap(), "{file} differs");
    }
}

pub struct Killed(pub Child);

/// Looks again and again, two minutes at most.
pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// Kills a run at so many random moments, goes on each time, and compares its end with that of a run that never was.
fn killed_at_random_moments(times: usize) {
    let steps = (12 * times).to_string();
    let steps = ["--steps", &steps];
    let tmp = workplace();
    let dir = tmp.path();
    trains(dir, &[&steps[..], &["--out", "whole"]].concat());
    let begun = Instant::now();
    trains(dir, &["--steps", "3", "--save-every", "1", "--out", "pace"]);
    let mut life = begun.elapsed().as_secs_f64();

    let run = dir.join("run");
    let mut random = stream(1, Purpose::Pick, [0, 0]);
    let mut reached = None;
    for kill in 0..times {
        let mut args = [&steps[..], &["--save-every", "1", "--out", "run"]].concat();
        args.extend(reached.map(|_| "--resume"));
        let mut process = Killed(training(dir, &args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        std::thread::sleep(Duration::from_secs_f64(life * f64::from(random.uniform())));
        let ended = process.0.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?} before kill {kill}, with {args:?}");
        drop(process);
        let now = step(&run);
        assert!(now >= reached, "{reached:?} steps were saved, then {now:?}");
        // about every second life saves something, whatever else the machine does
        life *= if now == reached { 1.3 } else { 1.0 / 1.3 };
        reached = now;
    }
    assert!(reached > Some(0), "no step was ever saved");
    trains(dir, &[&steps[..], &["--out", "run", "--resume"]].concat());
    assert_same_run(&run, &dir.join("whole"));
}

#[test]
fn a_run_killed_at_twenty_random_moments_ends_with_the_bytes_of_one_that_never_was() {
    killed_at_random_moments(20);
}

#[test]
#[ignore = "takes minutes: cargo test --release --test suite two_hundred -- --ignored"]
fn a_run_killed_at_two_hundred_random_moments_ends_with_the_bytes_of_one_that_never_was() {
    killed_at_random_moments(200);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_told_to_end_saves_first() {
    const STEPS: [&str; 2] = ["--steps", "200"];
    let tmp = workplace();
    let dir = tmp.path();
    trains(dir, &[&STEPS[..], &["--out", "whole"]].concat());
    let args = [&STEPS[..], &["--save-every", "1", "--out", "run"]].concat();
    let mut process = Killed(training(dir, &args).stderr(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    wait_for("save", || step(&dir.join("run")) > Some(0));
    let told = Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status().unwrap();
    let ended = process.0.wait().unwrap();
    // it may have come to its end first
    assert!(ended.code() == Some(130) || ended.success() || !told.success(), "{ended}");
    let said = std::io::read_to_string(process.0.stdout.take().unwrap()).unwrap();
    let saved = format!("step {} of 200 ", step(&dir.join("run")).unwrap());
    assert!(said.starts_with(&saved) && said.ends_with(", saved in run\n"), "{said}");
    trains(dir, &[&STEPS[..], &["--out", "run", "--resume"]].concat());
    assert_same_run(&dir.join("run"), &dir.join("whole"));
}

#[test]
fn a_new_run_never_takes_a_folder_that_holds_something() {
    let tmp = workplace();
    let dir = tmp.path();
    for foreign in ["unet/mine.txt", "scheduler/mine.txt", "film/holiday.mp4", "model_index.json"] {
        let name = foreign.replace(['/', '.'], "-");
        let file = dir.join(&name).join(foreign);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();
        let first = foreign.split('/').next().unwrap();
        refuses(dir, &["--steps", "1", "--out", &name], &[first, "--resume", "another folder"]);
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert_eq!(fs::read_dir(dir.join(&name)).unwrap().count(), 1);
    }
    trains(dir, &["--steps", "1", "--out", "run"]);
    let before = fs::read(dir.join("run/film/raw.safetensors")).unwrap();
    refuses(dir, &["--steps", "1", "--out", "run"], &["already", "--resume", "another folder"]);
    assert!(fs::read(dir.join("run/film/raw.safetensors")).unwrap() == before);
    // other files are no hindrance
    fs::create_dir(dir.join("notes")).unwrap();
    fs::write(dir.join("notes/README.md"), "mine").unwrap();
    trains(dir, &["--steps", "1", "--out", "notes"]);
    assert_eq!(fs::read(dir.join("notes/README.md")).unwrap(), b"mine");
}

#[cfg(unix)]
#[test]
fn two_runs_never_write_into_one_folder() {
    let tmp = workplace();
    let dir = tmp.path();
    let first = training(dir, &["--steps", "100000", "--out", "run"]).stderr(Stdio::null()).spawn().unwrap();
    let first = Killed(first);
    wait_for("save", || step(&dir.join("run")).is_some());
    refuses(dir, &["--steps", "100000", "--out", "run", "--resume"], &["another run is writing there"]);
    drop(first);
    trains(dir, &["--steps", "1", "--out", "run", "--resume"]);
}

#[test]
fn a_run_goes_on_only_with_its_own_data() {
    let tmp = workplace();
    let dir = tmp.path();
    trains(dir, &["--steps", "1", "--out", "run"]);
    write_data(&dir.join("data-idx3-ubyte"), 2);
    refuses(dir, &["--steps", "2", "--out", "run", "--resume"], &["its data were 39 images", "CRC-32", "run"]);
    write_data(&dir.join("data-idx3-ubyte"), 1);
    trains(dir, &["--steps", "2", "--out", "run", "--resume"]);
    assert_eq!(step(&dir.join("run")), Some(2));
    // they may have moved
    fs::rename(dir.join("data-idx3-ubyte"), dir.join("moved-idx3-ubyte")).unwrap();
    trains(dir, &["--steps", "3", "--out", "run", "--resume", "--data", "moved-idx3-ubyte"]);
    assert_eq!(step(&dir.join("run")), Some(3));
}

#[test]
fn a_damaged_save_is_reported_and_the_one_before_it_goes_on_to_the_same_bytes() {
    let tmp = workplace();
    let dir = tmp.path();
    trains(dir, &["--steps", "4", "--out", "whole"]);
    trains(dir, &["--steps", "2", "--save-every", "1", "--out", "run"]);
    let raw = dir.join("run/film/raw.safetensors");
    let mut bytes = fs::read(&raw).unwrap();
    bytes[1_000_000] ^= 4;
    fs::write(&raw, bytes).unwrap();
    assert_eq!(step(&dir.join("run")), Some(1));
    let out = train(dir, &["--steps", "4", "--out", "run", "--resume"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("damaged, so the one before it is used"), "{said}");
    assert_same_run(&dir.join("run"), &dir.join("whole"));
    assert_eq!(step(&dir.join("run/film/previous")), Some(1), "a damaged save is not kept in place of a whole one");
}

/// Curves row by row, each number with all its digits, as they were saved before they were saved column by column.
fn by_row(curve: &Value) -> Value {
    fn long(cell: &Value) -> Value {
        match cell {
            Value::Array(cells) => cells.iter().map(long).collect(),
            Value::Number(number) if number.is_f64() => f64::from(number.as_f64().unwrap() as f32).into(),
            cell => cell.clone(),
        }
    }
    let columns = curve.as_object().unwrap();
    let count = columns.values().next().map_or(0, |column| column.as_array().unwrap().len());
    let row = |i: usize| columns.iter().map(|(name, column)| (name.clone(), long(&column[i]))).collect::<Value>();
    (0..count).map(row).collect()
}

#[test]
fn a_run_that_an_older_version_saved_row_by_row_goes_on_to_the_same_bytes() {
    let tmp = workplace();
    let dir = tmp.path();
    trains(dir, &["--steps", "6", "--out", "whole"]);
    trains(dir, &["--steps", "3", "--out", "new"]);
    let mut saved = load(&dir.join("new"), &Device::Cpu).unwrap();
    let history = &mut saved.training.as_mut().unwrap().state["history"];
    for curve in ["/recent", "/whole", "/evaluations", "/timesteps/simple", "/timesteps/bits", "/timesteps/columns"] {
        let curve = history.pointer_mut(curve).unwrap();
        *curve = by_row(curve);
    }
    assert!(
        history["recent"][2]["loss"].is_f64() && history["timesteps"]["columns"][0]["sums"].is_array(),
        "{history}"
    );
    save(&dir.join("old"), &saved).unwrap();
    trains(dir, &["--steps", "6", "--out", "old", "--resume"]);
    assert_same_run(&dir.join("old"), &dir.join("whole"));
}

/// A file system of so many MiB, unmounted when it goes out of scope.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().map(drop).unwrap_or_default();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_one_sentence_and_the_old_save_are_left() {
    let tmp = workplace();
    let dir = tmp.path();
    // two saves of 18 MB fit, three do not
    let Some(disk) = SmallDisk::mount(dir.join("disk"), "size=44m") else {
        // past the test harness, which would swallow it
        writeln!(std::io::stderr(), "SKIPPED: the full-disk test may not mount a file system here").unwrap();
        return;
    };
    trains(dir, &["--steps", "4", "--out", "whole"]);
    refuses(dir, &["--steps", "4", "--save-every", "1", "--out", "disk/run"], &["the disk is full; free some space"]);
    assert_eq!(step(&disk.0.join("run")), Some(1), "the last save that had room");
    assert!(!disk.0.join("run/film/.saving").exists());

    let mut filler = fs::File::create(disk.0.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    drop(filler);
    for name in ["a.npz", "a.png", "a.gif"] {
        let what = if name == "a.gif" { "film" } else { "sample" };
        let out = Command::new(env!("CARGO_BIN_EXE_ddpm-film"))
            .current_dir(dir)
            .args([what, "--n", "2", "--sampler", "ddim", "--steps", "2", "--out"])
            .arg(disk.0.join(name))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains("error: ") && said.contains("disk is full"), "{said}");
        let left: Vec<_> = fs::read_dir(&disk.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
    fs::remove_file(disk.0.join("filler")).unwrap();

    let larger = Command::new("mount").args(["-o", "remount,size=100m"]).arg(&disk.0).status().unwrap();
    assert!(larger.success());
    trains(dir, &["--steps", "4", "--out", "disk/run", "--resume"]);
    assert_same_run(&disk.0.join("run"), &dir.join("whole"));
}

#[test]
fn a_run_goes_on_from_a_first_save_that_was_cut_off_though_it_keeps_a_snapshot_first() {
    let tmp = workplace();
    let dir = tmp.path();
    trains(dir, &["--steps", "1", "--out", "run"]);
    let (run, cut_off) = (dir.join("run"), dir.join("cut-off"));
    let saving = cut_off.join("film/.saving");
    for path in ["film", "unet", "scheduler"] {
        fs::create_dir_all(saving.join(path)).unwrap();
        for entry in fs::read_dir(run.join(path)).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            fs::copy(entry.path(), saving.join(path).join(entry.file_name())).unwrap();
        }
    }
    fs::copy(run.join("model_index.json"), saving.join("model_index.json")).unwrap();
    fs::create_dir(cut_off.join("film/snapshots")).unwrap();
    // without --steps to its own end, where it is
    trains(dir, &["--out", "cut-off", "--resume"]);
    assert_eq!(step(&cut_off), Some(1));
    trains(dir, &["--steps", "2", "--out", "cut-off", "--resume"]);
    assert_eq!(step(&cut_off), Some(2));
}
