//! Weights as tiles, `[block][tap][step][tile][pair][column]`, a pair of the depth's values to a word.

use super::{PAIRED, TILE, WORDS, words};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::pointer::Pointer;
use crate::cpu::threads::Threads;

/// Words of one tap of one block of columns.
pub(super) fn tap_words(packing: Packing) -> usize {
    packing.depth.div_ceil(PAIRED) * step_words(packing)
}

/// Words of one step: the tiles of a block side by side.
pub(super) fn step_words(packing: Packing) -> usize {
    packing.block * WORDS
}

/// Packs weights, `[tap, input, output]`, for one direction; what lies outside the matrix is 0.
pub(in crate::cpu) fn pack(
    threads: &Threads,
    direction: Direction,
    weight: &[f32],
    packing: Packing,
    out: &mut CpuBuffer,
) {
    let (depth, columns) = (packing.depth, packing.columns);
    let tap_words = tap_words(packing);
    let items = packing.blocks() * packing.taps;
    out.reserve(items * tap_words);
    let to = Pointer::new(out);
    threads.for_each(items, packing.tap_len(), |item| {
        let (block, tap) = (item / packing.taps, item % packing.taps);
        let matrix = &weight[tap * depth * columns..][..depth * columns];
        // SAFETY: every item writes its own words, all of them inside the reserved length.
        let words = unsafe { to.slice(item * tap_words, tap_words) };
        let tiles = packing.block / WORDS;
        for (i, tile) in words.chunks_exact_mut(TILE).enumerate() {
            let (step, column) = (i / tiles, block * packing.block + i % tiles * WORDS);
            // SAFETY: AVX-512 was found with the tiles.
            unsafe { pack_tile(direction, matrix, packing, (step * PAIRED, column), tile) };
        }
    });
}

/// Packs one tile, from row `first` of the depth and column `column` on.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_tile(
    direction: Direction,
    matrix: &[f32],
    packing: Packing,
    (first, column): (usize, usize),
    tile: &mut [f32],
) {
    let (depth, columns) = (packing.depth, packing.columns);
    // SAFETY: only rows and columns inside the matrix are read; the tile has sixteen rows of sixteen words.
    unsafe {
        let rows = match direction {
            Direction::Forward => std::array::from_fn(|pair| {
                let row = |k: usize| (k < depth).then(|| matrix.as_ptr().add(k * columns));
                let rows = [0, 1].map(|i| row(first + 2 * pair + i));
                let rows = rows.map(|row| row.map(|row| row.wrapping_add(column)));
                words::columns(rows, columns.saturating_sub(column))
            }),
            Direction::Backward => words::transposed(std::array::from_fn(|j| {
                let row = matrix.as_ptr().wrapping_add((column + j) * depth);
                let count = match column + j < columns {
                    true => depth - first,
                    false => 0,
                };
                words::neighbours(row.wrapping_add(first), count)
            })),
        };
        for (row, to) in rows.into_iter().zip(tile.chunks_exact_mut(WORDS)) {
            words::store(row, to.as_mut_ptr());
        }
    }
}
