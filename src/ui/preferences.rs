//! What the window remembers.

use super::axis::Scale;
use super::curve::CurveSettings;
use super::playback::Repeat;

/// What is remembered from one start to the next; theme and zoom are egui's own memory.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Preferences {
    pub(super) speed: f64,
    pub(super) repeat: Repeat,
    pub(super) scale: Scale,
    pub(super) grid: usize,
    pub(super) curve: CurveSettings,
    pub(super) film_settings: bool,
    pub(super) run_settings: bool,
    pub(super) high_contrast: bool,
    pub(super) runs_folder: String,
    /// The zoom to go back to after a presentation.
    pub(super) usual_zoom: Option<f32>,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            speed: 1.0,
            repeat: Repeat::default(),
            scale: Scale::default(),
            grid: 4,
            curve: CurveSettings::default(),
            film_settings: false,
            run_settings: true,
            high_contrast: false,
            runs_folder: String::new(),
            usual_zoom: None,
        }
    }
}
