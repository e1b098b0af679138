//! The recurrent cell: steps in sequence, each a product with the packed weights and an epilogue in cache.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::isa::Kernel;
use super::lanes::Lanes;
use super::nonlinearity::{self, ForNonlinearity, Nonlinearity};
use super::pack::Packing;
use super::panel::{Column, Part};
use super::pointer::Pointer;
use super::rounding::bf16_if;
use super::scratch::Workers;
use super::tile::{GatherSource, ONLY, gather_block};
use crate::RecurrentCell;
use std::marker::PhantomData;

/// What a step does with its product.
#[derive(Clone, Copy)]
pub(super) enum StepFinish<'a> {
    /// `z = x · W_i + scale · product + b`, `h = σ(z)`.
    Forward(StepDrive<'a>),
    /// `carried = scale · product`; unless this is the initial state, `δ = σ′(z)(signal + carried)` and the
    /// local `σ′(z) carried`.
    Feedback {
        carried: Pointer,
        landing: Option<StepLanding<'a>>,
    },
}

/// What drives a forward step, and where it goes.
#[derive(Clone, Copy)]
pub(super) struct StepDrive<'a> {
    /// x of this step, `[batch, input]`.
    pub(super) input: &'a [f32],
    /// W_i, `[input, unit]`.
    pub(super) weights: &'a [f32],
    /// b, `[unit]`.
    pub(super) bias: &'a [f32],
    /// This step's z, `[batch, unit]`.
    pub(super) z: Pointer,
    /// This step's h, `[batch, unit]`.
    pub(super) h: Pointer,
}

/// Where a step's feedback lands; all arrays are this step's `[batch, unit]`.
#[derive(Clone, Copy)]
pub(super) struct StepLanding<'a> {
    pub(super) signal: &'a [f32],
    pub(super) z: &'a [f32],
    pub(super) delta: Pointer,
    /// z and delta of a second pass.
    pub(super) local: Option<(&'a [f32], Pointer)>,
}

/// What all steps of a sequence share.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a> {
    pub(super) cell: &'a RecurrentCell,
    pub(super) batch: usize,
    /// Whether states and deltas are rounded to bf16.
    pub(super) rounded: bool,
    pub(super) packing: Packing,
    /// Packed weights; if there are tiles, for the tile unit.
    pub(super) packed: &'a [f32],
    /// Where the tile unit computes the products.
    pub(super) tiles: Option<StateTiles>,
}

/// The state of a step as tiles.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
pub(super) struct StateTiles {
    /// Whether operands have two parts, not one.
    pub(super) two_parts: bool,
    /// Room for them.
    pub(super) words: Pointer,
}

/// One step: a `[batch, width]` panel times packed weights. Without a panel the product is 0.
pub(super) fn step(
    workers: &mut Workers<'_>,
    sequence: Sequence<'_>,
    panel: Option<&[f32]>,
    finish: StepFinish<'_>,
) {
    let Sequence {
        cell,
        batch,
        packing,
        ..
    } = sequence;
    let cost = batch * packing.block * (cell.width + 16);
    let set = workers.set;
    let state = match (sequence.tiles, panel) {
        #[cfg(target_arch = "x86_64")]
        (Some(tiles), Some(panel)) => {
            // SAFETY: nothing else runs between two steps.
            unsafe { amx::round_state(tiles, batch, packing, panel) };
            sequence.tiles
        }
        _ => None,
    };
    let work = |scratch: &mut [f32], block: usize| {
        let kernel = StepKernel {
            sequence,
            panel,
            state,
            block,
            finish,
            scratch,
        };
        // SAFETY: `set` is available; every block writes its own columns.
        unsafe { set.run(kernel) };
    };
    let rows = batch.next_multiple_of(MOST_ROWS);
    workers.for_each(packing.blocks(), cost, rows * packing.block, work);
}

/// Rows of a tile at most: products may fill whole tiles.
const MOST_ROWS: usize = 16;

struct StepKernel<'a> {
    sequence: Sequence<'a>,
    panel: Option<&'a [f32]>,
    /// The panel as tiles, where the tile unit takes it.
    state: Option<StateTiles>,
    block: usize,
    finish: StepFinish<'a>,
    scratch: &'a mut [f32],
}

impl Kernel for StepKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Sequence {
            cell,
            batch,
            rounded,
            packing,
            packed,
            ..
        } = self.sequence;
        let scratch = self.scratch.as_mut_ptr();
        match (self.state, self.panel) {
            #[cfg(target_arch = "x86_64")]
            (Some(state), _) => {
                // SAFETY: the state was rounded, the packed weights are whole, scratch has whole tiles of rows.
                unsafe { amx::multiply_state(state, batch, packing, packed, self.block, scratch) };
            }
            (_, Some(panel)) => {
                let source = GatherSource {
                    links: &ONLY,
                    panels: panel.as_ptr(),
                    panel_len: batch * packing.depth,
                    batch,
                    depth: packing.depth,
                    row: packing.depth,
                    weights: packed[self.block * packing.block_len()..].as_ptr(),
                    block: packing.block,
                    add: false,
                    next: [&[]; 2],
                };
                // SAFETY: the panel is `[batch, width]`, the packed block whole, scratch `[batch, block]`.
                unsafe { gather_block::<V>(source, scratch) };
            }
            (_, None) => self.scratch.fill(0.0),
        }
        for vector in 0..packing.block / V::LEN {
            let channel = self.block * packing.block + vector * V::LEN;
            if channel >= packing.columns {
                break;
            }
            let column = Column::<Part> {
                scratch: scratch.wrapping_add(vector * V::LEN),
                stride: packing.block,
                batch,
                channel,
                count: V::LEN.min(packing.columns - channel),
                channels: packing.columns,
                location: 0,
                cut: PhantomData,
            };
            let scale = cell.scale as f32;
            // SAFETY: all arrays are this step's panels; columns of different blocks do not overlap.
            unsafe {
                match self.finish {
                    StepFinish::Forward(drive) => {
                        let rows = DriveRows {
                            drive,
                            inputs: cell.inputs,
                            scale,
                            rounded,
                            column,
                        };
                        nonlinearity::with::<V, _>(cell.activation, rows);
                    }
                    StepFinish::Feedback { carried, landing } => {
                        let rows = LandingRows {
                            carried,
                            landing,
                            scale,
                            rounded,
                            column,
                        };
                        nonlinearity::with::<V, _>(cell.activation, rows);
                    }
                }
            }
        }
    }
}

/// A column of a forward step: products, input and bias to z, and its activation. To be run with the instruction set of
/// `V` and a valid column of the step's arrays.
struct DriveRows<'a> {
    drive: StepDrive<'a>,
    inputs: usize,
    scale: f32,
    rounded: bool,
    column: Column<Part>,
}

impl<V: Lanes> ForNonlinearity<V> for DriveRows<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<A: Nonlinearity>(self) {
        let Self {
            drive,
            inputs,
            column,
            ..
        } = self;
        // SAFETY: handed on from the caller.
        unsafe {
            let scale = V::splat(self.scale);
            let bias = column.load::<V, _>(drive.bias.as_ptr().add(column.channel));
            for row in 0..column.batch {
                let mut value = column.row::<V>(row).mul_add(scale, bias);
                for i in 0..inputs {
                    let at = i * column.channels + column.channel;
                    let weight = column.load::<V, _>(drive.weights.as_ptr().add(at));
                    let input = V::splat(*drive.input.as_ptr().add(row * inputs + i));
                    value = input.mul_add(weight, value);
                }
                let at = row * column.channels + column.channel;
                column.store(value, drive.z.at(at));
                column.store(bf16_if(self.rounded, A::value(value)), drive.h.at(at));
            }
        }
    }
}

/// A column of a feedback step, to be run under the same conditions.
struct LandingRows<'a> {
    carried: Pointer,
    landing: Option<StepLanding<'a>>,
    scale: f32,
    rounded: bool,
    column: Column<Part>,
}

impl<V: Lanes> ForNonlinearity<V> for LandingRows<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<A: Nonlinearity>(self) {
        let Self {
            carried, column, ..
        } = self;
        // SAFETY: handed on from the caller.
        unsafe {
            let scale = V::splat(self.scale);
            for row in 0..column.batch {
                let at = row * column.channels + column.channel;
                let value = column.row::<V>(row).mul(scale);
                column.store(value, carried.at(at));
                let Some(landing) = self.landing else {
                    continue;
                };
                let signal = column
                    .load::<V, _>(landing.signal.as_ptr().add(at))
                    .add(value);
                let z = column.load::<V, _>(landing.z.as_ptr().add(at));
                let landed = bf16_if(self.rounded, A::slope_times(z, signal));
                column.store(landed, landing.delta.at(at));
                if let Some((z, delta)) = landing.local {
                    let z = column.load::<V, _>(z.as_ptr().add(at));
                    let landed = bf16_if(self.rounded, A::slope_times(z, value));
                    column.store(landed, delta.at(at));
                }
            }
        }
    }
}
