//! One playhead for every panel: the timeline, its marks and scales, the chain, and the keys of an editing table.

use crate::support::{Gui, STEPS, schedule, with_films};
use ddpm_film::ui::playback::{Direction, Mode};
use egui::{Key, Modifiers, accesskit::Role};
use egui_kittest::kittest::Queryable as _;

fn doses(gui: &Gui) -> usize {
    gui.state().state.playback.doses()
}

fn press(gui: &mut Gui, key: Key) {
    gui.key_press(key);
    gui.run_steps(2);
}

#[test]
fn j_k_and_l_shuttle() {
    let mut gui = with_films(1280.0, 800.0);
    gui.state_mut().state.playback.seek(25);
    for (key, mode, direction, speed) in [
        (Key::L, Mode::Playing, Direction::ToImage, 1.0),
        (Key::L, Mode::Playing, Direction::ToImage, 2.0),
        (Key::J, Mode::Playing, Direction::ToNoise, 2.0),
        (Key::J, Mode::Playing, Direction::ToNoise, 4.0),
        (Key::K, Mode::Paused, Direction::ToNoise, 4.0),
    ] {
        press(&mut gui, key);
        let playback = &gui.state().state.playback;
        assert_eq!((playback.mode, playback.direction, playback.speed), (mode, direction, speed), "{key:?}");
    }
    gui.run();
    assert!(!gui.ctx.has_requested_repaint(), "a film that stands still asks for no frames");
}

#[test]
fn digits_choose_the_speed() {
    let mut gui = with_films(1280.0, 800.0);
    for (key, speed) in [(Key::Num8, 8.0), (Key::Num0, 0.1), (Key::Num4, 4.0), (Key::Num2, 2.0), (Key::Num1, 1.0)] {
        press(&mut gui, key);
        assert_eq!(gui.state().state.playback.speed, speed);
    }
}

#[test]
fn a_pause_does_not_make_the_film_jump() {
    let mut gui = with_films(1280.0, 800.0);
    press(&mut gui, Key::Space);
    gui.run_steps(4);
    press(&mut gui, Key::Space);
    let before = doses(&gui);
    assert!(before < STEPS);
    // a long look at one state
    gui.input_mut().time = Some(gui.input().time.unwrap_or(0.0) + 60.0);
    gui.key_press(Key::Space);
    gui.run_steps(2);
    assert!(before - doses(&gui) <= 3, "{before} to {}", doses(&gui));
}

#[test]
fn i_and_o_mark_the_part_that_repeats() {
    let mut gui = with_films(1280.0, 800.0);
    gui.state_mut().state.playback.seek(40);
    press(&mut gui, Key::I);
    gui.state_mut().state.playback.seek(10);
    press(&mut gui, Key::O);
    assert_eq!(gui.state().state.playback.marks(), [Some(40), Some(10)]);
    press(&mut gui, Key::Space);
    assert!((10..=12).contains(&doses(&gui)), "from its end the part runs back: {}", doses(&gui));
    assert_eq!(gui.state().state.playback.direction, Direction::ToNoise);
    press(&mut gui, Key::K);
    press(&mut gui, Key::Backspace);
    assert_eq!(gui.state().state.playback.marks(), [None, None]);
    // and with the mouse
    gui.state_mut().state.playback.seek(30);
    gui.run();
    gui.get_by_role_and_label(Role::Slider, "Timestep").click_secondary();
    gui.run();
    assert_eq!(doses(&gui), 30, "opening the menu moves nothing");
    gui.get_by_label_contains("Repeat up to here").click();
    gui.run();
    assert_eq!(gui.state().state.playback.marks(), [None, Some(30)]);
}

#[test]
fn the_chain_of_figure_2_goes_where_it_is_clicked() {
    let mut gui = with_films(1280.0, 800.0);
    gui.state_mut().state.playback.seek(20);
    gui.run();
    for (label, there) in
        [("State x_19", 19), ("State x_18", 18), ("State x_0", 0), ("State x_50", 50), ("On to x_24", 24)]
    {
        gui.get_by_label(label).click();
        gui.run();
        assert_eq!(doses(&gui), there, "{label}");
    }
}

#[test]
fn the_quarters_of_alpha_bar_are_marked_and_lead_there() {
    let mut gui = with_films(1280.0, 800.0);
    // with T = 50, √ᾱ_T stays at 0.78: only one quarter is ever crossed
    let crossed: Vec<_> = (1..=STEPS).filter(|d| schedule().alpha_bar(*d) <= 0.75).collect();
    let label = format!("alphas_cumprod falls to 0.75 at t = {}", crossed[0]);
    gui.get_by_label(&label).click();
    gui.run();
    assert_eq!(doses(&gui), crossed[0]);
    assert!(gui.query_by_label_contains("alphas_cumprod falls to 0.5").is_none());
}

#[test]
fn the_timeline_can_run_over_log_snr() {
    let mut gui = with_films(1280.0, 800.0);
    press(&mut gui, Key::A);
    let track = gui.get_by_role_and_label(Role::Slider, "Timestep").rect();
    let log_snr = |doses: usize| schedule().snr(doses).ln();
    // the middle of the axis between its ends; the picture stands as far past t = 1 as t = 2 stands before it
    let middle = (log_snr(STEPS) + 2.0 * log_snr(1) - log_snr(2)) / 2.0;
    let nearest =
        (1..=STEPS).min_by(|a, b| (log_snr(*a) - middle).abs().total_cmp(&(log_snr(*b) - middle).abs())).unwrap();
    gui.drag_at(track.center());
    gui.run_steps(2);
    assert_eq!(doses(&gui), nearest);
    assert_ne!(nearest, STEPS / 2);
    gui.drop_at(track.center());
    gui.run();
    press(&mut gui, Key::A);
    assert_eq!(doses(&gui), nearest, "the scale changes where a state stands, not the state");
}

#[test]
fn letters_choose_what_the_reverse_side_shows() {
    let mut gui = with_films(1280.0, 800.0);
    for (key, name) in [(Key::P, "predicted x_0"), (Key::E, "predicted noise"), (Key::X, "x_t")] {
        press(&mut gui, key);
        gui.get_by_label(&format!("Reverse process, {name} at t = 50"));
    }
    // Ctrl+X is not X
    press(&mut gui, Key::P);
    gui.key_press_modifiers(Modifiers::COMMAND, Key::X);
    gui.run();
    gui.get_by_label("Reverse process, predicted x_0 at t = 50");
}
