//! A sweep from its trials to its tables, whoever asked for it.

use super::manifest::Manifest;
use super::results::{Row, row, write};
use super::trials::{DataSets, Trial};
use super::work::Worker;
use crate::cli::Failure;
use crate::progress::Screen;
use crate::run::{Heartbeat, Locks, RunError};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to be trained, and where to.
pub(crate) struct Order<'a> {
    /// Where the trials are described, for `sweep.json`.
    pub(crate) source: &'a Path,
    /// All trials of the sweep.
    pub(crate) trials: &'a [Trial],
    /// Those of them to train here, in cohorts.
    pub(crate) cohorts: &'a [Vec<usize>],
    /// The keys along which trials differ, dotted.
    pub(crate) axes: &'a [String],
    /// The sweep's folder.
    pub(crate) out: &'a Path,
    /// Cohorts at once.
    pub(crate) jobs: usize,
    /// Whether failed trials are trained again.
    pub(crate) retry: bool,
}

/// How the trials stand after the training.
pub(crate) struct Trained {
    /// All trials of the sweep, in their order.
    pub(crate) rows: Vec<Row>,
    /// Whether the tables could be written.
    pub(crate) written: Result<(), Failure>,
}

impl Order<'_> {
    /// Trials to train here.
    pub(crate) fn own(&self) -> usize {
        self.cohorts.iter().map(Vec::len).sum()
    }

    /// Trains what is left to train, and writes the sweep's tables.
    pub(crate) fn carry_out(
        &self,
        sets: DataSets,
        stop: &Arc<AtomicBool>,
    ) -> Result<Trained, Failure> {
        let out = self.out;
        fs::create_dir_all(out).map_err(|source| RunError::Write {
            path: out.to_owned(),
            source,
        })?;
        Manifest::new(self.source, self.trials).save(out)?;
        let screen = Screen::of_sweep(self.own() as u64);
        let worker = Worker {
            trials: self.trials,
            cohorts: self.cohorts,
            out,
            jobs: self.jobs,
            retry: self.retry,
            screen: &screen,
            stop,
        };
        let worked = worker.run(sets);
        screen.finish();
        let failures = worked?;
        let locks = Locks::new(out.join("locks"), Heartbeat::from_environment());
        let trials = self.trials.iter().enumerate();
        let rows = trials
            .map(|(i, trial)| row(out, &trial.id, &locks, failures.get(&i)))
            .collect::<Result<Vec<_>, _>>()?;
        let written = write(out, self.trials, &rows, self.axes);
        Ok(Trained { rows, written })
    }

    /// An error where trials failed or are left.
    pub(crate) fn outcome(&self, rows: &[Row], stop: &AtomicBool) -> Result<(), Failure> {
        let count = |status: &str| {
            let own = self.cohorts.iter().flatten();
            own.filter(|&&i| rows[i].status == status).count()
        };
        let (failed, completed, diverged) =
            (count("failed"), count("completed"), count("diverged"));
        let left = self.own() - failed - completed - diverged;
        if stop.load(Ordering::Relaxed) && left > 0 {
            return Err(Failure::Failed(format!(
                "interrupted; {left} trials are left, the same command goes on with them"
            )));
        }
        if failed + left > 0 {
            let mut lines = format!("{failed} trials failed, {left} are left");
            for row in rows.iter().filter(|r| r.status == "failed").take(5) {
                let message = row.outcome.message.as_deref().unwrap_or_default();
                lines += &format!("\n  {}: {message}", row.id);
            }
            lines +=
                "\n--retry trains failed trials again, once their files and the disk are in order";
            return Err(Failure::Failed(lines));
        }
        Ok(())
    }
}
