//! Numbers closer to 0 than any normal one: kernels keep them as IEEE 754 has it, on any number of threads; Adam's
//! moments alone become 0, and operands on the tile unit, which knows none.

use sansprop_kernels::{
    Activation, AdamStep, Backend, CpuBackend, InstructionSet, Layer, Norm, Record, Reference,
    Wiring,
};
use std::sync::Arc;

const BATCH: usize = 40;

/// Values in (−1, 1) that f32 holds exactly, also at a scale of 2⁻¹³⁰.
fn values(len: usize, scale: f64) -> Vec<f64> {
    let value = |i: usize| ((i * 7919 + i * i * 31) % 1021) as f64 / 512.0 - 1.0;
    (0..len).map(|i| value(i) * scale).collect()
}

/// Forward pass, feedback and weight gradient of a convolution, from inputs and signals of a given size.
fn run<B: Backend>(backend: &B, layer: &Layer, size: f64) -> [Vec<f64>; 3] {
    let buffer = |values: &[f64]| {
        let mut buffer = backend.zeros(values.len());
        backend.write(values, &mut buffer);
        buffer
    };
    let len = layer.locations() * BATCH * layer.outputs;
    let small = buffer(&values(len, size));
    let large = buffer(&values(len, 1.0));
    let weight = buffer(&values(layer.weights(), 1.0));
    let bias = backend.zeros(layer.outputs);
    let mut record = Record {
        z: backend.zeros(len),
        inverse_deviation: backend.zeros(0),
        a: backend.zeros(len),
    };
    backend.forward(layer, BATCH, &weight, &bias, &small, &mut record);
    let mut signal = backend.zeros(len);
    backend.transposed(layer, BATCH, &weight, &small, &mut signal);
    let mut gradient = backend.zeros(layer.weights());
    let mut bias_gradient = backend.zeros(layer.outputs);
    let (gradients, biases) = (&mut gradient, &mut bias_gradient);
    backend.weight_gradient(layer, BATCH, &large, &small, gradients, biases);
    [&record.a, &signal, &gradient].map(|buffer| backend.read(buffer))
}

/// Oracle: the reference, whose f64 holds all these values as normal numbers.
#[test]
fn kernels_keep_denormals_on_any_number_of_threads() {
    let layer = Layer {
        wiring: Arc::new(Wiring::conv3x3(8, 8, 1)),
        inputs: 32,
        outputs: 32,
        scale: 1.0 / (9.0 * 32.0f64).sqrt(),
        norm: Norm::None,
        activation: Activation::Linear,
    };
    let size = 2.0f64.powi(-130);
    let expected = run(&Reference, &layer, size);
    for set in InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available())
    {
        for strict in [false, true] {
            let on = |threads| {
                let backend = CpuBackend::with_instruction_set(threads, set).expect("a backend");
                let backend = if strict { backend.strict() } else { backend };
                run(&backend, &layer, size)
            };
            let one = on(1);
            for threads in [2, 3] {
                assert!(on(threads) == one, "{set}, {threads} threads");
            }
            if set == InstructionSet::Amx && !strict {
                assert!(one.iter().flatten().all(|v| *v == 0.0), "{set}");
                continue;
            }
            for (found, expected) in one.iter().zip(&expected) {
                let kept = found.iter().filter(|v| (**v as f32).is_subnormal()).count();
                assert!(kept > found.len() / 8, "{set}: {kept} of {}", found.len());
                // Each of the sums' few hundred terms is rounded to a multiple of the smallest denormal, and tiles
                // weigh some of these errors up to a hundredfold.
                let largest = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    let error = (found - expected).abs();
                    assert!(error < 0.02 * largest, "{set}: {found:e}, not {expected:e}");
                }
            }
        }
    }
}

/// Oracle: the limit of 0.9ᵗ and 0.999ᵗ, and for the weights the reference.
#[test]
fn moments_without_a_gradient_reach_zero() {
    const LEN: usize = 21;
    fn after<B: Backend>(backend: &B, steps: usize) -> [Vec<f64>; 3] {
        let [mut first, mut second, mut weight] = [1e-4, 1e-8, 0.3].map(|value| {
            let mut buffer = backend.zeros(LEN);
            backend.write(&[value; LEN], &mut buffer);
            buffer
        });
        let gradient = backend.zeros(LEN);
        let step = AdamStep {
            rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        };
        for _ in 0..steps {
            backend.adam(step, &gradient, &mut first, &mut second, &mut weight);
        }
        [&first, &second, &weight].map(|buffer| backend.read(buffer))
    }
    let backend = CpuBackend::new(1).expect("a backend");
    let [first, second, weight] = after(&backend, 1_000);
    assert_eq!(first, [0.0; LEN]);
    assert!(second.iter().all(|v| *v > 1e-9), "{second:?}");
    let [_, _, expected] = after(&Reference, 1_000);
    for (found, expected) in weight.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }
    let [first, second, _] = after(&backend, 100_000);
    assert_eq!(first, [0.0; LEN]);
    assert_eq!(second, [0.0; LEN]);
}
