//! One trial's evaluation and update on the loaded minibatch, in a room.

use crate::cohort::{Report, Room, Status, Trial};
use crate::minibatch::{Minibatch, Targets};
use crate::model::{Model, Trained};
use crate::pass::{Pass, Weights};
use crate::room::{Hidden, Student};
use crate::rule::Rule;
use sansprop_kernels::Backend;

/// What the trials of a cohort have in common on one minibatch.
pub(crate) struct Common<'a, B: Backend> {
    pub(crate) model: &'a Model,
    /// W⁽⁰⁾ of the trials that look at it.
    pub(crate) initial_weights: Option<&'a Weights<B>>,
    /// The initial network's pass, where it is not the room's own.
    pub(crate) initial_pass: Option<&'a Pass<B>>,
    pub(crate) targets: &'a Targets,
    pub(crate) target_shift: f64,
    pub(crate) batch: usize,
    /// Whether the initial network has run on this minibatch, and trials whose hidden layers never change may take
    /// its pass for theirs.
    pub(crate) lends_hidden: bool,
}

impl<B: Backend> Common<'_, B> {
    fn hidden(&self, trial: &Trial<B>) -> Hidden {
        if self.lends_hidden && trial.frozen {
            Hidden::Initial
        } else {
            Hidden::Own
        }
    }
}

impl<B: Backend> Room<B> {
    /// Loads a minibatch's inputs.
    pub(crate) fn load(&mut self, backend: &B, minibatch: &Minibatch) {
        match self {
            Self::FeedForward(room) => room.load(backend, &minibatch.input),
            Self::Recurrent(room) => room.load(backend, &minibatch.input),
        }
    }

    /// A trial's forward pass, loss and error.
    ///
    /// # Panics
    /// If the minibatch is not of the model's kind, images with labels or sequences with values.
    pub(crate) fn evaluate(
        &mut self,
        backend: &B,
        trial: &Trial<B>,
        common: &Common<'_, B>,
    ) -> Report {
        let (weights, shift) = (&trial.weights, common.target_shift);
        match (self, common.model, common.targets) {
            (Self::FeedForward(room), Model::FeedForward(network), Targets::Labels(labels)) => {
                match common.hidden(trial) {
                    Hidden::Own => room.evaluate(backend, network, weights, labels, shift),
                    Hidden::Initial => {
                        let pass = common.initial_pass;
                        room.evaluate_head(backend, network, weights, pass, labels, shift)
                    }
                }
            }
            (Self::Recurrent(room), Model::Recurrent(network), Targets::Values(values)) => {
                room.evaluate(backend, network, weights, common.batch, values)
            }
            _ => panic!(
                "the minibatch does not suit the network: labels for images, values for sequences"
            ),
        }
    }

    /// A trial's update direction by `rule`, from the passes and the error at hand.
    pub(crate) fn learn(
        &mut self,
        backend: &B,
        trial: &Trial<B>,
        rule: &Rule,
        common: &Common<'_, B>,
    ) {
        let student = Student {
            rule,
            weights: &trial.weights,
            initial_weights: common.initial_weights,
            feedback: &trial.feedback,
            hidden: common.hidden(trial),
        };
        match (self, common.model) {
            (Self::FeedForward(room), Model::FeedForward(network)) => {
                room.learn(
                    backend,
                    network,
                    &student,
                    common.initial_pass,
                    common.batch,
                );
            }
            (Self::Recurrent(room), Model::Recurrent(network)) => {
                room.learn(backend, network, &student, common.batch);
            }
            _ => unreachable!("the room was made for the model"),
        }
    }

    /// The last update direction.
    pub(crate) fn gradient(&self) -> &Weights<B> {
        match self {
            Self::FeedForward(room) => &room.gradient,
            Self::Recurrent(room) => &room.gradient,
        }
    }

    /// A trial's whole step: evaluation, update direction, update. Weights stay as they are where the loss is
    /// not finite.
    pub(crate) fn step(
        &mut self,
        backend: &B,
        trial: &mut Trial<B>,
        common: &Common<'_, B>,
    ) -> Report {
        let report = self.evaluate(backend, trial, common);
        if report.loss.is_finite() {
            let rule = trial.spec().rule;
            self.learn(backend, trial, &rule, common);
            trial.apply(backend, self.gradient());
        }
        report
    }
}

impl<B: Backend> Trial<B> {
    /// Lets the optimiser take one step along a direction.
    pub(crate) fn apply(&mut self, backend: &B, gradient: &Weights<B>) {
        self.optimizer.begin_step();
        for (i, &tensor) in self.trained.iter().enumerate() {
            let (gradient, weight) = match tensor {
                Trained::Weight(l) => (&gradient.weight[l], &mut self.weights.weight[l]),
                Trained::Bias(l) => (&gradient.bias[l], &mut self.weights.bias[l]),
            };
            self.optimizer.update(backend, i, gradient, weight);
        }
        self.count_step();
    }

    pub(crate) fn running(&self) -> bool {
        self.status() == Status::Running
    }
}
