//! The outer products of a strip's three taps with two samples in a vector.
//!
//! Of sources and signals in rows, tap t multiplies source row r by signal row r − t. A source value meets the signals of
//! all three taps at once.

use super::TAPS;
use crate::cpu::lanes::Lanes;
use crate::cpu::pairs::{MOST_INPUTS, add_samples, add_to};
use crate::cpu::tile::{RowTile, run_rows};

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
    /// At most [`MOST_INPUTS`].
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
    const MOST: usize = MOST_INPUTS;

    #[inline(always)]
    unsafe fn run<const M: usize>(self, _: usize) {
        let Taps { rows, samples, .. } = self.taps;
        let len = samples * V::LEN;
        // SAFETY: rows of signals are read only where there are any; the rest is the caller's promise.
        unsafe {
            let mut sums = [[V::Pair::splat(0.0); TAPS]; M];
            for row in 0..rows + TAPS - 1 {
                let sources = self.taps.sources.add(row * samples * M);
                let signals = [0, 1, 2].map(|tap: usize| {
                    let row = row.wrapping_sub(tap);
                    self.taps.signals.wrapping_add(row.wrapping_mul(len))
                });
                let (to, n) = (&mut sums, samples);
                // The taps whose row of signals there is.
                match ((row + 1).saturating_sub(rows), TAPS.min(row + 1)) {
                    (0, 1) => add_samples::<V, M, TAPS, 0, 1>(sources, signals, n, to),
                    (0, 2) => add_samples::<V, M, TAPS, 0, 2>(sources, signals, n, to),
                    (0, _) => add_samples::<V, M, TAPS, 0, TAPS>(sources, signals, n, to),
                    (1, 2) => add_samples::<V, M, TAPS, 1, 2>(sources, signals, n, to),
                    (1, _) => add_samples::<V, M, TAPS, 1, TAPS>(sources, signals, n, to),
                    _ => add_samples::<V, M, TAPS, 2, TAPS>(sources, signals, n, to),
                }
            }
            add_to::<V, M, TAPS>(sums, self.sums);
        }
    }
}
