//! Two real steps of every rule on the fast backend: which layers move, and whether the loss is right.

use super::identities::update;
use super::measure::{all_values, distance, norm, relative, worse};
use super::{Bound, Check, Finding, Property, Snapshot};
use crate::init::{FeedbackDraw, draw};
use crate::learn::{FeedbackState, trained_layers};
use crate::optim::Optimizer;
use crate::pass::Weights;
use crate::rng::LegacyRandom;
use crate::rule::{FeedbackWeights, RULES, Rule};
use sansprop_kernels::Backend;

/// Relative change of weights that no rule's share of it and no rounding to f32 makes invisible.
const VISIBLE: f64 = 1e-4;

/// The fast backend's loss against f64, relative, in a network that does not amplify rounding.
const LOSS: f64 = 1e-5;

/// How many times the effect of weights and inputs that are off by one rounding each, the loss may be off
/// besides: a deep network that normalises a few samples in every layer amplifies rounding a thousandfold.
const ROUNDINGS: f64 = 30.0;

/// Trains every rule for two steps and looks at what it did. `rate` is the learning rate.
pub(super) fn train_two_steps<F: Backend, E: Backend>(
    check: &Check<'_>,
    fast: &F,
    exact: &E,
    rate: f64,
    report: &mut dyn FnMut(Finding),
) {
    let optimizer = Optimizer::Sgd { lr: rate };
    let mut starts: Vec<Start> = Vec::new();
    for rule in check.rules {
        let mut cohort = check.cohort(fast, rule, optimizer);
        let before = all_values(fast, cohort.trials()[0].weights());
        let loss = cohort.step(0).loss;
        cohort.step(0);
        let after = all_values(fast, cohort.trials()[0].weights());
        let changes: Vec<f64> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| relative(distance(before, after), norm(before)))
            .collect();
        report_changes(check, exact, rule, rate, &changes, report);

        let kind = FeedbackDraw::of(rule);
        let known = starts.iter().position(|start| start.kind == kind);
        let at = known.unwrap_or_else(|| {
            starts.push(Start::new(check, exact, kind, fast.operand_rounding()));
            starts.len() - 1
        });
        let start = &starts[at];
        report(Finding::new(
            Property::Loss,
            rule.name,
            relative((loss - start.loss).abs(), start.loss),
            Bound::AtMost(LOSS + ROUNDINGS * start.rounding),
        ));
    }
}

/// Reports on the layers that a rule trains and on those that it must not.
fn report_changes<E: Backend>(
    check: &Check<'_>,
    exact: &E,
    rule: &Rule,
    rate: f64,
    changes: &[f64],
    report: &mut dyn FnMut(Finding),
) {
    let trained = trained_layers(rule, check.network);
    let smallest =
        |changes: &mut dyn Iterator<Item = f64>| changes.fold(f64::INFINITY, |a, b| -worse(-a, -b));
    let mut least = smallest(&mut changes[trained.clone()].iter().copied());
    if least == 0.0 {
        let reached = reached(check, exact, rule, rate);
        let mut reached = trained.clone().filter(|&l| reached[l]).map(|l| changes[l]);
        least = smallest(&mut reached);
    }
    if least == f64::INFINITY {
        // Nothing need move far, but something must move.
        least = changes[trained.clone()].iter().copied().fold(0.0, worse);
    }
    report(Finding::new(
        Property::Trained,
        rule.name,
        least,
        Bound::MoreThan(0.0),
    ));
    let others = (0..changes.len()).filter(|l| !trained.contains(l));
    if let Some(largest) = others.map(|l| changes[l]).reduce(worse) {
        let bound = Bound::Exactly(0.0);
        report(Finding::new(Property::Untouched, rule.name, largest, bound));
    }
}

/// The weights that a rule with this draw starts from.
fn start<E: Backend>(check: &Check<'_>, exact: &E, kind: FeedbackDraw) -> Weights<E> {
    let drawn = draw(check.network, check.seed, kind);
    Weights::from_draw(exact, check.network, &drawn.weights)
}

/// The first loss of all rules that start from the same draw, in f64.
struct Start {
    kind: FeedbackDraw,
    loss: f64,
    /// How far the loss may move, relatively, when every weight and input is off by one of the fast backend's roundings.
    rounding: f64,
}

impl Start {
    fn new<E: Backend>(check: &Check<'_>, exact: &E, kind: FeedbackDraw, rounding: f64) -> Self {
        let mut snapshot = Snapshot::new(check, exact, start(check, exact, kind));
        let loss = snapshot.loss;
        let size = norm(&exact.read(&snapshot.error));
        let output = exact.read(snapshot.pass.output());
        let mut random = LegacyRandom::new(check.seed);
        let weights = snapshot.weights.weight.iter_mut();
        for buffer in weights.chain([&mut snapshot.input]) {
            let mut values = exact.read(buffer);
            for value in &mut values {
                *value *= 1.0 + rounding * random.normal();
            }
            exact.write(&values, buffer);
        }
        snapshot.run_from(0, check, exact);
        // Cauchy–Schwarz; the change of the loss itself may be small by chance.
        let change = size * distance(&exact.read(snapshot.pass.output()), &output);
        Self {
            kind,
            loss,
            rounding: relative(change, loss),
        }
    }
}

/// Per layer, whether backpropagation at the rule's initial weights moves it so far that f32 must see it: not past
/// units that are all dead, and not where a norm over a single weight cancels the gradient.
fn reached<E: Backend>(check: &Check<'_>, exact: &E, rule: &Rule, rate: f64) -> Vec<bool> {
    let weights = start(check, exact, FeedbackDraw::of(rule));
    let snapshot = Snapshot::new(check, exact, weights);
    let weights = all_values(exact, &snapshot.weights);
    let moved_by = |rule: &Rule| -> Vec<bool> {
        let none = FeedbackState::None;
        let gradient = update(check, exact, rule, &snapshot, None, &none, None);
        let gradient = all_values(exact, &gradient);
        let moves = |(g, w): (&Vec<f64>, &Vec<f64>)| rate * norm(g) > VISIBLE * norm(w);
        gradient.iter().zip(&weights).map(moves).collect()
    };
    let mut reached = moved_by(&RULES[0]);
    // With one unit per layer, the signs of a convolution's taps can cancel to nothing: all feedback has one size.
    if rule.feedback_weights() == Some(FeedbackWeights::Sign) && check.network.spec().width == 1 {
        let own = moved_by(rule);
        reached.iter_mut().zip(own).for_each(|(r, own)| *r &= own);
    }
    reached
}
