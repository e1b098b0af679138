//! Time of one convolution's kernels: forward pass, feedback, weight gradient, and the last two in one.
//!
//! `cargo bench -p sansprop-kernels --bench layer -- [--grid N] [--stride S] [--inputs C] [--outputs C] [--batch B]
//! [--threads T] [--copies N] [--turns N] [--precision f32|f32-strict|bf16]`
//!
//! A turn runs each kernel once on each of so many copies of all arrays: with one copy they stay in the caches as far as
//! they fit, with many they come from memory, as in a network. Prints milliseconds a copy, as minimum and median of the
//! turns, and GFLOP/s of the direct sums beside what registers and threads can do.

use sansprop_kernels::{
    Activation, Backend, CpuBackend, CpuBuffer, Landing, Layer, Norm, Record, Signal,
    SignalGradient, Wiring,
};
use std::sync::Arc;
use std::time::Instant;

struct Options {
    grid: usize,
    stride: usize,
    inputs: usize,
    outputs: usize,
    batch: usize,
    threads: usize,
    copies: usize,
    turns: usize,
    precision: String,
}

fn options() -> Options {
    let mut options = Options {
        grid: 32,
        stride: 1,
        inputs: 8,
        outputs: 8,
        batch: 100,
        threads: 1,
        copies: 1,
        turns: 25,
        precision: "f32".into(),
    };
    // What `cargo bench` itself adds.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next();
        let value = value.unwrap_or_else(|| panic!("{word} needs a value"));
        let number = || -> usize {
            value
                .parse()
                .unwrap_or_else(|_| panic!("{value} is no whole number"))
        };
        match word.as_str() {
            "--grid" => options.grid = number(),
            "--stride" => options.stride = number(),
            "--inputs" => options.inputs = number(),
            "--outputs" => options.outputs = number(),
            "--batch" => options.batch = number(),
            "--threads" => options.threads = number(),
            "--copies" => options.copies = number().max(1),
            "--turns" => options.turns = number().max(1),
            "--precision" => options.precision = value,
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// The arrays of a layer and of the port below it.
struct Arrays {
    weight: CpuBuffer,
    bias: CpuBuffer,
    input: CpuBuffer,
    out: Record<CpuBuffer>,
    delta: CpuBuffer,
    below: Record<CpuBuffer>,
    below_delta: CpuBuffer,
    below_input: CpuBuffer,
    weight_gradient: CpuBuffer,
    bias_gradient: CpuBuffer,
}

/// Numbers from −1 to 1 that follow no pattern.
fn noise(backend: &CpuBackend, len: usize, seed: u32) -> CpuBuffer {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0
    };
    let values: Vec<f64> = (0..len).map(|_| next()).collect();
    let mut buffer = backend.zeros(len);
    backend.write(&values, &mut buffer);
    buffer
}

impl Arrays {
    fn new(backend: &CpuBackend, layer: &Layer, port: &Layer, batch: usize) -> Self {
        let to = layer.locations() * batch * layer.outputs;
        let from = layer.sources() * batch * layer.inputs;
        let record = |len, deviations, seed| Record {
            z: noise(backend, len, seed),
            inverse_deviation: noise(backend, deviations, seed + 1),
            a: noise(backend, len, seed + 2),
        };
        Self {
            weight: noise(backend, layer.weights(), 1),
            bias: noise(backend, layer.outputs, 2),
            input: noise(backend, from, 3),
            out: record(to, layer.deviations(), 4),
            delta: noise(backend, to, 7),
            below: record(from, port.deviations(), 8),
            below_delta: noise(backend, from, 11),
            below_input: noise(backend, port.sources() * batch * port.inputs, 12),
            weight_gradient: backend.zeros(layer.weights().max(port.weights())),
            bias_gradient: backend.zeros(layer.outputs.max(port.outputs)),
        }
    }
}

fn main() {
    let options = options();
    let backend = CpuBackend::new(options.threads).expect("a backend");
    let backend = match options.precision.as_str() {
        "f32" => backend,
        "f32-strict" => backend.strict(),
        "bf16" => backend.bf16(),
        other => panic!("no precision {other}"),
    };
    let layer = |grid, stride, inputs, outputs| Layer {
        wiring: Arc::new(Wiring::conv3x3(grid, grid, stride)),
        inputs,
        outputs,
        scale: 1.0 / ((9 * inputs) as f64).sqrt(),
        norm: Norm::Location,
        activation: Activation::Relu,
    };
    let Options {
        grid,
        stride,
        inputs,
        outputs,
        batch,
        ..
    } = options;
    let (port, layer) = (
        layer(grid, 1, inputs, inputs),
        layer(grid, stride, inputs, outputs),
    );
    let copies = (0..options.copies).map(|_| Arrays::new(&backend, &layer, &port, batch));
    let mut copies: Vec<Arrays> = copies.collect();
    let ceiling = backend.ceilings(1 << 20).flops;
    println!(
        "{inputs} to {outputs} channels, {grid}×{grid}, stride {stride}, batch {batch} on {}, {}: {:.0} GFLOP/s at most",
        backend.device(),
        backend.precision(),
        ceiling / 1e9,
    );
    let work = [layer.multiply_adds(batch), port.multiply_adds(batch)];
    type Run<'a> = (&'a str, usize, Box<dyn Fn(&mut Arrays) + 'a>);
    let kernels: [Run<'_>; 4] = [
        (
            "forward pass",
            work[0],
            Box::new(|a| {
                backend.forward(&layer, batch, &a.weight, &a.bias, &a.input, &mut a.out);
            }),
        ),
        (
            "feedback",
            work[0],
            Box::new(|a| {
                let path = Landing {
                    record: &a.below,
                    delta: &mut a.below_delta,
                };
                backend.feedback(&layer, &port, batch, &a.weight, &a.delta, path, None);
            }),
        ),
        (
            "gradient",
            work[0],
            Box::new(|a| {
                let (weights, biases) = (&mut a.weight_gradient, &mut a.bias_gradient);
                backend.weight_gradient(&layer, batch, &a.input, &a.delta, weights, biases);
            }),
        ),
        (
            "feedback and gradient below",
            work[0] + work[1],
            Box::new(|a| {
                backend.signal_gradient(SignalGradient {
                    signal: Signal::Chain {
                        layer: &layer,
                        weight: &a.weight,
                        delta: &a.delta,
                    },
                    port: &port,
                    batch,
                    path: Landing {
                        record: &a.below,
                        delta: &mut a.below_delta,
                    },
                    goes_on: true,
                    local: None,
                    input: &a.below_input,
                    weights: &mut a.weight_gradient,
                    biases: &mut a.bias_gradient,
                });
            }),
        ),
    ];
    for (name, multiply_adds, run) in &kernels {
        let mut times: Vec<f64> = (0..=options.turns)
            .map(|_| {
                let start = Instant::now();
                copies.iter_mut().for_each(run);
                start.elapsed().as_secs_f64() / options.copies as f64
            })
            .skip(1)
            .collect();
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        let rate = 2.0 * *multiply_adds as f64 / median;
        println!(
            "{name:28} {:8.3} / {:8.3} ms, {:6.1} GFLOP/s, {:3.0} %",
            least * 1e3,
            median * 1e3,
            rate / 1e9,
            100.0 * rate / ceiling,
        );
    }
}
