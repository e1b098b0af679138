//! Forward pass and feedback: panels rounded to tiles, products of tiles, and finished panels.

use super::cells::{Cell, Cells, Ring, Room};
use super::pack::{pack, step_words, tap_words};
use super::panel::{Rows, round_panel};
use super::unit::{Operand, Unit};
use super::words::prefetch;
use super::{TILE, WORDS};
use crate::Links;
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::channel_norm::complete;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, finish_block};
use crate::cpu::values::Values;
use std::ops::Range;

/// Columns of the grid in which an item walks from row to row, if so many sources stay in the second-level cache.
const STRIP: usize = 8;
/// Items that every thread should have, so that none waits long for the last.
const ITEMS_PER_THREAD: usize = 4;
/// Words of rounded sources that should stay in the second-level cache beside a block's weights.
const CACHED_WORDS: usize = 5 << 16;

/// What is gathered.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Gather<'a> {
    /// Links of each destination.
    pub links: &'a Links,
    /// Number of sources, and how many of them lie in a row of their grid.
    pub sources: (usize, usize),
    /// The same of destinations.
    pub destinations: (usize, usize),
    /// Samples of a panel.
    pub batch: usize,
    /// `[source, batch, depth]`
    pub panels: Values<'a>,
    /// Weights, `[tap, input, output]`.
    pub weight: &'a [f32],
    /// Which way they are read.
    pub direction: Direction,
    pub packing: Packing,
}

/// Fills and finishes every panel, as [`sweep`](crate::cpu::sweep::sweep) does; `packed` is scratch. Operands have `PARTS`
/// parts.
pub(in crate::cpu) fn gather<const PARTS: usize>(
    workers: &mut Workers<'_>,
    packed: &mut CpuBuffer,
    gather: Gather<'_>,
    finish: Finish<'_>,
) {
    let Gather {
        links,
        sources,
        destinations,
        batch,
        weight,
        direction,
        packing,
        ..
    } = gather;
    let (threads, set) = (workers.threads, workers.set);
    pack::<PARTS>(threads, direction, weight, packing, packed);
    let packed = &packed[..];
    let rows = Rows::<PARTS>::of(batch, packing.depth);
    let (count, across) = destinations;
    let room = |strip: usize| Room::new(links, sources, destinations, strip);
    let fits = |strip: usize| room(strip).slots() * rows.panel_words() <= CACHED_WORDS;
    let strip = if fits(STRIP) { STRIP } else { STRIP / 2 };
    let wanted = ITEMS_PER_THREAD * threads.count();
    let strips = across.div_ceil(strip);
    let cells = Cells::new(
        count,
        across,
        strip,
        (count / across * strips).div_ceil(wanted),
    );
    let room = room(cells.strip());
    // Few cells are divided further, by their columns.
    let parts = wanted.div_ceil(cells.count()).min(packing.blocks());
    let products = links.len() / count.max(1) * packing.depth / WORDS;
    let cost = count / cells.count() * batch * packing.columns / parts * (products + 16);
    let sums = rows.tiles * rows.height * packing.block;
    let work = |scratch: &mut [f32], item: usize| {
        let (cell, part) = (item / parts, item % parts);
        let edge = |part: usize| part * packing.blocks() / parts;
        let (sums, panels) = scratch.split_at_mut(sums);
        let kernel = CellKernel::<PARTS> {
            gather,
            rows,
            packed,
            cell: cells.cell(cell),
            room,
            blocks: edge(part)..edge(part + 1),
            finish,
            sums,
            panels,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its own
        // blocks at its own locations.
        unsafe { set.run_beside_tiles(kernel) };
    };
    let len = sums + room.slots() * rows.panel_words();
    workers.for_each(cells.count() * parts, cost, len, work);
    complete(threads, set, count, batch, packing, finish);
}

/// Some blocks of columns at the locations of a cell.
struct CellKernel<'a, const PARTS: usize> {
    gather: Gather<'a>,
    rows: Rows<PARTS>,
    packed: &'a [f32],
    cell: Cell,
    room: Room,
    blocks: Range<usize>,
    finish: Finish<'a>,
    /// `[row, column of the block]`, rows of whole tiles.
    sums: &'a mut [f32],
    /// Rounded source panels.
    panels: &'a mut [f32],
}

impl<const PARTS: usize> Kernel for CellKernel<'_, PARTS> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let Gather {
            links,
            batch,
            packing,
            ..
        } = self.gather;
        let (rows, panel_len) = (self.rows, batch * packing.depth);
        let mut ring = Ring::new(self.room);
        // SAFETY: the machine has the tiles.
        let mut unit = unsafe { Unit::new(rows.height, WORDS) };
        for row in self.cell.rows.clone() {
            let locations = self.cell.locations(row);
            ring.bring(links, locations.clone(), |source, slot| {
                let panel = source * panel_len..(source + 1) * panel_len;
                let to = &mut self.panels[slot * rows.panel_words()..][..rows.panel_words()];
                // SAFETY: AVX-512 was found with the tiles.
                unsafe {
                    match self.gather.panels {
                        Values::F32(all) => round_panel(&all[panel], rows, packing.depth, to),
                        Values::Bf16(all) => round_panel(&all[panel], rows, packing.depth, to),
                    }
                }
            });
            for location in locations {
                for block in self.blocks.clone() {
                    // SAFETY: operands and sums lie inside the arrays that `gather` measured, and no other item touches
                    // this block of this location.
                    unsafe { self.block::<V>(&mut unit, &ring, location, block) };
                }
            }
        }
    }
}

impl<const PARTS: usize> CellKernel<'_, PARTS> {
    /// Fills and finishes one block at one location.
    ///
    /// # Safety
    /// The instruction set of `V`; operands and sums of the cut's lengths; nobody else has this block there.
    #[inline(always)]
    unsafe fn block<V: Lanes>(
        &mut self,
        unit: &mut Unit,
        ring: &Ring,
        location: usize,
        block: usize,
    ) {
        let (packing, tiles) = (self.gather.packing, self.rows.tiles);
        let left = packing.columns - block * packing.block;
        let wide = left.min(packing.block) > WORDS;
        let place = (location, block);
        if let Finish::Feedback { path, .. } = self.finish {
            let first = location * self.gather.batch * packing.columns + block * packing.block;
            for row in 0..self.gather.batch {
                for at in (0..left.min(packing.block)).step_by(path.z.line()) {
                    prefetch(path.z.address(first + row * packing.columns + at));
                }
            }
        }
        // SAFETY: handed on from the caller.
        unsafe {
            for tile in (0..tiles).step_by(2) {
                match (tile + 1 < tiles, wide) {
                    (true, true) => self.fill::<2, 2>(unit, ring, place, tile),
                    (true, false) => self.fill::<2, 1>(unit, ring, place, tile),
                    (false, true) => self.fill::<1, 2>(unit, ring, place, tile),
                    (false, false) => self.fill::<1, 1>(unit, ring, place, tile),
                }
            }
            let scratch = self.sums.as_mut_ptr();
            finish_block::<V>(&self.finish, packing, place, self.gather.batch, scratch);
        }
    }

    /// Fills one or two tiles of rows from tile `tile` on, and of columns.
    ///
    /// # Safety
    /// Operands and sums of the cut's lengths.
    unsafe fn fill<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        unit: &mut Unit,
        ring: &Ring,
        (location, block): (usize, usize),
        tile: usize,
    ) {
        let (rows, packing) = (self.rows, self.gather.packing);
        let tap_words = tap_words::<PARTS>(packing);
        let weights = block * packing.taps * tap_words;
        unit.clear();
        for link in self.gather.links.of(location) {
            let slot = ring.slot(link.location as usize);
            let source = slot * rows.panel_words() + tile * rows.tile_words();
            let weight = weights + link.tap as usize * tap_words;
            let source = Operand {
                first: self.panels[source..].as_ptr(),
                second: rows.tile_words(),
                step: rows.step_words(),
                part: rows.part_words(),
            };
            let weight = Operand {
                first: self.packed[weight..].as_ptr(),
                second: PARTS * TILE,
                step: step_words::<PARTS>(packing),
                part: TILE,
            };
            // SAFETY: handed on from the caller.
            unsafe { unit.add_products::<ROWS, COLUMNS, PARTS>(source, weight, rows.steps) };
        }
        let at = tile * rows.height * packing.block;
        // SAFETY: handed on from the caller; there are whole tiles of sums.
        unsafe {
            let out = self.sums.as_mut_ptr().add(at);
            unit.store::<ROWS, COLUMNS>(out, packing.block);
        }
    }
}
