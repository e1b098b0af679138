//! The configs of golden cases: data, network and optimiser as their generator describes them.

use sansprop::images::{ImageShape, Images, Pixels};
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::optim::Optimizer;
use sansprop::rng::LegacyRandom;
use sansprop_kernels::{Activation, Norm};
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Config {
    pub kind: String,
    pub rows: usize,
    pub columns: usize,
    pub channels: usize,
    pub classes: usize,
    pub width: usize,
    pub strides: Vec<usize>,
    pub hidden_layers: usize,
    pub activation: String,
    pub norm: String,
    pub parameterization: String,
    pub optimizer: String,
    pub learning_rate: f64,
    pub batch: usize,
    pub seed: u32,
    pub samples: usize,
    pub heldout: usize,
    pub steps: usize,
    pub target_shift: f64,
    pub input_seed: u32,
    pub label_seed: u32,
}

impl Config {
    fn shape(&self) -> ImageShape {
        ImageShape {
            height: self.rows,
            width: self.columns,
            channels: self.channels,
        }
    }

    /// `RandomState(label_seed).permutation(samples) % classes`.
    pub fn labels(&self) -> Vec<u32> {
        let order = LegacyRandom::new(self.label_seed).permutation(self.samples);
        order
            .into_iter()
            .map(|i| (i % self.classes) as u32)
            .collect()
    }

    /// The inputs come from the generator that the engine itself implements.
    pub fn images(&self, labels: &[u32]) -> Images {
        let mut random = LegacyRandom::new(self.input_seed);
        let values = (0..self.samples * self.shape().len())
            .map(|_| random.uniform() as f32)
            .collect();
        let pixels = Pixels::Floats(values);
        Images::new(self.shape(), self.classes, pixels, labels.to_vec()).expect("a valid set")
    }

    pub fn network(&self) -> Network {
        let c = self;
        Network::new(NetworkSpec {
            input: self.shape(),
            classes: c.classes,
            architecture: match c.kind.as_str() {
                "conv" => Architecture::Conv {
                    strides: c.strides.clone(),
                },
                "dense" => Architecture::Dense {
                    depth: c.hidden_layers,
                },
                other => panic!("kind {other}"),
            },
            width: c.width,
            activation: match c.activation.as_str() {
                "relu" => Activation::Relu,
                "tanh" => Activation::Tanh,
                "erf" => Activation::Erf,
                "linear" => Activation::Linear,
                other => panic!("activation {other}"),
            },
            norm: match c.norm.as_str() {
                "location" => Norm::Location,
                "channel" => Norm::Channel,
                "none" => Norm::None,
                other => panic!("norm {other}"),
            },
            parameterization: match c.parameterization.as_str() {
                "ntk" => Parameterization::Ntk,
                "standard" => Parameterization::Standard,
                other => panic!("parameterization {other}"),
            },
        })
        .expect("a valid network")
    }

    pub fn optimizer(&self) -> Optimizer {
        let lr = self.learning_rate;
        match self.optimizer.as_str() {
            "sgd" => Optimizer::Sgd { lr },
            "adam" => Optimizer::Adam { lr },
            other => panic!("optimizer {other}"),
        }
    }
}
