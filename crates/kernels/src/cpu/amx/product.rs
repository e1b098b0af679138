//! Dense layers: one matrix between two panels. Each weight is used once, so the matrix is rounded and rearranged where its
//! products are about to be computed, in slabs that stay in the second-level cache.

use super::pack::{pack_tile, step_words};
use super::panel::{Rows, round_panel};
use super::unit::{Operand, Unit};
use super::{PAIRED, TILE, WORDS};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::channel_norm::complete;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, finish_block};
use std::ops::Range;

/// Steps of a slab.
const SLAB: usize = 16;

/// Blocks of columns of a slab at most, so that the rows of a matrix are read some cache lines at a time.
const BLOCKS: usize = 4;

/// What is multiplied.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Product<'a> {
    /// Samples.
    pub batch: usize,
    /// `[batch, depth]`
    pub panel: &'a [f32],
    /// `[input, output]`
    pub weight: &'a [f32],
    /// Which way they are read.
    pub direction: Direction,
    pub packing: Packing,
}

/// Fills and finishes the panel; `rounded` is scratch. Operands have `PARTS` parts.
pub(in crate::cpu) fn product<const PARTS: usize>(
    workers: &mut Workers<'_>,
    rounded: &mut CpuBuffer,
    product: Product<'_>,
    finish: Finish<'_>,
) {
    let Product {
        batch,
        panel,
        packing,
        ..
    } = product;
    let (threads, set) = (workers.threads, workers.set);
    let rows = Rows::<PARTS>::of(batch, packing.depth);
    rounded.reserve(rows.panel_words());
    // SAFETY: AVX-512 was found with the tiles.
    unsafe { round_panel(panel, rows, packing.depth, rounded) };
    let source = &rounded[..rows.panel_words()];
    let blocks = (packing.blocks() / (2 * threads.count())).clamp(1, BLOCKS);
    let sums = rows.tiles * rows.height * packing.block;
    let cost = batch * packing.depth * packing.block * blocks / WORDS;
    let work = |scratch: &mut [f32], item: usize| {
        let (sums, slab) = scratch.split_at_mut(blocks * sums);
        let kernel = ColumnsKernel::<PARTS> {
            product,
            rows,
            source,
            blocks: item * blocks..((item + 1) * blocks).min(packing.blocks()),
            finish,
            sums,
            slab,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its own
        // blocks.
        unsafe { set.run_beside_tiles(kernel) };
    };
    let len = blocks * (sums + SLAB * step_words::<PARTS>(packing));
    workers.for_each(packing.blocks().div_ceil(blocks), cost, len, work);
    complete(threads, set, 1, batch, packing, finish);
}

/// Some blocks of columns.
struct ColumnsKernel<'a, const PARTS: usize> {
    product: Product<'a>,
    rows: Rows<PARTS>,
    source: &'a [f32],
    blocks: Range<usize>,
    finish: Finish<'a>,
    /// `[block, row, column]`, rows of whole tiles.
    sums: &'a mut [f32],
    /// `[block, step, tile, part, pair, column]`
    slab: &'a mut [f32],
}

impl<const PARTS: usize> Kernel for ColumnsKernel<'_, PARTS> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let Product { batch, packing, .. } = self.product;
        let rows = self.rows;
        // SAFETY: the machine has the tiles; operands and sums have the lengths that `product` gave them, and no other item
        // touches these blocks.
        unsafe {
            let mut unit = Unit::new(rows.height, WORDS);
            for first in (0..rows.steps).step_by(SLAB) {
                let steps = first..(first + SLAB).min(rows.steps);
                self.pack(steps.clone());
                for place in 0..self.blocks.len() {
                    let left = packing.columns - (self.blocks.start + place) * packing.block;
                    let wide = left.min(packing.block) > WORDS;
                    for tile in (0..rows.tiles).step_by(2) {
                        let at = (place, tile, steps.clone());
                        match (tile + 1 < rows.tiles, wide) {
                            (true, true) => self.fill::<2, 2>(&mut unit, at),
                            (true, false) => self.fill::<2, 1>(&mut unit, at),
                            (false, true) => self.fill::<1, 2>(&mut unit, at),
                            (false, false) => self.fill::<1, 1>(&mut unit, at),
                        }
                    }
                }
            }
            let len = self.sums_len();
            for (place, block) in self.blocks.clone().enumerate() {
                let sums = self.sums[place * len..].as_mut_ptr();
                finish_block::<V>(&self.finish, packing, (0, block), batch, sums);
            }
        }
    }
}

impl<const PARTS: usize> ColumnsKernel<'_, PARTS> {
    /// Sums of a block.
    fn sums_len(&self) -> usize {
        self.rows.tiles * self.rows.height * self.product.packing.block
    }

    /// Packs some steps of all blocks, side by side, as they lie in the matrix.
    ///
    /// # Safety
    /// AVX-512 with bf16.
    unsafe fn pack(&mut self, steps: Range<usize>) {
        let Product {
            weight,
            direction,
            packing,
            ..
        } = self.product;
        let words = step_words::<PARTS>(packing);
        for (i, step) in steps.enumerate() {
            for (place, block) in self.blocks.clone().enumerate() {
                let to = &mut self.slab[(place * SLAB + i) * words..][..words];
                for (j, tile) in to.chunks_exact_mut(PARTS * TILE).enumerate() {
                    let from = (step * PAIRED, block * packing.block + j * WORDS);
                    // SAFETY: handed on from the caller.
                    unsafe { pack_tile::<PARTS>(direction, weight, packing, from, tile) };
                }
            }
        }
    }

    /// Adds the products of some steps to one or two tiles of rows from tile `tile` on, and of columns.
    ///
    /// # Safety
    /// Operands and sums of the cut's lengths.
    unsafe fn fill<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        unit: &mut Unit,
        (place, tile, steps): (usize, usize, Range<usize>),
    ) {
        let (rows, packing) = (self.rows, self.product.packing);
        let words = step_words::<PARTS>(packing);
        let source = tile * rows.tile_words() + steps.start * rows.step_words();
        let source = Operand {
            first: self.source[source..].as_ptr(),
            second: rows.tile_words(),
            step: rows.step_words(),
            part: rows.part_words(),
        };
        let weight = Operand {
            first: self.slab[place * SLAB * words..].as_ptr(),
            second: PARTS * TILE,
            step: words,
            part: TILE,
        };
        let at = place * self.sums_len() + tile * rows.height * packing.block;
        let sums = self.sums[at..].as_mut_ptr();
        // SAFETY: handed on from the caller; there are whole tiles of sums.
        unsafe {
            match steps.start {
                0 => unit.clear(),
                _ => unit.load::<ROWS, COLUMNS>(sums, packing.block),
            }
            unit.add_products::<ROWS, COLUMNS, PARTS>(source, weight, steps.len());
            unit.store::<ROWS, COLUMNS>(sums, packing.block);
        }
    }
}
