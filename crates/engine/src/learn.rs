//! One update direction: the error goes down the feedback path of a rule and meets the local factors.
//!
//! There is no autodiff tape: these few lines are the backward pass of every rule. The signal travels from
//! port to port (docs/notation.md, Ports): the ports are the normalised pre-activations z_1 … z_L, the pooled activation
//! and the output f.

use crate::network::Network;
use crate::pass::{Pass, Weights};
use crate::rule::{Feedback, FeedbackWeights, Point, Rule};
use sansprop_kernels::{Backend, Landing, Layer, Signal, SignalGradient};

/// Feedback weights that a rule keeps for good.
pub enum FeedbackState<B: Backend> {
    /// None of its own.
    None,
    /// `fa`: one tensor per layer, head last, `[tap, in, out]`.
    Random(Vec<B::Buffer>),
    /// `dfa`: one tensor per hidden layer, `[location, class, channel]`, with the layers that wire them.
    Direct(Vec<(Layer, B::Buffer)>),
}

/// What an update is computed from.
pub struct Inputs<'a, B: Backend> {
    /// The network's shape.
    pub network: &'a Network,
    /// Samples in the minibatch.
    pub batch: usize,
    /// The minibatch, `[location, batch, channel]`.
    pub input: &'a B::Buffer,
    /// `e = ∇_f L` of the network being trained, `[batch, class]`.
    pub error: &'a B::Buffer,
    /// The weights now.
    pub weights: &'a Weights<B>,
    /// Forward pass of the network now.
    pub current: &'a Pass<B>,
    /// W⁽⁰⁾, for rules that need it.
    pub initial_weights: Option<&'a Weights<B>>,
    /// The initial network's forward pass on this minibatch, for rules that need it.
    pub initial: Option<&'a Pass<B>>,
    /// Feedback weights of the rule's own.
    pub feedback: &'a FeedbackState<B>,
}

impl<B: Backend> Inputs<'_, B> {
    fn pass(&self, point: Point) -> &Pass<B> {
        match point {
            Point::Current => self.current,
            Point::Initial => self
                .initial
                .expect("a rule that looks at the initial network is given its pass"),
        }
    }
}

/// Buffers that updates use and leave in no particular state.
pub struct Scratch<B: Backend> {
    /// Deltas of the feedback path, used in turn by the layers.
    path: Vec<B::Buffer>,
    /// Deltas of the local network where it is another, in the same way.
    local: Vec<B::Buffer>,
    signal: B::Buffer,
    sign: B::Buffer,
}

impl<B: Backend> Scratch<B> {
    /// Room for minibatches of up to `batch` samples.
    pub fn new(backend: &B, network: &Network, batch: usize) -> Self {
        let panels = |l: &Layer| l.locations() * batch * l.outputs;
        let largest = network.hidden().iter().map(panels).max().unwrap_or(0);
        let weights = network.layers().iter().map(Layer::weights).max();
        let layers = network.hidden();
        // A device that orders work by itself can leave gradients for later where deltas are not overwritten; a CPU
        // finds in its cache what was written last.
        let deltas = |few: usize| -> Vec<B::Buffer> {
            match backend.resident() {
                Some(_) => layers.iter().map(|l| backend.zeros(panels(l))).collect(),
                None => (0..few).map(|_| backend.zeros(largest)).collect(),
            }
        };
        Self {
            path: deltas(2),
            local: deltas(1),
            signal: backend.zeros(batch * network.head().inputs),
            sign: backend.zeros(weights.unwrap_or(0)),
        }
    }
}

/// Computes the update direction of `rule` for every layer that it trains; the optimiser subtracts it.
///
/// `∂W_l = (1/√fan_in) · Σ_batch normᵀ(ψ_l) ⊗ a_{l−1}`, `∂b_l = Σ_batch normᵀ(ψ_l)`. Gradients of layers that
/// the rule leaves alone are not touched; see [`trained_layers`].
pub fn update_direction<B: Backend>(
    backend: &B,
    rule: &Rule,
    inputs: &Inputs<'_, B>,
    scratch: &mut Scratch<B>,
    gradient: &mut Weights<B>,
) {
    let network = inputs.network;
    let head = network.hidden().len();
    let local = inputs.pass(rule.local);
    backend.weight_gradient(
        network.head(),
        inputs.batch,
        local.input_of(head, inputs.input),
        inputs.error,
        &mut gradient.weight[head],
        &mut gradient.bias[head],
    );
    match rule.feedback {
        Feedback::Off => {}
        Feedback::Direct => {
            let FeedbackState::Direct(direct) = inputs.feedback else {
                panic!("direct feedback needs its matrices");
            };
            for (l, (wires, weight)) in direct.iter().enumerate() {
                backend.signal_gradient(SignalGradient {
                    signal: Signal::Direct {
                        wires,
                        weight,
                        error: inputs.error,
                    },
                    port: &network.layers()[l],
                    batch: inputs.batch,
                    path: Landing {
                        record: &local.hidden[l],
                        delta: of_layer(&mut scratch.path, l),
                    },
                    goes_on: false,
                    local: None,
                    input: local.input_of(l, inputs.input),
                    weights: &mut gradient.weight[l],
                    biases: &mut gradient.bias[l],
                });
            }
        }
        Feedback::Chain { weights, slopes } => {
            feed_back(backend, rule, weights, slopes, inputs, scratch, gradient);
        }
    }
}

/// The layers that a rule trains.
pub fn trained_layers(rule: &Rule, network: &Network) -> std::ops::Range<usize> {
    let layers = network.layers().len();
    if rule.trains_hidden_layers() {
        0..layers
    } else {
        layers - 1..layers
    }
}

/// Walks the feedback path from the head down to the first layer, and computes every layer's gradient on the way.
fn feed_back<B: Backend>(
    backend: &B,
    rule: &Rule,
    weights: FeedbackWeights,
    slopes: Point,
    inputs: &Inputs<'_, B>,
    scratch: &mut Scratch<B>,
    gradient: &mut Weights<B>,
) {
    let network = inputs.network;
    let Some(last) = network.hidden().len().checked_sub(1) else {
        return;
    };
    let Scratch {
        path,
        local: locals,
        signal,
        sign,
    } = scratch;
    let path_pass = inputs.pass(slopes);
    let local_pass = inputs.pass(rule.local);
    let apart = slopes != rule.local;

    let head = last + 1;
    let weight = feedback_weight(backend, weights, inputs, head, sign);
    backend.transposed(network.head(), inputs.batch, weight, inputs.error, signal);
    // Into the last block the signal lands twice: the block's own update takes the local network's slope, the
    // path goes on with its own.
    let top = |pass: &Pass<B>, delta: &mut B::Buffer| {
        let landing = Landing {
            record: &pass.hidden[last],
            delta,
        };
        backend.pool_feedback(&network.layers()[last], inputs.batch, signal, landing);
    };
    let (delta, local_delta) = (of_layer(path, last), of_layer(locals, last));
    top(path_pass, delta);
    if apart {
        top(local_pass, local_delta);
    }
    backend.weight_gradient(
        &network.layers()[last],
        inputs.batch,
        local_pass.input_of(last, inputs.input),
        if apart { local_delta } else { delta },
        &mut gradient.weight[last],
        &mut gradient.bias[last],
    );

    for l in (0..last).rev() {
        let weight = feedback_weight(backend, weights, inputs, l + 1, sign);
        let (from, delta) = neighbours(path, l);
        let local_delta = of_layer(locals, l);
        let path_landing = Landing {
            record: &path_pass.hidden[l],
            delta: &mut *delta,
        };
        let local_landing = apart.then(|| Landing {
            record: &local_pass.hidden[l],
            delta: &mut *local_delta,
        });
        backend.signal_gradient(SignalGradient {
            signal: Signal::Chain {
                layer: &network.layers()[l + 1],
                weight,
                delta: from,
            },
            port: &network.layers()[l],
            batch: inputs.batch,
            path: path_landing,
            goes_on: l > 0,
            local: local_landing,
            input: local_pass.input_of(l, inputs.input),
            weights: &mut gradient.weight[l],
            biases: &mut gradient.bias[l],
        });
    }
}

/// A layer's place among buffers that layers use in turn.
fn of_layer<T>(buffers: &mut [T], layer: usize) -> &mut T {
    let at = layer % buffers.len();
    &mut buffers[at]
}

/// The places of the layer above and of a layer.
fn neighbours<T>(buffers: &mut [T], layer: usize) -> (&T, &mut T) {
    let count = buffers.len();
    let places = [(layer + 1) % count, layer % count];
    let [above, here] = buffers
        .get_disjoint_mut(places)
        .expect("layers one above the other have places of their own");
    (above, here)
}

/// The feedback path's weights of one layer.
fn feedback_weight<'a, B: Backend>(
    backend: &B,
    weights: FeedbackWeights,
    inputs: &Inputs<'a, B>,
    layer: usize,
    sign: &'a mut B::Buffer,
) -> &'a B::Buffer {
    match weights {
        FeedbackWeights::Current => &inputs.weights.weight[layer],
        FeedbackWeights::Initial => {
            let initial = inputs
                .initial_weights
                .expect("a rule that feeds back through W⁽⁰⁾ is given it");
            &initial.weight[layer]
        }
        FeedbackWeights::Random => {
            let FeedbackState::Random(random) = inputs.feedback else {
                panic!("random feedback needs its weights");
            };
            &random[layer]
        }
        FeedbackWeights::Sign => {
            let scale = inputs.network.initial_deviation(layer);
            backend.sign(scale, &inputs.weights.weight[layer], sign);
            sign
        }
    }
}
