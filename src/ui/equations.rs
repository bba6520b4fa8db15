//! The step at the playhead as an equation with its numbers.

use super::style;
use super::symbols::{self, Part};
use crate::engine::{Frame, PredictionType, Schedule};
use egui::{Align2, FontId, Rect, Role, Sense, Ui, WidgetInfo, vec2};

/// Writes the dose of noise that led to the state at `doses` (Ho et al. 2020, Eq. 2).
pub fn forward(ui: &Ui, area: Rect, schedule: &Schedule, doses: usize) {
    let Some(beta) = doses.checked_sub(1).and_then(|t| schedule.betas.get(t)) else {
        return words(ui, area, "the data itself, without noise");
    };
    let number = |v: f64| Part::Number(format!("{v:.4}"));
    equation(
        ui,
        area,
        "The step of the forward process",
        &[
            Part::Symbol(symbols::STATE),
            Part::Text(" = "),
            number((1.0 - beta).sqrt()),
            Part::Symbol(symbols::PREVIOUS),
            Part::Text(" + "),
            number(beta.sqrt()),
            Part::Symbol(symbols::NOISE),
        ],
    );
}

/// Writes the step that leaves a state: the sampler's own weights. `ddim` says in which terms it steps, `all` whether it
/// visits every timestep, `network` what is predicted by one.
pub fn reverse(ui: &Ui, area: Rect, frame: &Frame, ddim: bool, all: bool, network: Option<PredictionType>) {
    let Some(step) = frame.step() else {
        let end = frame.doses == 0;
        return words(ui, area, if end { "the picture at the end of the film" } else { "the first step comes" });
    };
    let number = |v: f64| Part::Number(format!("{v:.4}"));
    let mut parts = vec![Part::Symbol(if all { symbols::PREVIOUS } else { symbols::NEXT_KEPT }), Part::Text(" = ")];
    if !ddim {
        parts.extend([number(step.x_t), Part::Symbol(symbols::STATE), Part::Text(" + ")]);
    }
    parts.extend([number(step.xstart), Part::Symbol(symbols::XSTART.by(network)), Part::Text(" + ")]);
    if ddim {
        parts.extend([number(step.eps), Part::Symbol(symbols::EPS.by(network)), Part::Text(" + ")]);
    }
    parts.extend([number(step.noise), Part::Symbol(symbols::NOISE)]);
    equation(ui, area, "The step of the reverse process", &parts);
}

/// Says that the film has only come to `reached`, whose state is shown.
pub fn pending(ui: &Ui, area: Rect, reached: usize) {
    words(ui, area, &format!("still to come: this is t = {reached}, as far as the film has come"));
}

/// Centred in `area`.
fn equation(ui: &Ui, area: Rect, spoken: &str, parts: &[Part]) {
    let size = match area.width() {
        w if w > 760.0 => 23.0,
        w if w > 520.0 => style::LARGE,
        _ => style::BODY,
    };
    let width = symbols::width(ui, parts, size);
    let rect = Rect::from_center_size(area.center(), vec2(width, area.height()));
    let response = ui.interact(rect, ui.scope_id().with("equation"), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, spoken));
    symbols::paint(ui, parts, size, rect);
}

fn words(ui: &Ui, area: Rect, text: &str) {
    let color = style::palette(ui).weak;
    ui.painter().text(area.center(), Align2::CENTER_CENTER, text, FontId::proportional(style::BODY), color);
}
