//! f32 values rounded to bf16 and joined in pairs, a pair to a word, as the tile unit multiplies them. Values may be kept
//! in two parts, of which the second is what the first leaves over: together they have 16 significant bits.
//!
//! Vectors round to nearest, ties to even, and keep NaN. Like the tile unit they take denormal numbers for 0.

use super::WORDS;
use crate::cpu::values::{Bf16, Value};
use std::arch::x86_64::*;
use std::mem::transmute;

/// A vector of words.
pub(super) type Words = __m512i;

/// A vector of zeros.
///
/// # Safety
/// AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn zeros() -> Words {
    _mm512_setzero_si512()
}

/// Asks for the cache line at an address that will be read some microseconds later; any address may be given.
#[inline(always)]
pub(super) fn prefetch(at: *const f32) {
    // SAFETY: a prefetch of an address that is not mapped does nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
}

/// The first `count` of sixteen values, then zeros; none if `count` is 0, whatever the address.
///
/// # Safety
/// AVX-512; `count` readable values.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(from: *const f32, count: usize) -> __m512 {
    let mask = ((1u32 << count.min(WORDS)) - 1) as __mmask16;
    // SAFETY: masked values are not read; the caller guarantees the others.
    unsafe { _mm512_maskz_loadu_ps(mask, from) }
}

/// Two vectors' values one after the other, rounded; the second part is what the first leaves over, rounded.
///
/// # Safety
/// AVX-512 with bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rounded<const PARTS: usize>(first: __m512, second: __m512) -> [Words; PARTS] {
    let mut left = [first, second];
    let mut parts = [_mm512_setzero_si512(); PARTS];
    for (i, part) in parts.iter_mut().enumerate() {
        // SAFETY: both types are 64 bytes of any content.
        *part = unsafe { transmute::<__m512bh, Words>(_mm512_cvtne2ps_pbh(left[1], left[0])) };
        if i + 1 < PARTS {
            let halves = [
                _mm512_castsi512_si256(*part),
                _mm512_extracti64x4_epi64::<1>(*part),
            ];
            for (left, half) in left.iter_mut().zip(halves) {
                let taken = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half));
                *left = _mm512_sub_ps(*left, _mm512_castsi512_ps(taken));
            }
        }
    }
    parts
}

/// A stored value that becomes half of a word.
pub(super) trait Operand: Value {
    /// Neighbours of a row in pairs: the first `count` of its next 32 values, then zeros.
    ///
    /// # Safety
    /// AVX-512 with bf16; `count` readable values.
    unsafe fn neighbours<const PARTS: usize>(from: *const Self, count: usize) -> [Words; PARTS];

    /// Values of two rows one after the other: of each those sixteen that its mask has, zeros in the others' places.
    ///
    /// # Safety
    /// AVX-512 with bf16; readable values where the masks have them.
    unsafe fn rows<const PARTS: usize>(
        from: [*const Self; 2],
        masks: [__mmask16; 2],
    ) -> [Words; PARTS];
}

impl Operand for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn neighbours<const PARTS: usize>(from: *const Self, count: usize) -> [Words; PARTS] {
        // SAFETY: handed on from the caller.
        unsafe {
            let first = load(from, count);
            let second = load(from.wrapping_add(WORDS), count.saturating_sub(WORDS));
            rounded(first, second)
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn rows<const PARTS: usize>(
        from: [*const Self; 2],
        masks: [__mmask16; 2],
    ) -> [Words; PARTS] {
        // SAFETY: handed on from the caller.
        unsafe {
            rounded(
                _mm512_maskz_loadu_ps(masks[0], from[0]),
                _mm512_maskz_loadu_ps(masks[1], from[1]),
            )
        }
    }
}

impl Operand for Bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn neighbours<const PARTS: usize>(from: *const Self, count: usize) -> [Words; PARTS] {
        let mask = ((1u64 << count.min(2 * WORDS)) - 1) as __mmask32;
        // SAFETY: masked values are not read; the caller guarantees the others.
        first_part(unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn rows<const PARTS: usize>(
        from: [*const Self; 2],
        masks: [__mmask16; 2],
    ) -> [Words; PARTS] {
        // SAFETY: masked values are not read; the caller guarantees the others.
        let [first, second] = unsafe {
            [
                _mm256_maskz_loadu_epi16(masks[0], from[0].cast()),
                _mm256_maskz_loadu_epi16(masks[1], from[1].cast()),
            ]
        };
        first_part(_mm512_inserti64x4::<1>(
            _mm512_castsi256_si512(first),
            second,
        ))
    }
}

/// Words of values of 8 bits, of which a first part leaves nothing over.
#[inline]
#[target_feature(enable = "avx512f")]
fn first_part<const PARTS: usize>(words: Words) -> [Words; PARTS] {
    let mut parts = [_mm512_setzero_si512(); PARTS];
    parts[0] = words;
    parts
}

/// Two rows' values of the same column in pairs, from one row after the other.
///
/// # Safety
/// AVX-512.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn columns<const PARTS: usize>(mut parts: [Words; PARTS]) -> [Words; PARTS] {
    const INTERLEAVED: [u16; 32] = {
        let mut places = [0; 32];
        let mut i = 0;
        while i < places.len() {
            places[i] = (i / 2 + i % 2 * WORDS) as u16;
            i += 1;
        }
        places
    };
    // SAFETY: both types are 64 bytes of any content.
    let places = unsafe { transmute::<[u16; 32], Words>(INTERLEAVED) };
    for part in &mut parts {
        *part = _mm512_permutexvar_epi16(places, *part);
    }
    parts
}

/// Sixteen columns of some rows, which become pairs of rows.
#[derive(Clone, Copy)]
pub(super) struct Rows<E> {
    /// First value of the first row.
    pub first: *const E,
    /// Values between rows.
    pub stride: usize,
    /// Rows that there are; those behind them are zeros.
    pub count: usize,
    /// Columns that there are, sixteen at most; those behind them are zeros.
    pub columns: usize,
    /// How far behind these values lie those that are wanted next, and asked for.
    pub next: usize,
}

/// Rounds `PAIRS` pairs of rows at most, `pairs` of them, `[part, pair, column]`, parts so many words apart; if `TURNED`,
/// `[part, column, pair]`.
///
/// # Safety
/// AVX-512 with bf16; so many readable rows and columns; room for so many rows of sixteen words, or for sixteen if `TURNED`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn round_pairs<const PARTS: usize, const TURNED: bool, E: Operand>(
    rows: Rows<E>,
    pairs: usize,
    to: *mut f32,
    part_words: usize,
) {
    let mask = ((1u32 << rows.columns.min(WORDS)) - 1) as __mmask16;
    let mut kept = [[_mm512_setzero_si512(); WORDS]; PARTS];
    // SAFETY: masked values are not read, the caller guarantees the others and the room.
    unsafe {
        let mut from = rows.first;
        for pair in 0..pairs {
            let mut both = [from; 2];
            let mut masks = [0; 2];
            for (i, (at, row)) in both.iter_mut().zip(&mut masks).enumerate() {
                *row = if 2 * pair + i < rows.count { mask } else { 0 };
                *at = from;
                prefetch(from.wrapping_add(rows.next).cast());
                from = from.wrapping_add(rows.stride);
            }
            let parts = columns::<PARTS>(E::rows(both, masks));
            for (part, (words, kept)) in parts.into_iter().zip(&mut kept).enumerate() {
                match TURNED {
                    true => kept[pair] = words,
                    false => store(words, to.add(part * part_words + pair * WORDS)),
                }
            }
        }
        if TURNED {
            for (part, rows) in kept.into_iter().enumerate() {
                let to = to.add(part * part_words);
                for (column, words) in transposed(rows).into_iter().enumerate() {
                    store(words, to.add(column * WORDS));
                }
            }
        }
    }
}

/// Rows become columns.
///
/// # Safety
/// AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transposed(rows: [Words; WORDS]) -> [Words; WORDS] {
    let mut pairs = rows;
    for i in (0..WORDS).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Quarter q of `fours[4 · i + j]` is column 4 · q + j of rows 4 · i to 4 · i + 3.
    let mut fours = pairs;
    for i in (0..WORDS).step_by(4) {
        for j in 0..2 {
            let (first, second) = (pairs[i + j], pairs[i + 2 + j]);
            fours[i + 2 * j] = _mm512_unpacklo_epi64(first, second);
            fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(first, second);
        }
    }
    let mut columns = fours;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (even, odd) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
        );
        let (later_even, later_odd) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        );
        columns[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even, later_even);
        columns[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even, later_even);
        columns[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd, later_odd);
        columns[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd, later_odd);
    }
    columns
}

/// Writes a row of sixteen words.
///
/// # Safety
/// AVX-512; sixteen writable words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store(words: Words, to: *mut f32) {
    // SAFETY: handed on from the caller.
    unsafe { _mm512_storeu_si512(to.cast(), words) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two values of every word.
    fn values(words: Words) -> [[f32; 2]; WORDS] {
        // SAFETY: both are 64 bytes of any content.
        let words = unsafe { transmute::<Words, [[u16; 2]; WORDS]>(words) };
        words.map(|pair| pair.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }

    /// Oracle: where each value must stand, and which of two neighbours of 8 bits is nearer.
    #[test]
    fn values_are_rounded_and_joined() {
        if !super::super::available() {
            return;
        }
        let row: [f32; 96] = std::array::from_fn(|i| i as f32);
        let odd = [1.0 + 3.0 / 512.0, -1.0 - 1.0 / 1024.0, f32::NAN];
        let rows = Rows {
            first: row.as_ptr(),
            stride: 32,
            count: 3,
            columns: 5,
            next: 0,
        };
        let mut below = [[9.0f32; WORDS]; 2];
        let mut turned = [[9.0f32; WORDS]; WORDS];
        // SAFETY: the instruction set is there; so many values lie behind every pointer.
        let [joined, half, nearest] = unsafe {
            round_pairs::<1, false, f32>(rows, 2, below.as_mut_ptr().cast(), 0);
            round_pairs::<1, true, f32>(rows, 2, turned.as_mut_ptr().cast(), 0);
            [
                f32::neighbours::<1>(row.as_ptr(), 32),
                f32::neighbours::<1>(row.as_ptr(), 19),
                f32::neighbours::<1>(odd.as_ptr(), 3),
            ]
            .map(|[words]| values(words))
        };
        let word = |word: f32| {
            let bits = word.to_bits();
            [bits << 16, bits & 0xffff_0000].map(f32::from_bits)
        };
        for i in 0..WORDS {
            let x = i as f32;
            assert_eq!(joined[i], [2.0 * x, 2.0 * x + 1.0]);
            assert_eq!(half[i], joined[i].map(|v| if v < 19.0 { v } else { 0.0 }));
            let expected = match i {
                ..5 => [[x, x + 32.0], [x + 64.0, 0.0]],
                _ => [[0.0; 2]; 2],
            };
            assert_eq!(below.map(|row| word(row[i])), expected);
            assert_eq!([turned[i][0], turned[i][1]].map(word), expected);
        }
        assert_eq!(nearest[0], [1.0 + 1.0 / 128.0, -1.0]);
        assert!(nearest[1][0].is_nan());
    }

    /// Oracle: the value itself, to sixteen bits.
    #[test]
    fn two_parts_have_twice_the_bits() {
        if !super::super::available() {
            return;
        }
        let row: [f32; 32] = std::array::from_fn(|i| ((i as f32 + 0.3) * 1.7).exp2() - 5.1);
        // SAFETY: the instruction set is there; so many values lie behind the pointer.
        let parts = unsafe { f32::neighbours::<2>(row.as_ptr(), 32) }.map(values);
        for (i, value) in row.iter().enumerate() {
            let [most, rest] = [parts[0][i / 2][i % 2], parts[1][i / 2][i % 2]];
            let error = f64::from(*value) - f64::from(most) - f64::from(rest);
            assert!(error.abs() <= f64::from(value.abs()) / f64::from(1 << 17));
            assert!(rest.abs() <= most.abs() / 256.0);
        }
    }

    /// Oracle: the definition.
    #[test]
    fn rows_become_columns() {
        if !super::super::available() {
            return;
        }
        let numbers: [[u32; WORDS]; WORDS] =
            std::array::from_fn(|i| std::array::from_fn(|j| (100 * i + j) as u32));
        // SAFETY: the instruction set is there; all types are 64 bytes a row, of any content.
        let columns = unsafe {
            let rows = numbers.map(|row| transmute::<[u32; WORDS], Words>(row));
            transposed(rows).map(|row| transmute::<Words, [u32; WORDS]>(row))
        };
        for (i, row) in columns.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                assert_eq!(value, numbers[j][i]);
            }
        }
    }
}
