//! Input–weight alignment (Sec. 3.3): how much of what a layer learned is the error-weighted correlation of its
//! inputs.
//!
//! With D = W⁽ᵗ⁾ − W⁽⁰⁾ and D* = W*⁽ᵗ⁾ − W⁽⁰⁾ taken as the linear maps that a layer applies (for a convolution: the
//! operator on the whole input grid, zero padding and stride included; no 1/√fan_in, no norm), the score is
//!
//! `S = tr(DᵀD · D*ᵀD*) / √(tr((DᵀD)²) tr((D*ᵀD*)²)) = ‖D D*ᵀ‖²_F / (‖D Dᵀ‖_F ‖D* D*ᵀ‖_F)`.
//!
//! [`exact`] computes the right-hand form without probes and without the dense operator; [`probes`] is the
//! paper's estimator (Eq. 10). W* is the [companion](crate::cohort::Cohort::add_companion) (Eq. 13).

mod exact;
mod probe;

pub use exact::{exact, permuted};
pub use probe::{ProbeScore, probes};

use sansprop_kernels::Layer;

/// A layer's weight changes: D and D*, each `[tap, in, out]`.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    /// The layer; its wiring says which operator the weights stand for.
    pub layer: &'a Layer,
    /// D = W⁽ᵗ⁾ − W⁽⁰⁾.
    pub change: Vec<f64>,
    /// D* = W*⁽ᵗ⁾ − W⁽⁰⁾.
    pub reference: Vec<f64>,
}

impl<'a> Changes<'a> {
    /// From weights: initial, final, and the companion's.
    ///
    /// # Panics
    /// If the lengths are not those of the layer's weights.
    pub fn new(layer: &'a Layer, initial: &[f64], last: &[f64], companion: &[f64]) -> Self {
        for weights in [initial, last, companion] {
            assert_eq!(weights.len(), layer.weights(), "weights of another layer");
        }
        let minus_initial =
            |weights: &[f64]| weights.iter().zip(initial).map(|(w, w0)| w - w0).collect();
        Self {
            layer,
            change: minus_initial(last),
            reference: minus_initial(companion),
        }
    }
}
