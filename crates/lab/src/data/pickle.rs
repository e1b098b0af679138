//! CIFAR-10's Python batches: a pickled dict with the NumPy array `data` and the list `labels`.

use serde_pickle::{DeOptions, HashableValue, Value};

use super::DataError;

/// The images of one pickle as stored, and their labels.
#[derive(Debug)]
pub(super) struct PickledBatch {
    /// Bytes `[sample, value]`, as many as `values · labels.len()`.
    pub(super) data: Vec<u8>,
    pub(super) labels: Vec<i64>,
}

/// Reads a batch of images of `values` bytes each, written by Python 2 or 3.
///
/// Only data is read out of the pickle: classes and functions that it names are never looked up.
/// A NumPy array is left as the tuple it is restored from, `(version, shape, dtype, is_fortran,
/// bytes)` before protocol 5 and `(bytes, dtype, shape, order)` from then on.
pub(super) fn read(bytes: &[u8], values: usize, file: &str) -> Result<PickledBatch, DataError> {
    let damaged = |problem: String| DataError::Damaged {
        file: file.to_string(),
        problem,
    };
    let options = DeOptions::new()
        .keep_restore_state()
        .replace_unresolved_globals();
    let value = serde_pickle::value_from_slice(bytes, options)
        .map_err(|e| damaged(format!("no pickle: {}", shortened(&e.to_string()))))?;
    let Value::Dict(mut dict) = value else {
        return Err(damaged("the pickle is not a dict".to_string()));
    };
    let mut entry = |name: &str| {
        dict.remove(&HashableValue::Bytes(name.as_bytes().to_vec()))
            .or_else(|| dict.remove(&HashableValue::String(name.to_string())))
            .ok_or_else(|| damaged(format!("the dict has no entry '{name}'")))
    };
    let (shape, data) = array(entry("data")?)
        .ok_or_else(|| damaged("'data' is not a NumPy array in C order".to_string()))?;
    let labels = integers(entry("labels")?)
        .ok_or_else(|| damaged("'labels' is not a list of integers".to_string()))?;
    let samples = labels.len();
    if shape != [samples as i64, values as i64] || data.len() != samples * values {
        return Err(damaged(format!(
            "'data' is an array of shape {shape:?} in {} bytes, but {samples} labels call for {samples} rows of {values} bytes",
            data.len(),
        )));
    }
    Ok(PickledBatch { data, labels })
}

/// Shape and bytes of a NumPy array's restore tuple; none where it is something else.
fn array(value: Value) -> Option<(Vec<i64>, Vec<u8>)> {
    let Value::Tuple(fields) = value else {
        return None;
    };
    let (mut shape, mut data) = (None, None);
    for field in fields {
        match field {
            Value::Bytes(bytes) => data = Some(bytes),
            Value::Bool(true) => return None,
            Value::String(order) if order != "C" => return None,
            // The dtype is a tuple too, but not one of integers only.
            tuple @ Value::Tuple(_) => shape = shape.or(integers(tuple)),
            _ => {}
        }
    }
    shape.zip(data)
}

fn integers(value: Value) -> Option<Vec<i64>> {
    let (Value::List(items) | Value::Tuple(items)) = value else {
        return None;
    };
    items
        .into_iter()
        .map(|item| match item {
            Value::I64(i) => Some(i),
            _ => None,
        })
        .collect()
}

/// The pickle reader quotes the value at fault, which may be all of the images.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
