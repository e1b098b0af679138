//! Which line of `metrics.jsonl` is which point of which curve.

use super::messages::{Summary, Value};
use crate::run::Line;

/// The points of a line, which share a step: epochs count from 1, updates from 0 as in `metrics.jsonl`.
///
/// A loss that is not finite is NaN; other numbers that are not finite or were not measured have no point. The end
/// of a run that diverged within an epoch, `epochs` of which have lines, is a training loss of NaN.
pub(super) fn points(line: &Line, epochs: usize) -> Option<(i64, Summary)> {
    let (step, values) = match line {
        Line::Step(line) => {
            let values = vec![
                loss("step/loss", Some(line.loss)),
                measured("step/accuracy", line.accuracy),
            ];
            (i64::try_from(line.step).unwrap_or(i64::MAX), values)
        }
        Line::Layer(line) => {
            let of = |name: &str, value| measured(&format!("layer {}/{name}", line.layer), value);
            let values = vec![
                of("gradient_cosine", line.gradient_cosine),
                of("gradient_norm_ratio", line.gradient_norm_ratio),
                of("feedback_cosine", line.feedback_cosine),
                of("weight_change", line.weight_change),
                of("kernel_drift", line.kernel_drift),
            ];
            (counted(line.epoch), values)
        }
        Line::Epoch(line) => {
            let values = vec![
                loss("train/loss", Some(line.train_loss)),
                measured("train/accuracy", line.train_accuracy),
                loss("eval/loss", line.eval_loss),
                measured("eval/accuracy", line.eval_accuracy),
                measured("seconds_per_epoch", Some(line.seconds)),
            ];
            (counted(line.epoch), values)
        }
        Line::End(line) => {
            let epoch = line.diverged_epoch.filter(|&epoch| epoch >= epochs)?;
            (counted(epoch), vec![loss("train/loss", Some(f64::NAN))])
        }
    };
    let values: Vec<Value> = values.into_iter().flatten().collect();
    (!values.is_empty()).then_some((step, Summary { values }))
}

/// An epoch, counted from 1.
fn counted(epoch: usize) -> i64 {
    i64::try_from(epoch + 1).unwrap_or(i64::MAX)
}

fn loss(tag: &str, value: Option<f64>) -> Option<Value> {
    let value = value?;
    let shown = if value.is_finite() { value } else { f64::NAN };
    Some(Value::scalar(tag.into(), shown))
}

fn measured(tag: &str, value: Option<f64>) -> Option<Value> {
    let value = value.filter(|value| value.is_finite())?;
    Some(Value::scalar(tag.into(), value))
}
