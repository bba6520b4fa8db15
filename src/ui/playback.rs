//! Where the film is shown and how it moves: a plain state machine that knows nothing of windows or clocks.

/// Seconds that a film takes from noise to picture at speed 1, whatever T is.
pub const SECONDS: f64 = 10.0;
/// Selectable speeds.
pub const SPEEDS: [f64; 7] = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// A frame that took longer is a stall, after which the film does not jump: it moves on as if that much had passed.
const STALL: f64 = 1.0;

/// Which way the film runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The reverse process: t falls, a picture appears.
    ToImage,
    /// The forward process: t rises, the picture drowns.
    ToNoise,
}

/// What happens at the end of the film.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Repeat {
    /// Stop.
    Once,
    /// Start again from the other end.
    Loop,
    /// Run back.
    #[default]
    Bounce,
}

impl Repeat {
    /// The next choice, in a circle.
    pub fn next(self) -> Self {
        match self {
            Self::Once => Self::Loop,
            Self::Loop => Self::Bounce,
            Self::Bounce => Self::Once,
        }
    }
}

/// Whether the film moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Stands still.
    Paused,
    /// Runs through what is there.
    Playing,
    /// Runs behind a film that is still being computed, and waits for it.
    Following,
}

/// How much of the film is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The least noisy state so far, in doses; `None` while there is nothing.
    pub reached: Option<usize>,
    /// Whether more will come.
    pub growing: bool,
}

/// The playhead.
#[derive(Clone, Debug, PartialEq)]
pub struct Playback {
    steps: usize,
    /// Doses of noise, T at the noisy end; fractional, so that slow speeds are even.
    cursor: f64,
    /// Whether the film moves.
    pub mode: Mode,
    /// Which way it moves.
    pub direction: Direction,
    /// Multiple of T in ten seconds.
    pub speed: f64,
    /// What happens at the end.
    pub repeat: Repeat,
    /// Time to rest on the last state before the film repeats, in seconds.
    rest: f64,
    /// The noisier end of the part that repeats, if it is not x_T.
    mark_in: Option<usize>,
    /// The other end, if it is not x_0.
    mark_out: Option<usize>,
}

/// Seconds for which a repeating film shows each end.
const REST: f64 = 1.0;

impl Default for Playback {
    fn default() -> Self {
        Self {
            steps: 1000,
            cursor: 1000.0,
            mode: Mode::Paused,
            direction: Direction::ToImage,
            speed: 1.0,
            repeat: Repeat::default(),
            rest: 0.0,
            mark_in: None,
            mark_out: None,
        }
    }
}

impl Playback {
    /// T.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The state to show, in doses: T is noise, 0 the picture.
    pub fn doses(&self) -> usize {
        self.cursor.round() as usize
    }

    /// A new film of T `steps` begins in the state at `doses`, behind its computation.
    pub fn restart(&mut self, steps: usize, doses: usize) {
        self.set_steps(steps);
        self.cursor = doses.min(steps) as f64;
        self.direction = Direction::ToImage;
        self.mode = Mode::Following;
        self.rest = 0.0;
    }

    /// Keeps the place on a film of another length.
    pub fn set_steps(&mut self, steps: usize) {
        if steps != self.steps {
            self.cursor = self.cursor / self.steps.max(1) as f64 * steps as f64;
            self.steps = steps;
            self.whole_film();
        }
    }

    /// Both ends of the part that repeats, the noisier one first, where they were set.
    pub fn marks(&self) -> [Option<usize>; 2] {
        [self.mark_in, self.mark_out]
    }

    /// From here on the film repeats; an end of the film takes the mark away.
    pub fn set_in(&mut self) {
        let here = self.doses();
        self.mark_in = (1..self.steps).contains(&here).then_some(here);
        self.mark_out = self.mark_out.filter(|out| self.mark_in.is_none_or(|here| *out < here));
    }

    /// Up to here the film repeats; an end of the film takes the mark away.
    pub fn set_out(&mut self) {
        let here = self.doses();
        self.mark_out = (1..self.steps).contains(&here).then_some(here);
        self.mark_in = self.mark_in.filter(|start| self.mark_out.is_none_or(|here| *start > here));
    }

    /// The whole film repeats.
    pub fn whole_film(&mut self) {
        (self.mark_in, self.mark_out) = (None, None);
    }

    /// Goes to a state and stays there.
    pub fn seek(&mut self, doses: usize) {
        self.cursor = doses.min(self.steps) as f64;
        self.mode = Mode::Paused;
        self.rest = 0.0;
    }

    /// Goes `n` states towards the picture, or towards noise if negative, and stays there.
    pub fn step(&mut self, n: isize) {
        self.seek(self.doses().saturating_add_signed(-n));
    }

    /// Plays or pauses; from an end that lies in its direction the film turns round or starts over.
    pub fn toggle(&mut self) {
        match (self.mode, self.repeat) {
            (Mode::Paused, Repeat::Bounce) if self.is_over() => {
                self.turn();
                self.play(self.direction);
            }
            (Mode::Paused, _) => self.play(self.direction),
            (Mode::Playing | Mode::Following, _) => self.pause(),
        }
    }

    /// Plays in that direction; from an end that lies there the film starts over.
    pub fn play(&mut self, direction: Direction) {
        self.direction = direction;
        if self.is_over() {
            self.cursor = self.beginning();
        }
        self.mode = Mode::Playing;
        self.rest = 0.0;
    }

    /// Whether the playhead stands where its direction ends.
    fn is_over(&self) -> bool {
        (self.cursor - self.end()).abs() < 0.5
    }

    /// Plays in that direction; a film that already does goes faster.
    pub fn shuttle(&mut self, direction: Direction) {
        if self.mode == Mode::Paused || self.direction != direction {
            self.play(direction);
        } else {
            self.change_speed(true);
        }
    }

    /// Stands still.
    pub fn pause(&mut self) {
        self.mode = Mode::Paused;
        self.rest = 0.0;
    }

    /// Turns round.
    pub fn turn(&mut self) {
        self.direction = match self.direction {
            Direction::ToImage => Direction::ToNoise,
            Direction::ToNoise => Direction::ToImage,
        };
        self.rest = 0.0;
    }

    /// The next selectable speed up or down.
    pub fn change_speed(&mut self, faster: bool) {
        let next = if faster {
            SPEEDS.into_iter().find(|s| *s > self.speed)
        } else {
            SPEEDS.into_iter().rev().find(|s| *s < self.speed)
        };
        self.speed = next.unwrap_or(self.speed);
    }

    /// Moves by `dt` seconds through a film of that extent, however many frames they are cut into. Says whether it needs
    /// another frame by itself; a playhead that waits for the computation does not, for each new state is announced.
    #[must_use]
    pub fn advance(&mut self, dt: f64, extent: Extent) -> bool {
        let Some(reached) = extent.reached.filter(|_| self.mode != Mode::Paused) else { return false };
        let mut left = dt.clamp(0.0, STALL);
        loop {
            let rested = self.rest.min(left);
            self.rest -= rested;
            left -= rested;
            if self.rest > 0.0 {
                return true;
            }
            if rested > 0.0 {
                self.start_over();
                if self.mode == Mode::Paused {
                    return false;
                }
            }
            let frontier = reached as f64;
            let end = match self.direction {
                // after a scrub into the part to come, the film waits there rather than jump back
                Direction::ToImage => self.end().max(frontier).min(self.cursor),
                Direction::ToNoise => self.end(),
            };
            let waits =
                extent.growing && self.direction == Direction::ToImage && self.cursor.min(frontier) > self.end();
            let rate = self.steps as f64 * self.speed / SECONDS;
            let way = end - self.cursor;
            if left * rate < way.abs() {
                self.cursor += way.signum() * left * rate;
                if !(extent.growing && self.direction == Direction::ToImage) {
                    self.mode = Mode::Playing;
                }
                return true;
            }
            left -= way.abs() / rate.max(f64::MIN_POSITIVE);
            self.cursor = end;
            if waits {
                self.mode = Mode::Following;
                return false;
            }
            self.mode = Mode::Playing;
            if self.repeat == Repeat::Once {
                self.mode = Mode::Paused;
                return false;
            }
            self.rest = REST;
        }
    }

    fn start_over(&mut self) {
        match self.repeat {
            Repeat::Once => self.mode = Mode::Paused,
            Repeat::Loop => self.cursor = self.beginning(),
            Repeat::Bounce => self.turn(),
        }
    }

    /// Where a pass in this direction begins.
    fn beginning(&self) -> f64 {
        match self.direction {
            Direction::ToImage => self.mark_in.unwrap_or(self.steps) as f64,
            Direction::ToNoise => self.mark_out.unwrap_or(0) as f64,
        }
    }

    /// Where a pass in this direction ends; a playhead beyond that mark goes on to the end of the film.
    fn end(&self) -> f64 {
        match self.direction {
            Direction::ToImage => {
                self.mark_out.map_or(0.0, |out| if self.cursor >= out as f64 { out as f64 } else { 0.0 })
            }
            Direction::ToNoise => {
                let all = self.steps as f64;
                self.mark_in.map_or(all, |start| if self.cursor <= start as f64 { start as f64 } else { all })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Extent = Extent { reached: Some(0), growing: false };

    fn playing(steps: usize) -> Playback {
        let mut p = Playback::default();
        p.restart(steps, steps);
        p
    }

    /// Seconds until the playhead first shows `doses`.
    fn seconds_to(p: &mut Playback, doses: usize, extent: Extent) -> f64 {
        (0..10_000).find(|_| p.doses() == doses || !p.advance(0.01, extent)).unwrap() as f64 * 0.01
    }

    #[test]
    fn a_film_takes_ten_seconds_whatever_its_length_is() {
        for steps in [10, 250, 1000, 4000] {
            let seconds = seconds_to(&mut playing(steps), 0, WHOLE);
            assert!((9.4..=10.1).contains(&seconds), "T = {steps}: {seconds} s");
        }
        let mut fast = playing(1000);
        fast.speed = 4.0;
        assert!((2.4..2.6).contains(&seconds_to(&mut fast, 0, WHOLE)));
    }

    #[test]
    fn a_stall_moves_the_film_by_a_second_at_most() {
        let mut p = playing(1000);
        assert!(p.advance(5.0, WHOLE));
        assert_eq!(p.doses(), 900);
        assert!(p.advance(-3.0, WHOLE));
        assert_eq!(p.doses(), 900);
    }

    #[test]
    fn the_speed_is_the_same_at_any_frame_rate() {
        for repeat in [Repeat::Loop, Repeat::Bounce] {
            let place_after = |seconds: usize, rate: usize| {
                let mut p = playing(1000);
                (p.repeat, p.speed) = (repeat, 2.0);
                for _ in 0..seconds * rate {
                    assert!(p.advance(1.0 / rate as f64, WHOLE));
                }
                (p.cursor, p.direction)
            };
            for seconds in [3, 8, 21, 40] {
                let (smooth, way) = place_after(seconds, 240);
                for rate in [60, 25, 7, 2] {
                    let (place, same_way) = place_after(seconds, rate);
                    assert!((place - smooth).abs() < 1e-6 && way == same_way, "{repeat:?}, {seconds} s at {rate}");
                }
            }
        }
    }

    #[test]
    fn following_waits_at_the_newest_state_without_asking_for_frames() {
        let mut p = playing(1000);
        assert!(!p.advance(0.1, Extent { reached: None, growing: true }));
        assert_eq!((p.doses(), p.mode), (1000, Mode::Following));
        let extent = Extent { reached: Some(995), growing: true };
        assert!(!p.advance(0.1, extent), "it waits");
        assert_eq!((p.doses(), p.mode), (995, Mode::Following));
        assert!(p.advance(0.01, Extent { reached: Some(900), growing: true }), "it moves on");
        assert_eq!(p.doses(), 994);
        assert!(p.advance(0.01, Extent { reached: Some(0), growing: false }));
        assert_eq!(p.mode, Mode::Playing);
    }

    #[test]
    fn playing_from_the_part_to_come_waits_there() {
        let mut p = playing(1000);
        p.seek(300);
        p.toggle();
        assert!(!p.advance(0.1, Extent { reached: Some(600), growing: true }));
        assert_eq!((p.doses(), p.mode), (300, Mode::Following));
        assert!(p.advance(0.1, Extent { reached: Some(200), growing: true }));
        assert_eq!(p.doses(), 290);
    }

    #[test]
    fn at_the_end_it_stops_loops_or_turns() {
        for (repeat, mode, doses, direction) in [
            (Repeat::Once, Mode::Paused, 0, Direction::ToImage),
            (Repeat::Loop, Mode::Playing, 1000, Direction::ToImage),
            (Repeat::Bounce, Mode::Playing, 0, Direction::ToNoise),
        ] {
            let mut p = playing(1000);
            p.repeat = repeat;
            p.cursor = 10.0;
            let again = p.advance(0.1, WHOLE);
            assert_eq!((p.doses(), again), (0, repeat != Repeat::Once), "each end is shown");
            for _ in 0..10 {
                assert_eq!(p.doses(), 0, "and rests a second");
                assert_eq!(p.advance(0.1, WHOLE), repeat != Repeat::Once);
            }
            // binary fractions of 0.1 may leave a last sliver of the rest
            if repeat != Repeat::Once && p.rest > 0.0 {
                assert!(p.advance(0.001, WHOLE));
            }
            assert_eq!((p.mode, p.doses(), p.direction), (mode, doses, direction), "{repeat:?}");
        }
    }

    #[test]
    fn a_film_that_was_stopped_ends_where_it_stopped() {
        let mut p = playing(1000);
        p.repeat = Repeat::Once;
        p.cursor = 705.0;
        assert!(!p.advance(0.1, Extent { reached: Some(700), growing: false }));
        assert_eq!((p.doses(), p.mode), (700, Mode::Paused));
    }

    #[test]
    fn both_directions_play_to_their_end_and_start_over_from_it() {
        let mut p = playing(100);
        p.repeat = Repeat::Once;
        p.play(Direction::ToNoise);
        assert_eq!(p.doses(), 0, "from the noisy end the forward film starts over");
        assert!((9.8..=10.1).contains(&seconds_to(&mut p, 100, WHOLE)));
        p.seek(40);
        p.play(Direction::ToImage);
        assert_eq!((p.doses(), p.mode), (40, Mode::Playing));
    }

    #[test]
    fn a_film_that_goes_there_and_back_turns_at_its_ends() {
        let mut p = playing(1000);
        for (end, direction, first) in [(1000, Direction::ToImage, 990), (0, Direction::ToNoise, 10)] {
            // whichever way it went before
            for before in [Direction::ToImage, Direction::ToNoise] {
                (p.direction, p.repeat) = (before, Repeat::Bounce);
                p.seek(end);
                p.toggle();
                assert!(p.advance(0.1, WHOLE));
                assert_eq!((p.doses(), p.direction), (first, direction));
            }
        }
        p.seek(0);
        p.play(Direction::ToImage);
        assert_eq!((p.doses(), p.direction), (1000, Direction::ToImage), "asked for a direction, it starts over");
    }

    #[test]
    fn a_part_repeats_between_its_marks() {
        let mut p = playing(1000);
        p.seek(800);
        p.set_in();
        p.seek(700);
        p.set_out();
        assert_eq!(p.marks(), [Some(800), Some(700)]);
        p.repeat = Repeat::Loop;
        p.toggle();
        assert_eq!(p.doses(), 800, "from the end of the part it starts over");
        assert!(p.advance(0.5, WHOLE) && p.doses() == 750);
        assert!(p.advance(1.0, WHOLE) && p.doses() == 700);
        assert!(p.advance(0.8, WHOLE) && p.doses() == 770, "after the rest it starts over at the mark");
        p.repeat = Repeat::Bounce;
        p.play(Direction::ToNoise);
        assert!(p.advance(0.6, WHOLE) && p.doses() == 800);
        assert!(p.advance(1.0, WHOLE) && p.doses() == 770 && p.direction == Direction::ToImage);
        // beyond its mark the film goes on
        p.seek(300);
        p.toggle();
        assert!(p.advance(1.0, WHOLE) && p.doses() == 200);
    }

    #[test]
    fn marks_that_would_leave_nothing_go() {
        let mut p = playing(1000);
        p.seek(500);
        p.set_out();
        p.seek(400);
        p.set_in();
        assert_eq!(p.marks(), [Some(400), None]);
        p.seek(600);
        p.set_out();
        assert_eq!(p.marks(), [None, Some(600)]);
        p.seek(0);
        p.set_out();
        p.seek(1000);
        p.set_in();
        assert_eq!(p.marks(), [None, None], "the ends of the film are no marks");
        p.seek(300);
        p.set_in();
        p.set_steps(1000);
        assert_eq!(p.marks(), [Some(300), None], "another film of this length keeps them");
        p.set_steps(50);
        assert_eq!(p.marks(), [None, None]);
    }

    #[test]
    fn the_shuttle_plays_speeds_up_and_turns() {
        let mut p = playing(1000);
        p.seek(500);
        p.shuttle(Direction::ToImage);
        assert_eq!((p.mode, p.direction, p.speed), (Mode::Playing, Direction::ToImage, 1.0));
        p.shuttle(Direction::ToImage);
        assert_eq!(p.speed, 2.0);
        p.shuttle(Direction::ToNoise);
        assert_eq!((p.mode, p.direction, p.speed), (Mode::Playing, Direction::ToNoise, 2.0));
        p.pause();
        assert_eq!((p.mode, p.doses()), (Mode::Paused, 500));
    }

    #[test]
    fn steps_and_seeks_pause_and_stay_inside() {
        let mut p = playing(1000);
        p.step(10);
        assert_eq!((p.doses(), p.mode), (990, Mode::Paused));
        p.step(-100);
        assert_eq!(p.doses(), 1000);
        p.seek(0);
        p.step(1);
        assert_eq!(p.doses(), 0);
        p.seek(usize::MAX);
        assert_eq!(p.doses(), 1000);
        assert!(!p.advance(0.1, WHOLE), "paused needs no frames");
        p.set_steps(50);
        assert_eq!(p.doses(), 50, "another length keeps the place");
    }

    #[test]
    fn speeds_stay_in_their_table() {
        let mut p = Playback::default();
        for _ in 0..9 {
            p.change_speed(true);
        }
        assert_eq!(p.speed, 8.0);
        for _ in 0..9 {
            p.change_speed(false);
        }
        assert_eq!(p.speed, 0.1);
        for _ in 0..6 {
            p.turn();
        }
        assert_eq!(p.direction, Direction::ToImage);
        assert_eq!(Repeat::Once.next().next().next(), Repeat::Once);
    }
}
