//! Whole films: all T steps of the reverse process, network calls and sampler steps.

use super::report::{Report, median, round, smallest};
use crate::diffusion::noise::Purpose;
use crate::diffusion::process::noise_images;
use crate::diffusion::sampler::{Sampler, SamplerKind, Variance};
use crate::diffusion::schedule::Schedule;
use crate::engine::Result;
use crate::model::compute::Compute;
use crate::model::{Config, Params, UNet};
use serde_json::json;
use std::time::Instant;

/// Films of 1 and of 16 pictures, `rounds` times each.
pub(super) fn run(
    model: &Config,
    schedule: &Schedule,
    compute: &Compute,
    rounds: u16,
    report: &Report<'_>,
) -> Result<()> {
    let params = Params::init(model, 0, compute.device())?;
    let network = UNet::new(model, &params, compute.path())?;
    for n in [1, 16] {
        let seconds = (0..rounds).map(|_| seconds(&network, schedule, compute, n)).collect::<Result<Vec<_>>>()?;
        let (typical, best) = (median(&seconds), smallest(&seconds));
        let steps = schedule.steps();
        let values = json!({ "batch": n, "steps": steps, "s": round(typical, 3), "best_s": round(best, 3) });
        let text = format!("batch {n:<4} {typical:>10.2} s  (best {best:.2}) for {steps} steps");
        report.line("film", values, &text);
    }
    Ok(())
}

fn seconds(network: &UNet, schedule: &Schedule, compute: &Compute, n: usize) -> Result<f64> {
    let start = Instant::now();
    let x = noise_images(1, Purpose::Start, 0, 0, n, network.shape());
    let mut sampler = Sampler::new(schedule.clone(), SamplerKind::Ddpm { variance: Variance::FixedSmall }, true, x)?;
    while let Some(t) = sampler.wants() {
        let eps = compute.predict(network, sampler.x(), &vec![t as f32; n])?;
        let z = |t: usize| noise_images(1, Purpose::Step, 0, t as u64, n, network.shape());
        sampler.advance(&eps, z);
    }
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::schedule::ScheduleConfig;
    use candle_core::Device;

    #[test]
    fn a_longer_film_takes_longer() {
        let compute = Compute::new(Device::Cpu, 1, || ()).unwrap();
        let model = Config::preset("digits16").unwrap();
        let params = Params::init(&model, 0, compute.device()).unwrap();
        let network = UNet::new(&model, &params, compute.path()).unwrap();
        let film = |steps| {
            let schedule = Schedule::new(&ScheduleConfig { steps, ..Default::default() }).unwrap();
            seconds(&network, &schedule, &compute, 1).unwrap()
        };
        assert!(film(40) > film(2) && film(2) > 0.0);
    }
}
