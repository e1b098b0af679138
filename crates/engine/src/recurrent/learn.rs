//! One update direction of the recurrent network.
//!
//! The ports are h_0 … h_T: the outputs' signal lands on every state and travels back through time. Under
//! align-ada only what was carried from later steps lands (Eq. 58: its sum over j is strict), because the
//! readout's own signal does not pass the initial network.

use super::{HIDDEN, HIDDEN_BIAS, INITIAL_STATE, INPUT, READOUT, READOUT_BIAS, RecurrentNetwork};
use crate::learn::FeedbackState;
use crate::pass::Weights;
use crate::rule::{Feedback, FeedbackWeights, Point, Rule};
use sansprop_kernels::{Backend, Landing, Layer, Norm, Record, Unrolled};

/// What one forward pass leaves behind.
pub(super) struct Pass<B: Backend> {
    /// z `[step, batch, unit]` and states `[step + 1, batch, unit]`.
    pub cell: Record<B::Buffer>,
    /// Outputs `[step, batch, 1]` in `a`.
    pub output: Record<B::Buffer>,
}

/// What an update is computed from.
pub(super) struct Inputs<'a, B: Backend> {
    pub network: &'a RecurrentNetwork,
    pub batch: usize,
    /// `[step, batch, 1]`
    pub input: &'a B::Buffer,
    /// `[step, batch, 1]`, of the network being trained.
    pub error: &'a B::Buffer,
    pub weights: &'a Weights<B>,
    pub current: &'a Pass<B>,
    pub initial_weights: Option<&'a Weights<B>>,
    /// The initial weights run on the same inputs from the current initial state.
    pub initial: Option<&'a Pass<B>>,
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

/// Buffers that updates use.
pub(super) struct Scratch<B: Backend> {
    pub signal: B::Buffer,
    pub carried: B::Buffer,
    pub delta: B::Buffer,
    pub local: B::Buffer,
    pub sign: [B::Buffer; 2],
    pub unused_bias: B::Buffer,
}

/// The tensors that a rule trains: indices of weights and of biases.
pub(crate) fn trained(rule: &Rule) -> (&'static [usize], &'static [usize]) {
    match rule.feedback {
        Feedback::Off => (&[READOUT], &[READOUT_BIAS, INITIAL_STATE]),
        // No output stands at time 0, so that nothing lands on the initial state.
        Feedback::Direct => (&[INPUT, HIDDEN, READOUT], &[HIDDEN_BIAS, READOUT_BIAS]),
        Feedback::Chain { .. } => (
            &[INPUT, HIDDEN, READOUT],
            &[HIDDEN_BIAS, READOUT_BIAS, INITIAL_STATE],
        ),
    }
}

/// Computes the update direction of `rule`; gradients of tensors that the rule leaves alone are not touched.
pub(super) fn update_direction<B: Backend>(
    backend: &B,
    rule: &Rule,
    inputs: &Inputs<'_, B>,
    scratch: &mut Scratch<B>,
    gradient: &mut Weights<B>,
) {
    let layers = inputs.network.layers();
    let local = inputs.pass(rule.local);
    backend.weight_gradient(
        &layers[READOUT],
        inputs.batch,
        &local.cell.a,
        inputs.error,
        &mut gradient.weight[READOUT],
        &mut gradient.bias[READOUT_BIAS],
    );
    let mut apart = false;
    match rule.feedback {
        // Only the initial state learns from what travels back, by the ordinary gradient.
        Feedback::Off => {
            let (weights, slopes) = (FeedbackWeights::Current, Point::Current);
            through_time(backend, weights, slopes, None, inputs, scratch);
        }
        Feedback::Direct => {
            let FeedbackState::Direct(direct) = inputs.feedback else {
                panic!("direct feedback needs its matrix");
            };
            let (wires, weight) = &direct[0];
            let port = Layer {
                activation: inputs.network.cell().activation,
                norm: Norm::None,
                ..wires.clone()
            };
            let landing = Landing {
                record: &local.cell,
                delta: &mut scratch.delta,
            };
            backend.direct_feedback(wires, &port, inputs.batch, weight, inputs.error, landing);
        }
        Feedback::Chain { weights, slopes } => {
            apart = slopes != rule.local;
            let local = apart.then_some(local);
            through_time(backend, weights, slopes, local, inputs, scratch);
        }
    }
    if rule.feedback != Feedback::Direct {
        let state = inputs.network.cell().width * inputs.batch;
        backend.copy(state, &scratch.carried, &mut gradient.bias[INITIAL_STATE]);
    }
    if !rule.trains_hidden_layers() {
        return;
    }
    let delta = if apart {
        &scratch.local
    } else {
        &scratch.delta
    };
    backend.weight_gradient(
        &layers[INPUT],
        inputs.batch,
        inputs.input,
        delta,
        &mut gradient.weight[INPUT],
        &mut gradient.bias[HIDDEN_BIAS],
    );
    backend.weight_gradient(
        &layers[HIDDEN],
        inputs.batch,
        &local.cell.a,
        delta,
        &mut gradient.weight[HIDDEN],
        &mut scratch.unused_bias,
    );
}

/// Sends the error down the states: fills signal, carried, delta and, with a local pass, local.
fn through_time<B: Backend>(
    backend: &B,
    weights: FeedbackWeights,
    slopes: Point,
    local: Option<&Pass<B>>,
    inputs: &Inputs<'_, B>,
    scratch: &mut Scratch<B>,
) {
    let network = inputs.network;
    let [sign_hidden, sign_readout] = &mut scratch.sign;
    let hidden = feedback_weight(backend, weights, inputs, HIDDEN, sign_hidden);
    let readout = feedback_weight(backend, weights, inputs, READOUT, sign_readout);
    let layer = &network.layers()[READOUT];
    backend.transposed(
        layer,
        inputs.batch,
        readout,
        inputs.error,
        &mut scratch.signal,
    );
    let unrolled = Unrolled {
        path: &inputs.pass(slopes).cell,
        delta: &mut scratch.delta,
        carried: &mut scratch.carried,
    };
    let landing = local.map(|pass| Landing {
        record: &pass.cell,
        delta: &mut scratch.local,
    });
    let (cell, batch) = (network.cell(), inputs.batch);
    backend.recur_feedback(cell, batch, hidden, &scratch.signal, unrolled, landing);
}

/// The feedback path's weights of W_h or W_o.
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
            &random[layer - HIDDEN]
        }
        FeedbackWeights::Sign => {
            let scale = inputs.network.initial_deviation(layer);
            backend.sign(scale, &inputs.weights.weight[layer], sign);
            sign
        }
    }
}
