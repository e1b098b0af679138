//! Tables before they have a format: comparisons with a paper, and the summary.

use super::group::{Group, Groups, LEARNING_RATE, Mean};
use super::trial::Metric;
use crate::reproduce::{Cell as Place, Comparison, Quantity};
use crate::sweep::file;

/// One cell: what was measured, and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) main: String,
    /// The paper's number.
    pub(crate) paper: Option<String>,
    /// Measured minus the paper's.
    pub(crate) difference: Option<String>,
    /// What became of trials that did not complete.
    pub(crate) note: Option<String>,
}

impl From<String> for Cell {
    fn from(main: String) -> Self {
        Self {
            main,
            ..Self::default()
        }
    }
}

/// A table. Rows begin with the cells that say what the row is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) caption: String,
    /// How it was measured.
    pub(crate) note: String,
    pub(crate) head: Vec<String>,
    /// Columns at the left that say what a row is.
    pub(crate) labels: usize,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// The tables of a comparison, one a section.
pub(crate) fn comparison_tables(comparison: &Comparison) -> Vec<Table> {
    let cells = &comparison.cells;
    let sections = distinct(cells.iter().map(|c| c.section.as_str()));
    let table = |section: &&str| {
        let cells: Vec<&Place> = cells.iter().filter(|c| c.section == **section).collect();
        let columns = distinct(cells.iter().map(|c| c.column.as_str()));
        let rows = distinct(cells.iter().map(|c| c.row.as_str()));
        let corner = format!("{} / {}", comparison.rows, comparison.columns);
        let mut head = vec![corner];
        head.extend(columns.iter().map(|c| (*c).to_owned()));
        let row = |row: &&str| {
            let place = |column: &&str| cells.iter().find(|c| c.row == *row && c.column == *column);
            let cell = |column: &&str| {
                place(column).map_or_else(
                    || Cell::from("–".to_owned()),
                    |place| compared(place, comparison.quantity),
                )
            };
            let mut all = vec![Cell::from((*row).to_owned())];
            all.extend(columns.iter().map(cell));
            all
        };
        let mut caption = format!("{}: {}", comparison.experiment, comparison.title);
        if !section.is_empty() {
            caption += &format!(" ({section})");
        }
        let unit = match comparison.quantity {
            Quantity::Accuracy => "Best accuracy over epochs, %",
            Quantity::Loss => "Best loss over epochs",
            Quantity::Alignment => "Alignment score",
            Quantity::SecondsPerEpoch => "Seconds per epoch",
        };
        let note = format!("{unit}: measured / paper (difference). {}", comparison.note);
        Table {
            caption,
            note: note.trim_end().into(),
            head,
            labels: 1,
            rows: rows.iter().map(row).collect(),
        }
    };
    sections.iter().map(table).collect()
}

/// One cell of a comparison.
fn compared(place: &Place, quantity: Quantity) -> Cell {
    let digits = match quantity {
        Quantity::Accuracy | Quantity::SecondsPerEpoch => 2,
        Quantity::Loss | Quantity::Alignment => 3,
    };
    let finite = |value: Option<f64>| value.filter(|v| v.is_finite());
    let measured = finite(place.measured);
    let number = |value: f64, deviation: Option<f64>| match finite(deviation) {
        Some(deviation) => format!("{value:.digits$} ± {deviation:.digits$}"),
        None => format!("{value:.digits$}"),
    };
    let completed = place.status == "completed";
    let paper = finite(place.paper);
    Cell {
        main: match measured {
            Some(value) => number(value, place.deviation),
            None if completed => "–".into(),
            None => place.status.clone(),
        },
        paper: paper.map(|value| number(value, place.paper_deviation)),
        difference: measured.zip(paper).map(|(a, b)| signed(a - b, digits)),
        note: (measured.is_some() && !completed).then(|| place.status.clone()),
    }
}

/// With a sign, a true minus, and no sign where nothing is left of the number.
fn signed(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    if text.chars().all(|c| c == '0' || c == '.') {
        text
    } else if value < 0.0 {
        format!("−{text}")
    } else {
        format!("+{text}")
    }
}

/// Values in order of their first appearance.
fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

/// One row a group of trials.
pub(crate) fn summary_table(groups: &Groups<'_>) -> Table {
    let has = |metric: Metric| groups.groups.iter().any(|g| g.metric == metric);
    let (accuracy, loss) = (has(Metric::Accuracy), has(Metric::Loss));
    let best = match (accuracy, loss) {
        (true, true) => "best accuracy or loss",
        (false, true) => "best loss",
        _ => "best accuracy",
    };
    let choice = groups.varies(LEARNING_RATE);
    let mut head = vec!["rule".to_owned()];
    head.extend(groups.keys.iter().map(|key| short(key).replace('_', " ")));
    let labels = head.len();
    head.extend([best, "seeds", "not completed", "s/epoch"].map(str::to_owned));
    if choice {
        head.push("best lr".into());
    }
    let row = |group: &Group<'_>| {
        let mut cells = vec![Cell::from(group.rule.clone())];
        let value = |v: &Option<String>| Cell::from(value_text(v.as_ref()));
        cells.extend(group.values.iter().map(value));
        let seeds = group.best.map_or(0, |m| m.seeds);
        let seconds = group
            .seconds
            .map_or("–".into(), |m| format!("{:.3}", m.mean));
        let troubles = Some(group.troubles()).filter(|t| !t.is_empty());
        cells.extend([
            Cell::from(best_of(group.metric, group.best)),
            Cell::from(format!("{seeds}/{}", group.trials.len())),
            Cell::from(troubles.unwrap_or_else(|| "–".into())),
            Cell::from(seconds),
        ]);
        if choice {
            cells.push(Cell::from(if group.chosen { "✓" } else { "" }.to_owned()));
        }
        cells
    };
    let note = "On the evaluated samples, the best over epochs; mean ± standard deviation over seeds. Seeds: \
                completed / all. Only trials that completed count.";
    Table {
        caption: "Summary".into(),
        note: note.into(),
        head,
        labels,
        rows: groups.groups.iter().map(row).collect(),
    }
}

fn best_of(metric: Metric, best: Option<Mean>) -> String {
    let Some(Mean {
        mean, deviation, ..
    }) = best
    else {
        return "–".into();
    };
    let number = |value: f64| match metric {
        Metric::Accuracy => format!("{:.2}", 100.0 * value),
        // One that is on its way out.
        Metric::Loss if value.abs() >= 1e4 => format!("{value:.3e}"),
        Metric::Loss => format!("{value:.4}"),
    };
    let unit = match metric {
        Metric::Accuracy => " %",
        Metric::Loss => "",
    };
    let deviation = deviation.map_or(String::new(), |d| format!(" ± {}", number(d)));
    format!("{}{deviation}{unit}", number(mean))
}

/// A config's value: very large and very small numbers in scientific notation, a dash for none.
pub(crate) fn value_text(value: Option<&String>) -> String {
    let Some(value) = value else {
        return "–".into();
    };
    match value.parse::<f64>() {
        Ok(number) if number != 0.0 && !(1e-4..1e7).contains(&number.abs()) => {
            format!("{number:e}")
        }
        _ => value.clone(),
    }
}

/// A key without its section.
pub(crate) fn short(key: &str) -> &str {
    match key {
        "data.name" => "data",
        _ => file::short(key),
    }
}
