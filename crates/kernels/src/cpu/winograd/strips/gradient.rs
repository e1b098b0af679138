//! Weight gradients: outer products along the strips at the six points, summed over segments in an order that the shape
//! fixes.

use super::super::apart;
use super::super::transform::{Gradient, Line, Signals, Sources};
use super::arriving::{Arriving, AtSegment};
use super::taps::{Taps, add_taps};
use super::{ACROSS, POINTS, Points, Samples, Segment, Strips, TAPS, to_points};
use crate::Layer;
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::{Lanes, load, store};
use crate::cpu::outer_product::{
    FEW_INPUTS, OuterProduct, Sum, add_outer_product, add_rows, add_three_outer_products,
};
use crate::cpu::pairs::MOST_INPUTS;
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::values::{Value, Values};
use crate::cpu::weight_gradient::{CHUNKS, PARTIAL_VALUES};

/// Values of a part of the samples at the points that one aims at: they should stay in the second-level cache …
const VALUES: usize = 24 << 10;
/// … but a part has at least so many terms of every sum, if there are that many: a sum comes from further away.
const TERMS: usize = 100;

/// Chunks of segments that one aims at, at least.
const FEWEST_CHUNKS: usize = 4;

/// The point that is at 1: there, signals are the sums of all four destinations.
const AT_ONE: usize = 1;

/// Into how many groups points can be cut.
const GROUPS: [usize; 4] = [1, 2, 3, 6];

impl Strips {
    /// The strips of a weight gradient, and the chunks in which it is summed.
    fn chunks(self, layer: &Layer) -> (Self, usize) {
        let strips = self.in_segments(FEWEST_CHUNKS);
        let mut chunks = CHUNKS.min(strips.count());
        while chunks > 1 && chunks * POINTS * TAPS * layer.inputs * layer.outputs > PARTIAL_VALUES {
            chunks /= 2;
        }
        (strips, chunks)
    }

    /// Whether a gradient keeps so many threads busy, if all points of a chunk are one task.
    pub(in crate::cpu) fn keep_busy(self, layer: &Layer, threads: usize) -> bool {
        threads == 1 || 2 * threads <= self.chunks(layer).1
    }
}

/// Where the deltas of a gradient come from.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Deltas<'a> {
    /// Panels `[location, batch, output]`.
    Panels(Values<'a>),
    /// They are made here, of a signal.
    Arriving(&'a Arriving<'a>),
}

/// `∂W = scale · Σ aᵀ delta` and `∂b = Σ delta` of a layer with strips and the inputs `[location, batch, input]`;
/// `partials` is scratch.
pub(in crate::cpu) fn gradient(
    workers: &mut Workers<'_>,
    (layer, strips): (&Layer, Strips),
    batch: usize,
    input: &[f32],
    deltas: Deltas<'_>,
    partials: &mut CpuBuffer,
    (weights, biases): (&mut [f32], &mut [f32]),
) {
    let set = workers.set;
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let matrix = inputs * outputs;
    let (strips, chunks) = strips.chunks(layer);
    // Behind a chunk's sums at the points lies its sum of biases.
    let chunk_len = (POINTS * TAPS * matrix + outputs).next_multiple_of(16);
    partials.reserve(chunks * chunk_len);
    let shared = Pointer::new(partials);
    let parts = (POINTS * (strips.rows + 2) * batch * inputs.max(outputs)).div_ceil(VALUES);
    let parts = parts.min((strips.rows * batch).div_ceil(TERMS)).min(batch);
    let samples = batch.div_ceil(parts);
    let source = apart((strips.rows + 2) * samples * inputs);
    let signal = apart(strips.rows * samples * outputs);
    let at_segment;
    let (deltas, made, room) = match deltas {
        Deltas::Panels(panels) => (SegmentDeltas::Panels(panels), 0, 0),
        Deltas::Arriving(arriving) => {
            at_segment = arriving.at(strips, batch);
            let made = strips.rows * ACROSS * batch * outputs;
            (SegmentDeltas::Made(&at_segment), made, at_segment.len())
        }
    };
    // Points may be shared out where chunks are few: each task then transforms what it reads again.
    let groups = match deltas {
        SegmentDeltas::Panels(_) => GROUPS
            .into_iter()
            .find(|groups| chunks * groups >= 2 * workers.threads.count())
            .unwrap_or(POINTS),
        SegmentDeltas::Made(_) => 1,
    };
    let cost = layer.multiply_adds(batch) / (2 * chunks * groups);
    let work = |scratch: &mut [f32], task: usize| {
        let (chunk, group) = (task / groups, task % groups);
        let part = |i: usize| i * strips.count() / chunks;
        let (sources, rest) = scratch.split_at_mut(POINTS * source);
        let (signals, rest) = rest.split_at_mut(POINTS * signal);
        let (made, scratch) = rest.split_at_mut(made);
        let kernel = ChunkKernel {
            strips,
            layer,
            batch,
            input,
            deltas,
            segments: part(chunk)..part(chunk + 1),
            points: group * POINTS / groups..(group + 1) * POINTS / groups,
            parts,
            sums: shared.skip(chunk * chunk_len),
            sources,
            signals,
            made,
            scratch,
        };
        // SAFETY: `set` is available; a task alone touches its chunk's sums at its points, and one of a chunk's tasks its
        // biases.
        unsafe { set.run(kernel) };
    };
    let len = POINTS * (source + signal) + made + room;
    workers.for_each(chunks * groups, cost, len, work);
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

/// Where the deltas of a segment come from.
#[derive(Clone, Copy)]
enum SegmentDeltas<'a> {
    /// Panels `[location, batch, output]`.
    Panels(Values<'a>),
    /// They are made from a signal.
    Made(&'a AtSegment<'a>),
}

struct ChunkKernel<'a> {
    strips: Strips,
    layer: &'a Layer,
    batch: usize,
    input: &'a [f32],
    deltas: SegmentDeltas<'a>,
    /// Segments of this chunk.
    segments: std::ops::Range<usize>,
    /// Points of this task.
    points: std::ops::Range<usize>,
    /// Parts of the batch.
    parts: usize,
    /// `[point, tap along the strip, input, output]`, then the biases.
    sums: Pointer,
    /// `[point, row of sources, sample of the part, input]`
    sources: &'a mut [f32],
    /// `[point, row, sample of the part, output]`
    signals: &'a mut [f32],
    /// Deltas made for a segment, `[row, destination of four, batch, output]`.
    made: &'a mut [f32],
    /// Working memory for that.
    scratch: &'a mut [f32],
}

impl Kernel for ChunkKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let (inputs, outputs) = (self.layer.inputs, self.layer.outputs);
        let point = TAPS * inputs * outputs;
        // SAFETY: this task alone has its sums and its scratch arrays, which `gradient` measured.
        unsafe {
            let len = self.points.len() * point;
            self.sums.slice(self.points.start * point, len).fill(0.0);
            if self.points.contains(&AT_ONE) {
                self.sums.slice(POINTS * point, outputs).fill(0.0);
            }
            for number in self.segments.clone() {
                let segment = self.strips.segment(number);
                if let SegmentDeltas::Made(signal) = self.deltas {
                    let made = Pointer::new(self.made);
                    signal.make::<V>(&segment, outputs, self.scratch.as_mut_ptr(), made);
                }
                for part in 0..self.parts {
                    let edge = |part: usize| part * self.batch / self.parts;
                    self.add::<V>(&segment, edge(part), edge(part + 1) - edge(part));
                }
            }
        }
    }
}

impl ChunkKernel<'_> {
    /// Adds what some samples of a segment give.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    unsafe fn add<V: Lanes>(&mut self, segment: &Segment, from: usize, count: usize) {
        let (inputs, outputs) = (self.layer.inputs, self.layer.outputs);
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
                            panels: self.input,
                            batch: self.batch,
                            depth: inputs,
                            from,
                            count,
                        };
                        let places = segment.places((row, -1), samples);
                        let ahead = segment.grid.to_next_row(self.batch * inputs);
                        to_points::<Sources, V::Pair, f32, POINTS>(
                            places,
                            count * inputs,
                            ahead,
                            points,
                        );
                    }
                    _ => points.clear(count * inputs),
                }
            }
            for (place, row) in rows.clone().enumerate() {
                let points = Points {
                    first: signals.add(place * count * outputs),
                    apart: signal,
                };
                let to = (segment, row, points);
                match self.deltas {
                    SegmentDeltas::Panels(Values::F32(panels)) => {
                        self.signals_to_points::<V, _>(panels, (from, count), to);
                    }
                    SegmentDeltas::Panels(Values::Bf16(panels)) => {
                        self.signals_to_points::<V, _>(panels, (from, count), to);
                    }
                    SegmentDeltas::Made(signal) => {
                        let (panel, stored) = (self.batch * outputs, signal.stored());
                        let locations = segment.locations(row);
                        let places = std::array::from_fn(|i| match (locations[i], stored) {
                            (None, _) => std::ptr::null(),
                            (Some(location), Some(stored)) => {
                                stored.at(location * panel + from * outputs).cast_const()
                            }
                            (Some(_), None) => {
                                let at = (place * ACROSS + i) * panel + from * outputs;
                                self.made[at..].as_ptr()
                            }
                        });
                        let len = count * outputs;
                        to_points::<Signals, V::Pair, f32, ACROSS>(places, len, 0, points);
                    }
                }
            }
            if self.points.contains(&AT_ONE) {
                let len = rows.len() * count * outputs;
                let at_one = std::slice::from_raw_parts(signals.add(AT_ONE * signal), len);
                let biases = self.sums.slice(POINTS * TAPS * inputs * outputs, outputs);
                add_rows::<V, _>(at_one, biases);
            }
            for point in self.points.clone() {
                let product = OuterProduct {
                    a: std::ptr::null(),
                    inputs,
                    rows: inputs,
                    delta: signals.add(point * signal),
                    delta_row: outputs,
                    outputs,
                    batch: rows.len() * count,
                };
                let (first, matrix) = (sources.add(point * source), inputs * outputs);
                let sums = [0, 1, 2].map(|tap| self.sums.at((point * TAPS + tap) * matrix));
                if V::PAIRED && inputs <= MOST_INPUTS && outputs == V::LEN {
                    let taps = Taps {
                        sources: first,
                        signals: product.delta,
                        rows: rows.len(),
                        samples: count,
                        inputs,
                    };
                    add_taps::<V>(taps, sums);
                    continue;
                }
                let a = [0, 1, 2].map(|tap| first.add(tap * count * inputs).cast_const());
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

    /// Brings stored deltas of some samples of a segment's row to the points.
    ///
    /// # Safety
    /// The instruction set of `V`; room at the points.
    #[inline(always)]
    unsafe fn signals_to_points<V: Lanes, E: Value>(
        &self,
        panels: &[E],
        (from, count): (usize, usize),
        (segment, row, points): (&Segment, usize, Points),
    ) {
        let outputs = self.layer.outputs;
        let samples = Samples {
            panels,
            batch: self.batch,
            depth: outputs,
            from,
            count,
        };
        let places = segment.places((row, 0), samples);
        let ahead = segment.grid.to_next_row(self.batch * outputs);
        // SAFETY: handed on from the caller.
        unsafe {
            to_points::<Signals, V::Pair, E, ACROSS>(places, count * outputs, ahead, points);
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
