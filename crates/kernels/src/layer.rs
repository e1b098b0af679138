//! A layer as the kernels see it: a wiring, its channels, and what happens to a panel on arrival.

use crate::Wiring;
use std::sync::Arc;

/// Added to the variance before its square root is taken (`z = (pre − mean)/√(var + 1e-6)`).
pub const NORM_EPSILON: f64 = 1e-6;

/// The activation function σ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(z, 0)`; slope 0 at 0.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// The error function `2/√π ∫₀ᶻ exp(−t²) dt`.
    Erf,
    /// `z` itself.
    Linear,
}

impl Activation {
    /// σ(z).
    pub fn value(self, z: f64) -> f64 {
        match self {
            // Written so that NaN passes through: a diverged network must not look alive.
            Self::Relu => {
                if z <= 0.0 {
                    0.0
                } else {
                    z
                }
            }
            Self::Tanh => z.tanh(),
            Self::Erf => libm::erf(z),
            Self::Linear => z,
        }
    }

    /// σ′(z).
    pub fn slope(self, z: f64) -> f64 {
        match self {
            Self::Relu => f64::from(u8::from(z > 0.0)),
            Self::Tanh => 1.0 - z.tanh().powi(2),
            Self::Erf => std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp(),
            Self::Linear => 1.0,
        }
    }
}

/// How pre-activations are normalised; always with the minibatch's own statistics, never with scale or shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Mean and biased variance per location and channel, over the batch (the paper's).
    Location,
    /// Mean and biased variance per channel, over batch and locations (the usual batch norm).
    Channel,
    /// `z = pre`.
    None,
}

/// One layer: `pre = scale · Σ_(tap, src) a(src) · W[tap] + b`, `z = norm(pre)`, `a = σ(z)`.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Which location feeds which.
    pub wiring: Arc<Wiring>,
    /// Channels of every source panel.
    pub inputs: usize,
    /// Channels of every destination panel.
    pub outputs: usize,
    /// Factor on the products: `1/√fan_in` under the NTK parameterisation (Eq. 1), 1 under the standard one.
    pub scale: f64,
    /// Normalisation of the pre-activations.
    pub norm: Norm,
    /// Activation.
    pub activation: Activation,
}

impl Layer {
    /// Number of weights, `taps · inputs · outputs`; stored `[tap, input, output]`.
    pub fn weights(&self) -> usize {
        self.wiring.taps() * self.inputs * self.outputs
    }

    /// Destination locations.
    pub fn locations(&self) -> usize {
        self.wiring.destinations()
    }

    /// Source locations.
    pub fn sources(&self) -> usize {
        self.wiring.sources()
    }

    /// Multiply-add count of one forward pass of `batch` samples.
    pub fn multiply_adds(&self, batch: usize) -> usize {
        self.wiring.forward().len() * self.inputs * self.outputs * batch
    }

    /// Number of inverse deviations in a record of this layer: one per location and channel, or one per channel.
    pub fn deviations(&self) -> usize {
        match self.norm {
            Norm::Location => self.locations() * self.outputs,
            Norm::Channel => self.outputs,
            Norm::None => 0,
        }
    }
}

/// A recurrent cell run over a sequence:
/// `z_t = x_t · W_i + scale · h_{t−1} · W_h + b`, `h_t = σ(z_t)`, t = 1 … steps.
///
/// Its record holds z as `[step, batch, unit]` and the states as `[step + 1, batch, unit]`, the initial state
/// first; it has no inverse deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecurrentCell {
    /// Steps of a sequence.
    pub steps: usize,
    /// Values of x at one step.
    pub inputs: usize,
    /// Units.
    pub width: usize,
    /// Factor on the recurrent products, `1/√width` under the NTK parameterisation.
    pub scale: f64,
    /// Activation.
    pub activation: Activation,
}
