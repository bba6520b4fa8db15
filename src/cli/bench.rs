//! `ddpm-film bench`: training and forward speed, in the keys of the PyTorch baseline.

use super::Machine;
use crate::diffusion::noise::{Purpose, stream};
use crate::diffusion::process::noise_images;
use crate::engine::{self, Result, RunConfig};
use crate::model::compute::Compute;
use crate::model::{Denoiser as _, Params, UNet};
use crate::train::trainer::Trainer;
use clap::Args;
use std::sync::Arc;
use std::time::Instant;

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// Network preset
    #[arg(long, default_value = "mnist28")]
    config: String,
    /// Images per training step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Measured repetitions after two unmeasured ones; the median counts
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BenchArgs, machine: &Machine) -> Result<()> {
    let config = RunConfig { preset: args.config.clone(), batch: args.batch, ..RunConfig::default() };
    let plan = config.validate()?;
    let (compute, _) = engine::open_device(machine.device, usize::from(machine.threads), false)?;
    let compute = Arc::new(compute);
    let shape = plan.model.image_shape();
    let params = Params::init(&plan.model, 0, compute.device())?;
    let count = params.count();
    let report = |what: &str, batch: usize, seconds: f64| {
        let (ms, speed) = (seconds * 1e3, batch as f64 / seconds);
        if args.json {
            let line = serde_json::json!({
                "what": what, "config": args.config, "params": count, "batch": batch, "ms": round(ms),
                "images_per_s": round(speed), "threads": compute.threads(),
            });
            println!("{line}");
        } else {
            println!("{what:<8} {:<10} batch {batch:<4} {ms:>10.2} ms {speed:>10.1} images/s", args.config);
        }
    };
    let mut trainer = Trainer::from_params(plan.clone(), Arc::clone(&compute), params.clone())?;
    let mut x_start = noise_images(1, Purpose::Pick, 0, 0, args.batch, shape);
    x_start.data.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
    let noise = noise_images(1, Purpose::TrainNoise, 0, 0, args.batch, shape);
    let mut times = stream(1, Purpose::TrainTime, [0, 0]);
    let t: Vec<usize> = (0..args.batch).map(|_| times.below(plan.schedule.steps)).collect();
    let seconds = median(usize::from(args.steps), || trainer.step_on(&x_start, &t, &noise).map(|_| ()))?;
    report("train", args.batch, seconds);
    for batch in [1, 16] {
        let seconds = forward(&compute, &plan.model, &params, batch, usize::from(args.steps).max(3))?;
        report("sample", batch, seconds);
    }
    Ok(())
}

fn forward(compute: &Compute, model: &crate::model::Config, params: &Params, n: usize, times: usize) -> Result<f64> {
    let network = UNet::new(model, params, compute.path())?;
    let x = noise_images(2, Purpose::Start, 0, 0, n, model.image_shape());
    let t = vec![500.0; n];
    median(times, || compute.run(|| network.predict(&x, &t)).map(|_| ()))
}

fn median(times: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..times + 2 {
        let start = Instant::now();
        f()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut kept = seconds.split_off(2);
    kept.sort_by(f64::total_cmp);
    let mid = kept.len() / 2;
    Ok(if kept.len().is_multiple_of(2) { (kept[mid - 1] + kept[mid]) / 2.0 } else { kept[mid] })
}

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}
