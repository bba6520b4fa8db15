//! Data sets on their way: each is read on a thread of its own, so that films and a training go on meanwhile, and what needs
//! it waits; and those that were read last.

use super::outbox::Outbox;
use super::{Command, Event, JobId, Which, device};
use crate::data::{Dataset, Source};
use crate::error::{Error, Kind, Result};
use crossbeam_channel::{Receiver, TryRecvError};
use std::cell::OnceCell;
use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pixels that are kept although nothing uses them, but for the newest data set, which is kept whatever its size.
const KEPT_BYTES: usize = 1 << 30;

/// Which data, and [c, h, w] of the images.
pub(super) type Place = (Source, [usize; 3]);

/// The data sets that were read last: films and training mostly want the same one.
#[derive(Default)]
pub(super) struct DataCache {
    /// The newest last; with the fingerprint, once somebody wanted it.
    held: Vec<(Source, Arc<Dataset>, OnceCell<String>)>,
}

impl DataCache {
    fn position(&self, (source, shape): &Place) -> Option<usize> {
        self.held.iter().position(|(held, data, _)| held == source && data.shape == *shape)
    }

    /// A data set that was read.
    ///
    /// # Errors
    /// It was not, or is no longer kept.
    pub fn get(&self, place: &Place) -> Result<Arc<Dataset>> {
        let missing = || Error::new("cannot use the data", format!("{} is not read yet", place.0), "try again");
        self.position(place).map(|i| Arc::clone(&self.held[i].1)).ok_or_else(missing)
    }

    /// [`Dataset::fingerprint`] of one that was read.
    pub fn fingerprint(&self, place: &Place) -> Option<&str> {
        let (_, data, fingerprint) = &self.held[self.position(place)?];
        Some(fingerprint.get_or_init(|| data.fingerprint()))
    }

    fn keep(&mut self, source: Source, data: Dataset) {
        self.forget(&(source.clone(), data.shape));
        self.held.push((source, Arc::new(data), OnceCell::new()));
        let bytes = |cache: &Self| cache.held.iter().map(|(_, data, _)| data.pixels.len()).sum::<usize>();
        while self.held.len() > 1 && bytes(self) > KEPT_BYTES {
            self.held.remove(0);
        }
    }

    fn forget(&mut self, place: &Place) {
        if let Some(i) = self.position(place) {
            self.held.remove(i);
        }
    }
}

enum News {
    /// Images done and in all.
    Progress(usize, usize),
    Over(Box<Result<Dataset>>),
}

/// A data set being read, and the commands that wait: those that need it, and those that come after one of them.
struct Reading {
    place: Place,
    waiting: Vec<Command>,
    news: Receiver<News>,
    stop: Arc<AtomicBool>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Reading {
    fn begin(place: Place, first: Command) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, news) = crossbeam_channel::bounded(16);
        let ((source, shape), stops) = (place.clone(), Arc::clone(&stop));
        let read = move || {
            device::lower_priority();
            let progress = |done, total| {
                // may be left out when the worker is behind: the next one tells all
                drop(sender.try_send(News::Progress(done, total)));
                !stops.load(Ordering::Relaxed)
            };
            let result = Dataset::load(&source, shape, &progress);
            // nobody may want it any more
            drop(sender.send(News::Over(Box::new(result))));
        };
        std::thread::Builder::new()
            .name("ddpm-reader".into())
            .spawn(read)
            .map_err(|e| Error::new("cannot read the data set", e.to_string(), "close other programs and try again"))?;
        Ok(Self { place, waiting: vec![first], news, stop })
    }

    /// Whether a training waits for it.
    fn trains(&self) -> bool {
        self.waiting.iter().any(|c| matches!(c, Command::Train(..)))
    }
}

/// Whether it only makes sense with that data.
fn needs_data(command: &Command) -> bool {
    use Command::{Compare, Fork, Forward, Look, Race, Sample, Train};
    matches!(command, Train(..) | Sample(..) | Fork(..) | Forward(..) | Compare(..) | Race(..) | Look(..))
}

/// Whether it is about the training that waits before it.
fn is_about_training(command: &Command) -> bool {
    match command {
        Command::SetTraining(_) | Command::Change(_) | Command::Save(..) => true,
        Command::Sample(_, r) => r.which == Which::Training,
        Command::Forward(_, r) => r.which == Which::Training,
        Command::Compare(_, r) => r.which == Which::Training,
        Command::Race(_, r) => r.which == Which::Training,
        _ => false,
    }
}

/// What is kept, and what is being read.
#[derive(Default)]
pub(super) struct Readings {
    pub cache: DataCache,
    open: Vec<Reading>,
}

impl Readings {
    /// Whether nothing is being read.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether that job waits for data.
    pub fn holds(&self, job: JobId) -> bool {
        self.open.iter().any(|reading| reading.waiting.iter().any(|waiting| waiting.job() == Some(job)))
    }

    /// Ends what waits and was cancelled by `command` or is replaced by it. Returns what waited behind it.
    pub fn make_way(&mut self, command: &Command, out: &Outbox) -> Vec<Command> {
        let ends = |waiting: &Command| match command {
            Command::Cancel(job) => waiting.job() == Some(*job) && needs_data(waiting),
            Command::Forget(jobs) => waiting.job().is_some_and(|job| jobs.contains(&job)),
            // every branch is wanted
            Command::Fork(..) => false,
            newer => needs_data(newer) && discriminant(newer) == discriminant(waiting),
        };
        let mut free = Vec::new();
        self.open.retain_mut(|reading| {
            let trained = reading.trains();
            for ended in reading.waiting.extract_if(.., |waiting| ends(waiting)) {
                if let Some(job) = ended.job() {
                    out.finished(job, Err(Error::cancelled()));
                }
            }
            if trained && !reading.trains() {
                free.extend(reading.waiting.extract_if(.., |waiting| is_about_training(waiting)));
            }
            let wanted = reading.waiting.iter().any(needs_data);
            if !wanted {
                free.append(&mut reading.waiting);
            }
            wanted
        });
        free
    }

    /// Lets `command` wait where it is about a training that waits itself, and else gives it back.
    pub fn behind_training(&mut self, command: Command) -> Option<Command> {
        match self.open.iter_mut().find(|reading| reading.trains()) {
            Some(reading) if is_about_training(&command) => {
                reading.waiting.push(command);
                None
            }
            _ => Some(command),
        }
    }

    /// Gives `command` back if its data are there; else it waits until they are read.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn when_read(&mut self, place: Place, mut command: Command) -> Result<Option<Command>> {
        if let Command::Look(_, request) = &mut command
            && std::mem::take(&mut request.again)
        {
            self.cache.forget(&place);
        }
        if self.cache.position(&place).is_some() {
            return Ok(Some(command));
        }
        match self.open.iter_mut().find(|reading| reading.place == place) {
            Some(reading) => reading.waiting.push(command),
            None => self.open.push(Reading::begin(place, command)?),
        }
        Ok(None)
    }

    /// Tells how far reading has come. Returns the commands that need wait no longer.
    pub fn follow(&mut self, out: &Outbox) -> Vec<Command> {
        let mut free = Vec::new();
        let mut i = 0;
        while let Some(reading) = self.open.get_mut(i) {
            let (mut last, mut over) = (None, None);
            while over.is_none() {
                match reading.news.try_recv() {
                    Ok(News::Progress(done, total)) => last = Some((done as u64, total as u64)),
                    Ok(News::Over(result)) => over = Some(*result),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        let why = "reading ended without a reason";
                        over = Some(Err(Error::new("the program made a mistake", why, "please report this")));
                    }
                }
            }
            let jobs = reading.waiting.iter().filter(|c| needs_data(c)).filter_map(Command::job);
            if let Some((done, total)) = last {
                jobs.clone().for_each(|job| out.send_or_skip(Event::Progress { job, done, total }));
            }
            match over {
                None => i += 1,
                Some(Ok(data)) => {
                    if reading.waiting.iter().any(|c| !matches!(c, Command::Look(..))) {
                        warn_of_skipped(&data, out);
                    }
                    free.append(&mut reading.waiting);
                    self.cache.keep(reading.place.0.clone(), data);
                    self.open.remove(i);
                }
                Some(Err(e)) => {
                    let jobs: Vec<JobId> = jobs.collect();
                    jobs.into_iter().for_each(|job| out.finished(job, Err(e.clone())));
                    free.extend(reading.waiting.drain(..).filter(|c| !needs_data(c)));
                    self.open.remove(i);
                }
            }
        }
        free
    }

    /// What waits and will not be begun.
    pub fn rest(&mut self) -> Vec<Command> {
        self.open.drain(..).flat_map(|mut reading| std::mem::take(&mut reading.waiting)).collect()
    }
}

/// The images that belong to `data` and are never trained on, if there are any. A test set is small, and read at once.
///
/// # Errors
/// The worker is told to quit; what else is wrong is a warning.
pub(super) fn held_out((source, shape): &Place, data: &Dataset, out: &Outbox) -> Result<Option<Arc<Dataset>>> {
    if matches!(source, Source::Rest(_)) {
        return Ok(data.held_out.clone());
    }
    match Dataset::test_set(source, *shape, &|_, _| !out.quit()) {
        Err(e) if e.kind != Kind::Cancelled => {
            out.send(Event::Warning(e.to_string()));
            Ok(None)
        }
        test_set => Ok(test_set?.map(Arc::new)),
    }
}

fn warn_of_skipped(data: &Dataset, out: &Outbox) {
    if let Some((path, why)) = data.skipped.first() {
        let others = match data.skipped.len() {
            1 => String::new(),
            n => format!(" and {} more files", n - 1),
        };
        out.send(Event::Warning(format!("left out {}{others}: {why}", path.display())));
    }
}
