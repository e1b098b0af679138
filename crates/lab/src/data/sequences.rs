//! Sequence sets: the Add task, and the user's own arrays.

use super::known::{self, Format};
use super::npy::{self, Values};
use super::numpy::Arrays;
use super::{ADD_TASK, DataError, locate};
use sansprop::sequences::{ADD_TASK_SEQUENCES, AddVariant, Sequences, SequencesError, add_task};
use std::path::Path;

/// Where `add-task` comes from.
pub(super) const ADD_TASK_SOURCE: &str = "made by the program";

/// A loaded set of sequences.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceSet {
    /// The name it was asked for by.
    pub name: String,
    /// The files it came from.
    pub source: String,
    /// The training sequences.
    pub train: Sequences,
    /// The test sequences; none where the set has no test part.
    pub test: Option<Sequences>,
}

/// The Add task: 400 sequences drawn from `seed`, of which the first 300 train and the last 100 test.
///
/// # Errors
/// No step at all.
pub fn add_task_set(
    variant: AddVariant,
    steps: usize,
    lags: [usize; 2],
    seed: u32,
) -> Result<SequenceSet, DataError> {
    let (train, test) = ADD_TASK_SEQUENCES;
    let error = |error: SequencesError| DataError::Sequences {
        file: ADD_TASK.into(),
        error,
    };
    let all = add_task(variant, train + test, steps, lags, seed).map_err(error)?;
    let part = |from: usize, to: usize| {
        let cut = |values: &[f32]| values[from * steps..to * steps].to_vec();
        Sequences::new(steps, cut(all.inputs()), cut(all.targets())).map_err(error)
    };
    Ok(SequenceSet {
        name: ADD_TASK.into(),
        source: ADD_TASK_SOURCE.into(),
        train: part(0, train)?,
        test: Some(part(train, train + test)?),
    })
}

/// Loads `npz` or `npy` as sequences: float (or uint8) arrays `x_train`, `y_train` and, if there is a test set,
/// `x_test`, `y_test`, each `[sequence, step]`.
///
/// # Errors
/// A set of images; missing or damaged arrays; shapes that differ.
pub fn load_sequences(name: &str, path: Option<&Path>) -> Result<SequenceSet, DataError> {
    let set = known::find(name)?;
    let base = locate::base(path);
    let mut arrays = match set.format {
        Format::Npz => Arrays::npz(set, &base)?,
        Format::Npy => Arrays::npy(set, &base)?,
        Format::AddTask | Format::Digits | Format::Cifar10 | Format::Idx { .. } => {
            return Err(DataError::Kind {
                set: name.into(),
                holds: "images",
                network: "a convolutional or dense network (network.kind = \"conv\" or \"dense\")",
            });
        }
    };
    let source = base.display().to_string();
    let train = part(&mut arrays, "train", &source)?.ok_or_else(|| DataError::Damaged {
        file: source.clone(),
        problem: "there are no arrays x_train and y_train".to_string(),
    })?;
    let test = part(&mut arrays, "test", &source)?;
    if let Some(test) = &test
        && test.steps() != train.steps()
    {
        return Err(DataError::Array {
            file: source,
            problem: format!(
                "x_train has {} steps, x_test has {}",
                train.steps(),
                test.steps()
            ),
        });
    }
    Ok(SequenceSet {
        name: name.into(),
        source,
        train,
        test,
    })
}

fn part(arrays: &mut Arrays, part: &str, source: &str) -> Result<Option<Sequences>, DataError> {
    let mut read = |axis: &str| {
        arrays.with(&format!("{axis}_{part}"), |name, header, reader| {
            let [_, steps] = header.shape[..] else {
                return Err(DataError::Array {
                    file: name.to_string(),
                    problem: format!(
                        "sequences of shape {:?}; it should be [sequence, step]",
                        header.shape
                    ),
                });
            };
            let values = match npy::pixels(header, reader, name)? {
                Values::Bytes(bytes) => bytes.into_iter().map(f32::from).collect(),
                Values::Floats(values) => values,
            };
            Ok((name.to_string(), steps, values))
        })
    };
    match (read("x")?, read("y")?) {
        (None, None) => Ok(None),
        (Some((file, steps, inputs)), Some((_, target_steps, targets))) => {
            if steps != target_steps {
                return Err(DataError::Array {
                    file,
                    problem: format!("{steps} steps, but the targets have {target_steps}"),
                });
            }
            Sequences::new(steps, inputs, targets)
                .map(Some)
                .map_err(|error| DataError::Sequences { file, error })
        }
        _ => Err(DataError::Damaged {
            file: source.into(),
            problem: format!("one of x_{part} and y_{part} is missing"),
        }),
    }
}
