//! Weight gradients: products over all links of a tap, cut into parts whose sums are added in a fixed order.

use super::elementwise::place;
use super::tile::{DEPTH, SIDE, value_or_zero};
use cubecl::prelude::*;

/// Columns and rows of a gradient tile that one thread holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GradientTile {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// Sizes of a weight gradient.
#[derive(CubeType, CubeLaunch)]
pub(super) struct GradientSizes {
    pub(super) batch: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) taps: usize,
    /// Parts into which the links of a tap are cut.
    pub(super) parts: usize,
}

/// `out[part, tap, input, output] = scale · Σ a(src)ᵀ delta(dst)` over the part's links of the tap.
///
/// `links` holds `taps + 1` starts, then (source, destination) for each link.
#[cube(launch_unchecked)]
pub(super) fn gradient_part(
    input: &Array<f32>,
    delta: &Array<f32>,
    links: &Array<u32>,
    out: &mut Array<f32>,
    sizes: &GradientSizes,
    scale: f32,
    #[comptime] tile: GradientTile,
) {
    let a_stride = comptime!(SIDE * tile.inputs);
    let d_stride = comptime!(SIDE * tile.outputs);
    let mut a = SharedMemory::<f32>::new(comptime!(DEPTH * a_stride));
    let mut d = SharedMemory::<f32>::new(comptime!(DEPTH * d_stride));
    let mut sums = Array::<f32>::new(comptime!(tile.inputs * tile.outputs));
    #[unroll]
    for i in 0..comptime!(tile.inputs * tile.outputs) {
        sums[i] = 0.0;
    }
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let first_input = CUBE_POS_X as usize * a_stride;
    let first_output = CUBE_POS_Y as usize * d_stride;
    let tap = CUBE_POS_Z as usize / sizes.parts;
    let part = CUBE_POS_Z as usize % sizes.parts;
    let tap_start = links[tap] as usize;
    let count = links[tap + 1] as usize - tap_start;
    let first_link = tap_start + count * part / sizes.parts;
    let last_link = tap_start + count * (part + 1) / sizes.parts;
    let depth = (last_link - first_link) * sizes.batch;
    let pairs = sizes.taps + 1 + 2 * first_link;
    let chunks = depth.div_ceil(DEPTH);
    for chunk in 0..chunks {
        let term = chunk * DEPTH + row;
        let mut source = 0usize;
        let mut destination = 0usize;
        let mut r = 0usize;
        if term < depth {
            let link = term / sizes.batch;
            r = term % sizes.batch;
            source = links[pairs + 2 * link] as usize;
            destination = links[pairs + 2 * link + 1] as usize;
        }
        #[unroll]
        for i in 0..tile.inputs {
            let c = first_input + column + i * SIDE;
            let at = (source * sizes.batch + r) * sizes.inputs + c;
            a[row * a_stride + column + i * SIDE] =
                value_or_zero(input, at, term < depth && c < sizes.inputs);
        }
        #[unroll]
        for j in 0..tile.outputs {
            let c = first_output + column + j * SIDE;
            let at = (destination * sizes.batch + r) * sizes.outputs + c;
            d[row * d_stride + column + j * SIDE] =
                value_or_zero(delta, at, term < depth && c < sizes.outputs);
        }
        sync_cube();
        for k in 0..DEPTH {
            #[unroll]
            for i in 0..tile.inputs {
                let value = a[k * a_stride + row + i * SIDE];
                #[unroll]
                for j in 0..tile.outputs {
                    sums[i * tile.outputs + j] += value * d[k * d_stride + column + j * SIDE];
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..tile.inputs {
        let x = first_input + row + i * SIDE;
        #[unroll]
        for j in 0..tile.outputs {
            let y = first_output + column + j * SIDE;
            if x < sizes.inputs && y < sizes.outputs {
                out[((part * sizes.taps + tap) * sizes.inputs + x) * sizes.outputs + y] =
                    scale * sums[i * tile.outputs + j];
            }
        }
    }
}

/// `out[part, channel] = Σ delta` over the part's rows.
#[cube(launch_unchecked)]
pub(super) fn bias_part(
    delta: &Array<f32>,
    out: &mut Array<f32>,
    rows: usize,
    channels: usize,
    parts: usize,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(SIDE * SIDE));
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let c = CUBE_POS_X as usize * SIDE + column;
    let part = CUBE_POS_Y as usize;
    let first = rows * part / parts;
    let last = rows * (part + 1) / parts;
    let turns = (last - first).div_ceil(SIDE);
    let mut sum = 0.0f32;
    for turn in 0..turns {
        let r = first + turn * SIDE + row;
        if r < last && c < channels {
            sum += delta[r * channels + c];
        }
    }
    shared[row * SIDE + column] = sum;
    sync_cube();
    if row == 0 && c < channels {
        let mut total = 0.0f32;
        for r in 0..SIDE {
            total += shared[r * SIDE + column];
        }
        out[part * channels + c] = total;
    }
}

/// `out[i] = Σ_part parts[part, i]`, part by part.
#[cube(launch_unchecked)]
pub(super) fn add_parts(parts: &Array<f32>, out: &mut Array<f32>, count: usize, len: usize) {
    let at = place();
    if at < len {
        let mut total = 0.0f32;
        for part in 0..count {
            total += parts[part * len + at];
        }
        out[at] = total;
    }
}
