//! Networks: what the user asks for, and the layers that follow from it.

use crate::images::{ImageShape, MinibatchLayout};
use sansprop_kernels::{Activation, Layer, Norm, Wiring};
use std::sync::Arc;
use thiserror::Error;

/// How weights are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameterization {
    /// Eq. 1: weights start N(0, 1); the forward pass divides by `√fan_in`.
    Ntk,
    /// App. H, Eq. 63: weights start N(0, 1)/√fan_in; no factor in the forward pass.
    Standard,
}

/// The hidden layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// One 3×3 convolution per stride, then global average pooling.
    Conv {
        /// Stride of each convolution.
        strides: Vec<usize>,
    },
    /// `depth` fully connected hidden layers on the flattened input.
    Dense {
        /// Number of hidden layers.
        depth: usize,
    },
}

/// A feed-forward network as the user describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Shape of one input image.
    pub input: ImageShape,
    /// Outputs.
    pub classes: usize,
    /// Hidden layers.
    pub architecture: Architecture,
    /// Channels or units of every hidden layer.
    pub width: usize,
    /// Activation of every hidden layer.
    pub activation: Activation,
    /// Normalisation of every hidden layer.
    pub norm: Norm,
    /// Scaling of the weights.
    pub parameterization: Parameterization,
}

/// Why a network cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// A size is zero.
    #[error("the network's {0} must be at least 1")]
    Zero(&'static str),
}

/// A feed-forward network: hidden layers, mean over the last layer's locations, linear head.
#[derive(Clone, Debug)]
pub struct Network {
    spec: NetworkSpec,
    layers: Vec<Layer>,
    /// `(height, width)` of each hidden layer's output.
    grids: Vec<(usize, usize)>,
}

impl Network {
    /// Works out the layers.
    ///
    /// # Errors
    /// A width, class count, stride or input size of 0.
    pub fn new(spec: NetworkSpec) -> Result<Self, NetworkError> {
        let zero = |value: usize, name| match value {
            0 => Err(NetworkError::Zero(name)),
            _ => Ok(()),
        };
        zero(spec.width, "width")?;
        zero(spec.classes, "number of classes")?;
        zero(spec.input.len(), "input size")?;
        let mut layers: Vec<Layer> = Vec::new();
        let mut grids = Vec::new();
        let layer = |wiring: Wiring, inputs: usize, outputs: usize, hidden: bool| {
            let fan_in = (wiring.taps() * inputs) as f64;
            Layer {
                inputs,
                outputs,
                scale: match spec.parameterization {
                    Parameterization::Ntk => 1.0 / fan_in.sqrt(),
                    Parameterization::Standard => 1.0,
                },
                norm: if hidden { spec.norm } else { Norm::None },
                activation: if hidden {
                    spec.activation
                } else {
                    Activation::Linear
                },
                wiring: Arc::new(wiring),
            }
        };
        let last_channels;
        match &spec.architecture {
            Architecture::Conv { strides } => {
                let (mut height, mut width) = (spec.input.height, spec.input.width);
                let mut channels = spec.input.channels;
                for &stride in strides {
                    zero(stride, "stride")?;
                    let wiring = Wiring::conv3x3(height, width, stride);
                    layers.push(layer(wiring, channels, spec.width, true));
                    (height, width) = (height.div_ceil(stride), width.div_ceil(stride));
                    grids.push((height, width));
                    channels = spec.width;
                }
                last_channels = channels;
            }
            Architecture::Dense { depth } => {
                let mut channels = spec.input.len();
                for _ in 0..*depth {
                    layers.push(layer(Wiring::dense(), channels, spec.width, true));
                    grids.push((1, 1));
                    channels = spec.width;
                }
                last_channels = channels;
            }
        }
        layers.push(layer(Wiring::dense(), last_channels, spec.classes, false));
        Ok(Self {
            spec,
            layers,
            grids,
        })
    }

    /// What the user asked for.
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// All layers, the head last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The hidden layers.
    pub fn hidden(&self) -> &[Layer] {
        &self.layers[..self.layers.len() - 1]
    }

    /// The linear head.
    pub fn head(&self) -> &Layer {
        &self.layers[self.layers.len() - 1]
    }

    /// `(height, width)` of a hidden layer's output.
    pub fn grid(&self, hidden_layer: usize) -> (usize, usize) {
        self.grids[hidden_layer]
    }

    /// Locations and channels of the network's input panels: the image grid for convolutions, one location
    /// with all values for dense layers.
    pub fn input_panels(&self) -> (usize, usize) {
        match self.spec.architecture {
            Architecture::Conv { .. } => (
                self.spec.input.height * self.spec.input.width,
                self.spec.input.channels,
            ),
            Architecture::Dense { .. } => (1, self.spec.input.len()),
        }
    }

    /// How images are laid out for the first layer.
    pub fn minibatch_layout(&self) -> MinibatchLayout {
        match self.spec.architecture {
            Architecture::Conv { .. } => MinibatchLayout::Locations,
            Architecture::Dense { .. } => MinibatchLayout::Flat,
        }
    }

    /// Locations that the head's pooling averages over.
    pub fn pooled_locations(&self) -> usize {
        self.hidden()
            .last()
            .map_or(self.input_panels().0, Layer::locations)
    }

    /// Shape of a layer's weights: `[kh, kw, in, out]` for a convolution, `[in, out]` for a dense layer.
    pub fn weight_shape(&self, layer: usize) -> Vec<usize> {
        let l = &self.layers[layer];
        if l.wiring.taps() == 9 {
            vec![3, 3, l.inputs, l.outputs]
        } else {
            vec![l.inputs, l.outputs]
        }
    }

    /// Inputs that feed one unit of a layer.
    pub fn fan_in(&self, layer: usize) -> usize {
        self.layers[layer].wiring.taps() * self.layers[layer].inputs
    }

    /// Standard deviation of a layer's initial weights.
    pub fn initial_deviation(&self, layer: usize) -> f64 {
        match self.spec.parameterization {
            Parameterization::Ntk => 1.0,
            Parameterization::Standard => 1.0 / (self.fan_in(layer) as f64).sqrt(),
        }
    }

    /// Number of trained values, biases included.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|l| l.weights() + l.outputs).sum()
    }

    /// Multiply-adds of one forward pass of `batch` samples.
    pub fn multiply_adds(&self, batch: usize) -> usize {
        self.layers.iter().map(|l| l.multiply_adds(batch)).sum()
    }

    /// The layer that carries the outputs' error straight to hidden layer `l` (direct feedback); its weights
    /// are `[location, class, channel]`.
    pub fn direct_layer(&self, hidden_layer: usize) -> Layer {
        let target = &self.layers[hidden_layer];
        Layer {
            wiring: Arc::new(Wiring::broadcast(target.locations())),
            inputs: self.spec.classes,
            outputs: target.outputs,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        }
    }
}
