//! `ddpm-film bench`: what it prints, and a baseline in turn with ours.

use crate::cli::{program, refuses, works};
use serde_json::Value;

const SMALL: [&str; 8] = ["bench", "--config", "digits16", "--batch", "2", "--steps", "1", "--json"];

fn lines(said: &str) -> Vec<Value> {
    said.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

fn bench(more: &[&str]) -> Vec<Value> {
    let tmp = tempfile::tempdir().unwrap();
    lines(&works(tmp.path(), &[&SMALL[..], more].concat()))
}

#[test]
fn bench_speaks_the_keys_of_the_baseline() {
    let lines = bench(&["--threads", "1"]);
    let whats: Vec<&str> = lines.iter().map(|l| l["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["machine", "train", "sample", "sample"]);
    assert!(!lines[0]["cpu"].as_str().unwrap().is_empty() && !lines[0]["vectors"].as_str().unwrap().is_empty());
    for line in &lines[1..] {
        for key in ["params", "batch", "ms", "best_ms", "images_per_s"] {
            assert!(line[key].as_f64().unwrap() > 0.0, "{line}");
        }
        assert!(line["best_ms"].as_f64() <= line["ms"].as_f64(), "{line}");
        assert_eq!((line["config"].as_str(), line["threads"].as_u64()), (Some("digits16"), Some(1)));
    }
    if cfg!(target_os = "linux") {
        let [peak, growth] = ["peak_mib", "growth_mib"].map(|key| lines[1][key].as_f64().unwrap());
        // weights, gradients, moments and EMA alone: five times 4.4 MB
        assert!(growth > 15.0 && growth < peak && peak < 2000.0, "{}", lines[1]);
    }
}

#[test]
fn kernels_are_fast_and_near_f64() {
    let lines = bench(&["--what", "kernels"]);
    let kernels: Vec<&Value> = lines.iter().filter(|l| l["what"] == "kernel").collect();
    assert!(kernels.len() > 10);
    let others: Vec<&Value> = lines.iter().filter(|l| l["what"] == "layer").collect();
    assert!(others.len() > 8 && lines.iter().any(|l| l["what"] == "adam"), "{lines:?}");
    for (layer, key) in others.into_iter().flat_map(|layer| [(layer, "y"), (layer, "y1")]) {
        let [median, best] = ["median", "best"].map(|of| layer["ns_per_number"][key][of].as_f64().unwrap());
        let [rms, max] = ["rms", "max"].map(|of| layer["errors"]["y"][of].as_f64().unwrap());
        assert!(0.0 < best && best <= median && rms > 0.0 && rms <= 5e-6 && max <= 3e-5, "{layer}");
    }
    for kernel in kernels {
        for speed in ["y", "dX", "dW", "dX+dW", "y1"].map(|key| &kernel["gflops"][key]) {
            let [median, best] = ["median", "best"].map(|key| speed[key].as_f64().unwrap());
            assert!(0.0 < median && median <= best && best < 1e5, "{kernel}");
        }
        for result in ["y", "dX", "dW"] {
            let [rms, max] = ["rms", "max"].map(|key| kernel["errors"][result][key].as_f64().unwrap());
            assert!(rms > 0.0 && rms <= 1e-5 && max <= 3e-4, "{kernel}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_longer_training_needs_no_more_memory() {
    const BATCHES_OF_4: [&str; 9] =
        ["bench", "--config", "digits16", "--batch", "4", "--what", "train", "--threads=1", "--json"];
    let tmp = tempfile::tempdir().unwrap();
    let peak = |steps: &str| {
        let of = [&BATCHES_OF_4[..], &["--steps", steps]].concat();
        lines(&works(tmp.path(), &of))[1]["peak_mib"].as_f64().unwrap()
    };
    // it moves by some 30 MiB from run to run; one map kept a step would be 70, the gradients of each 2,300
    let (short, long) = (peak("60"), peak("600"));
    assert!(long < short + 60.0, "{short} MiB in 60 steps, {long} in 600");
}

#[cfg(unix)]
#[test]
fn a_baseline_runs_in_turn_with_ours() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let script = r#"echo run >> turns; echo "threads $OMP_NUM_THREADS" >&2
echo '{"what": "train", "mode": "slow", "config": "digits16", "batch": 2, "ms": 60000.0}'
echo '{"what": "train", "mode": "quick", "config": "digits16", "batch": 2, "ms": 50000.0}'
echo 'sample   batch 1   40000.0 ms'
echo '{"what": "sample", "mode": "", "config": "other", "batch": 16, "ms": 1.0}'
"#;
    std::fs::write(dir.join("baseline"), script).unwrap();
    let said = works(dir, &[&SMALL[..], &["--against", "sh baseline", "--rounds", "2"]].concat());
    assert_eq!(std::fs::read_to_string(dir.join("turns")).unwrap(), "run\nrun\n");
    let all = lines(&said);
    let ratios: Vec<&Value> = all.iter().filter(|l| l["what"] == "ratio").collect();
    assert_eq!(ratios.len(), 2, "another network is not compared: {said}");
    for (ratio, (of, mode, ms)) in ratios.iter().zip([("train", "quick", 50_000.0), ("sample", "", 40_000.0)]) {
        assert_eq!((&ratio["of"], &ratio["mode"], &ratio["theirs_ms"]), (&of.into(), &mode.into(), &ms.into()));
        assert!(ratio["ratio"].as_f64().unwrap() > 1.0 && ratio["ours_ms"].as_f64().unwrap() > 0.0, "{ratio}");
    }
    // of a single round the ratio is that of the times beside it
    let said = works(dir, &[&SMALL[..], &["--against", "sh baseline", "--rounds", "1"]].concat());
    let ratios = said.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).filter(|l| l["what"] == "ratio");
    for line in ratios {
        let [ours, theirs, ratio] = ["ours_ms", "theirs_ms", "ratio"].map(|key| line[key].as_f64().unwrap());
        assert!((ratio * ours / theirs - 1.0).abs() < 0.05, "{line}");
    }
    let bench = |command: &'static str| [&SMALL[..], &["--against", command, "--rounds", "1"]].concat();
    refuses(dir, &bench("echo hello"), 1, &["no line", "echo hello"]);
    refuses(dir, &bench("exit 3"), 1, &["exit status: 3"]);
    refuses(dir, &bench(r#"echo '{"what":"train","batch":9,"ms":1}'"#), 1, &["being train, batch 9;"]);
    // what ours took is there all the same
    let out = program(dir, &bench("exit 3"));
    let whats: Vec<Value> = lines(&String::from_utf8(out.stdout).unwrap()).iter().map(|l| l["what"].clone()).collect();
    assert_eq!(whats, ["machine", "train", "sample", "sample"]);
    // bytes that are no text, more to say than a pipe holds, and its own memory of the batch that is compared
    let odd = r#"printf '\377 \265s\n'; yes | head -c 200000
echo '{"what":"train","batch":64,"ms":1,"peak_mib":1}'; echo '{"what":"train","batch":2,"ms":1,"peak_mib":4000}'"#;
    std::fs::write(dir.join("odd"), odd).unwrap();
    if cfg!(target_os = "linux") {
        let all = lines(&works(dir, &bench("sh odd")));
        let memory = all.iter().find(|l| l["what"] == "memory_ratio").unwrap();
        assert_eq!(memory["theirs_peak_mib"], 4000.0);
    }
    refuses(dir, &[&bench("true")[..], &["--what", "kernels"]].concat(), 2, &["--what"]);
}

#[test]
fn what_would_be_measured_wrongly_is_not_measured() {
    let tmp = tempfile::tempdir().unwrap();
    refuses(tmp.path(), &[&SMALL[..], &["--what", "train,memory"]].concat(), 2, &["--what memory by itself"]);
    refuses(tmp.path(), &[&SMALL[..], &["--what", "start"]].concat(), 2, &["mnist28", "leave --config out"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_printed_is_an_error() {
    let run = |out: std::process::Stdio| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ddpm-film"));
        let child = command.args(SMALL).stdout(out).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (out, why) in [(writer.into(), "nobody reads"), (full.into(), "No space left")] {
        let (code, said) = run(out);
        assert!(code == Some(1) && said.contains(why) && !said.contains("panicked"), "{code:?}: {said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_display_the_window_is_said_not_to_be_measured() {
    let tmp = tempfile::tempdir().unwrap();
    let lines = lines(&works(tmp.path(), &["bench", "--what", "start,window", "--json"]));
    let whats: Vec<&str> = lines.iter().map(|l| l["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["machine", "start", "window"]);
    assert!(lines[1..].iter().all(|l| l["not_measured"].as_str().unwrap().contains("display")), "{lines:?}");
}
