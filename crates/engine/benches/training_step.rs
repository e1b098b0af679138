//! Time of one training step on the CIFAR-10 network of the paper: forward, feedback, weight gradients, update.
//!
//! `cargo bench -p sansprop --bench training_step -- [--width W] [--batch B] [--threads T] [--rule NAME]
//! [--steps N] [--precision f32|f32-strict|tf32|bf16] [--device cpu|cuda|hip|vulkan|metal] [--serve]`
//!
//! Prints the losses of the first steps (on a fixed minibatch, so that a peer can check that it computes the
//! same), then milliseconds per step as minimum, median and maximum, and the multiply-add rate. With
//! `--serve` it takes for each line on standard input the number of steps that stands there and prints their times, so
//! that a script can alternate it with a peer's; on a GPU, which trains without the host, one epoch of 64 steps, of which
//! it prints one's share.

use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::images::{ImageShape, Images, Pixels};
use sansprop::minibatch::Minibatch;
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::protocol::{Samples, Split};
use sansprop::rng::LegacyRandom;
use sansprop::rule::Rule;
use sansprop::train::{Event, Observer, Schedule, train};
use sansprop_kernels::{Activation, Backend, CpuBackend, GpuApi, GpuBackend, Norm, Operands};
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::time::Instant;

const STRIDES: [usize; 7] = [1, 1, 1, 2, 1, 2, 1];
const SEED: u32 = 99;

struct Options {
    width: usize,
    batch: usize,
    threads: usize,
    steps: usize,
    rule: Rule,
    precision: String,
    /// A GPU; none: the CPU.
    device: Option<GpuApi>,
    serve: bool,
    cohort: usize,
}

fn options() -> Options {
    let mut options = Options {
        width: 64,
        batch: 100,
        threads: 0,
        steps: 12,
        rule: Rule::named("normal").expect("a rule of the table"),
        precision: "f32".into(),
        device: None,
        serve: false,
        cohort: 1,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .unwrap_or_else(|| panic!("{word} needs a value"))
        };
        let number = |text: String| -> usize {
            text.parse()
                .unwrap_or_else(|_| panic!("{text} is no whole number"))
        };
        match word.as_str() {
            "--width" => options.width = number(value()),
            "--batch" => options.batch = number(value()),
            "--threads" => options.threads = number(value()),
            "--steps" => options.steps = number(value()),
            "--rule" => {
                let name = value();
                options.rule = Rule::named(&name).unwrap_or_else(|| panic!("no rule {name}"));
            }
            "--precision" => options.precision = value(),
            "--device" => {
                let name = value();
                options.device = GpuApi::named(&name);
                assert!(
                    options.device.is_some() || name == "cpu",
                    "no device {name}"
                );
            }
            "--serve" => options.serve = true,
            "--cohort" => options.cohort = number(value()),
            // What `cargo bench` itself adds.
            "--bench" => {}
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// The minibatch: pixels `uniform` in order `[location, sample, channel]`, labels `sample mod 10`.
fn minibatch(batch: usize) -> Minibatch {
    let mut random = LegacyRandom::new(1234);
    let pixels = (0..32 * 32 * batch * 3)
        .map(|_| random.uniform() as f32)
        .collect();
    Minibatch::labelled(pixels, (0..batch as u32).map(|b| b % 10).collect())
}

fn main() {
    let options = options();
    match options.device {
        Some(api) => {
            let operands = match options.precision.as_str() {
                "f32" => Operands::F32,
                "tf32" => Operands::Tf32,
                "bf16" => Operands::Bf16,
                other => panic!("no precision {other} on a GPU"),
            };
            let backend = GpuBackend::open(api, None).expect("a device");
            run(&backend.rounding(operands), &options);
        }
        None => {
            let backend = CpuBackend::new(options.threads).expect("a backend");
            let backend = match options.precision.as_str() {
                "f32" => backend,
                "f32-strict" => backend.strict(),
                "bf16" => backend.bf16(),
                other => panic!("no precision {other}"),
            };
            run(&backend, &options);
        }
    }
}

fn run<B: Backend>(backend: &B, options: &Options) {
    let network = Network::new(NetworkSpec {
        input: ImageShape {
            height: 32,
            width: 32,
            channels: 3,
        },
        classes: 10,
        architecture: Architecture::Conv {
            strides: STRIDES.to_vec(),
        },
        width: options.width,
        activation: Activation::Relu,
        norm: Norm::Location,
        parameterization: Parameterization::Ntk,
    })
    .expect("a valid network");
    let forward = network.multiply_adds(options.batch);
    let first_layer = network.layers()[0].multiply_adds(options.batch);
    let spec = TrialSpec {
        rule: options.rule,
        optimizer: Optimizer::Sgd { lr: 1.0 },
    };
    let mut cohort = {
        let trials = vec![spec; options.cohort];
        Cohort::new(backend, network, SEED, options.batch, 0.1, &trials)
    };
    let minibatch = minibatch(options.batch);
    if backend.resident().is_some() && options.serve {
        println!("losses {}", losses(&mut cohort, &minibatch));
        return serve_epochs(&mut cohort, options);
    }
    println!("losses {}", losses(&mut cohort, &minibatch));
    let mut step = || {
        let start = Instant::now();
        cohort.load(&minibatch);
        cohort.run_initial(true);
        cohort.step(0);
        start.elapsed().as_secs_f64() * 1e3
    };
    if options.serve {
        for line in std::io::stdin().lock().lines() {
            let count: usize = line.expect("a line").parse().expect("a number of steps");
            let times: Vec<f64> = (0..count).map(|_| step()).collect();
            let words: Vec<String> = times.iter().map(|t| format!("{t:.4}")).collect();
            println!("{}", words.join(" "));
            std::io::stdout().flush().expect("a reader");
        }
        return;
    }
    let mut times: Vec<f64> = (0..options.steps.max(1)).map(|_| step()).collect();
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    // Forward, feedback and weight gradient cost the same, but no feedback goes into the input.
    let operations = 2.0 * (3 * forward - first_layer) as f64;
    println!(
        "{} width {} batch {} on {}, {}: {:.2} / {:.2} / {:.2} ms (min / median / max of {}), {:.0} GFLOP/s of backprop's work",
        options.rule,
        options.width,
        options.batch,
        backend.device(),
        backend.precision(),
        times[0],
        median,
        times[times.len() - 1],
        times.len(),
        operations / median / 1e6,
    );
}

/// The losses of the first steps on a fixed minibatch.
fn losses<B: Backend>(cohort: &mut Cohort<'_, B>, minibatch: &Minibatch) -> String {
    let mut loss = || {
        cohort.load(minibatch);
        cohort.run_initial(true);
        format!("{:.9}", cohort.step(0).loss)
    };
    [loss(), loss(), loss()].join(" ")
}

/// Minibatches of an epoch on a device: as many as it takes before the host looks.
const EPOCH: usize = 64;

/// On a device that trains without the host: an epoch of random images for each line on standard input, of which a
/// step's share is printed.
fn serve_epochs<B: Backend>(cohort: &mut Cohort<'_, B>, options: &Options) {
    let mut random = LegacyRandom::new(1234);
    let shape = ImageShape {
        height: 32,
        width: 32,
        channels: 3,
    };
    let batch = options.batch;
    let count = EPOCH * batch + 1;
    let pixels = (0..count * shape.len()).map(|_| random.uniform() as f32);
    let labels = (0..count).map(|i| (i % 10) as u32).collect();
    let images = Images::new(shape, 10, Pixels::Floats(pixels.collect()), labels);
    let images = images.expect("a valid set");
    let split = Split::held_out(Samples::Images(&images), 1, None).expect("a split");
    let schedule = Schedule {
        batch,
        epochs: usize::MAX,
        max_steps: None,
        seed: SEED,
        eval_every: usize::MAX,
    };
    cohort.spread();
    train(
        cohort,
        &split,
        &schedule,
        &mut Epochs(Instant::now(), options.cohort),
    );
}

/// Waits for a line before each epoch, and says afterwards what a step of one of so many trials took.
struct Epochs(Instant, usize);

impl<B: Backend> Observer<B> for Epochs {
    fn observe(&mut self, event: &Event, _: &Cohort<'_, B>) -> ControlFlow<()> {
        match event {
            Event::EpochStarted { .. } => {
                if std::io::stdin().lock().lines().next().is_none() {
                    return ControlFlow::Break(());
                }
                self.0 = Instant::now();
            }
            Event::Resumable(position) if position.step == EPOCH => {
                let steps = (EPOCH * self.1) as f64;
                println!("{:.4}", self.0.elapsed().as_secs_f64() * 1e3 / steps);
                std::io::stdout().flush().expect("a reader");
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
