//! The tiles of Winograd's F(4x4, 3x3), and their ways into the transformed domain and back.
//!
//! Each is a function of its own, small enough that the compiler keeps its addresses in registers.

use super::conv::Geometry;
use super::simd::{Simd, dispatch};
use super::transforms::{Input, InputT, Output, OutputT, Transform};
use std::ops::Range;

/// Row by row, the points of the transformed domain: all, and those where a doubled map is not zero.
const ALL_POINTS: [usize; 36] = {
    let mut points = [0; 36];
    let mut i = 0;
    while i < 36 {
        points[i] = i;
        i += 1;
    }
    points
};
const DOUBLED_POINTS: [usize; 25] =
    [0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 18, 19, 21, 22, 23, 24, 25, 27, 28, 29, 30, 31, 33, 34, 35];

/// The tiles of 4x4 outputs of all images, row by row.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub g: Geometry,
    /// The input's pixels are doubled both ways.
    doubled: bool,
    rows: usize,
    cols: usize,
}

impl Tiling {
    pub(super) fn new(g: &Geometry) -> Self {
        Self { g: *g, doubled: g.ho > g.h, rows: g.ho.div_ceil(4), cols: g.wo.div_ceil(4) }
    }

    pub(super) fn count(&self) -> usize {
        self.g.n * self.rows * self.cols
    }

    /// The points of the transformed domain that are used.
    pub(super) fn points(&self) -> &'static [usize] {
        if self.doubled { &DOUBLED_POINTS } else { &ALL_POINTS }
    }

    /// The image of a tile.
    #[inline(always)]
    pub(super) fn image(&self, t: usize) -> usize {
        t / self.cols / self.rows
    }

    /// The outputs of a tile in a map that starts at `map`. `outside` stands for rows that are not there, and needs room
    /// for six pixels.
    #[inline(always)]
    pub(super) fn outputs(&self, t: usize, map: *mut f32, outside: *mut f32) -> Window {
        let Geometry { ho, wo, co, .. } = self.g;
        self.window(t, (4, 0, 4), [ho, wo, co], map, outside)
    }

    /// The same for the inputs under it.
    #[inline(always)]
    pub(super) fn inputs(&self, t: usize, map: *mut f32, outside: *mut f32) -> Window {
        let Geometry { h, w, ci, .. } = self.g;
        self.window(t, if self.doubled { (2, 1, 4) } else { (4, 1, 6) }, [h, w, ci], map, outside)
    }

    /// Tiles lie `step` pixels apart, and the window begins `pad` rows above and columns left of them.
    #[inline(always)]
    fn window(
        &self,
        t: usize,
        (step, pad, size): (usize, usize, usize),
        [h, w, c]: [usize; 3],
        map: *mut f32,
        outside: *mut f32,
    ) -> Window {
        let (row, col) = (step * (t / self.cols % self.rows), step * (t % self.cols));
        let mut rows = [outside; 6];
        // padding may lead out of the map, but not those rows and columns that are there
        let mut first = map.wrapping_add(((self.image(t) * h + row) * w + col) * c).wrapping_sub((w + 1) * pad * c);
        for (i, to) in rows[..size].iter_mut().enumerate() {
            if (row + i).wrapping_sub(pad) < h {
                *to = first;
            }
            first = first.wrapping_add(w * c);
        }
        let cols = pad.saturating_sub(col)..(w + pad - col).min(size);
        Window { rows, cols, c, outside, doubled: self.doubled }
    }
}

/// Pixels around a tile.
pub(super) struct Window {
    /// The first pixel of each row, which may lie outside the map if its column does.
    rows: [*mut f32; 6],
    /// Columns that are there.
    cols: Range<usize>,
    /// Numbers between pixels.
    c: usize,
    /// The address of rows that are not there.
    outside: *mut f32,
    doubled: bool,
}

impl Window {
    /// One column; `ahead`, what the next tile needs of it is asked for.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // adapters would be compiled without AVX2
    unsafe fn load<S: Simd, const SIZE: usize>(&self, col: usize, channel: usize, ahead: bool) -> [S; SIZE] {
        // SAFETY: the caller passes a column and channels that are there; prefetches may go anywhere.
        unsafe {
            let mut column = [S::splat(0.0); SIZE];
            for i in 0..SIZE {
                let from = self.rows[i].wrapping_add(col * self.c + channel);
                column[i] = S::load(from);
                if ahead && col >= 2 {
                    S::prefetch(from.wrapping_add((SIZE - 2) * self.c));
                }
            }
            column
        }
    }

    /// Writes one column, where its rows are there.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn store<S: Simd, const SIZE: usize>(&self, col: usize, channel: usize, column: [S; SIZE]) {
        for i in 0..SIZE {
            if self.rows[i] != self.outside {
                // SAFETY: the caller passes a column and channels that are there.
                unsafe { column[i].store(self.rows[i].wrapping_add(col * self.c + channel)) }
            }
        }
    }
}

dispatch!(
    /// V = Bᵀ d B of the pixels under a tile: used point number i of `channels` goes to `to + i * stride`.
    ///
    /// # Safety
    /// The pixels have so many channels, a multiple of sixteen, and `to` has room for them.
    pub(super) input = input_simd(window: &Window, channels: usize, to: *mut f32, stride: usize)
);

#[inline(always)]
unsafe fn input_simd<S: Simd>(window: &Window, channels: usize, to: *mut f32, stride: usize) {
    // SAFETY: the contract of `input`.
    unsafe {
        match window.doubled {
            false => into_points::<InputT, S, 6, 6>(window, channels, to, stride, true),
            true => into_points::<InputT, S, 4, 5>(window, channels, to, stride, true),
        }
    }
}

dispatch!(
    /// D = A dy Aᵀ of a tile's outputs, like [`input`].
    ///
    /// # Safety
    /// That of [`input`].
    pub(super) output_gradient = output_gradient_simd(window: &Window, channels: usize, to: *mut f32, stride: usize)
);

#[inline(always)]
unsafe fn output_gradient_simd<S: Simd>(window: &Window, channels: usize, to: *mut f32, stride: usize) {
    // SAFETY: the contract of `output_gradient`.
    unsafe {
        match window.doubled {
            false => into_points::<Output, S, 4, 6>(window, channels, to, stride, false),
            true => into_points::<Output, S, 4, 5>(window, channels, to, stride, false),
        }
    }
}

/// M X Mᵀ of the pixels X.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn into_points<M: Transform<SIZE, SIDE>, S: Simd, const SIZE: usize, const SIDE: usize>(
    window: &Window,
    channels: usize,
    to: *mut f32,
    stride: usize,
    ahead: bool,
) {
    // SAFETY: the contract of `input`.
    unsafe {
        for channel in (0..channels).step_by(S::LANES) {
            let mut half = [[S::splat(0.0); SIDE]; SIZE];
            for j in 0..SIZE {
                if window.cols.start <= j && j < window.cols.end {
                    half[j] = M::apply(window.load(j, channel, ahead));
                }
            }
            for i in 0..SIDE {
                let mut row = [S::splat(0.0); SIZE];
                for j in 0..SIZE {
                    row[j] = half[j][i];
                }
                let points = M::apply(row);
                for j in 0..SIDE {
                    points[j].store(to.add((SIDE * i + j) * stride + channel));
                }
            }
        }
    }
}

dispatch!(
    /// Aᵀ m A + bias to a tile's outputs: used point number i of `channels` comes from `from + i * stride`.
    ///
    /// # Safety
    /// `from` and `bias` have so many channels, a multiple of sixteen, and so have the outputs, which nobody else uses.
    pub(super) output = output_simd(
        from: *const f32,
        stride: usize,
        bias: *const f32,
        window: &Window,
        channels: usize,
    )
);

#[inline(always)]
unsafe fn output_simd<S: Simd>(from: *const f32, stride: usize, bias: *const f32, window: &Window, channels: usize) {
    // SAFETY: the contract of `output`.
    unsafe {
        match window.doubled {
            false => from_points::<OutputT, S, 6, 4>(from, stride, window, channels, &Bias(bias)),
            true => from_points::<OutputT, S, 5, 4>(from, stride, window, channels, &Bias(bias)),
        }
    }
}

dispatch!(
    /// [`output`] of a tile that is not doubled, to which the same pixels of another map are added.
    ///
    /// # Safety
    /// That of [`output`]; the pixels of the other map are there.
    pub(super) output_plus = output_plus_simd(
        from: *const f32,
        stride: usize,
        bias_and_addend: (*const f32, &Window),
        window: &Window,
        channels: usize,
    )
);

#[inline(always)]
unsafe fn output_plus_simd<S: Simd>(
    from: *const f32,
    stride: usize,
    (bias, addend): (*const f32, &Window),
    window: &Window,
    channels: usize,
) {
    // SAFETY: the contract of `output_plus`.
    unsafe { from_points::<OutputT, S, 6, 4>(from, stride, window, channels, &BiasAnd(bias, addend)) }
}

dispatch!(
    /// Adds B dV Bᵀ to the pixels under a tile, see [`output`].
    ///
    /// # Safety
    /// That of [`output`]; the pixels have values.
    pub(super) input_gradient = input_gradient_simd(
        from: *const f32,
        stride: usize,
        window: &Window,
        channels: usize,
    )
);

#[inline(always)]
unsafe fn input_gradient_simd<S: Simd>(from: *const f32, stride: usize, window: &Window, channels: usize) {
    // SAFETY: the contract of `input_gradient`.
    unsafe {
        match window.doubled {
            false => from_points::<Input, S, 6, 6>(from, stride, window, channels, window),
            true => from_points::<Input, S, 5, 4>(from, stride, window, channels, window),
        }
    }
}

/// What is added to pixels before they are written.
trait Before {
    /// That of one column.
    ///
    /// # Safety
    /// Column and channels must be there.
    unsafe fn column<S: Simd, const SIZE: usize>(&self, col: usize, channel: usize) -> [S; SIZE];
}

/// A number per channel.
struct Bias(*const f32);

impl Before for Bias {
    #[inline(always)]
    unsafe fn column<S: Simd, const SIZE: usize>(&self, _: usize, channel: usize) -> [S; SIZE] {
        // SAFETY: the caller's contract.
        unsafe { [S::load(self.0.add(channel)); SIZE] }
    }
}

/// The pixels of a map.
impl Before for Window {
    #[inline(always)]
    unsafe fn column<S: Simd, const SIZE: usize>(&self, col: usize, channel: usize) -> [S; SIZE] {
        // SAFETY: the caller's contract.
        unsafe { self.load(col, channel, true) }
    }
}

/// Both.
struct BiasAnd<'a>(*const f32, &'a Window);

impl Before for BiasAnd<'_> {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn column<S: Simd, const SIZE: usize>(&self, col: usize, channel: usize) -> [S; SIZE] {
        // SAFETY: the caller's contract.
        unsafe {
            let bias = S::load(self.0.add(channel));
            let mut pixels: [S; SIZE] = self.1.load(col, channel, false);
            for i in 0..SIZE {
                pixels[i] = pixels[i].add(bias);
            }
            pixels
        }
    }
}

/// M X Mᵀ of the points X, plus what is there before.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn from_points<M: Transform<SIDE, SIZE>, S: Simd, const SIDE: usize, const SIZE: usize>(
    from: *const f32,
    stride: usize,
    window: &Window,
    channels: usize,
    before: &impl Before,
) {
    // SAFETY: the contract of `output`.
    unsafe {
        for channel in (0..channels).step_by(S::LANES) {
            let mut half = [[S::splat(0.0); SIZE]; SIDE];
            for i in 0..SIDE {
                let mut row = [S::splat(0.0); SIDE];
                for j in 0..SIDE {
                    row[j] = S::load(from.add((SIDE * i + j) * stride + channel));
                }
                half[i] = M::apply(row);
            }
            for j in 0..SIZE {
                if window.cols.start <= j && j < window.cols.end {
                    let mut column = [S::splat(0.0); SIDE];
                    for i in 0..SIDE {
                        column[i] = half[i][j];
                    }
                    let mut pixels = M::apply(column);
                    let before: [S; SIZE] = before.column(j, channel);
                    for i in 0..SIZE {
                        pixels[i] = before[i].add(pixels[i]);
                    }
                    window.store(j, channel, pixels);
                }
            }
        }
    }
}
