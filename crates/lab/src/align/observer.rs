//! The observer of runs whose alignment is scored: records every trial, and takes its scores on the way.

use super::scores::LayerWeights;
use super::{Options, Scores};
use crate::cli::Failure;
use crate::config::Plan;
use crate::machine::Contestant;
use crate::run::{Lock, Recorder, RunError, RunFolder, TrialResult};
use sansprop::cohort::{Cohort, Status};
use sansprop::companion::IntegratedErrors;
use sansprop::pass::Weights;
use sansprop::protocol::Split;
use sansprop::train::{Event, Observer};
use sansprop_kernels::Backend;
use std::ops::ControlFlow;
use std::sync::Arc;

/// One trial's scores and where they are written.
struct Scored {
    folder: RunFolder,
    lock: Option<Arc<Lock>>,
    scores: Scores,
}

impl Scored {
    /// Scores a trial against a companion, once at each step and where all weights are numbers.
    fn score<B: Backend>(
        &mut self,
        cohort: &Cohort<'_, B>,
        trial: usize,
        reference: &Weights<B>,
        epoch: usize,
        (options, seed): (&Options, u32),
    ) -> Result<(), RunError> {
        let step = cohort.trials()[trial].steps();
        if self.scores.rows.last().is_some_and(|row| row.step == step) {
            return Ok(());
        }
        let layers = layer_weights(cohort, trial, reference);
        if !layers.iter().all(LayerWeights::finite) {
            return Ok(());
        }
        let when = (epoch, step);
        self.check_lock()?;
        self.scores
            .take(cohort.backend(), &layers, when, options, seed);
        self.scores.write(self.folder.path())
    }

    fn save_companion<B: Backend>(
        &self,
        cohort: &Cohort<'_, B>,
        trial: usize,
        reference: &Weights<B>,
    ) -> Result<(), RunError> {
        self.check_lock()?;
        let steps = cohort.trials()[trial].steps();
        self.folder
            .save("companion.safetensors", &cohort.named(reference), steps)
    }

    /// Refuses to write what another worker now writes.
    fn check_lock(&self) -> Result<(), RunError> {
        match &self.lock {
            Some(lock) if !lock.held() => Err(RunError::TakenOver(self.folder.path().into())),
            _ => Ok(()),
        }
    }
}

/// The hidden layers of one trial.
fn layer_weights<'a, B: Backend>(
    cohort: &'a Cohort<'_, B>,
    trial: usize,
    reference: &Weights<B>,
) -> Vec<LayerWeights<'a>> {
    let initial = cohort.initial_weights_of(trial);
    let (backend, now) = (cohort.backend(), cohort.trials()[trial].weights());
    let network = cohort.model().feed_forward();
    let layers = network.into_iter().flat_map(|n| n.hidden()).enumerate();
    layers
        .map(|(l, layer)| LayerWeights {
            layer,
            initial: initial[l].iter().map(|&w| f64::from(w)).collect(),
            last: backend.read(&now.weight[l]),
            reference: backend.read(&reference.weight[l]),
        })
        .collect()
}

/// Records the trials of a cohort with companions, and scores them. A trial's scores and its companion are written
/// before its end is, so that a run which has ended is whole.
pub(crate) struct Aligned {
    recorder: Recorder,
    trials: Vec<Scored>,
    /// Epochs between scores; 0 for scores at the end only.
    every: usize,
    options: Options,
    seed: u32,
    errors: Option<IntegratedErrors>,
    epoch: usize,
    error: Option<RunError>,
}

impl Aligned {
    /// Scores `trials` from where they were left, which alignment.csv is cut back to.
    ///
    /// # Errors
    /// The scores of a trial that goes on cannot be read; a file cannot be written.
    pub(crate) fn new(
        recorder: Recorder,
        plan: &Plan,
        trials: &[Contestant],
        options: Options,
    ) -> Result<Self, Failure> {
        let scored = |trial: &Contestant| {
            let scored = Scored {
                folder: trial.folder.clone(),
                lock: trial.lock.clone(),
                scores: match &trial.checkpoint {
                    Some(checkpoint) => Scores::before(checkpoint.epoch, &trial.folder)?,
                    None => Scores::default(),
                },
            };
            scored.check_lock()?;
            scored.scores.write(scored.folder.path())?;
            Ok::<_, RunError>(scored)
        };
        let errors = match plan.model.feed_forward() {
            Some(network) if options.integrated => {
                let samples = plan.split()?.train.samples.len();
                Some(IntegratedErrors::new(samples, network.spec().classes))
            }
            _ => None,
        };
        Ok(Self {
            recorder,
            trials: trials.iter().map(scored).collect::<Result<_, _>>()?,
            every: plan.config.run.alignment_every,
            options,
            seed: plan.config.train.seed,
            errors,
            epoch: 0,
            error: None,
        })
    }

    /// Takes what scores an event asks for.
    fn take<B: Backend>(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> Result<(), RunError> {
        let asked = (&self.options, self.seed);
        match *event {
            Event::EpochStarted { epoch, .. } => self.epoch = epoch,
            Event::Step { trial, score, .. } if score.loss.is_finite() => {
                if let Some(errors) = &mut self.errors {
                    errors.add(cohort, &cohort.trials()[trial]);
                }
            }
            Event::EpochEnded {
                trial,
                epoch,
                train,
                evaluation,
            } => {
                let due = self.every > 0 && (epoch + 1).is_multiple_of(self.every);
                let scores = [Some(train), evaluation];
                let finite = scores.iter().flatten().all(|s| s.loss.is_finite());
                if let Some(reference) = cohort.companion(trial).filter(|_| due && finite) {
                    self.trials[trial].score(cohort, trial, reference, epoch, asked)?;
                }
            }
            Event::Ended { trial } if cohort.trials()[trial].status() == Status::Completed => {
                if let Some(reference) = cohort.companion(trial) {
                    self.trials[trial].score(cohort, trial, reference, self.epoch, asked)?;
                    self.trials[trial].save_companion(cohort, trial, reference)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The trials' results and scores once training is over. Integrated errors become the companion here.
    ///
    /// # Errors
    /// A file could not be written; training stopped there.
    pub(crate) fn finish<B: Backend>(
        mut self,
        cohort: &mut Cohort<'_, B>,
        split: &Split<'_>,
    ) -> Result<Vec<(TrialResult, Scores)>, Failure> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let results = self.recorder.finish()?;
        let diverged = matches!(cohort.trials()[0].status(), Status::Diverged { .. });
        if let Some(errors) = self.errors.filter(|_| !diverged) {
            let reference = cohort.integrated_companion(0, &split.train, &errors);
            let asked = (&self.options, self.seed);
            self.trials[0].score(cohort, 0, &reference, self.epoch, asked)?;
            self.trials[0].save_companion(cohort, 0, &reference)?;
        }
        let scores = self.trials.into_iter().map(|trial| trial.scores);
        Ok(results.into_iter().zip(scores).collect())
    }
}

impl<B: Backend> Observer<B> for Aligned {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        if self.error.is_some() {
            return ControlFlow::Break(());
        }
        // Before the recorder notes an end, which says that all else is written.
        if let Err(error) = self.take(event, cohort) {
            self.error = Some(error);
            return ControlFlow::Break(());
        }
        self.recorder.observe(event, cohort)
    }
}
