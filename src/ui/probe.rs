//! A look at the real window from inside, for `bench`: it plays a film, trains, moves the slider, notes the times, and
//! closes the window.

use super::actions::UiAction;
use super::playback::{Direction, Repeat};
use super::state::{AppState, Phase};
use super::window::Window;
use egui::{Context, Event, Modifiers, PointerButton, Pos2, RawInput, Rect, ViewportCommand, pos2};
use std::time::{Duration, Instant, SystemTime};

/// Moves of the slider for each second of playing.
const MOVES: f64 = 10.0;
/// A move that shows no picture within this time ends the measurement.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a window is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The first picture.
    Start,
    /// A film that plays, and its slider.
    Film,
    /// The same during training.
    Training,
    /// A film that stands still during training.
    Paused,
}

/// Times in a window, in seconds.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When the first picture of a film was drawn.
    pub first_picture: Option<SystemTime>,
    /// What each frame took while the film played: input, layout, and painting, without the wait for the screen.
    pub frames: Vec<f64>,
    /// From the beginning of one of these frames to that of the next.
    pub gaps: Vec<f64>,
    /// From a move of the slider to the end of the frame that first shows its picture.
    pub slider: Vec<f64>,
    /// Training steps a second behind a film that stands still.
    pub steps_per_s: Option<f64>,
}

/// Drives a window through its task.
pub struct Probe {
    task: Task,
    seconds: f64,
    stage: Stage,
    /// When the frame being drawn began, and the one before it.
    began: Instant,
    before: Instant,
    /// What is on the screen once the frame being drawn is done.
    shows: Option<Shows>,
    /// What was seen so far.
    pub seen: Seen,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No picture yet.
    Opening,
    /// The opening film is being computed.
    Computing,
    /// Training was asked for.
    Training,
    /// Training goes on behind a film that stands still, since that step at that time.
    Holding { step: u64, since: Instant },
    /// The film plays since then.
    Playing(Instant),
    /// The slider, at `rect`, is moved for the `count`th time at `due`; `from` is the state shown till then.
    Moving { rect: Rect, count: usize, due: Instant, moved: bool, from: usize },
    /// The window is closing.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Shows {
    FirstPicture,
    /// A frame of the playing film.
    Playing,
    /// The state that the slider was moved to at that time.
    Moved(Instant),
}

impl Probe {
    /// For `seconds` of playing and [`MOVES`] of the slider for each of them.
    pub fn new(task: Task, seconds: f64) -> Self {
        let now = Instant::now();
        Self { task, seconds, stage: Stage::Opening, began: now, before: now, shows: None, seen: Seen::default() }
    }

    /// A frame begins: the pointer moves if it is time.
    pub(super) fn begin(&mut self, input: &mut RawInput) {
        (self.before, self.began) = (self.began, Instant::now());
        if let Stage::Moving { rect, count, due, moved, .. } = &mut self.stage
            && !*moved
            && *due <= self.began
        {
            let at = place(*rect, *count);
            input.events.push(Event::PointerMoved(at));
            if *count == 0 {
                let (button, modifiers) = (PointerButton::Primary, Modifiers::NONE);
                input.events.push(Event::PointerButton { pos: at, button, pressed: true, modifiers });
            }
            *moved = true;
        }
    }

    /// The frame before this one is on the screen; it took `took` seconds.
    pub(super) fn note(&mut self, took: f64) {
        let end = self.before + Duration::from_secs_f64(took.max(0.0));
        match self.shows.take() {
            Some(Shows::FirstPicture) => self.seen.first_picture = Some(SystemTime::now() - end.elapsed()),
            Some(Shows::Playing) => {
                self.seen.frames.push(took);
                self.seen.gaps.push((self.began - self.before).as_secs_f64());
            }
            Some(Shows::Moved(at)) => self.seen.slider.push((end - at).as_secs_f64()),
            None => {}
        }
    }

    /// The frame has been laid out: what comes next.
    pub(super) fn follow(&mut self, ctx: &Context, window: &mut Window) {
        let state = &window.state;
        match self.stage {
            Stage::Opening if shows_picture(state) => {
                self.shows = Some(Shows::FirstPicture);
                self.stage = Stage::Computing;
                ctx.request_repaint();
            }
            Stage::Computing if self.task == Task::Start => self.close(ctx),
            Stage::Computing if state.reverse.phase == Phase::Done => {
                if matches!(self.task, Task::Training | Task::Paused) {
                    window.act(UiAction::StartTraining);
                    self.stage = Stage::Training;
                } else {
                    self.play(ctx, window);
                }
            }
            Stage::Training => match &state.training {
                Some(t) if t.phase == Phase::Busy && t.metrics.as_ref().is_none_or(|m| m.step < 2) => {}
                Some(t) if t.phase == Phase::Busy && self.task == Task::Paused => {
                    let step = t.metrics.as_ref().map_or(0, |m| m.step);
                    window.state.playback.seek(window.state.playback.steps() / 2);
                    self.stage = Stage::Holding { step, since: Instant::now() };
                }
                Some(t) if t.phase == Phase::Busy => self.play(ctx, window),
                _ => self.close(ctx),
            },
            Stage::Holding { step, since } => match state.training.as_ref().and_then(|t| t.metrics.as_ref()) {
                Some(metrics) if since.elapsed().as_secs_f64() > self.seconds => {
                    self.seen.steps_per_s = Some((metrics.step - step) as f64 / since.elapsed().as_secs_f64());
                    self.close(ctx);
                }
                _ => wake(ctx, since + Duration::from_secs_f64(self.seconds)),
            },
            Stage::Playing(since) => {
                self.shows = Some(Shows::Playing);
                if since.elapsed().as_secs_f64() > self.seconds {
                    match timeline(ctx) {
                        Some(rect) => self.move_next(ctx, rect, 0, state.playback.doses()),
                        None => self.close(ctx),
                    }
                }
            }
            Stage::Moving { rect, count, due, moved, from } => {
                let doses = state.playback.doses();
                if moved && doses != from {
                    self.shows = Some(Shows::Moved(due));
                    if (count + 1) as f64 >= self.seconds * MOVES {
                        self.stage = Stage::Over;
                        ctx.request_repaint();
                    } else {
                        self.move_next(ctx, rect, count + 1, doses);
                    }
                } else if due.elapsed() > PATIENCE {
                    self.close(ctx);
                } else {
                    wake(ctx, due);
                }
            }
            Stage::Over => self.close(ctx),
            Stage::Opening | Stage::Computing => {}
        }
    }

    fn play(&mut self, ctx: &Context, window: &mut Window) {
        window.state.playback.repeat = Repeat::Loop;
        window.act(UiAction::Play(Direction::ToNoise));
        self.stage = Stage::Playing(Instant::now());
        ctx.request_repaint();
    }

    /// The moves come at uneven times, so that they fall anywhere between the frames that the worker asks for.
    fn move_next(&mut self, ctx: &Context, rect: Rect, count: usize, from: usize) {
        let due = Instant::now() + Duration::from_millis(60 + (37 * count as u64) % 50);
        self.stage = Stage::Moving { rect, count, due, moved: false, from };
        wake(ctx, due);
    }

    fn close(&mut self, ctx: &Context) {
        self.stage = Stage::Over;
        ctx.send_viewport_cmd(ViewportCommand::Close);
    }
}

fn shows_picture(state: &AppState) -> bool {
    let doses = state.playback.doses();
    let there = |film: Option<&crate::engine::Trajectory>| film.is_some_and(|film| film.at(doses).is_some());
    there(state.forward.film.as_ref().map(|(_, film)| film)) || there(state.shown().film.as_ref().map(|(_, film)| film))
}

/// The slider over the film: the widest thing that can be clicked and dragged.
fn timeline(ctx: &Context) -> Option<Rect> {
    ctx.viewport(|viewport| {
        let widgets = viewport.prev_pass.widgets.layers().flat_map(|(_, widgets)| widgets);
        let sliders = widgets.filter(|w| w.sense.senses_click() && w.sense.senses_drag()).map(|w| w.rect);
        sliders.max_by(|a, b| a.width().total_cmp(&b.width()))
    })
}

/// Where the `count`th move goes: far from the one before.
fn place(rect: Rect, count: usize) -> Pos2 {
    let share = (0.1 + 0.618_034 * count as f32).fract();
    pos2(rect.left() + rect.width() * (0.05 + 0.9 * share), rect.top() + rect.height() / 4.0)
}

/// A frame at that time. egui takes the expected length of a frame off the delay.
fn wake(ctx: &Context, at: Instant) {
    let early = ctx.input(|i| Duration::try_from_secs_f32(i.predicted_dt).unwrap_or_default());
    ctx.request_repaint_after(at.saturating_duration_since(Instant::now()) + early);
}
