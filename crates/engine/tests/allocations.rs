//! A training step allocates nothing once it was done before. Oracle: the global allocator's own count, over all
//! threads. One test only: another one beside it would be counted too.

use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::images::{ImageShape, Images, MinibatchLayout, Pixels};
use sansprop::minibatch::Minibatch;
use sansprop::model::Model;
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::recurrent::RecurrentNetwork;
use sansprop::rule::RULES;
use sansprop::sequences::{AddVariant, add_task};
use sansprop_kernels::{Activation, Backend, CpuBackend, Norm};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::Barrier;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BATCH: usize = 6;
const STEPS: usize = 3;

const SHAPE: ImageShape = ImageShape {
    height: 8,
    width: 8,
    channels: 3,
};

fn images() -> Images {
    let value = |i: usize| ((i * 7919 + i * i * 31) % 256) as f32 / 255.0;
    let pixels = Pixels::Floats((0..BATCH * SHAPE.len()).map(value).collect());
    let labels = (0..BATCH as u32).map(|i| i % 3).collect();
    Images::new(SHAPE, 3, pixels, labels).expect("a valid set")
}

fn network(architecture: Architecture, width: usize, activation: Activation, norm: Norm) -> Model {
    let spec = NetworkSpec {
        input: SHAPE,
        classes: 3,
        architecture,
        width,
        activation,
        norm,
        parameterization: Parameterization::Ntk,
    };
    Network::new(spec).expect("a valid network").into()
}

/// Every kernel: tiles and plain sums, each with the location norm and with the channel norm, dense, recurrent.
fn cases() -> Vec<(&'static str, Model, Minibatch)> {
    let conv = || Architecture::Conv {
        strides: vec![1, 1, 2],
    };
    let (relu, tanh) = (Activation::Relu, Activation::Tanh);
    let dense = Architecture::Dense { depth: 2 };
    let in_places = images().minibatch(&[0, 1, 2, 3, 4, 5], MinibatchLayout::Locations);
    let flat = images().minibatch(&[0, 1, 2, 3, 4, 5], MinibatchLayout::Flat);
    let sequences = add_task(AddVariant::Published, BATCH, 9, [2, 5], 3).expect("a task");
    let recurrent = RecurrentNetwork::new(40, 9, BATCH, relu, Parameterization::Ntk);
    let of = network;
    vec![
        (
            "wide, by location",
            of(conv(), 36, relu, Norm::Location),
            in_places.clone(),
        ),
        (
            "wide, by channel",
            of(conv(), 36, tanh, Norm::Channel),
            in_places.clone(),
        ),
        (
            "narrow, by location",
            of(conv(), 5, tanh, Norm::Location),
            in_places.clone(),
        ),
        (
            "narrow, by channel",
            of(conv(), 5, relu, Norm::Channel),
            in_places,
        ),
        ("dense", of(dense, 70, relu, Norm::None), flat),
        (
            "recurrent",
            recurrent.into(),
            sequences.minibatch(&[0, 1, 2, 3, 4, 5]),
        ),
    ]
}

/// Allocations on any thread in [`STEPS`] steps after the first.
///
/// Side by side, the clock decides when a thread first has a trial of some rule and makes room for it: those may be
/// later steps.
fn allocations(
    cohort: &mut Cohort<'_, CpuBackend>,
    minibatch: &Minibatch,
    side_by_side: bool,
) -> usize {
    let trials: Vec<usize> = (0..cohort.trials().len()).collect();
    let mut step = || {
        cohort.load(minibatch);
        cohort.run_initial(true);
        if side_by_side {
            let together = cohort.step_together(&trials).is_some();
            assert!(together, "trials side by side");
            return;
        }
        for &trial in &trials {
            let report = cohort.step(trial);
            assert!(report.loss.is_finite(), "a network that learns");
        }
    };
    step();
    let mut last = 0;
    for _ in 0..if side_by_side { 50 } else { 1 } {
        let region = Region::new(ALLOCATOR);
        (0..STEPS).for_each(|_| step());
        let change = region.change();
        last = change.allocations + change.reallocations;
        if last == 0 {
            break;
        }
    }
    last
}

/// One and two threads, with tiles, without, and in bf16. All of them live until the end: threads that stop allocate too.
fn backends() -> Vec<CpuBackend> {
    let backend = |threads| CpuBackend::new(threads).expect("a backend");
    let backends = vec![
        backend(1),
        backend(1).strict(),
        backend(1).bf16(),
        backend(2),
        backend(2).strict(),
    ];
    for backend in &backends {
        // Threads allocate as they start: all must have.
        let barrier = Barrier::new(backend.threads());
        backend.side_by_side(&mut vec![(); backend.threads()], |()| {
            barrier.wait();
        });
    }
    backends
}

#[test]
fn steps_after_the_first_allocate_nothing() {
    let mut found = Vec::new();
    let backends = backends();
    for ((name, model, minibatch), backend) in cases()
        .iter()
        .flat_map(|case| backends.iter().map(move |backend| (case, backend)))
    {
        for optimizer in [Optimizer::Sgd { lr: 0.01 }, Optimizer::Adam { lr: 0.001 }] {
            let all = RULES.map(|rule| TrialSpec { rule, optimizer });
            let mut count = |what: &str, specs: &[TrialSpec], side_by_side: bool| {
                let mut cohort = Cohort::new(backend, model.clone(), 3, BATCH, 0.1, specs);
                if side_by_side {
                    cohort.spread();
                }
                let count = allocations(&mut cohort, minibatch, side_by_side);
                if count > 0 {
                    let (optimizer, device) = (optimizer.name(), backend.device());
                    let precision = backend.precision();
                    found.push(format!(
                        "{name}, {what}, {optimizer}, {device}, {precision}: {count}"
                    ));
                }
            };
            for spec in &all {
                count(spec.rule.name, std::slice::from_ref(spec), false);
            }
            count("cohort", &all, false);
            // Seven trials on two threads: the last one is left to both.
            if backend.threads() > 1 {
                count("side by side", &all[1..], true);
            }
        }
    }
    assert!(
        found.is_empty(),
        "allocations in {STEPS} steps:\n{}",
        found.join("\n")
    );
}
