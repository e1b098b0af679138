//! Training that is left at any [`Event::Resumable`] and taken up again, against a run that was never left
//! (the oracle): the same events and the same bits.

use sansprop::checkpoint::{Position, StateError, TrialState};
use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::images::{ImageShape, Images, Pixels};
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::protocol::Split;
use sansprop::rule::RULES;
use sansprop::train::{Event, Observer, Schedule, train_from};
use sansprop_kernels::{Activation, Backend, CpuBackend, Norm, Reference};
use std::ops::ControlFlow;

fn images() -> Images {
    let shape = ImageShape {
        height: 4,
        width: 4,
        channels: 1,
    };
    let value = |i: usize| ((i * 7919 + i * i * 31) % 256) as f32 / 255.0;
    let pixels = Pixels::Floats((0..30 * 16).map(value).collect());
    let labels = (0..30).map(|i| i % 3).collect();
    Images::new(shape, 3, pixels, labels).expect("a valid set")
}

fn network() -> Network {
    let spec = NetworkSpec {
        input: images().shape(),
        classes: 3,
        architecture: Architecture::Conv {
            strides: vec![1, 2],
        },
        width: 3,
        activation: Activation::Relu,
        norm: Norm::Location,
        parameterization: Parameterization::Ntk,
    };
    Network::new(spec).expect("a valid network")
}

/// Every rule with each optimiser, and one trial that diverges on the way.
fn specs() -> Vec<TrialSpec> {
    let optimizers = [Optimizer::Sgd { lr: 2.0 }, Optimizer::Adam { lr: 0.05 }];
    let both = RULES.iter().flat_map(|&rule| {
        optimizers
            .iter()
            .map(move |&optimizer| TrialSpec { rule, optimizer })
    });
    let wild = TrialSpec {
        rule: RULES[0],
        optimizer: Optimizer::Sgd { lr: 1e30 },
    };
    both.chain([wild]).collect()
}

fn schedule() -> Schedule {
    Schedule {
        batch: 6,
        epochs: 4,
        max_steps: Some(10),
        seed: 7,
        eval_every: 2,
    }
}

fn cohort<'a, B: Backend>(backend: &'a B, specs: &[TrialSpec], companions: bool) -> Cohort<'a, B> {
    let mut cohort = Cohort::new(backend, network(), 7, 6, 0.1, specs);
    if companions {
        (0..specs.len()).for_each(|trial| cohort.add_companion(trial));
    }
    cohort
}

/// All events, and at each position the trials' states and the number of events before.
#[derive(Default)]
struct Diary {
    events: Vec<Event>,
    places: Vec<(Position, usize, Vec<TrialState>)>,
}

impl<B: Backend> Observer<B> for Diary {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        self.events.push(event.clone());
        if let Event::Resumable(position) = event {
            let states = (0..cohort.trials().len()).map(|t| cohort.state(t));
            self.places
                .push((position.clone(), self.events.len(), states.collect()));
        }
        ControlFlow::Continue(())
    }
}

fn resumed_everywhere<B: Backend>(backend: &B, companions: bool) {
    let images = images();
    let split =
        Split::held_out(sansprop::protocol::Samples::Images(&images), 8, None).expect("a split");
    let specs = specs();
    let mut whole = cohort(backend, &specs, companions);
    let mut oracle = Diary::default();
    let start = Position::start(specs.len());
    train_from(&mut whole, &split, &schedule(), start, &mut oracle);
    assert!(oracle.places.len() > 10, "{}", oracle.places.len());
    let ends = |event: &&Event| matches!(event, Event::Ended { .. });
    assert_eq!(oracle.events.iter().filter(ends).count(), specs.len());

    for (position, seen, states) in &oracle.places {
        // Only the trials that still ran: the others' results are known.
        let ended: Vec<usize> = oracle.events[..*seen]
            .iter()
            .filter_map(|event| match event {
                Event::Ended { trial } => Some(*trial),
                _ => None,
            })
            .collect();
        let left: Vec<usize> = (0..specs.len()).filter(|t| !ended.contains(t)).collect();
        let chosen: Vec<TrialSpec> = left.iter().map(|&t| specs[t]).collect();
        let mut again = cohort(backend, &chosen, companions);
        for (i, &t) in left.iter().enumerate() {
            again.restore(i, &states[t]).expect("a state of this trial");
        }
        let place = Position {
            tallies: left.iter().map(|&t| position.tallies[t]).collect(),
            ..position.clone()
        };
        let mut diary = Diary::default();
        train_from(&mut again, &split, &schedule(), place, &mut diary);
        for (i, &t) in left.iter().enumerate() {
            assert_eq!(
                again.state(i),
                whole.state(t),
                "trial {t} from {position:?}"
            );
            let of = |events: &[Event], trial: usize| -> Vec<Event> {
                let mine = |event: &&Event| match event {
                    Event::Step { trial: t, .. } | Event::EpochEnded { trial: t, .. } => {
                        *t == trial
                    }
                    _ => false,
                };
                let mut mine: Vec<Event> = events.iter().filter(mine).cloned().collect();
                for event in &mut mine {
                    if let Event::Step { trial, .. } | Event::EpochEnded { trial, .. } = event {
                        *trial = 0;
                    }
                }
                mine
            };
            assert_eq!(of(&diary.events, i), of(&oracle.events[*seen..], t));
        }
    }
}

#[test]
fn resumed_anywhere_is_bitwise_the_same() {
    resumed_everywhere(&Reference, false);
    resumed_everywhere(&CpuBackend::new(1).expect("a backend"), false);
}

/// States then hold the companions' weights and moments, so that equal states are equal companions.
#[test]
fn so_are_companions() {
    resumed_everywhere(&Reference, true);
    resumed_everywhere(&CpuBackend::new(1).expect("a backend"), true);
}

/// Oracle: the names that files give, and the trial's own state.
#[test]
fn a_companion_is_part_of_its_trials_state_only() {
    let specs = specs();
    let mut with = cohort(&Reference, &specs[..2], false);
    with.add_companion(1);
    let without = cohort(&Reference, &specs[..2], false);
    assert_eq!(with.state(0), without.state(0));
    let (own, state) = (without.state(1), with.state(1));
    let (first, rest) = state.tensors.split_at(own.tensors.len());
    assert_eq!(first, own.tensors);
    assert!(rest.iter().all(|(name, _)| name.starts_with("companion.")));
    let weight = rest.iter().find(|(n, _)| n == "companion.layers.1.weight");
    assert!(weight.is_some_and(|(_, values)| values.len() == 81));
    let moment = |(n, _): &&(String, Vec<f64>)| n == "companion.optimizer.0.second";
    assert!(rest.iter().any(|tensor| moment(&tensor)));
    let refused = with.restore(1, &own);
    let missing = StateError::Missing("companion.layers.0.weight".into());
    assert_eq!(refused, Err(missing));
}

#[test]
fn a_state_of_another_trial_is_refused() {
    let specs = specs();
    let mut cohort = cohort(&Reference, &specs, false);
    let mut state = cohort.state(1);
    let untouched = cohort.state(1);
    state.tensors[0].1.pop();
    let refused = cohort.restore(1, &state);
    assert!(matches!(refused, Err(StateError::Length { .. })));
    state.tensors.remove(0);
    let refused = cohort.restore(1, &state);
    assert_eq!(refused, Err(StateError::Missing("layers.0.weight".into())));
    assert_eq!(cohort.state(1), untouched);
}
