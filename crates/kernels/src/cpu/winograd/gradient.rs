//! Weight gradients: outer products at the 36 points, summed over tiles in an order that the shape fixes.

use super::gather::source_points;
use super::transform::{Gradient, Signals, plane};
use super::{POINTS, TILE, Tiles};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::{Lanes, load, store};
use crate::cpu::outer_product::{OuterProduct, Sum, add_outer_product, add_rows};
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::weight_gradient::{CHUNKS, INPUTS_PER_TASK, Operands, PARTIAL_VALUES};

/// `∂W = scale · Σ aᵀ delta` and `∂b = Σ delta` of a layer with tiles; `partials` is scratch.
pub(in crate::cpu) fn gradient(
    workers: &mut Workers<'_>,
    tiles: Tiles,
    operands: &Operands<'_>,
    partials: &mut CpuBuffer,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let (layer, batch, set) = (operands.layer, operands.batch, workers.set);
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let matrix = inputs * outputs;
    let chunks = (PARTIAL_VALUES / (POINTS * matrix)).clamp(1, CHUNKS);
    let chunks = chunks.min(tiles.count());
    let blocks = inputs.div_ceil(INPUTS_PER_TASK);
    // Behind a chunk's sums at the points lies its sum of biases.
    let chunk_len = (POINTS * matrix + outputs).next_multiple_of(16);
    partials.reserve(chunks * chunk_len);
    let shared = Pointer::new(partials);
    let cost = POINTS * tiles.count() * matrix * batch / (chunks * blocks);
    let sources = (POINTS * batch * inputs.min(INPUTS_PER_TASK)).next_multiple_of(16);
    let len = sources + POINTS * batch * outputs + 16;
    let work = |scratch: &mut [f32], task: usize| {
        let (chunk, block) = (task / blocks, task % blocks);
        let part = |i: usize| i * tiles.count() / chunks;
        let (sources, signals) = scratch.split_at_mut(sources);
        let kernel = ChunkKernel {
            tiles,
            operands,
            part: part(chunk)..part(chunk + 1),
            rows: block * INPUTS_PER_TASK..((block + 1) * INPUTS_PER_TASK).min(inputs),
            sums: shared.skip(chunk * chunk_len),
            with_bias: block == 0,
            sources,
            signals,
        };
        // SAFETY: `set` is available; a task alone touches its rows of its chunk's sums, and the first block's task
        // the chunk's biases.
        unsafe { set.run(kernel) };
    };
    workers.for_each(chunks * blocks, cost, len, work);
    let partials = &partials[..chunks * chunk_len];
    let out = Pointer::new(weights);
    let cost = 2 * POINTS * outputs * chunks;
    workers.threads.for_each(inputs, cost, |_, input| {
        let kernel = RowKernel {
            partials,
            chunk_len,
            input,
            shape: (inputs, outputs),
            scale: layer.scale as f32,
            out,
        };
        // SAFETY: `set` is available; every item writes its own input's rows.
        unsafe { set.run(kernel) };
    });
    let biases = &mut biases[..outputs];
    biases.fill(0.0);
    for chunk in partials.chunks_exact(chunk_len) {
        for (sum, v) in biases.iter_mut().zip(&chunk[POINTS * matrix..]) {
            *sum += v;
        }
    }
}

struct ChunkKernel<'a> {
    tiles: Tiles,
    operands: &'a Operands<'a>,
    /// Tiles of this chunk.
    part: std::ops::Range<usize>,
    /// Inputs of this task.
    rows: std::ops::Range<usize>,
    /// `[point, input of the whole layer, output]`, then the biases.
    sums: Pointer,
    with_bias: bool,
    /// `[point, batch, input of this task]`
    sources: &'a mut [f32],
    /// `[point, batch, output]`
    signals: &'a mut [f32],
}

impl Kernel for ChunkKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let &Operands {
            layer,
            batch,
            input,
            delta,
        } = self.operands;
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let rows = self.rows.len();
        // SAFETY: places are whole panels or null; all offsets lie inside the arrays that `gradient` measured.
        unsafe {
            for point in 0..POINTS {
                let at = (point * inputs + self.rows.start) * outputs;
                self.sums.slice(at, rows * outputs).fill(0.0);
            }
            let biases = self.sums.slice(POINTS * inputs * outputs, outputs);
            if self.with_bias {
                biases.fill(0.0);
            }
            for tile in self.part.clone() {
                let places = self.tiles.sources(tile, input.as_ptr(), batch * inputs);
                for sample in 0..batch {
                    let mut at = 0;
                    while at < rows {
                        let count = V::LEN.min(rows - at);
                        let from = sample * inputs + self.rows.start + at;
                        let points = source_points::<V>(&places, from, count);
                        for (point, value) in points.iter().flatten().enumerate() {
                            let to = (point * batch + sample) * rows + at;
                            store(*value, self.sources.as_mut_ptr().add(to), count);
                        }
                        at += V::LEN;
                    }
                }
                let len = batch * outputs;
                let mut at = 0;
                while at < len {
                    let count = V::LEN.min(len - at);
                    let mut y = [[V::splat(0.0); TILE]; TILE];
                    for (i, value) in y.iter_mut().flatten().enumerate() {
                        let (row, column) = ((i / TILE) as isize, (i % TILE) as isize);
                        if let Some(location) = self.tiles.location(tile, row, column) {
                            *value = load::<V>(delta.as_ptr().add(location * len + at), count);
                        }
                    }
                    let points = plane::<Signals, V, TILE, 6>(y);
                    for (point, value) in points.iter().flatten().enumerate() {
                        let to = self.signals.as_mut_ptr().add(point * len + at);
                        store(*value, to, count);
                    }
                    at += V::LEN;
                }
                for point in 0..POINTS {
                    let product = OuterProduct {
                        a: self.sources.as_ptr().add(point * batch * rows),
                        inputs: rows,
                        rows,
                        delta: self.signals.as_ptr().add(point * len),
                        delta_row: outputs,
                        outputs,
                        batch,
                    };
                    let at = (point * inputs + self.rows.start) * outputs;
                    add_outer_product::<V>(product, Sum::more(self.sums.at(at), outputs));
                }
                if self.with_bias {
                    for i in 0..TILE * TILE {
                        let (row, column) = ((i / TILE) as isize, (i % TILE) as isize);
                        if let Some(location) = self.tiles.location(tile, row, column) {
                            let panel = &delta[location * len..][..len];
                            add_rows::<V>(panel, biases);
                        }
                    }
                }
            }
        }
    }
}

/// One input's gradient: chunks added in order, points to taps, scaled.
struct RowKernel<'a> {
    partials: &'a [f32],
    chunk_len: usize,
    input: usize,
    /// Inputs and outputs of the layer.
    shape: (usize, usize),
    scale: f32,
    out: Pointer,
}

impl Kernel for RowKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (inputs, outputs) = self.shape;
        let mut at = 0;
        while at < outputs {
            let count = V::LEN.min(outputs - at);
            // SAFETY: `count` outputs from `at` on lie inside every matrix.
            unsafe {
                let mut s = [[V::splat(0.0); 6]; 6];
                for (point, sum) in s.iter_mut().flatten().enumerate() {
                    let from = (point * inputs + self.input) * outputs + at;
                    for chunk in self.partials.chunks_exact(self.chunk_len) {
                        *sum = sum.add(load::<V>(chunk.as_ptr().add(from), count));
                    }
                }
                let g = plane::<Gradient, V, 6, 3>(s);
                for (tap, value) in g.iter().flatten().enumerate() {
                    let to = (tap * inputs + self.input) * outputs + at;
                    let scaled = value.mul(V::splat(self.scale));
                    store(scaled, self.out.at(to), count);
                }
            }
            at += V::LEN;
        }
    }
}
