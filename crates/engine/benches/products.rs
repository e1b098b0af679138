//! Time of the products of dense layers and recurrent cells: forward pass, feedback and weight gradient of one square
//! matrix, used once or at every step of a sequence.
//!
//! `cargo bench -p sansprop --bench products -- [--width W] [--batch B] [--steps T] [--threads N] [--repeats R]`
//!
//! With one step it is a dense layer, with more a recurrent cell; both linear, without norm or bias, so that a peer can
//! compute the same. Prints for each kernel the root mean square of its result (of the last state, of the first delta,
//! of the gradient), to be checked by the peer, then least and median of the milliseconds.

use sansprop_kernels::{
    Activation, Backend, CellWeights, CpuBackend, CpuBuffer, Landing, Layer, Norm, Record,
    RecurrentCell, Unrolled, Wiring,
};
use std::sync::Arc;
use std::time::Instant;

struct Options {
    width: usize,
    batch: usize,
    steps: usize,
    threads: usize,
    repeats: usize,
}

fn options() -> Options {
    let mut options = Options {
        width: 1024,
        batch: 50,
        steps: 1,
        threads: 0,
        repeats: 15,
    };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--width" => &mut options.width,
            "--batch" => &mut options.batch,
            "--steps" => &mut options.steps,
            "--threads" => &mut options.threads,
            "--repeats" => &mut options.repeats,
            _ => panic!("{word} is no option"),
        };
        let value = words.next();
        *place = value
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{word} needs a whole number"));
    }
    options
}

/// Values in ±½ that a peer can make, too: `(i · 7919 mod 1000) / 1000 − ½`.
fn values(backend: &CpuBackend, len: usize) -> CpuBuffer {
    let mut buffer = backend.zeros(len);
    for (i, value) in buffer.iter_mut().enumerate() {
        *value = ((i * 7919) % 1000) as f32 / 1000.0 - 0.5;
    }
    buffer
}

/// Least and median of the milliseconds that `work` takes.
fn time(repeats: usize, mut work: impl FnMut()) -> (f64, f64) {
    let mut times: Vec<f64> = (0..repeats.max(1))
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

fn report(name: &str, result: &[f32], (least, median): (f64, f64)) {
    let squares: f64 = result.iter().map(|&v| f64::from(v).powi(2)).sum();
    let mean = squares / result.len() as f64;
    println!("{name} {:.9e} {least:.4} {median:.4}", mean.sqrt());
}

fn main() {
    let options = options();
    let (width, batch, steps) = (options.width, options.batch, options.steps);
    let backend = CpuBackend::new(options.threads).expect("the CPU");
    println!(
        "{steps} times {width} to {width}, batch {batch}, on {}",
        backend.device()
    );
    let panel = batch * width;
    let weight = values(&backend, width * width);
    let (mut gradient, mut biases) = (backend.zeros(width * width), backend.zeros(width));
    let bias = backend.zeros(width);
    let record = || Record {
        z: backend.zeros(panel * steps),
        a: values(&backend, panel * (steps + 1)),
        inverse_deviation: backend.zeros(1),
    };
    let (mut pass, path) = (record(), record());
    let mut delta = backend.zeros(panel * steps);
    let scale = 1.0 / (width as f64).sqrt();
    let layer = Layer {
        wiring: Arc::new(match steps {
            1 => Wiring::dense(),
            _ => Wiring::sequence(steps, steps + 1, 0),
        }),
        inputs: width,
        outputs: width,
        scale,
        norm: Norm::None,
        activation: Activation::Linear,
    };
    let input = values(&backend, panel * (steps + 1));
    let repeats = options.repeats;
    let forward;
    let feedback;
    if steps == 1 {
        forward = time(repeats, || {
            backend.forward(&layer, batch, &weight, &bias, &input, &mut pass);
        });
        feedback = time(repeats, || {
            let landing = Landing {
                record: &path,
                delta: &mut delta,
            };
            backend.feedback(&layer, &layer, batch, &weight, &input, landing, None);
        });
    } else {
        let cell = RecurrentCell {
            steps,
            inputs: 1,
            width,
            scale,
            activation: Activation::Linear,
        };
        // No input: a state is the product of the one before.
        let drive = backend.zeros(steps * batch);
        let weights = || CellWeights {
            input: &bias,
            hidden: &weight,
            bias: &bias,
        };
        forward = time(repeats, || {
            backend.recur(&cell, batch, weights(), &drive, &mut pass);
        });
        // The signal is that on the last state alone.
        let mut signal = backend.zeros(panel * (steps + 1));
        signal[panel * steps..].copy_from_slice(&input[..panel]);
        let mut carried = backend.zeros(panel * (steps + 1));
        feedback = time(repeats, || {
            let unrolled = Unrolled {
                path: &path,
                delta: &mut delta,
                carried: &mut carried,
            };
            backend.recur_feedback(&cell, batch, &weight, &signal, unrolled, None);
        });
    }
    report("forward", &pass.z[panel * (steps - 1)..], forward);
    report("feedback", &delta[..panel], feedback);
    let (sources, deltas) = (values(&backend, panel * (steps + 1)), &input);
    let time = time(repeats, || {
        backend.weight_gradient(&layer, batch, &sources, deltas, &mut gradient, &mut biases);
    });
    report("gradient", &gradient, time);
}
