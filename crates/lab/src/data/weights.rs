//! Weights that the user brings: safetensors, or npz with the same names.

use super::DataError;
use super::locate::read_error;
use super::npy::{self, Values};
use super::numpy::Arrays;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// Shape and values, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f64>,
}

/// All float tensors of a `.safetensors` file (F32, F64) or a `.npz` file (float32, float64), by name.
///
/// # Errors
/// A missing or damaged file; another ending; values that are not finite.
pub fn load_weights(path: &Path) -> Result<BTreeMap<String, Tensor>, DataError> {
    let file = path.display().to_string();
    let ending = path.extension().and_then(|e| e.to_str());
    match ending {
        Some("safetensors") => from_safetensors(path, &file),
        Some("npz") => from_npz(path),
        _ => Err(DataError::Array {
            file,
            problem: "weights are read from .safetensors and .npz files".into(),
        }),
    }
}

fn from_safetensors(path: &Path, file: &str) -> Result<BTreeMap<String, Tensor>, DataError> {
    let bytes = std::fs::read(path).map_err(|e| read_error(file, e))?;
    let damaged = |problem: String| DataError::Damaged {
        file: file.into(),
        problem,
    };
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    let mut all = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let data = view.data();
        let values: Vec<f64> = match view.dtype() {
            Dtype::F32 => data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f64::from(f32::from_le_bytes(*b)))
                .collect(),
            Dtype::F64 => {
                let values = data.as_chunks::<8>().0.iter();
                values.map(|b| f64::from_le_bytes(*b)).collect()
            }
            other => {
                let problem = format!("tensor {name} is {other:?}; weights should be F32 or F64");
                return Err(damaged(problem));
            }
        };
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(damaged(format!(
                "value {i} of tensor {name} is {}",
                values[i]
            )));
        }
        let shape = view.shape().to_vec();
        all.insert(name, Tensor { shape, values });
    }
    Ok(all)
}

fn from_npz(path: &Path) -> Result<BTreeMap<String, Tensor>, DataError> {
    let mut arrays = Arrays::open_npz(path)?;
    let mut all = BTreeMap::new();
    for name in arrays.names() {
        let tensor = arrays.with(&name, |file, header, reader| {
            let values = match npy::pixels(header, reader, file)? {
                Values::Floats(values) => values.into_iter().map(f64::from).collect(),
                Values::Bytes(bytes) => bytes.into_iter().map(f64::from).collect(),
            };
            let shape = header.shape.clone();
            Ok(Tensor { shape, values })
        })?;
        all.extend(tensor.map(|tensor| (name, tensor)));
    }
    Ok(all)
}
