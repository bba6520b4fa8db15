//! The schedule view.

use crate::support::{Gui, STEPS, tell, type_number, with_films};
use ddpm_film::diffusion::{noise::Purpose, process};
use ddpm_film::engine::{BetaSchedule, Command, Event, ForwardRequest, JobId, Schedule, ScheduleConfig, Trajectory};
use egui::Key;
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;

fn asked(gui: &mut Gui) -> (JobId, ForwardRequest) {
    let commands = gui.state_mut().take_commands();
    match commands.as_slice() {
        [Command::Forward(job, request)] => (*job, request.clone()),
        other => panic!("{other:?}"),
    }
}

fn open() -> Gui {
    let mut gui = with_films(1280.0, 720.0);
    gui.state_mut().take_commands();
    gui.key_press(Key::F7);
    gui.run();
    gui
}

#[test]
fn a_short_schedule_is_warned_about_and_says_its_prior_gap() {
    let gui = open();
    // T = 50 with the paper's betas
    gui.get_by_label("√ᾱ_T 0.7765");
    gui.get_by_label_contains("At t = T the picture still has 78 % of its amplitude");
    let schedule = Schedule::new(&ScheduleConfig { steps: STEPS, ..Default::default() }).unwrap();
    let x = process::noise_images(1, Purpose::Pick, 0, 0, 4, [1, 8, 8]);
    let square = x.data.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.data.len() as f64;
    let gap = process::prior_bits_per_dim(schedule.alpha_bar(STEPS), square);
    gui.get_by_label(&format!("L_T, bits/dim {gap:.2e}").replace('-', "−"));
}

#[test]
fn the_forward_film_follows_an_edit_and_the_reverse_film_stays() {
    let mut gui = open();
    // the legend names the curves too
    gui.get_all_by_label("Cosine").next().unwrap().click();
    gui.run();
    let (_, request) = asked(&mut gui);
    let config = ScheduleConfig { kind: BetaSchedule::Cosine, steps: STEPS, ..Default::default() };
    assert_eq!(request.schedule, Some(config));
    type_number(&mut gui, "T", "100");
    let (job, request) = asked(&mut gui);
    assert_eq!(request.schedule, Some(ScheduleConfig { steps: 100, ..config }));
    let schedule = Arc::new(Schedule::new(&request.schedule.unwrap()).unwrap());
    let x = process::noise_images(1, Purpose::Pick, 0, 0, 4, [1, 8, 8]);
    tell(&mut gui, Event::Forward(job, Arc::new(Trajectory::forward(schedule, &x, 1)), "MNIST".into()));
    gui.state_mut().state.playback.seek(STEPS / 2);
    gui.run();
    gui.get_by_label("Forward film at t = 50 of 100");
    // in the film view both sides stand at the same place of their schedules
    gui.key_press(Key::F2);
    gui.run();
    gui.get_by_label("Forward process at t = 50");
    gui.get_by_label("Reverse process, x_t at t = 25");
    gui.get_by_label("DATA · MNIST · edited schedule");
    gui.key_press(Key::F7);
    gui.run();
    gui.get_by_label("As trained").click();
    gui.run();
    assert_eq!(asked(&mut gui).1.schedule, None);
}

#[test]
fn numbers_and_marks_are_of_the_schedule_that_is_drawn() {
    let mut gui = open();
    gui.get_by_label("DATA · MNIST");
    gui.state_mut().state.playback.seek(STEPS / 2);
    gui.get_all_by_label("Cosine").next().unwrap().click();
    gui.run();
    let check = |gui: &Gui, config: &ScheduleConfig| {
        let schedule = Schedule::new(config).unwrap();
        let t = config.steps / 2;
        gui.get_by_label(&format!("t = {t:>w$} of {}", config.steps, w = config.steps.to_string().len()));
        gui.get_by_label(&format!("beta_t = {:.5}", schedule.betas[t - 1]));
        gui.get_by_label(&format!("sqrt(alphas_cumprod_t) = {:.4}", schedule.alpha_bar(t).sqrt()));
        let half = (1..=config.steps).find(|t| schedule.alpha_bar(*t) <= 0.5).unwrap();
        gui.get_by_label(&format!("alphas_cumprod falls to 0.5 at t = {half}")).rect().center()
    };
    let config = ScheduleConfig { kind: BetaSchedule::Cosine, steps: STEPS, ..Default::default() };
    let mark = check(&gui, &config);
    // with other steps the same place of the timeline has another name
    type_number(&mut gui, "T", "200");
    let moved = check(&gui, &ScheduleConfig { steps: 200, ..config });
    assert!((mark - moved).length() < 40.0, "{mark} {moved}");
    gui.get_by_label("DATA · MNIST · edited schedule");
    gui.get_by_label_contains("alphas_cumprod falls to 0.5").click();
    gui.run();
    let doses = gui.state().state.playback.doses();
    assert!((STEPS / 2 - 2..=STEPS / 2 + 2).contains(&doses), "{doses}");
    // in the film view they are those of the film
    gui.state_mut().state.playback.seek(STEPS / 2);
    gui.key_press(Key::F2);
    gui.run();
    let film = Schedule::new(&ScheduleConfig { steps: STEPS, ..Default::default() }).unwrap();
    gui.get_by_label(&format!("sqrt(alphas_cumprod_t) = {:.4}", film.alpha_bar(STEPS / 2).sqrt()));
}

#[test]
fn its_curves_can_be_chosen_and_the_keys_of_the_film_work() {
    let mut gui = open();
    for curve in ["β", "ᾱ", "√(1−ᾱ)", "log SNR", "Posterior variance"] {
        gui.get_by_label(curve).click();
        gui.run();
    }
    gui.key_press(Key::End);
    gui.run();
    assert_eq!(gui.state().state.playback.doses(), 0);
    gui.get_by_label("Forward film at t = 0 of 50");
    assert!(gui.state_mut().take_commands().is_empty());
}

/// Where, over that place of the plot, the curve can be taken hold of.
fn grip(gui: &mut Gui, x: f32) -> egui::Pos2 {
    let places = (90..530).step_by(4).map(|y| egui::pos2(x, y as f32));
    for at in places {
        gui.hover_at(at);
        gui.step();
        if gui.output().platform_output.cursor_icon == egui::CursorIcon::Grab {
            return at;
        }
    }
    panic!("no curve over {x}");
}

/// Pulls from one place to another. Returns the schedules that were asked for on the way.
fn pull(gui: &mut Gui, from: egui::Pos2, to: egui::Pos2) -> Vec<Option<ScheduleConfig>> {
    gui.drag_at(from);
    gui.step();
    for i in 1..=4 {
        gui.hover_at(from + (to - from) * (i as f32 / 4.0));
        gui.step();
    }
    gui.drop_at(to);
    gui.run();
    let schedule = |command| match command {
        Command::Forward(_, request) => Some(request.schedule),
        _ => None,
    };
    gui.state_mut().take_commands().into_iter().filter_map(schedule).collect()
}

#[test]
fn the_curve_is_bent_by_hand_and_taken_back_with_one_press() {
    let mut gui = open();
    // left of the middle the last beta follows: the curve is pulled down, so more noise
    let from = grip(&mut gui, 300.0);
    let asked_for = pull(&mut gui, from, from + egui::vec2(0.0, 60.0));
    let bent = asked_for.last().copied().flatten().expect("a schedule of its own");
    assert!(asked_for.len() >= 3, "the forward film follows while it is pulled: {asked_for:?}");
    assert_eq!((bent.kind, bent.steps, bent.beta_start), (BetaSchedule::Linear, STEPS, 1e-4));
    assert!(bent.beta_end > 0.021, "{bent:?}");
    let left = Schedule::new(&bent).unwrap().alpha_bar(STEPS).sqrt();
    gui.get_by_label(&format!("√ᾱ_T {left:.4}"));
    gui.get_by_label("As trained").click();
    gui.run();
    assert_eq!(asked(&mut gui).1.schedule, None);
    gui.get_by_label("√ᾱ_T 0.7765");
    // near the picture it is the first
    let from = grip(&mut gui, 850.0);
    let bent = pull(&mut gui, from, from + egui::vec2(0.0, 40.0)).last().copied().flatten().expect("a schedule");
    assert!(bent.beta_start > 1e-4 && bent.beta_end == 0.02, "{bent:?}");
    gui.get_all_by_label("Cosine").next().unwrap().click();
    gui.run();
    gui.state_mut().take_commands();
    // away from the curve the playhead is pulled along
    let (from, to) = (egui::pos2(400.0, 500.0), egui::pos2(700.0, 500.0));
    assert!(pull(&mut gui, from, to).is_empty());
    let doses = gui.state().state.playback.doses();
    assert!((5..STEPS / 2).contains(&doses), "{doses}");
}
