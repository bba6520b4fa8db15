//! The schedule view.

use crate::support::{Gui, STEPS, tell, with_films};
use ddpm_film::diffusion::{noise::Purpose, process};
use ddpm_film::engine::{BetaSchedule, Command, Event, ForwardRequest, JobId, Schedule, ScheduleConfig, Trajectory};
use egui::{Key, Modifiers, accesskit::Role};
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
    gui.get_by_label("√ᾱ_T 0.7769");
    gui.get_by(|node| node.label().is_some_and(|l| l.starts_with("x_T still holds 78 %")));
    let schedule = Schedule::new(&ScheduleConfig { steps: STEPS, ..Default::default() }).unwrap();
    let x = process::noise_images(1, Purpose::Pick, 0, 0, 4, [1, 8, 8]);
    let square = x.data.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.data.len() as f64;
    let gap = process::prior_bits_per_dim(schedule.alpha_bar(STEPS), square);
    gui.get_by_label(&format!("L_T, bits/dim {gap:.2e}").replace('-', "−"));
}

#[test]
fn the_forward_film_follows_an_edit_and_the_reverse_film_stays() {
    let mut gui = open();
    gui.get_by_label("Cosine").click();
    gui.run();
    let (_, request) = asked(&mut gui);
    let config = ScheduleConfig { kind: BetaSchedule::Cosine, steps: STEPS, ..Default::default() };
    assert_eq!(request.schedule, Some(config));
    let field = gui.get_by_role_and_label(Role::SpinButton, "T");
    field.click();
    gui.run();
    gui.key_press_modifiers(Modifiers::COMMAND, Key::A);
    gui.event(egui::Event::Text("100".into()));
    gui.run();
    gui.key_press(Key::Enter);
    gui.run();
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
fn its_curves_can_be_chosen_and_the_keys_of_the_film_work() {
    let mut gui = open();
    for curve in ["β", "ᾱ", "√(1−ᾱ)", "log SNR", "β̃"] {
        gui.get_by_label(curve).click();
        gui.run();
    }
    gui.key_press(Key::End);
    gui.run();
    assert_eq!(gui.state().state.playback.doses(), 0);
    gui.get_by_label("Forward film at t = 0 of 50");
    assert!(gui.state_mut().take_commands().is_empty());
}
