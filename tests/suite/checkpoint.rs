//! Checkpoints: what is saved comes back, and what is broken is refused in one sentence.

use crate::golden::golden;
use candle_core::{DType, Device, Tensor};
use ddpm_film::checkpoint::{Checkpoint, ScheduleSettings, Training, load, load_embedded, load_saying, save};
use ddpm_film::model::{Config, Params, SampleSize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn small() -> Config {
    Config {
        sample_size: Some(SampleSize::Square(8)),
        block_out_channels: vec![8, 16],
        down_block_types: vec!["DownBlock2D".into(), "AttnDownBlock2D".into()],
        up_block_types: vec!["AttnUpBlock2D".into(), "UpBlock2D".into()],
        norm_num_groups: Some(4),
        ..Config::default()
    }
}

fn small_checkpoint(seed: u64) -> Checkpoint {
    let config = small();
    let params = |seed| Params::init(&config, seed, &Device::Cpu).unwrap();
    let training = Training {
        raw: params(seed + 1),
        adam: Some((params(seed + 2), params(seed + 3))),
        state: json!({"step": 7, "loss": [0.5, 0.25]}),
    };
    Checkpoint {
        ema: params(seed),
        schedule: ScheduleSettings::default(),
        training: Some(training),
        config: config.clone(),
    }
}

/// Every file below a folder.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().replace('\\', "/");
                all.insert(name, fs::read(path).unwrap());
            }
        }
    }
    all
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn refusal(dir: &Path) -> String {
    let message = load(dir, &Device::Cpu).expect_err("a broken model was accepted").to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

/// A copy of the small grey reference network, to break.
fn grey() -> TempDir {
    let dir = tempdir().unwrap();
    for name in ["config.json", WEIGHTS] {
        fs::copy(golden("unet_gray").join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn edit_config(dir: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(config.as_object_mut().unwrap());
    fs::write(path, config.to_string()).unwrap();
}

fn edit_weights(dir: &Path, edit: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = dir.join(WEIGHTS);
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    edit(&mut tensors);
    candle_core::safetensors::save(&tensors, path).unwrap();
}

#[test]
fn saved_comes_back_with_the_same_bytes() {
    let dir = tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("deep/second"));
    let checkpoint = small_checkpoint(1);
    save(&first, &checkpoint).unwrap();
    let read = load(&first, &Device::Cpu).unwrap();
    assert_eq!((&read.config, &read.schedule), (&checkpoint.config, &checkpoint.schedule));
    assert_eq!(read.ema.to_flat().unwrap(), checkpoint.ema.to_flat().unwrap());
    let (back, training) = (read.training.as_ref().unwrap(), checkpoint.training.as_ref().unwrap());
    assert_eq!(back.raw.to_flat().unwrap(), training.raw.to_flat().unwrap());
    let (m, v) = back.adam.as_ref().unwrap();
    assert_ne!(m.to_flat().unwrap(), v.to_flat().unwrap());
    assert_eq!(back.state, training.state);
    save(&second, &read).unwrap();
    assert_eq!(files(&first), files(&second));
    assert_eq!(files(&first).len(), 8);

    let embedded: Vec<(&'static str, &'static [u8])> =
        files(&first).into_iter().map(|(name, bytes)| (&*name.leak(), &*bytes.leak())).collect();
    let embedded = load_embedded(embedded.leak(), &Device::Cpu).unwrap();
    assert_eq!(embedded.ema.to_flat().unwrap(), checkpoint.ema.to_flat().unwrap());
}

#[test]
fn saving_again_replaces_the_checkpoint_and_keeps_other_files() {
    let dir = tempdir().unwrap();
    let model = dir.path().join("model");
    save(&model, &small_checkpoint(1)).unwrap();
    fs::write(model.join("README.md"), "how it was trained").unwrap();
    let second = Checkpoint { training: None, ..small_checkpoint(2) };
    save(&model, &second).unwrap();
    assert_eq!(names(&model), ["README.md", "film", "model_index.json", "scheduler", "unet"]);
    assert_eq!(names(&model.join("film")), ["checksums.json", "previous"]);
    assert_eq!(names(dir.path()), ["model"]);
    let first = load(&model.join("film/previous"), &Device::Cpu).unwrap();
    assert_eq!(first.ema.to_flat().unwrap(), small_checkpoint(1).ema.to_flat().unwrap());
    assert!(load(&model, &Device::Cpu).unwrap().training.is_none());
    assert_eq!(load(&model, &Device::Cpu).unwrap().ema.to_flat().unwrap(), second.ema.to_flat().unwrap());
}

#[test]
fn what_is_not_ours_is_never_replaced() {
    for foreign in ["unet/weights.bin", "scheduler/notes.txt", "film/holiday.mp4", "film", "model_index.json"] {
        let dir = tempdir().unwrap();
        let file = dir.path().join(foreign);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();
        let before = files(dir.path());
        let message = save(dir.path(), &small_checkpoint(1)).unwrap_err().to_string();
        let name = foreign.split('/').next().unwrap();
        assert!(message.contains(name) && message.contains("did not write") && !message.contains('\n'), "{message}");
        assert_eq!(files(dir.path()), before);
    }
    // beside the folder, names of any kind are nobody's business but their owner's
    let dir = tempdir().unwrap();
    for name in ["model.previous/unet", "model.saving/unet"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("mine"), "mine").unwrap();
    }
    let before = files(dir.path());
    for seed in 1..4 {
        save(&dir.path().join("model"), &small_checkpoint(seed)).unwrap();
    }
    assert!(before.iter().all(|(name, bytes)| files(dir.path()).get(name) == Some(bytes)));
}

#[test]
fn a_save_of_the_first_version_is_read_and_saved_over() {
    let dir = tempdir().unwrap();
    save(dir.path(), &small_checkpoint(1)).unwrap();
    fs::remove_file(dir.path().join("film/checksums.json")).unwrap();
    let flat = |dir: &Path| load(dir, &Device::Cpu).unwrap().ema.to_flat().unwrap();
    assert_eq!(flat(dir.path()), small_checkpoint(1).ema.to_flat().unwrap());
    save(dir.path(), &small_checkpoint(2)).unwrap();
    assert_eq!(flat(dir.path()), small_checkpoint(2).ema.to_flat().unwrap());
}

#[test]
fn a_folder_that_cannot_be_written_is_one_sentence() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    for target in [file.clone(), file.join("below")] {
        let message = save(&target, &small_checkpoint(1)).unwrap_err().to_string();
        assert!(message.starts_with("cannot save the model") && !message.contains('\n'), "{message}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn weights_of_other_float_types_are_converted() {
    let exact = load(&golden("unet_gray"), &Device::Cpu).unwrap().ema;
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 1e-2), (DType::F64, 0.0)] {
        let dir = grey();
        edit_weights(dir.path(), |tensors| tensors.values_mut().for_each(|t| *t = t.to_dtype(dtype).unwrap()));
        let read = load(dir.path(), &Device::Cpu).unwrap().ema;
        for (a, b) in exact.to_flat().unwrap().iter().zip(read.to_flat().unwrap()) {
            assert!((a - b).abs() <= tolerance * a.abs() + 1e-7, "{dtype:?}: {a} became {b}");
        }
    }
    let dir = grey();
    edit_weights(dir.path(), |tensors| {
        tensors.insert("conv_in.bias".into(), Tensor::zeros(8, DType::I64, &Device::Cpu).unwrap());
    });
    assert!(refusal(dir.path()).contains("conv_in.bias is of type I64"));
}

#[test]
fn old_attention_names_are_accepted() {
    let names = ["to_q", "to_k", "to_v", "to_out.0"];
    let raw = candle_core::safetensors::load(golden("unet_cifar_layout").join(WEIGHTS), &Device::Cpu).unwrap();
    let read = load(&golden("unet_cifar_layout"), &Device::Cpu).unwrap().ema;
    for (new, old) in names.iter().zip(["query", "key", "value", "proj_attn"]) {
        let old = &raw[&format!("mid_block.attentions.0.{old}.weight")];
        let new = read.get(&format!("mid_block.attentions.0.{new}.weight")).unwrap();
        assert_eq!(old.to_vec2::<f32>().unwrap(), new.to_vec2::<f32>().unwrap());
    }
}

#[test]
fn the_first_diffusers_configs_are_accepted() {
    let dir = grey();
    edit_config(dir.path(), |config| {
        for newer in [
            "add_attention",
            "attn_norm_num_groups",
            "class_embed_type",
            "downsample_type",
            "dropout",
            "mid_block_type",
            "num_class_embeds",
            "num_train_timesteps",
            "resnet_time_scale_shift",
            "time_embedding_dim",
            "upsample_type",
        ] {
            assert!(config.remove(newer).is_some(), "{newer}");
        }
        config["_diffusers_version"] = json!("0.0.4");
        config["down_block_types"][1] = json!("UNetResAttnDownBlock2D");
        config.insert("some_later_field".into(), json!({"a": 1}));
    });
    fs::write(dir.path().join("scheduler_config.json"), r#"{"variance_type": "fixed_large", "timesteps": 7}"#).unwrap();
    let read = load(dir.path(), &Device::Cpu).unwrap();
    assert_eq!(read.schedule.variance_type, "fixed_large");
    assert_eq!(read.config.mid_block_type.as_deref(), Some("UNetMidBlock2D"));
}

#[test]
fn a_schedule_that_is_taken_for_granted_is_said() {
    let dir = grey();
    let said = load_saying(dir.path(), &Device::Cpu).unwrap().1.unwrap();
    assert!(
        said.contains("no noise schedule") && said.contains("scheduler_config.json") && !said.contains('\n'),
        "{said}"
    );
    fs::write(dir.path().join("scheduler_config.json"), "{}").unwrap();
    assert_eq!(load_saying(dir.path(), &Device::Cpu).unwrap().1, None);
    let ours = dir.path().join("ours");
    save(&ours, &small_checkpoint(1)).unwrap();
    assert_eq!(load_saying(&ours, &Device::Cpu).unwrap().1, None);
}

#[test]
fn missing_extra_and_misshapen_tensors_are_listed_together() {
    let dir = grey();
    edit_weights(dir.path(), |tensors| {
        tensors.remove("conv_out.bias").unwrap();
        tensors.insert("class_embedding.weight".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
        tensors.insert("conv_in.bias".into(), Tensor::zeros(9, DType::F32, &Device::Cpu).unwrap());
    });
    let message = refusal(dir.path());
    for part in ["missing: conv_out.bias;", "conv_in.bias [9] instead of [8];", "class_embedding.weight", WEIGHTS] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn numbers_that_are_none_are_refused() {
    for value in [f32::NAN, f32::INFINITY] {
        let dir = grey();
        edit_weights(dir.path(), |tensors| {
            tensors.insert("conv_in.bias".into(), Tensor::full(value, 8, &Device::Cpu).unwrap());
        });
        let message = refusal(dir.path());
        assert!(message.contains("conv_in.bias has a value"), "{message}");
    }
}

#[test]
fn networks_that_cannot_be_run_are_refused_by_field_and_value() {
    let cases = [
        ("down_block_types", json!(["DownBlock2D", "SkipDownBlock2D", "DownBlock2D"]), "SkipDownBlock2D"),
        ("up_block_types", json!(["UpBlock2D"]), "up_block_types has 1 entries"),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn"), "mid_block_type is UNetMidBlock2DCrossAttn"),
        ("time_embedding_type", json!("fourier"), "time_embedding_type is fourier"),
        ("act_fn", json!("gelu"), "act_fn is gelu"),
        ("num_class_embeds", json!(10), "num_class_embeds is 10"),
        ("class_embed_type", json!("timestep"), "class_embed_type is timestep"),
        ("resnet_time_scale_shift", json!("scale_shift"), "resnet_time_scale_shift is scale_shift"),
        ("downsample_type", json!("resnet"), "downsample_type is resnet"),
        ("upsample_type", json!("resnet"), "upsample_type is resnet"),
        ("downsample_padding", json!(2), "downsample_padding is 2"),
        ("sample_size", json!(null), "sample_size is null"),
        ("sample_size", json!(18), "multiples of 4"),
        ("sample_size", json!([16, 0]), "width"),
        ("norm_num_groups", json!(null), "norm_num_groups is null"),
        ("norm_num_groups", json!(3), "norm_num_groups is 3"),
        ("norm_num_groups", json!(0), "norm_num_groups is 0"),
        ("attn_norm_num_groups", json!(5), "attn_norm_num_groups is 5"),
        ("attention_head_dim", json!(17), "attention_head_dim is 17"),
        ("attention_head_dim", json!(0), "attention_head_dim is 0"),
        ("out_channels", json!(2), "out_channels is 2"),
        ("layers_per_block", json!(0), "layers_per_block is 0"),
        ("block_out_channels", json!([]), "block_out_channels is 0"),
        ("block_out_channels", json!([8, 99999999999u64, 8]), "block_out_channels has 99999999999"),
        ("mid_block_scale_factor", json!(0), "mid_block_scale_factor is 0"),
        ("dropout", json!(1.0), "dropout is 1"),
        ("freq_shift", json!(4), "freq_shift is 4"),
        ("in_channels", json!("three"), "three"),
        ("in_channels", json!(-3), "-3"),
        ("sample_size", json!([-16, 16]), "sample_size"),
        ("sample_size", json!(1e30), "sample_size"),
        ("time_embedding_dim", json!(1u64 << 40), "time_embedding_dim"),
        ("block_out_channels", json!([16384, 16384, 16384]), "its weights take"),
        ("layers_per_block", json!(u64::MAX), "layers_per_block"),
        ("sample_size", json!(4096), "attention among 4194304 pixels"),
        ("_class_name", json!("UNet2DConditionModel"), "UNet2DConditionModel"),
    ];
    for (field, value, expected) in cases {
        let dir = grey();
        edit_config(dir.path(), |config| drop(config.insert(field.into(), value)));
        let message = refusal(dir.path());
        assert!(message.contains(expected) && message.contains("config.json"), "{field}: {message}");
    }
}

#[test]
fn schedules_that_cannot_be_run_are_refused() {
    for (text, expected) in [
        (r#"{"prediction_type": "sample"}"#, "prediction_type is sample"),
        (r#"{"beta_schedule": "laplace"}"#, "beta_schedule is laplace"),
        (r#"{"trained_betas": [0.1]}"#, "trained_betas"),
        (r#"{"variance_type": "learned_range"}"#, "variance_type is learned_range"),
        (r#"{"num_train_timesteps": 0}"#, "steps"),
        (r#"{"beta_end": 2.0}"#, "beta"),
        ("{", "scheduler_config.json"),
    ] {
        let dir = grey();
        fs::write(dir.path().join("scheduler_config.json"), text).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn broken_files_are_refused_without_a_panic() {
    let whole = fs::read(golden("unet_gray").join(WEIGHTS)).unwrap();
    let mut huge_header = whole.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut wrong_offsets = whole.clone();
    let at = wrong_offsets.windows(14).position(|w| w == b"\"data_offsets\"").unwrap();
    wrong_offsets[at + 16] = b'9';
    let broken: [&[u8]; 7] =
        [b"", b"GIF89a", &whole[..4], &whole[..1000], &whole[..whole.len() - 1], &huge_header, &wrong_offsets];
    for bytes in broken {
        let dir = grey();
        fs::write(dir.path().join(WEIGHTS), bytes).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains("not a whole safetensors file") && message.contains(WEIGHTS), "{message}");
    }
    let dir = grey();
    fs::rename(dir.path().join(WEIGHTS), dir.path().join("diffusion_pytorch_model.bin")).unwrap();
    assert!(refusal(dir.path()).contains("pickled .bin"));
    fs::remove_file(dir.path().join("diffusion_pytorch_model.bin")).unwrap();
    assert!(refusal(dir.path()).contains("there is no such file"));
    assert!(refusal(&dir.path().join("nowhere")).contains("there is no such folder"));
    assert!(refusal(&golden("")).contains("config.json"));
    fs::write(dir.path().join("config.json"), "[1, 2").unwrap();
    assert!(refusal(dir.path()).contains("config.json"));
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_regular_file_is_refused_before_it_is_opened() {
    // opened, the pipe would wait for ever and the device never end
    for name in ["config.json", WEIGHTS] {
        let dir = grey();
        fs::remove_file(dir.path().join(name)).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join(name)).status().unwrap();
        assert!(made.success());
        assert!(refusal(dir.path()).contains("not a regular file"));
        fs::remove_file(dir.path().join(name)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(name)).unwrap();
        assert!(refusal(dir.path()).contains("not a regular file"));
        fs::remove_file(dir.path().join(name)).unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        assert!(refusal(dir.path()).contains("not a regular file"));
    }
    // 200 GiB on paper
    for name in ["config.json", WEIGHTS] {
        let dir = grey();
        fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap().set_len(200 << 30).unwrap();
        assert!(refusal(dir.path()).contains("far more than such a file needs"));
    }
}

#[test]
fn half_a_training_state_is_refused() {
    let dir = tempdir().unwrap();
    save(dir.path(), &small_checkpoint(1)).unwrap();
    fs::remove_file(dir.path().join("film/raw.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("film/raw.safetensors"));
}
