//! Outer products of narrow panels with two samples in a vector.
//!
//! Samples of a panel follow each other, so a vector holds the signals of two. Their sources come in one vector, too, of which
//! each input is spread over both samples' halves: shuffles, where a broadcast for every multiply-add would wait for loads.
//! The sums of even and of odd samples are added at the end.

use super::lanes::{Lanes, MOST_LANES};
use super::tile::{RowTile, run_rows};

/// Most inputs of a panel, so that two samples' fit a vector and sums the registers.
pub(super) const MOST_INPUTS: usize = 8;

/// Adds to `sums[input][t]` what samples of a source panel, `[sample, input]` of `M` inputs, and of signal panels
/// `FIRST..END` of `T`, `[sample, output]` of `V::LEN` outputs, give.
///
/// # Safety
/// The instruction set of `V`; that many samples in the panels.
#[inline(always)]
pub(super) unsafe fn add_samples<
    V: Lanes,
    const M: usize,
    const T: usize,
    const FIRST: usize,
    const END: usize,
>(
    sources: *const f32,
    signals: [*const f32; T],
    samples: usize,
    sums: &mut [[V::Pair; T]; M],
) {
    // SAFETY: handed on from the caller.
    unsafe {
        for sample in (0..samples / 2 * 2).step_by(2) {
            let from = sources.add(sample * M);
            let x = match 2 * M == V::Pair::LEN {
                true => V::Pair::load(from),
                false => V::Pair::load_partial(from, 2 * M),
            };
            let mut d = [V::Pair::splat(0.0); T];
            for t in FIRST..END {
                d[t] = V::Pair::load(signals[t].add(sample * V::LEN));
            }
            multiply::<V, M, T, FIRST, END>(x, d, sums);
        }
        if !samples.is_multiple_of(2) {
            let sample = samples - 1;
            let x = V::Pair::load_partial(sources.add(sample * M), M);
            let mut d = [V::Pair::splat(0.0); T];
            for t in FIRST..END {
                d[t] = V::Pair::load_partial(signals[t].add(sample * V::LEN), V::LEN);
            }
            multiply::<V, M, T, FIRST, END>(x, d, sums);
        }
    }
}

/// Adds the products of two samples' sources and signals.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
unsafe fn multiply<
    V: Lanes,
    const M: usize,
    const T: usize,
    const FIRST: usize,
    const END: usize,
>(
    x: V::Pair,
    d: [V::Pair; T],
    sums: &mut [[V::Pair; T]; M],
) {
    for (input, sums) in sums.iter_mut().enumerate() {
        // SAFETY: handed on from the caller.
        unsafe {
            let both = x.spread_two(input, M + input);
            // Iterators over a part would leave the sums in memory.
            for t in FIRST..END {
                sums[t] = both.mul_add(d[t], sums[t]);
            }
        }
    }
}

/// Adds sums of two samples each to `to[t]`, `[input, output]`.
///
/// # Safety
/// The instruction set of `V`; `M` rows there.
#[inline(always)]
pub(super) unsafe fn add_to<V: Lanes, const M: usize, const T: usize>(
    sums: [[V::Pair; T]; M],
    to: [*mut f32; T],
) {
    for (input, sums) in sums.into_iter().enumerate() {
        for (sum, to) in sums.into_iter().zip(to) {
            let mut values = [0.0; MOST_LANES];
            // SAFETY: handed on from the caller; no vector has more lanes.
            unsafe {
                sum.add_halves().store(values.as_mut_ptr());
                let at = to.add(input * V::LEN);
                V::load(at).add(V::load(values.as_ptr())).store(at);
            }
        }
    }
}

/// `sum[input, output] += Σ_sample source[sample, input] · signal[sample, output]` for at most [`MOST_INPUTS`] inputs and
/// `V::LEN` outputs.
///
/// # Safety
/// The instruction set of `V`; valid panels and sums.
#[inline(always)]
pub(super) unsafe fn add_outer_product<V: Lanes>(
    source: (*const f32, usize),
    signal: *const f32,
    samples: usize,
    sum: *mut f32,
) {
    let (source, inputs) = source;
    let tile = PanelTile {
        source,
        signal,
        samples,
        sum,
    };
    // SAFETY: handed on from the caller.
    unsafe { run_rows::<V, _>(tile, 0, inputs) }
}

struct PanelTile {
    source: *const f32,
    signal: *const f32,
    samples: usize,
    sum: *mut f32,
}

impl<V: Lanes> RowTile<V> for PanelTile {
    const MOST: usize = MOST_INPUTS;

    #[inline(always)]
    unsafe fn run<const M: usize>(self, _: usize) {
        // SAFETY: handed on from the caller.
        unsafe {
            let mut sums = [[V::Pair::splat(0.0); 1]; M];
            let signals = [self.signal];
            add_samples::<V, M, 1, 0, 1>(self.source, signals, self.samples, &mut sums);
            add_to::<V, M, 1>(sums, [self.sum]);
        }
    }
}
