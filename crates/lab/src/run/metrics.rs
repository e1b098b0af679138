//! `metrics.jsonl`: one JSON object a line. Numbers that are not finite are written as `null`.

use super::{EventFile, RunError, write_whole};
use serde::{Deserialize, Deserializer, Serialize};
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::PathBuf;

/// A line; the key `event` says which.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line {
    /// One update.
    Step(StepLine),
    /// One layer.
    Layer(LayerLine),
    /// One epoch.
    Epoch(EpochLine),
    /// The end of a run.
    End(EndLine),
}

/// Reads back a loss that was not finite.
fn loss<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    Option::deserialize(value).map(|loss| loss.unwrap_or(f64::NAN))
}

/// One update, with `log_steps`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepLine {
    /// Update, counted from 0.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Loss on the minibatch before the update.
    #[serde(deserialize_with = "loss")]
    pub loss: f64,
    /// Share of hits on the minibatch before the update; `null` for sequences.
    pub accuracy: Option<f64>,
}

/// One epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpochLine {
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Images: mean loss over the epoch's minibatches, each before its update. Sequences: loss on the training
    /// part after the epoch.
    #[serde(deserialize_with = "loss")]
    pub train_loss: f64,
    /// Share of hits over the same; `null` for sequences.
    pub train_accuracy: Option<f64>,
    /// Loss on the evaluated samples after the epoch; `null` where `eval_every` skips it.
    pub eval_loss: Option<f64>,
    /// Share of hits on them; `null` for sequences.
    pub eval_accuracy: Option<f64>,
    /// Seconds of training and evaluation: the trial's own work, and what it shares with others in full.
    pub seconds: f64,
}

/// One layer at an epoch's first update, with `gradient_angle` or `layer_drift`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerLine {
    /// Update, counted from 0.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Layer, counted from 1, the head last.
    pub layer: usize,
    /// Cosine between the rule's update and the gradient.
    pub gradient_cosine: Option<f64>,
    /// Norm of the rule's update over that of the gradient.
    pub gradient_norm_ratio: Option<f64>,
    /// Cosine between forward and feedback weights.
    pub feedback_cosine: Option<f64>,
    /// Relative change of the weights since initialisation.
    pub weight_change: Option<f64>,
    /// Relative change of the activations' Gram matrix on this minibatch.
    pub kernel_drift: Option<f64>,
}

/// The end of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndLine {
    /// `completed`, `diverged` or `interrupted`.
    pub status: String,
    /// Best accuracy on the evaluated samples over epochs.
    pub best_eval_accuracy: Option<f64>,
    /// The first epoch that reached it; for sequences the one with the best loss.
    pub best_epoch: Option<usize>,
    /// Best loss on the evaluated samples over epochs.
    pub best_eval_loss: Option<f64>,
    /// Best training loss over epochs.
    pub best_train_loss: Option<f64>,
    /// Sequences: training loss of always answering ½.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chance_train_loss: Option<f64>,
    /// Sequences: the same on the evaluated samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chance_eval_loss: Option<f64>,
    /// The epoch in which a loss was not finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diverged_epoch: Option<usize>,
    /// Updates done.
    pub steps: u64,
    /// Seconds in all.
    pub seconds: f64,
}

/// An open `metrics.jsonl`, and where one is asked for the event file beside it, which says the same.
pub struct MetricsFile {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    events: Option<EventFile>,
}

impl MetricsFile {
    /// Starts a new file, not in the place of an old one but instead of it: see [`resume`](Self::resume).
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: PathBuf) -> Result<Self, RunError> {
        let removed = match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        match removed.and_then(|()| File::create(&path)) {
            Ok(file) => Ok(Self {
                path,
                file: BufWriter::new(file),
                bytes: 0,
                events: None,
            }),
            Err(source) => Err(RunError::Write { path, source }),
        }
    }

    /// Goes on with a file after its first `bytes` bytes. The file is a new one under the old name, so that
    /// a process which still holds the old one open cannot write into it.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub fn resume(path: PathBuf, bytes: u64) -> Result<Self, RunError> {
        let mut kept = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(bytes).read_to_end(&mut kept));
        if let Err(source) = read {
            return Err(RunError::Read { path, source });
        }
        write_whole(&path, &kept)?;
        match File::options().append(true).open(&path) {
            Ok(file) => Ok(Self {
                path,
                file: BufWriter::new(file),
                bytes: kept.len() as u64,
                events: None,
            }),
            Err(source) => Err(RunError::Write { path, source }),
        }
    }

    /// From here on every line goes into the event file, too.
    pub fn with_events(self, events: Option<EventFile>) -> Self {
        Self { events, ..self }
    }

    /// Brings all lines to the disk; the length of the file is then as returned.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn sync(&mut self) -> Result<u64, RunError> {
        self.flush()?;
        let result = self.file.get_ref().sync_data();
        self.check(result)?;
        Ok(self.bytes)
    }

    /// Adds a line; it may stay in memory until [`flush`](Self::flush).
    ///
    /// # Errors
    /// The line cannot be written.
    pub fn add(&mut self, line: &Line) -> Result<(), RunError> {
        let mut text = serde_json::to_vec(line).expect("plain strings and numbers");
        text.push(b'\n');
        self.bytes += text.len() as u64;
        let result = self.file.write_all(&text);
        self.check(result)?;
        match &mut self.events {
            Some(events) => events.add(line),
            None => Ok(()),
        }
    }

    /// Brings all lines to the file, and all events to theirs.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn flush(&mut self) -> Result<(), RunError> {
        let result = self.file.flush();
        self.check(result)?;
        match &mut self.events {
            Some(events) => events.flush(),
            None => Ok(()),
        }
    }

    fn check(&self, result: std::io::Result<()>) -> Result<(), RunError> {
        result.map_err(|source| RunError::Write {
            path: self.path.clone(),
            source,
        })
    }
}
