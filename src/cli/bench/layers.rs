//! What a network has beside its convolutions, each by itself: group norm, attention, and Adam on its weights.

use super::kernels::{CHECKED, MICRO_BATCH, compare, level, speed};
use super::report::{Report, round};
use crate::diffusion::noise::{Purpose, normal};
use crate::engine::Result;
use crate::kernels::optimizer::{Adam, adam};
use crate::kernels::{Conv1x1, GroupNorm, Map, SelfAttention};
use crate::model::Config;
use crate::model::compute::Compute;
use candle_core::{Device, Tensor};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    GroupNorm { groups: usize, silu: bool },
    Attention { heads: usize },
}

/// A layer of the network, for maps [c, h, w].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer {
    kind: Kind,
    c: usize,
    h: usize,
    w: usize,
}

enum Op {
    GroupNorm(GroupNorm, bool),
    Attention(SelfAttention),
}

impl Op {
    fn forward(&self, x: &Map) -> candle_core::Result<Map> {
        match self {
            Self::GroupNorm(norm, true) => norm.forward_silu(x),
            Self::GroupNorm(norm, false) => norm.forward(x),
            Self::Attention(attention) => attention.forward_plus(x, x),
        }
    }
}

/// N(0, scale²), by address.
fn random(i: u64, shape: &[usize], scale: f32) -> candle_core::Result<Tensor> {
    let mut data = normal(4, Purpose::Init, [i, 0], shape.iter().product());
    data.iter_mut().for_each(|v| *v *= scale);
    Tensor::from_vec(data, shape, &Device::Cpu)
}

impl Layer {
    fn name(self) -> String {
        let Self { kind, c, h, w } = self;
        let kind = match kind {
            Kind::GroupNorm { silu: true, .. } => "group norm, SiLU".to_owned(),
            Kind::GroupNorm { silu: false, .. } => "group norm".to_owned(),
            Kind::Attention { heads } => format!("attention, heads {heads},"),
        };
        format!("{kind} {c} {h}x{w}")
    }

    /// Scale and shift of a norm, or weights and biases of the maps to q, k, v and out.
    fn weights(self) -> candle_core::Result<Vec<Tensor>> {
        let c = self.c;
        match self.kind {
            Kind::GroupNorm { .. } => (0..2).map(|i| random(i, &[c], 1.0)).collect(),
            Kind::Attention { .. } => {
                let scale = (c as f32).sqrt().recip();
                (0..8).map(|i| if i % 2 == 0 { random(i, &[c, c], scale) } else { random(i, &[c], 1.0) }).collect()
            }
        }
    }

    fn op(self, eps: f64) -> candle_core::Result<Op> {
        let weights = self.weights()?;
        Ok(match self.kind {
            Kind::GroupNorm { groups, silu } => {
                Op::GroupNorm(GroupNorm::new(weights[0].clone(), weights[1].clone(), groups, eps), silu)
            }
            Kind::Attention { heads } => {
                let map = |i: usize| Conv1x1::new(weights[2 * i].clone(), weights[2 * i + 1].clone());
                Op::Attention(SelfAttention::new([map(0), map(1), map(2), map(3)], heads))
            }
        })
    }

    fn images(self, n: usize) -> candle_core::Result<Tensor> {
        random(9, &[n, self.c, self.h, self.w], 1.0)
    }

    /// Of images `x` [n, c, h, w], by the definition, in f64.
    fn reference(self, x: &Tensor, eps: f64) -> candle_core::Result<Vec<f64>> {
        let wide = |t: &Tensor| -> candle_core::Result<Vec<f64>> {
            Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
        };
        let weights = self.weights()?.iter().map(wide).collect::<candle_core::Result<Vec<_>>>()?;
        let (x, c, l) = (wide(x)?, self.c, self.h * self.w);
        Ok(x.chunks(c * l)
            .flat_map(|x| match self.kind {
                Kind::GroupNorm { groups, silu } => group_norm(x, &weights, l, groups, (silu, eps)),
                Kind::Attention { heads } => attention(x, &weights, l, heads),
            })
            .collect())
    }
}

/// Of one image, [c, l].
fn group_norm(x: &[f64], weights: &[Vec<f64>], l: usize, groups: usize, (silu, eps): (bool, f64)) -> Vec<f64> {
    let size = x.len() / groups;
    let normalised = x.chunks(size).flat_map(|group| {
        let mean = group.iter().sum::<f64>() / size as f64;
        let variance = group.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / size as f64;
        group.iter().map(move |v| (v - mean) / (variance + eps).sqrt())
    });
    let of_channel = |(i, v): (usize, f64)| v * weights[0][i / l] + weights[1][i / l];
    normalised.enumerate().map(of_channel).map(|y| if silu { y / (1.0 + (-y).exp()) } else { y }).collect()
}

/// Of one image, [c, l].
fn attention(x: &[f64], weights: &[Vec<f64>], l: usize, heads: usize) -> Vec<f64> {
    let (c, d) = (x.len() / l, x.len() / l / heads);
    let map = |x: &[f64], i: usize| -> Vec<f64> {
        let (w, b) = (&weights[2 * i], &weights[2 * i + 1]);
        let at = |i: usize| b[i / l] + (0..c).map(|j| w[i / l * c + j] * x[j * l + i % l]).sum::<f64>();
        (0..c * l).map(at).collect()
    };
    let [q, k, v] = [0, 1, 2].map(|i| map(x, i));
    let mut y = vec![0.0; c * l];
    for (head, p) in (0..heads).flat_map(|head| (0..l).map(move |p| (head, p))) {
        let channels = head * d..(head + 1) * d;
        let score = |other: usize| channels.clone().map(|j| q[j * l + p] * k[j * l + other]).sum::<f64>();
        let shares: Vec<f64> = (0..l).map(|other| (score(other) / (d as f64).sqrt()).exp()).collect();
        let sum: f64 = shares.iter().sum();
        for j in channels.clone() {
            y[j * l + p] = shares.iter().enumerate().map(|(other, share)| share / sum * v[j * l + other]).sum();
        }
    }
    map(&y, 3).iter().zip(x).map(|(y, x)| y + x).collect()
}

/// The distinct layers of a network and how often each occurs.
fn layers(config: &Config) -> Vec<(Layer, usize)> {
    let [_, h, w] = config.image_shape();
    let mut found: Vec<(Layer, usize)> = Vec::new();
    for (path, dims) in config.parameters() {
        let c = dims[0];
        let kind = match path.as_str() {
            p if p.ends_with("to_q.weight") => {
                Kind::Attention { heads: config.attention_head_dim.map_or(1, |d| c / d) }
            }
            p if p.contains("norm") && p.ends_with("weight") => {
                Kind::GroupNorm { groups: config.norm_num_groups.unwrap_or(1), silu: !p.contains("group_norm") }
            }
            _ => continue,
        };
        let scale = 1 << level(&path, config.block_out_channels.len() - 1);
        let layer = Layer { kind, c, h: h / scale, w: w / scale };
        match found.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, count)) => *count += 1,
            None => found.push((layer, 1)),
        }
    }
    found
}

/// Measures all of them: nanoseconds a number of the result, each thread with a micro-batch of its own, and a single image on
/// all threads; and Adam's nanoseconds a weight.
pub(super) fn run(config: &Config, compute: &Compute, samples: usize, report: &Report<'_>) -> Result<()> {
    let nanoseconds = |numbers_per_ns: f64| round(numbers_per_ns.recip(), 3);
    for (layer, count) in layers(config) {
        let (op, lanes, path) = (layer.op(config.norm_eps)?, compute.threads(), compute.path());
        let map = |n| -> Result<Map> { Ok(Map::from_nchw(&layer.images(n)?, path)?) };
        let maps = (0..lanes).map(|_| map(MICRO_BATCH)).collect::<Result<Vec<_>>>()?;
        let on_all = |times: usize| -> Result<()> {
            let repeat = |lane: usize| (0..times).try_for_each(|_| op.forward(&maps[lane]).map(drop));
            Ok(compute.map(lanes, repeat).into_iter().collect::<candle_core::Result<()>>()?)
        };
        let one = map(1)?;
        let shared = |times: usize| -> Result<()> {
            Ok(compute.run(|| (0..times).try_for_each(|_| op.forward(&one).map(drop)))?)
        };
        let numbers = (layer.c * layer.h * layer.w) as f64;
        let speeds =
            [speed(numbers * (MICRO_BATCH * lanes) as f64, samples, on_all)?, speed(numbers, samples, shared)?];
        let e = errors(layer, config.norm_eps, compute)?;
        let mut values = json!({
            "shape": layer.name(), "count": count, "batch": MICRO_BATCH * lanes,
            "errors": { "y": { "rms": e.rms, "max": e.max } },
        });
        let mut text = format!("{count:>2} x {:<34} ns a number median/best", layer.name());
        for (name, speed) in ["y", "y1"].iter().zip(speeds) {
            let [median, best] = [speed.median, speed.best].map(nanoseconds);
            values["ns_per_number"][name] = json!({ "median": median, "best": best });
            text += &format!("  {name} {median:>5.3}/{best:<5.3}");
        }
        text += &format!("  error rms/max {:.0e}/{:.0e}", e.rms, e.max);
        report.line("layer", values, &text)?;
    }
    let weights = config.parameters().iter().map(|(_, dims)| dims.iter().product::<usize>()).sum::<usize>();
    let tensors = (0..5).map(|i| random(i, &[weights], 1.0)).collect::<candle_core::Result<Vec<_>>>()?;
    let state = [&tensors[1], &tensors[2], &tensors[3].sqr()?, &tensors[4]];
    let numbers =
        Adam { grad_scale: 1.0, beta1: 0.9, beta2: 0.999, eps: 1e-8, rate: 1e-3, root: 1.0, ema_decay: 0.999 };
    let step = |times: usize| -> Result<()> {
        Ok(compute.run(|| (0..times).try_for_each(|_| adam(&tensors[0], state, &numbers).map(drop)))?)
    };
    let speed = speed(weights as f64, samples, step)?;
    let [median, best] = [speed.median, speed.best].map(nanoseconds);
    let values = json!({ "weights": weights, "ns_per_weight": { "median": median, "best": best } });
    report.line("adam", values, &format!("{weights} weights  ns a weight median/best  {median:.3}/{best:.3}"))
}

/// Against [`Layer::reference`].
fn errors(layer: Layer, eps: f64, compute: &Compute) -> Result<super::kernels::Errors> {
    let x = layer.images(CHECKED)?;
    let y = compute.run(|| layer.op(eps)?.forward(&Map::from_nchw(&x, compute.path())?)?.to_nchw())?;
    compare(&y, &layer.reference(&x, eps)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_those_of_the_network_and_near_f64() {
        let compute = Compute::new(Device::Cpu, 2, || ()).unwrap();
        let config = Config::preset("digits16").unwrap();
        let layers = layers(&config);
        let count = |name: &str| layers.iter().find(|(l, _)| l.name() == name).map_or(0, |(_, n)| *n);
        assert_eq!(count("attention, heads 1, 64 4x4"), 4);
        assert_eq!(count("group norm 64 4x4"), 4);
        // conv_norm_out, the way down's two and one after each first convolution of the way up
        assert_eq!(count("group norm, SiLU 32 16x16"), 5);
        let odd = |kind, c, h, w| (Layer { kind, c, h, w }, 1);
        let more =
            [odd(Kind::Attention { heads: 3 }, 24, 5, 3), odd(Kind::GroupNorm { groups: 3, silu: true }, 24, 5, 3)];
        for (layer, _) in layers.into_iter().chain(more) {
            let e = errors(layer, 1e-6, &compute).unwrap();
            assert!(e.max <= 3e-5 && e.rms <= 5e-6 && e.rms > 0.0, "{}: {e:?}", layer.name());
        }
    }
}
