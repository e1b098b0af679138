//! Forward pass and feedback: a tile's sources to points, 36 products, and back to finished panels.

use super::transform::{Destinations, Sources, plane};
use super::{LINKS, POINTS, TILE, Tiles};
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::{Lanes, load, store};
use crate::cpu::pack::Packing;
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, complete, finish_block};
use crate::cpu::tile::{GatherSource, gather_block};

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
    let points = POINTS * batch * packing.depth;
    let products = POINTS * batch * packing.block;
    let filled = TILE * TILE * batch * packing.block;
    let len = points + products + filled + 16;
    let work = |scratch: &mut [f32], item: usize| {
        let (tile, part) = (item / parts, item % parts);
        let edge = |part: usize| part * packing.blocks() / parts;
        let (points, rest) = scratch.split_at_mut(points.next_multiple_of(16));
        let (products, filled) = rest.split_at_mut(products);
        let kernel = TileKernel {
            tiles,
            tile,
            blocks: edge(part)..edge(part + 1),
            batch,
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
        unsafe { set.run(kernel) };
    };
    // SAFETY: a kernel waits for nobody.
    unsafe { workers.for_each(tiles.count() * parts, cost, len, work) };
    let locations = tiles.height * tiles.width;
    complete(threads, set, locations, batch, packing, finish);
}

struct TileKernel<'a> {
    tiles: Tiles,
    tile: usize,
    blocks: std::ops::Range<usize>,
    batch: usize,
    panels: &'a [f32],
    packed: &'a [f32],
    packing: Packing,
    finish: Finish<'a>,
    /// `[point, batch, depth]`
    points: &'a mut [f32],
    /// `[point, batch, block]`
    products: &'a mut [f32],
    /// `[destination of the tile, batch, block]`
    filled: &'a mut [f32],
}

impl Kernel for TileKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (batch, packing) = (self.batch, self.packing);
        let len = batch * packing.depth;
        let sources = self.tiles.sources(self.tile, self.panels.as_ptr(), len);
        // SAFETY: sources are whole panels or null; the scratch arrays have the lengths that `gather` gave them.
        unsafe {
            let mut at = 0;
            while at < len {
                let count = V::LEN.min(len - at);
                let points = source_points::<V>(&sources, at, count);
                for (point, value) in points.iter().flatten().enumerate() {
                    let to = self.points.as_mut_ptr().wrapping_add(point * len + at);
                    store(*value, to, count);
                }
                at += V::LEN;
            }
            let size = batch * packing.block;
            for block in self.blocks.clone() {
                for (point, link) in LINKS.iter().enumerate() {
                    let source = GatherSource {
                        links: std::slice::from_ref(link),
                        panels: self.points.as_ptr(),
                        batch,
                        depth: packing.depth,
                        weights: self.packed.as_ptr().add(block * packing.block_len()),
                        block: packing.block,
                    };
                    gather_block::<V>(source, self.products.as_mut_ptr().add(point * size));
                }
                for at in (0..size).step_by(V::LEN) {
                    let mut m = [[V::splat(0.0); 6]; 6];
                    for (point, value) in m.iter_mut().flatten().enumerate() {
                        *value = V::load(self.products.as_ptr().add(point * size + at));
                    }
                    let filled = plane::<Destinations, V, 6, 4>(m);
                    for (i, value) in filled.iter().flatten().enumerate() {
                        value.store(self.filled.as_mut_ptr().add(i * size + at));
                    }
                }
                for i in 0..TILE * TILE {
                    let (row, column) = (i / TILE, i % TILE);
                    let place = self
                        .tiles
                        .location(self.tile, row as isize, column as isize);
                    if let Some(location) = place {
                        let scratch = self.filled.as_mut_ptr().add(i * size);
                        finish_block::<V>(self.finish, packing, (location, block), batch, scratch);
                    }
                }
            }
        }
    }
}

/// `count` values from `from` on of each of a tile's sources, at the points; null sources are zeros.
///
/// # Safety
/// The instruction set of `V`; that many readable values.
#[inline(always)]
pub(super) unsafe fn source_points<V: Lanes>(
    sources: &[[*const f32; 6]; 6],
    from: usize,
    count: usize,
) -> [[V; 6]; 6] {
    // SAFETY: handed on from the caller.
    unsafe {
        let mut d = [[V::splat(0.0); 6]; 6];
        for (row, sources) in d.iter_mut().zip(sources) {
            for (value, &source) in row.iter_mut().zip(sources) {
                if !source.is_null() {
                    *value = load::<V>(source.wrapping_add(from), count);
                }
            }
        }
        plane::<Sources, V, 6, 6>(d)
    }
}
