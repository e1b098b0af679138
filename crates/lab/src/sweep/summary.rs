//! The table at a sweep's end: best over epochs and over the selected key, mean ± standard deviation over seeds,
//! and paired tests between rules.

use super::file::{METRICS, Select, short};
use super::results::Row;
use super::stats::{Paired, best_choice, mean_and_deviation, paired};
use super::trials::Trial;
use crate::table::table;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Trials that differ in seed, and in the key that is selected over, only.
struct Cell<'a> {
    /// Values of all other axes, in the order of the head.
    values: Vec<String>,
    /// Trials by the selected key's value; one nameless group without a selection.
    choices: Vec<Choice<'a>>,
}

/// Trials that differ in seed only.
struct Choice<'a> {
    value: String,
    trials: Vec<(u32, &'a Row)>,
}

impl Choice<'_> {
    /// The number of every seed that has one.
    fn numbers(&self, metric: &str) -> BTreeMap<u32, f64> {
        let number = |(seed, row): &(u32, &Row)| Some((*seed, row.metric(metric)?));
        self.trials.iter().filter_map(number).collect()
    }
}

impl<'a> Cell<'a> {
    /// The choice with numbers for the most seeds, and of those the one with the best mean: a value that
    /// diverges on some seeds never wins over one that does not.
    fn chosen(&self, metric: &str, more: bool) -> &Choice<'a> {
        let numbers = |choice: &Choice<'_>| choice.numbers(metric).into_values().collect();
        let numbers: Vec<Vec<f64>> = self.choices.iter().map(numbers).collect();
        let best = best_choice(&numbers, more);
        &self.choices[best.expect("a cell has at least one trial")]
    }

    /// What became of all its trials.
    fn rows(&self) -> impl Iterator<Item = &'a Row> {
        let trials = self.choices.iter().flat_map(|c| &c.trials);
        trials.map(|(_, row)| *row)
    }

    /// Whether the chosen value is the smallest or largest of a grid of numbers.
    fn edge(&self, chosen: &Choice<'_>) -> Option<&'static str> {
        let number = |c: &Choice<'_>| c.value.parse::<f64>().ok();
        let grid: Vec<f64> = self.choices.iter().map(number).collect::<Option<_>>()?;
        let value = number(chosen)?;
        if grid.len() < 2 {
            None
        } else if grid.iter().all(|v| *v >= value) {
            Some("smallest")
        } else if grid.iter().all(|v| *v <= value) {
            Some("largest")
        } else {
            None
        }
    }
}

/// The summary as text.
pub(crate) fn summary(
    trials: &[Trial],
    rows: &[Row],
    axes: &[String],
    select: Option<&Select>,
) -> String {
    let over = select.map(|s| s.over.as_str());
    let metric = select.map_or("eval_accuracy", |s| s.best.as_str());
    let more = METRICS.iter().any(|(name, more)| *name == metric && *more);
    let mut keys = vec!["train.rule".to_owned(), "network.width".to_owned()];
    keys.extend(axes.iter().filter(|k| k.as_str() != "train.seed").cloned());
    let mut seen = BTreeSet::new();
    keys.retain(|key| Some(key.as_str()) != over && seen.insert(key.clone()));

    let cells = cells(trials, rows, &keys, over);
    let mut head: Vec<&str> = keys.iter().map(|key| short(key)).collect();
    let left = head.len();
    let chosen_head = over.map(|over| format!("best {}", short(over)));
    head.extend(chosen_head.as_deref());
    head.extend([metric, "± sd", "seeds", "not completed"]);
    let mut table = table(&head, left);
    let mut warnings = String::new();
    let mut best: Vec<(&Cell<'_>, BTreeMap<u32, f64>)> = Vec::new();
    for cell in &cells {
        let chosen = cell.chosen(metric, more);
        let numbers = chosen.numbers(metric);
        let values: Vec<f64> = numbers.values().copied().collect();
        let (mean, deviation) = mean_and_deviation(&values).unzip();
        let mut line = cell.values.clone();
        line.extend(over.map(|_| chosen.value.clone()));
        let show = |v: Option<f64>| v.map_or("–".into(), |v| number(metric, v));
        line.extend([
            show(mean),
            show(deviation.flatten()),
            format!("{}/{}", values.len(), chosen.trials.len()),
            troubles(cell.rows()).unwrap_or_else(|| "–".into()),
        ]);
        table.add_row(line);
        if let (Some(over), Some(edge), false) = (over, cell.edge(chosen), values.is_empty()) {
            let _ = writeln!(
                warnings,
                "warning: {}: the best {} ({}) is the {edge} of its grid; extend the grid",
                cell.values.join(", "),
                short(over),
                chosen.value
            );
        }
        best.push((cell, numbers));
    }
    let tests = tests(&best, metric);
    format!("{table}\n{warnings}{tests}")
}

fn cells<'a>(
    trials: &[Trial],
    rows: &'a [Row],
    keys: &[String],
    over: Option<&str>,
) -> Vec<Cell<'a>> {
    let mut cells: Vec<Cell<'a>> = Vec::new();
    for (trial, row) in trials.iter().zip(rows) {
        let value = |key: &str| trial.config.value(key).unwrap_or_default();
        let values: Vec<String> = keys.iter().map(|key| value(key)).collect();
        let place = cells.iter().position(|c| c.values == values);
        let place = place.unwrap_or_else(|| {
            cells.push(Cell {
                values,
                choices: Vec::new(),
            });
            cells.len() - 1
        });
        let choices = &mut cells[place].choices;
        let choice = over.map(value).unwrap_or_default();
        let place = choices.iter().position(|c| c.value == choice);
        let place = place.unwrap_or_else(|| {
            choices.push(Choice {
                value: choice,
                trials: Vec::new(),
            });
            choices.len() - 1
        });
        choices[place].trials.push((trial.config.train.seed, row));
    }
    cells
}

/// `2 diverged, 1 missing`; nothing where everything completed.
pub(crate) fn troubles<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows.filter(|row| row.status != "completed") {
        *counts.entry(&row.status).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(s, n)| format!("{n} {s}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Each rule against backprop (or the first rule) where all other axes agree, on the seeds that both have.
fn tests(best: &[(&Cell<'_>, BTreeMap<u32, f64>)], metric: &str) -> String {
    let reference = best
        .iter()
        .map(|(cell, _)| cell.values[0].as_str())
        .find(|rule| *rule == "normal")
        .or(best.first().map(|(cell, _)| cell.values[0].as_str()))
        .unwrap_or_default();
    let mut table = table(&["rule", "other axes", "difference", "t", "p", "seeds"], 2);
    let mut any = false;
    for (cell, numbers) in best {
        if cell.values[0] == reference {
            continue;
        }
        let same = |(other, _): &&(&Cell<'_>, BTreeMap<u32, f64>)| {
            other.values[0] == reference && other.values[1..] == cell.values[1..]
        };
        let Some((_, against)) = best.iter().find(same) else {
            continue;
        };
        let pair = |(seed, a): (&u32, &f64)| Some((*a, *against.get(seed)?));
        let pairs: Vec<_> = numbers.iter().filter_map(pair).collect();
        let Some(Paired {
            pairs,
            difference,
            t,
            p,
        }) = paired(&pairs)
        else {
            continue;
        };
        any = true;
        table.add_row([
            cell.values[0].clone(),
            cell.values[1..].join(", "),
            number(metric, difference),
            if t.is_finite() {
                format!("{t:.2}")
            } else {
                "–".into()
            },
            p.map_or("–".into(), |p| format!("{p:.4}")),
            pairs.to_string(),
        ]);
    }
    if !any {
        return String::new();
    }
    format!(
        "difference to {reference} on the seeds that both have, Student's paired test (two-sided; not corrected \
         for several tests)\n{table}\n"
    )
}

fn number(metric: &str, value: f64) -> String {
    if metric.ends_with("accuracy") {
        format!("{:.2} %", 100.0 * value)
    } else {
        format!("{value:.5}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Outcome;

    fn row(accuracy: Option<f64>) -> Row {
        Row {
            id: String::new(),
            status: if accuracy.is_some() {
                "completed"
            } else {
                "diverged"
            }
            .into(),
            outcome: Outcome {
                best_eval_accuracy: accuracy,
                ..Outcome::default()
            },
            worker: None,
        }
    }

    /// Oracle: worked by hand.
    #[test]
    fn the_best_choice_has_all_seeds_and_the_best_mean() {
        let rows = [0.5, 0.7, 0.9, 0.8, 0.7].map(|a| row(Some(a)));
        let diverged = row(None);
        let choice = |value: &str, trials| Choice {
            value: value.into(),
            trials,
        };
        let cell = Cell {
            values: vec!["fa".into()],
            choices: vec![
                choice("1", vec![(1, &rows[0]), (2, &rows[1])]),
                choice("10", vec![(1, &rows[2]), (2, &diverged)]),
                choice("2", vec![(1, &rows[3]), (2, &rows[4])]),
            ],
        };
        let chosen = cell.chosen("eval_accuracy", true);
        assert_eq!(chosen.value, "2");
        assert_eq!(cell.edge(chosen), None);
        assert_eq!(cell.edge(&cell.choices[0]), Some("smallest"));
        assert_eq!(cell.edge(&cell.choices[1]), Some("largest"));
        assert_eq!(troubles(cell.rows()).as_deref(), Some("1 diverged"));
        assert_eq!(troubles(rows.iter()), None);
    }
}
