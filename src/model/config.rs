//! The settings of a network: diffusers' `UNet2DModel` fields, their defaults, and which of them this program can run.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The names that [`Config::preset`] knows, smallest network first.
pub const PRESETS: [&str; 4] = ["digits16", "mnist28", "color32", "cifar10"];

/// The most that the weights, one feature map or one head of attention may take.
const MOST_BYTES: u64 = 8 << 30;

/// Height and width of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "sample_size is neither a side nor [height, width]")]
pub enum SampleSize {
    /// As high as wide.
    Square(usize),
    /// [height, width].
    Sides([usize; 2]),
}

/// The fields of a diffusers `UNet2DModel`, with its names and its defaults (diffusers 0.42).
///
/// Any file is read as it is; [`Config::validate`] says whether the network can be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // documented by diffusers; repeating it here would only go stale
pub struct Config {
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub time_embedding_type: String,
    pub time_embedding_dim: Option<usize>,
    pub freq_shift: f64,
    pub flip_sin_to_cos: bool,
    pub down_block_types: Vec<String>,
    pub mid_block_type: Option<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: usize,
    pub downsample_type: String,
    pub upsample_type: String,
    pub dropout: f64,
    pub act_fn: String,
    pub attention_head_dim: Option<usize>,
    pub norm_num_groups: Option<usize>,
    pub attn_norm_num_groups: Option<usize>,
    pub norm_eps: f64,
    pub resnet_time_scale_shift: String,
    pub add_attention: bool,
    pub class_embed_type: Option<String>,
    pub num_class_embeds: Option<usize>,
    pub num_train_timesteps: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: "positional".into(),
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: names(["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]),
            mid_block_type: Some("UNetMidBlock2D".into()),
            up_block_types: names(["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"]),
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: "conv".into(),
            upsample_type: "conv".into(),
            dropout: 0.0,
            act_fn: "silu".into(),
            attention_head_dim: Some(8),
            norm_num_groups: Some(32),
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: "default".into(),
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
        }
    }
}

impl Config {
    /// One of [`PRESETS`]. All keep the details of the paper's CIFAR-10 network (`google/ddpm-cifar10-32`), which is
    /// `cifar10`: Ho et al. 2020, appendix B, dropout 0.1.
    pub fn preset(name: &str) -> Option<Self> {
        let (size, colours, layers, channels, attention_at, groups, dropout) = match name {
            "digits16" => (16, 1, 1, vec![32, 64, 64], 2, 8, 0.0),
            "mnist28" => (28, 1, 1, vec![32, 64, 64], 2, 8, 0.0),
            "color32" => (32, 3, 1, vec![64, 128, 128], 1, 8, 0.0),
            "cifar10" => (32, 3, 2, vec![128, 256, 256, 256], 1, 32, 0.1),
            _ => return None,
        };
        let blocks = |plain: &str, attention: &str| -> Vec<String> {
            let name = |i| if i == attention_at { attention } else { plain };
            (0..channels.len()).map(|i| name(i).to_owned()).collect()
        };
        let up = blocks("UpBlock2D", "AttnUpBlock2D").into_iter().rev().collect();
        Some(Self {
            sample_size: Some(SampleSize::Square(size)),
            in_channels: colours,
            out_channels: colours,
            layers_per_block: layers,
            down_block_types: blocks("DownBlock2D", "AttnDownBlock2D"),
            up_block_types: up,
            block_out_channels: channels,
            norm_num_groups: Some(groups),
            dropout,
            flip_sin_to_cos: false,
            freq_shift: 1.0,
            norm_eps: 1e-6,
            attention_head_dim: None,
            downsample_padding: 0,
            ..Self::default()
        })
    }

    /// [c, h, w] of a picture; zeros where `sample_size` is not given, which [`Config::validate`] refuses.
    pub fn image_shape(&self) -> [usize; 3] {
        let [h, w] = match self.sample_size {
            Some(SampleSize::Square(side)) => [side; 2],
            Some(SampleSize::Sides(sides)) => sides,
            None => [0; 2],
        };
        [self.in_channels, h, w]
    }

    /// Height and width must be multiples of this: the sizes of the way down are met again on the way up.
    pub fn size_multiple(&self) -> usize {
        1 << (self.block_out_channels.len().saturating_sub(1))
    }

    /// Width of the vector that carries t to every block.
    pub fn time_dim(&self) -> usize {
        let default = self.block_out_channels.first().map_or(0, |c| 4 * c);
        self.time_embedding_dim.filter(|&dim| dim > 0).unwrap_or(default)
    }

    /// Bytes of the largest feature map of one picture.
    pub fn largest_map(&self) -> u64 {
        let [c, h, w] = self.image_shape();
        let map = |(level, channels): (usize, &usize)| 4 * ((h >> level) * (w >> level) * channels) as u64;
        self.block_out_channels.iter().enumerate().chain([(0, &c)]).map(map).max().unwrap_or(0)
    }

    /// Checks that this program can run the network.
    ///
    /// # Errors
    /// Names the first field that stands in the way, and its value.
    pub fn validate(&self) -> Result<()> {
        self.check_numbers()?;
        self.check_blocks()?;
        self.check_kinds()?;
        self.check_channels()?;
        self.check_memory()
    }

    fn check_numbers(&self) -> Result<()> {
        let [_, h, w] = self.image_shape();
        if self.sample_size.is_none() {
            return refuse("sample_size is null", "give the size of the pictures");
        }
        for (name, value, range) in [
            ("in_channels", self.in_channels, 1..=64),
            ("layers_per_block", self.layers_per_block, 1..=64),
            ("number of block_out_channels", self.block_out_channels.len(), 1..=10),
            ("sample_size (height)", h, 1..=4096),
            ("sample_size (width)", w, 1..=4096),
            ("time_embedding_dim", self.time_dim(), 1..=65536),
            ("downsample_padding", self.downsample_padding, 0..=1),
        ] {
            if !range.contains(&value) {
                return refuse(format!("{name} is {value}"), format!("use {} to {}", range.start(), range.end()));
            }
        }
        if self.out_channels != self.in_channels {
            let why = format!("out_channels is {} but in_channels is {}", self.out_channels, self.in_channels);
            return refuse(why, "use a network that predicts one value of noise per value of its input");
        }
        if !(self.norm_eps > 0.0 && self.norm_eps.is_finite()) {
            return refuse(format!("norm_eps is {}", self.norm_eps), "use a small number above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!("dropout is {}", self.dropout), "use a number from 0 to below 1");
        }
        if !self.mid_block_scale_factor.is_normal() {
            return refuse(format!("mid_block_scale_factor is {}", self.mid_block_scale_factor), "use 1");
        }
        let multiple = self.size_multiple();
        if h % multiple != 0 || w % multiple != 0 {
            let levels = self.block_out_channels.len();
            let why = format!(
                "sample_size {h}x{w} cannot be halved for each of the {levels} block_out_channels but the last"
            );
            return refuse(why, format!("use multiples of {multiple}"));
        }
        Ok(())
    }

    fn check_blocks(&self) -> Result<()> {
        let levels = self.block_out_channels.len();
        for (field, types, known) in [
            ("down_block_types", &self.down_block_types, ["DownBlock2D", "AttnDownBlock2D"]),
            ("up_block_types", &self.up_block_types, ["UpBlock2D", "AttnUpBlock2D"]),
        ] {
            if types.len() != levels {
                let why = format!("{field} has {} entries but block_out_channels has {levels}", types.len());
                return refuse(why, "use as many");
            }
            if let Some(other) = types.iter().find(|t| !known.contains(&plain_name(t))) {
                let why = format!("{field} has \"{other}\", which is not supported");
                return refuse(why, format!("use {} or {}", known[0], known[1]));
            }
        }
        match self.mid_block_type.as_deref() {
            None | Some("UNetMidBlock2D") => Ok(()),
            Some(other) => unsupported("mid_block_type", other, "UNetMidBlock2D or null"),
        }
    }

    fn check_kinds(&self) -> Result<()> {
        for (field, value, known) in [
            ("time_embedding_type", &self.time_embedding_type, "positional"),
            ("resnet_time_scale_shift", &self.resnet_time_scale_shift, "default"),
            ("downsample_type", &self.downsample_type, "conv"),
            ("upsample_type", &self.upsample_type, "conv"),
        ] {
            if value != known {
                return unsupported(field, value, known);
            }
        }
        if !["silu", "swish"].contains(&self.act_fn.to_lowercase().as_str()) {
            return unsupported("act_fn", &self.act_fn, "silu");
        }
        if let Some(kind) = &self.class_embed_type {
            return unsupported("class_embed_type", kind, "null");
        }
        if let Some(classes) = self.num_class_embeds {
            return unsupported("num_class_embeds", &classes.to_string(), "null");
        }
        Ok(())
    }

    fn check_channels(&self) -> Result<()> {
        for &channels in &self.block_out_channels {
            if !(1..=16384).contains(&channels) {
                return refuse(format!("block_out_channels has {channels}"), "use 1 to 16384");
            }
            let Some(groups) = self.norm_num_groups.filter(|&groups| groups > 0) else {
                return unsupported("norm_num_groups", &shown(self.norm_num_groups), "a divisor of block_out_channels");
            };
            check_groups("norm_num_groups", groups, channels)?;
        }
        let half = self.block_out_channels.first().map_or(0, |c| c / 2) as f64;
        if !self.freq_shift.is_finite() || half > 0.0 && (half - self.freq_shift).abs() < 1e-9 {
            let why = format!("freq_shift is {}, which leaves no frequencies for t", self.freq_shift);
            return refuse(why, "use 0 or 1, and more than 2 channels in the first block");
        }
        let plan = self.plan();
        for attention in plan.blocks().filter(|b| b.attentions > 0).map(|b| b.attention) {
            check_groups("attn_norm_num_groups", attention.groups, attention.channels)?;
            if attention.heads == 0 {
                let (dim, channels) = (shown(self.attention_head_dim), attention.channels);
                let why = format!("attention_head_dim is {dim} where an attention block has {channels} channels");
                return refuse(why, "use null or a divisor of the channels");
            }
        }
        Ok(())
    }

    /// A nonsensical size is refused before anything of that size is asked of the machine.
    fn check_memory(&self) -> Result<()> {
        let hint = "use a smaller network or smaller pictures";
        let weights = self.weights().saturating_mul(4);
        if weights > MOST_BYTES {
            return refuse(format!("its weights take {} GiB", gib(weights)), hint);
        }
        let [_, h, w] = self.image_shape();
        let pixels = |level: usize| ((h >> level) * (w >> level)) as u64;
        if self.largest_map() > MOST_BYTES {
            return refuse(format!("one feature map takes {} GiB", gib(self.largest_map())), hint);
        }
        let plan = self.plan();
        let last = self.block_out_channels.len() - 1;
        let down = plan.down.iter().enumerate();
        let up = plan.up.iter().enumerate().map(|(i, block)| (last - i, block));
        for (level, block) in down.chain(up).chain(plan.mid.iter().map(|block| (last, block))) {
            let weights = 4 * pixels(level).saturating_pow(2);
            if block.attentions > 0 && weights > MOST_BYTES {
                let why =
                    format!("attention among {} pixels in {} takes {} GiB", pixels(level), block.path, gib(weights));
                return refuse(why, hint);
            }
        }
        Ok(())
    }
}

fn gib(bytes: u64) -> u64 {
    bytes >> 30
}

/// A block type without the prefix that the first diffusers files carry.
pub(super) fn plain_name(block_type: &str) -> &str {
    block_type.strip_prefix("UNetRes").unwrap_or(block_type)
}

fn check_groups(field: &str, groups: usize, channels: usize) -> Result<()> {
    if groups == 0 || !channels.is_multiple_of(groups) {
        let why = format!("{field} is {groups} but a layer to normalise has {channels} channels");
        return refuse(why, "use a divisor of the channels");
    }
    Ok(())
}

fn shown(value: Option<usize>) -> String {
    value.map_or_else(|| "null".to_owned(), |v| v.to_string())
}

fn refuse<T>(why: impl Into<String>, hint: impl Into<String>) -> Result<T> {
    Err(Error::new("cannot run this network", why, hint))
}

fn unsupported<T>(field: &str, value: &str, known: &str) -> Result<T> {
    refuse(format!("{field} is {value}, which is not supported"), format!("use {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Params;
    use candle_core::Device;

    #[test]
    fn presets_have_as_many_weights_as_in_diffusers() {
        let counts = [1_112_801, 1_112_801, 4_437_699, 35_746_307];
        for (name, count) in PRESETS.into_iter().zip(counts) {
            let config = Config::preset(name).unwrap();
            config.validate().unwrap();
            let listed: usize = config.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!(listed, count, "{name}");
        }
        assert_eq!(Config::preset("mnist28").unwrap().image_shape(), [1, 28, 28]);
        assert_eq!(Config::preset("cifar10").unwrap().dropout, 0.1);
        assert!(Config::preset("huge").is_none());
    }

    #[test]
    fn heads_need_not_fill_the_channels() {
        let config = Config { attention_head_dim: Some(10), ..Config::preset("digits16").unwrap() };
        let params = Params::init(&config, 1, &Device::Cpu).unwrap();
        assert_eq!(params.get("mid_block.attentions.0.to_q.weight").unwrap().dims(), [60, 64]);
        assert_eq!(params.get("mid_block.attentions.0.to_out.0.weight").unwrap().dims(), [64, 60]);
    }
}
