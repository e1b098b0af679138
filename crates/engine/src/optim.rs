//! Optimisers: what is done with an update direction, whatever rule it came from.

use sansprop_kernels::{AdamStep, Backend};

/// How gradients change weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// `w −= lr · g`, no momentum.
    Sgd {
        /// Learning rate.
        lr: f64,
    },
    /// Adam in TensorFlow's form, β = (0.9, 0.999), ε = 1e-8.
    Adam {
        /// Learning rate.
        lr: f64,
    },
}

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

impl Optimizer {
    /// The learning rate.
    pub fn lr(&self) -> f64 {
        match *self {
            Self::Sgd { lr } | Self::Adam { lr } => lr,
        }
    }

    /// Name in configs and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd { .. } => "sgd",
            Self::Adam { .. } => "adam",
        }
    }
}

/// An optimiser's memory: Adam's moments of every tensor that is trained.
pub struct OptimizerState<B: Backend> {
    optimizer: Optimizer,
    steps: i32,
    moments: Vec<(B::Buffer, B::Buffer)>,
}

impl<B: Backend> OptimizerState<B> {
    /// Nothing remembered yet; `lengths` are those of the trained tensors, in the order of updates.
    pub fn new(backend: &B, optimizer: Optimizer, lengths: &[usize]) -> Self {
        let moments = match optimizer {
            Optimizer::Sgd { .. } => Vec::new(),
            Optimizer::Adam { .. } => lengths
                .iter()
                .map(|&len| (backend.zeros(len), backend.zeros(len)))
                .collect(),
        };
        Self {
            optimizer,
            steps: 0,
            moments,
        }
    }

    pub(crate) fn moments(&self) -> &[(B::Buffer, B::Buffer)] {
        &self.moments
    }

    pub(crate) fn moments_mut(&mut self) -> &mut [(B::Buffer, B::Buffer)] {
        &mut self.moments
    }

    /// As if so many updates were done.
    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = i32::try_from(steps).unwrap_or(i32::MAX);
    }

    /// Starts the next update.
    pub fn begin_step(&mut self) {
        self.steps = self.steps.saturating_add(1);
    }

    /// The rates of the next `count` updates, where they are not always the same.
    pub(crate) fn rates(&self, count: usize) -> Option<Vec<f64>> {
        match self.optimizer {
            Optimizer::Sgd { .. } => None,
            Optimizer::Adam { lr } => {
                let count = i32::try_from(count).unwrap_or(i32::MAX);
                let step = |i| self.steps.saturating_add(i);
                Some((1..=count).map(|i| adam_rate(lr, step(i))).collect())
            }
        }
    }

    /// Updates tensor number `index`.
    pub fn update(
        &mut self,
        backend: &B,
        index: usize,
        gradient: &B::Buffer,
        weight: &mut B::Buffer,
    ) {
        match self.optimizer {
            Optimizer::Sgd { lr } => backend.sgd(lr, gradient, weight),
            Optimizer::Adam { lr } => {
                let step = AdamStep {
                    rate: adam_rate(lr, self.steps),
                    beta1: BETA1,
                    beta2: BETA2,
                    epsilon: EPSILON,
                };
                let (first, second) = &mut self.moments[index];
                backend.adam(step, gradient, first, second, weight);
            }
        }
    }
}

/// The bias-corrected rate of an update, counted from 1.
fn adam_rate(lr: f64, step: i32) -> f64 {
    lr * ((1.0 - BETA2.powi(step)).sqrt() / (1.0 - BETA1.powi(step)))
}
