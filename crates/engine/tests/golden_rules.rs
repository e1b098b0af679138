//! Every rule's losses, update directions and final weights against an independent implementation.
//! Oracle: `golden/rules/*.json`, made with PyTorch's autograd in f64 by `golden/rules.py`.
//!
//! A new rule is one row in `sansprop::rule::RULES` and one entry in the generator.

mod golden_case;

use golden_case::Config;
use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::images::{Images, Pixels};
use sansprop::learn::trained_layers;
use sansprop::network::Network;
use sansprop::protocol::{Part, Samples, Split};
use sansprop::rule::{RULES, Rule};
use sansprop::train::{Event, Observer, Schedule, train};
use sansprop_kernels::{Backend, CpuBackend, InstructionSet, Reference};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

#[derive(Deserialize)]
struct Case {
    name: String,
    config: Config,
    first_inputs: Vec<f64>,
    labels: Vec<u32>,
    weight_shapes: Vec<Vec<usize>>,
    rules: BTreeMap<String, RuleValues>,
}

#[derive(Deserialize)]
struct RuleValues {
    losses: Vec<f64>,
    weight_gradient_norms: Vec<Vec<f64>>,
    bias_gradient_norms: Vec<Vec<f64>>,
    gradients: Vec<Gradients>,
    #[serde(rename = "final")]
    last: Arrays,
}

#[derive(Deserialize)]
struct Gradients {
    step: usize,
    #[serde(flatten)]
    arrays: Arrays,
}

#[derive(Deserialize)]
struct Arrays {
    weights: Vec<Vec<f64>>,
    biases: Vec<Vec<f64>>,
}

fn cases() -> Vec<Case> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/rules");
    let mut cases: Vec<Case> = std::fs::read_dir(folder)
        .expect("the golden folder is part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(cases.len(), 7, "golden cases");
    cases
}

impl Case {
    fn images(&self) -> Images {
        assert_eq!(self.config.labels(), self.labels, "{}", self.name);
        let images = self.config.images(&self.labels);
        let Pixels::Floats(values) = images.pixels() else {
            panic!("floats");
        };
        for (value, expected) in values.iter().zip(&self.first_inputs) {
            assert_eq!(f64::from(*value), *expected);
        }
        images
    }

    fn network(&self) -> Network {
        let network = self.config.network();
        let shapes: Vec<_> = (0..network.layers().len())
            .map(|l| network.weight_shape(l))
            .collect();
        assert_eq!(shapes, self.weight_shapes, "{}", self.name);
        network
    }
}

/// Compares every step of every trial of a cohort.
struct Compare<'a> {
    case: &'a Case,
    rules: &'a [Rule],
    tolerance: f64,
    steps_seen: usize,
}

impl Compare<'_> {
    fn close(&self, what: &str, rule: &Rule, value: f64, expected: f64, scale: f64) {
        assert!(
            (value - expected).abs() <= self.tolerance * (expected.abs() + scale),
            "{} {rule}: {what}: {value} instead of {expected}",
            self.case.name
        );
    }

    fn arrays(&self, what: &str, rule: &Rule, values: &[f64], expected: &[f64]) {
        assert_eq!(
            values.len(),
            expected.len(),
            "{} {rule}: {what}",
            self.case.name
        );
        let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (value, expected) in values.iter().zip(expected) {
            self.close(what, rule, *value, *expected, largest);
        }
    }

    /// Under a norm, biases of hidden layers have no effect and their gradients are rounding noise.
    fn bias_matters(&self, layer: usize) -> bool {
        self.case.config.norm == "none" || layer == self.case.config.hidden_layers
    }
}

impl<B: Backend> Observer<B> for Compare<'_> {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        let Event::Step {
            trial, step, score, ..
        } = event
        else {
            return ControlFlow::Continue(());
        };
        self.steps_seen += 1;
        let (rule, step) = (&self.rules[*trial], *step as usize);
        let expected = &self.case.rules[rule.name];
        self.close(
            &format!("loss of step {step}"),
            rule,
            score.loss,
            expected.losses[step],
            0.0,
        );
        let gradient = cohort.last_gradient();
        let network = cohort
            .model()
            .feed_forward()
            .expect("a feed-forward network");
        let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
        let full = expected.gradients.iter().find(|g| g.step == step);
        for l in trained_layers(rule, network) {
            let weight = cohort.backend().read(&gradient.weight[l]);
            let bias = cohort.backend().read(&gradient.bias[l]);
            let what = format!("step {step} layer {l}");
            self.close(
                &what,
                rule,
                norm(&weight),
                expected.weight_gradient_norms[step][l],
                0.0,
            );
            if let Some(full) = full {
                self.arrays(&what, rule, &weight, &full.arrays.weights[l]);
            }
            if self.bias_matters(l) {
                self.close(
                    &what,
                    rule,
                    norm(&bias),
                    expected.bias_gradient_norms[step][l],
                    0.0,
                );
                if let Some(full) = full {
                    self.arrays(&what, rule, &bias, &full.arrays.biases[l]);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn compare<B: Backend>(backend: &B, case: &Case, rules: &[Rule], tolerance: f64) {
    let images = case.images();
    let part = |samples| Part {
        set: Samples::Images(&images),
        samples,
    };
    let split = Split {
        train: part(0..case.config.samples),
        evaluation: part(0..case.config.heldout),
    };
    let specs: Vec<TrialSpec> = rules
        .iter()
        .map(|&rule| TrialSpec {
            rule,
            optimizer: case.config.optimizer(),
        })
        .collect();
    let c = &case.config;
    let mut cohort = Cohort::new(
        backend,
        case.network(),
        c.seed,
        c.batch,
        c.target_shift,
        &specs,
    );
    let schedule = Schedule {
        batch: c.batch,
        epochs: usize::MAX,
        max_steps: Some(c.steps as u64),
        seed: c.seed,
        eval_every: 1,
    };
    let mut observer = Compare {
        case,
        rules,
        tolerance,
        steps_seen: 0,
    };
    train(&mut cohort, &split, &schedule, &mut observer);
    assert_eq!(observer.steps_seen, c.steps * rules.len());
    for (i, rule) in rules.iter().enumerate() {
        let expected = &case.rules[rule.name].last;
        let weights = cohort.trials()[i].weights();
        for l in 0..case.config.hidden_layers + 1 {
            let what = format!("final layer {l}");
            observer.arrays(
                &what,
                rule,
                &backend.read(&weights.weight[l]),
                &expected.weights[l],
            );
            if observer.bias_matters(l) {
                observer.arrays(
                    &what,
                    rule,
                    &backend.read(&weights.bias[l]),
                    &expected.biases[l],
                );
            }
        }
    }
}

#[test]
fn reference_equals_the_independent_implementation() {
    for case in cases() {
        assert_eq!(case.rules.len(), RULES.len(), "{}: rules", case.name);
        compare(&Reference, &case, &RULES, 1e-9);
    }
}

#[test]
fn every_instruction_set_equals_it_to_f32_rounding() {
    for set in InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available())
    {
        let backend = CpuBackend::with_instruction_set(2, set).expect("an available set");
        for case in cases() {
            // Rounding grows over ten steps; ReLU units that sit near 0 may switch.
            compare(&backend, &case, &RULES, 2e-3);
        }
    }
}
