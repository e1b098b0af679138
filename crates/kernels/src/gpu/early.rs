//! A trial of launches that begin early: whether a window of minibatches leaves what the same work leaves step by step.
//!
//! Within a recording, a launch may begin before that one has ended whose results it reads, and wait for it by itself. Where it
//! would not wait, it would find what an earlier minibatch left.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::trial::{filled, is_unwanted, record};
use super::work::MOST_MINIBATCHES;
use crate::{Activation, Backend, Layer, Norm, Record, Resident, Wiring};
use std::sync::Arc;

/// Samples that minibatches are drawn from.
const SAMPLES: usize = 64;

/// A network of three layers that learns, on the device.
struct Learner {
    layer: Layer,
    batch: usize,
    data: GpuBuffer,
    /// The minibatch and the next one.
    input: [GpuBuffer; 2],
    passes: [Record<GpuBuffer>; 3],
    weight: GpuBuffer,
    bias: GpuBuffer,
    gradient: [GpuBuffer; 2],
}

impl Learner {
    fn new(backend: &GpuBackend, [side, channels, batch]: [usize; 3]) -> Self {
        let layer = Layer {
            wiring: Arc::new(Wiring::conv3x3(side, side, 1)),
            inputs: channels,
            outputs: channels,
            scale: 0.1,
            norm: Norm::Location,
            activation: Activation::Relu,
        };
        let len = layer.sources() * batch * channels;
        Self {
            batch,
            data: filled(backend, SAMPLES * layer.sources() * channels, 5),
            input: [(); 2].map(|()| backend.zeros(len)),
            passes: [(); 3].map(|()| record(backend, &layer, batch)),
            weight: filled(backend, layer.weights(), 3),
            bias: backend.zeros(channels),
            gradient: [layer.weights(), channels].map(|len| backend.zeros(len)),
            layer,
        }
    }

    /// A forward pass, whose pooled outputs go to `out`, and a step of descent along a gradient.
    fn step(&mut self, backend: &GpuBackend, minibatch: usize, out: &mut GpuBuffer) {
        let (layer, batch) = (&self.layer, self.batch);
        let input = &mut self.input[minibatch % 2];
        backend.gather(&self.data, batch, layer.sources(), layer.inputs, input);
        let [first, second, third] = &mut self.passes;
        let (weight, bias) = (&self.weight, &self.bias);
        backend.forward(layer, batch, weight, bias, input, first);
        backend.forward(layer, batch, weight, bias, &first.a, second);
        backend.forward(layer, batch, weight, bias, &second.a, third);
        backend.pool(layer.locations(), batch, layer.outputs, &third.a, out);
        let [of_weight, of_bias] = &mut self.gradient;
        backend.weight_gradient(layer, batch, input, &third.a, of_weight, of_bias);
        backend.sgd(0.01, of_weight, &mut self.weight);
    }
}

impl GpuBackend {
    /// Lets launches begin early only if a trial of that comes out right; not at all if `SANSPROP_EARLY` is 0.
    ///
    /// # Errors
    /// A kernel of the trial failed so that the device cannot be used any more.
    pub(super) fn trying_early(mut self) -> Result<Self, String> {
        if !self.memory().begins_early() {
            return Ok(self);
        }
        const VARIABLE: &str = "SANSPROP_EARLY";
        if is_unwanted(VARIABLE) {
            self.memory().begin_in_turn();
            return Ok(self);
        }
        let trial = |backend: &mut Self| backend.windows_are_single_steps([16, 32, 20], 4);
        if !self.passes(trial, VARIABLE)? {
            self.memory().begin_in_turn();
            self.refuses_early = true;
        }
        Ok(self)
    }

    /// Whether so many windows, of a network with panels of such a side, so many channels and samples, leave the same bits as
    /// single steps.
    fn windows_are_single_steps(&self, sizes: [usize; 3], windows: usize) -> bool {
        let [_, channels, batch] = sizes;
        let mut outs =
            [(); MOST_MINIBATCHES].map(|()| GpuBuffer::empty(self.memory(), batch * channels));
        let minibatches = windows * MOST_MINIBATCHES;
        let places: Vec<u32> = (0..minibatches * batch)
            .map(|i| (i * 29 % SAMPLES) as u32)
            .collect();
        let mut learner = Learner::new(self, sizes);
        let single: Vec<Vec<f64>> = places
            .chunks(batch)
            .map(|of_one| {
                self.set_places(of_one);
                learner.step(self, 0, &mut outs[0]);
                self.read(&outs[0])
            })
            .collect();
        let mut learner = Learner::new(self, sizes);
        self.set_places(&places);
        let replay = self.record(MOST_MINIBATCHES, &mut |minibatch| {
            learner.step(self, minibatch, &mut outs[minibatch]);
        });
        single
            .chunks(MOST_MINIBATCHES)
            .enumerate()
            .all(|(window, single)| {
                replay(window * MOST_MINIBATCHES);
                outs.iter()
                    .map(|out| self.read(out))
                    .eq(single.iter().cloned())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::operands::Operands;
    use super::*;
    use std::path::Path;

    #[test]
    fn windows_of_the_trial_are_single_steps() {
        let emulated = GpuBackend::emulated(Path::new("c++"), true).expect("a compiler");
        let emulated = emulated.rounding(Operands::Bf16);
        assert!(emulated.windows_are_single_steps([4, 8, 3], 2));
    }

    /// The trial sees a step that does not learn: outputs depend on all steps before.
    #[test]
    fn steps_of_the_trial_differ() {
        let emulated = GpuBackend::emulated(Path::new("c++"), true).expect("a compiler");
        let emulated = emulated.rounding(Operands::F32);
        let mut learner = Learner::new(&emulated, [4, 8, 3]);
        let mut out = GpuBuffer::empty(emulated.memory(), 24);
        emulated.set_places(&[1, 2, 3]);
        let outs = [(); 3].map(|()| {
            learner.step(&emulated, 0, &mut out);
            emulated.read(&out)
        });
        assert!(outs[0] != outs[1] && outs[1] != outs[2]);
        assert!(outs.iter().flatten().all(|value| value.is_finite()));
    }
}
