//! One pass over all panels: fill a column block in scratch, finish it while it is in cache.

use super::channel_norm::complete;
use super::fill::{Fill, fill_blocks};
use super::isa::Kernel;
use super::lanes::Lanes;
use super::pack::Packing;
use super::panel::{self, Column, Cut, FeedbackPort, ForwardPort, Part, Slopes, Two, Whole};
use super::pointer::Pointer;
use super::scratch::Workers;
use super::twin::Twin;
use std::marker::PhantomData;
use std::ops::Range;

/// Column blocks of a location that are filled together at most.
const MOST_BLOCKS: usize = 8;

/// Items that each thread should find at least.
const ITEMS: usize = 4;

/// What happens to a filled column block.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// `out = scale · filled`.
    Store { scale: f32, out: Pointer },
    /// Bias, norm, activation.
    Forward(ForwardPort<'a>),
    /// σ′ and normᵀ, for one or two networks.
    Feedback {
        slopes: Slopes,
        path: FeedbackPort<'a>,
        local: Option<FeedbackPort<'a>>,
    },
}

impl Finish<'_> {
    /// Asks for the z of the path that signals will meet at a location, in some blocks of columns.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    pub(super) unsafe fn ask_for_z<V: Lanes>(
        &self,
        location: usize,
        batch: usize,
        packing: Packing,
        blocks: Range<usize>,
    ) {
        let Self::Feedback { path, .. } = self else {
            return;
        };
        let columns = packing.columns;
        let from = blocks.start * packing.block;
        let to = columns.min(blocks.end * packing.block);
        // Whole rows follow each other.
        let (rows, len) = match to - from == columns {
            true => (1, batch * columns),
            false => (batch, to - from),
        };
        let panel = location * batch * columns;
        for row in 0..rows {
            let first = panel + row * columns + from;
            // SAFETY: handed on from the caller.
            unsafe { path.z.ask_for::<V>(first, len) };
        }
    }
}

/// Fills and finishes every column block of `locations` panels of `batch` samples.
pub(super) fn sweep(
    workers: &mut Workers<'_>,
    locations: usize,
    batch: usize,
    fill: Fill<'_>,
    finish: Finish<'_>,
) {
    let packing = fill.packing();
    let products = match fill {
        Fill::Gather { links, .. } => links.len() * packing.depth / locations.max(1),
        Fill::Broadcast { .. } => 1,
    };
    // Neighbouring blocks of a location read the same panels, as long as enough items are left for all threads.
    let set = workers.set;
    let enough = (locations * packing.blocks() / (ITEMS * workers.threads.count())).max(1);
    let groups = packing.blocks().div_ceil(enough.min(MOST_BLOCKS));
    let together = packing.blocks().div_ceil(groups);
    let filled = batch * packing.block;
    let cost = together * filled * (products + 16);
    let work = |scratch: &mut [f32], item: usize| {
        // Groups vary slowest: neighbouring items share a group's weights and most source panels.
        let (location, first) = (item % locations, item / locations * together);
        let kernel = BlocksKernel {
            location,
            blocks: first..(first + together).min(packing.blocks()),
            batch,
            fill,
            finish,
            scratch,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only the columns of its
        // own blocks and location.
        unsafe { set.run(kernel) };
    };
    workers.for_each(locations * groups, cost, together * filled, work);
    complete(workers.threads, set, locations, batch, packing, finish);
}

struct BlocksKernel<'a> {
    location: usize,
    blocks: Range<usize>,
    batch: usize,
    fill: Fill<'a>,
    finish: Finish<'a>,
    /// `[block, batch, column of the block]`
    scratch: &'a mut [f32],
}

impl Kernel for BlocksKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let packing = self.fill.packing();
        let filled = self.batch * packing.block;
        let scratch = self.scratch.as_mut_ptr();
        // SAFETY: the buffers behind `fill` and `finish` were checked by the caller of `sweep` against the
        // layer's shape, and no other item touches these blocks of this location.
        unsafe {
            let blocks = self.blocks.clone();
            let finish = &self.finish;
            finish.ask_for_z::<V>(self.location, self.batch, packing, blocks.clone());
            fill_blocks::<V>(self.fill, self.location, blocks, self.batch, scratch);
            for (place, block) in self.blocks.enumerate() {
                let scratch = scratch.add(place * filled);
                let at = (self.location, block);
                finish_block::<V>(&self.finish, packing, at, self.batch, scratch);
            }
        }
    }
}

/// Finishes the column block `block` of the panel at `location`, which stands in `scratch`, `[batch, block columns]`.
///
/// # Safety
/// The instruction set of `V`; a filled block in `scratch`; arrays behind `finish` of the layer's shape, of which no
/// other thread touches this block.
#[inline(always)]
pub(super) unsafe fn finish_block<V: Lanes>(
    finish: &Finish<'_>,
    packing: Packing,
    place: (usize, usize),
    batch: usize,
    scratch: *mut f32,
) {
    let kernel = FinishBlock {
        finish,
        packing,
        place,
        batch,
        scratch,
    };
    // SAFETY: handed on from the caller.
    unsafe { V::call(kernel) }
}

struct FinishBlock<'a> {
    finish: &'a Finish<'a>,
    packing: Packing,
    place: (usize, usize),
    batch: usize,
    scratch: *mut f32,
}

impl Kernel for FinishBlock<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (finish, packing, (location, block)) = (*self.finish, self.packing, self.place);
        // Two vectors are finished as one: a row's values come and go together, and of AVX2's, or of halved ones, two fill the
        // cache line that is written past the caches.
        let two = 2 * V::LEN;
        if packing.block == two && !V::PAIRED && (block + 1) * two <= packing.columns {
            let column = Column::<Whole> {
                scratch: self.scratch,
                stride: two,
                batch: self.batch,
                channel: block * two,
                count: two,
                channels: packing.columns,
                location,
                cut: PhantomData,
            };
            // SAFETY: the contract of [`finish_block`]; the column is the whole block.
            unsafe { finish_column::<Twin<V>, Whole>(finish, column) };
            return;
        }
        for vector in 0..packing.block / V::LEN {
            let channel = block * packing.block + vector * V::LEN;
            if channel >= packing.columns {
                break;
            }
            let column = Column::<Part> {
                scratch: self.scratch.wrapping_add(vector * V::LEN),
                stride: packing.block,
                batch: self.batch,
                channel,
                count: V::LEN.min(packing.columns - channel),
                channels: packing.columns,
                location,
                cut: PhantomData,
            };
            // Of panels as wide as a vector, samples follow each other.
            let pairs = packing.columns == V::LEN && packing.block == V::LEN;
            // SAFETY: the contract of [`finish_block`]; the column lies inside the block.
            unsafe {
                if V::PAIRED && pairs && self.batch.is_multiple_of(2) {
                    let stride = V::Pair::LEN;
                    let column = Column { stride, ..column };
                    finish_column::<V::Pair, Two>(finish, column.cut());
                } else if column.count == V::LEN {
                    finish_column::<V, Whole>(finish, column.cut());
                } else {
                    finish_column::<V, Part>(finish, column);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn finish_column<V: Lanes, C: Cut>(finish: Finish<'_>, column: Column<C>) {
    // SAFETY: handed on from the caller.
    unsafe {
        match finish {
            Finish::Store { scale, out } => panel::store_scaled::<V, C>(scale, out, column),
            Finish::Forward(port) => panel::forward::<V, C>(port, column),
            Finish::Feedback {
                slopes,
                path,
                local,
            } => {
                let sums = panel::signal_to_psi::<V, C>(slopes.activation, path.z, column);
                panel::land(slopes, sums, path, column);
                if let Some(local) = local {
                    let sums = panel::sums_with::<V, C>(local.z, column);
                    panel::land(slopes, sums, local, column);
                }
            }
        }
    }
}
