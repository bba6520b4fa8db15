//! The bar over every view: which view, the menus, the model and the device.

use super::actions::{self, PathUse, UiAction, View};
use super::style::{self, Icon};
use super::window::Window;
use egui::containers::menu::{MenuButton, MenuConfig};
use egui::{Align, Layout, Margin, Panel, PopupCloseBehavior, RichText, ThemePreference, Ui, gui_zoom};

/// Width from which the name of the program has room beside the views.
const NAME_FROM: f32 = 1000.0;

impl Window {
    pub(super) fn top_bar(&self, ui: &mut Ui, out: &mut Vec<UiAction>) {
        let p = style::palette(ui);
        let frame = egui::Frame::new().fill(p.panel).inner_margin(Margin::symmetric(16, 6));
        Panel::top("top").resizable(false).frame(frame).show(ui, |ui| {
            ui.horizontal(|ui| {
                if ui.available_width() > NAME_FROM {
                    ui.label(RichText::new("ddpm-film").font(style::semibold(style::LARGE)));
                    ui.add_space(style::GRID);
                } else {
                    ui.spacing_mut().button_padding.x = style::GRID;
                }
                let views = [
                    (View::Film, "Film", "Watch the film run both ways (F2)"),
                    (View::Noise, "Noise", "True noise beside predicted noise (F5)"),
                    (View::Schedule, "Schedule", "How fast a picture drowns (F7)"),
                    (View::Step, "Step", "What happens in one step: its equation as pictures that add up (F8)"),
                    (View::Branches, "Branches", "The film and its branches, side by side (Ctrl+B)"),
                    (View::Race, "Race", "DDPM beside DDIM from the same noise (F9)"),
                    (View::Data, "Data", "What the next training learns from (Ctrl+D)"),
                    (View::Training, "Training", "Watch a model learn (F3)"),
                    (View::Runs, "Runs", "The runs in a folder: curves over each other, notes (Ctrl+R)"),
                ];
                let mut view = self.view;
                if style::segments(ui, &views, &mut view) {
                    out.push(UiAction::Show(view));
                }
                let menu = ui.menu_button("File ⏷", |ui| {
                    for usage in [PathUse::OpenModel, PathUse::OpenImage, PathUse::SaveModel, PathUse::Watch] {
                        style::button(ui, &UiAction::AskPath(usage), out);
                    }
                    use UiAction::{AskExport, CopyFrame, FetchCifar, LoadShipped};
                    for action in [LoadShipped, FetchCifar, AskExport, CopyFrame] {
                        style::button(ui, &action, out);
                    }
                });
                menu.response.on_hover_text("Open and save models, open images, export films");
                // the size takes more than one click
                let stays = MenuConfig::new().close_behavior(PopupCloseBehavior::CloseOnClickOutside);
                let (menu, _) = MenuButton::new("View ⏷").config(stays).ui(ui, |ui| {
                    use UiAction::{FullScreen, NextTheme, Present, ToggleContrast};
                    if menu_item(ui, &UiAction::Show(View::Shared), out) {
                        ui.close();
                    }
                    for action in [Present, FullScreen, ToggleContrast, NextTheme] {
                        if menu_item(ui, &action, out) {
                            ui.close();
                        }
                    }
                    size_of_everything(ui);
                });
                menu.on_hover_text("What is shown, and how");
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.spacing_mut().item_spacing.x = 2.0;
                    style::icon_button(ui, Icon::Keys, &UiAction::ToggleKeys, false, out);
                    style::icon_button(ui, Icon::Theme, &UiAction::NextTheme, false, out);
                    if !matches!(self.view, View::Branches | View::Race | View::Shared | View::Runs | View::Data) {
                        style::icon_button(ui, Icon::Settings, &UiAction::ToggleSettings, false, out);
                    }
                    ui.add_space(style::GRID);
                    let model = match &self.state.model {
                        _ if !self.state.file_jobs.is_empty() => "reading or writing…",
                        Some(model) => model.name.as_str(),
                        None => "no model yet",
                    };
                    let device = self.state.device.as_deref().unwrap_or("starting");
                    let text = RichText::new(format!("{model} · {device}")).color(p.weak);
                    ui.add(egui::Label::new(text).truncate());
                });
            });
        });
    }
}

/// Larger, smaller, or as usual.
fn size_of_everything(ui: &mut Ui) {
    ui.horizontal(|ui| {
        ui.label("Size");
        if ui.button("−").on_hover_text("Everything smaller (Ctrl+−)").clicked() {
            gui_zoom::zoom_out(ui.ctx());
        }
        let percent = format!("{:.0} %", 100.0 * ui.ctx().zoom_factor());
        if ui.button(percent).on_hover_text("The usual size (Ctrl+0)").clicked() {
            ui.ctx().set_zoom_factor(1.0);
        }
        if ui.button("+").on_hover_text("Everything larger (Ctrl++)").clicked() {
            gui_zoom::zoom_in(ui.ctx());
        }
    });
}

/// System, light, dark.
pub(super) fn next_theme(ui: &Ui) {
    let next = match ui.ctx().options(|o| o.theme_preference) {
        ThemePreference::System => ThemePreference::Light,
        ThemePreference::Light => ThemePreference::Dark,
        ThemePreference::Dark => ThemePreference::System,
    };
    ui.ctx().set_theme(next);
}

/// A line of a menu for `action`, with its keys. Returns whether it was chosen.
pub(super) fn menu_item(ui: &mut Ui, action: &UiAction, out: &mut Vec<UiAction>) -> bool {
    let Some(actions::Entry { label, tooltip, keys, .. }) = actions::entry(action) else { return false };
    let keys = keys.map_or_else(String::new, |k| ui.ctx().format_shortcut(&k));
    let chosen = ui.add(egui::Button::new(label).shortcut_text(keys)).on_hover_text(tooltip).clicked();
    out.extend(chosen.then(|| action.clone()));
    chosen
}
