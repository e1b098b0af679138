//! A minibatch on the host.

/// What a minibatch is to be answered with.
#[derive(Debug, PartialEq)]
pub enum Targets {
    /// The class of each sample.
    Labels(Vec<u32>),
    /// The values of each sequence, `[step, batch, output]`.
    Values(Vec<f32>),
}

impl Clone for Targets {
    fn clone(&self) -> Self {
        match self {
            Self::Labels(labels) => Self::Labels(labels.clone()),
            Self::Values(values) => Self::Values(values.clone()),
        }
    }

    /// Into the memory that is there, which the derived one would not use again.
    fn clone_from(&mut self, source: &Self) {
        match (self, source) {
            (Self::Labels(to), Self::Labels(from)) => to.clone_from(from),
            (Self::Values(to), Self::Values(from)) => to.clone_from(from),
            (to, from) => *to = from.clone(),
        }
    }
}

/// Inputs and targets of some samples, laid out for a network's first layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Minibatch {
    /// Number of samples.
    pub batch: usize,
    /// The samples' places in their part.
    pub samples: Vec<usize>,
    /// `[location, batch, channel]` for images, `[step, batch, input]` for sequences.
    pub input: Vec<f32>,
    /// What they are to be answered with.
    pub targets: Targets,
}

impl Minibatch {
    /// Labelled images, numbered from 0.
    pub fn labelled(input: Vec<f32>, labels: Vec<u32>) -> Self {
        Self {
            batch: labels.len(),
            samples: (0..labels.len()).collect(),
            input,
            targets: Targets::Labels(labels),
        }
    }
}
