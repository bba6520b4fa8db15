//! The small matrices of Winograd's F(4x4, 3x3) with the points 0, ±1, ±2, ∞, each as straight-line code on vectors; and
//! what is left of them for maps whose pixels are doubled both ways (nearest upsampling), where a third of the products
//! is zero.
//!
//! Two or three outputs one way need fewer points, 0, ±1, ∞ (F(2, 3)) or 0, ±1, 2, ∞ (F(3, 3)). Their usual G has those
//! rows of this one times a factor each. Here these factors are in Bᵀ instead, so that there is one G: a transformed
//! weight serves tiles of every size.

use super::simd::Simd;

/// A matrix M of TO x FROM.
///
/// Closures and iterator adapters would be compiled without AVX2, apart from their caller, hence plain loops and types.
pub(super) trait Transform<const FROM: usize, const TO: usize> {
    /// M x.
    ///
    /// # Safety
    /// That of [`Simd`].
    unsafe fn apply<S: Simd>(x: [S; FROM]) -> [S; TO];
}

/// M X Mᵀ.
///
/// # Safety
/// That of [`Simd`].
#[inline(always)]
#[allow(clippy::needless_range_loop)]
pub(super) unsafe fn twice<M: Transform<FROM, TO>, S: Simd, const FROM: usize, const TO: usize>(
    x: &[[S; FROM]; FROM],
) -> [[S; TO]; TO] {
    // SAFETY: the caller's contract.
    unsafe {
        let zero = S::splat(0.0);
        // columns first, kept as rows of the transpose
        let mut half = [[zero; TO]; FROM];
        for j in 0..FROM {
            let mut column = [zero; FROM];
            for i in 0..FROM {
                column[i] = x[i][j];
            }
            half[j] = M::apply(column);
        }
        let mut y = [[zero; TO]; TO];
        for i in 0..TO {
            let mut row = [zero; FROM];
            for j in 0..FROM {
                row[j] = half[j][i];
            }
            y[i] = M::apply(row);
        }
        y
    }
}

/// Bᵀ.
pub(super) struct InputT;

impl Transform<6, 6> for InputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([d0, d1, d2, d3, d4, d5]: [S; 6]) -> [S; 6] {
        // SAFETY: the caller's contract.
        unsafe {
            let (four, minus_four, minus_five) = (S::splat(4.0), S::splat(-4.0), S::splat(-5.0));
            let even = minus_four.mul_add(d2, d4);
            let odd = minus_four.mul_add(d1, d3);
            let even2 = d4.sub(d2);
            let half_odd2 = d3.sub(d1);
            let odd2 = half_odd2.add(half_odd2);
            [
                four.mul_add(d0, minus_five.mul_add(d2, d4)),
                even.add(odd),
                even.sub(odd),
                even2.add(odd2),
                even2.sub(odd2),
                four.mul_add(d1, minus_five.mul_add(d3, d5)),
            ]
        }
    }
}

/// Bᵀ for the six numbers a b b c c d, whose third result is zero and left out.
impl Transform<4, 5> for InputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([a, b, c, d]: [S; 4]) -> [S; 5] {
        // SAFETY: the caller's contract.
        unsafe {
            let (four, minus_five) = (S::splat(4.0), S::splat(-5.0));
            let difference = c.sub(b);
            [
                four.mul_add(a, minus_five.mul_add(b, c)),
                S::splat(-8.0).mul_add(b, c.add(c)),
                S::splat(3.0).mul(difference),
                b.sub(c),
                four.mul_add(b, minus_five.mul_add(c, d)),
            ]
        }
    }
}

/// Bᵀ for three outputs.
impl Transform<5, 5> for InputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([d0, d1, d2, d3, d4]: [S; 5]) -> [S; 5] {
        // SAFETY: the caller's contract.
        unsafe {
            let (three, four) = (S::splat(3.0), S::splat(4.0));
            let odd = d3.sub(d1);
            [
                four.mul_add(d0.sub(d2), odd.add(odd)),
                three.mul(odd.sub(d1.add(d2))),
                three.mul_add(d1.sub(d2), odd),
                four.mul(odd),
                S::splat(-2.0).mul_add(odd, d4.sub(d2)),
            ]
        }
    }
}

/// Bᵀ for two outputs.
impl Transform<4, 4> for InputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([d0, d1, d2, d3]: [S; 4]) -> [S; 4] {
        // SAFETY: the caller's contract.
        unsafe {
            [S::splat(4.0).mul(d0.sub(d2)), S::splat(-3.0).mul(d1.add(d2)), S::splat(3.0).mul(d1.sub(d2)), d3.sub(d1)]
        }
    }
}

/// Bᵀ for two outputs and the four numbers a b b c, whose third result is zero and left out.
impl Transform<3, 3> for InputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([a, b, c]: [S; 3]) -> [S; 3] {
        // SAFETY: the caller's contract.
        unsafe { [S::splat(4.0).mul(a.sub(b)), S::splat(-6.0).mul(b), c.sub(b)] }
    }
}

/// B.
pub(super) struct Input;

impl Transform<6, 6> for Input {
    #[inline(always)]
    unsafe fn apply<S: Simd>([t0, t1, t2, t3, t4, t5]: [S; 6]) -> [S; 6] {
        // SAFETY: the caller's contract.
        unsafe {
            let (two, four, minus_four, minus_five) = (S::splat(2.0), S::splat(4.0), S::splat(-4.0), S::splat(-5.0));
            let (sum, difference) = (t1.add(t2), t1.sub(t2));
            let (sum2, difference2) = (t3.add(t4), t3.sub(t4));
            [
                four.mul(t0),
                four.mul_add(t5.sub(difference), S::splat(-2.0).mul(difference2)),
                minus_four.mul_add(sum, minus_five.mul(t0)).sub(sum2),
                minus_five.mul_add(t5, two.mul_add(difference2, difference)),
                t0.add(sum).add(sum2),
                t5,
            ]
        }
    }
}

/// The transpose of [`InputT`] for doubled numbers.
impl Transform<5, 4> for Input {
    #[inline(always)]
    unsafe fn apply<S: Simd>([t0, t1, t3, t4, t5]: [S; 5]) -> [S; 4] {
        // SAFETY: the caller's contract.
        unsafe {
            let (four, minus_five) = (S::splat(4.0), S::splat(-5.0));
            let q = S::splat(3.0).mul_add(t3, S::splat(-1.0).mul(t4));
            [
                four.mul(t0),
                four.mul_add(t5, minus_five.mul_add(t0, S::splat(-8.0).mul(t1))).sub(q),
                minus_five.mul_add(t5, S::splat(2.0).mul_add(t1, t0)).add(q),
                t5,
            ]
        }
    }
}

/// B for three outputs.
impl Transform<5, 5> for Input {
    #[inline(always)]
    unsafe fn apply<S: Simd>([t0, t1, t2, t3, t5]: [S; 5]) -> [S; 5] {
        // SAFETY: the caller's contract.
        unsafe {
            let (two, three, four) = (S::splat(2.0), S::splat(3.0), S::splat(4.0));
            let odd = two.mul_add(t0.sub(t5), three.mul_add(t1, four.mul_add(t3, t2)));
            [
                four.mul(t0),
                three.mul(t2.sub(t1)).sub(odd),
                S::splat(-4.0).mul_add(t0, S::splat(-3.0).mul(t1.add(t2))).sub(t5),
                odd,
                t5,
            ]
        }
    }
}

/// B for two outputs.
impl Transform<4, 4> for Input {
    #[inline(always)]
    unsafe fn apply<S: Simd>([t0, t1, t2, t5]: [S; 4]) -> [S; 4] {
        // SAFETY: the caller's contract.
        unsafe {
            [
                S::splat(4.0).mul(t0),
                S::splat(3.0).mul(t2.sub(t1)).sub(t5),
                S::splat(-4.0).mul_add(t0, S::splat(-3.0).mul(t1.add(t2))),
                t5,
            ]
        }
    }
}

/// The transpose of [`InputT`] for two outputs of doubled numbers.
impl Transform<3, 3> for Input {
    #[inline(always)]
    unsafe fn apply<S: Simd>([t0, t1, t5]: [S; 3]) -> [S; 3] {
        // SAFETY: the caller's contract.
        unsafe { [S::splat(4.0).mul(t0), S::splat(-4.0).mul_add(t0, S::splat(-6.0).mul(t1)).sub(t5), t5] }
    }
}

/// Aᵀ.
pub(super) struct OutputT;

impl Transform<6, 4> for OutputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([m0, m1, m2, m3, m4, m5]: [S; 6]) -> [S; 4] {
        // SAFETY: the caller's contract.
        unsafe {
            let (sum, difference) = (m1.add(m2), m1.sub(m2));
            let (sum2, difference2) = (m3.add(m4), m3.sub(m4));
            [
                m0.add(sum).add(sum2),
                S::splat(2.0).mul_add(difference2, difference),
                S::splat(4.0).mul_add(sum2, sum),
                S::splat(8.0).mul_add(difference2, difference).add(m5),
            ]
        }
    }
}

/// Without m2.
impl Transform<5, 4> for OutputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([m0, m1, m3, m4, m5]: [S; 5]) -> [S; 4] {
        // SAFETY: the caller's contract.
        unsafe { Self::apply([m0, m1, S::splat(0.0), m3, m4, m5]) }
    }
}

/// Aᵀ for three outputs.
impl Transform<5, 3> for OutputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([m0, m1, m2, m3, m5]: [S; 5]) -> [S; 3] {
        // SAFETY: the caller's contract.
        unsafe {
            let (sum, difference) = (m1.add(m2), m1.sub(m2));
            [m0.add(sum).add(m3), S::splat(2.0).mul_add(m3, difference), S::splat(4.0).mul_add(m3, sum).add(m5)]
        }
    }
}

/// Aᵀ for two outputs.
impl Transform<4, 2> for OutputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([m0, m1, m2, m5]: [S; 4]) -> [S; 2] {
        // SAFETY: the caller's contract.
        unsafe { [m0.add(m1.add(m2)), m1.sub(m2).add(m5)] }
    }
}

/// The same without m2.
impl Transform<3, 2> for OutputT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([m0, m1, m5]: [S; 3]) -> [S; 2] {
        // SAFETY: the caller's contract.
        unsafe { [m0.add(m1), m1.add(m5)] }
    }
}

/// A.
pub(super) struct Output;

impl Transform<4, 6> for Output {
    #[inline(always)]
    unsafe fn apply<S: Simd>([y0, y1, y2, y3]: [S; 4]) -> [S; 6] {
        // SAFETY: the caller's contract.
        unsafe {
            let (even, odd) = (y0.add(y2), y1.add(y3));
            let even2 = S::splat(4.0).mul_add(y2, y0);
            let odd2 = S::splat(2.0).mul(S::splat(4.0).mul_add(y3, y1));
            [y0, even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), y3]
        }
    }
}

/// Without the third row.
impl Transform<4, 5> for Output {
    #[inline(always)]
    unsafe fn apply<S: Simd>(y: [S; 4]) -> [S; 5] {
        // SAFETY: the caller's contract.
        let [d0, d1, _, d3, d4, d5]: [S; 6] = unsafe { Self::apply(y) };
        [d0, d1, d3, d4, d5]
    }
}

/// A for three outputs.
impl Transform<3, 5> for Output {
    #[inline(always)]
    unsafe fn apply<S: Simd>([y0, y1, y2]: [S; 3]) -> [S; 5] {
        // SAFETY: the caller's contract.
        unsafe {
            let even = y0.add(y2);
            [y0, even.add(y1), even.sub(y1), S::splat(4.0).mul_add(y2, y1.add(y1).add(y0)), y2]
        }
    }
}

/// A for two outputs.
impl Transform<2, 4> for Output {
    #[inline(always)]
    unsafe fn apply<S: Simd>([y0, y1]: [S; 2]) -> [S; 4] {
        // SAFETY: the caller's contract.
        unsafe { [y0, y0.add(y1), y0.sub(y1), y1] }
    }
}

/// The same without the third row.
impl Transform<2, 3> for Output {
    #[inline(always)]
    unsafe fn apply<S: Simd>([y0, y1]: [S; 2]) -> [S; 3] {
        // SAFETY: the caller's contract.
        unsafe { [y0, y0.add(y1), y1] }
    }
}

/// G.
pub(super) struct Weight;

impl Transform<3, 6> for Weight {
    #[inline(always)]
    unsafe fn apply<S: Simd>([g0, g1, g2]: [S; 3]) -> [S; 6] {
        // SAFETY: the caller's contract.
        unsafe {
            let sixth = S::splat(-1.0 / 6.0);
            let sum = g0.add(g2);
            let even = S::splat(1.0 / 24.0).mul_add(g0, S::splat(1.0 / 6.0).mul(g2));
            let odd = S::splat(1.0 / 12.0).mul(g1);
            [S::splat(0.25).mul(g0), sixth.mul(sum.add(g1)), sixth.mul(sum.sub(g1)), even.add(odd), even.sub(odd), g2]
        }
    }
}

/// Gᵀ.
pub(super) struct WeightT;

impl Transform<6, 3> for WeightT {
    #[inline(always)]
    unsafe fn apply<S: Simd>([u0, u1, u2, u3, u4, u5]: [S; 6]) -> [S; 3] {
        // SAFETY: the caller's contract.
        unsafe {
            let sixth = S::splat(1.0 / 6.0);
            let (sum, difference) = (u1.add(u2), u2.sub(u1));
            let (sum2, difference2) = (u3.add(u4), u3.sub(u4));
            [
                S::splat(0.25).mul_add(u0, S::splat(1.0 / 24.0).mul_add(sum2, S::splat(-1.0 / 6.0).mul(sum))),
                sixth.mul_add(difference, S::splat(1.0 / 12.0).mul(difference2)),
                sixth.mul_add(sum2.sub(sum), u5),
            ]
        }
    }
}
