//! `comparison.json`: a table or figure of the paper beside what was measured, cell by cell.

use crate::run::{RunError, read_json, write_whole};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the file's content.
const FORMAT: u32 = 1;

const NAME: &str = "comparison.json";

/// What the numbers of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Best accuracy over epochs on the evaluated samples, in percent.
    Accuracy,
    /// Best loss over epochs.
    Loss,
    /// Alignment score, from 0 to 1.
    Alignment,
    /// Seconds of training and evaluation per epoch.
    SecondsPerEpoch,
}

/// One place of a table: what was measured there and what the paper reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Which of several tables below each other: `450 training points`; empty where there is one.
    pub section: String,
    /// Label of the row, mostly a rule.
    pub row: String,
    /// Label of the column, mostly a width.
    pub column: String,
    /// Mean over seeds; none where nothing completed.
    pub measured: Option<f64>,
    /// Standard deviation over seeds (standard error of times); none for fewer than two.
    pub deviation: Option<f64>,
    /// Seeds that completed.
    pub seeds: usize,
    /// What the paper reports; none where it reports nothing.
    pub paper: Option<f64>,
    /// Its standard deviation, where it gives one.
    pub paper_deviation: Option<f64>,
    /// `completed`; `not run`; or what became of the trials that did not complete: `1 diverged, 1 missing`.
    pub status: String,
}

/// A table or figure of the paper, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    format: u32,
    /// `table6`.
    pub experiment: String,
    /// What it shows.
    pub title: String,
    /// How it was measured: epochs, seeds, learning rates, device, precision; and how that differs from the paper's.
    pub note: String,
    /// What the numbers are.
    pub quantity: Quantity,
    /// What rows are: `rule`, `layer`.
    pub rows: String,
    /// What columns are: `width`, `lr`.
    pub columns: String,
    /// All places, section by section, row by row.
    pub cells: Vec<Cell>,
}

impl Comparison {
    /// A table without places yet.
    pub fn new(
        experiment: &str,
        title: &str,
        quantity: Quantity,
        rows: &str,
        columns: &str,
    ) -> Self {
        Self {
            format: FORMAT,
            experiment: experiment.into(),
            title: title.into(),
            note: String::new(),
            quantity,
            rows: rows.into(),
            columns: columns.into(),
            cells: Vec::new(),
        }
    }

    /// Writes the file into an experiment's folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), RunError> {
        let mut json = serde_json::to_vec_pretty(self).expect("plain strings and numbers");
        json.push(b'\n');
        write_whole(&folder.join(NAME), &json)
    }

    /// Reads the file of a folder; none where there is none.
    ///
    /// # Errors
    /// It cannot be read or is no such file.
    pub fn load(folder: &Path) -> Result<Option<Self>, RunError> {
        let path = folder.join(NAME);
        let Some(comparison) = read_json::<Self>(&path)? else {
            return Ok(None);
        };
        if comparison.format != FORMAT {
            let found = comparison.format;
            return Err(RunError::Damaged {
                path,
                message: format!("its format is {found}, this program's {FORMAT}"),
            });
        }
        Ok(Some(comparison))
    }
}
