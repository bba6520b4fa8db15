//! Several `f32` at a time: sixteen with AVX-512, eight with AVX2 and FMA or with NEON, eight in plain arrays elsewhere,
//! and one, for what these leave over.
//!
//! AVX-512, AVX2 and NEON give the same bytes: the same operations for each number, multiplication and addition fused.

use std::cell::RefCell;
use std::mem::MaybeUninit;

/// [`Simd::LANES`] numbers. Methods are `unsafe` because most versions may only run on some processors, and because
/// pointers must be good for so many numbers; [`dispatch!`] sees to the first.
pub(super) trait Simd: Copy {
    /// Numbers in one vector: 1, 8 or 16.
    const LANES: usize;
    /// One number at a time, for what is left over, with the same results.
    type One: Simd;
    /// Most rows of a matrix product's register tile, whose sums take two vectors each.
    const TILE_ROWS: usize = 6;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// Asks for the cache line of `p`, which may be anywhere; on x86 only.
    #[inline(always)]
    fn prefetch(p: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }
    unsafe fn add(self, y: Self) -> Self;
    unsafe fn sub(self, y: Self) -> Self;
    unsafe fn mul(self, y: Self) -> Self;
    unsafe fn div(self, y: Self) -> Self;
    unsafe fn min(self, y: Self) -> Self;
    unsafe fn max(self, y: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    /// self·y + z.
    unsafe fn mul_add(self, y: Self, z: Self) -> Self;
    /// 2ᵏ for the integer k in the lowest bits of each number.
    unsafe fn power_of_two(self) -> Self;
    /// Numbers of `self` and `y` in turn, in two vectors.
    unsafe fn interleave(self, y: Self) -> (Self, Self);
}

/// Adds the 16x16 numbers at `from` to those at `to`, or writes them there, rows and columns exchanged.
///
/// # Safety
/// Sixteen numbers in each of sixteen rows, `from_row` and `to_row` apart, must be valid, and apart from each other; at
/// `to` they have values if `add`.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd>(from: *const f32, from_row: usize, to: *mut f32, to_row: usize, add: bool) {
    // SAFETY: the caller's contract.
    unsafe {
        match S::LANES {
            16 => transpose_square::<S, 16>(from, from_row, to, to_row, add),
            _ => {
                for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
                    let (from, to) = (from.add(i * from_row + j), to.add(j * to_row + i));
                    transpose_square::<S, 8>(from, from_row, to, to_row, add);
                }
            }
        }
    }
}

/// [`transpose`] of as many numbers each way as a vector has.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // adapters would be compiled without AVX2
unsafe fn transpose_square<S: Simd, const N: usize>(
    from: *const f32,
    from_row: usize,
    to: *mut f32,
    to_row: usize,
    add: bool,
) {
    // SAFETY: the contract of `transpose`.
    unsafe {
        let mut x = [S::splat(0.0); N];
        for i in 0..N {
            x[i] = S::load(from.add(i * from_row));
        }
        // each round turns the bits of a number's place, row and column, by one
        let mut rounds = N;
        while rounds > 1 {
            let mut y = x;
            for i in 0..N / 2 {
                (y[2 * i], y[2 * i + 1]) = x[i].interleave(x[i + N / 2]);
            }
            x = y;
            rounds /= 2;
        }
        for i in 0..N {
            let to = to.add(i * to_row);
            let line = if add { S::load(to).add(x[i]) } else { x[i] };
            line.store(to);
        }
    }
}

/// `N` numbers without special instructions; `FUSED` rounds a multiplication and addition once.
#[derive(Clone, Copy)]
pub(super) struct Plain<const N: usize, const FUSED: bool>([f32; N]);

/// What is left over beside vectors that fuse multiplication and addition.
pub(super) type Fused = Plain<1, true>;
/// For processors that none of the others are for.
pub(super) type Portable = Plain<8, false>;

impl<const N: usize, const FUSED: bool> Plain<N, FUSED> {
    #[inline(always)]
    fn zip(self, y: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], y.0[i])))
    }
}

impl<const N: usize, const FUSED: bool> Simd for Plain<N, FUSED> {
    type One = Plain<1, FUSED>;
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; N])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller passes a pointer to so many numbers.
        Self(unsafe { p.cast::<[f32; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller passes a pointer to room for so many numbers.
        unsafe { p.cast::<[f32; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, y: Self) -> Self {
        self.zip(y, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, y: Self) -> Self {
        self.zip(y, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, y: Self) -> Self {
        self.zip(y, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, y: Self) -> Self {
        self.zip(y, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn min(self, y: Self) -> Self {
        self.zip(y, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, y: Self) -> Self {
        self.zip(y, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    unsafe fn mul_add(self, y: Self, z: Self) -> Self {
        let sum = |i: usize| {
            let (x, y, z) = (self.0[i], y.0[i], z.0[i]);
            if FUSED { x.mul_add(y, z) } else { x * y + z }
        };
        Self(std::array::from_fn(sum))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(self.0.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(0x3f80_0000))))
    }
    #[inline(always)]
    unsafe fn interleave(self, y: Self) -> (Self, Self) {
        let at = |i: usize| if i.is_multiple_of(2) { self.0[i / 2] } else { y.0[i / 2] };
        (Self(std::array::from_fn(at)), Self(std::array::from_fn(|i| at(N + i))))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// Defines a vector type on x86 intrinsics, all of whose names end alike.
    macro_rules! vector {
        ($(#[$meta:meta])* $name:ident($register:ty), $lanes:literal, $rows:literal, $splat:ident, $load:ident, $store:ident,
         $add:ident, $sub:ident, $mul:ident, $div:ident, $min:ident, $max:ident, $sqrt:ident, $fma:ident,
         |$x:ident| $power_of_two:expr, |$a:ident, $b:ident| $interleave:expr) => {
            $(#[$meta])*
            #[derive(Clone, Copy)]
            pub(in super::super) struct $name($register);

            // SAFETY (whole impl): the trait's contract, the instructions present and pointers good for all lanes.
            #[allow(clippy::undocumented_unsafe_blocks)]
            impl Simd for $name {
                type One = super::Fused;
                const LANES: usize = $lanes;
                const TILE_ROWS: usize = $rows;
                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    Self(unsafe { $splat(x) })
                }
                #[inline(always)]
                unsafe fn load(p: *const f32) -> Self {
                    Self(unsafe { $load(p) })
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut f32) {
                    unsafe { $store(p, self.0) }
                }
                #[inline(always)]
                unsafe fn add(self, y: Self) -> Self {
                    Self(unsafe { $add(self.0, y.0) })
                }
                #[inline(always)]
                unsafe fn sub(self, y: Self) -> Self {
                    Self(unsafe { $sub(self.0, y.0) })
                }
                #[inline(always)]
                unsafe fn mul(self, y: Self) -> Self {
                    Self(unsafe { $mul(self.0, y.0) })
                }
                #[inline(always)]
                unsafe fn div(self, y: Self) -> Self {
                    Self(unsafe { $div(self.0, y.0) })
                }
                #[inline(always)]
                unsafe fn min(self, y: Self) -> Self {
                    Self(unsafe { $min(self.0, y.0) })
                }
                #[inline(always)]
                unsafe fn max(self, y: Self) -> Self {
                    Self(unsafe { $max(self.0, y.0) })
                }
                #[inline(always)]
                unsafe fn sqrt(self) -> Self {
                    Self(unsafe { $sqrt(self.0) })
                }
                #[inline(always)]
                unsafe fn mul_add(self, y: Self, z: Self) -> Self {
                    Self(unsafe { $fma(self.0, y.0, z.0) })
                }
                #[inline(always)]
                unsafe fn power_of_two(self) -> Self {
                    let $x = self.0;
                    Self(unsafe { $power_of_two })
                }
                #[inline(always)]
                unsafe fn interleave(self, y: Self) -> (Self, Self) {
                    let ($a, $b) = (self.0, y.0);
                    let (low, high) = unsafe { $interleave };
                    (Self(low), Self(high))
                }
            }
        };
    }

    vector!(
        /// Eight numbers in an AVX register.
        Avx2(__m256), 8, 6, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
        _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_div_ps, _mm256_min_ps, _mm256_max_ps, _mm256_sqrt_ps,
        _mm256_fmadd_ps,
        |x| {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(x));
            _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f80_0000)))
        },
        |a, b| {
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        }
    );

    vector!(
        /// Sixteen numbers in an AVX-512 register. There are 32 of them: 28 sums leave room for the factors.
        Avx512(__m512), 16, 14, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
        _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_div_ps, _mm512_min_ps, _mm512_max_ps, _mm512_sqrt_ps,
        _mm512_fmadd_ps,
        |x| {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(x));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f80_0000)))
        },
        |a, b| {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b))
        }
    );
}

#[cfg(target_arch = "aarch64")]
pub(super) mod arm {
    use super::{Fused, Simd};
    use std::arch::aarch64::*;

    /// Eight numbers in two NEON registers. There are 32 of them: 24 sums leave room for the factors.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Neon(float32x4_t, float32x4_t);

    impl Neon {
        #[inline(always)]
        fn zip(self, y: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
            Self(f(self.0, y.0), f(self.1, y.1))
        }
    }

    // SAFETY (whole impl): every aarch64 processor has NEON; pointers are good for all lanes by the trait's contract.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Neon {
        type One = Fused;
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            let x = unsafe { vdupq_n_f32(x) };
            Self(x, x)
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Self(unsafe { vld1q_f32(p) }, unsafe { vld1q_f32(p.add(4)) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe {
                vst1q_f32(p, self.0);
                vst1q_f32(p.add(4), self.1);
            }
        }
        #[inline(always)]
        unsafe fn add(self, y: Self) -> Self {
            self.zip(y, |a, b| unsafe { vaddq_f32(a, b) })
        }
        #[inline(always)]
        unsafe fn sub(self, y: Self) -> Self {
            self.zip(y, |a, b| unsafe { vsubq_f32(a, b) })
        }
        #[inline(always)]
        unsafe fn mul(self, y: Self) -> Self {
            self.zip(y, |a, b| unsafe { vmulq_f32(a, b) })
        }
        #[inline(always)]
        unsafe fn div(self, y: Self) -> Self {
            self.zip(y, |a, b| unsafe { vdivq_f32(a, b) })
        }
        /// Not `vminq`, which treats NaN in another way than the rest.
        #[inline(always)]
        unsafe fn min(self, y: Self) -> Self {
            self.zip(y, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
        }
        #[inline(always)]
        unsafe fn max(self, y: Self) -> Self {
            self.zip(y, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
        }
        #[inline(always)]
        unsafe fn sqrt(self) -> Self {
            Self(unsafe { vsqrtq_f32(self.0) }, unsafe { vsqrtq_f32(self.1) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, y: Self, z: Self) -> Self {
            Self(unsafe { vfmaq_f32(z.0, self.0, y.0) }, unsafe { vfmaq_f32(z.1, self.1, y.1) })
        }
        #[inline(always)]
        unsafe fn power_of_two(self) -> Self {
            let one = |x| unsafe {
                let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(x));
                vreinterpretq_f32_s32(vaddq_s32(exponent, vdupq_n_s32(0x3f80_0000)))
            };
            Self(one(self.0), one(self.1))
        }
        #[inline(always)]
        unsafe fn interleave(self, y: Self) -> (Self, Self) {
            unsafe {
                let low = Self(vzip1q_f32(self.0, y.0), vzip2q_f32(self.0, y.0));
                (low, Self(vzip1q_f32(self.1, y.1), vzip2q_f32(self.1, y.1)))
            }
        }
    }
}

/// What the processor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing special.
    Portable,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F, AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

#[cfg(test)]
thread_local! {
    /// The most that [`level`] may say on this thread, so that tests reach every version.
    pub(super) static LIMIT: std::cell::Cell<Option<Level>> = const { std::cell::Cell::new(None) };
}

/// The best version that can run here.
#[inline]
pub(super) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    let best = if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        Level::Portable
    } else if is_x86_feature_detected!("avx512f") {
        Level::Avx512
    } else {
        Level::Avx2
    };
    #[cfg(target_arch = "aarch64")]
    let best = Level::Neon;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let best = Level::Portable;
    #[cfg(test)]
    if let Some(limit) = LIMIT.get() {
        return best.min(limit);
    }
    best
}

/// `dispatch!(name = generic(arg: Type, ..));` defines `unsafe fn name`, which runs `generic::<V>` with the best vectors
/// V that the processor has, compiled for it. `generic` must be `inline(always)`. A type parameter of `name` comes
/// after V: `dispatch!(name<B: Bound> = generic(..));`.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis $name:ident $(<$param:ident: $bound:path>)? =
     $generic:ident($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name $(<$param: $bound>)? ($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2 $(<$param: $bound>)? ($($arg: $type),*) {
                // SAFETY: the caller keeps the contract of the generic function; the features are enabled here.
                unsafe { $generic::<$crate::kernels::simd::x86::Avx2 $(, $param)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            unsafe fn avx512 $(<$param: $bound>)? ($($arg: $type),*) {
                // SAFETY: as above.
                unsafe { $generic::<$crate::kernels::simd::x86::Avx512 $(, $param)?>($($arg),*) }
            }
            // SAFETY: the level says that the instructions are there; the rest is the caller's contract.
            unsafe {
                match $crate::kernels::simd::level() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Level::Avx512 => avx512 $(::<$param>)? ($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Level::Avx2 => avx2 $(::<$param>)? ($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::kernels::simd::Level::Neon => {
                        $generic::<$crate::kernels::simd::arm::Neon $(, $param)?>($($arg),*)
                    }
                    $crate::kernels::simd::Level::Portable => {
                        $generic::<$crate::kernels::simd::Portable $(, $param)?>($($arg),*)
                    }
                }
            }
        }
    };
}
pub(super) use dispatch;

/// Sixteen numbers on one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Uninitialised working memory that starts on a cache line.
pub(super) struct Scratch {
    lines: Vec<MaybeUninit<Line>>,
    /// Goes back to [`SPARE`].
    lent: bool,
}

/// Most cache lines of memory that is lent: half a second-level cache of 1 MiB.
const MOST_LENT: usize = 8192;

thread_local! {
    /// What was lent and came back: as many pieces as were lent at once, which only grow.
    static SPARE: RefCell<Vec<Vec<MaybeUninit<Line>>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    /// Room for `len` numbers.
    pub(super) fn new(len: usize) -> Self {
        Self { lines: with_len(Vec::new(), len.div_ceil(16)), lent: false }
    }

    /// [`Scratch::new`] for a short time. If it is not large, it is memory that this thread used lately, so that it is
    /// still in its cache.
    pub(super) fn lent(len: usize) -> Self {
        let len = len.div_ceil(16);
        if len > MOST_LENT {
            return Self { lines: with_len(Vec::new(), len), lent: false };
        }
        let spare = SPARE.with_borrow_mut(|spare| {
            let fits = (0..spare.len()).filter(|&i| spare[i].capacity() >= len);
            match fits.min_by_key(|&i| spare[i].capacity()) {
                Some(best) => spare.swap_remove(best),
                None => {
                    spare.pop();
                    Vec::new()
                }
            }
        });
        Self { lines: with_len(spare, len), lent: true }
    }

    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self { lines: vec![MaybeUninit::new(Line([0.0; 16])); len.div_ceil(16)], lent: false }
    }

    /// The first `len` numbers.
    ///
    /// # Safety
    /// They must be written before they are read.
    pub(super) unsafe fn slice_mut(&mut self, len: usize) -> &mut [f32] {
        assert!(len <= 16 * self.lines.len(), "scratch memory too small");
        // SAFETY: the memory is there; the caller vouches for its content.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), len) }
    }

    /// The first `len` numbers.
    ///
    /// # Safety
    /// They must have been written.
    pub(super) unsafe fn slice(&self, len: usize) -> &[f32] {
        assert!(len <= 16 * self.lines.len(), "scratch memory too small");
        // SAFETY: the memory is there; the caller vouches for its content.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), len) }
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.lines.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.lent {
            // a thread that ends takes nothing back
            SPARE.try_with(|spare| spare.borrow_mut().push(std::mem::take(&mut self.lines))).unwrap_or_default();
        }
    }
}

/// `memory` with `len` lines of any content.
fn with_len(mut memory: Vec<MaybeUninit<Line>>, len: usize) -> Vec<MaybeUninit<Line>> {
    memory.clear();
    memory.reserve_exact(len);
    // SAFETY: the elements are `MaybeUninit`, so any content will do, and the capacity is there.
    unsafe { memory.set_len(len) };
    memory
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} lines)", self.lines.len())
    }
}
