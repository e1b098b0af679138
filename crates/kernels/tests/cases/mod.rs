//! The cases of the conformance suites and what a backend makes of them.

use sansprop_kernels::tolerance::{F32_RMS, deviation, kernel_rms};
use sansprop_kernels::{
    Activation, AdamStep, Backend, CellWeights, ForwardPass, Kept, Landing, Layer, Norm, Record,
    RecurrentCell, Reference, Signal, SignalGradient, Unrolled, Wiring,
};
use std::sync::Arc;

/// Reproducible values in (−1, 1), exact in f32.
pub struct Values(pub u64);

impl Values {
    pub fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0)
    }

    pub fn take(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| self.next()).collect()
    }
}

pub fn buffer<B: Backend>(backend: &B, values: &[f64]) -> B::Buffer {
    let mut buffer = backend.zeros(values.len());
    backend.write(values, &mut buffer);
    buffer
}

/// Random inputs of one layer and of the layer below it, the port where its feedback lands.
pub struct Case {
    pub layer: Layer,
    pub port: Layer,
    pub batch: usize,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub input: Vec<f64>,
    pub delta: Vec<f64>,
    /// Pre-activations of the port in two networks, made to records by each backend.
    pub port_inputs: [Vec<f64>; 2],
    pub port_weight: Vec<f64>,
    pub port_bias: Vec<f64>,
    pub direct_weight: Vec<f64>,
    pub error: Vec<f64>,
    pub signal: Vec<f64>,
}

pub const CLASSES: usize = 3;

impl Case {
    pub fn new(
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
        let mut port_values = Values(7);
        let mut values = Values(99 + (inputs * 31 + outputs * 7 + batch) as u64);
        Self {
            batch,
            weight: values.take(layer.weights()),
            bias: values.take(outputs),
            input: values.take(layer.sources() * batch * inputs),
            delta: values.take(layer.locations() * batch * outputs),
            port_inputs: [values.take(2 * batch), values.take(2 * batch)],
            port_weight: port_values.take(port.weights()),
            port_bias: port_values.take(port.outputs),
            direct_weight: values.take(port.locations() * CLASSES * inputs),
            error: values.take(batch * CLASSES),
            signal: values.take(batch * inputs),
            layer,
            port,
        }
    }

    pub fn record<B: Backend>(backend: &B, layer: &Layer, batch: usize) -> Record<B::Buffer> {
        let len = layer.locations() * batch * layer.outputs;
        Record {
            z: backend.zeros(len),
            inverse_deviation: backend.zeros(layer.deviations()),
            a: backend.zeros(len),
        }
    }

    /// Every kernel's result by name.
    pub fn run<B: Backend>(&self, backend: &B) -> Vec<(&'static str, Vec<f64>)> {
        let (layer, port, batch) = (&self.layer, &self.port, self.batch);
        let upload = |values: &[f64]| buffer(backend, values);
        let mut results = Vec::new();

        let mut out = Self::record(backend, layer, batch);
        let weight = upload(&self.weight);
        let (input, delta) = (upload(&self.input), upload(&self.delta));
        let bias = upload(&self.bias);
        backend.forward(layer, batch, &weight, &bias, &input, &mut out);
        results.push(("forward z", backend.read(&out.z)));
        results.push((
            "forward inverse deviation",
            backend.read(&out.inverse_deviation),
        ));
        results.push(("forward a", backend.read(&out.a)));
        let keeping = |kept: Kept| {
            let mut out = Self::record(backend, layer, batch);
            let pass = ForwardPass {
                layer,
                batch,
                weight: &weight,
                bias: &bias,
                input: &input,
                kept,
            };
            backend.forward_pass(pass, &mut out);
            out
        };
        let alone = keeping(Kept::Nothing);
        results.push(("forward a alone", backend.read(&alone.a)));
        let slopes = keeping(Kept::Slopes);
        results.push(("forward z for slopes", backend.read(&slopes.z)));
        results.push(("forward a for the next layer", backend.read(&slopes.a)));

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

        let (port_weight, port_bias) = (upload(&self.port_weight), upload(&self.port_bias));
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

pub const NORMS: [Norm; 3] = [Norm::Location, Norm::Channel, Norm::None];
pub const ACTIVATIONS: [Activation; 4] = [
    Activation::Relu,
    Activation::Tanh,
    Activation::Erf,
    Activation::Linear,
];

/// Convolutions of every stride, norm and activation.
pub fn convolutions() -> Vec<(String, Case)> {
    let grids = [
        (5, 7, 1),
        (5, 7, 2),
        (8, 8, 2),
        (9, 4, 4),
        (1, 1, 1),
        (1, 6, 3),
    ];
    let mut cases = Vec::new();
    for (i, (height, width, stride)) in grids.into_iter().enumerate() {
        for (n, norm) in NORMS.into_iter().enumerate() {
            let activation = ACTIVATIONS[(i + n) % 4];
            let wiring = Wiring::conv3x3(height, width, stride);
            cases.push((
                format!("conv {height}×{width} stride {stride} {norm:?} {activation:?}"),
                Case::new(wiring, 5, 9, 7, norm, activation),
            ));
        }
    }
    cases
}

/// Channels that straddle every tile edge.
pub fn channels() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for channels in [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100] {
        for (inputs, outputs) in [(channels, 6), (6, channels)] {
            let wiring = Wiring::conv3x3(3, 2, 1);
            cases.push((
                format!("conv {inputs} to {outputs} channels"),
                Case::new(wiring, inputs, outputs, 5, Norm::Location, Activation::Relu),
            ));
        }
        cases.push((
            format!("dense {channels} channels"),
            Case::new(
                Wiring::dense(),
                channels,
                channels,
                9,
                Norm::None,
                Activation::Tanh,
            ),
        ));
    }
    cases
}

/// Channels that fill whole tiles, at locations enough that the widest ones are taken.
pub fn whole_tiles(batch: usize) -> Vec<(String, Case)> {
    [(8, 16), (16, 8), (32, 32), (64, 32), (64, 64), (128, 128)]
        .into_iter()
        .map(|(inputs, outputs)| {
            let wiring = Wiring::conv3x3(12, 12, 1);
            // Among very many values, a norm finds some minibatch of hardly any variance.
            let norm = match inputs * outputs {
                ..=1024 => Norm::Location,
                _ => Norm::None,
            };
            let case = Case::new(wiring, inputs, outputs, batch, norm, Activation::Tanh);
            (format!("conv 12×12, {inputs} to {outputs}"), case)
        })
        .collect()
}

/// Panels enough, of channels that make whole blocks, for all work-groups of groups of warps that f32 has: alone and in
/// twos, of one tile of samples and of two, with an odd number of locations that are alike, and with locations that have
/// few links or none. Among them layers of which only one end lies so, and minibatches too large for it.
pub fn blocks() -> Vec<(String, Case)> {
    let conv = Wiring::conv3x3;
    use {Activation::*, Norm::*};
    vec![
        named(conv(4, 5, 1), [64, 64], 9, Location, Tanh),
        named(conv(8, 8, 2), [128, 64], 100, None, Relu),
        named(conv(9, 8, 2), [64, 64], 24, Channel, Erf),
        named(conv(4, 4, 1), [64, 128], 128, Location, Relu),
        named(conv(16, 16, 1), [64, 128], 6, None, Tanh),
        named(conv(16, 16, 1), [3, 64], 20, Location, Relu),
        named(Wiring::sequence(17, 19, 2), [64, 192], 70, Location, Tanh),
        named(conv(5, 4, 1), [64, 72], 10, Location, Tanh),
        named(conv(5, 4, 1), [3, 64], 7, Location, Tanh),
        named(conv(4, 4, 1), [64, 64], 130, Location, Tanh),
    ]
}

/// A case with a name that tells its sizes.
fn named(
    wiring: Wiring,
    [inputs, outputs]: [usize; 2],
    batch: usize,
    norm: Norm,
    activation: Activation,
) -> (String, Case) {
    let (sources, destinations) = (wiring.sources(), wiring.destinations());
    let name = format!(
        "{sources} to {destinations} panels, {inputs} to {outputs}, batch {batch} {norm:?}"
    );
    (
        name,
        Case::new(wiring, inputs, outputs, batch, norm, activation),
    )
}

/// Panels enough, of so few channels that neighbouring ones are made together: as many as fill a stack of them and fewer,
/// whose sources many or few of them share, with rows of locations that no stack fills. Among them layers that stand for
/// unfolded ones, some of which only one end lies in such blocks, and minibatches too large for it.
pub fn neighbours() -> Vec<(String, Case)> {
    let conv = Wiring::conv3x3;
    use {Activation::*, Norm::*};
    vec![
        named(conv(4, 5, 1), [32, 32], 32, Location, Tanh),
        named(conv(30, 32, 1), [32, 32], 8, None, Tanh),
        // Gradients whose next sources fit only when the last ones are multiplied, and in several shares.
        named(conv(16, 16, 2), [32, 32], 100, None, Tanh),
        named(conv(12, 32, 1), [32, 8], 33, None, Tanh),
        named(conv(8, 8, 2), [32, 32], 33, Location, Relu),
        named(conv(9, 8, 2), [16, 32], 9, Channel, Erf),
        named(conv(8, 8, 1), [8, 8], 100, Location, Relu),
        named(conv(4, 16, 1), [16, 8], 20, None, Tanh),
        named(conv(16, 16, 1), [3, 32], 20, Location, Relu),
        named(conv(16, 16, 1), [3, 8], 6, Location, Tanh),
        named(Wiring::sequence(17, 19, 2), [8, 16], 70, Location, Tanh),
        named(conv(5, 4, 1), [32, 24], 10, Location, Tanh),
        named(conv(5, 4, 1), [3, 16], 7, Location, Tanh),
        named(conv(5, 4, 1), [16, 64], 7, Location, Relu),
        named(conv(4, 4, 1), [8, 8], 130, Location, Tanh),
    ]
}

/// Batches of so many samples under every norm.
pub fn batches(sizes: &[usize]) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for &batch in sizes {
        for norm in NORMS {
            // Two samples normalise to ±1, and normᵀ cancels every signal up to ε: only rounding is left to
            // compare.
            if batch == 2 && norm == Norm::Location {
                continue;
            }
            let wiring = Wiring::conv3x3(3, 3, 2);
            cases.push((
                format!("batch {batch} {norm:?}"),
                Case::new(wiring, 3, 10, batch, norm, Activation::Erf),
            ));
        }
    }
    cases
}

/// Large enough that work is shared between threads and cut into chunks.
pub fn large() -> Vec<(String, Case)> {
    let conv = Wiring::conv3x3(16, 16, 1);
    let dense = Wiring::dense();
    let small = Wiring::conv3x3(2, 2, 1);
    vec![
        (
            "conv 2×2, 64 to 66, batch 128".into(),
            Case::new(small, 64, 66, 128, Norm::Location, Activation::Relu),
        ),
        (
            "conv 16×16, 20 to 36".into(),
            Case::new(conv, 20, 36, 30, Norm::Location, Activation::Relu),
        ),
        (
            "conv 16×16, 3 to 16".into(),
            Case::new(
                Wiring::conv3x3(16, 16, 1),
                3,
                16,
                30,
                Norm::Location,
                Activation::Tanh,
            ),
        ),
        (
            "dense 700 to 130".into(),
            Case::new(dense, 700, 130, 50, Norm::Channel, Activation::Relu),
        ),
    ]
}

/// Matrices whose sums are cut, over inputs, over outputs and over samples.
pub fn long_sums() -> Vec<(String, Case)> {
    let case = |wiring: Wiring, inputs: usize, outputs: usize, batch: usize, norm: Norm| {
        let steps = wiring.destinations();
        (
            format!("{steps} times {inputs} to {outputs}, batch {batch}, {norm:?}"),
            Case::new(wiring, inputs, outputs, batch, norm, Activation::Tanh),
        )
    };
    vec![
        case(Wiring::dense(), 513, 40, 257, Norm::Location),
        case(Wiring::dense(), 35, 530, 9, Norm::Channel),
        case(Wiring::sequence(3, 4, 1), 520, 33, 100, Norm::None),
        case(Wiring::sequence(2, 2, 0), 545, 7, 3, Norm::None),
    ]
}

/// Element-wise updates and losses.
pub struct Updates {
    weight: Vec<f64>,
    gradient: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    step: AdamStep,
    pub output: Vec<f64>,
    pub labels: Vec<u32>,
    pub classes: usize,
}

impl Updates {
    /// Lengths beyond one strip.
    pub fn new() -> Self {
        let mut values = Values(5);
        let len = 9001;
        let [weight, gradient, first] = [0; 3].map(|_| values.take(len));
        let second = values.take(len).iter().map(|v| v.abs()).collect();
        let (batch, classes) = (37, 10);
        Self {
            weight,
            gradient,
            first,
            second,
            step: AdamStep {
                rate: 0.01,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
            },
            output: values.take(batch * classes),
            labels: (0..batch as u32).map(|b| b * 7 % classes as u32).collect(),
            classes,
        }
    }

    /// Arrays after each update, then loss and hits.
    pub fn run<B: Backend>(&self, backend: &B) -> (Vec<Vec<f64>>, f64, usize) {
        let g = buffer(backend, &self.gradient);
        let mut sgd = buffer(backend, &self.weight);
        backend.sgd(0.3, &g, &mut sgd);
        let mut adam = buffer(backend, &self.weight);
        let (mut m, mut v) = (buffer(backend, &self.first), buffer(backend, &self.second));
        backend.adam(self.step, &g, &mut m, &mut v, &mut adam);
        let mut sign = backend.zeros(self.weight.len());
        backend.sign(0.25, &adam, &mut sign);
        let mut error = backend.zeros(self.output.len());
        let output = buffer(backend, &self.output);
        let report = backend.loss(&self.labels, self.classes, 0.1, &output, &mut error);
        let arrays = [&sgd, &adam, &m, &v, &sign, &error].map(|b| backend.read(b));
        (arrays.to_vec(), report.loss, report.correct)
    }
}

/// Recurrent cells whose widths straddle tile edges, with their batches.
pub fn cells() -> Vec<(RecurrentCell, usize)> {
    let cell = |(width, batch, inputs, activation)| {
        let cell = RecurrentCell {
            steps: 6,
            inputs,
            width,
            scale: 1.0 / (width as f64).sqrt(),
            activation,
        };
        (cell, batch)
    };
    [
        (1, 1, 1, Activation::Relu),
        (8, 50, 1, Activation::Relu),
        (17, 7, 2, Activation::Tanh),
        (33, 3, 1, Activation::Erf),
        (64, 50, 1, Activation::Linear),
        (270, 19, 1, Activation::Tanh),
    ]
    .map(cell)
    .to_vec()
}

/// Every kernel's result on a recurrent cell, by name.
pub fn run_cell<B: Backend>(
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

/// Holds every result against the reference's.
#[track_caller]
pub fn compare(name: &str, fast: &[(&str, Vec<f64>)], reference: &[(&str, Vec<f64>)]) {
    for ((kernel, fast), (_, reference)) in fast.iter().zip(reference) {
        let d = deviation(fast, reference);
        assert!(
            d.worst <= 1.0 && d.relative_rms <= F32_RMS,
            "{name}: {kernel}: {d:?}: {} against {}",
            fast[d.worst_at],
            reference[d.worst_at]
        );
    }
}

/// Asserts that every kernel is as close to the reference as rounding each operand once, by `rounding` at most, allows.
pub fn within_roundings<B: Backend>(backend: &B, cases: Vec<Case>, rounding: f64, name: &str) {
    for (i, mut case) in cases.into_iter().enumerate() {
        // Neither a norm of few samples nor the edge of a relu may magnify roundings.
        for layer in [&mut case.layer, &mut case.port] {
            layer.norm = Norm::None;
            layer.activation = Activation::Tanh;
        }
        let pairs = case.run(backend).into_iter().zip(case.run(&Reference));
        for ((kernel, found), (_, expected)) in pairs {
            let d = deviation(&found, &expected);
            assert!(
                d.relative_rms <= kernel_rms(rounding),
                "case {i} in {name}: {kernel}: {d:?}"
            );
        }
    }
    for (cell, batch) in cells() {
        let pairs = run_cell(backend, &cell, batch)
            .into_iter()
            .zip(run_cell(&Reference, &cell, batch));
        for ((kernel, found), (_, expected)) in pairs {
            let d = deviation(&found, &expected);
            // A state passes through several steps, each with its own roundings.
            let bound = cell.steps as f64 * kernel_rms(rounding);
            assert!(
                d.relative_rms <= bound,
                "width {} in {name}: {kernel}: {d:?}",
                cell.width
            );
        }
    }
}

/// Two convolutions one above the other, the lower one of stride 1, and what of [`Backend::signal_gradient`] in the lower one by every
/// kind of signal.
pub struct SignalCase {
    pub above: Layer,
    pub port: Layer,
    pub batch: usize,
}

impl SignalCase {
    /// `channels` are those of the input, of the lower convolution and of the upper one.
    pub fn new(
        grid: (usize, usize),
        stride: usize,
        channels: [usize; 3],
        batch: usize,
        norm: Norm,
        activation: Activation,
    ) -> Self {
        let layer = |stride: usize, inputs: usize, outputs: usize| Layer {
            wiring: Arc::new(Wiring::conv3x3(grid.0, grid.1, stride)),
            inputs,
            outputs,
            scale: 1.0 / ((9 * inputs) as f64).sqrt(),
            norm,
            activation,
        };
        Self {
            above: layer(stride, channels[1], channels[2]),
            port: layer(1, channels[0], channels[1]),
            batch,
        }
    }

    pub fn run<B: Backend>(&self, backend: &B) -> Vec<(&'static str, Vec<f64>)> {
        let Self { above, port, batch } = self;
        let mut values = Values(17 + *batch as u64);
        let mut take = |len: usize| buffer(backend, &values.take(len));
        let input = take(port.sources() * batch * port.inputs);
        let delta = take(above.locations() * batch * above.outputs);
        let weight = take(above.weights());
        let direct = Layer {
            wiring: Arc::new(Wiring::broadcast(port.locations())),
            inputs: CLASSES,
            outputs: port.outputs,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        };
        let (error, direct_weight) = (take(batch * CLASSES), take(direct.weights()));
        let records = [0, 1].map(|_| {
            let (weight, bias) = (take(port.weights()), take(port.outputs));
            let mut record = Case::record(backend, port, *batch);
            backend.forward(port, *batch, &weight, &bias, &input, &mut record);
            record
        });
        let len = port.locations() * batch * port.outputs;
        let (mut path, mut local) = (backend.zeros(len), backend.zeros(len));
        let mut weights = backend.zeros(port.weights());
        let mut biases = backend.zeros(port.outputs);
        let mut results = Vec::new();
        for (names, is_direct, twice, goes_on) in [
            (["chain, weights", "chain, biases", ""], false, false, false),
            (
                ["chain on, weights", "chain on, biases", "chain on, deltas"],
                false,
                false,
                true,
            ),
            (
                ["chain to two, weights", "chain to two, biases", ""],
                false,
                true,
                false,
            ),
            (
                [
                    "chain on to two, weights",
                    "chain on to two, biases",
                    "chain on to two, deltas",
                ],
                false,
                true,
                true,
            ),
            (
                ["direct, weights", "direct, biases", ""],
                true,
                false,
                false,
            ),
        ] {
            let signal = match is_direct {
                false => Signal::Chain {
                    layer: above,
                    weight: &weight,
                    delta: &delta,
                },
                true => Signal::Direct {
                    wires: &direct,
                    weight: &direct_weight,
                    error: &error,
                },
            };
            backend.signal_gradient(SignalGradient {
                signal,
                port,
                batch: *batch,
                path: Landing {
                    record: &records[0],
                    delta: &mut path,
                },
                goes_on,
                local: twice.then_some(Landing {
                    record: &records[1],
                    delta: &mut local,
                }),
                input: &input,
                weights: &mut weights,
                biases: &mut biases,
            });
            results.push((names[0], backend.read(&weights)));
            // A norm's deltas add up to 0 but for rounding.
            if port.norm == Norm::None {
                results.push((names[1], backend.read(&biases)));
            }
            if goes_on {
                results.push((names[2], backend.read(&path)));
            }
        }
        results
    }
}

/// Grids, channels and batches at the edges of what makes a layer's deltas segment by segment.
pub fn signals() -> Vec<(String, SignalCase)> {
    [
        ((2, 4), 1, [3, 8, 8], 5),
        ((9, 8), 1, [3, 8, 8], 40),
        ((8, 7), 2, [6, 5, 7], 3),
        ((17, 12), 1, [8, 8, 8], 7),
        ((5, 8), 1, [3, 24, 24], 6),
        ((3, 9), 1, [2, 20, 6], 13),
        ((6, 6), 1, [3, 8, 4], 9),
        ((4, 4), 1, [3, 32, 32], 4),
        ((4, 5), 1, [3, 8, 8], 2),
        ((9, 6), 2, [8, 8, 8], 11),
        ((8, 8), 2, [8, 20, 20], 21),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (grid, stride, channels, batch))| {
        let (norm, activation) = (NORMS[2 * i % 3], ACTIVATIONS[i % 4]);
        let name = format!("{grid:?}, stride {stride}, {channels:?}, {norm:?} {activation:?}");
        (
            name,
            SignalCase::new(grid, stride, channels, batch, norm, activation),
        )
    })
    .collect()
}
