//! Pooling, losses and optimiser steps: value by value, in strips that threads share.

use super::pointer::Pointer;
use super::threads::Threads;
use super::values::Value;
use crate::{AdamStep, LossReport};

/// Values that one thread handles at a time.
const STRIP: usize = 4096;

/// Runs `work(from, len)` over strips of `0..total`, where one value costs about `cost` multiply-adds.
fn strips(threads: &Threads, total: usize, cost: usize, work: impl Fn(usize, usize) + Send + Sync) {
    threads.for_each(total.div_ceil(STRIP), STRIP * cost, |_, strip| {
        let from = strip * STRIP;
        work(from, STRIP.min(total - from));
    });
}

/// Mean of the panels of `input`, each as long as `out`.
pub(super) fn mean_of_panels<E: Value>(threads: &Threads, input: &[E], out: &mut [f32]) {
    let size = out.len();
    let share = 1.0 / (input.len() / size) as f32;
    let out = Pointer::new(out);
    strips(threads, size, input.len() / size, |from, len| {
        // SAFETY: strips do not overlap.
        let out = unsafe { out.slice(from, len) };
        for (sum, &v) in out.iter_mut().zip(&input[from..][..len]) {
            *sum = v.into();
        }
        for panel in input.chunks_exact(size).skip(1) {
            for (sum, &v) in out.iter_mut().zip(&panel[from..]) {
                *sum += v.into();
            }
        }
        for v in out {
            *v *= share;
        }
    });
}

/// See [`crate::Backend::loss`].
pub(super) fn classification_loss(
    labels: &[u32],
    classes: usize,
    shift: f64,
    output: &[f32],
    error: &mut [f32],
) -> LossReport {
    let count = (labels.len() * classes) as f64;
    let mut report = LossReport {
        loss: 0.0,
        correct: 0,
    };
    let rows = output.chunks_exact(classes);
    let errors = error.chunks_exact_mut(classes);
    for ((f, e), &label) in rows.zip(errors).zip(labels) {
        let mut best = 0;
        for (k, (&value, e)) in f.iter().zip(e).enumerate() {
            let target = f64::from(u8::from(k == label as usize)) - shift;
            let difference = f64::from(value) - target;
            *e = (2.0 * difference / count) as f32;
            report.loss += difference * difference / count;
            if value > f[best] {
                best = k;
            }
        }
        report.correct += usize::from(best == label as usize);
    }
    report
}

/// See [`crate::Backend::sequence_loss`].
pub(super) fn sequence_loss(
    targets: &[f32],
    batch: usize,
    output: &[f32],
    error: &mut [f32],
) -> f64 {
    let mut loss = 0.0;
    for ((&target, &o), e) in targets.iter().zip(output).zip(error) {
        let difference = f64::from(o) - f64::from(target);
        *e = (2.0 * difference / batch as f64) as f32;
        loss += difference * difference / batch as f64;
    }
    loss
}

/// See [`crate::Backend::sign`].
pub(super) fn sign(scale: f64, weight: &[f32], out: &mut [f32]) {
    let scale = scale as f32;
    for (out, &w) in out.iter_mut().zip(weight) {
        *out = if w == 0.0 { 0.0 } else { scale.copysign(w) };
    }
}

/// See [`crate::Backend::sgd`].
pub(super) fn sgd(threads: &Threads, rate: f64, gradient: &[f32], weight: &mut [f32]) {
    let rate = rate as f32;
    let weight = Pointer::new(&mut weight[..gradient.len()]);
    strips(threads, gradient.len(), 1, |from, len| {
        // SAFETY: strips do not overlap.
        let weight = unsafe { weight.slice(from, len) };
        for (w, g) in weight.iter_mut().zip(&gradient[from..]) {
            *w -= rate * g;
        }
    });
}

/// Zero for what is closer to it than any normal number.
///
/// Where a gradient stays 0, rounding stops a moment's decay at a few times the smallest denormal, for good, and
/// arithmetic on denormals costs a multiple.
fn without_denormal(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// See [`crate::Backend::adam`]; the buffers are m, v and the weights.
pub(super) fn adam(threads: &Threads, step: AdamStep, gradient: &[f32], buffers: [&mut [f32]; 3]) {
    let (rate, epsilon) = (step.rate as f32, step.epsilon as f32);
    let (beta1, beta2) = (step.beta1 as f32, step.beta2 as f32);
    let (rest1, rest2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
    let len = gradient.len();
    let [first, second, weight] = buffers.map(|buffer| Pointer::new(&mut buffer[..len]));
    strips(threads, len, 8, |from, len| {
        // SAFETY: strips do not overlap, and the three buffers are distinct.
        let (first, second, weight) = unsafe {
            (
                first.slice(from, len),
                second.slice(from, len),
                weight.slice(from, len),
            )
        };
        let moments = first.iter_mut().zip(second);
        for ((w, g), (m, v)) in weight.iter_mut().zip(&gradient[from..]).zip(moments) {
            *m = without_denormal(beta1 * *m + rest1 * g);
            *v = without_denormal(beta2 * *v + rest2 * (g * g));
            *w -= rate * *m / (v.sqrt() + epsilon);
        }
    });
}
