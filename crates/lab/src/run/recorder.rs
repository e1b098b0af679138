//! The observer of every run: metrics, final weights, seconds, progress, and the wish to stop.

use super::{
    Checkpoint, Clock, EndLine, EpochLine, EventFile, LayerLine, Line, Lock, MetricsFile, Outcome,
    RunError, RunFolder, StepLine,
};
use crate::config::{Config, Plan};
use crate::progress::{Progress, Update};
use sansprop::checkpoint::Position;
use sansprop::cohort::{Cohort, Status};
use sansprop::train::{Event, Observer, Score};
use sansprop_kernels::Backend;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    /// Seconds: the trial's own work, and what it shares with others in full.
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
    folder: RunFolder,
    lock: Option<Arc<Lock>>,
    metrics: MetricsFile,
    epoch_seconds: f64,
    result: TrialResult,
}

impl TrialRecord {
    /// Opens the metrics file of a trial, after the lines that its checkpoint knows, and the event file.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn new(
        config: &Config,
        folder: RunFolder,
        lock: Option<Arc<Lock>>,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Self, RunError> {
        let path = folder.file("metrics.jsonl");
        let metrics = match checkpoint {
            Some(checkpoint) => MetricsFile::resume(path, checkpoint.metrics_bytes)?,
            None => MetricsFile::create(path)?,
        };
        let events = EventFile::open(&folder, config)?;
        let beginning = TrialResult {
            status: Status::Running,
            best_accuracy: None,
            best_loss: None,
            best_train_loss: None,
            last: None,
            train: None,
            seconds: 0.0,
            steps: 0,
        };
        Ok(Self {
            folder,
            lock,
            metrics: metrics.with_events(events),
            epoch_seconds: checkpoint.map_or(0.0, |c| c.epoch_seconds),
            result: checkpoint.map_or(beginning, |c| c.result.clone()),
        })
    }

    /// Refuses to write what another worker now writes.
    fn check_lock(&self) -> Result<(), RunError> {
        match &self.lock {
            Some(lock) if !lock.held() => Err(RunError::TakenOver(self.folder.path().into())),
            _ => Ok(()),
        }
    }
}

/// What is written when. `chance` are the losses of always answering ½ in training and evaluation, for sequences.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    log_steps: bool,
    chance: Option<(f64, f64)>,
    every: usize,
    after: Option<Duration>,
}

impl Policy {
    /// As the plan's `[run]` says.
    pub fn of(plan: &Plan) -> Self {
        let run = &plan.config.run;
        let seconds = run.checkpoint_minutes * 60.0;
        Self {
            log_steps: run.log_steps,
            chance: plan.chance_losses(),
            every: run.checkpoint_every,
            // Longer than time itself is never.
            after: (seconds > 0.0)
                .then(|| Duration::try_from_secs_f64(seconds).ok())
                .flatten(),
        }
    }
}

/// What is known where training can be taken up again.
struct Place {
    position: Position,
    saved: bool,
}

/// Records the trials of one cohort.
pub struct Recorder {
    trials: Vec<TrialRecord>,
    clock: Clock,
    progress: Progress,
    policy: Policy,
    place: Place,
    last_saved: Instant,
    stop: Arc<AtomicBool>,
    error: Option<RunError>,
}

impl Recorder {
    /// Records `trials` from `position` on; when `stop` becomes true, training stops with a checkpoint.
    pub fn new(
        trials: Vec<TrialRecord>,
        progress: Progress,
        policy: Policy,
        position: Position,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let mut clock = Clock::new(trials.len());
        for (i, trial) in trials.iter().enumerate() {
            clock.resume(i, trial.epoch_seconds, trial.result.seconds);
        }
        Self {
            clock,
            trials,
            progress,
            policy,
            place: Place {
                position,
                saved: false,
            },
            last_saved: Instant::now(),
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
            Event::EpochStarted { .. } => self.clock.skip(),
            Event::Resumable(ref position) => {
                self.place = Place {
                    position: position.clone(),
                    saved: false,
                };
                if self.due() {
                    self.save(cohort)?;
                }
                self.clock.skip();
            }
            Event::Loaded => self.clock.lap(|_| true),
            Event::InitialPass { ref trials } => self.clock.lap(|t| trials.contains(&t)),
            Event::Together { ref shares } => self.clock.lap_shared(shares),
            Event::Step {
                trial,
                epoch,
                step,
                score,
            } => {
                self.clock.lap(|t| t == trial);
                let record = &mut self.trials[trial];
                record.result.steps = cohort.trials()[trial].steps();
                if self.policy.log_steps {
                    record.metrics.add(&Line::Step(StepLine {
                        step,
                        epoch,
                        loss: score.loss,
                        accuracy: score.accuracy,
                    }))?;
                }
                for (i, layer) in cohort.diagnosis().unwrap_or_default().iter().enumerate() {
                    record.metrics.add(&Line::Layer(LayerLine {
                        step,
                        epoch,
                        layer: i + 1,
                        gradient_cosine: layer.gradient_cosine,
                        gradient_norm_ratio: layer.gradient_norm_ratio,
                        feedback_cosine: layer.feedback_cosine,
                        weight_change: layer.weight_change,
                        kernel_drift: layer.kernel_drift,
                    }))?;
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
                record.metrics.add(&Line::Epoch(EpochLine {
                    epoch,
                    train_loss: train.loss,
                    train_accuracy: train.accuracy,
                    eval_loss: evaluation.map(|e| e.loss),
                    eval_accuracy: evaluation.and_then(|e| e.accuracy),
                    seconds,
                }))?;
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

    /// Whether it is time for a checkpoint.
    fn due(&self) -> bool {
        let Position { epoch, step, .. } = self.place.position;
        let Policy { every, after, .. } = self.policy;
        let epochs = step == 0 && every > 0 && epoch.is_multiple_of(every);
        epochs || after.is_some_and(|after| self.last_saved.elapsed() >= after)
    }

    /// Writes a checkpoint of every running trial at the last place. No trial has learned or added a line since.
    fn save<B: Backend>(&mut self, cohort: &Cohort<'_, B>) -> Result<(), RunError> {
        let position = &self.place.position;
        for (i, record) in self.trials.iter_mut().enumerate() {
            if cohort.trials()[i].status() != Status::Running {
                continue;
            }
            record.check_lock()?;
            let mut result = record.result.clone();
            result.seconds = self.clock.total(i);
            let checkpoint = Checkpoint {
                epoch: position.epoch,
                step: position.step,
                tally: position.tallies[i],
                state: cohort.state(i),
                result,
                epoch_seconds: self.clock.epoch(i),
                metrics_bytes: record.metrics.sync()?,
            };
            checkpoint.save(&record.folder)?;
        }
        self.place.saved = true;
        self.last_saved = Instant::now();
        Ok(())
    }

    /// Whether training is to stop here: only where a checkpoint can be taken, and with one.
    fn stops<B: Backend>(
        &mut self,
        event: &Event,
        cohort: &Cohort<'_, B>,
    ) -> Result<bool, RunError> {
        // Evaluation changes nothing, so the last place is still that of every trial.
        let here = matches!(event, Event::Resumable(_) | Event::Evaluated { .. });
        if !here || !self.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if !self.place.saved {
            self.save(cohort)?;
        }
        Ok(true)
    }

    fn end<B: Backend>(&mut self, trial: usize, cohort: &Cohort<'_, B>) -> Result<(), RunError> {
        let seconds = self.clock.total(trial);
        let record = &mut self.trials[trial];
        record.check_lock()?;
        let status = cohort.trials()[trial].status();
        record.result.status = status;
        record.result.seconds = seconds;
        let steps = cohort.trials()[trial].steps();
        record
            .folder
            .save("final.safetensors", &cohort.tensors(trial), steps)?;
        record.metrics.add(&Line::End(EndLine {
            status: status_name(status).into(),
            best_eval_accuracy: record.result.best_accuracy.map(|(accuracy, _)| accuracy),
            best_epoch: record.result.best_epoch(),
            best_eval_loss: record.result.best_loss.map(|(loss, _)| loss),
            best_train_loss: record.result.best_train_loss,
            chance_train_loss: self.policy.chance.map(|(train, _)| train),
            chance_eval_loss: self.policy.chance.map(|(_, evaluation)| evaluation),
            diverged_epoch: match status {
                Status::Diverged { epoch } => Some(epoch),
                _ => None,
            },
            steps,
            seconds,
        }))?;
        record.metrics.sync()?;
        if status != Status::Interrupted {
            Outcome::of(&record.result).save(&record.folder)?;
            Checkpoint::remove(&record.folder)?;
            // Another worker may sweep up an ended trial's lock: the others of the cohort go on.
            record.lock = None;
        }
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
        let lost = |t: &TrialRecord| t.lock.as_ref().is_some_and(|lock| lock.lost());
        let result = match self.trials.iter().find(|t| lost(t)) {
            Some(trial) => Err(RunError::TakenOver(trial.folder.path().into())),
            None => self.record(event, cohort),
        };
        match result.and_then(|()| self.stops(event, cohort)) {
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => ControlFlow::Break(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}
