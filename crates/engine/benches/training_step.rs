//! Time of one training step on the CIFAR-10 network of the paper: forward, feedback, weight gradients, update.
//!
//! `cargo bench -p sansprop --bench training_step -- [--width W] [--batch B] [--threads T] [--rule NAME]
//! [--steps N] [--precision f32|f32-strict|tf32|bf16] [--device cpu|cuda|vulkan|metal] [--serve]`
//!
//! Prints the losses of the first steps (on a fixed minibatch, so that a peer can check that it computes the
//! same), then milliseconds per step as minimum, median and maximum, and the multiply-add rate. With
//! `--serve` it runs one timed step for each line on standard input instead, so that a script can alternate
//! it with a peer's.

use sansprop::cohort::{Cohort, TrialSpec};
use sansprop::images::ImageShape;
use sansprop::minibatch::Minibatch;
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::rng::LegacyRandom;
use sansprop::rule::Rule;
use sansprop_kernels::{
    Activation, Backend, CpuBackend, CudaBackend, GpuApi, Norm, Operands, WgpuBackend,
};
use std::io::{BufRead, Write};
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
            if api == GpuApi::Cuda {
                let backend = CudaBackend::open(None).expect("a device");
                run(&backend.rounding(operands), &options);
            } else {
                let backend = WgpuBackend::open(api, None).expect("a device");
                run(&backend.rounding(operands), &options);
            }
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
    let mut cohort = Cohort::new(backend, network, SEED, options.batch, 0.1, &[spec]);
    let minibatch = minibatch(options.batch);
    backend.scope(|| {
        let mut step = || {
            let start = Instant::now();
            cohort.load(&minibatch);
            cohort.run_initial(true);
            let report = cohort.step(0);
            (report.loss, start.elapsed().as_secs_f64() * 1e3)
        };
        let losses: Vec<String> = (0..3).map(|_| format!("{:.9}", step().0)).collect();
        println!("losses {}", losses.join(" "));
        if options.serve {
            for _ in std::io::stdin().lock().lines() {
                println!("{:.4}", step().1);
                std::io::stdout().flush().expect("a reader");
            }
            return;
        }
        let mut times: Vec<f64> = (0..options.steps.max(1)).map(|_| step().1).collect();
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
    });
}
