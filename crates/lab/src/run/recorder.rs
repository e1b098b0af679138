//! The observer of every run: metrics, final weights, seconds, progress, and the wish to stop.

use super::metrics::LayerLine;
use super::{Clock, EndLine, EpochLine, MetricsFile, RunError, RunFolder, StepLine};
use crate::progress::{Progress, Update};
use sansprop::cohort::{Cohort, Status};
use sansprop::rule::Rule;
use sansprop::train::{Event, Observer, Score};
use sansprop_kernels::Backend;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a trial went.
#[derive(Clone, Debug)]
pub struct TrialResult {
    /// How it ended.
    pub status: Status,
    /// Best accuracy on the evaluated samples, and the first epoch that reached it; none for sequences.
    pub best_accuracy: Option<(f64, usize)>,
    /// Best loss on the evaluated samples, and the first epoch that reached it.
    pub best_loss: Option<(f64, usize)>,
    /// Best training loss.
    pub best_train_loss: Option<f64>,
    /// The last evaluation.
    pub last: Option<Score>,
    /// The last epoch's mean training loss and accuracy.
    pub train: Option<Score>,
    /// Seconds, as if the trial ran alone.
    pub seconds: f64,
    /// Updates done.
    pub steps: u64,
}

impl TrialResult {
    fn add_epoch(&mut self, epoch: usize, train: Score, evaluation: Option<Score>) {
        self.train = Some(train);
        if train.loss.is_finite() && self.best_train_loss.is_none_or(|best| train.loss < best) {
            self.best_train_loss = Some(train.loss);
        }
        let Some(score) = evaluation else {
            return;
        };
        self.last = Some(score);
        if !score.loss.is_finite() {
            return;
        }
        if self.best_loss.is_none_or(|(best, _)| score.loss < best) {
            self.best_loss = Some((score.loss, epoch));
        }
        if let Some(accuracy) = score.accuracy
            && self.best_accuracy.is_none_or(|(best, _)| accuracy > best)
        {
            self.best_accuracy = Some((accuracy, epoch));
        }
    }

    /// The epoch with the best accuracy; for sequences the one with the best loss.
    pub fn best_epoch(&self) -> Option<usize> {
        self.best_accuracy
            .or(self.best_loss)
            .map(|(_, epoch)| epoch)
    }
}

/// One trial's files and what is known of it so far.
pub struct TrialRecord {
    rule: Rule,
    folder: RunFolder,
    metrics: MetricsFile,
    result: TrialResult,
}

impl TrialRecord {
    /// Opens the metrics file of a trial.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(rule: Rule, folder: RunFolder) -> Result<Self, RunError> {
        let metrics = MetricsFile::create(folder.file("metrics.jsonl"))?;
        Ok(Self {
            rule,
            folder,
            metrics,
            result: TrialResult {
                status: Status::Running,
                best_accuracy: None,
                best_loss: None,
                best_train_loss: None,
                last: None,
                train: None,
                seconds: 0.0,
                steps: 0,
            },
        })
    }
}

/// Records the trials of one cohort.
pub struct Recorder {
    trials: Vec<TrialRecord>,
    clock: Clock,
    progress: Progress,
    log_steps: bool,
    chance: Option<(f64, f64)>,
    stop: Arc<AtomicBool>,
    error: Option<RunError>,
}

impl Recorder {
    /// Records `trials`; training stops when `stop` becomes true. `chance` are the losses of always answering ½
    /// in training and in evaluation, for sequences.
    pub fn new(
        trials: Vec<TrialRecord>,
        progress: Progress,
        log_steps: bool,
        chance: Option<(f64, f64)>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            clock: Clock::new(trials.len()),
            trials,
            progress,
            log_steps,
            chance,
            stop,
            error: None,
        }
    }

    /// The trials' results once training is over.
    ///
    /// # Errors
    /// A file could not be written; training stopped there.
    pub fn finish(self) -> Result<Vec<TrialResult>, RunError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.trials.into_iter().map(|t| t.result).collect()),
        }
    }

    fn record<B: Backend>(
        &mut self,
        event: &Event,
        cohort: &Cohort<'_, B>,
    ) -> Result<(), RunError> {
        match *event {
            Event::EpochStarted { .. } | Event::Resumable(_) => self.clock.skip(),
            Event::Loaded => self.clock.lap(|_| true),
            Event::InitialPass => {
                let trials = &self.trials;
                self.clock.lap(|t| trials[t].rule.needs_initial_pass());
            }
            Event::Step {
                trial,
                epoch,
                step,
                score,
            } => {
                self.clock.lap(|t| t == trial);
                let record = &mut self.trials[trial];
                record.result.steps = cohort.trials()[trial].steps();
                if self.log_steps {
                    record.metrics.add(&StepLine {
                        step,
                        epoch,
                        loss: score.loss,
                        accuracy: score.accuracy,
                    })?;
                }
                for (i, layer) in cohort.diagnosis().unwrap_or_default().iter().enumerate() {
                    record.metrics.add(&LayerLine {
                        step,
                        epoch,
                        layer: i + 1,
                        gradient_cosine: layer.gradient_cosine,
                        gradient_norm_ratio: layer.gradient_norm_ratio,
                        feedback_cosine: layer.feedback_cosine,
                        weight_change: layer.weight_change,
                        kernel_drift: layer.kernel_drift,
                    })?;
                }
                self.progress.step(trial);
                self.clock.skip();
            }
            Event::Evaluated { trial } => self.clock.lap(|t| t == trial),
            Event::EpochEnded {
                trial,
                epoch,
                train,
                evaluation,
            } => {
                let seconds = self.clock.take_epoch(trial);
                let record = &mut self.trials[trial];
                record.metrics.add(&EpochLine {
                    epoch,
                    train_loss: train.loss,
                    train_accuracy: train.accuracy,
                    eval_loss: evaluation.map(|e| e.loss),
                    eval_accuracy: evaluation.and_then(|e| e.accuracy),
                    seconds,
                })?;
                record.metrics.flush()?;
                record.result.add_epoch(epoch, train, evaluation);
                self.progress.epoch(&Update {
                    trial,
                    epoch,
                    train,
                    evaluation,
                });
                self.clock.skip();
            }
            Event::Ended { trial } => self.end(trial, cohort)?,
        }
        Ok(())
    }

    fn end<B: Backend>(&mut self, trial: usize, cohort: &Cohort<'_, B>) -> Result<(), RunError> {
        let seconds = self.clock.total(trial);
        let record = &mut self.trials[trial];
        let status = cohort.trials()[trial].status();
        record.result.status = status;
        record.result.seconds = seconds;
        let steps = cohort.trials()[trial].steps();
        record
            .folder
            .save("final.safetensors", &cohort.tensors(trial), steps)?;
        record.metrics.add(&EndLine {
            status: status_name(status),
            best_eval_accuracy: record.result.best_accuracy.map(|(accuracy, _)| accuracy),
            best_epoch: record.result.best_epoch(),
            best_eval_loss: record.result.best_loss.map(|(loss, _)| loss),
            best_train_loss: record.result.best_train_loss,
            chance_train_loss: self.chance.map(|(train, _)| train),
            chance_eval_loss: self.chance.map(|(_, evaluation)| evaluation),
            diverged_epoch: match status {
                Status::Diverged { epoch } => Some(epoch),
                _ => None,
            },
            steps,
            seconds,
        })?;
        record.metrics.flush()?;
        self.progress.end(trial, status);
        self.clock.skip();
        Ok(())
    }
}

/// A status in one word.
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Completed => "completed",
        Status::Diverged { .. } => "diverged",
        Status::Interrupted => "interrupted",
    }
}

impl<B: Backend> Observer<B> for Recorder {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        if self.error.is_some() {
            return ControlFlow::Break(());
        }
        if let Err(error) = self.record(event, cohort) {
            self.error = Some(error);
            return ControlFlow::Break(());
        }
        if self.stop.load(Ordering::Relaxed) && !matches!(event, Event::Ended { .. }) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
