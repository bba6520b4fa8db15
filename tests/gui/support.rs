//! A window without a worker, and events as a worker would send them.

use ddpm_film::diffusion::Images;
use ddpm_film::diffusion::noise::Purpose;
use ddpm_film::diffusion::process;
use ddpm_film::engine::{
    Command, Event, Frame, JobId, Known, ModelInfo, Outcome, PredictionType, Predictor, Provenance, SamplerKind,
    Schedule, ScheduleConfig, Trajectory, Variance,
};
use ddpm_film::ui::{Preferences, Window, set_up};
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;

/// T of the films in these tests.
pub const STEPS: usize = 50;

pub type Gui = Harness<'static, Window>;

/// A window of that size that has heard nothing yet.
pub fn bare(width: f32, height: f32) -> Gui {
    Harness::builder()
        .with_size(egui::vec2(width, height))
        .with_context_setup(set_up)
        .with_max_steps(16)
        .build_ui_state(|ui, window: &mut Window| window.ui_root(ui), Window::new(Preferences::default()))
}

pub fn schedule() -> Arc<Schedule> {
    Arc::new(Schedule::new(&ScheduleConfig { steps: STEPS, ..Default::default() }).unwrap())
}

pub fn model() -> Arc<ModelInfo> {
    let shape = [1, 8, 8];
    Arc::new(ModelInfo {
        name: "tiny".into(),
        shape,
        params: 1234,
        step: Some(40_000),
        hash: "0123456789abcdef".into(),
        has_raw: true,
        schedule: schedule(),
        schedule_config: ScheduleConfig { steps: STEPS, ..Default::default() },
        prediction_type: PredictionType::Epsilon,
        variance: Variance::FixedSmall,
        clip: true,
    })
}

/// The state after `doses` doses in a reverse film of `n` pictures, with predictions.
pub fn frame(n: usize, doses: usize) -> Arc<Frame> {
    let shape = [1, 8, 8];
    let x = process::noise_images(7, Purpose::Start, 0, doses as u64, n, shape);
    if doses == 0 {
        return Arc::new(Frame::state(0, &x));
    }
    let kind = SamplerKind::Ddpm { variance: Variance::FixedLarge };
    let step = kind.coefficients(&schedule(), doses - 1);
    Arc::new(Frame::predicted(doses, &x, &x, &Images::zeros(n, shape), step))
}

/// What the oracle of the shipped data knows.
pub fn known() -> Known {
    Known { data: "mnist".into(), images: 60_000 }
}

pub fn provenance() -> Provenance {
    Provenance {
        hash: model().hash.clone(),
        model: "tiny".into(),
        step: Some(40_000),
        predictor: Predictor::Ema,
        only_copy: false,
        prediction_type: PredictionType::Epsilon,
        oracle: None,
        from: None,
        sampler: "DDPM",
        calls: STEPS,
    }
}

/// The jobs that the window asked films of: reverse, forward.
pub fn film_jobs(gui: &mut Gui) -> (Option<JobId>, Option<JobId>) {
    let (mut sample, mut forward) = (None, None);
    for command in gui.state_mut().take_commands() {
        match command {
            Command::Sample(job, _) => sample = Some(job),
            Command::Forward(job, _) => forward = Some(job),
            _ => {}
        }
    }
    (sample, forward)
}

/// An empty film of `n` pictures that begins in the state at `begins`.
pub fn film(n: usize, begins: usize) -> Trajectory {
    Trajectory::new(n, [1, 8, 8], schedule()).with_states((0..=begins).collect(), usize::MAX)
}

/// Lets the film of a job begin.
pub fn begin(gui: &mut Gui, job: JobId, film: Trajectory) {
    tell(gui, Event::SampleStarted(job, Box::new(film), provenance()));
}

pub fn tell(gui: &mut Gui, event: Event) {
    gui.state_mut().handle(event);
}

/// What is painted, each shape with the part of the window that it may cover.
pub fn painted(gui: &Gui) -> Vec<(egui::Rect, egui::Shape)> {
    fn flat(clip: egui::Rect, shape: &egui::Shape, all: &mut Vec<(egui::Rect, egui::Shape)>) {
        match shape {
            egui::Shape::Vec(shapes) => shapes.iter().for_each(|shape| flat(clip, shape, all)),
            shape => all.push((clip, shape.clone())),
        }
    }
    let mut all = Vec::new();
    gui.output().shapes.iter().for_each(|clipped| flat(clipped.clip_rect, &clipped.shape, &mut all));
    all
}

/// Types another number into the first field of that name.
pub fn type_number(gui: &mut Gui, name: &str, text: &str) {
    gui.get_all_by_role_and_label(Role::SpinButton, name).next().unwrap().click();
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::A);
    gui.event(egui::Event::Text(text.into()));
    gui.run();
    gui.key_press(Key::Enter);
    gui.run();
}

/// A window with a model and both films complete, paused at T.
pub fn with_films(width: f32, height: f32) -> Gui {
    let mut gui = bare(width, height);
    tell(&mut gui, Event::Ready { device: "CPU, 2 threads".into() });
    tell(&mut gui, Event::ModelChanged(model()));
    let (sample, forward) = film_jobs(&mut gui);
    let (sample, forward) = (sample.unwrap(), forward.unwrap());
    let n = gui.state().state.settings.n;
    let x_start = process::noise_images(1, Purpose::Pick, 0, 0, n, [1, 8, 8]);
    let drowned = Trajectory::forward(schedule(), &x_start, gui.state().state.settings.seed);
    tell(&mut gui, Event::Forward(forward, Arc::new(drowned), "MNIST".into()));
    tell(&mut gui, Event::Finished(forward, Outcome::Done));
    begin(&mut gui, sample, film(n, STEPS));
    for doses in (0..=STEPS).rev() {
        tell(&mut gui, Event::Frame(sample, frame(n, doses)));
    }
    tell(&mut gui, Event::Finished(sample, Outcome::Done));
    gui.state_mut().state.playback.seek(STEPS);
    gui.run();
    gui
}

/// Asks the export dialog for the file, also where the home folder holds one of that name.
pub fn export(gui: &mut Gui) {
    gui.get_by_label("Export").click();
    gui.run();
    if let Some(replace) = gui.query_by_label("Replace") {
        replace.click();
        gui.run();
    }
}
