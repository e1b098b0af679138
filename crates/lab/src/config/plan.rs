//! From a config and its data to everything that a run needs.

use super::schema::{self, Config, Evaluate, Kind};
use crate::data::{self, DataError, DataSet};
use sansprop::cohort::TrialSpec;
use sansprop::network::{Architecture, Network, NetworkError, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::protocol::{Split, SplitError, minibatch_size};
use sansprop::rule::Rule;
use sansprop::train::Schedule;
use sansprop_kernels::{Activation, Norm};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;
use thiserror::Error;

/// Why a config cannot run on its data.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The data set cannot be loaded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The samples cannot be divided as asked.
    #[error("data set {set}: {error}")]
    Split {
        /// Name of the set.
        set: String,
        /// Why.
        error: SplitError,
    },
    /// `evaluate = "test"` on a set without test images.
    #[error("data.evaluate = \"test\": {0} has no test images; use \"holdout\"")]
    NoTest(String),
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A config whose data is loaded and whose every value is decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The resolved config: counts of samples and the minibatch size are those used.
    pub config: Config,
    /// The network.
    pub network: Network,
    /// The data.
    pub data: DataSet,
}

impl Plan {
    /// Loads the data and works out counts, minibatch size and layers.
    ///
    /// # Errors
    /// Missing or damaged data; more samples asked for than there are; an impossible network.
    pub fn new(config: Config) -> Result<Self, PlanError> {
        let path = config.data.path.as_deref().map(Path::new);
        let data = data::load(&config.data.name, path)?;
        Self::with_data(config, data)
    }

    /// As [`new`](Self::new) with data that is already loaded.
    ///
    /// # Errors
    /// As for [`new`](Self::new), without those of loading.
    pub fn with_data(mut config: Config, data: DataSet) -> Result<Self, PlanError> {
        let samples = data.train.len();
        config.data.holdout.get_or_insert((samples / 10).max(1));
        let asked = config.data.train_points;
        let points = split(&config, &data)?.train.samples.len();
        let all = {
            let mut whole = config.clone();
            whole.data.train_points = 0;
            split(&whole, &data)?.train.samples.len()
        };
        config.data.train_points = points;
        config.train.batch = minibatch_size(config.train.batch, points, asked > 0 && points < all);
        let network = Network::new(network_spec(&config, &data))?;
        Ok(Self {
            config,
            network,
            data,
        })
    }

    /// The samples to train and to evaluate on.
    ///
    /// # Errors
    /// None once the plan is made.
    pub fn split(&self) -> Result<Split<'_>, PlanError> {
        split(&self.config, &self.data)
    }

    /// How long and in what portions to train.
    pub fn schedule(&self) -> Schedule {
        let (train, run) = (&self.config.train, &self.config.run);
        Schedule {
            batch: train.batch,
            epochs: train.epochs,
            max_steps: (train.max_steps > 0).then_some(train.max_steps),
            seed: train.seed,
            eval_every: run.eval_every,
        }
    }

    /// Updates of the whole run.
    pub fn total_steps(&self) -> u64 {
        let per_epoch = self.config.data.train_points / self.config.train.batch;
        let all = (per_epoch * self.config.train.epochs) as u64;
        match self.config.train.max_steps {
            0 => all,
            limit => all.min(limit),
        }
    }

    /// The rule and optimiser of a trial that follows this plan, except for its rule.
    pub fn trial(&self, rule: Rule) -> TrialSpec {
        let lr = self.config.train.lr;
        TrialSpec {
            rule,
            optimizer: match self.config.train.optimizer {
                schema::Optimizer::Sgd => Optimizer::Sgd { lr },
                schema::Optimizer::Adam => Optimizer::Adam { lr },
            },
        }
    }

    /// The resolved config of one trial.
    pub fn trial_config(&self, rule: Rule) -> Config {
        let mut config = self.config.clone();
        config.train.rule = rule.name.into();
        config
    }
}

impl Config {
    /// `data-kind-wWIDTH-rule-HASH`, where the hash is of everything that may change a result.
    pub fn run_name(&self) -> String {
        let mut relevant = self.clone();
        relevant.run.out = String::new();
        relevant.run.threads = 0;
        relevant.data.path = None;
        let digest = Sha256::digest(relevant.to_toml());
        let mut hash = String::new();
        for byte in &digest[..4] {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        let kind = match self.network.kind {
            Kind::Conv => "conv",
            Kind::Dense => "dense",
        };
        format!(
            "{}-{kind}-w{}-{}-{hash}",
            self.data.name, self.network.width, self.train.rule
        )
    }

    /// The config as a TOML file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a config holds only strings, numbers and lists")
    }
}

fn split<'a>(config: &Config, data: &'a DataSet) -> Result<Split<'a>, PlanError> {
    let points = Some(config.data.train_points).filter(|&n| n > 0);
    let split = match config.data.evaluate {
        Evaluate::Holdout => {
            // The held-out part shrinks with a small training part only.
            let holdout = config.data.holdout.unwrap_or(0);
            let available = data.train.len().saturating_sub(holdout);
            Split::held_out(&data.train, holdout, points.filter(|&n| n != available))
        }
        Evaluate::Test => {
            let test = data.test.as_ref();
            let test = test.ok_or_else(|| PlanError::NoTest(data.name.clone()))?;
            Split::test(&data.train, test, points)
        }
    };
    split.map_err(|error| PlanError::Split {
        set: data.name.clone(),
        error,
    })
}

fn network_spec(config: &Config, data: &DataSet) -> NetworkSpec {
    let network = &config.network;
    NetworkSpec {
        input: data.train.shape(),
        classes: data.train.classes(),
        architecture: match network.kind {
            Kind::Conv => Architecture::Conv {
                strides: network.strides.clone().unwrap_or_default(),
            },
            Kind::Dense => Architecture::Dense {
                depth: network.depth.unwrap_or_default(),
            },
        },
        width: network.width,
        activation: match network.activation {
            schema::Activation::Relu => Activation::Relu,
            schema::Activation::Tanh => Activation::Tanh,
            schema::Activation::Erf => Activation::Erf,
            schema::Activation::Linear => Activation::Linear,
        },
        norm: match network.norm {
            schema::Norm::Location => Norm::Location,
            schema::Norm::Channel => Norm::Channel,
            schema::Norm::None => Norm::None,
        },
        parameterization: match network.parameterization {
            schema::Parameterization::Ntk => Parameterization::Ntk,
            schema::Parameterization::Standard => Parameterization::Standard,
        },
    }
}
