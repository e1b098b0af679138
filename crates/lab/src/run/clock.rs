//! Seconds that each trial of a cohort takes: what it would have taken alone, or a little less where trials run side
//! by side and so keep the threads busier than one could.

use std::time::Instant;

/// Attributes the time between events to trials. Work that trials share (the minibatch, the initial network's
/// pass) is counted in full for every trial that needs it, so that a trial's seconds do not depend on the
/// company it keeps.
pub struct Clock {
    last: Instant,
    epoch: Vec<f64>,
    total: Vec<f64>,
}

impl Clock {
    /// A clock for so many trials, running from now.
    pub fn new(trials: usize) -> Self {
        Self {
            last: Instant::now(),
            epoch: vec![0.0; trials],
            total: vec![0.0; trials],
        }
    }

    /// Counts on from a trial's seconds of this epoch and in all.
    pub fn resume(&mut self, trial: usize, epoch: f64, total: f64) {
        self.epoch[trial] = epoch;
        self.total[trial] = total;
    }

    /// Seconds of a trial's epoch so far.
    pub fn epoch(&self, trial: usize) -> f64 {
        self.epoch[trial]
    }

    /// Ends a lap that is counted for the trials that `needed` names.
    pub fn lap(&mut self, needed: impl Fn(usize) -> bool) {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        for trial in (0..self.epoch.len()).filter(|&t| needed(t)) {
            self.epoch[trial] += seconds;
            self.total[trial] += seconds;
        }
    }

    /// Ends a lap in which trials ran side by side, each with its share of the time.
    pub fn lap_shared(&mut self, shares: &[(usize, f64)]) {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        for &(trial, share) in shares {
            self.epoch[trial] += share * seconds;
            self.total[trial] += share * seconds;
        }
    }

    /// Ends a lap that is counted for nobody: writing files, drawing bars.
    pub fn skip(&mut self) {
        self.last = Instant::now();
    }

    /// Seconds of a trial's epoch, which begins anew.
    pub fn take_epoch(&mut self, trial: usize) -> f64 {
        std::mem::take(&mut self.epoch[trial])
    }

    /// Seconds of a trial so far.
    pub fn total(&self, trial: usize) -> f64 {
        self.total[trial]
    }
}
