//! Two real steps of every rule on the fast backend: which layers move, and whether the loss is right.

use super::identities::update;
use super::measure::{all_values, distance, norm, relative, total_norm, worse};
use super::{Bound, Check, Finding, LOSS, Property, Snapshot};
use crate::cohort::{Cohort, TrialSpec};
use crate::init::{FeedbackDraw, draw};
use crate::learn::{FeedbackState, trained_layers};
use crate::optim::Optimizer;
use crate::pass::Weights;
use crate::rule::{RULES, Rule};
use sansprop_kernels::Backend;

/// A gradient smaller than this share of the whole may be lost in f32: nothing reaches the layer.
const REACHED: f64 = 1e-5;

/// Trains all rules for two steps in one [`Cohort`] and looks at what they did.
pub(super) fn train_two_steps<F: Backend, E: Backend>(
    check: &Check<'_>,
    fast: &F,
    exact: &E,
    exact_losses: &[f64],
    report: &mut dyn FnMut(Finding),
) {
    let network = check.network;
    // With weights of this size, a step that neither parameterisation finds too long nor f32 too short to see.
    let deviations = (0..network.layers().len()).map(|l| network.initial_deviation(l));
    let smallest = deviations.fold(1.0, f64::min);
    let optimizer = Optimizer::Sgd {
        lr: smallest * smallest,
    };
    let specs: Vec<TrialSpec> = check
        .rules
        .iter()
        .map(|&rule| TrialSpec { rule, optimizer })
        .collect();
    let mut cohort = Cohort::new(
        fast,
        network.clone(),
        check.seed,
        check.batch(),
        check.target_shift,
        &specs,
    );
    cohort.load(check.batch(), check.input);
    cohort.run_initial(check.batch());
    for (i, rule) in check.rules.iter().enumerate() {
        let before = all_values(fast, cohort.trials()[i].weights());
        let loss = cohort.step(i, check.labels).loss;
        cohort.step(i, check.labels);
        let after = all_values(fast, cohort.trials()[i].weights());
        let change = |layer: usize| {
            let moved = distance(&before[layer], &after[layer]);
            relative(moved, norm(&before[layer]))
        };
        let trained = trained_layers(rule, network);
        let smallest = |layers: &mut dyn Iterator<Item = usize>| {
            let changes = layers.map(change);
            changes.fold(f64::INFINITY, |a, b| -worse(-a, -b))
        };
        let mut least = smallest(&mut trained.clone());
        if least == 0.0 {
            let reached = reached(check, exact, rule);
            least = smallest(&mut trained.clone().filter(|&layer| reached[layer]));
        }
        let bound = Bound::MoreThan(0.0);
        report(Finding::new(Property::Trained, rule.name, least, bound));
        let others = (0..network.layers().len()).filter(|layer| !trained.contains(layer));
        if let Some(largest) = others.map(change).reduce(worse) {
            let bound = Bound::Exactly(0.0);
            report(Finding::new(Property::Untouched, rule.name, largest, bound));
        }
        let deviation = relative((loss - exact_losses[i]).abs(), exact_losses[i]);
        report(Finding::new(
            Property::Loss,
            rule.name,
            deviation,
            Bound::AtMost(LOSS),
        ));
    }
}

/// Per layer, whether backpropagation's gradient reaches it at the rule's initial weights, as far as f32 can see: not
/// past units that are all dead, and not where a norm over a single weight cancels it.
fn reached<E: Backend>(check: &Check<'_>, exact: &E, rule: &Rule) -> Vec<bool> {
    let drawn = draw(check.network, check.seed, FeedbackDraw::of(rule));
    let weights = Weights::from_draw(exact, check.network, &drawn.weights);
    let snapshot = Snapshot::new(check, exact, weights);
    let none = FeedbackState::None;
    let gradient = update(check, exact, &RULES[0], &snapshot, None, &none, None);
    let gradient = all_values(exact, &gradient);
    let size = total_norm(&gradient);
    gradient.iter().map(|g| norm(g) > REACHED * size).collect()
}
