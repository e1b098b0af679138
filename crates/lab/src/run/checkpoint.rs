//! `checkpoint.safetensors`: where an unfinished trial can be taken up again.
//!
//! The arrays are the file's tensors (f32 where that holds every value exactly, else f64); the rest is JSON in the
//! metadata key `state`. The key `sha256` is of both, so that no damaged file is ever trained from.

use super::{RunError, RunFolder, TrialResult};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sansprop::checkpoint::{Position, Tally, TrialState};
use sansprop::cohort::Status;
use sansprop::train::Score;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;

/// Version of the file's content.
const FORMAT: u32 = 1;

const NAME: &str = "checkpoint.safetensors";

/// One trial at one position.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Minibatches of this epoch that are done.
    pub step: usize,
    /// What the trial summed up in this epoch.
    pub tally: Tally,
    /// What learning has made of the trial.
    pub state: TrialState,
    /// What is known of the trial so far.
    pub result: TrialResult,
    /// Seconds of this epoch so far.
    pub epoch_seconds: f64,
    /// Length of `metrics.jsonl` at this position; what stands behind it is from later.
    pub metrics_bytes: u64,
}

/// A number in JSON by its bits: also where it is not finite.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Bits(u64);

impl From<f64> for Bits {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl From<Bits> for f64 {
    fn from(bits: Bits) -> Self {
        Self::from_bits(bits.0)
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Pair {
    loss: Bits,
    accuracy: Option<Bits>,
}

impl From<Score> for Pair {
    fn from(score: Score) -> Self {
        Self {
            loss: score.loss.into(),
            accuracy: score.accuracy.map(Bits::from),
        }
    }
}

impl From<Pair> for Score {
    fn from(pair: Pair) -> Self {
        Self {
            loss: pair.loss.into(),
            accuracy: pair.accuracy.map(f64::from),
        }
    }
}

/// The JSON.
#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    epoch: usize,
    step: usize,
    loss: Bits,
    correct: Option<usize>,
    samples: usize,
    steps: u64,
    best_accuracy: Option<(Bits, usize)>,
    best_loss: Option<(Bits, usize)>,
    best_train_loss: Option<Bits>,
    last: Option<Pair>,
    train: Option<Pair>,
    seconds: Bits,
    epoch_seconds: Bits,
    metrics_bytes: u64,
}

impl Checkpoint {
    /// Where the loop was, for this trial alone.
    pub fn place(&self) -> (usize, usize) {
        (self.epoch, self.step)
    }

    /// The position of a cohort of trials that were left at the same place; `None` stands for the beginning.
    ///
    /// # Panics
    /// If the places differ.
    pub fn position(checkpoints: &[Option<&Self>]) -> Position {
        let place = |c: &Option<&Self>| c.map_or((0, 0), Self::place);
        let (epoch, step) = checkpoints.first().map_or((0, 0), place);
        assert!(
            checkpoints.iter().all(|c| place(c) == (epoch, step)),
            "trials from different positions in one cohort"
        );
        let tally = |c: &Option<&Self>| c.map_or_else(Tally::default, |c| c.tally);
        Position {
            epoch,
            step,
            tallies: checkpoints.iter().map(tally).collect(),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written; an earlier one is untouched.
    pub fn save(&self, folder: &RunFolder) -> Result<(), RunError> {
        let result = &self.result;
        let written = Written {
            format: FORMAT,
            epoch: self.epoch,
            step: self.step,
            loss: self.tally.loss.into(),
            correct: self.tally.correct,
            samples: self.tally.samples,
            steps: self.state.steps,
            best_accuracy: result
                .best_accuracy
                .map(|(best, epoch)| (best.into(), epoch)),
            best_loss: result.best_loss.map(|(best, epoch)| (best.into(), epoch)),
            best_train_loss: result.best_train_loss.map(Bits::from),
            last: result.last.map(Pair::from),
            train: result.train.map(Pair::from),
            seconds: result.seconds.into(),
            epoch_seconds: self.epoch_seconds.into(),
            metrics_bytes: self.metrics_bytes,
        };
        let json = serde_json::to_string(&written).expect("plain numbers");
        let arrays: Vec<(&str, Dtype, Vec<u8>, usize)> = self
            .state
            .tensors
            .iter()
            .map(|(name, values)| {
                let (dtype, bytes) = bytes_of(values);
                (name.as_str(), dtype, bytes, values.len())
            })
            .collect();
        let digest = digest(&json, arrays.iter().map(|(n, _, b, _)| (*n, b.as_slice())));
        let views = arrays.iter().map(|(name, dtype, bytes, len)| {
            let view = TensorView::new(*dtype, vec![*len], bytes)
                .expect("as many bytes as the values need");
            (*name, view)
        });
        let metadata = HashMap::from([("state".into(), json), ("sha256".into(), digest)]);
        let file = safetensors::serialize(views, Some(metadata))
            .expect("names are distinct and sizes fit in memory");
        folder.write(NAME, &file)
    }

    /// Reads the file; none where there is none. A damaged one is set aside as `checkpoint.safetensors.corrupt`,
    /// with a line on standard error that says what is wrong, and counts as none.
    ///
    /// # Errors
    /// The file can be neither read nor set aside.
    pub fn load(folder: &RunFolder) -> Result<Option<Self>, RunError> {
        let path = folder.file(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunError::Read { path, source }),
        };
        let metrics = fs::metadata(folder.file("metrics.jsonl")).map_or(0, |m| m.len());
        let checked = parse(&bytes).and_then(|checkpoint| {
            if metrics < checkpoint.metrics_bytes {
                return Err(format!(
                    "metrics.jsonl has {metrics} bytes, but had {} when it was made",
                    checkpoint.metrics_bytes
                ));
            }
            Ok(checkpoint)
        });
        match checked {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(why) => {
                let aside = folder.file(&format!("{NAME}.corrupt"));
                fs::rename(&path, &aside).map_err(|source| RunError::Write {
                    path: aside.clone(),
                    source,
                })?;
                eprintln!(
                    "warning: {} is damaged ({why}); set aside as {NAME}.corrupt, the trial starts anew",
                    path.display()
                );
                Ok(None)
            }
        }
    }

    /// Removes the file, if there is one.
    ///
    /// # Errors
    /// It is there and stays.
    pub fn remove(folder: &RunFolder) -> Result<(), RunError> {
        folder.remove(NAME)
    }

    /// Whether there is a file, damaged or not.
    pub fn exists(folder: &RunFolder) -> bool {
        folder.file(NAME).exists()
    }
}

fn bytes_of(values: &[f64]) -> (Dtype, Vec<u8>) {
    let short = |v: &f64| f64::from(*v as f32).to_bits() == v.to_bits();
    if values.iter().all(short) {
        let bytes = values.iter().flat_map(|v| (*v as f32).to_le_bytes());
        (Dtype::F32, bytes.collect())
    } else {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes());
        (Dtype::F64, bytes.collect())
    }
}

fn values_of(view: &TensorView<'_>) -> Result<Vec<f64>, String> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => {
            let (chunks, _) = data.as_chunks::<4>();
            let value = |b: &[u8; 4]| f64::from(f32::from_le_bytes(*b));
            Ok(chunks.iter().map(value).collect())
        }
        Dtype::F64 => {
            let (chunks, _) = data.as_chunks::<8>();
            Ok(chunks.iter().map(|b| f64::from_le_bytes(*b)).collect())
        }
        other => Err(format!("an array of type {other:?}")),
    }
}

/// Of the state and of every array, whatever their order in the file.
fn digest<'a>(json: &str, arrays: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut arrays: Vec<_> = arrays.collect();
    arrays.sort_unstable();
    let mut sha = Sha256::new();
    sha.update(json);
    for (name, bytes) in arrays {
        sha.update(name);
        sha.update(bytes.len().to_le_bytes());
        sha.update(bytes);
    }
    sha.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn parse(bytes: &[u8]) -> Result<Checkpoint, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let key = |name: &str| {
        let value = header.metadata().as_ref().and_then(|m| m.get(name));
        value.ok_or_else(|| format!("no `{name}` in its metadata"))
    };
    let json = key("state")?;
    let tensors = file.tensors();
    let arrays = tensors
        .iter()
        .map(|(name, view)| (name.as_str(), view.data()));
    if *key("sha256")? != digest(json, arrays) {
        return Err("its checksum does not match".into());
    }
    let written: Written = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if written.format != FORMAT {
        return Err(format!(
            "its format is {}, this program's {FORMAT}",
            written.format
        ));
    }
    let values = |(name, view): &(String, TensorView<'_>)| Ok((name.clone(), values_of(view)?));
    Ok(Checkpoint {
        epoch: written.epoch,
        step: written.step,
        tally: Tally {
            loss: written.loss.into(),
            correct: written.correct,
            samples: written.samples,
        },
        state: TrialState {
            tensors: tensors.iter().map(values).collect::<Result<_, String>>()?,
            steps: written.steps,
        },
        result: TrialResult {
            status: Status::Running,
            best_accuracy: written
                .best_accuracy
                .map(|(bits, epoch)| (bits.into(), epoch)),
            best_loss: written.best_loss.map(|(bits, epoch)| (bits.into(), epoch)),
            best_train_loss: written.best_train_loss.map(f64::from),
            last: written.last.map(Score::from),
            train: written.train.map(Score::from),
            seconds: written.seconds.into(),
            steps: written.steps,
        },
        epoch_seconds: written.epoch_seconds.into(),
        metrics_bytes: written.metrics_bytes,
    })
}
