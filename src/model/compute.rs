//! Where a network runs, and on how many threads.

use crate::error::{Error, Result};
use crate::kernels::Path;
use candle_core::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A device with its threads. Two shapes of parallelism, both giving the same bytes for any number of threads: one pool
/// that shares the work inside a network call (sampling), and lanes of one thread each that run whole micro-batches
/// (training).
pub struct Compute {
    device: Device,
    path: Path,
    pool: ThreadPool,
    lanes: Vec<ThreadPool>,
}

impl Compute {
    /// `threads` 0 means one per core; `on_start` runs first on every thread.
    ///
    /// # Errors
    /// If the system does not give the threads.
    pub fn new(device: Device, threads: usize, on_start: fn()) -> Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool = |name: String, n| {
            ThreadPoolBuilder::new()
                .num_threads(n)
                .thread_name(move |i| format!("{name}-{i}"))
                .start_handler(move |_| on_start())
                .build()
                .map_err(|e| Error::new(format!("cannot start {threads} threads"), e.to_string(), "use --threads 1"))
        };
        Ok(Self {
            path: super::path_for(&device),
            device,
            pool: pool("ddpm-sample".into(), threads)?,
            lanes: (0..threads).map(|i| pool(format!("ddpm-train-{i}"), 1)).collect::<Result<_>>()?,
        })
    }

    /// The same with another implementation of the kernels.
    #[must_use]
    pub fn with_path(self, path: Path) -> Self {
        Self { path, ..self }
    }

    /// Where tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Which kernels networks are built on.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.lanes.len()
    }

    /// Runs `f` where kernels may use all threads.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }

    /// `f(0), …, f(n - 1)`, each on one thread from start to end.
    pub fn map_lanes<R: Send>(&self, n: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let mut results: Vec<Option<R>> = (0..n).map(|_| None).collect();
        let mut shares: Vec<Vec<(usize, &mut Option<R>)>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for (i, slot) in results.iter_mut().enumerate() {
            shares[i % self.lanes.len()].push((i, slot));
        }
        std::thread::scope(|scope| {
            for (lane, share) in self.lanes.iter().zip(shares) {
                let f = &f;
                scope.spawn(move || lane.install(|| share.into_iter().for_each(|(i, slot)| *slot = Some(f(i)))));
            }
        });
        results.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_keep_order_and_run_on_one_thread_each() {
        for threads in [1, 2, 3] {
            let compute = Compute::new(Device::Cpu, threads, || ()).unwrap();
            let seen = compute.map_lanes(7, |i| (i * i, rayon::current_num_threads()));
            assert_eq!(seen, (0..7).map(|i| (i * i, 1)).collect::<Vec<_>>());
            assert_eq!(compute.run(rayon::current_num_threads), threads);
        }
    }
}
