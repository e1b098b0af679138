//! Identities between rules, in f64: at the first step, and away from W⁽⁰⁾.

use super::measure::{all_values, distance, layer_values, norm, relative, total_norm, worse};
use super::{Bound, Check, Finding, IDENTITY, MOVED, Property, Snapshot};
use crate::init::{FeedbackDraw, draw};
use crate::learn::{FeedbackState, Inputs, Scratch, update_direction};
use crate::optim::Optimizer;
use crate::pass::Weights;
use crate::rule::{Feedback, FeedbackWeights, Point, RULES, Rule};
use sansprop_kernels::Backend;

/// One update direction, of `current` and, where the rule looks at it, the initial network; driven by the
/// current network's error or by another.
pub(super) fn update<B: Backend>(
    check: &Check<'_>,
    backend: &B,
    rule: &Rule,
    current: &Snapshot<B>,
    initial: Option<&Snapshot<B>>,
    feedback: &FeedbackState<B>,
    error: Option<&B::Buffer>,
) -> Weights<B> {
    let inputs = Inputs {
        network: check.network,
        batch: check.batch(),
        input: &current.input,
        error: error.unwrap_or(&current.error),
        weights: &current.weights,
        current: &current.pass,
        initial_weights: initial.map(|snapshot| &snapshot.weights),
        initial: initial.map(|snapshot| &snapshot.pass),
        feedback,
    };
    let mut scratch = Scratch::new(backend, check.network, check.batch());
    let mut gradient = Weights::zeros(backend, check.network);
    update_direction(backend, rule, &inputs, &mut scratch, &mut gradient);
    gradient
}

/// At the first step every rule that feeds back through W⁽⁰⁾ is backpropagation. Goes through cohorts, as training
/// does. Returns the learning rate at which a step of backpropagation is a tenth as long as the weights.
pub(super) fn first_step<E: Backend>(
    check: &Check<'_>,
    exact: &E,
    report: &mut dyn FnMut(Finding),
) -> f64 {
    let optimizer = Optimizer::Sgd { lr: 0.0 };
    let mut cohort = check.cohort(exact, &RULES[0], optimizer);
    let normal_loss = cohort.step(0).loss;
    let normal = all_values(exact, cohort.last_gradient());
    let weights = total_norm(&all_values(exact, cohort.trials()[0].weights()));
    let size = total_norm(&normal);
    for rule in check.rules {
        if rule.feedback_weights() != Some(FeedbackWeights::Initial) {
            continue;
        }
        let mut cohort = check.cohort(exact, rule, optimizer);
        let loss = cohort.step(0).loss;
        // A loss that is not finite makes no step, and no gradient.
        let deviation = if (loss + normal_loss).is_finite() {
            let own = all_values(exact, cohort.last_gradient());
            largest_distance(&own, &normal, size)
        } else {
            f64::NAN
        };
        report(Finding::new(
            Property::FirstStep,
            rule.name,
            deviation,
            Bound::AtMost(IDENTITY),
        ));
    }
    0.1 * relative(weights, size)
}

/// The largest distance of two layers' rows, relative to `size`.
///
/// That size is the whole update's: where a layer's own update cancels to nearly nothing, its rounding does not.
fn largest_distance(a: &[Vec<f64>], b: &[Vec<f64>], size: f64) -> f64 {
    let distances = a.iter().zip(b).map(|(a, b)| distance(a, b));
    distances.fold(0.0, |worst, d| worse(relative(d, size), worst))
}

/// Two identities at weights that two steps of backpropagation moved away from W⁽⁰⁾.
pub(super) fn away_from_start<E: Backend>(
    check: &Check<'_>,
    exact: &E,
    report: &mut dyn FnMut(Finding),
) {
    let drawn = draw(check.network, check.seed, FeedbackDraw::None);
    let start = Weights::from_draw(exact, check.network, &drawn.weights);
    let initial = Snapshot::new(check, exact, start.clone());
    // Short steps, lest all units of a layer die; the second shorter still, so that it cannot undo the first.
    let mut moved = step(check, exact, &initial, 0.01);
    moved = step(check, exact, &moved, 0.005);
    let before = all_values(exact, &initial.weights);
    let after = all_values(exact, &moved.weights);
    let distances: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|(a, b)| distance(a, b))
        .collect();
    report(Finding::new(
        Property::Moved,
        "normal",
        relative(norm(&distances), total_norm(&before)),
        Bound::MoreThan(MOVED),
    ));
    for rule in check.rules {
        if let Feedback::Chain {
            weights: FeedbackWeights::Random,
            slopes,
        } = rule.feedback
        {
            let twin = Rule {
                feedback: Feedback::Chain {
                    weights: FeedbackWeights::Initial,
                    slopes,
                },
                ..*rule
            };
            let feedback = FeedbackState::Random(start.weight.clone());
            let none = FeedbackState::None;
            let own = update(check, exact, rule, &moved, Some(&initial), &feedback, None);
            let other = update(check, exact, &twin, &moved, Some(&initial), &none, None);
            let (own, other) = (all_values(exact, &own), all_values(exact, &other));
            report(Finding::new(
                Property::FedBackThroughInitial,
                rule.name,
                largest_distance(&own, &other, total_norm(&other)),
                Bound::AtMost(IDENTITY),
            ));
        }
    }
    for rule in check.rules {
        if rule.local == Point::Initial {
            linear_in_error(check, exact, rule, &initial, &moved, report);
        }
    }
}

/// Moves every layer against its gradient by `share` of its weights' size.
fn step<E: Backend>(check: &Check<'_>, exact: &E, from: &Snapshot<E>, share: f64) -> Snapshot<E> {
    let none = FeedbackState::None;
    let gradient = update(check, exact, &RULES[0], from, None, &none, None);
    let mut weights = from.weights.clone();
    for layer in 0..check.network.layers().len() {
        let size = norm(&exact.read(&weights.weight[layer]));
        let slope = norm(&layer_values(exact, &gradient, layer));
        if slope > 0.0 {
            let rate = share * size / slope;
            exact.sgd(rate, &gradient.weight[layer], &mut weights.weight[layer]);
            exact.sgd(rate, &gradient.bias[layer], &mut weights.bias[layer]);
        }
    }
    Snapshot::new(check, exact, weights)
}

/// `update(α e₁ + β e₂) = α update(e₁) + β update(e₂)`, with e₁ at W⁽⁰⁾ and the other two at the moved weights:
/// a rule that looked at the current network anywhere else than in its error would show.
fn linear_in_error<E: Backend>(
    check: &Check<'_>,
    exact: &E,
    rule: &Rule,
    initial: &Snapshot<E>,
    moved: &Snapshot<E>,
    report: &mut dyn FnMut(Finding),
) {
    let (alpha, beta) = (1.75, -0.625);
    let combine = |a: &[f64], b: &[f64]| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| alpha * a + beta * b).collect()
    };
    let mut error = initial.error.clone();
    let (first, second) = (exact.read(&initial.error), exact.read(&moved.error));
    exact.write(&combine(&first, &second), &mut error);
    let feedback = feedback_state(check, exact, rule);
    let run = |at: &Snapshot<E>, error: &E::Buffer| {
        let own = update(
            check,
            exact,
            rule,
            at,
            Some(initial),
            &feedback,
            Some(error),
        );
        all_values(exact, &own)
    };
    let first = run(initial, &initial.error);
    let second = run(moved, &moved.error);
    let both = run(moved, &error);
    let expected: Vec<Vec<f64>> = first
        .iter()
        .zip(&second)
        .map(|(a, b)| combine(a, b))
        .collect();
    let size = alpha.abs() * total_norm(&first) + beta.abs() * total_norm(&second);
    report(Finding::new(
        Property::Linear,
        rule.name,
        largest_distance(&both, &expected, size),
        Bound::AtMost(IDENTITY),
    ));
}

/// The feedback weights of a rule's own, as drawn.
fn feedback_state<E: Backend>(check: &Check<'_>, exact: &E, rule: &Rule) -> FeedbackState<E> {
    let kind = FeedbackDraw::of(rule);
    let drawn = draw(check.network, check.seed, kind).feedback;
    let buffers = drawn
        .iter()
        .map(|values| crate::pass::upload(exact, values));
    match kind {
        FeedbackDraw::None => FeedbackState::None,
        FeedbackDraw::Random => FeedbackState::Random(buffers.collect()),
        FeedbackDraw::Direct => FeedbackState::Direct(
            buffers
                .enumerate()
                .map(|(l, buffer)| (check.network.direct_layer(l), buffer))
                .collect(),
        ),
    }
}
