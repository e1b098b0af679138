//! Norm and activation of panels that lie in memory: for norms over batch and locations, for minibatches larger than
//! a work-group, and for signals that no product makes.

use super::activation::{activate, mean_over_rows, slope};
use super::launch::{group, item};
use super::panel::Arrival;
use super::tile::SIDE;
use crate::NORM_EPSILON;
use cubecl::prelude::*;

/// Words of a normalisation: groups, z, a, inverse deviations, norm groups, rows of one, channels.
pub(super) const NORMALISE_WORDS: usize = 7;

/// Replaces pre-activations in `z` by normalised ones, and writes activations and inverse deviations.
#[cube(launch_unchecked)]
pub(super) fn normalise(
    heap: &mut Array<f32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] arrival: Arrival,
) {
    let at = item(first_word, NORMALISE_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let (z, a) = (table[at + 1] as usize, table[at + 2] as usize);
    let inverse_deviation = table[at + 3] as usize;
    let count = table[at + 4] as usize;
    let rows = table[at + 5] as usize;
    let channels = table[at + 6] as usize;
    let index = group() % count;
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let c = group() / count * SIDE + column;
    let start = index * rows * channels + c;
    let inside = c < channels;
    let turns = rows.div_ceil(SIDE);
    let mut mean = 0.0f32;
    let mut inverse = 1.0f32;
    if comptime!(arrival.normalised) {
        let mut sums = Array::<f32>::new(1usize);
        let mut total = 0.0f32;
        for turn in 0..turns {
            let r = turn * SIDE + row;
            if inside && r < rows {
                total += heap[z + start + r * channels];
            }
        }
        sums[0] = total;
        mean_over_rows(&mut sums, rows, 1usize);
        mean = sums[0];
        let mut squares = 0.0f32;
        for turn in 0..turns {
            let r = turn * SIDE + row;
            if inside && r < rows {
                let centred = heap[z + start + r * channels] - mean;
                squares += centred * centred;
            }
        }
        sums[0] = squares;
        mean_over_rows(&mut sums, rows, 1usize);
        inverse = 1.0 / f32::sqrt(sums[0] + comptime!(NORM_EPSILON as f32));
        if row == 0 && inside {
            heap[inverse_deviation + index * channels + c] = inverse;
        }
    }
    for turn in 0..turns {
        let r = turn * SIDE + row;
        if inside && r < rows {
            let at = start + r * channels;
            let value = (heap[z + at] - mean) * inverse;
            heap[z + at] = value;
            heap[a + at] = activate(value, arrival.activation);
        }
    }
}

/// Words of a landing: groups, signal, the path's z, the network's z, inverse deviations, delta, norm groups, rows of
/// one, channels, rows of the signal (as many as a norm group's, or those of one panel that is repeated), scale; CUDA's
/// kernels read two more, the rows of a panel and where the sums of delta's columns are to lie.
pub(super) const LAND_WORDS: usize = 13;

/// `ψ = scale · σ′(z_path) ⊙ signal`, then `delta = normᵀ(ψ)` with the statistics of the network whose `z` is
/// given.
#[cube(launch_unchecked)]
pub(super) fn land(
    heap: &mut Array<f32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] arrival: Arrival,
) {
    let at = item(first_word, LAND_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let signal = table[at + 1] as usize;
    let path_z = table[at + 2] as usize;
    let z = table[at + 3] as usize;
    let inverse_deviation = table[at + 4] as usize;
    let delta = table[at + 5] as usize;
    let count = table[at + 6] as usize;
    let rows = table[at + 7] as usize;
    let channels = table[at + 8] as usize;
    let signal_rows = table[at + 9] as usize;
    let scale = f32::reinterpret(table[at + 10]);
    let index = group() % count;
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let c = group() / count * SIDE + column;
    let start = index * rows * channels + c;
    let inside = c < channels;
    let turns = rows.div_ceil(SIDE);
    let mut mean = 0.0f32;
    let mut along = 0.0f32;
    let mut inverse = 1.0f32;
    for turn in 0..turns {
        let r = turn * SIDE + row;
        if inside && r < rows {
            let at = start + r * channels;
            let from = (index * rows + r) % signal_rows;
            let psi = slope(heap[path_z + at], arrival.activation)
                * (scale * heap[signal + from * channels + c]);
            heap[delta + at] = psi;
            mean += psi;
            along += psi * heap[z + at];
        }
    }
    if comptime!(arrival.normalised) {
        let mut sums = Array::<f32>::new(2usize);
        sums[0] = mean;
        sums[1] = along;
        mean_over_rows(&mut sums, rows, 2usize);
        mean = sums[0];
        along = sums[1];
        if inside {
            inverse = heap[inverse_deviation + index * channels + c];
        }
        for turn in 0..turns {
            let r = turn * SIDE + row;
            if inside && r < rows {
                let at = start + r * channels;
                heap[delta + at] = inverse * (heap[delta + at] - mean - heap[z + at] * along);
            }
        }
    }
}
