//! Between candle's tensors and slices, and how work is split.

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};
use std::ops::Deref;

/// The numbers of a custom op's argument, which must be contiguous.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a kernel was given a tensor that is not contiguous"),
    }
}

/// Reading access to a contiguous CPU tensor.
pub(super) struct Reader<'a> {
    /// A read guard, whose type candle does not name.
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    layout: &'a Layout,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage: Box::new(storage), layout }
    }

    pub(super) fn slice(&self) -> Result<&[f32]> {
        match &**self.storage {
            Storage::Cpu(storage) => slice(storage, self.layout),
            _ => bail!("a CPU kernel was given a tensor of another device"),
        }
    }

    pub(super) fn numbers(&self) -> Result<Numbers<'_>> {
        Ok(Numbers { data: self.slice()?, shape: self.layout.shape() })
    }
}

/// The numbers of a contiguous CPU tensor, with its shape.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    pub data: &'a [f32],
    pub shape: &'a Shape,
}

/// A CPU tensor that owns `data`.
pub(super) fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)
}

/// A custom op's result.
pub(super) fn storage(data: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(data), shape.into())
}

/// A vector of `len` numbers, not zeroed beforehand.
///
/// # Safety
/// `write` must write all of them.
pub(super) unsafe fn written(len: usize, write: impl FnOnce(Target)) -> Vec<f32> {
    // SAFETY: the caller's contract.
    let [data] = unsafe { written_all(len, |[target]| write(target)) };
    data
}

/// Vectors of `len` numbers each, not zeroed beforehand.
///
/// # Safety
/// `write` must write all of them.
pub(super) unsafe fn written_all<const N: usize>(len: usize, write: impl FnOnce([Target; N])) -> [Vec<f32>; N] {
    let mut all = [(); N].map(|()| Vec::with_capacity(len));
    write(all.each_mut().map(|data| Target(data.as_mut_ptr())));
    for data in &mut all {
        // SAFETY: the capacity is there and the caller vouches for the content.
        unsafe { data.set_len(len) };
    }
    all
}

/// Memory that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Target(*mut f32);

// SAFETY: `Target::ptr` and `Target::part` are unsafe, and their callers vouch for disjoint parts.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    pub(super) fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr())
    }

    /// The room of a vector, which has as much of it as its capacity.
    pub(super) fn room(data: &mut Vec<f32>) -> Self {
        Self(data.as_mut_ptr())
    }

    /// The address of element `start`.
    ///
    /// # Safety
    /// `start` must lie inside the memory, or one past its end.
    pub(super) unsafe fn ptr(self, start: usize) -> *mut f32 {
        // SAFETY: the caller's contract.
        unsafe { self.0.add(start) }
    }

    /// Elements `start` to `start + len`.
    ///
    /// # Safety
    /// They must lie inside the memory, be used by nobody else meanwhile, and not be read before they are written.
    pub(super) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// The `i`th of `parts` nearly equal parts of 0..len.
pub(super) fn part(len: usize, parts: usize, i: usize) -> std::ops::Range<usize> {
    i * len / parts..(i + 1) * len / parts
}
