//! What one training step costs, counted from the network's shape and the rule's row of the table.
//!
//! A step is that of a trial alone: the minibatch is loaded, the network runs, the initial network runs if the rule
//! looks at it, the error comes back as the rule says, the layers that the rule trains get their weight gradients,
//! and the optimiser updates them.
//!
//! **Operations.** Products are counted as they are written, two for each multiply-add, whatever a backend does to
//! save some (tiles): with B samples, a layer of n links between locations has `n · inputs · outputs · B`
//! multiply-adds in the forward pass, as many in its feedback, and as many in its weight gradient; direct feedback
//! has `locations · classes · outputs · B`, a recurrent cell `steps · B · width · (inputs + width)`. Beside the
//! products each value costs a constant:
//!
//! | value | operations |
//! |---|---|
//! | pre-activation | 2: scale, bias |
//! | norm | 6: mean (1), squared deviation (3), z (2) |
//! | activation, or its slope | 1, whichever function it is; none where it is linear |
//! | feedback signal | 1: scale; in a recurrent network 1 more: what later steps carry is added |
//! | normᵀ | 7: two means (3), difference and factor (4) |
//! | pooled activation | 1 for each value that is averaged |
//! | output in the loss | 4: difference, error, square, sum |
//! | weight gradient | 1 for each weight (scale), 1 for each local signal that is summed for the bias |
//! | sign of a weight | 1 |
//! | update | SGD 2, Adam 12 |
//!
//! **Bytes.** Every kernel reads each panel, weight, bias, deviation and gradient that it needs once, and writes each
//! once that it makes, as if nothing stayed in a cache between two kernels and everything did within one:
//!
//! | kernel | reads | writes |
//! |---|---|---|
//! | load | minibatch | minibatch |
//! | forward | input panels, weights, biases | z, a, deviations |
//! | pool | a of the last hidden layer | pooled a |
//! | loss | outputs | errors |
//! | transposed head | weights, errors | signal |
//! | feedback | weights, δ of the layer above; z, deviations | δ |
//! | pool feedback | signal; z, deviations | δ |
//! | direct feedback | its weights, errors; z, deviations | δ |
//! | weight gradient | input panels, δ | gradients |
//! | recurrent pass | weights, biases, x, h of the step before | z, h |
//! | recurrent feedback | W_h, signal, δ of the step after; z | δ, what is carried |
//! | sign | weights | signs |
//! | SGD | gradients, weights | weights |
//! | Adam | gradients, two moments, weights | two moments, weights |
//!
//! All numbers count as many bytes, also those that a backend keeps in fewer under `bf16`.
//!
//! Where the path and the local factors belong to different networks (align-ada), a signal lands twice: z,
//! deviations and δ count twice, the product once. A pass that no update looks at (align-zero's of the current network,
//! last-layer's) leaves no z. Labels and targets are not counted.

use crate::cohort::TrialSpec;
use crate::model::Model;
use crate::network::Network;
use crate::optim::Optimizer;
use crate::recurrent::{HIDDEN, INPUT, READOUT, RecurrentNetwork};
use crate::rule::{Feedback, FeedbackWeights, Rule};
use sansprop_kernels::{Activation, Layer, Norm, RecurrentCell};
use std::iter::Sum;
use std::ops::Add;

/// What one training step costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Floating point operations, products by direct arithmetic.
    pub flops: u64,
    /// Bytes that kernels read and write.
    pub bytes: u64,
}

/// The cost of one step of a trial alone on `batch` samples, with `value_bytes` bytes a number (f32: 4).
pub fn step_cost(model: &Model, spec: &TrialSpec, batch: usize, value_bytes: usize) -> Cost {
    let step = match model {
        Model::FeedForward(network) => feed_forward(network, &spec.rule, batch),
        Model::Recurrent(network) => recurrent(network, &spec.rule, batch),
    };
    let trained = model.trained(&spec.rule).into_iter();
    let trained = trained.map(|tensor| model.len(tensor)).sum();
    let all = step + update(spec.optimizer, trained);
    Cost {
        flops: (2 * all.multiply_adds + all.operations) as u64,
        bytes: (all.values * value_bytes) as u64,
    }
}

/// What a kernel does: multiply-adds, other operations, and numbers read and written.
#[derive(Clone, Copy, Default)]
struct Work {
    multiply_adds: usize,
    operations: usize,
    values: usize,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            multiply_adds: self.multiply_adds + other.multiply_adds,
            operations: self.operations + other.operations,
            values: self.values + other.values,
        }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Numbers that are moved, without arithmetic.
fn moved(values: usize) -> Work {
    Work {
        values,
        ..Work::default()
    }
}

fn feed_forward(network: &Network, rule: &Rule, batch: usize) -> Work {
    let (locations, channels) = network.input_panels();
    let (head, hidden) = (network.head(), network.hidden());
    let layers = network.layers().iter();
    let pass = layers.map(|layer| forward(layer, batch)).sum::<Work>()
        + pool(network.pooled_locations(), batch, head.inputs);
    let z: usize = hidden.iter().map(|layer| panel(layer, batch)).sum();
    let current = match rule.needs_current_pass() {
        true => pass,
        false => Work {
            values: pass.values - z,
            ..pass
        },
    };
    let passes = match rule.needs_initial_pass() {
        true => current + pass,
        false => current,
    };
    let way_back = match rule.feedback {
        Feedback::Off => Work::default(),
        Feedback::Direct => (0..hidden.len())
            .map(|l| direct(&network.direct_layer(l), &hidden[l], batch))
            .sum(),
        Feedback::Chain { .. } => chain(network, rule, batch),
    };
    let trained = match rule.trains_hidden_layers() {
        true => network.layers(),
        false => std::slice::from_ref(head),
    };
    let gradients: Work = trained.iter().map(|l| gradient(l, batch)).sum();
    let input = moved(2 * locations * channels * batch);
    input + passes + loss(batch * head.outputs) + way_back + gradients
}

/// The error's way from the head down to the first layer.
fn chain(network: &Network, rule: &Rule, batch: usize) -> Work {
    let hidden = network.hidden();
    let Some(last) = hidden.last() else {
        return Work::default();
    };
    let landings = landings(rule);
    let pool_feedback = Work {
        operations: panel(last, batch),
        ..moved(batch * last.outputs)
    };
    let top = pool_feedback + landing(last, batch);
    let steps = hidden.windows(2).map(|pair| {
        let (port, above) = (&pair[0], &pair[1]);
        let product = Work {
            multiply_adds: above.multiply_adds(batch),
            operations: panel(port, batch),
            values: above.weights() + panel(above, batch),
        };
        times(landings, landing(port, batch)) + product
    });
    let above_the_first = network.layers().iter().skip(1).map(Layer::weights);
    let signs = signs(rule, above_the_first.sum());
    transposed(network.head(), batch) + times(landings, top) + steps.sum() + signs
}

fn recurrent(network: &RecurrentNetwork, rule: &Rule, batch: usize) -> Work {
    let (cell, layers) = (network.cell(), network.layers());
    let state = moved(2 * batch * cell.width);
    let pass = state + recur(cell, batch) + forward(&layers[READOUT], batch);
    let passes = match rule.needs_initial_pass() {
        true => pass + pass,
        false => pass,
    };
    // Without feedback the error still travels back, for the initial state alone; under direct feedback it does not,
    // and the initial state stays.
    let way_back = match rule.feedback {
        Feedback::Direct => {
            let port = Layer {
                activation: cell.activation,
                ..network.direct_layer().clone()
            };
            direct(network.direct_layer(), &port, batch)
        }
        Feedback::Off | Feedback::Chain { .. } => {
            let weights = layers[HIDDEN].weights() + layers[READOUT].weights();
            transposed(&layers[READOUT], batch)
                + recur_feedback(cell, batch, landings(rule))
                + signs(rule, weights)
                + state
        }
    };
    let trained: &[usize] = match rule.trains_hidden_layers() {
        true => &[INPUT, HIDDEN, READOUT],
        false => &[READOUT],
    };
    let gradients: Work = trained.iter().map(|&l| gradient(&layers[l], batch)).sum();
    let input = moved(2 * cell.steps * batch * cell.inputs);
    input + passes + loss(cell.steps * batch) + way_back + gradients
}

/// How many networks a signal lands on: two where the path and the local factors belong to different ones.
fn landings(rule: &Rule) -> usize {
    match rule.feedback {
        Feedback::Chain { slopes, .. } if slopes != rule.local => 2,
        Feedback::Chain { .. } | Feedback::Direct | Feedback::Off => 1,
    }
}

fn times(count: usize, work: Work) -> Work {
    (0..count).map(|_| work).sum()
}

/// Values of all destination panels.
fn panel(layer: &Layer, batch: usize) -> usize {
    layer.locations() * batch * layer.outputs
}

/// Values of the source panels that the wiring reads.
fn read(layer: &Layer, batch: usize) -> usize {
    let feeds = |source: &usize| !layer.wiring.backward().of(*source).is_empty();
    (0..layer.sources()).filter(feeds).count() * batch * layer.inputs
}

fn activation(activation: Activation) -> usize {
    match activation {
        Activation::Relu | Activation::Tanh | Activation::Erf => 1,
        Activation::Linear => 0,
    }
}

fn forward(layer: &Layer, batch: usize) -> Work {
    let norm = match layer.norm {
        Norm::Location | Norm::Channel => 6,
        Norm::None => 0,
    };
    let panel = panel(layer, batch);
    let weights = layer.weights() + layer.outputs;
    Work {
        multiply_adds: layer.multiply_adds(batch),
        operations: panel * (2 + norm + activation(layer.activation)),
        values: read(layer, batch) + weights + 2 * panel + layer.deviations(),
    }
}

fn pool(locations: usize, batch: usize, channels: usize) -> Work {
    let values = locations * batch * channels;
    Work {
        operations: values,
        ..moved(values + batch * channels)
    }
}

fn loss(outputs: usize) -> Work {
    Work {
        operations: 4 * outputs,
        ..moved(2 * outputs)
    }
}

fn transposed(layer: &Layer, batch: usize) -> Work {
    let signal = layer.sources() * batch * layer.inputs;
    Work {
        multiply_adds: layer.multiply_adds(batch),
        operations: signal,
        values: layer.weights() + panel(layer, batch) + signal,
    }
}

/// A signal at hand meets one network's σ′ and normᵀ.
fn landing(port: &Layer, batch: usize) -> Work {
    let norm = match port.norm {
        Norm::Location | Norm::Channel => 7,
        Norm::None => 0,
    };
    let panel = panel(port, batch);
    Work {
        operations: panel * (activation(port.activation) + norm),
        ..moved(2 * panel + port.deviations())
    }
}

fn direct(wires: &Layer, port: &Layer, batch: usize) -> Work {
    let product = Work {
        multiply_adds: wires.multiply_adds(batch),
        operations: panel(port, batch),
        values: wires.weights() + read(wires, batch),
    };
    product + landing(port, batch)
}

fn gradient(layer: &Layer, batch: usize) -> Work {
    let panel = panel(layer, batch);
    Work {
        multiply_adds: layer.multiply_adds(batch),
        operations: panel + layer.weights(),
        values: read(layer, batch) + panel + layer.weights() + layer.outputs,
    }
}

fn recur(cell: &RecurrentCell, batch: usize) -> Work {
    let (rows, width) = (cell.steps * batch, cell.width);
    let weights = (cell.inputs + width) * width + width;
    Work {
        multiply_adds: rows * width * (cell.inputs + width),
        operations: rows * width * (2 + activation(cell.activation)),
        values: weights + rows * cell.inputs + 3 * rows * width,
    }
}

fn recur_feedback(cell: &RecurrentCell, batch: usize, landings: usize) -> Work {
    let (states, width) = (cell.steps * batch * cell.width, cell.width);
    // The signal, what is carried (to the initial state too), and the path's δ read for the step before.
    let path = 3 * states + batch * width;
    Work {
        multiply_adds: states * width,
        operations: states * (2 + landings * activation(cell.activation)),
        values: width * width + path + landings * 2 * states,
    }
}

fn signs(rule: &Rule, weights: usize) -> Work {
    match rule.feedback_weights() {
        Some(FeedbackWeights::Sign) => Work {
            operations: weights,
            ..moved(2 * weights)
        },
        Some(FeedbackWeights::Current | FeedbackWeights::Initial | FeedbackWeights::Random)
        | None => Work::default(),
    }
}

fn update(optimizer: Optimizer, trained: usize) -> Work {
    let (operations, values) = match optimizer {
        Optimizer::Sgd { .. } => (2, 3),
        Optimizer::Adam { .. } => (12, 7),
    };
    Work {
        operations: operations * trained,
        ..moved(values * trained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageShape;
    use crate::network::{Architecture, NetworkSpec, Parameterization};

    fn network(spec: NetworkSpec) -> Model {
        Network::new(spec).expect("a network").into()
    }

    #[track_caller]
    fn check(
        model: &Model,
        optimizer: Optimizer,
        batch: usize,
        bytes: usize,
        right: &[(&str, u64, u64)],
    ) {
        for &(name, flops, values) in right {
            let rule = Rule::named(name).expect("a rule");
            let cost = step_cost(model, &TrialSpec { rule, optimizer }, batch, bytes);
            let right = Cost {
                flops,
                bytes: values * bytes as u64,
            };
            assert_eq!(cost, right, "{name}");
        }
    }

    /// Oracle: counted by hand. 2×2 pixels, 2 samples, one convolution 1 → 2 (16 links, 18 weights), head 2 → 3.
    ///
    /// Multiply-adds: convolution 64, head 12. Panels: input 8, hidden 16, pooled 4, output 6; deviations 8.
    /// (multiply-adds, operations, values) of the kernels:
    /// load (0, 0, 16); pass (76, 16·9 + 16 + 6·2 = 172, (8+18+2+32+8) + 20 + (4+6+3+12) = 113), without z 16 values
    /// less; loss (0, 24, 12);
    /// gradients of head (12, 6+6, 4+6+6+3) and convolution (64, 16+18, 8+16+18+2);
    /// transposed head (12, 4, 6+6+4); landing from the pool (0, 16 + 16·8, 4+16+8+16);
    /// direct feedback (48, 16 + 16·8, 6+24+16+8+16); SGD of 29 values (0, 58, 87), of the head's 9 (0, 18, 27).
    #[test]
    fn a_convolution() {
        let model = network(NetworkSpec {
            input: ImageShape {
                height: 2,
                width: 2,
                channels: 1,
            },
            classes: 3,
            architecture: Architecture::Conv { strides: vec![1] },
            width: 2,
            activation: Activation::Relu,
            norm: Norm::Location,
            parameterization: Parameterization::Ntk,
        });
        let right = [
            ("normal", 2 * (76 + 12 + 64 + 12) + 448, 351),
            (
                "align-zero",
                2 * (2 * 76 + 12 + 64 + 12) + 448 + 172,
                464 - 16,
            ),
            (
                "align-ada",
                2 * (2 * 76 + 12 + 64 + 12) + 448 + 172 + 144,
                508,
            ),
            ("last-layer", 2 * (76 + 12) + 226, 187 - 16),
            ("dfa", 2 * (76 + 12 + 64 + 48) + 444, 361),
        ];
        check(&model, Optimizer::Sgd { lr: 1.0 }, 2, 4, &right);
    }

    /// Oracle: counted by hand. One sample of 3 values, layers 3 → 2 → 2 → 2 with 6, 4 and 4 weights, no norm.
    ///
    /// load (0, 0, 6); pass (14, 6+6+2+4 = 18, 15+12+4+12 = 43), without z 4 values less; loss (0, 8, 4); gradients,
    /// first layer first, (6, 8, 13), (4, 6, 10), (4, 6, 10); transposed head (4, 2, 8); landing from the pool (0, 4, 6); feedback
    /// (4, 2 + 2, 4+2+2+2), a second landing there (0, 2, 4); signs of 8 weights (0, 8, 16); direct feedback to each
    /// layer (4, 4, 10); Adam of 20 values (0, 240, 140), of the head's 6 (0, 72, 42).
    #[test]
    fn dense_layers() {
        let model = network(NetworkSpec {
            input: ImageShape {
                height: 1,
                width: 3,
                channels: 1,
            },
            classes: 2,
            architecture: Architecture::Dense { depth: 2 },
            width: 2,
            activation: Activation::Tanh,
            norm: Norm::None,
            parameterization: Parameterization::Standard,
        });
        let right = [
            ("normal", 72 + 296, 250),
            ("fa", 72 + 296, 250),
            ("align-prop", 72 + 296, 250),
            ("sign-symmetry", 72 + 296 + 8, 266),
            ("align-ada", 72 + 28 + 296 + 18 + 4 + 2, 303),
            ("last-layer", 36 + 104, 105 - 4),
            ("dfa", 72 + 294, 246),
        ];
        check(&model, Optimizer::Adam { lr: 1.0 }, 1, 8, &right);
    }

    /// Oracle: counted by hand. 2 sequences of 3 steps, 2 units: 6 outputs, 12 states, 4 initial ones.
    ///
    /// load (0, 0, 12); pass (36 + 12, 36 + 12, 8 + (8+6+36) + (12+2+1+12) = 85); loss (0, 24, 12); gradients of W_i
    /// (12, 14, 22), W_h (24, 16, 30), W_o (12, 8, 21); transposed readout (12, 16, 2+6+16); through time
    /// (24, 24 + 12, 4 + 40 + 24), a second landing there (0, 12, 24), to the initial state's gradient (0, 0, 8);
    /// direct feedback (12, 24, 32); SGD of 15 values (0, 30, 45), of W_o, b_o and the initial state (0, 14, 21),
    /// of all but the initial state (0, 22, 33).
    #[test]
    fn a_recurrent_network() {
        let model: Model =
            RecurrentNetwork::new(2, 3, 2, Activation::Relu, Parameterization::Ntk).into();
        let right = [
            ("normal", 264 + 192, 327),
            ("align-ada", 264 + 96 + 192 + 48 + 12, 436),
            ("last-layer", 192 + 146, 251),
            ("dfa", 216 + 156, 247),
        ];
        check(&model, Optimizer::Sgd { lr: 1.0 }, 2, 4, &right);
    }
}
