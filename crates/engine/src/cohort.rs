//! Cohorts: trials in lockstep on one network, seed and data order.
//!
//! Trials of a cohort differ in rule and optimiser. They share each minibatch and, where a rule asks for it,
//! the initial network's forward pass on it, which is computed once for all of them. A trial's numbers are
//! bitwise the same alone and in company: the kernels see the same operands in the same order.

use crate::init::{FeedbackDraw, draw};
use crate::learn::{FeedbackState, Inputs, Scratch, trained_layers, update_direction};
use crate::network::Network;
use crate::optim::{Optimizer, OptimizerState};
use crate::pass::{Pass, Weights, upload};
use crate::rule::Rule;
use sansprop_kernels::{Backend, LossReport};

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
    weights: Weights<B>,
    feedback: FeedbackState<B>,
    optimizer: OptimizerState<B>,
    status: Status,
    steps: u64,
}

/// A named array of a trial, for files.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// `layers.N.weight`, `layers.N.bias` or `feedback.N.weight`, N counted from 0, the head last.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

impl<B: Backend> Trial<B> {
    fn new(backend: &B, network: &Network, seed: u32, spec: TrialSpec) -> Self {
        let drawn = draw(network, seed, FeedbackDraw::of(&spec.rule));
        let feedback = match FeedbackDraw::of(&spec.rule) {
            FeedbackDraw::None => FeedbackState::None,
            FeedbackDraw::Random => FeedbackState::Random(
                drawn
                    .feedback
                    .iter()
                    .map(|values| upload(backend, values))
                    .collect(),
            ),
            FeedbackDraw::Direct => FeedbackState::Direct(
                drawn
                    .feedback
                    .iter()
                    .enumerate()
                    .map(|(l, values)| (network.direct_layer(l), upload(backend, values)))
                    .collect(),
            ),
        };
        let trained = trained_layers(&spec.rule, network);
        let lengths: Vec<usize> = network.layers()[trained]
            .iter()
            .flat_map(|l| [l.weights(), l.outputs])
            .collect();
        Self {
            spec,
            weights: Weights::from_draw(backend, network, &drawn.weights),
            feedback,
            optimizer: OptimizerState::new(backend, spec.optimizer, &lengths),
            status: Status::Running,
            steps: 0,
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

    /// The weights now.
    pub fn weights(&self) -> &Weights<B> {
        &self.weights
    }
}

/// Trials in lockstep. See the module's text.
pub struct Cohort<'b, B: Backend> {
    backend: &'b B,
    network: Network,
    trials: Vec<Trial<B>>,
    /// W⁽⁰⁾ of the trials that look at it; these all start from the same draw.
    initial_weights: Option<Weights<B>>,
    target_shift: f64,
    room: Room<B>,
}

/// Working memory for minibatches of up to `batch` samples.
struct Room<B: Backend> {
    batch: usize,
    input: B::Buffer,
    current: Pass<B>,
    initial: Option<Pass<B>>,
    error: B::Buffer,
    scratch: Scratch<B>,
    gradient: Weights<B>,
}

impl<'b, B: Backend> Cohort<'b, B> {
    /// Draws every trial's initial state from `seed` and makes room for minibatches of up to `batch` samples.
    ///
    /// `target_shift` is subtracted from the one-hot targets (the paper's: 0.1).
    pub fn new(
        backend: &'b B,
        network: Network,
        seed: u32,
        batch: usize,
        target_shift: f64,
        specs: &[TrialSpec],
    ) -> Self {
        let trials: Vec<Trial<B>> = specs
            .iter()
            .map(|&spec| Trial::new(backend, &network, seed, spec))
            .collect();
        // One W⁽⁰⁾ serves all trials that look at it, which holds only if they start from the same draw.
        for TrialSpec { rule, .. } in specs {
            assert!(
                !rule.needs_initial_weights() || FeedbackDraw::of(rule) == FeedbackDraw::None,
                "{rule} looks at W⁽⁰⁾ and draws feedback weights between the layers'"
            );
        }
        let needs = |f: fn(&Rule) -> bool| specs.iter().any(|spec| f(&spec.rule));
        let initial_weights = needs(Rule::needs_initial_weights).then(|| {
            let drawn = draw(&network, seed, FeedbackDraw::None);
            Weights::from_draw(backend, &network, &drawn.weights)
        });
        let (locations, channels) = network.input_panels();
        let room = Room {
            batch,
            input: backend.zeros(locations * batch * channels),
            current: Pass::new(backend, &network, batch),
            initial: needs(Rule::needs_initial_pass).then(|| Pass::new(backend, &network, batch)),
            error: backend.zeros(batch * network.spec().classes),
            scratch: Scratch::new(backend, &network, batch),
            gradient: Weights::zeros(backend, &network),
        };
        Self {
            backend,
            network,
            trials,
            initial_weights,
            target_shift,
            room,
        }
    }

    /// The trials, in the order of their specs.
    pub fn trials(&self) -> &[Trial<B>] {
        &self.trials
    }

    /// The network's shape.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The machine.
    pub fn backend(&self) -> &'b B {
        self.backend
    }

    /// Whether any trial still trains.
    pub fn running(&self) -> bool {
        self.trials.iter().any(|t| t.status == Status::Running)
    }

    pub(crate) fn set_status(&mut self, trial: usize, status: Status) {
        self.trials[trial].status = status;
    }

    /// Loads a minibatch, `[location, batch, channel]`, for all trials.
    ///
    /// # Panics
    /// If the minibatch is larger than the cohort has room for.
    pub fn load(&mut self, batch: usize, input: &[f32]) {
        assert!(
            batch <= self.room.batch,
            "a minibatch of {batch} samples in a cohort with room for {}",
            self.room.batch
        );
        self.backend.write_f32(input, &mut self.room.input);
    }

    /// Runs the initial network on the loaded minibatch, if a running trial looks at it; says whether it did.
    pub fn run_initial(&mut self, batch: usize) -> bool {
        let wanted = |t: &Trial<B>| t.status == Status::Running && t.spec.rule.needs_initial_pass();
        let (Some(pass), Some(weights)) = (&mut self.room.initial, &self.initial_weights) else {
            return false;
        };
        if !self.trials.iter().any(wanted) {
            return false;
        }
        pass.run(
            self.backend,
            &self.network,
            weights,
            batch,
            &self.room.input,
        );
        true
    }

    /// One trial's forward pass and loss on the loaded minibatch, without learning.
    pub fn evaluate(&mut self, trial: usize, labels: &[u32]) -> LossReport {
        let room = &mut self.room;
        let weights = &self.trials[trial].weights;
        room.current.run(
            self.backend,
            &self.network,
            weights,
            labels.len(),
            &room.input,
        );
        self.backend.loss(
            labels,
            self.network.spec().classes,
            self.target_shift,
            room.current.output(),
            &mut room.error,
        )
    }

    /// One trial's update on the loaded minibatch; the report is of the loss before it. Where that loss is not
    /// finite the weights stay as they are.
    ///
    /// [`run_initial`](Self::run_initial) must have run on this minibatch.
    pub fn step(&mut self, trial: usize, labels: &[u32]) -> LossReport {
        let report = self.evaluate(trial, labels);
        if report.loss.is_finite() {
            self.learn(trial, labels.len());
            self.apply(trial);
        }
        report
    }

    /// Computes one trial's update direction from the passes and the error at hand.
    fn learn(&mut self, trial: usize, batch: usize) {
        let room = &mut self.room;
        let trial = &self.trials[trial];
        let inputs = Inputs {
            network: &self.network,
            batch,
            input: &room.input,
            error: &room.error,
            weights: &trial.weights,
            current: &room.current,
            initial_weights: self.initial_weights.as_ref(),
            initial: room.initial.as_ref(),
            feedback: &trial.feedback,
        };
        let rule = &trial.spec.rule;
        update_direction(
            self.backend,
            rule,
            &inputs,
            &mut room.scratch,
            &mut room.gradient,
        );
    }

    fn apply(&mut self, trial: usize) {
        let trial = &mut self.trials[trial];
        let gradient = &self.room.gradient;
        trial.optimizer.begin_step();
        for (i, layer) in trained_layers(&trial.spec.rule, &self.network).enumerate() {
            let weights = &mut trial.weights;
            let optimizer = &mut trial.optimizer;
            let pairs = [
                (&gradient.weight[layer], &mut weights.weight[layer]),
                (&gradient.bias[layer], &mut weights.bias[layer]),
            ];
            for (j, (gradient, weight)) in pairs.into_iter().enumerate() {
                optimizer.update(self.backend, 2 * i + j, gradient, weight);
            }
        }
        trial.steps += 1;
    }

    /// The update direction that one trial's last step used, for the layers that its rule trains.
    pub fn last_gradient(&self) -> &Weights<B> {
        &self.room.gradient
    }

    /// Everything that makes up a trial's network: weights, biases, and the rule's own feedback weights.
    pub fn tensors(&self, trial: usize) -> Vec<NamedTensor> {
        let trial = &self.trials[trial];
        let read = |buffer: &B::Buffer| -> Vec<f32> {
            let values = self.backend.read(buffer);
            values.into_iter().map(|v| v as f32).collect()
        };
        let mut tensors = Vec::new();
        for l in 0..self.network.layers().len() {
            tensors.push(NamedTensor {
                name: format!("layers.{l}.weight"),
                shape: self.network.weight_shape(l),
                values: read(&trial.weights.weight[l]),
            });
            tensors.push(NamedTensor {
                name: format!("layers.{l}.bias"),
                shape: vec![self.network.layers()[l].outputs],
                values: read(&trial.weights.bias[l]),
            });
        }
        let name = |l: usize| format!("feedback.{l}.weight");
        match &trial.feedback {
            FeedbackState::None => {}
            FeedbackState::Random(feedback) => {
                for (l, buffer) in feedback.iter().enumerate() {
                    tensors.push(NamedTensor {
                        name: name(l),
                        shape: self.network.weight_shape(l),
                        values: read(buffer),
                    });
                }
            }
            FeedbackState::Direct(feedback) => {
                for (l, (wires, buffer)) in feedback.iter().enumerate() {
                    let (height, width) = self.network.grid(l);
                    tensors.push(NamedTensor {
                        name: name(l),
                        shape: vec![height, width, wires.inputs, wires.outputs],
                        values: read(buffer),
                    });
                }
            }
        }
        tensors
    }
}
