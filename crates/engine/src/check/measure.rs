//! Norms and distances that a value that is not finite cannot slip through.

use crate::pass::Weights;
use sansprop_kernels::Backend;

/// `‖v‖`.
pub(super) fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// `⟨a, b⟩`.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `‖a − b‖`; NaN for arrays of different lengths, which no backend may return for the same layer.
pub(super) fn distance(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// `difference` relative to `size`, or as it is where there is nothing to relate it to.
pub(super) fn relative(difference: f64, size: f64) -> f64 {
    if size == 0.0 {
        difference
    } else {
        difference / size
    }
}

/// The larger number, or NaN if either is: `f64::max` would drop a NaN.
pub(super) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// One layer's weights and biases in a row.
pub(super) fn layer_values<B: Backend>(
    backend: &B,
    weights: &Weights<B>,
    layer: usize,
) -> Vec<f64> {
    let mut values = backend.read(&weights.weight[layer]);
    values.extend(backend.read(&weights.bias[layer]));
    values
}

/// The weights and biases of all layers, one row each.
pub(super) fn all_values<B: Backend>(backend: &B, weights: &Weights<B>) -> Vec<Vec<f64>> {
    (0..weights.weight.len())
        .map(|layer| layer_values(backend, weights, layer))
        .collect()
}

/// The norm of all rows together.
pub(super) fn total_norm(rows: &[Vec<f64>]) -> f64 {
    norm(&rows.iter().map(|row| norm(row)).collect::<Vec<_>>())
}
