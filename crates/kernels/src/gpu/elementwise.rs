//! Kernels without a product: copies, pooling, losses, signs and optimisers.

use super::tile::THREADS;
use cubecl::prelude::*;

/// The value that a thread works on.
#[cube]
pub(super) fn place() -> usize {
    CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize
}

/// Writes zeros.
#[cube(launch_unchecked)]
pub(super) fn clear(to: &mut Array<f32>, len: usize) {
    let at = place();
    if at < len {
        to[at] = 0.0;
    }
}

/// Overwrites the start of `to`.
#[cube(launch_unchecked)]
pub(super) fn copy(from: &Array<f32>, to: &mut Array<f32>, len: usize) {
    let at = place();
    if at < len {
        to[at] = from[at];
    }
}

/// Mean over locations of panels of `size` values.
#[cube(launch_unchecked)]
pub(super) fn pool(input: &Array<f32>, out: &mut Array<f32>, locations: usize, size: usize) {
    let at = place();
    if at < size {
        let mut total = 0.0f32;
        for location in 0..locations {
            total += input[location * size + at];
        }
        out[at] = total / f32::cast_from(locations);
    }
}

/// `out = scale · sign(weight)`, with sign(0) = 0.
#[cube(launch_unchecked)]
pub(super) fn sign(weight: &Array<f32>, out: &mut Array<f32>, scale: f32, len: usize) {
    let at = place();
    if at < len {
        let w = weight[at];
        let positive = select(w > 0.0, scale, w * 0.0);
        out[at] = select(w < 0.0, -scale, positive);
    }
}

/// `weight −= rate · gradient`.
#[cube(launch_unchecked)]
pub(super) fn sgd(gradient: &Array<f32>, weight: &mut Array<f32>, rate: f32, len: usize) {
    let at = place();
    if at < len {
        weight[at] -= rate * gradient[at];
    }
}

/// The numbers of an Adam step.
#[derive(CubeType, CubeLaunch)]
pub(super) struct AdamRates {
    pub(super) rate: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    /// `1 − β₁`, rounded once.
    pub(super) rest1: f32,
    /// `1 − β₂`, rounded once.
    pub(super) rest2: f32,
    pub(super) epsilon: f32,
}

/// Adam in TensorFlow's form, see [`crate::AdamStep`].
#[cube(launch_unchecked)]
pub(super) fn adam(
    gradient: &Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    weight: &mut Array<f32>,
    rates: &AdamRates,
    len: usize,
) {
    let at = place();
    if at < len {
        let g = gradient[at];
        let m = rates.beta1 * first[at] + rates.rest1 * g;
        let v = rates.beta2 * second[at] + rates.rest2 * g * g;
        first[at] = m;
        second[at] = v;
        weight[at] -= rates.rate * m / (f32::sqrt(v) + rates.epsilon);
    }
}

/// Adds what each thread of the work-group holds, in a fixed order.
#[cube]
fn total(value: f32) -> f32 {
    let mut shared = SharedMemory::<f32>::new(THREADS);
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut sum = 0.0f32;
    if UNIT_POS == 0 {
        for i in 0..THREADS {
            sum += shared[i];
        }
    }
    sync_cube();
    sum
}

/// Error, loss and hits of `[batch, class]` outputs against `one-hot(label) − shift`; one work-group.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn classification_loss(
    labels: &Array<u32>,
    output: &Array<f32>,
    error: &mut Array<f32>,
    report: &mut Array<f32>,
    batch: usize,
    classes: usize,
    shift: f32,
) {
    let mut loss = 0.0f32;
    let mut hits = 0.0f32;
    let count = f32::cast_from(batch * classes);
    let turns = batch.div_ceil(THREADS);
    for turn in 0..turns {
        let b = turn * THREADS + UNIT_POS as usize;
        if b < batch {
            let label = labels[b] as usize;
            let mut best = 0usize;
            let mut largest = output[b * classes];
            for k in 0..classes {
                let value = output[b * classes + k];
                let difference = value - (select(k == label, 1.0, 0.0) - shift);
                error[b * classes + k] = 2.0 * difference / count;
                loss += difference * difference;
                if value > largest {
                    largest = value;
                    best = k;
                }
            }
            hits += select(best == label, 1.0, 0.0);
        }
    }
    let loss = total(loss);
    let hits = total(hits);
    if UNIT_POS == 0 {
        report[0] = loss / count;
        report[1] = hits;
    }
}

/// Error and loss of a sequence; one work-group.
#[cube(launch_unchecked)]
pub(super) fn sequence_loss(
    targets: &Array<f32>,
    output: &Array<f32>,
    error: &mut Array<f32>,
    report: &mut Array<f32>,
    batch: f32,
    len: usize,
) {
    let mut loss = 0.0f32;
    let turns = len.div_ceil(THREADS);
    for turn in 0..turns {
        let at = turn * THREADS + UNIT_POS as usize;
        if at < len {
            let difference = output[at] - targets[at];
            error[at] = 2.0 * difference / batch;
            loss += difference * difference;
        }
    }
    let loss = total(loss);
    if UNIT_POS == 0 {
        report[0] = loss / batch;
    }
}
