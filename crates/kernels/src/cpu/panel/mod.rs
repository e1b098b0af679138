//! What happens to one column block of one panel while it is in cache: norm and activation, σ′ and normᵀ.

mod feedback;
mod forward;

pub(super) use feedback::{
    Delta, FeedbackPort, Slopes, finish_feedback, land, signal_to_psi, sums_with,
};
pub(super) use forward::{ForwardPort, finish_forward, forward};

use super::lanes::Lanes;
use super::pointer::Pointer;
use super::values::Value;
use std::marker::PhantomData;

/// How a column's vectors are filled, which loops over its rows then need not ask.
pub(super) trait Cut: Copy {
    /// Whether all lanes are used.
    const WHOLE: bool;
    /// Whether two samples share a vector, each in a half as wide as the panel.
    const TWO: bool = false;
}

/// Channels do not fill a vector.
#[derive(Clone, Copy)]
pub(super) struct Part;

/// Every lane is a channel.
#[derive(Clone, Copy)]
pub(super) struct Whole;

/// Two samples of all channels.
#[derive(Clone, Copy)]
pub(super) struct Two;

impl Cut for Part {
    const WHOLE: bool = false;
}

impl Cut for Whole {
    const WHOLE: bool = true;
}

impl Cut for Two {
    const WHOLE: bool = true;
    const TWO: bool = true;
}

/// One column vector of a panel in scratch, and where it belongs.
#[derive(Clone, Copy)]
pub(super) struct Column<C> {
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
    /// How its vectors are filled.
    pub cut: PhantomData<C>,
}

impl<C: Cut> Column<C> {
    /// The same column, known to be cut so.
    #[inline(always)]
    pub(super) fn cut<D: Cut>(self) -> Column<D> {
        Column {
            scratch: self.scratch,
            stride: self.stride,
            batch: self.batch,
            channel: self.channel,
            count: self.count,
            channels: self.channels,
            location: self.location,
            cut: PhantomData,
        }
    }

    /// Rows: samples, or pairs of them.
    #[inline(always)]
    pub(super) fn rows(&self) -> usize {
        match C::TWO {
            true => self.batch / 2,
            false => self.batch,
        }
    }

    /// Distance between rows of a panel.
    #[inline(always)]
    pub(super) fn panel_row(&self) -> usize {
        match C::TWO {
            true => 2 * self.channels,
            false => self.channels,
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
        // SAFETY: the caller guarantees a row of the column's and `V::LEN` scratch values a row.
        unsafe { V::load(self.scratch.add(row * self.stride)) }
    }

    #[inline(always)]
    unsafe fn set_row<V: Lanes>(&self, row: usize, value: V) {
        // SAFETY: as for `row`.
        unsafe { value.store(self.scratch.add(row * self.stride)) };
    }

    /// A row's values.
    ///
    /// # Safety
    /// The instruction set of `V`; `count` readable values.
    #[inline(always)]
    pub(super) unsafe fn load<V: Lanes, E: Value>(&self, from: *const E) -> V {
        let count = if C::WHOLE { V::LEN } else { self.count };
        // SAFETY: handed on from the caller.
        unsafe { E::load(from, count) }
    }

    /// One value for each channel.
    ///
    /// # Safety
    /// The instruction set of `V`; `count` readable values.
    #[inline(always)]
    unsafe fn load_channels<V: Lanes>(&self, from: *const f32) -> V {
        // SAFETY: handed on from the caller.
        unsafe {
            match C::TWO {
                true => V::load_twice(from),
                false => self.load(from),
            }
        }
    }

    /// Writes one value for each channel; those of both halves are the same.
    ///
    /// # Safety
    /// The instruction set of `V`; `count` writable values.
    #[inline(always)]
    unsafe fn store_channels<V: Lanes>(&self, value: V, to: *mut f32) {
        // SAFETY: handed on from the caller.
        unsafe {
            match C::TWO {
                true => value.store_partial(to, V::LEN / 2),
                false => self.store(value, to),
            }
        }
    }

    /// The sum over samples, of sums over rows.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    unsafe fn over_samples<V: Lanes>(&self, sums: V) -> V {
        match C::TWO {
            // SAFETY: arithmetic only.
            true => unsafe { sums.add_halves() },
            false => sums,
        }
    }

    /// Whether the column fills cache lines, row by row or several rows a line, in an array that begins at `start` of this
    /// column and is too long for the caches.
    #[inline(always)]
    fn streams<V: Lanes, E: Value>(&self, long: bool, start: *mut E) -> bool {
        const LINE: usize = 64;
        let [row, vector] = [self.panel_row(), V::LEN].map(|values| values * size_of::<E>());
        let lines = vector.is_multiple_of(LINE) && row.is_multiple_of(LINE);
        long && C::WHOLE && (lines || row == vector) && start.addr().is_multiple_of(LINE)
    }

    #[inline(always)]
    pub(super) unsafe fn store<V: Lanes, E: Value>(&self, value: V, to: *mut E) {
        let count = if C::WHOLE { V::LEN } else { self.count };
        // SAFETY: the caller guarantees `count` writable values.
        unsafe { E::store(value, to, count) };
    }

    /// Writes a row's values, past the caches if the column [`streams`](Self::streams).
    ///
    /// # Safety
    /// The instruction set of `V`; `count` writable values.
    #[inline(always)]
    pub(super) unsafe fn write<V: Lanes, E: Value>(&self, value: V, to: *mut E, streams: bool) {
        // SAFETY: handed on from the caller; a column that streams is whole.
        unsafe {
            match streams {
                true => E::stream(value, to),
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
pub(super) unsafe fn store_scaled<V: Lanes, C: Cut>(scale: f32, out: Pointer, column: Column<C>) {
    // SAFETY: handed on from the caller.
    unsafe {
        let scale = V::splat(scale);
        for row in 0..column.rows() {
            let value = column.row::<V>(row).mul(scale);
            let at = column.panel_start() + row * column.panel_row();
            column.store(value, out.at(at));
        }
    }
}
