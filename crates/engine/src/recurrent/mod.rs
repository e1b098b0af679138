//! The recurrent network of the Add task: `h_t = σ(x_t W_i + h_{t−1} W_h/√m + b_h)`,
//! `o_t = h_t W_o/√m + b_o`, scalar input and output.
//!
//! The initial state is a trained parameter with one row per row of the minibatch, starting at 0. A sequence is
//! a chain of panels, one a step; apart from the cell itself, everything is done by the wiring kernels of
//! feed-forward layers.

mod learn;
mod room;

pub(crate) use learn::trained;
pub(crate) use room::{RecurrentRoom, zeros};

use crate::network::Parameterization;
use crate::rng::LegacyRandom;
use crate::{init::FeedbackDraw, init::InitialDraw};
use sansprop_kernels::{Activation, Layer, Norm, RecurrentCell, Wiring};
use std::sync::Arc;

/// Order of the weights in [`Weights`](crate::pass::Weights): W_i `[1, m]`.
pub const INPUT: usize = 0;
/// W_h, `[m, m]`, used as `h · W_h`.
pub const HIDDEN: usize = 1;
/// W_o, `[m, 1]`.
pub const READOUT: usize = 2;
/// Order of the biases: b_h, `[m]`.
pub const HIDDEN_BIAS: usize = 0;
/// b_o, `[1]`.
pub const READOUT_BIAS: usize = 1;
/// The initial state, `[batch, m]`.
pub const INITIAL_STATE: usize = 2;

/// A recurrent network.
#[derive(Clone, Debug)]
pub struct RecurrentNetwork {
    cell: RecurrentCell,
    batch: usize,
    parameterization: Parameterization,
    /// W_i, W_h, W_o as layers over all steps, for gradients and for the readout itself.
    layers: [Layer; 3],
    direct: Layer,
}

impl RecurrentNetwork {
    /// A network of `width` units for sequences of `steps` steps and minibatches of `batch`.
    ///
    /// # Panics
    /// If any of them is 0.
    pub fn new(
        width: usize,
        steps: usize,
        batch: usize,
        activation: Activation,
        parameterization: Parameterization,
    ) -> Self {
        assert!(
            width > 0 && steps > 0 && batch > 0,
            "a recurrent network of width {width} for {batch} sequences of {steps} steps"
        );
        let scale = match parameterization {
            Parameterization::Ntk => 1.0 / (width as f64).sqrt(),
            Parameterization::Standard => 1.0,
        };
        let layer = |wiring: Wiring, inputs: usize, outputs: usize, scale: f64| Layer {
            wiring: Arc::new(wiring),
            inputs,
            outputs,
            scale,
            norm: Norm::None,
            activation: Activation::Linear,
        };
        Self {
            cell: RecurrentCell {
                steps,
                inputs: 1,
                width,
                scale,
                activation,
            },
            batch,
            parameterization,
            layers: [
                layer(Wiring::sequence(steps, steps, 0), 1, width, 1.0),
                layer(Wiring::sequence(steps, steps + 1, 0), width, width, scale),
                layer(Wiring::sequence(steps, steps + 1, 1), width, 1, scale),
            ],
            direct: layer(Wiring::sequence(steps, steps, 0), 1, width, 1.0),
        }
    }

    /// The cell.
    pub fn cell(&self) -> &RecurrentCell {
        &self.cell
    }

    /// Rows of the initial state.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// W_i, W_h and W_o as layers over all steps.
    pub fn layers(&self) -> &[Layer; 3] {
        &self.layers
    }

    /// The layer that carries each step's error straight to that step's units (direct feedback).
    pub fn direct_layer(&self) -> &Layer {
        &self.direct
    }

    /// Lengths of the biases: b_h, b_o, initial state.
    pub fn bias_lengths(&self) -> [usize; 3] {
        [self.cell.width, 1, self.batch * self.cell.width]
    }

    /// Standard deviation of the initial weights of layer `l`.
    pub fn initial_deviation(&self, layer: usize) -> f64 {
        match (layer, self.parameterization) {
            (INPUT, _) | (_, Parameterization::Ntk) => 1.0,
            (_, Parameterization::Standard) => 1.0 / (self.cell.width as f64).sqrt(),
        }
    }

    /// Number of trained values, biases and initial state included.
    pub fn parameters(&self) -> usize {
        let weights: usize = self.layers.iter().map(Layer::weights).sum();
        weights + self.bias_lengths().iter().sum::<usize>()
    }

    /// Draws after `seed(seed)`: W_i, W_h, W_o, each row-major, N(0, 1) times the initial deviation. For `fa`
    /// the feedback weights of W_h follow W_h and those of W_o follow W_o; for `dfa` a matrix `[1, m]` of
    /// standard deviation 1/√m follows W_h.
    pub fn draw(&self, seed: u32, feedback_draw: FeedbackDraw) -> InitialDraw {
        let mut random = LegacyRandom::new(seed);
        let mut take = |len: usize, deviation: f64| -> Vec<f32> {
            (0..len)
                .map(|_| (random.normal() * deviation) as f32)
                .collect()
        };
        let mut weights = Vec::new();
        let mut feedback = Vec::new();
        for (l, layer) in self.layers.iter().enumerate() {
            weights.push(take(layer.weights(), self.initial_deviation(l)));
            match feedback_draw {
                FeedbackDraw::Random if l > INPUT => {
                    feedback.push(take(layer.weights(), self.initial_deviation(l)));
                }
                FeedbackDraw::Direct if l == HIDDEN => {
                    let width = self.cell.width;
                    feedback.push(take(width, 1.0 / (width as f64).sqrt()));
                }
                FeedbackDraw::Random | FeedbackDraw::Direct | FeedbackDraw::None => {}
            }
        }
        InitialDraw { weights, feedback }
    }
}
