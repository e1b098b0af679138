//! Kernels whose work-groups own a panel: product, norm and activation in one pass.

use super::activation::{activate, slope, tile_mean};
use super::launch::{group, item};
use super::tile::{
    Direction, Place, SIDE, Tile, WALK_WORDS, Walk, accumulate, place_of, read_walk, value_or_zero,
    zeros,
};
use crate::{Activation, NORM_EPSILON};
use cubecl::prelude::*;

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Arrival {
    /// Whether the panel is normalised over its rows.
    pub(super) normalised: bool,
    pub(super) activation: Activation,
}

/// Words of a product: groups, walk, out, bias.
pub(super) const PRODUCT_WORDS: usize = 1 + WALK_WORDS + 2;

/// `out = scale · Σ panel(src) · W[tap] + bias`: a product on its own.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn product(
    heap: &mut Array<f32>,
    links: &Array<u32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
    #[comptime] biased: bool,
) {
    let at = item(first_word, PRODUCT_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let walk = read_walk(table, at + 1);
    let out = table[at + comptime!(1 + WALK_WORDS)] as usize;
    let bias = table[at + comptime!(2 + WALK_WORDS)] as usize;
    let place = place_of(group(), &walk, tile);
    let mut sums = zeros(tile);
    accumulate(heap, links, &mut sums, &walk, &place, tile, direction);
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for j in 0..tile.columns {
        let c = place.first_column + column + j * SIDE;
        let mut shift = 0.0f32;
        if comptime!(biased) {
            shift = value_or_zero(heap, bias + c, c < walk.columns);
        }
        #[unroll]
        for i in 0..tile.rows {
            let r = place.first_row + row + i * SIDE;
            if r < walk.batch && c < walk.columns {
                heap[out + (place.location * walk.batch + r) * walk.columns + c] =
                    walk.scale * sums[i * tile.columns + j] + shift;
            }
        }
    }
}

/// Words of a forward pass: groups, walk, z, a, inverse deviations, bias.
pub(super) const FORWARD_WORDS: usize = 1 + WALK_WORDS + 4;

/// A layer's forward pass on one panel: product, norm over the rows, activation.
#[cube(launch_unchecked)]
pub(super) fn forward_panel(
    heap: &mut Array<f32>,
    links: &Array<u32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] tile: Tile,
    #[comptime] arrival: Arrival,
) {
    let at = item(first_word, FORWARD_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let walk = read_walk(table, at + 1);
    let z = table[at + comptime!(1 + WALK_WORDS)] as usize;
    let a = table[at + comptime!(2 + WALK_WORDS)] as usize;
    let inverse_deviation = table[at + comptime!(3 + WALK_WORDS)] as usize;
    let bias = table[at + comptime!(4 + WALK_WORDS)] as usize;
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
    for j in 0..tile.columns {
        let c = place.first_column + column + j * SIDE;
        let shift = value_or_zero(heap, bias + c, c < walk.columns);
        #[unroll]
        for i in 0..tile.rows {
            sums[i * tile.columns + j] = walk.scale * sums[i * tile.columns + j] + shift;
        }
    }
    if comptime!(arrival.normalised) {
        let mut means = Array::<f32>::new(tile.columns);
        tile_mean(&sums, &mut means, walk.batch, tile);
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
        tile_mean(&squares, &mut means, walk.batch, tile);
        #[unroll]
        for j in 0..tile.columns {
            let c = place.first_column + column + j * SIDE;
            let inverse = 1.0 / f32::sqrt(means[j] + comptime!(NORM_EPSILON as f32));
            if row == 0 && c < walk.columns {
                heap[inverse_deviation + place.location * walk.columns + c] = inverse;
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
            let c = place.first_column + column + j * SIDE;
            if r < walk.batch && c < walk.columns {
                let at = (place.location * walk.batch + r) * walk.columns + c;
                let value = sums[i * tile.columns + j];
                heap[z + at] = value;
                heap[a + at] = activate(value, arrival.activation);
            }
        }
    }
}

/// Where a signal lands.
#[derive(CubeType)]
struct Port {
    z: usize,
    inverse_deviation: usize,
    delta: usize,
}

#[cube]
fn read_port(table: &Array<u32>, at: usize) -> Port {
    Port {
        z: table[at] as usize,
        inverse_deviation: table[at + 1] as usize,
        delta: table[at + 2] as usize,
    }
}

/// normᵀ of a tile of ψ with the statistics of the port's network.
#[cube]
fn land(
    heap: &mut Array<f32>,
    psi: &Array<f32>,
    port: &Port,
    walk: &Walk,
    place: &Place,
    #[comptime] tile: Tile,
    #[comptime] normalised: bool,
) {
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let mut means = Array::<f32>::new(tile.columns);
    let mut along = Array::<f32>::new(tile.columns);
    if comptime!(normalised) {
        tile_mean(psi, &mut means, walk.batch, tile);
        let mut products = Array::<f32>::new(comptime!(tile.rows * tile.columns));
        #[unroll]
        for i in 0..tile.rows {
            let r = row + i * SIDE;
            #[unroll]
            for j in 0..tile.columns {
                let c = place.first_column + column + j * SIDE;
                let at = (place.location * walk.batch + r) * walk.columns + c;
                products[i * tile.columns + j] = psi[i * tile.columns + j]
                    * value_or_zero(heap, port.z + at, r < walk.batch && c < walk.columns);
            }
        }
        tile_mean(&products, &mut along, walk.batch, tile);
    }
    #[unroll]
    for i in 0..tile.rows {
        let r = row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = place.first_column + column + j * SIDE;
            if r < walk.batch && c < walk.columns {
                let at = (place.location * walk.batch + r) * walk.columns + c;
                let value = psi[i * tile.columns + j];
                if comptime!(normalised) {
                    let inverse = heap[port.inverse_deviation + place.location * walk.columns + c];
                    heap[port.delta + at] =
                        inverse * (value - means[j] - heap[port.z + at] * along[j]);
                } else {
                    heap[port.delta + at] = value;
                }
            }
        }
    }
}

/// Words of a feedback: groups, walk, and (z, inverse deviations, delta, room for sums of its columns, which CUDA's kernels
/// write) of the path and of a second network.
pub(super) const FEEDBACK_WORDS: usize = 1 + WALK_WORDS + 8;

/// Feedback to one panel: product, slope of the path's network, normᵀ of the path's network and, with `local`, of
/// a second one.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn feedback_panel(
    heap: &mut Array<f32>,
    links: &Array<u32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
    #[comptime] arrival: Arrival,
    #[comptime] local: bool,
) {
    let at = item(first_word, FEEDBACK_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let walk = read_walk(table, at + 1);
    let path = read_port(table, at + comptime!(1 + WALK_WORDS));
    let place = place_of(group(), &walk, tile);
    let mut psi = zeros(tile);
    accumulate(heap, links, &mut psi, &walk, &place, tile, direction);
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    #[unroll]
    for i in 0..tile.rows {
        let r = row + i * SIDE;
        #[unroll]
        for j in 0..tile.columns {
            let c = place.first_column + column + j * SIDE;
            if r < walk.batch && c < walk.columns {
                let at = (place.location * walk.batch + r) * walk.columns + c;
                psi[i * tile.columns + j] = slope(heap[path.z + at], arrival.activation)
                    * (walk.scale * psi[i * tile.columns + j]);
            }
        }
    }
    land(heap, &psi, &path, &walk, &place, tile, arrival.normalised);
    if comptime!(local) {
        let second = read_port(table, at + comptime!(5 + WALK_WORDS));
        land(heap, &psi, &second, &walk, &place, tile, arrival.normalised);
    }
}
