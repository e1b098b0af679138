//! The training loop. It calls observers and nothing else: no files, no clock, no printing.

use crate::cohort::{Cohort, Status};
use crate::images::MinibatchLayout;
use crate::network::Architecture;
use crate::protocol::{Part, Split};
use crate::rng::LegacyRandom;
use sansprop_kernels::Backend;
use std::ops::ControlFlow;

/// How long and in what portions to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Samples per minibatch, in training and in evaluation (the norms use the minibatch's own statistics).
    pub batch: usize,
    /// Passes over the training part.
    pub epochs: usize,
    /// Stop after this many updates.
    pub max_steps: Option<u64>,
    /// Seed of the sample order.
    pub seed: u32,
    /// Evaluate after every so many epochs, and after the last.
    pub eval_every: usize,
}

/// Mean loss and share of hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Mean over minibatches, weighted by their samples, of the loss.
    pub loss: f64,
    /// Share of samples whose largest output stands at their label.
    pub accuracy: f64,
}

/// What observers are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An epoch begins.
    EpochStarted {
        /// Counted from 0.
        epoch: usize,
        /// Updates that this epoch will bring.
        steps: usize,
    },
    /// A minibatch was gathered, for all trials.
    Loaded,
    /// The initial network ran on the minibatch, for the trials that look at it.
    InitialPass,
    /// A trial saw a minibatch and, if its loss was finite, learned from it.
    Step {
        /// Index of the trial.
        trial: usize,
        /// Epoch, counted from 0.
        epoch: usize,
        /// Update, counted from 0.
        step: u64,
        /// Loss and accuracy on the minibatch before the update.
        score: Score,
    },
    /// A trial saw one minibatch of the evaluation part.
    Evaluated {
        /// Index of the trial.
        trial: usize,
    },
    /// A trial's epoch is over.
    EpochEnded {
        /// Index of the trial.
        trial: usize,
        /// Epoch, counted from 0.
        epoch: usize,
        /// Mean over the epoch's minibatches, each before its update.
        train: Score,
        /// On the evaluation part after the epoch; none in epochs that `eval_every` skips.
        evaluation: Option<Score>,
    },
    /// A trial ended; its status says how.
    Ended {
        /// Index of the trial.
        trial: usize,
    },
}

/// Sees everything that happens, and may stop it.
pub trait Observer<B: Backend> {
    /// Called in order of events; `Break` interrupts all running trials.
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()>;
}

/// An observer that does nothing.
pub struct Blind;

impl<B: Backend> Observer<B> for Blind {
    fn observe(&mut self, _: &Event, _: &Cohort<'_, B>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Sums of losses and hits.
#[derive(Clone, Copy, Default)]
struct Tally {
    loss: f64,
    correct: usize,
    samples: usize,
}

impl Tally {
    fn score(&self) -> Score {
        Score {
            loss: self.loss / self.samples as f64,
            accuracy: self.correct as f64 / self.samples as f64,
        }
    }
}

/// A minibatch on the host.
struct Minibatch {
    layout: MinibatchLayout,
    input: Vec<f32>,
    labels: Vec<u32>,
}

impl Minibatch {
    fn load<B: Backend>(&mut self, part: &Part<'_>, order: &[usize], cohort: &mut Cohort<'_, B>) {
        let samples: Vec<usize> = order.iter().map(|i| part.samples.start + i).collect();
        part.images
            .minibatch(&samples, self.layout, &mut self.input, &mut self.labels);
        cohort.load(order.len(), &self.input);
    }
}

/// Trains all trials of a cohort in lockstep until they end; their statuses say how.
///
/// The order of samples is NumPy's: `seed(seed)`, then per epoch `permutation(n_train)`, cut into consecutive
/// minibatches of which an incomplete last one is dropped, and `permutation(n_evaluation)` for the evaluation,
/// whose incomplete last minibatch counts.
pub fn train<B: Backend>(
    cohort: &mut Cohort<'_, B>,
    split: &Split<'_>,
    schedule: &Schedule,
    observer: &mut (dyn Observer<B> + Send),
) {
    let backend = cohort.backend();
    backend.scope(|| {
        let mut run = Run {
            layout: match cohort.network().spec().architecture {
                Architecture::Conv { .. } => MinibatchLayout::Locations,
                Architecture::Dense { .. } => MinibatchLayout::Flat,
            },
            cohort,
            split,
            schedule,
            observer,
        };
        if run.epochs().is_break() {
            for trial in run.running() {
                run.cohort.set_status(trial, Status::Interrupted);
                // The run stops anyway, whatever the observer says now.
                let _ = run.tell(&Event::Ended { trial });
            }
        }
    });
}

struct Run<'r, 'b, B: Backend> {
    layout: MinibatchLayout,
    cohort: &'r mut Cohort<'b, B>,
    split: &'r Split<'r>,
    schedule: &'r Schedule,
    observer: &'r mut (dyn Observer<B> + Send),
}

impl<B: Backend> Run<'_, '_, B> {
    fn tell(&mut self, event: &Event) -> ControlFlow<()> {
        self.observer.observe(event, self.cohort)
    }

    fn running(&self) -> Vec<usize> {
        let trials = self.cohort.trials().iter().enumerate();
        trials
            .filter(|(_, t)| t.status() == Status::Running)
            .map(|(i, _)| i)
            .collect()
    }

    fn end(&mut self, trial: usize, status: Status) -> ControlFlow<()> {
        self.cohort.set_status(trial, status);
        self.tell(&Event::Ended { trial })
    }

    fn epochs(&mut self) -> ControlFlow<()> {
        let mut random = LegacyRandom::new(self.schedule.seed);
        let points = self.split.train.samples.len();
        let per_epoch = points / self.schedule.batch;
        let mut left = self.schedule.max_steps.unwrap_or(u64::MAX);
        for epoch in 0..self.schedule.epochs {
            let order = random.permutation(points);
            let evaluation_order = random.permutation(self.split.evaluation.samples.len());
            let steps = per_epoch.min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= steps as u64;
            let last = epoch + 1 == self.schedule.epochs || left == 0;

            self.tell(&Event::EpochStarted { epoch, steps })?;
            let order = &order[..steps * self.schedule.batch];
            let tallies = self.learn(epoch, epoch * per_epoch, order)?;
            let evaluate = last || (epoch + 1).is_multiple_of(self.schedule.eval_every);
            let scores = if evaluate {
                self.evaluate(&evaluation_order)?
            } else {
                vec![None; tallies.len()]
            };
            for trial in self.running() {
                self.tell(&Event::EpochEnded {
                    trial,
                    epoch,
                    train: tallies[trial].score(),
                    evaluation: scores[trial],
                })?;
                if scores[trial].is_some_and(|s| !s.loss.is_finite()) {
                    self.end(trial, Status::Diverged { epoch })?;
                }
            }
            if last || !self.cohort.running() {
                break;
            }
        }
        for trial in self.running() {
            self.end(trial, Status::Completed)?;
        }
        ControlFlow::Continue(())
    }

    fn minibatch(&self) -> Minibatch {
        Minibatch {
            layout: self.layout,
            input: Vec::new(),
            labels: Vec::new(),
        }
    }

    fn learn(
        &mut self,
        epoch: usize,
        first_step: usize,
        order: &[usize],
    ) -> ControlFlow<(), Vec<Tally>> {
        let mut tallies = vec![Tally::default(); self.cohort.trials().len()];
        let mut minibatch = self.minibatch();
        for (i, samples) in order.chunks_exact(self.schedule.batch).enumerate() {
            let running = self.running();
            if running.is_empty() {
                break;
            }
            minibatch.load(&self.split.train, samples, self.cohort);
            self.tell(&Event::Loaded)?;
            if self.cohort.run_initial(samples.len()) {
                self.tell(&Event::InitialPass)?;
            }
            for trial in running {
                let report = self.cohort.step(trial, &minibatch.labels);
                let tally = Tally {
                    loss: report.loss * samples.len() as f64,
                    correct: report.correct,
                    samples: samples.len(),
                };
                tallies[trial].loss += tally.loss;
                tallies[trial].correct += tally.correct;
                tallies[trial].samples += tally.samples;
                self.tell(&Event::Step {
                    trial,
                    epoch,
                    step: (first_step + i) as u64,
                    score: tally.score(),
                })?;
                if !report.loss.is_finite() {
                    self.end(trial, Status::Diverged { epoch })?;
                }
            }
        }
        ControlFlow::Continue(tallies)
    }

    fn evaluate(&mut self, order: &[usize]) -> ControlFlow<(), Vec<Option<Score>>> {
        let running = self.running();
        let mut tallies = vec![Tally::default(); self.cohort.trials().len()];
        let mut minibatch = self.minibatch();
        for samples in order.chunks(self.schedule.batch) {
            minibatch.load(&self.split.evaluation, samples, self.cohort);
            self.tell(&Event::Loaded)?;
            for &trial in &running {
                let report = self.cohort.evaluate(trial, &minibatch.labels);
                tallies[trial].loss += report.loss * samples.len() as f64;
                tallies[trial].correct += report.correct;
                tallies[trial].samples += samples.len();
                self.tell(&Event::Evaluated { trial })?;
            }
        }
        let score = |t: &Tally| (t.samples > 0).then(|| t.score());
        ControlFlow::Continue(tallies.iter().map(score).collect())
    }
}
