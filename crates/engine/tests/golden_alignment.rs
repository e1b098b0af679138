//! Alignment scores and the companion W* against an independent implementation.
//! Oracle: `golden/alignment.json`: the dense operator, and PyTorch's autograd, in f64 (`golden/alignment.py`).

mod golden_case;

use golden_case::Config;
use sansprop::alignment::{Changes, exact, permuted, probes};
use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::companion::IntegratedErrors;
use sansprop::network::Network;
use sansprop::protocol::{Part, Samples, Split};
use sansprop::rule::Rule;
use sansprop::train::{Event, Observer, Schedule, train};
use sansprop_kernels::{
    Activation, Backend, CpuBackend, InstructionSet, Layer, Norm, Reference, Wiring,
};
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Arc;

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/alignment.json");
    let text = std::fs::read_to_string(path).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().expect("an array");
    values
        .iter()
        .map(|v| v.as_f64().expect("a number"))
        .collect()
}

fn whole(value: &Value) -> usize {
    value.as_u64().expect("a whole number") as usize
}

fn cpus() -> Vec<CpuBackend> {
    InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available())
        .map(|set| CpuBackend::with_instruction_set(2, set).expect("an available set"))
        .collect()
}

/// A layer and the golden changes D and D*.
fn single_layers() -> Vec<(Layer, Vec<f64>, Vec<f64>, f64)> {
    let golden = golden();
    let layer = |case: &Value, wiring: Wiring| Layer {
        wiring: Arc::new(wiring),
        inputs: whole(&case["inputs"]),
        outputs: whole(&case["outputs"]),
        // Neither must enter the score.
        scale: 0.3,
        norm: Norm::Location,
        activation: Activation::Relu,
    };
    let conv = golden["conv"]
        .as_array()
        .expect("cases")
        .iter()
        .map(|case| {
            let [rows, columns, stride] =
                ["rows", "columns", "stride"].map(|key| whole(&case[key]));
            (case, layer(case, Wiring::conv3x3(rows, columns, stride)))
        });
    let dense = golden["dense"].as_array().expect("cases").iter();
    conv.chain(dense.map(|case| (case, layer(case, Wiring::dense()))))
        .map(|(case, layer)| {
            let score = case["score"].as_f64().expect("a score");
            (
                layer,
                numbers(&case["change"]),
                numbers(&case["companion_change"]),
                score,
            )
        })
        .collect()
}

#[test]
fn exact_scores_are_those_of_the_dense_operator() {
    for (layer, change, reference, score) in single_layers() {
        let changes = Changes {
            layer: &layer,
            change,
            reference,
        };
        let close = |name: &str, value: f64, tolerance: f64| {
            assert!(
                (value - score).abs() < tolerance,
                "{name}: {value} instead of {score}"
            );
        };
        close("reference", exact(&Reference, &changes), 1e-12);
        for cpu in cpus() {
            close("cpu", exact(&cpu, &changes), 1e-6);
        }
    }
}

/// Oracle: the exact score. Five standard errors would fail by chance once in a million cases.
#[test]
fn probes_agree_with_the_exact_score_within_their_standard_error() {
    for (i, (layer, change, reference, score)) in single_layers().into_iter().enumerate() {
        let changes = Changes {
            layer: &layer,
            change,
            reference,
        };
        let estimate = probes(&Reference, &changes, 40, 20, i as u32);
        assert!(estimate.standard_error > 0.0 && estimate.standard_error < 0.2);
        let distance = (estimate.score - score).abs() / estimate.standard_error;
        assert!(distance < 5.0, "case {i}: {estimate:?}, exact {score}");
    }
}

/// Looks at a trial and its companion after every step.
struct Scores<'a> {
    network: &'a Network,
    golden: &'a Value,
    errors: IntegratedErrors,
    seen: usize,
    tolerance: f64,
}

impl<B: Backend> Observer<B> for Scores<'_> {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        let Event::Step { trial: 0, step, .. } = event else {
            return ControlFlow::Continue(());
        };
        self.errors.add(cohort, &cohort.trials()[0]);
        let after = self.golden["scored_after"].as_array().expect("steps");
        let Some(at) = after.iter().position(|s| whole(s) as u64 == step + 1) else {
            return ControlFlow::Continue(());
        };
        let expected = numbers(&self.golden["scores"][at]);
        assert_eq!(expected.len(), self.network.hidden().len());
        let initial = cohort.initial_weights_of(0);
        let (backend, now) = (cohort.backend(), cohort.trials()[0].weights());
        let companion = cohort.companion(0).expect("a companion");
        for (l, layer) in self.network.hidden().iter().enumerate() {
            let initial: Vec<f64> = initial[l].iter().map(|&w| f64::from(w)).collect();
            let last = backend.read(&now.weight[l]);
            let reference = backend.read(&companion.weight[l]);
            let changes = Changes::new(layer, &initial, &last, &reference);
            let score = exact(backend, &changes);
            assert!(
                (score - expected[l]).abs() < self.tolerance,
                "{} after step {}, layer {l}: {score} instead of {}",
                self.golden["name"],
                step + 1,
                expected[l]
            );
            let shuffled = permuted(backend, layer, &initial, &last, &reference, 1);
            assert!(shuffled.is_finite() && (shuffled - score).abs() > 1e-6);
        }
        self.seen += 1;
        ControlFlow::Continue(())
    }
}

fn companion<B: Backend>(backend: &B, golden: &Value, tolerance: f64) {
    let config: Config = serde_json::from_value(golden["config"].clone()).expect("a config");
    let images = config.images(&config.labels());
    let network = config.network();
    let part = |samples| Part {
        set: Samples::Images(&images),
        samples,
    };
    let split = Split {
        train: part(0..config.samples),
        evaluation: part(0..config.heldout),
    };
    let spec = |name| TrialSpec {
        rule: Rule::named(name).expect("a rule"),
        optimizer: config.optimizer(),
    };
    // Company must not matter, and neither must a second companion that starts elsewhere.
    let specs = [spec("normal"), spec("align-ada"), spec("fa")];
    let (batch, shift) = (config.batch, config.target_shift);
    let mut cohort = Cohort::new(backend, network.clone(), config.seed, batch, shift, &specs);
    cohort.add_companion(0);
    cohort.add_companion(2);
    let schedule = Schedule {
        batch,
        epochs: usize::MAX,
        max_steps: Some(config.steps as u64),
        seed: config.seed,
        eval_every: 1,
    };
    let mut observer = Scores {
        network: &network,
        golden,
        errors: IntegratedErrors::new(config.samples, config.classes),
        seen: 0,
        tolerance,
    };
    train(&mut cohort, &split, &schedule, &mut observer);
    assert_eq!(observer.seen, 3);
    let close = |what: &str, values: &[f64], expected: &[f64]| {
        let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert_eq!(values.len(), expected.len());
        for (value, expected) in values.iter().zip(expected) {
            assert!(
                (value - expected).abs() <= tolerance * largest,
                "{} {what}: {value} instead of {expected}",
                golden["name"]
            );
        }
    };
    let expected = |l: usize| numbers(&golden["companion"]["weights"][l]);
    for l in 0..network.layers().len() {
        let companion = cohort.companion(0).expect("a companion");
        close(
            "companion",
            &backend.read(&companion.weight[l]),
            &expected(l),
        );
    }
    if config.norm == "none" {
        let built = cohort.integrated_companion(0, &split.train, &observer.errors);
        for l in 0..network.layers().len() {
            close(
                "integrated errors",
                &backend.read(&built.weight[l]),
                &expected(l),
            );
        }
    }
}

#[test]
fn companions_equal_the_independent_implementation() {
    let golden = golden();
    let cases = golden["companions"].as_array().expect("cases");
    assert_eq!(cases.len(), 3);
    for case in cases {
        companion(&Reference, case, 1e-9);
        for cpu in cpus() {
            companion(&cpu, case, 2e-4);
        }
    }
}
