//! Adam (Kingma & Ba 2015, Algorithm 1) with global-norm clipping and the moving average of the weights.

use crate::kernels::optimizer;
use candle_core::{Result, Tensor};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPS: f32 = 1e-8;

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

impl Update {
    /// α / (1 − β₁ᵗ).
    fn rate(&self) -> f64 {
        self.learning_rate / (1.0 - f64::from(BETA1).powf(self.step as f64))
    }

    /// √(1 − β₂ᵗ).
    fn root(&self) -> f64 {
        (1.0 - f64::from(BETA2).powf(self.step as f64)).sqrt()
    }
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

/// Σx² as a tensor, which on a GPU nobody waits for.
fn sum_squares(x: &Tensor) -> Result<Tensor> {
    x.sqr()?.sum_all()
}

/// The numbers in single-number tensors, waiting once for all.
fn read(numbers: &[Tensor]) -> Result<Vec<f64>> {
    Ok(Tensor::stack(numbers, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

/// The sum of each weight's gradients over micro-batches, in their order, and Σg² of each weight.
pub fn sum_gradients(parts: Vec<Vec<Tensor>>) -> Result<(Vec<Tensor>, Vec<f64>)> {
    let (mut sums, mut squares, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    // each goes as it is added
    loop {
        let parts: Vec<Tensor> = parts.iter_mut().filter_map(Iterator::next).collect();
        let Some((first, rest)) = parts.split_first() else { break };
        if first.device().is_cpu() {
            let (sum, square) = optimizer::sum_with_squares(&parts)?;
            sums.push(sum);
            squares.push(square);
        } else {
            let sum = rest.iter().try_fold(first.clone(), |sum, part| sum + part)?;
            unread.push(sum_squares(&sum)?);
            sums.push(sum);
        }
    }
    if !unread.is_empty() {
        squares = read(&unread)?;
    }
    Ok((sums, squares))
}

impl Slot {
    /// A weight with empty moments, its average starting at itself.
    pub fn new(param: Tensor) -> Result<Self> {
        Ok(Self { m: param.zeros_like()?, v: param.zeros_like()?, ema: param.clone(), param })
    }

    /// All that it holds.
    pub(super) fn tensors(&self) -> [&Tensor; 4] {
        let Self { param, m, v, ema } = self;
        [param, m, v, ema]
    }

    /// One Adam step, then one step of the average, on the CPU. Returns Σ of the squares of the new weights, and of what
    /// they moved by.
    fn update(&mut self, grad: &Tensor, u: &Update) -> Result<[f64; 2]> {
        let numbers = optimizer::Adam {
            grad_scale: u.grad_scale as f32,
            beta1: BETA1,
            beta2: BETA2,
            eps: EPS,
            rate: u.rate() as f32,
            root: (1.0 / u.root()) as f32,
            ema_decay: u.ema_decay as f32,
        };
        let Self { param, m, v, ema } = &*self;
        let ([param, m, v, ema], squares) = optimizer::adam(grad, [param, m, v, ema], &numbers)?;
        *self = Self { param, m, v, ema };
        Ok(squares)
    }

    /// The same in candle's ops, on any device.
    fn update_by_candle(&mut self, grad: &Tensor, u: &Update) -> Result<[Tensor; 2]> {
        let Self { param: old, m, v, ema } = &*self;
        let g = (grad * u.grad_scale)?;
        let [beta1, beta2, eps] = [BETA1, BETA2, EPS].map(f64::from);
        let m = ((m * beta1)? + (&g * (1.0 - beta1))?)?;
        let v = ((v * beta2)? + (g.sqr()? * (1.0 - beta2))?)?;
        let param = (old - (&m / ((v.sqrt()? / u.root())? + eps)?)?.affine(u.rate(), 0.0)?)?;
        let squares = [sum_squares(&param)?, sum_squares(&(&param - old)?)?];
        // d ema + (1 − d) param, in which the two factors, rounded, would not add up to 1
        let ema = (ema + ((&param - ema)? * (1.0 - u.ema_decay))?)?;
        *self = Self { param, m, v, ema };
        Ok(squares)
    }
}

/// One step of all weights with their gradients. For each, Σ of the squares of its new values, and of what they moved by.
pub fn update_all(slots: &mut [Slot], grads: Vec<Tensor>, u: &Update) -> Result<Vec<[f64; 2]>> {
    let (mut squares, mut unread) = (Vec::new(), Vec::new());
    for (slot, grad) in slots.iter_mut().zip(grads) {
        if grad.device().is_cpu() {
            squares.push(slot.update(&grad, u)?);
        } else {
            unread.extend(slot.update_by_candle(&grad, u)?);
        }
    }
    if !unread.is_empty() {
        squares = read(&unread)?.as_chunks().0.to_vec();
    }
    Ok(squares)
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
    fn both_optimisers_agree() {
        let tensor = |scale: f32| {
            Tensor::from_vec((0..40_000).map(|i| scale * (i as f32).sin()).collect(), 40_000, &Device::Cpu)
        };
        let mut kernels = Slot::new(tensor(1.0).unwrap()).unwrap();
        let mut candle = kernels.clone();
        for step in 1..=20 {
            let grad = tensor(0.1 * step as f32).unwrap();
            let update = Update { step, learning_rate: 1e-3, grad_scale: 0.5, ema_decay: 0.9 };
            let squares = kernels.update(&grad, &update).unwrap();
            let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-4;
            let by_candle = read(&candle.update_by_candle(&grad, &update).unwrap()).unwrap();
            assert!(squares.iter().zip(&by_candle).all(|(a, b)| close(*a, *b)), "{squares:?} {by_candle:?}");
        }
        let Slot { param, m, v, ema } = kernels;
        for (ours, theirs) in [(param, candle.param), (m, candle.m), (v, candle.v), (ema, candle.ema)] {
            let largest = |x: &Tensor| x.abs().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            let (apart, size) = (largest(&(&ours - &theirs).unwrap()), largest(&theirs));
            // one rounding a step
            assert!(apart <= 20.0 * f32::EPSILON * size, "{apart} apart, where the largest is {size}");
        }
    }

    #[test]
    fn the_average_of_what_stays_stays() {
        let mut kernels = Slot::new(Tensor::new(&[1f32, -0.3, 123.0], &Device::Cpu).unwrap()).unwrap();
        let mut candle = kernels.clone();
        let before = kernels.param.to_vec1::<f32>().unwrap();
        let grad = kernels.param.zeros_like().unwrap();
        for step in 1..=20_000 {
            let update = Update { step, learning_rate: 1e-3, grad_scale: 1.0, ema_decay: 0.9999 };
            kernels.update(&grad, &update).unwrap();
            candle.update_by_candle(&grad, &update).unwrap();
        }
        for ema in [kernels.ema, candle.ema] {
            for (now, before) in ema.to_vec1::<f32>().unwrap().iter().zip(&before) {
                assert!((now / before - 1.0).abs() < 1e-6, "{now} where {before} was");
            }
        }
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
