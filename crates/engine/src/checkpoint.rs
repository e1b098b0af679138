//! Places at which training can be left and taken up again, bit for bit.
//!
//! A [`Position`] says where the loop is, a [`TrialState`] what one trial has become. The sample order is not
//! part of either: it follows from the seed, and the loop draws it again up to the position. W⁽⁰⁾ likewise is
//! drawn again by [`Cohort::new`].

use crate::cohort::{Cohort, Report, Trial};
use crate::learn::FeedbackState;
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

/// Everything that learning has changed in one trial.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialState {
    /// Weights, biases, feedback weights and the optimiser's moments, by name.
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

/// The buffers that learning changes, with their names.
fn buffers<B: Backend>(trial: &Trial<B>) -> Vec<(String, &B::Buffer)> {
    let weights = &trial.weights;
    let named = |kind: &'static str| move |(l, buffer)| (format!("layers.{l}.{kind}"), buffer);
    let mut all: Vec<_> = weights
        .weight
        .iter()
        .enumerate()
        .map(named("weight"))
        .collect();
    all.extend(weights.bias.iter().enumerate().map(named("bias")));
    let feedback: Vec<&B::Buffer> = match &trial.feedback {
        FeedbackState::None => Vec::new(),
        FeedbackState::Random(feedback) => feedback.iter().collect(),
        FeedbackState::Direct(feedback) => feedback.iter().map(|(_, buffer)| buffer).collect(),
    };
    let name = |l| format!("feedback.{l}.weight");
    all.extend(
        feedback
            .into_iter()
            .enumerate()
            .map(|(l, buffer)| (name(l), buffer)),
    );
    let moments = trial.optimizer.moments().iter().enumerate();
    all.extend(moments.flat_map(|(i, (first, second))| {
        [
            (format!("optimizer.{i}.first"), first),
            (format!("optimizer.{i}.second"), second),
        ]
    }));
    all
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
    let moments = trial.optimizer.moments_mut().iter_mut();
    all.extend(moments.flat_map(|(first, second)| [first, second]));
    all
}

impl<B: Backend> Cohort<'_, B> {
    /// What learning has made of one trial so far.
    pub fn state(&self, trial: usize) -> TrialState {
        let trial = &self.trials()[trial];
        TrialState {
            tensors: buffers(trial)
                .into_iter()
                .map(|(name, buffer)| (name, self.backend().read(buffer)))
                .collect(),
            steps: trial.steps(),
        }
    }

    /// Makes one trial what it was when `state` was taken.
    ///
    /// # Errors
    /// Arrays are missing or of another length; the trial is then as it was.
    pub fn restore(&mut self, trial: usize, state: &TrialState) -> Result<(), StateError> {
        let backend = self.backend();
        let mut found = Vec::new();
        for (name, buffer) in buffers(&self.trials()[trial]) {
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
        let trial = self.trial_mut(trial);
        for (buffer, values) in buffers_mut(trial).into_iter().zip(found) {
            backend.write(values, buffer);
        }
        trial.set_steps(state.steps);
        Ok(())
    }
}
