//! What may change while a training runs, and where it did: marks in its curves.

use super::actions::UiAction;
use super::film_settings::section;
use super::style::{self, GRID};
use crate::engine::{Change, Changes, Setting};
use egui::{DragValue, Response, Stroke, Ui, pos2};
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
                let speed = *rate * 0.01;
                let value = DragValue::new(rate).range(1e-6..=1.0).speed(speed);
                let value = value.custom_formatter(|v, _| format!("{v:.1e}"));
                follow(&row(ui, "Learning rate", "Step size of Adam; noted as a mark in the curve", value));
            }
            if let Some(decay) = &mut draft.ema_decay {
                let value = DragValue::new(decay).range(0.5..=0.99999).speed(1e-5).max_decimals(5);
                follow(&row(ui, "EMA decay", "Weight of the past in the moving average; noted in the curve", value));
            }
            if let Some(every) = &mut draft.preview_every {
                let value = DragValue::new(every).range(0..=100_000).speed(5.0).suffix(" steps");
                follow(&row(ui, "Samples every", "Training steps between samples; 0 for none", value));
            }
        });
        if done && draft != now {
            out.push(UiAction::ChangeTraining(draft));
        }
        self.draft = held.then_some(draft);
    }
}

fn row(ui: &mut Ui, name: &str, tooltip: &str, value: DragValue<'_>) -> Response {
    let label = ui.label(name);
    let response = ui.add(value.update_while_editing(false)).labelled_by(label.id).on_hover_text(tooltip);
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
