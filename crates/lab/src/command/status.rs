//! `sansprop status`.

use crate::cli::{Failure, print};
use crate::run::{Heartbeat, Locks};
use crate::sweep::{Manifest, row};
use crate::table::table;
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Show who trains what in a sweep's folder, and what is left.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop status runs/grid
  sansprop status runs/grid --all")]
pub(crate) struct Arguments {
    /// The sweep's folder.
    folder: PathBuf,
    /// List completed and missing trials too.
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let out = &arguments.folder;
    let manifest = Manifest::load(out)?;
    let locks = Locks::new(out.join("locks"), Heartbeat::from_environment());
    let mut table = table(&["trial", "status", "epochs", "worker or message"], 4);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut listed = 0;
    for id in &manifest.trials {
        let row = row(out, id, &locks, None)?;
        *counts.entry(row.status.clone()).or_default() += 1;
        if arguments.all || !["completed", "missing"].contains(&row.status.as_str()) {
            let note = row.worker.or(row.outcome.message).unwrap_or_default();
            table.add_row([row.id, row.status, epochs(&out.join(id)).to_string(), note]);
            listed += 1;
        }
    }
    let counted: Vec<String> = counts.iter().map(|(s, n)| format!("{n} {s}")).collect();
    let list = if listed > 0 {
        format!("{table}\n")
    } else {
        String::new()
    };
    print(&format!(
        "{list}{}: {} trials, {}\n",
        manifest.file,
        manifest.trials.len(),
        counted.join(", ")
    ))
}

/// Epochs that a trial's metrics hold.
fn epochs(folder: &Path) -> usize {
    // A trial that has not begun has no file.
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    text.matches("\"event\":\"epoch\"").count()
}
