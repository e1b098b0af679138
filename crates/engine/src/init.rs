//! Initial weights and feedback weights, drawn as the published runs draw them (docs/notation.md, Draws).

use crate::network::{Network, Parameterization};
use crate::rng::LegacyRandom;
use crate::rule::{Feedback, FeedbackWeights, Rule};

/// What is drawn before training. Biases start at 0.
#[derive(Clone, Debug, PartialEq)]
pub struct InitialDraw {
    /// Weights of every layer, head last, `[tap, in, out]`.
    pub weights: Vec<Vec<f32>>,
    /// Feedback weights that the rule keeps for good: for `fa` those of every layer, `[tap, in, out]`; for
    /// `dfa` those of every hidden layer, `[location, class, channel]`; else none.
    pub feedback: Vec<Vec<f32>>,
}

/// Which feedback weights are drawn between the layers' weights. Rules with the same answer start from the
/// same weights at the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackDraw {
    /// None.
    None,
    /// A second set of weights for every layer.
    Random,
    /// A matrix from the outputs to every unit of every hidden layer.
    Direct,
}

impl FeedbackDraw {
    /// What a rule needs.
    pub fn of(rule: &Rule) -> Self {
        match rule.feedback {
            Feedback::Direct => Self::Direct,
            Feedback::Chain {
                weights: FeedbackWeights::Random,
                ..
            } => Self::Random,
            Feedback::Chain {
                weights: FeedbackWeights::Current | FeedbackWeights::Initial | FeedbackWeights::Sign,
                ..
            }
            | Feedback::Off => Self::None,
        }
    }
}

/// Draws after `seed(seed)`: for each layer its weights, row-major `[out, fan_in]` with fan-in order
/// `(kh·3 + kw)·c_in + c_in index`; then that layer's feedback weights, if any. Values are drawn in f64,
/// scaled, and rounded to f32.
pub fn draw(network: &Network, seed: u32, feedback_draw: FeedbackDraw) -> InitialDraw {
    let mut random = LegacyRandom::new(seed);
    let mut weights = Vec::new();
    let mut feedback = Vec::new();
    let hidden = network.hidden().len();
    for layer in 0..network.layers().len() {
        weights.push(draw_layer(network, layer, &mut random));
        match feedback_draw {
            FeedbackDraw::Random => feedback.push(draw_layer(network, layer, &mut random)),
            FeedbackDraw::Direct if layer < hidden => {
                feedback.push(draw_direct(network, layer, &mut random));
            }
            FeedbackDraw::Direct | FeedbackDraw::None => {}
        }
    }
    InitialDraw { weights, feedback }
}

fn draw_layer(network: &Network, layer: usize, random: &mut LegacyRandom) -> Vec<f32> {
    let fan_in = network.fan_in(layer);
    let outputs = network.layers()[layer].outputs;
    let mut weights = vec![0.0; fan_in * outputs];
    for out in 0..outputs {
        for input in 0..fan_in {
            let value = random.normal();
            let scaled = match network.spec().parameterization {
                Parameterization::Ntk => value,
                Parameterization::Standard => value / (fan_in as f64).sqrt(),
            };
            weights[input * outputs + out] = scaled as f32;
        }
    }
    weights
}

/// `B_l`, drawn row-major `[class, unit]` with standard deviation `1/√units`, stored `[location, class, channel]`.
fn draw_direct(network: &Network, layer: usize, random: &mut LegacyRandom) -> Vec<f32> {
    let target = &network.layers()[layer];
    let (locations, channels) = (target.locations(), target.outputs);
    let classes = network.spec().classes;
    let deviation = 1.0 / ((locations * channels) as f64).sqrt();
    let mut weights = vec![0.0; locations * classes * channels];
    for class in 0..classes {
        for location in 0..locations {
            for channel in 0..channels {
                weights[(location * classes + class) * channels + channel] =
                    (deviation * random.normal()) as f32;
            }
        }
    }
    weights
}
