//! The UCI handwritten digits, part of the program.

use std::io::Read;

use flate2::read::GzDecoder;
use sansprop::images::{ImageShape, Images, Pixels};

use super::{DataError, DataSet};

static FILE: &[u8] = include_bytes!("../../data/digits.csv.gz");

/// How the set's origin is named in results and errors.
pub(super) const SOURCE: &str = "part of the program (UCI handwritten digits, as in scikit-learn)";

/// Values 0 to 16 count the dark pixels of a 4×4 block.
const LARGEST: u8 = 16;

/// Images of 8×8×1, ten classes.
pub(super) const SHAPE: ImageShape = ImageShape {
    height: 8,
    width: 8,
    channels: 1,
};
pub(super) const CLASSES: usize = 10;

/// All 1,797 images in the order of scikit-learn's file, as training images.
pub(super) fn load() -> Result<DataSet, DataError> {
    let mut text = String::new();
    GzDecoder::new(FILE)
        .read_to_string(&mut text)
        .map_err(|error| DataError::Read {
            file: SOURCE.to_string(),
            error,
        })?;
    let mut values = Vec::new();
    let mut labels = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let fields: Result<Vec<u8>, _> = line.split(',').map(str::parse).collect();
        match fields.as_deref() {
            Ok([pixels @ .., label])
                if pixels.len() == SHAPE.len() && pixels.iter().all(|&p| p <= LARGEST) =>
            {
                values.extend_from_slice(pixels);
                labels.push(u32::from(*label));
            }
            _ => {
                return Err(DataError::Damaged {
                    file: SOURCE.to_string(),
                    problem: format!("line {} is not 64 values and a label", number + 1),
                });
            }
        }
    }
    let pixels = Pixels::Bytes {
        values,
        divisor: f32::from(LARGEST),
    };
    let train = Images::new(SHAPE, CLASSES, pixels, labels).map_err(|error| DataError::Images {
        file: SOURCE.to_string(),
        error,
    })?;
    Ok(DataSet {
        name: "digits".to_string(),
        source: SOURCE.to_string(),
        train,
        test: None,
    })
}
