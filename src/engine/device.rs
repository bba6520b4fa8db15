//! Which device computes; the only place that names them.

use crate::error::{Error, Result};
use crate::model::compute::Compute;
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA or Metal where this build and machine have it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("there is no device \"{s}\": use auto, cpu, cuda, cuda:N or metal")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// Of threads that compute, read or save: 19 is the least that Linux has.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 15;

/// Opens the device with its threads, and says in words what computes. `background` lets every other program, and our
/// own window, go first.
///
/// # Errors
/// One sentence if the device is not there.
pub fn open(choice: DeviceChoice, threads: usize, background: bool) -> Result<(Compute, String)> {
    let missing = |name: &str, feature: &str, e: candle_core::Error| {
        let why = e.to_string().lines().next().unwrap_or_default().to_owned();
        let hint = if cfg!(feature = "cuda") || cfg!(feature = "metal") {
            "use --device cpu".to_owned()
        } else {
            format!("build with --features {feature}, or use --device cpu")
        };
        Error::new(format!("cannot use the device {name}"), why, hint)
    };
    let (device, mut words) = match choice {
        DeviceChoice::Cuda(n) => {
            (Device::new_cuda(n).map_err(|e| missing(&format!("cuda:{n}"), "cuda", e))?, format!("CUDA {n}"))
        }
        DeviceChoice::Metal => (Device::new_metal(0).map_err(|e| missing("metal", "metal", e))?, "Metal".to_owned()),
        DeviceChoice::Cpu => (Device::Cpu, "CPU".to_owned()),
        DeviceChoice::Auto => Device::new_cuda(0)
            .map(|d| (d, "CUDA 0".to_owned()))
            .or_else(|_| Device::new_metal(0).map(|d| (d, "Metal".to_owned())))
            .unwrap_or((Device::Cpu, "CPU".to_owned())),
    };
    let on_start = if background { lower_priority } else { || () };
    let compute = Compute::new(device, threads, on_start)?;
    if compute.device().is_cpu() {
        let n = compute.threads();
        words = format!("{words}, {n} thread{}", if n == 1 { "" } else { "s" });
    }
    let readers = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("ddpm-read-{i}"));
    // fails where an earlier engine of this process has begun them
    drop(readers.start_handler(move |_| on_start()).build_global());
    log::info!("computing on {words}");
    Ok((compute, words))
}

/// Lets the calling thread run only when the window has nothing to do. On Linux niceness is a property of the thread.
pub fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // who started the program may have chosen a lower one
        if getpriority_process(None).unwrap_or(0) < NICENESS
            && let Err(e) = setpriority_process(None, NICENESS)
        {
            log::warn!("the worker runs at normal priority: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_read_and_written_alike() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3", "metal"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_there_gives_one_sentence() {
        for choice in [DeviceChoice::Cuda(0), DeviceChoice::Metal] {
            let message = open(choice, 1, false).err().unwrap().to_string();
            assert!(message.contains("--device cpu") && !message.contains('\n'), "{message}");
        }
    }
}
