//! One backend's kernels, from host memory to host memory.

use super::Check;
use crate::optim::{Optimizer, OptimizerState};
use sansprop_kernels::{Backend, Landing, Layer, Record};

/// A record in host memory.
pub(super) type HostRecord = Record<Vec<f64>>;

fn buffer<B: Backend>(backend: &B, values: &[f64]) -> B::Buffer {
    let mut buffer = backend.zeros(values.len());
    backend.write(values, &mut buffer);
    buffer
}

fn device_record<B: Backend>(backend: &B, record: &HostRecord) -> Record<B::Buffer> {
    Record {
        z: buffer(backend, &record.z),
        inverse_deviation: buffer(backend, &record.inverse_deviation),
        a: buffer(backend, &record.a),
    }
}

pub(super) fn forward<B: Backend>(
    backend: &B,
    layer: &Layer,
    batch: usize,
    [weight, bias, input]: [&Vec<f64>; 3],
) -> HostRecord {
    let len = layer.locations() * batch * layer.outputs;
    let mut out = Record {
        z: backend.zeros(len),
        inverse_deviation: backend.zeros(layer.deviations()),
        a: backend.zeros(len),
    };
    let (weight, bias) = (buffer(backend, weight), buffer(backend, bias));
    let input = buffer(backend, input);
    backend.forward(layer, batch, &weight, &bias, &input, &mut out);
    HostRecord {
        z: backend.read(&out.z),
        inverse_deviation: backend.read(&out.inverse_deviation),
        a: backend.read(&out.a),
    }
}

pub(super) fn pool<B: Backend>(
    backend: &B,
    locations: usize,
    batch: usize,
    channels: usize,
    input: &[f64],
) -> Vec<f64> {
    let mut out = backend.zeros(batch * channels);
    let input = buffer(backend, input);
    backend.pool(locations, batch, channels, &input, &mut out);
    backend.read(&out)
}

pub(super) fn loss<B: Backend>(backend: &B, check: &Check<'_>, output: &[f64]) -> (f64, Vec<f64>) {
    let mut error = backend.zeros(output.len());
    let output = buffer(backend, output);
    let classes = check.network.spec().classes;
    let shift = check.target_shift;
    let report = backend.loss(check.labels, classes, shift, &output, &mut error);
    (report.loss, backend.read(&error))
}

pub(super) fn weight_gradient<B: Backend>(
    backend: &B,
    layer: &Layer,
    batch: usize,
    input: &[f64],
    delta: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let mut weight = backend.zeros(layer.weights());
    let mut bias = backend.zeros(layer.outputs);
    let (input, delta) = (buffer(backend, input), buffer(backend, delta));
    backend.weight_gradient(layer, batch, &input, &delta, &mut weight, &mut bias);
    (backend.read(&weight), backend.read(&bias))
}

pub(super) fn transposed<B: Backend>(
    backend: &B,
    layer: &Layer,
    batch: usize,
    weight: &[f64],
    delta: &[f64],
) -> Vec<f64> {
    let mut out = backend.zeros(layer.sources() * batch * layer.inputs);
    let (weight, delta) = (buffer(backend, weight), buffer(backend, delta));
    backend.transposed(layer, batch, &weight, &delta, &mut out);
    backend.read(&out)
}

pub(super) fn pool_feedback<B: Backend>(
    backend: &B,
    port: &Layer,
    batch: usize,
    signal: &[f64],
    record: &HostRecord,
) -> Vec<f64> {
    let mut delta = backend.zeros(record.z.len());
    let landing = Landing {
        record: &device_record(backend, record),
        delta: &mut delta,
    };
    backend.pool_feedback(port, batch, &buffer(backend, signal), landing);
    backend.read(&delta)
}

pub(super) fn feedback<B: Backend>(
    backend: &B,
    layer: &Layer,
    port: &Layer,
    batch: usize,
    weight: &[f64],
    delta: &[f64],
    records: [&HostRecord; 2],
) -> [Vec<f64>; 2] {
    let mut deltas = records.map(|record| backend.zeros(record.z.len()));
    let records = records.map(|record| device_record(backend, record));
    let (weight, delta) = (buffer(backend, weight), buffer(backend, delta));
    let [on_path, on_local] = &mut deltas;
    let path = Landing {
        record: &records[0],
        delta: on_path,
    };
    let local = Landing {
        record: &records[1],
        delta: on_local,
    };
    backend.feedback(layer, port, batch, &weight, &delta, path, Some(local));
    deltas.map(|delta| backend.read(&delta))
}

pub(super) fn direct_feedback<B: Backend>(
    backend: &B,
    direct: &Layer,
    port: &Layer,
    batch: usize,
    [weight, error]: [&[f64]; 2],
    record: &HostRecord,
) -> Vec<f64> {
    let mut delta = backend.zeros(record.z.len());
    let landing = Landing {
        record: &device_record(backend, record),
        delta: &mut delta,
    };
    let (weight, error) = (buffer(backend, weight), buffer(backend, error));
    backend.direct_feedback(direct, port, batch, &weight, &error, landing);
    backend.read(&delta)
}

pub(super) fn sign<B: Backend>(backend: &B, scale: f64, weight: &[f64]) -> Vec<f64> {
    let mut out = backend.zeros(weight.len());
    backend.sign(scale, &buffer(backend, weight), &mut out);
    backend.read(&out)
}

/// The weights after one step, and after a second one with half the gradient reversed.
pub(super) fn two_steps<B: Backend>(
    backend: &B,
    optimizer: Optimizer,
    weight: &[f64],
    gradient: &[f64],
) -> [Vec<f64>; 2] {
    let mut state = OptimizerState::new(backend, optimizer, &[weight.len()]);
    let mut weight = buffer(backend, weight);
    [1.0, -0.5].map(|factor| {
        let gradient: Vec<f64> = gradient.iter().map(|g| factor * g).collect();
        state.begin_step();
        state.update(backend, 0, &buffer(backend, &gradient), &mut weight);
        backend.read(&weight)
    })
}
