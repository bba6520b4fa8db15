//! The runs in a folder: what each was made with, how far it came, what it drew last, and what was noted of it.

use super::outbox::Outbox;
use super::snapshots::newest_pictures;
use super::{Event, JobId};
use crate::checkpoint;
use crate::diffusion::Images;
use crate::error::{Error, Result};
use crate::export::files::save_atomically;
use crate::train::config::RunConfig;
use crate::train::metrics::History;
use crate::train::trainer::State;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

const STATE: &str = "film/state.json";
const NOTES: &str = "film/notes.txt";
/// Most bytes of notes that are read.
const MOST_NOTES: u64 = 1 << 20;
/// Most runs of a list.
const MOST_RUNS: usize = 1000;

/// A folder that holds a run, or was one.
#[derive(Clone, Debug)]
pub struct ListedRun {
    /// The folder.
    pub dir: PathBuf,
    /// When it was saved last.
    pub saved: Option<SystemTime>,
    /// What it says, or why it cannot be read.
    pub read: std::result::Result<RunSummary, Error>,
}

/// What a run's folder says of it.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Its settings.
    pub config: RunConfig,
    /// Steps done.
    pub step: u64,
    /// Its curves.
    pub history: History,
    /// What the EMA drew last, and at which step.
    pub pictures: Option<(u64, Images)>,
    /// What a person noted of it.
    pub notes: String,
}

impl ListedRun {
    /// The name of its folder.
    pub fn name(&self) -> String {
        self.dir.file_name().unwrap_or(self.dir.as_os_str()).to_string_lossy().into_owned()
    }

    fn read(dir: PathBuf) -> Self {
        let saved = fs::metadata(dir.join(STATE)).and_then(|file| file.modified()).ok();
        let read = summary(&dir).map_err(|e| Error { what: "cannot read this run".into(), ..e });
        Self { dir, saved, read }
    }
}

fn summary(dir: &Path) -> Result<RunSummary> {
    let state = serde_json::from_value::<State>(checkpoint::read_state(dir)?);
    let State { run, step, history, .. } = state.map_err(|e| {
        Error::new("cannot read this run", format!("its state is not understood: {e}"), "").at(dir.join(STATE))
    })?;
    Ok(RunSummary { config: run, step, history, pictures: newest_pictures(dir), notes: read_notes(dir) })
}

fn read_notes(dir: &Path) -> String {
    notes_of(&dir.join(NOTES)).unwrap_or_default()
}

/// `None` if there is something that are no notes of ours.
fn notes_of(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.len() <= MOST_NOTES => fs::read_to_string(path).ok(),
        Ok(_) => None,
        Err(e) => (e.kind() == std::io::ErrorKind::NotFound).then(String::new),
    }
}

/// Keeps `text` in the folder of a run, in the place of what was noted before.
pub(super) fn save_notes(dir: &Path, text: &str) -> Result<()> {
    let path = dir.join(NOTES);
    let refuse = |why: String, hint| Err(Error::new("cannot save the notes", why, hint).at(&path));
    if text.len() as u64 > MOST_NOTES {
        return refuse(format!("they are longer than {} MiB", MOST_NOTES >> 20), "keep the rest in a file of your own");
    }
    if notes_of(&path).is_none() {
        return refuse("the notes that are there cannot be read".to_owned(), "move that file away");
    }
    let write = |file: &mut dyn std::io::Write| {
        file.write_all(text.as_bytes()).map_err(|e| crate::export::files::cannot_write(&e))
    };
    save_atomically(&path, write).map_err(|e| Error { what: "cannot save the notes".into(), ..e })
}

/// A folder being gone through, one run a unit.
pub(super) struct RunsJob {
    job: JobId,
    left: VecDeque<PathBuf>,
    total: u64,
}

impl RunsJob {
    pub(super) fn start(job: JobId, folder: &Path, out: &Outbox) -> Result<Self> {
        let cannot = |e: std::io::Error| {
            Error::new("cannot list the runs", e.to_string(), "choose the folder that your runs are in").at(folder)
        };
        let entries = fs::read_dir(folder).map_err(cannot)?.flatten().map(|entry| entry.path());
        let mut left: Vec<PathBuf> = entries.filter(|dir| dir.join("film").is_dir()).collect();
        left.sort();
        if left.len() > MOST_RUNS {
            let why = format!("it holds {} runs", left.len());
            let hint = format!("the first {MOST_RUNS} by name are listed; move the others to a folder of their own");
            out.warn(Err(Error::new("cannot list all of the folder", why, hint).at(folder)));
            left.truncate(MOST_RUNS);
        }
        Ok(Self { job, total: left.len() as u64, left: left.into() })
    }

    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// Reads one run; true when all are read.
    pub(super) fn advance(&mut self, out: &Outbox) -> bool {
        if let Some(dir) = self.left.pop_front() {
            out.send(Event::Run(self.job, Arc::new(ListedRun::read(dir))));
            let done = self.total - self.left.len() as u64;
            out.send_or_skip(Event::Progress { job: self.job, done, total: self.total });
        }
        self.left.is_empty()
    }
}
