//! The directed graphical model of the paper (Ho et al. 2020, Figure 2), with the states at the playhead, to click.

use super::actions::UiAction;
use super::style;
use super::symbols::{self, Part};
use crate::engine::Trajectory;
use egui::{Color32, CursorIcon, Pos2, Rect, Role, Sense, Stroke, StrokeKind, Ui, WidgetInfo, pos2, vec2};

const HEIGHT: f32 = 48.0;
const NODE: egui::Vec2 = egui::vec2(62.0, 30.0);
/// At most so wide, so that it reads as one chain.
const WIDEST: f32 = 1000.0;

/// The state at `doses`, and the pair of neighbours in the middle of the chain, both apart from its ends. They are those
/// of the film, which may skip timesteps; t and t - 1 where there is none. `None` for too short a chain.
fn pair(doses: usize, steps: usize, film: Option<&Trajectory>) -> Option<(usize, [usize; 2])> {
    let Some(film) = film.filter(|film| film.steps() == steps) else {
        let t = doses.clamp(2, steps.checked_sub(1)?.max(2));
        return (t < steps).then_some((doses, [t, t - 1]));
    };
    let here = film.state(doses);
    let t = if here == steps { film.states_away(here, 1)? } else { here };
    let [t, next] = match film.states_away(t, 1)? {
        0 => [film.states_away(0, -2)?, film.states_away(0, -1)?],
        next => [t, next],
    };
    (t < steps && next > 0).then_some((here, [t, next]))
}

/// Draws x_T → … → x_t → x_{t-1} → … → x_0. A click on a state goes there.
pub fn ui(ui: &mut Ui, steps: usize, doses: usize, film: Option<&Trajectory>, out: &mut Vec<UiAction>) {
    let (area, _) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::hover());
    let row = Rect::from_center_size(area.center(), vec2(area.width().min(WIDEST), HEIGHT));
    let Some((doses, [t, next])) = pair(doses, steps, film) else { return };
    let at = |share: f32| pos2(row.left() + NODE.x / 2.0 + share * (row.width() - NODE.x), row.center().y);
    let states = [(0.0, steps), (0.4, t), (0.6, next), (1.0, 0)];
    let dots = [(0.2, steps.midpoint(t)), (0.8, next / 2)];
    let places = [at(0.0), at(0.2), at(0.4), at(0.6), at(0.8), at(1.0)];
    let left = states.iter().position(|(_, state)| *state == doses).unwrap_or(1);
    for (i, pair) in places.windows(2).enumerate() {
        // the step at the playhead leaves the node of its state
        let current = i == [0, 2, 3, 5][left];
        arrow(ui, pair[0] + vec2(NODE.x / 2.0 + 3.0, 0.0), pair[1] - vec2(NODE.x / 2.0 + 3.0, 0.0), current);
    }
    transition(ui, at(0.4) + vec2(NODE.x / 2.0 + 3.0, 0.0), at(0.6) - vec2(NODE.x / 2.0 + 3.0, 0.0));
    let nodes = states.map(|(share, state)| (share, state, true)).into_iter();
    for (share, state, named) in nodes.chain(dots.map(|(share, state)| (share, state, false))) {
        if node(ui, at(share), named && state == doses, state, named) {
            out.push(UiAction::Seek(state));
        }
    }
}

fn arrow(ui: &Ui, from: Pos2, to: Pos2, current: bool) {
    let p = style::palette(ui);
    let stroke = if current { Stroke::new(2.5, p.state) } else { Stroke::new(1.5, p.weak) };
    ui.painter().line_segment([from, to], stroke);
    for turn in [-5.0, 5.0] {
        ui.painter().line_segment([to + vec2(-7.0, turn), to], stroke);
    }
}

/// Names the step from x_t to x_{t-1}, and draws the dose of noise that leads back.
fn transition(ui: &Ui, from: Pos2, to: Pos2) {
    let (p, back) = (style::palette(ui), vec2(0.0, 9.0));
    let stroke = Stroke::new(1.5, p.noise);
    ui.painter().extend(egui::Shape::dashed_line(&[to + back, from + back], stroke, 4.0, 4.0));
    for turn in [-4.0, 4.0] {
        ui.painter().line_segment([from + back + vec2(6.0, turn), from + back], stroke);
    }
    for (symbol, dy) in [(symbols::MODEL, -13.0), (symbols::DIFFUSION, 17.0)] {
        let part = [Part::Symbol(symbol)];
        let width = symbols::width(ui, &part, style::SMALL);
        symbols::paint(
            ui,
            &part,
            style::SMALL,
            Rect::from_center_size(from.lerp(to, 0.5) + vec2(0.0, dy), vec2(width, 12.0)),
        );
    }
}

/// A named state, or three dots for those between. Returns whether it was clicked.
fn node(ui: &Ui, middle: Pos2, here: bool, state: usize, named: bool) -> bool {
    let p = style::palette(ui);
    let rect = Rect::from_center_size(middle, NODE);
    let id = ui.scope_id().with(("node", middle.x as i32));
    let response = ui.interact(rect, id, Sense::click()).on_hover_cursor(CursorIcon::PointingHand);
    let name = if named { format!("State x_{state}") } else { format!("On to x_{state}") };
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, here, &name));
    let radius = NODE.y / 2.0;
    if named || response.hovered() {
        let fill = if here || response.hovered() { p.hover } else { p.control };
        ui.painter().rect_filled(rect, radius, fill);
    }
    let edge = match (here, response.has_focus()) {
        (true, _) => Stroke::new(2.5, p.state),
        (false, true) => Stroke::new(1.0, p.text),
        (false, false) => Stroke::new(1.0, if named { p.weak } else { Color32::TRANSPARENT }),
    };
    ui.painter().rect_stroke(rect, radius, edge, StrokeKind::Inside);
    if named {
        let label = [Part::StateAt(state.to_string())];
        let width = symbols::width(ui, &label, style::BODY);
        symbols::write(ui, &label, style::BODY, Rect::from_center_size(middle, vec2(width, NODE.y)));
    } else {
        for x in [-8.0, 0.0, 8.0] {
            ui.painter().circle_filled(middle + vec2(x, 0.0), 2.0, p.weak);
        }
    }
    response.on_hover_text(format!("Go to t = {state}")).clicked()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Schedule, ScheduleConfig};
    use std::sync::Arc;

    #[test]
    fn the_four_states_of_the_chain_are_always_different() {
        for steps in [3, 4, 5, 50, 1000] {
            for doses in 0..=steps {
                let (here, [t, next]) = pair(doses, steps, None).unwrap();
                assert!(0 < next && next + 1 == t && t < steps, "{doses} of {steps}: {t}, {next}");
                assert!(here == doses && [steps, t, next, 0].contains(&here), "the playhead's state is one of them");
            }
        }
        assert_eq!(pair(1, 2, None), None);
        assert_eq!(pair(0, 0, None), None);
    }

    #[test]
    fn a_film_that_skips_timesteps_shows_its_own_states() {
        let schedule = Arc::new(Schedule::new(&ScheduleConfig { steps: 1000, ..Default::default() }).unwrap());
        let film = |states: &[usize]| {
            Trajectory::new(1, [1, 1, 1], Arc::clone(&schedule)).with_states(states.into(), usize::MAX)
        };
        let jumps = film(&[0, 300, 500, 980, 1000]);
        for (doses, expected) in [
            (1000, (1000, [980, 500])),
            (981, (1000, [980, 500])),
            (980, (980, [980, 500])),
            (700, (980, [980, 500])),
            (400, (500, [500, 300])),
            (300, (300, [500, 300])),
            (0, (0, [500, 300])),
        ] {
            assert_eq!(pair(doses, 1000, Some(&jumps)), Some(expected), "{doses}");
        }
        // before it begins a film shows its first state
        let late = film(&[0, 200, 400, 600]);
        assert_eq!(pair(700, 1000, Some(&late)), Some((600, [600, 400])));
        assert_eq!(pair(600, 1000, Some(&late)), Some((600, [600, 400])));
        assert_eq!(pair(500, 1000, Some(&film(&[0, 500, 1000]))), None, "four states are needed");
    }
}
