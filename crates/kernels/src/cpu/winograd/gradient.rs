//! Weight gradients: outer products at the 36 points, summed over tiles in an order that the shape fixes.

use super::gather::AHEAD;
use super::transform::{Gradient, Line, Panels, Signals, Sources, plane};
use super::{POINTS, TILE, Tiles, apart, transform};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::{Lanes, load, store};
use crate::cpu::outer_product::{OuterProduct, Sum, add_outer_product, add_rows};
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::weight_gradient::Operands;
use std::ops::Range;

/// Tiles are cut into chunks, each with a partial sum of its own: at most this many, …
const CHUNKS: usize = 8;
/// … of at least this many tiles, …
const FEWEST_TILES: usize = 2;
/// … and, but for two, with at most this many values at the points in all (10 MB): each is written, and read again.
const PARTIAL_VALUES: usize = 5 << 19;

/// Inputs of a task: with many, signals are seldom transformed again; with few, there are more tasks to share.
const INPUTS: [usize; 3] = [128, 64, 32];

/// Outputs whose signals are transformed at once.
const OUTPUTS: usize = 128;

/// The point that is at 1 along both sides: there, signals are the sums of all sixteen destinations.
const AT_ONE: usize = 7;

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
    let chunks = (PARTIAL_VALUES / (POINTS * matrix)).clamp(2, CHUNKS);
    let chunks = chunks.min(tiles.count() / FEWEST_TILES).max(1);
    let most = INPUTS
        .into_iter()
        .find(|most| chunks * inputs.div_ceil(*most) >= 2 * workers.threads.count())
        .unwrap_or(INPUTS[INPUTS.len() - 1]);
    let blocks = inputs.div_ceil(most);
    // Behind a chunk's sums at the points lies its sum of biases.
    let chunk_len = (POINTS * matrix + outputs).next_multiple_of(16);
    partials.reserve(chunks * chunk_len);
    let shared = Pointer::new(partials);
    let cost = POINTS * tiles.count() * matrix * batch / (chunks * blocks);
    let source = apart(batch * inputs.min(most));
    let signal = apart(batch * outputs.min(OUTPUTS));
    let work = |scratch: &mut [f32], task: usize| {
        let (chunk, block) = (task / blocks, task % blocks);
        let part = |i: usize| i * tiles.count() / chunks;
        let (sources, signals) = scratch.split_at_mut(POINTS * source);
        let kernel = ChunkKernel {
            tiles,
            operands,
            part: part(chunk)..part(chunk + 1),
            rows: block * most..((block + 1) * most).min(inputs),
            sums: shared.skip(chunk * chunk_len),
            with_bias: block == 0,
            sources,
            signals,
        };
        // SAFETY: `set` is available; a task alone touches its rows of its chunk's sums, and the first block's task
        // the chunk's biases.
        unsafe { set.run_wide(kernel) };
    };
    workers.for_each(chunks * blocks, cost, POINTS * (source + signal), work);
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
        unsafe { set.run_wide(kernel) };
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
    /// `[point, batch, output of a block]`
    signals: &'a mut [f32],
}

impl Kernel for ChunkKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let (inputs, outputs) = (self.operands.layer.inputs, self.operands.layer.outputs);
        // SAFETY: this task alone has its rows of the chunk's sums, and its scratch arrays, which `gradient` measured.
        unsafe {
            if self.with_bias {
                self.sums
                    .slice(POINTS * inputs * outputs, outputs)
                    .fill(0.0);
            }
            for tile in self.part.clone() {
                self.transform_sources::<V>(tile);
                for first in (0..outputs).step_by(OUTPUTS) {
                    let columns = first..(first + OUTPUTS).min(outputs);
                    self.transform_signals::<V>(tile, columns.clone());
                    self.add_products::<V>(columns, tile > self.part.start);
                }
            }
        }
    }
}

impl ChunkKernel<'_> {
    /// A tile's sources at the points.
    ///
    /// # Safety
    /// The instruction set of `V`; panels and scratch arrays of the layer's shape.
    #[inline(always)]
    unsafe fn transform_sources<V: Lanes>(&mut self, tile: usize) {
        let &Operands { batch, input, .. } = self.operands;
        let depth = self.operands.layer.inputs;
        let places = self.tiles.sources(tile, input.as_ptr(), batch * depth);
        // SAFETY: handed on from the caller.
        unsafe {
            to_points::<Sources, V, 6>(&places, (batch, depth), self.rows.clone(), self.sources);
        }
    }

    /// Some columns of a tile's signals at the points.
    ///
    /// # Safety
    /// As for the sources.
    #[inline(always)]
    unsafe fn transform_signals<V: Lanes>(&mut self, tile: usize, columns: Range<usize>) {
        let &Operands { batch, delta, .. } = self.operands;
        let depth = self.operands.layer.outputs;
        let places = self.tiles.destinations(tile, delta.as_ptr(), batch * depth);
        // SAFETY: handed on from the caller.
        unsafe {
            to_points::<Signals, V, TILE>(&places, (batch, depth), columns, self.signals);
        }
    }

    /// Adds the products of a tile's sources and of its signals of some columns to the sums, or puts them there.
    ///
    /// # Safety
    /// As for the sources; both transformed.
    #[inline(always)]
    unsafe fn add_products<V: Lanes>(&self, columns: Range<usize>, add: bool) {
        let &Operands { layer, batch, .. } = self.operands;
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (source, signal) = (self.sources.len() / POINTS, self.signals.len() / POINTS);
        let (rows, len) = (self.rows.len(), columns.len());
        // SAFETY: handed on from the caller.
        unsafe {
            for point in 0..POINTS {
                let product = OuterProduct {
                    a: self.sources[point * source..].as_ptr(),
                    inputs: rows,
                    rows,
                    delta: self.signals[point * signal..].as_ptr(),
                    delta_row: len,
                    outputs: len,
                    batch,
                };
                let at = (point * inputs + self.rows.start) * outputs + columns.start;
                let sum = Sum::more(self.sums.at(at), outputs);
                add_outer_product::<V>(product, Sum { add, ..sum });
            }
            if self.with_bias {
                let at_one = &self.signals[AT_ONE * signal..][..batch * len];
                let biases = POINTS * inputs * outputs + columns.start;
                add_rows::<V>(at_one, self.sums.slice(biases, len));
            }
        }
    }
}

/// Channels `wanted` of all samples of panels `[batch, depth]` at the points, `[point, batch, wanted]` with each point's a
/// distance apart.
///
/// # Safety
/// As for the sources.
#[inline(always)]
unsafe fn to_points<L: Line<N, 6>, V: Lanes, const N: usize>(
    places: &Panels<N>,
    (batch, depth): (usize, usize),
    wanted: Range<usize>,
    points: &mut [f32],
) {
    let (len, apart) = (wanted.len(), points.len() / POINTS);
    // Whole rows follow each other.
    let (runs, len) = match len == depth {
        true => (1, batch * depth),
        false => (batch, len),
    };
    let ahead = match runs {
        1 => AHEAD,
        _ => AHEAD.div_ceil(len) * depth,
    };
    for run in 0..runs {
        let to = (points.as_mut_ptr().wrapping_add(run * len), apart);
        let from = run * depth + wanted.start;
        // SAFETY: handed on from the caller.
        unsafe { transform::to_points::<L, V, N>(places, (from, len), ahead, to) }
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
                plane::<Gradient, V, 6, 3>(
                    |i, j| s[i][j],
                    |i, j, value| {
                        let to = ((i * 3 + j) * inputs + self.input) * outputs + at;
                        let scaled = value.mul(V::splat(self.scale));
                        store(scaled, self.out.at(to), count);
                    },
                );
            }
            at += V::LEN;
        }
    }
}
