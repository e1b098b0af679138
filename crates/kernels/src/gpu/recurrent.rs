//! One step of a recurrent cell, forward and back through time.

use super::activation::{activate, slope};
use super::tile::{Direction, SIDE, Sizes, Tile, accumulate, zeros};
use crate::Activation;
use cubecl::prelude::*;

/// `z_t += scale · h_{t−1} W_h`, on top of the drive `x_t W_i + b` that stands there, and `h_t = σ(z_t)`.
/// The product reads the panel of `states` before the one that is written.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn recur_step(
    hidden: &Array<f32>,
    links: &Array<u32>,
    states: &mut Array<f32>,
    z: &mut Array<f32>,
    sizes: &Sizes,
    step: usize,
    scale: f32,
    #[comptime] tile: Tile,
    #[comptime] activation: Activation,
) {
    let first_row = CUBE_POS_X as usize * comptime!(SIDE * tile.rows);
    let first_column = CUBE_POS_Y as usize * comptime!(SIDE * tile.columns);
    let mut sums = zeros(tile);
    accumulate(
        hidden,
        states,
        links,
        &mut sums,
        sizes,
        0,
        first_row,
        first_column,
        tile,
        Direction::Forward,
    );
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for i in 0..tile.rows {
        let r = first_row + row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = first_column + column + j * SIDE;
            if r < sizes.batch && c < sizes.columns {
                let at = (step * sizes.batch + r) * sizes.columns + c;
                let value = z[at] + scale * sums[i * tile.columns + j];
                z[at] = value;
                states[at + sizes.batch * sizes.columns] = activate(value, activation);
            }
        }
    }
}

/// `carried_t = scale · W_hᵀ δ_{t+1}`, `δ_t = σ′(z_t) ⊙ (signal_t + carried_t)` and, with `local`, the same of
/// `carried_t` alone with a second network's slopes. Panel t of the states is panel t − 1 of z and δ.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn feedback_step(
    hidden: &Array<f32>,
    links: &Array<u32>,
    signal: &Array<f32>,
    z: &Array<f32>,
    delta: &mut Array<f32>,
    carried: &mut Array<f32>,
    local_z: &Array<f32>,
    local_delta: &mut Array<f32>,
    sizes: &Sizes,
    state: usize,
    scale: f32,
    #[comptime] tile: Tile,
    #[comptime] activation: Activation,
    #[comptime] last: bool,
    #[comptime] first: bool,
    #[comptime] local: bool,
) {
    let first_row = CUBE_POS_X as usize * comptime!(SIDE * tile.rows);
    let first_column = CUBE_POS_Y as usize * comptime!(SIDE * tile.columns);
    let mut sums = zeros(tile);
    if comptime!(!last) {
        accumulate(
            hidden,
            delta,
            links,
            &mut sums,
            sizes,
            0,
            first_row,
            first_column,
            tile,
            Direction::Backward,
        );
    }
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for i in 0..tile.rows {
        let r = first_row + row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = first_column + column + j * SIDE;
            if r < sizes.batch && c < sizes.columns {
                let at = (state * sizes.batch + r) * sizes.columns + c;
                let arrived = scale * sums[i * tile.columns + j];
                carried[at] = arrived;
                if comptime!(!first) {
                    let here = at - sizes.batch * sizes.columns;
                    delta[here] = slope(z[here], activation) * (signal[at] + arrived);
                    if comptime!(local) {
                        local_delta[here] = slope(local_z[here], activation) * arrived;
                    }
                }
            }
        }
    }
}
