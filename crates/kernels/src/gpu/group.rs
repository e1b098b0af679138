//! Norm and activation of panels that lie in memory: for norms over batch and locations, for minibatches larger than
//! a work-group, and for signals that no product makes.

use super::activation::{activate, mean_over_rows, slope};
use super::panel::Arrival;
use super::tile::SIDE;
use cubecl::prelude::*;

/// Sizes of a group: the rows that share one mean and one variance.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Group {
    /// Rows of a group.
    pub(super) rows: usize,
    /// Channels of a row.
    pub(super) channels: usize,
    /// Rows of the signal that lands: as many as the group's, or those of one panel that is repeated.
    pub(super) signal_rows: usize,
}

/// Replaces pre-activations in `z` by normalised ones, and writes activations and inverse deviations.
#[cube(launch_unchecked)]
pub(super) fn normalise(
    z: &mut Array<f32>,
    a: &mut Array<f32>,
    inverse_deviation: &mut Array<f32>,
    group: &Group,
    epsilon: f32,
    #[comptime] arrival: Arrival,
) {
    let index = CUBE_POS_X as usize;
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let c = CUBE_POS_Y as usize * SIDE + column;
    let start = index * group.rows * group.channels + c;
    let inside = c < group.channels;
    let turns = group.rows.div_ceil(SIDE);
    let mut mean = 0.0f32;
    let mut inverse = 1.0f32;
    if comptime!(arrival.normalised) {
        let mut sums = Array::<f32>::new(1usize);
        let mut total = 0.0f32;
        for turn in 0..turns {
            let r = turn * SIDE + row;
            if inside && r < group.rows {
                total += z[start + r * group.channels];
            }
        }
        sums[0] = total;
        mean_over_rows(&mut sums, group.rows, 1usize);
        mean = sums[0];
        let mut squares = 0.0f32;
        for turn in 0..turns {
            let r = turn * SIDE + row;
            if inside && r < group.rows {
                let centred = z[start + r * group.channels] - mean;
                squares += centred * centred;
            }
        }
        sums[0] = squares;
        mean_over_rows(&mut sums, group.rows, 1usize);
        inverse = 1.0 / f32::sqrt(sums[0] + epsilon);
        if row == 0 && inside {
            inverse_deviation[index * group.channels + c] = inverse;
        }
    }
    for turn in 0..turns {
        let r = turn * SIDE + row;
        if inside && r < group.rows {
            let at = start + r * group.channels;
            let value = (z[at] - mean) * inverse;
            z[at] = value;
            a[at] = activate(value, arrival.activation);
        }
    }
}

/// `ψ = scale · σ′(z_path) ⊙ signal`, then `delta = normᵀ(ψ)` with the statistics of the network whose `z` is
/// given.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn land(
    signal: &Array<f32>,
    path_z: &Array<f32>,
    z: &Array<f32>,
    inverse_deviation: &Array<f32>,
    delta: &mut Array<f32>,
    group: &Group,
    scale: f32,
    #[comptime] arrival: Arrival,
) {
    let index = CUBE_POS_X as usize;
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let c = CUBE_POS_Y as usize * SIDE + column;
    let start = index * group.rows * group.channels + c;
    let inside = c < group.channels;
    let turns = group.rows.div_ceil(SIDE);
    let mut mean = 0.0f32;
    let mut along = 0.0f32;
    let mut inverse = 1.0f32;
    for turn in 0..turns {
        let r = turn * SIDE + row;
        if inside && r < group.rows {
            let at = start + r * group.channels;
            let from = (index * group.rows + r) % group.signal_rows;
            let psi =
                slope(path_z[at], arrival.activation) * (scale * signal[from * group.channels + c]);
            delta[at] = psi;
            mean += psi;
            along += psi * z[at];
        }
    }
    if comptime!(arrival.normalised) {
        let mut sums = Array::<f32>::new(2usize);
        sums[0] = mean;
        sums[1] = along;
        mean_over_rows(&mut sums, group.rows, 2usize);
        mean = sums[0];
        along = sums[1];
        if inside {
            inverse = inverse_deviation[index * group.channels + c];
        }
        for turn in 0..turns {
            let r = turn * SIDE + row;
            if inside && r < group.rows {
                let at = start + r * group.channels;
                delta[at] = inverse * (delta[at] - mean - z[at] * along);
            }
        }
    }
}
