//! A convolution by itself, to be measured: [`Trial`].

use super::tape::OfThree;
use super::{Path, Window, affine, conv};
use candle_core::{CustomOp3, Device, Result, Tensor, Var};

/// One convolution with its operands in the kernels' own layout. Weights are prepared at the first call of each kind and
/// kept, as in a layer.
pub struct Trial {
    op: Op,
    x: Var,
    weight: Var,
    bias: Tensor,
    grad: Tensor,
}

enum Op {
    Conv(conv::Conv),
    Affine(OfThree<affine::Affine>),
}

/// Whether the fast path doubles the pixels of a convolution with so many channels itself, not beforehand.
pub fn doubles_itself(ci: usize, co: usize) -> bool {
    conv::is_winograd(Window::Doubled, Path::Fast, ci, co)
}

/// Numbers and their shape.
pub type Operand = (Vec<f32>, [usize; 4]);

impl Trial {
    /// `x` [n, h, w, in], `weight` [out, in, 3, 3], or [out, in, 1, 1] where `window` is `None`, and `grad` = ∂L/∂y
    /// [n, ho, wo, out]; the bias is 0.
    ///
    /// # Errors
    /// If a shape does not fit its numbers, or if pixels are to be doubled that [`conv3x3`](conv::conv3x3) would double
    /// beforehand.
    pub fn new(x: Operand, weight: Operand, grad: Operand, window: Option<Window>, path: Path) -> Result<Self> {
        let [co, ci, ..] = weight.1;
        let op = match window {
            Some(Window::Doubled) if !conv::is_winograd(Window::Doubled, path, ci, co) => {
                candle_core::bail!("pixels of {ci} channels are not doubled on the way to {co} on the path {path:?}")
            }
            Some(window) => Op::Conv(conv::Conv { window, path, prepared: Default::default(), keeps: true }),
            None => Op::Affine(OfThree(affine::Affine { prepared: Default::default(), strips: 1 })),
        };
        let tensor = |(data, shape): Operand| Tensor::from_vec(data, &shape, &Device::Cpu);
        let (x, weight, grad) = (tensor(x)?, tensor(weight)?, tensor(grad)?);
        let bias = Tensor::zeros(weight.dim(0)?, grad.dtype(), &Device::Cpu)?;
        Ok(Self { op, x: Var::from_tensor(&x)?, weight: Var::from_tensor(&weight)?, bias, grad })
    }

    /// y [n, ho, wo, out].
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self) -> Result<Tensor> {
        let (x, weight) = (self.x.as_detached_tensor(), self.weight.as_detached_tensor());
        match &self.op {
            Op::Conv(op) => x.apply_op3_no_bwd(&weight, &self.bias, op),
            Op::Affine(op) => x.apply_op3_no_bwd(&weight, &self.bias, op),
        }
    }

    /// ∂L/∂x and ∂L/∂w, those that are asked for.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn backward(&self, input: bool, weight: bool) -> Result<[Option<Tensor>; 2]> {
        let operand = |var: &Var, asked| if asked { var.as_tensor().clone() } else { var.as_detached_tensor() };
        let (x, w) = (operand(&self.x, input), operand(&self.weight, weight));
        let op: &dyn CustomOp3 = match &self.op {
            Op::Conv(op) => op,
            Op::Affine(op) => op,
        };
        let (dx, dw, _) = op.bwd(&x, &w, &self.bias, &self.grad, &self.grad)?;
        Ok([dx, dw])
    }
}
