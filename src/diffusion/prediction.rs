//! What a network is trained to predict, and the noise that follows from it.

use super::Images;
use super::process::weighted_sum;
use super::schedule::Schedule;

/// What a network says of x_t.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionType {
    /// ε (Ho et al. 2020, Eq. 14).
    Epsilon,
    /// v = √ᾱ_t ε - √(1-ᾱ_t) x_0 (Salimans & Ho 2022, section 4).
    Velocity,
}

impl PredictionType {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Epsilon, Self::Velocity];

    /// The name that diffusers gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
        }
    }

    /// What diffusers calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What a perfect network would say of `x_start` with that noise; `t` per picture.
    pub fn target(self, schedule: &Schedule, x_start: &Images, t: &[usize], noise: &Images) -> Images {
        let mut target = noise.clone();
        if self == Self::Velocity {
            for (i, &t) in t.iter().enumerate() {
                let ac = schedule.alphas_cumprod[t];
                let v = weighted_sum(ac.sqrt(), noise.one(i), -(1.0 - ac).sqrt(), x_start.one(i));
                target.one_mut(i).copy_from_slice(&v);
            }
        }
        target
    }

    /// ε̂ from what the network says: of v it is √ᾱ_t v + √(1-ᾱ_t) x_t; `t` per picture.
    pub fn to_eps(self, schedule: &Schedule, x_t: &Images, t: &[usize], mut output: Images) -> Images {
        if self == Self::Velocity {
            for (i, &t) in t.iter().enumerate() {
                let ac = schedule.alphas_cumprod[t];
                let eps = weighted_sum(ac.sqrt(), output.one(i), (1.0 - ac).sqrt(), x_t.one(i));
                output.one_mut(i).copy_from_slice(&eps);
            }
        }
        output
    }

    /// The mean squared error of ε̂ over all t, if the network says nothing but 0 of data of that mean square.
    pub fn blank_loss(self, schedule: &Schedule, mean_square: f64) -> f64 {
        let at = |ac: &f64| match self {
            Self::Epsilon => 1.0,
            Self::Velocity => ac * (ac + (1.0 - ac) * mean_square),
        };
        schedule.alphas_cumprod.iter().map(at).sum::<f64>() / schedule.steps() as f64
    }

    /// How much the error of ε̂ is of the error of what the network says.
    pub fn share_of_error(self, schedule: &Schedule, t: usize) -> f64 {
        match self {
            Self::Epsilon => 1.0,
            Self::Velocity => schedule.alphas_cumprod[t].sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Purpose;
    use super::super::process::{noise_images, predict_xstart_from_eps, q_sample};
    use super::super::schedule::ScheduleConfig;
    use super::*;

    #[test]
    fn noise_follows_from_v_and_so_does_its_error() {
        let s = Schedule::new(&ScheduleConfig::default()).unwrap();
        let (n, shape, t) = (4, [1, 4, 4], [0, 10, 500, 999]);
        let x_start = noise_images(1, Purpose::Pick, 0, 0, n, shape);
        let noise = noise_images(2, Purpose::Forward, 0, 0, n, shape);
        let x_t = q_sample(&s, &x_start, &t, &noise);
        for kind in PredictionType::ALL {
            assert_eq!(PredictionType::from_name(kind.name()), Some(kind));
            let target = kind.target(&s, &x_start, &t, &noise);
            let off = Images { data: target.data.iter().map(|v| v + 0.5).collect(), ..target.clone() };
            let (eps, off) = (kind.to_eps(&s, &x_t, &t, target.clone()), kind.to_eps(&s, &x_t, &t, off));
            for (i, &t) in t.iter().enumerate() {
                for j in 0..16 {
                    assert!((eps.one(i)[j] - noise.one(i)[j]).abs() < 1e-5, "{kind:?} at {t}");
                    let error = f64::from(off.one(i)[j] - eps.one(i)[j]);
                    assert!((error - 0.5 * kind.share_of_error(&s, t)).abs() < 1e-5, "{kind:?} at {t}");
                }
            }
        }
        // x̂_0 = √ᾱ_t x_t - √(1-ᾱ_t) v
        let v = PredictionType::Velocity.target(&s, &x_start, &t, &noise);
        let ac = s.alphas_cumprod[500];
        let one = |images: &Images| Images::new(1, shape, images.one(2).to_vec());
        let from_v = weighted_sum(ac.sqrt(), x_t.one(2), -(1.0 - ac).sqrt(), v.one(2));
        let from_eps = predict_xstart_from_eps(&s, &one(&x_t), 500, &one(&noise));
        assert!(from_v.iter().zip(&from_eps.data).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn a_network_that_says_nothing_has_the_blank_loss() {
        let s = Schedule::new(&ScheduleConfig::default()).unwrap();
        let (all, shape) = ((0..1000).collect::<Vec<_>>(), [1, 4, 4]);
        let [x_start, noise] = [3, 4].map(|seed| noise_images(seed, Purpose::Pick, 0, 0, 1000, shape));
        let x_t = q_sample(&s, &x_start, &all, &noise);
        for kind in PredictionType::ALL {
            let eps = kind.to_eps(&s, &x_t, &all, Images::zeros(1000, shape));
            let squares = eps.data.iter().zip(&noise.data).map(|(a, b)| f64::from(a - b).powi(2));
            let (loss, blank) = (squares.sum::<f64>() / 16_000.0, kind.blank_loss(&s, 1.0));
            assert!((loss / blank - 1.0).abs() < 0.05, "{kind:?}: {loss} is not {blank}");
        }
    }
}
