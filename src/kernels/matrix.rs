//! Matrix products: a register tile of 6x16, everything else on top of it.
//!
//! Each element of a product is one chain of additions over k in order, whatever the sizes and however rows are split
//! among threads, so results do not depend on the split.

use super::simd::{LANES, Scratch, Simd, dispatch};

/// Rows of a register tile.
const ROWS: usize = 6;
/// Columns of a register tile, and of a panel.
pub(super) const PANEL: usize = 2 * LANES;

/// A matrix inside a slice: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after another, `row` numbers apart.
    pub(super) fn new(data: &'a [f32], rows: usize, cols: usize, row: usize) -> Self {
        assert!(rows == 0 || cols == 0 || data.len() >= (rows - 1) * row + cols, "matrix outside its data");
        Self { data, rows, cols, row, col: 1 }
    }

    /// Rows and columns exchanged.
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// The right factor of a product, copied into panels of sixteen columns (the last one padded with zeros).
#[derive(Debug)]
pub(super) struct Panels {
    data: Scratch,
    rows: usize,
    cols: usize,
}

impl Panels {
    pub(super) fn pack(b: Matrix) -> Self {
        let (rows, cols) = (b.rows, b.cols);
        let mut data = Scratch::new(rows * cols.next_multiple_of(PANEL));
        let mut to = data.as_mut_ptr();
        for first in (0..cols).step_by(PANEL) {
            let width = PANEL.min(cols - first);
            for i in 0..rows {
                let from = &b.data[i * b.row + first * b.col..];
                // SAFETY: `data` has room for PANEL numbers per row and panel.
                let line = unsafe { &mut *to.cast::<[f32; PANEL]>() };
                if b.col == 1 && width == PANEL {
                    line.copy_from_slice(&from[..PANEL]);
                } else {
                    *line = std::array::from_fn(|j| if j < width { from[j * b.col] } else { 0.0 });
                }
                // SAFETY: at most one past the end.
                to = unsafe { to.add(PANEL) };
            }
        }
        Self { data, rows, cols }
    }
}

/// c = a b, or c += a b with `add`; the rows of c are `c_row` numbers apart.
pub(super) fn multiply(c: &mut [f32], c_row: usize, a: Matrix, b: &Panels, add: bool) {
    assert_eq!(a.cols, b.rows, "inner sizes");
    assert!(a.rows == 0 || c.len() >= (a.rows - 1) * c_row + b.cols, "product outside its room");
    let b_ptr = b.data.as_ptr();
    let b_panel = b.rows * PANEL;
    let (rows, cols, depth) = (a.rows, b.cols, a.cols);
    // SAFETY: the sizes were checked here and in `Matrix::new`; panels are padded to PANEL columns.
    unsafe { gemm(rows, cols, depth, a.data.as_ptr(), a.row, a.col, b_ptr, PANEL, b_panel, c.as_mut_ptr(), c_row, add) }
}

dispatch!(
    /// c = a b, or c += a b with `add`. a is `rows` x `depth` with element (i, p) at `a[i * a_row + p * a_depth]`; the
    /// sixteen columns of panel j of b at depth p start at `b[j * b_panel + p * b_depth]`; element (i, j) of c is
    /// `c[i * c_row + j]`.
    ///
    /// # Safety
    /// All of a, of c and of b's panels, sixteen columns wide even where c has fewer, must be valid; c must not overlap
    /// the others, and must be initialised if `add`.
    gemm = gemm_simd(
        rows: usize,
        cols: usize,
        depth: usize,
        a: *const f32,
        a_row: usize,
        a_depth: usize,
        b: *const f32,
        b_depth: usize,
        b_panel: usize,
        c: *mut f32,
        c_row: usize,
        add: bool,
    )
);

/// See [`gemm`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn gemm_simd<S: Simd>(
    rows: usize,
    cols: usize,
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_depth: usize,
    b: *const f32,
    b_depth: usize,
    b_panel: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // Groups of nearly equal height: 32 rows are 6+6+5+5+5+5.
    let groups = rows.div_ceil(ROWS);
    for panel in 0..cols.div_ceil(PANEL) {
        let width = PANEL.min(cols - panel * PANEL);
        let mut i = 0;
        for group in 0..groups {
            let height = (rows - i).div_ceil(groups - group);
            // SAFETY: the tile lies inside a, b and c by the caller's contract.
            unsafe {
                let a = a.add(i * a_row);
                let b = b.add(panel * b_panel);
                let c = c.add(i * c_row + panel * PANEL);
                match height {
                    6 => tile::<S, 6>(depth, a, a_row, a_depth, b, b_depth, c, c_row, width, add),
                    5 => tile::<S, 5>(depth, a, a_row, a_depth, b, b_depth, c, c_row, width, add),
                    4 => tile::<S, 4>(depth, a, a_row, a_depth, b, b_depth, c, c_row, width, add),
                    3 => tile::<S, 3>(depth, a, a_row, a_depth, b, b_depth, c, c_row, width, add),
                    2 => tile::<S, 2>(depth, a, a_row, a_depth, b, b_depth, c, c_row, width, add),
                    _ => tile::<S, 1>(depth, a, a_row, a_depth, b, b_depth, c, c_row, width, add),
                }
            }
            i += height;
        }
    }
}

/// One register tile: HEIGHT x 16 of c, of which `width` columns are stored.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<S: Simd, const HEIGHT: usize>(
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_depth: usize,
    b: *const f32,
    b_depth: usize,
    c: *mut f32,
    c_row: usize,
    width: usize,
    add: bool,
) {
    // SAFETY: pointers stay inside a, b and c by the contract of `gemm`.
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; HEIGHT];
        if add && width == PANEL {
            for (i, sum) in sums.iter_mut().enumerate() {
                let c = c.add(i * c_row);
                *sum = [S::load(c), S::load(c.add(LANES))];
            }
        } else if add {
            for (i, sum) in sums.iter_mut().enumerate() {
                let mut line = [0.0; PANEL];
                std::ptr::copy_nonoverlapping(c.add(i * c_row), line.as_mut_ptr(), width);
                *sum = [S::load(line.as_ptr()), S::load(line.as_ptr().add(LANES))];
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let (b0, b1) = (S::load(b), S::load(b.add(LANES)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = S::splat(*a.add(i * a_row));
                sum[0] = x.mul_add(b0, sum[0]);
                sum[1] = x.mul_add(b1, sum[1]);
            }
            a = a.add(a_depth);
            b = b.add(b_depth);
        }
        for (i, sum) in sums.iter().enumerate() {
            let c = c.add(i * c_row);
            if width == PANEL {
                sum[0].store(c);
                sum[1].store(c.add(LANES));
            } else {
                let mut line = [0.0; PANEL];
                sum[0].store(line.as_mut_ptr());
                sum[1].store(line.as_mut_ptr().add(LANES));
                std::ptr::copy_nonoverlapping(line.as_ptr(), c, width);
            }
        }
    }
}
