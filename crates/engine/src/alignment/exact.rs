//! The exact score: output positions meet in pairs, and pairs that meet through the same taps cost nothing extra.
//!
//! `(D D*ᵀ)` has one block for each pair (o, o′) of output locations: `Σ W[t]ᵀ W*[t′]` over the taps t, t′ through
//! which both see the same source. There are at most taps² different products, and the pairs fall into few
//! classes by the set of (t, t′) that they sum; borders and strides only change which classes occur and how often.

use super::Changes;
use crate::rng::LegacyRandom;
use sansprop_kernels::{Backend, Layer, Norm, Wiring};
use std::collections::HashMap;
use std::sync::Arc;

/// How often each class of output pairs occurs: a class is the set of tap pairs `t · taps + t′`, in ascending
/// order.
fn classes(wiring: &Wiring) -> Vec<(Vec<u32>, usize)> {
    let taps = wiring.taps() as u32;
    let mut pairs: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
    for source in 0..wiring.sources() {
        let seen_by = wiring.backward().of(source);
        for one in seen_by {
            for other in seen_by {
                pairs
                    .entry((one.location, other.location))
                    .or_default()
                    .push(one.tap * taps + other.tap);
            }
        }
    }
    let mut counts: HashMap<Vec<u32>, usize> = HashMap::new();
    for mut class in pairs.into_values() {
        class.sort_unstable();
        *counts.entry(class).or_default() += 1;
    }
    // A fixed order, so that sums have the same bits in every run.
    let mut classes: Vec<_> = counts.into_iter().collect();
    classes.sort_unstable();
    classes
}

/// `A[t]ᵀ B[t′]` for every pair of taps, `[t · taps + t′, out, out]`.
///
/// This is a weight gradient: panels are taps, the minibatch is the input channels.
fn tap_products<B: Backend>(backend: &B, layer: &Layer, a: &[f64], b: &[f64]) -> Vec<f64> {
    let taps = layer.wiring.taps();
    let pairs = Layer {
        wiring: Arc::new(Wiring::all_pairs(taps)),
        inputs: layer.outputs,
        outputs: layer.outputs,
        scale: 1.0,
        norm: Norm::None,
        activation: layer.activation,
    };
    let upload = |values: &[f64]| {
        let mut buffer = backend.zeros(values.len());
        backend.write(values, &mut buffer);
        buffer
    };
    let mut products = backend.zeros(pairs.weights());
    let mut unused = backend.zeros(layer.outputs);
    let (a, b) = (upload(a), upload(b));
    backend.weight_gradient(&pairs, layer.inputs, &a, &b, &mut products, &mut unused);
    backend.read(&products)
}

/// `‖A Bᵀ‖²_F` of the operators that the weights stand for.
fn squared_norm<B: Backend>(
    backend: &B,
    layer: &Layer,
    classes: &[(Vec<u32>, usize)],
    a: &[f64],
    b: &[f64],
) -> f64 {
    let products = tap_products(backend, layer, a, b);
    let size = layer.outputs * layer.outputs;
    let mut total = 0.0;
    let mut sum = vec![0.0; size];
    for (class, count) in classes {
        sum.fill(0.0);
        for &pair in class {
            for (s, v) in sum.iter_mut().zip(&products[pair as usize * size..]) {
                *s += v;
            }
        }
        total += *count as f64 * sum.iter().map(|v| v * v).sum::<f64>();
    }
    total
}

/// The exact alignment score of one layer; NaN where a change is zero.
///
/// Weights are scaled to a root mean square of 1 first, which the score does not feel, so that small changes
/// keep their digits in f32.
pub fn exact<B: Backend>(backend: &B, changes: &Changes<'_>) -> f64 {
    let layer = changes.layer;
    let classes = classes(&layer.wiring);
    let (a, b) = (unit(&changes.change), unit(&changes.reference));
    let norm = |x: &[f64], y: &[f64]| squared_norm(backend, layer, &classes, x, y);
    norm(&a, &b) / (norm(&a, &a).sqrt() * norm(&b, &b).sqrt())
}

fn unit(values: &[f64]) -> Vec<f64> {
    let rms = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
    values.iter().map(|v| v / rms).collect()
}

/// The baseline of Fig. 8: the same score with the entries of the final weights randomly permuted (`permutation`
/// after `seed(seed)`) before the initial weights are subtracted.
pub fn permuted<B: Backend>(
    backend: &B,
    layer: &Layer,
    initial: &[f64],
    last: &[f64],
    companion: &[f64],
    seed: u32,
) -> f64 {
    let order = LegacyRandom::new(seed).permutation(last.len());
    let shuffled: Vec<f64> = order.into_iter().map(|i| last[i]).collect();
    exact(backend, &Changes::new(layer, initial, &shuffled, companion))
}
