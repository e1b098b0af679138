//! One suite for all CPU kernels. Oracle: [`Reference`], the formulas in f64; tolerances and their reasons
//! stand in `sansprop_kernels::tolerance`. Sizes straddle every tile edge.

use sansprop_kernels::tolerance::{F32_RMS, deviation};
use sansprop_kernels::{
    Activation, AdamStep, Backend, CellWeights, CpuBackend, InstructionSet, Landing, Layer, Norm,
    Record, RecurrentCell, Reference, Unrolled, Wiring,
};
use std::sync::Arc;

/// Reproducible values in (−1, 1), exact in f32.
struct Values(u64);

impl Values {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0)
    }

    fn take(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| self.next()).collect()
    }
}

fn buffer<B: Backend>(backend: &B, values: &[f64]) -> B::Buffer {
    let mut buffer = backend.zeros(values.len());
    backend.write(values, &mut buffer);
    buffer
}

/// Random inputs of one layer and of the layer below it, the port where its feedback lands.
struct Case {
    layer: Layer,
    port: Layer,
    batch: usize,
    weight: Vec<f64>,
    bias: Vec<f64>,
    input: Vec<f64>,
    delta: Vec<f64>,
    /// Pre-activations of the port in two networks, made to records by each backend.
    port_inputs: [Vec<f64>; 2],
    direct_weight: Vec<f64>,
    error: Vec<f64>,
    signal: Vec<f64>,
}

const CLASSES: usize = 3;

impl Case {
    fn new(
        wiring: Wiring,
        inputs: usize,
        outputs: usize,
        batch: usize,
        norm: Norm,
        activation: Activation,
    ) -> Self {
        let wiring = Arc::new(wiring);
        let fan_in = (wiring.taps() * inputs) as f64;
        let layer = Layer {
            wiring: Arc::clone(&wiring),
            inputs,
            outputs,
            scale: 1.0 / fan_in.sqrt(),
            norm,
            activation,
        };
        // The port's own layer: every source location receives one value per channel, so that its record has
        // the shape of this layer's input.
        let port = Layer {
            wiring: Arc::new(Wiring::broadcast(wiring.sources())),
            inputs: 2,
            outputs: inputs,
            scale: 1.0,
            norm,
            activation,
        };
        let mut values = Values(99 + (inputs * 31 + outputs * 7 + batch) as u64);
        Self {
            batch,
            weight: values.take(layer.weights()),
            bias: values.take(outputs),
            input: values.take(layer.sources() * batch * inputs),
            delta: values.take(layer.locations() * batch * outputs),
            port_inputs: [values.take(2 * batch), values.take(2 * batch)],
            direct_weight: values.take(port.locations() * CLASSES * inputs),
            error: values.take(batch * CLASSES),
            signal: values.take(batch * inputs),
            layer,
            port,
        }
    }

    fn record<B: Backend>(backend: &B, layer: &Layer, batch: usize) -> Record<B::Buffer> {
        let len = layer.locations() * batch * layer.outputs;
        Record {
            z: backend.zeros(len),
            inverse_deviation: backend.zeros(layer.deviations()),
            a: backend.zeros(len),
        }
    }

    /// Every kernel's result by name.
    fn run<B: Backend>(&self, backend: &B) -> Vec<(&'static str, Vec<f64>)> {
        let (layer, port, batch) = (&self.layer, &self.port, self.batch);
        let upload = |values: &[f64]| buffer(backend, values);
        let mut results = Vec::new();

        let mut out = Self::record(backend, layer, batch);
        let weight = upload(&self.weight);
        let (input, delta) = (upload(&self.input), upload(&self.delta));
        backend.forward(layer, batch, &weight, &upload(&self.bias), &input, &mut out);
        results.push(("forward z", backend.read(&out.z)));
        results.push((
            "forward inverse deviation",
            backend.read(&out.inverse_deviation),
        ));
        results.push(("forward a", backend.read(&out.a)));

        let size = batch * layer.outputs;
        let mut pooled = backend.zeros(size);
        backend.pool(
            layer.locations(),
            batch,
            layer.outputs,
            &input_of(&out),
            &mut pooled,
        );
        results.push(("pool", backend.read(&pooled)));

        let mut back = backend.zeros(layer.sources() * batch * layer.inputs);
        backend.transposed(layer, batch, &weight, &delta, &mut back);
        results.push(("transposed", backend.read(&back)));

        let mut gradient = backend.zeros(layer.weights());
        let mut bias_gradient = backend.zeros(layer.outputs);
        backend.weight_gradient(
            layer,
            batch,
            &input,
            &delta,
            &mut gradient,
            &mut bias_gradient,
        );
        results.push(("weight gradient", backend.read(&gradient)));
        results.push(("bias gradient", backend.read(&bias_gradient)));

        let mut port_values = Values(7);
        let port_weight = upload(&port_values.take(port.weights()));
        let port_bias = upload(&port_values.take(port.outputs));
        let records = [0, 1].map(|i| {
            let mut record = Self::record(backend, port, batch);
            let input = upload(&self.port_inputs[i]);
            backend.forward(port, batch, &port_weight, &port_bias, &input, &mut record);
            record
        });
        let len = port.locations() * batch * port.outputs;
        let (mut path, mut local) = (backend.zeros(len), backend.zeros(len));
        backend.feedback(
            layer,
            port,
            batch,
            &weight,
            &delta,
            Landing {
                record: &records[0],
                delta: &mut path,
            },
            Some(Landing {
                record: &records[1],
                delta: &mut local,
            }),
        );
        results.push(("feedback path", backend.read(&path)));
        results.push(("feedback local", backend.read(&local)));

        let landing = Landing {
            record: &records[1],
            delta: &mut path,
        };
        backend.pool_feedback(port, batch, &upload(&self.signal), landing);
        results.push(("pool feedback", backend.read(&path)));

        let direct = Layer {
            wiring: Arc::new(Wiring::broadcast(port.locations())),
            inputs: CLASSES,
            outputs: port.outputs,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        };
        let landing = Landing {
            record: &records[0],
            delta: &mut path,
        };
        let direct_weight = upload(&self.direct_weight);
        backend.direct_feedback(
            &direct,
            port,
            batch,
            &direct_weight,
            &upload(&self.error),
            landing,
        );
        results.push(("direct feedback", backend.read(&path)));
        results
    }
}

fn input_of<T: Clone>(record: &Record<T>) -> T {
    record.a.clone()
}

fn instruction_sets() -> Vec<InstructionSet> {
    InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available())
        .collect()
}

fn check(case: &Case, name: &str) {
    check_as(case, name, |backend| backend);
}

fn check_as(case: &Case, name: &str, make: impl Fn(CpuBackend) -> CpuBackend) {
    let expected = case.run(&Reference);
    for set in instruction_sets() {
        let mut first: Option<Vec<(&str, Vec<f64>)>> = None;
        for threads in [1, 3] {
            let backend = CpuBackend::with_instruction_set(threads, set).expect("an available set");
            let backend = make(backend);
            let results = case.run(&backend);
            for ((kernel, fast), (_, reference)) in results.iter().zip(&expected) {
                let d = deviation(fast, reference);
                assert!(
                    d.worst <= 1.0 && d.relative_rms <= F32_RMS,
                    "{name}: {kernel} on {set}: {d:?}: {} against {}",
                    fast[d.worst_at],
                    reference[d.worst_at]
                );
            }
            match &first {
                None => first = Some(results),
                Some(first) => assert_eq!(first, &results, "{name} on {set}: threads change bits"),
            }
        }
    }
}

const NORMS: [Norm; 3] = [Norm::Location, Norm::Channel, Norm::None];
const ACTIVATIONS: [Activation; 4] = [
    Activation::Relu,
    Activation::Tanh,
    Activation::Erf,
    Activation::Linear,
];

#[test]
fn convolutions_of_every_stride_norm_and_activation() {
    for (i, (height, width, stride)) in [
        (5, 7, 1),
        (5, 7, 2),
        (8, 8, 2),
        (9, 4, 4),
        (1, 1, 1),
        (1, 6, 3),
    ]
    .into_iter()
    .enumerate()
    {
        for (n, norm) in NORMS.into_iter().enumerate() {
            let activation = ACTIVATIONS[(i + n) % 4];
            let case = Case::new(
                Wiring::conv3x3(height, width, stride),
                5,
                9,
                7,
                norm,
                activation,
            );
            check(
                &case,
                &format!("conv {height}×{width} stride {stride} {norm:?} {activation:?}"),
            );
        }
    }
}

/// Grids and channels for which stride 1 is computed in tiles of 4×4, whole and cut off at the border.
#[test]
fn tiled_convolutions() {
    let cases = [
        (4, 4, 32, 32, 5),
        (4, 7, 33, 40, 7),
        (7, 7, 40, 65, 6),
        (8, 8, 64, 32, 13),
        (9, 13, 32, 47, 3),
        (16, 12, 100, 33, 5),
        (7, 8, 129, 96, 1),
    ];
    for (i, (height, width, inputs, outputs, batch)) in cases.into_iter().enumerate() {
        let norm = match batch {
            1 => Norm::None,
            _ => NORMS[i % 3],
        };
        let activation = ACTIVATIONS[i % 4];
        let wiring = Wiring::conv3x3(height, width, 1);
        let case = Case::new(wiring, inputs, outputs, batch, norm, activation);
        let name = format!("{height}×{width}, {inputs} to {outputs}, {norm:?} {activation:?}");
        check(&case, &name);
        check_as(&case, &format!("{name}, strict"), CpuBackend::strict);
    }
}

#[test]
fn channels_that_straddle_every_tile_edge() {
    for channels in [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100] {
        for (inputs, outputs) in [(channels, 6), (6, channels)] {
            let case = Case::new(
                Wiring::conv3x3(3, 2, 1),
                inputs,
                outputs,
                5,
                Norm::Location,
                Activation::Relu,
            );
            check(&case, &format!("conv {inputs} to {outputs} channels"));
        }
        let case = Case::new(
            Wiring::dense(),
            channels,
            channels,
            9,
            Norm::None,
            Activation::Tanh,
        );
        check(&case, &format!("dense {channels} channels"));
    }
}

#[test]
fn batches_that_straddle_every_tile_edge() {
    for batch in [1, 2, 3, 5, 6, 7, 13, 14, 15, 27, 28, 29, 45, 100, 257] {
        for norm in NORMS {
            // Two samples normalise to ±1, and normᵀ cancels every signal up to ε: only rounding is left to
            // compare.
            if batch == 2 && norm == Norm::Location {
                continue;
            }
            let case = Case::new(
                Wiring::conv3x3(3, 3, 2),
                3,
                10,
                batch,
                norm,
                Activation::Erf,
            );
            check(&case, &format!("batch {batch} {norm:?}"));
        }
    }
}

/// Large enough that work is shared between threads and cut into chunks.
#[test]
fn work_shared_between_threads() {
    let case = Case::new(
        Wiring::conv3x3(16, 16, 1),
        20,
        36,
        30,
        Norm::Location,
        Activation::Relu,
    );
    check(&case, "conv 16×16, 20 to 36");
    let case = Case::new(
        Wiring::dense(),
        700,
        130,
        50,
        Norm::Channel,
        Activation::Relu,
    );
    check(&case, "dense 700 to 130");
}

/// Oracle: ⟨conv x, y⟩ = ⟨x, convᵀ y⟩, in the reference itself.
#[test]
fn transposed_is_the_adjoint() {
    for stride in [1, 2, 4] {
        let case = Case::new(
            Wiring::conv3x3(7, 6, stride),
            3,
            4,
            2,
            Norm::None,
            Activation::Linear,
        );
        let results = case.run(&Reference);
        let find = |name| {
            &results
                .iter()
                .find(|(n, _)| *n == name)
                .expect("a kernel's name")
                .1
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let without_bias: Vec<f64> = find("forward z")
            .iter()
            .enumerate()
            .map(|(i, z)| z - case.bias[i % 4])
            .collect();
        let left = dot(&without_bias, &case.delta);
        let right = dot(find("transposed"), &case.input);
        assert!(
            (left - right).abs() <= 1e-12 * left.abs().max(1.0),
            "{left} {right}"
        );
    }
}

/// Oracle: the reference on element-wise updates and on the loss, over lengths beyond one strip.
#[test]
fn optimisers_sign_and_loss() {
    let mut values = Values(5);
    let len = 9001;
    let [weight, gradient, first] = [0; 3].map(|_| values.take(len));
    let second: Vec<f64> = values.take(len).iter().map(|v| v.abs()).collect();
    let step = AdamStep {
        rate: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
    };
    let (batch, classes) = (37, 10);
    let output = values.take(batch * classes);
    let labels: Vec<u32> = (0..batch as u32).map(|b| b * 7 % classes as u32).collect();

    fn run<B: Backend>(
        backend: &B,
        [weight, gradient, first, second]: [&[f64]; 4],
        step: AdamStep,
        output: &[f64],
        labels: &[u32],
    ) -> (Vec<Vec<f64>>, f64, usize) {
        let g = buffer(backend, gradient);
        let mut sgd = buffer(backend, weight);
        backend.sgd(0.3, &g, &mut sgd);
        let mut adam = buffer(backend, weight);
        let (mut m, mut v) = (buffer(backend, first), buffer(backend, second));
        backend.adam(step, &g, &mut m, &mut v, &mut adam);
        let mut sign = backend.zeros(weight.len());
        backend.sign(0.25, &adam, &mut sign);
        let mut error = backend.zeros(output.len());
        let report = backend.loss(labels, 10, 0.1, &buffer(backend, output), &mut error);
        let arrays = [&sgd, &adam, &m, &v, &sign, &error].map(|b| backend.read(b));
        (arrays.to_vec(), report.loss, report.correct)
    }

    let inputs = [&weight[..], &gradient, &first, &second];
    let (expected, loss, correct) = run(&Reference, inputs, step, &output, &labels);
    let direct: f64 = output
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let target = if labels[i / classes] as usize == i % classes {
                0.9
            } else {
                -0.1
            };
            (f - target).powi(2)
        })
        .sum::<f64>()
        / (batch * classes) as f64;
    assert!((loss - direct).abs() < 1e-12);
    for set in instruction_sets() {
        let backend = CpuBackend::with_instruction_set(2, set).expect("an available set");
        let (arrays, fast_loss, fast_correct) = run(&backend, inputs, step, &output, &labels);
        assert_eq!(fast_correct, correct);
        assert!((fast_loss - loss).abs() < 1e-6 * loss);
        for (fast, reference) in arrays.iter().zip(&expected) {
            let d = deviation(fast, reference);
            assert!(d.worst <= 1.0, "{set}: {d:?}");
        }
    }
}

/// The recurrent cell and its feedback, over widths that straddle tile edges.
#[test]
fn recurrent_cells() {
    fn run<B: Backend>(
        backend: &B,
        cell: &RecurrentCell,
        batch: usize,
    ) -> Vec<(&'static str, Vec<f64>)> {
        let (steps, width) = (cell.steps, cell.width);
        let mut values = Values(31 + width as u64);
        let mut take = |len: usize| buffer(backend, &values.take(len));
        let panels = steps * batch * width;
        let state = batch * width;
        let hidden = take(width * width);
        let (input_weight, bias) = (take(cell.inputs * width), take(width));
        let records = [0, 1].map(|_| {
            let mut record = Record {
                z: backend.zeros(panels),
                inverse_deviation: backend.zeros(0),
                a: take(panels + state),
            };
            let input = take(steps * batch * cell.inputs);
            let weights = CellWeights {
                input: &input_weight,
                hidden: &hidden,
                bias: &bias,
            };
            backend.recur(cell, batch, weights, &input, &mut record);
            record
        });
        let signal = take(panels + state);
        let (mut delta, mut local) = (backend.zeros(panels), backend.zeros(panels));
        let mut carried = backend.zeros(panels + state);
        let unrolled = Unrolled {
            path: &records[0],
            delta: &mut delta,
            carried: &mut carried,
        };
        let landing = Landing {
            record: &records[1],
            delta: &mut local,
        };
        backend.recur_feedback(cell, batch, &hidden, &signal, unrolled, Some(landing));
        let targets: Vec<f32> = (0..steps * batch).map(|i| (i % 3) as f32).collect();
        let mut error = backend.zeros(targets.len());
        let loss = backend.sequence_loss(&targets, batch, &signal, &mut error);
        vec![
            ("z", backend.read(&records[0].z)),
            ("states", backend.read(&records[1].a)),
            ("delta", backend.read(&delta)),
            ("carried", backend.read(&carried)),
            ("local", backend.read(&local)),
            ("loss", vec![loss]),
            ("error", backend.read(&error)),
        ]
    }

    for (width, batch, inputs, activation) in [
        (1, 1, 1, Activation::Relu),
        (8, 50, 1, Activation::Relu),
        (17, 7, 2, Activation::Tanh),
        (33, 3, 1, Activation::Erf),
        (64, 50, 1, Activation::Linear),
    ] {
        let cell = RecurrentCell {
            steps: 6,
            inputs,
            width,
            scale: 1.0 / (width as f64).sqrt(),
            activation,
        };
        let expected = run(&Reference, &cell, batch);
        for set in instruction_sets() {
            let mut first = None;
            for threads in [1, 3] {
                let backend = CpuBackend::with_instruction_set(threads, set).expect("available");
                let results = run(&backend, &cell, batch);
                for ((kernel, fast), (_, reference)) in results.iter().zip(&expected) {
                    let d = deviation(fast, reference);
                    assert!(
                        d.worst <= 1.0 && d.relative_rms <= F32_RMS,
                        "width {width}: {kernel} on {set}: {d:?}"
                    );
                }
                match &first {
                    None => first = Some(results),
                    Some(first) => assert_eq!(first, &results, "{set}: threads change bits"),
                }
            }
        }
    }
}

/// A NaN anywhere must reach the output: a diverged network must not look alive behind a ReLU.
#[test]
fn nan_survives_every_activation() {
    for activation in ACTIVATIONS {
        for set in instruction_sets() {
            let backend = CpuBackend::with_instruction_set(1, set).expect("an available set");
            let layer = Layer {
                wiring: Arc::new(Wiring::dense()),
                inputs: 1,
                outputs: 20,
                scale: 1.0,
                norm: Norm::None,
                activation,
            };
            let mut record = Case::record(&backend, &layer, 2);
            let weight = buffer(&backend, &[1.0; 20]);
            let bias = buffer(&backend, &[0.0; 20]);
            backend.forward(
                &layer,
                2,
                &weight,
                &bias,
                &buffer(&backend, &[f64::NAN, 1.0]),
                &mut record,
            );
            let a = backend.read(&record.a);
            assert!(
                a[..20].iter().all(|v| v.is_nan()),
                "{activation:?} on {set}: {:?}",
                &a[..20]
            );
            assert!(a[20..].iter().all(|v| v.is_finite()));
        }
    }
}

/// Oracle: `f64::tanh`, over the whole range and where the vector formula changes its branch.
#[test]
fn tanh_is_accurate() {
    for set in instruction_sets() {
        let backend = CpuBackend::with_instruction_set(1, set).expect("an available set");
        let points: Vec<f64> = (-4000..=4000)
            .map(|i| f64::from(i as f32 * 0.003))
            .chain([
                -100.0,
                -9.2,
                -0.625,
                0.0,
                0.624_999,
                0.625,
                9.0,
                1e9,
                f64::INFINITY,
                1e-30,
            ])
            .collect();
        let layer = Layer {
            wiring: Arc::new(Wiring::dense()),
            inputs: 1,
            outputs: 1,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Tanh,
        };
        let mut record = Case::record(&backend, &layer, points.len());
        let (one, zero) = (buffer(&backend, &[1.0]), buffer(&backend, &[0.0]));
        backend.forward(
            &layer,
            points.len(),
            &one,
            &zero,
            &buffer(&backend, &points),
            &mut record,
        );
        for (x, a) in points.iter().zip(backend.read(&record.a)) {
            let expected = f64::from(*x as f32).tanh();
            assert!(
                (a - expected).abs() <= 4e-7 * expected.abs(),
                "{set}: tanh({x}) = {a}, not {expected}"
            );
        }
    }
}

/// Oracle: the reference. Tiles round a few times as much as plain sums do, and no more: the paper's second layer at
/// width 64, of which `docs/performance.md` gives the figures.
#[test]
fn what_tiles_cost_in_accuracy() {
    let wiring = Wiring::conv3x3(16, 16, 1);
    let case = Case::new(wiring, 64, 64, 8, Norm::None, Activation::Linear);
    let expected = case.run(&Reference);
    let backend = || CpuBackend::new(2).expect("a backend");
    let deviations = |backend: CpuBackend| -> Vec<(&str, f64)> {
        let results = case.run(&backend).into_iter().zip(&expected);
        results
            .map(|((name, fast), (_, reference))| (name, deviation(&fast, reference).relative_rms))
            .filter(|(name, _)| ["forward z", "transposed", "weight gradient"].contains(name))
            .collect()
    };
    let (tiled, strict) = (deviations(backend()), deviations(backend().strict()));
    for ((name, tiled), (_, strict)) in tiled.into_iter().zip(strict) {
        println!("{name}: relative RMS deviation {tiled:.1e}, strict {strict:.1e}");
        assert!(tiled != strict, "{name}: tiles were not used");
        assert!(
            tiled < 4e-6 && strict < 1e-6,
            "{name}: {tiled:e}, {strict:e}"
        );
    }
}
