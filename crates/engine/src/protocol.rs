//! Which samples train and which are held out (docs/notation.md, Splits).

use crate::images::Images;
use std::ops::Range;
use thiserror::Error;

/// Samples of one image set.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The set.
    pub images: &'a Images,
    /// Indices of the samples that belong to the part.
    pub samples: Range<usize>,
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
    /// The published protocol: the first `holdout` training images are held out, the rest train. With
    /// `train_points` the first n of the rest train, and the first min(n, holdout) held-out images evaluate.
    ///
    /// # Errors
    /// Either part would be empty; more points asked for than there are.
    pub fn held_out(
        images: &'a Images,
        holdout: usize,
        train_points: Option<usize>,
    ) -> Result<Self, SplitError> {
        let error = |purpose| SplitError::Holdout {
            holdout,
            samples: images.len(),
            purpose,
        };
        if holdout == 0 {
            return Err(error("evaluate on"));
        }
        if holdout >= images.len() {
            return Err(error("train on"));
        }
        let points = points(train_points, images.len() - holdout)?;
        let evaluated = train_points.map_or(holdout, |n| n.min(holdout));
        Ok(Self {
            train: Part {
                images,
                samples: holdout..holdout + points,
            },
            evaluation: Part {
                images,
                samples: 0..evaluated,
            },
        })
    }

    /// The official test set evaluates, and all training images (or the first `train_points`) train.
    ///
    /// # Errors
    /// More points asked for than there are.
    pub fn test(
        train: &'a Images,
        test: &'a Images,
        train_points: Option<usize>,
    ) -> Result<Self, SplitError> {
        Ok(Self {
            train: Part {
                images: train,
                samples: 0..points(train_points, train.len())?,
            },
            evaluation: Part {
                images: test,
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
        let split = Split::held_out(&images, 10, None).expect("a split");
        assert_eq!(
            (split.train.samples, split.evaluation.samples),
            (10..60, 0..10)
        );
        let split = Split::held_out(&images, 10, Some(4)).expect("a split");
        assert_eq!(
            (split.train.samples, split.evaluation.samples),
            (10..14, 0..4)
        );
        for (holdout, points) in [(0, None), (60, None), (10, Some(51)), (10, Some(0))] {
            assert!(Split::held_out(&images, holdout, points).is_err());
        }
    }
}
