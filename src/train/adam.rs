//! Adam (Kingma & Ba 2015, Algorithm 1) with global-norm clipping and the moving average of the weights.

use crate::kernels::optimizer;
use candle_core::{Result, Tensor};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// The numbers of one update.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate.
    pub learning_rate: f64,
    /// The gradient is multiplied by this (clipping).
    pub grad_scale: f64,
    /// Decay of the moving average.
    pub ema_decay: f64,
}

/// One weight tensor with all that the optimiser keeps about it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The weight.
    pub param: Tensor,
    /// First moment.
    pub m: Tensor,
    /// Second moment.
    pub v: Tensor,
    /// Moving average of the weight.
    pub ema: Tensor,
}

/// The factor that brings a gradient of this norm down to `max_norm`, at most 1.
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

/// The sum of each weight's gradients over micro-batches, in their order, and Σg² of each weight.
pub fn sum_gradients(parts: Vec<Vec<Tensor>>) -> Result<(Vec<Tensor>, Vec<f64>)> {
    let (mut sums, mut squares) = (Vec::new(), Vec::new());
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    // each goes as it is added
    loop {
        let parts: Vec<Tensor> = parts.iter_mut().filter_map(Iterator::next).collect();
        let Some((first, rest)) = parts.split_first() else { break };
        let (sum, square) = if first.device().is_cpu() {
            optimizer::sum_with_squares(&parts)?
        } else {
            let mut sum = first.clone();
            for part in rest {
                sum = (sum + part)?;
            }
            let square = f64::from(sum.sqr()?.sum_all()?.to_scalar::<f32>()?);
            (sum, square)
        };
        sums.push(sum);
        squares.push(square);
    }
    Ok((sums, squares))
}

impl Slot {
    /// A weight with empty moments, its average starting at itself.
    pub fn new(param: Tensor) -> Result<Self> {
        Ok(Self { m: param.zeros_like()?, v: param.zeros_like()?, ema: param.clone(), param })
    }

    /// One Adam step, then one step of the average. Returns Σ of the squares of the new weights, and of what they moved by.
    pub fn update(&mut self, grad: &Tensor, u: &Update) -> Result<[f64; 2]> {
        let corrected = |beta: f64| 1.0 - beta.powf(u.step as f64);
        let rate = u.learning_rate / corrected(BETA1);
        let root = corrected(BETA2).sqrt();
        let Self { param, m, v, ema } = &*self;
        let ([param, m, v, ema], squares) = if param.device().is_cpu() {
            let numbers = optimizer::Adam {
                grad_scale: u.grad_scale as f32,
                beta1: BETA1 as f32,
                beta2: BETA2 as f32,
                eps: EPS as f32,
                rate: rate as f32,
                root: (1.0 / root) as f32,
                ema_decay: u.ema_decay as f32,
            };
            optimizer::adam(grad, [param, m, v, ema], &numbers)?
        } else {
            let g = (grad * u.grad_scale)?;
            let m = ((m * BETA1)? + (&g * (1.0 - BETA1))?)?;
            let v = ((v * BETA2)? + (g.sqr()? * (1.0 - BETA2))?)?;
            let old = param;
            let param = (old - (&m / ((v.sqrt()? / root)? + EPS)?)?.affine(rate, 0.0)?)?;
            let square = |x: &Tensor| Ok(f64::from(x.sqr()?.sum_all()?.to_scalar::<f32>()?));
            let squares: Result<_> = square(&param).and_then(|all| Ok([all, square(&(&param - old)?)?]));
            let ema = ((ema * u.ema_decay)? + (&param * (1.0 - u.ema_decay))?)?;
            ([param, m, v, ema], squares?)
        };
        *self = Self { param, m, v, ema };
        Ok(squares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn first_step_moves_by_the_learning_rate_against_the_gradient() {
        // after one step m/√v is ±1 whatever the gradient's size
        let mut slot = Slot::new(Tensor::new(&[1f32, -2.0, 3.0], &Device::Cpu).unwrap()).unwrap();
        let grad = Tensor::new(&[0.5f32, -20.0, 0.0], &Device::Cpu).unwrap();
        let update = Update { step: 1, learning_rate: 0.1, grad_scale: 1.0, ema_decay: 0.75 };
        let [weights, moved] = slot.update(&grad, &update).unwrap();
        assert!((weights - (0.81 + 3.61 + 9.0)).abs() < 1e-5 && (moved - 0.02).abs() < 1e-6, "{weights} {moved}");
        let p = slot.param.to_vec1::<f32>().unwrap();
        for (p, expected) in p.iter().zip([0.9, -1.9, 3.0]) {
            assert!((p - expected).abs() < 1e-6, "{p}");
        }
        let ema = slot.ema.to_vec1::<f32>().unwrap();
        assert!((ema[0] - (0.75 + 0.25 * 0.9)).abs() < 1e-6);
    }

    #[test]
    fn clipping_brings_the_norm_down_and_never_up() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let parts = [vec![tensor(&[1.0, -2.0]), tensor(&[3.0])], vec![tensor(&[2.0, 2.0]), tensor(&[1.0])]];
        let (sums, squares) = sum_gradients(parts.into()).unwrap();
        assert_eq!(squares, [9.0, 16.0]);
        let norm = squares.iter().sum::<f64>().sqrt();
        assert_eq!(sums[0].to_vec1::<f32>().unwrap(), [3.0, 0.0]);
        assert!((norm - 5.0).abs() < 1e-12);
        assert!((clip_scale(norm, 1.0) * norm - 1.0).abs() < 1e-6);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
    }
}
