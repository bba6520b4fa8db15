//! The tiles of Winograd's F(4x4, 3x3), with fewer outputs at the right and bottom border of some maps, and their ways
//! into the transformed domain and back.
//!
//! Each is a function of its own, small enough that the compiler keeps its addresses in registers.

use super::conv::Geometry;
use super::simd::{Simd, dispatch};
use super::transforms::{Input, InputT, Output, OutputT, Transform};
use std::marker::PhantomData;
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

/// The tiles of all images. Where a map's height or width is no multiple of four, a last row or column of tiles has
/// only `border` outputs that way and does without some points, see [`super::transforms`].
///
/// First come the bottom tiles of all images, then all full ones, then those on the right, then those in the corner: so
/// the tiles that use a point, which all do but perhaps those of the last row, or column, or both, follow one another.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub g: Geometry,
    /// The input's pixels are doubled both ways.
    doubled: bool,
    /// Rows and columns of full tiles in an image.
    rows: usize,
    cols: usize,
    /// The first full tile, the first on the right, the first in the corner, and the number of tiles.
    full: usize,
    right: usize,
    corner: usize,
    count: usize,
    /// Outputs of a smaller tile: two, or three if so many are left over in height or width. Some may not be there.
    border: usize,
}

impl Tiling {
    pub(super) fn new(g: &Geometry) -> Self {
        let (rows, cols) = (g.ho / 4, g.wo / 4);
        // rows and columns of smaller tiles
        let (bottom, right) = (usize::from(!g.ho.is_multiple_of(4)), usize::from(!g.wo.is_multiple_of(4)));
        let border = (g.ho % 4).max(g.wo % 4).max(2);
        let full = g.n * bottom * cols;
        let on_right = full + g.n * rows * cols;
        let corner = on_right + g.n * rows * right;
        let count = corner + g.n * bottom * right;
        Self { g: *g, doubled: g.ho > g.h, rows, cols, full, right: on_right, corner, count, border }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The points of the transformed domain that are used.
    pub(super) fn points(&self) -> &'static [usize] {
        if self.doubled { &DOUBLED_POINTS } else { &ALL_POINTS }
    }

    /// Those of `tiles` that use a point, counted from the first.
    #[inline(always)]
    pub(super) fn users(&self, point: usize, tiles: &Range<usize>) -> Range<usize> {
        if self.right - self.full == self.count {
            // no border
            return 0..tiles.len();
        }
        // the border's points: the first few, as many as outputs and one more, of which doubled maps have no -1; and ∞
        let few = if self.doubled { self.border } else { self.border + 1 };
        let (row, col) = (point / 6, point % 6);
        let (by_bottom, by_right) = (row < few || row == 5, col < few || col == 5);
        let first = if by_bottom { 0 } else { self.full };
        let end = match (by_bottom, by_right) {
            (true, true) => self.count,
            (false, true) => self.corner,
            (_, false) => self.right,
        };
        let [first, end] = [first, end].map(|t| t.clamp(tiles.start, tiles.end) - tiles.start);
        first..end
    }

    /// Image, row and column of a tile.
    #[inline(always)]
    fn place(&self, t: usize) -> (usize, usize, usize) {
        // the first such tile, how many there are in an image, and where they begin
        let (first, [rows, cols], [row, col]) = if t < self.full {
            (0, [1, self.cols], [self.rows, 0])
        } else if t < self.right {
            (self.full, [self.rows, self.cols], [0, 0])
        } else if t < self.corner {
            (self.right, [self.rows, 1], [0, self.cols])
        } else {
            (self.corner, [1, 1], [self.rows, self.cols])
        };
        let t = t - first;
        (t / cols / rows, t / cols % rows + row, t % cols + col)
    }

    /// The outputs of a tile in a map that starts at `map`. `outside` stands for rows that are not there, and needs room
    /// for six pixels.
    #[inline(always)]
    pub(super) fn outputs(&self, t: usize, map: *mut f32, outside: *mut f32) -> Window {
        let Geometry { ho, wo, co, .. } = self.g;
        self.window(t, (1, 0, 4), [ho, wo, co], map, outside)
    }

    /// The same for the inputs under it.
    #[inline(always)]
    pub(super) fn inputs(&self, t: usize, map: *mut f32, outside: *mut f32) -> Window {
        let Geometry { h, w, ci, .. } = self.g;
        self.window(t, if self.doubled { (2, 1, 4) } else { (1, 1, 6) }, [h, w, ci], map, outside)
    }

    /// A pixel is `times` outputs wide, there are `pad` more of them on all sides, and no more than `most` in all.
    #[inline(always)]
    fn window(
        &self,
        t: usize,
        (times, pad, most): (usize, usize, usize),
        [h, w, c]: [usize; 3],
        map: *mut f32,
        outside: *mut f32,
    ) -> Window {
        let (image, row, col) = self.place(t);
        let height = if row == self.rows { self.border } else { 4 };
        let width = if col == self.cols { self.border } else { 4 };
        let (row, col) = (4 / times * row, 4 / times * col);
        let mut rows = [outside; 6];
        // padding may lead out of the map, but not those rows and columns that are there
        let mut first = map.wrapping_add(((image * h + row) * w + col) * c).wrapping_sub((w + 1) * pad * c);
        for (i, to) in rows[..most].iter_mut().enumerate() {
            if (row + i).wrapping_sub(pad) < h {
                *to = first;
            }
            first = first.wrapping_add(w * c);
        }
        let cols = pad.saturating_sub(col)..(w + pad - col).min(width / times + 2 * pad);
        Window { rows, cols, c, outside, image, size: (self.doubled, height, width) }
    }
}

/// Pixels around a tile.
pub(super) struct Window {
    /// The first pixel of each row, which may lie outside the map if its column does. A smaller tile does without the
    /// last rows.
    rows: [*mut f32; 6],
    /// Columns that are there.
    cols: Range<usize>,
    /// Numbers between pixels.
    c: usize,
    /// The address of rows that are not there.
    outside: *mut f32,
    pub image: usize,
    /// Whether inputs are doubled, and the tile's rows and columns of outputs.
    size: (bool, usize, usize),
}

impl Window {
    /// One column; what the next tile needs of it, so many columns `ahead`, is asked for.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // adapters would be compiled without AVX2
    unsafe fn load<S: Simd, const SIZE: usize>(&self, col: usize, channel: usize, ahead: usize) -> [S; SIZE] {
        // SAFETY: the caller passes a column and channels that are there; prefetches may go anywhere.
        unsafe {
            let mut column = [S::splat(0.0); SIZE];
            for i in 0..SIZE {
                let from = self.rows[i].wrapping_add(col * self.c + channel);
                column[i] = S::load(from);
                if ahead > 0 && col >= 2 {
                    S::prefetch(from.wrapping_add(ahead * self.c));
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

/// A tile's pixels and points one way.
struct Side<const PIXELS: usize, const POINTS: usize>;

/// Tiles of the same sides with the same transform M, of inputs or of outputs. Full ones have POINTS points each way.
struct Tile<M, const INPUTS: bool, const POINTS: usize, Rows, Cols>(PhantomData<(M, Rows, Cols)>);

/// Which of the `points` of a full tile one of a tile's `used` points is: the last of both is ∞.
#[inline(always)]
fn which(i: usize, used: usize, points: usize) -> usize {
    if i + 1 == used { points - 1 } else { i }
}

/// Calls a function for the type of tile that a window belongs to. The sides are those of four, three and two outputs,
/// and of four and two if inputs are doubled.
macro_rules! call {
    ($window:ident, $function:ident::<$m:ty, $inputs:literal> $arguments:tt,
     $four:ty, $three:ty, $two:ty; $double_four:ty, $double_two:ty) => {
        match $window.size {
            (false, 4, 4) => $function::<Tile<$m, $inputs, 6, $four, $four>> $arguments,
            (false, 4, 3) => $function::<Tile<$m, $inputs, 6, $four, $three>> $arguments,
            (false, 3, 4) => $function::<Tile<$m, $inputs, 6, $three, $four>> $arguments,
            (false, 3, 3) => $function::<Tile<$m, $inputs, 6, $three, $three>> $arguments,
            (false, 4, 2) => $function::<Tile<$m, $inputs, 6, $four, $two>> $arguments,
            (false, 2, 4) => $function::<Tile<$m, $inputs, 6, $two, $four>> $arguments,
            (false, 2, 2) => $function::<Tile<$m, $inputs, 6, $two, $two>> $arguments,
            (true, 4, 4) => $function::<Tile<$m, $inputs, 5, $double_four, $double_four>> $arguments,
            (true, 4, 2) => $function::<Tile<$m, $inputs, 5, $double_four, $double_two>> $arguments,
            (true, 2, 4) => $function::<Tile<$m, $inputs, 5, $double_two, $double_four>> $arguments,
            (true, 2, 2) => $function::<Tile<$m, $inputs, 5, $double_two, $double_two>> $arguments,
            size => unreachable!("a tile of size {size:?}"),
        }
    };
}

/// V = Bᵀ d B of the pixels under a tile: used point number i of `channels` goes to `to + i * stride`.
///
/// # Safety
/// The pixels have so many channels, a multiple of sixteen, and `to` has room for them.
pub(super) unsafe fn input(window: &Window, channels: usize, to: *mut f32, stride: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        call!(window, into_points::<InputT, true>(window, channels, to, stride),
            Side<6, 6>, Side<5, 5>, Side<4, 4>; Side<4, 5>, Side<3, 3>)
    }
}

/// D = A dy Aᵀ of a tile's outputs, like [`input`].
///
/// # Safety
/// That of [`input`].
pub(super) unsafe fn output_gradient(window: &Window, channels: usize, to: *mut f32, stride: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        call!(window, into_points::<Output, false>(window, channels, to, stride),
            Side<4, 6>, Side<3, 5>, Side<2, 4>; Side<4, 5>, Side<2, 3>)
    }
}

dispatch!(
    /// M X Mᵀ of the pixels X of a type of tile.
    ///
    /// # Safety
    /// That of [`input`]; the window's sides are the type's.
    into_points<T: IntoPoints> = into_points_simd(
        window: &Window,
        channels: usize,
        to: *mut f32,
        stride: usize,
    )
);

#[inline(always)]
unsafe fn into_points_simd<S: Simd, T: IntoPoints>(window: &Window, channels: usize, to: *mut f32, stride: usize) {
    // SAFETY: the contract of `into_points`.
    unsafe { T::into_points::<S>(window, channels, to, stride) }
}

/// See [`into_points`].
trait IntoPoints {
    unsafe fn into_points<S: Simd>(window: &Window, channels: usize, to: *mut f32, stride: usize);
}

impl<M, const INPUTS: bool, const POINTS: usize, const H: usize, const W: usize, const ROWS: usize, const COLS: usize>
    IntoPoints for Tile<M, INPUTS, POINTS, Side<H, ROWS>, Side<W, COLS>>
where
    M: Transform<H, ROWS> + Transform<W, COLS>,
{
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn into_points<S: Simd>(window: &Window, channels: usize, to: *mut f32, stride: usize) {
        // the next tile is not beside one of the last column
        let ahead = if INPUTS && COLS == POINTS { W - 2 } else { 0 };
        // SAFETY: the contract of `into_points`.
        unsafe {
            for channel in (0..channels).step_by(S::LANES) {
                let mut half = [[S::splat(0.0); ROWS]; W];
                for j in 0..W {
                    if window.cols.start <= j && j < window.cols.end {
                        half[j] = <M as Transform<H, ROWS>>::apply(window.load(j, channel, ahead));
                    }
                }
                for i in 0..ROWS {
                    let mut row = [S::splat(0.0); W];
                    for j in 0..W {
                        row[j] = half[j][i];
                    }
                    let points = <M as Transform<W, COLS>>::apply(row);
                    let first = POINTS * which(i, ROWS, POINTS);
                    for j in 0..COLS {
                        points[j].store(to.add((first + which(j, COLS, POINTS)) * stride + channel));
                    }
                }
            }
        }
    }
}

/// Aᵀ m A + bias to a tile's outputs: used point number i of `channels` comes from `from + i * stride`.
///
/// # Safety
/// `from` and `bias` have so many channels, a multiple of sixteen, and so have the outputs, which nobody else uses.
pub(super) unsafe fn output(from: *const f32, stride: usize, bias: *const f32, window: &Window, channels: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        call!(window, from_points::<OutputT, false>(from, stride, window, channels, bias),
            Side<4, 6>, Side<3, 5>, Side<2, 4>; Side<4, 5>, Side<2, 3>)
    }
}

/// Adds B dV Bᵀ to the pixels under a tile, see [`output`].
///
/// # Safety
/// That of [`output`]; the pixels have values.
pub(super) unsafe fn input_gradient(from: *const f32, stride: usize, window: &Window, channels: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        call!(window, from_points::<Input, true>(from, stride, window, channels, std::ptr::null()),
            Side<6, 6>, Side<5, 5>, Side<4, 4>; Side<4, 5>, Side<3, 3>)
    }
}

dispatch!(
    /// M X Mᵀ of the points X of a type of tile, plus `bias` for outputs, or what is there for inputs.
    ///
    /// # Safety
    /// That of [`output`] or [`input_gradient`]; the window's sides are the type's.
    from_points<T: FromPoints> = from_points_simd(
        from: *const f32,
        stride: usize,
        window: &Window,
        channels: usize,
        bias: *const f32,
    )
);

#[inline(always)]
unsafe fn from_points_simd<S: Simd, T: FromPoints>(
    from: *const f32,
    stride: usize,
    window: &Window,
    channels: usize,
    bias: *const f32,
) {
    // SAFETY: the contract of `from_points`.
    unsafe { T::from_points::<S>(from, stride, window, channels, bias) }
}

/// See [`from_points`].
trait FromPoints {
    unsafe fn from_points<S: Simd>(from: *const f32, stride: usize, window: &Window, channels: usize, bias: *const f32);
}

impl<M, const INPUTS: bool, const POINTS: usize, const H: usize, const W: usize, const ROWS: usize, const COLS: usize>
    FromPoints for Tile<M, INPUTS, POINTS, Side<H, ROWS>, Side<W, COLS>>
where
    M: Transform<ROWS, H> + Transform<COLS, W>,
{
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn from_points<S: Simd>(
        from: *const f32,
        stride: usize,
        window: &Window,
        channels: usize,
        bias: *const f32,
    ) {
        // the next tile is not beside one of the last column
        let ahead = if INPUTS && COLS == POINTS { W - 2 } else { 0 };
        // SAFETY: the contract of `from_points`.
        unsafe {
            for channel in (0..channels).step_by(S::LANES) {
                let mut half = [[S::splat(0.0); W]; ROWS];
                for i in 0..ROWS {
                    let mut row = [S::splat(0.0); COLS];
                    let first = POINTS * which(i, ROWS, POINTS);
                    for j in 0..COLS {
                        row[j] = S::load(from.add((first + which(j, COLS, POINTS)) * stride + channel));
                    }
                    half[i] = <M as Transform<COLS, W>>::apply(row);
                }
                for j in 0..W {
                    if window.cols.start <= j && j < window.cols.end {
                        let mut column = [S::splat(0.0); ROWS];
                        for i in 0..ROWS {
                            column[i] = half[i][j];
                        }
                        let mut pixels = <M as Transform<ROWS, H>>::apply(column);
                        let before: [S; H] = match INPUTS {
                            false => [S::load(bias.add(channel)); H],
                            true => window.load(j, channel, ahead),
                        };
                        for i in 0..H {
                            pixels[i] = before[i].add(pixels[i]);
                        }
                        window.store(j, channel, pixels);
                    }
                }
            }
        }
    }
}
