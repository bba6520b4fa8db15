//! Checkpoints: a diffusers folder, with what training needs to go on in `film/`, which other programs ignore.
//!
//! | file | holds |
//! | --- | --- |
//! | `model_index.json` | says that this is a DDPM pipeline |
//! | `unet/config.json` | [`model::Config`] |
//! | `unet/diffusion_pytorch_model.safetensors` | EMA weights |
//! | `scheduler/scheduler_config.json` | [`ScheduleSettings`] |
//! | `film/raw.safetensors` | the weights as the optimiser left them |
//! | `film/adam.safetensors` | the optimiser's moments, `m.<path>` and `v.<path>`; may be missing |
//! | `film/state.json` | step, seed, settings, curves |
//! | `film/checksums.json` | length and CRC-32 of all of these |
//! | `film/snapshots/` | what the model drew at chosen steps, a file each: [`Snapshot`] |
//! | `film/previous/` | the save before this one, whole, in the same layout |

use crate::error::{Error, Result};
use crate::model::{self, Params};
use candle_core::Device;
use serde::de::DeserializeOwned;
use std::path::Path;

mod checksums;
mod files;
mod folder;
pub mod hub;
mod save;
mod schedule;
mod shipped;
mod snapshots;
mod tensors;

use files::Files;
pub use folder::{Claim, claim};
pub use save::save;
pub use schedule::ScheduleSettings;
pub use shipped::shipped;
pub use snapshots::{Snapshot, drop_snapshots, newest_snapshot, read_snapshots, write_snapshot};

const MODEL_INDEX: &str = "model_index.json";
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
/// Where the noise schedule may stand.
const SCHEDULERS: [&str; 2] = ["scheduler/scheduler_config.json", "scheduler_config.json"];
const RAW: &str = "film/raw.safetensors";
const ADAM: &str = "film/adam.safetensors";
const STATE: &str = "film/state.json";
const CHECKSUMS: &str = "film/checksums.json";
/// The save before the newest one.
const PREVIOUS: &str = "film/previous";
/// A save under way; one that was cut off and yet is whole counts.
const SAVING: &str = "film/.saving";
/// The next name of a file that is about to take its place.
const PLACING: &str = "film/.placing";
/// Most bytes of the header of a safetensors file.
const MOST_HEADER: u64 = 128 << 20;

/// A model as it lies on disk.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The network.
    pub config: model::Config,
    /// The noise it was trained on.
    pub schedule: ScheduleSettings,
    /// What one samples with: the moving average of the weights.
    pub ema: Params,
    /// What training goes on from; foreign models have none.
    pub training: Option<Training>,
}

/// The state of a training.
#[derive(Clone, Debug)]
pub struct Training {
    /// The weights as the optimiser left them.
    pub raw: Params,
    /// Adam's first and second moments.
    pub adam: Option<(Params, Params)>,
    /// Step, seed, settings, curves: owned by the train module.
    pub state: serde_json::Value,
}

/// Reads a folder: one of ours, any diffusers DDPM pipeline, or a bare `UNet2DModel` folder. All of it is checked before
/// any of it is handed out.
///
/// Where a save of ours is damaged or was cut off, the one before it is read, and the log says so.
///
/// # Errors
/// Says which file is missing, damaged, unreadable or of a kind that this program cannot run; tensors that are missing,
/// of another shape or not part of the network are listed together.
pub fn load(dir: &Path, device: &Device) -> Result<Checkpoint> {
    let (checkpoint, warning) = load_saying(dir, device)?;
    if let Some(words) = warning {
        log::warn!("{words}");
    }
    Ok(checkpoint)
}

/// As [`load`]; also a sentence that says why an older save was read, or which schedule was taken for granted, if so.
///
/// # Errors
/// As [`load`].
pub fn load_saying(dir: &Path, device: &Device) -> Result<(Checkpoint, Option<String>)> {
    if !dir.is_dir() {
        return Err(unreadable("there is no such folder", "choose the folder of a diffusers model").at(dir));
    }
    let newest = Files::folder(dir).and_then(|files| Ok((read(&files, device)?, assumed(&files))));
    let Err(e) = newest else { return newest };
    for (copy, words) in [
        (SAVING, "the newest save was cut off while it took its place, but is whole and is used"),
        (PREVIOUS, "the newest save is damaged, so the one before it is used"),
    ] {
        let folder = dir.join(copy);
        if folder.join(CHECKSUMS).is_file()
            && let Ok(checkpoint) = Files::folder(&folder).and_then(|files| read(&files, device))
        {
            let place = e.path.as_deref().unwrap_or(dir);
            return Ok((checkpoint, Some(format!("{words}: {} ({})", e.why, place.display()))));
        }
    }
    Err(e)
}

/// What a run's folder says of its training, without any weights: [`Training::state`].
///
/// # Errors
/// As [`load`].
pub fn read_state(dir: &Path) -> Result<serde_json::Value> {
    let read = |folder: &Path| {
        let files = Files::folder(folder)?;
        let text = files.text(STATE)?.ok_or_else(|| files.error(STATE, "there is no such file", ""))?;
        let damaged = |e: serde_json::Error| files.error(STATE, &format!("the file is damaged: {e}"), "");
        serde_json::from_slice(&text).map_err(damaged)
    };
    let newest = read(dir);
    let other = || [SAVING, PREVIOUS].iter().find_map(|copy| read(&dir.join(copy)).ok());
    if newest.is_ok() { newest } else { other().map_or(newest, Ok) }
}

/// Reads a checkpoint from memory: pairs of a path inside the folder and the file's bytes.
///
/// # Errors
/// As [`load`].
pub fn load_embedded(files: &'static [(&'static str, &'static [u8])], device: &Device) -> Result<Checkpoint> {
    read(&Files::Embedded(files), device)
}

/// The settings of the network, and the folder that they and its weights are in: "unet/", or none.
fn read_config(files: &Files) -> Result<(&'static str, model::Config)> {
    let unet = if files.has("unet/config.json") { "unet/" } else { "" };
    let config_path = format!("{unet}{CONFIG}");
    let Some(text) = files.text(&config_path)? else {
        return Err(files.error(&config_path, "there is no such file", "choose a diffusers folder of a UNet2DModel"));
    };
    let class = class_name(files, &config_path, &text)?;
    if class.as_deref().is_some_and(|class| class != "UNet2DModel") {
        let why = format!("_class_name is {}, which is not supported", class.unwrap_or_default());
        return Err(files.error(&config_path, &why, "choose a UNet2DModel"));
    }
    let config: model::Config = json(files, &config_path, &text)?;
    config.validate().map_err(|e| e.at(files.path(&config_path)))?;
    Ok((unet, config))
}

/// The most bytes that a file of the weights may hold: in double precision.
fn most_weights(config: &model::Config) -> u64 {
    8 * config.weights() + MOST_HEADER
}

fn read(files: &Files, device: &Device) -> Result<Checkpoint> {
    let (unet, config) = read_config(files)?;
    let weights = format!("{unet}{WEIGHTS}");
    let Some(bytes) = files.read(&weights, most_weights(&config))? else {
        let bin = format!("{unet}diffusion_pytorch_model.bin");
        return Err(if files.has(&bin) {
            let hint = "save it again with diffusers' save_pretrained, which writes safetensors";
            files.error(&bin, "pickled .bin weights are not supported, as they can run any code", hint)
        } else {
            files.error(&weights, "there is no such file", "")
        });
    };
    let ema = tensors::read(&config, &bytes, device).map_err(|e| e.at(files.path(&weights)))?;
    drop(bytes);

    let schedule = read_schedule(files)?;
    let training = read_training(files, &config, device)?;
    Ok(Checkpoint { config, schedule, ema, training })
}

fn read_schedule(files: &Files) -> Result<ScheduleSettings> {
    for path in SCHEDULERS {
        if let Some(text) = files.text(path)? {
            let settings: ScheduleSettings = json(files, path, &text)?;
            settings.validate().map_err(|e| e.at(files.path(path)))?;
            return Ok(settings);
        }
    }
    Ok(ScheduleSettings::default())
}

/// Says so where the schedule of a model is not known.
fn assumed(files: &Files) -> Option<String> {
    let known = SCHEDULERS.iter().any(|path| files.has(path));
    let [path, _] = SCHEDULERS;
    let words = "the model has no noise schedule, so the linear one and a network that predicts ε are assumed";
    (!known).then(|| format!("{words}; if that is wrong, add its scheduler ({})", files.path(path).display()))
}

fn read_training(files: &Files, config: &model::Config, device: &Device) -> Result<Option<Training>> {
    let most = most_weights(config);
    let Some(raw) = files.read(RAW, most)? else {
        return match [ADAM, STATE].into_iter().find(|path| files.has(path)) {
            Some(other) => Err(files.error(RAW, &format!("there is no such file beside {other}"), "")),
            None => Ok(None),
        };
    };
    let raw = tensors::read(config, &raw, device).map_err(|e| e.at(files.path(RAW)))?;
    let adam = files.read(ADAM, 2 * most)?.map(|bytes| tensors::read_pair(config, &bytes, device));
    let adam = adam.transpose().map_err(|e| e.at(files.path(ADAM)))?;
    let state = match files.text(STATE)? {
        Some(text) => json(files, STATE, &text)?,
        None => serde_json::Value::Null,
    };
    Ok(Some(Training { raw, adam, state }))
}

fn json<T: DeserializeOwned>(files: &Files, path: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| files.error(path, &e.to_string(), ""))
}

fn class_name(files: &Files, path: &str, text: &[u8]) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Class {
        #[serde(rename = "_class_name")]
        name: Option<String>,
    }
    Ok(json::<Class>(files, path, text)?.name)
}

fn unreadable(why: impl Into<String>, hint: &str) -> Error {
    Error::new("cannot read the model", why, hint)
}
