//! One trial of a cohort: what distinguishes it, how it stands and its network.

use crate::init::FeedbackDraw;
use crate::learn::FeedbackState;
use crate::model::{Model, Trained, named_tensors};
use crate::optim::{Optimizer, OptimizerState};
use crate::pass::{Weights, upload};
use crate::rule::Rule;
use sansprop_kernels::Backend;

/// What distinguishes one trial of a cohort.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrialSpec {
    /// The learning rule.
    pub rule: Rule,
    /// The optimiser with its learning rate.
    pub optimizer: Optimizer,
}

/// How a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Training goes on.
    Running,
    /// All epochs or steps are done.
    Completed,
    /// A loss was not finite in this epoch (counted from 0).
    Diverged {
        /// The epoch.
        epoch: usize,
    },
    /// The observer asked to stop.
    Interrupted,
}

/// One network in training.
pub struct Trial<B: Backend> {
    spec: TrialSpec,
    pub(crate) weights: Weights<B>,
    pub(crate) feedback: FeedbackState<B>,
    pub(crate) optimizer: OptimizerState<B>,
    /// What the rule trains, in the order of updates.
    pub(crate) trained: Vec<Trained>,
    pub(super) status: Status,
    steps: u64,
    /// Whether the hidden layers are those of the cohort's W⁽⁰⁾ for good.
    pub(crate) frozen: bool,
}

/// A named array of a trial, for files.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// `layers.N.weight`, `layers.N.bias` or `feedback.N.weight`, N counted from 0, the head last; for the
    /// recurrent network `input.weight`, `hidden.weight`, `hidden.bias`, `readout.weight`, `readout.bias`,
    /// `initial_state`.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

impl<B: Backend> Trial<B> {
    pub(super) fn new(backend: &B, model: &Model, seed: u32, spec: TrialSpec) -> Self {
        let feedback_draw = FeedbackDraw::of(&spec.rule);
        let drawn = model.draw(seed, feedback_draw);
        let uploaded = drawn.feedback.iter().map(|values| upload(backend, values));
        let feedback = match feedback_draw {
            FeedbackDraw::None => FeedbackState::None,
            FeedbackDraw::Random => FeedbackState::Random(uploaded.collect()),
            FeedbackDraw::Direct => {
                FeedbackState::Direct(model.direct_layers().into_iter().zip(uploaded).collect())
            }
        };
        let trained = model.trained(&spec.rule);
        let lengths: Vec<usize> = trained.iter().map(|&tensor| model.len(tensor)).collect();
        Self {
            spec,
            weights: model.upload(backend, &drawn.weights),
            feedback,
            optimizer: OptimizerState::new(backend, spec.optimizer, &lengths),
            trained,
            status: Status::Running,
            steps: 0,
            frozen: false,
        }
    }

    /// Rule and optimiser.
    pub fn spec(&self) -> &TrialSpec {
        &self.spec
    }

    /// How the trial stands.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Updates done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Feedback weights of the rule's own.
    pub fn feedback(&self) -> &FeedbackState<B> {
        &self.feedback
    }

    /// The weights now.
    pub fn weights(&self) -> &Weights<B> {
        &self.weights
    }

    pub(crate) fn count_step(&mut self) {
        self.steps += 1;
    }

    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
        self.optimizer.set_steps(steps);
    }

    /// Everything that makes up the network. See [`Cohort::tensors`](super::Cohort::tensors).
    pub(super) fn tensors(&self, backend: &B, model: &Model) -> Vec<NamedTensor> {
        let [weights, biases, feedback] = model.shapes(FeedbackDraw::of(&self.spec.rule));
        let mut tensors = named_tensors(backend, weights, self.weights.weight.iter());
        tensors.extend(named_tensors(backend, biases, self.weights.bias.iter()));
        tensors.extend(match &self.feedback {
            FeedbackState::None => Vec::new(),
            FeedbackState::Random(buffers) => named_tensors(backend, feedback, buffers.iter()),
            FeedbackState::Direct(wired) => {
                named_tensors(backend, feedback, wired.iter().map(|(_, buffer)| buffer))
            }
        });
        tensors
    }
}
