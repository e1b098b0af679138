//! Sequence sets: inputs and targets step by step, and the Add task.

use crate::minibatch::{Minibatch, Targets};
use crate::rng::LegacyRandom;
use thiserror::Error;

/// Sequences of scalars with a scalar target at every step.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequences {
    steps: usize,
    inputs: Vec<f32>,
    targets: Vec<f32>,
}

/// Why values do not make [`Sequences`].
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SequencesError {
    /// Inputs and targets differ in number, or are no whole number of sequences.
    #[error("{inputs} inputs and {targets} targets do not make sequences of {steps} steps")]
    Count {
        /// Input values given.
        inputs: usize,
        /// Target values given.
        targets: usize,
        /// Steps of a sequence.
        steps: usize,
    },
    /// A value is NaN or infinite.
    #[error("value {value} in sequence {sequence}, step {step}: all values must be finite")]
    NotFinite {
        /// Index of the sequence.
        sequence: usize,
        /// Index of the step.
        step: usize,
        /// The value.
        value: f32,
    },
}

impl Sequences {
    /// Checks counts and finiteness; both arrays are `[sequence, step]`.
    ///
    /// # Errors
    /// Counts that do not agree, no sequence at all, values that are not finite.
    pub fn new(steps: usize, inputs: Vec<f32>, targets: Vec<f32>) -> Result<Self, SequencesError> {
        if steps == 0
            || inputs.is_empty()
            || inputs.len() != targets.len()
            || !inputs.len().is_multiple_of(steps)
        {
            return Err(SequencesError::Count {
                inputs: inputs.len(),
                targets: targets.len(),
                steps,
            });
        }
        for values in [&inputs, &targets] {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(SequencesError::NotFinite {
                    sequence: i / steps,
                    step: i % steps,
                    value: values[i],
                });
            }
        }
        Ok(Self {
            steps,
            inputs,
            targets,
        })
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.inputs.len() / self.steps
    }

    /// Never true: an empty set is refused by [`Sequences::new`].
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Steps of every sequence.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Targets, `[sequence, step]`.
    pub fn targets(&self) -> &[f32] {
        &self.targets
    }

    /// Inputs, `[sequence, step]`.
    pub fn inputs(&self) -> &[f32] {
        &self.inputs
    }

    /// Loss of whoever always answers ½: `Σ_t mean (y_t − ½)²` over the given sequences.
    pub fn chance_loss(&self, samples: std::ops::Range<usize>) -> f64 {
        let count = samples.len() as f64;
        self.targets[samples.start * self.steps..samples.end * self.steps]
            .iter()
            .map(|&y| (f64::from(y) - 0.5).powi(2))
            .sum::<f64>()
            / count
    }

    /// Gathers sequences as `[step, batch, 1]`.
    pub fn minibatch(&self, samples: &[usize]) -> Minibatch {
        let gather = |values: &[f32]| -> Vec<f32> {
            (0..self.steps)
                .flat_map(|t| samples.iter().map(move |s| s * self.steps + t))
                .map(|i| values[i])
                .collect()
        };
        Minibatch {
            batch: samples.len(),
            samples: samples.to_vec(),
            input: gather(&self.inputs),
            targets: Targets::Values(gather(&self.targets)),
        }
    }
}

/// Which Add task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddVariant {
    /// As the published generator has it: lags roll around the end of a sequence, and an indexing slip sets
    /// the first lag's term to 0 in the first `lag` *sequences* (2 and 5 of them). Table 8's chance losses
    /// come with it.
    Published,
    /// Lags start from zero: before step `lag` the term is absent.
    Causal,
}

/// Sequences of the published Add task that train, and that test.
pub const ADD_TASK_SEQUENCES: (usize, usize) = (300, 100);

/// The Add task: x ~ Bernoulli(½), `y_t = ½ + ½ x_{t−lags[0]} − ¼ x_{t−lags[1]}`.
///
/// Draws `count · steps` uniforms after `seed(seed)`, row by row, 1 where they exceed ½, as
/// `numpy.random.binomial(1, 0.5, (count, steps))` does.
pub fn add_task(
    variant: AddVariant,
    count: usize,
    steps: usize,
    lags: [usize; 2],
    seed: u32,
) -> Result<Sequences, SequencesError> {
    let mut random = LegacyRandom::new(seed);
    let inputs: Vec<f32> = (0..count * steps)
        .map(|_| f32::from(u8::from(random.uniform() > 0.5)))
        .collect();
    let mut targets = Vec::with_capacity(inputs.len());
    for (sequence, x) in inputs.chunks(steps.max(1)).enumerate() {
        for t in 0..steps {
            let lagged = |lag: usize| match variant {
                AddVariant::Published if sequence < lag => 0.0,
                AddVariant::Published => x[(t + steps - lag % steps) % steps],
                AddVariant::Causal if t < lag => 0.0,
                AddVariant::Causal => x[t - lag],
            };
            targets.push(0.5 + 0.5 * lagged(lags[0]) - 0.25 * lagged(lags[1]));
        }
    }
    Sequences::new(steps, inputs, targets)
}
