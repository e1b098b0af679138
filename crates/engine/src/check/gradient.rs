//! Backpropagation against central differences of the loss.

use super::identities::update;
use super::measure::{all_values, dot, norm, relative, total_norm, worse};
use super::{Bound, Check, FINITE_DIFFERENCE, Finding, Property, Snapshot};
use crate::init::{FeedbackDraw, draw};
use crate::learn::FeedbackState;
use crate::pass::Weights;
use crate::rng::LegacyRandom;
use crate::rule::RULES;
use sansprop_kernels::Backend;

/// Steps of the differences, in units of the layer's initial weights. None suits every network: a large one
/// crosses kinks of relu and feels the curvature of norms with a small variance, a small one drowns in
/// rounding. A wrong gradient disagrees at all of them, so the best one counts.
const STEPS: [f64; 5] = [1e-5, 1e-6, 1e-7, 1e-8, 1e-4];

/// Share of the bound below which no better step is looked for.
const GOOD_ENOUGH: f64 = 0.1;

/// Where a unit sits on a kink by chance, closer than any useful step, no step helps but another point does.
/// A wrong gradient disagrees at all of them.
const POINTS: usize = 3;

/// A layer's gradient counts as at least this share of the whole network's: where a layer's true gradient
/// vanishes (dead units, a norm over few samples that cancels it), differences see rounding alone.
const SMALLEST_SHARE: f64 = 1e-4;

/// Deviation of the initial biases. Without them, units that see only zeros would sit exactly on the kink of
/// relu, where a derivative does not exist.
const BIAS: f64 = 0.1;

/// The initial network with random biases.
pub(super) fn biased_start<B: Backend>(
    check: &Check<'_>,
    backend: &B,
    random: &mut LegacyRandom,
) -> Weights<B> {
    let drawn = draw(check.network, check.seed, FeedbackDraw::None);
    let mut weights = Weights::from_draw(backend, check.network, &drawn.weights);
    for (bias, layer) in weights.bias.iter_mut().zip(check.network.layers()) {
        let values: Vec<f32> = (0..layer.outputs)
            .map(|_| (BIAS * random.normal()) as f32)
            .collect();
        backend.write_f32(&values, bias);
    }
    weights
}

/// For every layer, from the head down: the derivative of the loss along `V = g/‖g‖ + r/‖r‖` for the computed
/// gradient g and a random direction r (weights and biases together) against `⟨g, V⟩`, as a share of `‖g‖/√n`.
///
/// The first half of V sees a gradient that is too long or too short, and would see hardly any other error:
/// of an error across g it sees the square. The second sees any error, diluted by √n; hence the unit.
pub(super) fn finite_differences<E: Backend>(
    check: &Check<'_>,
    exact: &E,
    report: &mut dyn FnMut(Finding),
) {
    let mut random = LegacyRandom::new(check.seed);
    let mut point = Point::new(check, exact, &mut random);
    // Downwards, because a layer's differences spoil the passes of the layers above it only.
    for layer in (0..check.network.layers().len()).rev() {
        let mut deviation = point.deviation(check, exact, layer, &mut random);
        for _ in 1..POINTS {
            if deviation > FINITE_DIFFERENCE {
                point = Point::new(check, exact, &mut random);
                let again = point.deviation(check, exact, layer, &mut random);
                deviation = -worse(-deviation, -again);
            }
        }
        report(Finding::new(
            Property::Gradient,
            check.layer_name(layer),
            deviation,
            Bound::AtMost(FINITE_DIFFERENCE),
        ));
    }
}

/// The network at random biases, and its gradient there.
struct Point<E: Backend> {
    snapshot: Snapshot<E>,
    gradient: Vec<Vec<f64>>,
}

impl<E: Backend> Point<E> {
    fn new(check: &Check<'_>, exact: &E, random: &mut LegacyRandom) -> Self {
        let weights = biased_start(check, exact, random);
        let snapshot = Snapshot::new(check, exact, weights);
        let none = FeedbackState::None;
        let gradient = update(check, exact, &RULES[0], &snapshot, None, &none, None);
        Self {
            gradient: all_values(exact, &gradient),
            snapshot,
        }
    }

    /// The best step's deviation of one layer.
    fn deviation(
        &mut self,
        check: &Check<'_>,
        exact: &E,
        layer: usize,
        random: &mut LegacyRandom,
    ) -> f64 {
        let g = &self.gradient[layer];
        let r: Vec<f64> = g.iter().map(|_| random.normal()).collect();
        let direction: Vec<f64> = {
            let (along, across) = (norm(g), norm(&r));
            let sum = |(g, r): (&f64, &f64)| relative(*g, along) + r / across;
            g.iter().zip(&r).map(sum).collect()
        };
        let expected = dot(g, &direction);
        let size = worse(norm(g), SMALLEST_SHARE * total_norm(&self.gradient));
        let unit = size / (g.len() as f64).sqrt();
        let mut best = f64::INFINITY;
        for step in STEPS {
            let step = step * check.network.initial_deviation(layer);
            let slope = slope(check, exact, &mut self.snapshot, layer, &direction, step);
            best = -worse(-best, -(slope - expected).abs() / unit);
            if best.is_nan() || best <= GOOD_ENOUGH * FINITE_DIFFERENCE {
                break;
            }
        }
        best
    }
}

/// Central difference of the loss along `direction` in one layer's weights and biases.
fn slope<E: Backend>(
    check: &Check<'_>,
    exact: &E,
    snapshot: &mut Snapshot<E>,
    layer: usize,
    direction: &[f64],
    step: f64,
) -> f64 {
    let weight = exact.read(&snapshot.weights.weight[layer]);
    let bias = exact.read(&snapshot.weights.bias[layer]);
    let (along_weight, along_bias) = direction.split_at(weight.len());
    let mut write = |step: f64| {
        let moved = |from: &[f64], along: &[f64]| -> Vec<f64> {
            from.iter().zip(along).map(|(x, v)| x + step * v).collect()
        };
        let weights = &mut snapshot.weights;
        exact.write(&moved(&weight, along_weight), &mut weights.weight[layer]);
        exact.write(&moved(&bias, along_bias), &mut weights.bias[layer]);
        if step != 0.0 {
            snapshot.run_from(layer, check, exact);
        }
        snapshot.loss
    };
    let difference = write(step) - write(-step);
    write(0.0);
    difference / (2.0 * step)
}
