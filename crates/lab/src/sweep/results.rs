//! What a sweep's folder holds, trial by trial: `trials.csv`, `trials.parquet`, `curves.csv`.

use super::columns::Columns;
use super::trials::Trial;
use crate::cli::Failure;
use crate::run::{Curve, CurvePoint, Locks, Outcome, RunError};
use std::path::Path;

/// How one trial stands.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    /// `completed`, `diverged`, `failed`, `running`, `interrupted` or `missing`.
    pub(crate) status: String,
    /// How it ended, or nothing known.
    pub(crate) outcome: Outcome,
    /// Who trains it.
    pub(crate) worker: Option<String>,
}

impl Row {
    /// The number that `select` names, if the trial completed.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        if self.status != "completed" {
            return None;
        }
        self.number(name)
    }

    /// The same number, also of a trial that diverged: what its epochs before that reached.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        let outcome = &self.outcome;
        match name {
            "eval_loss" => outcome.best_eval_loss,
            "train_loss" => outcome.best_train_loss,
            "final_eval_accuracy" => outcome.final_eval_accuracy,
            "final_eval_loss" => outcome.final_eval_loss,
            "final_train_loss" => outcome.final_train_loss,
            _ => outcome.best_eval_accuracy,
        }
    }
}

/// Looks at one trial's folder and lock; `failure` is what went wrong with it in this process.
pub(crate) fn row(
    out: &Path,
    id: &str,
    locks: &Locks,
    failure: Option<&String>,
) -> Result<Row, Failure> {
    let folder = out.join(id);
    let row = |status: &str, outcome: Outcome, worker: Option<String>| Row {
        id: id.into(),
        status: status.into(),
        outcome,
        worker,
    };
    if let Some(message) = failure {
        return Ok(row("failed", Outcome::failed(message.clone()), None));
    }
    match Outcome::read(&folder) {
        Ok(Some(outcome)) => {
            let status = outcome.status.clone();
            return Ok(row(&status, outcome, None));
        }
        Ok(None) => {}
        Err(error @ RunError::Damaged { .. }) => {
            return Ok(row("failed", Outcome::failed(error.to_string()), None));
        }
        Err(error) => return Err(error.into()),
    }
    let holder = locks.holder(id)?.filter(|holder| !holder.dead);
    Ok(match holder {
        Some(holder) => row("running", Outcome::default(), Some(holder.name)),
        None if folder.join("config.toml").exists() => row("interrupted", Outcome::default(), None),
        None => row("missing", Outcome::default(), None),
    })
}

/// Writes `trials.csv`, `trials.parquet` and `curves.csv` into the sweep's folder.
pub(crate) fn write(
    out: &Path,
    trials: &[Trial],
    rows: &[Row],
    axes: &[String],
) -> Result<(), Failure> {
    let columns = trial_columns(trials, rows, axes);
    columns.write_csv(&out.join("trials.csv"))?;
    columns.write_parquet(&out.join("trials.parquet"))?;
    curves(out, trials).write_csv(&out.join("curves.csv"))
}

/// Axes that have a column of their own anyway.
const ALWAYS: [&str; 6] = [
    "data.name",
    "data.train_points",
    "network.width",
    "train.rule",
    "train.lr",
    "train.seed",
];

fn trial_columns(trials: &[Trial], rows: &[Row], axes: &[String]) -> Columns {
    let mut columns = Columns::new();
    let configs = || trials.iter().map(|t| &t.config);
    let outcomes = || rows.iter().map(|r| &r.outcome);
    columns.text("id", trials.iter().map(|t| Some(t.id.clone())));
    columns.text("data", configs().map(|c| Some(c.data.name.clone())));
    columns.text("rule", configs().map(|c| Some(c.train.rule.clone())));
    columns.whole("width", configs().map(|c| Some(c.network.width as i64)));
    let optimizer = |t: &Trial| Some(t.config.trial().optimizer.name().to_owned());
    columns.text("optimizer", trials.iter().map(optimizer));
    columns.number("lr", configs().map(|c| Some(c.train.lr)));
    columns.whole("seed", configs().map(|c| Some(i64::from(c.train.seed))));
    let points = configs().map(|c| Some(c.data.train_points as i64));
    columns.whole("train_points", points);
    for axis in axes.iter().filter(|axis| !ALWAYS.contains(&axis.as_str())) {
        columns.text(axis, configs().map(|c| c.value(axis)));
    }
    columns.text("status", rows.iter().map(|r| Some(r.status.clone())));
    columns.text("message", outcomes().map(|o| o.message.clone()));
    let whole = |n: Option<usize>| n.map(|n| n as i64);
    columns.whole(
        "diverged_epoch",
        outcomes().map(|o| whole(o.diverged_epoch)),
    );
    columns.number(
        "best_eval_accuracy",
        outcomes().map(|o| o.best_eval_accuracy),
    );
    columns.whole("best_epoch", outcomes().map(|o| whole(o.best_epoch)));
    columns.number("best_eval_loss", outcomes().map(|o| o.best_eval_loss));
    columns.number("best_train_loss", outcomes().map(|o| o.best_train_loss));
    columns.number(
        "final_eval_accuracy",
        outcomes().map(|o| o.final_eval_accuracy),
    );
    columns.number("final_eval_loss", outcomes().map(|o| o.final_eval_loss));
    columns.number(
        "final_train_accuracy",
        outcomes().map(|o| o.final_train_accuracy),
    );
    columns.number("final_train_loss", outcomes().map(|o| o.final_train_loss));
    let ended = |r: &Row| ["completed", "diverged"].contains(&r.status.as_str());
    let steps = |r: &Row| ended(r).then_some(r.outcome.steps as i64);
    columns.whole("steps", rows.iter().map(steps));
    let seconds = |r: &Row| ended(r).then_some(r.outcome.seconds);
    columns.number("seconds", rows.iter().map(seconds));
    columns.whole(
        "parameters",
        trials.iter().map(|t| Some(t.parameters as i64)),
    );
    columns
}

fn curves(out: &Path, trials: &[Trial]) -> Columns {
    let mut lines: Vec<(String, CurvePoint)> = Vec::new();
    for trial in trials {
        // A file that cannot be read is no reason to lose the other trials' curves.
        let curve = Curve::read(&out.join(&trial.id)).unwrap_or_default();
        lines.extend(curve.points.into_iter().map(|p| (trial.id.clone(), p)));
    }
    let mut columns = Columns::new();
    columns.text("id", lines.iter().map(|(id, _)| Some(id.clone())));
    columns.whole("epoch", lines.iter().map(|(_, e)| Some(e.epoch as i64)));
    columns.number("train_loss", lines.iter().map(|(_, e)| e.train_loss));
    columns.number(
        "train_accuracy",
        lines.iter().map(|(_, e)| e.train_accuracy),
    );
    columns.number("eval_loss", lines.iter().map(|(_, e)| e.eval_loss));
    columns.number("eval_accuracy", lines.iter().map(|(_, e)| e.eval_accuracy));
    columns
}
