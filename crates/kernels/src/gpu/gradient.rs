//! Weight gradients: products over all links of a tap, cut into parts whose sums are added in a fixed order.

use super::cuda;
use super::launch::{group, item, place};
use super::matrix::{Plan, hand_out, multiply, pieces};
use super::operands::{Operands, operand_or_zero};
use super::staging::{Order, Stage, Term, leave, own_term, put_terms, read_terms, stage};
use super::tile::{DEPTH, SIDE, columns_a_thread};
use super::units::{By, Units};
use cubecl::prelude::*;
use half::bf16;

/// Columns and rows of a gradient tile that one thread holds, and what multiplies what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GradientTile {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Taps, where the warps of CUDA's work-groups hold the sums of all and take destinations in turn; 0: a work-group
    /// holds those of one.
    pub(super) all_taps: usize,
    /// Rows of a panel in blocks, and in how many tiles groups of warps read it; else no matter.
    pub(super) panel: [usize; 2],
    pub(super) operands: Operands,
    pub(super) units: Units,
}

impl GradientTile {
    /// The tile for so many inputs and outputs. In CUDA's own kernels, its sides are those of the work-group.
    pub(super) fn new(inputs: usize, outputs: usize, operands: Operands, units: Units) -> Self {
        let [inputs, outputs] = match units {
            Units::Cuda(_) => cuda::sides_of_a_gradient(inputs, outputs),
            Units::Scalar | Units::Matrix => [inputs, outputs].map(columns_a_thread),
        };
        Self {
            inputs,
            outputs,
            all_taps: 0,
            panel: [0; 2],
            operands,
            units,
        }
    }

    /// The tile of groups of warps for so many inputs and outputs that lie in blocks.
    pub(super) fn in_groups(
        channels: [usize; 2],
        batch: usize,
        operands: Operands,
        units: Units,
    ) -> Self {
        let (wide, outputs, tiles) = cuda::wide_gradient(channels, batch, operands);
        Self {
            inputs: wide.groups * cuda::BLOCK,
            outputs,
            all_taps: 0,
            panel: [batch, tiles],
            operands,
            units: units.taking(By::Groups(wide)),
        }
    }

    /// Work-groups that cover so many inputs, and so many outputs.
    pub(super) fn groups(self, inputs: usize, outputs: usize) -> [usize; 2] {
        let side = match self.units {
            Units::Cuda(_) => 1,
            Units::Scalar | Units::Matrix => SIDE,
        };
        [
            inputs.div_ceil(side * self.inputs),
            outputs.div_ceil(side * self.outputs),
        ]
    }

    /// How matrix units compute it: both operands lie with the channels of a sample side by side.
    fn plan(self) -> Plan {
        Plan::new(
            self.inputs,
            self.outputs,
            self.operands,
            [Order::Lines, Order::Lines],
        )
    }
}

/// Words of a gradient: groups, input, delta, links, out, batch, inputs, outputs, taps, parts, scale; CUDA's kernels read
/// four more, values of the input and of delta, rows of the result, and locations.
pub(super) const GRADIENT_WORDS: usize = 15;

/// What a work-group of a gradient sums, and where its tile lies.
#[derive(CubeType)]
struct Part {
    input: usize,
    delta: usize,
    batch: usize,
    inputs: usize,
    outputs: usize,
    first_input: usize,
    first_output: usize,
    /// Where the part's links (source, destination) begin.
    pairs: usize,
    /// Samples of all links.
    depth: usize,
}

/// `out[part, tap, input, output] = scale · Σ a(src)ᵀ delta(dst)` over the part's links of the tap.
///
/// Links are `taps + 1` starts, then (source, destination) for each link.
#[cube(launch_unchecked)]
pub(super) fn gradient_part(
    heap: &mut Array<f32>,
    links: &Array<u32>,
    table: &Array<u32>,
    first_word: usize,
    #[comptime] tile: GradientTile,
) {
    let at = item(first_word, GRADIENT_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let starts = table[at + 3] as usize;
    let out = table[at + 4] as usize;
    let batch = table[at + 5] as usize;
    let inputs = table[at + 6] as usize;
    let outputs = table[at + 7] as usize;
    let taps = table[at + 8] as usize;
    let parts = table[at + 9] as usize;
    let scale = f32::reinterpret(table[at + 10]);
    let mut sums = Array::<f32>::new(comptime!(tile.inputs * tile.outputs));
    #[unroll]
    for i in 0..comptime!(tile.inputs * tile.outputs) {
        sums[i] = 0.0;
    }
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    // Inputs fastest, then outputs, then parts, then taps.
    let across = inputs.div_ceil(comptime!(SIDE * tile.inputs));
    let down = outputs.div_ceil(comptime!(SIDE * tile.outputs));
    let slice = group() / (across * down);
    let (tap, number) = (slice / parts, slice % parts);
    let tap_start = links[starts + tap] as usize;
    let count = links[starts + tap + 1] as usize - tap_start;
    let first_link = tap_start + count * number / parts;
    let last_link = tap_start + count * (number + 1) / parts;
    let part = Part {
        input: table[at + 1] as usize,
        delta: table[at + 2] as usize,
        batch,
        inputs,
        outputs,
        first_input: group() % across * comptime!(SIDE * tile.inputs),
        first_output: group() / across % down * comptime!(SIDE * tile.outputs),
        pairs: starts + taps + 1 + 2 * first_link,
        depth: (last_link - first_link) * batch,
    };
    if comptime!(tile.units == Units::Scalar) {
        sum_by_threads(heap, links, &mut sums, &part, tile);
    } else if comptime!(tile.operands == Operands::Bf16) {
        sum_by_planes::<bf16, bf16>(heap, links, &mut sums, &part, tile);
    } else {
        sum_by_planes::<f32, tf32>(heap, links, &mut sums, &part, tile);
    }
    #[unroll]
    for i in 0..tile.inputs {
        let x = part.first_input + row + i * SIDE;
        #[unroll]
        for j in 0..tile.outputs {
            let y = part.first_output + column + j * SIDE;
            if x < inputs && y < outputs {
                heap[out + ((number * taps + tap) * inputs + x) * outputs + y] =
                    scale * sums[i * tile.outputs + j];
            }
        }
    }
}

/// Adds a part's products to `sums`, `[input, output]` of the thread's tile: each thread for itself.
#[cube]
fn sum_by_threads(
    heap: &Array<f32>,
    links: &Array<u32>,
    sums: &mut Array<f32>,
    part: &Part,
    #[comptime] tile: GradientTile,
) {
    let a_stride = comptime!(SIDE * tile.inputs);
    let d_stride = comptime!(SIDE * tile.outputs);
    let mut a = SharedMemory::<f32>::new(comptime!(DEPTH * a_stride));
    let mut d = SharedMemory::<f32>::new(comptime!(DEPTH * d_stride));
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let chunks = part.depth.div_ceil(DEPTH);
    for chunk in 0..chunks {
        let term = chunk * DEPTH + row;
        let mut source = 0usize;
        let mut destination = 0usize;
        let mut r = 0usize;
        if term < part.depth {
            let link = term / part.batch;
            r = term % part.batch;
            source = links[part.pairs + 2 * link] as usize;
            destination = links[part.pairs + 2 * link + 1] as usize;
        }
        #[unroll]
        for i in 0..tile.inputs {
            let c = part.first_input + column + i * SIDE;
            let at = part.input + (source * part.batch + r) * part.inputs + c;
            a[row * a_stride + column + i * SIDE] = operand_or_zero(
                heap,
                at,
                term < part.depth && c < part.inputs,
                tile.operands,
            );
        }
        #[unroll]
        for j in 0..tile.outputs {
            let c = part.first_output + column + j * SIDE;
            let at = part.delta + (destination * part.batch + r) * part.outputs + c;
            d[row * d_stride + column + j * SIDE] = operand_or_zero(
                heap,
                at,
                term < part.depth && c < part.outputs,
                tile.operands,
            );
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
}

/// [`sum_by_threads`] by matrix units, with their operands `M`, staged as `S`.
#[cube]
fn sum_by_planes<S: Float, M: Float>(
    heap: &Array<f32>,
    links: &Array<u32>,
    sums: &mut Array<f32>,
    part: &Part,
    #[comptime] tile: GradientTile,
) {
    let plan = comptime!(tile.plan());
    let mut stage = stage::<S>(plan);
    let pieces = pieces::<M>(plan);
    let chunks = part.depth.div_ceil(comptime!(tile.operands.depth()));
    read_samples(heap, links, &mut stage, part, 0usize, plan);
    for chunk in 0..chunks {
        put_terms(&mut stage, chunk % 2, plan);
        // The next blocks' values are on their way while these are multiplied.
        read_samples(heap, links, &mut stage, part, chunk + 1, plan);
        multiply(&stage, &pieces, chunk % 2, plan);
    }
    leave(stage);
    hand_out(&pieces, sums, plan);
}

/// Reads a thread's values of chunk `chunk` of a part: zeros beyond its end.
#[cube]
fn read_samples<S: Float>(
    heap: &Array<f32>,
    links: &Array<u32>,
    stage: &mut Stage<S>,
    part: &Part,
    chunk: usize,
    #[comptime] plan: Plan,
) {
    let term = chunk * comptime!(plan.operands.depth()) + own_term(plan.left);
    let mut input = Term {
        start: part.input,
        step: 1usize,
        end: 0usize,
    };
    let mut delta = Term {
        start: part.delta,
        step: 1usize,
        end: 0usize,
    };
    if term < part.depth {
        let link = part.pairs + 2 * (term / part.batch);
        let r = term % part.batch;
        input.start += (links[link] as usize * part.batch + r) * part.inputs;
        input.end = part.inputs;
        delta.start += (links[link + 1] as usize * part.batch + r) * part.outputs;
        delta.end = part.outputs;
    }
    read_terms(
        heap,
        stage,
        &input,
        &delta,
        part.first_input,
        part.first_output,
        plan,
    );
}

/// Words of a bias gradient: groups, delta, out, rows, channels, parts; CUDA's kernels read one more, the rows of a panel.
pub(super) const BIAS_WORDS: usize = 7;

/// `out[part, channel] = Σ delta` over the part's rows.
#[cube(launch_unchecked)]
pub(super) fn bias_part(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize) {
    let at = item(first_word, BIAS_WORDS);
    if group() >= table[at] as usize {
        terminate!();
    }
    let delta = table[at + 1] as usize;
    let out = table[at + 2] as usize;
    let rows = table[at + 3] as usize;
    let channels = table[at + 4] as usize;
    let parts = table[at + 5] as usize;
    let mut shared = SharedMemory::<f32>::new(comptime!(SIDE * SIDE));
    let (row, column) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let c = group() / parts * SIDE + column;
    let part = group() % parts;
    let first = rows * part / parts;
    let last = rows * (part + 1) / parts;
    let turns = (last - first).div_ceil(SIDE);
    let mut sum = 0.0f32;
    for turn in 0..turns {
        let r = first + turn * SIDE + row;
        if r < last && c < channels {
            sum += heap[delta + r * channels + c];
        }
    }
    shared[row * SIDE + column] = sum;
    sync_cube();
    if row == 0 && c < channels {
        let mut total = 0.0f32;
        for r in 0..SIDE {
            total += shared[r * SIDE + column];
        }
        heap[out + part * channels + c] = total;
    }
}

/// Words of a sum of parts: groups, parts, out, number of parts, values of one; CUDA's kernels read one more, the values
/// that a work-group adds.
pub(super) const ADD_WORDS: usize = 6;

/// `out[i] = Σ_part parts[part, i]`, part by part.
#[cube(launch_unchecked)]
pub(super) fn add_parts(heap: &mut Array<f32>, table: &Array<u32>, first_word: usize) {
    let item = item(first_word, ADD_WORDS);
    let at = place();
    let len = table[item + 4] as usize;
    if at < len {
        let parts = table[item + 1] as usize;
        let count = table[item + 3] as usize;
        let mut total = 0.0f32;
        for part in 0..count {
            total += heap[parts + part * len + at];
        }
        let to = table[item + 2] as usize + at;
        heap[to] = total;
    }
}
