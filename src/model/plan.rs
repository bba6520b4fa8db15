//! What a configuration builds: every block with its channels, and every parameter with its diffusers path and shape.

use super::config::{Config, plain_name};

/// The blocks of a network.
#[derive(Debug)]
pub(super) struct Plan {
    /// First to last.
    pub down: Vec<Block>,
    /// Between the way down and the way up.
    pub mid: Option<Block>,
    /// First to last.
    pub up: Vec<Block>,
}

/// Residual blocks at one size, some with attention after them, and the way to the next size.
#[derive(Debug)]
pub(super) struct Block {
    /// "down_blocks.1".
    pub path: String,
    /// Channels (in, out) of each residual block.
    pub resnets: Vec<(usize, usize)>,
    /// How many residual blocks, from the first, have attention after them.
    pub attentions: usize,
    /// What that attention is like.
    pub attention: AttentionPlan,
    /// Name of the layer that changes the size, if there is one: "downsamplers" or "upsamplers".
    pub sampler: Option<&'static str>,
}

/// Attention among the pixels of `channels` channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionPlan {
    pub channels: usize,
    /// Channels of q, k and v: `heads` times the width of a head.
    pub inner: usize,
    pub heads: usize,
    /// Groups of the normalisation before it.
    pub groups: usize,
}

impl Plan {
    /// All blocks in the order of diffusers' parameters.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.down.iter().chain(&self.up).chain(&self.mid)
    }
}

impl Config {
    /// The blocks of a configuration whose lists are of equal length.
    pub(super) fn plan(&self) -> Plan {
        let channels = &self.block_out_channels;
        let groups = self.norm_num_groups.unwrap_or(0);
        let last = channels.len().saturating_sub(1);
        let down = (0..channels.len()).map(|i| {
            let (input, output) = (channels[i.saturating_sub(1)], channels[i]);
            let resnets = (0..self.layers_per_block).map(|layer| (if layer == 0 { input } else { output }, output));
            Block {
                path: format!("down_blocks.{i}"),
                resnets: resnets.collect(),
                attentions: if self.has_attention(&self.down_block_types, i) { self.layers_per_block } else { 0 },
                attention: self.attention(output, groups),
                sampler: (i < last).then_some("downsamplers"),
            }
        });
        let up = (0..channels.len()).map(|i| {
            let output = channels[last - i];
            let before = channels[(last - i + 1).min(last)];
            let skip_last = channels[(last - i).saturating_sub(1)];
            let layers = self.layers_per_block + 1;
            // each residual block also reads what the way down kept: skip connections in reverse order
            let resnets = (0..layers).map(|layer| {
                let input = if layer == 0 { before } else { output };
                let skip = if layer + 1 == layers { skip_last } else { output };
                (input + skip, output)
            });
            Block {
                path: format!("up_blocks.{i}"),
                resnets: resnets.collect(),
                attentions: if self.has_attention(&self.up_block_types, i) { layers } else { 0 },
                attention: self.attention(output, groups),
                sampler: (i < last).then_some("upsamplers"),
            }
        });
        let narrow = channels.last().copied().unwrap_or(0);
        let mid = self.mid_block_type.as_ref().map(|_| Block {
            path: "mid_block".to_owned(),
            resnets: vec![(narrow, narrow); 2],
            attentions: usize::from(self.add_attention),
            attention: self.attention(narrow, self.attn_norm_num_groups.unwrap_or(groups)),
            sampler: None,
        });
        Plan { down: down.collect(), mid, up: up.collect() }
    }

    fn has_attention(&self, types: &[String], i: usize) -> bool {
        types.get(i).is_some_and(|t| plain_name(t).starts_with("Attn"))
    }

    fn attention(&self, channels: usize, groups: usize) -> AttentionPlan {
        let dim = self.attention_head_dim.unwrap_or(channels);
        let heads = channels.checked_div(dim).unwrap_or(0);
        AttentionPlan { channels, inner: heads * dim, heads, groups }
    }

    /// Number of all weights.
    pub fn weights(&self) -> u64 {
        let count = |shape: &[usize]| shape.iter().fold(1_u64, |n, &side| n.saturating_mul(side as u64));
        self.parameters().iter().fold(0, |sum, (_, shape)| sum.saturating_add(count(shape)))
    }

    /// Path and shape of every parameter, in the order of diffusers' `named_parameters`.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = List(Vec::new());
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        let time = self.time_dim();
        list.conv("conv_in", first, self.in_channels, 3);
        list.linear("time_embedding.linear_1", time, first);
        list.linear("time_embedding.linear_2", time, time);
        for block in self.plan().blocks() {
            let path = &block.path;
            let a = block.attention;
            for i in 0..block.attentions {
                list.norm(&format!("{path}.attentions.{i}.group_norm"), a.channels);
                for name in ["to_q", "to_k", "to_v"] {
                    list.linear(&format!("{path}.attentions.{i}.{name}"), a.inner, a.channels);
                }
                list.linear(&format!("{path}.attentions.{i}.to_out.0"), a.channels, a.inner);
            }
            for (i, &(input, output)) in block.resnets.iter().enumerate() {
                let path = format!("{path}.resnets.{i}");
                list.norm(&format!("{path}.norm1"), input);
                list.conv(&format!("{path}.conv1"), output, input, 3);
                list.linear(&format!("{path}.time_emb_proj"), output, time);
                list.norm(&format!("{path}.norm2"), output);
                list.conv(&format!("{path}.conv2"), output, output, 3);
                if input != output {
                    list.conv(&format!("{path}.conv_shortcut"), output, input, 1);
                }
            }
            if let Some(sampler) = block.sampler {
                let channels = a.channels;
                list.conv(&format!("{path}.{sampler}.0.conv"), channels, channels, 3);
            }
        }
        list.norm("conv_norm_out", first);
        list.conv("conv_out", self.out_channels, first, 3);
        list.0
    }
}

struct List(Vec<(String, Vec<usize>)>);

impl List {
    fn layer(&mut self, path: &str, weight: Vec<usize>, out: usize) {
        self.0.push((format!("{path}.weight"), weight));
        self.0.push((format!("{path}.bias"), vec![out]));
    }

    fn conv(&mut self, path: &str, out: usize, input: usize, kernel: usize) {
        self.layer(path, vec![out, input, kernel, kernel], out);
    }

    fn linear(&mut self, path: &str, out: usize, input: usize) {
        self.layer(path, vec![out, input], out);
    }

    fn norm(&mut self, path: &str, channels: usize) {
        self.layer(path, vec![channels], channels);
    }
}
