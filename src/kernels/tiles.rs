//! The tiles of Winograd's F(4x4, 3x3), and their ways into the transformed domain and back.
//!
//! Each is a function of its own, small enough that the compiler keeps its addresses in registers.

use super::conv::Geometry;
use super::simd::{Simd, dispatch};
use super::transforms::{Input, InputT, Output, OutputT, Transform};
use std::ops::Range;

/// The tiles of all images, row by row.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub g: Geometry,
    rows: usize,
    cols: usize,
}

impl Tiling {
    pub(super) fn new(g: &Geometry) -> Self {
        Self { g: *g, rows: g.h.div_ceil(4), cols: g.w.div_ceil(4) }
    }

    pub(super) fn count(&self) -> usize {
        self.g.n * self.rows * self.cols
    }

    /// The image of a tile.
    #[inline(always)]
    pub(super) fn image(&self, t: usize) -> usize {
        t / self.cols / self.rows
    }

    /// The SIZE x SIZE pixels that start `pad` rows above and `pad` columns left of a tile, in a map of `c` channels.
    /// `outside` stands for rows that are not there, and needs room for SIZE pixels.
    #[inline(always)]
    pub(super) fn window<const SIZE: usize>(
        &self,
        t: usize,
        pad: usize,
        c: usize,
        map: *mut f32,
        outside: *mut f32,
    ) -> Window<SIZE> {
        let Geometry { h, w, .. } = self.g;
        let (row, col) = (4 * (t / self.cols % self.rows), 4 * (t % self.cols));
        let mut rows = [outside; SIZE];
        // padding may lead out of the map, but not those rows and columns that are there
        let mut first = map.wrapping_add(((self.image(t) * h + row) * w + col) * c).wrapping_sub((w + 1) * pad * c);
        for (i, to) in rows.iter_mut().enumerate() {
            if (row + i).wrapping_sub(pad) < h {
                *to = first;
            }
            first = first.wrapping_add(w * c);
        }
        Window { rows, cols: pad.saturating_sub(col)..(w + pad - col).min(SIZE), c, outside }
    }
}

/// Pixels around a tile.
pub(super) struct Window<const SIZE: usize> {
    /// The first pixel of each row.
    rows: [*mut f32; SIZE],
    /// Columns that are there.
    cols: Range<usize>,
    /// Numbers of a pixel.
    c: usize,
    /// The address of rows that are not there.
    outside: *mut f32,
}

impl<const SIZE: usize> Window<SIZE> {
    /// One column; `ahead`, what the next tile needs of it is asked for.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // adapters would be compiled without AVX2
    unsafe fn load<S: Simd>(&self, col: usize, channel: usize, ahead: bool) -> [S; SIZE] {
        // SAFETY: the caller passes a column and channels that are there; prefetches may go anywhere.
        unsafe {
            let mut column = [S::splat(0.0); SIZE];
            for i in 0..SIZE {
                let from = self.rows[i].add(col * self.c + channel);
                column[i] = S::load(from);
                if ahead && col + 4 >= SIZE {
                    S::prefetch(from.wrapping_add(4 * self.c));
                }
            }
            column
        }
    }
}

dispatch!(
    /// Bᵀ d B of the pixels under a tile: point i of `channels` goes to `to + i * stride`.
    ///
    /// # Safety
    /// The pixels have so many channels, a multiple of sixteen, and `to` has room for them.
    pub(super) input = input_simd(window: &Window<6>, channels: usize, to: *mut f32, stride: usize)
);

#[inline(always)]
unsafe fn input_simd<S: Simd>(window: &Window<6>, channels: usize, to: *mut f32, stride: usize) {
    // SAFETY: the contract of `input`.
    unsafe { into_points::<InputT, S, 6>(window, channels, to, stride, true) }
}

dispatch!(
    /// A dy Aᵀ of a tile's outputs, like [`input`].
    ///
    /// # Safety
    /// That of [`input`].
    pub(super) output_gradient = output_gradient_simd(window: &Window<4>, channels: usize, to: *mut f32, stride: usize)
);

#[inline(always)]
unsafe fn output_gradient_simd<S: Simd>(window: &Window<4>, channels: usize, to: *mut f32, stride: usize) {
    // SAFETY: the contract of `output_gradient`.
    unsafe { into_points::<Output, S, 4>(window, channels, to, stride, false) }
}

/// M X Mᵀ of the pixels X.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn into_points<M: Transform<SIZE, 6>, S: Simd, const SIZE: usize>(
    window: &Window<SIZE>,
    channels: usize,
    to: *mut f32,
    stride: usize,
    ahead: bool,
) {
    // SAFETY: the contract of `input`.
    unsafe {
        for channel in (0..channels).step_by(S::LANES) {
            let mut half = [[S::splat(0.0); 6]; SIZE];
            for j in 0..SIZE {
                if window.cols.start <= j && j < window.cols.end {
                    half[j] = M::apply(window.load(j, channel, ahead));
                }
            }
            for i in 0..6 {
                let mut row = [S::splat(0.0); SIZE];
                for j in 0..SIZE {
                    row[j] = half[j][i];
                }
                let points = M::apply(row);
                for j in 0..6 {
                    points[j].store(to.add((6 * i + j) * stride + channel));
                }
            }
        }
    }
}

dispatch!(
    /// Aᵀ m A + bias to a tile's outputs: point i of `channels` comes from `from + i * stride`.
    ///
    /// # Safety
    /// `from` and `bias` have so many channels, a multiple of sixteen, and so have the outputs, which nobody else uses.
    pub(super) output = output_simd(
        from: *const f32,
        stride: usize,
        bias: *const f32,
        window: &Window<4>,
        channels: usize,
    )
);

#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn output_simd<S: Simd>(from: *const f32, stride: usize, bias: *const f32, window: &Window<4>, channels: usize) {
    // SAFETY: the contract of `output`.
    unsafe {
        for channel in (0..channels).step_by(S::LANES) {
            let half = half_of_points::<OutputT, S, 4>(from.add(channel), stride);
            let bias = S::load(bias.add(channel));
            for j in 0..4 {
                let mut column = [bias; 6];
                for i in 0..6 {
                    column[i] = half[i][j];
                }
                let pixels = OutputT::apply(column);
                if j < window.cols.end {
                    for i in 0..4 {
                        if window.rows[i] != window.outside {
                            pixels[i].add(bias).store(window.rows[i].add(j * window.c + channel));
                        }
                    }
                }
            }
        }
    }
}

dispatch!(
    /// Adds B dV Bᵀ to the pixels under a tile, see [`output`].
    ///
    /// # Safety
    /// That of [`output`]; the pixels have values.
    pub(super) input_gradient = input_gradient_simd(
        from: *const f32,
        stride: usize,
        window: &Window<6>,
        channels: usize,
    )
);

#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn input_gradient_simd<S: Simd>(from: *const f32, stride: usize, window: &Window<6>, channels: usize) {
    // SAFETY: the contract of `input_gradient`.
    unsafe {
        for channel in (0..channels).step_by(S::LANES) {
            let half = half_of_points::<Input, S, 6>(from.add(channel), stride);
            for j in 0..6 {
                if window.cols.start <= j && j < window.cols.end {
                    let before: [S; 6] = window.load(j, channel, true);
                    let mut column = before;
                    for i in 0..6 {
                        column[i] = half[i][j];
                    }
                    let pixels = Input::apply(column);
                    for i in 0..6 {
                        if window.rows[i] != window.outside {
                            before[i].add(pixels[i]).store(window.rows[i].add(j * window.c + channel));
                        }
                    }
                }
            }
        }
    }
}

/// X Mᵀ of the points X.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn half_of_points<M: Transform<6, SIZE>, S: Simd, const SIZE: usize>(
    from: *const f32,
    stride: usize,
) -> [[S; SIZE]; 6] {
    // SAFETY: the caller passes 36 points.
    unsafe {
        let mut half = [[S::splat(0.0); SIZE]; 6];
        for i in 0..6 {
            let mut row = [S::splat(0.0); 6];
            for j in 0..6 {
                row[j] = S::load(from.add((6 * i + j) * stride));
            }
            half[i] = M::apply(row);
        }
        half
    }
}
