//! Adam (Kingma & Ba 2015, Algorithm 1) with global-norm clipping and the moving average of the weights.

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

/// √Σg² over all tensors.
pub fn global_norm(grads: &[Tensor]) -> Result<f64> {
    let mut sum = 0.0;
    for g in grads {
        sum += if g.device().is_cpu() {
            g.flatten_all()?.to_vec1::<f32>()?.iter().map(|&v| f64::from(v).powi(2)).sum()
        } else {
            f64::from(g.sqr()?.sum_all()?.to_scalar::<f32>()?)
        };
    }
    Ok(sum.sqrt())
}

impl Slot {
    /// A weight with empty moments, its average starting at itself.
    pub fn new(param: Tensor) -> Result<Self> {
        Ok(Self { m: param.zeros_like()?, v: param.zeros_like()?, ema: param.clone(), param })
    }

    /// One Adam step, then one step of the average.
    pub fn update(&mut self, grad: &Tensor, u: &Update) -> Result<()> {
        let corrected = |beta: f64| 1.0 - beta.powf(u.step as f64);
        let rate = u.learning_rate / corrected(BETA1);
        let root = corrected(BETA2).sqrt();
        *self = if self.param.device().is_cpu() {
            self.update_cpu(grad, u, rate as f32, root as f32)?
        } else {
            let g = (grad * u.grad_scale)?;
            let m = ((&self.m * BETA1)? + (&g * (1.0 - BETA1))?)?;
            let v = ((&self.v * BETA2)? + (g.sqr()? * (1.0 - BETA2))?)?;
            let param = (&self.param - (&m / ((v.sqrt()? / root)? + EPS)?)?.affine(rate, 0.0)?)?;
            let ema = ((&self.ema * u.ema_decay)? + (&param * (1.0 - u.ema_decay))?)?;
            Self { param, m, v, ema }
        };
        Ok(())
    }

    /// The same in one pass over the values.
    fn update_cpu(&self, grad: &Tensor, u: &Update, rate: f32, root: f32) -> Result<Self> {
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (mut p, mut m, mut v, mut ema) =
            (values(&self.param)?, values(&self.m)?, values(&self.v)?, values(&self.ema)?);
        let (scale, decay) = (u.grad_scale as f32, u.ema_decay as f32);
        let (b1, b2, eps) = (BETA1 as f32, BETA2 as f32, EPS as f32);
        for ((((g, p), m), v), ema) in values(grad)?.iter().zip(&mut p).zip(&mut m).zip(&mut v).zip(&mut ema) {
            let g = g * scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *p -= rate * *m / (v.sqrt() / root + eps);
            *ema = decay * *ema + (1.0 - decay) * *p;
        }
        let tensor = |values| Tensor::from_vec(values, self.param.shape(), self.param.device());
        Ok(Self { param: tensor(p)?, m: tensor(m)?, v: tensor(v)?, ema: tensor(ema)? })
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
        slot.update(&grad, &Update { step: 1, learning_rate: 0.1, grad_scale: 1.0, ema_decay: 0.75 }).unwrap();
        let p = slot.param.to_vec1::<f32>().unwrap();
        for (p, expected) in p.iter().zip([0.9, -1.9, 3.0]) {
            assert!((p - expected).abs() < 1e-6, "{p}");
        }
        let ema = slot.ema.to_vec1::<f32>().unwrap();
        assert!((ema[0] - (0.75 + 0.25 * 0.9)).abs() < 1e-6);
    }

    #[test]
    fn clipping_brings_the_norm_down_and_never_up() {
        let grads = [Tensor::new(&[3f32, 0.0], &Device::Cpu).unwrap(), Tensor::new(&[4f32], &Device::Cpu).unwrap()];
        let norm = global_norm(&grads).unwrap();
        assert!((norm - 5.0).abs() < 1e-12);
        assert!((clip_scale(norm, 1.0) * norm - 1.0).abs() < 1e-6);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
    }
}
