//! Named tensors in the order of diffusers' `named_parameters`: weights, gradients, moments.

use super::Config;
use crate::diffusion::noise::{Purpose, stream};
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// One tensor for each parameter of a network, in order. The tensors may be tracked or plain.
#[derive(Clone, Debug)]
pub struct Params(Vec<(String, Tensor)>);

impl Params {
    /// Initial weights as in the code of Ho et al. 2020: uniform with variance 2 / (fan in + fan out), biases 0, and
    /// almost 0 where a branch joins its residual stream and at the output, so that the network starts out simple.
    ///
    /// # Errors
    /// The device has no memory for them.
    pub fn init(config: &Config, seed: u64, device: &Device) -> Result<Self> {
        let parameters = config.parameters().into_iter().enumerate();
        let tensors = parameters.map(|(i, (name, shape))| {
            let values = initial_values(&name, &shape, seed, i as u64);
            let tensor = Tensor::from_vec(values, shape, device)?;
            Ok((name, tensor))
        });
        Ok(Self(tensors.collect::<Result<_>>()?))
    }

    /// Puts tensors of any order into that of `config`.
    ///
    /// # Errors
    /// Lists every tensor that is missing, of another shape, or not part of this network.
    pub fn from_named(config: &Config, mut tensors: HashMap<String, Tensor>) -> Result<Self> {
        let (mut found, mut missing, mut reshaped) = (Vec::new(), Vec::new(), Vec::new());
        for (name, shape) in config.parameters() {
            match tensors.remove(&name) {
                None => missing.push(name),
                Some(t) if t.dims() != shape => reshaped.push(format!("{name} {:?} instead of {shape:?}", t.dims())),
                Some(t) => found.push((name, t)),
            }
        }
        let mut extra: Vec<String> = tensors.into_keys().collect();
        extra.sort();
        let problems = [("missing", missing), ("of another shape", reshaped), ("not part of this network", extra)];
        let lists = problems.iter().filter(|(_, names)| !names.is_empty());
        let lists: Vec<String> = lists.map(|(what, names)| listed(what, names)).collect();
        if lists.is_empty() {
            return Ok(Self(found));
        }
        let hint = "use weights and a configuration that belong together";
        Err(Error::new("cannot use these weights", format!("tensors {}", lists.join("; ")), hint))
    }

    /// From all values one after the other, see [`Params::to_flat`].
    ///
    /// # Errors
    /// `values` is not of [`Params::count`] length, or the device has no memory.
    pub fn from_flat(config: &Config, values: &[f32], device: &Device) -> Result<Self> {
        let mut rest = values;
        let mut tensors = Vec::new();
        let wrong = || Error::new("cannot use these weights", format!("{} values do not fit", values.len()), "");
        for (name, shape) in config.parameters() {
            let (head, tail) = rest.split_at_checked(shape.iter().product()).ok_or_else(wrong)?;
            tensors.push((name, Tensor::from_slice(head, shape, device)?));
            rest = tail;
        }
        if rest.is_empty() { Ok(Self(tensors)) } else { Err(wrong()) }
    }

    /// All values one after the other, each tensor row by row.
    ///
    /// # Errors
    /// A tensor is not f32, or the device fails.
    pub fn to_flat(&self) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(self.count());
        for tensor in self.tensors() {
            values.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(values)
    }

    /// The same names with other tensors, in the same order.
    ///
    /// # Panics
    /// If there are not as many tensors as names.
    #[must_use]
    pub fn with_tensors(&self, tensors: impl ExactSizeIterator<Item = Tensor>) -> Self {
        assert_eq!(tensors.len(), self.0.len(), "one tensor for each name");
        Self(self.0.iter().map(|(name, _)| name.clone()).zip(tensors).collect())
    }

    /// The tensor of that diffusers path.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        let found = self.iter().find(|(n, _)| *n == name).map(|(_, tensor)| tensor);
        found.ok_or_else(|| Error::new("cannot build the network", format!("there is no tensor {name}"), ""))
    }

    /// Names and tensors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Tensors, in order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.0.iter().map(|(_, tensor)| tensor)
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.tensors().map(Tensor::elem_count).sum()
    }
}

/// The first names of a list, and how many more there are.
fn listed(what: &str, names: &[String]) -> String {
    let shown = &names[..names.len().min(12)];
    let more = names.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what}: {}{more}", shown.join(", "))
}

fn initial_values(name: &str, shape: &[usize], seed: u64, index: u64) -> Vec<f32> {
    let len = shape.iter().product();
    let [out, input, kernel @ ..] = shape else {
        return vec![if name.ends_with(".weight") { 1.0 } else { 0.0 }; len];
    };
    let joins = ["conv2.weight", "to_out.0.weight", "conv_out.weight"];
    let scale = if joins.iter().any(|end| name.ends_with(end)) { 1e-10 } else { 1.0 };
    let fans = ((out + input) * kernel.iter().product::<usize>()) as f64;
    let limit = (6.0 * scale / fans).sqrt() as f32;
    let mut stream = stream(seed, Purpose::Init, [index, 0]);
    (0..len).map(|_| (2.0 * stream.uniform() - 1.0) * limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_weights_of_the_right_spread() {
        let config = Config::preset("mnist28").unwrap();
        let params = Params::init(&config, 5, &Device::Cpu).unwrap();
        let flat = params.to_flat().unwrap();
        assert_eq!(flat, Params::init(&config, 5, &Device::Cpu).unwrap().to_flat().unwrap());
        assert_ne!(flat, Params::init(&config, 6, &Device::Cpu).unwrap().to_flat().unwrap());
        let values = |name: &str| params.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let w = values("up_blocks.0.resnets.0.conv1.weight");
        let variance = w.iter().map(|v| f64::from(v * v)).sum::<f64>() / w.len() as f64;
        assert!((variance * (64.0 + 128.0) * 9.0 / 2.0 - 1.0).abs() < 0.02, "{variance}");
        assert!(values("mid_block.resnets.0.conv2.weight").iter().all(|v| v.abs() < 1e-5));
        assert!(values("conv_norm_out.weight").iter().all(|v| *v == 1.0));
        assert!(values("conv_in.bias").iter().all(|v| *v == 0.0));
    }

    #[test]
    fn flat_and_back_is_the_same_and_other_lengths_are_refused() {
        let config = Config::preset("digits16").unwrap();
        let flat: Vec<f32> = (0..1_112_801).map(|i| i as f32).collect();
        let params = Params::from_flat(&config, &flat, &Device::Cpu).unwrap();
        assert_eq!(params.to_flat().unwrap(), flat);
        assert!(Params::from_flat(&config, &flat[1..], &Device::Cpu).is_err());
        assert!(Params::from_flat(&config, &[&flat[..], &[0.0]].concat(), &Device::Cpu).is_err());
    }
}
