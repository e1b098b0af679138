//! Forward pass and feedback: a tile's sources to points, a product at each, and back to finished panels.

use super::stride_2::{Even, Odd, Same};
use super::transform::{Panels, Side, Whole, plane, to_points};
use super::{MATRICES, SIDE, TILE, Tiles, apart};
use crate::Link;
use crate::cpu::channel_norm::complete;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, finish_block};
use crate::cpu::tile::{GatherSource, LINE, gather_block};
use crate::cpu::values::{Value, Values};

/// What is gathered.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Gather<'a> {
    pub tiles: Tiles,
    pub direction: Direction,
    /// Samples of a panel.
    pub batch: usize,
    /// `[location, batch, depth]`
    pub panels: Values<'a>,
    /// Weights as [`pack`](super::pack) left them.
    pub packed: &'a [f32],
    pub packing: Packing,
}

/// Fills and finishes all panels of a grid.
pub(in crate::cpu) fn gather(workers: &mut Workers<'_>, gather: Gather<'_>, finish: Finish<'_>) {
    match (gather.tiles.grid.stride, gather.panels) {
        (1, Values::F32(panels)) => gather_by::<1, _>(workers, gather, panels, finish),
        (1, Values::Bf16(panels)) => gather_by::<1, _>(workers, gather, panels, finish),
        (_, Values::F32(panels)) => gather_by::<2, _>(workers, gather, panels, finish),
        (_, Values::Bf16(panels)) => gather_by::<2, _>(workers, gather, panels, finish),
    }
}

fn gather_by<const STRIDE: usize, E: Value>(
    workers: &mut Workers<'_>,
    gather: Gather<'_>,
    panels: &[E],
    finish: Finish<'_>,
) {
    let Gather {
        tiles,
        direction,
        batch,
        packing,
        ..
    } = gather;
    let points = tiles.points();
    let (threads, set) = (workers.threads, workers.set);
    // A grid of few tiles is divided further: each item transforms the sources for its own columns.
    let parts = (2 * threads.count()).div_ceil(tiles.count());
    let parts = parts.min(packing.blocks());
    let cost = tiles.products() * batch * packing.depth * packing.columns / parts;
    let chunk = Chunks::of(points, batch, packing);
    let blocks = packing.blocks().div_ceil(parts);
    let filled = blocks * TILE * TILE * batch * packing.block;
    let len = points * (chunk.points + chunk.products) + filled;
    let work = |scratch: &mut [f32], item: usize| {
        let (tile, part) = (item / parts, item % parts);
        let edge = |part: usize| part * packing.blocks() / parts;
        let (at_points, rest) = scratch.split_at_mut(points * chunk.points);
        let (products, filled) = rest.split_at_mut(points * chunk.products);
        let kernel = TileKernel::<STRIDE, E> {
            gather,
            panels,
            tile,
            blocks: edge(part)..edge(part + 1),
            chunk,
            finish,
            points: at_points,
            products,
            filled,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its own
        // blocks at its own tile's locations.
        unsafe { set.run_wide(kernel) };
    };
    workers.for_each(tiles.count() * parts, cost, len, work);
    let [height, width] = tiles.destinations(direction, [0, 0]).grid;
    complete(threads, set, height * width, batch, packing, finish);
}

/// How far ahead of their use values are asked for, at least.
pub(super) const AHEAD: usize = 4 * LINE;

/// A chunk of fewer samples would read the weights too often …
const FEWEST_SAMPLES: usize = 12;
/// … and one of fewer than these, if all matrices together have at least [`FAR`] values (12 MB), which each chunk of every tile
/// then brings from the last-level cache or from memory.
const FEWEST_FROM_AFAR: usize = 100;
const FAR: usize = 3 << 20;

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

    fn of(points: usize, batch: usize, packing: Packing) -> Self {
        let fewest = match MATRICES * packing.depth * packing.columns {
            ..FAR => FEWEST_SAMPLES,
            FAR.. => FEWEST_FROM_AFAR,
        };
        let count = (points * batch * packing.depth).div_ceil(Self::VALUES);
        let count = count.clamp(1, batch.div_ceil(fewest));
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

struct TileKernel<'a, const STRIDE: usize, E> {
    gather: Gather<'a>,
    /// Those of the gather.
    panels: &'a [E],
    tile: usize,
    blocks: std::ops::Range<usize>,
    chunk: Chunks,
    finish: Finish<'a>,
    /// `[point, sample of the chunk, depth]`
    points: &'a mut [f32],
    /// `[point, sample of the chunk, column of the block]`
    products: &'a mut [f32],
    /// `[block, destination, batch, column of the block]`
    filled: &'a mut [f32],
}

impl<const STRIDE: usize, E: Value> Kernel for TileKernel<'_, STRIDE, E> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        // SAFETY: sources are whole panels or null; the scratch arrays have the lengths that `gather` gave them.
        unsafe {
            match (STRIDE, self.gather.direction) {
                (1, _) => {
                    self.fill::<Whole, Whole, V, 6, 6>(false);
                    self.finish::<V>([0, 0]);
                }
                (_, Direction::Forward) => {
                    self.fill::<Even, Even, V, 5, 5>(false);
                    self.fill::<Even, Odd, V, 5, 4>(true);
                    self.fill::<Odd, Even, V, 4, 5>(true);
                    self.fill_plain::<V>(true);
                    self.finish::<V>([0, 0]);
                }
                (_, Direction::Backward) => {
                    self.fill::<Even, Even, V, 5, 5>(false);
                    self.finish::<V>([0, 0]);
                    self.fill::<Even, Odd, V, 5, 4>(false);
                    self.finish::<V>([0, 1]);
                    self.fill::<Odd, Even, V, 4, 5>(false);
                    self.finish::<V>([1, 0]);
                    self.fill_plain::<V>(false);
                    self.finish::<V>([1, 1]);
                }
            }
        }
    }
}

impl<const STRIDE: usize, E: Value> TileKernel<'_, STRIDE, E> {
    /// Fills the destinations of the tile from a part of its rows and columns, or adds that part.
    ///
    /// # Safety
    /// The instruction set of `V`; panels and scratch arrays of the layer's shape.
    #[inline(always)]
    unsafe fn fill<R: Side<NR>, C: Side<NC>, V: Lanes, const NR: usize, const NC: usize>(
        &mut self,
        add: bool,
    ) {
        let Gather {
            tiles,
            direction,
            batch,
            packing,
            ..
        } = self.gather;
        let (depth, columns, chunk) = (packing.depth, packing.block, self.chunk);
        let size = batch * columns;
        let sources = tiles.sources(direction, [R::FIRST, C::FIRST]);
        let sources = sources.panels(self.tile, self.panels.as_ptr(), batch * depth);
        // SAFETY: handed on from the caller.
        unsafe {
            for (first, samples) in chunk.samples(batch) {
                let from = (first * depth, samples * depth);
                let to = (self.points.as_mut_ptr(), chunk.points);
                to_points::<R::Sources, C::Sources, V, E, NR, NC, NR, NC>(
                    &sources, from, AHEAD, to,
                );
                for (place, block) in self.blocks.clone().enumerate() {
                    for point in 0..NR * NC {
                        let matrix = R::MATRIX[point / NC] * SIDE + C::MATRIX[point % NC];
                        let panel = self.points.as_ptr().add(point * chunk.points);
                        let out = self.products.as_mut_ptr().add(point * chunk.products);
                        self.multiply::<V>((panel, samples), (block, matrix), false, out);
                    }
                    let filled = self.filled.as_mut_ptr().add(place * TILE * TILE * size);
                    for at in (0..samples * columns).step_by(V::LEN) {
                        let from = self.products.as_ptr().add(at);
                        let to = filled.add(first * columns + at);
                        plane::<R::Destinations, C::Destinations, V, NR, NC, TILE, TILE>(
                            |i, j| V::load(from.add((i * NC + j) * chunk.products)),
                            |i, j, value| {
                                let to = to.add((i * TILE + j) * size);
                                let value = match add {
                                    true => V::load(to).add(value),
                                    false => value,
                                };
                                value.store(to);
                            },
                        );
                    }
                }
            }
        }
    }

    /// The same from odd rows and columns, which have one tap and are not transformed.
    ///
    /// # Safety
    /// As for [`fill`](Self::fill).
    #[inline(always)]
    unsafe fn fill_plain<V: Lanes>(&mut self, add: bool) {
        let Gather {
            tiles,
            direction,
            batch,
            packing,
            ..
        } = self.gather;
        let (depth, chunk) = (packing.depth, self.chunk);
        let sources = tiles.sources(direction, [Odd::FIRST; 2]);
        let sources: [[_; TILE]; TILE] =
            sources.panels(self.tile, self.panels.as_ptr(), batch * depth);
        // SAFETY: handed on from the caller; the points of a part are no fewer than the tile's destinations.
        unsafe {
            if E::F32 {
                let panels = |i: usize| sources[i / TILE][i % TILE].cast();
                self.multiply_each::<V>(&sources, panels, (0, batch), add);
                return;
            }
            for (first, samples) in chunk.samples(batch) {
                let from = (first * depth, samples * depth);
                let to = (self.points.as_mut_ptr(), chunk.points);
                to_points::<Same, Same, V, E, TILE, TILE, TILE, TILE>(&sources, from, AHEAD, to);
                let points = self.points.as_ptr();
                let panels = |i: usize| points.wrapping_add(i * chunk.points);
                self.multiply_each::<V>(&sources, panels, (first, samples), add);
            }
        }
    }

    /// Multiplies with the last matrix each of a tile's sources that there is, of some samples, which lie at an address.
    ///
    /// # Safety
    /// As for [`fill`](Self::fill).
    #[inline(always)]
    unsafe fn multiply_each<V: Lanes>(
        &mut self,
        sources: &Panels<E, TILE, TILE>,
        address: impl Fn(usize) -> *const f32,
        (first, samples): (usize, usize),
        add: bool,
    ) {
        let Gather { batch, packing, .. } = self.gather;
        let size = batch * packing.block;
        for (place, block) in self.blocks.clone().enumerate() {
            for (i, panel) in sources.iter().flatten().enumerate() {
                // Where there is no source, there is no destination in the grid.
                if !panel.is_null() {
                    let at = (place * TILE * TILE + i) * size + first * packing.block;
                    let out = self.filled[at..][..samples * packing.block].as_mut_ptr();
                    let panel = (address(i), samples);
                    // SAFETY: handed on from the caller.
                    unsafe { self.multiply::<V>(panel, (block, MATRICES - 1), add, out) };
                }
            }
        }
    }

    /// Multiplies a panel of so many samples with one block of a matrix.
    ///
    /// # Safety
    /// As for [`fill`](Self::fill); room for the products.
    #[inline(always)]
    unsafe fn multiply<V: Lanes>(
        &self,
        (panel, samples): (*const f32, usize),
        (block, matrix): (usize, usize),
        add: bool,
        out: *mut f32,
    ) {
        let Gather {
            packed, packing, ..
        } = self.gather;
        let link = Link {
            tap: matrix as u32,
            location: 0,
        };
        let source = GatherSource {
            links: &[link],
            panels: panel,
            panel_len: 0,
            batch: samples,
            depth: packing.depth,
            row: packing.depth,
            weights: packed[block * packing.block_len()..].as_ptr(),
            block: packing.block,
            add,
            next: [&[]; 2],
        };
        // SAFETY: handed on from the caller.
        unsafe { gather_block::<V>(source, out) };
    }

    /// Finishes the destinations that were filled, from the tile's row and column `first` on.
    ///
    /// # Safety
    /// As for [`fill`](Self::fill).
    #[inline(always)]
    unsafe fn finish<V: Lanes>(&mut self, first: [usize; 2]) {
        let Gather {
            tiles,
            direction,
            batch,
            packing,
            ..
        } = self.gather;
        let size = batch * packing.block;
        let destinations = tiles.destinations(direction, first);
        let location = |i: usize| destinations.location(self.tile, i / TILE, i % TILE);
        for (place, block) in self.blocks.clone().enumerate() {
            for i in 0..TILE * TILE {
                // The next destination's z arrives while this one is finished.
                let next = (i + 1 < TILE * TILE).then(|| location(i + 1)).flatten();
                // SAFETY: handed on from the caller.
                unsafe {
                    if let Some(next) = next.filter(|_| place == 0) {
                        let blocks = self.blocks.clone();
                        self.finish.ask_for_z::<V>(next, batch, packing, blocks);
                    }
                    if let Some(location) = location(i) {
                        let at = (place * TILE * TILE + i) * size;
                        let scratch = self.filled.as_mut_ptr().add(at);
                        finish_block::<V>(&self.finish, packing, (location, block), batch, scratch);
                    }
                }
            }
        }
    }
}
