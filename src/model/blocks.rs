//! The parts of the U-Net: residual blocks, attention, and the layers that change the size.

use super::Params;
use super::plan::{AttentionPlan, Block};
use super::unet::Dropout;
use crate::diffusion::noise::{Purpose, stream};
use crate::error::Result;
use crate::kernels::{Conv1x1, Conv3x3, GroupNorm, Linear, Map, SelfAttention, Window};
use candle_core::{Device, Result as CandleResult, Tensor};

/// Reads the layers of one network and hands out what they have in common.
pub(super) struct Builder<'a> {
    pub params: &'a Params,
    pub groups: usize,
    pub eps: f64,
    pub dropout: f64,
    /// Residual blocks so far: the address of their dropout.
    pub resnets: u64,
}

impl Builder<'_> {
    fn pair(&self, path: &str) -> Result<(Tensor, Tensor)> {
        let get = |name| self.params.get(&format!("{path}.{name}")).cloned();
        Ok((get("weight")?, get("bias")?))
    }

    pub fn conv3x3(&self, path: &str, window: Window) -> Result<Conv3x3> {
        let (weight, bias) = self.pair(path)?;
        Ok(Conv3x3::new(weight, bias, window))
    }

    fn conv1x1(&self, path: &str) -> Result<Conv1x1> {
        let (weight, bias) = self.pair(path)?;
        Ok(Conv1x1::new(weight, bias))
    }

    pub fn linear(&self, path: &str) -> Result<Linear> {
        let (weight, bias) = self.pair(path)?;
        Ok(Linear::new(weight, bias))
    }

    pub fn norm(&self, path: &str, groups: usize) -> Result<GroupNorm> {
        let (weight, bias) = self.pair(path)?;
        Ok(GroupNorm::new(weight, bias, groups, self.eps))
    }
}

/// Two 3x3 convolutions with t added between them, around which the input passes unchanged (diffusers `ResnetBlock2D`).
#[derive(Debug)]
struct Resnet {
    norm1: GroupNorm,
    conv1: Conv3x3,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv3x3,
    /// Where the number of channels changes.
    conv_shortcut: Option<Conv1x1>,
    dropout: f64,
    index: u64,
}

impl Resnet {
    fn new(builder: &mut Builder<'_>, path: &str, (input, output): (usize, usize)) -> Result<Self> {
        let index = builder.resnets;
        builder.resnets += 1;
        let shortcut = (input != output).then(|| builder.conv1x1(&format!("{path}.conv_shortcut")));
        Ok(Self {
            norm1: builder.norm(&format!("{path}.norm1"), builder.groups)?,
            conv1: builder.conv3x3(&format!("{path}.conv1"), Window::Same)?,
            time_emb_proj: builder.linear(&format!("{path}.time_emb_proj"))?,
            norm2: builder.norm(&format!("{path}.norm2"), builder.groups)?,
            conv2: builder.conv3x3(&format!("{path}.conv2"), Window::Same)?,
            conv_shortcut: shortcut.transpose()?,
            dropout: builder.dropout,
            index,
        })
    }

    /// `temb` is the embedded t after its activation, [n, time_dim].
    fn forward(&self, x: &Map, temb: &Tensor, dropout: Option<Dropout>) -> CandleResult<Map> {
        let h = self.conv1.forward_with_bias(&self.norm1.forward_silu(x)?, &self.time_emb_proj.forward(temb)?)?;
        let mut h = self.norm2.forward_silu(&h)?;
        if let Some(dropout) = dropout
            && self.dropout > 0.0
        {
            h = h.mask(&dropout_mask(self.dropout, dropout, self.index, h.dims()?, temb.device())?)?;
        }
        let h = self.conv2.forward(&h)?;
        match &self.conv_shortcut {
            Some(conv) => conv.forward_plus(x, &h),
            None => x.add(&h),
        }
    }
}

/// Zero with probability `p`, else what keeps the mean; `resnet` numbers the residual blocks of the network.
fn dropout_mask(
    p: f64,
    at: Dropout,
    resnet: u64,
    shape: (usize, usize, usize, usize),
    on: &Device,
) -> CandleResult<Tensor> {
    let (n, c, h, w) = shape;
    let mut stream = stream(at.seed, Purpose::Dropout, [at.step, at.micro_batch << 32 | resnet]);
    let (drop, kept) = (p as f32, 1.0 / (1.0 - p) as f32);
    let mask = (0..n * c * h * w).map(|_| if stream.uniform() < drop { 0.0 } else { kept }).collect();
    Tensor::from_vec(mask, shape, on)
}

/// Each pixel reads from all pixels of its image (diffusers `Attention`).
#[derive(Debug)]
struct Attention {
    group_norm: GroupNorm,
    pixels: SelfAttention,
}

impl Attention {
    fn new(builder: &Builder<'_>, path: &str, plan: AttentionPlan) -> Result<Self> {
        let map = |name: &str| builder.conv1x1(&format!("{path}.{name}"));
        let maps = [map("to_q")?, map("to_k")?, map("to_v")?, map("to_out.0")?];
        Ok(Self {
            group_norm: builder.norm(&format!("{path}.group_norm"), plan.groups)?,
            pixels: SelfAttention::new(maps, plan.heads),
        })
    }

    fn forward(&self, x: &Map) -> CandleResult<Map> {
        self.pixels.forward_plus(&self.group_norm.forward(x)?, x)
    }
}

/// The residual blocks and attentions at one size.
#[derive(Debug)]
pub(super) struct Stage {
    resnets: Vec<(Resnet, Option<Attention>)>,
    /// The way to the next size.
    pub sampler: Option<Conv3x3>,
    /// Every residual sum is multiplied by this.
    scale: f64,
}

impl Stage {
    pub fn new(builder: &mut Builder<'_>, block: &Block, sampler: Window, scale: f64) -> Result<Self> {
        let path = &block.path;
        let mut resnets = Vec::with_capacity(block.resnets.len());
        for (i, &channels) in block.resnets.iter().enumerate() {
            let resnet = Resnet::new(builder, &format!("{path}.resnets.{i}"), channels)?;
            let path = format!("{path}.attentions.{i}");
            let attention = (i < block.attentions).then(|| Attention::new(builder, &path, block.attention));
            resnets.push((resnet, attention.transpose()?));
        }
        let sampler = block.sampler.map(|name| builder.conv3x3(&format!("{path}.{name}.0.conv"), sampler));
        Ok(Self { resnets, sampler: sampler.transpose()?, scale })
    }

    /// Runs the blocks in order; `before` prepares the input of each, `after` sees its output.
    pub fn forward(
        &self,
        mut x: Map,
        temb: &Tensor,
        dropout: Option<Dropout>,
        mut before: impl FnMut(Map) -> CandleResult<Map>,
        mut after: impl FnMut(&Map),
    ) -> CandleResult<Map> {
        for (resnet, attention) in &self.resnets {
            x = self.scaled(resnet.forward(&before(x)?, temb, dropout)?)?;
            if let Some(attention) = attention {
                x = self.scaled(attention.forward(&x)?)?;
            }
            after(&x);
        }
        Ok(x)
    }

    fn scaled(&self, x: Map) -> CandleResult<Map> {
        if self.scale == 1.0 { Ok(x) } else { x.scale(self.scale) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        let at = Dropout { seed: 1, step: 2, micro_batch: 3 };
        let mask = dropout_mask(0.1, at, 4, (2, 32, 40, 40), &Device::Cpu).unwrap();
        let mask = mask.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let dropped = mask.iter().filter(|v| **v == 0.0).count() as f64 / mask.len() as f64;
        let mean = mask.iter().map(|v| f64::from(*v)).sum::<f64>() / mask.len() as f64;
        assert!((dropped - 0.1).abs() < 0.005 && (mean - 1.0).abs() < 0.005, "{dropped} dropped, mean {mean}");
    }
}
