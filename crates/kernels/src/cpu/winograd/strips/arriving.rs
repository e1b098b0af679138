//! Deltas made for a segment when it is the turn of its weight gradient.

use super::gather::{Room, SegmentFill};
use super::{ACROSS, Segment, Strips};
use crate::cpu::fill::{Fill, fill_blocks};
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::Packing;
use crate::cpu::panel::{Delta, FeedbackPort, Slopes};
use crate::cpu::pointer::Pointer;
use crate::cpu::sweep::{Finish, finish_block};
use crate::cpu::values::Target;

/// A signal that arrives at the layer whose gradient is computed.
pub(in crate::cpu) struct Arriving<'a> {
    pub through: Through<'a>,
    pub slopes: Slopes,
    /// The network of σ′, and of normᵀ where there is no other.
    pub path: FeedbackPort<'a>,
    /// Whether somebody else reads the path's deltas.
    pub goes_on: bool,
    pub local: Option<FeedbackPort<'a>>,
}

/// What the signal comes through.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Through<'a> {
    /// The layer above, in strips of the same grid: its deltas and its packed weights.
    Strips {
        panels: &'a [f32],
        packed: &'a [f32],
        packing: Packing,
    },
    /// Any wiring.
    Links(Fill<'a>),
}

impl<'a> Arriving<'a> {
    /// The same, with working memory for the segments of `strips`.
    pub(super) fn at(&'a self, strips: Strips, batch: usize) -> AtSegment<'a> {
        let fill = match self.through {
            Through::Strips {
                panels,
                packed,
                packing,
            } => SegmentFiller::Strips(SegmentFill {
                panels,
                packed,
                packing,
                room: Room::of(strips, batch, packing),
            }),
            Through::Links(fill) => SegmentFiller::Links(fill),
        };
        AtSegment {
            signal: self,
            fill,
            batch,
        }
    }
}

#[derive(Clone, Copy)]
enum SegmentFiller<'a> {
    Strips(SegmentFill<'a>),
    Links(Fill<'a>),
}

/// A signal that arrives segment by segment.
pub(super) struct AtSegment<'a> {
    signal: &'a Arriving<'a>,
    fill: SegmentFiller<'a>,
    batch: usize,
}

impl AtSegment<'_> {
    /// Values of working memory.
    pub(super) fn len(&self) -> usize {
        match &self.fill {
            SegmentFiller::Strips(fill) => fill.room.len(),
            SegmentFiller::Links(fill) => self.batch * fill.packing().block,
        }
    }

    /// The panels of a gradient's deltas, `[location, batch, channel]`, if they are stored.
    pub(super) fn stored(&self) -> Option<Pointer> {
        let Arriving {
            path,
            goes_on,
            local,
            ..
        } = *self.signal;
        let path = path.delta.filter(|_| goes_on && local.is_none());
        path.map(|delta| delta.values.start)
    }

    /// Makes a segment's deltas; those that are not stored in `deltas`, `[row, destination of four, batch, channel]` of
    /// `channels` channels.
    ///
    /// # Safety
    /// The instruction set of `V`; arrays of the layer's shape; working memory in scratch; room for the deltas.
    #[inline(always)]
    pub(super) unsafe fn make<V: Lanes>(
        &self,
        segment: &Segment,
        channels: usize,
        scratch: *mut f32,
        deltas: Pointer,
    ) {
        let panel = self.batch * channels;
        // SAFETY: handed on from the caller; every destination has a panel of its own.
        unsafe {
            if let SegmentFiller::Strips(fill) = &self.fill {
                fill.fill::<V>(segment, scratch);
            }
            for ((row, i), location) in segment.destinations() {
                self.ask_for::<V>(location * panel + segment.grid.to_next_row(panel), panel);
                let finish = self.finish(Delta {
                    values: Target::f32(deltas.skip((row * ACROSS + i) * panel)),
                    first: location * panel,
                });
                match self.fill {
                    SegmentFiller::Strips(fill) => {
                        fill.finish::<V>(&finish, (row, i), location, scratch);
                    }
                    SegmentFiller::Links(fill) => {
                        let packing = fill.packing();
                        for block in 0..packing.blocks() {
                            let (place, blocks) = ((location, block), block..block + 1);
                            fill_blocks::<V>(fill, location, blocks, self.batch, scratch);
                            finish_block::<V>(&finish, packing, place, self.batch, scratch);
                        }
                    }
                }
            }
        }
    }

    /// Asks for `len` values, from `first` on, of each z that the signal meets.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    unsafe fn ask_for<V: Lanes>(&self, first: usize, len: usize) {
        let Arriving { path, local, .. } = self.signal;
        for port in std::iter::once(path).chain(local) {
            // SAFETY: handed on from the caller.
            unsafe { port.z.ask_for::<V>(first, len) };
        }
    }

    /// What happens to a filled block whose delta, if it is not stored, is `delta`.
    #[inline(always)]
    fn finish(&self, delta: Delta) -> Finish<'_> {
        let Arriving {
            slopes,
            path,
            goes_on,
            local,
            ..
        } = *self.signal;
        let stored = path.delta.filter(|_| goes_on);
        let unstored = match local {
            Some(_) => None,
            None => Some(delta),
        };
        Finish::Feedback {
            slopes,
            path: FeedbackPort {
                delta: stored.or(unstored),
                ..path
            },
            local: local.map(|local| FeedbackPort {
                delta: Some(delta),
                ..local
            }),
        }
    }
}
