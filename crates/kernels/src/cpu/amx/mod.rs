//! Products of panels on the tile unit (AMX), which multiplies and adds bf16 values sixteen times as fast as AVX-512 does
//! f32 values.
//!
//! Under `bf16` operands are rounded. Under `f32` they are cut in two parts of bf16, which together have 16 significant
//! bits; of the four products of parts the smallest is left out. Operands are rounded and rearranged into tiles where
//! they are read, so that each is sixteen cache lines in a row. Sums are f32, 2×2 tiles of them in registers. A value's
//! terms are added in an order that the layer's shape decides, whatever the threads. Norm, activation and partial sums
//! are those of the other kernels.

mod cells;
mod detect;
mod emulated;
mod gather;
mod gradient;
mod matrix_gradient;
mod pack;
mod panel;
mod product;
mod samples;
mod state;
mod unit;
mod words;

use crate::Layer;

pub(super) use detect::available;
pub(super) use emulated::wanted as emulated;
pub(super) use gather::{Gather, gather};
pub(super) use gradient::gradient;
pub(super) use matrix_gradient::matrix_gradient;
pub(super) use pack::pack;
pub(super) use product::{Product, product};
pub(super) use state::{multiply_state, round_state, state_words};

/// Rows of a tile, and words of its rows.
const WORDS: usize = 16;

/// Words of a whole tile, or its sums.
const TILE: usize = WORDS * WORDS;

/// Values of a tile's row as an operand: two bf16 to a word.
const PAIRED: usize = 2 * WORDS;

/// Rows and columns of a square of sums: two tiles each way.
const SQUARE: usize = 2 * WORDS;

/// Channels, on both sides, that fill a tile.
const FEWEST_CHANNELS: usize = WORDS;

/// Channels, on both sides, from which on three products of two parts take less time than sums of f32.
const FEWEST_OF_PARTS: usize = 24;

/// The same of a single matrix, which is read from memory.
const FEWEST_OF_MATRIX: usize = 256;

/// Whether a layer gains by tiles; its shape alone decides.
pub(super) fn suits(layer: &Layer) -> bool {
    layer.inputs.min(layer.outputs) >= FEWEST_CHANNELS
}

/// The same of operands in two parts.
pub(super) fn suits_parts(layer: &Layer) -> bool {
    layer.inputs.min(layer.outputs) >= FEWEST_OF_PARTS && layer.wiring.taps() > 1
}

/// Whether a recurrent cell of so many units gains by tiles.
pub(super) fn suits_cell(width: usize) -> bool {
    width >= FEWEST_OF_MATRIX
}

/// The same of a single matrix.
pub(super) fn suits_parts_of_matrix(layer: &Layer) -> bool {
    layer.inputs.min(layer.outputs) >= FEWEST_OF_MATRIX && layer.wiring.taps() == 1
}

/// The fewest equal parts of at most `most`, and their size; the last may be smaller.
fn equal_parts(total: usize, most: usize) -> (usize, usize) {
    let count = total.div_ceil(most).max(1);
    (count, total.div_ceil(count))
}
