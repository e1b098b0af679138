//! A signal to delta: σ′ and normᵀ.

use super::{Column, Cut, Part};
use crate::cpu::lanes::{CHAINS, Lanes, fold};
use crate::cpu::nonlinearity::{self, ForNonlinearity, Linear, Nonlinearity};
use crate::cpu::pointer::Pointer;
use crate::cpu::rounding::bf16_if;
use crate::cpu::values::{Bf16, Target, Value, Values};
use crate::{Activation, Norm};

/// Where a feedback signal lands: one network's record and the resulting delta.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct FeedbackPort<'a> {
    /// `[location, batch, channel]`.
    pub z: Values<'a>,
    /// `[location, channel]` or `[channel]`.
    pub inverse_deviation: &'a [f32],
    /// Where delta goes; None where nobody reads it.
    pub delta: Option<Delta>,
    /// Whether delta is rounded to bf16.
    pub rounded: bool,
    /// Whether delta is too long for the caches.
    pub long: bool,
    /// `[location, 2, channel]`: `Σψ` and `Σψz` of each panel under [`Norm::Channel`]; behind them room for
    /// `[2, channel]`.
    pub sums: Pointer,
}

/// Where delta goes: `[location, batch, channel]` of all locations or of some.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Delta {
    /// Not in 16 bits under [`Norm::Channel`], where it holds ψ first.
    pub values: Target,
    /// Which value of all locations' array is the first.
    pub first: usize,
}

impl Delta {
    /// The place of a value of all locations' array, which is stored so.
    #[inline(always)]
    fn at<E: Value>(self, value: usize) -> *mut E {
        self.values.at(value - self.first)
    }
}

/// What a feedback signal meets on arrival.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Slopes {
    pub norm: Norm,
    pub activation: Activation,
    /// Factor on the signal.
    pub scale: f32,
}

/// `Σψ` and `Σψz` over the rows of a column.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct PsiSums<V> {
    psi: V,
    psi_z: V,
}

/// `ψ = σ′(z_path) · signal`, in scratch, still without the signal's scale; and its sums with z_path.
///
/// # Safety
/// The instruction set of `V`; a valid column; `z` holds this column's values.
#[inline(always)]
pub(in crate::cpu) unsafe fn signal_to_psi<V: Lanes, C: Cut>(
    activation: Activation,
    z: Values<'_>,
    column: Column<C>,
) -> PsiSums<V> {
    let start = column.panel_start();
    // SAFETY: handed on from the caller.
    unsafe {
        match z {
            Values::F32(z) => {
                let z = z.as_ptr().wrapping_add(start);
                nonlinearity::with(activation, Sums::<C, _, true> { z, column })
            }
            Values::Bf16(z) => {
                let z = z.as_ptr().wrapping_add(start);
                nonlinearity::with(activation, Sums::<C, _, true> { z, column })
            }
        }
    }
}

/// The sums of a ψ that stands in scratch, with another network's z.
///
/// # Safety
/// As for [`signal_to_psi`].
#[inline(always)]
pub(in crate::cpu) unsafe fn sums_with<V: Lanes, C: Cut>(
    z: Values<'_>,
    column: Column<C>,
) -> PsiSums<V> {
    let start = column.panel_start();
    // SAFETY: handed on from the caller.
    unsafe {
        match z {
            Values::F32(z) => {
                let z = z.as_ptr().wrapping_add(start);
                Sums::<C, _, false> { z, column }.run::<Linear>()
            }
            Values::Bf16(z) => {
                let z = z.as_ptr().wrapping_add(start);
                Sums::<C, _, false> { z, column }.run::<Linear>()
            }
        }
    }
}

/// Sums over ψ; if `ARRIVING`, scratch holds the signal and receives ψ.
struct Sums<C: Cut, E, const ARRIVING: bool> {
    /// Of the column's first row.
    z: *const E,
    column: Column<C>,
}

impl<C: Cut, E: Value, const ARRIVING: bool> Sums<C, E, ARRIVING> {
    /// ψ and z of one row.
    ///
    /// # Safety
    /// As for [`signal_to_psi`].
    #[inline(always)]
    unsafe fn row<V: Lanes, A: Nonlinearity>(&self, row: usize) -> (V, V) {
        // SAFETY: handed on from the caller.
        unsafe {
            let z = self.z.wrapping_add(row * self.column.panel_row());
            let z = self.column.load::<V, E>(z);
            let psi = A::slope_times(z, self.column.row(row));
            if ARRIVING {
                self.column.set_row(row, psi);
            }
            (psi, z)
        }
    }
}

impl<V: Lanes, C: Cut, E: Value, const ARRIVING: bool> ForNonlinearity<V> for Sums<C, E, ARRIVING> {
    type Out = PsiSums<V>;

    #[inline(always)]
    unsafe fn run<A: Nonlinearity>(self) -> PsiSums<V> {
        // SAFETY: rows lie inside the batch.
        unsafe {
            let mut sums = [V::splat(0.0); CHAINS];
            let mut products = [V::splat(0.0); CHAINS];
            let whole = self.column.rows() / CHAINS * CHAINS;
            for first in (0..whole).step_by(CHAINS) {
                for chain in 0..CHAINS {
                    let (psi, z) = self.row::<V, A>(first + chain);
                    sums[chain] = sums[chain].add(psi);
                    products[chain] = psi.mul_add(z, products[chain]);
                }
            }
            for row in whole..self.column.rows() {
                let (psi, z) = self.row::<V, A>(row);
                sums[0] = sums[0].add(psi);
                products[0] = psi.mul_add(z, products[0]);
            }
            PsiSums {
                psi: self.column.over_samples(fold(sums)),
                psi_z: self.column.over_samples(fold(products)),
            }
        }
    }
}

/// `delta = scale · normᵀ(ψ)` from scratch; under [`Norm::Channel`] delta receives `scale · ψ` itself, and
/// [`finish_feedback`] completes it once all locations' sums are known.
///
/// # Safety
/// As for [`super::forward`].
#[inline(always)]
pub(in crate::cpu) unsafe fn land<V: Lanes, C: Cut>(
    slopes: Slopes,
    sums: PsiSums<V>,
    port: FeedbackPort<'_>,
    column: Column<C>,
) {
    let Some(delta) = port.delta else {
        return;
    };
    let rows = Rows {
        slopes,
        sums,
        port,
        column,
    };
    let start = column.panel_start();
    // SAFETY: handed on from the caller.
    unsafe {
        match (delta.values.halved, port.z) {
            (false, Values::F32(z)) => rows.land(delta.at::<f32>(start), z),
            (false, Values::Bf16(z)) => rows.land(delta.at::<f32>(start), z),
            (true, Values::F32(z)) => rows.land(delta.at::<Bf16>(start), z),
            (true, Values::Bf16(z)) => rows.land(delta.at::<Bf16>(start), z),
        }
    }
}

/// What [`land`] is given.
struct Rows<'a, V, C> {
    slopes: Slopes,
    sums: PsiSums<V>,
    port: FeedbackPort<'a>,
    column: Column<C>,
}

impl<V: Lanes, C: Cut> Rows<'_, V, C> {
    /// Lands at `out`, where the column's deltas begin.
    ///
    /// # Safety
    /// As for [`land`].
    #[inline(always)]
    unsafe fn land<D: Value, Z: Value>(self, out: *mut D, z: &[Z]) {
        let Self {
            slopes,
            sums,
            port,
            column,
        } = self;
        // SAFETY: handed on from the caller.
        unsafe {
            let scale = V::splat(slopes.scale);
            if slopes.norm == Norm::Location {
                let per_sample = V::splat(1.0 / column.batch as f32);
                let (mean, along) = (sums.psi.mul(per_sample), sums.psi_z.mul(per_sample));
                let inverse = port.inverse_deviation.as_ptr().add(column.channel_start());
                let factor = column.load_channels::<V>(inverse).mul(scale);
                let z = z.as_ptr().add(column.panel_start());
                let streams = column.streams::<V, D>(port.long, out);
                for row in 0..column.rows() {
                    let at = row * column.panel_row();
                    let centred = column.row::<V>(row).sub(mean);
                    let delta = centred.sub(column.load::<V, Z>(z.add(at)).mul(along));
                    let delta = bf16_if(port.rounded, delta.mul(factor));
                    column.write(delta, out.add(at), streams);
                }
                return;
            }
            // Under the channel norm these are not deltas yet.
            let rounded = port.rounded && slopes.norm == Norm::None;
            if slopes.norm == Norm::Channel {
                let at = 2 * column.location * column.channels + column.channel;
                column.store_channels(sums.psi.mul(scale), port.sums.at(at));
                column.store_channels(sums.psi_z.mul(scale), port.sums.at(at + column.channels));
            }
            for row in 0..column.rows() {
                let psi = column.row::<V>(row).mul(scale);
                column.store(bf16_if(rounded, psi), out.add(row * column.panel_row()));
            }
        }
    }
}

/// Second pass of a landing under [`Norm::Channel`], in place:
/// `delta = inverse · (ψ − mean − z · along)`.
///
/// # Safety
/// As for [`super::forward`]; `mean` and `along` are `[channel]`. Scratch is not used.
#[inline(always)]
pub(in crate::cpu) unsafe fn finish_feedback<V: Lanes>(
    port: FeedbackPort<'_>,
    column: Column<Part>,
    mean: &[f32],
    along: &[f32],
) {
    let Some(delta) = port.delta else {
        return;
    };
    // SAFETY: handed on from the caller.
    unsafe {
        let mean = column.load::<V, _>(mean.as_ptr().add(column.channel));
        let along = column.load::<V, _>(along.as_ptr().add(column.channel));
        let inverse = port.inverse_deviation.as_ptr().add(column.channel);
        let inverse = column.load::<V, _>(inverse);
        for row in 0..column.batch {
            let at = column.panel_start() + row * column.channels;
            let z = match port.z {
                Values::F32(z) => column.load::<V, _>(z.as_ptr().wrapping_add(at)),
                Values::Bf16(z) => column.load::<V, _>(z.as_ptr().wrapping_add(at)),
            };
            let out = delta.values.start.at(at - delta.first);
            let psi = column.load::<V, _>(out);
            let delta = psi.sub(mean).sub(z.mul(along)).mul(inverse);
            column.store(bf16_if(port.rounded, delta), out);
        }
    }
}
