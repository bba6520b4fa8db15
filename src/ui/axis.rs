//! What the length of the timeline stands for: timesteps, or the logarithm of the signal-to-noise ratio.

use crate::engine::Schedule;

/// A scale for the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Scale {
    /// t.
    #[default]
    Timestep,
    /// ln(ᾱ / (1 − ᾱ)).
    LogSnr,
}

impl Scale {
    /// The other one.
    pub fn next(self) -> Self {
        match self {
            Self::Timestep => Self::LogSnr,
            Self::LogSnr => Self::Timestep,
        }
    }
}

/// Where on the timeline each state stands, from 0 at noise to 1 at the picture.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    steps: usize,
    /// Present where places follow the signal-to-noise ratio.
    schedule: Option<&'a Schedule>,
}

impl<'a> Axis<'a> {
    /// An axis for a film of T `steps`; without a schedule only timesteps can be shown.
    pub fn new(scale: Scale, steps: usize, schedule: Option<&'a Schedule>) -> Self {
        let schedule = schedule.filter(|s| scale == Scale::LogSnr && s.steps() == steps);
        Self { steps: steps.max(1), schedule }
    }

    /// The log-SNR at both ends, where that is the scale.
    pub fn log_snr_range(&self) -> Option<[f64; 2]> {
        self.schedule.map(|s| [log_snr(s, self.steps), log_snr(s, 0)])
    }

    /// The place of the state with so many doses.
    pub fn share(&self, doses: usize) -> f32 {
        let doses = doses.min(self.steps);
        match (self.schedule, self.log_snr_range()) {
            (Some(s), Some([noise, picture])) => ((log_snr(s, doses) - noise) / (picture - noise)) as f32,
            _ => 1.0 - doses as f32 / self.steps as f32,
        }
    }

    /// The state nearest to that place.
    pub fn doses(&self, share: f32) -> usize {
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        if self.schedule.is_none() {
            return ((1.0 - share) * self.steps as f32).round() as usize;
        }
        // places fall from 1 to 0 as doses rise
        let (mut above, mut below) = (0, self.steps);
        while below - above > 1 {
            let middle = above.midpoint(below);
            if self.share(middle) >= share { above = middle } else { below = middle }
        }
        if self.share(above) - share <= share - self.share(below) { above } else { below }
    }
}

/// ln(ᾱ / (1 − ᾱ)) after `doses` doses. The picture itself has none: it stands as far past the first dose as the second
/// stands before it.
fn log_snr(s: &Schedule, doses: usize) -> f64 {
    if doses > 0 {
        return s.snr(doses).ln();
    }
    let first = s.snr(1).ln();
    first + if s.steps() > 1 { first - s.snr(2).ln() } else { 1.0 }
}

/// The state of a film of `to` steps that stands where that of `doses` stands in a film of `from` steps.
pub fn along(doses: usize, from: usize, to: usize) -> usize {
    if from == to || from == 0 { doses } else { (doses as f64 / from as f64 * to as f64).round() as usize }
}

/// How many doses it takes until ᾱ has fallen to `alpha_bar`, if it ever does.
pub fn crossing(s: &Schedule, alpha_bar: f64) -> Option<usize> {
    let t = s.alphas_cumprod.partition_point(|a| *a > alpha_bar);
    (t < s.steps()).then_some(t + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{BetaSchedule, ScheduleConfig};

    fn schedule(kind: BetaSchedule, steps: usize) -> Schedule {
        Schedule::new(&ScheduleConfig { kind, steps, ..Default::default() }).unwrap()
    }

    #[test]
    fn the_left_end_is_noise_and_the_right_end_the_picture() {
        let axis = Axis::new(Scale::Timestep, 1000, None);
        assert_eq!([-1.0, 0.0, 0.5, 1.0, 2.0].map(|s| axis.doses(s)), [1000, 1000, 500, 0, 0]);
        assert_eq!(axis.doses(f32::NAN), 0);
        let s = schedule(BetaSchedule::Linear, 1000);
        let axis = Axis::new(Scale::LogSnr, 1000, Some(&s));
        assert_eq!([-1.0, 0.0, 1.0, 2.0, f32::NAN].map(|s| axis.doses(s)), [1000, 1000, 0, 0, 0]);
    }

    #[test]
    fn every_state_has_its_own_place_on_either_scale() {
        for kind in BetaSchedule::ALL {
            for steps in [1, 2, 50, 1000] {
                let s = schedule(kind, steps);
                for scale in [Scale::Timestep, Scale::LogSnr] {
                    let axis = Axis::new(scale, steps, Some(&s));
                    for doses in 0..=steps {
                        assert_eq!(axis.doses(axis.share(doses)), doses, "{kind:?} {steps} {scale:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn on_the_log_snr_scale_equal_ratios_are_equally_far_apart() {
        let s = schedule(BetaSchedule::Linear, 1000);
        let axis = Axis::new(Scale::LogSnr, 1000, Some(&s));
        let [noise, picture] = axis.log_snr_range().unwrap();
        // ᾱ_1000 = 4.04e-5 and ᾱ_1 = 0.9999 (Ho et al. 2020, section 4)
        assert!((noise + 10.118).abs() < 0.01 && picture > 9.21);
        let half = crossing(&s, 0.5).unwrap();
        assert!((axis.share(half) - (-noise / (picture - noise)) as f32).abs() < 2e-3, "ᾱ = 1/2 is log-SNR 0");
    }

    #[test]
    fn quarters_are_crossed_where_the_table_says() {
        let s = schedule(BetaSchedule::Linear, 1000);
        for quarter in [0.75, 0.5, 0.25] {
            let doses = crossing(&s, quarter).unwrap();
            assert!(s.alpha_bar(doses) <= quarter && s.alpha_bar(doses - 1) > quarter);
        }
        assert_eq!(crossing(&s, 1e-9), None, "a schedule that leaves more signal than that never gets there");
    }
}
