//! Weight gradients: outer products at the points, summed by matrices and over tiles in an order that the shape fixes.

use super::gather::AHEAD;
use super::stride_2::{self, Even, Odd};
use super::transform::{self, Line, Panels, Side, Whole, plane};
use super::{MATRICES, SIDE, TILE, Tiles, apart};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::{Lanes, load, store};
use crate::cpu::outer_product::{OuterProduct, Sum, add_outer_product, add_rows};
use crate::cpu::pack::Direction;
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::values::Value;
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

/// `∂W = scale · Σ aᵀ delta` and `∂b = Σ delta` of a layer with tiles; `partials` is scratch.
pub(in crate::cpu) fn gradient<E: Value>(
    workers: &mut Workers<'_>,
    tiles: Tiles,
    operands: &Operands<'_, &[E]>,
    partials: &mut CpuBuffer,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let gradient = match tiles.grid.stride {
        1 => gradient_by::<1, E>,
        _ => gradient_by::<2, E>,
    };
    gradient(workers, tiles, operands, partials, weights, biases);
}

fn gradient_by<const STRIDE: usize, E: Value>(
    workers: &mut Workers<'_>,
    tiles: Tiles,
    operands: &Operands<'_, &[E]>,
    partials: &mut CpuBuffer,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let points = tiles.points();
    let (layer, batch, set) = (operands.layer, operands.batch, workers.set);
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let matrix = inputs * outputs;
    let chunks = (PARTIAL_VALUES / (MATRICES * matrix)).clamp(2, CHUNKS);
    let chunks = chunks.min(tiles.count() / FEWEST_TILES).max(1);
    let most = INPUTS
        .into_iter()
        .find(|most| chunks * inputs.div_ceil(*most) >= 2 * workers.threads.count())
        .unwrap_or(INPUTS[INPUTS.len() - 1]);
    let blocks = inputs.div_ceil(most);
    // Behind a chunk's sums lies its sum of biases.
    let chunk_len = (MATRICES * matrix + outputs).next_multiple_of(16);
    partials.reserve(chunks * chunk_len);
    let shared = Pointer::new(partials);
    let cost = tiles.products() * tiles.count() * matrix * batch / (chunks * blocks);
    let source = apart(batch * inputs.min(most));
    let signal = apart(batch * outputs.min(OUTPUTS));
    let work = |scratch: &mut [f32], task: usize| {
        let (chunk, block) = (task / blocks, task % blocks);
        let part = |i: usize| i * tiles.count() / chunks;
        let (sources, signals) = scratch.split_at_mut(points * source);
        let kernel = ChunkKernel::<STRIDE, E> {
            distances: (source, signal),
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
    workers.for_each(chunks * blocks, cost, points * (source + signal), work);
    let partials = &partials[..chunks * chunk_len];
    let out = Pointer::new(weights);
    let cost = 2 * MATRICES * outputs * chunks;
    workers.threads.for_each(inputs, cost, |_, input| {
        let kernel = RowKernel::<STRIDE> {
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
        for (sum, v) in biases.iter_mut().zip(&chunk[MATRICES * matrix..]) {
            *sum += v;
        }
    }
}

struct ChunkKernel<'a, const STRIDE: usize, E> {
    tiles: Tiles,
    operands: &'a Operands<'a, &'a [E]>,
    /// Tiles of this chunk.
    part: Range<usize>,
    /// Inputs of this task.
    rows: Range<usize>,
    /// `[matrix, input of the whole layer, output]`, then the biases.
    sums: Pointer,
    with_bias: bool,
    /// From one point's sources and signals to the next one's.
    distances: (usize, usize),
    /// `[point, batch, input of this task]`
    sources: &'a mut [f32],
    /// `[point, batch, output of a block]`
    signals: &'a mut [f32],
}

impl<const STRIDE: usize, E: Value> Kernel for ChunkKernel<'_, STRIDE, E> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let (inputs, outputs) = (self.operands.layer.inputs, self.operands.layer.outputs);
        // SAFETY: this task alone has its rows of the chunk's sums, and its scratch arrays, which `gradient` measured.
        unsafe {
            if self.with_bias {
                self.sums
                    .slice(MATRICES * inputs * outputs, outputs)
                    .fill(0.0);
            }
            for tile in self.part.clone() {
                match STRIDE {
                    1 => self.add::<Whole, Whole, V, 6, 6>(tile),
                    _ => {
                        self.add::<Even, Even, V, 5, 5>(tile);
                        self.add::<Even, Odd, V, 5, 4>(tile);
                        self.add::<Odd, Even, V, 4, 5>(tile);
                        self.add::<Odd, Odd, V, 4, 4>(tile);
                    }
                }
            }
        }
    }
}

impl<const STRIDE: usize, E: Value> ChunkKernel<'_, STRIDE, E> {
    /// Adds to the sums what a part of a tile's rows and columns gives.
    ///
    /// # Safety
    /// The instruction set of `V`; panels and scratch arrays of the layer's shape.
    #[inline(always)]
    unsafe fn add<R: Side<NR>, C: Side<NC>, V: Lanes, const NR: usize, const NC: usize>(
        &mut self,
        tile: usize,
    ) {
        let &Operands {
            layer,
            batch,
            input,
            delta,
        } = self.operands;
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (source, signal) = self.distances;
        let first = [R::FIRST, C::FIRST];
        let places = self.tiles.sources(Direction::Forward, first);
        let places = places.panels(tile, input.as_ptr(), batch * inputs);
        let rows = self.rows.clone();
        let to = (&mut *self.sources, source);
        // SAFETY: handed on from the caller.
        unsafe {
            to_points::<R::Sources, C::Sources, V, E, NR, NC, NR, NC>(
                &places,
                (batch, inputs),
                rows,
                to,
            );
        }
        let places = self.tiles.destinations(Direction::Forward, first);
        let places = places.panels(tile, delta.as_ptr(), batch * outputs);
        for from in (0..outputs).step_by(OUTPUTS) {
            let columns = from..(from + OUTPUTS).min(outputs);
            let to = (&mut *self.signals, signal);
            // SAFETY: handed on from the caller.
            unsafe {
                to_points::<R::Signals, C::Signals, V, E, TILE, TILE, NR, NC>(
                    &places,
                    (batch, outputs),
                    columns.clone(),
                    to,
                );
            }
            let mut added = [false; MATRICES];
            for point in 0..NR * NC {
                let matrix = R::MATRIX[point / NC] * SIDE + C::MATRIX[point % NC];
                let product = OuterProduct {
                    a: self.sources[point * source..].as_ptr(),
                    inputs: self.rows.len(),
                    rows: self.rows.len(),
                    delta: self.signals[point * signal..].as_ptr(),
                    delta_row: columns.len(),
                    outputs: columns.len(),
                    batch,
                };
                let add = tile > self.part.start || added[matrix];
                // SAFETY: handed on from the caller.
                unsafe { self.add_product::<V>(product, matrix, columns.start, add) };
                added[matrix] = true;
            }
            if self.with_bias && first == [0, 0] {
                // The second point of a side is at 1: there, signals are the sums of all destinations.
                let at_one = &self.signals[(NC + 1) * signal..][..batch * columns.len()];
                let biases = MATRICES * inputs * outputs + columns.start;
                // SAFETY: this task alone has the biases.
                unsafe { add_rows::<V, _>(at_one, self.sums.slice(biases, columns.len())) };
            }
        }
    }

    /// Adds a product to the sums of a matrix from column `column` on, or puts it there.
    ///
    /// # Safety
    /// As for [`add`](Self::add).
    #[inline(always)]
    unsafe fn add_product<V: Lanes>(
        &self,
        product: OuterProduct,
        matrix: usize,
        column: usize,
        add: bool,
    ) {
        let layer = self.operands.layer;
        let at = (matrix * layer.inputs + self.rows.start) * layer.outputs + column;
        // SAFETY: handed on from the caller.
        unsafe {
            let sum = Sum::more(self.sums.at(at), layer.outputs);
            add_outer_product::<V>(product, Sum { add, ..sum });
        }
    }
}

/// Channels `wanted` of all samples of panels `[batch, depth]` at the points, `[point, batch, wanted]` with each point's a
/// distance apart.
///
/// # Safety
/// The instruction set of `V`; panels and room at the points of that shape.
#[inline(always)]
unsafe fn to_points<
    R,
    C,
    V: Lanes,
    E: Value,
    const NR: usize,
    const NC: usize,
    const PR: usize,
    const PC: usize,
>(
    places: &Panels<E, NR, NC>,
    (batch, depth): (usize, usize),
    wanted: Range<usize>,
    (points, apart): (&mut [f32], usize),
) where
    R: Line<NR, PR>,
    C: Line<NC, PC>,
{
    let len = wanted.len();
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
        unsafe {
            transform::to_points::<R, C, V, E, NR, NC, PR, PC>(places, (from, len), ahead, to)
        }
    }
}

/// One input's gradient: chunks added in order, matrices to taps, scaled.
struct RowKernel<'a, const STRIDE: usize> {
    partials: &'a [f32],
    chunk_len: usize,
    input: usize,
    /// Inputs and outputs of the layer.
    shape: (usize, usize),
    scale: f32,
    out: Pointer,
}

impl<const STRIDE: usize> Kernel for RowKernel<'_, STRIDE> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for at in (0..self.shape.1).step_by(V::LEN) {
            // SAFETY: this item alone has its input's rows.
            unsafe {
                match STRIDE {
                    1 => self.finish::<transform::Gradient, V>(at),
                    _ => self.finish::<stride_2::Gradient, V>(at),
                }
            }
        }
    }
}

impl<const STRIDE: usize> RowKernel<'_, STRIDE> {
    /// One vector's outputs, from output `at` on.
    ///
    /// # Safety
    /// The instruction set of `V`; nobody else has the input's rows.
    #[inline(always)]
    unsafe fn finish<L: Line<SIDE, 3>, V: Lanes>(&self, at: usize) {
        let (inputs, outputs) = self.shape;
        let count = V::LEN.min(outputs - at);
        // SAFETY: `count` outputs from `at` on lie inside every matrix.
        unsafe {
            let mut s = [[V::splat(0.0); SIDE]; SIDE];
            for (matrix, sum) in s.iter_mut().flatten().enumerate() {
                let from = (matrix * inputs + self.input) * outputs + at;
                for chunk in self.partials.chunks_exact(self.chunk_len) {
                    *sum = sum.add(load::<V>(chunk.as_ptr().add(from), count));
                }
            }
            plane::<L, L, V, SIDE, SIDE, 3, 3>(
                |i, j| s[i][j],
                |i, j, value| {
                    let to = ((i * 3 + j) * inputs + self.input) * outputs + at;
                    store(value.mul(V::splat(self.scale)), self.out.at(to), count);
                },
            );
        }
    }
}
