//! A baseline, run in turn with ours so that whatever else the machine does hits both.

use super::memory;
use super::network::Network;
use super::report::{Report, median, round};
use crate::engine::{Error, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// What the baseline said, round by round.
pub(super) struct Comparison {
    command: String,
    /// For a baseline that reads it: as many threads as ours, where they were named.
    threads: u16,
    rounds: Vec<Vec<Line>>,
}

/// One measurement of the baseline.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    what: &'static str,
    /// Network, where it says so.
    config: Option<String>,
    /// Which of its ways to compute.
    mode: String,
    batch: usize,
    seconds: f64,
    /// Threads that it computed on, where it says so.
    threads: Option<u64>,
    /// MiB that it had held by then, as it says or as its process shows.
    peak: Option<f64>,
}

impl Line {
    /// Whether it is of this, as far as it says.
    fn is_of(&self, what: &str, batch: usize, config: &str) -> bool {
        self.what == what && self.batch == batch && self.config.as_deref().is_none_or(|c| c == config)
    }
}

impl Comparison {
    pub(super) fn new(command: &str, threads: u16) -> Self {
        Self { command: command.to_owned(), threads, rounds: Vec::new() }
    }

    /// Runs the baseline once, to its end.
    pub(super) fn round(&mut self) -> Result<()> {
        let fail = |why: String| Error::new("cannot run the baseline", why, format!("try it alone: {}", self.command));
        let mut child = self.shell().spawn().map_err(|e| fail(e.to_string()))?;
        let lines = child.stdout.take().map(|out| read_lines(BufReader::new(out), &child));
        let status = child.wait().map_err(|e| fail(e.to_string()))?;
        let lines = lines.unwrap_or_default();
        if !status.success() {
            return Err(fail(format!("it ended with {status}")));
        }
        if lines.is_empty() {
            return Err(fail(
                "it printed no line with \"train\" or \"sample\", a batch, and a time or speed".to_owned(),
            ));
        }
        self.rounds.push(lines);
        Ok(())
    }

    fn shell(&self) -> Command {
        let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut command = Command::new(shell);
        command.args([flag, &self.command]).stdin(Stdio::null()).stdout(Stdio::piped());
        if self.threads > 0 {
            command.env("OMP_NUM_THREADS", self.threads.to_string());
        }
        command
    }

    /// How many times as fast ours is: the median over rounds, against the baseline's fastest mode.
    pub(super) fn report(&self, network: &Network, report: &Report<'_>) -> Result<()> {
        let mut compared = false;
        for run in network.runs() {
            let Some((line, theirs)) = self.fastest(run.what, run.batch, report.config()) else { continue };
            let mode = &line.mode;
            compared = true;
            let ours = run.medians();
            let ratio = ratio(&ours, &theirs);
            let (ours, theirs) = (median(&ours), median(&theirs));
            let speed = |seconds: f64| run.batch as f64 / seconds;
            let values = json!({
                "of": run.what, "batch": run.batch, "mode": mode, "ratio": round(ratio, 3),
                "ours_ms": round(ours * 1e3, 2), "theirs_ms": round(theirs * 1e3, 2),
                "ours_images_per_s": round(speed(ours), 2), "theirs_images_per_s": round(speed(theirs), 2),
                "theirs_threads": line.threads,
            });
            let other = line.threads.filter(|n| *n != report.threads() as u64);
            let other =
                other.map_or_else(String::new, |n| format!(" (theirs on {n} threads, ours on {})", report.threads()));
            let (a, b, unit) = match run.what {
                "train" => (speed(ours), speed(theirs), "images/s"),
                _ => (ours * 1e3, theirs * 1e3, "ms"),
            };
            let name = format!("{} batch {}", run.what, run.batch);
            let text = format!("{name:<16} ours {a:>9.2}  theirs {b:>9.2} {unit:<8} {mode:<14} {ratio:>6.2} x{other}");
            report.line("ratio", values, &text)?;
        }
        let ours = network.runs().iter().find(|run| run.what == "train");
        let same = |l: &&Line| ours.is_some_and(|run| l.is_of(run.what, run.batch, report.config()));
        let theirs = self.rounds.iter().flatten().filter(same).filter_map(|l| l.peak).reduce(f64::min);
        if let (Some(ours), Some(theirs)) = (network.memory(), theirs) {
            let values = json!({
                "ours_peak_mib": round(ours.peak, 1), "theirs_peak_mib": round(theirs, 1),
                "ratio": round(theirs / ours.peak, 3),
            });
            let text = format!(
                "whole process, training: ours {:.0} MiB  theirs {theirs:.0} MiB {:>6.2} x",
                ours.peak,
                theirs / ours.peak
            );
            report.line("memory_ratio", values, &text)?;
        }
        if compared {
            return Ok(());
        }
        let said = self.rounds.iter().flatten().next().map(|l| {
            let of = l.config.as_ref().map_or_else(String::new, |config| format!(" of {config}"));
            format!("{}{of}, batch {}", l.what, l.batch)
        });
        let why = format!("it measured other things, the first being {}", said.unwrap_or_default());
        Err(Error::new("cannot compare with the baseline", why, "give both the same network, batch and --what"))
    }

    /// A line and seconds by round of the mode with the lowest median.
    fn fastest(&self, what: &str, batch: usize, config: &str) -> Option<(&Line, Vec<f64>)> {
        let lines: Vec<&Line> = self.rounds.iter().flatten().filter(|l| l.is_of(what, batch, config)).collect();
        let of = |mode: &str| -> Vec<f64> { lines.iter().filter(|l| l.mode == mode).map(|l| l.seconds).collect() };
        let by_speed = |a: &&&Line, b: &&&Line| median(&of(&a.mode)).total_cmp(&median(&of(&b.mode)));
        let best = lines.iter().min_by(by_speed)?;
        Some((best, of(&best.mode)))
    }
}

/// Theirs over ours, paired by round where both have as many.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    if ours.len() == theirs.len() {
        let pairs: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect();
        median(&pairs)
    } else {
        median(theirs) / median(ours)
    }
}

fn read_lines(out: impl BufRead, child: &Child) -> Vec<Line> {
    // whatever else it prints, in whatever encoding, it is read to its end
    let lines = out.split(b'\n').map_while(std::result::Result::ok);
    let parsed = lines.filter_map(|line| parse(&String::from_utf8_lossy(&line)));
    parsed.map(|line| Line { peak: line.peak.or_else(|| memory::peak_of(child.id())), ..line }).collect()
}

/// A measurement in a line of JSON ({"what": "train", "batch": 64, "ms": 81.5}) or of our table
/// ("train  batch 64  81.50 ms"); `None` for anything else.
fn parse(line: &str) -> Option<Line> {
    let fields = match line.find('{') {
        Some(start) => serde_json::from_str(&line[start..=line.rfind('}')?]).ok()?,
        None => table_fields(line),
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let what = match text("what")?.as_str() {
        "train" => "train",
        "sample" | "forward" => "sample",
        _ => return None,
    };
    let batch = fields.get("batch")?.as_u64()?;
    let number = |name: &str| fields.get(name).and_then(Value::as_f64).filter(|v| *v > 0.0);
    let seconds = match (number("ms"), number("images_per_s")) {
        (Some(ms), _) => ms / 1e3,
        (None, Some(speed)) => batch as f64 / speed,
        (None, None) => return None,
    };
    let mode = text("mode").unwrap_or_default();
    Some(Line {
        what,
        config: text("config"),
        mode,
        batch: usize::try_from(batch).ok()?,
        seconds,
        threads: fields.get("threads").and_then(Value::as_u64),
        peak: number("peak_mib"),
    })
}

/// The words of a line of a table as the fields of an object: the first is what, numbers go with the word beside them.
fn table_fields(line: &str) -> Value {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut fields = json!({ "what": words.first() });
    for pair in words.windows(2) {
        match (pair, pair[0].parse::<f64>(), pair[1].parse::<u64>()) {
            (["batch", _], _, Ok(batch)) => fields["batch"] = batch.into(),
            ([_, "ms"], Ok(ms), _) => fields["ms"] = ms.into(),
            ([_, "images/s"], Ok(speed), _) => fields["images_per_s"] = speed.into(),
            _ => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_baseline_and_of_our_table_are_read() {
        let line = |what, config: Option<&str>, mode: &str, batch, seconds| {
            let (config, mode) = (config.map(str::to_owned), mode.to_owned());
            Some(Line { what, config, mode, batch, seconds, threads: None, peak: None })
        };
        let json =
            r#"{"what": "train", "mode": "eager", "config": "mnist28", "params": 1112801, "batch": 64, "ms": 950.0}"#;
        assert_eq!(parse(json), line("train", Some("mnist28"), "eager", 64, 0.95));
        let speed = r#"INFO {"what":"forward","batch":16,"images_per_s":32.0}"#;
        assert_eq!(parse(speed), line("sample", None, "", 16, 0.5));
        let threads = parse(r#"{"what":"train","batch":8,"ms":9,"threads":4}"#).and_then(|line| line.threads);
        assert_eq!(threads, Some(4));
        let table = "sample   batch 16        70.00 ms (best 68.10)      228.6 images/s";
        assert_eq!(parse(table), line("sample", None, "", 16, 0.07));
        for other in ["", "Traceback", "{}", "{", "}{", r#"{"what":"machine"}"#, "train batch ms", "train batch 0 0 ms"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn ratios_are_paired_and_against_the_fastest_mode() {
        assert_eq!(ratio(&[1.0, 10.0, 2.0], &[2.0, 30.0, 5.0]), 2.5);
        assert_eq!(ratio(&[1.0, 3.0], &[8.0]), 4.0);
        let line = |mode: &str, ms: u32| parse(&format!(r#"{{"what":"train","mode":"{mode}","batch":4,"ms":{ms}}}"#));
        let round = |eager, last| [line("eager", eager), line("channels_last", last)].into_iter().flatten().collect();
        let mut comparison = Comparison::new("", 0);
        comparison.rounds = vec![round(900, 800), round(100, 900), round(850, 700)];
        let fastest =
            |batch| comparison.fastest("train", batch, "mnist28").map(|(line, all)| (line.mode.as_str(), all));
        assert_eq!(fastest(4), Some(("channels_last", vec![0.8, 0.9, 0.7])));
        assert_eq!(fastest(8), None);
    }
}
