//! One panel through one matrix, in either direction.

use crate::cpu::channel_norm::complete;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::{Direction, Packing, copy_row};
use crate::cpu::rounding::bf16;
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, finish_block};
use crate::cpu::tile::{GatherSource, LINE, ONLY, gather_block};
use std::ops::Range;

/// Terms of the sums for which weights are packed at a time: a strip of them stays in the first-level cache.
const TERMS: usize = 256;

/// Column blocks that share a walk over the panel.
const MOST_BLOCKS: usize = 8;

/// Rows of weights by which they are asked for before their use: enough to hide the way from memory, few enough for rows
/// that fall on the same places of a cache.
const AHEAD: usize = 5;

/// A matrix `[input, output]` and the way that it is walked.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Strips<'a> {
    pub weight: &'a [f32],
    pub direction: Direction,
    /// Whether weights are rounded to bf16.
    pub rounded: bool,
    pub packing: Packing,
}

/// Fills and finishes the panel of the only destination from `panel`, `[batch, depth]`.
pub(in crate::cpu) fn gather(
    workers: &mut Workers<'_>,
    strips: Strips<'_>,
    batch: usize,
    panel: &[f32],
    finish: Finish<'_>,
) {
    let (threads, set, packing) = (workers.threads, workers.set, strips.packing);
    let together = (packing.blocks() / (2 * threads.count())).clamp(1, MOST_BLOCKS);
    let items = packing.blocks().div_ceil(together);
    let filled = together * batch * packing.block;
    let cost = together * batch * packing.block * packing.depth;
    let work = |scratch: &mut [f32], item: usize| {
        let first = item * together;
        let (filled, packed) = scratch.split_at_mut(filled);
        let kernel = StripKernel {
            strips,
            blocks: first..(first + together).min(packing.blocks()),
            batch,
            panel,
            finish,
            packed,
            filled,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its own
        // blocks.
        unsafe { set.run(kernel) };
    };
    let len = filled + together * TERMS * packing.block;
    workers.for_each(items, cost, len, work);
    complete(threads, set, 1, batch, packing, finish);
}

struct StripKernel<'a> {
    strips: Strips<'a>,
    blocks: Range<usize>,
    batch: usize,
    panel: &'a [f32],
    finish: Finish<'a>,
    /// `[block, term, column of the block]`
    packed: &'a mut [f32],
    /// `[block, batch, column of the block]`
    filled: &'a mut [f32],
}

impl Kernel for StripKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (strips, batch) = (self.strips, self.batch);
        let packing = strips.packing;
        let size = batch * packing.block;
        // SAFETY: terms and blocks lie inside the matrix; scratch has room for a strip and for all blocks.
        unsafe {
            for first in (0..packing.depth).step_by(TERMS) {
                let terms = TERMS.min(packing.depth - first);
                let strip = terms * packing.block;
                strips.pack::<V>(self.blocks.clone(), first, terms, self.packed);
                for place in 0..self.blocks.len() {
                    let source = GatherSource {
                        links: &ONLY,
                        panels: self.panel.as_ptr().add(first),
                        panel_len: 0,
                        batch,
                        depth: terms,
                        row: packing.depth,
                        weights: self.packed.as_ptr().add(place * strip),
                        block: packing.block,
                        add: first > 0,
                        next: [&[]; 2],
                    };
                    gather_block::<V>(source, self.filled.as_mut_ptr().add(place * size));
                }
            }
            for (place, block) in self.blocks.enumerate() {
                let filled = self.filled.as_mut_ptr().add(place * size);
                finish_block::<V>(&self.finish, packing, (0, block), batch, filled);
            }
        }
    }
}

impl Strips<'_> {
    /// Packs weights of `terms` terms from `first` on for some blocks of columns, `[block, term, column]`.
    ///
    /// # Safety
    /// The instruction set of `V`; that many terms and blocks of the matrix.
    #[inline(always)]
    unsafe fn pack<V: Lanes>(
        &self,
        blocks: Range<usize>,
        first: usize,
        terms: usize,
        out: &mut [f32],
    ) {
        let out = &mut out[..blocks.len() * terms * self.packing.block];
        // SAFETY: handed on from the caller.
        unsafe {
            match self.direction {
                Direction::Forward => {
                    for term in 0..terms {
                        self.pack_row::<V>(blocks.clone(), first + term, term, terms, out);
                    }
                }
                Direction::Backward => {
                    let strips = out.chunks_exact_mut(terms * self.packing.block);
                    for (block, strip) in blocks.zip(strips) {
                        self.pack_columns::<V>(block, first, strip);
                    }
                }
            }
        }
        if self.rounded {
            out.iter_mut().for_each(|v| *v = bf16(*v));
        }
    }

    /// Packs the row of weights `row` as the term `term` of `terms` of some blocks.
    ///
    /// # Safety
    /// As for [`pack`](Self::pack).
    #[inline(always)]
    unsafe fn pack_row<V: Lanes>(
        &self,
        blocks: Range<usize>,
        row: usize,
        term: usize,
        terms: usize,
        out: &mut [f32],
    ) {
        let Packing { columns, block, .. } = self.packing;
        let row = &self.weight[row * columns..][..columns];
        for (place, column) in blocks.map(|b| b * block).enumerate() {
            let to = &mut out[(place * terms + term) * block..][..block];
            let from = &row[column..];
            // SAFETY: any address may be asked for; the instruction set is the caller's promise.
            unsafe {
                for line in (0..block).step_by(LINE) {
                    V::prefetch(from.as_ptr().wrapping_add(AHEAD * columns + line));
                }
                copy_row::<V>(from, to);
            }
        }
    }

    /// Packs terms from `first` on of one block of a matrix that is walked backward: its rows are the block's columns.
    ///
    /// # Safety
    /// As for [`pack`](Self::pack).
    #[inline(always)]
    unsafe fn pack_columns<V: Lanes>(&self, block: usize, first: usize, out: &mut [f32]) {
        let Packing {
            depth,
            columns,
            block: width,
            ..
        } = self.packing;
        let (column, terms) = (block * width, out.len() / width);
        let used = width.min(columns - column);
        let rows = &self.weight[column * depth..][..used * depth];
        let (whole_columns, whole_terms) = (used / V::LEN * V::LEN, terms / V::LEN * V::LEN);
        // SAFETY: whole squares lie inside the block's rows and inside `out`.
        unsafe {
            for term in (0..whole_terms).step_by(V::LEN) {
                for j in (0..whole_columns).step_by(V::LEN) {
                    let from = rows.as_ptr().add(j * depth + first + term);
                    V::transpose(from, depth, out.as_mut_ptr().add(term * width + j), width);
                }
            }
        }
        for (term, to) in out.chunks_exact_mut(width).enumerate() {
            let done = if term < whole_terms { whole_columns } else { 0 };
            for (j, to) in to.iter_mut().enumerate().skip(done) {
                *to = if j < used {
                    rows[j * depth + first + term]
                } else {
                    0.0
                };
            }
        }
    }
}
