//! Gradients of our own operations, without candle's graph: at each of its edges candle clears a whole map and adds to it.
//!
//! Operations are candle custom ops, with gradients that candle's `backward` may use as well, or [`Fused`] ones, which it runs
//! one by one. Inside [`gradients`] they are noted down as they run on this thread, and their gradients are taken in the
//! opposite order.

use super::elementwise;
use super::memory::{Numbers, Reader, slice, storage, tensor};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, TensorId, bail};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

thread_local! {
    static TAPE: RefCell<Tape> = RefCell::default();
}

#[derive(Default)]
struct Tape {
    recording: bool,
    entries: Vec<Entry>,
    /// Weights, and results of entries.
    wanted: HashSet<TensorId>,
}

/// One operation that ran, with its arguments.
struct Entry {
    operation: Operation,
    result: Tensor,
}

enum Operation {
    One(Box<dyn CustomOp1>, [Tensor; 1]),
    Two(Box<dyn CustomOp2>, [Tensor; 2]),
    Three(Box<dyn CustomOp3>, [Tensor; 3]),
    Fused(Box<dyn Fused>, Vec<Tensor>),
}

/// Several operations in one, which candle's graph has no room for: it runs them one by one.
pub(super) trait Fused {
    fn name(&self) -> &'static str;

    /// The numbers and the shape of the result.
    ///
    /// # Errors
    /// If the arguments do not fit each other.
    fn forward(&self, arguments: &[Numbers]) -> Result<(Vec<f32>, Shape)>;

    /// The gradients for the arguments, each with what is known of it from elsewhere, if anything is.
    ///
    /// # Errors
    /// If an argument is not what the operation ran on.
    fn gradients(&self, arguments: &[Tensor], grad: &Tensor, known: Vec<Option<Tensor>>)
    -> Result<Vec<Option<Tensor>>>;
}

/// A fused operation of three arguments, which candle's graph has room for.
pub(super) struct OfThree<F>(pub F);

impl<F: Fused + Send + Sync> CustomOp3 for OfThree<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
        z: &CpuStorage,
        lz: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let arguments = [
            Numbers { data: slice(x, lx)?, shape: lx.shape() },
            Numbers { data: slice(y, ly)?, shape: ly.shape() },
            Numbers { data: slice(z, lz)?, shape: lz.shape() },
        ];
        let (data, shape) = self.0.forward(&arguments)?;
        Ok(storage(data, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut all = self.0.gradients(&[x.clone(), y.clone(), z.clone()], grad, vec![None; 3])?.into_iter();
        let mut next = || all.next().flatten();
        Ok((next(), next(), next()))
    }
}

/// The sum of what is there.
pub(super) fn with_known(known: Option<Tensor>, grad: Option<Tensor>) -> Result<Option<Tensor>> {
    match (known, grad) {
        (Some(known), Some(grad)) => elementwise::add(&known, &grad).map(Some),
        (known, grad) => Ok(known.or(grad)),
    }
}

impl Entry {
    /// Adds the gradients for the arguments to those that are known.
    fn add_gradients(&self, grad: &Tensor, known: &mut HashMap<TensorId, Tensor>) -> Result<()> {
        let result = &self.result;
        let (arguments, gradients) = match &self.operation {
            Operation::One(op, all @ [x]) => (&all[..], vec![op.bwd(x, result, grad)?]),
            Operation::Two(op, all @ [x, y]) => {
                let (dx, dy) = op.bwd(x, y, result, grad)?;
                (&all[..], vec![dx, dy])
            }
            Operation::Three(op, all @ [x, y, z]) => {
                let (dx, dy, dz) = op.bwd(x, y, z, result, grad)?;
                (&all[..], vec![dx, dy, dz])
            }
            Operation::Fused(op, all) => {
                let before = all.iter().map(|x| known.remove(&x.id())).collect();
                (&all[..], op.gradients(all, grad, before)?)
            }
        };
        for (argument, grad) in arguments.iter().zip(gradients) {
            let grad = grad.filter(|_| wants_gradient(argument));
            if let Some(total) = with_known(known.remove(&argument.id()), grad)? {
                known.insert(argument.id(), total);
            }
        }
        Ok(())
    }
}

/// Whether someone waits for the gradient of `x`.
pub(super) fn wants_gradient(x: &Tensor) -> bool {
    x.track_op() || TAPE.with_borrow(|tape| tape.wanted.contains(&x.id()))
}

fn recording(arguments: &[&Tensor]) -> bool {
    TAPE.with_borrow(|tape| tape.recording) && arguments.iter().any(|x| wants_gradient(x))
}

fn note(operation: Operation, result: &Tensor) {
    TAPE.with_borrow_mut(|tape| {
        tape.wanted.insert(result.id());
        tape.entries.push(Entry { operation, result: result.clone() });
    });
}

/// The result of `op`, noted down or tracked by candle.
pub(super) fn apply1<C: CustomOp1 + Send + Sync + 'static>(x: &Tensor, op: C) -> Result<Tensor> {
    if !recording(&[x]) {
        return x.apply_op1(op);
    }
    let result = x.apply_op1_no_bwd(&op)?;
    note(Operation::One(Box::new(op), [x.clone()]), &result);
    Ok(result)
}

/// As [`apply1`], for two arguments.
pub(super) fn apply2<C: CustomOp2 + Send + Sync + 'static>(x: &Tensor, y: &Tensor, op: C) -> Result<Tensor> {
    if !recording(&[x, y]) {
        return x.apply_op2(y, op);
    }
    let result = x.apply_op2_no_bwd(y, &op)?;
    note(Operation::Two(Box::new(op), [x.clone(), y.clone()]), &result);
    Ok(result)
}

/// As [`apply1`], for three arguments.
pub(super) fn apply3<C: CustomOp3 + Send + Sync + 'static>(
    x: &Tensor,
    y: &Tensor,
    z: &Tensor,
    op: C,
) -> Result<Tensor> {
    if !recording(&[x, y, z]) {
        return x.apply_op3(y, z, op);
    }
    let result = x.apply_op3_no_bwd(y, z, &op)?;
    note(Operation::Three(Box::new(op), [x.clone(), y.clone(), z.clone()]), &result);
    Ok(result)
}

/// The result of `op`, noted down. Where candle tracks an argument instead, that of `apart`.
pub(super) fn apply_fused<F: Fused + 'static>(
    arguments: &[&Tensor],
    op: F,
    apart: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    let recording = recording(arguments);
    if !recording && arguments.iter().any(|x| x.track_op()) {
        return apart();
    }
    let readers: Vec<Reader> = arguments.iter().map(|x| Reader::new(x)).collect();
    let (data, shape) = op.forward(&readers.iter().map(Reader::numbers).collect::<Result<Vec<_>>>()?)?;
    let result = tensor(data, shape)?;
    if recording {
        note(Operation::Fused(Box::new(op), arguments.iter().map(|x| (*x).clone()).collect()), &result);
    }
    Ok(result)
}

/// Leaves nothing behind, whatever happens meanwhile.
struct Recording;

impl Recording {
    fn start(weights: &[Tensor]) -> Self {
        TAPE.set(Tape { recording: true, wanted: weights.iter().map(Tensor::id).collect(), ..Tape::default() });
        Self
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        TAPE.take();
    }
}

/// A loss and its gradients for `weights`: `output` runs a network of this module's CPU layers, all on this thread, and
/// `loss` says how good its result is, with the gradient of that.
///
/// # Errors
/// Those of `output` and `loss`, if the gradient is not of the output's shape, and if a weight has no part in the output.
pub(super) fn gradients<L>(
    weights: &[Tensor],
    output: impl FnOnce() -> Result<Tensor>,
    loss: impl FnOnce(&Tensor) -> Result<(L, Tensor)>,
) -> Result<(L, Vec<Tensor>)> {
    let guard = Recording::start(weights);
    let output = output()?;
    TAPE.with_borrow_mut(|tape| tape.recording = false);
    let (loss, grad) = loss(&output)?;
    if grad.shape() != output.shape() {
        bail!("an output of shape {:?} has a gradient of shape {:?}", output.shape(), grad.shape());
    }
    let mut known = HashMap::from([(output.id(), grad)]);
    drop(output);
    // entries go as soon as they are done with, and what they hold
    while let Some(entry) = TAPE.with_borrow_mut(|tape| tape.entries.pop()) {
        let Some(grad) = known.remove(&entry.result.id()) else { continue };
        entry.add_gradients(&grad, &mut known)?;
    }
    drop(guard);
    let of = |weight: &Tensor| known.remove(&weight.id());
    match weights.iter().map(of).collect() {
        Some(gradients) => Ok((loss, gradients)),
        None => bail!("a weight has no part in the output"),
    }
}
