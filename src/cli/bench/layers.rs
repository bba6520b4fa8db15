//! What a network has beside its convolutions, each by itself: group norm, attention, and Adam on its weights.

use super::kernels::{CHECKED, Errors, MICRO_BATCH, compare, count, level, speed_on_each, speed_shared};
use super::report::{Report, round};
use crate::diffusion::noise::{Purpose, normal};
use crate::engine::Result;
use crate::kernels::optimizer::{Adam, adam};
use crate::kernels::{Conv1x1, GroupNorm, Map, Path, SelfAttention};
use crate::model::Config;
use crate::model::compute::Compute;
use candle_core::{DType, Device, Tensor};
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

    fn op(self, eps: f64, dtype: DType) -> candle_core::Result<Op> {
        let weights = self.weights()?.iter().map(|t| t.to_dtype(dtype)).collect::<candle_core::Result<Vec<_>>>()?;
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
        count(&mut found, layer);
    }
    found
}

/// Measures all of them: nanoseconds a number of the result, each thread with a micro-batch of its own, and a single image on
/// all threads; and Adam's nanoseconds a weight.
pub(super) fn run(config: &Config, compute: &Compute, samples: usize, report: &Report<'_>) -> Result<()> {
    let nanoseconds = |numbers_per_ns: f64| round(numbers_per_ns.recip(), 3);
    for (layer, count) in layers(config) {
        let (op, lanes, path) = (layer.op(config.norm_eps, DType::F32)?, compute.threads(), compute.path());
        let map = |n| -> Result<Map> { Ok(Map::from_nchw(&layer.images(n)?, path)?) };
        let maps = (0..lanes).map(|_| map(MICRO_BATCH)).collect::<Result<Vec<_>>>()?;
        let one = map(1)?;
        let numbers = (layer.c * layer.h * layer.w) as f64;
        let speeds = [
            speed_on_each(compute, numbers * (MICRO_BATCH * lanes) as f64, samples, |lane| {
                op.forward(&maps[lane]).map(drop)
            })?,
            speed_shared(compute, numbers, samples, || op.forward(&one).map(drop))?,
        ];
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
    let speed = speed_shared(compute, weights as f64, samples, || adam(&tensors[0], state, &numbers).map(drop))?;
    let [median, best] = [speed.median, speed.best].map(nanoseconds);
    let values = json!({ "weights": weights, "ns_per_weight": { "median": median, "best": best } });
    report.line("adam", values, &format!("{weights} weights  ns a weight median/best  {median:.3}/{best:.3}"))
}

/// Against candle's own operations in f64.
fn errors(layer: Layer, eps: f64, compute: &Compute) -> Result<Errors> {
    let x = layer.images(CHECKED)?;
    let run = |path, dtype| layer.op(eps, dtype)?.forward(&Map::from_nchw(&x.to_dtype(dtype)?, path)?)?.to_nchw();
    let want = run(Path::Candle, DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    compare(&compute.run(|| run(compute.path(), DType::F32))?, &want)
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
