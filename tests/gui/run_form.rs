//! The form of a run's settings: bounds, what is wrong, and what the paper used.

use crate::support::{Gui, bare};
use ddpm_film::engine::{Command, RunConfig};
use ddpm_film::ui::actions::View;
use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;

fn form() -> Gui {
    let mut gui = bare(1280.0, 1100.0);
    gui.state_mut().view = View::Training;
    gui.run();
    gui
}

#[test]
fn what_is_wrong_stands_under_its_field_and_nothing_starts() {
    let mut gui = form();
    gui.state_mut().state.run.config.batch = 5000;
    gui.state_mut().state.run.config.grad_clip = 0.0;
    gui.run();
    gui.get_by_label("the batch is 5000 images; use 1 to 4096");
    gui.get_by_label("the gradient clip is 0; use 1e-6 to 1000000");
    gui.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    gui.run();
    assert!(gui.state_mut().take_commands().is_empty());
    gui.state_mut().state.banners.clear();
    gui.state_mut().state.run.config = RunConfig::default();
    gui.run();
    assert!(gui.query_by_label_contains("; use ").is_none());
}

#[test]
fn the_papers_values_are_a_click_away() {
    let mut gui = form();
    for (name, value) in [("Batch", "128"), ("Warm-up", "5000"), ("Steps", "800000")] {
        gui.get_by_label(&format!("{name} as in Ho et al. 2020: {value}")).click();
        gui.run();
    }
    for (name, value) in [("Learning rate", "2e-4"), ("EMA decay", "0.9999"), ("Gradient clip", "1")] {
        gui.get_by_label(&format!("{name} as in Ho et al. 2020: {value}"));
    }
    let expected = RunConfig { batch: 128, warmup: 5000, steps: 800_000, ..RunConfig::default() };
    assert_eq!(gui.state().state.run.config, expected);
}

#[test]
fn schedule_and_prediction_are_chosen_by_name() {
    let mut gui = form();
    gui.get_by_label("v").click();
    gui.run();
    gui.get_by_role_and_label(Role::ComboBox, "Schedule").click();
    gui.run();
    gui.get_by_label("Cosine").click();
    gui.run();
    let config = &gui.state().state.run.config;
    assert_eq!((config.beta_schedule.as_str(), config.prediction_type.as_str()), ("squaredcos_cap_v2", "v_prediction"));
    gui.get_by_label("ε").click();
    gui.run();
    assert_eq!(gui.state().state.run.config.prediction_type, "epsilon");
}

#[test]
fn the_lecture_run_is_one_press_away_and_kept_in_memory() {
    let mut gui = form();
    gui.state_mut().state.run.out = "/nowhere".to_owned();
    gui.get_by_label("Digits in three minutes").click();
    gui.run();
    let commands = gui.state_mut().take_commands();
    let [Command::Train(_, request)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((&request.config, request.out.as_ref()), (&RunConfig::lecture(), None));
    assert!(request.config.validate().is_ok());
    let form = &gui.state().state.run;
    assert_eq!((form.out.as_str(), &form.config), ("/nowhere", &RunConfig::default()), "the form is as it was");
}
