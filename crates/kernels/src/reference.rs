//! The reference: every kernel in f64, written from its formula, never optimised.

use crate::{
    Activation, AdamStep, Backend, CellWeights, ForwardPass, Landing, Layer, LossReport,
    NORM_EPSILON, Norm, Record, RecurrentCell, Unrolled,
};

/// Naive f64 kernels, one thread: the oracle of all others, and what `check` uses for finite differences.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// Sets of batch positions that share one mean and one variance: per location and channel, or per channel.
fn statistics_groups(norm: Norm, locations: usize) -> Vec<std::ops::Range<usize>> {
    match norm {
        Norm::Location => (0..locations).map(|l| l..l + 1).collect(),
        Norm::Channel => std::iter::once(0..locations).collect(),
        Norm::None => Vec::new(),
    }
}

/// `z = (pre − mean)/√(var + ε)`, in place; fills the inverse deviations.
fn normalise(port: &Layer, batch: usize, z: &mut [f64], inverse_deviation: &mut [f64]) {
    let channels = port.outputs;
    for (g, group) in statistics_groups(port.norm, port.locations())
        .into_iter()
        .enumerate()
    {
        let rows = group.start * batch..group.end * batch;
        let count = rows.len() as f64;
        for c in 0..channels {
            let mean = rows.clone().map(|r| z[r * channels + c]).sum::<f64>() / count;
            let variance = rows
                .clone()
                .map(|r| (z[r * channels + c] - mean).powi(2))
                .sum::<f64>()
                / count;
            let inverse = 1.0 / (variance + NORM_EPSILON).sqrt();
            inverse_deviation[g * channels + c] = inverse;
            for r in rows.clone() {
                z[r * channels + c] = (z[r * channels + c] - mean) * inverse;
            }
        }
    }
}

/// `normᵀ(ψ) = (ψ − mean ψ − z · mean(ψ z))/√(var + ε)`: the transposed Jacobian of the norm.
fn norm_transposed(port: &Layer, batch: usize, record: &Record<Vec<f64>>, psi: &[f64]) -> Vec<f64> {
    let channels = port.outputs;
    let mut delta = psi.to_vec();
    for (g, group) in statistics_groups(port.norm, port.locations())
        .into_iter()
        .enumerate()
    {
        let rows = group.start * batch..group.end * batch;
        let count = rows.len() as f64;
        for c in 0..channels {
            let at = |r: usize| r * channels + c;
            let mean = rows.clone().map(|r| psi[at(r)]).sum::<f64>() / count;
            let along = rows
                .clone()
                .map(|r| psi[at(r)] * record.z[at(r)])
                .sum::<f64>()
                / count;
            for r in rows.clone() {
                delta[at(r)] = record.inverse_deviation[g * channels + c]
                    * (psi[at(r)] - mean - record.z[at(r)] * along);
            }
        }
    }
    delta
}

fn times_slope(activation: Activation, z: &[f64], signal: &mut [f64]) {
    for (s, &z) in signal.iter_mut().zip(z) {
        *s *= activation.slope(z);
    }
}

fn land(port: &Layer, batch: usize, psi: &[f64], landing: Landing<'_, Vec<f64>>) {
    let delta = norm_transposed(port, batch, landing.record, psi);
    landing.delta[..delta.len()].copy_from_slice(&delta);
}

/// `Σ_(tap, src) panel(src) · W[tap]` for every destination.
fn gather(layer: &Layer, batch: usize, weight: &[f64], input: &[f64]) -> Vec<f64> {
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let mut out = vec![0.0; layer.locations() * batch * outputs];
    for dst in 0..layer.locations() {
        for link in layer.wiring.forward().of(dst) {
            for b in 0..batch {
                let row = &mut out[(dst * batch + b) * outputs..][..outputs];
                for i in 0..inputs {
                    let x = input[(link.location as usize * batch + b) * inputs + i];
                    let w = &weight[(link.tap as usize * inputs + i) * outputs..][..outputs];
                    for (o, w) in row.iter_mut().zip(w) {
                        *o += x * w;
                    }
                }
            }
        }
    }
    out
}

/// `Σ_(tap, dst) panel(dst) · W[tap]ᵀ` for every source.
fn gather_transposed(layer: &Layer, batch: usize, weight: &[f64], delta: &[f64]) -> Vec<f64> {
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let mut out = vec![0.0; layer.sources() * batch * inputs];
    for src in 0..layer.sources() {
        for link in layer.wiring.backward().of(src) {
            for b in 0..batch {
                let d = &delta[(link.location as usize * batch + b) * outputs..][..outputs];
                for i in 0..inputs {
                    let w = &weight[(link.tap as usize * inputs + i) * outputs..][..outputs];
                    out[(src * batch + b) * inputs + i] +=
                        d.iter().zip(w).map(|(d, w)| d * w).sum::<f64>();
                }
            }
        }
    }
    out
}

impl Backend for Reference {
    type Buffer = Vec<f64>;

    fn device(&self) -> String {
        "cpu (reference)".into()
    }

    fn precision(&self) -> &'static str {
        "f64"
    }

    fn zeros(&self, len: usize) -> Vec<f64> {
        vec![0.0; len]
    }

    fn write(&self, values: &[f64], to: &mut Vec<f64>) {
        to[..values.len()].copy_from_slice(values);
    }

    fn write_f32(&self, values: &[f32], to: &mut Vec<f64>) {
        for (to, &v) in to[..values.len()].iter_mut().zip(values) {
            *to = f64::from(v);
        }
    }

    fn copy(&self, len: usize, from: &Vec<f64>, to: &mut Vec<f64>) {
        to[..len].copy_from_slice(&from[..len]);
    }

    fn read(&self, from: &Vec<f64>) -> Vec<f64> {
        from.clone()
    }

    fn forward_pass(&self, pass: ForwardPass<'_, Vec<f64>>, out: &mut Record<Vec<f64>>) {
        let ForwardPass {
            layer,
            batch,
            weight,
            bias,
            input,
            ..
        } = pass;
        let mut z = gather(layer, batch, weight, input);
        for row in z.chunks_mut(layer.outputs) {
            for (z, b) in row.iter_mut().zip(bias) {
                *z = *z * layer.scale + b;
            }
        }
        normalise(layer, batch, &mut z, &mut out.inverse_deviation);
        for ((a, to), &z) in out.a.iter_mut().zip(&mut out.z).zip(&z) {
            *a = layer.activation.value(z);
            *to = z;
        }
    }

    fn pool(
        &self,
        locations: usize,
        batch: usize,
        channels: usize,
        input: &Vec<f64>,
        out: &mut Vec<f64>,
    ) {
        let size = batch * channels;
        for (i, out) in out[..size].iter_mut().enumerate() {
            *out = (0..locations).map(|l| input[l * size + i]).sum::<f64>() / locations as f64;
        }
    }

    fn loss(
        &self,
        labels: &[u32],
        classes: usize,
        shift: f64,
        output: &Vec<f64>,
        error: &mut Vec<f64>,
    ) -> LossReport {
        let count = (labels.len() * classes) as f64;
        let mut report = LossReport {
            loss: 0.0,
            correct: 0,
        };
        for (b, &label) in labels.iter().enumerate() {
            let f = &output[b * classes..][..classes];
            let mut best = 0;
            for (k, &value) in f.iter().enumerate() {
                let target = f64::from(u8::from(k == label as usize)) - shift;
                error[b * classes + k] = 2.0 * (value - target) / count;
                report.loss += (value - target).powi(2) / count;
                if value > f[best] {
                    best = k;
                }
            }
            report.correct += usize::from(best == label as usize);
        }
        report
    }

    fn transposed(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &Vec<f64>,
        delta: &Vec<f64>,
        out: &mut Vec<f64>,
    ) {
        let signal = gather_transposed(layer, batch, weight, delta);
        for (out, s) in out.iter_mut().zip(signal) {
            *out = layer.scale * s;
        }
    }

    fn feedback(
        &self,
        layer: &Layer,
        port: &Layer,
        batch: usize,
        weight: &Vec<f64>,
        delta: &Vec<f64>,
        path: Landing<'_, Vec<f64>>,
        local: Option<Landing<'_, Vec<f64>>>,
    ) {
        let mut psi = gather_transposed(layer, batch, weight, delta);
        for p in &mut psi {
            *p *= layer.scale;
        }
        times_slope(port.activation, &path.record.z, &mut psi);
        land(port, batch, &psi, path);
        if let Some(local) = local {
            land(port, batch, &psi, local);
        }
    }

    fn pool_feedback(
        &self,
        port: &Layer,
        batch: usize,
        signal: &Vec<f64>,
        landing: Landing<'_, Vec<f64>>,
    ) {
        let size = batch * port.outputs;
        let mut psi: Vec<f64> = (0..port.locations() * size)
            .map(|i| signal[i % size] / port.locations() as f64)
            .collect();
        times_slope(port.activation, &landing.record.z, &mut psi);
        land(port, batch, &psi, landing);
    }

    fn direct_feedback(
        &self,
        direct: &Layer,
        port: &Layer,
        batch: usize,
        weight: &Vec<f64>,
        error: &Vec<f64>,
        landing: Landing<'_, Vec<f64>>,
    ) {
        let mut psi = gather(direct, batch, weight, error);
        for p in &mut psi {
            *p *= direct.scale;
        }
        times_slope(port.activation, &landing.record.z, &mut psi);
        land(port, batch, &psi, landing);
    }

    fn weight_gradient(
        &self,
        layer: &Layer,
        batch: usize,
        input: &Vec<f64>,
        delta: &Vec<f64>,
        weight_gradient: &mut Vec<f64>,
        bias_gradient: &mut Vec<f64>,
    ) {
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        weight_gradient[..layer.weights()].fill(0.0);
        bias_gradient[..outputs].fill(0.0);
        for dst in 0..layer.locations() {
            for b in 0..batch {
                let d = &delta[(dst * batch + b) * outputs..][..outputs];
                for (sum, d) in bias_gradient.iter_mut().zip(d) {
                    *sum += d;
                }
                for link in layer.wiring.forward().of(dst) {
                    for i in 0..inputs {
                        let x = input[(link.location as usize * batch + b) * inputs + i];
                        let row = (link.tap as usize * inputs + i) * outputs;
                        for (g, d) in weight_gradient[row..][..outputs].iter_mut().zip(d) {
                            *g += layer.scale * x * d;
                        }
                    }
                }
            }
        }
    }

    fn recur(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: CellWeights<'_, Vec<f64>>,
        input: &Vec<f64>,
        record: &mut Record<Vec<f64>>,
    ) {
        let &RecurrentCell {
            steps,
            inputs,
            width,
            ..
        } = cell;
        for row in 0..steps * batch {
            for j in 0..width {
                let drive: f64 = (0..inputs)
                    .map(|i| input[row * inputs + i] * weights.input[i * width + j])
                    .sum();
                let recurrent: f64 = (0..width)
                    .map(|i| record.a[row * width + i] * weights.hidden[i * width + j])
                    .sum();
                let z = drive + cell.scale * recurrent + weights.bias[j];
                record.z[row * width + j] = z;
                record.a[(row + batch) * width + j] = cell.activation.value(z);
            }
        }
    }

    fn recur_feedback(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &Vec<f64>,
        signal: &Vec<f64>,
        unrolled: Unrolled<'_, Vec<f64>>,
        local: Option<Landing<'_, Vec<f64>>>,
    ) {
        let width = cell.width;
        let Unrolled {
            path,
            delta,
            carried,
        } = unrolled;
        let mut local = local;
        let size = batch * width;
        for t in (0..=cell.steps).rev() {
            for b in 0..batch {
                for i in 0..width {
                    let at = t * size + b * width + i;
                    carried[at] = if t == cell.steps {
                        0.0
                    } else {
                        let next = &delta[t * size + b * width..][..width];
                        let weights = &hidden[i * width..][..width];
                        cell.scale * next.iter().zip(weights).map(|(d, w)| d * w).sum::<f64>()
                    };
                }
            }
            if t == 0 {
                break;
            }
            for at in t * size..(t + 1) * size {
                let here = at - size;
                let slope = cell.activation.slope(path.z[here]);
                delta[here] = slope * (signal[at] + carried[at]);
                if let Some(local) = &mut local {
                    local.delta[here] = cell.activation.slope(local.record.z[here]) * carried[at];
                }
            }
        }
    }

    fn sequence_loss(
        &self,
        targets: &[f32],
        batch: usize,
        output: &Vec<f64>,
        error: &mut Vec<f64>,
    ) -> f64 {
        let mut loss = 0.0;
        for ((&target, &o), e) in targets.iter().zip(output).zip(error) {
            let difference = o - f64::from(target);
            *e = 2.0 * difference / batch as f64;
            loss += difference * difference / batch as f64;
        }
        loss
    }

    fn sign(&self, scale: f64, weight: &Vec<f64>, out: &mut Vec<f64>) {
        for (out, &w) in out.iter_mut().zip(weight) {
            *out = if w == 0.0 { 0.0 } else { scale.copysign(w) };
        }
    }

    fn sgd(&self, rate: f64, gradient: &Vec<f64>, weight: &mut Vec<f64>) {
        for (w, g) in weight.iter_mut().zip(gradient) {
            *w -= rate * g;
        }
    }

    fn adam(
        &self,
        step: AdamStep,
        gradient: &Vec<f64>,
        first: &mut Vec<f64>,
        second: &mut Vec<f64>,
        weight: &mut Vec<f64>,
    ) {
        for (((w, g), m), v) in weight.iter_mut().zip(gradient).zip(first).zip(second) {
            *m = step.beta1 * *m + (1.0 - step.beta1) * g;
            *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
            *w -= step.rate * *m / (v.sqrt() + step.epsilon);
        }
    }
}
