//! Weights as safetensors.

use super::unreadable;
use crate::error::{Error, Result};
use crate::model::{Config, Params};
use candle_core::safetensors::Load as _;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;

/// Attention names of old checkpoints, and today's.
const LEGACY: [(&str, &str); 4] =
    [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];

/// The weights of `config`.
pub(super) fn read(config: &Config, bytes: &[u8], device: &Device) -> Result<Params> {
    Params::from_named(config, named(bytes, device)?)
}

/// Adam's moments, stored as `m.<path>` and `v.<path>`.
pub(super) fn read_pair(config: &Config, bytes: &[u8], device: &Device) -> Result<(Params, Params)> {
    let (mut m, mut v) = (HashMap::new(), HashMap::new());
    #[expect(clippy::iter_over_hash_type, reason = "both maps are put in order below")]
    for (name, tensor) in named(bytes, device)? {
        match name.split_once('.') {
            Some(("m", path)) => m.insert(path.to_owned(), tensor),
            Some(("v", path)) => v.insert(path.to_owned(), tensor),
            _ => return Err(unreadable(format!("tensor {name} is no moment of Adam"), "")),
        };
    }
    Ok((Params::from_named(config, m)?, Params::from_named(config, v)?))
}

fn named(bytes: &[u8], device: &Device) -> Result<HashMap<String, Tensor>> {
    let broken = |e| unreadable(format!("this is not a whole safetensors file: {e}"), "copy or download it again");
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let mut tensors = HashMap::with_capacity(file.len());
    for (name, view) in file.iter() {
        let path = today(name);
        let tensor = load_one(name, &view, device)?;
        if tensors.insert(path, tensor).is_some() {
            return Err(unreadable(format!("tensor {name} is there under its old name and its new one"), ""));
        }
    }
    Ok(tensors)
}

fn load_one(name: &str, view: &TensorView<'_>, device: &Device) -> Result<Tensor> {
    if ![Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64].contains(&view.dtype()) {
        return Err(unreadable(
            format!("tensor {name} is of type {:?}, which is not supported", view.dtype()),
            "use F32",
        ));
    }
    let tensor = view.load(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    if let Some(value) = values.iter().find(|v| !v.is_finite()) {
        let hint = "use a checkpoint from before the training failed";
        return Err(unreadable(format!("tensor {name} has a value {value}"), hint));
    }
    Ok(tensor.to_device(device)?)
}

fn today(name: &str) -> String {
    let old = LEGACY.iter().find(|(old, _)| name.contains(".attentions.") && name.contains(old));
    old.map_or_else(|| name.to_owned(), |(old, new)| name.replacen(old, new, 1))
}

/// Names and tensors as a file, the same bytes for the same values.
pub(super) fn write<'a>(tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Result<Vec<u8>> {
    let mut named = Vec::new();
    for (name, tensor) in tensors {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        named.push((name, tensor.dims().to_vec(), bytes));
    }
    let failed = |e: safetensors::SafeTensorError| Error::new("cannot save the model", e.to_string(), "");
    let views = named.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?;
        Ok((name, view))
    });
    // transformers and diffusers ask for this entry
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata)).map_err(failed)
}
