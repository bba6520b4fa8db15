//! Number by number: sums, products, SiLU. Not candle's operations, which wait for a pool of spinning threads that all
//! threads of a training would share.

use super::layout::add_pixels;
use super::memory::{Reader, part, slice, storage, tensor, written};
use super::pixels::{SumProducts, normalise};
use super::tape::{apply1, apply2, wants_gradient};
use super::threads::for_each;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// The sum of two maps of one shape.
pub(super) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    apply2(a, b, Add)
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        if la.shape() != lb.shape() {
            candle_core::bail!("cannot add maps of shapes {:?} and {:?}", la.shape(), lb.shape());
        }
        let (a, b) = (slice(a, la)?, slice(b, lb)?);
        let parts = a.len().div_ceil(1 << 14);
        // SAFETY: the parts cover the output.
        let y = unsafe {
            written(a.len(), |y| {
                for_each(parts, |i| {
                    let range = part(a.len(), parts, i);
                    let y = y.part(range.start, range.len());
                    for ((y, a), b) in y.iter_mut().zip(&a[range.clone()]).zip(&b[range]) {
                        *y = a + b;
                    }
                });
            })
        };
        Ok(storage(y, la.shape()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let give = |to: &Tensor| wants_gradient(to).then(|| grad.clone());
        Ok((give(a), give(b)))
    }
}

/// `x` times `factor`.
pub(super) fn scale(x: &Tensor, factor: f64) -> Result<Tensor> {
    apply1(x, Scale { factor })
}

struct Scale {
    factor: f64,
}

impl CustomOp1 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = slice(x, layout)?.iter().map(|v| v * self.factor as f32).collect();
        Ok(storage(y, layout.shape()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.apply_op1_no_bwd(self)?))
    }
}

/// `x` times the constant `mask` of one shape.
pub(super) fn mask(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    apply2(x, mask, Mask)
}

struct Mask;

impl CustomOp2 for Mask {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, mask: &CpuStorage, lm: &Layout) -> Result<(CpuStorage, Shape)> {
        if lx.shape() != lm.shape() {
            candle_core::bail!("cannot mask a tensor of shape {:?} with one of {:?}", lx.shape(), lm.shape());
        }
        let y = slice(x, lx)?.iter().zip(slice(mask, lm)?).map(|(x, m)| x * m).collect();
        Ok(storage(y, lx.shape()))
    }

    fn bwd(&self, _: &Tensor, mask: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.contiguous()?.apply_op2_no_bwd(mask, self)?), None))
    }
}

/// `row` [c] added to each row of `x` [n, c].
pub(super) fn add_row(x: &Tensor, row: &Tensor) -> Result<Tensor> {
    apply2(x, row, AddRow)
}

struct AddRow;

impl CustomOp2 for AddRow {
    fn name(&self) -> &'static str {
        "add-row"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, row: &CpuStorage, lr: &Layout) -> Result<(CpuStorage, Shape)> {
        let row = slice(row, lr)?;
        if lx.shape().dims2()?.1 != row.len() {
            candle_core::bail!("cannot add a row of shape {:?} to rows of shape {:?}", lr.shape(), lx.shape());
        }
        let rows = slice(x, lx)?.chunks_exact(row.len());
        Ok(storage(rows.flat_map(|x| x.iter().zip(row).map(|(x, r)| x + r)).collect(), lx.shape()))
    }

    fn bwd(&self, x: &Tensor, row: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let drow = match wants_gradient(row) {
            true => {
                let mut sums = vec![0.0; row.elem_count()];
                add_pixels(&mut sums, Reader::new(grad).slice()?);
                Some(tensor(sums, row.shape())?)
            }
            false => None,
        };
        Ok((wants_gradient(x).then(|| grad.clone()), drow))
    }
}

/// x·sigmoid(x) for `x` [n, c].
pub(super) fn silu(x: &Tensor) -> Result<Tensor> {
    apply1(x, Silu)
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let c = layout.shape().dims2()?.1;
        let x = slice(x, layout)?;
        // SAFETY: `normalise` writes as many numbers as it reads.
        let y = unsafe { written(x.len(), |y| normalise(x, &vec![1.0; c], &vec![0.0; c], true, y.ptr(0), c)) };
        Ok(storage(y, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let c = x.dims2()?.1;
        let (x_data, grad_data) = (Reader::new(x), Reader::new(grad));
        let (values, dy) = (x_data.slice()?, grad_data.slice()?);
        let (one, zero) = (vec![1.0; c], vec![0.0; c]);
        let pass = SumProducts { scale: &one, shift: &zero, mean: &zero, silu: true };
        let (mut sum, mut products) = (zero.clone(), zero.clone());
        // SAFETY: there is room for as many numbers as it reads.
        let dx = unsafe { written(dy.len(), |dx| pass.run(values, (dy, c), dx.ptr(0), &mut sum, &mut products)) };
        tensor(dx, x.shape()).map(Some)
    }
}
