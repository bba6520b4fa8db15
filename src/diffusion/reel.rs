//! Films of any length in bounded memory: where not every frame can be held, states in full precision are kept at equal
//! distances, and any frame is computed again from the one before it. Noise has addresses, so it comes out bit for bit the same.

use super::Images;
use super::noise::Purpose;
use super::process;
use super::sampler::Sampler;
use super::schedule::Schedule;
use super::trajectory::{Frame, Trajectory};
use std::sync::Arc;

/// Bytes that the forward film may take. It and the reverse film, with all its branches, stay within 256 MiB.
pub const FORWARD_BYTES: usize = 48 << 20;
/// Bytes that the reverse film may take.
pub const REVERSE_BYTES: usize = 112 << 20;
/// Branches of the reverse film that are held.
pub const MOST_BRANCHES: usize = 8;
/// Bytes that each of them may take.
pub const BRANCH_BYTES: usize = (96 << 20) / MOST_BRANCHES;

/// Frames that are held however large they are.
const FEWEST_FRAMES: usize = 4;

/// How the memory of a film is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Frames held at most.
    pub frames: usize,
    /// One of so many states is kept in full precision; `None` where all frames are held.
    pub every: Option<usize>,
}

impl Budget {
    /// For a film that passes `states` states of `values` values each, of which a frame keeps `quantities` in half
    /// precision. A state of more than half of `bytes`, or an eighth of that in a frame, exceeds the bound.
    pub fn new(bytes: usize, states: usize, values: usize, quantities: usize) -> Self {
        let frame = values.max(1) * quantities * size_of::<half::f16>();
        if states.saturating_mul(frame) <= bytes {
            return Self { frames: states, every: None };
        }
        let half = bytes / 2;
        let keys = (half / (values.max(1) * size_of::<f32>())).max(1);
        Self { frames: (half / frame).max(FEWEST_FRAMES), every: Some(states.div_ceil(keys)) }
    }

    /// For a film of which any state can be had in full precision: where all frames fit into three quarters of `bytes`, the
    /// rest is for as many states as it holds.
    fn with_states(bytes: usize, states: usize, values: usize, quantities: usize) -> Self {
        let frames = states.saturating_mul(values.max(1) * quantities * size_of::<half::f16>());
        if frames > bytes / 4 * 3 {
            return Self::new(bytes.min(frames - 1), states, values, quantities);
        }
        let keys = ((bytes - frames) / (values.max(1) * size_of::<f32>())).max(1);
        Self { frames: states, every: Some(states.div_ceil(keys)) }
    }

    /// Which states to show again for the one that is asked for: all from a kept one to the next, or as many as can be
    /// held beside the evenly spaced ones. The state after the one that is asked for is always among them, since a dose
    /// lies between two. In steps from the start of the film.
    fn around(self, asked: usize, every: usize) -> std::ops::Range<usize> {
        let key = asked - asked % every;
        if every < self.frames / 2 { key..key + every + 1 } else { asked..asked + self.frames / 2 }
    }
}

/// A forward film.
#[derive(Clone, Debug)]
pub struct ForwardReel {
    schedule: Arc<Schedule>,
    seed: u64,
    budget: Budget,
    keys: Vec<Images>,
}

impl ForwardReel {
    /// The film of `x_start` as a chain of single doses (Eq. 2) within `bytes` of memory, and what it takes to compute its
    /// frames again.
    pub fn record(schedule: Arc<Schedule>, x_start: &Images, seed: u64, bytes: usize) -> (Self, Trajectory) {
        let states = schedule.steps() + 1;
        let budget = Budget::new(bytes, states, x_start.data.len(), 1);
        let mut reel = Self { schedule: Arc::clone(&schedule), seed, budget, keys: Vec::new() };
        let film = Trajectory::new(x_start.n, x_start.shape(), schedule);
        let mut film = film.with_states((0..states).collect(), budget.frames);
        let mut x = x_start.clone();
        for doses in 0..states {
            if doses > 0 {
                x = reel.step(&x, doses);
            }
            if budget.every.is_some_and(|every| doses.is_multiple_of(every)) {
                reel.keys.push(x.clone());
            }
            film.insert(Arc::new(Frame::state(doses, &x)));
        }
        (reel, film)
    }

    /// x after `doses` doses from x after one less.
    fn step(&self, x: &Images, doses: usize) -> Images {
        let t = doses - 1;
        let z = process::noise_images(self.seed, Purpose::Chain, 0, t as u64, x.n, x.shape());
        process::q_step(&self.schedule, x, t, &z)
    }

    /// The frame at `doses` again, and its neighbours; none of a film that was held whole.
    pub fn again(&self, doses: usize) -> Vec<Arc<Frame>> {
        let (Some(every), true) = (self.budget.every, doses <= self.schedule.steps()) else { return Vec::new() };
        let shown = self.budget.around(doses, every);
        let key = doses / every;
        let mut x = self.keys[key].clone();
        let mut frames = Vec::new();
        for doses in key * every..shown.end.min(self.schedule.steps() + 1) {
            if doses > key * every {
                x = self.step(&x, doses);
            }
            if shown.contains(&doses) {
                frames.push(Arc::new(Frame::state(doses, &x)));
            }
        }
        frames
    }

    /// Bytes of the states that are kept.
    pub fn bytes(&self) -> usize {
        self.keys.iter().map(|x| size_of_val(x.data.as_slice())).sum()
    }
}

/// A reverse film, as far as it has come.
#[derive(Clone, Debug)]
pub struct ReverseReel {
    /// The process without its state.
    process: Sampler,
    steps: usize,
    seed: u64,
    first: u64,
    budget: Budget,
    keys: Vec<Images>,
}

impl ReverseReel {
    /// A film that starts where `sampler` stands, within `bytes` of memory; its noise is at (`seed`, `first`). Also the
    /// empty film on the full `schedule`.
    pub fn new(sampler: &Sampler, schedule: &Arc<Schedule>, seed: u64, first: u64, bytes: usize) -> (Self, Trajectory) {
        let (x, states) = (sampler.x(), sampler.states());
        let budget = Budget::with_states(bytes, states.len(), x.data.len(), 3);
        let film = Trajectory::new(x.n, x.shape(), Arc::clone(schedule)).with_states(states.into(), budget.frames);
        let steps = sampler.steps_left();
        let process = sampler.at(steps, Images::zeros(0, x.shape()));
        (Self { process, steps, seed, first, budget, keys: Vec::new() }, film)
    }

    /// Takes the step that `sampler` wants, with the ε̂ predicted in its state; returns the frame of that state, or
    /// `None` at the end.
    pub fn step(&mut self, sampler: &mut Sampler, eps: &Images) -> Option<Frame> {
        let taken = self.steps - sampler.steps_left();
        if self.budget.every.is_some_and(|every| taken.is_multiple_of(every) && taken / every == self.keys.len()) {
            self.keys.push(sampler.x().clone());
        }
        step(sampler, eps, self.seed, self.first)
    }

    /// Begins to compute the frame at `doses` again, and its neighbours; `None` for a film that was held whole, or has
    /// not come so far.
    pub fn again(&self, doses: usize) -> Option<Again> {
        let every = self.budget.every.filter(|_| self.budget.frames <= self.steps)?;
        let asked = self.asked(doses)?;
        self.recompute(asked, self.budget.around(asked, every))
    }

    /// Begins to compute the state at `doses` again in full precision: it is [`Again::state`] once nothing is wanted.
    /// `None` where the film passes no such state or has not begun.
    pub fn state(&self, doses: usize) -> Option<Again> {
        let asked = self.asked(doses)?;
        self.recompute(asked, asked..asked)
    }

    /// Steps from the start of the film to its state at `doses`.
    fn asked(&self, doses: usize) -> Option<usize> {
        self.steps.checked_sub(self.process.states().iter().position(|state| *state == doses)?)
    }

    fn recompute(&self, asked: usize, shown: std::ops::Range<usize>) -> Option<Again> {
        let every = self.budget.every?;
        let key = (asked / every).min(self.keys.len().checked_sub(1)?);
        let sampler = self.process.at(self.steps - key * every, self.keys[key].clone());
        let over = shown.end == key * every;
        Some(Again { sampler, steps: self.steps, shown, seed: self.seed, first: self.first, over })
    }

    /// Bytes of the states that are kept.
    pub fn bytes(&self) -> usize {
        self.keys.iter().map(|x| size_of_val(x.data.as_slice())).sum()
    }
}

fn step(sampler: &mut Sampler, eps: &Images, seed: u64, first: u64) -> Option<Frame> {
    let (doses, x, weights) = (sampler.doses(), sampler.x().clone(), sampler.coefficients()?);
    let noise = |t: usize| process::noise_images(seed, Purpose::Step, first, t as u64, x.n, x.shape());
    let xstart = sampler.advance(eps, noise)?;
    Some(Frame::predicted(doses, &x, eps, &xstart, weights))
}

/// A part of a reverse film on its way to be computed again.
#[derive(Clone, Debug)]
pub struct Again {
    sampler: Sampler,
    steps: usize,
    shown: std::ops::Range<usize>,
    seed: u64,
    first: u64,
    over: bool,
}

impl Again {
    /// The state and the timestep at which the noise is to be predicted; `None` when no prediction is needed.
    pub fn wants(&self) -> Option<(&Images, usize)> {
        (!self.over).then(|| self.sampler.wants().map(|t| (self.sampler.x(), t))).flatten()
    }

    /// Whether all frames that are to be shown have been.
    pub fn is_over(&self) -> bool {
        self.wants().is_none()
    }

    /// One step with the ε̂ that was wanted; returns the frame, if it is one to show.
    pub fn step(&mut self, eps: &Images) -> Option<Frame> {
        let taken = self.steps - self.sampler.steps_left();
        let frame = step(&mut self.sampler, eps, self.seed, self.first)?;
        self.over = taken + 1 >= self.shown.end;
        self.shown.contains(&taken).then_some(frame)
    }

    /// The process in the state that was asked for.
    pub fn state(&self) -> &Sampler {
        &self.sampler
    }

    /// The picture at the end of the film, once it is reached and is to be shown.
    pub fn picture(&self) -> Option<Frame> {
        (!self.over && self.sampler.steps_left() == 0).then(|| Frame::state(0, self.sampler.x()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::stream;
    use super::super::sampler::{SamplerKind, Variance};
    use super::super::schedule::{ScheduleConfig, Spacing};
    use super::super::trajectory::Quantity;
    use super::*;

    fn schedule(steps: usize) -> Arc<Schedule> {
        Arc::new(Schedule::new(&ScheduleConfig { steps, ..Default::default() }).unwrap())
    }

    /// A prediction that depends on every value before it.
    fn predict(x: &Images, t: usize) -> Images {
        let mut carried = 0.1;
        let value = |v: &f32| {
            carried = (carried + v * 0.37 + t as f32 * 1e-3).sin();
            carried
        };
        Images { data: x.data.iter().map(value).collect(), ..*x }
    }

    /// Any order that revisits places.
    fn scrubbing(states: usize) -> Vec<usize> {
        let mut stream = stream(1, Purpose::Pick, [0, 0]);
        (0..3 * states).map(|_| stream.below(states)).collect()
    }

    #[test]
    fn every_forward_frame_comes_again_bit_for_bit_under_any_scrubbing() {
        let shape = [3, 5, 4];
        let x0 = process::noise_images(2, Purpose::Pick, 0, 0, 2, shape);
        let (_, whole) = ForwardReel::record(schedule(100), &x0, 9, usize::MAX);
        // 120 values: frames of 240 bytes, keys of 480
        let (reel, mut part) = ForwardReel::record(schedule(100), &x0, 9, 24 * 480);
        assert_eq!(reel.budget, Budget { frames: 24, every: Some(9) });
        for doses in scrubbing(101) {
            if let Some(state) = part.missing(doses, Quantity::State) {
                reel.again(state).into_iter().for_each(|frame| part.insert(frame));
            }
            assert_eq!(part.at(doses), whole.at(doses));
            assert!(part.len() * 240 + reel.bytes() <= 24 * 480);
        }
        assert!(reel.again(101).is_empty());
    }

    fn record(kind: SamplerKind, kept: usize, bytes: usize) -> (ReverseReel, Trajectory, Vec<Images>) {
        let full = schedule(100);
        let x = process::noise_images(3, Purpose::Start, 0, 0, 2, [3, 5, 4]);
        let mut sampler = Sampler::new(full.spaced(kept, Spacing::Leading).unwrap(), kind, true, x).unwrap();
        let (mut reel, mut film) = ReverseReel::new(&sampler, &full, 3, 0, bytes);
        let mut states = vec![sampler.x().clone()];
        while let Some(t) = sampler.wants() {
            let eps = predict(sampler.x(), t);
            film.insert(Arc::new(reel.step(&mut sampler, &eps).unwrap()));
            states.push(sampler.x().clone());
        }
        film.insert(Arc::new(Frame::state(0, sampler.x())));
        (reel, film, states)
    }

    #[test]
    fn every_reverse_frame_comes_again_bit_for_bit_under_any_scrubbing() {
        for (kind, kept) in [
            (SamplerKind::Ddpm { variance: Variance::FixedLarge }, 100),
            (SamplerKind::Ddim { eta: 0.5 }, 33),
            (SamplerKind::Ddim { eta: 0.0 }, 50),
        ] {
            let (_, whole, exact) = record(kind, kept, usize::MAX);
            for bytes in [10_000, 4_000, 1_000] {
                let (reel, mut part, _) = record(kind, kept, bytes);
                for doses in scrubbing(101) {
                    if let Some(state) = part.missing(doses, Quantity::State) {
                        let mut again = reel.again(state).unwrap();
                        while let Some((x, t)) = again.wants() {
                            assert_eq!(*x, exact[kept - again.sampler.steps_left()], "in full precision");
                            let eps = predict(x, t);
                            again.step(&eps).into_iter().for_each(|frame| part.insert(Arc::new(frame)));
                        }
                        again.picture().into_iter().for_each(|frame| part.insert(Arc::new(frame)));
                    }
                    assert_eq!(part.at(doses), whole.at(doses), "{kind:?} at {doses} within {bytes}");
                    assert!(part.len() <= reel.budget.frames);
                }
            }
        }
    }

    #[test]
    fn every_state_comes_again_in_full_precision_and_a_branch_from_it_with_nothing_changed_is_the_same_film() {
        let kind = SamplerKind::Ddpm { variance: Variance::FixedLarge };
        for bytes in [FORWARD_BYTES, 60_000, 10_000, 4_000, 1_000] {
            let (reel, whole, exact) = record(kind, 50, bytes);
            for (left, doses) in reel.process.states().into_iter().enumerate().skip(1) {
                let mut again = reel.state(doses).unwrap();
                while let Some((x, t)) = again.wants() {
                    let eps = predict(x, t);
                    assert!(again.step(&eps).is_none(), "nothing is shown on the way");
                }
                assert_eq!(*again.state().x(), exact[50 - left], "at {doses} within {bytes}");
                let mut branch = again.state().rule(kind, true).unwrap();
                let (mut own, _) = ReverseReel::new(&branch, whole.schedule(), 3, 0, BRANCH_BYTES);
                while let Some(t) = branch.wants() {
                    let eps = predict(branch.x(), t);
                    own.step(&mut branch, &eps).unwrap();
                    assert_eq!(*branch.x(), exact[50 - branch.steps_left()]);
                }
            }
            assert!(reel.state(0).is_some() && reel.state(4).is_none(), "50 of 100 steps pass no state at 4");
        }
    }

    #[test]
    fn a_film_that_fits_is_held_whole_and_one_that_was_stopped_comes_again_as_far_as_it_came() {
        let kind = SamplerKind::Ddim { eta: 0.0 };
        assert!(record(kind, 50, REVERSE_BYTES).0.again(50).is_none());
        let x = process::noise_images(3, Purpose::Start, 0, 0, 2, [3, 5, 4]);
        let full = schedule(100);
        let mut sampler = Sampler::new(Schedule::clone(&full), kind, true, x).unwrap();
        let (mut reel, _) = ReverseReel::new(&sampler, &full, 3, 0, 4_000);
        assert!(reel.again(100).is_none(), "nothing is computed yet");
        let eps = predict(sampler.x(), 99);
        reel.step(&mut sampler, &eps).unwrap();
        assert!(reel.again(100).is_some() && reel.again(101).is_none());
    }

    #[test]
    fn both_films_of_64_colour_pictures_in_1000_steps_stay_within_256_mib() {
        let (n, shape, full) = (64, [3, 32, 32], schedule(1000));
        let values = n * shape.iter().product::<usize>();
        let x = process::noise_images(3, Purpose::Start, 0, 0, n, shape);
        let (forward, film) = ForwardReel::record(Arc::clone(&full), &x, 1, FORWARD_BYTES);
        let forward_bytes = film.len() * values * 2 + forward.bytes();
        let mut sampler = Sampler::new(Schedule::clone(&full), SamplerKind::Ddim { eta: 0.0 }, true, x).unwrap();
        let (mut reel, mut film) = ReverseReel::new(&sampler, &full, 3, 0, REVERSE_BYTES);
        while sampler.wants().is_some() {
            let eps = Images { data: sampler.x().data.iter().map(|v| v * 0.9).collect(), ..*sampler.x() };
            film.insert(Arc::new(reel.step(&mut sampler, &eps).unwrap()));
        }
        film.insert(Arc::new(Frame::state(0, sampler.x())));
        let reverse_bytes = film.len() * values * 6 + reel.bytes();
        assert!(forward_bytes <= FORWARD_BYTES && reverse_bytes <= REVERSE_BYTES, "{forward_bytes} {reverse_bytes}");
        const { assert!(FORWARD_BYTES + REVERSE_BYTES + MOST_BRANCHES * BRANCH_BYTES <= 256 << 20) };
        assert!(forward_bytes + reverse_bytes > 130 << 20, "and use it: {forward_bytes} {reverse_bytes}");
        assert_eq!((forward.budget.every, reel.budget.every), (Some(32), Some(14)));
        assert!(forward.again(500).len() == 32 && reel.again(500).is_some());
    }
}
