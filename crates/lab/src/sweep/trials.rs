//! From a sweep file to trials with ids, and to the cohorts in which they are trained.

use super::file::SweepFile;
use crate::config::{Config, Plan, PlanError, SetData};
use crate::data::DataError;
use std::collections::{HashMap, HashSet};

/// Trials that train in lockstep at most: their weights and moments are in memory together, and workers cannot
/// share what one of them has begun.
const LARGEST_COHORT: usize = 32;

/// One trial of a sweep.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its folder's name, from a hash of everything that may change a result.
    pub id: String,
    /// Its resolved config.
    pub config: Config,
    /// Weights and biases of its network.
    pub parameters: usize,
}

/// Data sets that are loaded once.
pub struct DataSets {
    loaded: HashMap<String, SetData>,
    load: fn(&Config) -> Result<SetData, DataError>,
}

impl Default for DataSets {
    fn default() -> Self {
        Self::from(SetData::load)
    }
}

impl DataSets {
    /// Sets that come from `load` instead of from files.
    pub(crate) fn from(load: fn(&Config) -> Result<SetData, DataError>) -> Self {
        Self {
            loaded: HashMap::new(),
            load,
        }
    }

    /// The set that a config names.
    ///
    /// # Errors
    /// Missing or damaged data.
    pub fn of(&mut self, config: &Config) -> Result<SetData, PlanError> {
        let data = &config.data;
        // Sequences that are made, not read, follow from the seed.
        let made = data.add_task.as_ref().map(|task| (task, config.train.seed));
        let key = format!("{:?}", (&data.name, &data.path, config.network.kind, made));
        if let Some(data) = self.loaded.get(&key) {
            return Ok(data.clone());
        }
        let data = (self.load)(config)?;
        self.loaded.insert(key, data.clone());
        Ok(data)
    }
}

/// Resolves every config on its data; what is the same trial twice comes once.
///
/// # Errors
/// Missing or damaged data; a config that cannot run on it.
pub fn trials(file: &SweepFile, sets: &mut DataSets) -> Result<Vec<Trial>, PlanError> {
    let mut seen = HashSet::new();
    let mut trials = Vec::new();
    for config in &file.configs {
        let plan = Plan::with_data(config.clone(), sets.of(config)?)?;
        let id = plan.config.run_name();
        if seen.insert(id.clone()) {
            trials.push(Trial {
                id,
                parameters: plan.model.parameters(),
                config: plan.config,
            });
        }
    }
    Ok(trials)
}

/// Indices of trials that share all but rule and optimiser, in order of appearance.
pub fn cohorts(trials: &[Trial]) -> Vec<Vec<usize>> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut cohorts: Vec<Vec<usize>> = Vec::new();
    for (i, trial) in trials.iter().enumerate() {
        let place = *places.entry(trial.config.shared()).or_insert_with(|| {
            cohorts.push(Vec::new());
            cohorts.len() - 1
        });
        cohorts[place].push(i);
    }
    let pieces = |cohort: &Vec<usize>| -> Vec<Vec<usize>> {
        let count = cohort.len().div_ceil(LARGEST_COHORT);
        let chunks = cohort.chunks(cohort.len().div_ceil(count));
        chunks.map(<[usize]>::to_vec).collect()
    };
    cohorts.iter().flat_map(pieces).collect()
}

/// One of several parts of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Counted from 1.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("write it as i/n with i from 1 to n, for example 2/4".into()),
        }
    }
}

impl Shard {
    /// This part's share: whole cohorts where there are enough of them, else single trials. It depends on the
    /// sweep alone, never on what is done, so that the parts of all machines fit together.
    pub fn share(self, cohorts: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
        let mine = |i: usize| i % self.of == self.index - 1;
        if cohorts.len() >= self.of {
            let cohorts = cohorts.into_iter().enumerate();
            return cohorts.filter(|(i, _)| mine(*i)).map(|(_, c)| c).collect();
        }
        let mut count = 0;
        let mut part = |cohort: Vec<usize>| -> Vec<usize> {
            let mut counted = |_: &usize| {
                count += 1;
                mine(count - 1)
            };
            cohort.into_iter().filter(&mut counted).collect()
        };
        let parts = cohorts.into_iter().map(&mut part);
        parts.filter(|cohort| !cohort.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: every trial in exactly one part.
    #[test]
    fn shards_cover_everything_once() {
        for cohorts in [
            vec![vec![0, 1, 2, 3, 4, 5, 6]],
            vec![vec![0], vec![1, 2], vec![3], vec![4, 5, 6]],
        ] {
            for of in 1..5 {
                let parts = (1..=of).flat_map(|index| Shard { index, of }.share(cohorts.clone()));
                let mut all: Vec<usize> = parts.flatten().collect();
                all.sort_unstable();
                assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
            }
        }
        assert!("0/2".parse::<Shard>().is_err() && "3/2".parse::<Shard>().is_err());
        assert_eq!("2/2".parse(), Ok(Shard { index: 2, of: 2 }));
    }
}
