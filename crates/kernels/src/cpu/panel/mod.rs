//! What happens to one column block of one panel while it is in cache: norm and activation, σ′ and normᵀ.

mod feedback;
mod forward;

pub(super) use feedback::{
    Delta, FeedbackPort, Slopes, finish_feedback, land, signal_to_psi, sums_with,
};
pub(super) use forward::{ForwardPort, finish_forward, forward};

use super::lanes::{self, Lanes};
use super::pointer::Pointer;

/// One column vector of a panel in scratch, and where it belongs. Of a `WHOLE` one every lane is a channel, which the
/// loops over its rows then need not ask.
#[derive(Clone, Copy)]
pub(super) struct Column<const WHOLE: bool> {
    /// First value in scratch.
    pub scratch: *mut f32,
    /// Distance between rows in scratch.
    pub stride: usize,
    /// Samples.
    pub batch: usize,
    /// First of these channels.
    pub channel: usize,
    /// Channels in this vector, `V::LEN` or fewer.
    pub count: usize,
    /// Channels of the panel.
    pub channels: usize,
    /// Location of the panel.
    pub location: usize,
}

impl<const WHOLE: bool> Column<WHOLE> {
    /// The same column, known to fill a vector.
    #[inline(always)]
    pub(super) fn whole(self) -> Column<true> {
        Column {
            scratch: self.scratch,
            stride: self.stride,
            batch: self.batch,
            channel: self.channel,
            count: self.count,
            channels: self.channels,
            location: self.location,
        }
    }

    /// Index of row 0 of this column in a `[location, batch, channel]` array.
    #[inline(always)]
    pub(super) fn panel_start(&self) -> usize {
        self.location * self.batch * self.channels + self.channel
    }

    /// Index in a `[location, channel]` array.
    #[inline(always)]
    pub(super) fn channel_start(&self) -> usize {
        self.location * self.channels + self.channel
    }

    #[inline(always)]
    pub(super) unsafe fn row<V: Lanes>(&self, row: usize) -> V {
        // SAFETY: the caller guarantees `row < batch` and `V::LEN` scratch values a row.
        unsafe { V::load(self.scratch.add(row * self.stride)) }
    }

    #[inline(always)]
    unsafe fn set_row<V: Lanes>(&self, row: usize, value: V) {
        // SAFETY: as for `row`.
        unsafe { value.store(self.scratch.add(row * self.stride)) };
    }

    #[inline(always)]
    pub(super) unsafe fn load<V: Lanes>(&self, from: *const f32) -> V {
        // SAFETY: the caller guarantees `count` readable values.
        unsafe {
            match WHOLE {
                true => V::load(from),
                false => lanes::load(from, self.count),
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn store<V: Lanes>(&self, value: V, to: *mut f32) {
        // SAFETY: the caller guarantees `count` writable values.
        unsafe {
            match WHOLE {
                true => value.store(to),
                false => lanes::store(value, to, self.count),
            }
        }
    }
}

/// `out = scale · filled`.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
pub(super) unsafe fn store_scaled<V: Lanes, const WHOLE: bool>(
    scale: f32,
    out: Pointer,
    column: Column<WHOLE>,
) {
    // SAFETY: handed on from the caller.
    unsafe {
        let scale = V::splat(scale);
        for row in 0..column.batch {
            let value = column.row::<V>(row).mul(scale);
            column.store(value, out.at(column.panel_start() + row * column.channels));
        }
    }
}
