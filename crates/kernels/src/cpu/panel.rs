//! What happens to one column block of one panel while it is in cache: norm and activation, σ′ and normᵀ.

use super::lanes::{self, Lanes};
use super::pointer::Pointer;
use crate::{Activation, NORM_EPSILON, Norm};

/// One column vector of a panel in scratch, and where it belongs.
#[derive(Clone, Copy)]
pub(super) struct Column {
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

impl Column {
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
            if self.count == V::LEN {
                V::load(from)
            } else {
                V::load_partial(from, self.count)
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn store<V: Lanes>(&self, value: V, to: *mut f32) {
        // SAFETY: the caller guarantees `count` writable values.
        unsafe {
            if self.count == V::LEN {
                value.store(to);
            } else {
                value.store_partial(to, self.count);
            }
        }
    }
}

/// Sums that several rows add to in turn, so that no addition waits for the one before.
const CHAINS: usize = 4;

#[inline(always)]
unsafe fn fold<V: Lanes>(sums: [V; CHAINS]) -> V {
    // SAFETY: arithmetic only.
    unsafe { sums[0].add(sums[1]).add(sums[2].add(sums[3])) }
}

/// σ(z).
#[inline(always)]
pub(super) unsafe fn activate<V: Lanes>(activation: Activation, z: V) -> V {
    // SAFETY: arithmetic only.
    unsafe {
        match activation {
            Activation::Relu => z.relu(),
            Activation::Tanh => lanes::tanh(z),
            Activation::Erf => each_lane(z, libm::erff),
            Activation::Linear => z,
        }
    }
}

/// `σ′(z) · signal`.
#[inline(always)]
pub(super) unsafe fn times_slope<V: Lanes>(activation: Activation, z: V, signal: V) -> V {
    // SAFETY: arithmetic only.
    unsafe {
        match activation {
            Activation::Relu => z.keep_where_positive(signal),
            Activation::Tanh => {
                let a = lanes::tanh(z);
                V::splat(1.0).sub(a.mul(a)).mul(signal)
            }
            Activation::Erf => each_lane(z, erf_slope).mul(signal),
            Activation::Linear => signal,
        }
    }
}

fn erf_slope(z: f32) -> f32 {
    std::f32::consts::FRAC_2_SQRT_PI * libm::expf(-z * z)
}

#[inline(always)]
unsafe fn each_lane<V: Lanes>(x: V, f: fn(f32) -> f32) -> V {
    let mut values = [0.0; 16];
    // SAFETY: no vector has more than sixteen lanes.
    unsafe {
        x.store(values.as_mut_ptr());
        for v in &mut values[..V::LEN] {
            *v = f(*v);
        }
        V::load(values.as_ptr())
    }
}

/// Where a forward pass writes.
#[derive(Clone, Copy)]
pub(super) struct ForwardPort<'a> {
    pub norm: Norm,
    pub activation: Activation,
    /// Factor on the products.
    pub scale: f32,
    /// `[channel]`.
    pub bias: &'a [f32],
    pub z: Pointer,
    pub a: Pointer,
    /// `[location, channel]`: inverse deviations under [`Norm::Location`].
    pub inverse_deviation: Pointer,
    /// `[location, 2, channel]`: mean and squared deviation of each panel under [`Norm::Channel`]; behind them room
    /// for `[2, channel]`.
    pub moments: Pointer,
}

/// Mean over the rows, and the sum of squared deviations from it.
#[inline(always)]
unsafe fn moments<V: Lanes>(column: Column) -> (V, V) {
    // SAFETY: rows lie inside the batch.
    unsafe {
        let whole = column.batch / CHAINS * CHAINS;
        let mut sums = [V::splat(0.0); CHAINS];
        for row in (0..whole).step_by(CHAINS) {
            for (chain, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(column.row(row + chain));
            }
        }
        for row in whole..column.batch {
            sums[0] = sums[0].add(column.row(row));
        }
        let mean = fold(sums).mul(V::splat(1.0 / column.batch as f32));
        let mut squares = [V::splat(0.0); CHAINS];
        for row in (0..whole).step_by(CHAINS) {
            for (chain, square) in squares.iter_mut().enumerate() {
                let d = column.row::<V>(row + chain).sub(mean);
                *square = d.mul_add(d, *square);
            }
        }
        for row in whole..column.batch {
            let d = column.row::<V>(row).sub(mean);
            squares[0] = d.mul_add(d, squares[0]);
        }
        (mean, fold(squares))
    }
}

/// Products to pre-activation, norm and activation; under [`Norm::Channel`] z receives the pre-activation,
/// and [`finish_forward`] completes it once all locations' moments are known.
///
/// # Safety
/// The instruction set of `V`; a valid column; the port's arrays hold this column's values, which no other
/// thread touches.
#[inline(always)]
pub(super) unsafe fn forward<V: Lanes>(port: ForwardPort<'_>, column: Column) {
    // SAFETY: handed on from the caller.
    unsafe {
        let (start, stride) = (column.panel_start(), column.channels);
        let bias = column.load::<V>(port.bias.as_ptr().add(column.channel));
        let scale = V::splat(port.scale);
        for row in 0..column.batch {
            column.set_row(row, column.row::<V>(row).mul_add(scale, bias));
        }
        let (shift, factor) = match port.norm {
            Norm::None => (V::splat(0.0), V::splat(1.0)),
            Norm::Location => {
                let (mean, squares) = moments::<V>(column);
                let variance = squares.mul(V::splat(1.0 / column.batch as f32));
                let deviation = variance.add(V::splat(NORM_EPSILON as f32)).sqrt();
                let inverse = V::splat(1.0).div(deviation);
                column.store(inverse, port.inverse_deviation.at(column.channel_start()));
                (mean, inverse)
            }
            Norm::Channel => {
                let (mean, squares) = moments::<V>(column);
                let at = 2 * column.location * column.channels + column.channel;
                column.store(mean, port.moments.at(at));
                column.store(squares, port.moments.at(at + column.channels));
                for row in 0..column.batch {
                    column.store(column.row::<V>(row), port.z.at(start + row * stride));
                }
                return;
            }
        };
        for row in 0..column.batch {
            let z = column.row::<V>(row).sub(shift).mul(factor);
            column.store(z, port.z.at(start + row * stride));
            column.store(
                activate(port.activation, z),
                port.a.at(start + row * stride),
            );
        }
    }
}

/// Second pass of a forward under [`Norm::Channel`]: `z = (pre − mean) · inverse`, `a = σ(z)`.
///
/// # Safety
/// As for [`forward`]; `mean` and `inverse` are `[channel]`. Scratch is not used.
#[inline(always)]
pub(super) unsafe fn finish_forward<V: Lanes>(
    port: ForwardPort<'_>,
    column: Column,
    mean: &[f32],
    inverse: &[f32],
) {
    // SAFETY: handed on from the caller.
    unsafe {
        let mean = column.load::<V>(mean.as_ptr().add(column.channel));
        let inverse = column.load::<V>(inverse.as_ptr().add(column.channel));
        for row in 0..column.batch {
            let at = column.panel_start() + row * column.channels;
            let z = column.load::<V>(port.z.at(at)).sub(mean).mul(inverse);
            column.store(z, port.z.at(at));
            column.store(activate(port.activation, z), port.a.at(at));
        }
    }
}

/// Where a feedback signal lands: one network's record and the resulting delta.
#[derive(Clone, Copy)]
pub(super) struct FeedbackPort<'a> {
    /// `[location, batch, channel]`.
    pub z: &'a [f32],
    /// `[location, channel]` or `[channel]`.
    pub inverse_deviation: &'a [f32],
    /// `[location, batch, channel]`.
    pub delta: Pointer,
    /// `[location, 2, channel]`: `Σψ` and `Σψz` of each panel under [`Norm::Channel`]; behind them room for
    /// `[2, channel]`.
    pub sums: Pointer,
}

/// What a feedback signal meets on arrival.
#[derive(Clone, Copy)]
pub(super) struct Slopes {
    pub norm: Norm,
    pub activation: Activation,
    /// Factor on the signal.
    pub scale: f32,
}

/// `ψ = σ′(z_path) · scale · signal`, in scratch.
///
/// # Safety
/// The instruction set of `V`; a valid column; `z` holds this column's values.
#[inline(always)]
pub(super) unsafe fn signal_to_psi<V: Lanes>(slopes: Slopes, z: &[f32], column: Column) {
    // SAFETY: handed on from the caller.
    unsafe {
        let scale = V::splat(slopes.scale);
        let z = z.as_ptr().add(column.panel_start());
        for row in 0..column.batch {
            let z = column.load::<V>(z.add(row * column.channels));
            let signal = column.row::<V>(row).mul(scale);
            column.set_row(row, times_slope(slopes.activation, z, signal));
        }
    }
}

/// `Σψ` and `Σψz` over the rows of scratch.
#[inline(always)]
unsafe fn psi_sums<V: Lanes>(z: *const f32, column: Column) -> (V, V) {
    // SAFETY: rows lie inside the batch.
    unsafe {
        let mut sums = [V::splat(0.0); CHAINS];
        let mut products = [V::splat(0.0); CHAINS];
        let whole = column.batch / CHAINS * CHAINS;
        for row in (0..whole).step_by(CHAINS) {
            for (chain, (sum, product)) in sums.iter_mut().zip(&mut products).enumerate() {
                let psi = column.row::<V>(row + chain);
                let z = column.load::<V>(z.add((row + chain) * column.channels));
                *sum = sum.add(psi);
                *product = psi.mul_add(z, *product);
            }
        }
        for row in whole..column.batch {
            let psi = column.row::<V>(row);
            sums[0] = sums[0].add(psi);
            products[0] = psi.mul_add(column.load(z.add(row * column.channels)), products[0]);
        }
        (fold(sums), fold(products))
    }
}

/// `delta = normᵀ(ψ)` from scratch; under [`Norm::Channel`] delta receives ψ itself, and
/// [`finish_feedback`] completes it once all locations' sums are known.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
pub(super) unsafe fn land<V: Lanes>(norm: Norm, port: FeedbackPort<'_>, column: Column) {
    // SAFETY: handed on from the caller.
    unsafe {
        let start = column.panel_start();
        let z = port.z.as_ptr().add(start);
        let per_sample = V::splat(1.0 / column.batch as f32);
        match norm {
            Norm::Location => {
                let (sum, product) = psi_sums::<V>(z, column);
                let (mean, along) = (sum.mul(per_sample), product.mul(per_sample));
                let inverse = port.inverse_deviation.as_ptr().add(column.channel_start());
                let inverse = column.load::<V>(inverse);
                for row in 0..column.batch {
                    let z = column.load::<V>(z.add(row * column.channels));
                    let centred = column.row::<V>(row).sub(mean);
                    let delta = centred.sub(z.mul(along)).mul(inverse);
                    column.store(delta, port.delta.at(start + row * column.channels));
                }
                return;
            }
            Norm::Channel => {
                let (sum, product) = psi_sums::<V>(z, column);
                let at = 2 * column.location * column.channels + column.channel;
                column.store(sum, port.sums.at(at));
                column.store(product, port.sums.at(at + column.channels));
            }
            Norm::None => {}
        }
        for row in 0..column.batch {
            let psi = column.row::<V>(row);
            column.store(psi, port.delta.at(start + row * column.channels));
        }
    }
}

/// Second pass of a landing under [`Norm::Channel`], in place:
/// `delta = inverse · (ψ − mean − z · along)`.
///
/// # Safety
/// As for [`forward`]; `mean` and `along` are `[channel]`. Scratch is not used.
#[inline(always)]
pub(super) unsafe fn finish_feedback<V: Lanes>(
    port: FeedbackPort<'_>,
    column: Column,
    mean: &[f32],
    along: &[f32],
) {
    // SAFETY: handed on from the caller.
    unsafe {
        let mean = column.load::<V>(mean.as_ptr().add(column.channel));
        let along = column.load::<V>(along.as_ptr().add(column.channel));
        let inverse = port.inverse_deviation.as_ptr().add(column.channel);
        let inverse = column.load::<V>(inverse);
        for row in 0..column.batch {
            let at = column.panel_start() + row * column.channels;
            let z = column.load::<V>(port.z.as_ptr().add(at));
            let psi = column.load::<V>(port.delta.at(at));
            let delta = psi.sub(mean).sub(z.mul(along)).mul(inverse);
            column.store(delta, port.delta.at(at));
        }
    }
}

/// `out = scale · filled`.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
pub(super) unsafe fn store_scaled<V: Lanes>(scale: f32, out: Pointer, column: Column) {
    // SAFETY: handed on from the caller.
    unsafe {
        let scale = V::splat(scale);
        for row in 0..column.batch {
            let value = column.row::<V>(row).mul(scale);
            column.store(value, out.at(column.panel_start() + row * column.channels));
        }
    }
}
