//! Trials of a cohort side by side: every thread steps trials of its own, each in a room of its own.
//!
//! One trial of a narrow network cannot keep several threads busy: between two of its kernels they wait for each
//! other. Trials of a cohort need nothing of each other, so a cohort that is [spread](Cohort::spread) gives each
//! thread whole steps. Numbers stay bitwise the same: no kernel's result depends on the number of threads.

use crate::cohort::{Cohort, Parts, Report, Room, Trial};
use crate::minibatch::Minibatch;
use crate::model::Model;
use crate::update::Common;
use sansprop_kernels::{Backend, Layer};
use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Values in all lanes' rooms together at most. Wider networks keep the threads busy one trial after the other.
const MOST_VALUES: usize = 1 << 27;

/// One thread's backend and room.
struct Lane<B: Backend> {
    backend: B,
    room: Room<B>,
    done: Vec<Job<B>>,
}

/// A trial on its way through the lanes.
struct Job<B: Backend> {
    /// Its place among the trials.
    place: usize,
    trial: Trial<B>,
    /// What came of its turn, and the seconds that it took; none of a trial that was not asked for.
    outcome: Option<(Report, f64)>,
}

/// A lane for each thread, and what they hand out and collect, in memory that all steps use again.
pub(crate) struct Lanes<B: Backend> {
    lanes: Vec<Lane<B>>,
    /// Trials that wait for a lane, the next one last.
    waiting: Vec<Job<B>>,
    done: Vec<Job<B>>,
    together: Together,
}

impl<B: Backend> Lanes<B> {
    pub(crate) fn load(&mut self, minibatch: &Minibatch) {
        for lane in &mut self.lanes {
            lane.room.load(&lane.backend, minibatch);
        }
    }

    /// Hands all trials in, those that are wanted to wait for a lane.
    fn line_up(&mut self, trials: &mut Vec<Trial<B>>, wanted: &[usize]) {
        for (place, trial) in trials.drain(..).enumerate() {
            let line = match wanted.contains(&place) {
                true => &mut self.waiting,
                false => &mut self.done,
            };
            line.push(Job {
                place,
                trial,
                outcome: None,
            });
        }
        // The longest first, so that all threads end at about the same time.
        let long = |trial: &Trial<B>| !trial.frozen && trial.spec().rule.passes() >= 2;
        let key = |job: &Job<B>| (long(&job.trial), Reverse(job.place));
        self.waiting.sort_unstable_by_key(key);
    }

    /// Hands all trials back and works out reports and shares.
    fn hand_back(&mut self, trials: &mut Vec<Trial<B>>, wanted: &[usize]) -> &Together {
        let Self {
            lanes,
            done,
            together: Together { reports, shares },
            ..
        } = self;
        for lane in lanes {
            done.append(&mut lane.done);
        }
        done.sort_unstable_by_key(|job| job.place);
        let outcomes = done.iter().filter_map(|job| job.outcome);
        let total: f64 = outcomes.map(|(_, seconds)| seconds).sum();
        reports.clear();
        shares.clear();
        for &place in wanted {
            let (report, seconds) = done[place].outcome.expect("every trial had its turn");
            reports.push(report);
            shares.push((place, seconds / total));
        }
        trials.extend(done.drain(..).map(|job| job.trial));
        &self.together
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
    ///
    /// A device that can train without the host then does, window by window of minibatches.
    pub fn spread(&mut self) {
        self.spread_wanted = true;
        if !self.steps_unseen() {
            return;
        }
        let backends = self.backend.lanes();
        let (trials, batch) = (self.trials.len(), self.most);
        if lane_count(&self.model, batch, trials, backends.len()) == 0 {
            return;
        }
        let lane = |backend: B| Lane {
            room: self.own_room(&backend),
            backend,
            done: Vec::with_capacity(trials),
        };
        self.lanes = Some(Lanes {
            lanes: backends.into_iter().map(lane).collect(),
            waiting: Vec::with_capacity(trials),
            done: Vec::with_capacity(trials),
            together: Together {
                reports: Vec::with_capacity(trials),
                shares: Vec::with_capacity(trials),
            },
        });
    }

    /// As [`step`](Self::step) of every given trial; none where they must go one after the other.
    pub fn step_together(&mut self, trials: &[usize]) -> Option<&Together> {
        self.together(trials, |room, backend, trial, common| {
            room.step(backend, trial, common)
        })
    }

    /// As [`evaluate`](Self::evaluate) of every given trial; none where they must go one after the other.
    pub fn evaluate_together(&mut self, trials: &[usize]) -> Option<&Together> {
        self.together(trials, |room, backend, trial, common| {
            room.evaluate(backend, trial, common, false)
        })
    }

    fn together(
        &mut self,
        wanted: &[usize],
        work: impl Fn(&mut Room<B>, &B, &mut Trial<B>, &Common<'_, B>) -> Report + Send + Sync,
    ) -> Option<&Together> {
        let backend = self.backend;
        let Parts {
            room,
            lanes,
            trials,
            mut common,
        } = self.parts();
        let all = lanes.filter(|all| wanted.len() >= all.lanes.len())?;
        all.line_up(trials, wanted);
        let Lanes {
            lanes,
            waiting,
            done,
            ..
        } = &mut *all;
        // A last round that not all threads have a trial for is left to trials that all threads work on.
        let rest = waiting.len() % lanes.len();
        for mut job in waiting.drain(..rest) {
            let start = Instant::now();
            let report = work(room, backend, &mut job.trial, &common);
            let seconds = start.elapsed().as_secs_f64() * lanes.len() as f64;
            job.outcome = Some((report, seconds));
            done.push(job);
        }
        common.initial_pass = room.initial();
        let queue = Mutex::new(waiting);
        backend.side_by_side(lanes, |lane| {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(mut job) = next else {
                    break;
                };
                let start = Instant::now();
                let report = work(&mut lane.room, &lane.backend, &mut job.trial, &common);
                job.outcome = Some((report, start.elapsed().as_secs_f64()));
                lane.done.push(job);
            }
        });
        Some(all.hand_back(trials, wanted))
    }
}
