//! Settings that may change while a run goes on, and the record of when they did.

use super::config::RunConfig;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Changes that a run remembers; past that the oldest go.
const MOST: usize = 256;

/// What is asked to change; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Changes {
    /// Adam's learning rate after the warm-up.
    pub learning_rate: Option<f64>,
    /// Decay of the moving average.
    pub ema_decay: Option<f64>,
    /// Steps between samples; 0 for never.
    pub preview_every: Option<u64>,
}

/// A setting that may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// [`RunConfig::learning_rate`].
    LearningRate,
    /// [`RunConfig::ema_decay`].
    EmaDecay,
    /// [`RunConfig::preview_every`].
    PreviewEvery,
}

/// A setting that did change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Steps that were done before: the next step is the first with the new value.
    pub after: u64,
    /// Which.
    pub setting: Setting,
    /// The value before.
    pub from: f64,
    /// The value since.
    pub to: f64,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LearningRate, Self::EmaDecay, Self::PreviewEvery];

    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::LearningRate => "learning rate",
            Self::EmaDecay => "EMA decay",
            Self::PreviewEvery => "samples every",
        }
    }

    fn of(self, run: &RunConfig) -> f64 {
        match self {
            Self::LearningRate => run.learning_rate,
            Self::EmaDecay => run.ema_decay,
            Self::PreviewEvery => run.preview_every as f64,
        }
    }
}

impl Changes {
    /// `run` with these changes.
    ///
    /// # Errors
    /// Those of [`RunConfig::validate`].
    pub fn applied(&self, run: &RunConfig) -> Result<RunConfig> {
        let run = RunConfig {
            learning_rate: self.learning_rate.unwrap_or(run.learning_rate),
            ema_decay: self.ema_decay.unwrap_or(run.ema_decay),
            preview_every: self.preview_every.unwrap_or(run.preview_every),
            ..run.clone()
        };
        run.validate().map_err(|e| Error { what: "cannot change the run".into(), ..e })?;
        Ok(run)
    }
}

/// Adds to `record` what differs in `new` after that step. Of several changes of one setting at the same step the last
/// counts, and none if it leads back.
pub(super) fn note(record: &mut Vec<Change>, after: u64, old: &RunConfig, new: &RunConfig) {
    for setting in Setting::ALL {
        let (mut from, to) = (setting.of(old), setting.of(new));
        if from == to {
            continue;
        }
        if let Some(i) = record.iter().position(|c| c.after == after && c.setting == setting) {
            from = record.remove(i).from;
        }
        if from != to {
            record.push(Change { after, setting, from, to });
        }
    }
    let excess = record.len().saturating_sub(MOST);
    record.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_back_before_the_next_step_was_never_changed() {
        let (mut record, first) = (Vec::new(), RunConfig::default());
        let second = Changes { learning_rate: Some(1e-4), ..Changes::default() }.applied(&first).unwrap();
        let third = Changes { learning_rate: Some(5e-5), ema_decay: Some(0.99), preview_every: Some(7) };
        let third = third.applied(&second).unwrap();
        note(&mut record, 10, &first, &second);
        note(&mut record, 10, &second, &third);
        let rate = Change { after: 10, setting: Setting::LearningRate, from: 2e-4, to: 5e-5 };
        assert!(record.contains(&rate) && record.len() == 3, "{record:?}");
        note(&mut record, 10, &third, &first);
        assert!(record.is_empty(), "{record:?}");
        note(&mut record, 11, &first, &first);
        assert!(record.is_empty(), "{record:?}");
    }

    #[test]
    fn the_record_is_bounded_and_keeps_the_newest() {
        let (mut record, mut run) = (Vec::new(), RunConfig::default());
        for step in 0..1000 {
            let new = RunConfig { preview_every: step + 1000, ..run.clone() };
            note(&mut record, step, &run, &new);
            run = new;
        }
        assert_eq!((record.len(), record.last().unwrap().after), (MOST, 999));
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for (changes, word) in [
            (Changes { learning_rate: Some(-1.0), ..Changes::default() }, "learning rate"),
            (Changes { ema_decay: Some(f64::NAN), ..Changes::default() }, "EMA"),
        ] {
            let message = changes.applied(&RunConfig::default()).unwrap_err().to_string();
            assert!(message.starts_with("cannot change the run") && message.contains(word), "{message}");
        }
    }
}
