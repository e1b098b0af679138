//! 3×3 convolutions of stride 1 with few channels, at half the multiplications: Winograd's F(4, 3) along grid rows.
//!
//! A strip is four grid columns wide. In each of its rows, four destinations see six sources, which are transformed to
//! six points (`Bᵀ d`); at each point there is a convolution along the strip, of three taps, whose sums are transformed
//! back to four destinations. With few channels that is less work than tiles of 4×4 ([`super`]), whose transforms cost
//! what their products save. The weight gradient is the adjoint again.

mod arriving;
mod gather;
mod gradient;
mod taps;
mod weights;

use super::transform::Line;
use crate::Layer;
use crate::cpu::lanes::{Lanes, store};
use crate::cpu::values::Value;
use std::ops::Range;

pub(in crate::cpu) use arriving::{Arriving, Through};
pub(in crate::cpu) use gather::gather;
pub(in crate::cpu) use gradient::{Deltas, gradient};
pub(in crate::cpu) use weights::pack;

/// Places of a row's six transformed sources.
const POINTS: usize = 6;

/// Columns of a strip's destinations.
const ACROSS: usize = 4;

/// Taps along a strip.
const TAPS: usize = 3;

/// Source channels from which on transforms cost less than the products that they save.
const FEWEST_CHANNELS: usize = 6;

/// Channels, on both sides, up to which a segment stays in the second-level cache.
const MOST_CHANNELS: usize = 64;

/// Rows of a segment, the part of a strip that is computed at once, at most.
const ROWS: usize = 8;

/// The strips of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu) struct Strips {
    height: usize,
    width: usize,
    /// Of a segment, at most.
    rows: usize,
}

impl Strips {
    /// The strips in which a layer without tiles gathers panels of `depth` channels, if it gains by them. The layer's
    /// shape alone decides.
    pub(in crate::cpu) fn of_gather(layer: &Layer, depth: usize) -> Option<Self> {
        Self::of(layer).filter(|_| depth >= FEWEST_CHANNELS && few(layer))
    }

    /// The strips in which the weight gradient of a layer without tiles is computed, if it gains by them.
    pub(in crate::cpu) fn of_gradient(layer: &Layer) -> Option<Self> {
        Self::of(layer).filter(|_| few(layer))
    }

    /// The strips of a grid. They may lie outside in part: only where they save a third of the products.
    fn of(layer: &Layer) -> Option<Self> {
        let (height, width) = layer.wiring.same_grid()?;
        let strips = Self {
            height,
            width,
            rows: ROWS,
        };
        (TAPS * strips.across() <= width).then_some(strips)
    }

    /// The same in so many segments or more, unless they become short: the sources at their ends are transformed
    /// for their neighbours, too.
    fn in_segments(mut self, least: usize) -> Self {
        while self.count() < least && self.rows > 2 {
            self.rows /= 2;
        }
        self
    }

    /// Strips side by side.
    fn across(self) -> usize {
        self.width.div_ceil(ACROSS)
    }

    /// Segments of a strip.
    fn segments(self) -> usize {
        self.height.div_ceil(self.rows)
    }

    /// How many values after a panel of `len` values the one of the next grid row begins.
    fn to_next_row(self, len: usize) -> usize {
        self.width * len
    }

    /// How many segments there are in all.
    fn count(self) -> usize {
        self.across() * self.segments()
    }

    /// A segment by its number.
    fn segment(self, number: usize) -> Segment {
        let (strip, part) = (number / self.segments(), number % self.segments());
        let edge = |part: usize| part * self.height / self.segments();
        Segment {
            grid: self,
            rows: edge(part)..edge(part + 1),
            column: strip * ACROSS,
        }
    }
}

/// Whether all that belongs to a segment stays near.
fn few(layer: &Layer) -> bool {
    layer.inputs.max(layer.outputs) <= MOST_CHANNELS
}

/// Some rows of a strip's destinations.
#[derive(Clone)]
struct Segment {
    grid: Strips,
    rows: Range<usize>,
    /// The first column.
    column: usize,
}

impl Segment {
    /// Rows of its sources that lie in the grid.
    fn source_rows(&self) -> Range<usize> {
        self.rows.start.saturating_sub(1)..(self.rows.end + 1).min(self.grid.height)
    }

    /// The location in a row, `column` places right of the strip's first destination; none outside the grid.
    #[inline(always)]
    fn location(&self, row: usize, column: isize) -> Option<usize> {
        let column = self.column.checked_add_signed(column)?;
        (column < self.grid.width).then_some(row * self.grid.width + column)
    }

    /// The locations of a row, where they lie inside the grid.
    #[inline(always)]
    fn locations(&self, row: usize) -> [Option<usize>; ACROSS] {
        std::array::from_fn(|i| self.location(row, i as isize))
    }

    /// Its destinations inside the grid: row of the segment, place in the row, location.
    fn destinations(&self) -> impl Iterator<Item = ((usize, usize), usize)> + '_ {
        let rows = self.rows.clone().enumerate();
        rows.flat_map(move |(place, row)| {
            (0..ACROSS).filter_map(move |i| {
                let location = self.location(row, i as isize)?;
                Some(((place, i), location))
            })
        })
    }

    /// Where `N` panels of a row lie, from place `first` of the strip on; null outside the grid.
    #[inline(always)]
    fn places<E: Value, const N: usize>(
        &self,
        (row, first): (usize, isize),
        samples: Samples<'_, E>,
    ) -> [*const E; N] {
        let Samples {
            panels,
            batch,
            depth,
            from,
            count,
        } = samples;
        std::array::from_fn(|i| match self.location(row, first + i as isize) {
            Some(location) => panels[(location * batch + from) * depth..][..count * depth].as_ptr(),
            None => std::ptr::null(),
        })
    }
}

/// `len` values of each of `N` places, null ones zeros, at the points. Those so far `ahead` are asked for, unless it is 0.
///
/// # Safety
/// The instruction set of `V`; that many values at the places, and room for them at the points.
#[inline(always)]
unsafe fn to_points<L: Line<N, POINTS>, V: Lanes, E: Value, const N: usize>(
    places: [*const E; N],
    len: usize,
    ahead: usize,
    points: Points,
) {
    for at in (0..len).step_by(V::LEN) {
        let count = V::LEN.min(len - at);
        // SAFETY: handed on from the caller.
        unsafe {
            let mut x = [V::splat(0.0); N];
            for (value, &place) in x.iter_mut().zip(&places) {
                if !place.is_null() {
                    // The next row's panels begin new streams, which the processor would see late.
                    if ahead > 0 {
                        V::prefetch(place.wrapping_add(at + ahead).cast());
                    }
                    *value = E::load::<V>(place.wrapping_add(at), count);
                }
            }
            for (point, value) in L::line(x).iter().enumerate() {
                let to = points.first.wrapping_add(point * points.apart + at);
                store(*value, to, count);
            }
        }
    }
}

/// Samples `from..from + count` of panels `[location, batch, depth]`.
#[derive(Clone, Copy)]
struct Samples<'a, E> {
    panels: &'a [E],
    batch: usize,
    depth: usize,
    from: usize,
    count: usize,
}

/// Where values at the points go, each point's so many values from those of the one before.
#[derive(Clone, Copy)]
struct Points {
    first: *mut f32,
    apart: usize,
}

impl Points {
    /// Zeros, `len` at each point.
    ///
    /// # Safety
    /// Room at the points.
    #[inline(always)]
    unsafe fn clear(self, len: usize) {
        for point in 0..POINTS {
            // SAFETY: handed on from the caller.
            unsafe { self.first.add(point * self.apart).write_bytes(0, len) };
        }
    }
}
