//! `result.json`: how a trial ended. Written last, so that a folder which has it is whole.

use super::{RunError, RunFolder, TrialResult, read_json, status_name};
use sansprop::cohort::Status;
use serde::{Deserialize, Serialize};
use std::path::Path;

const NAME: &str = "result.json";

/// How a trial ended, for tables. Numbers that are not finite are `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `completed`, `diverged` or `failed`.
    pub status: String,
    /// What went wrong with a failed trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The epoch, counted from 0, in which a loss was not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged_epoch: Option<usize>,
    /// Best accuracy on the evaluated samples over epochs; none for sequences.
    pub best_eval_accuracy: Option<f64>,
    /// The first epoch that reached it, counted from 0; for sequences the one with the best loss.
    pub best_epoch: Option<usize>,
    /// Best loss on the evaluated samples over epochs.
    pub best_eval_loss: Option<f64>,
    /// Best training loss over epochs.
    pub best_train_loss: Option<f64>,
    /// Share of hits on the evaluated samples after the last evaluated epoch.
    pub final_eval_accuracy: Option<f64>,
    /// Loss on them.
    pub final_eval_loss: Option<f64>,
    /// Mean loss over the last epoch's minibatches.
    pub final_train_loss: Option<f64>,
    /// Share of hits over the same.
    pub final_train_accuracy: Option<f64>,
    /// Updates done.
    pub steps: u64,
    /// Seconds: the trial's own work, and what it shares with others in full.
    pub seconds: f64,
}

impl Outcome {
    /// Of a trial that trained to its end.
    pub fn of(result: &TrialResult) -> Self {
        let finite = |value: f64| Some(value).filter(|v| v.is_finite());
        Self {
            status: status_name(result.status).into(),
            message: None,
            diverged_epoch: match result.status {
                Status::Diverged { epoch } => Some(epoch),
                _ => None,
            },
            best_eval_accuracy: result.best_accuracy.map(|(accuracy, _)| accuracy),
            best_epoch: result.best_epoch(),
            best_eval_loss: result.best_loss.map(|(loss, _)| loss),
            best_train_loss: result.best_train_loss,
            final_eval_accuracy: result.last.and_then(|s| s.accuracy).and_then(finite),
            final_eval_loss: result.last.and_then(|s| finite(s.loss)),
            final_train_loss: result.train.and_then(|s| finite(s.loss)),
            final_train_accuracy: result.train.and_then(|s| s.accuracy).and_then(finite),
            steps: result.steps,
            seconds: result.seconds,
        }
    }

    /// Of a trial that an error or a panic ended.
    pub fn failed(message: String) -> Self {
        Self {
            status: "failed".into(),
            message: Some(message),
            ..Self::default()
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, folder: &RunFolder) -> Result<(), RunError> {
        let mut json = serde_json::to_vec_pretty(self).expect("plain strings and numbers");
        json.push(b'\n');
        folder.write(NAME, &json)
    }

    /// Reads the file; none where there is none: the trial has not ended.
    ///
    /// # Errors
    /// It cannot be read or is no such file.
    pub fn load(folder: &RunFolder) -> Result<Option<Self>, RunError> {
        Self::read(folder.path())
    }

    /// As [`load`](Self::load), of a folder that need not be there.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn read(folder: &Path) -> Result<Option<Self>, RunError> {
        read_json(&folder.join(NAME))
    }

    /// Removes the file, if there is one: the trial counts as not ended.
    ///
    /// # Errors
    /// It is there and stays.
    pub fn remove(folder: &RunFolder) -> Result<(), RunError> {
        folder.remove(NAME)
    }
}
