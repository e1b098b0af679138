//! The companion W* of a trial (Eq. 13): it starts at W⁽⁰⁾ and receives align-zero's update, driven by the error of
//! the trial on the same minibatches.
//!
//! Where no norm mixes samples, W* needs no second network during training: each sample's integrated error is
//! enough, and W* is built in a single pass at the end (Eqs. 5–7, 12).

use crate::cohort::{Cohort, NamedTensor, Room, Trial};
use crate::init::FeedbackDraw;
use crate::learn::{FeedbackState, trained_layers};
use crate::model::{Model, named_tensors};
use crate::network::Network;
use crate::optim::OptimizerState;
use crate::pass::{Pass, Weights};
use crate::protocol::Part;
use crate::room::{Hidden, Student};
use crate::rule::Rule;
use sansprop_kernels::{Backend, Norm};

/// A second set of weights that trains beside a trial.
pub(crate) struct Companion<B: Backend> {
    pub(crate) of: usize,
    pub(crate) weights: Weights<B>,
    pub(crate) optimizer: OptimizerState<B>,
    /// W⁽⁰⁾ and its pass where the trial does not start from the draw that all align rules share.
    start: Option<Start<B>>,
}

/// A trial's initial network and room for its pass.
struct Start<B: Backend> {
    weights: Weights<B>,
    pass: Pass<B>,
}

impl<B: Backend> Start<B> {
    fn new(cohort: &Cohort<'_, B>, trial: usize, network: &Network) -> Self {
        let draw = FeedbackDraw::of(&cohort.trials[trial].spec().rule);
        let drawn = cohort.model.draw(cohort.seed, draw);
        Self {
            weights: cohort.model.upload(cohort.backend, &drawn.weights),
            pass: Pass::new(cohort.backend, network, cohort.most),
        }
    }
}

fn align_zero() -> Rule {
    Rule::named("align-zero").expect("a row of the table")
}

/// What only feed-forward networks have.
const FEED_FORWARD: &str = "companions are for feed-forward networks";

impl<B: Backend> Cohort<'_, B> {
    /// Gives a trial a companion W*, with an optimiser like the trial's own. To be called before training, and
    /// before a state is [restored](Self::restore).
    ///
    /// # Panics
    /// If the network is recurrent, or the trial has already learned.
    pub fn add_companion(&mut self, trial: usize) {
        assert_eq!(
            self.trials[trial].steps(),
            0,
            "a companion starts with its trial"
        );
        let network = self.model.feed_forward().expect(FEED_FORWARD).clone();
        let spec = *self.trials[trial].spec();
        let shared = FeedbackDraw::of(&spec.rule) == FeedbackDraw::None;
        let start = (!shared).then(|| Start::new(self, trial, &network));
        if shared {
            let drawn = self.model.draw(self.seed, FeedbackDraw::None);
            let (model, backend) = (&self.model, self.backend);
            self.initial_weights
                .get_or_insert_with(|| model.upload(backend, &drawn.weights));
            if let Room::FeedForward(room) = &mut self.room {
                room.add_initial(self.backend, &network, self.most);
            }
        }
        let lengths: Vec<usize> = network
            .layers()
            .iter()
            .flat_map(|l| [l.weights(), l.outputs])
            .collect();
        self.companions.push(Companion {
            of: trial,
            weights: self.trials[trial].weights().clone(),
            optimizer: OptimizerState::new(self.backend, spec.optimizer, &lengths),
            start,
        });
    }

    /// The companion's weights, if the trial has one.
    pub fn companion(&self, trial: usize) -> Option<&Weights<B>> {
        let companion = self.companions.iter().find(|c| c.of == trial)?;
        Some(&companion.weights)
    }

    /// Weights and biases under the names that files give them.
    pub fn named(&self, weights: &Weights<B>) -> Vec<NamedTensor> {
        let [names, bias_names, _] = self.model.shapes(FeedbackDraw::None);
        let mut tensors = named_tensors(self.backend, names, weights.weight.iter());
        tensors.extend(named_tensors(self.backend, bias_names, weights.bias.iter()));
        tensors
    }

    /// Whether a trial has a companion that shares the initial network's pass.
    pub(crate) fn companion_shares_initial(&self, trial: usize) -> bool {
        let shares = |c: &Companion<B>| c.of == trial && c.start.is_none();
        self.companions.iter().any(shares)
    }

    /// The companion's update, driven by the error of the trial's evaluation that is at hand.
    pub(crate) fn step_companion(&mut self, trial: usize) {
        let Some(at) = self.companions.iter().position(|c| c.of == trial) else {
            return;
        };
        let (Room::FeedForward(room), Model::FeedForward(network)) = (&mut self.room, &self.model)
        else {
            unreachable!("{FEED_FORWARD}");
        };
        let rule = align_zero();
        let companion = &mut self.companions[at];
        let (backend, batch) = (self.backend, self.batch);
        let (initial, pass) = match &mut companion.start {
            Some(start) => {
                room.run_from(backend, network, &start.weights, batch, &mut start.pass);
                (&start.weights, Some(&start.pass))
            }
            None => {
                let shared = self.initial_weights.as_ref();
                (shared.expect("made with the companion"), None)
            }
        };
        // Under align-zero nothing but the initial network and the error matters.
        let student = Student {
            rule: &rule,
            weights: &companion.weights,
            initial_weights: Some(initial),
            feedback: &FeedbackState::None,
            hidden: Hidden::Own,
        };
        room.learn(backend, network, &student, pass, batch);
        companion.optimizer.begin_step();
        for (i, l) in trained_layers(&rule, network).enumerate() {
            let pairs = [
                (&room.gradient.weight[l], &mut companion.weights.weight[l]),
                (&room.gradient.bias[l], &mut companion.weights.bias[l]),
            ];
            for (j, (gradient, weight)) in pairs.into_iter().enumerate() {
                companion
                    .optimizer
                    .update(backend, 2 * i + j, gradient, weight);
            }
        }
    }

    /// The errors `e = ∇_f L` of the last evaluation of any trial, `[batch, class]`.
    pub fn last_error(&self) -> Vec<f64> {
        match (&self.room, &self.model) {
            (Room::FeedForward(room), Model::FeedForward(network)) => {
                let mut error = self.backend.read(room.error());
                error.truncate(self.batch * network.spec().classes);
                error
            }
            _ => Vec::new(),
        }
    }

    /// The places of the loaded minibatch's samples in their part.
    pub fn loaded_samples(&self) -> &[usize] {
        &self.samples
    }

    /// Builds W* in a single pass over the training part from integrated errors (Eqs. 5–7, 12). Exact where no
    /// norm mixes samples, and under SGD, whose steps add up.
    ///
    /// # Panics
    /// If the network is recurrent or has a norm, or `errors` belong to another part.
    pub fn integrated_companion(
        &mut self,
        trial: usize,
        part: &Part<'_>,
        errors: &IntegratedErrors,
    ) -> Weights<B> {
        let network = self.model.feed_forward().expect(FEED_FORWARD).clone();
        assert!(
            network.hidden().iter().all(|l| l.norm == Norm::None),
            "the integrated-error form is exact only without a norm"
        );
        assert_eq!(errors.sums.len(), part.samples.len() * errors.classes);
        let mut start = Start::new(self, trial, &network);
        let mut reference = start.weights.clone();
        let order: Vec<usize> = (0..part.samples.len()).collect();
        for samples in order.chunks(self.most) {
            self.load(&part.minibatch(samples, network.minibatch_layout()));
            let from = samples[0] * errors.classes;
            let chunk = &errors.sums[from..from + samples.len() * errors.classes];
            let Room::FeedForward(room) = &mut self.room else {
                unreachable!("{FEED_FORWARD}");
            };
            let (backend, batch) = (self.backend, samples.len());
            room.run_from(backend, &network, &start.weights, batch, &mut start.pass);
            room.set_error(backend, chunk);
            let rule = align_zero();
            let student = Student {
                rule: &rule,
                weights: &reference,
                initial_weights: Some(&start.weights),
                feedback: &FeedbackState::None,
                hidden: Hidden::Own,
            };
            room.learn(backend, &network, &student, Some(&start.pass), batch);
            for l in 0..network.layers().len() {
                backend.sgd(1.0, &room.gradient.weight[l], &mut reference.weight[l]);
                backend.sgd(1.0, &room.gradient.bias[l], &mut reference.bias[l]);
            }
        }
        reference
    }

    /// A trial's initial weights, drawn anew.
    pub fn initial_weights_of(&self, trial: usize) -> Vec<Vec<f32>> {
        let draw = FeedbackDraw::of(&self.trials[trial].spec().rule);
        self.model.draw(self.seed, draw).weights
    }
}

/// Each training sample's integrated error, `δ(x) = Σ_t lr · e_t(x)`, `[sample, class]`.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegratedErrors {
    classes: usize,
    sums: Vec<f64>,
}

impl IntegratedErrors {
    /// Zeros.
    pub fn new(samples: usize, classes: usize) -> Self {
        Self {
            classes,
            sums: vec![0.0; samples * classes],
        }
    }

    /// Adds the errors of a trial's step; to be called right after it.
    pub fn add<B: Backend>(&mut self, cohort: &Cohort<'_, B>, trial: &Trial<B>) {
        let lr = trial.spec().optimizer.lr();
        let error = cohort.last_error();
        for (row, &sample) in error.chunks(self.classes).zip(cohort.loaded_samples()) {
            let sums = &mut self.sums[sample * self.classes..][..self.classes];
            for (sum, e) in sums.iter_mut().zip(row) {
                *sum += lr * e;
            }
        }
    }
}
