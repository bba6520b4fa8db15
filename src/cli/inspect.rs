//! `ddpm-film predict` and `ddpm-film info`.

use super::{Machine, ModelArg};
use crate::checkpoint::{self, Checkpoint};
use crate::diffusion::{Images, schedule::Schedule};
use crate::engine::{self, DeviceChoice, Error, Result};
use crate::error::Kind;
use crate::export::files::{cannot_write, check_file, save_atomically};
use crate::model::{Denoiser as _, Network, compute::Compute};
use crate::train::trainer::State;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that `predict` reads at most.
const MOST_INPUT: u64 = 8 << 30;

#[derive(Args, Debug)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Reads `x` f32 [n,c,h,w] and `t` i64 [n]
    #[arg(long, value_name = "IN.safetensors")]
    input: PathBuf,
    /// Writes `eps` f32 [n,c,h,w]
    #[arg(long, value_name = "OUT.safetensors")]
    out: PathBuf,
    /// Direct kernels only, on the CPU: slower, nearest to other implementations
    #[arg(long)]
    exact: bool,
}

#[derive(Args, Debug)]
pub(super) struct InfoArgs {
    /// Model folder; it is read on the CPU
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn predict(args: &PredictArgs, machine: &Machine) -> Result<()> {
    check_file(&args.out)?;
    let device = if args.exact { DeviceChoice::Cpu } else { machine.device };
    let (compute, _) = engine::open_device(device, usize::from(machine.threads), false)?;
    let compute = if args.exact { compute.with_path(crate::kernels::Path::Exact) } else { compute };
    let (checkpoint, _) = engine::load_model(&args.model.origin()?, compute.device(), |words| log::warn!("{words}"))?;
    let (x, t) = read_input(&args.input)?;
    let eps = predict_on(&compute, &checkpoint, &x, &t).map_err(|e| e.at(&args.input))?;
    let bytes = safetensors::serialize([("eps", &eps)], None)
        .map_err(|e| Error::new("cannot write the prediction", e.to_string(), "").at(&args.out))?;
    save_atomically(&args.out, |file| file.write_all(&bytes).map_err(|e| cannot_write(&e)))?;
    say!("noise predicted in {} pictures, in {}", t.len(), args.out.display());
    Ok(())
}

fn predict_on(compute: &Compute, checkpoint: &Checkpoint, x: &Tensor, t: &[f32]) -> Result<Tensor> {
    let [c, h, w] = checkpoint.config.image_shape();
    let (n, dims) = (t.len(), x.dims().to_vec());
    if dims != [n, c, h, w] {
        let why = format!("x has shape {dims:?}, but the model wants [{n}, {c}, {h}, {w}] for these {n} timesteps");
        return Err(Error::usage("cannot predict", why, "give x f32 [n,c,h,w] and t i64 [n]"));
    }
    let schedule = Arc::new(Schedule::new(&checkpoint.schedule.schedule()?)?);
    let prediction_type = checkpoint.schedule.prediction_type()?;
    let weights = (&checkpoint.config, &checkpoint.ema);
    let network = Network::new(weights, compute.path(), prediction_type, schedule)?;
    let mut eps = Vec::with_capacity(x.elem_count());
    // chunks bound the memory
    for first in (0..n).step_by(64) {
        let m = 64.min(n - first);
        let x_t = Images::new(m, [c, h, w], x.narrow(0, first, m)?.flatten_all()?.to_vec1()?);
        eps.extend(compute.run_here(|| network.predict(&x_t, &t[first..first + m]))?.data);
    }
    Ok(Tensor::from_vec(eps, x.shape(), &Device::Cpu)?)
}

fn read_input(path: &Path) -> Result<(Tensor, Vec<f32>)> {
    let refuse = |why: String| Error::new("cannot read the input", why, "give x f32 [n,c,h,w] and t i64 [n]").at(path);
    match std::fs::metadata(path) {
        Ok(file) if !file.is_file() => return Err(refuse("it is not a regular file".into())),
        Ok(file) if file.len() > MOST_INPUT => return Err(refuse(format!("it holds {} bytes", file.len()))),
        _ => {}
    }
    let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| refuse(Error::from(e).why))?;
    let get = |name: &str| tensors.get(name).ok_or_else(|| refuse(format!("it has no tensor \"{name}\"")));
    let x = get("x")?.to_dtype(DType::F32).map_err(|e| refuse(Error::from(e).why))?;
    let t = get("t")?.to_dtype(DType::F32).and_then(|t| t.to_vec1::<f32>()).map_err(|e| refuse(Error::from(e).why))?;
    if t.is_empty() {
        return Err(refuse("t holds no timestep".into()));
    }
    if let Some(t) = t.iter().find(|t| t.fract() != 0.0 || !(0.0..1e6).contains(*t)) {
        return Err(refuse(format!("t holds {t}, which is no timestep")));
    }
    Ok((x, t))
}

pub(super) fn info(args: &InfoArgs) -> Result<()> {
    let checkpoint = checkpoint::load(&args.dir, &Device::Cpu).map_err(|e| Error { kind: Kind::Failed, ..e })?;
    let [c, h, w] = checkpoint.config.image_shape();
    let s = &checkpoint.schedule;
    say!("{}", args.dir.display());
    say!("  pictures    {c} x {h} x {w}");
    say!("  weights     {} in {} tensors", checkpoint.ema.count(), checkpoint.ema.iter().count());
    say!(
        "  channels    {:?}, {} blocks per level",
        checkpoint.config.block_out_channels,
        checkpoint.config.layers_per_block
    );
    say!(
        "  schedule    {}, T = {}, beta {} to {}; predicts {}",
        s.beta_schedule,
        s.num_train_timesteps,
        s.beta_start,
        s.beta_end,
        s.prediction_type
    );
    match &checkpoint.training {
        None => say!("  training    not known (one copy of the weights)"),
        Some(training) => {
            say!("  copies      EMA and raw weights{}", if training.adam.is_some() { ", optimiser state" } else { "" });
            match serde_json::from_value::<State>(training.state.clone()) {
                Err(e) => say!("  training    not understood: {e}"),
                Ok(State { run, step, history, .. }) => {
                    let loss = history.mean_loss(500).map_or_else(String::new, |loss| format!(", loss {loss:.5}"));
                    say!(
                        "  training    step {step} of {}, batch {}, learning rate {}, seed {}, data {}{loss}",
                        run.steps,
                        run.batch,
                        run.learning_rate,
                        run.seed,
                        run.data
                    );
                }
            }
        }
    }
    Ok(())
}
