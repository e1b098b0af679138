//! Weights as tiles, `[block][tap][step][tile][part][pair][column]`, a pair of the depth's values to a word.

use super::words::{self, Operand, Rows};
use super::{PAIRED, TILE, WORDS};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::pointer::Pointer;
use crate::cpu::threads::Threads;

/// Words of one tap of one block of columns.
pub(super) fn tap_words<const PARTS: usize>(packing: Packing) -> usize {
    packing.depth.div_ceil(PAIRED) * step_words::<PARTS>(packing)
}

/// Words of one step: the tiles of a block side by side.
pub(super) fn step_words<const PARTS: usize>(packing: Packing) -> usize {
    packing.block * WORDS * PARTS
}

/// Packs weights, `[tap, input, output]`, for one direction; what lies outside the matrix is 0.
pub(in crate::cpu) fn pack<const PARTS: usize>(
    threads: &Threads,
    direction: Direction,
    weight: &[f32],
    packing: Packing,
    out: &mut CpuBuffer,
) {
    let (depth, columns) = (packing.depth, packing.columns);
    let tap_words = tap_words::<PARTS>(packing);
    let items = packing.blocks() * packing.taps;
    out.reserve(items * tap_words);
    let to = Pointer::new(out);
    threads.for_each(items, packing.tap_len(), |_, item| {
        let (block, tap) = (item / packing.taps, item % packing.taps);
        let matrix = &weight[tap * depth * columns..][..depth * columns];
        // SAFETY: every item writes its own words, all of them inside the reserved length.
        let words = unsafe { to.slice(item * tap_words, tap_words) };
        let tiles = packing.block / WORDS;
        for (i, tile) in words.chunks_exact_mut(PARTS * TILE).enumerate() {
            let (step, column) = (i / tiles, block * packing.block + i % tiles * WORDS);
            // SAFETY: AVX-512 was found with the tiles.
            unsafe {
                pack_tile::<PARTS>(direction, matrix, packing, (step * PAIRED, column), tile);
            }
        }
    });
}

/// Packs all parts of one tile, from row `first` of the depth and column `column` on.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_tile<const PARTS: usize>(
    direction: Direction,
    matrix: &[f32],
    packing: Packing,
    (first, column): (usize, usize),
    tile: &mut [f32],
) {
    let (depth, columns) = (packing.depth, packing.columns);
    // SAFETY: only rows and columns inside the matrix are read; a part has sixteen rows of sixteen words.
    unsafe {
        match direction {
            Direction::Forward => {
                let rows = Rows {
                    first: matrix.as_ptr().wrapping_add(first * columns + column),
                    stride: columns,
                    count: depth - first,
                    columns: columns.saturating_sub(column),
                    next: 0,
                };
                words::round_pairs::<PARTS, false, f32>(rows, WORDS, tile.as_mut_ptr(), TILE);
            }
            Direction::Backward => {
                let mut rows = [words::zeros(); WORDS];
                let mut rest = rows;
                for (j, (row, rest)) in rows.iter_mut().zip(&mut rest).enumerate() {
                    if column + j < columns {
                        let from = matrix.as_ptr().wrapping_add((column + j) * depth + first);
                        let parts = f32::neighbours::<PARTS>(from, depth - first);
                        (*row, *rest) = (parts[0], parts[PARTS - 1]);
                    }
                }
                for (part, tile) in [rows, rest].into_iter().zip(tile.chunks_exact_mut(TILE)) {
                    let rows = words::transposed(part);
                    for (row, to) in rows.into_iter().zip(tile.chunks_exact_mut(WORDS)) {
                        words::store(row, to.as_mut_ptr());
                    }
                }
            }
        }
    }
}
