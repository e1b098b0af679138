//! A config as written, where every key may be absent, and the defaults that complete it.

use super::schema::{
    Activation, AddTask, Config, Data, Evaluate, Kind, Network, Norm, Optimizer, Parameterization,
    Precision, Run, Train, Variant,
};
use crate::data::ADD_TASK;
use crate::device::Device;
use serde::Deserialize;

/// A config as written: every key may be absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    pub data: WrittenData,
    pub network: WrittenNetwork,
    pub train: WrittenTrain,
    pub run: WrittenRun,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenData {
    pub name: Option<String>,
    pub path: Option<String>,
    pub train_points: Option<usize>,
    pub holdout: Option<usize>,
    pub evaluate: Option<Evaluate>,
    pub variant: Option<Variant>,
    pub steps: Option<usize>,
    pub lags: Option<[usize; 2]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenNetwork {
    pub kind: Option<Kind>,
    pub width: Option<usize>,
    pub strides: Option<Vec<usize>>,
    pub depth: Option<usize>,
    pub activation: Option<Activation>,
    pub norm: Option<Norm>,
    pub parameterization: Option<Parameterization>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenTrain {
    pub rule: Option<String>,
    pub optimizer: Option<Optimizer>,
    pub lr: Option<f64>,
    pub batch: Option<usize>,
    pub epochs: Option<usize>,
    pub max_steps: Option<u64>,
    pub seed: Option<u32>,
    pub target_shift: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenRun {
    pub out: Option<String>,
    pub threads: Option<usize>,
    pub device: Option<Device>,
    pub precision: Option<Precision>,
    pub log_steps: Option<bool>,
    pub eval_every: Option<usize>,
    pub gradient_angle: Option<bool>,
    pub layer_drift: Option<bool>,
    pub tensorboard: Option<bool>,
    pub alignment: Option<bool>,
    pub alignment_every: Option<usize>,
    pub checkpoint_every: Option<usize>,
    pub checkpoint_minutes: Option<f64>,
}

/// What depends on the data set when a config does not say it.
struct SetDefaults {
    width: usize,
    strides: &'static [usize],
    epochs: usize,
    lr: f64,
    batch: usize,
    holdout: Option<usize>,
}

fn set_defaults(name: &str) -> SetDefaults {
    match name {
        "cifar-10" => SetDefaults {
            width: 64,
            strides: &[1, 1, 1, 2, 1, 2, 1],
            epochs: 150,
            lr: 1.0,
            batch: 100,
            holdout: Some(5000),
        },
        "kmnist" | "fashion-mnist" | "mnist" => SetDefaults {
            width: 64,
            strides: &[1, 2, 2],
            epochs: 100,
            lr: 1.0,
            batch: 100,
            holdout: Some(5000),
        },
        ADD_TASK => SetDefaults {
            width: 64,
            strides: &[],
            // The paper's text says 200; its Table 8 is what 500 epochs give, in every cell.
            epochs: 500,
            lr: 0.001,
            batch: 50,
            holdout: None,
        },
        "digits" => SetDefaults {
            width: 32,
            strides: &[1, 2, 1],
            epochs: 30,
            lr: 5.0,
            batch: 100,
            holdout: Some(297),
        },
        _ => SetDefaults {
            width: 32,
            strides: &[1, 2, 2],
            epochs: 30,
            lr: 1.0,
            batch: 100,
            holdout: None,
        },
    }
}

impl Written {
    /// Fills in what the user left open.
    pub(super) fn with_defaults(self) -> Config {
        let Self {
            data,
            network,
            train,
            run,
        } = self;
        let name = data.name.unwrap_or_else(|| match network.kind {
            Some(Kind::Recurrent) => ADD_TASK.into(),
            Some(Kind::Conv | Kind::Dense) | None => "digits".into(),
        });
        let defaults = set_defaults(&name);
        let sequences = name == ADD_TASK;
        let defaults = match network.kind {
            // Sequences of one's own: what the Add task was trained with.
            Some(Kind::Recurrent) => set_defaults(ADD_TASK),
            _ => defaults,
        };
        let kind = network.kind.unwrap_or(match sequences {
            true => Kind::Recurrent,
            false => Kind::Conv,
        });
        let (evaluate, norm) = match kind {
            Kind::Recurrent => (Evaluate::Test, Norm::None),
            Kind::Conv | Kind::Dense => (Evaluate::Holdout, Norm::Location),
        };
        // A dense net has no use for strides: a config for both kinds may hold them. A depth on a conv net is
        // kept, to be refused: whoever wrote it expects another network.
        let (strides, depth) = match kind {
            Kind::Conv => (
                Some(network.strides.unwrap_or_else(|| defaults.strides.to_vec())),
                network.depth,
            ),
            Kind::Dense => (None, Some(network.depth.unwrap_or(3))),
            Kind::Recurrent => (None, network.depth),
        };
        let rule = train.rule.unwrap_or_else(|| "align-ada".into());
        let alignment = run.alignment.unwrap_or(false);
        Config {
            data: Data {
                name,
                path: data.path,
                train_points: data.train_points.unwrap_or(0),
                holdout: data.holdout.or(defaults.holdout),
                evaluate: data.evaluate.unwrap_or(evaluate),
                add_task: (sequences
                    || data.variant.is_some()
                    || data.steps.is_some()
                    || data.lags.is_some())
                .then(|| AddTask {
                    variant: data.variant.unwrap_or(Variant::Published),
                    steps: data.steps.unwrap_or(100),
                    lags: data.lags.unwrap_or([2, 5]),
                }),
            },
            network: Network {
                kind,
                width: network.width.unwrap_or(defaults.width),
                strides,
                depth,
                activation: network.activation.unwrap_or(Activation::Relu),
                norm: network.norm.unwrap_or(norm),
                parameterization: network.parameterization.unwrap_or(Parameterization::Ntk),
            },
            train: Train {
                rule,
                optimizer: train.optimizer.unwrap_or(Optimizer::Sgd),
                lr: train.lr.unwrap_or(defaults.lr),
                batch: train.batch.unwrap_or(defaults.batch),
                epochs: train.epochs.unwrap_or(defaults.epochs),
                max_steps: train.max_steps.unwrap_or(0),
                seed: train.seed.unwrap_or(99),
                target_shift: train.target_shift.unwrap_or(0.1),
            },
            run: Run {
                out: run.out.unwrap_or_else(|| "runs".into()),
                threads: run.threads.unwrap_or(0),
                device: run.device.unwrap_or_default(),
                precision: run.precision.unwrap_or(Precision::F32),
                log_steps: run.log_steps.unwrap_or(false),
                eval_every: run.eval_every.unwrap_or(1),
                gradient_angle: run.gradient_angle.unwrap_or(false),
                layer_drift: run.layer_drift.unwrap_or(false),
                tensorboard: run.tensorboard.unwrap_or(false),
                alignment,
                // Without scores it changes nothing: a config may hold it for both.
                alignment_every: run.alignment_every.filter(|_| alignment).unwrap_or(0),
                checkpoint_every: run.checkpoint_every.unwrap_or(0),
                checkpoint_minutes: run.checkpoint_minutes.unwrap_or(5.0),
            },
        }
    }
}
