//! Windows of minibatches on a device against the same trials step by step on it (the oracle): the same bits.
//!
//! Where no device is there, each test says so and counts as skipped; `SANSPROP_REQUIRE_GPU=1` makes it fail.

use sansprop::cohort::{Cohort, Status, TrialSpec};
use sansprop::images::{ImageShape, Images, Pixels};
use sansprop::model::Model;
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::protocol::{Samples, Split};
use sansprop::recurrent::RecurrentNetwork;
use sansprop::rule::{RULES, Rule};
use sansprop::sequences::{AddVariant, add_task};
use sansprop::train::{Event, Observer, Schedule, train};
use sansprop_kernels::{Activation, Backend, GpuApi, GpuBackend, Norm, Operands};
use std::ops::ControlFlow;

const BATCH: usize = 5;

fn device() -> Option<GpuBackend> {
    let api = match cfg!(target_vendor = "apple") {
        true => GpuApi::Metal,
        false => GpuApi::Vulkan,
    };
    found(GpuBackend::open(api, None).map_err(|e| e.to_string()))
}

/// A device of CUDA, or its kernels compiled for the processor by `c++`.
fn cuda() -> Option<GpuBackend> {
    let backend = GpuBackend::open(GpuApi::Cuda, None)
        .map_err(|e| e.to_string())
        .or_else(|_| GpuBackend::emulated("c++".as_ref(), true));
    found(backend.map(|backend| backend.rounding(Operands::F32)))
}

/// The device that was looked for, or none, which counts as a skipped test unless one is required.
fn found(device: Result<GpuBackend, String>) -> Option<GpuBackend> {
    match device {
        Ok(backend) => Some(backend),
        Err(e) if std::env::var_os("SANSPROP_REQUIRE_GPU").is_some() => panic!("{e}"),
        Err(e) => {
            println!("skipped, 1 test without a GPU: {e}");
            None
        }
    }
}

fn images(shape: ImageShape, count: usize) -> Images {
    let value = |i: usize| ((i * 7919 + i * i * 31) % 256) as f32 / 255.0;
    let size = shape.height * shape.width * shape.channels;
    let pixels = Pixels::Floats((0..count * size).map(value).collect());
    let labels = (0..count as u32).map(|i| i % 3).collect();
    Images::new(shape, 3, pixels, labels).expect("a valid set")
}

const SMALL: ImageShape = ImageShape {
    height: 5,
    width: 4,
    channels: 2,
};

fn network(input: ImageShape, architecture: Architecture, width: usize) -> Model {
    let spec = NetworkSpec {
        input,
        classes: 3,
        architecture,
        width,
        activation: Activation::Relu,
        norm: Norm::Location,
        parameterization: Parameterization::Ntk,
    };
    Network::new(spec).expect("a valid network").into()
}

/// What is compared: steps, scores and ends; how trials share work and where a run can be left differs.
#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    windows: usize,
    launches: u64,
}

impl<B: Backend> Observer<B> for Seen {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        match event {
            Event::Together { .. } => self.windows += 1,
            Event::Loaded | Event::InitialPass { .. } | Event::Resumable(_) => {}
            other => self.events.push(other.clone()),
        }
        self.launches = cohort.backend().launches().unwrap_or_default();
        ControlFlow::Continue(())
    }
}

/// One trial's tensors by their bits.
type Bits = Vec<(String, Vec<u32>)>;

/// How each trial ended, and after how many updates.
type Ends = Vec<(Status, u64)>;

/// Everything that training makes of the trials.
fn trained(
    device: fn() -> Option<GpuBackend>,
    model: &Model,
    split: &Split<'_>,
    (specs, epochs): (&[TrialSpec], usize),
    spread: bool,
) -> Option<(Seen, Vec<Bits>, Ends)> {
    let backend = device()?;
    let mut cohort = Cohort::new(&backend, model.clone(), 3, BATCH, 0.1, specs);
    if spread {
        cohort.spread();
    }
    let schedule = Schedule {
        batch: BATCH,
        epochs,
        max_steps: None,
        seed: 3,
        eval_every: 1,
    };
    let mut seen = Seen::default();
    train(&mut cohort, split, &schedule, &mut seen);
    let bits = |trial| {
        let tensors = cohort.tensors(trial).into_iter();
        let bits = tensors.map(|t| (t.name, t.values.iter().map(|v| v.to_bits()).collect()));
        bits.collect()
    };
    let ends = cohort.trials().iter().map(|t| (t.status(), t.steps()));
    let ends = ends.collect();
    Some((seen, (0..specs.len()).map(bits).collect(), ends))
}

/// Compares windows with single steps; returns the launches of both and the number of windows.
fn same_bits(
    device: fn() -> Option<GpuBackend>,
    model: &Model,
    split: &Split<'_>,
    specs: &[TrialSpec],
    epochs: usize,
) -> Option<([u64; 2], usize)> {
    let (step_by_step, weights, ends) = trained(device, model, split, (specs, epochs), false)?;
    assert_eq!(step_by_step.windows, 0);
    let (seen, in_windows, ends_in_windows) = trained(device, model, split, (specs, epochs), true)?;
    assert!(seen.windows > 0, "no window was taken");
    for (here, there) in seen.events.iter().zip(&step_by_step.events) {
        // As text, in which NaN equals NaN and every other number has all its digits.
        assert_eq!(format!("{here:?}"), format!("{there:?}"));
    }
    assert_eq!(seen.events.len(), step_by_step.events.len());
    assert_eq!(ends_in_windows, ends);
    assert!(in_windows == weights, "weights differ");
    Some(([step_by_step.launches, seen.launches], seen.windows))
}

fn spec(rule: Rule, optimizer: Optimizer) -> TrialSpec {
    TrialSpec { rule, optimizer }
}

/// Every rule, with plain descent and with Adam, and one trial that diverges in its first epoch.
fn specs() -> Vec<TrialSpec> {
    let sgd = RULES.map(|rule| spec(rule, Optimizer::Sgd { lr: 0.02 }));
    let adam = RULES.map(|rule| spec(rule, Optimizer::Adam { lr: 0.01 }));
    let wild = spec(RULES[0], Optimizer::Sgd { lr: 1e30 });
    sgd.into_iter().chain(adam).chain([wild]).collect()
}

#[test]
fn convolutional_trials_in_windows() {
    // Ten minibatches of an epoch: they are taken one by one, and some together.
    let images = images(SMALL, 57);
    let split = Split::held_out(Samples::Images(&images), 7, None).expect("a split");
    let strides = vec![1, 2, 1];
    let model = network(SMALL, Architecture::Conv { strides }, 5);
    let Some(([apart, together], _)) = same_bits(device, &model, &split, &specs(), 2) else {
        return;
    };
    // 17 trials take hardly more launches together than one does.
    assert!(together * 4 < apart, "{together} launches against {apart}");
}

#[test]
fn recurrent_trials_in_windows() {
    let set = add_task(AddVariant::Published, 24, 9, [2, 5], 3).expect("a set");
    let split = Split::held_out(Samples::Sequences(&set), 7, None).expect("a split");
    let activation = Activation::Tanh;
    let network = RecurrentNetwork::new(7, 9, BATCH, activation, Parameterization::Ntk);
    same_bits(device, &network.into(), &split, &specs(), 2);
}

/// Mesa's software driver holds 128 MiB in one piece: not the rooms of six trials of this network.
#[test]
fn trials_that_do_not_fit_at_once_take_turns() {
    let shape = ImageShape {
        height: 1,
        width: 1,
        channels: 2000,
    };
    let images = images(shape, 24);
    let split = Split::held_out(Samples::Images(&images), 7, Some(10)).expect("a split");
    let model = network(shape, Architecture::Dense { depth: 1 }, 1600);
    let specs = [0.1, 0.2, 0.3, 0.4, 0.5].map(|lr| spec(RULES[0], Optimizer::Sgd { lr }));
    same_bits(device, &model, &split, &specs, 1);
}

/// Layers whose operands the kernels of CUDA cut in memory: what a recording writes beside its operands is written anew
/// in every minibatch.
#[test]
fn trials_of_cut_operands_in_windows() {
    let images = images(SMALL, 57);
    let split = Split::held_out(Samples::Images(&images), 7, None).expect("a split");
    let strides = vec![1, 2];
    let model = network(SMALL, Architecture::Conv { strides }, 8);
    let named = |name| Rule::named(name).expect("a rule of the table");
    let specs = [
        spec(named("align-ada"), Optimizer::Sgd { lr: 0.5 }),
        spec(named("dfa"), Optimizer::Adam { lr: 0.01 }),
    ];
    same_bits(cuda, &model, &split, &specs, 2);
}
