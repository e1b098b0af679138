//! Means over a group's seeds along epochs and layers, short enough for a page.

use super::group::{Group, Mean};
use super::trial::Trial;
use crate::align;
use crate::run::CurvePoint;
use serde::Serialize;
use std::collections::BTreeMap;

/// Points of a curve at most.
const LONGEST: usize = 400;

/// A group's mean curve, one entry an epoch.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct MeanCurve {
    /// Epochs, counted from 1.
    pub(crate) epoch: Vec<usize>,
    pub(crate) train_loss: Vec<Option<f64>>,
    pub(crate) eval_loss: Vec<Option<f64>>,
    pub(crate) train_accuracy: Vec<Option<f64>>,
    pub(crate) eval_accuracy: Vec<Option<f64>>,
    /// Trials that the curve is the mean of.
    pub(crate) seeds: usize,
}

/// A mean score of one layer at one time.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct MeanScore {
    /// Epoch, counted from 1.
    pub(crate) epoch: usize,
    /// Layer, counted from 1.
    pub(crate) layer: usize,
    pub(crate) score: f64,
    pub(crate) deviation: Option<f64>,
    pub(crate) permuted: Option<f64>,
    pub(crate) seeds: usize,
}

/// The mean over completed trials, or over all that have epochs where none completed; thinned to [`LONGEST`].
pub(crate) fn mean_curve(group: &Group<'_>) -> Option<MeanCurve> {
    let trials = counted(group, |t| !t.curve.points.is_empty());
    let mut epochs: BTreeMap<usize, Vec<&CurvePoint>> = BTreeMap::new();
    for point in trials.iter().flat_map(|t| &t.curve.points) {
        epochs.entry(point.epoch).or_default().push(point);
    }
    let epochs: Vec<(usize, Vec<&CurvePoint>)> = epochs.into_iter().collect();
    let mut curve = MeanCurve {
        seeds: trials.len(),
        ..MeanCurve::default()
    };
    for place in thinned(epochs.len()) {
        let (epoch, points) = &epochs[place];
        let mean =
            |value: fn(&CurvePoint) -> Option<f64>| finite_mean(points.iter().map(|p| value(p)));
        curve.epoch.push(epoch + 1);
        curve.train_loss.push(mean(|p| p.train_loss));
        curve.eval_loss.push(mean(|p| p.eval_loss));
        curve.train_accuracy.push(mean(|p| p.train_accuracy));
        curve.eval_accuracy.push(mean(|p| p.eval_accuracy));
    }
    (!curve.epoch.is_empty()).then_some(curve)
}

/// Mean scores of a group, by epoch and layer.
pub(crate) fn group_scores(group: &Group<'_>) -> Vec<MeanScore> {
    let trials = counted(group, |t| !t.scores.is_empty());
    let rows: Vec<&[align::Row]> = trials.iter().map(|t| t.scores.as_slice()).collect();
    mean_scores(&rows)
}

/// Mean scores of several trials. Of scores taken in one epoch the last count; epochs are thinned.
pub(crate) fn mean_scores(trials: &[&[align::Row]]) -> Vec<MeanScore> {
    let mut places: BTreeMap<(usize, usize), Vec<&align::Row>> = BTreeMap::new();
    for rows in trials {
        let last: BTreeMap<_, _> = rows.iter().map(|r| ((r.epoch, r.layer), r)).collect();
        for (place, row) in last {
            places.entry(place).or_default().push(row);
        }
    }
    let mut epochs: Vec<usize> = places.keys().map(|(epoch, _)| *epoch).collect();
    epochs.dedup();
    let kept: Vec<usize> = thinned(epochs.len()).map(|i| epochs[i]).collect();
    let mean = |((epoch, layer), rows): ((usize, usize), Vec<&align::Row>)| {
        let finite: Vec<f64> = rows
            .iter()
            .map(|r| r.score)
            .filter(|s| s.is_finite())
            .collect();
        let Mean {
            mean,
            deviation,
            seeds,
        } = Mean::of(&finite)?;
        Some(MeanScore {
            epoch: epoch + 1,
            layer,
            score: rounded(mean),
            deviation: deviation.map(rounded),
            permuted: finite_mean(rows.iter().map(|r| Some(r.score_permuted))),
            seeds,
        })
    };
    let places = places.into_iter();
    let places = places.filter(|((epoch, _), _)| kept.binary_search(epoch).is_ok());
    places.filter_map(mean).collect()
}

/// The trials with something to show that completed; all of them where none did.
fn counted<'a>(group: &Group<'a>, shows: impl Fn(&Trial) -> bool) -> Vec<&'a Trial> {
    let all: Vec<&Trial> = group.trials.iter().copied().filter(|t| shows(t)).collect();
    let completed = all.iter().copied().filter(|t| t.row.status == "completed");
    let completed: Vec<&Trial> = completed.collect();
    if completed.is_empty() { all } else { completed }
}

fn finite_mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let finite: Vec<f64> = values.flatten().filter(|v| v.is_finite()).collect();
    Mean::of(&finite).map(|m| rounded(m.mean))
}

/// Places of at most [`LONGEST`] of `length` points, evenly spread, the first and the last among them.
fn thinned(length: usize) -> impl Iterator<Item = usize> {
    let count = length.min(LONGEST);
    let steps = count.saturating_sub(1).max(1);
    (0..count).map(move |i| (i * (length - 1) + steps / 2) / steps)
}

/// Six digits: more than a figure shows.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: the ends, the length, and strictly rising places.
    #[test]
    fn thinning_keeps_the_ends() {
        for length in [0, 1, 2, 399, 400, 401, 799, 5000] {
            let places: Vec<usize> = thinned(length).collect();
            assert_eq!(places.len(), length.min(LONGEST));
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{length}");
            if length > 0 {
                assert_eq!((places[0], places[places.len() - 1]), (0, length - 1));
            }
        }
        assert_eq!(rounded(0.123_456_789), 0.123_457);
        assert!(rounded(f64::NAN).is_nan());
    }
}
