//! Recurrent cells: a state as tiles, times weights that were packed for all steps.

use super::pack::{step_words, tap_words};
use super::panel::{Rows, round_panel};
use super::unit::{Operand, Unit};
use super::{TILE, WORDS};
use crate::cpu::pack::Packing;
use crate::cpu::recurrent::StateTiles;

/// Words of a state of so many samples as tiles of two parts, which are most.
pub(in crate::cpu) fn state_words(batch: usize, depth: usize) -> usize {
    Rows::<2>::of(batch, depth).panel_words()
}

/// Rounds a state, `[batch, depth]`.
///
/// # Safety
/// The tiles must be available; nobody else uses the room.
pub(in crate::cpu) unsafe fn round_state(
    state: StateTiles,
    batch: usize,
    packing: Packing,
    panel: &[f32],
) {
    // SAFETY: handed on from the caller.
    unsafe {
        match state.two_parts {
            true => round::<2>(state, batch, packing, panel),
            false => round::<1>(state, batch, packing, panel),
        }
    }
}

unsafe fn round<const PARTS: usize>(
    state: StateTiles,
    batch: usize,
    packing: Packing,
    panel: &[f32],
) {
    let rows = Rows::<PARTS>::of(batch, packing.depth);
    // SAFETY: handed on from the caller.
    unsafe {
        let to = state.words.slice(0, rows.panel_words());
        round_panel(panel, rows, packing.depth, to);
    }
}

/// Fills a block of columns in `out`, whole tiles of rows, with a rounded state's products.
///
/// # Safety
/// The tiles must be available; weights packed for them, of as many parts as the state; room for whole tiles of rows.
pub(in crate::cpu) unsafe fn multiply_state(
    state: StateTiles,
    batch: usize,
    packing: Packing,
    packed: &[f32],
    block: usize,
    out: *mut f32,
) {
    // SAFETY: handed on from the caller.
    unsafe {
        match state.two_parts {
            true => multiply::<2>(state, batch, packing, packed, block, out),
            false => multiply::<1>(state, batch, packing, packed, block, out),
        }
    }
}

unsafe fn multiply<const PARTS: usize>(
    state: StateTiles,
    batch: usize,
    packing: Packing,
    packed: &[f32],
    block: usize,
    out: *mut f32,
) {
    let rows = Rows::<PARTS>::of(batch, packing.depth);
    let weight = Operand {
        first: packed[block * tap_words::<PARTS>(packing)..].as_ptr(),
        second: PARTS * TILE,
        step: step_words::<PARTS>(packing),
        part: TILE,
    };
    let wide = (packing.columns - block * packing.block).min(packing.block) > WORDS;
    // SAFETY: handed on from the caller.
    unsafe {
        let mut unit = Unit::new(rows.height, WORDS);
        for tile in (0..rows.tiles).step_by(2) {
            let source = Operand {
                first: state.words.at(tile * rows.tile_words()),
                second: rows.tile_words(),
                step: rows.step_words(),
                part: rows.part_words(),
            };
            let out = out.wrapping_add(tile * rows.height * packing.block);
            let stride = packing.block;
            unit.clear();
            match (tile + 1 < rows.tiles, wide) {
                (true, true) => {
                    unit.add_products::<2, 2, PARTS>(source, weight, rows.steps);
                    unit.store::<2, 2>(out, stride);
                }
                (true, false) => {
                    unit.add_products::<2, 1, PARTS>(source, weight, rows.steps);
                    unit.store::<2, 1>(out, stride);
                }
                (false, true) => {
                    unit.add_products::<1, 2, PARTS>(source, weight, rows.steps);
                    unit.store::<1, 2>(out, stride);
                }
                (false, false) => {
                    unit.add_products::<1, 1, PARTS>(source, weight, rows.steps);
                    unit.store::<1, 1>(out, stride);
                }
            }
        }
    }
}
