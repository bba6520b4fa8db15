//! Where a network runs, and on how many threads.

use super::Denoiser;
use crate::diffusion::Images;
use crate::error::{Error, Result};
use crate::kernels::Path;
use crate::kernels::threads::Team;
use candle_core::Device;

/// A device with its threads: the calling one and helpers. Two shapes of parallelism, both giving the same bytes for any
/// number of threads: all share the work inside an operation, or each takes pictures through the whole network.
pub struct Compute {
    device: Device,
    path: Path,
    team: Team,
}

impl Compute {
    /// `threads` 0 means one per core; `on_start` runs first on each but the calling one.
    ///
    /// # Errors
    /// If the system does not give the threads.
    pub fn new(device: Device, threads: usize, on_start: fn()) -> Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let team = Team::new(threads, on_start)
            .map_err(|e| Error::new(format!("cannot start {threads} threads"), e.to_string(), "use --threads 1"))?;
        Ok(Self { path: super::path_for(&device), device, team })
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
        self.team.threads()
    }

    /// Runs `f`, which computes on the CPU, where it may use all threads.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        self.team.lead(f)
    }

    /// Runs `f`, which computes on the device, where kernels may use all threads.
    pub fn run_here<R>(&self, f: impl FnOnce() -> R) -> R {
        if self.device.is_cpu() { self.run(f) } else { f() }
    }

    /// ε̂(x_t, t) of `network` with all threads, the same bytes for any number of them. With a picture for each, every
    /// thread takes its share through the whole network; else they share each operation.
    ///
    /// # Errors
    /// Those of [`Denoiser::predict`].
    pub fn predict(&self, network: &(impl Denoiser + Sync), x_t: &Images, t: &[f32]) -> Result<Images> {
        let shares = self.threads();
        if shares == 1 || x_t.n < shares || t.len() != x_t.n || !self.device.is_cpu() {
            return self.run_here(|| network.predict(x_t, t));
        }
        let parts = self.map(shares, |i| {
            let pictures = i * x_t.n / shares..(i + 1) * x_t.n / shares;
            let values = pictures.start * x_t.len_one()..pictures.end * x_t.len_one();
            network.predict(&Images::new(pictures.len(), x_t.shape(), x_t.data[values].to_vec()), &t[pictures])
        });
        let mut eps = Vec::with_capacity(x_t.data.len());
        for part in parts {
            eps.extend(part?.data);
        }
        Ok(Images::new(x_t.n, x_t.shape(), eps))
    }

    /// `f(0), …, f(n - 1)`, each on one thread from start to end.
    pub fn map<R: Send + Sync>(&self, n: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
        self.team.map(n, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::noise::{Purpose, normal};
    use crate::diffusion::process::noise_images;
    use crate::model::{Config, Params, UNet};

    #[test]
    fn a_prediction_is_the_same_for_any_number_of_threads_and_companions() {
        let model = Config::preset("digits16").unwrap();
        // fresh weights predict nothing: the last layer starts at zero
        let values: Vec<f32> = normal(9, Purpose::Init, [0, 0], Params::init(&model, 0, &Device::Cpu).unwrap().count());
        let params = Params::from_flat(&model, &values.iter().map(|v| v * 0.1).collect::<Vec<_>>(), &Device::Cpu);
        let network = UNet::new(&model, &params.unwrap(), Path::Fast).unwrap();
        let x = noise_images(4, Purpose::Start, 0, 0, 7, network.shape());
        let t: Vec<f32> = (0..7).map(|i| 100.0 * i as f32).collect();
        let one = Compute::new(Device::Cpu, 1, || ()).unwrap();
        let len = x.len_one();
        let alone = (0..7).flat_map(|i| {
            let picture = Images::new(1, x.shape(), x.data[i * len..(i + 1) * len].to_vec());
            one.predict(&network, &picture, &t[i..=i]).unwrap().data
        });
        let alone: Vec<f32> = alone.collect();
        assert!(alone.iter().any(|v| v.abs() > 1e-3));
        for threads in [1, 2, 3, 8] {
            let compute = Compute::new(Device::Cpu, threads, || ()).unwrap();
            assert_eq!(compute.predict(&network, &x, &t).unwrap().data, alone, "{threads} threads");
        }
    }
}
