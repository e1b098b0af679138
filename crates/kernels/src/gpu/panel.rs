//! Kernels whose work-groups own a panel: product, norm and activation in one pass.

use super::activation::{activate, slope, tile_mean};
use super::tile::{Direction, SIDE, Sizes, Tile, accumulate, value_or_zero, zeros};
use crate::{Activation, NORM_EPSILON};
use cubecl::prelude::*;

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Arrival {
    /// Whether the panel is normalised over its rows.
    pub(super) normalised: bool,
    pub(super) activation: Activation,
}

/// `out = scale · Σ panel(src) · W[tap] + bias`: a product on its own.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn product(
    weight: &Array<f32>,
    input: &Array<f32>,
    links: &Array<u32>,
    bias: &Array<f32>,
    out: &mut Array<f32>,
    sizes: &Sizes,
    scale: f32,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
    #[comptime] biased: bool,
) {
    let location = CUBE_POS_X as usize;
    let first_column = CUBE_POS_Y as usize * comptime!(SIDE * tile.columns);
    let first_row = CUBE_POS_Z as usize * comptime!(SIDE * tile.rows);
    let mut sums = zeros(tile);
    accumulate(
        weight,
        input,
        links,
        &mut sums,
        sizes,
        location,
        first_row,
        first_column,
        tile,
        direction,
    );
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for j in 0..tile.columns {
        let c = first_column + column + j * SIDE;
        let mut shift = 0.0f32;
        if comptime!(biased) {
            shift = value_or_zero(bias, c, c < sizes.columns);
        }
        #[unroll]
        for i in 0..tile.rows {
            let r = first_row + row + i * SIDE;
            if r < sizes.batch && c < sizes.columns {
                out[(location * sizes.batch + r) * sizes.columns + c] =
                    scale * sums[i * tile.columns + j] + shift;
            }
        }
    }
}

/// A layer's forward pass on one panel: product, norm over the rows, activation.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn forward_panel(
    weight: &Array<f32>,
    input: &Array<f32>,
    links: &Array<u32>,
    bias: &Array<f32>,
    z: &mut Array<f32>,
    a: &mut Array<f32>,
    inverse_deviation: &mut Array<f32>,
    sizes: &Sizes,
    scale: f32,
    #[comptime] tile: Tile,
    #[comptime] arrival: Arrival,
) {
    let location = CUBE_POS_X as usize;
    let first_column = CUBE_POS_Y as usize * comptime!(SIDE * tile.columns);
    let mut sums = zeros(tile);
    accumulate(
        weight,
        input,
        links,
        &mut sums,
        sizes,
        location,
        0,
        first_column,
        tile,
        Direction::Forward,
    );
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for j in 0..tile.columns {
        let c = first_column + column + j * SIDE;
        let shift = value_or_zero(bias, c, c < sizes.columns);
        #[unroll]
        for i in 0..tile.rows {
            sums[i * tile.columns + j] = scale * sums[i * tile.columns + j] + shift;
        }
    }
    if comptime!(arrival.normalised) {
        let mut means = Array::<f32>::new(tile.columns);
        tile_mean(&sums, &mut means, sizes.batch, tile);
        let mut squares = Array::<f32>::new(comptime!(tile.rows * tile.columns));
        #[unroll]
        for i in 0..tile.rows {
            #[unroll]
            for j in 0..tile.columns {
                let centred = sums[i * tile.columns + j] - means[j];
                sums[i * tile.columns + j] = centred;
                squares[i * tile.columns + j] = centred * centred;
            }
        }
        tile_mean(&squares, &mut means, sizes.batch, tile);
        #[unroll]
        for j in 0..tile.columns {
            let c = first_column + column + j * SIDE;
            let inverse = 1.0 / f32::sqrt(means[j] + comptime!(NORM_EPSILON as f32));
            if row == 0 && c < sizes.columns {
                inverse_deviation[location * sizes.columns + c] = inverse;
            }
            #[unroll]
            for i in 0..tile.rows {
                sums[i * tile.columns + j] = sums[i * tile.columns + j] * inverse;
            }
        }
    }
    #[unroll]
    for i in 0..tile.rows {
        let r = row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = first_column + column + j * SIDE;
            if r < sizes.batch && c < sizes.columns {
                let at = (location * sizes.batch + r) * sizes.columns + c;
                let value = sums[i * tile.columns + j];
                z[at] = value;
                a[at] = activate(value, arrival.activation);
            }
        }
    }
}

/// Where a signal lands: normᵀ of a tile of ψ with the statistics of one network, written to `delta`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn land(
    psi: &Array<f32>,
    z: &Array<f32>,
    inverse_deviation: &Array<f32>,
    delta: &mut Array<f32>,
    sizes: &Sizes,
    location: usize,
    first_column: usize,
    #[comptime] tile: Tile,
    #[comptime] normalised: bool,
) {
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let mut means = Array::<f32>::new(tile.columns);
    let mut along = Array::<f32>::new(tile.columns);
    if comptime!(normalised) {
        tile_mean(psi, &mut means, sizes.batch, tile);
        let mut products = Array::<f32>::new(comptime!(tile.rows * tile.columns));
        #[unroll]
        for i in 0..tile.rows {
            let r = row + i * SIDE;
            #[unroll]
            for j in 0..tile.columns {
                let c = first_column + column + j * SIDE;
                let at = (location * sizes.batch + r) * sizes.columns + c;
                products[i * tile.columns + j] = psi[i * tile.columns + j]
                    * value_or_zero(z, at, r < sizes.batch && c < sizes.columns);
            }
        }
        tile_mean(&products, &mut along, sizes.batch, tile);
    }
    #[unroll]
    for i in 0..tile.rows {
        let r = row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = first_column + column + j * SIDE;
            if r < sizes.batch && c < sizes.columns {
                let at = (location * sizes.batch + r) * sizes.columns + c;
                let value = psi[i * tile.columns + j];
                if comptime!(normalised) {
                    delta[at] = inverse_deviation[location * sizes.columns + c]
                        * (value - means[j] - z[at] * along[j]);
                } else {
                    delta[at] = value;
                }
            }
        }
    }
}

/// Feedback to one panel: product, slope of the path's network, normᵀ of the path's network and, with `local`, of
/// a second one.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn feedback_panel(
    weight: &Array<f32>,
    input: &Array<f32>,
    links: &Array<u32>,
    path_z: &Array<f32>,
    path_inverse: &Array<f32>,
    path_delta: &mut Array<f32>,
    local_z: &Array<f32>,
    local_inverse: &Array<f32>,
    local_delta: &mut Array<f32>,
    sizes: &Sizes,
    scale: f32,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
    #[comptime] arrival: Arrival,
    #[comptime] local: bool,
) {
    let location = CUBE_POS_X as usize;
    let first_column = CUBE_POS_Y as usize * comptime!(SIDE * tile.columns);
    let mut psi = zeros(tile);
    accumulate(
        weight,
        input,
        links,
        &mut psi,
        sizes,
        location,
        0,
        first_column,
        tile,
        direction,
    );
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for i in 0..tile.rows {
        let r = row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = first_column + column + j * SIDE;
            if r < sizes.batch && c < sizes.columns {
                let at = (location * sizes.batch + r) * sizes.columns + c;
                psi[i * tile.columns + j] =
                    slope(path_z[at], arrival.activation) * (scale * psi[i * tile.columns + j]);
            }
        }
    }
    land(
        &psi,
        path_z,
        path_inverse,
        path_delta,
        sizes,
        location,
        first_column,
        tile,
        arrival.normalised,
    );
    if comptime!(local) {
        land(
            &psi,
            local_z,
            local_inverse,
            local_delta,
            sizes,
            location,
            first_column,
            tile,
            arrival.normalised,
        );
    }
}
