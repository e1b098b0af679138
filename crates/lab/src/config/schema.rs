//! The keys of a config file and their types.

use crate::device::Device;
use serde::{Deserialize, Serialize};

/// Sections and keys, for unknown-key errors and suggestions.
pub const SECTIONS: [(&str, &[&str]); 4] = [
    (
        "data",
        &[
            "name",
            "path",
            "train_points",
            "holdout",
            "evaluate",
            "variant",
            "steps",
            "lags",
        ],
    ),
    (
        "network",
        &[
            "kind",
            "width",
            "strides",
            "depth",
            "activation",
            "norm",
            "parameterization",
        ],
    ),
    (
        "train",
        &[
            "rule",
            "optimizer",
            "lr",
            "batch",
            "epochs",
            "max_steps",
            "seed",
            "target_shift",
        ],
    ),
    (
        "run",
        &[
            "out",
            "threads",
            "device",
            "precision",
            "log_steps",
            "eval_every",
            "gradient_angle",
            "layer_drift",
            "tensorboard",
            "alignment",
            "alignment_every",
            "checkpoint_every",
            "checkpoint_minutes",
        ],
    ),
];

/// What `data.evaluate` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluate {
    /// On the first training images, held out (the published protocol).
    Holdout,
    /// On the official test images.
    Test,
}

/// `network.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// 3×3 convolutions, global average pool, head.
    Conv,
    /// Fully connected.
    Dense,
    /// A recurrent network for sequences.
    Recurrent,
}

/// `data.variant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// As the published generator has it.
    Published,
    /// Lags that start from zero.
    Causal,
}

/// `network.activation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(z, 0).
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// Error function.
    Erf,
    /// Identity.
    Linear,
}

/// `network.norm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Per location and channel, over the batch.
    Location,
    /// Per channel, over batch and locations.
    Channel,
    /// None.
    None,
}

/// `network.parameterization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parameterization {
    /// Weights N(0, 1), forward pass divided by √fan_in.
    Ntk,
    /// Weights N(0, 1)/√fan_in.
    Standard,
}

/// `train.optimizer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Plain gradient steps.
    Sgd,
    /// Adam in TensorFlow's form.
    Adam,
}

/// `run.precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats, the fastest kernels: wide convolutions of stride 1 in tiles.
    F32,
    /// 32-bit floats, every sum as it is written: products in the order of taps and channels.
    F32Strict,
    /// 32-bit sums of operands with 11 significant bits, on GPUs: rounded as a product reads them.
    Tf32,
    /// 32-bit sums of 16-bit operands: weights, activations and deltas are rounded to bf16 where a product reads them.
    Bf16,
    /// 64-bit floats, the naive reference: for checking, not for long runs.
    F64,
}

impl Precision {
    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F32Strict => "f32-strict",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
        }
    }
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    /// Name of the set.
    pub name: String,
    /// Where it lies; none: `SANSPROP_DATA`, else `./data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Training samples used; 0 for all.
    pub train_points: usize,
    /// First training samples that are held out; none until the set is loaded: a tenth of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holdout: Option<usize>,
    /// What is evaluated.
    pub evaluate: Evaluate,
    /// How the Add task is made; none for other sets.
    #[serde(flatten)]
    pub add_task: Option<AddTask>,
}

/// The keys of `[data]` that only `add-task` has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AddTask {
    /// Which Add task.
    pub variant: Variant,
    /// Steps of a sequence.
    pub steps: usize,
    /// Lags of its two terms.
    pub lags: [usize; 2],
}

/// `[network]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// Convolutional or dense.
    pub kind: Kind,
    /// Channels or units of every hidden layer.
    pub width: usize,
    /// Strides of the convolutions; none for dense nets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<usize>>,
    /// Hidden layers of a dense net; none for convolutional nets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// Activation of hidden layers.
    pub activation: Activation,
    /// Normalisation of hidden layers.
    pub norm: Norm,
    /// Scaling of weights.
    pub parameterization: Parameterization,
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Train {
    /// Name of the learning rule.
    pub rule: String,
    /// Optimiser.
    pub optimizer: Optimizer,
    /// Learning rate.
    pub lr: f64,
    /// Samples per minibatch.
    pub batch: usize,
    /// Passes over the training samples.
    pub epochs: usize,
    /// Stop after this many updates; 0 for no limit.
    pub max_steps: u64,
    /// Seed of weights and sample order.
    pub seed: u32,
    /// Subtracted from one-hot targets.
    pub target_shift: f64,
}

/// `[run]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Folder that receives run folders.
    pub out: String,
    /// Threads; 0 for one per core.
    pub threads: usize,
    /// What computes. Not written where it is the CPU, so that runs keep the names that they had before there was
    /// the key.
    #[serde(skip_serializing_if = "Device::is_cpu")]
    pub device: Device,
    /// Arithmetic.
    pub precision: Precision,
    /// Whether every step is written to metrics.jsonl.
    pub log_steps: bool,
    /// Evaluate after every so many epochs.
    pub eval_every: usize,
    /// Whether each layer's update is compared with the gradient, once an epoch.
    pub gradient_angle: bool,
    /// Whether each layer's drift is measured, once an epoch.
    pub layer_drift: bool,
    /// Whether the run folder also receives an event file for TensorBoard. Where it does not, the key is not
    /// written, so that runs keep the names that they had before there was the key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,
    /// Whether each trial gets a companion and alignment scores. Not written where it is off, so that runs without
    /// have the names that they always had.
    #[serde(skip_serializing_if = "is_off")]
    pub alignment: bool,
    /// Score after every so many epochs too; 0: at the end only, and always where alignment is off.
    #[serde(skip_serializing_if = "is_zero")]
    pub alignment_every: usize,
    /// Write a checkpoint after every so many epochs; 0 for never.
    pub checkpoint_every: usize,
    /// Write a checkpoint when the last is so many minutes old; 0 for never.
    pub checkpoint_minutes: f64,
}

fn is_off(switch: &bool) -> bool {
    !switch
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A complete config: every value decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// `[data]`.
    pub data: Data,
    /// `[network]`.
    pub network: Network,
    /// `[train]`.
    pub train: Train,
    /// `[run]`.
    pub run: Run,
}
