//! Samplers as step machines: a sampler says what it wants evaluated, the caller asks the network, and the sampler moves
//! one step. So a film can be stopped between network calls, and tests can drive it with an exact denoiser.

use super::schedule::Schedule;
use super::{Error, Images, process};

/// σ² of a DDPM step (Ho et al. 2020, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// β̃_t, the posterior's: best if x_0 were one point.
    FixedSmall,
    /// β_t: best if x_0 ~ N(0, I).
    FixedLarge,
}

/// The rule of a reverse step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SamplerKind {
    /// Ancestral sampling (Ho et al. 2020, Algorithm 2).
    Ddpm {
        /// σ².
        variance: Variance,
    },
    /// Song et al. 2020, Eq. 12 and 16: `eta` 0 draws no noise, 1 draws as much as DDPM.
    Ddim {
        /// Share of DDPM's noise, 0 to 1.
        eta: f64,
    },
}

impl SamplerKind {
    /// The field's short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddpm { .. } => "DDPM",
            Self::Ddim { .. } => "DDIM",
        }
    }
}

/// What one reverse step did: x_{t-1} = x_t·`x_t` + x̂_0·`xstart` + ε̂·`eps` + z·`noise`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Weight of x_t.
    pub x_t: f64,
    /// Weight of the (clipped) predicted x_0.
    pub xstart: f64,
    /// Weight of the predicted noise.
    pub eps: f64,
    /// σ_t, weight of the fresh noise z.
    pub noise: f64,
}

impl SamplerKind {
    /// The weights of step `i` of a (maybe spaced) schedule.
    pub fn coefficients(self, s: &Schedule, i: usize) -> Coefficients {
        let (beta, ac, prev) = (s.betas[i], s.alphas_cumprod[i], s.alphas_cumprod_prev[i]);
        match self {
            Self::Ddpm { variance } => Coefficients {
                x_t: s.posterior_mean_coef2[i],
                xstart: s.posterior_mean_coef1[i],
                eps: 0.0,
                // the last step returns the mean (Algorithm 2, line 3)
                noise: match variance {
                    _ if i == 0 => 0.0,
                    Variance::FixedSmall => s.posterior_variance[i].sqrt(),
                    Variance::FixedLarge => beta.sqrt(),
                },
            },
            Self::Ddim { eta } => {
                let sigma = eta * ((1.0 - prev) / (1.0 - ac) * (1.0 - ac / prev)).sqrt();
                Coefficients {
                    x_t: 0.0,
                    xstart: prev.sqrt(),
                    eps: (1.0 - prev - sigma * sigma).max(0.0).sqrt(),
                    noise: sigma,
                }
            }
        }
    }
}

/// A reverse process under way.
#[derive(Clone, Debug)]
pub struct Sampler {
    schedule: Schedule,
    kind: SamplerKind,
    clip: bool,
    /// Steps still to take.
    left: usize,
    x: Images,
}

impl Sampler {
    /// Starts at the noisiest step of `schedule` from `x_T`. `clip` keeps x̂_0 within [-1, 1], as the official code does
    /// and the paper does not say.
    ///
    /// # Errors
    /// If eta is not in [0, 1].
    pub fn new(schedule: Schedule, kind: SamplerKind, clip: bool, x: Images) -> Result<Self, Error> {
        if let SamplerKind::Ddim { eta } = kind
            && !(0.0..=1.0).contains(&eta)
        {
            return Err(Error(format!("eta lies between 0 and 1, not at {eta}")));
        }
        Ok(Self { left: schedule.steps(), schedule, kind, clip, x })
    }

    /// The same process at another of its states: `left` steps before its end, in `x`.
    #[must_use]
    pub fn at(&self, left: usize, x: Images) -> Self {
        Self {
            schedule: self.schedule.clone(),
            kind: self.kind,
            clip: self.clip,
            left: left.min(self.schedule.steps()),
            x,
        }
    }

    /// The same state under another rule for the steps that are left.
    ///
    /// # Errors
    /// If eta is not in [0, 1].
    pub fn rule(&self, kind: SamplerKind, clip: bool) -> Result<Self, Error> {
        let same = Self::new(self.schedule.clone(), kind, clip, self.x.clone())?;
        Ok(Self { left: self.left, ..same })
    }

    /// Doses of noise in this state and those still to come, rising from 0.
    pub fn states(&self) -> Vec<usize> {
        std::iter::once(0).chain((0..self.left).map(|i| self.schedule.doses(i))).collect()
    }

    /// The current x_t.
    pub fn x(&self) -> &Images {
        &self.x
    }

    /// Doses of noise in the current x_t, counted on the full schedule: T at the start, 0 at the end.
    pub fn doses(&self) -> usize {
        self.left.checked_sub(1).map_or(0, |i| self.schedule.doses(i))
    }

    /// Steps still to take.
    pub fn steps_left(&self) -> usize {
        self.left
    }

    /// The timestep at which the caller shall predict the noise in [`Sampler::x`]; `None` when the film is done.
    pub fn wants(&self) -> Option<usize> {
        self.left.checked_sub(1).map(|i| self.schedule.timesteps[i])
    }

    /// The weights of the coming step.
    pub fn coefficients(&self) -> Option<Coefficients> {
        self.left.checked_sub(1).map(|i| self.kind.coefficients(&self.schedule, i))
    }

    /// Takes one step with the predicted noise; `z` is called with the timestep if the step draws noise. Returns x̂_0, or
    /// `None` when there was no step left.
    pub fn advance(&mut self, eps: &Images, z: impl FnOnce(usize) -> Images) -> Option<Images> {
        let c = self.coefficients()?;
        self.left -= 1;
        let i = self.left;
        let mut xstart = process::predict_xstart_from_eps(&self.schedule, &self.x, i, eps);
        if self.clip {
            xstart.data.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
        }
        let mut x = match self.kind {
            SamplerKind::Ddpm { .. } => process::weighted_sum(c.xstart, &xstart.data, c.x_t, &self.x.data),
            SamplerKind::Ddim { .. } => process::weighted_sum(c.xstart, &xstart.data, c.eps, &eps.data),
        };
        if c.noise > 0.0 {
            let sigma = c.noise as f32;
            x.iter_mut().zip(&z(self.schedule.timesteps[i]).data).for_each(|(x, z)| *x += sigma * z);
        }
        self.x.data = x;
        Some(xstart)
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Purpose;
    use super::super::schedule::{ScheduleConfig, Spacing};
    use super::*;

    #[test]
    fn ddim_with_eta_one_is_ddpm_with_the_posterior_variance() {
        let s = Schedule::new(&ScheduleConfig::default()).unwrap().spaced(20, Spacing::Leading).unwrap();
        for i in 1..20 {
            let ddim = SamplerKind::Ddim { eta: 1.0 }.coefficients(&s, i);
            let ddpm = SamplerKind::Ddpm { variance: Variance::FixedSmall }.coefficients(&s, i);
            // express ε in x_t and x̂_0
            let (a, b) = (s.alphas_cumprod[i].sqrt(), (1.0 - s.alphas_cumprod[i]).sqrt());
            assert!((ddim.noise - ddpm.noise).abs() < 1e-9);
            assert!((ddim.eps / b - ddpm.x_t).abs() < 1e-9);
            assert!((ddim.xstart - ddim.eps * a / b - ddpm.xstart).abs() < 1e-9);
        }
    }

    /// Pixels x_0 ~ N(μ, sd²): the exact noise prediction is linear in x_t.
    fn sample_gaussian(kind: SamplerKind, steps: usize) -> (f64, f64) {
        let (mu, sd, n) = (0.3, 0.2, 20_000);
        let full = Schedule::new(&ScheduleConfig::default()).unwrap();
        let shape = [1, 1, 1];
        let x = process::noise_images(5, Purpose::Start, 0, 0, n, shape);
        let mut sampler = Sampler::new(full.spaced(steps, Spacing::Leading).unwrap(), kind, false, x).unwrap();
        while let Some(t) = sampler.wants() {
            let ac = full.alphas_cumprod[t];
            let k = (1.0 - ac).sqrt() / (ac * sd * sd + 1.0 - ac);
            let eps = sampler.x().data.iter().map(|&x| ((f64::from(x) - ac.sqrt() * mu) * k) as f32).collect();
            let eps = Images::new(n, shape, eps);
            sampler.advance(&eps, |t| process::noise_images(5, Purpose::Step, 0, t as u64, n, shape)).unwrap();
        }
        assert_eq!(sampler.doses(), 0);
        assert!(sampler.advance(&Images::zeros(n, shape), |_| Images::zeros(n, shape)).is_none());
        let mean = sampler.x().data.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let variance = sampler.x().data.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
        (mean, variance.sqrt())
    }

    #[test]
    fn every_sampler_reaches_the_true_mean_and_spread() {
        for (kind, steps) in [
            (SamplerKind::Ddpm { variance: Variance::FixedSmall }, 1000),
            (SamplerKind::Ddpm { variance: Variance::FixedLarge }, 1000),
            (SamplerKind::Ddim { eta: 0.0 }, 500),
            (SamplerKind::Ddim { eta: 1.0 }, 500),
        ] {
            let (mean, sd) = sample_gaussian(kind, steps);
            assert!((mean - 0.3).abs() < 0.01 && (sd - 0.2).abs() < 0.01, "{kind:?}: mean {mean}, sd {sd}");
        }
    }

    #[test]
    fn eta_out_of_range_is_refused() {
        let s = Schedule::new(&ScheduleConfig::default()).unwrap();
        for eta in [-0.1, 1.1, f64::NAN] {
            assert!(Sampler::new(s.clone(), SamplerKind::Ddim { eta }, true, Images::zeros(1, [1, 1, 1])).is_err());
        }
    }
}
