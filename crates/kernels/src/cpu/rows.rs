//! 3×3 convolutions of stride 1 with few channels, a grid row of destinations at a time.
//!
//! With a single vector of channels a product loads a source value for every multiply-add, and waits for loads.
//! Within a grid row a source feeds three destinations: walked column by column, with the sums of those three in
//! registers, every value loaded serves three multiply-adds, and a destination is complete as soon as the walk has
//! passed it. Its sum runs over the three columns that feed it, in each of them over channels, then over rows,
//! wherever a walk begins or ends; so how rows are cut changes no bit of it.

use super::channel_norm::complete;
use super::isa::Kernel;
use super::lanes::Lanes;
use super::pack::{Direction, Packing};
use super::scratch::Workers;
use super::sweep::{Finish, finish_block};
use super::tile::{RowTile, run_rows, tiles};
use crate::Layer;
use std::ops::Range;

/// Destinations of a grid row that one source feeds.
const FED: usize = 3;

/// Values of a walk's destinations that one aims at: they should stay in the second-level cache.
const VALUES: usize = 32 << 10;

/// Columns by which sources are asked for before their use.
const AHEAD: usize = 3;

/// The grid of a convolution, and which way it is walked.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    height: usize,
    width: usize,
    direction: Direction,
}

impl Grid {
    /// The grid of a layer that gains by such walks: one whose panels are an odd number of vectors wide, which pairs of
    /// vectors would not fill. A pair already loads less than it multiplies. The layer's shape alone decides.
    pub(super) fn of(layer: &Layer, direction: Direction, vectors: usize) -> Option<Self> {
        let (height, width) = layer.wiring.same_grid()?;
        let grid = Self {
            height,
            width,
            direction,
        };
        (vectors % 2 == 1).then_some(grid)
    }

    /// The weights of one block in the order of a walk, `[channel, row of sources, destination of three]`.
    fn arrange(self, packed: &[f32], packing: Packing, out: &mut [f32]) {
        for (at, to) in out.chunks_exact_mut(packing.block).enumerate() {
            let (k, place) = (at / (FED * FED), at % (FED * FED));
            // A source above a destination feeds it through a tap of the first row, one to its left through one of the
            // first column; walked backward, through those opposite.
            let tap = match self.direction {
                Direction::Forward => place / FED * FED + (FED - 1 - place % FED),
                Direction::Backward => (FED - 1 - place / FED) * FED + place % FED,
            };
            to.copy_from_slice(
                &packed[tap * packing.tap_len() + k * packing.block..][..packing.block],
            );
        }
    }
}

/// Fills and finishes all panels of a grid from `panels`, `[location, batch, depth]`.
pub(super) fn gather(
    workers: &mut Workers<'_>,
    grid: Grid,
    batch: usize,
    panels: &[f32],
    (packed, packing): (&[f32], Packing),
    finish: Finish<'_>,
) {
    let (threads, set) = (workers.threads, workers.set);
    let size = batch * packing.block;
    let rows = grid.height * packing.blocks();
    let walks = (grid.width * size).div_ceil(VALUES);
    // A grid of few rows is cut further, for enough items to share.
    let walks = walks
        .max((4 * threads.count()).div_ceil(rows))
        .min(grid.width);
    let longest = grid.width.div_ceil(walks);
    let cost = longest * size * (9 * packing.depth + 16);
    let work = |scratch: &mut [f32], item: usize| {
        let (line, walk) = (item / walks, item % walks);
        let edge = |walk: usize| walk * grid.width / walks;
        let kernel = RowKernel {
            grid,
            row: line % grid.height,
            columns: edge(walk)..edge(walk + 1),
            block: line / grid.height,
            batch,
            panels,
            packed,
            packing,
            finish,
            scratch,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its own
        // block at its own destinations.
        unsafe { set.run(kernel) };
    };
    let len = packing.block_len() + longest * size;
    workers.for_each(rows * walks, cost, len, work);
    let locations = grid.height * grid.width;
    complete(threads, set, locations, batch, packing, finish);
}

struct RowKernel<'a> {
    grid: Grid,
    row: usize,
    /// Columns of the destinations.
    columns: Range<usize>,
    block: usize,
    batch: usize,
    panels: &'a [f32],
    packed: &'a [f32],
    packing: Packing,
    finish: Finish<'a>,
    /// Weights in the order of a walk, then `[destination, batch, column of the block]`.
    scratch: &'a mut [f32],
}

impl Kernel for RowKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (grid, row, batch, packing) = (self.grid, self.row, self.batch, self.packing);
        let size = batch * packing.block;
        let packed = &self.packed[self.block * packing.block_len()..][..packing.block_len()];
        let (weights, filled) = self.scratch.split_at_mut(packing.block_len());
        grid.arrange(packed, packing, weights);
        let first = row.saturating_sub(1);
        let sources = (grid.height - first).min(row + 2 - first);
        let walk = Walk {
            panels: self.panels[first * grid.width * batch * packing.depth..].as_ptr(),
            batch,
            depth: packing.depth,
            width: grid.width,
            columns: self.columns.clone(),
            // A row at the upper edge has no sources above.
            weights: weights[usize::from(row == 0) * FED * V::LEN..].as_ptr(),
            taps: FED * FED,
            out: filled.as_mut_ptr(),
        };
        // SAFETY: the walk's rows and columns lie inside the grid, whose panels were sliced; scratch has room for all
        // destinations of the walk.
        unsafe {
            match sources {
                1 => walk_samples::<V, 1>(&walk),
                2 => walk_samples::<V, 2>(&walk),
                _ => walk_samples::<V, 3>(&walk),
            }
            for (place, column) in self.columns.enumerate() {
                let at = (row * grid.width + column, self.block);
                let filled = walk.out.add(place * size);
                finish_block::<V>(&self.finish, packing, at, batch, filled);
            }
        }
    }
}

/// Samples, or pairs of them, that are walked together: the sums of three destinations, their weights and a source value
/// are in registers.
const fn rows_of_three<V: Lanes>() -> usize {
    (V::ROWS_OF_ONE - 1) / FED
}

/// The walk of all samples along a grid row.
pub(super) struct Walk {
    /// Of the first row of sources.
    pub panels: *const f32,
    pub batch: usize,
    pub depth: usize,
    /// Columns of the grid.
    pub width: usize,
    /// Those of the destinations.
    pub columns: Range<usize>,
    /// `[channel, row of sources, destination of three]`, each a vector, from the first row of sources on.
    pub weights: *const f32,
    /// Vectors of weights of a channel.
    pub taps: usize,
    /// `[destination, batch]`, each a vector.
    pub out: *mut f32,
}

/// Walks all samples, over `SOURCES` rows of sources.
///
/// # Safety
/// The instruction set of `V`; columns and rows inside the grid; room for all destinations of the walk.
#[inline(always)]
pub(super) unsafe fn walk_samples<V: Lanes, const SOURCES: usize>(walk: &Walk) {
    // SAFETY: handed on from the caller.
    unsafe { V::call(AllSamples::<SOURCES>(walk)) }
}

/// A walk in a function of its own: inside of others, its sums would be left in memory.
struct AllSamples<'a, const SOURCES: usize>(&'a Walk);

impl<const SOURCES: usize> Kernel for AllSamples<'_, SOURCES> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let walk = self.0;
        // Every sum has its own lane and its terms their order, whether a sample has a vector of its own or not.
        let paired = match V::PAIRED {
            true => walk.batch / 2 * 2,
            false => 0,
        };
        // SAFETY: the contract of [`walk_samples`]; the tiles cut the batch.
        unsafe {
            for (from, pairs) in tiles(paired / 2, rows_of_three::<V::Pair>(), usize::MAX) {
                let rows = Rows::<2, SOURCES>(walk);
                run_rows::<V::Pair, _>(rows, 2 * from, pairs);
            }
            for (from, samples) in tiles(walk.batch - paired, rows_of_three::<V>(), usize::MAX) {
                run_rows::<V, _>(Rows::<1, SOURCES>(walk), paired + from, samples);
            }
        }
    }
}

/// The walk of a few vectors of `SAMPLES` samples each, over `SOURCES` rows of sources.
struct Rows<'a, const SAMPLES: usize, const SOURCES: usize>(&'a Walk);

impl<V: Lanes, const SAMPLES: usize, const SOURCES: usize> RowTile<V>
    for Rows<'_, SAMPLES, SOURCES>
{
    const MOST: usize = rows_of_three::<V>();

    #[inline(always)]
    unsafe fn run<const M: usize>(self, from: usize) {
        let walk = self.0;
        let Range { start, end } = walk.columns;
        // SAFETY: columns and rows lie inside the grid, samples inside the batch.
        unsafe {
            // Of the destinations left of, above and right of the source.
            let mut sums = [[V::splat(0.0); M]; FED];
            for column in start.saturating_sub(1)..=end {
                if column < walk.width {
                    // Sums of destinations outside the walk are computed only where that saves a loop of its own.
                    match (column > start, column + 1 < end) {
                        (false, true) => self.add::<V, M, 1, 3>(column, from, &mut sums),
                        (true, false) => self.add::<V, M, 0, 2>(column, from, &mut sums),
                        _ => self.add::<V, M, 0, 3>(column, from, &mut sums),
                    }
                }
                if column > start {
                    let sample = (column - 1 - start) * walk.batch + from;
                    let out = walk.out.add(sample * (V::LEN / SAMPLES));
                    for (row, sum) in sums[0].iter().enumerate() {
                        sum.store(out.add(row * V::LEN));
                    }
                }
                sums = [sums[1], sums[2], [V::splat(0.0); M]];
            }
        }
    }
}

impl<const SAMPLES: usize, const SOURCES: usize> Rows<'_, SAMPLES, SOURCES> {
    /// Adds what the sources of one column give to destinations `FIRST..END` of the three.
    ///
    /// # Safety
    /// The instruction set of `V`; a column of the grid, vectors of samples from `from` on inside the batch.
    #[inline(always)]
    unsafe fn add<V: Lanes, const M: usize, const FIRST: usize, const END: usize>(
        &self,
        column: usize,
        from: usize,
        sums: &mut [[V; M]; FED],
    ) {
        let walk = self.0;
        let size = walk.batch * walk.depth;
        // SAFETY: handed on from the caller.
        unsafe {
            let first = walk.panels.add(column * size + from * walk.depth);
            let panels: [_; SOURCES] = std::array::from_fn(|i| first.add(i * walk.width * size));
            let mut weights = walk.weights;
            for k in 0..walk.depth {
                for (i, panel) in panels.iter().enumerate() {
                    // The sources of a column ahead, a few at a time: too many panels for the processor to see streams.
                    if SOURCES > 1 {
                        V::prefetch(panel.wrapping_add(AHEAD * size + k * SAMPLES * M));
                    }
                    let w: [V; FED] = std::array::from_fn(|to| {
                        let from = weights.add((i * FED + to) * (V::LEN / SAMPLES));
                        match ((FIRST..END).contains(&to), SAMPLES) {
                            (false, _) => V::splat(0.0),
                            (true, 1) => V::load(from),
                            (true, _) => V::load_twice(from),
                        }
                    });
                    // Iterators over part of the three would leave the sums in memory.
                    #[expect(clippy::needless_range_loop)]
                    for row in 0..M {
                        let value = panel.add(SAMPLES * row * walk.depth + k);
                        let x = match SAMPLES {
                            1 => V::splat(*value),
                            _ => V::splat_two(*value, *value.add(walk.depth)),
                        };
                        for to in FIRST..END {
                            sums[to][row] = x.mul_add(w[to], sums[to][row]);
                        }
                    }
                }
                weights = weights.add(walk.taps * (V::LEN / SAMPLES));
            }
        }
    }
}
