//! The training loop. It calls observers and nothing else: no files, no clock, no printing.

mod windows;

use crate::checkpoint::{Position, Tally};
use crate::cohort::{Cohort, Report, Status};
use crate::images::MinibatchLayout;
use crate::lanes::Together;
use crate::model::Model;
use crate::network::Network;
use crate::protocol::{Part, Split};
use crate::resident::Role;
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
    /// Share of samples whose largest output stands at their label; none for sequences.
    pub accuracy: Option<f64>,
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
    /// The initial network ran on the minibatch.
    InitialPass {
        /// The trials that look at it.
        trials: Vec<usize>,
    },
    /// Trials of a spread cohort learned or were evaluated side by side; an event for each of them follows.
    Together {
        /// The trials with their shares of the time, which sum to 1.
        shares: Vec<(usize, f64)>,
    },
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
        /// Images: mean over the epoch's minibatches, each before its update. Sequences: on the training part
        /// after the epoch, as published.
        train: Score,
        /// On the evaluation part after the epoch; none in epochs that `eval_every` skips.
        evaluation: Option<Score>,
    },
    /// Between two minibatches: training can be taken up again here, from the states that the trials have now.
    Resumable(Position),
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

/// Trains all trials of a cohort in lockstep until they end; their statuses say how.
///
/// The order of samples is NumPy's: `seed(seed)`, then per epoch `permutation(n_train)`, cut into consecutive
/// minibatches of which an incomplete last one is dropped, and `permutation(n_evaluation)` for the evaluation,
/// whose incomplete last minibatch counts. Sequences are then also evaluated on the training part, in the order
/// of another `permutation(n_train)`.
pub fn train<B: Backend>(
    cohort: &mut Cohort<'_, B>,
    split: &Split<'_>,
    schedule: &Schedule,
    observer: &mut dyn Observer<B>,
) {
    let start = Position::start(cohort.trials().len());
    train_from(cohort, split, schedule, start, observer);
}

/// As [`train`], from a position that an [`Event::Resumable`] named, with all running trials in the states that
/// they had then. The rest of the run is bitwise that of a run that was never left.
///
/// # Panics
/// If the position is not one of this many trials.
pub fn train_from<B: Backend>(
    cohort: &mut Cohort<'_, B>,
    split: &Split<'_>,
    schedule: &Schedule,
    position: Position,
    observer: &mut dyn Observer<B>,
) {
    assert_eq!(
        position.tallies.len(),
        cohort.trials().len(),
        "a position of another number of trials"
    );
    // Sequences have a layout of their own and ignore this one.
    let layout = cohort
        .model()
        .feed_forward()
        .map_or(MinibatchLayout::Flat, Network::minibatch_layout);
    let parts = [
        (Role::Train, &split.train),
        (Role::Evaluation, &split.evaluation),
    ];
    cohort.settle_on_device(parts, layout);
    let mut run = Run {
        layout,
        cohort,
        split,
        schedule,
        observer,
    };
    if run.epochs(position).is_break() {
        for trial in run.running() {
            run.cohort.set_status(trial, Status::Interrupted);
            // The run stops anyway, whatever the observer says now.
            let _ = run.tell(&Event::Ended { trial });
        }
    }
}

struct Run<'r, 'b, B: Backend> {
    layout: MinibatchLayout,
    cohort: &'r mut Cohort<'b, B>,
    split: &'r Split<'r>,
    schedule: &'r Schedule,
    observer: &'r mut dyn Observer<B>,
}

impl<'b, B: Backend> Run<'_, 'b, B> {
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

    fn epochs(&mut self, mut position: Position) -> ControlFlow<()> {
        let split = self.split;
        let mut random = LegacyRandom::new(self.schedule.seed);
        let points = split.train.samples.len();
        let per_epoch = points / self.schedule.batch;
        let mut left = self.schedule.max_steps.unwrap_or(u64::MAX);
        for epoch in 0..self.schedule.epochs {
            let order = random.permutation(points);
            let evaluation_order = random.permutation(split.evaluation.samples.len());
            let train_evaluation_order = match self.cohort.model() {
                Model::FeedForward(_) => None,
                Model::Recurrent(_) => Some(random.permutation(points)),
            };
            let steps = per_epoch.min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= steps as u64;
            if epoch < position.epoch {
                continue;
            }
            let last = epoch + 1 == self.schedule.epochs || left == 0;

            self.tell(&Event::EpochStarted { epoch, steps })?;
            let order = &order[..steps * self.schedule.batch];
            self.learn(&mut position, epoch * per_epoch, order)?;
            let mut train = scores(&position.tallies);
            let mut evaluation = vec![None; train.len()];
            if last || (epoch + 1).is_multiple_of(self.schedule.eval_every) {
                evaluation =
                    self.evaluate((Role::Evaluation, &split.evaluation), &evaluation_order)?;
                if let Some(order) = &train_evaluation_order {
                    train = self.evaluate((Role::Train, &split.train), order)?;
                }
            }
            for trial in self.running() {
                let Some(train) = train[trial] else {
                    continue;
                };
                self.tell(&Event::EpochEnded {
                    trial,
                    epoch,
                    train,
                    evaluation: evaluation[trial],
                })?;
                let scores = [Some(train), evaluation[trial]];
                if scores.iter().flatten().any(|s| !s.loss.is_finite()) {
                    self.end(trial, Status::Diverged { epoch })?;
                }
            }
            if last || !self.cohort.running() {
                break;
            }
            position = Position {
                epoch: epoch + 1,
                ..Position::start(position.tallies.len())
            };
            self.tell(&Event::Resumable(position.clone()))?;
        }
        for trial in self.running() {
            self.end(trial, Status::Completed)?;
        }
        ControlFlow::Continue(())
    }

    /// The epoch's updates from `position` on, which moves to the epoch's end.
    fn learn(
        &mut self,
        position: &mut Position,
        first_step: usize,
        order: &[usize],
    ) -> ControlFlow<()> {
        if self.cohort.window_length().is_some() {
            return self.learn_in_windows(position, first_step, order);
        }
        let minibatches = order.chunks_exact(self.schedule.batch).enumerate();
        for (i, samples) in minibatches.skip(position.step) {
            let running = self.running();
            if running.is_empty() {
                break;
            }
            let minibatch = self.split.train.minibatch(samples, self.layout);
            self.cohort.load(&minibatch);
            self.cohort.first_of_epoch(i == 0);
            self.tell(&Event::Loaded)?;
            self.run_initial(true)?;
            let mut together = self.together(|cohort| cohort.step_together(&running))?;
            for trial in running {
                let report = match &mut together {
                    Some(reports) => reports.next().expect("a report for each trial"),
                    None => self.cohort.step(trial),
                };
                self.stepped(position, trial, (first_step + i) as u64, &report)?;
            }
            position.step = i + 1;
            self.tell(&Event::Resumable(position.clone()))?;
        }
        ControlFlow::Continue(())
    }

    /// What follows from one trial's step.
    fn stepped(
        &mut self,
        position: &mut Position,
        trial: usize,
        step: u64,
        report: &Report,
    ) -> ControlFlow<()> {
        let (epoch, batch) = (position.epoch, self.schedule.batch);
        position.tallies[trial].add(report, batch);
        let mut here = Tally::default();
        here.add(report, batch);
        self.tell(&Event::Step {
            trial,
            epoch,
            step,
            score: here.score(),
        })?;
        if !report.loss.is_finite() {
            self.end(trial, Status::Diverged { epoch })?;
        }
        ControlFlow::Continue(())
    }

    /// Runs the initial network for the trials that look at it, to learn or to be evaluated.
    fn run_initial(&mut self, learning: bool) -> ControlFlow<()> {
        let trials = self.cohort.run_initial(learning).to_vec();
        if trials.is_empty() {
            return ControlFlow::Continue(());
        }
        self.tell(&Event::InitialPass { trials })
    }

    /// The reports of trials side by side, where the cohort is spread.
    fn together(
        &mut self,
        work: impl for<'c> FnOnce(&'c mut Cohort<'b, B>) -> Option<&'c Together>,
    ) -> ControlFlow<(), Option<std::vec::IntoIter<Report>>> {
        let Some(Together { reports, shares }) = work(self.cohort).cloned() else {
            return ControlFlow::Continue(None);
        };
        self.tell(&Event::Together { shares })?;
        ControlFlow::Continue(Some(reports.into_iter()))
    }

    /// Scores of the running trials on a part, in the given order.
    fn evaluate(
        &mut self,
        (role, part): (Role, &Part<'_>),
        order: &[usize],
    ) -> ControlFlow<(), Vec<Option<Score>>> {
        let running = self.running();
        let mut tallies = vec![Tally::default(); self.cohort.trials().len()];
        if self.cohort.window_length().is_some() {
            self.evaluate_in_windows(role, order, &running, &mut tallies)?;
            return ControlFlow::Continue(scores(&tallies));
        }
        for samples in order.chunks(self.schedule.batch) {
            let minibatch = part.minibatch(samples, self.layout);
            self.cohort.load(&minibatch);
            self.tell(&Event::Loaded)?;
            self.run_initial(false)?;
            let mut together = self.together(|cohort| cohort.evaluate_together(&running))?;
            for &trial in &running {
                let report = match &mut together {
                    Some(reports) => reports.next().expect("a report for each trial"),
                    None => self.cohort.evaluate(trial),
                };
                tallies[trial].add(&report, samples.len());
                self.tell(&Event::Evaluated { trial })?;
            }
        }
        ControlFlow::Continue(scores(&tallies))
    }
}

fn scores(tallies: &[Tally]) -> Vec<Option<Score>> {
    let score = |t: &Tally| (t.samples > 0).then(|| t.score());
    tallies.iter().map(score).collect()
}
