//! 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3) (Lavin & Gray 2015): 36 multiplications for 16 outputs, not 144.
//!
//! With d the 6x6 patch under a tile of 4x4 outputs and g a kernel: y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, summed over input
//! channels. Over many tiles the 36 products ⊙ are 36 matrix products V U of [tiles, in] and [in, out]. The gradients
//! stay in the transformed domain: with D = A dy Aᵀ, dU = Vᵀ D and dV = D Uᵀ, then dg = Gᵀ dU G and dx = B dV Bᵀ.
//! Channels must be multiples of sixteen. Tiles at the border with fewer outputs have fewer products: each of the 36
//! matrices has rows only for the tiles that use its point.

use super::conv::Geometry;
use super::matrix::{PANEL, gemm};
use super::memory::{Target, part, written};
use super::simd::{Scratch, Simd, dispatch, transpose};
use super::threads::{self, for_each};
use super::tiles::{self, Tiling};
use super::transforms::{Weight, WeightT, twice};
use std::ops::Range;

/// Points of the transformed domain.
const POINTS: usize = 36;

/// Numbers between the ends of two points' slabs: without them all points would fall into the same cache sets.
const GAP: usize = 16;

/// A transformed weight U = G g Gᵀ as panels [panel][point][depth][16].
#[derive(Debug)]
pub(super) struct Weights {
    data: Scratch,
    depth: usize,
}

impl Weights {
    /// For the forward pass: depth in, panels of out.
    pub(super) fn forward(weight: &[f32], g: &Geometry) -> Self {
        Self::new(weight, g.ci, g.co, (9, 9 * g.ci))
    }

    /// Transposed, for the gradient of x: depth out, panels of in.
    pub(super) fn backward(weight: &[f32], g: &Geometry) -> Self {
        Self::new(weight, g.co, g.ci, (9 * g.ci, 9))
    }

    /// `strides` are those of depth and of column in `weight`.
    fn new(weight: &[f32], depth: usize, cols: usize, strides: (usize, usize)) -> Self {
        let mut data = Scratch::new(POINTS * depth * cols);
        // SAFETY: all kernels are in `weight`, and `data` has room for all of U.
        unsafe { transform_weights(weight, depth, cols, strides, data.as_mut_ptr()) }
        Self { data, depth }
    }

    /// Numbers between two panels.
    #[inline(always)]
    fn panel(&self) -> usize {
        POINTS * self.depth * PANEL
    }

    /// # Safety
    /// `panel` and `point` must exist.
    #[inline(always)]
    unsafe fn at(&self, panel: usize, point: usize) -> *const f32 {
        // SAFETY: the caller's contract.
        unsafe { self.data.as_ptr().add((panel * POINTS + point) * self.depth * PANEL) }
    }
}

dispatch!(
    /// # Safety
    /// `depth` x `cols` kernels of nine numbers lie in `weight`, so far apart, and `to` has room for their U.
    transform_weights = transform_weights_simd(
        weight: &[f32],
        depth: usize,
        cols: usize,
        strides: (usize, usize),
        to: *mut f32,
    )
);

#[inline(always)]
unsafe fn transform_weights_simd<S: Simd>(
    weight: &[f32],
    depth: usize,
    cols: usize,
    strides: (usize, usize),
    to: *mut f32,
) {
    // sixteen columns, sixteen depths at a time: numbers of all kernels with the columns side by side
    let mut kernels = [0.0; 9 * PANEL * PANEL];
    let (mut line, mut square) = ([0.0; (9 + 1) * PANEL], [0.0; PANEL * PANEL]);
    for (panel, first) in (0..cols / PANEL).flat_map(|panel| (0..depth).step_by(PANEL).map(move |i| (panel, i))) {
        let start = first * strides.0 + panel * PANEL * strides.1;
        // SAFETY: the caller's contract; depth is a multiple of sixteen.
        unsafe {
            let (from, kernels) = (weight.as_ptr().add(start), kernels.as_mut_ptr());
            if strides.0 == 9 {
                for i in 0..9 {
                    transpose::<S>(from.add(i * PANEL), strides.1, kernels.add(i * PANEL * PANEL), PANEL, false);
                }
            } else {
                // one depth's kernels lie side by side; nine rows of the square are theirs
                for i in 0..PANEL {
                    std::ptr::copy_nonoverlapping(from.add(i * strides.0), line.as_mut_ptr(), 9 * PANEL);
                    transpose::<S>(line.as_ptr(), 9, square.as_mut_ptr(), PANEL, false);
                    std::ptr::copy_nonoverlapping(square.as_ptr(), kernels.add(i * 9 * PANEL), 9 * PANEL);
                }
            }
            for i in 0..PANEL {
                let to = to.add((panel * POINTS * depth + first + i) * PANEL);
                transform_weight::<S>(kernels.add(i * 9 * PANEL), to, depth * PANEL);
            }
        }
    }
}

/// G g Gᵀ of sixteen kernels, number by number; point i goes to `to + i * stride`.
#[inline(always)]
unsafe fn transform_weight<S: Simd>(kernels: *const f32, to: *mut f32, stride: usize) {
    for half in (0..PANEL).step_by(S::LANES) {
        // SAFETY: `kernels` has nine times sixteen numbers; `to` is the caller's contract.
        unsafe {
            let mut kernel = [[S::splat(0.0); 3]; 3];
            for (i, value) in kernel.as_flattened_mut().iter_mut().enumerate() {
                *value = S::load(kernels.add(i * PANEL + half));
            }
            for (i, u) in twice::<Weight, _, _, _>(&kernel).as_flattened().iter().enumerate() {
                u.store(to.add(i * stride + half));
            }
        }
    }
}

/// Tiles per block: the transformed input of a block stays in the second-level cache.
fn block_size(channels: usize) -> usize {
    (60_000 / (POINTS * channels)).clamp(12, 48)
}

/// The same for the gradients. Every block adds to all of dU, which for many channels leaves the caches: fewer blocks.
fn backward_block_size(channels: usize) -> usize {
    (channels / 2).clamp(48, 128)
}

/// Convolves `x` [n, h, w, in]; `bias` is [out] or [n, out].
pub(super) fn forward(x: &[f32], weights: &Weights, bias: &[f32], g: &Geometry) -> Vec<f32> {
    let tiling = Tiling::new(g);
    let count = tiling.count();
    // Several threads share tiles out, or output channels if there are few tiles. No result depends on how.
    let (threads, panels) = (threads::count(), g.co / PANEL);
    let enough = count.div_ceil(block_size(g.ci));
    let groups = if enough == 1 && count < 8 { threads.min(panels) } else { 1 };
    let blocks = if groups == 1 { enough.next_multiple_of(threads).min(count) } else { 1 };
    // SAFETY: the tiles and panels cover the output; each task writes its own.
    unsafe {
        written(g.n * g.ho * g.wo * g.co, |y| {
            for_each(blocks * groups, |i| {
                let tiles = part(count, blocks, i / groups);
                let mut v = Slabs::new(tiles.len(), g.ci);
                let mut m = Slabs::new(tiles.len(), 2 * PANEL);
                let margin = Scratch::zeros(6 * g.ci.max(g.co));
                let panels = part(panels, groups, i % groups);
                forward_block(&tiling, tiles, panels, x, weights, bias, &mut v, &mut m, margin, y);
            });
        })
    }
}

/// For each point a matrix [tiles, channels].
struct Slabs {
    data: Scratch,
    stride: usize,
    channels: usize,
}

impl Slabs {
    fn new(tiles: usize, channels: usize) -> Self {
        let stride = tiles * channels + GAP;
        Self { data: Scratch::lent(POINTS * stride), stride, channels }
    }

    /// Takes another shape, with no more numbers.
    #[inline(always)]
    fn shape(&mut self, tiles: usize, channels: usize) {
        (self.stride, self.channels) = (tiles * channels + GAP, channels);
    }

    /// # Safety
    /// Point, tile and channel must exist; or the tile is one past the last, of a point that no tile uses.
    #[inline(always)]
    unsafe fn at(&mut self, point: usize, tile: usize, channel: usize) -> *mut f32 {
        // SAFETY: the caller's contract.
        unsafe { self.data.as_mut_ptr().add(point * self.stride + tile * self.channels + channel) }
    }
}

dispatch!(
    /// # Safety
    /// `tiles` and `panels` of output channels exist; `v` and `m` have room for them; `margin` is zero and has room for
    /// any six pixels; nobody else writes these channels of the pixels of these tiles in `y`.
    forward_block = forward_block_simd(
        tiling: &Tiling,
        tiles: Range<usize>,
        panels: Range<usize>,
        x: &[f32],
        weights: &Weights,
        bias: &[f32],
        v: &mut Slabs,
        m: &mut Slabs,
        margin: Scratch,
        y: Target,
    )
);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn forward_block_simd<S: Simd>(
    tiling: &Tiling,
    tiles: Range<usize>,
    panels: Range<usize>,
    x: &[f32],
    weights: &Weights,
    bias: &[f32],
    v: &mut Slabs,
    m: &mut Slabs,
    mut margin: Scratch,
    y: Target,
) {
    let Geometry { ci, co, .. } = tiling.g;
    // SAFETY: the contract of `forward_block`.
    unsafe {
        transform_input(tiling, tiles.clone(), x, v, margin.as_mut_ptr());
        let mut panel = panels.start;
        while panel < panels.end {
            let columns = columns::<S>(&panels, panel);
            m.shape(tiles.len(), columns);
            for (i, &point) in tiling.points().iter().enumerate() {
                let rows = tiling.users(point, &tiles);
                let (v, u, m) = (v.at(i, rows.start, 0), weights.at(panel, point), m.at(i, rows.start, 0));
                gemm(rows.len(), columns, ci, v, ci, 1, u, PANEL, weights.panel(), m, columns, false);
            }
            let first = panel * PANEL;
            for (i, t) in tiles.clone().enumerate() {
                let window = tiling.outputs(t, y.ptr(first), margin.as_mut_ptr());
                let image = if bias.len() == co { 0 } else { window.image };
                let bias = bias.as_ptr().add(image * co + first);
                tiles::output(m.at(0, i, 0), m.stride, bias, &window, columns);
            }
            panel += columns / PANEL;
        }
    }
}

/// Columns of a product that are computed together: a panel, or two where a register holds a whole one.
#[inline(always)]
fn columns<S: Simd>(panels: &Range<usize>, first: usize) -> usize {
    (panels.end - first).min(S::LANES.div_ceil(PANEL / 2)) * PANEL
}

/// V of `tiles`. `outside` is zero, with room for six pixels.
#[inline(always)]
unsafe fn transform_input(tiling: &Tiling, tiles: Range<usize>, x: &[f32], v: &mut Slabs, outside: *mut f32) {
    let ci = tiling.g.ci;
    for (i, t) in tiles.enumerate() {
        let window = tiling.inputs(t, x.as_ptr().cast_mut(), outside);
        // SAFETY: the pixels exist, or are zeros, and the caller's slabs have room for the tile.
        unsafe { tiles::input(&window, ci, v.at(0, i, 0), v.stride) }
    }
}

/// What [`backward`] adds to.
pub(super) struct Gradients<'a> {
    /// [n, h, w, in], with the weight transformed for it.
    pub dx: Option<(&'a mut [f32], &'a Weights)>,
    /// [out, in, 3, 3].
    pub dw: Option<&'a mut [f32]>,
    /// [out] or [n, out].
    pub db: Option<&'a mut [f32]>,
}

/// Rows of a piece of dU, whose 36 points stay in the second-level cache.
const ROWS: usize = 32;
/// Numbers between two points of a piece, and in a piece.
const PIECE_STRIDE: usize = ROWS * 2 * PANEL + GAP;
const PIECE: usize = POINTS * PIECE_STRIDE;

/// Adds the gradients for `dy` [n, h, w, out].
pub(super) fn backward(x: &[f32], dy: &[f32], g: &Geometry, mut gradients: Gradients) {
    let tiling = Tiling::new(g);
    let count = tiling.count();
    let blocks = count.div_ceil(backward_block_size(g.ci.max(g.co)));
    let tiles = count.div_ceil(blocks);
    let mut d = Slabs::new(tiles, g.co);
    let mut v = Slabs::new(tiles, if gradients.dw.is_some() { g.ci } else { 0 });
    let mut dv = Slabs::new(tiles, 2 * PANEL);
    // a single block is done with one piece before it comes to the next
    let pieces = if blocks == 1 { 1 } else { g.ci.div_ceil(ROWS) * g.co.div_ceil(2 * PANEL) };
    let mut du = Scratch::new(if gradients.dw.is_some() { pieces * PIECE } else { 0 });
    for i in 0..blocks {
        let tiles = part(count, blocks, i);
        let margin = Scratch::zeros(6 * g.ci.max(g.co));
        // SAFETY: the slabs have room for these tiles and du for all pieces, which the first block writes.
        unsafe {
            let du = Pieces { data: du.as_mut_ptr(), first: i == 0, last: i + 1 == blocks };
            backward_block(&tiling, tiles, x, dy, &mut d, &mut v, &mut dv, du, margin, &mut gradients);
        }
    }
}

/// dU as [piece][point][rows][columns]: written by the first block of tiles, added to by others, done with after the last.
struct Pieces {
    data: *mut f32,
    first: bool,
    last: bool,
}

/// Gᵀ dU G of sixteen kernels, number by number; point i of those used comes from `from + i * PIECE_STRIDE`.
#[inline(always)]
unsafe fn transform_back<S: Simd>(from: *const f32, points: &[usize], kernels: *mut f32) {
    for half in (0..PANEL).step_by(S::LANES) {
        // SAFETY: `kernels` has nine times sixteen numbers; `from` is the caller's contract.
        unsafe {
            let mut u = [[S::splat(0.0); 6]; 6];
            if points.len() == POINTS {
                for (i, u) in u.as_flattened_mut().iter_mut().enumerate() {
                    *u = S::load(from.add(i * PIECE_STRIDE + half));
                }
            } else {
                for &i in points {
                    u.as_flattened_mut()[i] = S::load(from.add(i * PIECE_STRIDE + half));
                }
            }
            for (i, g) in twice::<WeightT, _, _, _>(&u).as_flattened().iter().enumerate() {
                g.store(kernels.add(i * PANEL + half));
            }
        }
    }
}

dispatch!(
    /// # Safety
    /// `tiles` exist; the slabs have room for them, `du` for its pieces;
    /// `margin` is zero and has room for any six pixels.
    backward_block = backward_block_simd(
        tiling: &Tiling,
        tiles: Range<usize>,
        x: &[f32],
        dy: &[f32],
        d: &mut Slabs,
        v: &mut Slabs,
        dv: &mut Slabs,
        du: Pieces,
        margin: Scratch,
        gradients: &mut Gradients,
    )
);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn backward_block_simd<S: Simd>(
    tiling: &Tiling,
    tiles: Range<usize>,
    x: &[f32],
    dy: &[f32],
    d: &mut Slabs,
    v: &mut Slabs,
    dv: &mut Slabs,
    du: Pieces,
    mut margin: Scratch,
    gradients: &mut Gradients,
) {
    let Geometry { ci, co, .. } = tiling.g;
    let margin = margin.as_mut_ptr();
    // SAFETY: the contract of `backward_block`.
    unsafe {
        for (i, t) in tiles.clone().enumerate() {
            let window = tiling.outputs(t, dy.as_ptr().cast_mut(), margin);
            tiles::output_gradient(&window, co, d.at(0, i, 0), d.stride);
            if let Some(db) = &mut gradients.db {
                // point (1, 1) is the sum over the tile
                let sums = tiling.points().len().isqrt() + 1;
                let first = if db.len() == co { 0 } else { window.image * co };
                for channel in (0..co).step_by(S::LANES) {
                    let sum = db.as_mut_ptr().add(first + channel);
                    S::load(sum).add(S::load(d.at(sums, i, channel))).store(sum);
                }
            }
        }
        if let Some(dw) = &mut gradients.dw {
            transform_input(tiling, tiles.clone(), x, v, margin);
            weight_gradient::<S>(tiling, &tiles, v, d, &du, dw);
        }
        let Some((dx, weights)) = &mut gradients.dx else { return };
        let panels = 0..ci / PANEL;
        let mut panel = 0;
        while panel < panels.end {
            let columns = columns::<S>(&panels, panel);
            dv.shape(tiles.len(), columns);
            for (i, &point) in tiling.points().iter().enumerate() {
                let rows = tiling.users(point, &tiles);
                let (d, u, dv) = (d.at(i, rows.start, 0), weights.at(panel, point), dv.at(i, rows.start, 0));
                gemm(rows.len(), columns, co, d, co, 1, u, PANEL, weights.panel(), dv, columns, false);
            }
            for (i, t) in tiles.clone().enumerate() {
                let window = tiling.inputs(t, dx.as_mut_ptr().add(panel * PANEL), margin);
                tiles::input_gradient(dv.at(0, i, 0), dv.stride, &window, columns);
            }
            panel += columns / PANEL;
        }
    }
}

/// dU of `tiles`, and after the last ones dW.
///
/// # Safety
/// That of `backward_block`.
#[inline(always)]
unsafe fn weight_gradient<S: Simd>(
    tiling: &Tiling,
    tiles: &Range<usize>,
    v: &mut Slabs,
    d: &mut Slabs,
    du: &Pieces,
    dw: &mut [f32],
) {
    let Geometry { ci, co, .. } = tiling.g;
    let points = tiling.points();
    let across = co.div_ceil(2 * PANEL);
    let pieces = across * ci.div_ceil(ROWS);
    // its first row and column, and how many it has
    let piece = |k: usize| {
        let (row, column) = (k / across * ROWS, k % across * 2 * PANEL);
        (row, column, ROWS.min(ci - row), (2 * PANEL).min(co - column))
    };
    let mut multiply = |k: usize, i: usize, to: *mut f32| {
        let (row, column, rows, columns) = piece(k);
        // if no tile uses a point, its product is zero
        let used = tiling.users(points[i], tiles);
        // SAFETY: the caller's contract.
        unsafe {
            let (v, d) = (v.at(i, used.start, row), d.at(i, used.start, column));
            let to = to.add(points[i] * PIECE_STRIDE);
            gemm(rows, columns, used.len(), v, 1, ci, d, co, PANEL, to, columns, !du.first);
        }
    };
    if du.first && du.last {
        for k in 0..pieces {
            (0..points.len()).for_each(|i| multiply(k, i, du.data));
            // SAFETY: the caller's contract.
            unsafe { add_piece::<S>(piece(k), du.data, points, ci, dw) }
        }
        return;
    }
    // V and D of one point stay in the second-level cache
    for i in 0..points.len() {
        // SAFETY: the caller's contract.
        (0..pieces).for_each(|k| multiply(k, i, unsafe { du.data.add(k * PIECE) }));
    }
    for k in 0..if du.last { pieces } else { 0 } {
        // SAFETY: the caller's contract.
        unsafe { add_piece::<S>(piece(k), du.data.add(k * PIECE), points, ci, dw) }
    }
}

/// Adds Gᵀ dU G of a piece to dW.
///
/// # Safety
/// The piece lies at `from`, and its kernels in `dw`.
#[inline(always)]
unsafe fn add_piece<S: Simd>(
    (row, first, rows, columns): (usize, usize, usize, usize),
    from: *const f32,
    points: &[usize],
    ci: usize,
    dw: &mut [f32],
) {
    let mut kernels = [0.0; 9 * ROWS * PANEL];
    for column in (0..columns).step_by(PANEL) {
        let kernels = kernels.as_mut_ptr();
        // SAFETY: the caller's contract.
        unsafe {
            for i in 0..rows {
                transform_back::<S>(from.add(i * columns + column), points, kernels.add(9 * i * PANEL));
            }
            // the nine numbers of all rows lie side by side in dW
            let to = dw.as_mut_ptr().add(((first + column) * ci + row) * 9);
            for i in (0..9 * rows).step_by(PANEL) {
                transpose::<S>(kernels.add(i * PANEL), PANEL, to.add(i), 9 * ci, true);
            }
        }
    }
}
