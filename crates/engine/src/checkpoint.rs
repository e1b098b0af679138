//! Places at which training can be left and taken up again, bit for bit.
//!
//! A [`Position`] says where the loop is, a [`TrialState`] what one trial has become. The sample order is not
//! part of either: it follows from the seed, and the loop draws it again up to the position. W⁽⁰⁾ likewise is
//! drawn again by [`Cohort::new`].

use crate::cohort::{Cohort, Report, Trial};
use crate::companion::Companion;
use crate::learn::FeedbackState;
use crate::optim::OptimizerState;
use crate::pass::Weights;
use crate::train::Score;
use sansprop_kernels::Backend;
use thiserror::Error;

/// Sums over the minibatches of an epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Sum over samples of the loss.
    pub loss: f64,
    /// Hits; none for sequences.
    pub correct: Option<usize>,
    /// Samples.
    pub samples: usize,
}

impl Tally {
    /// Adds a minibatch.
    pub(crate) fn add(&mut self, report: &Report, samples: usize) {
        self.loss += report.loss * samples as f64;
        self.correct = report.correct.map(|n| self.correct.unwrap_or(0) + n);
        self.samples += samples;
    }

    /// Mean loss and share of hits.
    pub fn score(&self) -> Score {
        let count = self.samples as f64;
        Score {
            loss: self.loss / count,
            accuracy: self.correct.map(|n| n as f64 / count),
        }
    }
}

/// A place between two minibatches of training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Minibatches of this epoch that all running trials have learned from.
    pub step: usize,
    /// What each trial summed up in this epoch.
    pub tallies: Vec<Tally>,
}

impl Position {
    /// The beginning, for so many trials.
    pub fn start(trials: usize) -> Self {
        Self {
            tallies: vec![Tally::default(); trials],
            ..Self::default()
        }
    }
}

/// Everything that learning has changed in one trial and its companion.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialState {
    /// Weights, biases, feedback weights and the optimiser's moments, by name; those of a companion begin with
    /// `companion.`.
    pub tensors: Vec<(String, Vec<f64>)>,
    /// Updates done.
    pub steps: u64,
}

/// Why a state is not one of this trial.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// An array that the trial has is missing.
    #[error("the array {0} is missing")]
    Missing(String),
    /// An array of another length.
    #[error("the array {name} has {found} values instead of {expected}")]
    Length {
        /// The array.
        name: String,
        /// Values that it has.
        found: usize,
        /// Values that the trial needs.
        expected: usize,
    },
}

/// Weights and biases with their names.
fn named_weights<'a, B: Backend>(
    prefix: &'static str,
    weights: &'a Weights<B>,
) -> impl Iterator<Item = (String, &'a B::Buffer)> {
    let named = move |kind: &'static str| {
        move |(l, buffer): (usize, &'a B::Buffer)| (format!("{prefix}layers.{l}.{kind}"), buffer)
    };
    let biases = weights.bias.iter().enumerate().map(named("bias"));
    weights
        .weight
        .iter()
        .enumerate()
        .map(named("weight"))
        .chain(biases)
}

/// An optimiser's moments with their names.
fn named_moments<'a, B: Backend>(
    prefix: &'static str,
    optimizer: &'a OptimizerState<B>,
) -> impl Iterator<Item = (String, &'a B::Buffer)> {
    let moments = optimizer.moments().iter().enumerate();
    moments.flat_map(move |(i, (first, second))| {
        [
            (format!("{prefix}optimizer.{i}.first"), first),
            (format!("{prefix}optimizer.{i}.second"), second),
        ]
    })
}

/// The buffers that learning changes in a trial, with their names.
fn buffers<B: Backend>(trial: &Trial<B>) -> Vec<(String, &B::Buffer)> {
    let feedback: Vec<&B::Buffer> = match &trial.feedback {
        FeedbackState::None => Vec::new(),
        FeedbackState::Random(feedback) => feedback.iter().collect(),
        FeedbackState::Direct(feedback) => feedback.iter().map(|(_, buffer)| buffer).collect(),
    };
    let name = |(l, buffer)| (format!("feedback.{l}.weight"), buffer);
    named_weights("", &trial.weights)
        .chain(feedback.into_iter().enumerate().map(name))
        .chain(named_moments("", &trial.optimizer))
        .collect()
}

/// The same buffers in the same order, to be written.
fn buffers_mut<B: Backend>(trial: &mut Trial<B>) -> Vec<&mut B::Buffer> {
    let weights = &mut trial.weights;
    let mut all: Vec<_> = weights.weight.iter_mut().chain(&mut weights.bias).collect();
    match &mut trial.feedback {
        FeedbackState::None => {}
        FeedbackState::Random(feedback) => all.extend(feedback),
        FeedbackState::Direct(feedback) => all.extend(feedback.iter_mut().map(|(_, b)| b)),
    }
    all.extend(moments_mut(&mut trial.optimizer));
    all
}

fn moments_mut<B: Backend>(
    optimizer: &mut OptimizerState<B>,
) -> impl Iterator<Item = &mut B::Buffer> {
    let moments = optimizer.moments_mut().iter_mut();
    moments.flat_map(|(first, second)| [first, second])
}

const COMPANION: &str = "companion.";

/// The buffers that learning changes in a companion, with their names.
fn companion_buffers<B: Backend>(
    companion: &Companion<B>,
) -> impl Iterator<Item = (String, &B::Buffer)> {
    named_weights(COMPANION, &companion.weights)
        .chain(named_moments(COMPANION, &companion.optimizer))
}

/// The same buffers in the same order, to be written.
fn companion_buffers_mut<B: Backend>(
    companion: &mut Companion<B>,
) -> impl Iterator<Item = &mut B::Buffer> {
    let weights = &mut companion.weights;
    let weights = weights.weight.iter_mut().chain(&mut weights.bias);
    weights.chain(moments_mut(&mut companion.optimizer))
}

impl<B: Backend> Cohort<'_, B> {
    /// The buffers that learning changes in a trial and in its companion, if it has one.
    fn changing(&self, trial: usize) -> Vec<(String, &B::Buffer)> {
        let mut all = buffers(&self.trials()[trial]);
        let companion = self.companions.iter().find(|c| c.of == trial);
        all.extend(companion.into_iter().flat_map(companion_buffers));
        all
    }

    /// What learning has made of one trial so far.
    pub fn state(&self, trial: usize) -> TrialState {
        let backend = self.backend();
        TrialState {
            tensors: self
                .changing(trial)
                .into_iter()
                .map(|(name, buffer)| (name, backend.read(buffer)))
                .collect(),
            steps: self.trials()[trial].steps(),
        }
    }

    /// Makes one trial what it was when `state` was taken. A trial that has a companion needs a state with one.
    ///
    /// # Errors
    /// Arrays are missing or of another length; the trial is then as it was.
    pub fn restore(&mut self, trial: usize, state: &TrialState) -> Result<(), StateError> {
        let backend = self.backend();
        let mut found = Vec::new();
        for (name, buffer) in self.changing(trial) {
            let Some((_, values)) = state.tensors.iter().find(|(n, _)| *n == name) else {
                return Err(StateError::Missing(name));
            };
            let expected = backend.read(buffer).len();
            if values.len() != expected {
                return Err(StateError::Length {
                    name,
                    found: values.len(),
                    expected,
                });
            }
            found.push(values);
        }
        let mut found = found.into_iter();
        let own = self.trial_mut(trial);
        for (buffer, values) in buffers_mut(own).into_iter().zip(found.by_ref()) {
            backend.write(values, buffer);
        }
        own.set_steps(state.steps);
        if let Some(companion) = self.companions.iter_mut().find(|c| c.of == trial) {
            for (buffer, values) in companion_buffers_mut(companion).zip(found) {
                backend.write(values, buffer);
            }
            companion.optimizer.set_steps(state.steps);
        }
        Ok(())
    }
}
