//! Products to pre-activation, norm and activation.

use super::{Column, Cut, Part};
use crate::cpu::lanes::{CHAINS, Lanes, fold};
use crate::cpu::nonlinearity::{self, ForNonlinearity, Nonlinearity};
use crate::cpu::pointer::Pointer;
use crate::cpu::rounding::bf16_if;
use crate::cpu::values::{Bf16, Target, Value};
use crate::{Activation, NORM_EPSILON, Norm};

/// Where a forward pass writes.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct ForwardPort<'a> {
    pub norm: Norm,
    pub activation: Activation,
    /// Factor on the products.
    pub scale: f32,
    /// Whether `a` is rounded to bf16.
    pub rounded: bool,
    /// `[channel]`.
    pub bias: &'a [f32],
    /// None where nobody will look at z. Neither z nor a is kept in 16 bits under [`Norm::Channel`].
    pub z: Option<Target>,
    pub a: Target,
    /// Whether z and a, in this order, are written past the caches.
    pub past: [bool; 2],
    /// `[location, channel]`: inverse deviations under [`Norm::Location`].
    pub inverse_deviation: Pointer,
    /// `[location, 2, channel]`: mean and squared deviation of each panel under [`Norm::Channel`]; behind them room
    /// for `[2, channel]`.
    pub moments: Pointer,
}

impl ForwardPort<'_> {
    /// What holds the pre-activation between the two passes of [`Norm::Channel`].
    fn pre_activation(&self) -> Pointer {
        self.z.unwrap_or(self.a).start
    }
}

/// Mean over the rows, and the sum of squared deviations from it.
#[inline(always)]
unsafe fn moments<V: Lanes, C: Cut>(column: Column<C>) -> (V, V) {
    // SAFETY: rows lie inside the batch.
    unsafe {
        let whole = column.rows() / CHAINS * CHAINS;
        let mut sums = [V::splat(0.0); CHAINS];
        for row in (0..whole).step_by(CHAINS) {
            for (chain, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(column.row(row + chain));
            }
        }
        for row in whole..column.rows() {
            sums[0] = sums[0].add(column.row(row));
        }
        let sum = column.over_samples(fold(sums));
        let mean = sum.mul(V::splat(1.0 / column.batch as f32));
        let mut squares = [V::splat(0.0); CHAINS];
        for row in (0..whole).step_by(CHAINS) {
            for (chain, square) in squares.iter_mut().enumerate() {
                let d = column.row::<V>(row + chain).sub(mean);
                *square = d.mul_add(d, *square);
            }
        }
        for row in whole..column.rows() {
            let d = column.row::<V>(row).sub(mean);
            squares[0] = d.mul_add(d, squares[0]);
        }
        (mean, column.over_samples(fold(squares)))
    }
}

/// Products to pre-activation, norm and activation; under [`Norm::Channel`] z, or a where z is not wanted, receives the
/// pre-activation, and [`finish_forward`] completes it once all locations' moments are known.
///
/// # Safety
/// The instruction set of `V`; a valid column; the port's arrays hold this column's values, which no other
/// thread touches.
#[inline(always)]
pub(in crate::cpu) unsafe fn forward<V: Lanes, C: Cut>(port: ForwardPort<'_>, column: Column<C>) {
    // SAFETY: handed on from the caller.
    unsafe {
        let bias = column.load_channels::<V>(port.bias.as_ptr().add(column.channel));
        let scale = V::splat(port.scale);
        let zero = V::splat(0.0);
        let rows = match port.norm {
            Norm::None => Rows {
                port,
                column,
                shift: zero,
                factor: scale,
                offset: bias,
            },
            Norm::Location => {
                // The bias moves the mean alone, so it cancels; the scale moves the deviation alone. A bias that is not
                // finite must still be seen.
                let (mean, squares) = moments::<V, C>(column);
                let per_sample = V::splat(1.0 / column.batch as f32);
                let variance = squares.mul(per_sample).mul(scale.mul(scale));
                let deviation = variance.add(V::splat(NORM_EPSILON as f32)).sqrt();
                let inverse = V::splat(1.0).div(deviation);
                column.store_channels(inverse, port.inverse_deviation.at(column.channel_start()));
                Rows {
                    port,
                    column,
                    shift: mean,
                    factor: inverse.mul(scale),
                    offset: bias.mul(zero),
                }
            }
            Norm::Channel => {
                let (mean, squares) = moments::<V, C>(column);
                let at = 2 * column.location * column.channels + column.channel;
                column.store_channels(mean.mul_add(scale, bias), port.moments.at(at));
                let squares = squares.mul(scale.mul(scale));
                column.store_channels(squares, port.moments.at(at + column.channels));
                for row in 0..column.rows() {
                    let pre = column.row::<V>(row).mul_add(scale, bias);
                    let at = column.panel_start() + row * column.panel_row();
                    column.store(pre, port.pre_activation().at(at));
                }
                return;
            }
        };
        nonlinearity::with(port.activation, rows);
    }
}

/// `z = (products − shift) · factor + offset`, `a = σ(z)`.
struct Rows<'a, V, C> {
    port: ForwardPort<'a>,
    column: Column<C>,
    shift: V,
    factor: V,
    offset: V,
}

impl<V: Lanes, C: Cut> ForNonlinearity<V> for Rows<'_, V, C> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<A: Nonlinearity>(self) {
        // SAFETY: handed on from the caller.
        unsafe {
            let start = self.column.panel_start();
            // A z that nobody wants goes where its product was.
            let scratch = (self.column.scratch, self.column.stride);
            let row = self.column.panel_row();
            match (self.port.a.halved, self.port.z) {
                (false, None) => self.write::<A, f32, f32>(scratch),
                (true, None) => self.write::<A, f32, Bf16>(scratch),
                (false, Some(z)) => self.write::<A, f32, f32>((z.at(start), row)),
                (true, Some(z)) => self.write::<A, Bf16, Bf16>((z.at(start), row)),
            }
        }
    }
}

impl<V: Lanes, C: Cut> Rows<'_, V, C> {
    /// Writes z, to rows so far apart, and a.
    ///
    /// # Safety
    /// As for [`forward`]; room for z.
    #[inline(always)]
    unsafe fn write<A: Nonlinearity, Z: Value, E: Value>(self, (z_out, z_row): (*mut Z, usize)) {
        let column = self.column;
        // SAFETY: handed on from the caller.
        unsafe {
            let a_out = self.port.a.at::<E>(column.panel_start());
            let past = self.port.past;
            let streams = [
                self.port.z.is_some() && column.streams::<V, Z>(past[0], z_out),
                column.streams::<V, E>(past[1], a_out),
            ];
            for row in 0..column.rows() {
                let centred = column.row::<V>(row).sub(self.shift);
                let z = centred.mul_add(self.factor, self.offset);
                column.write(bf16_if(!Z::F32, z), z_out.add(row * z_row), streams[0]);
                let a = bf16_if(self.port.rounded, A::value(z));
                column.write(a, a_out.add(row * column.panel_row()), streams[1]);
            }
        }
    }
}

/// Second pass of a forward under [`Norm::Channel`]: `z = (pre − mean) · inverse`, `a = σ(z)`.
///
/// # Safety
/// As for [`forward`]; `mean` and `inverse` are `[channel]`. Scratch is not used.
#[inline(always)]
pub(in crate::cpu) unsafe fn finish_forward<V: Lanes>(
    port: ForwardPort<'_>,
    column: Column<Part>,
    mean: &[f32],
    inverse: &[f32],
) {
    // SAFETY: handed on from the caller.
    unsafe {
        let rows = SecondPass {
            port,
            column,
            mean: column.load::<V, _>(mean.as_ptr().add(column.channel)),
            inverse: column.load::<V, _>(inverse.as_ptr().add(column.channel)),
        };
        nonlinearity::with(port.activation, rows);
    }
}

struct SecondPass<'a, V> {
    port: ForwardPort<'a>,
    column: Column<Part>,
    mean: V,
    inverse: V,
}

impl<V: Lanes> ForNonlinearity<V> for SecondPass<'_, V> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<A: Nonlinearity>(self) {
        let (port, column) = (self.port, self.column);
        // SAFETY: handed on from the caller.
        unsafe {
            for row in 0..column.batch {
                let at = column.panel_start() + row * column.channels;
                let pre = port.pre_activation().at(at);
                let z = column.load::<V, _>(pre).sub(self.mean).mul(self.inverse);
                column.store(z, pre);
                let a = bf16_if(port.rounded, A::value(z));
                column.store(a, port.a.at::<f32>(at));
            }
        }
    }
}
