//! Noise schedules: β_t and every coefficient derived from it, in f64.

use super::Error;

/// How β_t rises from `beta_start` to `beta_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaSchedule {
    /// β_t linear in t (Ho et al. 2020, section 4).
    Linear,
    /// √β_t linear in t (latent diffusion).
    ScaledLinear,
    /// ᾱ_t ∝ cos² (Nichol & Dhariwal 2021, Eq. 17); the endpoints are not used.
    Cosine,
    /// β_t along a sigmoid over [-6, 6].
    Sigmoid,
}

impl BetaSchedule {
    /// All schedules.
    pub const ALL: [Self; 4] = [Self::Linear, Self::ScaledLinear, Self::Cosine, Self::Sigmoid];

    /// The name that diffusers gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::ScaledLinear => "scaled_linear",
            Self::Cosine => "squaredcos_cap_v2",
            Self::Sigmoid => "sigmoid",
        }
    }

    /// The schedule of that diffusers name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// What a schedule is made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// Shape of β_t.
    pub kind: BetaSchedule,
    /// T, the number of doses.
    pub steps: usize,
    /// β of the first dose.
    pub beta_start: f64,
    /// β of the last dose.
    pub beta_end: f64,
}

impl Default for ScheduleConfig {
    /// Ho et al. 2020, section 4: linear, T = 1000, 1e-4 to 0.02.
    fn default() -> Self {
        Self { kind: BetaSchedule::Linear, steps: 1000, beta_start: 1e-4, beta_end: 0.02 }
    }
}

/// Which steps of the full schedule a shorter one keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// 0, r, 2r, … with r = T / k rounded down: what DDPM and DDIM use in diffusers.
    Leading,
    /// Counted back from T - 1 in steps of T / k, so that sampling starts from the noisiest step.
    Trailing,
}

/// All tables of a schedule, index t = 0..T-1; f64 until they touch an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// β_t.
    pub betas: Vec<f64>,
    /// ᾱ_t = Π (1 - β).
    pub alphas_cumprod: Vec<f64>,
    /// ᾱ_{t-1}, with 1 before the first dose.
    pub alphas_cumprod_prev: Vec<f64>,
    /// β̃_t, variance of q(x_{t-1}|x_t, x_0) (Eq. 7).
    pub posterior_variance: Vec<f64>,
    /// ln β̃_t with the first value, ln 0, replaced by the second.
    pub posterior_log_variance_clipped: Vec<f64>,
    /// Weight of x_0 in the posterior mean (Eq. 7).
    pub posterior_mean_coef1: Vec<f64>,
    /// Weight of x_t in the posterior mean (Eq. 7).
    pub posterior_mean_coef2: Vec<f64>,
    /// The timestep of the full schedule that each step stands for: what the network is told.
    pub timesteps: Vec<usize>,
    /// T of the full schedule.
    pub full_steps: usize,
}

impl Schedule {
    /// Builds and checks all tables.
    ///
    /// # Errors
    /// If T is not in 1..=100000, a β is not in (0, 1), or ᾱ does not fall strictly.
    pub fn new(config: &ScheduleConfig) -> Result<Self, Error> {
        let &ScheduleConfig { kind, steps, beta_start, beta_end } = config;
        if !(1..=100_000).contains(&steps) {
            return Err(Error(format!("a schedule has 1 to 100000 steps, not {steps}")));
        }
        let linspace = |a: f64, b: f64, i: usize| a + (b - a) * i as f64 / (steps.max(2) - 1) as f64;
        let alpha_bar = |s: f64| ((s + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        let beta = |i: usize| match kind {
            BetaSchedule::Linear => linspace(beta_start, beta_end, i),
            BetaSchedule::ScaledLinear => linspace(beta_start.sqrt(), beta_end.sqrt(), i).powi(2),
            BetaSchedule::Cosine => {
                let n = steps as f64;
                (1.0 - alpha_bar((i + 1) as f64 / n) / alpha_bar(i as f64 / n)).min(0.999)
            }
            BetaSchedule::Sigmoid => {
                let s = 1.0 / (1.0 + (-linspace(-6.0, 6.0, i)).exp());
                s * (beta_end - beta_start) + beta_start
            }
        };
        Self::from_betas((0..steps).map(beta).collect(), (0..steps).collect(), steps)
    }

    fn from_betas(betas: Vec<f64>, timesteps: Vec<usize>, full_steps: usize) -> Result<Self, Error> {
        if let Some((t, b)) = betas.iter().enumerate().find(|(_, b)| !(**b > 0.0 && **b < 1.0)) {
            return Err(Error(format!("every beta must lie between 0 and 1, but beta of step {t} is {b}")));
        }
        let mut product = 1.0;
        let alphas_cumprod: Vec<f64> = betas
            .iter()
            .map(|b| {
                product *= 1.0 - b;
                product
            })
            .collect();
        let alphas_cumprod_prev: Vec<f64> =
            std::iter::once(1.0).chain(alphas_cumprod.iter().copied()).take(betas.len()).collect();
        if alphas_cumprod.iter().zip(&alphas_cumprod_prev).any(|(a, prev)| a >= prev || *a <= 0.0) {
            return Err(Error(
                "alphas_cumprod must fall strictly and stay above 0; use fewer steps or other betas".into(),
            ));
        }
        let table = |f: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
            (0..betas.len()).map(|t| f(betas[t], alphas_cumprod[t], alphas_cumprod_prev[t])).collect()
        };
        let posterior_variance = table(&|beta, ac, prev| beta * (1.0 - prev) / (1.0 - ac));
        let first = posterior_variance.get(1).copied().unwrap_or(betas[0]);
        Ok(Self {
            posterior_log_variance_clipped: std::iter::once(first)
                .chain(posterior_variance[1..].iter().copied())
                .map(f64::ln)
                .collect(),
            posterior_mean_coef1: table(&|beta, ac, prev| beta * prev.sqrt() / (1.0 - ac)),
            posterior_mean_coef2: table(&|beta, ac, prev| (1.0 - prev) * (1.0 - beta).sqrt() / (1.0 - ac)),
            posterior_variance,
            betas,
            alphas_cumprod,
            alphas_cumprod_prev,
            timesteps,
            full_steps,
        })
    }

    /// T, the number of steps.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// A schedule of `k` of these steps whose ᾱ agrees at the kept ones; everything after is unaware of spacing.
    ///
    /// # Errors
    /// If `k` is not in 1..=T.
    pub fn spaced(&self, k: usize, spacing: Spacing) -> Result<Self, Error> {
        let steps = self.steps();
        if !(1..=steps).contains(&k) {
            return Err(Error(format!("sampling takes 1 to {steps} steps, not {k}")));
        }
        let kept: Vec<usize> = match spacing {
            Spacing::Leading => (0..k).map(|i| i * (steps / k)).collect(),
            Spacing::Trailing => {
                let ratio = steps as f64 / k as f64;
                (1..=k).map(|i| (steps as f64 - (k - i) as f64 * ratio).round_ties_even() as usize - 1).collect()
            }
        };
        let mut prev = 1.0;
        let betas = kept
            .iter()
            .map(|&t| {
                let beta = 1.0 - self.alphas_cumprod[t] / prev;
                prev = self.alphas_cumprod[t];
                beta
            })
            .collect();
        Self::from_betas(betas, kept.iter().map(|&t| self.timesteps[t]).collect(), self.full_steps)
    }

    /// ᾱ after `doses` doses of noise: 1 for the data itself.
    pub fn alpha_bar(&self, doses: usize) -> f64 {
        doses.checked_sub(1).map_or(1.0, |t| self.alphas_cumprod[t.min(self.steps() - 1)])
    }

    /// Signal-to-noise ratio ᾱ / (1 - ᾱ) after `doses` doses, infinite for the data itself.
    pub fn snr(&self, doses: usize) -> f64 {
        let a = self.alpha_bar(doses);
        a / (1.0 - a)
    }

    /// How many doses the step `i` of this (maybe spaced) schedule starts from, on the full schedule's count.
    pub fn doses(&self, i: usize) -> usize {
        self.timesteps[i] + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacing_keeps_alphas_cumprod_and_covers_the_ends() {
        let full = Schedule::new(&ScheduleConfig::default()).unwrap();
        for k in [1, 3, 7, 50, 999, 1000] {
            for spacing in [Spacing::Leading, Spacing::Trailing] {
                let s = full.spaced(k, spacing).unwrap();
                assert_eq!(s.steps(), k);
                for i in 0..k {
                    assert!((s.alphas_cumprod[i] - full.alphas_cumprod[s.timesteps[i]]).abs() < 1e-12);
                }
                match spacing {
                    Spacing::Leading => assert_eq!(s.timesteps[0], 0),
                    Spacing::Trailing => assert_eq!(s.timesteps[k - 1], 999),
                }
            }
        }
    }

    #[test]
    fn nonsense_settings_are_refused_in_words() {
        let with = |kind, steps, beta_start, beta_end| {
            Schedule::new(&ScheduleConfig { kind, steps, beta_start, beta_end }).map_err(|e| e.to_string())
        };
        for (steps, a, b) in
            [(0, 1e-4, 0.02), (1000, 0.0, 0.02), (1000, 1e-4, 1.0), (10, f64::NAN, 0.02), (10, 0.1, -0.1)]
        {
            assert!(with(BetaSchedule::Linear, steps, a, b).is_err(), "{steps} {a} {b}");
        }
        assert!(with(BetaSchedule::Linear, 100_000, 0.5, 0.9).unwrap_err().contains("alphas_cumprod"));
        let full = Schedule::new(&ScheduleConfig::default()).unwrap();
        assert!(full.spaced(0, Spacing::Leading).is_err() && full.spaced(1001, Spacing::Leading).is_err());
    }

    #[test]
    fn one_step_schedules_work() {
        let s = Schedule::new(&ScheduleConfig { steps: 1, ..Default::default() }).unwrap();
        assert_eq!((s.steps(), s.betas[0], s.posterior_variance[0]), (1, 1e-4, 0.0));
    }
}
