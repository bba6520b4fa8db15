//! The forward process, its posterior, and conversions between x_0 and ε.

use super::Images;
use super::noise::{self, Purpose};
use super::schedule::Schedule;

/// a·x + b·y, value by value.
pub fn weighted_sum(a: f64, x: &[f32], b: f64, y: &[f32]) -> Vec<f32> {
    let (a, b) = (a as f32, b as f32);
    x.iter().zip(y).map(|(x, y)| a * x + b * y).collect()
}

/// Closed form q(x_t|x_0) = √ᾱ_t x_0 + √(1-ᾱ_t) ε (Eq. 4); `t` per picture.
pub fn q_sample(schedule: &Schedule, x_start: &Images, t: &[usize], noise: &Images) -> Images {
    let mut x_t = x_start.clone();
    for (i, &t) in t.iter().enumerate() {
        let ac = schedule.alphas_cumprod[t];
        let x = weighted_sum(ac.sqrt(), x_start.one(i), (1.0 - ac).sqrt(), noise.one(i));
        x_t.one_mut(i).copy_from_slice(&x);
    }
    x_t
}

/// One dose, q(x_t|x_{t-1}) = √(1-β_t) x_{t-1} + √β_t z (Eq. 2).
pub fn q_step(schedule: &Schedule, x_prev: &Images, t: usize, z: &Images) -> Images {
    let beta = schedule.betas[t];
    Images { data: weighted_sum((1.0 - beta).sqrt(), &x_prev.data, beta.sqrt(), &z.data), ..*x_prev }
}

/// x̂_0 = (x_t - √(1-ᾱ_t) ε) / √ᾱ_t (Eq. 15).
pub fn predict_xstart_from_eps(schedule: &Schedule, x_t: &Images, t: usize, eps: &Images) -> Images {
    let ac = schedule.alphas_cumprod[t];
    Images { data: weighted_sum((1.0 / ac).sqrt(), &x_t.data, -(1.0 / ac - 1.0).sqrt(), &eps.data), ..*x_t }
}

/// ε = (x_t - √ᾱ_t x_0) / √(1-ᾱ_t), the inverse of [`predict_xstart_from_eps`].
pub fn predict_eps_from_xstart(schedule: &Schedule, x_t: &Images, t: usize, x_start: &Images) -> Images {
    let ac = schedule.alphas_cumprod[t];
    let s = (1.0 - ac).sqrt();
    Images { data: weighted_sum(1.0 / s, &x_t.data, -ac.sqrt() / s, &x_start.data), ..*x_t }
}

/// L_T of Eq. 5, KL(q(x_T|x_0) || N(0, I)), in bits per dimension: √ᾱ_T of the data is left at T, and E[x_0²] is
/// `mean_square`.
pub fn prior_bits_per_dim(alpha_bar: f64, mean_square: f64) -> f64 {
    // ln(1 - ᾱ) loses all digits of a small ᾱ
    (alpha_bar * (mean_square - 1.0) - (-alpha_bar).ln_1p()) / 2.0 / std::f64::consts::LN_2
}

/// Standard normal pictures at the addresses `(seed, purpose, [first + i, step])`.
pub fn noise_images(seed: u64, purpose: Purpose, first: u64, step: u64, n: usize, shape: [usize; 3]) -> Images {
    let mut images = Images::zeros(n, shape);
    for i in 0..n {
        noise::stream(seed, purpose, [first + i as u64, step]).fill_normal(images.one_mut(i));
    }
    images
}

#[cfg(test)]
mod tests {
    use super::super::schedule::ScheduleConfig;
    use super::*;

    const SHAPE: [usize; 3] = [1, 4, 4];

    fn close(a: &Images, b: &Images, tolerance: f32) {
        for (a, b) in a.data.iter().zip(&b.data) {
            assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} against {b}");
        }
    }

    fn setting() -> (Schedule, Images, Images) {
        let schedule = Schedule::new(&ScheduleConfig::default()).unwrap();
        (schedule, noise_images(1, Purpose::Pick, 0, 0, 3, SHAPE), noise_images(2, Purpose::Forward, 0, 0, 3, SHAPE))
    }

    #[test]
    fn eps_and_xstart_convert_into_each_other() {
        let (s, x0, eps) = setting();
        for t in [0, 10, 500, 900] {
            let x_t = q_sample(&s, &x0, &[t; 3], &eps);
            // dividing by √ᾱ or √(1-ᾱ) enlarges f32 rounding
            close(&predict_xstart_from_eps(&s, &x_t, t, &eps), &x0, 3e-5);
            close(&predict_eps_from_xstart(&s, &x_t, t, &x0), &eps, 3e-4);
        }
    }

    #[test]
    fn the_prior_gap_is_that_of_the_paper_and_large_for_short_schedules() {
        let gap = |steps: usize, mean_square: f64| {
            let s = Schedule::new(&ScheduleConfig { steps, ..Default::default() }).unwrap();
            prior_bits_per_dim(s.alpha_bar(steps), mean_square)
        };
        // Ho et al. 2020, section 4: about 1e-5 bits per dimension
        assert!((gap(1000, 0.25) - 0.73e-5).abs() < 2e-7 && (gap(1000, 1.0) - 2.91e-5).abs() < 2e-7);
        assert!((0.02..0.04).contains(&gap(200, 0.25)) && (0.3..0.36).contains(&gap(50, 0.25)));
        // KL of two normal distributions of one pixel, integrated numerically
        let (ac, x0) = (0.3_f64, 0.8);
        let (mean, sd) = (ac.sqrt() * x0, (1.0 - ac).sqrt());
        let density =
            |x: f64, m: f64, s: f64| (-(x - m) * (x - m) / (2.0 * s * s)).exp() / (s * std::f64::consts::TAU.sqrt());
        let steps = (0..200_000).map(|i| -10.0 + f64::from(i) * 1e-4);
        let kl: f64 = steps
            .map(|x| {
                let q = density(x, mean, sd);
                q * (q / density(x, 0.0, 1.0)).ln() * 1e-4
            })
            .sum();
        assert!((prior_bits_per_dim(ac, x0 * x0) - kl / std::f64::consts::LN_2).abs() < 1e-6);
    }

    #[test]
    fn posterior_is_bayes_rule() {
        // q(x_{t-1}|x_t,x_0) ∝ N(x_t; √α x_{t-1}, β) N(x_{t-1}; √ᾱ' x_0, 1-ᾱ'): precisions add.
        let (s, ..) = setting();
        for t in [1, 7, 400, 999] {
            let (beta, prev) = (s.betas[t], s.alphas_cumprod_prev[t]);
            let precision = (1.0 - beta) / beta + 1.0 / (1.0 - prev);
            let (from_x_t, from_x_0) = ((1.0 - beta).sqrt() / beta / precision, prev.sqrt() / (1.0 - prev) / precision);
            assert!((1.0 / precision / s.posterior_variance[t] - 1.0).abs() < 1e-9);
            assert!((from_x_0 - s.posterior_mean_coef1[t]).abs() < 1e-9);
            assert!((from_x_t - s.posterior_mean_coef2[t]).abs() < 1e-9);
        }
    }

    #[test]
    fn the_chain_has_the_moments_of_the_closed_form() {
        let s = Schedule::new(&ScheduleConfig { steps: 40, beta_end: 0.2, ..Default::default() }).unwrap();
        let n = 4000;
        let x0 = Images::new(n, [1, 1, 2], [0.8, -0.4].repeat(n));
        let mut x = x0.clone();
        for t in 0..25 {
            x = q_step(&s, &x, t, &noise_images(3, Purpose::Chain, 0, t as u64, n, [1, 1, 2]));
        }
        let ac = s.alphas_cumprod[24];
        for (channel, start) in [(0, 0.8), (1, -0.4)] {
            let values: Vec<f64> = (0..n).map(|i| f64::from(x.one(i)[channel])).collect();
            let mean = values.iter().sum::<f64>() / n as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            assert!((mean - ac.sqrt() * start).abs() < 0.05, "mean {mean}");
            assert!((variance / (1.0 - ac) - 1.0).abs() < 0.08, "variance {variance}");
        }
    }
}
