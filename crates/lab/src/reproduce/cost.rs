//! What each experiment costs at full size, without its data: from the official sizes of the sets, and from the
//! speed of a few steps on this machine.

use super::experiment::Experiment;
use crate::cli::Failure;
use crate::config::{Config, Plan, SetData};
use crate::data::{DataError, DataSet, official_shape};
use crate::sweep::trials::{DataSets, trials};
use crate::sweep::{Speeds, cohort_flops};
use sansprop::images::{Images, Pixels};
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
pub(crate) struct Estimator {
    sets: DataSets,
    speeds: Speeds,
}

impl Estimator {
    /// One that has measured nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            sets: DataSets::from(stand_in),
            speeds: Speeds::default(),
        }
    }

    /// What an experiment costs.
    ///
    /// # Errors
    /// A config that cannot run.
    pub(crate) fn cost(&mut self, experiment: &Experiment) -> Result<Cost, Failure> {
        let trials = trials(&experiment.sweep()?, &mut self.sets)?;
        let mut cost = Cost {
            trials: trials.len(),
            flops: 0.0,
            seconds: 0.0,
        };
        for cohort in experiment.cohorts(&trials) {
            let first = trials[cohort[0]].config.clone();
            let data = self.sets.of(&first)?;
            let plan = Plan::with_data(first, data)?;
            let specs: Vec<_> = cohort.iter().map(|&i| trials[i].config.trial()).collect();
            let flops = cohort_flops(&plan, &specs)?;
            cost.flops += flops;
            cost.seconds += flops / self.speeds.of(&plan, 0)?;
        }
        Ok(cost)
    }
}

/// Black images in the official number; sequences as they are made.
fn stand_in(config: &Config) -> Result<SetData, DataError> {
    let Some((shape, classes, count)) = official_shape(&config.data.name) else {
        return SetData::load(config);
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
        train: images.expect("as many labels as images, each below the classes"),
        test: None,
    })))
}
