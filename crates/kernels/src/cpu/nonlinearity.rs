//! The activations as types, so that a loop over rows is compiled for one of them and decides nothing in between.

use super::lanes::{self, Lanes, MOST_LANES};
use crate::Activation;

/// One activation σ.
pub(super) trait Nonlinearity {
    /// σ(z).
    ///
    /// # Safety
    /// The instruction set of `V`.
    unsafe fn value<V: Lanes>(z: V) -> V;

    /// `σ′(z) · signal`.
    ///
    /// # Safety
    /// The instruction set of `V`.
    unsafe fn slope_times<V: Lanes>(z: V, signal: V) -> V;
}

/// Work on vectors that is compiled for each activation.
pub(super) trait ForNonlinearity<V: Lanes> {
    /// What the work gives.
    type Out;

    /// Does the work.
    ///
    /// # Safety
    /// As the implementor states.
    unsafe fn run<A: Nonlinearity>(self) -> Self::Out;
}

/// Does the work for one activation.
///
/// # Safety
/// The contract of the work.
#[inline(always)]
pub(super) unsafe fn with<V: Lanes, W: ForNonlinearity<V>>(
    activation: Activation,
    work: W,
) -> W::Out {
    // SAFETY: handed on from the caller.
    unsafe {
        match activation {
            Activation::Relu => work.run::<Relu>(),
            Activation::Tanh => work.run::<Tanh>(),
            Activation::Erf => work.run::<Erf>(),
            Activation::Linear => work.run::<Linear>(),
        }
    }
}

struct Relu;
struct Tanh;
struct Erf;
/// No activation: σ(z) = z.
pub(super) struct Linear;

impl Nonlinearity for Relu {
    #[inline(always)]
    unsafe fn value<V: Lanes>(z: V) -> V {
        // SAFETY: arithmetic only.
        unsafe { z.relu() }
    }
    #[inline(always)]
    unsafe fn slope_times<V: Lanes>(z: V, signal: V) -> V {
        // SAFETY: arithmetic only.
        unsafe { z.keep_where_positive(signal) }
    }
}

impl Nonlinearity for Tanh {
    #[inline(always)]
    unsafe fn value<V: Lanes>(z: V) -> V {
        // SAFETY: arithmetic only.
        unsafe { lanes::tanh(z) }
    }
    #[inline(always)]
    unsafe fn slope_times<V: Lanes>(z: V, signal: V) -> V {
        // SAFETY: arithmetic only.
        unsafe {
            let a = lanes::tanh(z);
            V::splat(1.0).sub(a.mul(a)).mul(signal)
        }
    }
}

impl Nonlinearity for Erf {
    #[inline(always)]
    unsafe fn value<V: Lanes>(z: V) -> V {
        // SAFETY: arithmetic only.
        unsafe { each_lane(z, libm::erff) }
    }
    #[inline(always)]
    unsafe fn slope_times<V: Lanes>(z: V, signal: V) -> V {
        // SAFETY: arithmetic only.
        unsafe { each_lane(z, erf_slope).mul(signal) }
    }
}

impl Nonlinearity for Linear {
    #[inline(always)]
    unsafe fn value<V: Lanes>(z: V) -> V {
        z
    }
    #[inline(always)]
    unsafe fn slope_times<V: Lanes>(_: V, signal: V) -> V {
        signal
    }
}

fn erf_slope(z: f32) -> f32 {
    std::f32::consts::FRAC_2_SQRT_PI * libm::expf(-z * z)
}

#[inline(always)]
unsafe fn each_lane<V: Lanes>(x: V, f: fn(f32) -> f32) -> V {
    let mut values = [0.0; MOST_LANES];
    // SAFETY: no vector has more lanes.
    unsafe {
        x.store(values.as_mut_ptr());
        for v in &mut values[..V::LEN] {
            *v = f(*v);
        }
        V::load(values.as_ptr())
    }
}
