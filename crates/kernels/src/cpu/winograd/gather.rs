//! Forward pass and feedback: a tile's sources to points, 36 products, and back to finished panels.

use super::transform::{Destinations, Sources, plane, to_points};
use super::{LINKS, POINTS, TILE, Tiles, apart};
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::Packing;
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, complete, finish_block};
use crate::cpu::tile::{GatherSource, LINE, gather_block};

/// Fills and finishes all panels of a grid from `panels`, `[location, batch, depth]`, and weights packed at the
/// points.
pub(in crate::cpu) fn gather(
    workers: &mut Workers<'_>,
    tiles: Tiles,
    batch: usize,
    panels: &[f32],
    (packed, packing): (&[f32], Packing),
    finish: Finish<'_>,
) {
    let (threads, set) = (workers.threads, workers.set);
    // A grid of few tiles is divided further: each item transforms the sources for its own columns.
    let parts = (2 * threads.count()).div_ceil(tiles.count());
    let parts = parts.min(packing.blocks());
    let cost = POINTS * batch * packing.depth * packing.columns / parts;
    let chunk = Chunks::of(batch, packing);
    let blocks = packing.blocks().div_ceil(parts);
    let filled = blocks * TILE * TILE * batch * packing.block;
    let len = POINTS * (chunk.points + chunk.products) + filled;
    let work = |scratch: &mut [f32], item: usize| {
        let (tile, part) = (item / parts, item % parts);
        let edge = |part: usize| part * packing.blocks() / parts;
        let (points, rest) = scratch.split_at_mut(POINTS * chunk.points);
        let (products, filled) = rest.split_at_mut(POINTS * chunk.products);
        let kernel = TileKernel {
            tiles,
            tile,
            blocks: edge(part)..edge(part + 1),
            batch,
            chunk,
            panels,
            packed,
            packing,
            finish,
            points,
            products,
            filled,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its own
        // blocks at its own tile's locations.
        unsafe { set.run_wide(kernel) };
    };
    workers.for_each(tiles.count() * parts, cost, len, work);
    let locations = tiles.height * tiles.width;
    complete(threads, set, locations, batch, packing, finish);
}

/// How far ahead of their use values are asked for, at least.
pub(super) const AHEAD: usize = 4 * LINE;

/// A chunk of fewer samples would read the weights too often.
const FEWEST_SAMPLES: usize = 12;

/// How a batch is cut, so that what lies between two steps of a chunk of samples stays in the second-level cache.
#[derive(Clone, Copy)]
struct Chunks {
    count: usize,
    /// Distance between a chunk's panels at the points.
    points: usize,
    /// Distance between its products at the points.
    products: usize,
}

impl Chunks {
    /// Values of a chunk at the points that one aims at.
    const VALUES: usize = 56 << 10;

    fn of(batch: usize, packing: Packing) -> Self {
        let count = (POINTS * batch * packing.depth).div_ceil(Self::VALUES);
        let count = count.clamp(1, batch.div_ceil(FEWEST_SAMPLES));
        let samples = batch.div_ceil(count);
        Self {
            count,
            points: apart(samples * packing.depth),
            products: apart(samples * packing.block),
        }
    }

    fn samples(self, batch: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).map(move |i| {
            let (from, to) = (i * batch / self.count, (i + 1) * batch / self.count);
            (from, to - from)
        })
    }
}

struct TileKernel<'a> {
    tiles: Tiles,
    tile: usize,
    blocks: std::ops::Range<usize>,
    batch: usize,
    chunk: Chunks,
    panels: &'a [f32],
    packed: &'a [f32],
    packing: Packing,
    finish: Finish<'a>,
    /// `[point, sample of the chunk, depth]`
    points: &'a mut [f32],
    /// `[point, sample of the chunk, column of the block]`
    products: &'a mut [f32],
    /// `[block, destination of the tile, batch, column of the block]`
    filled: &'a mut [f32],
}

impl Kernel for TileKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (batch, packing, chunk) = (self.batch, self.packing, self.chunk);
        let (depth, columns) = (packing.depth, packing.block);
        let sources = self
            .tiles
            .sources(self.tile, self.panels.as_ptr(), batch * depth);
        let size = batch * columns;
        // SAFETY: sources are whole panels or null; the scratch arrays have the lengths that `gather` gave them.
        unsafe {
            for (first, samples) in chunk.samples(batch) {
                let len = samples * depth;
                let to = (self.points.as_mut_ptr(), chunk.points);
                to_points::<Sources, V, 6>(&sources, (first * depth, len), AHEAD, to);
                for (place, block) in self.blocks.clone().enumerate() {
                    for (point, link) in LINKS.iter().enumerate() {
                        let source = GatherSource {
                            links: std::slice::from_ref(link),
                            panels: self.points.as_ptr(),
                            panel_len: chunk.points,
                            batch: samples,
                            depth,
                            row: depth,
                            weights: self.packed.as_ptr().add(block * packing.block_len()),
                            block: columns,
                            add: false,
                            next: [&[]; 2],
                        };
                        let out = self.products.as_mut_ptr().add(point * chunk.products);
                        gather_block::<V>(source, out);
                    }
                    let filled = self.filled.as_mut_ptr().add(place * TILE * TILE * size);
                    for at in (0..samples * columns).step_by(V::LEN) {
                        let from = self.products.as_ptr().add(at);
                        let to = filled.add(first * columns + at);
                        plane::<Destinations, V, 6, TILE>(
                            |i, j| V::load(from.add((i * 6 + j) * chunk.products)),
                            |i, j, value| value.store(to.add((i * TILE + j) * size)),
                        );
                    }
                }
            }
            for (place, block) in self.blocks.clone().enumerate() {
                for i in 0..TILE * TILE {
                    // The next destination's z arrives while this one is finished.
                    let next = self.tiles.destination(self.tile, i + 1);
                    if let Some(next) = next.filter(|_| place == 0) {
                        self.finish.ask_for_z::<V>(next, batch * packing.columns);
                    }
                    let location = self.tiles.destination(self.tile, i);
                    if let Some(location) = location {
                        let at = (place * TILE * TILE + i) * size;
                        let scratch = self.filled.as_mut_ptr().add(at);
                        finish_block::<V>(&self.finish, packing, (location, block), batch, scratch);
                    }
                }
            }
        }
    }
}
