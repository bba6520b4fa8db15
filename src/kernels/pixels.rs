//! Loops over pixels with one coefficient per channel, the inner part of group normalisation; and the exponential.
//!
//! Maps are [pixels, c], coefficients and sums [c].

use super::simd::{Simd, dispatch};
use std::ops::Range;

/// Pixels in a run: their numbers stay in the first-level cache.
pub(super) const RUN: usize = 32;

/// What to do with some neighbouring channels of a pixel.
trait Body {
    /// Up to two sums over pixels, [c] each, that [`Body::run`] adds to; null for none.
    fn sums(&self) -> [*mut f32; 2] {
        [std::ptr::null_mut(); 2]
    }

    /// `at` is the place of the numbers in maps, `wide` that in a map of more channels, `channel` that in coefficients;
    /// `sums` are those of these channels.
    ///
    /// # Safety
    /// That of [`Simd`], and the places must exist for a whole `V`.
    unsafe fn run<V: Simd>(&self, at: usize, wide: usize, channel: usize, sums: &mut [V; 2]);
}

dispatch!(
    /// Runs `body` for all of `len` numbers in pixels of `c` channels, in a wide map of `width`.
    ///
    /// # Safety
    /// Maps of `len` numbers and coefficients of `c` must be valid for `body`, and a wide map for as many pixels.
    for_all<B: Body> = for_all_simd(body: &B, len: usize, c: usize, width: usize)
);

/// Run by run, and in each run channel by channel, so that sums stay in registers.
#[inline(always)]
unsafe fn for_all_simd<S: Simd, B: Body>(body: &B, len: usize, c: usize, width: usize) {
    for first in (0..len).step_by(RUN * c) {
        let pixels = first / c..len.min(first + RUN * c) / c;
        let mut channel = 0;
        while channel + S::LANES <= c {
            // SAFETY: these channels exist.
            unsafe { column::<S, B>(body, &pixels, c, width, channel) };
            channel += S::LANES;
        }
        while channel < c {
            // SAFETY: this channel exists.
            unsafe { column::<S::One, B>(body, &pixels, c, width, channel) };
            channel += 1;
        }
    }
}

/// The same channels of these pixels.
#[inline(always)]
unsafe fn column<V: Simd, B: Body>(body: &B, pixels: &Range<usize>, c: usize, width: usize, channel: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [V::splat(0.0); 2];
        for (sum, from) in sums.iter_mut().zip(body.sums()) {
            if !from.is_null() {
                *sum = V::load(from.add(channel));
            }
        }
        let (mut at, mut wide) = (pixels.start * c + channel, pixels.start * width + channel);
        for _ in pixels.start..pixels.end {
            body.run(at, wide, channel, &mut sums);
            at += c;
            wide += width;
        }
        for (sum, to) in sums.into_iter().zip(body.sums()) {
            if !to.is_null() {
                sum.store(to.add(channel));
            }
        }
    }
}

/// Checks that maps and coefficients fit each other.
fn check(maps: &[usize], coefficients: &[usize]) {
    let (len, c) = (maps[0], coefficients[0]);
    assert!(c > 0 && len.is_multiple_of(c) && maps.iter().all(|&l| l == len) && coefficients.iter().all(|&l| l == c));
}

/// sums += x.
pub(super) fn sum(x: &[f32], sums: &mut [f32]) {
    check(&[x.len()], &[sums.len()]);
    // SAFETY: checked.
    unsafe { for_all(&Sum { x: x.as_ptr(), sums: sums.as_mut_ptr() }, x.len(), sums.len(), 0) }
}

struct Sum {
    x: *const f32,
    sums: *mut f32,
}

impl Body for Sum {
    #[inline(always)]
    fn sums(&self) -> [*mut f32; 2] {
        [self.sums, std::ptr::null_mut()]
    }

    #[inline(always)]
    unsafe fn run<V: Simd>(&self, at: usize, _: usize, _: usize, sums: &mut [V; 2]) {
        // SAFETY: the caller's contract.
        unsafe {
            sums[0] = sums[0].add(V::load(self.x.add(at)));
        }
    }
}

/// sums += (x − mean)².
pub(super) fn sum_squares(x: &[f32], mean: &[f32], sums: &mut [f32]) {
    check(&[x.len()], &[mean.len(), sums.len()]);
    let body = SumSquares { x: x.as_ptr(), mean: mean.as_ptr(), sums: sums.as_mut_ptr() };
    // SAFETY: checked.
    unsafe { for_all(&body, x.len(), sums.len(), 0) }
}

struct SumSquares {
    x: *const f32,
    mean: *const f32,
    sums: *mut f32,
}

impl Body for SumSquares {
    #[inline(always)]
    fn sums(&self) -> [*mut f32; 2] {
        [self.sums, std::ptr::null_mut()]
    }

    #[inline(always)]
    unsafe fn run<V: Simd>(&self, at: usize, _: usize, channel: usize, sums: &mut [V; 2]) {
        // SAFETY: the caller's contract.
        unsafe {
            let centred = V::load(self.x.add(at)).sub(V::load(self.mean.add(channel)));
            sums[0] = centred.mul_add(centred, sums[0]);
        }
    }
}

/// y = scale·x + shift, then y·sigmoid(y) with `silu`. The pixels of `y` have `width` channels, of which these are the first.
///
/// # Safety
/// `y` must have room for them.
pub(super) unsafe fn normalise(x: &[f32], scale: &[f32], shift: &[f32], silu: bool, y: *mut f32, width: usize) {
    check(&[x.len()], &[scale.len(), shift.len()]);
    let body = Normalise { x: x.as_ptr(), scale: scale.as_ptr(), shift: shift.as_ptr(), silu, y };
    // SAFETY: checked, and the caller's contract.
    unsafe { for_all(&body, x.len(), scale.len(), width) }
}

struct Normalise {
    x: *const f32,
    scale: *const f32,
    shift: *const f32,
    silu: bool,
    y: *mut f32,
}

impl Body for Normalise {
    #[inline(always)]
    unsafe fn run<V: Simd>(&self, at: usize, wide: usize, channel: usize, _: &mut [V; 2]) {
        // SAFETY: the caller's contract.
        unsafe {
            let x = V::load(self.x.add(at));
            let mut z = x.mul_add(V::load(self.scale.add(channel)), V::load(self.shift.add(channel)));
            if self.silu {
                z = z.div(exp(V::splat(0.0).sub(z)).add(V::splat(1.0)));
            }
            z.store(self.y.add(wide));
        }
    }
}

/// The first half of the gradient of [`normalise`]: dz = dy·(SiLU)′(scale·x + shift), or dy without `silu`; then
/// sum_dz += dz and sum_dzx += dz·(x − mean).
pub(super) struct SumProducts<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub mean: &'a [f32],
    pub silu: bool,
}

impl SumProducts<'_> {
    /// The pixels of `dy` have so many channels, of which these are the first.
    ///
    /// # Safety
    /// `dz` must have room for as many numbers as `x`.
    pub(super) unsafe fn run(
        &self,
        x: &[f32],
        (dy, width): (&[f32], usize),
        dz: *mut f32,
        sum_dz: &mut [f32],
        sum_dzx: &mut [f32],
    ) {
        let Self { scale, shift, mean, silu } = self;
        let (c, pixels) = (mean.len(), x.len() / mean.len());
        assert!(pixels == 0 || c <= width && dy.len() >= (pixels - 1) * width + c, "a gradient outside its map");
        check(&[x.len()], &[scale.len(), shift.len(), mean.len(), sum_dz.len(), sum_dzx.len()]);
        let body = SumProductsBody {
            x: x.as_ptr(),
            dy: dy.as_ptr(),
            scale: scale.as_ptr(),
            shift: shift.as_ptr(),
            mean: mean.as_ptr(),
            silu: *silu,
            dz,
            sum_dz: sum_dz.as_mut_ptr(),
            sum_dzx: sum_dzx.as_mut_ptr(),
        };
        // SAFETY: checked, and the caller's contract.
        unsafe { for_all(&body, x.len(), mean.len(), width) }
    }
}

struct SumProductsBody {
    x: *const f32,
    dy: *const f32,
    scale: *const f32,
    shift: *const f32,
    mean: *const f32,
    silu: bool,
    dz: *mut f32,
    sum_dz: *mut f32,
    sum_dzx: *mut f32,
}

impl Body for SumProductsBody {
    #[inline(always)]
    fn sums(&self) -> [*mut f32; 2] {
        [self.sum_dz, self.sum_dzx]
    }

    #[inline(always)]
    unsafe fn run<V: Simd>(&self, at: usize, wide: usize, channel: usize, sums: &mut [V; 2]) {
        // SAFETY: the caller's contract.
        unsafe {
            let (x, mut dz, one) = (V::load(self.x.add(at)), V::load(self.dy.add(wide)), V::splat(1.0));
            if self.silu {
                let z = x.mul_add(V::load(self.scale.add(channel)), V::load(self.shift.add(channel)));
                let s = one.div(exp(V::splat(0.0).sub(z)).add(one));
                // s (1 + z (1 − s))
                dz = dz.mul(s).mul(z.mul_add(one.sub(s), one));
            }
            dz.store(self.dz.add(at));
            let centred = x.sub(V::load(self.mean.add(channel)));
            sums[0] = sums[0].add(dz);
            sums[1] = dz.mul_add(centred, sums[1]);
        }
    }
}

/// The second half: dx, which holds dz, becomes scale·dz + slope·(x − mean) + offset, plus what is `known` from elsewhere.
pub(super) fn finish_gradient(
    x: &[f32],
    mean: &[f32],
    [scale, slope, offset]: [&[f32]; 3],
    known: Option<&[f32]>,
    dx: &mut [f32],
) {
    check(
        &[x.len(), dx.len(), known.map_or(x.len(), <[f32]>::len)],
        &[mean.len(), scale.len(), slope.len(), offset.len()],
    );
    let body = FinishGradient {
        x: x.as_ptr(),
        mean: mean.as_ptr(),
        scale: scale.as_ptr(),
        slope: slope.as_ptr(),
        offset: offset.as_ptr(),
        known: known.map(<[f32]>::as_ptr),
        dx: dx.as_mut_ptr(),
    };
    // SAFETY: checked.
    unsafe { for_all(&body, x.len(), mean.len(), 0) }
}

struct FinishGradient {
    x: *const f32,
    mean: *const f32,
    scale: *const f32,
    slope: *const f32,
    offset: *const f32,
    known: Option<*const f32>,
    dx: *mut f32,
}

impl Body for FinishGradient {
    #[inline(always)]
    unsafe fn run<V: Simd>(&self, at: usize, _: usize, channel: usize, _: &mut [V; 2]) {
        // SAFETY: the caller's contract.
        unsafe {
            let centred = V::load(self.x.add(at)).sub(V::load(self.mean.add(channel)));
            let mut rest = centred.mul_add(V::load(self.slope.add(channel)), V::load(self.offset.add(channel)));
            if let Some(known) = self.known {
                rest = rest.add(V::load(known.add(at)));
            }
            let dx = self.dx.add(at);
            V::load(dx).mul_add(V::load(self.scale.add(channel)), rest).store(dx);
        }
    }
}

/// eˣ to about 2 units in the last place; x is limited to ±87, and no number counts as -87.
///
/// # Safety
/// That of [`Simd`].
#[inline(always)]
pub(super) unsafe fn exp<V: Simd>(x: V) -> V {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer in the lowest bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // eʳ on |r| ≤ ln 2 / 2 is 1 + r + r²·(polynomial), a minimax one (Cephes)
    const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // SAFETY: the caller's contract.
    unsafe {
        let x = x.max(V::splat(-87.0)).min(V::splat(87.0));
        let shifted = x.mul_add(V::splat(std::f32::consts::LOG2_E), V::splat(ROUND));
        let k = shifted.sub(V::splat(ROUND));
        let r = k.mul_add(V::splat(-LN2_LOW), k.mul_add(V::splat(-LN2_HIGH), x));
        let mut p = V::splat(POLYNOMIAL[0]);
        for coefficient in &POLYNOMIAL[1..] {
            p = p.mul_add(r, V::splat(*coefficient));
        }
        let e = p.mul_add(r.mul(r), r).add(V::splat(1.0));
        e.mul(shifted.power_of_two())
    }
}
