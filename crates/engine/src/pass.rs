//! Forward passes, and everything they leave behind for learning.

use crate::network::Network;
use sansprop_kernels::{Backend, ForwardPass, Kept, Layer, Record};
use std::mem;

/// Weights and biases of every layer, head last, on a backend.
pub struct Weights<B: Backend> {
    /// `[tap, in, out]` of each layer.
    pub weight: Vec<B::Buffer>,
    /// `[out]` of each layer.
    pub bias: Vec<B::Buffer>,
}

impl<B: Backend> Clone for Weights<B> {
    fn clone(&self) -> Self {
        Self {
            weight: self.weight.clone(),
            bias: self.bias.clone(),
        }
    }
}

impl<B: Backend> Weights<B> {
    /// Uploads drawn weights; biases are 0.
    pub fn from_draw(backend: &B, network: &Network, weights: &[Vec<f32>]) -> Self {
        Self {
            weight: weights.iter().map(|w| upload(backend, w)).collect(),
            bias: network
                .layers()
                .iter()
                .map(|layer| backend.zeros(layer.outputs))
                .collect(),
        }
    }

    /// Zeros of the network's shape: a place for gradients.
    pub fn zeros(backend: &B, network: &Network) -> Self {
        let layers = network.layers();
        Self {
            weight: layers.iter().map(|l| backend.zeros(l.weights())).collect(),
            bias: layers.iter().map(|l| backend.zeros(l.outputs)).collect(),
        }
    }
}

/// A buffer that holds `values`.
pub fn upload<B: Backend>(backend: &B, values: &[f32]) -> B::Buffer {
    let mut buffer = backend.zeros(values.len());
    backend.write_f32(values, &mut buffer);
    buffer
}

/// What one network's forward pass leaves behind on one minibatch.
pub struct Pass<B: Backend> {
    /// z, inverse deviation and a of every hidden layer.
    pub hidden: Vec<Record<B::Buffer>>,
    /// Mean of the last hidden layer over its locations, `[batch, channel]`: the head's input.
    pub pooled: B::Buffer,
    /// The head's record; its `a` is the network's output f, `[batch, class]`.
    pub head: Record<B::Buffer>,
}

impl<B: Backend> Pass<B> {
    /// Room for minibatches of up to `batch` samples.
    pub fn new(backend: &B, network: &Network, batch: usize) -> Self {
        let record = |layer: &Layer| {
            let len = layer.locations() * batch * layer.outputs;
            Record {
                z: backend.zeros(len),
                inverse_deviation: backend.zeros(layer.deviations()),
                a: backend.zeros(len),
            }
        };
        Self {
            hidden: network.hidden().iter().map(record).collect(),
            pooled: backend.zeros(batch * network.head().inputs),
            head: record(network.head()),
        }
    }

    /// Runs the network on `input`, `[location, batch, channel]`.
    pub fn run(
        &mut self,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        input: &B::Buffer,
    ) {
        self.run_from(0, backend, network, weights, batch, input);
    }

    /// Runs layer `first` and those above it on what the layers below left behind in an earlier run.
    pub fn run_from(
        &mut self,
        first: usize,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        input: &B::Buffer,
    ) {
        for (l, layer) in network.hidden().iter().enumerate().skip(first) {
            let (weight, bias) = (&weights.weight[l], &weights.bias[l]);
            let (source, to) = self.source_and_place(l, input);
            backend.forward(layer, batch, weight, bias, source, to);
        }
        let last = self.hidden.len().checked_sub(1);
        self.finish(last, backend, network, weights, batch, input);
    }

    /// What hidden layer `l` runs on, which the one below left behind, or the input; and its own place.
    fn source_and_place<'a>(
        &'a mut self,
        l: usize,
        input: &'a B::Buffer,
    ) -> (&'a B::Buffer, &'a mut Record<B::Buffer>) {
        let (before, rest) = self.hidden.split_at_mut(l);
        (
            before.last().map_or(input, |record| &record.a),
            &mut rest[0],
        )
    }

    /// Runs the network for every layer's z and inverse deviation, and its outputs: activations are of no use afterwards.
    /// They take the places of the first two layers' in turn, of which caches keep more than of a place for each; no layer is
    /// larger than those below it.
    pub fn run_for_slopes(
        &mut self,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        input: &B::Buffer,
    ) {
        for (l, layer) in network.hidden().iter().enumerate() {
            self.exchange_activations(l);
            let (weight, bias) = (&weights.weight[l], &weights.bias[l]);
            let (source, to) = self.source_and_place(l, input);
            let pass = ForwardPass {
                layer,
                batch,
                weight,
                bias,
                input: source,
                kept: Kept::Slopes,
            };
            backend.forward_pass(pass, to);
        }
        let last = self.hidden.len().checked_sub(1);
        self.finish(last, backend, network, weights, batch, input);
        for l in (0..self.hidden.len()).rev() {
            self.exchange_activations(l);
        }
    }

    /// Exchanges the place of a layer's activations with that of the layer two below, if there is one.
    fn exchange_activations(&mut self, layer: usize) {
        let (below, rest) = self.hidden.split_at_mut(layer);
        if let Some(other) = layer.checked_sub(2) {
            mem::swap(&mut below[other].a, &mut rest[0].a);
        }
    }

    /// Runs the network for its outputs alone, and the head's input: what hidden layers leave behind is of no use
    /// afterwards. They write to the places of the first two in turn, of which caches keep more than of a place for each;
    /// no layer is larger than those below it.
    pub fn run_for_output(
        &mut self,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        input: &B::Buffer,
    ) {
        for (l, layer) in network.hidden().iter().enumerate() {
            let (weight, bias) = (&weights.weight[l], &weights.bias[l]);
            let (first, second) = self.hidden.split_at_mut(1);
            let (input, to) = match l {
                0 => (input, &mut first[0]),
                _ if l.is_multiple_of(2) => (&second[0].a, &mut first[0]),
                _ => (&first[0].a, &mut second[0]),
            };
            let pass = ForwardPass {
                layer,
                batch,
                weight,
                bias,
                input,
                kept: Kept::Nothing,
            };
            backend.forward_pass(pass, to);
        }
        let last = network.hidden().len().checked_sub(1).map(|l| l % 2);
        self.finish(last, backend, network, weights, batch, input);
    }

    /// Runs pool and head on what hidden layer `last` left behind, or on the input.
    fn finish(
        &mut self,
        last: Option<usize>,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        input: &B::Buffer,
    ) {
        let last = last.map_or(input, |l| &self.hidden[l].a);
        let (locations, channels) = (network.pooled_locations(), network.head().inputs);
        backend.pool(locations, batch, channels, last, &mut self.pooled);
        run_head(
            backend,
            network,
            weights,
            batch,
            &self.pooled,
            &mut self.head,
        );
    }

    /// Runs the head alone on what the hidden layers of another pass left behind, which keeps them.
    pub fn run_head_on(
        &mut self,
        hidden: &Self,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
    ) {
        run_head(
            backend,
            network,
            weights,
            batch,
            &hidden.pooled,
            &mut self.head,
        );
    }

    /// The network's outputs f, `[batch, class]`.
    pub fn output(&self) -> &B::Buffer {
        &self.head.a
    }

    /// What feeds layer `l`: the input for layer 0, the pooled activation for the head.
    pub fn input_of<'a>(&'a self, layer: usize, input: &'a B::Buffer) -> &'a B::Buffer {
        if layer == self.hidden.len() {
            &self.pooled
        } else if layer == 0 {
            input
        } else {
            &self.hidden[layer - 1].a
        }
    }
}

fn run_head<B: Backend>(
    backend: &B,
    network: &Network,
    weights: &Weights<B>,
    batch: usize,
    pooled: &B::Buffer,
    record: &mut Record<B::Buffer>,
) {
    let at = network.hidden().len();
    let (weight, bias) = (&weights.weight[at], &weights.bias[at]);
    backend.forward(network.head(), batch, weight, bias, pooled, record);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageShape;
    use crate::init::{FeedbackDraw, draw};
    use crate::network::{Architecture, NetworkSpec, Parameterization};
    use sansprop_kernels::{Activation, CpuBackend, Norm};

    /// Oracle: the whole pass, bit by bit.
    #[test]
    fn outputs_alone_are_those_of_the_whole_pass() {
        let backend = CpuBackend::new(2).expect("the CPU");
        let strides = |strides: &[usize]| Architecture::Conv {
            strides: strides.to_vec(),
        };
        let architectures = [
            strides(&[1]),
            strides(&[1, 2, 1]),
            strides(&[2, 1, 2, 1]),
            Architecture::Dense { depth: 3 },
        ];
        for (architecture, norm) in architectures
            .into_iter()
            .flat_map(|a| [Norm::Location, Norm::Channel, Norm::None].map(|n| (a.clone(), n)))
        {
            let network = Network::new(NetworkSpec {
                input: ImageShape {
                    height: 5,
                    width: 6,
                    channels: 3,
                },
                classes: 4,
                architecture,
                width: 10,
                activation: Activation::Tanh,
                norm,
                parameterization: Parameterization::Ntk,
            })
            .expect("a network");
            let batch = 7;
            let drawn = draw(&network, 3, FeedbackDraw::None);
            let weights = Weights::from_draw(&backend, &network, &drawn.weights);
            let (locations, channels) = network.input_panels();
            let values = (0..locations * batch * channels).map(|i| (i * 37 % 101) as f32 / 50.0);
            let input = upload(&backend, &values.collect::<Vec<_>>());
            let mut whole = Pass::new(&backend, &network, batch);
            whole.run(&backend, &network, &weights, batch, &input);
            let mut alone = Pass::new(&backend, &network, batch);
            alone.run_for_output(&backend, &network, &weights, batch, &input);
            let read = |pass: &Pass<CpuBackend>| {
                [&pass.pooled, pass.output()].map(|values| backend.read(values))
            };
            assert_eq!(read(&alone), read(&whole), "{:?}", network.spec());
            assert!(read(&whole)[1].iter().all(|f| *f != 0.0));
        }
    }
}
