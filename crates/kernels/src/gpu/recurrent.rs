//! One step of a recurrent cell, forward and back through time.

use super::activation::{activate, slope};
use super::launch::{group, item};
use super::tile::{Direction, SIDE, Tile, WALK_WORDS, accumulate, place_of, read_walk, zeros};
use crate::Activation;
use cubecl::prelude::*;

/// Words of a step: groups, walk, z of the step, the state that it makes.
pub(super) const STEP_WORDS: usize = 1 + WALK_WORDS + 2;

/// `z_t += scale · h_{t−1} W_h`, on top of the drive `x_t W_i + b` that stands there, and `h_t = σ(z_t)`.
#[cube(launch_unchecked)]
pub(super) fn recur_step(
    heap: &mut Array<f32>,
    links: &Array<u32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] tile: Tile,
    #[comptime] activation: Activation,
) {
    let at = item(first_word, STEP_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let walk = read_walk(table, at + 1);
    let z = table[at + comptime!(1 + WALK_WORDS)] as usize;
    let state = table[at + comptime!(2 + WALK_WORDS)] as usize;
    let place = place_of(group(), &walk, tile);
    let mut sums = zeros(tile);
    accumulate(
        heap,
        links,
        &mut sums,
        &walk,
        &place,
        tile,
        Direction::Forward,
    );
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for i in 0..tile.rows {
        let r = place.first_row + row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = place.first_column + column + j * SIDE;
            if r < walk.batch && c < walk.columns {
                let at = r * walk.columns + c;
                let value = heap[z + at] + walk.scale * sums[i * tile.columns + j];
                heap[z + at] = value;
                heap[state + at] = activate(value, activation);
            }
        }
    }
}

/// Words of a feedback step: groups, walk, then the panels of signal, carried, z, delta, local z and local delta.
pub(super) const FEEDBACK_STEP_WORDS: usize = 1 + WALK_WORDS + 6;

/// `carried_t = scale · W_hᵀ δ_{t+1}`, `δ_t = σ′(z_t) ⊙ (signal_t + carried_t)` and, with `local`, the same of
/// `carried_t` alone with a second network's slopes. The last state has no later one, the first no slope.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn feedback_step(
    heap: &mut Array<f32>,
    links: &Array<u32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] tile: Tile,
    #[comptime] activation: Activation,
    #[comptime] last: bool,
    #[comptime] first: bool,
    #[comptime] local: bool,
) {
    let at = item(first_word, FEEDBACK_STEP_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let walk = read_walk(table, at + 1);
    let signal = table[at + comptime!(1 + WALK_WORDS)] as usize;
    let carried = table[at + comptime!(2 + WALK_WORDS)] as usize;
    let path_z = table[at + comptime!(3 + WALK_WORDS)] as usize;
    let delta = table[at + comptime!(4 + WALK_WORDS)] as usize;
    let local_z = table[at + comptime!(5 + WALK_WORDS)] as usize;
    let local_delta = table[at + comptime!(6 + WALK_WORDS)] as usize;
    let place = place_of(group(), &walk, tile);
    let mut sums = zeros(tile);
    if comptime!(!last) {
        accumulate(
            heap,
            links,
            &mut sums,
            &walk,
            &place,
            tile,
            Direction::Backward,
        );
    }
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for i in 0..tile.rows {
        let r = place.first_row + row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = place.first_column + column + j * SIDE;
            if r < walk.batch && c < walk.columns {
                let at = r * walk.columns + c;
                let arrived = walk.scale * sums[i * tile.columns + j];
                heap[carried + at] = arrived;
                if comptime!(!first) {
                    let z = heap[path_z + at];
                    let own = heap[signal + at];
                    heap[delta + at] = slope(z, activation) * (own + arrived);
                    if comptime!(local) {
                        let z = heap[local_z + at];
                        heap[local_delta + at] = slope(z, activation) * arrived;
                    }
                }
            }
        }
    }
}
