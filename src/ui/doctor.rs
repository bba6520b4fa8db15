//! The run doctor's sentences.

use super::style::{self, GRID};
use crate::engine::Verdict;
use egui::{Frame, Margin, RichText, ScrollArea, Ui};

/// Name of the panel, with the number of alarming verdicts.
pub fn label(verdicts: &[Verdict]) -> String {
    match verdicts.iter().filter(|v| v.alarming).count() {
        0 => "Doctor".into(),
        n => format!("Doctor ({n})"),
    }
}

/// Draws what the doctor says.
pub fn ui(ui: &mut Ui, verdicts: &[Verdict]) {
    let p = style::palette(ui);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        ui.add_space(GRID);
        if !verdicts.iter().any(|v| v.alarming) {
            ui.label(RichText::new("Nothing is wrong with this run").font(style::semibold(style::LARGE)));
            let looked = "Looked at: loss, gradients, layers without gradient, EMA, range of the data, prior gap, held-out \
                          images";
            ui.label(RichText::new(looked).color(p.weak));
            ui.add_space(GRID);
        }
        for v in verdicts {
            let (color, mark) = if v.alarming { (p.warning, "!") } else { (p.xstart, "i") };
            let frame = Frame::new().fill(p.panel).corner_radius(4).inner_margin(Margin::symmetric(16, 12));
            frame.show(ui, |ui| {
                ui.set_width(ui.available_width());
                ui.horizontal_top(|ui| {
                    ui.label(RichText::new(mark).font(style::semibold(style::LARGE)).color(color));
                    ui.add_space(GRID);
                    ui.vertical(|ui| {
                        ui.label(RichText::new(&v.what).font(style::semibold(style::BODY)));
                        ui.label(RichText::new(&v.advice).color(p.weak));
                    });
                });
            });
            ui.add_space(GRID);
        }
    });
}
