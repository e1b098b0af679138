//! Weight gradients: outer products along the strips at the six points, summed over segments in an order that the shape
//! fixes.

use super::super::apart;
use super::super::transform::{Gradient, Line};
use super::{POINTS, Points, Samples, Segment, Strips, TAPS};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::{Lanes, load, store};
use crate::cpu::outer_product::{
    FEW_INPUTS, OuterProduct, Sum, add_outer_product, add_rows, add_three_outer_products,
};
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::weight_gradient::{CHUNKS, Operands};

/// Values of a chunk of samples at the points that one aims at: they should stay in the second-level cache.
const VALUES: usize = 24 << 10;

/// Chunks of segments that one aims at, at least.
const FEWEST_CHUNKS: usize = 4;

/// `∂W = scale · Σ aᵀ delta` and `∂b = Σ delta` of a layer with strips; `partials` is scratch.
pub(in crate::cpu) fn gradient(
    workers: &mut Workers<'_>,
    strips: Strips,
    operands: &Operands<'_>,
    partials: &mut CpuBuffer,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let (layer, batch, set) = (operands.layer, operands.batch, workers.set);
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let matrix = inputs * outputs;
    let strips = strips.in_segments(FEWEST_CHUNKS);
    let chunks = CHUNKS.min(strips.count());
    // Behind a chunk's sums at the points lies its sum of biases.
    let chunk_len = (POINTS * TAPS * matrix + outputs).next_multiple_of(16);
    partials.reserve(chunks * chunk_len);
    let shared = Pointer::new(partials);
    let parts = (POINTS * (strips.rows + 2) * batch * inputs.max(outputs)).div_ceil(VALUES);
    let parts = parts.min(batch);
    let samples = batch.div_ceil(parts);
    let source = apart((strips.rows + 2) * samples * inputs);
    let signal = apart(strips.rows * samples * outputs);
    let cost = layer.multiply_adds(batch) / (2 * chunks);
    let work = |scratch: &mut [f32], chunk: usize| {
        let part = |i: usize| i * strips.count() / chunks;
        let (sources, signals) = scratch.split_at_mut(POINTS * source);
        let kernel = ChunkKernel {
            strips,
            operands,
            segments: part(chunk)..part(chunk + 1),
            parts,
            sums: shared.skip(chunk * chunk_len),
            sources,
            signals,
        };
        // SAFETY: `set` is available; a task alone touches its chunk's sums.
        unsafe { set.run(kernel) };
    };
    // SAFETY: a kernel waits for nobody.
    unsafe { workers.for_each(chunks, cost, POINTS * (source + signal), work) };
    let kernel = FinishKernel {
        partials: &partials[..chunks * chunk_len],
        chunk_len,
        shape: (inputs, outputs),
        scale: layer.scale as f32,
        weights,
        biases: &mut biases[..outputs],
    };
    // SAFETY: `set` is available.
    unsafe { set.run(kernel) };
}

struct ChunkKernel<'a> {
    strips: Strips,
    operands: &'a Operands<'a>,
    /// Segments of this chunk.
    segments: std::ops::Range<usize>,
    /// Parts of the batch.
    parts: usize,
    /// `[point, tap along the strip, input, output]`, then the biases.
    sums: Pointer,
    /// `[point, row of sources, sample of the part, input]`
    sources: &'a mut [f32],
    /// `[point, row, sample of the part, output]`
    signals: &'a mut [f32],
}

impl ChunkKernel<'_> {
    /// Adds what some samples of a segment give.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    unsafe fn add<V: Lanes>(&mut self, segment: &Segment, from: usize, count: usize) {
        let &Operands {
            layer,
            batch,
            input,
            delta,
        } = self.operands;
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (source, signal) = (self.sources.len() / POINTS, self.signals.len() / POINTS);
        let (sources, signals) = (self.sources.as_mut_ptr(), self.signals.as_mut_ptr());
        // SAFETY: the scratch arrays have the lengths that `gradient` gave them; this task alone has its sums.
        unsafe {
            let rows = segment.rows.clone();
            for place in 0..rows.len() + 2 {
                let points = Points {
                    first: sources.add(place * count * inputs),
                    apart: source,
                };
                match (rows.start + place).checked_sub(1) {
                    Some(row) if row < segment.grid.height => {
                        let samples = Samples {
                            panels: input,
                            batch,
                            depth: inputs,
                            from,
                            count,
                        };
                        segment.sources::<V>(row, samples, points);
                    }
                    _ => points.clear(count * inputs),
                }
            }
            for (place, row) in rows.clone().enumerate() {
                let samples = Samples {
                    panels: delta,
                    batch,
                    depth: outputs,
                    from,
                    count,
                };
                let points = Points {
                    first: signals.add(place * count * outputs),
                    apart: signal,
                };
                segment.signals::<V>(row, samples, points);
            }
            // Point 1 is at 1: there, signals are the sums of all four destinations.
            let sums = &self.signals[signal..][..rows.len() * count * outputs];
            let biases = self.sums.slice(POINTS * TAPS * inputs * outputs, outputs);
            add_rows::<V>(sums, biases);
            for point in 0..POINTS {
                let product = OuterProduct {
                    a: std::ptr::null(),
                    inputs,
                    rows: inputs,
                    delta: signals.add(point * signal),
                    delta_row: outputs,
                    outputs,
                    batch: rows.len() * count,
                };
                let first = sources.add(point * source);
                let a: [_; TAPS] =
                    std::array::from_fn(|tap| first.add(tap * count * inputs).cast_const());
                let matrix = inputs * outputs;
                let sums: [_; TAPS] =
                    std::array::from_fn(|tap| self.sums.at((point * TAPS + tap) * matrix));
                if inputs <= FEW_INPUTS && outputs <= V::LEN {
                    add_three_outer_products::<V>(product, a, sums);
                } else {
                    for (a, sum) in a.into_iter().zip(sums) {
                        let product = OuterProduct { a, ..product };
                        add_outer_product::<V>(product, Sum::more(sum, outputs));
                    }
                }
            }
        }
    }
}

impl Kernel for ChunkKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let &Operands { layer, batch, .. } = self.operands;
        let len = POINTS * TAPS * layer.inputs * layer.outputs + layer.outputs;
        // SAFETY: this task alone has its sums, which `gradient` measured.
        unsafe {
            self.sums.slice(0, len).fill(0.0);
            for number in self.segments.clone() {
                let segment = self.strips.segment(number);
                for part in 0..self.parts {
                    let edge = |part: usize| part * batch / self.parts;
                    self.add::<V>(&segment, edge(part), edge(part + 1) - edge(part));
                }
            }
        }
    }
}

/// The gradient: chunks added in order, points to taps, scaled.
struct FinishKernel<'a> {
    partials: &'a [f32],
    chunk_len: usize,
    /// Inputs and outputs.
    shape: (usize, usize),
    scale: f32,
    weights: &'a mut [f32],
    biases: &'a mut [f32],
}

impl Kernel for FinishKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (inputs, outputs) = self.shape;
        let matrix = inputs * outputs;
        for tap in 0..TAPS {
            for at in (0..matrix).step_by(V::LEN) {
                let count = V::LEN.min(matrix - at);
                // SAFETY: `count` values from `at` on lie inside every matrix.
                unsafe {
                    let mut s = [V::splat(0.0); POINTS];
                    for (point, sum) in s.iter_mut().enumerate() {
                        let from = (point * TAPS + tap) * matrix + at;
                        for chunk in self.partials.chunks_exact(self.chunk_len) {
                            *sum = sum.add(load::<V>(chunk.as_ptr().add(from), count));
                        }
                    }
                    for (across, value) in Gradient::line(s).iter().enumerate() {
                        let to = (tap * TAPS + across) * matrix + at;
                        let scaled = value.mul(V::splat(self.scale));
                        store(scaled, self.weights.as_mut_ptr().add(to), count);
                    }
                }
            }
        }
        self.biases.fill(0.0);
        for chunk in self.partials.chunks_exact(self.chunk_len) {
            for (sum, v) in self.biases.iter_mut().zip(&chunk[POINTS * TAPS * matrix..]) {
                *sum += v;
            }
        }
    }
}
