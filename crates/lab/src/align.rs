//! Alignment scores of a run: trained beside its companion, or from files of weights.

use crate::cli::Failure;
use crate::config::Plan;
use crate::data::{Tensor, load_weights};
use crate::machine::{Contestant, Machine, open};
use crate::progress::Screen;
use crate::run::{Recorder, RunError, RunFolder, TrialResult, write_whole};
use sansprop::alignment::{Changes, exact, permuted, probes};
use sansprop::cohort::{Cohort, Status};
use sansprop::companion::IntegratedErrors;
use sansprop::images::MinibatchLayout;
use sansprop::network::{Architecture, Network};
use sansprop::pass::Weights;
use sansprop::train::{Event, Observer, train};
use sansprop_kernels::{Backend, Layer, Norm, Wiring};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How scores are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Score after every so many epochs, and at the end; none: at the end only.
    pub every: Option<usize>,
    /// Batches of Gaussian probes beside the exact score; 0 for none.
    pub probes: usize,
    /// Probes in a batch.
    pub probe_batch: usize,
    /// Build W* at the end from integrated errors instead of training it.
    pub integrated: bool,
}

/// A line of alignment.csv.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Updates done.
    pub step: u64,
    /// Layer, counted from 1.
    pub layer: usize,
    /// The exact score.
    pub score: f64,
    /// With the entries of the final weights permuted.
    pub score_permuted: f64,
}

/// A line of alignment_probes.csv.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProbeRow {
    pub epoch: usize,
    pub step: u64,
    pub layer: usize,
    pub score: f64,
    pub probe_score: f64,
    pub probe_standard_error: f64,
}

/// All scores taken so far.
#[derive(Default)]
pub(crate) struct Scores {
    pub rows: Vec<Row>,
    pub probes: Vec<ProbeRow>,
}

impl Scores {
    /// Scores all layers.
    fn take<B: Backend>(
        &mut self,
        backend: &B,
        layers: &[LayerWeights<'_>],
        (epoch, step): (usize, u64),
        options: &Options,
        seed: u32,
    ) {
        for (i, weights) in layers.iter().enumerate() {
            let LayerWeights {
                layer,
                initial,
                last,
                reference,
            } = weights;
            let changes = Changes::new(layer, initial, last, reference);
            let score = exact(backend, &changes);
            self.rows.push(Row {
                epoch,
                step,
                layer: i + 1,
                score,
                score_permuted: permuted(backend, layer, initial, last, reference, seed),
            });
            if options.probes > 0 {
                let estimate = probes(backend, &changes, options.probes, options.probe_batch, seed);
                self.probes.push(ProbeRow {
                    epoch,
                    step,
                    layer: i + 1,
                    score,
                    probe_score: estimate.score,
                    probe_standard_error: estimate.standard_error,
                });
            }
        }
    }

    /// Writes alignment.csv, and alignment_probes.csv if there were probes.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), RunError> {
        write_csv(&folder.join("alignment.csv"), &self.rows)?;
        if !self.probes.is_empty() {
            write_csv(&folder.join("alignment_probes.csv"), &self.probes)?;
        }
        Ok(())
    }
}

fn write_csv(path: &Path, rows: &[impl Serialize]) -> Result<(), RunError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).expect("plain numbers");
    }
    write_whole(path, &writer.into_inner().expect("memory"))
}

/// One layer's weights at the beginning, at the end, and the companion's, `[tap, in, out]`.
struct LayerWeights<'a> {
    layer: &'a Layer,
    initial: Vec<f64>,
    last: Vec<f64>,
    reference: Vec<f64>,
}

/// The hidden layers of the only trial.
fn layer_weights<'a, B: Backend>(
    network: &'a Network,
    cohort: &Cohort<'_, B>,
    reference: &Weights<B>,
) -> Vec<LayerWeights<'a>> {
    let initial = cohort.initial_weights_of(0);
    let (backend, now) = (cohort.backend(), cohort.trials()[0].weights());
    let layers = network.hidden().iter().enumerate();
    layers
        .map(|(l, layer)| LayerWeights {
            layer,
            initial: initial[l].iter().map(|&w| f64::from(w)).collect(),
            last: backend.read(&now.weight[l]),
            reference: backend.read(&reference.weight[l]),
        })
        .collect()
}

/// Records the run, and takes scores or integrates errors on the way.
struct Aligned<'a> {
    recorder: Recorder,
    network: &'a Network,
    folder: &'a RunFolder,
    options: Options,
    seed: u32,
    scores: Scores,
    errors: Option<IntegratedErrors>,
    epoch: usize,
    error: Option<RunError>,
}

impl Aligned<'_> {
    fn score<B: Backend>(&mut self, cohort: &Cohort<'_, B>, reference: &Weights<B>) {
        let step = cohort.trials()[0].steps();
        if self.scores.rows.last().is_some_and(|row| row.step == step) {
            return;
        }
        let layers = layer_weights(self.network, cohort, reference);
        let when = (self.epoch, step);
        let (options, seed) = (self.options, self.seed);
        self.scores
            .take(cohort.backend(), &layers, when, &options, seed);
        self.error = self.scores.write(self.folder.path()).err();
    }
}

impl<B: Backend> Observer<B> for Aligned<'_> {
    fn observe(&mut self, event: &Event, cohort: &Cohort<'_, B>) -> ControlFlow<()> {
        let flow = self.recorder.observe(event, cohort);
        match *event {
            Event::EpochStarted { epoch, .. } => self.epoch = epoch,
            Event::Step { trial, score, .. } if score.loss.is_finite() => {
                if let Some(errors) = &mut self.errors {
                    errors.add(cohort, &cohort.trials()[trial]);
                }
            }
            Event::EpochEnded { trial, epoch, .. } => {
                let due = |every: usize| (epoch + 1).is_multiple_of(every);
                if self.options.every.is_some_and(due)
                    && let Some(reference) = cohort.companion(trial)
                {
                    self.score(cohort, reference);
                }
            }
            _ => {}
        }
        if self.error.is_some() {
            return ControlFlow::Break(());
        }
        flow
    }
}

/// Trains one trial beside its companion and scores it.
pub(crate) fn train_aligned(
    machine: &Machine,
    plan: &Plan,
    trial: Contestant,
    options: Options,
    stop: &Arc<AtomicBool>,
) -> Result<(TrialResult, Scores), Failure> {
    let Some(network) = plan.model.feed_forward() else {
        return Err(Failure::Usage(
            "alignment is scored for convolutional and dense networks".into(),
        ));
    };
    let sums = trial.config.trial().optimizer.name() == "sgd";
    if options.integrated && !(sums && network.hidden().iter().all(|l| l.norm == Norm::None)) {
        return Err(Failure::Usage(
            "--integrated is exact only for network.norm = \"none\" and train.optimizer = \"sgd\"; without it \
             the companion is trained"
                .into(),
        ));
    }
    machine.describe_runs(plan, std::slice::from_ref(&trial))?;
    match machine {
        Machine::Cpu(backend) => train_on(backend, plan, network, trial, options, stop),
        Machine::Reference(backend) => train_on(backend, plan, network, trial, options, stop),
    }
}

fn train_on<B: Backend>(
    backend: &B,
    plan: &Plan,
    network: &Network,
    trial: Contestant,
    options: Options,
    stop: &Arc<AtomicBool>,
) -> Result<(TrialResult, Scores), Failure> {
    let folder = trial.folder.clone();
    let (mut cohort, recorder) = open(backend, plan, &[trial], &Screen::new(), stop)?;
    let split = plan.split()?;
    if !options.integrated {
        cohort.add_companion(0);
    }
    let mut observer = Aligned {
        recorder,
        network,
        folder: &folder,
        options,
        seed: plan.config.train.seed,
        scores: Scores::default(),
        errors: options
            .integrated
            .then(|| IntegratedErrors::new(split.train.samples.len(), network.spec().classes)),
        epoch: 0,
        error: None,
    };
    train(&mut cohort, &split, &plan.schedule(), &mut observer);
    if let Some(error) = observer.error.take() {
        return Err(error.into());
    }
    let status = cohort.trials()[0].status();
    if !matches!(status, Status::Diverged { .. }) {
        if let Some(errors) = observer.errors.take() {
            let layout = match network.spec().architecture {
                Architecture::Conv { .. } => MinibatchLayout::Locations,
                Architecture::Dense { .. } => MinibatchLayout::Flat,
            };
            let reference = cohort.integrated_companion(0, &split.train, layout, &errors);
            observer.score(&cohort, &reference);
            let tensors = cohort.named(&reference);
            folder.save(
                "companion.safetensors",
                &tensors,
                cohort.trials()[0].steps(),
            )?;
        } else if let Some(reference) = cohort.companion(0) {
            observer.score(&cohort, reference);
            let tensors = cohort.named(reference);
            folder.save(
                "companion.safetensors",
                &tensors,
                cohort.trials()[0].steps(),
            )?;
        }
    }
    if let Some(error) = observer.error.take() {
        return Err(error.into());
    }
    let scores = observer.scores;
    let mut results = observer.recorder.finish()?;
    Ok((results.remove(0), scores))
}

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
            activation: sansprop_kernels::Activation::Linear,
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
