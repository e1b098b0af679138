//! A network of any kind, as cohorts train it.

use crate::cohort::NamedTensor;
use crate::init::{FeedbackDraw, InitialDraw, draw};
use crate::learn::trained_layers;
use crate::network::Network;
use crate::pass::Weights;
use crate::recurrent::{self, RecurrentNetwork};
use crate::rule::Rule;
use sansprop_kernels::{Backend, Layer};

/// A network of any kind.
#[derive(Clone, Debug)]
pub enum Model {
    /// Convolutional or dense.
    FeedForward(Network),
    /// The recurrent network of the Add task.
    Recurrent(RecurrentNetwork),
}

impl From<Network> for Model {
    fn from(network: Network) -> Self {
        Self::FeedForward(network)
    }
}

impl From<RecurrentNetwork> for Model {
    fn from(network: RecurrentNetwork) -> Self {
        Self::Recurrent(network)
    }
}

/// One trained tensor: its index among the weights or among the biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trained {
    Weight(usize),
    Bias(usize),
}

impl Model {
    /// The feed-forward network, if it is one.
    pub fn feed_forward(&self) -> Option<&Network> {
        match self {
            Self::FeedForward(network) => Some(network),
            Self::Recurrent(_) => None,
        }
    }

    /// Every layer with its name, `layers.N` or the recurrent network's `input`, `hidden` and `readout`.
    pub fn layers(&self) -> Vec<(String, &Layer)> {
        match self {
            Self::FeedForward(network) => {
                let layers = network.layers().iter().enumerate();
                layers
                    .map(|(l, layer)| (format!("layers.{l}"), layer))
                    .collect()
            }
            Self::Recurrent(network) => {
                let names = ["input", "hidden", "readout"].map(String::from);
                names.into_iter().zip(network.layers()).collect()
            }
        }
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        match self {
            Self::FeedForward(network) => network.parameters(),
            Self::Recurrent(network) => network.parameters(),
        }
    }

    /// What is drawn before training.
    pub fn draw(&self, seed: u32, feedback: FeedbackDraw) -> InitialDraw {
        match self {
            Self::FeedForward(network) => draw(network, seed, feedback),
            Self::Recurrent(network) => network.draw(seed, feedback),
        }
    }

    /// Uploads drawn weights; biases (and the initial state) are 0.
    pub fn upload<B: Backend>(&self, backend: &B, weights: &[Vec<f32>]) -> Weights<B> {
        match self {
            Self::FeedForward(network) => Weights::from_draw(backend, network, weights),
            Self::Recurrent(network) => {
                let mut all = recurrent::zeros(backend, network);
                for (buffer, values) in all.weight.iter_mut().zip(weights) {
                    backend.write_f32(values, buffer);
                }
                all
            }
        }
    }

    /// The layers that carry errors straight to hidden units (direct feedback).
    pub(crate) fn direct_layers(&self) -> Vec<Layer> {
        match self {
            Self::FeedForward(network) => (0..network.hidden().len())
                .map(|l| network.direct_layer(l))
                .collect(),
            Self::Recurrent(network) => vec![network.direct_layer().clone()],
        }
    }

    /// The tensors that a rule trains, in the order of updates.
    pub(crate) fn trained(&self, rule: &Rule) -> Vec<Trained> {
        match self {
            Self::FeedForward(network) => trained_layers(rule, network)
                .flat_map(|l| [Trained::Weight(l), Trained::Bias(l)])
                .collect(),
            Self::Recurrent(_) => {
                let (weights, biases) = recurrent::trained(rule);
                let weights = weights.iter().map(|&i| Trained::Weight(i));
                weights
                    .chain(biases.iter().map(|&i| Trained::Bias(i)))
                    .collect()
            }
        }
    }

    /// Values in one trained tensor.
    pub(crate) fn len(&self, tensor: Trained) -> usize {
        match (self, tensor) {
            (Self::FeedForward(network), Trained::Weight(l)) => network.layers()[l].weights(),
            (Self::FeedForward(network), Trained::Bias(l)) => network.layers()[l].outputs,
            (Self::Recurrent(network), Trained::Weight(l)) => network.layers()[l].weights(),
            (Self::Recurrent(network), Trained::Bias(i)) => network.bias_lengths()[i],
        }
    }

    /// Names and shapes of all weights, of all biases, and of a rule's feedback weights.
    pub(crate) fn shapes(&self, feedback: FeedbackDraw) -> [Vec<(String, Vec<usize>)>; 3] {
        match self {
            Self::FeedForward(network) => {
                let layers = 0..network.layers().len();
                let name = |l: usize, what: &str| format!("layers.{l}.{what}");
                let weights = layers
                    .clone()
                    .map(|l| (name(l, "weight"), network.weight_shape(l)));
                let biases = layers
                    .clone()
                    .map(|l| (name(l, "bias"), vec![network.layers()[l].outputs]));
                let feedback_name = |l: usize| format!("feedback.{l}.weight");
                let feedback = match feedback {
                    FeedbackDraw::None => Vec::new(),
                    FeedbackDraw::Random => layers
                        .map(|l| (feedback_name(l), network.weight_shape(l)))
                        .collect(),
                    FeedbackDraw::Direct => (0..network.hidden().len())
                        .map(|l| {
                            let (height, width) = network.grid(l);
                            let classes = network.spec().classes;
                            let channels = network.layers()[l].outputs;
                            (feedback_name(l), vec![height, width, classes, channels])
                        })
                        .collect(),
                };
                [weights.collect(), biases.collect(), feedback]
            }
            Self::Recurrent(network) => {
                let m = network.cell().width;
                let named = |list: &[(&str, Vec<usize>)]| -> Vec<(String, Vec<usize>)> {
                    list.iter()
                        .map(|(name, shape)| (name.to_string(), shape.clone()))
                        .collect()
                };
                let feedback = match feedback {
                    FeedbackDraw::None => named(&[]),
                    FeedbackDraw::Random => named(&[
                        ("feedback.hidden.weight", vec![m, m]),
                        ("feedback.readout.weight", vec![m, 1]),
                    ]),
                    FeedbackDraw::Direct => named(&[("feedback.hidden.weight", vec![1, m])]),
                };
                [
                    named(&[
                        ("input.weight", vec![1, m]),
                        ("hidden.weight", vec![m, m]),
                        ("readout.weight", vec![m, 1]),
                    ]),
                    named(&[
                        ("hidden.bias", vec![m]),
                        ("readout.bias", vec![1]),
                        ("initial_state", vec![network.batch(), m]),
                    ]),
                    feedback,
                ]
            }
        }
    }
}

/// Pairs names and shapes with values read from a backend.
pub(crate) fn named_tensors<'a, B: Backend>(
    backend: &B,
    shapes: Vec<(String, Vec<usize>)>,
    buffers: impl Iterator<Item = &'a B::Buffer>,
) -> Vec<NamedTensor>
where
    B::Buffer: 'a,
{
    shapes
        .into_iter()
        .zip(buffers)
        .map(|((name, shape), buffer)| NamedTensor {
            name,
            shape,
            values: backend.read(buffer).into_iter().map(|v| v as f32).collect(),
        })
        .collect()
}
