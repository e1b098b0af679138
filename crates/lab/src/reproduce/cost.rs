//! What each experiment costs at full size, without its data: from the official sizes of the sets, and from the
//! speed of a few steps on this machine.

use super::experiment::Experiment;
use crate::cli::Failure;
use crate::config::{Config, Plan, SetData};
use crate::data::{DataSet, official_shape};
use crate::sweep::trials::{Trial, cohorts};
use crate::sweep::{Speeds, cohort_flops};
use sansprop::images::{Images, Pixels};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What an experiment costs.
pub(crate) struct Cost {
    /// Trials.
    pub(crate) trials: usize,
    /// Floating point operations of all of them.
    pub(crate) flops: f64,
    /// Seconds at the measured speeds.
    pub(crate) seconds: f64,
}

/// Works out costs, and remembers the speeds that it measured.
#[derive(Default)]
pub(crate) struct Estimator {
    sets: HashMap<String, SetData>,
    speeds: Speeds,
}

impl Estimator {
    /// What an experiment costs.
    ///
    /// # Errors
    /// A config that cannot run.
    pub(crate) fn cost(&mut self, experiment: &Experiment) -> Result<Cost, Failure> {
        let mut seen = HashSet::new();
        let mut trials = Vec::new();
        for config in experiment.sweep()?.configs {
            let plan = self.plan(config)?;
            let id = plan.config.run_name();
            if seen.insert(id.clone()) {
                trials.push(Trial {
                    id,
                    parameters: plan.model.parameters(),
                    config: plan.config,
                });
            }
        }
        let cohorts = match experiment.alone {
            true => (0..trials.len()).map(|i| vec![i]).collect(),
            false => cohorts(&trials),
        };
        let mut cost = Cost {
            trials: trials.len(),
            flops: 0.0,
            seconds: 0.0,
        };
        for cohort in cohorts {
            let plan = self.plan(trials[cohort[0]].config.clone())?;
            let specs: Vec<_> = cohort.iter().map(|&i| trials[i].config.trial()).collect();
            let flops = cohort_flops(&plan, &specs)?;
            cost.flops += flops;
            cost.seconds += flops / self.speeds.of(&plan, 0)?;
        }
        Ok(cost)
    }

    /// The plan of a config on a set of the official size.
    fn plan(&mut self, config: Config) -> Result<Plan, Failure> {
        let made = config.data.add_task.as_ref().map(|_| config.train.seed);
        let key = format!("{} {made:?}", config.data.name);
        let data = match self.sets.get(&key) {
            Some(data) => data.clone(),
            None => {
                let data = stand_in(&config)?;
                self.sets.insert(key, data.clone());
                data
            }
        };
        Ok(Plan::with_data(config, data)?)
    }
}

/// Black images in the official number; sequences as they are made.
fn stand_in(config: &Config) -> Result<SetData, Failure> {
    let Some((shape, classes, count)) = official_shape(&config.data.name) else {
        return Ok(SetData::load(config)?);
    };
    let pixels = Pixels::Bytes {
        values: vec![0; count * shape.len()],
        divisor: 255.0,
    };
    let labels = (0..count as u32).map(|i| i % classes as u32).collect();
    let images = Images::new(shape, classes, pixels, labels);
    Ok(SetData::Images(Arc::new(DataSet {
        name: config.data.name.clone(),
        source: "black images".into(),
        train: images.map_err(|e| Failure::Failed(e.to_string()))?,
        test: None,
    })))
}
