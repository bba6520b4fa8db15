//! Watching a run from outside: live, half written, replaced, hostile.

use crate::cli::{refuses, works};
use ddpm_film::diffusion::Images;
use ddpm_film::monitor::{RunLog, STRIP, Watch};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Notes these steps, the loss of step n being n.
fn log(dir: &Path, done: u64, last: u64) -> RunLog {
    fs::create_dir_all(dir).unwrap();
    let (mut log, failed) = RunLog::open(dir, done);
    assert_eq!(failed, None);
    for step in done + 1..=last {
        log.step(step, [Some(step as f32), Some(0.5), None, None], &[]).unwrap();
    }
    log.flush().unwrap();
    log
}

fn event_files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|p| p.to_string_lossy().contains("tfevents")).collect();
    paths.sort();
    paths
}

/// Steps of the losses of a run, by its place among the runs; each must be its step.
fn losses(watch: &mut Watch, run: usize) -> Vec<i64> {
    while watch.look().1 {}
    let seen = watch.watched();
    let points = seen.runs[run].scalars["loss"].points();
    assert!(points.iter().all(|(step, loss)| *loss == *step as f32), "{points:?}");
    points.iter().map(|(step, _)| *step).collect()
}

fn whole(last: i64) -> Vec<i64> {
    (1..=last).collect()
}

#[test]
fn a_run_is_followed_as_it_grows_stops_and_goes_on() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("runs/a");
    let mut first = log(&dir, 0, 3);
    let mut watch = Watch::open(&tmp.path().join("runs")).unwrap();
    assert_eq!(losses(&mut watch, 0), whole(3));
    first.step(4, [Some(4.0), None, None, None], &[]).unwrap();
    first.strip(4, &Images::new(2, [1, 2, 2], vec![-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0])).unwrap();
    first.flush().unwrap();
    assert_eq!(losses(&mut watch, 0), whole(4));
    let seen = watch.watched();
    assert_eq!(seen.runs[0].name, "a");
    let [(4, strip)] = seen.runs[0].pictures[STRIP].points() else { panic!("{seen:?}") };
    assert_eq!((strip.w, strip.h, strip.c), (5, 2, 3));
    assert_eq!((strip.data[0], strip.data[4]), (-1.0, 1.0));
    drop(first);
    // it was killed and goes on from a save of step 2; a second run begins; the watch may be old or new
    drop(log(&dir, 2, 6));
    drop(log(&tmp.path().join("runs/b/nested"), 0, 1));
    let mut late = Watch::open(&tmp.path().join("runs")).unwrap();
    assert_eq!(losses(&mut late, 0), whole(6));
    assert_eq!(late.watched().runs[1].name, "b/nested");
    assert!(late.watched().runs[0].pictures[STRIP].points().is_empty());
    std::thread::sleep(std::time::Duration::from_millis(3100));
    assert_eq!(losses(&mut watch, 0), whole(6));
    assert_eq!(watch.watched().problems, Vec::<String>::new());
}

#[test]
fn the_rest_of_a_long_file_does_not_take_the_place_of_the_run_that_goes_on() {
    let tmp = tempfile::tempdir().unwrap();
    let mut first = log(tmp.path(), 0, 0);
    // a tag of a MiB, which is left out, makes the file longer than what is read of it at once
    let long = "x".repeat(1 << 20);
    for step in 1..=9 {
        first.step(step, [Some(step as f32), None, None, None], &[(&long, 0.0)]).unwrap();
    }
    drop(first);
    drop(log(tmp.path(), 2, 6));
    assert_eq!(losses(&mut Watch::open(tmp.path()).unwrap(), 0), whole(6));
}

#[test]
fn a_folder_that_cannot_be_looked_into_is_said() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("run");
    fs::create_dir(&dir).unwrap();
    let mut watch = Watch::open(&dir).unwrap();
    fs::remove_dir(&dir).unwrap();
    assert!(watch.look().0);
    let seen = watch.watched();
    let [problem] = &seen.problems[..] else { panic!("{seen:?}") };
    assert!(problem.starts_with("cannot look into a folder: ") && problem.contains("run"), "{problem}");
}

#[test]
fn half_a_record_is_waited_for() {
    let tmp = tempfile::tempdir().unwrap();
    drop(log(tmp.path(), 0, 3));
    let [path] = &event_files(tmp.path())[..] else { panic!() };
    let bytes = fs::read(path).unwrap();
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    let mut watch = Watch::open(tmp.path()).unwrap();
    let mut steps = Vec::new();
    for byte in bytes {
        file.write_all(&[byte]).unwrap();
        watch.look();
        let seen = watch.watched();
        assert_eq!(seen.problems, Vec::<String>::new());
        steps.extend(seen.runs.first().and_then(|run| Some(run.scalars.get("loss")?.points().len())));
    }
    assert!(steps.is_sorted() && steps.last() == Some(&3), "{steps:?}");
}

#[test]
fn a_file_that_is_replaced_is_read_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("run");
    drop(log(&dir, 0, 9));
    let mut watch = Watch::open(&dir).unwrap();
    assert_eq!(losses(&mut watch, 0), whole(9));
    drop(log(&tmp.path().join("other"), 0, 2));
    fs::rename(&event_files(&tmp.path().join("other"))[0], &event_files(&dir)[0]).unwrap();
    assert_eq!(losses(&mut watch, 0), whole(2));
}

#[test]
fn whatever_lies_in_an_event_file_one_sentence_says_what_is_wrong() {
    let tmp = tempfile::tempdir().unwrap();
    drop(log(tmp.path(), 0, 3));
    let [path] = &event_files(tmp.path())[..] else { panic!() };
    let good = fs::read(path).unwrap();
    let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize + 16;
    let damaged = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    // the CRC-32C of eight bytes of 0xff is that of the standard's test of such bytes; any wrong one will do
    let mut huge = good.clone();
    huge.splice(length..length, [0xff; 12]);
    let cases = [
        (damaged(|b| b[20] ^= 1), "check sum of a record is wrong", Some(3)),
        (damaged(|b| b[0] ^= 1), "check sum of a length is wrong", None),
        (huge, "damaged at byte", None),
        (vec![0x5a; 10_000], "check sum of a length is wrong", None),
    ];
    for (bytes, words, steps) in cases {
        fs::write(path, bytes).unwrap();
        let mut watch = Watch::open(tmp.path()).unwrap();
        while watch.look().1 {}
        let seen = watch.watched();
        let [problem] = &seen.problems[..] else { panic!("{words}: {seen:?}") };
        assert!(problem.contains(words) && problem.contains("tfevents") && !problem.contains('\n'), "{problem}");
        let read = seen.runs.first().and_then(|run| Some(run.scalars.get("loss")?.points().len()));
        assert_eq!(read, steps, "{problem}");
    }
    // a record may claim any length with a check sum that fits
    let masked = |bytes: &[u8]| crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8);
    let claim = u64::MAX.to_le_bytes();
    fs::write(path, [&claim[..], &masked(&claim).to_le_bytes()].concat()).unwrap();
    let mut watch = Watch::open(tmp.path()).unwrap();
    watch.look();
    assert!(watch.watched().problems[0].contains("larger than 64 MiB"), "{:?}", watch.watched().problems);
}

/// CRC-32C bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn the_command_line_prints_the_newest_numbers_and_changes_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    drop(log(&dir.join("run"), 0, 7));
    let files = || {
        let entries = fs::read_dir(dir.join("run")).unwrap().map(|entry| entry.unwrap());
        let mut all: Vec<_> = entries.map(|e| (e.file_name(), e.metadata().unwrap().modified().unwrap())).collect();
        all.sort();
        all
    };
    let before = files();
    for args in [&["watch", "run", "--once"][..], &["watch", "."], &["watch", "run"]] {
        let said = works(dir, args);
        let line = said.lines().find(|line| line.trim_start().starts_with("loss")).unwrap();
        assert!(said.contains("run") && line.contains(" 7 ") && line.contains("step 7"), "{said}");
    }
    assert_eq!(files(), before);
    refuses(dir, &["watch", "nowhere"], 1, &["cannot watch this run", "nowhere"]);
    fs::create_dir(dir.join("empty")).unwrap();
    refuses(dir, &["watch", "empty"], 1, &["no TensorBoard event files"]);
    fs::write(dir.join("empty/tfevents"), [0x5a; 99]).unwrap();
    refuses(dir, &["watch", "empty"], 1, &["check sum of a length is wrong"]);
    #[cfg(target_os = "linux")]
    refuses(dir, &["watch", "/dev/null"], 1, &["cannot watch this run", "Not a directory"]);
}

#[test]
fn what_others_wrote_cannot_command_the_terminal() {
    let tmp = tempfile::tempdir().unwrap();
    let mut run = log(&tmp.path().join("run"), 0, 0);
    run.step(1, [Some(1.0), None, None, None], &[("été\n  forged\u{9b}2J\x1b[2J", 7.0)]).unwrap();
    drop(run);
    let said = works(tmp.path(), &["watch", "run", "--once"]);
    assert!(said.contains(r"  été\n  forged\u{9b}2J\u{1b}[2J  7 "), "{said}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
}
