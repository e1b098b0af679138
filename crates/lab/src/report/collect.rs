//! Finds what lies below folders: runs, sweeps, comparisons, alignment scores. What is damaged is named and
//! loses nothing else.

use super::trial::Trial;
use crate::align;
use crate::cli::Failure;
use crate::config::load;
use crate::reproduce::Comparison;
use crate::run::{Curve, Environment, Heartbeat, Locks, Outcome};
use crate::sweep::{Manifest, Row, row};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Scores of weights that came from files, without a run.
#[derive(Clone, Debug)]
pub(crate) struct LooseScores {
    /// The folder's name.
    pub(crate) name: String,
    pub(crate) rows: Vec<align::Row>,
}

/// A file that cannot be used, and why.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) path: PathBuf,
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display().to_string();
        if self.message.contains(&path) {
            f.write_str(&self.message)
        } else {
            write!(f, "{path}: {}", self.message)
        }
    }
}

/// Everything found.
#[derive(Default)]
pub(crate) struct Collection {
    /// In the order of their folders; each trial once.
    pub(crate) trials: Vec<Trial>,
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) scores: Vec<LooseScores>,
    pub(crate) problems: Vec<Problem>,
    places: HashMap<String, usize>,
    entered: HashSet<PathBuf>,
    /// Folders with something in them to report.
    seen: usize,
}

/// Looks below all folders. Links are followed, and each folder is entered once, however many links lead there.
///
/// # Errors
/// A folder that is not there, or that holds nothing to report.
pub(crate) fn collect(folders: &[PathBuf]) -> Result<Collection, Failure> {
    let mut collection = Collection::default();
    for folder in folders {
        let shown = folder.display();
        if !folder.is_dir() {
            let what = if folder.exists() {
                "is no folder"
            } else {
                "does not exist"
            };
            let right = "give the folder of a run, a sweep or an experiment";
            return Err(Failure::Failed(format!("{shown} {what}; {right}")));
        }
        let before = collection.seen;
        let known = fs::canonicalize(folder).is_ok_and(|p| collection.entered.contains(&p));
        collection.walk(folder);
        if collection.seen == before && !known {
            return Err(Failure::Failed(format!(
                "{shown} holds no run: no folder below it has a config.toml, sweep.json, comparison.json or \
                 alignment.csv; give the folder of a run, a sweep or an experiment"
            )));
        }
    }
    collection.trials.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(collection)
}

impl Collection {
    fn walk(&mut self, folder: &Path) {
        let real = match fs::canonicalize(folder) {
            Ok(real) => real,
            Err(e) => return self.problem(folder, format!("cannot be entered: {e}")),
        };
        if !self.entered.insert(real) {
            return;
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) => return self.problem(folder, format!("cannot be read: {e}")),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        let has = |name: &str| {
            paths
                .iter()
                .any(|p| p.file_name() == Some(OsStr::new(name)))
        };
        let known = [
            "config.toml",
            "sweep.json",
            "comparison.json",
            "alignment.csv",
        ];
        self.seen += usize::from(known.iter().any(|name| has(name)));
        if has("config.toml") {
            self.run(folder);
        } else if has("alignment.csv") {
            self.loose_scores(folder);
        }
        if has("comparison.json") {
            match Comparison::load(folder) {
                Ok(found) => self.comparisons.extend(found),
                Err(e) => self.problem(&folder.join("comparison.json"), e.to_string()),
            }
        }
        let hidden = |p: &&PathBuf| {
            let name = p.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with('.') || name == "locks"
        };
        for path in paths.iter().filter(|p| !hidden(p) && p.is_dir()) {
            self.walk(path);
        }
        if has("sweep.json") {
            self.sweep(folder);
        }
    }

    fn problem(&mut self, path: &Path, message: String) {
        self.problems.push(Problem {
            path: path.into(),
            message,
        });
    }

    /// What `result` holds; an error becomes a problem of the file.
    fn sound<T: Default, E: ToString>(&mut self, path: PathBuf, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| {
            self.problem(&path, error.to_string());
            T::default()
        })
    }

    fn run(&mut self, folder: &Path) {
        let path = folder.join("config.toml");
        let config = load(Some(&path), &[]).map(Some);
        let broken = config.is_err();
        let config = self.sound(path, config);
        let environment = Environment::read(folder);
        let environment = self.sound(folder.join("env.json"), environment);
        let curve = Curve::read(folder);
        let curve = self.sound(folder.join("metrics.jsonl"), curve);
        if curve.torn > 0 {
            let message = format!("{} lines are no metrics and were left out", curve.torn);
            self.problem(&folder.join("metrics.jsonl"), message);
        }
        let mut scores = Vec::new();
        if folder.join("alignment.csv").exists() {
            let read = align::read_scores(folder);
            scores = self.sound(folder.join("alignment.csv"), read);
        }
        // `.` has no name of its own.
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.into());
        let name = real.file_name().unwrap_or_default().to_string_lossy();
        let mut row = self.row_of(real.parent().unwrap_or(Path::new("")), &name);
        if broken {
            row.status = "failed".into();
            row.outcome = Outcome::failed("its config.toml is damaged".into());
        }
        let id = match &config {
            Some(config) => config.run_name(),
            None => name.into_owned(),
        };
        self.add(Trial {
            id,
            folder: folder.into(),
            config,
            environment,
            row,
            curve,
            scores,
        });
    }

    /// How a trial stands; a damaged result is a problem and a failed trial.
    fn row_of(&mut self, out: &Path, id: &str) -> Row {
        let path = out.join(id).join("result.json");
        if let Err(error) = Outcome::read(&out.join(id)) {
            self.problem(&path, error.to_string());
        }
        let locks = Locks::new(out.join("locks"), Heartbeat::from_environment());
        row(out, id, &locks, None).unwrap_or_else(|error| Row {
            id: id.into(),
            status: "failed".into(),
            outcome: Outcome::failed(error.to_string()),
            worker: None,
        })
    }

    /// Trials that a sweep lists and that have no folder.
    fn sweep(&mut self, folder: &Path) {
        let manifest = match Manifest::load(folder) {
            Ok(manifest) => manifest,
            Err(e) => return self.problem(&folder.join("sweep.json"), e.to_string()),
        };
        for id in manifest.trials {
            if folder.join(&id).join("config.toml").exists() {
                continue;
            }
            let row = self.row_of(folder, &id);
            self.add(Trial {
                folder: folder.join(&id),
                config: None,
                environment: None,
                row,
                curve: Curve::default(),
                scores: Vec::new(),
                id,
            });
        }
    }

    fn loose_scores(&mut self, folder: &Path) {
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.into());
        let name = real.file_name().unwrap_or_default().to_string_lossy();
        let read = align::read_scores(folder);
        let rows = self.sound(folder.join("alignment.csv"), read);
        if !rows.is_empty() {
            let name = name.into_owned();
            self.scores.push(LooseScores { name, rows });
        }
    }

    /// Adds a trial, or of one found before keeps what says more: the one that went further, and its scores.
    fn add(&mut self, mut trial: Trial) {
        // A scored run and its twin without scores are one trial.
        let name = match &trial.config {
            Some(config) => config.training_name(),
            None => trial.id.clone(),
        };
        let Some(&place) = self.places.get(&name) else {
            self.places.insert(name, self.trials.len());
            return self.trials.push(trial);
        };
        let known = &mut self.trials[place];
        if progress(&trial.row.status) > progress(&known.row.status) {
            std::mem::swap(known, &mut trial);
        }
        if known.scores.is_empty() {
            known.scores = trial.scores;
        }
    }
}

/// How far a trial came, to choose between two copies of one.
fn progress(status: &str) -> usize {
    let order = ["missing", "failed", "interrupted", "running", "diverged"];
    let place = order.iter().position(|s| *s == status);
    place.unwrap_or(order.len())
}
