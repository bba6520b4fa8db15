//! Why a step gave no numbers, in words.

use std::cmp::Reverse;

/// Where something first was no number.
pub(super) enum Culprit {
    /// The loss itself: of which image, by its timestep.
    Loss(f64, Option<usize>),
    /// Gradients, by Σg² of each weight.
    Gradients(Vec<f64>),
    /// Which weight after the update.
    Weight(usize),
}

impl Culprit {
    /// "at step 12 the loss is NaN, first at timestep 3"; `paths` are those of the weights.
    pub(super) fn words(&self, step: u64, paths: &[&str]) -> String {
        match self {
            Self::Loss(loss, Some(t)) => format!("at step {step} the loss is {loss}, first at timestep {t}"),
            Self::Loss(loss, None) => format!("at step {step} the loss is {loss}"),
            Self::Gradients(squares) => {
                let bad = paths.iter().zip(squares).filter(|(_, square)| !square.is_finite());
                let first = bad.map(|(path, _)| *path).min_by_key(|path| backward_order(path)).unwrap_or("the network");
                format!("at step {step} the gradient is not a number, first that of {first} on the way back")
            }
            Self::Weight(i) => {
                let path = paths.get(*i).unwrap_or(&"a weight");
                format!("the update of step {step} makes {path} not a number")
            }
        }
    }
}

/// Sorts paths of weights as their gradients are computed: from the output of the network back to its input.
fn backward_order(path: &str) -> impl Ord + use<> {
    let mut parts = path.split('.');
    let mut number = |default: usize| parts.next().and_then(|part| part.parse().ok()).unwrap_or(default);
    let stage = match path.split('.').next() {
        Some("conv_out") => 0,
        Some("conv_norm_out") => 1,
        Some("up_blocks") => 2,
        Some("mid_block") => 3,
        Some("down_blocks") => 4,
        Some("conv_in") => 5,
        _ => 6,
    };
    let block = if matches!(stage, 2 | 4) { (number(0), number(0)).1 } else { number(0) };
    let mut parts = path.split('.').skip(if matches!(stage, 2 | 4) { 2 } else { 1 });
    let kind = match parts.next() {
        Some("upsamplers" | "downsamplers") => (0, Reverse(0), 0),
        Some(kind @ ("attentions" | "resnets")) => {
            let i = parts.next().and_then(|i| i.parse::<usize>().ok()).unwrap_or(0);
            (1, Reverse(i), usize::from(kind == "resnets"))
        }
        _ => (2, Reverse(0), 0),
    };
    let layers = ["conv_shortcut", "to_out", "conv2", "norm2", "time_emb_proj", "conv1", "norm1"];
    let layer = layers.iter().position(|layer| path.contains(layer)).unwrap_or(layers.len());
    (stage, Reverse(block), kind, layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Config;

    #[test]
    fn the_first_gradient_on_the_way_back_is_named() {
        let parameters = Config::preset("cifar10").unwrap().parameters();
        let all = |spoilt: &dyn Fn(&str) -> bool| {
            let paths: Vec<&str> = parameters.iter().map(|(path, _)| path.as_str()).collect();
            let squares = paths.iter().map(|path| if spoilt(path) { f64::NAN } else { 1.0 });
            Culprit::Gradients(squares.collect()).words(7, &paths)
        };
        // once it is no number, so is all that is computed after it
        for (first, after) in [
            ("conv_out", "conv_norm_out"),
            ("up_blocks.3.resnets.2.conv2", "up_blocks.3.resnets.2.norm2"),
            ("up_blocks.2.attentions.0.to_out.0", "up_blocks.2.resnets.0"),
            ("up_blocks.0.upsamplers.0.conv", "up_blocks.0.resnets.2"),
            ("up_blocks.0.resnets.0.conv1", "mid_block.resnets.1"),
            ("mid_block.attentions.0.to_out.0", "mid_block.resnets.0"),
            ("mid_block.resnets.0.conv1", "down_blocks.3"),
            ("down_blocks.1.attentions.0.to_q", "down_blocks.0"),
            ("down_blocks.0.resnets.0.conv1", "conv_in"),
        ] {
            let words = all(&|path| path.starts_with(first) || path.starts_with(after));
            assert!(words.contains("step 7") && words.contains(&format!("that of {first}.")), "{words}");
        }
    }

    #[test]
    fn losses_and_weights_are_named() {
        assert_eq!(Culprit::Loss(f64::NAN, Some(3)).words(12, &[]), "at step 12 the loss is NaN, first at timestep 3");
        assert!(Culprit::Weight(1).words(2, &["conv_in.weight", "conv_in.bias"]).contains("step 2 makes conv_in.bias"));
    }
}
