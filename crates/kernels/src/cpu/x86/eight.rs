//! Eight lanes: AVX2, alone or where there is AVX-512.
//!
//! SAFETY of the arithmetic below, once for all of it: the intrinsics need only their instruction set, which
//! the contract of [`Lanes`] demands of the caller.

use super::sixteen::Avx512;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::values::Bf16;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Eight lanes, on one kind of machine.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in crate::cpu) struct Eight<M>(__m256, PhantomData<M>);

/// Eight lanes, AVX2 with FMA.
pub(in crate::cpu) type Avx2 = Eight<Alone>;

/// Eight lanes where there is AVX-512, whose vectors are pairs of these.
pub(in crate::cpu) type Narrow = Eight<BesideSixteen>;

/// What eight lanes are like on one kind of machine.
pub(in crate::cpu) trait Machine: Copy {
    type Pair: Lanes;

    /// See [`Lanes::call`].
    ///
    /// # Safety
    /// As there.
    unsafe fn call<K: Kernel>(kernel: K);
}

/// A machine with AVX2.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Alone;

impl Machine for Alone {
    type Pair = Avx2;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: this function's features are those of the vectors; the rest is the caller's promise.
        unsafe { kernel.run::<Avx2>() }
    }
}

/// A machine with AVX-512.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct BesideSixteen;

impl Machine for BesideSixteen {
    type Pair = Avx512;

    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: this function's features are those of the vectors; the rest is the caller's promise.
        unsafe { kernel.run::<Narrow>() }
    }
}

impl<M> Eight<M> {
    #[inline(always)]
    fn of(lanes: __m256) -> Self {
        Self(lanes, PhantomData)
    }
}

/// All-ones for the first `count` of eight lanes.
#[inline(always)]
unsafe fn mask8(count: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: `count ≤ 8`, so eight values from `8 − count` on lie inside the table of sixteen.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - count).cast()) }
}

impl<M: Machine> Lanes for Eight<M> {
    type Pair = M::Pair;

    const LEN: usize = 8;
    const ROWS: usize = 6;
    const ROWS_OF_ONE: usize = 12;
    const ROWS_OF_TERMS: usize = 10;
    const TERMS: usize = 4;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: handed on from the caller.
        unsafe { M::call(kernel) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: see the module's note; the caller guarantees the alignment.
        unsafe { _mm256_stream_ps(to, self.0) };
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a prefetch of an address that is not mapped does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller guarantees eight readable values.
        Self::of(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: the caller guarantees eight readable values of 16 bits.
        Self::of(unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut Bf16) {
        // SAFETY: the caller guarantees room for eight values of 16 bits.
        unsafe {
            let halves = _mm256_srli_epi32::<16>(_mm256_castps_si256(self.0));
            let packed = _mm256_packus_epi32(halves, halves);
            let joined = _mm256_permute4x64_epi64::<0b1000>(packed);
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(joined));
        }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: masked lanes are not read; the caller guarantees the first `count`.
        Self::of(unsafe { _mm256_maskload_ps(from, mask8(count)) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller guarantees eight writable values.
        unsafe { _mm256_storeu_ps(to, self.0) };
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        // SAFETY: masked lanes are not written; the caller guarantees the first `count`.
        unsafe { _mm256_maskstore_ps(to, mask8(count), self.0) };
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // MAXPS returns its second operand where either is NaN: NaN must come second to survive.
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_max_ps(_mm256_setzero_ps(), self.0) })
    }
    #[inline(always)]
    unsafe fn keep_where_positive(self, value: Self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe {
            _mm256_and_ps(
                _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps()),
                value.0,
            )
        })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    unsafe fn select_below(self, bound: Self, less: Self, otherwise: Self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe {
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0);
            _mm256_blendv_ps(otherwise.0, less.0, below)
        })
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe {
            let n = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
        })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see the module's note.
        Self::of(unsafe {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: the caller guarantees eight rows of eight values on both sides.
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm256_loadu_ps(from.add(i * from_row));
            }
            // Pairs of rows interleaved, then fours, then halves exchanged. No closures: they would not be compiled with the
            // instruction set.
            let mut fours = [[_mm256_setzero_ps(); 4]; 2];
            for (four, rows) in fours.iter_mut().zip(rows.chunks_exact(4)) {
                let low = _mm256_unpacklo_ps(rows[0], rows[1]);
                let high = _mm256_unpackhi_ps(rows[0], rows[1]);
                let next_low = _mm256_unpacklo_ps(rows[2], rows[3]);
                let next_high = _mm256_unpackhi_ps(rows[2], rows[3]);
                *four = [
                    _mm256_shuffle_ps::<0x44>(low, next_low),
                    _mm256_shuffle_ps::<0xee>(low, next_low),
                    _mm256_shuffle_ps::<0x44>(high, next_high),
                    _mm256_shuffle_ps::<0xee>(high, next_high),
                ];
            }
            let [upper, lower] = fours;
            for (j, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
                let low = _mm256_permute2f128_ps::<0x20>(upper, lower);
                let high = _mm256_permute2f128_ps::<0x31>(upper, lower);
                _mm256_storeu_ps(to.add(j * to_row), low);
                _mm256_storeu_ps(to.add((j + 4) * to_row), high);
            }
        }
    }
}
