//! One trial's evaluation and update on the loaded minibatch, in a room.

use crate::cohort::{Report, Room, Status, Trial};
use crate::minibatch::{Minibatch, Targets};
use crate::model::{Model, Trained};
use crate::pass::{Pass, Weights};
use crate::room::{Hidden, Student, Wanted};
use crate::rule::Rule;
use sansprop_kernels::{Backend, Resident, Verdict};
use std::mem;

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
    /// Whether others than the trials' rules look at passes.
    pub(crate) observed: bool,
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

    /// The initial network's pass that trials share, if there is one.
    pub(crate) fn initial(&self) -> Option<&Pass<B>> {
        match self {
            Self::FeedForward(room) => room.initial(),
            Self::Recurrent(_) => None,
        }
    }

    /// Takes other inputs, and gives its own for them.
    pub(crate) fn exchange_input(&mut self, input: &mut B::Buffer) {
        let own = match self {
            Self::FeedForward(room) => room.input_mut(),
            Self::Recurrent(room) => room.input_mut(),
        };
        mem::swap(own, input);
    }

    /// A trial's forward pass, to learn from or only to evaluate.
    pub(crate) fn run(
        &mut self,
        backend: &B,
        trial: &Trial<B>,
        common: &Common<'_, B>,
        learning: bool,
    ) {
        let (weights, batch) = (&trial.weights, common.batch);
        let looks = learning && trial.spec().rule.needs_current_pass();
        let wanted = Wanted::pass_if(looks || common.observed);
        match (self, common.model) {
            (Self::FeedForward(room), Model::FeedForward(network)) => match common.hidden(trial) {
                Hidden::Own => room.run(backend, network, weights, batch, wanted),
                Hidden::Initial => {
                    room.run_head(backend, network, weights, common.initial_pass, batch);
                }
            },
            (Self::Recurrent(room), Model::Recurrent(network)) => {
                room.run(backend, network, weights, batch);
            }
            _ => unreachable!("the room was made for the model"),
        }
    }

    /// A trial's forward pass, loss and error, to learn from or only to evaluate.
    ///
    /// # Panics
    /// If the minibatch is not of the model's kind, images with labels or sequences with values.
    pub(crate) fn evaluate(
        &mut self,
        backend: &B,
        trial: &Trial<B>,
        common: &Common<'_, B>,
        learning: bool,
    ) -> Report {
        self.run(backend, trial, common, learning);
        match (self, common.model, common.targets) {
            (Self::FeedForward(room), Model::FeedForward(network), Targets::Labels(labels)) => {
                room.judge(backend, network, labels, common.target_shift)
            }
            (Self::Recurrent(room), _, Targets::Values(values)) => {
                room.judge(backend, common.batch, values)
            }
            _ => panic!(
                "the minibatch does not suit the network: labels for images, values for sequences"
            ),
        }
    }

    /// Loss and error of the outputs at hand against answers that stand on the device.
    pub(crate) fn judge_on_device(
        &mut self,
        resident: &dyn Resident<B::Buffer>,
        answers: &B::Buffer,
        common: &Common<'_, B>,
        verdict: Verdict<'_, B::Buffer>,
    ) {
        let batch = common.batch;
        match (self, common.model) {
            (Self::FeedForward(room), Model::FeedForward(network)) => {
                let (output, error) = room.outcome();
                let (classes, shift) = (network.spec().classes, common.target_shift);
                resident.judge(answers, batch, classes, shift, output, error, verdict);
            }
            (Self::Recurrent(room), Model::Recurrent(network)) => {
                let (output, error) = room.outcome();
                let len = network.cell().steps * batch;
                resident.judge_sequence(answers, len, batch, output, error, verdict);
            }
            _ => unreachable!("the room was made for the model"),
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
        let report = self.evaluate(backend, trial, common, true);
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
        self.update(backend, gradient);
        self.count_step();
    }

    /// The optimiser's work of a step that was begun.
    pub(crate) fn update(&mut self, backend: &B, gradient: &Weights<B>) {
        for (i, &tensor) in self.trained.iter().enumerate() {
            let (gradient, weight) = match tensor {
                Trained::Weight(l) => (&gradient.weight[l], &mut self.weights.weight[l]),
                Trained::Bias(l) => (&gradient.bias[l], &mut self.weights.bias[l]),
            };
            self.optimizer.update(backend, i, gradient, weight);
        }
    }

    pub(crate) fn running(&self) -> bool {
        self.status() == Status::Running
    }
}
