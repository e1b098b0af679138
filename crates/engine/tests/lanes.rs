//! Trials side by side against the same trials one after the other and alone (the oracles): the same bits.

use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::images::{ImageShape, Images, Pixels};
use sansprop::lanes::lane_count;
use sansprop::model::Model;
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::protocol::{Samples, Split};
use sansprop::recurrent::RecurrentNetwork;
use sansprop::rule::RULES;
use sansprop::sequences::{AddVariant, add_task};
use sansprop::train::{Event, Observer, Schedule, train};
use sansprop_kernels::{Activation, Backend, CpuBackend, Norm};
use std::ops::ControlFlow;

const BATCH: usize = 5;

fn images() -> Images {
    let shape = ImageShape {
        height: 5,
        width: 4,
        channels: 2,
    };
    let value = |i: usize| ((i * 7919 + i * i * 31) % 256) as f32 / 255.0;
    let pixels = Pixels::Floats((0..24 * 40).map(value).collect());
    let labels = (0..24).map(|i| i % 3).collect();
    Images::new(shape, 3, pixels, labels).expect("a valid set")
}

fn conv() -> Model {
    let spec = NetworkSpec {
        input: images().shape(),
        classes: 3,
        architecture: Architecture::Conv {
            strides: vec![1, 2, 1],
        },
        width: 5,
        activation: Activation::Relu,
        norm: Norm::Location,
        parameterization: Parameterization::Ntk,
    };
    Network::new(spec).expect("a valid network").into()
}

fn recurrent() -> Model {
    let activation = Activation::Relu;
    RecurrentNetwork::new(7, 9, BATCH, activation, Parameterization::Ntk).into()
}

/// Every rule at two learning rates, two of them last-layer, and one trial that diverges.
fn specs() -> Vec<TrialSpec> {
    let with = |lr: f64| {
        RULES.iter().map(move |&rule| TrialSpec {
            rule,
            optimizer: Optimizer::Sgd { lr },
        })
    };
    let wild = TrialSpec {
        rule: RULES[0],
        optimizer: Optimizer::Sgd { lr: 1e30 },
    };
    with(0.01).chain(with(0.02)).chain([wild]).collect()
}

/// What is compared: every event but those that say how trials share work, and all tensors.
#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    together: usize,
    initial: Vec<Vec<usize>>,
}

impl<B: Backend> Observer<B> for Seen {
    fn observe(&mut self, event: &Event, _: &Cohort<'_, B>) -> ControlFlow<()> {
        match event {
            Event::Together { shares } => {
                let sum: f64 = shares.iter().map(|(_, share)| share).sum();
                assert!((sum - 1.0).abs() < 1e-9, "{shares:?}");
                assert!(shares.iter().all(|(_, share)| *share > 0.0), "{shares:?}");
                self.together += 1;
            }
            Event::InitialPass { trials } => self.initial.push(trials.clone()),
            other => self.events.push(other.clone()),
        }
        ControlFlow::Continue(())
    }
}

/// One trial's tensors by their bits.
type Bits = Vec<(String, Vec<u32>)>;

/// Everything that training makes of the trials: events, and all weights and feedback weights by their bits.
fn trained(
    threads: usize,
    model: &Model,
    split: &Split<'_>,
    specs: &[TrialSpec],
    spread: bool,
) -> (Seen, Vec<Bits>) {
    let backend = CpuBackend::new(threads).expect("a backend");
    let mut cohort = Cohort::new(&backend, model.clone(), 3, BATCH, 0.1, specs);
    if spread {
        cohort.spread();
    }
    let schedule = Schedule {
        batch: BATCH,
        epochs: 3,
        max_steps: None,
        seed: 3,
        eval_every: 2,
    };
    let mut seen = Seen::default();
    train(&mut cohort, split, &schedule, &mut seen);
    let bits = |trial| {
        let tensors = cohort.tensors(trial).into_iter();
        let bits = tensors.map(|t| (t.name, t.values.iter().map(|v| v.to_bits()).collect()));
        bits.collect()
    };
    (seen, (0..specs.len()).map(bits).collect())
}

fn same_bits(model: &Model, split: &Split<'_>) {
    let specs = specs();
    let (one_by_one, weights) = trained(3, model, split, &specs, false);
    assert_eq!(one_by_one.together, 0);
    // 17 trials on 2, 3 and 5 threads: with and without a rest that all threads work on together.
    for threads in [1, 2, 3, 5, 17] {
        let (seen, spread) = trained(threads, model, split, &specs, true);
        assert_eq!(seen.together > 0, threads > 1, "{threads} threads");
        // In words, where NaN is NaN.
        let (events, expected) = (
            format!("{:?}", seen.events),
            format!("{:?}", one_by_one.events),
        );
        assert!(events == expected, "{threads} threads: other events");
        assert_eq!(seen.initial, one_by_one.initial, "{threads} threads");
        assert!(spread == weights, "{threads} threads: other weights");
    }
    for (i, spec) in specs.iter().enumerate() {
        let (_, alone) = trained(2, model, split, &[*spec], true);
        assert!(alone[0] == weights[i], "{} alone", spec.rule);
    }
}

#[test]
fn convolutional_trials_side_by_side() {
    let images = images();
    let split = Split::held_out(Samples::Images(&images), 8, None).expect("a split");
    same_bits(&conv(), &split);
}

#[test]
fn recurrent_trials_side_by_side() {
    let sequences = add_task(AddVariant::Published, 24, 9, [2, 5], 3).expect("a task");
    let split = Split::held_out(Samples::Sequences(&sequences), 8, None).expect("a split");
    same_bits(&recurrent(), &split);
}

/// Oracle: the rule table. Where the initial network runs, last-layer trials take its pass for theirs; in evaluation
/// nobody else needs it. One last-layer trial without company runs its own pass.
#[test]
fn last_layer_trials_share_the_initial_pass() {
    let images = images();
    let split = Split::held_out(Samples::Images(&images), 8, None).expect("a split");
    let of = |names: &[&str]| -> Vec<Vec<usize>> {
        let spec = |name: &&str| TrialSpec {
            rule: *RULES.iter().find(|r| r.name == *name).expect("a rule"),
            optimizer: Optimizer::Sgd { lr: 0.1 },
        };
        let specs: Vec<TrialSpec> = names.iter().map(spec).collect();
        let mut passes = trained(1, &conv(), &split, &specs, false).0.initial;
        passes.sort();
        passes.dedup();
        passes
    };
    assert!(of(&["normal", "last-layer"]).is_empty());
    assert_eq!(of(&["last-layer", "fa", "last-layer"]), [[0, 2]]);
    let both = of(&["align-zero", "normal", "last-layer"]);
    assert_eq!(both, [vec![0, 2], vec![2]]);
}

/// Oracle: by hand. Lanes need a trial for each thread, and rooms that fit.
#[test]
fn lanes_are_made_where_they_pay() {
    let model = conv();
    assert_eq!(lane_count(&model, BATCH, 4, 2), 2);
    assert_eq!(lane_count(&model, BATCH, 4, 1), 0);
    assert_eq!(lane_count(&model, BATCH, 1, 2), 0);
    assert_eq!(lane_count(&model, 100_000_000, 4, 2), 0);
}
