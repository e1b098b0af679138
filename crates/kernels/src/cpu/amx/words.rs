//! f32 values rounded to bf16 and joined in pairs, a pair to a word, as the tile unit multiplies them.
//!
//! Vectors round to nearest, ties to even, and keep NaN. Like the tile unit they take denormal numbers for 0.

use super::WORDS;
use std::arch::x86_64::*;
use std::mem::transmute;

/// A vector of words.
pub(super) type Words = __m512i;

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

/// Two vectors' values one after the other, rounded.
///
/// # Safety
/// AVX-512 with bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rounded(first: __m512, second: __m512) -> Words {
    // SAFETY: both types are 32 bytes of any content.
    let [first, second] = [first, second]
        .map(|values| unsafe { transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)) });
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
}

/// Neighbours of a row in pairs: the first `count` of its next 32 values, then zeros.
///
/// # Safety
/// AVX-512 with bf16; `count` readable values.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn neighbours(from: *const f32, count: usize) -> Words {
    // SAFETY: handed on from the caller.
    unsafe {
        let first = load(from, count);
        let second = load(from.wrapping_add(WORDS), count.saturating_sub(WORDS));
        rounded(first, second)
    }
}

/// Two rows' values of the same column in pairs: the first `count` columns of sixteen, then zeros.
///
/// # Safety
/// AVX-512 with bf16; `count` readable values in each row that is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn columns(rows: [Option<*const f32>; 2], count: usize) -> Words {
    const INTERLEAVED: [u16; 32] = {
        let mut places = [0; 32];
        let mut i = 0;
        while i < places.len() {
            places[i] = (i / 2 + i % 2 * WORDS) as u16;
            i += 1;
        }
        places
    };
    // SAFETY: handed on from the caller; both types are 64 bytes of any content.
    unsafe {
        let [first, second] = rows.map(|row| match row {
            Some(row) => load(row, count),
            None => _mm512_setzero_ps(),
        });
        let places = transmute::<[u16; 32], Words>(INTERLEAVED);
        _mm512_permutexvar_epi16(places, rounded(first, second))
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
        let row: [f32; 64] = std::array::from_fn(|i| i as f32);
        let rows = [Some(row.as_ptr()), Some(row[32..].as_ptr())];
        let odd = [1.0 + 3.0 / 512.0, -1.0 - 1.0 / 1024.0, f32::NAN];
        // SAFETY: the instruction set is there; so many values lie behind every pointer.
        let [joined, half, below, lone, nearest] = unsafe {
            [
                neighbours(row.as_ptr(), 32),
                neighbours(row.as_ptr(), 19),
                columns(rows, 16),
                columns([rows[1], None], 3),
                neighbours(odd.as_ptr(), 3),
            ]
            .map(values)
        };
        for i in 0..WORDS {
            let x = i as f32;
            assert_eq!(joined[i], [2.0 * x, 2.0 * x + 1.0]);
            assert_eq!(half[i], joined[i].map(|v| if v < 19.0 { v } else { 0.0 }));
            assert_eq!(below[i], [x, x + 32.0]);
            assert_eq!(lone[i], [if i < 3 { x + 32.0 } else { 0.0 }, 0.0]);
        }
        assert_eq!(nearest[0], [1.0 + 1.0 / 128.0, -1.0]);
        assert!(nearest[1][0].is_nan());
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
