//! Working memory of a recurrent cohort, and what is done in it.

use super::learn::{Inputs, Pass, Scratch, update_direction};
use super::{HIDDEN, HIDDEN_BIAS, INITIAL_STATE, INPUT, READOUT, READOUT_BIAS, RecurrentNetwork};
use crate::cohort::Report;
use crate::pass::Weights;
use crate::room::Student;
use sansprop_kernels::{Backend, CellWeights, Record};

/// Working memory for minibatches of the network's batch size or fewer.
pub(crate) struct RecurrentRoom<B: Backend> {
    input: B::Buffer,
    error: B::Buffer,
    current: Pass<B>,
    initial: Option<Pass<B>>,
    scratch: Scratch<B>,
    pub(crate) gradient: Weights<B>,
}

impl<B: Backend> RecurrentRoom<B> {
    pub(crate) fn new(backend: &B, network: &RecurrentNetwork, initial_pass: bool) -> Self {
        let (steps, width) = (network.cell().steps, network.cell().width);
        let rows = steps * network.batch();
        let state = network.batch() * width;
        let pass = || Pass {
            cell: Record {
                z: backend.zeros(steps * state),
                inverse_deviation: backend.zeros(0),
                a: backend.zeros((steps + 1) * state),
            },
            output: Record {
                z: backend.zeros(rows),
                inverse_deviation: backend.zeros(0),
                a: backend.zeros(rows),
            },
        };
        Self {
            input: backend.zeros(rows),
            error: backend.zeros(rows),
            current: pass(),
            initial: initial_pass.then(pass),
            scratch: Scratch {
                signal: backend.zeros((steps + 1) * state),
                carried: backend.zeros((steps + 1) * state),
                delta: backend.zeros(steps * state),
                local: backend.zeros(steps * state),
                sign: [HIDDEN, READOUT].map(|l| backend.zeros(network.layers()[l].weights())),
                unused_bias: backend.zeros(width),
            },
            gradient: zeros(backend, network),
        }
    }

    pub(crate) fn load(&mut self, backend: &B, input: &[f32]) {
        backend.write_f32(input, &mut self.input);
    }

    pub(crate) fn input_mut(&mut self) -> &mut B::Buffer {
        &mut self.input
    }

    /// Outputs, and where their errors go.
    pub(crate) fn outcome(&mut self) -> (&B::Buffer, &mut B::Buffer) {
        (&self.current.output.a, &mut self.error)
    }

    /// Forward pass on the loaded minibatch.
    pub(crate) fn run(
        &mut self,
        backend: &B,
        network: &RecurrentNetwork,
        weights: &Weights<B>,
        batch: usize,
    ) {
        let state = &weights.bias[INITIAL_STATE];
        run(
            backend,
            network,
            weights,
            state,
            batch,
            &self.input,
            &mut self.current,
        );
    }

    /// Loss and error of the outputs at hand; targets are `[step, batch, 1]`.
    pub(crate) fn judge(&mut self, backend: &B, batch: usize, targets: &[f32]) -> Report {
        let output = &self.current.output.a;
        Report {
            loss: backend.sequence_loss(targets, batch, output, &mut self.error),
            correct: None,
        }
    }

    /// Computes one trial's update direction from the pass and the error at hand.
    pub(crate) fn learn(
        &mut self,
        backend: &B,
        network: &RecurrentNetwork,
        student: &Student<'_, B>,
        batch: usize,
    ) {
        let &Student {
            rule,
            weights,
            initial_weights,
            feedback,
            hidden: _,
        } = student;
        // The initial weights run from the *current* initial state, which differs from trial to trial: this
        // pass cannot be shared.
        if let (true, Some(pass), Some(initial)) = (
            rule.needs_initial_pass(),
            &mut self.initial,
            initial_weights,
        ) {
            let state = &weights.bias[INITIAL_STATE];
            run(backend, network, initial, state, batch, &self.input, pass);
        }
        let inputs = Inputs {
            network,
            batch,
            input: &self.input,
            error: &self.error,
            weights,
            current: &self.current,
            initial_weights,
            initial: self.initial.as_ref(),
            feedback,
        };
        update_direction(
            backend,
            rule,
            &inputs,
            &mut self.scratch,
            &mut self.gradient,
        );
    }
}

/// Zeros of the network's shape.
pub(crate) fn zeros<B: Backend>(backend: &B, network: &RecurrentNetwork) -> Weights<B> {
    let layers = network.layers();
    Weights {
        weight: layers.iter().map(|l| backend.zeros(l.weights())).collect(),
        bias: network.bias_lengths().map(|len| backend.zeros(len)).into(),
    }
}

fn run<B: Backend>(
    backend: &B,
    network: &RecurrentNetwork,
    weights: &Weights<B>,
    state: &B::Buffer,
    batch: usize,
    input: &B::Buffer,
    pass: &mut Pass<B>,
) {
    let cell = network.cell();
    backend.copy(batch * cell.width, state, &mut pass.cell.a);
    let cell_weights = CellWeights {
        input: &weights.weight[INPUT],
        hidden: &weights.weight[HIDDEN],
        bias: &weights.bias[HIDDEN_BIAS],
    };
    backend.recur(cell, batch, cell_weights, input, &mut pass.cell);
    backend.forward(
        &network.layers()[READOUT],
        batch,
        &weights.weight[READOUT],
        &weights.bias[READOUT_BIAS],
        &pass.cell.a,
        &mut pass.output,
    );
}
