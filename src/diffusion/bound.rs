//! The variational bound of Ho et al. 2020, Eq. 5, term by term, from the error of the predicted noise.

use super::schedule::Schedule;
use std::f64::consts::{LN_2, PI};

/// Weight of ‖ε - ε_θ‖² in L_{t-1} (Eq. 12), in nats: β² / 2σ²α(1-ᾱ), with σ² = `variance`.
pub fn eps_weight(schedule: &Schedule, t: usize, variance: f64) -> f64 {
    let beta = schedule.betas[t];
    beta * beta / (2.0 * variance * (1.0 - beta) * (1.0 - schedule.alphas_cumprod[t]))
}

/// The term of the bound that step `t` adds, in bits per dimension, of a picture `x_start` whose noise was predicted with
/// `error` = ε_θ - ε, value by value. For t > 0 it is L_{t-1} of Eq. 12, for t = 0 the likelihood of the pixels (Eq. 13).
/// σ² is the variance of q(x_{t-1}|x_t, x_0), and for t = 0 that of t = 1, as in the official code.
pub fn bits_per_dim(schedule: &Schedule, t: usize, x_start: &[f32], error: &[f32]) -> f64 {
    let variance = schedule.posterior_log_variance_clipped[t].exp();
    let count = error.len() as f64;
    if t > 0 {
        let squares: f64 = error.iter().map(|e| f64::from(*e).powi(2)).sum();
        return eps_weight(schedule, t, variance) * squares / count / LN_2;
    }
    // at t = 0 the posterior mean is x̂_0
    let from_error = (1.0 / schedule.alphas_cumprod[0] - 1.0).sqrt();
    let nats: f64 = x_start
        .iter()
        .zip(error)
        .map(|(x, e)| -log_pixel(f64::from(*x), f64::from(*e) * from_error, variance.sqrt()))
        .sum();
    nats / count / LN_2
}

/// ln of the share of N(x - `miss`, σ²) that falls into the bin of the pixel value `x`, 1/127.5 wide and open at both ends
/// of the range (Eq. 13).
fn log_pixel(x: f64, miss: f64, sigma: f64) -> f64 {
    let cdf = |edge: f64| normal_cdf((miss + edge) / sigma);
    let (above, below) = (cdf(1.0 / 255.0), cdf(-1.0 / 255.0));
    let share = if x < -0.999 {
        above
    } else if x > 0.999 {
        1.0 - below
    } else {
        above - below
    };
    share.max(1e-12).ln()
}

/// Φ in the approximation of the official code (Page 1977), within 2e-4.
fn normal_cdf(x: f64) -> f64 {
    0.5 * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

#[cfg(test)]
mod tests {
    use super::super::schedule::ScheduleConfig;
    use super::*;

    fn schedule() -> Schedule {
        Schedule::new(&ScheduleConfig::default()).unwrap()
    }

    #[test]
    fn the_weights_are_those_of_the_paper() {
        // with σ² = β, where L_simple leaves out weights of 0.5 to 0.005 (section 3.4)
        let s = schedule();
        for (doses, weight) in [(1, 0.5), (100, 0.0101), (250, 0.0054), (500, 0.0055), (1000, 0.0102)] {
            let ours = eps_weight(&s, doses - 1, s.betas[doses - 1]);
            assert!((ours / weight - 1.0).abs() < 0.02, "{doses}: {ours}");
        }
    }

    #[test]
    fn a_term_is_the_divergence_of_the_two_normals() {
        // KL(q(x_{t-1}|x_t,x_0) || p(x_{t-1}|x_t)) = ‖μ̃ - μ_θ‖² / 2σ², with μ̃ of Eq. 7 from x_0 and from x̂_0
        let s = schedule();
        let error = [0.3_f32, -0.2, 0.05];
        for t in [1, 20, 500, 999] {
            let ac = s.alphas_cumprod[t];
            let miss = (1.0 / ac - 1.0).sqrt() * s.posterior_mean_coef1[t];
            let squares: f64 = error.iter().map(|e| (f64::from(*e) * miss).powi(2)).sum();
            let bits = squares / (2.0 * s.posterior_variance[t]) / 3.0 / LN_2;
            let ours = bits_per_dim(&s, t, &[0.0; 3], &error);
            assert!((ours / bits - 1.0).abs() < 1e-9, "{t}: {ours} {bits}");
        }
    }

    #[test]
    fn pixels_of_all_values_share_one_probability() {
        // whatever is predicted, the 256 bins cover the line once
        let sigma = schedule().posterior_log_variance_clipped[0].exp().sqrt();
        for mean in [-1.0, -0.3, 0.0, 0.999] {
            let total: f64 =
                (0..256).map(|v| f64::from(v) / 127.5 - 1.0).map(|x| log_pixel(x, x - mean, sigma).exp()).sum();
            assert!((total - 1.0).abs() < 1e-6, "{mean}: {total}");
        }
        // an exact prediction costs little, and no error costs less
        let s = schedule();
        let exact = bits_per_dim(&s, 0, &[0.0; 4], &[0.0; 4]);
        assert!((0.0..2.0).contains(&exact), "{exact}");
        assert!(bits_per_dim(&s, 0, &[0.0; 4], &[0.5; 4]) > exact);
    }
}
