//! Matrix products: one register tile (6x16 with AVX2, 14x32 with AVX-512), everything else on top of it.
//!
//! Each element of a product is one chain of additions over k in order, whatever the sizes and however rows are split
//! among threads, so results do not depend on the split.

use super::simd::{Scratch, Simd, dispatch, transpose};
use std::ops::Range;

/// Columns of a panel.
pub(super) const PANEL: usize = 16;

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

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Rows and columns exchanged.
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// The right factor of a product in panels of sixteen columns (the last one padded with zeros).
#[derive(Debug)]
pub(super) struct Panels<'a> {
    data: Data<'a>,
    /// Numbers between two rows, and between two panels.
    row: usize,
    panel: usize,
    rows: usize,
    cols: usize,
}

#[derive(Debug)]
enum Data<'a> {
    Copy(Scratch),
    Matrix(&'a [f32]),
}

impl<'a> Panels<'a> {
    /// A matrix as it lies there, if that will do.
    pub(super) fn of(b: Matrix<'a>) -> Self {
        match b.col == 1 && b.cols.is_multiple_of(PANEL) {
            true => Self { data: Data::Matrix(b.data), row: b.row, panel: PANEL, rows: b.rows, cols: b.cols },
            false => Self::pack(b),
        }
    }

    /// Some rows, of some columns that begin with a panel.
    pub(super) fn part(&self, rows: Range<usize>, cols: Range<usize>) -> Panels<'_> {
        assert!(cols.start.is_multiple_of(PANEL) && rows.end <= self.rows && cols.end <= self.cols, "no such part");
        let data = match &self.data {
            // SAFETY: `pack` wrote all of it.
            Data::Copy(data) => unsafe { data.slice(self.rows * self.cols.next_multiple_of(PANEL)) },
            Data::Matrix(data) => data,
        };
        let data = Data::Matrix(&data[cols.start / PANEL * self.panel + rows.start * self.row..]);
        Panels { data, row: self.row, panel: self.panel, rows: rows.len(), cols: cols.len() }
    }

    /// A copy.
    pub(super) fn pack(b: Matrix) -> Self {
        let (rows, cols) = (b.rows, b.cols);
        let mut data = Scratch::new(rows * cols.next_multiple_of(PANEL));
        let mut to = data.as_mut_ptr();
        for first in (0..cols).step_by(PANEL) {
            let width = PANEL.min(cols - first);
            let mut squares = 0;
            if b.row == 1 && width == PANEL {
                squares = rows / PANEL;
                // SAFETY: these rows lie inside `b`, and `data` has room for PANEL numbers per row and panel.
                unsafe { pack_squares(b.data[first * b.col..].as_ptr(), b.col, squares, to) }
                // SAFETY: at most one past the end.
                to = unsafe { to.add(squares * PANEL * PANEL) };
            }
            for i in squares * PANEL..rows {
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
        Self { data: Data::Copy(data), row: PANEL, panel: rows * PANEL, rows, cols }
    }
}

dispatch!(
    /// `count` times sixteen rows of a panel from sixteen columns, `col` apart.
    ///
    /// # Safety
    /// All of them must be there, and `to` have room for them.
    pack_squares = pack_squares_simd(columns: *const f32, col: usize, count: usize, to: *mut f32)
);

#[inline(always)]
unsafe fn pack_squares_simd<S: Simd>(columns: *const f32, col: usize, count: usize, to: *mut f32) {
    for i in 0..count {
        // SAFETY: the contract of `pack_squares`.
        unsafe { transpose::<S>(columns.add(i * PANEL), col, to.add(i * PANEL * PANEL), PANEL, false) }
    }
}

/// c = a b, or c += a b with `add`; the rows of c are `c_row` numbers apart.
pub(super) fn multiply(c: &mut [f32], c_row: usize, a: Matrix, b: &Panels<'_>, add: bool) {
    assert_eq!(a.cols, b.rows, "inner sizes");
    assert!(a.rows == 0 || c.len() >= (a.rows - 1) * c_row + b.cols, "product outside its room");
    let b_ptr = match &b.data {
        Data::Copy(data) => data.as_ptr(),
        Data::Matrix(data) => data.as_ptr(),
    };
    let (rows, cols, depth) = (a.rows, b.cols, a.cols);
    // SAFETY: the sizes were checked here and in `Matrix::new`; all panels are PANEL wide: padded copies, parts of such, or
    // a matrix of whole panels.
    unsafe { gemm(rows, cols, depth, a.data.as_ptr(), a.row, a.col, b_ptr, b.row, b.panel, c.as_mut_ptr(), c_row, add) }
}

dispatch!(
    /// c = a b, or c += a b with `add`. a is `rows` x `depth` with element (i, p) at `a[i * a_row + p * a_depth]`; the
    /// sixteen columns of panel j of b at depth p start at `b[j * b_panel + p * b_depth]`; element (i, j) of c is
    /// `c[i * c_row + j]`.
    ///
    /// # Safety
    /// All of a, of c and of b's panels, sixteen columns wide even where c has fewer, must be valid; c must not overlap
    /// the others, and must be initialised if `add`.
    pub(super) gemm = gemm_simd(
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
unsafe fn gemm_simd<S: Simd>(
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
    // Two registers of columns at a time; with sixteen lanes an odd last panel takes one.
    let step = PANEL.max(2 * S::LANES);
    let mut first = 0;
    while first < cols {
        let width = step.min(cols - first);
        // SAFETY: these panels lie inside b and c by the caller's contract.
        unsafe {
            let b = b.add(first / PANEL * b_panel);
            let c = c.add(first);
            if width > PANEL || S::LANES < PANEL {
                columns::<S, 2>(rows, depth, a, a_row, a_depth, b, b_depth, b_panel, c, c_row, width, add);
            } else {
                columns::<S, 1>(rows, depth, a, a_row, a_depth, b, b_depth, b_panel, c, c_row, width, add);
            }
        }
        first += width;
    }
}

/// All rows of some columns of c, VECTORS registers wide.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn columns<S: Simd, const VECTORS: usize>(
    rows: usize,
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_depth: usize,
    b: *const f32,
    b_depth: usize,
    b_panel: usize,
    c: *mut f32,
    c_row: usize,
    width: usize,
    add: bool,
) {
    // Groups of nearly equal height: 32 rows are 6+6+5+5+5+5.
    let groups = rows.div_ceil(S::TILE_ROWS);
    let mut i = 0;
    for group in 0..groups {
        let height = (rows - i).div_ceil(groups - group);
        /// One tile of as many rows as `height` says, if it is among those listed.
        macro_rules! tile {
            ($($rows:literal)*) => {
                match height {
                    $($rows if $rows <= S::TILE_ROWS => {
                        let (a, c) = (a.add(i * a_row), c.add(i * c_row));
                        tile::<S, $rows, VECTORS>(depth, a, a_row, a_depth, b, b_depth, b_panel, c, c_row, width, add);
                    })*
                    _ => unreachable!("a tile of {height} rows"),
                }
            };
        }
        // SAFETY: the tile lies inside a, b and c by the caller's contract.
        unsafe { tile!(1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
        i += height;
    }
}

/// One register tile: HEIGHT rows of VECTORS registers of c, of which `width` columns are stored.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<S: Simd, const HEIGHT: usize, const VECTORS: usize>(
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_depth: usize,
    b: *const f32,
    b_depth: usize,
    b_panel: usize,
    c: *mut f32,
    c_row: usize,
    width: usize,
    add: bool,
) {
    /// Products of so few rows wait for b, which then comes from memory.
    const FEW_ROWS: usize = 8;
    /// How far ahead of its use b is asked for.
    const AHEAD: usize = 1024;
    /// Columns of the widest tile.
    const WIDEST: usize = 2 * PANEL;
    let full = VECTORS * S::LANES;
    // SAFETY: pointers stay inside a, b and c by the contract of `gemm`.
    unsafe {
        let mut sums = [[S::splat(0.0); VECTORS]; HEIGHT];
        if add {
            for (i, sum) in sums.iter_mut().enumerate() {
                let mut from = c.add(i * c_row).cast_const();
                let mut line = [0.0; WIDEST];
                if width < full {
                    std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), width);
                    from = line.as_ptr();
                }
                for (j, sum) in sum.iter_mut().enumerate() {
                    *sum = S::load(from.add(j * S::LANES));
                }
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let mut b_row = [S::splat(0.0); VECTORS];
            for (j, value) in b_row.iter_mut().enumerate() {
                let column = j * S::LANES;
                let b = b.add(column / PANEL * b_panel + column % PANEL);
                *value = S::load(b);
                if column % PANEL == 0 && HEIGHT > 1 && HEIGHT <= FEW_ROWS {
                    S::prefetch(b.wrapping_add(AHEAD));
                }
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = S::splat(*a.add(i * a_row));
                for (sum, b) in sum.iter_mut().zip(b_row) {
                    *sum = x.mul_add(b, *sum);
                }
            }
            // past the end after the last
            (a, b) = (a.wrapping_add(a_depth), b.wrapping_add(b_depth));
        }
        for (i, sum) in sums.iter().enumerate() {
            let c = c.add(i * c_row);
            let mut line = [0.0; WIDEST];
            let to = if width < full { line.as_mut_ptr() } else { c };
            for (j, sum) in sum.iter().enumerate() {
                sum.store(to.add(j * S::LANES));
            }
            if width < full {
                std::ptr::copy_nonoverlapping(line.as_ptr(), c, width);
            }
        }
    }
}
