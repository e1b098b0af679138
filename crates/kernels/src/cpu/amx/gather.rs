//! Forward pass and feedback: panels rounded to tiles, products of tiles, and finished panels.

use super::pack::{step_words, tap_words};
use super::unit::{Operand, Unit};
use super::{PAIRED, WORDS, equal_parts, words};
use crate::Links;
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::Packing;
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::sweep::{Finish, complete, finish_block};
use crate::cpu::threads::Threads;

/// Locations that one configuration of the unit serves at most: it takes as long as a dozen products.
const MOST_LOCATIONS: usize = 8;
/// Items that every thread should have, so that none waits long for the last.
const ITEMS_PER_THREAD: usize = 8;

/// What is gathered.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Gather<'a> {
    /// Links of each destination.
    pub links: &'a Links,
    /// Number of destinations.
    pub destinations: usize,
    /// Samples of a panel.
    pub batch: usize,
    /// `[source, batch, depth]`
    pub panels: &'a [f32],
    /// Weights, as [`pack`](super::pack) leaves them.
    pub packed: &'a [f32],
    pub packing: Packing,
}

/// Fills and finishes every panel, as [`sweep`](crate::cpu::sweep::sweep) does; `sources` is scratch.
pub(in crate::cpu) fn gather(
    workers: &mut Workers<'_>,
    sources: &mut CpuBuffer,
    gather: Gather<'_>,
    finish: Finish<'_>,
) {
    let Gather {
        destinations,
        batch,
        packing,
        ..
    } = gather;
    let (threads, set) = (workers.threads, workers.set);
    let rows = Rows::of(batch, packing.depth);
    round(threads, rows, gather, sources);
    let sources = &sources[..];
    let items = destinations * packing.blocks() / (ITEMS_PER_THREAD * threads.count());
    let run = items.clamp(1, MOST_LOCATIONS);
    let runs = destinations.div_ceil(run);
    let products = gather.links.len() * packing.depth / destinations.max(1) / WORDS;
    let cost = run * batch * packing.block * (products + 16);
    // Blocks vary slowest: neighbouring items share a block's weights and most source panels.
    let work = |scratch: &mut [f32], item: usize| {
        let first = item % runs * run;
        let kernel = RunKernel {
            gather,
            rows,
            sources,
            locations: first..(first + run).min(destinations),
            block: item / runs,
            finish,
            scratch,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its own
        // block at its own locations.
        unsafe { set.run(kernel) };
    };
    let len = rows.tiles * rows.height * packing.block;
    // SAFETY: a kernel waits for nobody.
    unsafe { workers.for_each(runs * packing.blocks(), cost, len, work) };
    complete(threads, set, destinations, batch, packing, finish);
}

/// How a panel is cut into tiles: `[tile, step, row, pair]`. Rows behind the batch hold anything; their sums are not
/// read.
#[derive(Clone, Copy)]
struct Rows {
    tiles: usize,
    /// Rows of a tile.
    height: usize,
    /// Steps of 32 channels.
    steps: usize,
}

impl Rows {
    fn of(batch: usize, depth: usize) -> Self {
        let (tiles, height) = equal_parts(batch, WORDS);
        Self {
            tiles,
            height,
            steps: depth.div_ceil(PAIRED),
        }
    }

    /// Words of one step of a tile.
    fn step_words(self) -> usize {
        self.height * WORDS
    }

    /// Words of a tile.
    fn tile_words(self) -> usize {
        self.steps * self.step_words()
    }

    /// Words of a panel.
    fn panel_words(self) -> usize {
        self.tiles * self.tile_words()
    }
}

/// Rounds all source panels to tiles.
fn round(threads: &Threads, rows: Rows, gather: Gather<'_>, out: &mut CpuBuffer) {
    let (batch, depth) = (gather.batch, gather.packing.depth);
    let panel_len = batch * depth;
    let locations = gather.panels.len() / panel_len;
    out.reserve(locations * rows.panel_words());
    let to = Pointer::new(out);
    threads.for_each(locations, panel_len, |location| {
        let panel = &gather.panels[location * panel_len..][..panel_len];
        // SAFETY: every location has words of its own, inside the reserved length; AVX-512 was found with the tiles.
        unsafe {
            let to = to.slice(location * rows.panel_words(), rows.panel_words());
            round_panel(panel, rows, depth, to);
        }
    });
}

/// Rounds one panel.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round_panel(panel: &[f32], rows: Rows, depth: usize, to: &mut [f32]) {
    for (row, values) in panel.chunks_exact(depth).enumerate() {
        let tile = &mut to[row / rows.height * rows.tile_words()..][..rows.tile_words()];
        for (step, values) in values.chunks(PAIRED).enumerate() {
            let at = step * rows.step_words() + row % rows.height * WORDS;
            // SAFETY: the values are a slice's, the words a row of the tile's.
            unsafe {
                let words = words::neighbours(values.as_ptr(), values.len());
                words::store(words, tile[at..][..WORDS].as_mut_ptr());
            }
        }
    }
}

/// One block of columns at neighbouring locations.
struct RunKernel<'a> {
    gather: Gather<'a>,
    rows: Rows,
    sources: &'a [f32],
    locations: std::ops::Range<usize>,
    block: usize,
    finish: Finish<'a>,
    /// `[row, column of the block]`, rows of whole tiles.
    scratch: &'a mut [f32],
}

impl Kernel for RunKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Gather { batch, packing, .. } = self.gather;
        let scratch = self.scratch.as_ptr().cast_mut();
        let left = packing.columns - self.block * packing.block;
        let wide = left.min(packing.block) > WORDS;
        // SAFETY: the machine has the tiles; operands and sums lie inside the arrays that `gather` measured, and no other
        // item touches this block of these locations.
        unsafe {
            let unit = Unit::new(self.rows.height, WORDS);
            for location in self.locations.clone() {
                for tile in (0..self.rows.tiles).step_by(2) {
                    match (tile + 1 < self.rows.tiles, wide) {
                        (true, true) => self.fill::<2, 2>(&unit, location, tile),
                        (true, false) => self.fill::<2, 1>(&unit, location, tile),
                        (false, true) => self.fill::<1, 2>(&unit, location, tile),
                        (false, false) => self.fill::<1, 1>(&unit, location, tile),
                    }
                }
                finish_block::<V>(self.finish, packing, (location, self.block), batch, scratch);
            }
        }
    }
}

impl RunKernel<'_> {
    /// Fills one or two tiles of rows from tile `tile` on, and of columns.
    ///
    /// # Safety
    /// Operands and scratch of the cut's lengths.
    unsafe fn fill<const ROWS: usize, const COLUMNS: usize>(
        &self,
        unit: &Unit,
        location: usize,
        tile: usize,
    ) {
        let (rows, packing) = (self.rows, self.gather.packing);
        let tap_words = tap_words(packing);
        let weights = self.block * packing.taps * tap_words;
        unit.clear();
        for link in self.gather.links.of(location) {
            let source = link.location as usize * rows.panel_words() + tile * rows.tile_words();
            let weight = weights + link.tap as usize * tap_words;
            let source = Operand {
                first: self.sources[source..].as_ptr(),
                second: rows.tile_words(),
                step: rows.step_words(),
            };
            let weight = Operand {
                first: self.gather.packed[weight..].as_ptr(),
                second: WORDS * WORDS,
                step: step_words(packing),
            };
            // SAFETY: handed on from the caller.
            unsafe { unit.add_products::<ROWS, COLUMNS>(source, weight, rows.steps) };
        }
        let at = tile * rows.height * packing.block;
        // SAFETY: handed on from the caller; scratch has whole tiles of rows.
        unsafe {
            let out = self.scratch.as_ptr().cast_mut().add(at);
            unit.store::<ROWS, COLUMNS>(out, packing.block);
        }
    }
}
