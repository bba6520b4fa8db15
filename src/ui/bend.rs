//! Bending the curve of a schedule with the pointer: one end of β moves until the curve passes where it is pulled.

use crate::engine::{BetaSchedule, Schedule, ScheduleConfig};

/// β stays within these.
const BETAS: [f64; 2] = [1e-6, 0.999];
/// Halvings of the search: past the digits that are kept.
const HALVINGS: usize = 40;

/// The end of β that a grip moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// β₁.
    First,
    /// β_T.
    Last,
}

impl End {
    /// The end that a grip on step `t` moves: the first in the quarter where it decides most.
    pub fn of(t: usize, steps: usize) -> Self {
        if 4 * t < steps { Self::First } else { Self::Last }
    }

    /// That β, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "β₁",
            Self::Last => "β_T",
        }
    }
}

/// Whether the shape of that schedule is given by its ends.
pub fn has_ends(kind: BetaSchedule) -> bool {
    kind != BetaSchedule::Cosine
}

/// `config` with one end moved so that `value`, which rises or falls with β all along, comes as near to `target` as it can.
/// The first β never passes the last, and the schedule stays valid; where neither is possible, it stays as it is.
pub fn bend(config: ScheduleConfig, end: End, target: f64, value: impl Fn(&Schedule) -> f64) -> ScheduleConfig {
    let with = |beta: f64| match end {
        End::First => ScheduleConfig { beta_start: beta, ..config },
        End::Last => ScheduleConfig { beta_end: beta, ..config },
    };
    let at = |beta: f64| Schedule::new(&with(beta)).ok().map(|s| value(&s)).filter(|v| v.is_finite());
    let [low, high] = match end {
        End::First => [BETAS[0], config.beta_end],
        End::Last => [config.beta_start, BETAS[1]],
    };
    if !has_ends(config.kind) || low >= high || !target.is_finite() {
        return config;
    }
    let (mut low, mut high) = (low.ln(), high.ln());
    let nearer = |high: f64| Some(low.midpoint(high)).filter(|nearer| nearer - low > 1e-3);
    let (Some(least), Some(most)) =
        (at(low.exp()), std::iter::successors(Some(high), |high| nearer(*high)).find_map(|high| at(high.exp())))
    else {
        return config;
    };
    if most == least {
        return config;
    }
    let rises = most > least;
    for _ in 0..HALVINGS {
        let middle = low.midpoint(high);
        match at(middle.exp()) {
            Some(v) if (v < target) == rises => low = middle,
            // so large a β that nothing of the picture is left in f64 makes no schedule: the search stays below
            _ => high = middle,
        }
    }
    let bent = with(three_digits(low.midpoint(high).exp()).clamp(BETAS[0], BETAS[1]));
    if bent.beta_start <= bent.beta_end && Schedule::new(&bent).is_ok() { bent } else { config }
}

/// As many digits as a person would type.
fn three_digits(v: f64) -> f64 {
    let unit = 10f64.powf(v.log10().floor() - 2.0);
    (v / unit).round() * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [BetaSchedule; 3] = [BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::Sigmoid];

    fn signal(t: usize) -> impl Fn(&Schedule) -> f64 {
        move |s| s.alphas_cumprod[t].sqrt()
    }

    #[test]
    fn a_curve_passes_where_it_was_pulled() {
        for kind in KINDS {
            let config = ScheduleConfig { kind, ..Default::default() };
            for (t, target) in [(500, 0.5), (800, 0.3), (999, 0.2), (999, 0.01)] {
                let bent = bend(config, End::Last, target, signal(t));
                let value = signal(t)(&Schedule::new(&bent).unwrap());
                // three digits of beta
                assert!((value - target).abs() < 0.02, "{kind:?}, {t}: {value} for {target}");
                assert_eq!((bent.beta_start, bent.steps, bent.kind), (config.beta_start, 1000, kind));
            }
            let bent = bend(config, End::First, 0.9, signal(100));
            assert!((signal(100)(&Schedule::new(&bent).unwrap()) - 0.9).abs() < 0.01);
            assert_eq!(bent.beta_end, config.beta_end);
        }
    }

    #[test]
    fn wherever_it_is_pulled_the_schedule_stays_valid_and_rises() {
        for kind in BetaSchedule::ALL {
            for steps in [2, 50, 1000, 4000] {
                let config = ScheduleConfig { kind, steps, ..Default::default() };
                for target in [-1e9, -1.0, 0.0, 1e-12, 0.5, 1.0, 2.0, 1e9, f64::NAN, f64::INFINITY] {
                    for end in [End::First, End::Last] {
                        let bent = bend(config, end, target, signal(steps / 2));
                        assert!(Schedule::new(&bent).is_ok() && bent.beta_start <= bent.beta_end, "{bent:?}");
                        assert!(has_ends(kind) || bent == config);
                    }
                }
            }
        }
    }

    #[test]
    fn pulled_back_to_where_it_was_it_is_what_it_was() {
        let config = ScheduleConfig::default();
        let value = signal(600)(&Schedule::new(&config).unwrap());
        let there = bend(config, End::Last, 0.7, signal(600));
        assert_ne!(there, config);
        assert!((bend(there, End::Last, value, signal(600)).beta_end - config.beta_end).abs() < 1e-12);
    }
}
