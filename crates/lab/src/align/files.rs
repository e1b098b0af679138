//! Scores of weights that the user brings.

use super::scores::LayerWeights;
use super::{Options, Scores};
use crate::cli::Failure;
use crate::data::{Tensor, load_weights};
use crate::machine::Machine;
use sansprop::network::Network;
use sansprop_kernels::{Activation, Layer, Norm, Wiring};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of weights to be scored.
pub(crate) struct Files<'a> {
    pub from: &'a Path,
    pub to: &'a Path,
    pub reference: &'a Path,
}

/// Scores weights that the user brings. Convolutions need the network's config, for their grids and strides; dense
/// layers do not. The head, the last layer, is not scored.
pub(crate) fn score_files(
    machine: &Machine,
    files: &Files<'_>,
    network: Option<&Network>,
    options: &Options,
    seed: u32,
) -> Result<Scores, Failure> {
    let all = [files.from, files.to, files.reference].map(load_weights);
    let [from, to, reference] = all;
    let (from, to, reference) = (from?, to?, reference?);
    let mut layers = Vec::new();
    for l in 0.. {
        let name = format!("layers.{l}.weight");
        let Some(initial) = from.get(&name) else {
            break;
        };
        let same = |file: &Path, tensor: Option<&Tensor>| match tensor {
            Some(tensor) if tensor.shape == initial.shape => Ok(tensor.values.clone()),
            Some(tensor) => Err(Failure::Failed(format!(
                "{}: {name} has shape {:?}, but {:?} in {}",
                file.display(),
                tensor.shape,
                initial.shape,
                files.from.display()
            ))),
            None => Err(Failure::Failed(format!(
                "{}: there is no {name}",
                file.display()
            ))),
        };
        let (last, reference) = (
            same(files.to, to.get(&name))?,
            same(files.reference, reference.get(&name))?,
        );
        layers.push((initial, last, reference));
    }
    // The last layer is the head.
    layers.pop();
    if layers.is_empty() {
        return Err(Failure::Failed(format!(
            "{}: no hidden layer to score; weights are named layers.0.weight, layers.1.weight, …, the head last",
            files.from.display()
        )));
    }
    let shapes = layers
        .iter()
        .enumerate()
        .map(|(l, (initial, ..))| operator(files.from, l, &initial.shape, network))
        .collect::<Result<Vec<Layer>, Failure>>()?;
    let weights: Vec<LayerWeights<'_>> = shapes
        .iter()
        .zip(layers)
        .map(|(layer, (initial, last, reference))| LayerWeights {
            layer,
            initial: initial.values.clone(),
            last,
            reference,
        })
        .collect();
    let mut scores = Scores::default();
    match machine {
        Machine::Cpu(b) => scores.take(b, &weights, (0, 0), options, seed),
        Machine::Reference(b) => scores.take(b, &weights, (0, 0), options, seed),
        Machine::Gpu(b) => scores.take(&**b, &weights, (0, 0), options, seed),
    }
    Ok(scores)
}

/// The operator that layer `l`'s weights stand for.
fn operator(
    file: &Path,
    l: usize,
    shape: &[usize],
    network: Option<&Network>,
) -> Result<Layer, Failure> {
    let place = || format!("{}: layers.{l}.weight", file.display());
    let Some(network) = network else {
        let [inputs, outputs] = *shape else {
            return Err(Failure::Usage(format!(
                "{} has shape {shape:?}: a convolution's score depends on its grid and stride; give --network CONFIG",
                place()
            )));
        };
        return Ok(Layer {
            wiring: Arc::new(Wiring::dense()),
            inputs,
            outputs,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        });
    };
    match network.hidden().get(l) {
        Some(layer) if network.weight_shape(l) == shape => Ok(layer.clone()),
        Some(_) => Err(Failure::Usage(format!(
            "{} has shape {shape:?}, but {:?} in the network of --network",
            place(),
            network.weight_shape(l)
        ))),
        None => Err(Failure::Usage(format!(
            "{}: the network of --network has only {} hidden layers",
            place(),
            network.hidden().len()
        ))),
    }
}

/// The config beside a run's weights, if there is one.
pub(crate) fn config_beside(weights: &Path) -> Option<PathBuf> {
    let config = weights.parent()?.join("config.toml");
    config.is_file().then_some(config)
}
