//! Trials that differ in seed only, as one point of a figure and one row of the summary.

use super::collect::Collection;
use super::trial::{Metric, Trial};
use crate::config::SECTIONS;
use crate::sweep::stats::{best_choice, mean_and_deviation};
use sansprop::rule::RULES;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Keys in which trials of one group may differ: the seed, and what changes no result.
const WITHIN: [&str; 15] = [
    "data.path",
    "train.rule",
    "train.seed",
    "network.width",
    "run.out",
    "run.threads",
    "run.device",
    "run.log_steps",
    "run.gradient_angle",
    "run.layer_drift",
    "run.tensorboard",
    "run.alignment",
    "run.alignment_every",
    "run.checkpoint_every",
    "run.checkpoint_minutes",
];

/// The key that is chosen over where nothing else is asked.
pub(crate) const LEARNING_RATE: &str = "train.lr";

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    /// Standard deviation; none for fewer than two seeds.
    pub(crate) deviation: Option<f64>,
    pub(crate) seeds: usize,
}

impl Mean {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let (mean, deviation) = mean_and_deviation(values)?;
        Some(Self {
            mean,
            deviation,
            seeds: values.len(),
        })
    }
}

/// Trials that differ in seed only.
pub(crate) struct Group<'a> {
    pub(crate) rule: String,
    /// Values of [`Groups::keys`]; none where a trial's config is not known or has no such key.
    pub(crate) values: Vec<Option<String>>,
    pub(crate) metric: Metric,
    pub(crate) trials: Vec<&'a Trial>,
    /// Best over epochs, of the trials that completed.
    pub(crate) best: Option<Mean>,
    pub(crate) seconds: Option<Mean>,
    /// Whether no other learning rate is better where all other keys agree.
    pub(crate) chosen: bool,
}

/// All groups, and the keys that tell them apart beside the rule.
pub(crate) struct Groups<'a> {
    /// Dotted; the data set first where there are several, then the width.
    pub(crate) keys: Vec<String>,
    /// By data set, then by rule in the order of the rules' table, then by values.
    pub(crate) groups: Vec<Group<'a>>,
}

impl<'a> Groups<'a> {
    /// Groups what was found.
    pub(crate) fn new(collection: &'a Collection) -> Self {
        let trials = &collection.trials;
        let mut keys = varying(trials);
        // Behind the data set, if there are several.
        let place = keys.iter().take_while(|k| *k == "data.name").count();
        keys.insert(place, "network.width".into());
        let mut places: HashMap<(String, Vec<Option<String>>), Vec<&Trial>> = HashMap::new();
        for trial in trials {
            let rule = trial.rule().unwrap_or("unknown").to_owned();
            let values = keys.iter().map(|key| trial.value(key)).collect();
            places.entry((rule, values)).or_default().push(trial);
        }
        let mut groups: Vec<Group<'a>> = places
            .into_iter()
            .map(|((rule, values), trials)| Group::new(rule, values, trials))
            .collect();
        let sets = keys.iter().position(|key| key == "data.name");
        groups.sort_by(|a, b| {
            let set = |group: &Group<'_>| sets.and_then(|i| group.values[i].clone());
            set(a).cmp(&set(b)).then_with(|| order(a, b))
        });
        let mut all = Self { keys, groups };
        all.choose();
        all
    }

    /// Marks the best learning rate of every combination of the other keys.
    fn choose(&mut self) {
        let lr = self.keys.iter().position(|key| key == LEARNING_RATE);
        let mut alike: BTreeMap<(String, Vec<Option<String>>), Vec<usize>> = BTreeMap::new();
        for (i, group) in self.groups.iter().enumerate() {
            let mut others = group.values.clone();
            if let Some(lr) = lr {
                others[lr] = None;
            }
            let key = (group.rule.clone(), others);
            alike.entry(key).or_default().push(i);
        }
        for places in alike.into_values() {
            let numbers = |&i: &usize| self.groups[i].numbers();
            let choices: Vec<Vec<f64>> = places.iter().map(numbers).collect();
            let more = self.groups[places[0]].metric.more();
            let best = best_choice(&choices, more).filter(|&best| !choices[best].is_empty());
            if let Some(best) = best {
                self.groups[places[best]].chosen = true;
            }
        }
    }

    /// Whether groups differ in a key.
    pub(crate) fn varies(&self, key: &str) -> bool {
        let place = self.keys.iter().position(|k| k == key);
        place.is_some_and(|i| {
            let values = self.groups.iter().filter_map(|g| g.values[i].as_ref());
            values.collect::<BTreeSet<_>>().len() > 1
        })
    }
}

impl<'a> Group<'a> {
    fn new(rule: String, values: Vec<Option<String>>, trials: Vec<&'a Trial>) -> Self {
        let mut group = Self {
            rule,
            values,
            metric: trials[0].metric(),
            trials,
            best: None,
            seconds: None,
            chosen: false,
        };
        let seconds = group.trials.iter().filter_map(|t| t.seconds_per_epoch());
        group.seconds = Mean::of(&seconds.collect::<Vec<_>>());
        group.best = Mean::of(&group.numbers());
        group
    }

    fn numbers(&self) -> Vec<f64> {
        self.trials.iter().filter_map(|t| t.best()).collect()
    }

    /// `2 diverged, 1 missing`; nothing where everything completed.
    pub(crate) fn troubles(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for trial in self.trials.iter().filter(|t| t.row.status != "completed") {
            *counts.entry(&trial.row.status).or_default() += 1;
        }
        let words: Vec<String> = counts.iter().map(|(s, n)| format!("{n} {s}")).collect();
        words.join(", ")
    }
}

/// Keys in which trials on the same data set differ, and the data set itself. What differs only because data sets
/// have defaults of their own says nothing that the data set's name does not.
fn varying(trials: &[Trial]) -> Vec<String> {
    let configs = || trials.iter().filter_map(|t| t.config.as_ref());
    let keys = SECTIONS.iter().flat_map(|(section, keys)| {
        let dotted = move |key: &&str| format!("{section}.{key}");
        keys.iter().map(dotted)
    });
    let differs = |key: &String| {
        let mut values: HashMap<&str, BTreeSet<Option<String>>> = HashMap::new();
        for config in configs() {
            // All data sets are one where it is the data set's name that may differ.
            let set = if key == "data.name" {
                ""
            } else {
                &config.data.name
            };
            values.entry(set).or_default().insert(config.value(key));
        }
        values.values().any(|values| values.len() > 1)
    };
    keys.filter(|key| !WITHIN.contains(&key.as_str()) && differs(key))
        .collect()
}

/// By rule, then value by value, numbers by size.
fn order(a: &Group<'_>, b: &Group<'_>) -> Ordering {
    let place = |group: &Group<'_>| {
        let place = RULES.iter().position(|rule| rule.name == group.rule);
        place.unwrap_or(RULES.len())
    };
    let number = |value: &Option<String>| value.as_ref().and_then(|v| v.parse::<f64>().ok());
    let by_value = |(a, b): (&Option<String>, &Option<String>)| match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    };
    let values = a.values.iter().zip(&b.values).map(by_value);
    let values = values.fold(Ordering::Equal, Ordering::then);
    place(a)
        .cmp(&place(b))
        .then(a.rule.cmp(&b.rule))
        .then(values)
}
