//! Alignment scores of a run: trained beside its companion, or from files of weights.

mod files;

pub(crate) use files::{Files, config_beside, score_files};

use crate::cli::Failure;
use crate::config::Plan;
use crate::machine::{Contestant, Machine, open};
use crate::progress::Screen;
use crate::run::{Recorder, RunError, RunFolder, TrialResult, write_whole};
use sansprop::alignment::{Changes, exact, permuted, probes};
use sansprop::cohort::{Cohort, Status};
use sansprop::companion::IntegratedErrors;
use sansprop::network::Network;
use sansprop::pass::Weights;
use sansprop::train::{Event, Observer, train};
use sansprop_kernels::{Backend, Layer, Norm};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::Path;
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// Reads a folder's alignment.csv.
pub(crate) fn read_scores(folder: &Path) -> Result<Vec<Row>, RunError> {
    let path = folder.join("alignment.csv");
    let bytes = std::fs::read(&path).map_err(|source| RunError::Read {
        path: path.clone(),
        source,
    })?;
    let rows = csv::Reader::from_reader(bytes.as_slice()).into_deserialize();
    rows.collect::<Result<_, csv::Error>>()
        .map_err(|e| RunError::Damaged {
            path,
            message: e.to_string(),
        })
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
            let reference = cohort.integrated_companion(0, &split.train, &errors);
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
