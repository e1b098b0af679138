//! One trial as a report sees it.

use crate::align;
use crate::config::{Config, Kind};
use crate::run::{Curve, Environment};
use crate::sweep::Row;
use sansprop::rule::RULES;
use std::path::PathBuf;

/// A trial: what it was asked, how it went, and where that is written.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// Name of its folder, or for one that moved the name that its config gives.
    pub(crate) id: String,
    /// Its folder, which a missing trial does not have.
    pub(crate) folder: PathBuf,
    /// None where there is no config, or none that can be read.
    pub(crate) config: Option<Config>,
    pub(crate) environment: Option<Environment>,
    pub(crate) row: Row,
    pub(crate) curve: Curve,
    /// Alignment scores, in the order in which they were taken.
    pub(crate) scores: Vec<align::Row>,
}

/// What the best of a trial over epochs is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Best share of hits on the evaluated samples.
    Accuracy,
    /// Best loss on them, for sequences.
    Loss,
}

impl Metric {
    /// The name that `select` uses.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "eval_accuracy",
            Self::Loss => "eval_loss",
        }
    }

    /// Whether more is better.
    pub(crate) fn more(self) -> bool {
        self == Self::Accuracy
    }
}

impl Trial {
    /// The rule; of a trial without a config the one that its name tells.
    pub(crate) fn rule(&self) -> Option<&str> {
        match &self.config {
            Some(config) => Some(&config.train.rule),
            None => parts(&self.id).map(|(_, _, rule)| rule),
        }
    }

    /// The value of a dotted key; of a trial without a config as far as its name tells.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        match (&self.config, key) {
            (Some(config), _) => config.value(key),
            (None, "data.name") => parts(&self.id).map(|(data, _, _)| data.into()),
            (None, "network.width") => parts(&self.id).map(|(_, width, _)| width.into()),
            (None, _) => None,
        }
    }

    pub(crate) fn metric(&self) -> Metric {
        let recurrent = |config: &Config| config.network.kind == Kind::Recurrent;
        let sequences = match &self.config {
            Some(config) => recurrent(config),
            None => self.id.contains("-recurrent-"),
        };
        match sequences {
            true => Metric::Loss,
            false => Metric::Accuracy,
        }
    }

    /// The best over epochs, if the trial completed.
    pub(crate) fn best(&self) -> Option<f64> {
        let best = self.row.metric(self.metric().name());
        best.filter(|value| value.is_finite() && self.config.is_some())
    }

    /// Mean seconds of an epoch; none for a diverged trial, whose last epoch is cut short.
    pub(crate) fn seconds_per_epoch(&self) -> Option<f64> {
        if self.row.status == "diverged" {
            return None;
        }
        let seconds: Vec<f64> = self.curve.points.iter().filter_map(|p| p.seconds).collect();
        crate::sweep::stats::mean_and_deviation(&seconds).map(|(mean, _)| mean)
    }

    /// What to say of a trial that did not complete.
    pub(crate) fn message(&self) -> String {
        let outcome = &self.row.outcome;
        match (&outcome.message, outcome.diverged_epoch, &self.row.worker) {
            (Some(message), _, _) => message.clone(),
            (None, Some(epoch), _) => format!("loss not finite in epoch {}", epoch + 1),
            (None, None, Some(worker)) => format!("trained by {worker}"),
            (None, None, None) if self.row.status == "interrupted" => {
                let epochs = self.curve.points.len();
                format!("{epochs} epochs done; `train --resume` or the same `sweep` goes on")
            }
            (None, None, None) => String::new(),
        }
    }
}

/// Data set, width and rule from a run's name, `DATA-KIND-wWIDTH-RULE-HASH`.
fn parts(id: &str) -> Option<(&str, &str, &str)> {
    let (rest, _) = id.rsplit_once('-')?;
    let ends = |name: &str| {
        let before = rest.strip_suffix(name)?.strip_suffix('-')?;
        Some(&rest[before.len() + 1..])
    };
    // `ada` must not pass for `align-ada`: the longest name counts.
    let rules = RULES.iter().filter_map(|rule| ends(rule.name));
    let rule = rules.max_by_key(|name| name.len())?;
    let rest = &rest[..rest.len() - rule.len() - 1];
    let (rest, width) = rest.rsplit_once("-w")?;
    let (data, _) = rest.rsplit_once('-')?;
    let numeric = width.parse::<usize>().is_ok();
    numeric.then_some((data, width, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: names as `Config::run_name` writes them.
    #[test]
    fn names_tell_data_width_and_rule() {
        assert_eq!(
            parts("cifar-10-conv-w64-last-layer-0123456789ab"),
            Some(("cifar-10", "64", "last-layer"))
        );
        let add = parts("add-task-recurrent-w8-dfa-0123456789ab");
        assert_eq!(add, Some(("add-task", "8", "dfa")));
        for id in ["grid", "digits-conv-w4-unknown-0123", "a-wx-fa-01"] {
            assert_eq!(parts(id), None, "{id}");
        }
    }
}
