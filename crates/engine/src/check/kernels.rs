//! Every fast kernel against the f64 reference, on this network's layers and the values that reach them.
//!
//! Both backends are given the same values, rounded to f32, so that no kernel is blamed for another's rounding.
//! A deviation is the norm of the difference relative to the terms that the kernel sums, not to what is left of
//! them: a norm subtracts the mean, a gradient's positive and negative terms cancel, and a unit that hardly
//! varies over the minibatch is divided by up to `√ε = 1e-3`. None of this is the kernel's fault, so values
//! behind a norm are measured in units of their pre-activations.

use super::gradient::biased_start;
use super::host::{self, HostRecord};
use super::measure::{distance, norm, relative, worse};
use super::{Bound, Check, Finding, Property, Snapshot};
use crate::init::{FeedbackDraw, draw};
use crate::optim::Optimizer;
use crate::rng::LegacyRandom;
use sansprop_kernels::tolerance::kernel_rms;
use sansprop_kernels::{Activation, Backend, Layer, Norm, Record};

/// Compares all kernels, in the order in which training uses them.
pub(super) fn compare<F: Backend, E: Backend>(
    check: &Check<'_>,
    fast: &F,
    exact: &E,
    report: &mut dyn FnMut(Finding),
) {
    let mut random = LegacyRandom::new(check.seed);
    let weights = biased_start(check, exact, &mut random);
    let snapshot = Snapshot::new(check, exact, weights);
    let pass = &snapshot.pass;
    let rounded = |buffer: &E::Buffer| round(exact.read(buffer));
    let record = |record: &Record<E::Buffer>| HostRecord {
        z: rounded(&record.z),
        inverse_deviation: rounded(&record.inverse_deviation),
        a: rounded(&record.a),
    };
    let network = check.network;
    let mut pair = Pair {
        check,
        fast,
        exact,
        report,
        records: pass.hidden.iter().map(record).collect(),
        inputs: (0..network.layers().len())
            .map(|l| rounded(pass.input_of(l, &snapshot.input)))
            .collect(),
        weights: snapshot.weights.weight.iter().map(rounded).collect(),
        biases: snapshot.weights.bias.iter().map(rounded).collect(),
    };
    let error = rounded(&snapshot.error);
    let output = rounded(pass.output());
    drop(snapshot);
    for layer in 0..network.layers().len() {
        pair.forward(layer);
    }
    pair.pool();
    pair.loss(&output);
    let head = network.hidden().len();
    let mut gradients = vec![pair.weight_gradient(head, &error)];
    if head > 0 {
        let signal = pair.transposed(head, &error);
        let mut delta = pair.pool_feedback(head - 1, &signal);
        for layer in (0..head).rev() {
            gradients.push(pair.weight_gradient(layer, &delta));
            if layer > 0 {
                delta = pair.feedback(layer, &delta);
            }
        }
        pair.direct_feedback(&error);
    }
    gradients.reverse();
    pair.sign();
    pair.optimizer(&gradients, Optimizer::Sgd { lr: 1.0 });
    pair.optimizer(&gradients, Optimizer::Adam { lr: 1.0 });
}

/// Two backends and what one forward pass left behind, in host memory.
struct Pair<'a, F: Backend, E: Backend> {
    check: &'a Check<'a>,
    fast: &'a F,
    exact: &'a E,
    report: &'a mut dyn FnMut(Finding),
    records: Vec<HostRecord>,
    inputs: Vec<Vec<f64>>,
    weights: Vec<Vec<f64>>,
    biases: Vec<Vec<f64>>,
}

impl<'a, F: Backend, E: Backend> Pair<'a, F, E> {
    fn layer(&self, layer: usize) -> &'a Layer {
        &self.check.network.layers()[layer]
    }

    fn report(&mut self, layer: usize, kernel: &str, deviation: f64) {
        let subject = format!("{} {kernel}", self.check.layer_name(layer));
        self.report_as(subject, deviation);
    }

    fn report_as(&mut self, subject: String, deviation: f64) {
        let bound = Bound::AtMost(kernel_rms(self.fast.operand_rounding()));
        (self.report)(Finding::new(Property::Kernel, subject, deviation, bound));
    }

    fn forward(&mut self, at: usize) {
        let (layer, batch) = (self.layer(at), self.check.batch());
        let values = [&self.weights[at], &self.biases[at], &self.inputs[at]];
        let fast = host::forward(self.fast, layer, batch, values);
        let exact = host::forward(self.exact, layer, batch, values);
        let terms = norm(&host::forward(self.exact, &plain(layer), batch, values).z);
        let scale = |values: &[f64]| undo_norm(layer, batch, &exact.inverse_deviation, values);
        let difference = |a: &[f64], b: &[f64]| relative(distance(&scale(a), &scale(b)), terms);
        let mut worst = difference(&fast.z, &exact.z);
        worst = worse(difference(&fast.a, &exact.a), worst);
        let deviations = |record: &HostRecord| -> Vec<f64> {
            let inverse = record.inverse_deviation.iter();
            inverse.map(|inverse| 1.0 / inverse).collect()
        };
        // One deviation stands for several values, so the terms' rms is what it compares with.
        let rms = terms * (layer.deviations() as f64 / exact.z.len() as f64).sqrt();
        let difference = distance(&deviations(&fast), &deviations(&exact));
        worst = worse(relative(difference, rms), worst);
        self.report(at, "forward", worst);
    }

    fn pool(&mut self) {
        let network = self.check.network;
        let (locations, batch) = (network.pooled_locations(), self.check.batch());
        let channels = network.head().inputs;
        let input = self.records.last().map_or(&self.inputs[0], |r| &r.a);
        let fast = host::pool(self.fast, locations, batch, channels, input);
        let exact = host::pool(self.exact, locations, batch, channels, input);
        let terms = host::pool(self.exact, locations, batch, channels, &magnitudes(input));
        let deviation = relative(distance(&fast, &exact), norm(&terms));
        self.report_as("pool".into(), deviation);
    }

    fn loss(&mut self, output: &[f64]) {
        let (fast_loss, fast_error) = host::loss(self.fast, self.check, output);
        let (exact_loss, exact_error) = host::loss(self.exact, self.check, output);
        let deviation = worse(
            relative((fast_loss - exact_loss).abs(), exact_loss),
            relative(distance(&fast_error, &exact_error), norm(&exact_error)),
        );
        self.report_as("loss".into(), deviation);
    }

    /// Returns the exact gradient of the weights.
    fn weight_gradient(&mut self, at: usize, delta: &[f64]) -> Vec<f64> {
        let (layer, batch) = (self.layer(at), self.check.batch());
        let input = &self.inputs[at];
        let fast = host::weight_gradient(self.fast, layer, batch, input, delta);
        let exact = host::weight_gradient(self.exact, layer, batch, input, delta);
        // Terms that cancel leave the rounding of the partial sums, which may be as large as all terms together. In a
        // sum of n terms of random signs a relative error δ shows as δ/√n: `check_batch` keeps n small enough.
        let (input, delta) = (magnitudes(input), magnitudes(delta));
        let terms = host::weight_gradient(self.exact, layer, batch, &input, &delta);
        let deviation = worse(
            relative(distance(&fast.0, &exact.0), norm(&terms.0)),
            relative(distance(&fast.1, &exact.1), norm(&terms.1)),
        );
        self.report(at, "weight gradient", deviation);
        round(exact.0)
    }

    fn transposed(&mut self, at: usize, delta: &[f64]) -> Vec<f64> {
        let (layer, batch) = (self.layer(at), self.check.batch());
        let fast = host::transposed(self.fast, layer, batch, &self.weights[at], delta);
        let exact = host::transposed(self.exact, layer, batch, &self.weights[at], delta);
        let deviation = relative(distance(&fast, &exact), norm(&exact));
        self.report(at, "transposed", deviation);
        round(exact)
    }

    fn pool_feedback(&mut self, at: usize, signal: &[f64]) -> Vec<f64> {
        let (port, batch) = (self.layer(at), self.check.batch());
        let record = &self.records[at];
        let fast = host::pool_feedback(self.fast, port, batch, signal, record);
        let exact = host::pool_feedback(self.exact, port, batch, signal, record);
        let plain = host::pool_feedback(self.exact, &plain(port), batch, signal, record);
        let deviation = landing_deviation(port, batch, record, &fast, &exact, norm(&plain));
        self.report(at, "pooled feedback", deviation);
        round(exact)
    }

    fn feedback(&mut self, at: usize, delta: &[f64]) -> Vec<f64> {
        let (layer, port, batch) = (self.layer(at), self.layer(at - 1), self.check.batch());
        let weight = &self.weights[at];
        let path = &self.records[at - 1];
        // A second network's record, as good as any: the same samples in another order.
        let local = &rotated(path, batch * port.outputs, port.outputs);
        let records = [path, local];
        let fast = host::feedback(self.fast, layer, port, batch, weight, delta, records);
        let exact = host::feedback(self.exact, layer, port, batch, weight, delta, records);
        let plain = plain(port);
        let [plain, _] = host::feedback(self.exact, layer, &plain, batch, weight, delta, records);
        let terms = norm(&plain);
        let [on_path, on_local] =
            [0, 1].map(|i| landing_deviation(port, batch, records[i], &fast[i], &exact[i], terms));
        self.report(at, "feedback", worse(on_path, on_local));
        let [exact, _] = exact;
        round(exact)
    }

    fn direct_feedback(&mut self, error: &[f64]) {
        let network = self.check.network;
        let batch = self.check.batch();
        let drawn = draw(network, self.check.seed, FeedbackDraw::Direct);
        for (at, weight) in drawn.feedback.iter().enumerate() {
            let weight: Vec<f64> = weight.iter().map(|&w| f64::from(w)).collect();
            let direct = network.direct_layer(at);
            let (port, record) = (self.layer(at), &self.records[at]);
            let values = [&weight, error];
            let fast = host::direct_feedback(self.fast, &direct, port, batch, values, record);
            let exact = host::direct_feedback(self.exact, &direct, port, batch, values, record);
            let plain = plain(port);
            let plain = host::direct_feedback(self.exact, &direct, &plain, batch, values, record);
            let deviation = landing_deviation(port, batch, record, &fast, &exact, norm(&plain));
            self.report(at, "direct feedback", deviation);
        }
    }

    fn sign(&mut self) {
        let mut worst = 0.0;
        for (at, weight) in self.weights.iter().enumerate() {
            let scale = self.check.network.initial_deviation(at);
            let fast = host::sign(self.fast, scale, weight);
            let exact = host::sign(self.exact, scale, weight);
            worst = worse(relative(distance(&fast, &exact), norm(&exact)), worst);
        }
        self.report_as("sign".into(), worst);
    }

    /// Two steps along and against each layer's gradient; the learning rate is in units of the weights, so that
    /// their own rounding in f32 does not hide the update's.
    fn optimizer(&mut self, gradients: &[Vec<f64>], optimizer: Optimizer) {
        let mut worst = 0.0;
        for (weight, gradient) in self.weights.iter().zip(gradients) {
            let (size, slope) = (norm(weight), norm(gradient));
            let optimizer = match optimizer {
                Optimizer::Sgd { .. } if slope > 0.0 => Optimizer::Sgd { lr: size / slope },
                Optimizer::Sgd { .. } => optimizer,
                Optimizer::Adam { .. } => Optimizer::Adam {
                    lr: size / (weight.len() as f64).sqrt(),
                },
            };
            let fast = host::two_steps(self.fast, optimizer, weight, gradient);
            let exact = host::two_steps(self.exact, optimizer, weight, gradient);
            for (fast, exact) in fast.iter().zip(&exact) {
                let update = distance(weight, exact).max(size);
                worst = worse(relative(distance(fast, exact), update), worst);
            }
        }
        self.report_as(optimizer.name().into(), worst);
    }
}

fn round(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|v| f64::from(v as f32)).collect()
}

fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

/// A layer like `port` without norm and slopes: its feedback is the bare signal, its forward pass the pre-activations.
fn plain(port: &Layer) -> Layer {
    Layer {
        norm: Norm::None,
        activation: Activation::Linear,
        ..port.clone()
    }
}

/// Every value divided by the inverse deviation of its unit: back in units of the pre-activations.
fn undo_norm(port: &Layer, batch: usize, inverse_deviation: &[f64], values: &[f64]) -> Vec<f64> {
    let channels = port.outputs;
    let group = |i: usize| match port.norm {
        Norm::Location => i / (batch * channels) * channels + i % channels,
        Norm::Channel => i % channels,
        Norm::None => 0,
    };
    let scaled = values.iter().enumerate();
    match port.norm {
        Norm::None => values.to_vec(),
        Norm::Location | Norm::Channel => scaled
            .map(|(i, v)| v / inverse_deviation[group(i)])
            .collect(),
    }
}

fn landing_deviation(
    port: &Layer,
    batch: usize,
    record: &HostRecord,
    fast: &[f64],
    exact: &[f64],
    terms: f64,
) -> f64 {
    let scale = |values: &[f64]| undo_norm(port, batch, &record.inverse_deviation, values);
    relative(distance(&scale(fast), &scale(exact)), terms)
}

/// The record of the same minibatch with its samples moved on by one.
fn rotated(record: &HostRecord, panel: usize, channels: usize) -> HostRecord {
    let rotate = |values: &[f64]| {
        let mut values = values.to_vec();
        for panel in values.chunks_mut(panel) {
            panel.rotate_right(channels);
        }
        values
    };
    HostRecord {
        z: rotate(&record.z),
        inverse_deviation: record.inverse_deviation.clone(),
        a: rotate(&record.a),
    }
}
