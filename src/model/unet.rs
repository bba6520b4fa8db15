//! The noise predictor: diffusers' unconditional `UNet2DModel` (Ho et al. 2020, appendix B).

use super::blocks::{Builder, Stage};
use super::{Config, Params};
use crate::error::Result;
use crate::kernels::{Conv3x3, GroupNorm, Linear, Map, Path, Window, silu};
use candle_core::{Device, Result as CandleResult, Tensor};

/// Where a training step's dropout masks come from: the same address gives the same masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// Seed of the run.
    pub seed: u64,
    /// Training step.
    pub step: u64,
    /// Part of the batch, below 2^32.
    pub micro_batch: u64,
}

/// An immutable view of a set of weights. Weights that change need a new view.
#[derive(Debug)]
pub struct UNet {
    time: TimeEmbedding,
    conv_in: Conv3x3,
    down: Vec<Stage>,
    mid: Option<Stage>,
    up: Vec<Stage>,
    conv_norm_out: GroupNorm,
    conv_out: Conv3x3,
    center_input: bool,
    size_multiple: usize,
    shape: [usize; 3],
    device: Device,
    path: Path,
}

impl UNet {
    /// Builds the network of `config` over `params`, which may be tracked (training, see `kernels::tracked`) or plain
    /// (sampling: on candle's path any expression that touches a variable is recorded).
    ///
    /// # Errors
    /// `config` cannot be run, see [`Config::validate`], or `params` lacks a tensor of it.
    pub fn new(config: &Config, params: &Params, path: Path) -> Result<Self> {
        config.validate()?;
        let groups = config.norm_num_groups.unwrap_or(1);
        let mut builder = Builder { params, groups, eps: config.norm_eps, dropout: config.dropout, resnets: 0 };
        let half = if config.downsample_padding == 0 { Window::HalfRightBottom } else { Window::HalfSymmetric };
        let plan = config.plan();
        let mut stages = |blocks: &[_], window, scale| {
            let stages = blocks.iter().map(|block| Stage::new(&mut builder, block, window, scale));
            stages.collect::<Result<Vec<_>>>()
        };
        let down = stages(&plan.down, half, 1.0)?;
        let mid = stages(plan.mid.as_slice(), Window::Same, 1.0 / config.mid_block_scale_factor)?.pop();
        let up = stages(&plan.up, Window::Doubled, 1.0)?;
        let conv_in = builder.conv3x3("conv_in", Window::Same)?;
        Ok(Self {
            time: TimeEmbedding::new(&builder, config)?,
            conv_in,
            down,
            mid,
            up,
            conv_norm_out: builder.norm("conv_norm_out", groups)?,
            conv_out: builder.conv3x3("conv_out", Window::Same)?,
            center_input: config.center_input_sample,
            size_multiple: config.size_multiple(),
            shape: config.image_shape(),
            device: params.get("conv_in.weight")?.device().clone(),
            path,
        })
    }

    /// [c, h, w] of the pictures it was made for. It also takes others whose sides are multiples of
    /// [`Config::size_multiple`].
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the network was trained to predict of x_t, ε (Ho et al. 2020, Eq. 11) or v: `x` is [n, c, h, w], `t` one number
    /// for each picture, whole or not. With `dropout` as in training, without as in sampling.
    ///
    /// # Errors
    /// `x` has other channels, sides that cannot be halved often enough, or not as many pictures as `t` numbers.
    pub fn forward(&self, x: &Tensor, t: &[f32], dropout: Option<Dropout>) -> CandleResult<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        if c != self.shape[0] || n != t.len() {
            candle_core::bail!("{n} pictures of {c} channels with {} timesteps do not fit the network", t.len());
        }
        if h % self.size_multiple != 0 || w % self.size_multiple != 0 {
            candle_core::bail!("pictures of {h}x{w} do not fit the network: use multiples of {}", self.size_multiple);
        }
        let temb = self.time.forward(t, &self.device)?;
        let x = if self.center_input { x.affine(2.0, -1.0)? } else { x.clone() };
        let mut x = self.conv_in.forward(&Map::from_nchw(&x, self.path)?)?;
        let mut skips = vec![x.clone()];
        for stage in &self.down {
            x = stage.forward(x, &temb, dropout, Ok, |x| skips.push(x.clone()))?;
            if let Some(downsampler) = &stage.sampler {
                x = downsampler.forward(&x)?;
                skips.push(x.clone());
            }
        }
        if let Some(mid) = &self.mid {
            x = mid.forward(x, &temb, dropout, Ok, |_| ())?;
        }
        for stage in &self.up {
            let join = |x: Map| match skips.pop() {
                Some(skip) => x.concat(&skip),
                None => candle_core::bail!("the way up is longer than the way down"),
            };
            x = stage.forward(x, &temb, dropout, join, |_| ())?;
            if let Some(upsampler) = &stage.sampler {
                x = upsampler.forward(&x)?;
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)?.to_nchw()
    }
}

/// t as waves of many lengths, then two linear maps (Ho et al. 2020, appendix B; Vaswani et al. 2017, section 3.5).
#[derive(Debug)]
struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    /// Width of the waves.
    dim: usize,
    freq_shift: f64,
    flip_sin_to_cos: bool,
}

impl TimeEmbedding {
    fn new(builder: &Builder<'_>, config: &Config) -> Result<Self> {
        Ok(Self {
            linear_1: builder.linear("time_embedding.linear_1")?,
            linear_2: builder.linear("time_embedding.linear_2")?,
            dim: config.block_out_channels.first().copied().unwrap_or(0),
            freq_shift: config.freq_shift,
            flip_sin_to_cos: config.flip_sin_to_cos,
        })
    }

    /// [n, time_dim], after the activation that every block applies first.
    fn forward(&self, t: &[f32], device: &Device) -> CandleResult<Tensor> {
        let waves: Vec<f32> = t.iter().flat_map(|&t| self.waves(t)).collect();
        let waves = Tensor::from_vec(waves, (t.len(), self.dim), device)?;
        silu(&self.linear_2.forward(&silu(&self.linear_1.forward(&waves)?)?)?)
    }

    /// sin and cos of t·10000^(-i / (half - freq_shift)), in f32 as the reference has them; an odd `dim` ends in 0.
    fn waves(&self, t: f32) -> Vec<f32> {
        let half = self.dim / 2;
        let steps = half as f32 - self.freq_shift as f32;
        let angle = |i: usize| t * (-(10_000_f32.ln()) * i as f32 / steps).exp();
        let sin = (0..half).map(|i| angle(i).sin());
        let cos = (0..half).map(|i| angle(i).cos());
        let mut waves: Vec<f32> =
            if self.flip_sin_to_cos { cos.chain(sin).collect() } else { sin.chain(cos).collect() };
        waves.resize(self.dim, 0.0);
        waves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::noise::{Purpose, normal};

    /// With weights that let every branch speak, unlike fresh ones.
    fn params(config: &Config) -> Params {
        let count = Params::init(config, 0, &Device::Cpu).unwrap().count();
        let values: Vec<f32> = normal(9, Purpose::Init, [0, 0], count).iter().map(|v| v * 0.1).collect();
        Params::from_flat(config, &values, &Device::Cpu).unwrap()
    }

    fn run(config: &Config, size: usize, t: &[f32], dropout: Option<Dropout>) -> CandleResult<Vec<f32>> {
        let shape = (t.len(), 1, size, size);
        let x = normal(3, Purpose::Forward, [0, 0], t.len() * size * size);
        let x = Tensor::from_vec(x, shape, &Device::Cpu)?;
        let unet = UNet::new(config, &params(config), Path::Candle).unwrap();
        unet.forward(&x, t, dropout)?.flatten_all()?.to_vec1()
    }

    #[test]
    fn dropout_follows_its_address_and_is_off_without_one() {
        let plain = Config::preset("digits16").unwrap();
        let dropping = Config { dropout: 0.2, ..plain.clone() };
        let t = [10.0, 500.0];
        let at = Dropout { seed: 1, step: 2, micro_batch: 3 };
        let reference = run(&plain, 16, &t, None).unwrap();
        assert_eq!(run(&plain, 16, &t, Some(at)).unwrap(), reference);
        assert_eq!(run(&dropping, 16, &t, None).unwrap(), reference);
        let dropped = run(&dropping, 16, &t, Some(at)).unwrap();
        assert_ne!(dropped, reference);
        assert_eq!(run(&dropping, 16, &t, Some(at)).unwrap(), dropped);
        for other in [Dropout { seed: 2, ..at }, Dropout { step: 3, ..at }, Dropout { micro_batch: 4, ..at }] {
            assert_ne!(run(&dropping, 16, &t, Some(other)).unwrap(), dropped, "{other:?}");
        }
    }

    #[test]
    fn fractional_times_and_other_sizes_are_fine_and_sizes_that_cannot_be_halved_are_refused() {
        let config = Config::preset("digits16").unwrap();
        let values = run(&config, 20, &[10.0, 10.5, 11.0], None).unwrap();
        assert_eq!(values.len(), 3 * 20 * 20);
        assert!(values.iter().all(|v| v.is_finite()));
        let message = run(&config, 18, &[1.0], None).unwrap_err().to_string();
        assert!(message.contains("multiples of 4"), "{message}");
    }

    #[test]
    fn waves_are_sines_then_cosines_and_an_odd_width_ends_in_zero() {
        let config = Config {
            block_out_channels: vec![5, 5, 5],
            norm_num_groups: Some(5),
            ..Config::preset("digits16").unwrap()
        };
        let unet = UNet::new(&config, &params(&config), Path::Candle).unwrap();
        let waves = unet.time.waves(0.5);
        let slow = (0.5_f32 * 1e-4).sin();
        let expected = [0.5_f32.sin(), slow, 0.5_f32.cos(), (0.5_f32 * 1e-4).cos(), 0.0];
        assert!(waves.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{waves:?} {expected:?}");
    }
}
