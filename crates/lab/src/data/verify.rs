//! What a set holds, read in full.

use std::path::Path;

use sansprop::images::{Images, Pixels};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{DataError, known, load};

/// What [`verify`] found in a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The set.
    pub name: String,
    /// The folder or files it came from.
    pub source: String,
    /// The training images.
    pub train: SplitReport,
    /// The test images, where there are any.
    pub test: Option<SplitReport>,
    /// The published numbers of training and test samples; none for the user's own arrays.
    pub official: Option<(usize, Option<usize>)>,
    /// Whether both parts have the published number of samples.
    pub complete: Option<bool>,
}

/// What one part of a set holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// Number of samples.
    pub samples: usize,
    /// Height, width and channels of an image.
    pub shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Samples of each class.
    pub per_class: Vec<usize>,
    /// Smallest pixel value as the network sees it (bytes divided by 255, digits by 16).
    pub pixel_min: f32,
    /// Largest pixel value as the network sees it.
    pub pixel_max: f32,
    /// Mean pixel value as the network sees it.
    pub pixel_mean: f64,
    /// SHA-256, in hexadecimal, of the pixels `[sample, row, column, channel]` (bytes as stored,
    /// floats as little-endian 32-bit numbers) followed by the labels as little-endian 32-bit
    /// integers. It depends on the order of the samples, not on the files' format.
    pub sha256: String,
}

/// Loads the set `name` in full and describes it.
///
/// # Errors
/// Those of [`load`].
pub fn verify(name: &str, path: Option<&Path>) -> Result<Report, DataError> {
    let official = known::find(name)?.official;
    let set = load(name, path)?;
    let sizes = (set.train.len(), set.test.as_ref().map(Images::len));
    Ok(Report {
        name: set.name,
        source: set.source,
        train: describe(&set.train),
        test: set.test.as_ref().map(describe),
        official,
        complete: official.map(|o| o == sizes),
    })
}

fn describe(images: &Images) -> SplitReport {
    let mut per_class = vec![0; images.classes()];
    for &label in images.labels() {
        per_class[label as usize] += 1;
    }
    let mut hash = Sha256::new();
    let (pixel_min, pixel_max, pixel_mean) = match images.pixels() {
        Pixels::Bytes { values, divisor } => {
            hash.update(values);
            let min = values.iter().min().copied().unwrap_or(0);
            let max = values.iter().max().copied().unwrap_or(0);
            let sum: u64 = values.iter().map(|&v| u64::from(v)).sum();
            (
                f32::from(min) / divisor,
                f32::from(max) / divisor,
                sum as f64 / values.len() as f64 / f64::from(*divisor),
            )
        }
        Pixels::Floats(values) => {
            for chunk in values.chunks(4096) {
                let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
                hash.update(bytes);
            }
            let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
            (
                values.iter().copied().fold(f32::INFINITY, f32::min),
                values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                sum / values.len() as f64,
            )
        }
    };
    for label in images.labels() {
        hash.update(label.to_le_bytes());
    }
    let shape = images.shape();
    SplitReport {
        samples: images.len(),
        shape: [shape.height, shape.width, shape.channels],
        classes: images.classes(),
        per_class,
        pixel_min,
        pixel_max,
        pixel_mean,
        sha256: hash.finalize().iter().map(|b| format!("{b:02x}")).collect(),
    }
}
