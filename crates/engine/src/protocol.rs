//! Which samples train and which are held out (docs/notation.md, Splits).

use crate::images::{Images, MinibatchLayout};
use crate::minibatch::Minibatch;
use crate::sequences::Sequences;
use std::ops::Range;
use thiserror::Error;

/// A set of samples of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Samples<'a> {
    /// Labelled images.
    Images(&'a Images),
    /// Sequences with targets.
    Sequences(&'a Sequences),
}

impl Samples<'_> {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Images(images) => images.len(),
            Self::Sequences(sequences) => sequences.len(),
        }
    }

    /// Never true: neither kind of set can be empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Some samples of one set.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The set.
    pub set: Samples<'a>,
    /// Indices of the samples that belong to the part.
    pub samples: Range<usize>,
}

impl Part<'_> {
    /// Gathers samples, named by their place in the part; images in the given layout.
    pub fn minibatch(&self, order: &[usize], layout: MinibatchLayout) -> Minibatch {
        let samples: Vec<usize> = order.iter().map(|i| self.samples.start + i).collect();
        let minibatch = match self.set {
            Samples::Images(images) => images.minibatch(&samples, layout),
            Samples::Sequences(sequences) => sequences.minibatch(&samples),
        };
        Minibatch {
            samples: order.to_vec(),
            ..minibatch
        }
    }
}

/// Samples to train on and samples to evaluate on.
#[derive(Clone, Debug)]
pub struct Split<'a> {
    /// Train on these.
    pub train: Part<'a>,
    /// Evaluate on these.
    pub evaluation: Part<'a>,
}

/// Why a set cannot be split as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SplitError {
    /// Nothing is left to train or to evaluate on.
    #[error(
        "holdout = {holdout} leaves nothing to {purpose} of {samples} training samples; choose 1 to {}",
        samples - 1
    )]
    Holdout {
        /// Samples asked to be held out.
        holdout: usize,
        /// Samples in the set.
        samples: usize,
        /// `train on` or `evaluate on`.
        purpose: &'static str,
    },
    /// More training points than there are.
    #[error("train_points = {asked}, but only {available} samples are left to train on")]
    TrainPoints {
        /// Points asked for.
        asked: usize,
        /// Points that there are.
        available: usize,
    },
}

impl<'a> Split<'a> {
    /// The published protocol: the first `holdout` training samples are held out, the rest train. With
    /// `train_points` the first n of the rest train, and the first min(n, holdout) held-out images evaluate.
    ///
    /// # Errors
    /// Either part would be empty; more points asked for than there are.
    pub fn held_out(
        set: Samples<'a>,
        holdout: usize,
        train_points: Option<usize>,
    ) -> Result<Self, SplitError> {
        let error = |purpose| SplitError::Holdout {
            holdout,
            samples: set.len(),
            purpose,
        };
        if holdout == 0 {
            return Err(error("evaluate on"));
        }
        if holdout >= set.len() {
            return Err(error("train on"));
        }
        let points = points(train_points, set.len() - holdout)?;
        let evaluated = train_points.map_or(holdout, |n| n.min(holdout));
        Ok(Self {
            train: Part {
                set,
                samples: holdout..holdout + points,
            },
            evaluation: Part {
                set,
                samples: 0..evaluated,
            },
        })
    }

    /// The official test set evaluates, and all training images (or the first `train_points`) train.
    ///
    /// # Errors
    /// More points asked for than there are.
    pub fn test(
        train: Samples<'a>,
        test: Samples<'a>,
        train_points: Option<usize>,
    ) -> Result<Self, SplitError> {
        Ok(Self {
            train: Part {
                set: train,
                samples: 0..points(train_points, train.len())?,
            },
            evaluation: Part {
                set: test,
                samples: 0..test.len(),
            },
        })
    }
}

fn points(asked: Option<usize>, available: usize) -> Result<usize, SplitError> {
    match asked {
        Some(asked) if asked == 0 || asked > available => {
            Err(SplitError::TrainPoints { asked, available })
        }
        Some(asked) => Ok(asked),
        None => Ok(available),
    }
}

/// The published minibatch size, to which the published rule for small sets applies.
pub const PUBLISHED_BATCH: usize = 100;

/// The minibatch size that is used when `batch` is asked for on `points` training samples.
///
/// Never more than there are. On a small set (`small`: the training part was cut to n points) the published
/// size of 100 follows the published rule: n if n < 100, gcd(100, n) if n is no multiple of 100. Any other size
/// is taken as it is; the incomplete last minibatch of an epoch is dropped.
pub fn minibatch_size(batch: usize, points: usize, small: bool) -> usize {
    if small && batch == PUBLISHED_BATCH && points > batch {
        gcd(batch, points)
    } else {
        batch.min(points)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{ImageShape, Pixels};

    fn images(samples: usize) -> Images {
        let shape = ImageShape {
            height: 1,
            width: 1,
            channels: 1,
        };
        let pixels = Pixels::Floats(vec![0.0; samples]);
        Images::new(shape, 1, pixels, vec![0; samples]).expect("a valid set")
    }

    /// Oracle: the published rule (docs/design.md), worked by hand for the points of Table 9.
    #[test]
    fn small_sets() {
        let size = |n| minibatch_size(100, n, true);
        assert_eq!([45, 100, 150, 450, 4500].map(size), [45, 100, 50, 50, 100]);
        assert_eq!(minibatch_size(100, 5284, false), 100);
        assert_eq!(minibatch_size(257, 1000, true), 257);
        assert_eq!(minibatch_size(7, 3, false), 3);
    }

    #[test]
    fn held_out_parts() {
        let images = images(60);
        let set = Samples::Images(&images);
        let split = Split::held_out(set, 10, None).expect("a split");
        assert_eq!(
            (split.train.samples, split.evaluation.samples),
            (10..60, 0..10)
        );
        let split = Split::held_out(set, 10, Some(4)).expect("a split");
        assert_eq!(
            (split.train.samples, split.evaluation.samples),
            (10..14, 0..4)
        );
        for (holdout, points) in [(0, None), (60, None), (10, Some(51)), (10, Some(0))] {
            assert!(Split::held_out(set, holdout, points).is_err());
        }
    }
}
