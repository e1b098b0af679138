//! `events.out.tfevents.*`: what `metrics.jsonl` says, as TensorBoard reads it.
//!
//! The file is never read back: when a run is taken up again, it is made anew from the lines of `metrics.jsonl` that
//! are kept, and the old one is removed.

mod curves;
mod frame;
mod messages;
mod name;

use super::folder::write_whole_by;
use super::{Line, RunError, RunFolder};
use crate::config::Config;
use messages::{Event, FILE_VERSION, Summary, Value, What};
use name::Name;
use prost::Message;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// An open event file.
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
    epochs: usize,
}

impl EventFile {
    /// Writes the event file of what `metrics.jsonl` holds, to go on with it; none where none is asked for. The file
    /// is a new one, so that a process which still holds the old one open cannot write into it.
    ///
    /// # Errors
    /// The file cannot be written; `metrics.jsonl` cannot be read.
    pub fn open(folder: &RunFolder, config: &Config) -> Result<Option<Self>, RunError> {
        if !config.run.tensorboard {
            // One that is not continued would say less than the run has done.
            Self::remove(folder)?;
            return Ok(None);
        }
        let old = names(folder)?;
        let name = match old.first() {
            Some(name) => name.clone().resumed(),
            None => Name::new(now() as u32),
        };
        let lines = lines(folder)?;
        let path = folder.file(&name.to_string());
        let content = content(&lines, config, started(name.second, &lines));
        // A temporary file of the file's own name would be taken for an event file, too.
        write_whole_by(&folder.file("events"), &path, &content)?;
        old.iter()
            .try_for_each(|old| folder.remove(&old.to_string()))?;
        let epochs = lines.iter().rev().find_map(epochs).unwrap_or(0);
        match File::options().append(true).open(&path) {
            Ok(file) => Ok(Some(Self {
                path,
                file: BufWriter::new(file),
                epochs,
            })),
            Err(source) => Err(RunError::Write { path, source }),
        }
    }

    /// Removes a folder's event files.
    ///
    /// # Errors
    /// A file stays.
    pub fn remove(folder: &RunFolder) -> Result<(), RunError> {
        let names = names(folder)?;
        names
            .iter()
            .try_for_each(|name| folder.remove(&name.to_string()))
    }

    /// Adds a line's points; they may stay in memory until [`flush`](Self::flush).
    ///
    /// # Errors
    /// They cannot be written.
    pub fn add(&mut self, line: &Line) -> Result<(), RunError> {
        let record = record(line, self.epochs, now());
        self.epochs = epochs(line).unwrap_or(self.epochs);
        let result = self.file.write_all(&record);
        self.check(result)
    }

    /// Brings all points to the file.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn flush(&mut self) -> Result<(), RunError> {
        let result = self.file.flush();
        self.check(result)
    }

    fn check(&self, result: std::io::Result<()>) -> Result<(), RunError> {
        result.map_err(|source| RunError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// The event files in a folder, the one to go on with first.
fn names(folder: &RunFolder) -> Result<Vec<Name>, RunError> {
    let error = |source| RunError::Read {
        path: folder.path().into(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.path()).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        names.extend(Name::parse(&name.to_string_lossy()));
    }
    names.sort_by(|a, b| a.order().cmp(&b.order()));
    Ok(names)
}

/// What `metrics.jsonl` holds.
fn lines(folder: &RunFolder) -> Result<Vec<Line>, RunError> {
    let path = folder.file("metrics.jsonl");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(RunError::Read { path, source }),
    };
    let lines: Result<_, _> = text.lines().map(serde_json::from_str).collect();
    lines.map_err(|e| RunError::Damaged {
        path,
        message: e.to_string(),
    })
}

/// A file from its beginning. When the lines were written is not recorded: they count as written as if the run had
/// had the machine for itself since it started.
fn content(lines: &[Line], config: &Config, started: f64) -> Vec<u8> {
    let markdown: String = config
        .to_toml()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let text = Summary {
        values: vec![Value::text("config", markdown)],
    };
    let mut content = framed(started, 0, What::FileVersion(FILE_VERSION.into()));
    content.extend(framed(started, 0, What::Summary(text)));
    let (mut known, mut time) = (0, started);
    for line in lines {
        time += seconds(line);
        content.extend(record(line, known, time));
        known = epochs(line).unwrap_or(known);
    }
    content
}

/// The line's record; nothing for a line without points.
fn record(line: &Line, epochs: usize, time: f64) -> Vec<u8> {
    match curves::points(line, epochs) {
        Some((step, summary)) => framed(time, step, What::Summary(summary)),
        None => Vec::new(),
    }
}

fn framed(wall_time: f64, step: i64, what: What) -> Vec<u8> {
    let event = Event {
        wall_time,
        step,
        what: Some(what),
    };
    frame::framed(&event.encode_to_vec())
}

/// How many epochs have lines after this one, if it is an epoch's.
fn epochs(line: &Line) -> Option<usize> {
    match line {
        Line::Epoch(line) => Some(line.epoch + 1),
        Line::Step(_) | Line::Layer(_) | Line::End(_) => None,
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// When the run started, as the file's name says, but early enough that no line is from the future.
fn started(second: u32, lines: &[Line]) -> f64 {
    let trained: f64 = lines.iter().map(seconds).sum();
    f64::from(second).min(now() - trained)
}

/// How long the run went on until this line, since the last.
fn seconds(line: &Line) -> f64 {
    match line {
        Line::Epoch(line) => line.seconds,
        Line::Step(_) | Line::Layer(_) | Line::End(_) => 0.0,
    }
}
