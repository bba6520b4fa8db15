//! In front of an audience: presentation, zoom, contrast, tooltips, and names for screen readers.

use crate::support::{Gui, with_films};
use crate::training::running;
use ddpm_film::ui::actions::View;
use egui::{Key, Modifiers, Order, Pos2, accesskit::Role};
use egui_kittest::kittest::{By, NodeT as _, Queryable as _};

fn press(gui: &mut Gui, key: Key) {
    gui.key_press(key);
    gui.run_steps(3);
}

#[test]
fn a_presentation_shows_the_film_its_timeline_and_its_numbers_half_as_large_again() {
    let mut gui = with_films(1280.0, 720.0);
    let before = gui.ctx.pixels_per_point();
    press(&mut gui, Key::F10);
    assert!((gui.ctx.pixels_per_point() / before - 1.5).abs() < 1e-6);
    for there in ["Forward process at t = 50", "Reverse process, x_t at t = 50", "t = 50 of 50"] {
        gui.get_by_label(there);
    }
    gui.get_by_role_and_label(Role::Slider, "Timestep");
    gui.get_by_label("DATA · MNIST");
    gui.get_by_label("MODEL · step 40,000 EMA · DDPM 50");
    for gone in ["Training", "Play", "New seed", "Pictures ⏷", "State x_0"] {
        assert!(gui.query_by_label(gone).is_none(), "{gone}");
    }
    // every number fits on the screen
    let screen = gui.ctx.content_rect();
    for number in ["beta_t = ", "sqrt(alphas_cumprod_t) = ", "sqrt(1-alphas_cumprod_t) = ", "Signal-to-noise = "] {
        let rect = gui.get_by_label_contains(number).rect();
        assert!(screen.shrink(8.0).contains_rect(rect), "{number} at {rect} of {screen}");
    }
    // keys still work, and escape leads back
    press(&mut gui, Key::P);
    gui.get_by_label("Reverse process, predicted x_0 at t = 50");
    press(&mut gui, Key::Escape);
    gui.get_by_label("Training");
    assert!((gui.ctx.pixels_per_point() / before - 1.0).abs() < 1e-6);
}

#[test]
fn a_presentation_is_as_large_as_its_screen_allows() {
    for (size, zoom) in
        [([1920.0, 1080.0], 2.25), ([2560.0, 1440.0], 3.0), ([1280.0, 1024.0], 1.5), ([880.0, 560.0], 1.5)]
    {
        let mut gui = with_films(size[0], size[1]);
        press(&mut gui, Key::F10);
        assert!((gui.ctx.zoom_factor() - zoom).abs() < 1e-3, "{size:?}: {}", gui.ctx.zoom_factor());
        press(&mut gui, Key::F10);
        assert_eq!(gui.ctx.zoom_factor(), 1.0);
    }
}

#[test]
fn a_presentation_ends_with_another_view_and_zooms_back_after_a_restart() {
    let mut gui = with_films(1280.0, 720.0);
    press(&mut gui, Key::F10);
    press(&mut gui, Key::F3);
    assert_eq!(gui.state().view, View::Training);
    assert!((gui.ctx.zoom_factor() - 1.0).abs() < 1e-6);
    press(&mut gui, Key::F10);
    assert_eq!(gui.state().view, View::Film);
    // the program ends here; egui remembers a zoom of 1.5
    let remembered = gui.state().preferences();
    *gui.state_mut() = ddpm_film::ui::Window::new(remembered);
    gui.run_steps(3);
    assert!((gui.ctx.zoom_factor() - 1.0).abs() < 1e-6);
}

#[test]
fn ctrl_with_plus_minus_and_zero_zooms() {
    let mut gui = with_films(1280.0, 800.0);
    for (key, expected) in [(Key::Plus, 1.1), (Key::Plus, 1.2), (Key::Minus, 1.1), (Key::Num0, 1.0)] {
        gui.key_press_modifiers(Modifiers::COMMAND, key);
        gui.run_steps(3);
        assert!((gui.ctx.zoom_factor() - expected).abs() < 1e-3, "{key:?}: {}", gui.ctx.zoom_factor());
    }
    assert_eq!(gui.state().state.playback.speed, 1.0, "Ctrl+0 is not 0");
}

#[test]
fn high_contrast_is_a_key_away_and_remembered() {
    let mut gui = with_films(1280.0, 800.0);
    let usual = gui.ctx.global_style().visuals.clone();
    press(&mut gui, Key::F12);
    let high = gui.ctx.global_style().visuals.clone();
    assert_ne!(high.panel_fill, usual.panel_fill);
    let remembered = gui.state().preferences();
    press(&mut gui, Key::F12);
    assert_eq!(gui.ctx.global_style().visuals.panel_fill, usual.panel_fill);
    *gui.state_mut() = ddpm_film::ui::Window::new(remembered);
    gui.run_steps(2);
    assert_eq!(gui.ctx.global_style().visuals.panel_fill, high.panel_fill);
}

fn is_control(role: Role) -> bool {
    matches!(
        role,
        Role::Button
            | Role::CheckBox
            | Role::RadioButton
            | Role::Slider
            | Role::SpinButton
            | Role::TextInput
            | Role::ComboBox
            | Role::Link
    )
}

/// Every control on screen must have a name, and say more when the pointer rests on it.
fn explain_themselves(gui: &mut Gui) -> usize {
    gui.run();
    let screen = gui.ctx.content_rect();
    let controls: Vec<(Option<String>, egui::Rect)> = gui
        .query_all(By::new().predicate(|node| is_control(node.role())))
        .map(|node| (node.accesskit_node().label(), node.rect()))
        .filter(|(_, rect)| screen.contains(rect.center()))
        .collect();
    let mut silent = Vec::new();
    for (name, rect) in &controls {
        let name = name.as_deref().unwrap_or_default();
        assert!(!name.trim().is_empty(), "a control at {rect} has no name");
        // away first, so that no tooltip is left
        gui.hover_at(Pos2::new(screen.center().x, 1.0));
        gui.run_steps(4);
        let tooltips = |gui: &Gui| {
            gui.ctx.memory(|m| m.areas().visible_layer_ids().iter().filter(|l| l.order == Order::Tooltip).count())
        };
        assert_eq!(tooltips(gui), 0, "before {name}");
        gui.hover_at(rect.center());
        gui.run_steps(8);
        if tooltips(gui) == 0 {
            silent.push(format!("{name} at {rect}"));
        }
    }
    assert!(silent.is_empty(), "without a tooltip: {silent:#?}");
    controls.len()
}

#[test]
fn every_control_has_a_tooltip_and_a_name_for_screen_readers() {
    let mut gui = with_films(1400.0, 1400.0);
    press(&mut gui, Key::F4);
    assert!(explain_themselves(&mut gui) > 40);
    for view in [Key::F5, Key::F8] {
        press(&mut gui, view);
        assert!(explain_themselves(&mut gui) > 40);
    }
    for view in [Key::F9, Key::F3, Key::F7] {
        press(&mut gui, view);
        explain_themselves(&mut gui);
    }
    press(&mut gui, Key::F2);
    gui.state_mut().state.playback.seek(20);
    press(&mut gui, Key::F);
    assert!(explain_themselves(&mut gui) > 40);
    let (mut gui, _) = running();
    explain_themselves(&mut gui);
    // questions and messages too
    let mut gui = with_films(1280.0, 800.0);
    gui.state_mut().handle(ddpm_film::engine::Event::Warning("something to know".into()));
    explain_themselves(&mut gui);
}
