//! Threads: candle's, turned off, and ours, which share the work inside an operation.

use super::allocator::{give_blocks_back, keep_blocks};
use super::memory::part;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Turns candle's own thread pool off. It is as large as the machine whatever `--threads` says, and waits by spinning:
/// beside our threads it took a fifth of a training step. To be called first in `main`; candle reads the setting once.
pub fn keep_candle_on_the_calling_thread() {
    // SAFETY: no other thread runs yet that could read the environment
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
}

/// How long helpers look for work after the last [`Team::lead`], before they sleep. A network for one picture has some
/// fifty pieces of work of a few microseconds each, and waking a thread takes longer than any of them.
const LINGER: Duration = Duration::from_micros(500);

/// After so long asleep, helpers give back the memory that they keep.
const REST: Duration = Duration::from_secs(1);

/// Looks for work between two times that another thread may have the processor.
const LOOKS: u32 = 64;

/// A thread that leads and helpers that share its work. While it leads, helpers wait for work awake.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

/// The tasks of a job that one thread takes first, on cache lines of its own: the thread waits for them by looking there.
#[repr(align(128))]
struct Share {
    /// Tasks that nobody has taken.
    left: AtomicUsize,
    job: UnsafeCell<Job>,
}

#[repr(align(128))]
struct Done(AtomicUsize);

struct Shared {
    /// One for each thread, the leader's first.
    shares: Vec<Share>,
    /// Tasks of the job that are done.
    done: Done,
    /// What a task panicked with.
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    /// A job is under way.
    busy: AtomicBool,
    /// Threads that lead.
    leaders: AtomicUsize,
    closing: AtomicBool,
}

/// Part of what [`Shared::share_out`] shares out.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    /// The last task of the part, and one.
    end: usize,
}

// SAFETY: a share's job is written only while none of its tasks is left to take, and read only by those who took one.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

thread_local! {
    /// The team that this thread leads.
    static TEAM: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

impl Team {
    /// A team of `threads`, the leader among them; `on_start` runs first on each helper.
    ///
    /// # Errors
    /// If the system does not give the threads.
    pub fn new(threads: usize, on_start: fn()) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            shares: (0..threads.max(1))
                .map(|_| Share { left: AtomicUsize::new(0), job: UnsafeCell::new(Job { task: &|_| (), end: 0 }) })
                .collect(),
            done: Done(AtomicUsize::new(0)),
            panic: Mutex::new(None),
            busy: AtomicBool::new(false),
            leaders: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let mut team = Self { shared, helpers: Vec::new() };
        for me in 1..threads {
            let shared = team.shared.clone();
            let help = move || {
                on_start();
                keep_blocks();
                shared.help(me);
            };
            team.helpers.push(std::thread::Builder::new().name(format!("ddpm-help-{me}")).spawn(help)?);
        }
        Ok(team)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.shared.shares.len()
    }

    /// Runs `f` on this thread, where operations may share their work with the helpers. From then on the thread keeps
    /// memory that it frees at hand.
    pub fn lead<R>(&self, f: impl FnOnce() -> R) -> R {
        struct End<'a>(&'a Shared, *const Shared);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                TEAM.set(self.1);
                self.0.leaders.fetch_sub(1, SeqCst);
            }
        }
        keep_blocks();
        self.shared.leaders.fetch_add(1, SeqCst);
        let _end = End(&self.shared, TEAM.replace(&raw const *self.shared));
        self.wake();
        f()
    }

    /// `task(0)`, …, `task(count - 1)`, each on one thread from start to end.
    pub fn map<R: Send + Sync>(&self, count: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
        keep_blocks();
        collect(count, task, |task| {
            if !self.shared.share_out(count, task, || self.wake()) {
                alone(|| (0..count).for_each(task));
            }
        })
    }

    fn wake(&self) {
        self.helpers.iter().for_each(|helper| helper.thread().unpark());
    }
}

/// How many threads share the work of an operation here.
pub fn count() -> usize {
    // SAFETY: a team outlives what it leads.
    unsafe { TEAM.get().as_ref() }.map_or(1, |team| team.shares.len())
}

/// Runs `task(0)` to `task(count - 1)`, on several threads where one leads a [`Team`].
pub fn for_each(count: usize, task: impl Fn(usize) + Sync) {
    // SAFETY: a team outlives what it leads.
    let team = unsafe { TEAM.get().as_ref() }.filter(|team| count > 1 && team.shares.len() > 1);
    if !team.is_some_and(|team| team.share_out(count, &task, || ())) {
        (0..count).for_each(task);
    }
}

/// [`for_each`], with the results in order.
pub fn map_each<R: Send + Sync>(count: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
    collect(count, task, |task| for_each(count, task))
}

/// The results of `task`, which `run` runs for each of `count` numbers.
fn collect<R: Send + Sync>(
    count: usize,
    task: impl Fn(usize) -> R + Sync,
    run: impl FnOnce(&(dyn Fn(usize) + Sync)),
) -> Vec<R> {
    let results: Vec<OnceLock<R>> = (0..count).map(|_| OnceLock::new()).collect();
    run(&|i| {
        results[i].get_or_init(|| task(i));
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Runs `f` where nothing is shared out.
fn alone(f: impl FnOnce()) {
    struct End(*const Shared);
    impl Drop for End {
        fn drop(&mut self) {
            TEAM.set(self.0);
        }
    }
    let _end = End(TEAM.replace(std::ptr::null()));
    f();
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // one that ended early, in `on_start`, left its share to the others
            drop(helper.join());
        }
    }
}

impl Shared {
    /// Runs `task(0)` to `task(count - 1)` and, once they can be taken, `published`; or returns false if another job is
    /// under way.
    fn share_out(&self, count: usize, task: &(dyn Fn(usize) + Sync), published: impl FnOnce()) -> bool {
        if self.busy.swap(true, Acquire) {
            return false;
        }
        self.done.0.store(0, Relaxed);
        let task: *const (dyn Fn(usize) + Sync + '_) = task;
        // SAFETY: the lifetime is forgotten, but nobody calls `task` after the last one is done, for which this function
        // waits.
        let task =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(task) };
        for (i, share) in self.shares.iter().enumerate().rev() {
            let Range { start, end } = part(count, self.shares.len(), i);
            // SAFETY: no task of the share is left, so nobody reads its job.
            unsafe { *share.job.get() = Job { task, end } };
            share.left.store(end - start, Release);
        }
        published();
        alone(|| self.work(0));
        let mut wait = Wait::default();
        while self.done.0.load(Acquire) < count {
            if !wait.lingers() {
                std::thread::sleep(LINGER / 10);
            }
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.busy.store(false, Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        true
    }

    /// Does tasks until none is left, those of share `me` first.
    fn work(&self, me: usize) {
        for i in (0..self.shares.len()).map(|i| (me + i) % self.shares.len()) {
            let (share, mut done) = (&self.shares[i], 0);
            while let Ok(left) = share.left.fetch_update(AcqRel, Relaxed, |left| left.checked_sub(1)) {
                // SAFETY: a task was left, so its job was written; that stays, and the task lives, until it is done.
                let (task, index) = unsafe {
                    let job = *share.job.get();
                    (&*job.task, job.end - left)
                };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(index))) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
                done += 1;
            }
            if done > 0 {
                self.done.0.fetch_add(done, Release);
            }
        }
    }

    /// A helper's life.
    fn help(&self, me: usize) {
        let mut wait = Wait::default();
        loop {
            if self.shares[me].left.load(Acquire) > 0 {
                self.work(me);
                wait = Wait::default();
            } else if !wait.lingers() {
                if self.closing.load(SeqCst) {
                    return;
                }
                let idle = || self.leaders.load(SeqCst) == 0 && self.shares[me].left.load(SeqCst) == 0;
                if idle() {
                    // whoever leads wakes helpers that were not asleep, too
                    let since = Instant::now();
                    while let Some(rest) = REST.checked_sub(since.elapsed())
                        && idle()
                        && !self.closing.load(SeqCst)
                    {
                        std::thread::park_timeout(rest);
                    }
                    if idle() && !self.closing.load(SeqCst) {
                        give_blocks_back();
                        std::thread::park();
                        keep_blocks();
                    }
                }
                wait = Wait::default();
            }
        }
    }
}

/// A wait that begins awake.
#[derive(Default)]
struct Wait {
    looks: u32,
    since: Option<Instant>,
}

impl Wait {
    /// Waits a moment. False when it is time to sleep.
    fn lingers(&mut self) -> bool {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS) {
            std::hint::spin_loop();
            return true;
        }
        std::thread::yield_now();
        self.since.get_or_insert_with(Instant::now).elapsed() < LINGER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let team = Team::new(threads, || ()).unwrap();
            let (jobs, count) = (3000, 37);
            let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            team.lead(|| {
                assert_eq!(super::count(), threads);
                for job in 0..jobs {
                    // now and then the helpers fall asleep before the next job
                    if job % 1000 == 999 {
                        std::thread::sleep(2 * LINGER);
                    }
                    let tasks = job % (count + 1);
                    for_each(tasks, |i| {
                        done[i].fetch_add(1, Relaxed);
                        assert!(tasks == 1 || super::count() == 1, "one of several tasks shares its work out");
                    });
                }
            });
            let want = |i| (0..jobs).filter(|job| job % (count + 1) > i).count();
            assert!(
                done.iter().enumerate().all(|(i, done)| done.load(Relaxed) == want(i)),
                "{threads} threads: {done:?}"
            );
            assert_eq!(super::count(), 1);
            assert_eq!(team.map(7, |i| (i * i, super::count())), (0..7).map(|i| (i * i, 1)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn helpers_take_part_after_they_have_slept() {
        let team = Team::new(2, || ()).unwrap();
        let both = |team: &Team| {
            let meet = std::sync::Barrier::new(2);
            team.map(2, |_| meet.wait());
        };
        both(&team);
        std::thread::sleep(4 * LINGER);
        both(&team);
        let meet = std::sync::Barrier::new(2);
        team.lead(|| {
            for _ in 0..100 {
                for_each(2, |_| {
                    meet.wait();
                });
            }
        });
    }

    #[test]
    fn teams_led_by_several_threads_at_once_lose_nothing() {
        let team = Team::new(2, || ()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..500 {
                        assert_eq!(team.lead(|| map_each(n % 9, |i| i)), (0..n % 9).collect::<Vec<_>>());
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_leader_and_leaves_the_team_whole() {
        let team = Team::new(2, || ()).unwrap();
        for bad in [0, 5] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.lead(|| for_each(6, |i| assert!(i != bad, "task {i}")));
            }));
            let panic = result.unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(&*format!("task {bad}")));
            assert_eq!(super::count(), 1);
        }
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(team.lead(|| map_each(3, |i| i)), [0, 1, 2]);
    }
}
