//! The outer products of a strip's three taps with two samples' worth of lanes: two taps share a vector.
//!
//! Of sources and signals in rows, tap t multiplies source row r by signal row r − t. A source value meets the signals of
//! all three taps at once: those of the first two in the halves of one vector, those of the third in a vector of their own.

use super::TAPS;
use crate::cpu::lanes::{Lanes, MOST_LANES};
use crate::cpu::outer_product::FEW_INPUTS;
use crate::cpu::tile::{RowTile, run_rows};

/// Values of a signal that is not there.
static NOTHING: [f32; MOST_LANES] = [0.0; MOST_LANES];

/// Sources and signals at one point.
#[derive(Clone, Copy)]
pub(super) struct Taps {
    /// `[row, sample, input]`, two rows more than signals have.
    pub sources: *const f32,
    /// `[row, sample, output]`
    pub signals: *const f32,
    /// Of signals.
    pub rows: usize,
    pub samples: usize,
    /// At most [`FEW_INPUTS`].
    pub inputs: usize,
}

/// Adds to each tap's sums, `[input, output]`; outputs are `V::LEN`.
///
/// # Safety
/// The instruction set of `V`; valid sources, signals and sums.
#[inline(always)]
pub(super) unsafe fn add_taps<V: Lanes>(taps: Taps, sums: [*mut f32; TAPS]) {
    // SAFETY: handed on from the caller.
    unsafe { run_rows::<V, _>(TapTile { taps, sums }, 0, taps.inputs) }
}

struct TapTile {
    taps: Taps,
    sums: [*mut f32; TAPS],
}

impl<V: Lanes> RowTile<V> for TapTile {
    const MOST: usize = FEW_INPUTS;

    #[inline(always)]
    unsafe fn run<const M: usize>(self, _: usize) {
        let Taps { rows, samples, .. } = self.taps;
        let len = samples * V::LEN;
        // SAFETY: rows of signals are asked for only where there are any; the rest is the caller's promise.
        unsafe {
            let mut both = [V::Pair::splat(0.0); M];
            let mut third = [V::splat(0.0); M];
            for row in 0..rows + TAPS - 1 {
                let sources = self.taps.sources.add(row * samples * M);
                let signals: [_; TAPS] = std::array::from_fn(|tap| match row.checked_sub(tap) {
                    Some(row) if row < rows => self.taps.signals.wrapping_add(row * len),
                    _ => std::ptr::null(),
                });
                let sums = (&mut both, &mut third);
                match signals.map(|row| row.is_null()) {
                    [_, _, true] => add_row::<V, M, true, false>(sources, signals, samples, sums),
                    [true, true, _] => {
                        add_row::<V, M, false, true>(sources, signals, samples, sums)
                    }
                    _ => add_row::<V, M, true, true>(sources, signals, samples, sums),
                }
            }
            let [first, second, last] = self.sums;
            for (input, (both, third)) in both.into_iter().zip(third).enumerate() {
                let mut values = [0.0; MOST_LANES];
                both.store(values.as_mut_ptr());
                let [low, high] = [0, V::LEN].map(|half| V::load(values[half..].as_ptr()));
                for (sum, value) in [(first, low), (second, high), (last, third)] {
                    let at = sum.add(input * V::LEN);
                    V::load(at).add(value).store(at);
                }
            }
        }
    }
}

/// Adds what one row of sources gives: with signals of the first two taps if `BOTH`, null ones being zeros, and with those
/// of the third if `THIRD`.
///
/// # Safety
/// The instruction set of `V`; rows of so many samples.
#[inline(always)]
unsafe fn add_row<V: Lanes, const M: usize, const BOTH: bool, const THIRD: bool>(
    sources: *const f32,
    signals: [*const f32; TAPS],
    samples: usize,
    (both, third): (&mut [V::Pair; M], &mut [V; M]),
) {
    let [first, second, last] = signals.map(|row| match row.is_null() {
        true => (NOTHING.as_ptr(), 0),
        false => (row, V::LEN),
    });
    // SAFETY: handed on from the caller.
    unsafe {
        for sample in 0..samples {
            let at = |(row, step): (*const f32, usize)| row.add(sample * step);
            let pair = match BOTH {
                true => V::Pair::load_two(at(first), at(second)),
                false => V::Pair::splat(0.0),
            };
            let alone = match THIRD {
                true => V::load(at(last)),
                false => V::splat(0.0),
            };
            for input in 0..M {
                let x = *sources.add(sample * M + input);
                if BOTH {
                    both[input] = V::Pair::splat(x).mul_add(pair, both[input]);
                }
                if THIRD {
                    third[input] = V::splat(x).mul_add(alone, third[input]);
                }
            }
        }
    }
}
