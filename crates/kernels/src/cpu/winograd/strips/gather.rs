//! Forward pass and feedback: a segment's sources to points, a walk along the strip at each, and back to finished
//! panels.

use super::super::apart;
use super::super::transform::{Destinations, Line, Sources};
use super::{ACROSS, POINTS, Points, Samples, Segment, Strips, TAPS, to_points};
use crate::cpu::channel_norm::complete;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::Packing;
use crate::cpu::rows::{Walk, walk_samples};
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, finish_block};

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
    let fill = SegmentFill {
        panels,
        packed,
        packing,
        room: Room::of(strips, batch, packing),
    };
    let cost = POINTS * TAPS * strips.rows * batch * packing.depth * packing.columns;
    let work = |scratch: &mut [f32], item: usize| {
        let kernel = SegmentKernel {
            segment: strips.segment(item),
            fill,
            finish,
            scratch,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only its own segment's
        // locations.
        unsafe { set.run(kernel) };
    };
    workers.for_each(strips.count(), cost, fill.room.len(), work);
    let locations = strips.height * strips.width;
    complete(threads, set, locations, batch, packing, finish);
}

/// Working memory of a segment: sources at the points, `[point, row of sources, sample of the chunk, depth]`, products
/// there, `[point, row, sample of the chunk, column of the block]`, and filled panels, `[block, row, destination of
/// four, batch, column of the block]`.
#[derive(Clone, Copy)]
pub(super) struct Room {
    batch: usize,
    /// Parts of the batch.
    chunks: usize,
    /// Values of sources at a point.
    point: usize,
    /// Values of products at a point.
    product: usize,
    /// Values of a filled panel.
    panel: usize,
    /// Filled values of a block.
    filled: usize,
    blocks: usize,
}

impl Room {
    pub(super) fn of(strips: Strips, batch: usize, packing: Packing) -> Self {
        let rows = strips.rows;
        let chunks = (POINTS * (rows + 2) * batch * packing.depth).div_ceil(VALUES);
        let chunks = chunks.clamp(1, batch.div_ceil(FEWEST_SAMPLES));
        let samples = batch.div_ceil(chunks);
        let panel = batch * packing.block;
        Self {
            batch,
            chunks,
            point: apart((rows + 2) * samples * packing.depth),
            product: apart(rows * samples * packing.block),
            panel,
            filled: rows * ACROSS * panel,
            blocks: packing.blocks(),
        }
    }

    /// Values of it.
    pub(super) fn len(self) -> usize {
        POINTS * (self.point + self.product) + self.blocks * self.filled
    }
}

/// What fills the panels of a segment.
#[derive(Clone, Copy)]
pub(super) struct SegmentFill<'a> {
    /// `[location, batch, depth]`
    pub panels: &'a [f32],
    pub packed: &'a [f32],
    pub packing: Packing,
    pub room: Room,
}

impl SegmentFill<'_> {
    /// Fills all blocks of a segment in scratch.
    ///
    /// # Safety
    /// The instruction set of `V`; arrays of the layer's shape; blocks one vector wide; the room in scratch.
    #[inline(always)]
    pub(super) unsafe fn fill<V: Lanes>(&self, segment: &Segment, scratch: *mut f32) {
        let (packing, room) = (self.packing, self.room);
        let (batch, depth) = (room.batch, packing.depth);
        let (sources, rows) = (segment.source_rows(), segment.rows.clone());
        // SAFETY: sources are whole panels; scratch holds the room; the rest is the caller's promise.
        unsafe {
            let products = scratch.add(POINTS * room.point);
            let filled = products.add(POINTS * room.product);
            for chunk in 0..room.chunks {
                let edge = |chunk: usize| chunk * batch / room.chunks;
                let (from, count) = (edge(chunk), edge(chunk + 1) - edge(chunk));
                for row in sources.clone() {
                    let samples = Samples {
                        panels: self.panels,
                        batch,
                        depth,
                        from,
                        count,
                    };
                    let points = Points {
                        first: scratch.add((row - sources.start) * count * depth),
                        apart: room.point,
                    };
                    let places = segment.places((row, -1), samples);
                    let ahead = segment.grid.to_next_row(batch * depth);
                    to_points::<Sources, V::Pair, f32, POINTS>(
                        places,
                        count * depth,
                        ahead,
                        points,
                    );
                }
                for block in 0..room.blocks {
                    let weights = &self.packed[block * packing.block_len()..];
                    for p in 0..POINTS {
                        let walk = Walk {
                            panels: scratch.add(p * room.point),
                            batch: count,
                            depth,
                            width: sources.len(),
                            columns: rows.start - sources.start..rows.end - sources.start,
                            weights: weights[p * TAPS * packing.tap_len()..].as_ptr(),
                            taps: TAPS,
                            out: products.add(p * room.product),
                        };
                        walk_samples::<V, 1>(&walk);
                    }
                    for row in 0..rows.len() {
                        let out = filled.add(block * room.filled + row * ACROSS * room.panel);
                        let (from, to) =
                            (products.add(row * count * V::LEN), out.add(from * V::LEN));
                        // Samples follow each other: a pair's vectors take two, and the last may be alone.
                        let len = count * V::LEN;
                        let whole = len / V::Pair::LEN * V::Pair::LEN;
                        for at in (0..whole).step_by(V::Pair::LEN) {
                            let (from, to) = (from.add(at), to.add(at));
                            to_destinations::<V::Pair>(from, room.product, to, room.panel);
                        }
                        if whole < len {
                            let (from, to) = (from.add(whole), to.add(whole));
                            to_destinations::<V>(from, room.product, to, room.panel);
                        }
                    }
                }
            }
        }
    }

    /// Finishes destination `i` of a row of a segment that was filled in scratch.
    ///
    /// # Safety
    /// As for [`fill`](Self::fill) and [`finish_block`]; a destination inside the grid.
    #[inline(always)]
    pub(super) unsafe fn finish<V: Lanes>(
        &self,
        finish: &Finish<'_>,
        (row, i): (usize, usize),
        location: usize,
        scratch: *mut f32,
    ) {
        let room = self.room;
        for block in 0..room.blocks {
            let at = block * room.filled + (row * ACROSS + i) * room.panel;
            let place = (location, block);
            // SAFETY: handed on from the caller.
            unsafe {
                let filled = scratch.add(POINTS * (room.point + room.product) + at);
                finish_block::<V>(finish, self.packing, place, room.batch, filled);
            }
        }
    }
}

/// A vector of products at the points to destinations; those of each point and of each destination lie so far apart.
///
/// # Safety
/// The instruction set of `V`; a vector's values there.
#[inline(always)]
unsafe fn to_destinations<V: Lanes>(
    products: *const f32,
    product: usize,
    out: *mut f32,
    panel: usize,
) {
    // SAFETY: handed on from the caller.
    unsafe {
        let mut m = [V::splat(0.0); POINTS];
        for (p, value) in m.iter_mut().enumerate() {
            *value = V::load(products.add(p * product));
        }
        for (i, value) in Destinations::line(m).into_iter().enumerate() {
            value.store(out.add(i * panel));
        }
    }
}

struct SegmentKernel<'a> {
    segment: Segment,
    fill: SegmentFill<'a>,
    finish: Finish<'a>,
    scratch: &'a mut [f32],
}

impl Kernel for SegmentKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let scratch = self.scratch.as_mut_ptr();
        // SAFETY: the arrays are those of the layer; scratch holds the room that `gather` asked for.
        unsafe {
            self.fill.fill::<V>(&self.segment, scratch);
            for (place, location) in self.segment.destinations() {
                self.fill
                    .finish::<V>(&self.finish, place, location, scratch);
            }
        }
    }
}
