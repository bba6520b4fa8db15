//! The last good state of a run: what it goes back to when its numbers are none any more.

use super::adam::Slot;
use super::trainer::State;
use candle_core::{Result, Tensor};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

/// Numbers that are kept in memory at most, 256 MiB. Those of larger networks go into a temporary file, if the disk takes
/// them: a training needs much memory as it is.
const IN_MEMORY: usize = 1 << 26;

/// Weights and all of one step.
pub(super) struct Good {
    slots: Kept,
    state: State,
}

enum Kept {
    Memory(Vec<Slot>),
    /// The numbers of all tensors, in the order of [`Slot::tensors`].
    Disk(File),
}

impl Good {
    pub(super) fn new(slots: &[Slot], state: &State) -> Self {
        Self::keeping(slots, state, IN_MEMORY)
    }

    fn keeping(slots: &[Slot], state: &State, in_memory: usize) -> Self {
        let numbers: usize = slots.iter().flat_map(Slot::tensors).map(Tensor::elem_count).sum();
        let kept = if numbers <= in_memory { None } else { write(slots).ok().map(Kept::Disk) };
        Self { slots: kept.unwrap_or_else(|| Kept::Memory(slots.to_vec())), state: state.clone() }
    }

    /// What was kept; `like` are slots of the same network.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn restore(self, like: &[Slot]) -> Result<(Vec<Slot>, State)> {
        let slots = match self.slots {
            Kept::Memory(slots) => slots,
            Kept::Disk(mut file) => {
                file.rewind()?;
                let mut file = BufReader::new(file);
                let mut next = |like: &Tensor| {
                    let mut bytes = vec![0; 4 * like.elem_count()];
                    file.read_exact(&mut bytes)?;
                    let values = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    Tensor::from_vec(values, like.shape(), like.device())
                };
                let read = |slot: &Slot| {
                    let [param, m, v, ema] = slot.tensors();
                    Ok(Slot { param: next(param)?, m: next(m)?, v: next(v)?, ema: next(ema)? })
                };
                like.iter().map(read).collect::<Result<_>>()?
            }
        };
        Ok((slots, self.state))
    }
}

fn write(slots: &[Slot]) -> Result<File> {
    // on many machines what lies in the usual place for temporary files lies in memory
    let file = if cfg!(unix) { tempfile::tempfile_in("/var/tmp") } else { tempfile::tempfile() };
    let mut file = BufWriter::new(file.or_else(|_| tempfile::tempfile())?);
    for tensor in slots.iter().flat_map(Slot::tensors) {
        let bytes: Vec<u8> = tensor.flatten_all()?.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect();
        file.write_all(&bytes)?;
    }
    Ok(file.into_inner().map_err(std::io::IntoInnerError::into_error)?)
}

#[cfg(test)]
impl Good {
    /// One whose file was cut off.
    pub(super) fn unreadable(state: &State) -> Self {
        Self { slots: Kept::Disk(tempfile::tempfile().unwrap()), state: state.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::RunConfig;
    use crate::train::metrics::History;
    use candle_core::Device;

    #[test]
    fn a_state_comes_back_from_memory_and_from_disk() {
        let tensor =
            |i: usize| Tensor::arange(i as f32, (i + 6) as f32, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
        let slot = |i| Slot { param: tensor(i), m: tensor(i + 1), v: tensor(i + 2), ema: tensor(i + 3) };
        let slots = [slot(0), slot(10)];
        let state =
            State { run: RunConfig::default(), step: 7, data: None, held_out: None, history: History::default() };
        let values = |slots: &[Slot]| -> Vec<Vec<f32>> {
            slots.iter().flat_map(Slot::tensors).map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        for (in_memory, on_disk) in [(48, false), (47, true)] {
            let good = Good::keeping(&slots, &state, in_memory);
            assert_eq!(matches!(good.slots, Kept::Disk(_)), on_disk);
            let like: Vec<Slot> = slots.iter().map(|s| Slot::new(s.param.zeros_like().unwrap()).unwrap()).collect();
            let (back, state) = good.restore(&like).unwrap();
            assert_eq!((values(&back), state.step), (values(&slots), 7));
        }
    }
}
