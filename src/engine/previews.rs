//! When a training draws samples that are only shown, and what that costs.

use super::snapshots::STEPS;
use std::time::Duration;

/// Samples of one training: those asked for, those that are due, and the time that went into them since it began or went on.
/// Where each part of a run keeps to its share, so does the whole; and what a run saves must not depend on the clock.
#[derive(Debug)]
pub(super) struct Previews {
    /// Largest share of the time; `None` draws each one when it is due.
    most: Option<f64>,
    /// Whether a person waits for one.
    asked: bool,
    /// Whether one is due that was too dear so far.
    owed: bool,
    steps: Duration,
    drawn: Duration,
    /// All network calls so far, those of snapshots too: what one costs is known before the first preview.
    calls: (Duration, u32),
}

impl Previews {
    pub(super) fn new(most: Option<f64>) -> Self {
        let none = Duration::ZERO;
        Self { most, asked: false, owed: false, steps: none, drawn: none, calls: (none, 0) }
    }

    /// A person asks for one, which is drawn whatever it costs.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    pub(super) fn asked(&self) -> bool {
        self.asked
    }

    /// One was drawn.
    pub(super) fn done(&mut self) {
        (self.asked, self.owed) = (false, false);
    }

    pub(super) fn step_took(&mut self, time: Duration) {
        self.steps += time;
    }

    /// A network call of pictures; `shown` if they are nothing but a preview.
    pub(super) fn call_took(&mut self, time: Duration, shown: bool) {
        self.calls = (self.calls.0 + time, self.calls.1 + 1);
        if shown {
            self.drawn += time;
        }
    }

    /// Whether one is to be drawn after that step: every so many, later where that would cost too much, and at the end.
    pub(super) fn due(&mut self, step: u64, every: u64, end: bool) -> bool {
        self.owed &= every > 0;
        self.owed |= every > 0 && step > 0 && (end || step.is_multiple_of(every));
        let drawn = self.drawn + self.calls.0 * STEPS as u32 / self.calls.1.max(1);
        let fits = |most: f64| drawn <= (self.steps + drawn).mul_f64(most);
        self.owed && (end || self.most.is_none_or(fits))
    }

    /// Share of the time so far.
    pub(super) fn share(&self) -> f64 {
        self.drawn.as_secs_f64() / (self.steps + self.drawn).as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Steps after which a run draws, with a step of 10 ms and so many ms for a call, and the share at the end.
    fn run(most: Option<f64>, call: u32, every: u64, steps: u64) -> (Vec<u64>, f64) {
        let (mut previews, mut drawn) = (Previews::new(most), Vec::new());
        // the snapshot at the start
        (0..STEPS).for_each(|_| previews.call_took(call * MS, false));
        for step in 1..=steps {
            previews.step_took(10 * MS);
            if previews.due(step, every, step == steps) {
                (0..STEPS).for_each(|_| previews.call_took(call * MS, true));
                previews.done();
                drawn.push(step);
            }
            assert!(step == steps || most.is_none_or(|most| previews.share() <= most), "after {step} steps");
        }
        (drawn, previews.share())
    }

    #[test]
    fn cheap_ones_come_when_they_are_due_and_dear_ones_when_there_is_time() {
        // 20 ms a preview is 2 % of a hundred steps
        assert_eq!(run(Some(0.05), 1, 100, 400).0, [100, 200, 300, 400]);
        // 200 ms needs 3.8 s of steps
        assert_eq!(run(Some(0.05), 10, 100, 1000).0, [380, 760, 1000]);
        assert_eq!(run(None, 10, 100, 400).0, [100, 200, 300, 400]);
        assert!((run(Some(0.05), 10, 100, 380).1 - 0.05).abs() < 1e-9 && run(None, 10, 100, 1000).1 > 0.15);
        assert!(run(Some(0.05), 1, 0, 400).0.is_empty());
    }

    #[test]
    fn one_that_is_asked_for_costs_too_and_the_next_ones_wait() {
        let mut previews = Previews::new(Some(0.05));
        (0..STEPS).for_each(|_| previews.call_took(10 * MS, false));
        previews.step_took(3800 * MS);
        assert!(previews.due(1, 1, false));
        previews.ask();
        (0..STEPS).for_each(|_| previews.call_took(10 * MS, true));
        previews.done();
        assert!(!previews.asked() && !previews.due(2, 1, false));
        assert!((previews.share() - 0.05).abs() < 1e-9);
    }
}
