//! σ and σ′ on the device, and means over a minibatch.

use super::tile::{SIDE, Tile};
use crate::Activation;
use cubecl::prelude::*;

/// `tanh` to a few units in the last place: Cephes' rational form near 0, `1 − 2/(e^{2x}+1)` beyond; the shading
/// languages promise less of their own.
#[cube]
fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut p = square * -5.704_988_7e-3 + 2.063_908_8e-2;
    p = p * square - 5.373_971_5e-2;
    p = p * square + 1.333_144_1e-1;
    p = p * square - 3.333_328e-1;
    let near = p * square * x + x;
    // Beyond 9.02 the result is ±1 in f32; the exponential stays finite. NaN takes the near branch's place.
    let size = select(x < 0.0, -x, x);
    let bounded = select(size > 9.1, 9.1, size);
    let far = 1.0 - 2.0 / (f32::exp(2.0 * bounded) + 1.0);
    let signed = select(x < 0.0, -far, far);
    select(size >= 0.625, signed, near)
}

/// The error function: a rational approximation near 0 (FreeBSD's `erff`), Abramowitz and Stegun 7.1.26 beyond
/// (absolute error 1.5e-7).
#[cube]
fn erf(x: f32) -> f32 {
    let square = x * x;
    let mut p = square * -2.376_301_7e-5 - 5.770_270_3e-3;
    p = p * square - 2.848_175e-2;
    p = p * square - 3.250_421e-1;
    p = p * square + 1.283_791_7e-1;
    let mut q = square * -3.960_228_2e-6 + 1.324_947_4e-4;
    q = q * square + 5.081_306e-3;
    q = q * square + 6.502_225e-2;
    q = q * square + 3.979_172_3e-1;
    q = q * square + 1.0;
    let near = x + x * (p / q);
    let size = select(x < 0.0, -x, x);
    let bounded = select(size > 6.0, 6.0, size);
    let t = 1.0 / (1.0 + 0.327_591_1 * bounded);
    let mut s = t * 1.061_405_4 - 1.453_152;
    s = s * t + 1.421_413_7;
    s = s * t - 0.284_496_74;
    s = s * t + 0.254_829_6;
    let far = 1.0 - s * t * f32::exp(-bounded * bounded);
    let signed = select(x < 0.0, -far, far);
    select(size >= 0.843_75, signed, near)
}

/// σ(z). NaN stays NaN: a diverged network must not look alive.
#[cube]
pub(super) fn activate(z: f32, #[comptime] activation: Activation) -> f32 {
    if comptime!(activation == Activation::Relu) {
        select(z <= 0.0, 0.0, z)
    } else if comptime!(activation == Activation::Tanh) {
        tanh(z)
    } else if comptime!(activation == Activation::Erf) {
        erf(z)
    } else {
        z
    }
}

/// σ′(z).
#[cube]
pub(super) fn slope(z: f32, #[comptime] activation: Activation) -> f32 {
    if comptime!(activation == Activation::Relu) {
        select(z > 0.0, 1.0, 0.0)
    } else if comptime!(activation == Activation::Tanh) {
        let t = tanh(z);
        1.0 - t * t
    } else if comptime!(activation == Activation::Erf) {
        std::f32::consts::FRAC_2_SQRT_PI * f32::exp(-z * z)
    } else {
        z * 0.0 + 1.0
    }
}

/// Replaces each thread's partial sums, one for each of its columns, by the mean over all rows of the work-group.
#[cube]
pub(super) fn mean_over_rows(sums: &mut Array<f32>, rows: usize, #[comptime] columns: usize) {
    let mut shared = SharedMemory::<f32>::new(comptime!(SIDE * SIDE * columns));
    let unit = UNIT_POS as usize;
    let (row, column) = (unit / SIDE, unit % SIDE);
    #[unroll]
    for j in 0..columns {
        shared[row * comptime!(SIDE * columns) + column + j * SIDE] = sums[j];
    }
    sync_cube();
    #[unroll]
    for j in 0..columns {
        let mut total = 0.0f32;
        for r in 0..SIDE {
            total += shared[r * comptime!(SIDE * columns) + column + j * SIDE];
        }
        sums[j] = total / f32::cast_from(rows);
    }
    sync_cube();
    // SAFETY: all threads have read what they wanted, and each has come here.
    unsafe { shared.free() };
}

/// Writes to `means` the mean over all rows of each column of a tile; rows beyond `rows` do not count.
#[cube]
pub(super) fn tile_mean(
    values: &Array<f32>,
    means: &mut Array<f32>,
    rows: usize,
    #[comptime] tile: Tile,
) {
    let row = UNIT_POS as usize / SIDE;
    #[unroll]
    for j in 0..tile.columns {
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..tile.rows {
            if row + i * SIDE < rows {
                sum += values[i * tile.columns + j];
            }
        }
        means[j] = sum;
    }
    mean_over_rows(means, rows, tile.columns);
}
