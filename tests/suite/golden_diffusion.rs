//! Schedules and sampler trajectories against diffusers (tests/golden, made by make_reference.py).

use candle_core::{DType, Device, Tensor};
use ddpm_film::diffusion::Images;
use ddpm_film::diffusion::sampler::{Sampler, SamplerKind, Variance};
use ddpm_film::diffusion::schedule::{BetaSchedule, Schedule, ScheduleConfig, Spacing};
use std::collections::HashMap;

fn load(file: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn schedules_agree_with_diffusers() {
    let golden = load("schedules.safetensors");
    for kind in BetaSchedule::ALL {
        let ours = Schedule::new(&ScheduleConfig { kind, ..Default::default() }).unwrap();
        for (table, ours) in [("betas", &ours.betas), ("alphas_cumprod", &ours.alphas_cumprod)] {
            let theirs = values(&golden[&format!("{}.{table}", kind.name())]);
            assert_eq!(theirs.len(), ours.len());
            for (t, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                assert!((a - b).abs() <= 1e-6, "{} {table}[{t}]: {a} against {b}", kind.name());
            }
        }
    }
}

#[test]
fn sampler_trajectories_agree_with_diffusers() {
    let golden = load("samplers.safetensors");
    let full = Schedule::new(&ScheduleConfig::default()).unwrap();
    let mu = values(&golden["mu"]);
    let sd = values(&golden["sd"])[0];
    let small = SamplerKind::Ddpm { variance: Variance::FixedSmall };
    let large = SamplerKind::Ddpm { variance: Variance::FixedLarge };
    let ddim = |eta| SamplerKind::Ddim { eta };
    let cases = [
        ("ddpm_small_8", small, 8, Spacing::Leading, true),
        ("ddpm_large_8", large, 8, Spacing::Leading, true),
        ("ddpm_small_noclip_8", small, 8, Spacing::Leading, false),
        ("ddim_0_10", ddim(0.0), 10, Spacing::Leading, true),
        ("ddim_1_10", ddim(1.0), 10, Spacing::Leading, true),
        ("ddim_0_10_trailing", ddim(0.0), 10, Spacing::Trailing, false),
    ];
    for (key, kind, steps, spacing, clip) in cases {
        let get = |what: &str| &golden[&format!("{key}.{what}")];
        let images = |t: &Tensor| {
            let data = t.flatten_all().unwrap().to_vec1().unwrap();
            Images::new(2, [1, 8, 8], data)
        };
        let row = |what: &str, i: usize| images(&get(what).get(i).unwrap());
        let mut sampler =
            Sampler::new(full.spaced(steps, spacing).unwrap(), kind, clip, images(&golden["x_T"])).unwrap();
        let mut drawn = 0;
        for (i, t) in values(get("timesteps")).into_iter().enumerate() {
            assert_eq!(sampler.wants(), Some(t as usize), "{key} step {i}");
            // the exact noise predictor for pixels x_0 ~ N(mu, sd²)
            let ac = full.alphas_cumprod[t as usize];
            let eps = sampler.x().data.iter().zip(&mu).map(|(&x, mu)| {
                ((f64::from(x) - ac.sqrt() * mu) * (1.0 - ac).sqrt() / (ac * sd * sd + 1.0 - ac)) as f32
            });
            let eps = Images::new(2, [1, 8, 8], eps.collect());
            let xstart = sampler.advance(&eps, |_| {
                drawn += 1;
                row("noise", drawn - 1)
            });
            for (what, ours, theirs) in [("x", sampler.x(), row("xs", i + 1)), ("x0", &xstart.unwrap(), row("x0s", i))]
            {
                for (a, b) in ours.data.iter().zip(&theirs.data) {
                    assert!((a - b).abs() <= 1e-4, "{key} step {i} {what}: {a} against {b}");
                }
            }
        }
        assert_eq!(sampler.wants(), None);
    }
}
