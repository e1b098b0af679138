//! Sixteen lanes: AVX-512.
//!
//! SAFETY of the arithmetic below, once for all of it: the intrinsics need only their instruction set, which
//! the contract of [`Lanes`] demands of the caller.

use super::eight::Avx2;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::values::Bf16;
use std::arch::x86_64::*;

/// Sixteen lanes, AVX-512F.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in crate::cpu) struct Avx512(__m512);

impl Avx512 {
    /// The upper half of each lane.
    ///
    /// # Safety
    /// AVX-512.
    #[inline(always)]
    unsafe fn upper_halves(self) -> __m256i {
        // SAFETY: see the module's note.
        unsafe { _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(self.0))) }
    }
}

#[inline(always)]
fn mask16(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Lanes for Avx512 {
    type Pair = Self;

    const LEN: usize = 16;
    const ROWS: usize = 13;
    const ROWS_OF_ONE: usize = 14;
    const EVEN_ROWS: usize = 8;
    const NEAR: usize = 40 << 10;
    const TWO_TERMS: bool = true;

    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: this function's features are those of the vectors; the rest is the caller's promise.
        unsafe { kernel.run::<Self>() }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a prefetch of an address that is not mapped does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: see the module's note; the caller guarantees the alignment.
        unsafe { _mm512_stream_ps(to, self.0) };
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load_two(low: *const f32, high: *const f32) -> Self {
        // SAFETY: the caller guarantees eight readable values behind both.
        Self(unsafe {
            let (low, high) = (_mm256_loadu_pd(low.cast()), _mm256_loadu_pd(high.cast()));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(low), high))
        })
    }
    #[inline(always)]
    unsafe fn load_twice(from: *const f32) -> Self {
        // SAFETY: the caller guarantees eight readable values.
        Self(unsafe { _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_loadu_pd(from.cast()))) })
    }
    #[inline(always)]
    unsafe fn splat_two(low: f32, high: f32) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_mask_broadcastss_ps(_mm512_set1_ps(low), 0xff00, _mm_set_ss(high)) })
    }
    #[inline(always)]
    unsafe fn spread_two(self, low: usize, high: usize) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe {
            let low = _mm512_set1_epi32(low as i32);
            let lanes = _mm512_mask_set1_epi32(low, 0xff00, high as i32);
            _mm512_permutexvar_ps(lanes, self.0)
        })
    }
    #[inline(always)]
    unsafe fn add_halves(self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_add_ps(self.0, _mm512_shuffle_f32x4::<0x4e>(self.0, self.0)) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller guarantees sixteen readable values.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: the caller guarantees sixteen readable values of 16 bits.
        Self(unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut Bf16) {
        // SAFETY: the caller guarantees room for sixteen values of 16 bits.
        unsafe { _mm256_storeu_si256(to.cast(), self.upper_halves()) };
    }
    #[inline(always)]
    unsafe fn stream_two_bf16(first: Self, second: Self, to: *mut Bf16) {
        // SAFETY: the caller guarantees room for 32 values of 16 bits, and the alignment.
        unsafe {
            let low = _mm512_castsi256_si512(first.upper_halves());
            let line = _mm512_inserti64x4::<1>(low, second.upper_halves());
            _mm512_stream_si512(to.cast(), line);
        }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: masked lanes are not read; the caller guarantees the first `count`.
        Self(unsafe { _mm512_maskz_loadu_ps(mask16(count), from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller guarantees sixteen writable values.
        unsafe { _mm512_storeu_ps(to, self.0) };
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        // SAFETY: masked lanes are not written; the caller guarantees the first `count`.
        unsafe { _mm512_mask_storeu_ps(to, mask16(count), self.0) };
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // MAXPS returns its second operand where either is NaN: NaN must come second to survive.
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
    }
    #[inline(always)]
    unsafe fn keep_where_positive(self, value: Self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(positive, value.0)
        })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    unsafe fn select_below(self, bound: Self, less: Self, otherwise: Self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0);
            _mm512_mask_blend_ps(below, otherwise.0, less.0)
        })
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), self.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see the module's note.
        Self(unsafe { _mm512_roundscale_ps::<0>(self.0) })
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: the caller guarantees sixteen rows of sixteen values on both sides, and AVX-512 machines have AVX2.
        unsafe {
            for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
                let from = from.add(i * from_row + j);
                Avx2::transpose(from, from_row, to.add(j * to_row + i), to_row);
            }
        }
    }
}
