//! AVX2 and AVX-512 vectors.
//!
//! SAFETY of the arithmetic below, once for all of it: the intrinsics need only their instruction set, which
//! the contract of [`Lanes`] demands of the caller.

use super::isa::Kernel;
use super::lanes::Lanes;
use super::values::Bf16;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Eight lanes, on one kind of machine.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Eight<M>(__m256, PhantomData<M>);

/// Eight lanes, AVX2 with FMA.
pub(super) type Avx2 = Eight<Alone>;

/// Eight lanes where there is AVX-512, whose vectors are pairs of these.
pub(super) type Narrow = Eight<BesideSixteen>;

/// What eight lanes are like on one kind of machine.
pub(super) trait Machine: Copy {
    type Pair: Lanes;

    /// See [`Lanes::call`].
    ///
    /// # Safety
    /// As there.
    unsafe fn call<K: Kernel>(kernel: K);
}

/// A machine with AVX2.
#[derive(Clone, Copy)]
pub(super) struct Alone;

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
pub(super) struct BesideSixteen;

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

/// Sixteen lanes, AVX-512F.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Avx512(__m512);

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstructionSet;
    use crate::cpu::lanes::{MOST_LANES, Portable};

    /// # Safety
    /// The instruction set of `V`.
    unsafe fn check_halves<V: Lanes>() {
        let half = V::LEN / 2;
        let low: [f32; MOST_LANES] = std::array::from_fn(|i| i as f32 + 1.0);
        let high = low.map(|x| 10.0 * x);
        let halves = |vector: V| {
            let mut values = [0.0; MOST_LANES];
            // SAFETY: room for the longest vector; the instruction set is the caller's promise.
            unsafe { vector.store(values.as_mut_ptr()) };
            [&values[..half], &values[half..V::LEN]].map(<[f32]>::to_vec)
        };
        let (first, second) = (low[..half].to_vec(), high[..half].to_vec());
        let sums: Vec<f32> = first.iter().map(|x| 11.0 * x).collect();
        // SAFETY: half a vector's values behind each pointer.
        unsafe {
            let two = V::load_two(low.as_ptr(), high.as_ptr());
            assert_eq!(halves(two), [first.clone(), second]);
            assert_eq!(halves(V::load_twice(low.as_ptr())), [first.clone(), first]);
            assert_eq!(
                halves(V::splat_two(3.0, 4.0)),
                [vec![3.0; half], vec![4.0; half]]
            );
            assert_eq!(halves(two.add_halves()), [sums.clone(), sums]);
        }
    }

    #[test]
    fn two_samples_share_a_vector() {
        // SAFETY: the portable lanes need nothing, the others are asked for first.
        unsafe {
            check_halves::<Portable>();
            if InstructionSet::Avx2.available() {
                check_halves::<Avx2>();
            }
            if InstructionSet::Avx512.available() {
                check_halves::<Avx512>();
            } else {
                println!("no AVX-512 here: halves of its vectors are not tested");
            }
        }
    }
}
