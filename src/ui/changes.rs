//! What may change while a training runs, and where it did: marks in its curves.

use super::actions::UiAction;
use super::film_settings::section;
use super::run_form;
use super::style::{self, GRID};
use crate::engine::{About, Change, Changes, Number, Setting};
use egui::{Response, Stroke, Ui, pos2};
use egui_plot::PlotTransform;

/// Room for the words at a mark.
const APART: f32 = 120.0;

/// Values on their way: one is asked for when it is let go of.
#[derive(Default)]
pub struct ChangesForm {
    draft: Option<Changes>,
}

impl ChangesForm {
    /// Draws the settings of the training under way.
    pub fn ui(&mut self, ui: &mut Ui, now: Changes, out: &mut Vec<UiAction>) {
        let mut draft = self.draft.unwrap_or(now);
        let (mut held, mut done) = (false, false);
        let mut follow = |response: &Response| {
            held |= response.dragged() || response.has_focus();
            done |= response.drag_stopped() || response.lost_focus();
        };
        section(ui, "From the next step on");
        egui::Grid::new("changes").num_columns(2).spacing([GRID, 4.0]).show(ui, |ui| {
            if let Some(rate) = &mut draft.learning_rate {
                let says = "Step size of Adam; noted as a mark in the curve";
                follow(&row(ui, Number::LearningRate, "Learning rate", says, rate));
            }
            if let Some(decay) = &mut draft.ema_decay {
                let says = "Weight of the past in the moving average; noted in the curve";
                follow(&row(ui, Number::EmaDecay, "EMA decay", says, decay));
            }
            if let Some(every) = &mut draft.preview_every {
                let (says, mut steps) = ("Training steps between samples; 0 for none", *every as f64);
                follow(&row(ui, Number::PreviewEvery, "Samples every", says, &mut steps));
                *every = steps as u64;
            }
        });
        if done && draft != now {
            out.push(UiAction::ChangeTraining(draft));
        }
        self.draft = held.then_some(draft);
    }
}

fn row(ui: &mut Ui, number: Number, name: &str, says: &str, value: &mut f64) -> Response {
    let About { least, most, .. } = number.about();
    let label = ui.label(name);
    let field = run_form::field(number, value).range(least..=most).update_while_editing(false);
    let response = ui.add(field).labelled_by(label.id).on_hover_text(run_form::with_bounds(number, says));
    ui.end_row();
    response
}

/// A value as it is written at a mark.
fn words(change: &Change) -> String {
    match change.setting {
        Setting::LearningRate => format!("rate {:.1e}", change.to).replace('-', "−"),
        Setting::EmaDecay => format!("EMA {}", change.to),
        Setting::PreviewEvery => format!("samples {}", change.to),
    }
}

/// Draws a mark where settings changed, with the new values where there is room.
pub fn marks(ui: &Ui, changes: &[Change], to_screen: &PlotTransform) {
    let p = style::palette(ui);
    let frame = to_screen.frame();
    let painter = ui.painter().with_clip_rect(*frame);
    let mut free = f32::NEG_INFINITY;
    for at_once in changes.chunk_by(|a, b| a.after == b.after) {
        let step = at_once.first().map_or(0, |c| c.after) as f64;
        let x = to_screen.position_from_point_x(step);
        if !frame.x_range().contains(x) {
            continue;
        }
        painter.vline(x, frame.y_range(), Stroke::new(1.0, p.warning.gamma_multiply(0.6)));
        if x >= free {
            let text = at_once.iter().map(words).collect::<Vec<_>>().join(", ");
            let font = egui::FontId::proportional(style::SMALL);
            painter.text(pos2(x + 4.0, frame.top() + 2.0), egui::Align2::LEFT_TOP, text, font, p.warning);
            free = x + APART;
        }
    }
}
