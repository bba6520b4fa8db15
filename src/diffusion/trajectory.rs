//! Films: the states of a process, addressed by how many doses of noise they hold.

use super::Images;
use super::reel::ForwardReel;
use super::sampler::Coefficients;
use super::schedule::Schedule;
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use std::collections::VecDeque;
use std::sync::Arc;

/// One state of a film. Values are kept in half precision: a sixteenth of an 8-bit grey level at worst.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Doses of noise: T is static, 0 the picture.
    pub doses: usize,
    x: Vec<f16>,
    prediction: Option<Prediction>,
}

#[derive(Clone, Debug, PartialEq)]
struct Prediction {
    eps: Vec<f16>,
    // kept, not derived: at the noisy end Eq. 15 would enlarge the rounding of x a hundredfold
    xstart: Vec<f16>,
    step: Coefficients,
}

impl Frame {
    /// A state of a film without predictions.
    pub fn state(doses: usize, x: &Images) -> Self {
        Self { doses, x: to_half(&x.data), prediction: None }
    }

    /// x_t with the ε̂ predicted in it, the x̂_0 that follows, and the weights of the step taken from it.
    pub fn predicted(doses: usize, x: &Images, eps: &Images, xstart: &Images, step: Coefficients) -> Self {
        let prediction = Prediction { eps: to_half(&eps.data), xstart: to_half(&xstart.data), step };
        Self { prediction: Some(prediction), ..Self::state(doses, x) }
    }

    /// x_t in half precision, little-endian, for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.x.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// A state without predictions of what [`Frame::to_bytes`] gave.
    pub fn from_bytes(doses: usize, bytes: &[u8]) -> Self {
        let value = |pair: &[u8; 2]| f16::from_le_bytes(*pair);
        Self { doses, x: bytes.as_chunks().0.iter().map(value).collect(), prediction: None }
    }

    /// x_t as `n` pictures of that shape; `None` if it is not so many values.
    pub fn pictures(&self, n: usize, shape: [usize; 3]) -> Option<Images> {
        let fits = self.x.len() == n * shape.iter().product::<usize>();
        fits.then(|| Images::new(n, shape, self.x.to_f32_vec()))
    }

    /// The weights of the step that leaves this state, on a reverse film.
    pub fn step(&self) -> Option<Coefficients> {
        self.prediction.as_ref().map(|p| p.step)
    }
}

fn to_half(x: &[f32]) -> Vec<f16> {
    let mut y = vec![f16::ZERO; x.len()];
    y.convert_from_f32_slice(x);
    y
}

/// A film of `n` pictures; frames arrive in any order and are shared, never copied. One that may not hold all its
/// frames keeps evenly spaced ones and the newest others; what is missing can be computed again, see
/// [`reel`](super::reel).
#[derive(Clone, Debug)]
pub struct Trajectory {
    n: usize,
    shape: [usize; 3],
    schedule: Arc<Schedule>,
    frames: Vec<Option<Arc<Frame>>>,
    /// Doses of the states that the film passes, rising from 0.
    states: Arc<[usize]>,
    /// Frames held at most.
    most: usize,
    /// Doses of the frames that may go, the oldest first.
    passing: VecDeque<usize>,
    reached: Option<usize>,
}

/// What to look at in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// x_t itself.
    State,
    /// x̂_0 (Eq. 15), clipped to [-1, 1] where the film clips.
    PredictedStart,
    /// ε̂: what a network predicts, what follows from its v̂, or the oracle's.
    PredictedNoise,
    /// x_{t-1} - x_t, what the step from this state changes.
    Dose,
}

impl Trajectory {
    /// An empty film on the full `schedule`.
    pub fn new(n: usize, shape: [usize; 3], schedule: Arc<Schedule>) -> Self {
        let (frames, states) = (vec![None; schedule.steps() + 1], (0..=schedule.steps()).collect());
        Self { n, shape, schedule, frames, states, most: usize::MAX, passing: VecDeque::new(), reached: None }
    }

    /// A film that only passes these `states`, in doses rising from 0, and holds at most so many frames.
    pub fn with_states(self, states: Arc<[usize]>, most: usize) -> Self {
        Self { states, most, ..self }
    }

    /// The film of the forward process as a chain of single doses (Eq. 2), noise by address; all of it.
    pub fn forward(schedule: Arc<Schedule>, x_start: &Images, seed: u64) -> Self {
        ForwardReel::record(schedule, x_start, seed, usize::MAX).1
    }

    /// Number of pictures.
    pub fn n(&self) -> usize {
        self.n
    }

    /// [c, h, w] of each picture.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// T.
    pub fn steps(&self) -> usize {
        self.schedule.steps()
    }

    /// The full schedule the film runs on.
    pub fn schedule(&self) -> &Arc<Schedule> {
        &self.schedule
    }

    /// Files a frame under its doses; one that does not fit this film is ignored.
    pub fn insert(&mut self, frame: Arc<Frame>) {
        if frame.x.len() == self.n * self.shape.iter().product::<usize>()
            && let Some(slot) = self.frames.get_mut(frame.doses)
        {
            let doses = frame.doses;
            let new = slot.replace(frame).is_none();
            self.reached = Some(self.reached.map_or(doses, |reached| reached.min(doses)));
            if new && !self.stays(doses) {
                self.passing.push_back(doses);
                // the evenly spaced frames are half of `most`
                if self.passing.len() > self.most - self.most / 2
                    && let Some(oldest) = self.passing.pop_front()
                {
                    self.frames[oldest] = None;
                }
            }
        }
    }

    /// Whether the frame at `doses` is one of the evenly spaced ones, half of those that may be held.
    fn stays(&self, doses: usize) -> bool {
        let stride = self.states.len().div_ceil((self.most / 2).max(1));
        self.most >= self.states.len() || self.states.binary_search(&doses).is_ok_and(|i| i.is_multiple_of(stride))
    }

    /// The state that the film is in at `doses`: that one, or the nearest noisier one, or else the noisiest.
    pub fn state(&self, doses: usize) -> usize {
        let i = self.states.partition_point(|state| *state < doses).min(self.states.len() - 1);
        self.states[i]
    }

    /// The state `n` states nearer to the picture, or to noise if negative, than the one at `doses`; `None` before its
    /// beginning.
    pub fn states_away(&self, doses: usize, n: isize) -> Option<usize> {
        let here = self.states.partition_point(|state| *state < doses);
        self.states.get(here)?;
        self.states.get(here.saturating_add_signed(-n)).copied()
    }

    /// The noisiest state, where a reverse film begins.
    pub fn beginning(&self) -> usize {
        self.state(usize::MAX)
    }

    /// The state after that one on the way to the picture.
    fn next_state(&self, state: usize) -> Option<usize> {
        self.states[..self.states.partition_point(|s| *s < state)].last().copied()
    }

    /// The state that has to be computed again before `quantity` can be shown at `doses`; `None` if all is there, or
    /// the film has not come so far.
    pub fn missing(&self, doses: usize, quantity: Quantity) -> Option<usize> {
        let state = self.state(doses);
        let next = self.next_state(state).filter(|_| quantity == Quantity::Dose);
        let passed = |state: &usize| self.reached.is_some_and(|reached| *state >= reached);
        [Some(state), next].into_iter().flatten().filter(passed).find(|state| self.frames[*state].is_none())
    }

    /// The state to show at `doses`: that very frame, or the nearest noisier one, the state the film is in on its way
    /// from noise; before its first state, the first. `None` while there is no frame, and past T.
    pub fn at(&self, doses: usize) -> Option<&Arc<Frame>> {
        if doses > self.steps() {
            return None;
        }
        self.frames[doses..].iter().flatten().next().or_else(|| self.frames.iter().rev().flatten().next())
    }

    /// This film down to the state at `doses`, and from there on the `branch` that leaves it there, as far as that has come.
    /// It has all frames that the two hold.
    pub fn left_at(&self, doses: usize, branch: Option<&Self>) -> Self {
        let most = branch.map_or(self.most, |branch| branch.most.min(self.most));
        let mut film = Self { most, passing: VecDeque::new(), ..self.clone() };
        for (i, frame) in film.frames.iter_mut().enumerate().take(doses + 1) {
            *frame = branch.and_then(|branch| branch.frames.get(i)?.clone());
        }
        let before = self.states.iter().copied().find(|state| *state > doses);
        let passed = before.zip(self.reached).map(|(before, reached)| before.max(reached));
        film.reached = branch.and_then(Self::reached).or(passed);
        film
    }

    /// The least noisy frame so far: how far a film from noise has come.
    pub fn reached(&self) -> Option<usize> {
        self.reached
    }

    /// Number of frames held.
    pub fn len(&self) -> usize {
        self.frames.iter().flatten().count()
    }

    /// Whether no frame is held.
    pub fn is_empty(&self) -> bool {
        self.frames.iter().all(Option::is_none)
    }

    /// One value of [`Trajectory::view`], the `i`-th of all pictures'; `None` where that is or past the last.
    pub fn value(&self, frame: &Frame, quantity: Quantity, i: usize) -> Option<f32> {
        let values = match (quantity, &frame.prediction) {
            (Quantity::State, _) => &frame.x,
            (Quantity::PredictedStart, _) if frame.doses == 0 => &frame.x,
            (Quantity::PredictedStart, Some(prediction)) => &prediction.xstart,
            (Quantity::PredictedNoise, Some(prediction)) => &prediction.eps,
            (Quantity::Dose, _) => {
                let next = self.frames[self.next_state(frame.doses)?].as_ref()?;
                return Some(next.x.get(i)?.to_f32() - frame.x.get(i)?.to_f32());
            }
            (_, None) => return None,
        };
        values.get(i).map(|v| v.to_f32())
    }

    /// What `quantity` looked like at `frame`; `None` where the frame holds no prediction.
    pub fn view(&self, frame: &Frame, quantity: Quantity) -> Option<Images> {
        let images = |half: &[f16]| Images::new(self.n, self.shape, half.to_f32_vec());
        match quantity {
            Quantity::State => Some(images(&frame.x)),
            // nothing is left to predict at the end of the film: the picture is its own x_0
            Quantity::PredictedStart if frame.doses == 0 => Some(images(&frame.x)),
            Quantity::PredictedStart => Some(images(&frame.prediction.as_ref()?.xstart)),
            Quantity::PredictedNoise => Some(images(&frame.prediction.as_ref()?.eps)),
            Quantity::Dose => {
                let next = self.frames[self.next_state(frame.doses)?].as_ref()?;
                let change = next.x.iter().zip(&frame.x).map(|(next, x)| next.to_f32() - x.to_f32());
                Some(Images::new(self.n, self.shape, change.collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::ScheduleConfig;
    use super::*;

    fn film() -> Trajectory {
        let schedule = Arc::new(Schedule::new(&ScheduleConfig { steps: 50, ..Default::default() }).unwrap());
        let x0 = Images::new(2, [1, 2, 2], vec![1.0, -1.0, 0.5, 0.0, 0.25, -0.25, 1.0, -1.0]);
        Trajectory::forward(schedule, &x0, 9)
    }

    #[test]
    fn every_step_of_the_forward_film_is_addressable_and_repeatable() {
        let (a, b) = (film(), film());
        assert_eq!(a.len(), 51);
        for doses in (0..=50).rev() {
            assert_eq!(a.at(doses).unwrap().doses, doses);
            assert_eq!(a.at(doses), b.at(doses));
        }
        assert_eq!(a.view(a.at(0).unwrap(), Quantity::State).unwrap().one(0), [1.0, -1.0, 0.5, 0.0]);
        assert_ne!(a.at(50).unwrap().x, a.at(49).unwrap().x);
        assert!(a.at(51).is_none());
    }

    #[test]
    fn a_film_under_way_shows_the_last_state_it_passed() {
        let whole = film();
        let mut part = Trajectory::new(2, [1, 2, 2], Arc::clone(whole.schedule()));
        assert!(part.at(50).is_none() && part.is_empty());
        for doses in [48, 40, 30] {
            part.insert(Arc::clone(whole.at(doses).unwrap()));
        }
        assert_eq!(part.reached(), Some(30));
        assert_eq!(part.at(50).unwrap().doses, 48, "a film of fewer steps starts below T");
        assert_eq!(part.at(35).unwrap().doses, 40);
        assert_eq!(part.at(10).unwrap().doses, 30);
        part.insert(Arc::new(Frame::state(7, &Images::zeros(9, [1, 2, 2]))));
        assert_eq!(part.reached(), Some(30), "a frame of another film is not taken in");
    }

    #[test]
    fn a_bounded_film_holds_evenly_spaced_frames_and_the_newest() {
        let whole = film();
        let states: Arc<[usize]> = (0..=50).collect();
        let mut part = Trajectory::new(2, [1, 2, 2], Arc::clone(whole.schedule())).with_states(states, 10);
        for doses in (0..=50).rev() {
            part.insert(Arc::clone(whole.at(doses).unwrap()));
            assert!(part.len() <= 10 && part.missing(doses, Quantity::State).is_none());
        }
        assert_eq!(part.reached(), Some(0));
        let held: Vec<usize> = (0..=50).filter(|d| part.missing(*d, Quantity::State).is_none()).collect();
        assert_eq!(held, [0, 1, 2, 3, 4, 5, 11, 22, 33, 44], "five evenly spaced, the last five");
        assert_eq!((part.missing(30, Quantity::State), part.at(30).unwrap().doses), (Some(30), 33));
        // what is computed again takes the place of what was least lately computed
        part.insert(Arc::clone(whole.at(30).unwrap()));
        assert_eq!((part.missing(30, Quantity::State), part.missing(5, Quantity::State)), (None, Some(5)));
        assert_eq!(part.missing(30, Quantity::Dose), Some(29), "a dose is between two states");
    }

    #[test]
    fn a_branch_has_its_parents_frames_down_to_where_it_leaves_and_its_own_after() {
        let whole = film();
        let other = Trajectory::forward(Arc::clone(whole.schedule()), &Images::zeros(2, [1, 2, 2]), 4);
        let mut own = Trajectory::new(2, [1, 2, 2], Arc::clone(whole.schedule())).with_states((0..=20).collect(), 10);
        let waiting = whole.left_at(20, None);
        assert_eq!((waiting.reached(), waiting.at(5).unwrap().doses), (Some(21), 21), "as far as the state before");
        for doses in (5..=20).rev() {
            own.insert(Arc::clone(other.at(doses).unwrap()));
        }
        let branch = whole.left_at(20, Some(&own));
        assert_eq!((branch.reached(), branch.beginning(), branch.steps()), (Some(5), 50, 50));
        assert!((21..=50).all(|doses| Arc::ptr_eq(branch.at(doses).unwrap(), whole.at(doses).unwrap())));
        assert_eq!(branch.at(20), other.at(20));
        let missing = |film: &Trajectory| (5..=20).filter(|d| film.missing(*d, Quantity::State).is_some()).count();
        assert_eq!((missing(&own), missing(&branch)), (7, 7), "what its own film left out, it leaves out, too");
        // a branch of the branch, and one of a film that is still on its way
        let twig = branch.left_at(30, None).left_at(10, Some(&own));
        assert_eq!((twig.at(31), twig.at(25).unwrap().doses, twig.at(8)), (whole.at(31), 31, own.at(8)));
        let mut part = Trajectory::new(2, [1, 2, 2], Arc::clone(whole.schedule()));
        (40..=50).rev().for_each(|doses| part.insert(Arc::clone(whole.at(doses).unwrap())));
        assert_eq!(part.left_at(20, None).reached(), Some(40), "it has not come to where it will be left");
        assert_eq!(part.left_at(50, None).reached(), None, "nothing is before its first state");
    }

    #[test]
    fn the_dose_is_what_the_next_state_changes() {
        let schedule = Arc::clone(film().schedule());
        let mut part = Trajectory::new(1, [1, 1, 2], schedule).with_states([0, 10, 20].into(), 3);
        for (doses, x) in [(20, [1.0, 0.5]), (10, [0.25, 0.75]), (0, [0.0, 1.0])] {
            part.insert(Arc::new(Frame::state(doses, &Images::new(1, [1, 1, 2], x.to_vec()))));
        }
        let dose = |doses: usize| part.view(part.at(doses).unwrap(), Quantity::Dose).map(|images| images.data);
        assert_eq!(dose(20), Some(vec![-0.75, 0.25]));
        assert_eq!(dose(7), Some(vec![-0.25, 0.25]), "the film is in the state before");
        assert_eq!((dose(0), part.missing(50, Quantity::Dose)), (None, None));
    }

    #[test]
    fn a_frame_gives_back_what_was_predicted_in_it() {
        let whole = film();
        let x = whole.view(whole.at(20).unwrap(), Quantity::State).unwrap();
        let constant = |v| Images::new(2, [1, 2, 2], vec![v; 8]);
        let (eps, xstart) = (constant(0.5), constant(-0.25));
        let c = Coefficients { x_t: 0.5, xstart: 0.5, eps: 0.0, noise: 0.1 };
        let frame = Frame::predicted(20, &x, &eps, &xstart, c);
        assert_eq!(whole.view(&frame, Quantity::State), Some(x));
        assert_eq!(whole.view(&frame, Quantity::PredictedNoise), Some(eps));
        assert_eq!(whole.view(&frame, Quantity::PredictedStart), Some(xstart));
        assert_eq!(frame.step(), Some(c));
        let again = Frame::from_bytes(20, &frame.to_bytes());
        assert_eq!(whole.view(&again, Quantity::State), whole.view(&frame, Quantity::State));
        for quantity in [Quantity::State, Quantity::PredictedStart, Quantity::PredictedNoise] {
            let all = whole.view(&frame, quantity).unwrap();
            assert_eq!(whole.value(&frame, quantity, 5), Some(all.data[5]));
            assert_eq!(whole.value(&frame, quantity, 8), None);
        }
        assert!(whole.view(whole.at(20).unwrap(), Quantity::PredictedNoise).is_none());
    }
}
