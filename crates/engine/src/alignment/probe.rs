//! The paper's estimator of the score (Eq. 10): traces from Gaussian probes.

use super::Changes;
use crate::rng::LegacyRandom;
use sansprop_kernels::{Activation, Backend, Layer, Norm, Record};

/// An estimated score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeScore {
    /// `Σ u·v / √(Σ u·u Σ v·v)` with `u = DᵀD x`, `v = D*ᵀD* x` over all probes x.
    pub score: f64,
    /// Its standard error, by the jackknife over batches of probes; NaN for a single batch.
    pub standard_error: f64,
}

/// Estimates the score from `batches` batches of `batch` Gaussian inputs, drawn after `seed(seed)`; sums over all
/// draws are taken before the ratio.
pub fn probes<B: Backend>(
    backend: &B,
    changes: &Changes<'_>,
    batches: usize,
    batch: usize,
    seed: u32,
) -> ProbeScore {
    let layer = Layer {
        scale: 1.0,
        norm: Norm::None,
        activation: Activation::Linear,
        ..changes.layer.clone()
    };
    let upload = |values: &[f64]| {
        let mut buffer = backend.zeros(values.len());
        backend.write(values, &mut buffer);
        buffer
    };
    let maps = [&changes.change, &changes.reference].map(|d| upload(d));
    let bias = backend.zeros(layer.outputs);
    let inputs = layer.sources() * batch * layer.inputs;
    let outputs = layer.locations() * batch * layer.outputs;
    let mut record = Record {
        z: backend.zeros(outputs),
        inverse_deviation: backend.zeros(0),
        a: backend.zeros(outputs),
    };
    let mut random = LegacyRandom::new(seed);
    let mut x = backend.zeros(inputs);
    let mut back = backend.zeros(inputs);
    let sums: Vec<[f64; 3]> = (0..batches)
        .map(|_| {
            let noise: Vec<f64> = (0..inputs).map(|_| random.normal()).collect();
            backend.write(&noise, &mut x);
            let [u, v] = [0, 1].map(|i| {
                backend.forward(&layer, batch, &maps[i], &bias, &x, &mut record);
                backend.transposed(&layer, batch, &maps[i], &record.a, &mut back);
                backend.read(&back)
            });
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            [dot(&u, &v), dot(&u, &u), dot(&v, &v)]
        })
        .collect();
    let total = sums
        .iter()
        .fold([0.0; 3], |t, s| [t[0] + s[0], t[1] + s[1], t[2] + s[2]]);
    let ratio = |s: [f64; 3]| s[0] / (s[1] * s[2]).sqrt();
    let score = ratio(total);
    let count = batches as f64;
    let without: Vec<f64> = sums
        .iter()
        .map(|s| ratio([total[0] - s[0], total[1] - s[1], total[2] - s[2]]))
        .collect();
    let mean = without.iter().sum::<f64>() / count;
    let spread = without.iter().map(|r| (r - mean).powi(2)).sum::<f64>();
    ProbeScore {
        score,
        standard_error: if batches > 1 {
            (spread * (count - 1.0) / count).sqrt()
        } else {
            f64::NAN
        },
    }
}
