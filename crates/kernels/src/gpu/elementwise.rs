//! Kernels without a product: copies, gathering, pooling, losses, signs and optimisers.

use super::launch::{group, item, place};
use super::tile::THREADS;
use cubecl::prelude::*;

/// Overwrites part of one array with the start of another.
#[cube(launch_unchecked)]
pub(super) fn transfer(from: &Array<f32>, to: &mut Array<f32>, start: usize, len: usize) {
    let at = place();
    if at < len {
        to[start + at] = from[at];
    }
}

/// Words of zeros: groups, out, values.
pub(super) const CLEAR_WORDS: usize = 3;

/// Writes zeros.
#[cube(launch_unchecked)]
pub(super) fn clear(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize) {
    let item = item(first_word, CLEAR_WORDS);
    let at = place();
    if at < table[item + 2] as usize {
        let to = table[item + 1] as usize + at;
        heap[to] = 0.0;
    }
}

/// Words of a copy: groups, from, to, values.
pub(super) const COPY_WORDS: usize = 4;

/// Overwrites the start of one buffer with that of another.
#[cube(launch_unchecked)]
pub(super) fn copy(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize) {
    let item = item(first_word, COPY_WORDS);
    let at = place();
    if at < table[item + 3] as usize {
        let to = table[item + 2] as usize + at;
        heap[to] = heap[table[item + 1] as usize + at];
    }
}

/// Words of a gathering: groups, data, out, places, batch, locations, channels.
pub(super) const GATHER_WORDS: usize = 7;

/// Panels `[location, batch, channel]` of the samples `[location, channel]` whose numbers stand in the
/// minibatch's row of `places`.
#[cube(launch_unchecked)]
pub(super) fn gather(
    heap: &mut Array<f32>,
    table: &Array<u32>,
    places: &Array<u32>,
    first_word: usize,
    step: usize,
) {
    let item = item(first_word, GATHER_WORDS);
    let at = place();
    let batch = table[item + 4] as usize;
    let locations = table[item + 5] as usize;
    let channels = table[item + 6] as usize;
    if at < locations * batch * channels {
        let channel = at % channels;
        let row = at / channels;
        let (location, b) = (row / batch, row % batch);
        let sample = places[table[item + 3] as usize + step * batch + b] as usize;
        let to = table[item + 2] as usize + at;
        heap[to] =
            heap[table[item + 1] as usize + (sample * locations + location) * channels + channel];
    }
}

/// Words of pooling: groups, input, out, locations, values of a panel; CUDA's kernels read one more, the channels.
pub(super) const POOL_WORDS: usize = 6;

/// Mean over locations.
#[cube(launch_unchecked)]
pub(super) fn pool(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize) {
    let item = item(first_word, POOL_WORDS);
    let at = place();
    let size = table[item + 4] as usize;
    if at < size {
        let input = table[item + 1] as usize;
        let locations = table[item + 3] as usize;
        let mut total = 0.0f32;
        for location in 0..locations {
            total += heap[input + location * size + at];
        }
        let to = table[item + 2] as usize + at;
        heap[to] = total / f32::cast_from(locations);
    }
}

/// Words of signs: groups, weight, out, values, scale.
pub(super) const SIGN_WORDS: usize = 5;

/// `out = scale · sign(weight)`, with sign(0) = 0.
#[cube(launch_unchecked)]
pub(super) fn sign(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize) {
    let item = item(first_word, SIGN_WORDS);
    let at = place();
    if at < table[item + 3] as usize {
        let scale = f32::reinterpret(table[item + 4]);
        let w = heap[table[item + 1] as usize + at];
        let positive = select(w > 0.0, scale, w * 0.0);
        let to = table[item + 2] as usize + at;
        heap[to] = select(w < 0.0, -scale, positive);
    }
}

/// Words of a step of descent: groups, gate, gradient, weight, values, rate.
pub(super) const SGD_WORDS: usize = 6;

/// `weight −= rate · gradient`, if the gate's value is not 0.
#[cube(launch_unchecked)]
pub(super) fn sgd(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize) {
    let item = item(first_word, SGD_WORDS);
    let at = place();
    if at < table[item + 4] as usize && heap[table[item + 1] as usize] != 0.0 {
        let rate = f32::reinterpret(table[item + 5]);
        let weight = table[item + 3] as usize + at;
        heap[weight] -= rate * heap[table[item + 2] as usize + at];
    }
}

/// Words of a step of Adam: groups, gate, rates, gradient, first moment, second moment, weight, values, β₁, β₂,
/// 1 − β₁, 1 − β₂ (both rounded once), ε.
pub(super) const ADAM_WORDS: usize = 13;

/// Adam in TensorFlow's form, see [`crate::AdamStep`], if the gate's value is not 0; the rate is that of the step.
#[cube(launch_unchecked)]
pub(super) fn adam(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize, step: usize) {
    let item = item(first_word, ADAM_WORDS);
    let at = place();
    if at < table[item + 7] as usize && heap[table[item + 1] as usize] != 0.0 {
        let rate = heap[table[item + 2] as usize + step];
        let g = heap[table[item + 3] as usize + at];
        let first = table[item + 4] as usize + at;
        let second = table[item + 5] as usize + at;
        let weight = table[item + 6] as usize + at;
        let m = f32::reinterpret(table[item + 8]) * heap[first]
            + f32::reinterpret(table[item + 10]) * g;
        let v = f32::reinterpret(table[item + 9]) * heap[second]
            + f32::reinterpret(table[item + 11]) * g * g;
        heap[first] = m;
        heap[second] = v;
        heap[weight] -= rate * m / (f32::sqrt(v) + f32::reinterpret(table[item + 12]));
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

/// Writes 0 into the gate where a loss is not finite.
#[cube]
fn close_unless_finite(heap: &mut Array<f32>, gate: usize, loss: f32) {
    // By its bits: compilers that assume finite numbers drop comparisons.
    if u32::reinterpret(loss) & 0x7f80_0000u32 == 0x7f80_0000u32 {
        heap[gate] = 0.0;
    }
}

/// Words of a loss: groups, output, labels, error, reports, gate, reports of a step, batch, classes, shift.
pub(super) const CLASSIFICATION_WORDS: usize = 10;

/// Error, loss and hits of `[batch, class]` outputs against `one-hot(label) − shift`; one work-group.
#[cube(launch_unchecked)]
pub(super) fn classification_loss(
    heap: &mut Array<f32>,
    table: &Array<u32>,
    first_word: usize,
    step: usize,
) {
    let item = item(first_word, CLASSIFICATION_WORDS);
    if group() >= table[item] as usize {
        terminate!();
    }
    let output = table[item + 1] as usize;
    let labels = table[item + 2] as usize;
    let error = table[item + 3] as usize;
    let batch = table[item + 7] as usize;
    let classes = table[item + 8] as usize;
    let shift = f32::reinterpret(table[item + 9]);
    let mut loss = 0.0f32;
    let mut hits = 0.0f32;
    let count = f32::cast_from(batch * classes);
    let turns = batch.div_ceil(THREADS);
    for turn in 0..turns {
        let b = turn * THREADS + UNIT_POS as usize;
        if b < batch {
            let label = u32::cast_from(heap[labels + b]) as usize;
            let mut best = 0usize;
            let mut largest = heap[output + b * classes];
            for k in 0..classes {
                let value = heap[output + b * classes + k];
                let difference = value - (select(k == label, 1.0, 0.0) - shift);
                heap[error + b * classes + k] = 2.0 * difference / count;
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
        let report = table[item + 4] as usize + step * table[item + 6] as usize;
        heap[report] = loss / count;
        heap[report + 1] = hits;
        close_unless_finite(heap, table[item + 5] as usize, loss / count);
    }
}

/// Words of a sequence's loss: groups, output, targets, error, reports, gate, reports of a step, values, batch.
pub(super) const SEQUENCE_WORDS: usize = 9;

/// Error and loss of a sequence; one work-group.
#[cube(launch_unchecked)]
pub(super) fn sequence_loss(
    heap: &mut Array<f32>,
    table: &Array<u32>,
    first_word: usize,
    step: usize,
) {
    let item = item(first_word, SEQUENCE_WORDS);
    if group() >= table[item] as usize {
        terminate!();
    }
    let output = table[item + 1] as usize;
    let targets = table[item + 2] as usize;
    let error = table[item + 3] as usize;
    let len = table[item + 7] as usize;
    let batch = f32::cast_from(table[item + 8]);
    let mut loss = 0.0f32;
    let turns = len.div_ceil(THREADS);
    for turn in 0..turns {
        let at = turn * THREADS + UNIT_POS as usize;
        if at < len {
            let difference = heap[output + at] - heap[targets + at];
            heap[error + at] = 2.0 * difference / batch;
            loss += difference * difference;
        }
    }
    let loss = total(loss);
    if UNIT_POS == 0 {
        let report = table[item + 4] as usize + step * table[item + 6] as usize;
        heap[report] = loss / batch;
        close_unless_finite(heap, table[item + 5] as usize, loss / batch);
    }
}
