//! One step taken apart: the pictures that it adds up, with their weights.

use super::sampler::{SamplerKind, Variance};
use super::schedule::Schedule;
use super::{Images, process};

/// What a picture in a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// x_0.
    Start,
    /// x_{t-1} on the way to noise.
    Previous,
    /// x_t.
    State,
    /// x̂_0.
    PredictedStart,
    /// ε, or ε̂.
    Noise,
    /// z, drawn afresh.
    Fresh,
}

/// A picture times its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What it is.
    pub factor: Factor,
    /// Its weight.
    pub weight: f64,
    /// The picture.
    pub images: Images,
}

impl Term {
    /// The picture times its weight.
    pub fn product(&self) -> Images {
        let weight = self.weight as f32;
        Images { data: self.images.data.iter().map(|v| v * weight).collect(), ..self.images }
    }
}

/// All products added; `None` without terms.
pub fn sum(terms: &[Term]) -> Option<Images> {
    let (first, rest) = terms.split_first()?;
    let mut total = first.product();
    for term in rest {
        total.data.iter_mut().zip(&term.product().data).for_each(|(a, b)| *a += b);
    }
    Some(total)
}

/// How a reverse step is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The posterior's mean in x_t and x̂_0, plus σ z (Ho et al. 2020, Eq. 7).
    #[default]
    Posterior,
    /// The same in x_t and ε̂ (Ho et al. 2020, Eq. 11; Algorithm 2, line 4).
    Epsilon,
    /// Song et al. 2020, Eq. 12.
    Ddim,
}

impl Form {
    /// Whether a film of that kind steps by this form; else it says where another rule would lead.
    pub fn is_own(self, kind: SamplerKind) -> bool {
        matches!(kind, SamplerKind::Ddim { .. }) == (self == Self::Ddim)
    }
}

/// What is known of a reverse step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The film's schedule, spaced as its sampler steps.
    pub schedule: &'a Schedule,
    /// The step's index in it.
    pub i: usize,
    /// The film's rule.
    pub kind: SamplerKind,
    /// x_t.
    pub x_t: &'a Images,
    /// x̂_0, clipped if the film clips.
    pub xstart: &'a Images,
    /// ε̂, as the network said.
    pub eps: &'a Images,
    /// z.
    pub z: &'a Images,
}

/// The terms of a reverse step written in `form`. A rule that is not the film's own is DDPM with the posterior variance, or
/// DDIM without fresh noise.
pub fn reverse(step: &Step<'_>, form: Form) -> Vec<Term> {
    let &Step { schedule: s, i, kind, x_t, xstart, eps, z } = step;
    let kind = match (form.is_own(kind), form) {
        (true, _) => kind,
        (false, Form::Ddim) => SamplerKind::Ddim { eta: 0.0 },
        (false, _) => SamplerKind::Ddpm { variance: Variance::FixedSmall },
    };
    let c = kind.coefficients(s, i);
    let term = |factor, weight, images: &Images| Term { factor, weight, images: images.clone() };
    let fresh = term(Factor::Fresh, c.noise, z);
    match form {
        Form::Posterior => {
            vec![term(Factor::State, c.x_t, x_t), term(Factor::PredictedStart, c.xstart, xstart), fresh]
        }
        Form::Epsilon => {
            let (beta, ac) = (s.betas[i], s.alphas_cumprod[i]);
            let root_alpha = (1.0 - beta).sqrt();
            // where x̂_0 was clipped, the noise that belongs to it is not what the network said
            let eps = process::predict_eps_from_xstart(s, x_t, i, xstart);
            let weight = -beta / ((1.0 - ac).sqrt() * root_alpha);
            vec![term(Factor::State, 1.0 / root_alpha, x_t), Term { factor: Factor::Noise, weight, images: eps }, fresh]
        }
        Form::Ddim => vec![term(Factor::PredictedStart, c.xstart, xstart), term(Factor::Noise, c.eps, eps), fresh],
    }
}

/// The dose that led from `x_prev` to the state after `doses` >= 1 doses: √(1-β_t) x_{t-1} + √β_t z (Ho et al. 2020, Eq. 2).
pub fn dose(s: &Schedule, doses: usize, x_prev: &Images, z: &Images) -> Vec<Term> {
    let beta = s.betas[doses - 1];
    vec![
        Term { factor: Factor::Previous, weight: (1.0 - beta).sqrt(), images: x_prev.clone() },
        Term { factor: Factor::Fresh, weight: beta.sqrt(), images: z.clone() },
    ]
}

/// The same state in one jump from `x_start`: √ᾱ_t x_0 + √(1-ᾱ_t) ε (Ho et al. 2020, Eq. 4), where ε is what all doses of the
/// chain come to together.
pub fn jump(s: &Schedule, doses: usize, x_start: &Images, x_t: &Images) -> Vec<Term> {
    let ac = s.alphas_cumprod[doses - 1];
    let eps = process::predict_eps_from_xstart(s, x_t, doses - 1, x_start);
    vec![
        Term { factor: Factor::Start, weight: ac.sqrt(), images: x_start.clone() },
        Term { factor: Factor::Noise, weight: (1.0 - ac).sqrt(), images: eps },
    ]
}

/// Mean and standard deviation of all values.
pub fn moments(images: &Images) -> [f64; 2] {
    let n = images.data.len().max(1) as f64;
    let mean = images.data.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = images.data.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    [mean, variance.sqrt()]
}

/// The largest difference between two pictures.
pub fn largest_difference(a: &Images, b: &Images) -> f32 {
    a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::super::noise::Purpose;
    use super::super::sampler::Sampler;
    use super::super::schedule::{ScheduleConfig, Spacing};
    use super::*;
    use crate::diffusion::process::noise_images;

    const SHAPE: [usize; 3] = [1, 4, 4];

    /// The terms of each step of a film, against the sampler's own next state.
    fn film(kind: SamplerKind, steps: usize, clip: bool, form: Form) -> f32 {
        let s = Schedule::new(&ScheduleConfig::default()).unwrap().spaced(steps, Spacing::Leading).unwrap();
        let x = noise_images(3, Purpose::Start, 0, 0, 1, SHAPE);
        let mut sampler = Sampler::new(s.clone(), kind, clip, x).unwrap();
        let mut worst = 0.0_f32;
        while let Some(t) = sampler.wants() {
            let i = sampler.steps_left() - 1;
            let x_t = sampler.x().clone();
            // a network that is partly right, so that clipping has something to do
            let eps = Images { data: x_t.data.iter().map(|v| 0.9 * v).collect(), ..x_t };
            let z = noise_images(3, Purpose::Step, 0, t as u64, 1, SHAPE);
            let xstart = sampler.advance(&eps, |_| z.clone()).unwrap();
            let step = Step { schedule: &s, i, kind, x_t: &x_t, xstart: &xstart, eps: &eps, z: &z };
            let total = sum(&reverse(&step, form)).unwrap();
            worst = worst.max(largest_difference(&total, sampler.x()) / moments(sampler.x())[1].max(1.0) as f32);
        }
        worst
    }

    #[test]
    fn the_terms_add_up_to_the_next_state_of_the_film() {
        let (small, large) = (Variance::FixedSmall, Variance::FixedLarge);
        for (kind, form) in [
            (SamplerKind::Ddpm { variance: small }, Form::Posterior),
            (SamplerKind::Ddpm { variance: small }, Form::Epsilon),
            (SamplerKind::Ddpm { variance: large }, Form::Posterior),
            (SamplerKind::Ddpm { variance: large }, Form::Epsilon),
            (SamplerKind::Ddim { eta: 0.0 }, Form::Ddim),
            (SamplerKind::Ddim { eta: 1.0 }, Form::Ddim),
        ] {
            assert!(form.is_own(kind));
            for (steps, clip) in [(1000, true), (50, true), (20, false)] {
                let worst = film(kind, steps, clip, form);
                assert!(worst < 2e-5, "{kind:?} as {form:?} in {steps} steps: {worst}");
            }
        }
    }

    #[test]
    fn another_rule_leads_elsewhere() {
        let ddpm = SamplerKind::Ddpm { variance: Variance::FixedSmall };
        assert!(!Form::Ddim.is_own(ddpm) && film(ddpm, 50, true, Form::Ddim) > 1e-2);
        let ddim = SamplerKind::Ddim { eta: 0.0 };
        assert!(!Form::Posterior.is_own(ddim) && film(ddim, 50, true, Form::Posterior) > 1e-2);
    }

    #[test]
    fn the_chain_and_the_jump_agree() {
        let s = Schedule::new(&ScheduleConfig::default()).unwrap();
        let shape = [1, 32, 32];
        let x_start = Images::new(1, shape, (0..1024).map(|i| (i % 32) as f32 / 16.0 - 1.0).collect());
        let mut x = x_start.clone();
        for t in 0..1000 {
            let z = noise_images(5, Purpose::Chain, 0, t as u64, 1, shape);
            let chained = sum(&dose(&s, t + 1, &x, &z)).unwrap();
            x = process::q_step(&s, &x, t, &z);
            assert!(largest_difference(&chained, &x) < 1e-5);
            if [1, 10, 300, 999].contains(&t) {
                let terms = jump(&s, t + 1, &x_start, &x);
                assert!(largest_difference(&sum(&terms).unwrap(), &x) < 1e-5);
                // what makes it agree is noise from N(0, I): 1024 values lie within 4 standard errors
                let [mean, sd] = moments(&terms[1].images);
                assert!(mean.abs() < 4.0 / 32.0 && (sd - 1.0).abs() < 4.0 / 45.0, "t {t}: {mean} {sd}");
            }
        }
    }
}
