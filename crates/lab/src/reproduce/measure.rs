//! From trials and what became of them to the places of a table.

use super::comparison::{Cell, Comparison, Quantity};
use super::experiment::{Experiment, Section};
use super::paper::{Printed, printed};
use crate::align;
use crate::cli::Failure;
use crate::config::Config;
use crate::run::Environment;
use crate::sweep::file::{METRICS, SweepFile, short};
use crate::sweep::stats::{best_choice, mean_and_deviation};
use crate::sweep::trials::Trial;
use crate::sweep::{Row, troubles};
use std::collections::BTreeSet;
use std::path::Path;
use toml::Value;

/// Epochs that a table of scores over time shows, besides the last.
const EPOCHS: [usize; 6] = [1, 3, 10, 30, 100, 300];

/// A trial and what became of it.
type Seen<'a> = (&'a Trial, &'a Row);

/// The experiment's table: what was measured beside the paper's numbers. `whole` is the experiment with all that
/// the paper ran, whose places are shown also where nothing was run.
pub(crate) fn compare(
    experiment: &Experiment,
    whole: &SweepFile,
    file: &SweepFile,
    trials: &[Trial],
    rows: &[Row],
    out: &Path,
) -> Result<Comparison, Failure> {
    let seen: Vec<Seen<'_>> = trials.iter().zip(rows).collect();
    let mut comparison = Comparison::new(
        &experiment.name,
        &experiment.title,
        experiment.quantity,
        short(&experiment.rows),
        short(&experiment.columns),
    );
    comparison.note = note(experiment, trials, &seen, out);
    for section in &experiment.sections {
        let of_section: Vec<Seen<'_>> = seen
            .iter()
            .copied()
            .filter(|(trial, _)| belongs(&trial.config, section))
            .collect();
        let configs = whole.configs.iter();
        let planned: Vec<&Config> = configs.filter(|c| belongs(c, section)).collect();
        let table = Table {
            experiment,
            section,
            over: file.select.as_ref().map(|s| s.over.as_str()),
            printed: printed(experiment, section),
            planned,
            seen: of_section,
            out,
        };
        comparison.cells.extend(table.cells()?);
    }
    Ok(comparison)
}

/// Whether a config's trial is one of a section's.
pub(crate) fn belongs(config: &Config, section: &Section) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => number.to_string(),
        other => other.to_string(),
    };
    let mut wanted = section.trials.iter();
    wanted.all(|(key, value)| config.value(key) == Some(text(value)))
}

/// One of the experiment's tables in the making.
struct Table<'a> {
    experiment: &'a Experiment,
    section: &'a Section,
    /// The key of which the best value counts.
    over: Option<&'a str>,
    printed: Vec<Printed>,
    planned: Vec<&'a Config>,
    seen: Vec<Seen<'a>>,
    out: &'a Path,
}

/// What was measured at one place.
#[derive(Default)]
struct Measured {
    values: Vec<f64>,
    status: String,
}

impl Table<'_> {
    fn cells(&self) -> Result<Vec<Cell>, Failure> {
        let scores = match self.experiment.quantity {
            Quantity::Alignment => Some(self.scores()?),
            Quantity::Accuracy | Quantity::Loss | Quantity::SecondsPerEpoch => None,
        };
        let (rows, columns) = self.labels(scores.as_deref());
        let mut cells = Vec::new();
        for row in &rows {
            for column in &columns {
                let measured = match &scores {
                    Some(scores) => self.scored(scores, row, column),
                    None => self.measured(row, column),
                };
                cells.push(self.cell(row, column, &measured));
            }
        }
        Ok(cells)
    }

    fn cell(&self, row: &str, column: &str, measured: &Measured) -> Cell {
        let unit = match self.experiment.quantity {
            Quantity::Accuracy => 100.0,
            Quantity::Loss | Quantity::Alignment | Quantity::SecondsPerEpoch => 1.0,
        };
        let values: Vec<f64> = measured.values.iter().map(|v| unit * v).collect();
        let (mean, deviation) = mean_and_deviation(&values).unzip();
        let spread = match self.experiment.quantity {
            Quantity::SecondsPerEpoch => (values.len() as f64).sqrt().recip(),
            Quantity::Accuracy | Quantity::Loss | Quantity::Alignment => 1.0,
        };
        let mut printed = self.printed.iter();
        let printed = printed.find(|p| p.row == row && p.column == column);
        Cell {
            section: self.section.name.clone(),
            row: row.into(),
            column: column.into(),
            measured: mean,
            deviation: deviation.flatten().map(|d| spread * d),
            seeds: values.len(),
            paper: printed.map(|p| p.value),
            paper_deviation: printed.and_then(|p| p.deviation),
            status: measured.status.clone(),
        }
    }

    /// Labels of rows and columns: what was planned, what the paper has, and what was run beyond that.
    fn labels(&self, scores: Option<&[Scored]>) -> (Vec<String>, Vec<String>) {
        let experiment = self.experiment;
        let labels = |key: &str, paper: fn(&Printed) -> &String, scored: fn(&Scored) -> &String| {
            let of = |config: &&Config| match key {
                "layer" => layers(config),
                "epoch" => Vec::new(),
                key => config.value(key).into_iter().collect(),
            };
            let mut all: Vec<String> = self.planned.iter().flat_map(of).collect();
            all.extend(self.printed.iter().map(|p| paper(p).clone()));
            let run = self.seen.iter().map(|(trial, _)| &trial.config);
            all.extend(run.flat_map(|config| of(&config)));
            all.extend(scores.into_iter().flatten().map(|s| scored(s).clone()));
            let mut once = BTreeSet::new();
            all.retain(|label| once.insert(label.clone()));
            all
        };
        let rows = labels(&experiment.rows, |p| &p.row, |s| &s.row);
        let mut columns = labels(&experiment.columns, |p| &p.column, |s| &s.column);
        let number = |label: &String| label.parse::<f64>().unwrap_or(f64::INFINITY);
        columns.sort_by(|a, b| number(a).total_cmp(&number(b)));
        (rows, columns)
    }

    /// The best choice's numbers, one for each seed, of the trials at one place.
    fn measured(&self, row: &str, column: &str) -> Measured {
        let (rows, columns) = (&self.experiment.rows, &self.experiment.columns);
        let here: Vec<Seen<'_>> = self
            .seen
            .iter()
            .copied()
            .filter(|(trial, _)| {
                let is = |key: &str, value: &str| trial.config.value(key).as_deref() == Some(value);
                is(rows, row) && is(columns, column)
            })
            .collect();
        if here.is_empty() {
            return Measured {
                status: "not run".into(),
                ..Measured::default()
            };
        }
        // Best epochs of diverged trials count, as in the paper, where there is nothing better.
        let completed = self.chosen(&here, |row| row.status == "completed");
        let values = match completed.is_empty() {
            true => self.chosen(&here, |row| row.status == "diverged"),
            false => completed,
        };
        Measured {
            values,
            status: status(here.iter().map(|(_, row)| *row)),
        }
    }

    /// The best choice's numbers, of trials that ended in a certain way.
    fn chosen(&self, here: &[Seen<'_>], ended: impl Fn(&Row) -> bool) -> Vec<f64> {
        let metric = self.metric();
        let more = METRICS.iter().any(|(name, more)| *name == metric && *more);
        let mut choices: Vec<(Option<String>, Vec<f64>)> = Vec::new();
        for (trial, seen) in here.iter().filter(|(_, row)| ended(row)) {
            let choice = self.over.and_then(|over| trial.config.value(over));
            let place = choices.iter().position(|(value, _)| *value == choice);
            let place = place.unwrap_or_else(|| {
                choices.push((choice, Vec::new()));
                choices.len() - 1
            });
            choices[place].1.extend(self.number(trial, seen, metric));
        }
        let mut numbers: Vec<Vec<f64>> = choices.into_iter().map(|(_, numbers)| numbers).collect();
        let best = best_choice(&numbers, more);
        best.map_or_else(Vec::new, |best| numbers.swap_remove(best))
    }

    fn metric(&self) -> &str {
        let quantity = match self.experiment.quantity {
            Quantity::Loss => "eval_loss",
            Quantity::Accuracy | Quantity::Alignment | Quantity::SecondsPerEpoch => "eval_accuracy",
        };
        self.section.metric.as_deref().unwrap_or(quantity)
    }

    fn number(&self, trial: &Trial, row: &Row, metric: &str) -> Option<f64> {
        match self.experiment.quantity {
            Quantity::SecondsPerEpoch => {
                Some(row.outcome.seconds / trial.config.train.epochs as f64)
            }
            Quantity::Accuracy | Quantity::Loss | Quantity::Alignment => row.number(metric),
        }
    }

    /// All trials' alignment scores, by row and column.
    fn scores(&self) -> Result<Vec<Scored>, Failure> {
        let over_time = self.experiment.columns == "epoch";
        let mut all = Vec::new();
        for (trial, seen) in &self.seen {
            let scores = align::read_scores(&self.out.join(&trial.id))?;
            let last = scores.iter().map(|s| s.epoch).max().unwrap_or_default();
            for score in scores {
                let epoch = score.epoch + 1;
                let shown = score.epoch == last || EPOCHS.contains(&epoch);
                let column = match over_time {
                    true if shown => Some(epoch.to_string()),
                    // One score a trial: the one at its end.
                    false if score.epoch == last && seen.status == "completed" => {
                        trial.config.value(&self.experiment.columns)
                    }
                    _ => None,
                };
                let Some(column) = column else {
                    continue;
                };
                let row = format!("layer-{}", score.layer);
                if over_time {
                    all.push(Scored {
                        row: format!("{row}, permuted"),
                        column: column.clone(),
                        score: score.score_permuted,
                    });
                }
                all.push(Scored {
                    row,
                    column,
                    score: score.score,
                });
            }
        }
        Ok(all)
    }

    fn scored(&self, scores: &[Scored], row: &str, column: &str) -> Measured {
        let values = scores.iter().filter(|s| s.row == row && s.column == column);
        let columns = &self.experiment.columns;
        let here = self.seen.iter().filter(|(trial, _)| {
            columns == "epoch" || trial.config.value(columns).as_deref() == Some(column)
        });
        Measured {
            values: values.map(|s| s.score).collect(),
            status: status(here.map(|(_, row)| *row)),
        }
    }
}

/// An alignment score at its place in the table.
struct Scored {
    row: String,
    column: String,
    score: f64,
}

/// `layer-1` … of a network's hidden layers.
fn layers(config: &Config) -> Vec<String> {
    let network = &config.network;
    let strides = network.strides.as_ref().map(Vec::len);
    let count = strides.or(network.depth).unwrap_or_default();
    (1..=count).map(|layer| format!("layer-{layer}")).collect()
}

fn status<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let rows: Vec<&Row> = rows.collect();
    if rows.is_empty() {
        return "not run".into();
    }
    troubles(rows.into_iter()).unwrap_or_else(|| "completed".into())
}

/// How the paper did it, and how it was measured here.
fn note(experiment: &Experiment, trials: &[Trial], seen: &[Seen<'_>], out: &Path) -> String {
    let values = |key: &str| {
        let mut once = BTreeSet::new();
        let all = trials.iter().filter_map(|t| t.config.value(key));
        let all: Vec<String> = all.filter(|v| once.insert(v.clone())).collect();
        all.join(", ")
    };
    let begun = seen.iter().filter(|(_, row)| row.status != "missing");
    // A folder whose environment cannot be read says nothing of the machine.
    let machines = begun.filter_map(|(t, _)| Environment::read(&out.join(&t.id)).ok().flatten());
    let machines: BTreeSet<String> = machines
        .map(|e| format!("{}, {}", e.device, e.precision))
        .collect();
    let machines: Vec<String> = machines.into_iter().collect();
    format!(
        "Paper: {}. Here: {} training samples; epochs {}; lr {}; seed {}; {}.",
        experiment.protocol,
        values("data.train_points"),
        values("train.epochs"),
        values("train.lr"),
        values("train.seed"),
        if machines.is_empty() {
            "nothing run yet".into()
        } else {
            machines.join(" and ")
        }
    )
}
