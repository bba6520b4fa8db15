//! Where the film is shown and how it moves: a plain state machine that knows nothing of windows or clocks.

/// Seconds that a film takes from noise to picture at speed 1, whatever T is.
pub const SECONDS: f64 = 10.0;
/// Selectable speeds.
pub const SPEEDS: [f64; 6] = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0];
/// A frame that took longer moves the film no further, so that it never jumps after a stall.
const DT_MAX: f64 = 0.1;

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

    /// A new film of T `steps` begins: from noise, behind its computation.
    pub fn restart(&mut self, steps: usize) {
        self.set_steps(steps);
        self.cursor = steps as f64;
        self.direction = Direction::ToImage;
        self.mode = Mode::Following;
        self.rest = 0.0;
    }

    /// Keeps the place on a film of another length.
    pub fn set_steps(&mut self, steps: usize) {
        self.cursor = self.cursor / self.steps.max(1) as f64 * steps as f64;
        self.steps = steps;
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

    /// Plays or pauses; from an end that lies in its direction the film starts over.
    pub fn toggle(&mut self) {
        self.mode = match self.mode {
            Mode::Paused => {
                if self.at_end() {
                    self.cursor = match self.direction {
                        Direction::ToImage => self.steps as f64,
                        Direction::ToNoise => 0.0,
                    };
                }
                Mode::Playing
            }
            Mode::Playing | Mode::Following => Mode::Paused,
        };
        self.rest = 0.0;
    }

    /// Plays in that direction.
    pub fn play(&mut self, direction: Direction) {
        self.direction = direction;
        self.mode = Mode::Paused;
        self.toggle();
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

    /// Moves by `dt` seconds through a film of that extent. Says whether it needs another frame by itself; a playhead
    /// that waits for the computation does not, for each new state is announced.
    #[must_use]
    pub fn advance(&mut self, dt: f64, extent: Extent) -> bool {
        if self.mode == Mode::Paused {
            return false;
        }
        let Some(reached) = extent.reached else { return false };
        let dt = dt.clamp(0.0, DT_MAX);
        if self.rest > 0.0 {
            self.rest -= dt;
            if self.rest <= 0.0 {
                self.start_over();
            }
            return true;
        }
        let way = self.steps as f64 * dt * self.speed / SECONDS;
        let ended = match self.direction {
            Direction::ToImage => {
                let frontier = reached as f64;
                // after a scrub into the part to come, the film waits there rather than jump back
                self.cursor = (self.cursor - way).max(frontier.min(self.cursor));
                let waits = self.cursor <= frontier;
                if extent.growing {
                    self.mode = if waits { Mode::Following } else { self.mode };
                    return !waits;
                }
                // a film that was stopped ends where it stopped
                waits
            }
            Direction::ToNoise => {
                self.cursor = (self.cursor + way).min(self.steps as f64);
                self.at_end()
            }
        };
        self.mode = Mode::Playing;
        if ended {
            match self.repeat {
                Repeat::Once => self.mode = Mode::Paused,
                Repeat::Loop | Repeat::Bounce => self.rest = REST,
            }
        }
        self.mode != Mode::Paused
    }

    fn start_over(&mut self) {
        self.rest = 0.0;
        match (self.repeat, self.direction) {
            (Repeat::Once, _) => self.mode = Mode::Paused,
            (Repeat::Bounce, _) => self.turn(),
            (Repeat::Loop, Direction::ToImage) => self.cursor = self.steps as f64,
            (Repeat::Loop, Direction::ToNoise) => self.cursor = 0.0,
        }
    }

    fn at_end(&self) -> bool {
        match self.direction {
            Direction::ToImage => self.cursor <= 0.0,
            Direction::ToNoise => self.cursor >= self.steps as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Extent = Extent { reached: Some(0), growing: false };

    fn playing(steps: usize) -> Playback {
        let mut p = Playback::default();
        p.restart(steps);
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
    fn a_stall_moves_the_film_by_a_tenth_of_a_second_at_most() {
        let mut p = playing(1000);
        assert!(p.advance(5.0, WHOLE));
        assert_eq!(p.doses(), 990);
        assert!(p.advance(-3.0, WHOLE));
        assert_eq!(p.doses(), 990);
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
            p.cursor = 5.0;
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
        assert_eq!(p.speed, 4.0);
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
