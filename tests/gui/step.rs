//! What happens in one step: pictures that add up, the algorithm line by line, one pixel.

use crate::support::{Gui, STEPS, begin, film, film_jobs, schedule, tell, type_number, with_films};
use ddpm_film::diffusion::Images;
use ddpm_film::diffusion::noise::Purpose;
use ddpm_film::diffusion::process::noise_images;
use ddpm_film::diffusion::sampler::Sampler;
use ddpm_film::engine::{
    BetaSchedule, Event, Frame, Outcome, PredictionType, SamplerKind, Schedule, ScheduleConfig, Trajectory, Variance,
};
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;
use std::sync::Arc;

/// A window whose reverse film was really sampled, with a network that is partly right, at t = 20 of 50.
fn at_a_step() -> Gui {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::Enter);
    gui.run();
    let (Some(job), None) = film_jobs(&mut gui) else { panic!("the reverse film alone is computed again") };
    let (seed, n, shape) = (gui.state().state.settings.seed, gui.state().state.settings.n, [1, 8, 8]);
    let kind = SamplerKind::Ddpm { variance: Variance::FixedSmall };
    let x = noise_images(seed, Purpose::Start, 0, 0, n, shape);
    let mut sampler = Sampler::new(schedule().as_ref().clone(), kind, true, x).unwrap();
    begin(&mut gui, job, film(n, STEPS));
    while let (Some(_), Some(step)) = (sampler.wants(), sampler.coefficients()) {
        let (doses, x) = (sampler.doses(), sampler.x().clone());
        let eps = Images { data: x.data.iter().map(|v| 0.9 * v).collect(), ..x };
        let xstart = sampler.advance(&eps, |t| noise_images(seed, Purpose::Step, 0, t as u64, n, shape)).unwrap();
        tell(&mut gui, Event::Frame(job, Arc::new(Frame::predicted(doses, &x, &eps, &xstart, step))));
    }
    tell(&mut gui, Event::Frame(job, Arc::new(Frame::state(0, sampler.x()))));
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.state_mut().state.playback.seek(20);
    gui.key_press(Key::F8);
    gui.run();
    gui
}

/// The number after "to within" in the note that contains `what`.
fn apart(gui: &Gui, what: &str) -> f32 {
    let note = gui.get_by_label_contains(what).value().unwrap();
    note.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_pictures_of_a_step_add_up_to_the_next_state() {
    let mut gui = at_a_step();
    // half precision keeps 11 bits
    assert!(apart(&gui, "the film's state at t = 19") <= 0.002);
    let kind = SamplerKind::Ddpm { variance: Variance::FixedSmall };
    let c = kind.coefficients(&schedule(), 19);
    for (sign, weight) in [("=", c.x_t), ("+", c.xstart), ("+", c.noise)] {
        gui.get_by_label(&format!("Weight {sign} {weight:.4}"));
    }
    // the same step in ε̂
    gui.get_by_label("In ε̂").click();
    gui.run();
    assert!(apart(&gui, "the film's state at t = 19") <= 0.002);
    let (alpha, ac) = (1.0 - schedule().betas[19], schedule().alphas_cumprod[19]);
    gui.get_by_label(&format!("Weight = {:.4}", 1.0 / alpha.sqrt()));
    gui.get_by_label(&format!("Weight − {:.4}", (1.0 - alpha) / ((1.0 - ac).sqrt() * alpha.sqrt())));
    // DDIM would go elsewhere, and says so
    gui.get_by_label("DDIM").click();
    gui.run();
    gui.get_by_label("where DDIM with η = 0 would go, to t = 19");
    gui.get_by_label(&format!("Weight = {:.4}", schedule().alpha_bar(19).sqrt()));
}

#[test]
fn the_chain_and_the_jump_stand_side_by_side() {
    let mut gui = at_a_step();
    gui.get_by_label("MODEL · step 40,000 EMA");
    gui.get_by_label("Forward").click();
    gui.run();
    // all of it is data, with noise of the forward process
    gui.get_by_label("DATA · MNIST");
    assert!(gui.query_by_label_contains("MODEL").is_none());
    assert!(apart(&gui, "the jump agrees to within") <= 0.002);
    gui.get_by_label_contains("in one jump; ε: mean");
    assert_eq!(gui.get_all_by_label("The state at the playhead").count(), 2);
    let (beta, ac) = (schedule().betas[19], schedule().alphas_cumprod[19]);
    for weight in
        [format!("= {:.4}", (1.0 - beta).sqrt()), format!("+ {:.4}", beta.sqrt()), format!("= {:.4}", ac.sqrt())]
    {
        gui.get_by_label(&format!("Weight {weight}"));
    }
}

#[test]
fn numbers_beside_the_forward_process_are_of_its_schedule() {
    let mut gui = at_a_step();
    gui.key_press(Key::F7);
    gui.run();
    gui.get_all_by_label("Cosine").next().unwrap().click();
    gui.run();
    gui.key_press(Key::F8);
    gui.run();
    let cosine = ScheduleConfig { kind: BetaSchedule::Cosine, steps: STEPS, ..Default::default() };
    let cosine = Schedule::new(&cosine).unwrap();
    for (side, schedule) in [("Forward", &cosine), ("Reverse", schedule().as_ref())] {
        gui.get_by_label(side).click();
        gui.run();
        gui.get_by_label(&format!("sqrt(alphas_cumprod_t) = {:.4}", schedule.alpha_bar(20).sqrt()));
    }
}

#[test]
fn a_symbol_under_the_pointer_lights_its_line() {
    let mut gui = at_a_step();
    assert!(gui.query_by_label_contains("highlighted").is_none());
    let z = gui.get_by_label("Fresh noise").rect().center();
    gui.hover_at(z);
    gui.run_steps(3);
    for line in [3, 4] {
        gui.get_by_label_contains(&format!("Line {line}, highlighted"));
    }
    let x = gui.get_by_label("The state at the playhead").rect().center();
    gui.hover_at(x);
    gui.run_steps(3);
    gui.get_by_label_contains("Line 4, highlighted");
    assert!(gui.query_by_label_contains("Line 3, highlighted").is_none());
}

#[test]
fn the_algorithm_is_gone_through_line_by_line() {
    let mut gui = at_a_step();
    let next = |gui: &mut Gui| {
        gui.key_press(Key::N);
        gui.run();
    };
    for line in 1..=4 {
        next(&mut gui);
        gui.get_by_label_contains(&format!("Line {line}, current"));
        assert_eq!(gui.state().state.playback.doses(), 20);
    }
    next(&mut gui);
    gui.get_by_label_contains("Line 2, current");
    assert_eq!(gui.state().state.playback.doses(), 19, "the step was taken");
    gui.get_by_label("Line 2, current: t = 19");
    // Algorithm 1 draws its timesteps
    gui.get_by_label("Forward").click();
    gui.run();
    gui.get_by_label("Next line").click();
    gui.run();
    gui.get_by_label_contains("Line 3, current");
    let drawn = gui.state().state.playback.doses();
    assert!((1..=STEPS).contains(&drawn) && drawn != 19, "{drawn}");
}

#[test]
fn a_network_that_predicts_v_is_said_to_learn_v() {
    let mut gui = at_a_step();
    let lines = |gui: &Gui| gui.query_all_by_label_contains("Line ").count();
    gui.get_by_label("Forward").click();
    gui.run();
    gui.get_by_label("Algorithm 1: training");
    assert_eq!(lines(&gui), 6);
    // the film's network counts, whatever model is there by now
    gui.state_mut().state.reverse.source.as_mut().unwrap().prediction_type = PredictionType::Velocity;
    gui.run();
    gui.get_by_label("Algorithm 1: training, for v");
    assert_eq!(lines(&gui), 7);
    let ac = schedule().alphas_cumprod[19];
    let weights = format!(": {:.4}, {:.4}", ac.sqrt(), (1.0 - ac).sqrt());
    // v itself, and what the network is given
    for line in [5, 6] {
        gui.get_by_label(&format!("Line {line}{weights}"));
    }
    for _ in 0..6 {
        gui.key_press(Key::N);
        gui.run();
    }
    gui.get_by_label_contains("Line 6, current");
    gui.key_press(Key::N);
    gui.run();
    gui.get_by_label_contains("Line 2, current");

    gui.get_by_label("Reverse").click();
    gui.run();
    gui.get_by_label("Predicted x_0").hover();
    gui.run_steps(4);
    gui.get_by_label_contains("√ᾱ_t x_t − √(1−ᾱ_t) v̂");
}

#[test]
fn a_clicked_pixel_is_looked_at() {
    let mut gui = at_a_step();
    gui.get_by_label("Pixel (4, 4)");
    let picture = gui.get_by_label("Predicted x_0").rect();
    let cell = picture.width() / 8.0;
    let at = picture.min + egui::vec2(6.5, 1.5) * cell;
    gui.hover_at(at);
    gui.run();
    gui.drag_at(at);
    gui.drop_at(at);
    gui.run();
    gui.get_by_label("Pixel (6, 1)");
}

#[test]
fn the_numbers_of_a_pixel_are_those_of_the_state_on_screen() {
    let mut gui = with_films(1280.0, 800.0);
    gui.key_press(Key::Enter);
    gui.run();
    let (Some(job), _) = film_jobs(&mut gui) else { panic!() };
    // of more states than the plot has points
    let schedule = Arc::new(Schedule::new(&ScheduleConfig::default()).unwrap());
    let shape = [1, 8, 8];
    begin(&mut gui, job, Trajectory::new(4, shape, schedule));
    for doses in (0..=1000).rev() {
        let x = Images::new(4, shape, vec![doses as f32 / 1000.0; 256]);
        tell(&mut gui, Event::Frame(job, Arc::new(Frame::state(doses, &x))));
    }
    tell(&mut gui, Event::Finished(job, Outcome::Done));
    gui.key_press(Key::F8);
    for doses in [377, 378, 379] {
        gui.state_mut().state.playback.seek(doses);
        gui.run();
        gui.get_by_label(&format!("x_t = +0.{doses}"));
    }
}

#[test]
fn the_ends_of_the_film_and_small_windows_are_no_trouble() {
    let mut gui = at_a_step();
    gui.key_press(Key::End);
    gui.run();
    gui.get_by_label("The film is over");
    gui.get_by_label("Forward").click();
    gui.run();
    assert_eq!(gui.query_all_by_label("The state at the playhead").count(), 0);
    gui.key_press(Key::Home);
    gui.run();
    gui.key_press(Key::F2);
    gui.run();
    gui.get_by_label("State x_0");
    for size in [[640.0, 400.0], [300.0, 200.0], [1.0, 1.0]] {
        let mut gui = with_films(size[0], size[1]);
        gui.key_press_modifiers(Modifiers::NONE, Key::F8);
        gui.run_steps(3);
    }
}

#[test]
fn a_forward_film_of_fewer_pictures_than_the_reverse_one_is_taken_apart() {
    let mut gui = at_a_step();
    gui.get_by_label("Forward").click();
    gui.run();
    type_number(&mut gui, "Picture", "4");
    gui.state_mut().take_commands();
    // 9, 16, 64, 1: the last one is there before the reverse film is
    for _ in 0..4 {
        gui.key_press(Key::G);
        gui.run();
    }
    let (_, Some(job)) = film_jobs(&mut gui) else { panic!("the forward film is drowned again") };
    let film = Trajectory::forward(schedule(), &noise_images(1, Purpose::Pick, 0, 0, 1, [1, 8, 8]), 3);
    tell(&mut gui, Event::Forward(job, Arc::new(film), "MNIST".into()));
    gui.run();
    assert_eq!(gui.get_by_role_and_label(Role::SpinButton, "Picture").value().as_deref(), Some("1 of 1"));
}
