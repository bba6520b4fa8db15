//! The panel at the right of the film view: what both films are made from.

use super::actions::{PathUse, UiAction};
use super::numbers;
use super::state::{AppState, FilmSettings, GRIDS, Method};
use super::style::{self, GRID};
use crate::engine::{PredictionType, Predictor, Variance, Which};
use egui::{Panel, Response, RichText, ScrollArea, Ui};

/// Width of a settings panel.
pub const WIDTH: f32 = 288.0;

/// Steps offered beside all T.
const STEPS: [usize; 4] = [20, 50, 100, 250];

/// Draws the panel.
pub fn panel(ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
    let fill = style::palette(ui).panel;
    let frame = egui::Frame::new().fill(fill).inner_margin(egui::Margin::same(16));
    Panel::right("film-settings").resizable(false).exact_size(WIDTH).frame(frame).show(ui, |ui| {
        ScrollArea::vertical().show(ui, |ui| content(ui, state, out));
    });
}

/// A caption over the controls that follow.
pub fn section(ui: &mut Ui, caption: &str) -> Response {
    ui.add_space(GRID);
    ui.label(RichText::new(caption).font(style::semibold(style::SMALL)).color(style::palette(ui).weak))
}

fn content(ui: &mut Ui, state: &AppState, out: &mut Vec<UiAction>) {
    let mut s = state.settings.clone();
    ui.label(RichText::new("Film settings").font(style::semibold(style::LARGE)));
    section(ui, "Model");
    let training = state.training.as_ref().is_some_and(|t| t.model.is_some());
    // an underscore of a name is no index
    let loaded = state.model.as_ref().map_or_else(|| "Loaded".to_owned(), |m| m.name.replace('_', "__"));
    if training {
        let models =
            [(Which::Loaded, loaded.as_str(), "The loaded model"), (Which::Training, "In training", "As it is now")];
        style::segments(ui, &models, &mut s.which);
    } else if let Some(model) = &state.model {
        let step = model.step.map_or_else(String::new, |n| format!(", step {}", numbers::thousands(n)));
        let v = if model.prediction_type == PredictionType::Velocity { ", predicts v" } else { "" };
        ui.label(format!("{}, {} weights{step}{v}", model.name, numbers::thousands(model.params as u64)));
    } else {
        ui.label("None loaded");
    }
    ui.horizontal(|ui| {
        style::button(ui, &UiAction::AskPath(PathUse::OpenModel), out);
        style::button(ui, &UiAction::LoadShipped, out);
    });
    section(ui, "Whose prediction");
    predictor(ui, state, &mut s);
    section(ui, "Sampler");
    sampler(ui, state, &mut s);
    section(ui, "Pictures");
    let texts = GRIDS.map(|n| n.to_string());
    let grids: Vec<_> =
        GRIDS.iter().zip(&texts).map(|(n, text)| (*n, text.as_str(), "Pictures on either side")).collect();
    style::segments(ui, &grids, &mut s.n);
    ui.add_space(2.0 * GRID);
    ui.horizontal(|ui| {
        style::labelled_button(ui, "Sample again", &UiAction::Resample, true, out);
        ui.add_enabled_ui(state.extent().growing, |ui| style::button(ui, &UiAction::StopFilm, out));
    });
    if s != state.settings {
        out.push(UiAction::SetFilm(s));
    }
}

/// The choice of what predicts, in a model that is there.
pub fn predictor(ui: &mut Ui, state: &AppState, s: &mut FilmSettings) {
    let raw = state.chosen_model().is_some_and(|m| m.has_raw);
    let network = match raw {
        true => ("EMA", "The moving average of the weights over training: what one samples with"),
        false => ("Network", "This model holds one copy of its weights"),
    };
    let predictors = [
        (Predictor::Ema, network.0, network.1),
        (Predictor::Raw, "Raw", "The weights as the optimiser left them"),
        (
            Predictor::Oracle,
            "Oracle",
            "No network: the mean of the data's images, weighted by how likely each led to x_t. What a perfect network \
             would say that had nothing but these images; its films end on data images",
        ),
    ];
    let offered: Vec<_> = predictors.into_iter().filter(|(p, ..)| raw || *p != Predictor::Raw).collect();
    style::segments(ui, &offered, &mut s.predictor);
}

/// The choice of the rule of a step, and of its parameter. Returns whether another rule was chosen.
pub fn rule(ui: &mut Ui, s: &mut FilmSettings) -> bool {
    let methods = [
        (Method::Ddpm, "DDPM", "Ancestral sampling (Ho et al. 2020, Algorithm 2)"),
        (Method::Ddim, "DDIM", "Fewer steps, less or no fresh noise (Song et al. 2020)"),
    ];
    let other = style::segments(ui, &methods, &mut s.method);
    match s.method {
        Method::Ddpm => {
            let variances = [
                (Variance::FixedLarge, "Fixed large", "σ² = β_t of the step, as the official script samples"),
                (Variance::FixedSmall, "Fixed small", "σ² = β̃_t of the step, the variance of the posterior (Eq. 7)"),
            ];
            style::segments(ui, &variances, &mut s.variance);
        }
        Method::Ddim => {
            let etas =
                [(0.0, "η = 0", "No fresh noise"), (0.5, "0.5", "Half of DDPM's"), (1.0, "1", "As much as DDPM")];
            style::segments(ui, &etas, &mut s.eta);
        }
    }
    other
}

/// The box for the clipping of x̂_0.
pub fn clip(ui: &mut Ui, s: &mut FilmSettings) {
    style::checkbox(ui, &mut s.clip, "Keep predicted x_0 within [−1, 1]")
        .on_hover_text("As the official code does and the paper does not say");
}

fn sampler(ui: &mut Ui, state: &AppState, s: &mut FilmSettings) {
    if rule(ui, s) {
        s.steps = match s.method {
            Method::Ddim => Some(50),
            Method::Ddpm => FilmSettings::default().steps,
        };
        s.steps = s.steps.filter(|k| *k <= state.playback.steps());
    }
    if let Some(doses) = s.from {
        section(ui, "Starts from");
        ui.horizontal(|ui| {
            ui.label(format!("The picture at t = {}", state.begins().unwrap_or(doses)));
            if ui.button("Pure noise").on_hover_text("Start the reverse film from pure noise again").clicked() {
                s.from = None;
            }
        });
    }
    section(ui, "Steps");
    let all = state.playback.steps();
    let texts: Vec<String> = STEPS.iter().map(ToString::to_string).collect();
    let all_text = format!("All {all}");
    let mut choices: Vec<(Option<usize>, &str, &str)> = STEPS
        .into_iter()
        .zip(&texts)
        .filter(|(k, _)| *k < all)
        .map(|(k, text)| (Some(k), text.as_str(), "Network calls per picture"))
        .collect();
    choices.push((None, &all_text, "Every timestep, as in Ho et al. 2020"));
    style::segments(ui, &choices, &mut s.steps);
    clip(ui, s);
}
