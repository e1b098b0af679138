//! Forward pass and feedback: a segment's sources to points, a walk along the strip at each, and back to finished
//! panels.

use super::super::apart;
use super::super::transform::{Destinations, Line};
use super::{ACROSS, POINTS, Points, Samples, Segment, Strips, TAPS};
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::Packing;
use crate::cpu::rows::{Walk, walk_samples};
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, complete, finish_block};

/// Values of a chunk of samples at the points that one aims at: they should stay in the second-level cache.
const VALUES: usize = 24 << 10;

/// Samples of a chunk, at least.
const FEWEST_SAMPLES: usize = 6;

/// Fills and finishes all panels of a grid from `panels`, `[location, batch, depth]`, and weights packed at the
/// points.
pub(in crate::cpu) fn gather(
    workers: &mut Workers<'_>,
    strips: Strips,
    batch: usize,
    panels: &[f32],
    (packed, packing): (&[f32], Packing),
    finish: Finish<'_>,
) {
    let (threads, set) = (workers.threads, workers.set);
    let strips = strips.in_segments(2 * threads.count());
    let rows = strips.rows;
    let (depth, blocks) = (packing.depth, packing.blocks());
    let chunks = (POINTS * (rows + 2) * batch * depth).div_ceil(VALUES);
    let chunks = chunks.clamp(1, batch.div_ceil(FEWEST_SAMPLES));
    let samples = batch.div_ceil(chunks);
    let point = apart((rows + 2) * samples * depth);
    let product = apart(rows * samples * packing.block);
    let filled = blocks * rows * ACROSS * batch * packing.block;
    let len = POINTS * (point + product) + filled;
    let cost = POINTS * TAPS * rows * batch * depth * packing.columns;
    let work = |scratch: &mut [f32], item: usize| {
        let (points, rest) = scratch.split_at_mut(POINTS * point);
        let (products, filled) = rest.split_at_mut(POINTS * product);
        let kernel = SegmentKernel {
            segment: strips.segment(item),
            batch,
            chunks,
            panels,
            packed,
            packing,
            finish,
            points,
            products,
            filled,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only its own segment's
        // locations.
        unsafe { set.run(kernel) };
    };
    // SAFETY: a kernel waits for nobody.
    unsafe { workers.for_each(strips.count(), cost, len, work) };
    let locations = strips.height * strips.width;
    complete(threads, set, locations, batch, packing, finish);
}

struct SegmentKernel<'a> {
    segment: Segment,
    batch: usize,
    /// Parts of the batch.
    chunks: usize,
    panels: &'a [f32],
    packed: &'a [f32],
    packing: Packing,
    finish: Finish<'a>,
    /// `[point, row of sources, sample of the chunk, depth]`
    points: &'a mut [f32],
    /// `[point, row, sample of the chunk, column of the block]`
    products: &'a mut [f32],
    /// `[block, row, destination of four, batch, column of the block]`
    filled: &'a mut [f32],
}

impl Kernel for SegmentKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (batch, packing, segment) = (self.batch, self.packing, self.segment);
        let (depth, size) = (packing.depth, batch * V::LEN);
        let (sources, rows) = (segment.source_rows(), segment.rows.clone());
        let (point, product) = (self.points.len() / POINTS, self.products.len() / POINTS);
        let filled_block = segment.grid.rows * ACROSS * size;
        let (points, products) = (self.points.as_mut_ptr(), self.products.as_mut_ptr());
        let filled = self.filled.as_mut_ptr();
        // SAFETY: sources are whole panels; the scratch arrays have the lengths that `gather` gave them, blocks are one
        // vector wide.
        unsafe {
            for chunk in 0..self.chunks {
                let edge = |chunk: usize| chunk * batch / self.chunks;
                let (first, samples) = (edge(chunk), edge(chunk + 1) - edge(chunk));
                for row in sources.clone() {
                    let chunk = Samples {
                        panels: self.panels,
                        batch,
                        depth,
                        from: first,
                        count: samples,
                    };
                    let points = Points {
                        first: points.add((row - sources.start) * samples * depth),
                        apart: point,
                    };
                    segment.sources::<V>(row, chunk, points);
                }
                for block in 0..packing.blocks() {
                    let weights = &self.packed[block * packing.block_len()..];
                    for p in 0..POINTS {
                        let walk = Walk {
                            panels: points.add(p * point),
                            batch: samples,
                            depth,
                            width: sources.len(),
                            columns: rows.start - sources.start..rows.end - sources.start,
                            weights: weights[p * TAPS * packing.tap_len()..].as_ptr(),
                            taps: TAPS,
                            out: products.add(p * product),
                        };
                        walk_samples::<V, 1>(&walk);
                    }
                    for row in 0..rows.len() {
                        let out = filled.add(block * filled_block + row * ACROSS * size);
                        for sample in 0..samples {
                            let at = (row * samples + sample) * V::LEN;
                            let mut m = [V::splat(0.0); POINTS];
                            for (p, value) in m.iter_mut().enumerate() {
                                *value = V::load(products.add(p * product + at));
                            }
                            for (i, value) in Destinations::line(m).iter().enumerate() {
                                value.store(out.add(i * size + (first + sample) * V::LEN));
                            }
                        }
                    }
                }
            }
            for block in 0..packing.blocks() {
                for (place, row) in rows.clone().enumerate() {
                    for i in 0..ACROSS {
                        if let Some(location) = segment.location(row, i as isize) {
                            let at = block * filled_block + (place * ACROSS + i) * size;
                            let scratch = filled.add(at);
                            finish_block::<V>(
                                self.finish,
                                packing,
                                (location, block),
                                batch,
                                scratch,
                            );
                        }
                    }
                }
            }
        }
    }
}
