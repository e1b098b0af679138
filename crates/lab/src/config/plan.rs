//! From a config and its data to everything that a run needs.

use super::schema::{self, Config, Evaluate, Kind, Variant};
use crate::data::{self, DataError, DataSet, SequenceSet};
use crate::device::Device;
use sansprop::cohort::TrialSpec;
use sansprop::model::Model;
use sansprop::network::{Architecture, Network, NetworkError, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::protocol::{Samples, Split, SplitError, minibatch_size};
use sansprop::recurrent::RecurrentNetwork;
use sansprop::rule::Rule;
use sansprop::sequences::AddVariant;
use sansprop::train::Schedule;
use sansprop_kernels::{Activation, Norm};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
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
    #[error("data.evaluate = \"test\": {0} has no test samples; use \"holdout\"")]
    NoTest(String),
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A loaded data set of either kind; cheap to clone.
#[derive(Clone, Debug)]
pub enum SetData {
    /// Labelled images.
    Images(Arc<DataSet>),
    /// Sequences with targets.
    Sequences(Arc<SequenceSet>),
}

impl SetData {
    /// Loads what a config asks for.
    ///
    /// # Errors
    /// Missing or damaged files; a set that does not suit the network's kind.
    pub fn load(config: &Config) -> Result<Self, DataError> {
        let path = config.data.path.as_deref().map(Path::new);
        let name = &config.data.name;
        if let Some(task) = &config.data.add_task {
            let variant = match task.variant {
                Variant::Published => AddVariant::Published,
                Variant::Causal => AddVariant::Causal,
            };
            let set = data::add_task_set(variant, task.steps, task.lags, config.train.seed)?;
            return Ok(Self::Sequences(Arc::new(set)));
        }
        Ok(match config.network.kind {
            Kind::Recurrent => Self::Sequences(Arc::new(data::load_sequences(name, path)?)),
            Kind::Conv | Kind::Dense => Self::Images(Arc::new(data::load(name, path)?)),
        })
    }

    /// The files it came from.
    pub fn source(&self) -> &str {
        match self {
            Self::Images(set) => &set.source,
            Self::Sequences(set) => &set.source,
        }
    }

    fn train(&self) -> Samples<'_> {
        match self {
            Self::Images(set) => Samples::Images(&set.train),
            Self::Sequences(set) => Samples::Sequences(&set.train),
        }
    }

    fn test(&self) -> Option<Samples<'_>> {
        match self {
            Self::Images(set) => set.test.as_ref().map(Samples::Images),
            Self::Sequences(set) => set.test.as_ref().map(Samples::Sequences),
        }
    }
}

/// A config whose data is loaded and whose every value is decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The resolved config: counts of samples and the minibatch size are those used.
    pub config: Config,
    /// The network.
    pub model: Model,
    /// The data.
    pub data: SetData,
}

impl Plan {
    /// Loads the data and works out counts, minibatch size and layers.
    ///
    /// # Errors
    /// Missing or damaged data; more samples asked for than there are; an impossible network.
    pub fn new(config: Config) -> Result<Self, PlanError> {
        let data = SetData::load(&config)?;
        Self::with_data(config, data)
    }

    /// As [`new`](Self::new) with data that is already loaded.
    ///
    /// # Errors
    /// As for [`new`](Self::new), without those of loading.
    pub fn with_data(mut config: Config, data: SetData) -> Result<Self, PlanError> {
        let samples = data.train().len();
        if config.data.evaluate == Evaluate::Holdout {
            config.data.holdout.get_or_insert((samples / 10).max(1));
        }
        let asked = config.data.train_points;
        let points = split(&config, &data)?.train.samples.len();
        let all = {
            let mut whole = config.clone();
            whole.data.train_points = 0;
            split(&whole, &data)?.train.samples.len()
        };
        config.data.train_points = points;
        config.train.batch = minibatch_size(config.train.batch, points, asked > 0 && points < all);
        Ok(Self {
            model: model(&config, &data)?,
            config,
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

    /// Losses of always answering ½ on the training and the evaluated sequences; none for images.
    pub fn chance_losses(&self) -> Option<(f64, f64)> {
        let split = self.split().ok()?;
        let loss = |part: &sansprop::protocol::Part<'_>| match part.set {
            Samples::Images(_) => None,
            Samples::Sequences(set) => Some(set.chance_loss(part.samples.clone())),
        };
        Some((loss(&split.train)?, loss(&split.evaluation)?))
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

    /// Updates of one epoch; an incomplete last minibatch is dropped.
    pub fn steps_per_epoch(&self) -> usize {
        self.config.data.train_points / self.config.train.batch
    }

    /// Updates of the whole run.
    pub fn total_steps(&self) -> u64 {
        let all = (self.steps_per_epoch() * self.config.train.epochs) as u64;
        match self.config.train.max_steps {
            0 => all,
            limit => all.min(limit),
        }
    }

    /// The rule and optimiser of a trial that follows this plan, except for its rule.
    pub fn trial(&self, rule: Rule) -> TrialSpec {
        self.trial_config(rule).trial()
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
        let digest = Sha256::digest(self.relevant().to_toml());
        let mut hash = String::new();
        for byte in &digest[..6] {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        let kind = match self.network.kind {
            Kind::Conv => "conv",
            Kind::Dense => "dense",
            Kind::Recurrent => "recurrent",
        };
        format!(
            "{}-{kind}-w{}-{}-{hash}",
            self.data.name, self.network.width, self.train.rule
        )
    }

    /// The name that the run would have if alignment were not scored, which changes nothing that is trained.
    pub fn training_name(&self) -> String {
        let mut config = self.clone();
        (config.run.alignment, config.run.alignment_every) = (false, 0);
        config.run_name()
    }

    /// The rule and optimiser of this config's trial.
    ///
    /// # Panics
    /// If the rule does not exist; configs are checked when they are read.
    pub fn trial(&self) -> TrialSpec {
        let lr = self.train.lr;
        TrialSpec {
            rule: Rule::named(&self.train.rule).expect("the config was checked"),
            optimizer: match self.train.optimizer {
                schema::Optimizer::Sgd => Optimizer::Sgd { lr },
                schema::Optimizer::Adam => Optimizer::Adam { lr },
            },
        }
    }

    /// What to call this trial among others of its cohort: rule and width, and what else differs.
    pub(crate) fn label<'a>(&self, others: impl Iterator<Item = &'a Self> + Clone) -> String {
        let (rule, width) = (&self.train.rule, self.network.width);
        let mut name = format!("{rule} w{width}");
        if others.clone().any(|c| c.train.lr != self.train.lr) {
            let _ = write!(name, " lr {}", self.train.lr);
        }
        if others
            .clone()
            .any(|c| c.train.optimizer != self.train.optimizer)
        {
            let _ = write!(name, " {}", self.trial().optimizer.name());
        }
        name
    }

    /// This config without what cannot change a result.
    fn relevant(&self) -> Self {
        let mut config = self.clone();
        config.data.path = None;
        config.run.out = String::new();
        config.run.threads = 0;
        config.run.device = Device::Cpu;
        (config.run.gradient_angle, config.run.layer_drift) = (false, false);
        config.run.tensorboard = false;
        config.run.checkpoint_every = 0;
        config.run.checkpoint_minutes = 0.0;
        config
    }

    /// What trials of one cohort have in common: all that may change a result, but rule and optimiser.
    pub fn shared(&self) -> String {
        let mut config = self.relevant();
        config.data.path.clone_from(&self.data.path);
        // These are asked of a whole cohort.
        config.run.gradient_angle = self.run.gradient_angle;
        config.run.layer_drift = self.run.layer_drift;
        config.train.rule = String::new();
        config.train.lr = 0.0;
        config.train.optimizer = schema::Optimizer::Sgd;
        config.to_toml()
    }

    /// The value of a dotted key as text; none where this config has no such key.
    pub fn value(&self, key: &str) -> Option<String> {
        let (section, name) = key.split_once('.')?;
        let table = toml::Table::try_from(self).expect("a config is a table of tables");
        Some(match table.get(section)?.get(name)? {
            toml::Value::String(text) => text.clone(),
            // `1.0` reads `1`, as it is written by whoever means the number.
            toml::Value::Float(number) => number.to_string(),
            other => other.to_string(),
        })
    }

    /// The first key that may change a result and in which `other` differs.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let table = |config: &Self| {
            toml::Table::try_from(config.relevant()).expect("a config is a table of tables")
        };
        let (ours, theirs) = (table(self), table(other));
        ours.iter().find_map(|(section, keys)| {
            let theirs = theirs.get(section)?.as_table()?;
            let ours = keys.as_table()?;
            let mut keys = ours.keys().chain(theirs.keys());
            let differs = keys.find(|key| ours.get(*key) != theirs.get(*key))?;
            Some(format!("{section}.{differs}"))
        })
    }

    /// The config as a TOML file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a config holds only strings, numbers and lists")
    }
}

fn split<'a>(config: &Config, data: &'a SetData) -> Result<Split<'a>, PlanError> {
    let points = Some(config.data.train_points).filter(|&n| n > 0);
    let train = data.train();
    let split = match config.data.evaluate {
        Evaluate::Holdout => {
            // The held-out part shrinks with a small training part only.
            let holdout = config.data.holdout.unwrap_or(0);
            let available = train.len().saturating_sub(holdout);
            Split::held_out(train, holdout, points.filter(|&n| n != available))
        }
        Evaluate::Test => {
            let test = data.test();
            let test = test.ok_or_else(|| PlanError::NoTest(config.data.name.clone()))?;
            Split::test(train, test, points)
        }
    };
    split.map_err(|error| PlanError::Split {
        set: config.data.name.clone(),
        error,
    })
}

fn model(config: &Config, data: &SetData) -> Result<Model, PlanError> {
    let network = &config.network;
    Ok(match data {
        SetData::Images(set) => Network::new(network_spec(config, set))?.into(),
        SetData::Sequences(set) => RecurrentNetwork::new(
            network.width,
            set.train.steps(),
            config.train.batch,
            activation(network.activation),
            parameterization(network.parameterization),
        )
        .into(),
    })
}

fn activation(activation: schema::Activation) -> Activation {
    match activation {
        schema::Activation::Relu => Activation::Relu,
        schema::Activation::Tanh => Activation::Tanh,
        schema::Activation::Erf => Activation::Erf,
        schema::Activation::Linear => Activation::Linear,
    }
}

fn parameterization(parameterization: schema::Parameterization) -> Parameterization {
    match parameterization {
        schema::Parameterization::Ntk => Parameterization::Ntk,
        schema::Parameterization::Standard => Parameterization::Standard,
    }
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
            // Images never meet a recurrent network: the config was checked.
            Kind::Dense | Kind::Recurrent => Architecture::Dense {
                depth: network.depth.unwrap_or_default(),
            },
        },
        width: network.width,
        activation: activation(network.activation),
        norm: match network.norm {
            schema::Norm::Location => Norm::Location,
            schema::Norm::Channel => Norm::Channel,
            schema::Norm::None => Norm::None,
        },
        parameterization: parameterization(network.parameterization),
    }
}
