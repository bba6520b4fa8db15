//! Whole films: all T steps of the reverse process, network calls and sampler steps; and the memory that they are held in.

use super::memory::{peak, reset_peak};
use super::report::{Report, median, round, smallest};
use crate::diffusion::Images;
use crate::diffusion::noise::Purpose;
use crate::diffusion::process::noise_images;
use crate::diffusion::reel::{FORWARD_BYTES, ForwardReel, REVERSE_BYTES, ReverseReel};
use crate::diffusion::sampler::{Sampler, SamplerKind, Variance};
use crate::diffusion::schedule::Schedule;
use crate::engine::Result;
use crate::model::compute::Compute;
use crate::model::{Config, Params, UNet};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Pictures of the largest film that the window offers.
const MOST_PICTURES: usize = 64;
/// States that are gone back to, spread over the film.
const SCRUBBED: usize = 20;

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
        report.line("film", values, &text)?;
    }
    Ok(())
}

/// Peak memory of both films of [`MOST_PICTURES`] pictures over all T, every state addressable: while they are recorded and
/// gone through again, and with a call of the untrained network for all pictures on top. The reverse film follows a
/// stand-in, ε̂ = 0.9 x_t, since what is predicted takes the same memory whoever predicts it.
pub(super) fn memory(model: &Config, schedule: &Schedule, compute: &Compute, report: &Report<'_>) -> Result<()> {
    let (n, shape, schedule) = (MOST_PICTURES, model.image_shape(), Arc::new(schedule.clone()));
    let params = Params::init(model, 0, compute.device())?;
    let network = UNet::new(model, &params, compute.path())?;
    let Some(before) = reset_peak() else {
        return report.not_measured("memory", "only Linux counts it");
    };
    let x = noise_images(1, Purpose::Start, 0, 0, n, shape);
    let predict = |x: &Images| Images { data: x.data.iter().map(|v| 0.9 * v).collect(), ..*x };
    let (forward, mut forward_film) = ForwardReel::record(Arc::clone(&schedule), &x, 1, FORWARD_BYTES);
    let kind = SamplerKind::Ddpm { variance: Variance::FixedSmall };
    let mut sampler = Sampler::new(Schedule::clone(&schedule), kind, true, x)?;
    let (mut reel, mut film) = ReverseReel::new(&sampler, &schedule, 1, 0, REVERSE_BYTES);
    while sampler.wants().is_some() {
        let eps = predict(sampler.x());
        reel.step(&mut sampler, &eps).into_iter().for_each(|frame| film.insert(Arc::new(frame)));
    }
    for doses in (1..=SCRUBBED).map(|i| schedule.steps() * i / SCRUBBED) {
        forward.again(doses).into_iter().for_each(|frame| forward_film.insert(frame));
        let mut again = reel.again(doses);
        while let Some((again, eps)) =
            again.as_mut().and_then(|a| a.wants().map(|(x, _)| predict(x)).map(|eps| (a, eps)))
        {
            again.step(&eps).into_iter().for_each(|frame| film.insert(Arc::new(frame)));
        }
    }
    let films = peak().unwrap_or(before) - before;
    compute.predict(&network, sampler.x(), &vec![1.0; n])?;
    let all = peak().unwrap_or(before);
    let held = forward_film.len() + film.len();
    let steps = schedule.steps();
    let values = json!({ "batch": n, "steps": steps, "held_frames": held, "films_mib": round(films, 0),
        "peak_mib": round(all, 0) });
    let [c, h, w] = shape;
    let text = format!(
        "{films:>10.0} MiB for both films of {n} pictures of {c}x{h}x{w} in {steps} steps; {all:.0} in all with a network call"
    );
    report.line("memory", values, &text)
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
