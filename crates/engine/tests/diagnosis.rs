//! What is reported of each layer. Oracles: identities of the rules, and what is true before the first update.

use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::diagnosis::{LayerDiagnosis, Request};
use sansprop::images::ImageShape;
use sansprop::minibatch::Minibatch;
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::protocol::{Part, Samples, Split};
use sansprop::rng::LegacyRandom;
use sansprop::rule::RULES;
use sansprop::train::{Blind, Event, Observer, Schedule, train};
use sansprop_kernels::{Activation, Backend, Norm, Reference};
use std::ops::ControlFlow;

struct Collect(Vec<Vec<(u64, Vec<LayerDiagnosis>)>>);

impl<B: Backend> Observer<B> for Collect {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        if let (Event::Step { trial, step, .. }, Some(layers)) = (event, cohort.diagnosis()) {
            self.0[*trial].push((*step, layers.to_vec()));
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn layers_are_diagnosed_at_each_epochs_first_step() {
    let shape = ImageShape {
        height: 4,
        width: 4,
        channels: 1,
    };
    let mut random = LegacyRandom::new(1);
    let pixels: Vec<f32> = (0..20 * 16).map(|_| random.uniform() as f32).collect();
    let labels: Vec<u32> = (0..20).map(|i| i % 3).collect();
    let images =
        sansprop::images::Images::new(shape, 3, sansprop::images::Pixels::Floats(pixels), labels)
            .expect("a valid set");
    let network = Network::new(NetworkSpec {
        input: shape,
        classes: 3,
        architecture: Architecture::Conv {
            strides: vec![1, 2],
        },
        width: 5,
        activation: Activation::Tanh,
        norm: Norm::Location,
        parameterization: Parameterization::Ntk,
    })
    .expect("a valid network");
    let specs = RULES.map(|rule| TrialSpec {
        rule,
        optimizer: Optimizer::Sgd { lr: 1.0 },
    });
    let mut unseen = Cohort::new(&Reference, network.clone(), 3, 10, 0.1, &specs);
    let mut cohort = Cohort::new(&Reference, network, 3, 10, 0.1, &specs);
    cohort.request_diagnosis(Request {
        gradient: true,
        drift: true,
    });
    let part = |samples| Part {
        set: Samples::Images(&images),
        samples,
    };
    let split = Split {
        train: part(0..20),
        evaluation: part(0..10),
    };
    let schedule = Schedule {
        batch: 10,
        epochs: 3,
        max_steps: None,
        seed: 3,
        eval_every: 1,
    };
    let mut collect = Collect(vec![Vec::new(); RULES.len()]);
    train(&mut cohort, &split, &schedule, &mut collect);
    train(&mut unseen, &split, &schedule, &mut Blind);
    for trial in 0..RULES.len() {
        assert_eq!(
            cohort.tensors(trial),
            unseen.tensors(trial),
            "looking changes nothing"
        );
    }

    for (rule, seen) in RULES.iter().zip(&collect.0) {
        let steps: Vec<u64> = seen.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [0, 2, 4], "{rule}");
        let (first, last) = (&seen[0].1, &seen[2].1);
        assert_eq!(first.len(), 3);
        for layer in first {
            assert_eq!(layer.weight_change, Some(0.0), "{rule}");
            assert_eq!(layer.kernel_drift, Some(0.0), "{rule}");
        }
        let close = |value: Option<f64>, expected: f64| {
            (value.unwrap_or_else(|| panic!("{rule}: a number")) - expected).abs() < 1e-9
        };
        // The head's first update is the gradient under every rule.
        assert!(close(first[2].gradient_cosine, 1.0) && close(first[2].gradient_norm_ratio, 1.0));
        let aligned = ["normal", "align-ada", "align-zero", "align-prop"].contains(&rule.name);
        for layer in &first[..2] {
            if aligned {
                assert!(close(layer.gradient_cosine, 1.0), "{rule}: {layer:?}");
                assert!(close(layer.gradient_norm_ratio, 1.0), "{rule}: {layer:?}");
                assert!(close(layer.feedback_cosine, 1.0), "{rule}: {layer:?}");
            } else if rule.trains_hidden_layers() {
                assert!(
                    layer.gradient_cosine.is_some_and(|c| c < 0.999),
                    "{rule}: {layer:?}"
                );
            } else {
                assert_eq!(layer.gradient_norm_ratio, Some(0.0));
            }
        }
        for layer in &last[..2] {
            let moved = layer.weight_change.expect("a number") > 1e-4;
            assert_eq!(moved, rule.trains_hidden_layers(), "{rule}");
            if rule.name == "normal" {
                assert!(close(layer.gradient_cosine, 1.0));
                assert_eq!(layer.feedback_cosine, Some(1.0));
            } else if rule.name == "align-prop" {
                assert!(layer.feedback_cosine.is_some_and(|c| c < 1.0 - 1e-6));
                assert!(layer.gradient_cosine.is_some_and(|c| c < 1.0 - 1e-9));
            }
        }
        assert!(last[2].kernel_drift.is_some_and(|d| d > 1e-3), "{rule}");
    }
}

/// Companions must not change what is learned. Oracle: bitwise equality.
#[test]
fn companions_change_nothing() {
    let shape = ImageShape {
        height: 3,
        width: 3,
        channels: 1,
    };
    let network = Network::new(NetworkSpec {
        input: shape,
        classes: 2,
        architecture: Architecture::Dense { depth: 2 },
        width: 4,
        activation: Activation::Relu,
        norm: Norm::None,
        parameterization: Parameterization::Standard,
    })
    .expect("a valid network");
    let mut random = LegacyRandom::new(8);
    let input: Vec<f32> = (0..6 * 9).map(|_| random.normal() as f32).collect();
    let minibatch = Minibatch::labelled(input, vec![0, 1, 0, 1, 1, 0]);
    let specs = RULES.map(|rule| TrialSpec {
        rule,
        optimizer: Optimizer::Adam { lr: 0.01 },
    });
    let run = |companions: bool| {
        let mut cohort = Cohort::new(&Reference, network.clone(), 3, 6, 0.1, &specs);
        if companions {
            for trial in 0..RULES.len() {
                cohort.add_companion(trial);
            }
        }
        for _ in 0..3 {
            cohort.load(&minibatch);
            cohort.run_initial(true);
            for trial in 0..RULES.len() {
                cohort.step(trial);
            }
        }
        (0..RULES.len())
            .map(|t| cohort.tensors(t))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
}
