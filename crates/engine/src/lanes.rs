//! Trials of a cohort side by side: every thread steps trials of its own, each in a room of its own.
//!
//! One trial of a narrow network cannot keep several threads busy: between two of its kernels they wait for each
//! other. Trials of a cohort need nothing of each other, so a cohort that is [spread](Cohort::spread) gives each
//! thread whole steps. Numbers stay bitwise the same: no kernel's result depends on the number of threads.

use crate::cohort::{Cohort, Parts, Report, Room, Trial};
use crate::diagnosis::Request;
use crate::minibatch::Minibatch;
use crate::model::Model;
use crate::update::Common;
use sansprop_kernels::{Backend, Layer};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Values in all lanes' rooms together at most. Wider networks keep the threads busy one trial after the other.
const MOST_VALUES: usize = 1 << 27;

/// One thread's backend and room.
pub(crate) struct Lane<B: Backend> {
    backend: B,
    room: Room<B>,
    done: Vec<Done>,
}

/// What a lane did: the trial's place, its report, and the seconds that it took.
type Done = (usize, Report, f64);

impl<B: Backend> Lane<B> {
    pub(crate) fn load(&mut self, minibatch: &Minibatch) {
        self.room.load(&self.backend, minibatch);
    }
}

/// Reports of trials that ran side by side, in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Together {
    /// A report for each trial.
    pub reports: Vec<Report>,
    /// The trials with the share that each had of the time; the shares sum to 1.
    pub shares: Vec<(usize, f64)>,
}

/// Values in one lane's room: a pass, what feedback needs, the minibatch and a gradient.
pub fn lane_values(model: &Model, batch: usize) -> usize {
    let working = match model {
        Model::FeedForward(network) => {
            let panels = |l: &Layer| l.locations() * batch * l.outputs;
            let layers = || network.layers().iter().map(panels);
            let (locations, channels) = network.input_panels();
            2 * layers().sum::<usize>()
                + 3 * layers().max().unwrap_or(0)
                + locations * channels * batch
        }
        Model::Recurrent(network) => {
            6 * network.cell().steps * network.batch() * network.cell().width
        }
    };
    working + model.parameters()
}

/// Lanes that a cohort of so many trials makes on so many threads.
pub fn lane_count(model: &Model, batch: usize, trials: usize, threads: usize) -> usize {
    let fits = threads * lane_values(model, batch) <= MOST_VALUES;
    if fits && threads > 1 && trials >= threads {
        threads
    } else {
        0
    }
}

impl<B: Backend> Cohort<'_, B> {
    /// Lets trials step side by side from now on where that is worth it: with at least one trial for each thread,
    /// room in memory, and neither companions nor a diagnosis. [`last_gradient`](Self::last_gradient) and
    /// [`last_error`](Self::last_error) then say nothing.
    pub fn spread(&mut self) {
        if !self.companions.is_empty() || self.diagnosis_request != Request::default() {
            return;
        }
        let backends = self.backend.lanes();
        let (trials, batch) = (self.trials.len(), self.most);
        if lane_count(&self.model, batch, trials, backends.len()) == 0 {
            return;
        }
        // In a feed-forward cohort the initial network's pass is in the common room; a recurrent one is each trial's
        // own.
        let initial = match &self.model {
            Model::FeedForward(_) => false,
            Model::Recurrent(_) => self.initial_weights.is_some(),
        };
        let lane = |backend: B| Lane {
            room: Room::new(&backend, &self.model, batch, initial),
            backend,
            done: Vec::new(),
        };
        self.lanes = backends.into_iter().map(lane).collect();
    }

    /// As [`step`](Self::step) of every given trial; none where they must go one after the other.
    pub fn step_together(&mut self, trials: &[usize]) -> Option<Together> {
        self.together(trials, |room, backend, trial, common| {
            room.step(backend, trial, common)
        })
    }

    /// As [`evaluate`](Self::evaluate) of every given trial; none where they must go one after the other.
    pub fn evaluate_together(&mut self, trials: &[usize]) -> Option<Together> {
        self.together(trials, |room, backend, trial, common| {
            room.evaluate(backend, trial, common)
        })
    }

    fn together(
        &mut self,
        wanted: &[usize],
        work: impl Fn(&mut Room<B>, &B, &mut Trial<B>, &Common<'_, B>) -> Report + Send + Sync,
    ) -> Option<Together> {
        if self.lanes.is_empty() || wanted.len() < self.lanes.len() {
            return None;
        }
        let backend = self.backend;
        let Parts {
            room,
            lanes,
            trials,
            mut common,
        } = self.parts();
        let mut jobs: Vec<(usize, &mut Trial<B>)> = trials.iter_mut().enumerate().collect();
        jobs.retain(|(i, _)| wanted.contains(i));
        // The longest first, so that all threads end at about the same time.
        jobs.sort_by_key(|(_, trial)| trial.frozen || trial.spec().rule.passes() < 2);
        // A last round that not all threads have a trial for is left to trials that all threads work on.
        let rest = jobs.split_off(jobs.len() - jobs.len() % lanes.len());
        let mut done = Vec::new();
        for (index, trial) in rest {
            let start = Instant::now();
            let report = work(room, backend, trial, &common);
            let seconds = start.elapsed().as_secs_f64() * lanes.len() as f64;
            done.push((index, report, seconds));
        }
        common.initial_pass = match &*room {
            Room::FeedForward(room) => room.initial(),
            Room::Recurrent(_) => None,
        };
        let queue = Mutex::new(jobs.into_iter());
        backend.side_by_side(lanes, |lane| {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, trial)) = next else {
                    break;
                };
                let start = Instant::now();
                let report = work(&mut lane.room, &lane.backend, trial, &common);
                lane.done
                    .push((index, report, start.elapsed().as_secs_f64()));
            }
        });
        done.extend(lanes.iter_mut().flat_map(|lane| lane.done.drain(..)));
        Some(in_order(wanted, &done))
    }
}

fn in_order(wanted: &[usize], done: &[Done]) -> Together {
    let total: f64 = done.iter().map(|(_, _, seconds)| seconds).sum();
    let of = |trial: &usize| {
        let found = done.iter().find(|(index, _, _)| index == trial);
        *found.expect("every trial had its turn")
    };
    let share = |trial: &usize| (*trial, of(trial).2 / total);
    Together {
        reports: wanted.iter().map(|trial| of(trial).1).collect(),
        shares: wanted.iter().map(share).collect(),
    }
}
