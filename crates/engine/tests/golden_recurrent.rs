//! The recurrent network and the Add task against an independent implementation.
//! Oracle: `golden/recurrent/*.json`, made with PyTorch's autograd in f64 by `golden/recurrent.py`.

use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::network::Parameterization;
use sansprop::optim::Optimizer;
use sansprop::pass::Weights;
use sansprop::protocol::{Part, Samples, Split};
use sansprop::recurrent::{
    HIDDEN, HIDDEN_BIAS, INITIAL_STATE, INPUT, READOUT, READOUT_BIAS, RecurrentNetwork,
};
use sansprop::rule::Rule;
use sansprop::sequences::{AddVariant, Sequences, add_task};
use sansprop::train::{Event, Observer, Schedule, train};
use sansprop_kernels::{Activation, Backend, CpuBackend, InstructionSet, Reference};
use serde_json::Value;
use std::ops::ControlFlow;

fn golden(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/recurrent");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

fn whole(value: &Value) -> usize {
    value.as_u64().expect("a whole number") as usize
}

fn sequences(config: &Value) -> Sequences {
    let variant = match config["variant"].as_str() {
        Some("published") => AddVariant::Published,
        Some("causal") => AddVariant::Causal,
        other => panic!("variant {other:?}"),
    };
    let (count, steps) = (whole(&config["sequences"]), whole(&config["length"]));
    let seed = whole(&config["data_seed"]) as u32;
    add_task(variant, count, steps, [2, 5], seed).expect("valid sequences")
}

/// The tensors of the recurrent network under the names of the golden files.
fn tensors<B: Backend>(backend: &B, weights: &Weights<B>) -> [(&'static str, Vec<f64>); 6] {
    [
        ("input", backend.read(&weights.weight[INPUT])),
        ("hidden", backend.read(&weights.weight[HIDDEN])),
        ("readout", backend.read(&weights.weight[READOUT])),
        ("hidden_bias", backend.read(&weights.bias[HIDDEN_BIAS])),
        ("readout_bias", backend.read(&weights.bias[READOUT_BIAS])),
        ("initial_state", backend.read(&weights.bias[INITIAL_STATE])),
    ]
}

/// Whether a rule trains a tensor; the gradients of others are not looked at.
fn trains(rule: &str, tensor: &str) -> bool {
    match rule {
        "last-layer" => ["readout", "readout_bias", "initial_state"].contains(&tensor),
        "dfa" => tensor != "initial_state",
        _ => true,
    }
}

#[track_caller]
fn close(what: &str, values: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(values.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (value, expected) in values.iter().zip(expected) {
        assert!(
            (value - expected).abs() <= tolerance * (largest + expected.abs()),
            "{what}: {value} instead of {expected}"
        );
    }
}

/// Compares every step and epoch of a single trial.
struct Compare<'a> {
    rule: &'a str,
    expected: &'a Value,
    tolerance: f64,
    steps: usize,
    epochs: usize,
}

impl<B: Backend> Observer<B> for Compare<'_> {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        let (rule, tolerance) = (self.rule, self.tolerance);
        match event {
            Event::Step { step, score, .. } => {
                let step = *step as usize;
                let what = format!("{rule}: loss of step {step}");
                let loss = numbers(&self.expected["losses"][step]);
                close(&what, &[score.loss], &loss, tolerance);
                assert_eq!(score.accuracy, None);
                let gradients = self.expected["gradients"].as_array().into_iter().flatten();
                for full in gradients.filter(|g| whole(&g["step"]) == step) {
                    for (name, values) in tensors(cohort.backend(), cohort.last_gradient()) {
                        if trains(rule, name) {
                            let what = format!("{rule}: gradient of {name} in step {step}");
                            close(&what, &values, &numbers(&full[name]), tolerance);
                        }
                    }
                }
                self.steps += 1;
            }
            Event::EpochEnded {
                epoch,
                train,
                evaluation,
                ..
            } => {
                let evaluation = evaluation.expect("an evaluation in every epoch");
                for (name, loss) in [
                    ("train_losses", train.loss),
                    ("test_losses", evaluation.loss),
                ] {
                    let what = format!("{rule}: {name} of epoch {epoch}");
                    close(
                        &what,
                        &[loss],
                        &numbers(&self.expected[name][*epoch]),
                        tolerance,
                    );
                }
                self.epochs += 1;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn compare<B: Backend>(
    backend: &B,
    config: &Value,
    width: usize,
    name: &str,
    expected: &Value,
    tolerance: f64,
) {
    let sequences = sequences(config);
    let set = Samples::Sequences(&sequences);
    let trained = whole(&config["train"]);
    let split = Split {
        train: Part {
            set,
            samples: 0..trained,
        },
        evaluation: Part {
            set,
            samples: trained..sequences.len(),
        },
    };
    let activation = match config["activation"].as_str() {
        Some("relu") => Activation::Relu,
        Some("tanh") => Activation::Tanh,
        other => panic!("activation {other:?}"),
    };
    let batch = whole(&config["batch"]);
    let network = RecurrentNetwork::new(
        width,
        sequences.steps(),
        batch,
        activation,
        Parameterization::Ntk,
    );
    let seed = whole(&config["seed"]) as u32;
    let lr = config["learning_rate"].as_f64().expect("a rate");
    let spec = TrialSpec {
        rule: Rule::named(name).expect("a rule"),
        optimizer: Optimizer::Sgd { lr },
    };
    let mut cohort = Cohort::new(backend, network, seed, batch, 0.0, &[spec]);
    let epochs = whole(&config["epochs"]);
    let schedule = Schedule {
        batch,
        epochs,
        max_steps: None,
        seed,
        eval_every: 1,
    };
    let mut observer = Compare {
        rule: name,
        expected,
        tolerance,
        steps: 0,
        epochs: 0,
    };
    train(&mut cohort, &split, &schedule, &mut observer);
    assert_eq!(
        (observer.steps, observer.epochs),
        (whole(&config["steps"]), epochs)
    );
    if expected["final"].is_object() {
        for (tensor, values) in tensors(backend, cohort.trials()[0].weights()) {
            let what = format!("{name}: final {tensor}");
            close(
                &what,
                &values,
                &numbers(&expected["final"][tensor]),
                tolerance,
            );
        }
    }
}

fn backends() -> Vec<CpuBackend> {
    InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available())
        .map(|set| CpuBackend::with_instruction_set(2, set).expect("an available set"))
        .collect()
}

#[test]
fn every_rule_equals_the_independent_implementation() {
    for case in ["add-small", "add-tanh"] {
        let golden = golden(case);
        let config = &golden["config"];
        let sequences = sequences(config);
        for (values, key) in [
            (sequences.inputs(), "inputs"),
            (sequences.targets(), "targets"),
        ] {
            let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            close(key, &values, &numbers(&golden[key]), 0.0);
        }
        let rules = golden["rules"].as_object().expect("rules");
        assert_eq!(rules.len(), 7);
        for (name, expected) in rules {
            let width = whole(&config["width"]);
            compare(&Reference, config, width, name, expected, 1e-10);
            for backend in backends() {
                compare(&backend, config, width, name, expected, 1e-4);
            }
        }
    }
}

/// The first epochs of Table 8's runs, at f32.
#[test]
fn the_add_task_equals_the_independent_implementation() {
    let golden = golden("add-task");
    let config = &golden["config"];
    let sequences = sequences(config);
    for (range, key) in [(0..300, "train"), (300..400, "test")] {
        let expected = numbers(&golden["chance_losses"][key]);
        close(key, &[sequences.chance_loss(range)], &expected, 1e-12);
    }
    for case in golden["widths"].as_array().expect("widths") {
        for (name, expected) in case["rules"].as_object().expect("rules") {
            for backend in backends() {
                compare(
                    &backend,
                    config,
                    whole(&case["width"]),
                    name,
                    expected,
                    1e-4,
                );
            }
        }
    }
}
