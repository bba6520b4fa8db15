//! Attention and the linear maps around it, in as few of them as it takes.

use super::matrix::{Matrix, Panels, multiply};
use super::memory::{Reader, slice, storage, tensor};
use super::tape::{apply2, wants_gradient};
use super::{Conv1x1, Map, Path, attention, candle_path, elementwise};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// Each pixel reads from all pixels of its image: softmax(q kᵀ / √d) v between linear maps to q, k and v and the one out, in
/// heads of d channels each.
///
/// With one head the fast kernels need two of the four maps. The scores are x Wqᵀ Wk xᵀ, so x itself will do for k where q
/// is made by Wkᵀ Wq; what k's bias adds to all scores of a pixel alike, softmax does not see. The weights P of a pixel have
/// the sum 1, so P (x Wvᵀ + bv) Woᵀ + bo is (P x) (Wo Wv)ᵀ + Wo bv + bo, and x will do for v.
#[derive(Debug)]
pub struct SelfAttention {
    to_q: Conv1x1,
    to_k: Conv1x1,
    to_v: Conv1x1,
    to_out: Conv1x1,
    heads: usize,
    folded: OnceLock<Folded>,
}

/// The two maps of one head.
#[derive(Debug)]
struct Folded {
    to_q: Conv1x1,
    to_out: Conv1x1,
}

impl SelfAttention {
    /// The maps to q, k and v, [inner, c], and the one out, [c, inner]; `heads` divides inner.
    pub fn new([to_q, to_k, to_v, to_out]: [Conv1x1; 4], heads: usize) -> Self {
        Self { to_q, to_k, to_v, to_out, heads, folded: OnceLock::new() }
    }

    /// [n, c, h, w] to the same shape, to which `addend` is added.
    pub fn forward_plus(&self, x: &Map, addend: &Map) -> Result<Map> {
        let (n, c, h, w) = x.dims()?;
        let inner = self.to_q.weight.dims().first().copied().unwrap_or(0);
        if x.path != Path::Fast || self.heads != 1 || inner != c {
            return self.unfolded(x, addend);
        }
        if !wants_gradient(&self.to_q.weight) {
            let folded = match self.folded.get() {
                Some(folded) => folded,
                None => {
                    let new = self.fold()?;
                    self.folded.get_or_init(|| new)
                }
            };
            return folded.forward_plus(x, addend);
        }
        // with the gradients it saves 6 c² products for each pixel, and takes 6 c³
        if n * h * w > c { self.fold()?.forward_plus(x, addend) } else { self.unfolded(x, addend) }
    }

    fn unfolded(&self, x: &Map, addend: &Map) -> Result<Map> {
        let (q, k, v) = (self.to_q.forward(x)?, self.to_k.forward(x)?, self.to_v.forward(x)?);
        self.to_out.forward_plus(&among_pixels(&q, &k, &v, self.heads)?, addend)
    }

    fn fold(&self) -> Result<Folded> {
        let Self { to_q, to_k, to_v, to_out, .. } = self;
        let product = |a: &Tensor, b: &Tensor, transposed| apply2(a, b, Product { transposed });
        let unseen = elementwise::scale(&to_k.bias, 0.0)?;
        Ok(Folded {
            to_q: Conv1x1::new(
                product(&to_k.weight, &to_q.weight, true)?,
                elementwise::add(&product(&to_k.weight, &to_q.bias, true)?, &unseen)?,
            ),
            to_out: Conv1x1::new(
                product(&to_out.weight, &to_v.weight, false)?,
                elementwise::add(&product(&to_out.weight, &to_v.bias, false)?, &to_out.bias)?,
            ),
        })
    }
}

impl Folded {
    fn forward_plus(&self, x: &Map, addend: &Map) -> Result<Map> {
        self.to_out.forward_plus(&among_pixels(&self.to_q.forward(x)?, x, x, 1)?, addend)
    }
}

/// softmax(q kᵀ / √d) v among the pixels of each image, in `heads` heads of d = c / `heads` channels each.
pub(super) fn among_pixels(q: &Map, k: &Map, v: &Map, heads: usize) -> Result<Map> {
    let (queries, keys, values) = (q.whole()?, k.whole()?, v.whole()?);
    q.with(match q.path {
        Path::Candle => candle_path::attention(&queries, &keys, &values, heads),
        Path::Fast | Path::Exact => attention::attention(&queries, &keys, &values, heads),
    })
}

/// a b, or aᵀ b, of two weights [out, in], where b may be a bias.
struct Product {
    transposed: bool,
}

impl Product {
    /// The factors as matrices.
    fn factors<'a>(&self, a: (&'a [f32], &Shape), b: (&'a [f32], &Shape)) -> Result<[Matrix<'a>; 2]> {
        let matrix = |(data, shape): (&'a [f32], &Shape)| {
            let rows = shape.dims().first().copied().unwrap_or(1).max(1);
            Matrix::new(data, rows, data.len() / rows, data.len() / rows)
        };
        let (left, right) = (matrix(a), matrix(b));
        let left = if self.transposed { left.t() } else { left };
        if left.cols() != right.rows() {
            bail!("weights of shapes {:?} and {:?} have no product", a.1, b.1);
        }
        Ok([left, right])
    }
}

fn multiplied(a: Matrix, b: Matrix) -> Vec<f32> {
    let mut c = vec![0.0; a.rows() * b.cols()];
    multiply(&mut c, b.cols(), a, &Panels::of(b), false);
    c
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product of weights"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let [left, right] = self.factors((slice(a, la)?, la.shape()), (slice(b, lb)?, lb.shape()))?;
        let shape = if lb.shape().rank() == 1 { Shape::from(left.rows()) } else { (left.rows(), right.cols()).into() };
        Ok(storage(multiplied(left, right), shape))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [read_a, read_b, read_grad] = [a, b, &grad].map(Reader::new);
        let [left, right] = self.factors((read_a.slice()?, a.shape()), (read_b.slice()?, b.shape()))?;
        let dy = Matrix::new(read_grad.slice()?, left.rows(), right.cols(), right.cols());
        let da = if self.transposed { multiplied(right, dy.t()) } else { multiplied(dy, right.t()) };
        Ok((Some(tensor(da, a.shape())?), Some(tensor(multiplied(left.t(), dy), b.shape())?)))
    }
}
