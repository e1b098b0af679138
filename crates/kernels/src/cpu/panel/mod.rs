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

    /// Whether the column's rows are cache lines, in an array that begins at `start` of this column and is too long for
    /// the caches.
    #[inline(always)]
    fn streams<V: Lanes>(&self, long: bool, start: *mut f32) -> bool {
        const LINE: usize = 64;
        let row = self.channels * size_of::<f32>();
        long && WHOLE
            && V::LEN * size_of::<f32>() == LINE
            && row.is_multiple_of(LINE)
            && start.addr().is_multiple_of(LINE)
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

impl<const WHOLE: bool> Column<WHOLE> {
    /// Writes a row's values, past the caches if the column [`streams`](Self::streams).
    ///
    /// # Safety
    /// The instruction set of `V`; `count` writable values.
    #[inline(always)]
    pub(super) unsafe fn write<V: Lanes>(&self, value: V, to: *mut f32, streams: bool) {
        // SAFETY: handed on from the caller; a column that streams is whole.
        unsafe {
            match streams {
                true => value.stream(to),
                false => self.store(value, to),
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
