//! Work that mostly waits for others, the network or files that another program writes: each in a thread of its own, so
//! that it never holds up training and films.

use super::outbox::Outbox;
use super::{Event, JobId};
use crate::checkpoint::hub::Hub;
use crate::error::{Error, Result};
use crate::monitor::Watch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Watched files are looked at so often, and a stop is heeded so soon.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const HEED: Duration = Duration::from_millis(50);

/// A thread beside the worker. Dropping this tells it to stop; it is not waited for.
pub(super) struct Aside {
    pub job: JobId,
    stop: Arc<AtomicBool>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Aside {
    /// Runs `work`, which is told how to find out whether it shall stop, and reports how it ended.
    fn start(
        job: JobId,
        out: &Outbox,
        work: impl FnOnce(&Outbox, &dyn Fn() -> bool) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, out) = (Arc::clone(&stop), out.clone());
        let run = move || {
            let stops = || flag.load(Ordering::Relaxed) || out.quit();
            let result = catch_unwind(AssertUnwindSafe(|| work(&out, &stops)));
            let mistake = |_| Err(Error::new("the program made a mistake", "unknown reason", "please report this"));
            out.finished(job, result.unwrap_or_else(mistake));
        };
        let thread = std::thread::Builder::new().name("ddpm-aside".into()).spawn(run);
        let failed = |e: std::io::Error| Error::new("cannot do that now", e.to_string(), "close other programs");
        thread.map(|_| Self { job, stop }).map_err(failed)
    }

    /// Fetches a model of the hub.
    pub(super) fn fetch(job: JobId, name: String, out: &Outbox) -> Result<Self> {
        Self::start(job, out, move |out, stops| {
            let folder = Hub::from_env()?.fetch(&name, &mut |done, total| {
                out.send_or_skip(Event::Progress { job, done, total });
                !stops()
            })?;
            if stops() {
                return Err(Error::cancelled());
            }
            out.send(Event::Fetched(job, folder));
            Ok(())
        })
    }

    /// Tells what the runs in a folder write, until it is stopped.
    pub(super) fn watch(job: JobId, path: PathBuf, out: &Outbox) -> Result<Self> {
        Self::start(job, out, move |out, stops| {
            let mut watch = Watch::open(&path)?;
            let mut news = true;
            while !stops() {
                let begun = Instant::now();
                let mut more = true;
                while more && begun.elapsed() < LOOK_EVERY && !stops() {
                    let changed;
                    (changed, more) = watch.look();
                    news |= changed;
                }
                if std::mem::take(&mut news) {
                    out.send(Event::Watched(job, Arc::new(watch.watched())));
                }
                while !more && begun.elapsed() < LOOK_EVERY && !stops() {
                    std::thread::sleep(HEED);
                }
            }
            Err(Error::cancelled())
        })
    }
}
