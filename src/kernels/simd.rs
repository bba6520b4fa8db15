//! Several `f32` at a time: eight with AVX2 and FMA where the processor has them, eight in plain arrays elsewhere, and
//! one, for what eight leave over.

use std::mem::MaybeUninit;

/// Numbers in one vector.
pub(super) const LANES: usize = 8;

/// [`LANES`] numbers, or one. Methods are `unsafe` because the AVX2 version may only run where AVX2 and FMA exist, and
/// because pointers must be good for so many numbers; [`dispatch!`] sees to the first.
pub(super) trait Simd: Copy {
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn add(self, y: Self) -> Self;
    unsafe fn sub(self, y: Self) -> Self;
    unsafe fn mul(self, y: Self) -> Self;
    unsafe fn div(self, y: Self) -> Self;
    unsafe fn min(self, y: Self) -> Self;
    unsafe fn max(self, y: Self) -> Self;
    /// self·y + z.
    unsafe fn mul_add(self, y: Self, z: Self) -> Self;
    /// 2ᵏ for the integer k in the lowest bits of each number.
    unsafe fn power_of_two(self) -> Self;
}

impl Simd for f32 {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller passes a pointer to a number.
        unsafe { *p }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller passes a pointer to room for a number.
        unsafe { *p = self }
    }
    #[inline(always)]
    unsafe fn add(self, y: Self) -> Self {
        self + y
    }
    #[inline(always)]
    unsafe fn sub(self, y: Self) -> Self {
        self - y
    }
    #[inline(always)]
    unsafe fn mul(self, y: Self) -> Self {
        self * y
    }
    #[inline(always)]
    unsafe fn div(self, y: Self) -> Self {
        self / y
    }
    #[inline(always)]
    unsafe fn min(self, y: Self) -> Self {
        if self < y { self } else { y }
    }
    #[inline(always)]
    unsafe fn max(self, y: Self) -> Self {
        if self > y { self } else { y }
    }
    #[inline(always)]
    unsafe fn mul_add(self, y: Self, z: Self) -> Self {
        self * y + z
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self::from_bits((self.to_bits() << 23).wrapping_add(0x3f80_0000))
    }
}

/// Eight numbers without special instructions.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, y: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], y.0[i])))
    }
}

impl Simd for Portable {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller passes a pointer to eight numbers.
        Self(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller passes a pointer to room for eight numbers.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(self.0) }
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
    unsafe fn mul_add(self, y: Self, z: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * y.0[i] + z.0[i]))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: plain arithmetic.
        Self(self.0.map(|x| unsafe { x.power_of_two() }))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// Eight numbers in an AVX register.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256);

    // SAFETY (whole impl): the trait's contract, AVX2 and FMA present and pointers good for eight numbers.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx2 {
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Self(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Self(unsafe { _mm256_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm256_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, y: Self) -> Self {
            Self(unsafe { _mm256_add_ps(self.0, y.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, y: Self) -> Self {
            Self(unsafe { _mm256_sub_ps(self.0, y.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, y: Self) -> Self {
            Self(unsafe { _mm256_mul_ps(self.0, y.0) })
        }
        #[inline(always)]
        unsafe fn div(self, y: Self) -> Self {
            Self(unsafe { _mm256_div_ps(self.0, y.0) })
        }
        #[inline(always)]
        unsafe fn min(self, y: Self) -> Self {
            Self(unsafe { _mm256_min_ps(self.0, y.0) })
        }
        #[inline(always)]
        unsafe fn max(self, y: Self) -> Self {
            Self(unsafe { _mm256_max_ps(self.0, y.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, y: Self, z: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(self.0, y.0, z.0) })
        }
        #[inline(always)]
        unsafe fn power_of_two(self) -> Self {
            Self(unsafe {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
                _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f80_0000)))
            })
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Makes [`has_avx2`] say no on this thread, so that tests reach the portable version.
    pub(super) static PORTABLE_ONLY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether AVX2 and FMA can be used.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    #[cfg(test)]
    if PORTABLE_ONLY.get() {
        return false;
    }
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// `dispatch!(name = generic(arg: Type, ..));` defines `unsafe fn name`, which runs `generic::<Avx2>` compiled for
/// AVX2 and FMA where the processor has them and `generic::<Portable>` elsewhere. `generic` must be `inline(always)`.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis $name:ident = $generic:ident($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2($($arg: $type),*) {
                    // SAFETY: the caller keeps the contract of the generic function; the features are enabled here.
                    unsafe { $generic::<$crate::kernels::simd::avx2::Avx2>($($arg),*) }
                }
                if $crate::kernels::simd::has_avx2() {
                    // SAFETY: AVX2 and FMA are present; the rest is the caller's contract.
                    return unsafe { avx2($($arg),*) };
                }
            }
            // SAFETY: the caller's contract.
            unsafe { $generic::<$crate::kernels::simd::Portable>($($arg),*) }
        }
    };
}
pub(super) use dispatch;

/// Sixteen numbers on one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Uninitialised working memory that starts on a cache line.
pub(super) struct Scratch(Vec<MaybeUninit<Line>>);

impl Scratch {
    /// Room for `len` numbers.
    pub(super) fn new(len: usize) -> Self {
        let lines = len.div_ceil(16);
        let mut memory = Vec::with_capacity(lines);
        // SAFETY: the elements are `MaybeUninit`, so any content will do, and the capacity is there.
        unsafe { memory.set_len(lines) };
        Self(memory)
    }

    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self(vec![MaybeUninit::new(Line([0.0; 16])); len.div_ceil(16)])
    }

    /// The first `len` numbers.
    ///
    /// # Safety
    /// They must be written before they are read.
    pub(super) unsafe fn slice_mut(&mut self, len: usize) -> &mut [f32] {
        assert!(len <= 16 * self.0.len(), "scratch memory too small");
        // SAFETY: the memory is there; the caller vouches for its content.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), len) }
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} lines)", self.0.len())
    }
}
