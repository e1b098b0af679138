//! The precision bf16: operands are rounded, and nothing else is.

use sansprop_kernels::tolerance::{BF16_ROUNDING, deviation, kernel_rms};
use sansprop_kernels::{
    Backend, CpuBackend, CpuBuffer, InstructionSet, Landing, Layer, Norm, Record, Signal,
    SignalGradient, Wiring,
};

mod tile_unit;

use crate::cases::{self, ACTIVATIONS, Case, Values, buffer, within_roundings};
use crate::instruction_sets;

/// The nearest value with eight significant bits, on the bits of an f32.
fn rounded(value: f64) -> f64 {
    let bits = (value as f32).to_bits();
    f64::from(f32::from_bits((bits + 0x8000) & 0xffff_0000))
}

/// Whether a value lies in the middle between two of eight bits.
fn is_tie(value: f64) -> bool {
    (value as f32).to_bits() & 0xffff == 0x8000
}

/// Whether every found value is the expected one rounded, to either side where there is no nearest.
fn are_rounded(found: &[f64], expected: &[f64]) -> bool {
    let below = |e: f64| rounded(f64::from(f32::from_bits((e as f32).to_bits() - 1)));
    let pairs = found.iter().zip(expected);
    pairs
        .into_iter()
        .all(|(&f, &e)| f == rounded(e) || is_tie(e) && f == below(e))
}

fn cases() -> Vec<Case> {
    let conv = |height, width, stride, inputs, outputs, batch, norm, i: usize| {
        let wiring = Wiring::conv3x3(height, width, stride);
        Case::new(wiring, inputs, outputs, batch, norm, ACTIVATIONS[i % 4])
    };
    vec![
        conv(5, 4, 1, 3, 8, 11, Norm::Location, 0),
        conv(5, 4, 2, 9, 17, 6, Norm::Channel, 1),
        conv(4, 4, 1, 33, 40, 5, Norm::Location, 0),
        conv(7, 5, 1, 32, 47, 9, Norm::Channel, 3),
        conv(4, 8, 1, 40, 32, 7, Norm::None, 1),
        conv(8, 16, 2, 33, 32, 6, Norm::Location, 0),
        Case::new(Wiring::dense(), 30, 21, 10, Norm::None, ACTIVATIONS[0]),
    ]
}

/// Pre-activations, which wide convolutions leave in 16 bits.
const PRE_ACTIVATIONS: [&str; 2] = ["forward z", "forward z for slopes"];

/// What depends on pre-activations that another kernel left.
const FEEDBACK: [&str; 4] = [
    "feedback path",
    "feedback local",
    "pool feedback",
    "direct feedback",
];

/// Whether a layer leaves z and a in 16 bits.
fn halves(layer: &Layer) -> bool {
    layer.wiring.taps() > 1 && layer.outputs >= 32 && layer.norm != Norm::Channel
}

/// The weights of all products of a case.
fn all_weights(case: &mut Case) -> [&mut Vec<f64>; 3] {
    let Case {
        weight,
        port_weight,
        direct_weight,
        ..
    } = case;
    [weight, port_weight, direct_weight]
}

/// What holds operands, and is rounded as it is stored.
const OPERANDS: [&str; 7] = [
    "forward a",
    "forward a alone",
    "forward a for the next layer",
    "feedback path",
    "feedback local",
    "pool feedback",
    "direct feedback",
];

/// Oracle: the f32 kernels on weights that are rounded beforehand, whose operands are rounded afterwards. Bit by bit,
/// but for feedback to a z that was rounded, and for the tile unit, which adds in another order and is tested on its own.
#[test]
fn operands_are_rounded_and_nothing_else() {
    for set in InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available() && *set != InstructionSet::Amx)
    {
        let backend = || CpuBackend::with_instruction_set(2, set).expect("an available set");
        for (i, mut case) in cases().into_iter().enumerate() {
            for weights in all_weights(&mut case) {
                weights
                    .iter_mut()
                    .filter(|w| is_tie(**w))
                    .for_each(|w| *w *= 0.75);
            }
            let found = case.run(&backend().bf16());
            for weights in all_weights(&mut case) {
                weights.iter_mut().for_each(|w| *w = rounded(*w));
            }
            let expected = case.run(&backend());
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                let same = match *name {
                    "pool" => are_rounded(found, found),
                    name if PRE_ACTIVATIONS.contains(&name) && halves(&case.layer) => {
                        are_rounded(found, expected)
                    }
                    name if FEEDBACK.contains(&name) && halves(&case.port) => {
                        let d = deviation(found, expected);
                        are_rounded(found, found) && d.relative_rms <= kernel_rms(BF16_ROUNDING)
                    }
                    name if OPERANDS.contains(&name) => are_rounded(found, expected),
                    _ => found == expected,
                };
                assert!(same, "case {i} on {set}: {name}");
            }
        }
    }
}

/// Oracle: the reference, within what rounding each operand once may do.
#[test]
fn no_kernel_is_further_off_than_its_roundings() {
    let backend = CpuBackend::new(2).expect("a backend").bf16();
    assert_eq!(
        (backend.precision(), backend.operand_rounding()),
        ("bf16", BF16_ROUNDING)
    );
    within_roundings(&backend, cases(), BF16_ROUNDING, "bf16");
}

/// Errors are operands too: the head's gradient and all feedback read them.
#[test]
fn errors_are_rounded_and_the_loss_is_not() {
    let (samples, classes) = (6, 5);
    let output = Values(3).take(samples * classes);
    let labels: Vec<u32> = (0..samples as u32).map(|i| i % classes as u32).collect();
    let run = |backend: CpuBackend| {
        let output = cases::buffer(&backend, &output);
        let mut error = backend.zeros(samples * classes);
        let report = backend.loss(&labels, classes, 0.1, &output, &mut error);
        (report, backend.read(&error))
    };
    let backend = || CpuBackend::new(1).expect("a backend");
    let ((exact, expected), (report, found)) = (run(backend()), run(backend().bf16()));
    assert_eq!(report, exact);
    assert!(are_rounded(&found, &expected));
}

/// Oracle: the same kernels on the same values, stored as f32. Layers by layers that leave their results in 16 bits, to
/// kernels that read these and to kernels that read f32 alone, with every stride and padding.
#[test]
fn results_do_not_depend_on_how_operands_are_stored() {
    // Grid, strides of the last two of three layers, channels, samples, and the last one's norm. A grid of nine by nine has strips
    // that make deltas on the way, and no tiles.
    let shapes = [
        ([16, 17], [1, 1], [3, 32, 40, 33], 13, Norm::Location),
        ([16, 17], [2, 1], [5, 64, 33, 130], 7, Norm::Location),
        ([16, 17], [2, 1], [2, 40, 64, 32], 35, Norm::None),
        ([16, 17], [1, 1], [1, 32, 9, 40], 6, Norm::Location),
        ([16, 17], [1, 1], [7, 47, 65, 32], 6, Norm::Channel),
        ([9, 9], [1, 2], [3, 40, 36, 40], 8, Norm::Location),
    ];
    for set in instruction_sets() {
        for ([height, width], strides, channels, batch, last_norm) in shapes {
            let backend = CpuBackend::with_instruction_set(2, set).expect("an available set");
            let backend = backend.bf16();
            let mut values = Values(7 + channels[1] as u64);
            let [upper, lower]: [usize; 2] = strides;
            let grids = [
                Wiring::conv3x3(height, width, 1),
                Wiring::conv3x3(height, width, upper),
                Wiring::conv3x3(height.div_ceil(upper), width.div_ceil(upper), lower),
            ];
            let norms = [Norm::Location, Norm::Location, last_norm];
            let layers: Vec<Layer> = grids
                .into_iter()
                .enumerate()
                .map(|(i, wiring)| {
                    let (inputs, outputs) = (channels[i], channels[i + 1]);
                    let case = Case::new(wiring, inputs, outputs, batch, norms[i], ACTIVATIONS[i]);
                    case.layer
                })
                .collect();
            let mut take = |len: usize| buffer(&backend, &values.take(len));
            let weights: Vec<_> = layers.iter().map(|layer| take(layer.weights())).collect();
            let biases: Vec<_> = layers.iter().map(|layer| take(layer.outputs)).collect();
            let input = take(layers[0].sources() * batch * layers[0].inputs);
            let top = take(layers[2].locations() * batch * layers[2].outputs);
            let name = format!("{channels:?}, strides {strides:?}, batch {batch} on {set}");

            // Once as kernels leave their results, once with each written again as f32.
            let run = |store: &dyn Fn(&CpuBuffer) -> CpuBuffer| {
                let mut records: Vec<Record<CpuBuffer>> = Vec::new();
                for (i, layer) in layers.iter().enumerate() {
                    let mut record = Case::record(&backend, layer, batch);
                    let below = records.last().map_or(&input, |record| &record.a);
                    backend.forward(layer, batch, &weights[i], &biases[i], below, &mut record);
                    record.z = store(&record.z);
                    record.a = store(&record.a);
                    records.push(record);
                }
                let mut results = Vec::new();
                let mut delta = top.clone();
                for i in (0..layers.len()).rev() {
                    let layer = &layers[i];
                    let below = i.checked_sub(1).map(|l| &records[l]);
                    let mut gradient = backend.zeros(layer.weights());
                    let mut bias = backend.zeros(layer.outputs);
                    let source = below.map_or(&input, |below| &below.a);
                    backend.weight_gradient(layer, batch, source, &delta, &mut gradient, &mut bias);
                    results.extend([backend.read(&gradient), backend.read(&bias)]);
                    let Some(below) = below else { break };
                    let port = &layers[i - 1];
                    let len = port.locations() * batch * port.outputs;
                    let (mut path, mut local) = (backend.zeros(len), backend.zeros(len));
                    let mut back = backend.zeros(len);
                    backend.transposed(layer, batch, &weights[i], &delta, &mut back);
                    let landing = |delta| Landing {
                        record: below,
                        delta,
                    };
                    let (once, again) = (landing(&mut path), Some(landing(&mut local)));
                    backend.feedback(layer, port, batch, &weights[i], &delta, once, again);
                    results.extend([&back, &path, &local].map(|b| backend.read(b)));
                    let mut gradient = backend.zeros(port.weights());
                    let mut bias = backend.zeros(port.outputs);
                    backend.signal_gradient(SignalGradient {
                        signal: Signal::Chain {
                            layer,
                            weight: &weights[i],
                            delta: &delta,
                        },
                        port,
                        batch,
                        path: Landing {
                            record: below,
                            delta: &mut path,
                        },
                        goes_on: true,
                        local: None,
                        input: i.checked_sub(2).map_or(&input, |l| &records[l].a),
                        weights: &mut gradient,
                        biases: &mut bias,
                    });
                    results.extend([&path, &gradient, &bias].map(|b| backend.read(b)));
                    delta = store(&path);
                }
                for (layer, record) in layers.iter().zip(&records) {
                    let mut pooled = backend.zeros(batch * layer.outputs);
                    let panels = layer.locations();
                    backend.pool(panels, batch, layer.outputs, &record.a, &mut pooled);
                    results.extend([&record.z, &record.a, &pooled].map(|b| backend.read(b)));
                }
                results
            };
            let stored = run(&|left| left.clone());
            let widened = run(&|left| buffer(&backend, &backend.read(left)));
            let copied = run(&|left| {
                let len = backend.read(left).len();
                let mut to = backend.zeros(len);
                backend.copy(len, left, &mut to);
                to
            });
            assert_eq!(stored, widened, "{name}");
            assert_eq!(stored, copied, "{name}: copies");
        }
    }
}
