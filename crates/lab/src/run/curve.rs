//! The epochs of a `metrics.jsonl`, read back.

use super::RunError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// One epoch's numbers; what was not finite or not evaluated is none.
#[derive(Clone, Debug, PartialEq)]
pub struct CurvePoint {
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Training loss.
    pub train_loss: Option<f64>,
    /// Share of hits in training.
    pub train_accuracy: Option<f64>,
    /// Loss on the evaluated samples.
    pub eval_loss: Option<f64>,
    /// Share of hits on them.
    pub eval_accuracy: Option<f64>,
    /// Seconds of the epoch.
    pub seconds: Option<f64>,
}

/// All epochs of a trial so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// In order; an epoch that was trained again after a crash comes once, as it was last.
    pub points: Vec<CurvePoint>,
    /// Lines that are no metrics. The last line does not count: it may be half written.
    pub torn: usize,
}

/// A line of metrics.jsonl, as far as curves need it.
#[derive(Deserialize)]
struct Line {
    event: String,
    epoch: Option<usize>,
    train_loss: Option<f64>,
    train_accuracy: Option<f64>,
    eval_loss: Option<f64>,
    eval_accuracy: Option<f64>,
    seconds: Option<f64>,
}

impl Curve {
    /// Reads a run folder's `metrics.jsonl`; nothing where there is none: the trial has not begun.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join("metrics.jsonl");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(RunError::Read { path, source }),
        }
    }

    fn parse(text: &str) -> Self {
        let mut points = BTreeMap::new();
        let mut torn = 0;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Ok(line) = serde_json::from_str::<Line>(line) else {
                torn += usize::from(lines.peek().is_some());
                continue;
            };
            if let (true, Some(epoch)) = (line.event == "epoch", line.epoch) {
                let point = CurvePoint {
                    epoch,
                    train_loss: line.train_loss,
                    train_accuracy: line.train_accuracy,
                    eval_loss: line.eval_loss,
                    eval_accuracy: line.eval_accuracy,
                    seconds: line.seconds,
                };
                points.insert(epoch, point);
            }
        }
        Self {
            points: points.into_values().collect(),
            torn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: lines counted by hand.
    #[test]
    fn torn_lines_are_counted_but_not_the_last() {
        let text = "{\"event\":\"epoch\",\"epoch\":0,\"train_loss\":null,\"seconds\":2.5}\n{\"ev\n\
            {\"event\":\"step\",\"epoch\":1,\"loss\":3}\n{\"event\":\"epoch\",\"epoch\":0,\"train_loss\":1.5}\n{\"eve";
        let curve = Curve::parse(text);
        assert_eq!(curve.torn, 1);
        assert_eq!(curve.points.len(), 1);
        assert_eq!(curve.points[0].train_loss, Some(1.5));
    }
}
