//! Starts kernels, and what every kernel knows of its start: which item it works for, and on what part of it.
//!
//! All kernels are given the array that holds everything, a table of words that describe the items, and where in it
//! those of this launch begin.

use super::accelerator::DeviceArray;
use super::elementwise::{
    adam, classification_loss, clear, copy, gather, pool, sequence_loss, sgd, sign,
};
use super::gradient::{add_parts, bias_part, gradient_part};
use super::group::{land, normalise};
use super::matrix::PLANE;
use super::panel::{feedback_panel, forward_panel, product};
use super::recurrent::{feedback_step, recur_step};
use super::tile::THREADS;
use super::work::{Kernel, Launch};
use cubecl::prelude::*;

/// Work-groups along the first dimension before a second one is used: every device has at least 65,535.
const ROW: usize = 32_768;

/// The number of a work-group among those of its item.
#[cube]
pub(super) fn group() -> usize {
    CUBE_POS_X as usize + CUBE_POS_Y as usize * ROW
}

/// The value of an item that a thread works on.
#[cube]
pub(super) fn place() -> usize {
    group() * THREADS + UNIT_POS as usize
}

/// Where the words of a work-group's item begin.
#[cube]
pub(super) fn item(first_word: usize, #[comptime] words: usize) -> usize {
    first_word + CUBE_POS_Z as usize * words
}

/// The threads of every work-group, a plane of matrix units in each row: where CubeCL works out which of a plane's
/// threads one is, it looks at the first dimension only (on AMD).
pub(super) fn units() -> CubeDim {
    CubeDim::new_2d(PLANE as u32, (THREADS / PLANE) as u32)
}

/// Work-groups that have a thread for each of `len` values.
pub(super) fn groups_of(len: usize) -> usize {
    len.div_ceil(THREADS)
}

/// The grid of so many work-groups for each of some items.
pub(super) fn grid(groups: usize, items: usize) -> CubeCount {
    let [x, y, z] = extents(groups, items);
    CubeCount::Static(x, y, z)
}

/// The same in numbers.
pub(super) fn extents(groups: usize, items: usize) -> [u32; 3] {
    [
        groups.min(ROW) as u32,
        groups.div_ceil(ROW) as u32,
        items as u32,
    ]
}

/// An array as kernels are given it.
pub(super) fn argument<R: Runtime>(array: &DeviceArray) -> ArrayArg<R> {
    // SAFETY: the allocation holds `len` values of four bytes.
    unsafe { ArrayArg::from_raw_parts(array.handle().clone(), array.len) }
}

/// What kernels are given.
pub(super) struct Arguments<'a> {
    /// Everything.
    pub(super) heap: &'a DeviceArray,
    /// Links of the wirings.
    pub(super) links: &'a DeviceArray,
    /// Numbers of the samples that a window of minibatches takes.
    pub(super) places: &'a DeviceArray,
    /// Words of all items.
    pub(super) table: &'a DeviceArray,
    /// The minibatch of the window, and how many the launches are for.
    pub(super) step: usize,
    pub(super) minibatches: usize,
}

/// Starts one launch.
pub(super) fn start<R: Runtime>(client: &ComputeClient<R>, launch: &Launch, given: &Arguments<'_>) {
    let count = grid(launch.groups, launch.items);
    let first = launch.first_word;
    let (heap, table) = (argument::<R>(given.heap), argument::<R>(given.table));
    let links = || argument::<R>(given.links);
    let (dim, step) = (units(), given.step + launch.minibatch);
    // SAFETY: every operand was a stretch of a region when its item was noted (`GpuBuffer::first` asserts its
    // length), regions live in the heap until the work is done, links name panels of their wiring only, and kernels
    // keep to the sizes among their words.
    unsafe {
        match launch.kernel {
            Kernel::Product {
                tile,
                direction,
                biased,
            } => product::launch_unchecked(
                client,
                count,
                dim,
                heap,
                links(),
                table,
                first,
                tile,
                direction,
                biased,
            ),
            Kernel::ForwardPanel { tile, arrival, .. } => forward_panel::launch_unchecked(
                client,
                count,
                dim,
                heap,
                links(),
                table,
                first,
                tile,
                arrival,
            ),
            Kernel::FeedbackPanel {
                tile,
                direction,
                arrival,
                local,
            } => feedback_panel::launch_unchecked(
                client,
                count,
                dim,
                heap,
                links(),
                table,
                first,
                tile,
                direction,
                arrival,
                local,
            ),
            Kernel::RecurStep(tile, activation) => recur_step::launch_unchecked(
                client,
                count,
                dim,
                heap,
                links(),
                table,
                first,
                tile,
                activation,
            ),
            Kernel::FeedbackStep {
                tile,
                activation,
                last,
                first: first_state,
                local,
            } => feedback_step::launch_unchecked(
                client,
                count,
                dim,
                heap,
                links(),
                table,
                first,
                tile,
                activation,
                last,
                first_state,
                local,
            ),
            Kernel::GradientPart(tile, _) => gradient_part::launch_unchecked(
                client,
                count,
                dim,
                heap,
                links(),
                table,
                first,
                tile,
            ),
            Kernel::Normalise(arrival) => {
                normalise::launch_unchecked(client, count, dim, heap, table, first, arrival);
            }
            Kernel::Land(arrival, _) => {
                land::launch_unchecked(client, count, dim, heap, table, first, arrival);
            }
            Kernel::Gather => {
                let places = argument::<R>(given.places);
                gather::launch_unchecked(client, count, dim, heap, table, places, first, step);
            }
            Kernel::ClassificationLoss => {
                classification_loss::launch_unchecked(client, count, dim, heap, table, first, step);
            }
            Kernel::SequenceLoss => {
                sequence_loss::launch_unchecked(client, count, dim, heap, table, first, step);
            }
            Kernel::Adam => adam::launch_unchecked(client, count, dim, heap, table, first, step),
            Kernel::Pool(_) => pool::launch_unchecked(client, count, dim, heap, table, first),
            Kernel::Descend => unreachable!("only CUDA's own kernels descend along sums of parts"),
            Kernel::Cut(_)
            | Kernel::Unfold(_)
            | Kernel::Fragments(_)
            | Kernel::Ribbon(_)
            | Kernel::Join(_) => {
                unreachable!("only CUDA's own kernels cut operands")
            }
            Kernel::Clear => clear::launch_unchecked(client, count, dim, heap, table, first),
            Kernel::Copy => copy::launch_unchecked(client, count, dim, heap, table, first),
            Kernel::Sign => sign::launch_unchecked(client, count, dim, heap, table, first),
            Kernel::BiasPart(_) => {
                bias_part::launch_unchecked(client, count, dim, heap, table, first)
            }
            Kernel::AddParts => add_parts::launch_unchecked(client, count, dim, heap, table, first),
            Kernel::Sgd => sgd::launch_unchecked(client, count, dim, heap, table, first),
        }
    }
}
