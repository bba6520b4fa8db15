//! The curves of a run as files that other programs read.

use super::appender::Appender;
use super::event::{Content, Event, Image, START, SessionLog, Summary, VERSION, Value, What};
use super::record;
use crate::diffusion::Images;
use crate::error::{Error, Result};
use crate::export;
use prost::Message as _;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The scalars of a step, in the order of [`RunLog::step`]; each is a tag of the event file and a column of the table.
pub const TAGS: [&str; 4] = ["loss", "grad_norm", "learning_rate", "images_per_s"];
/// The tag of the image strips.
pub const STRIP: &str = "samples/EMA";
/// The table.
const TABLE: &str = "scalars.csv";
/// The longest row of the table: several times what its numbers need.
const ROW: u64 = 4096;
/// How TensorBoard knows its files.
const EVENTS: &str = "events.out.tfevents.";
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The files of a run's curves: `events.out.tfevents.*` for TensorBoard, and `scalars.csv`.
///
/// A run that goes on begins an event file of its own, which says from which step on it takes the place of older ones
/// (`SessionLog` `START`, as TensorFlow's own writer does after a restart); its table is cut there.
pub struct RunLog {
    events: Appender,
    table: Option<Appender>,
    /// Steps done when it was opened.
    done: u64,
    flushed: Instant,
}

impl RunLog {
    /// Refuses a folder for a new run where the curves of another one lie, which would be mixed with its own.
    ///
    /// # Errors
    /// If there are some.
    pub fn check_new(dir: &Path) -> Result<()> {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names = names.map(|name| name.to_string_lossy().into_owned());
        match names.find(|name| name == TABLE || name.starts_with(EVENTS)) {
            None => Ok(()),
            Some(name) => {
                let why = format!("there already is {name} in this folder, the curves of another run");
                Err(Error::new("cannot take this folder", why, "choose another folder").at(dir))
            }
        }
    }

    /// Begins, or goes on after `done` steps, in a folder that is there. Also what could not be done, if so.
    pub fn open(dir: &Path, done: u64) -> (Self, Option<Error>) {
        let path = dir.join(TABLE);
        let (table, failed) = match cut(&path, done) {
            Ok(()) => (Some(Appender::new(path)), None),
            Err(e) => {
                let hint = "training goes on without this file";
                (
                    None,
                    Some(Error::new("cannot go on with the table of the run's curves", e.to_string(), hint).at(path)),
                )
            }
        };
        let events = Appender::new(events_path(dir));
        (Self { events, table, done, flushed: Instant::now() }, failed)
    }

    /// Notes the [`TAGS`] of a step, as far as they are known, and `others`, which stand in the event file only.
    ///
    /// # Errors
    /// A disk that takes no more, said once; it is tried again later.
    pub fn step(&mut self, step: u64, values: [Option<f32>; TAGS.len()], others: &[(&str, f32)]) -> Result<()> {
        let now = now();
        let known = TAGS.iter().zip(values).filter_map(|(tag, value)| Some((*tag, Content::Scalar(value?))));
        let others = others.iter().map(|(tag, value)| (*tag, Content::Scalar(*value)));
        self.summary(now, step, known.chain(others));
        if let Some(table) = &mut self.table {
            if table.is_unused() && fs::metadata(table.path()).map_or(true, |file| file.len() == 0) {
                table.add(header().as_bytes());
            }
            let cells = values.map(|value| value.map_or_else(String::new, |v| v.to_string())).join(",");
            table.add(format!("{step},{now:.3},{cells}\n").as_bytes());
        }
        if self.flushed.elapsed() < FLUSH_EVERY {
            return Ok(());
        }
        self.flush()
    }

    /// Notes EMA samples after a step, as one strip; those of a step that was noted before the run went on are not
    /// repeated.
    ///
    /// # Errors
    /// If the pictures cannot become a PNG.
    pub fn strip(&mut self, step: u64, images: &Images) -> Result<()> {
        // the one that follows the last step may be missing: a run can have been stopped while it was drawn
        if step < self.done {
            return Ok(());
        }
        let strip = export::grid(images, images.n, 1, 1);
        let [height, width] = [strip.height(), strip.width()].map(|v| v as i32);
        let image = Image { height, width, colorspace: 3, encoded: export::png_bytes(&strip)? };
        self.summary(now(), step, std::iter::once((STRIP, Content::Image(image))));
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// As [`RunLog::step`].
    pub fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        let events = self.events.flush();
        let table = self.table.as_mut().map_or(Ok(()), Appender::flush);
        events.and(table)
    }

    /// Writes what waits, through a power cut too: to be called before the model is saved, so that a run which goes on
    /// from there misses no step.
    pub fn sync(&mut self) {
        self.events.sync();
        self.table.iter_mut().for_each(Appender::sync);
    }

    fn summary<'a>(&mut self, wall_time: f64, step: u64, values: impl Iterator<Item = (&'a str, Content)>) {
        let mut out = Vec::new();
        let mut push = |step, what| {
            record::push(&mut out, &Event { wall_time, step, what: Some(what) }.encode_to_vec());
        };
        if self.events.is_unused() {
            push(0, What::FileVersion(VERSION.into()));
            let first = if self.done == 0 { 0 } else { self.done + 1 };
            push(first as i64, What::SessionLog(SessionLog { status: START }));
        }
        let values = values.map(|(tag, content)| Value { tag: tag.to_owned(), content: Some(content) }).collect();
        push(step as i64, What::Summary(Summary { values }));
        self.events.add(&out);
    }
}

impl Drop for RunLog {
    fn drop(&mut self) {
        // a run that is over has nobody left to tell
        self.flush().unwrap_or_default();
    }
}

fn header() -> String {
    format!("step,wall_time,{}\n", TAGS.join(","))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// A name that stands after those of all event files in the folder: TensorBoard reads them in the order of their names.
fn events_path(dir: &Path) -> PathBuf {
    let second = |name: &str| name.strip_prefix(EVENTS)?.split('.').next()?.parse::<u64>().ok();
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let newest = names.filter_map(|name| second(&name.to_string_lossy())).max();
    // a clock that was far ahead once shall not decide for ever
    let after = newest.map_or(0, |newest| newest.saturating_add(1)).min(9_999_999_999);
    dir.join(format!("{EVENTS}{:010}.ddpm-film", after.max(now() as u64)))
}

/// Cuts a table after the row of step `done`. It may not be there; one with other columns is refused.
fn cut(path: &Path, done: u64) -> io::Result<()> {
    let there = match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut lines = BufReader::new(&file);
    let mut line = Vec::new();
    let mut kept = 0;
    while lines.by_ref().take(ROW).read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let step = || text.split(',').next()?.parse::<u64>().ok();
        let whole = text.ends_with('\n');
        if kept == 0 && text != header() && !header().starts_with(&*text) {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is a table of something else"));
        }
        if !whole || kept > 0 && step().is_none_or(|step| step > done) {
            break;
        }
        kept += line.len() as u64;
        line.clear();
    }
    file.set_len(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a folder as TensorBoard keeps them: in the order of the files' names, each start taking the place of
    /// what came before it from its step on.
    fn events(dir: &Path) -> Vec<Event> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> = entries.filter(|p| p.to_string_lossy().contains("tfevents")).collect();
        paths.sort();
        let mut kept = Vec::<Event>::new();
        for path in paths {
            let bytes = fs::read(path).unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
                let event = Event::decode(&rest[12..12 + len]).unwrap();
                let mut again = Vec::new();
                record::push(&mut again, &event.encode_to_vec());
                assert!(rest.starts_with(&again), "the check sums of {event:?}");
                rest = &rest[again.len()..];
                match &event.what {
                    Some(What::FileVersion(version)) => assert_eq!(version, "brain.Event:2"),
                    Some(What::SessionLog(_)) => kept.retain(|old| old.step < event.step),
                    _ => kept.push(event),
                }
            }
        }
        kept
    }

    /// Steps of a table, and all it says of losses.
    fn table(dir: &Path) -> Vec<(u64, f32)> {
        let text = fs::read_to_string(dir.join(TABLE)).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap(), "step,wall_time,loss,grad_norm,learning_rate,images_per_s");
        let row = |line: &str| {
            let cells: Vec<&str> = line.split(',').collect();
            assert_eq!(cells.len(), 6, "{line}");
            (cells[0].parse().unwrap(), cells[2].parse().unwrap())
        };
        lines.map(row).collect()
    }

    fn loss(step: u64) -> f32 {
        1.0 / step as f32
    }

    fn steps(log: &mut RunLog, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            log.step(step, [Some(loss(step)), Some(0.5), Some(2e-4), (step > 1).then_some(100.0)], &[]).unwrap();
        }
    }

    fn assert_steps(dir: &Path, last: u64) {
        let expected: Vec<_> = (1..=last).map(|step| (step, loss(step))).collect();
        assert_eq!(table(dir), expected);
        let of = |event: &Event| match &event.what {
            Some(What::Summary(summary)) => match &summary.values[0] {
                Value { tag, content: Some(Content::Scalar(loss)) } if tag == "loss" => {
                    Some((event.step as u64, *loss))
                }
                _ => None,
            },
            _ => None,
        };
        assert_eq!(events(dir).iter().filter_map(of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_run_that_goes_on_after_a_kill_has_every_step_once() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let (mut log, failed) = RunLog::open(dir, 0);
        assert_eq!(failed, None);
        steps(&mut log, 1..=4);
        log.sync();
        steps(&mut log, 5..=9);
        drop(log);
        assert_steps(dir, 9);
        // the save is older than the curves, and the last row was cut off
        let text = fs::read(dir.join(TABLE)).unwrap();
        fs::write(dir.join(TABLE), &text[..text.len() - 3]).unwrap();
        for (done, last) in [(4, 6), (6, 8), (8, 8), (0, 2)] {
            let (mut log, failed) = RunLog::open(dir, done);
            assert_eq!(failed, None);
            steps(&mut log, done + 1..=last);
            drop(log);
            assert_steps(dir, last);
        }
    }

    #[test]
    fn what_is_not_known_of_every_step_stands_in_the_event_file_only() {
        let tmp = tempfile::tempdir().unwrap();
        let (mut log, _) = RunLog::open(tmp.path(), 0);
        log.step(1, [Some(0.5), None, None, None], &[("loss/held_out_images", 0.75)]).unwrap();
        drop(log);
        let events = events(tmp.path());
        let [Event { step: 1, what: Some(What::Summary(summary)), .. }] = &events[..] else { panic!("{events:?}") };
        let scalar = |tag: &str, v| Value { tag: tag.to_owned(), content: Some(Content::Scalar(v)) };
        assert_eq!(summary.values, [scalar("loss", 0.5), scalar("loss/held_out_images", 0.75)]);
        assert_eq!(table(tmp.path()), [(1, 0.5)]);
    }

    #[test]
    fn strips_hold_the_pictures() {
        let tmp = tempfile::tempdir().unwrap();
        let (mut log, _) = RunLog::open(tmp.path(), 0);
        let pixels: Vec<f32> = (0..8).map(|i| if i < 4 { -1.0 } else { 1.0 }).collect();
        log.strip(7, &Images::new(2, [1, 2, 2], pixels)).unwrap();
        drop(log);
        let events = events(tmp.path());
        let [Event { step: 7, what: Some(What::Summary(summary)), .. }] = &events[..] else { panic!("{events:?}") };
        let [Value { tag, content: Some(Content::Image(image)) }] = &summary.values[..] else { panic!("{summary:?}") };
        assert_eq!((tag.as_str(), image.width, image.height, image.colorspace), (STRIP, 5, 2, 3));
        let strip = image::load_from_memory(&image.encoded).unwrap().to_rgb8();
        assert_eq!([0, 2, 4].map(|x| strip.get_pixel(x, 1).0[0]), [0, 128, 255]);
    }

    #[test]
    fn tables_of_others_stay_as_they_are() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join(TABLE);
        fs::write(&path, "epoch,loss\n1,2\n").unwrap();
        let said = RunLog::check_new(tmp.path()).unwrap_err().to_string();
        assert!(said.contains("scalars.csv") && said.contains("another folder"), "{said}");
        let (mut log, failed) = RunLog::open(tmp.path(), 3);
        let said = failed.unwrap().to_string();
        assert!(said.contains("table of something else") && said.contains("scalars.csv"), "{said}");
        steps(&mut log, 4..=5);
        drop(log);
        assert_eq!(fs::read_to_string(&path).unwrap(), "epoch,loss\n1,2\n");
        assert_eq!(events(tmp.path()).len(), 2);
    }

    #[test]
    fn a_row_that_is_too_long_is_none() {
        let tmp = tempfile::tempdir().unwrap();
        let (mut log, _) = RunLog::open(tmp.path(), 0);
        steps(&mut log, 1..=3);
        drop(log);
        let path = tmp.path().join(TABLE);
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{good}3,{}\n", "0".repeat(1 << 20))).unwrap();
        assert_eq!(RunLog::open(tmp.path(), 3).1, None);
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_table_that_is_a_pipe_is_refused_before_it_is_opened() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join(TABLE);
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        // opened, the pipe would wait for ever
        let failed = RunLog::open(tmp.path(), 3).1.unwrap().to_string();
        assert!(failed.contains("it is not a regular file") && failed.contains("goes on without"), "{failed}");
    }

    #[test]
    fn what_cannot_be_written_is_said_once_and_written_later() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("run");
        let (mut log, _) = RunLog::open(&dir, 0);
        steps(&mut log, 1..=3);
        let said = log.flush().unwrap_err().to_string();
        assert!(said.starts_with("cannot write the run's curves: ") && said.contains("training goes on"), "{said}");
        steps(&mut log, 4..=5);
        log.flush().unwrap();
        fs::create_dir(&dir).unwrap();
        log.flush().unwrap();
        assert_steps(&dir, 5);
    }
}
