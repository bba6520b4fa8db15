//! The network against PyTorch and diffusers: values made by the scripts in tests/golden.

use candle_core::{DType, Device, Tensor, Var};
use ddpm_film::checkpoint;
use ddpm_film::diffusion::Images;
use ddpm_film::kernels::{self, Path as Kernels};
use ddpm_film::model::{Config, Denoiser as _, Params, UNet};
use std::collections::HashMap;
use std::path::PathBuf;

pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Fails unless every value is within `tolerance` times the largest absolute value of `expected`.
pub fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.dims(), expected.dims(), "shape of {what}");
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (actual, expected) = (values(actual), values(expected));
    let largest = expected.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
    let worst =
        actual.iter().zip(&expected).fold(0.0, |m: f32, (a, e)| if (a - e).abs() <= m { m } else { (a - e).abs() });
    assert!(worst <= tolerance * largest, "{what} is off by {worst}, where the largest value is {largest}");
}

/// Whether the true gradient of a parameter is zero, so that the reference (float32) holds rounding noise only; with
/// the same weights in float64 it is below 1e-16. Two kinds, both values that the next layer takes out again:
/// an attention's key bias adds the same to all scores of a softmax, and a value per channel vanishes in a group norm
/// whose groups are single channels, as in the 32 channels and 32 groups of the CIFAR layout's outer blocks.
fn true_gradient_is_zero(config: &Config, name: &str, weights: &Params) -> bool {
    if name.ends_with(".to_k.bias") {
        return true;
    }
    let out_channels = weights.get(name).unwrap().dims()[0];
    let last_up = format!("up_blocks.{}.resnets.{}.", config.up_block_types.len() - 1, config.layers_per_block);
    let before_a_norm = [".conv1.bias", ".time_emb_proj.weight", ".time_emb_proj.bias"];
    let before_the_last_norm = [".conv2.bias", ".conv_shortcut.bias"];
    config.norm_num_groups == Some(out_channels)
        && (before_a_norm.iter().any(|end| name.ends_with(end))
            || name.starts_with(&last_up) && before_the_last_norm.iter().any(|end| name.ends_with(end)))
}

/// CUDA's or Apple's, where this build and machine have one.
pub fn gpu() -> Option<Device> {
    let device = Device::new_cuda(0).or_else(|_| Device::new_metal(0)).ok();
    if device.is_none() {
        eprintln!("SKIPPED: no GPU, or built without --features cuda or metal");
    }
    device
}

fn network_agrees(name: &str, path: Kernels, tolerance: f32, zero_gradients: usize) {
    network_agrees_on(&Device::Cpu, name, path, tolerance, zero_gradients);
}

fn network_agrees_on(device: &Device, name: &str, path: Kernels, tolerance: f32, zero_gradients: usize) {
    let dir = golden(name);
    let io: HashMap<String, Tensor> = candle_core::safetensors::load(dir.join("io.safetensors"), device).unwrap();
    let model = checkpoint::load(&dir, device).unwrap();
    let vars: Vec<Var> = model.ema.tensors().map(|t| Var::from_tensor(t).unwrap()).collect();
    let weights = model.ema.with_tensors(vars.iter().map(|var| var.as_tensor().clone()));
    let x = Var::from_tensor(&io["x"]).unwrap();
    let t: Vec<f32> = io["t"].to_dtype(DType::F32).unwrap().to_vec1().unwrap();

    let net = UNet::new(&model.config, &weights, path).unwrap();
    let out = net.forward(&x, &t, None).unwrap();
    assert_close("out", &out, &io["out"], tolerance);
    let loss = (out - &io["eps"]).unwrap().sqr().unwrap().mean_all().unwrap();
    assert_close("loss", &loss.reshape(1).unwrap(), &io["loss"], tolerance);

    let gradients = loss.backward().unwrap();
    assert_close("grad_x", gradients.get(&x).unwrap(), &io["grad_x"], tolerance);
    let largest = |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    let steepest = weights.tensors().map(|w| largest(gradients.get(w).unwrap())).fold(0.0, f32::max);
    let mut zero = 0;
    for (name, weight) in weights.iter() {
        let (gradient, expected) = (gradients.get(weight).unwrap(), &io[&format!("grad.{name}")]);
        if true_gradient_is_zero(&model.config, name, &weights) {
            zero += 1;
            let noise = largest(gradient).max(largest(expected));
            assert!(noise <= 1e-6 * steepest, "{name}: {noise} is not zero beside {steepest}");
        } else {
            assert_close(name, gradient, expected, tolerance);
        }
    }
    // training takes its gradients without candle's graph
    let loss_of = |out: &Tensor| {
        let difference = (out - &io["eps"])?;
        Ok((difference.sqr()?.mean_all()?, (&difference * (2.0 / difference.elem_count() as f64))?))
    };
    let tracked: Vec<Tensor> = model.ema.tensors().map(|weight| kernels::tracked(path, weight).unwrap()).collect();
    let net = UNet::new(&model.config, &model.ema.with_tensors(tracked.iter().cloned()), path).unwrap();
    let output = || net.forward(&x.as_detached_tensor(), &t, None);
    let (own_loss, own) = kernels::gradients(path, &tracked, output, loss_of).unwrap();
    assert_close("loss", &own_loss.reshape(1).unwrap(), &io["loss"], tolerance);
    for ((name, weight), own) in weights.iter().zip(&own) {
        assert!(!own.track_op(), "the gradient of {name} keeps the maps of its step alive");
        let gradient = gradients.get(weight).unwrap();
        assert!(largest(&(own - gradient).unwrap()) <= (1e-5 * largest(gradient)).max(1e-6 * steepest), "{name}");
    }
    assert_eq!(zero, zero_gradients, "number of parameters whose true gradient is zero");
    assert_eq!(weights.iter().len(), io.keys().filter(|key| key.starts_with("grad.")).count(), "number of gradients");

    let plain = UNet::new(&model.config, &model.ema, path).unwrap();
    let pictures = Images::new(t.len(), plain.shape(), io["x"].flatten_all().unwrap().to_vec1().unwrap());
    let eps = Tensor::from_vec(plain.predict(&pictures, &t).unwrap().data, io["x"].dims(), device).unwrap();
    assert_close("prediction", &eps, &io["out"], tolerance);
}

#[test]
fn grey_network_agrees_on_candle() {
    network_agrees("unet_gray", Kernels::Candle, 1e-4, 4);
}

#[test]
fn networks_agree_on_a_gpu() {
    if let Some(device) = gpu() {
        network_agrees_on(&device, "unet_gray", Kernels::Candle, 1e-4, 4);
        network_agrees_on(&device, "unet_cifar_layout", Kernels::Candle, 1e-4, 23);
    }
}

#[test]
fn grey_network_agrees_on_exact_kernels() {
    network_agrees("unet_gray", Kernels::Exact, 1e-4, 4);
}

#[test]
fn grey_network_agrees_on_fast_kernels() {
    network_agrees("unet_gray", Kernels::Fast, 1e-3, 4);
}

#[test]
fn cifar_network_agrees_on_candle() {
    network_agrees("unet_cifar_layout", Kernels::Candle, 1e-4, 23);
}

#[test]
fn cifar_network_agrees_on_exact_kernels() {
    network_agrees("unet_cifar_layout", Kernels::Exact, 1e-4, 23);
}

#[test]
fn cifar_network_agrees_on_fast_kernels() {
    network_agrees("unet_cifar_layout", Kernels::Fast, 1e-3, 23);
}

#[test]
fn odd_network_agrees_on_candle() {
    network_agrees("unet_odd", Kernels::Candle, 1e-4, 11);
}

#[test]
fn odd_network_agrees_on_exact_kernels() {
    network_agrees("unet_odd", Kernels::Exact, 1e-4, 11);
}

#[test]
fn odd_network_agrees_on_fast_kernels() {
    network_agrees("unet_odd", Kernels::Fast, 1e-3, 11);
}
