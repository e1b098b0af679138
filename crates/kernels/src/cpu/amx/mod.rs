//! Products of bf16 panels on the tile unit (AMX), which multiplies and adds sixteen times what AVX-512 does in a cycle.
//!
//! Panels, f32 values that are bf16 numbers already or nearly, are first rounded and rearranged into tiles, so that
//! every operand is sixteen cache lines in a row. Sums are f32, 2×2 tiles of them in registers. A value's terms are
//! added in an order that the layer's shape decides, whatever the threads. Norm, activation and partial sums are those
//! of the other kernels.

mod detect;
mod gather;
mod gradient;
mod pack;
mod unit;
mod words;

use crate::Layer;

pub(super) use detect::available;
pub(super) use gather::{Gather, gather};
pub(super) use gradient::gradient;
pub(super) use pack::pack;

/// Rows of a tile, and words of its rows.
const WORDS: usize = 16;

/// Words of a whole tile, or its sums.
const TILE: usize = WORDS * WORDS;

/// Values of a tile's row as an operand: two bf16 to a word.
const PAIRED: usize = 2 * WORDS;

/// Channels, on both sides, that fill a tile.
const FEWEST_CHANNELS: usize = WORDS;

/// Whether tiles gain by a layer; its shape alone decides.
pub(super) fn suits(layer: &Layer) -> bool {
    layer.inputs.min(layer.outputs) >= FEWEST_CHANNELS
}

/// The fewest equal parts of at most `most`, and their size; the last may be smaller.
fn equal_parts(total: usize, most: usize) -> (usize, usize) {
    let count = total.div_ceil(most).max(1);
    (count, total.div_ceil(count))
}
