//! Scores of all layers, and their files.

use super::Options;
use crate::run::{RunError, RunFolder, write_whole};
use sansprop::alignment::{Changes, exact, permuted, probes};
use sansprop_kernels::{Backend, Layer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

const EXACT: &str = "alignment.csv";
const PROBED: &str = "alignment_probes.csv";

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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProbeRow {
    pub epoch: usize,
    pub step: u64,
    pub layer: usize,
    pub score: f64,
    pub probe_score: f64,
    pub probe_standard_error: f64,
}

/// One layer's weights at the beginning, at the end, and the companion's, `[tap, in, out]`.
pub(super) struct LayerWeights<'a> {
    pub layer: &'a Layer,
    pub initial: Vec<f64>,
    pub last: Vec<f64>,
    pub reference: Vec<f64>,
}

impl LayerWeights<'_> {
    /// Whether all weights are numbers.
    pub(super) fn finite(&self) -> bool {
        let mut all = self.last.iter().chain(&self.reference);
        all.all(|w| w.is_finite())
    }
}

/// All scores taken so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scores {
    pub rows: Vec<Row>,
    pub probes: Vec<ProbeRow>,
}

impl Scores {
    /// Scores all layers.
    pub(super) fn take<B: Backend>(
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
        let head = ["epoch", "step", "layer", "score", "score_permuted"];
        write_csv(&folder.join(EXACT), &head, &self.rows)?;
        if !self.probes.is_empty() {
            let head = [
                "epoch",
                "step",
                "layer",
                "score",
                "probe_score",
                "probe_standard_error",
            ];
            write_csv(&folder.join(PROBED), &head, &self.probes)?;
        }
        Ok(())
    }

    /// What a run's folder holds of the epochs before `epoch`, where its checkpoint was made; what is from later
    /// is taken again.
    ///
    /// # Errors
    /// A file is damaged, or there is no alignment.csv; the checkpoint is of no use without.
    pub(super) fn before(epoch: usize, folder: &RunFolder) -> Result<Self, RunError> {
        let damaged = |message: String| RunError::Damaged {
            path: folder.file("checkpoint.safetensors"),
            message,
        };
        let mut rows: Vec<Row> = read_csv(&folder.file(EXACT)).map_err(damaged)?;
        rows.retain(|row| row.epoch < epoch);
        let probed = folder.file(PROBED);
        let mut probes: Vec<ProbeRow> = Vec::new();
        if probed.exists() {
            probes = read_csv(&probed).map_err(damaged)?;
            probes.retain(|row| row.epoch < epoch);
        }
        Ok(Self { rows, probes })
    }
}

fn write_csv(path: &Path, head: &[&str], rows: &[impl Serialize]) -> Result<(), RunError> {
    let mut builder = csv::WriterBuilder::new();
    // With the head also where there is no row yet.
    let mut writer = builder.has_headers(false).from_writer(Vec::new());
    writer.write_record(head).expect("memory");
    for row in rows {
        writer.serialize(row).expect("plain numbers");
    }
    write_whole(path, &writer.into_inner().expect("memory"))
}

/// Reads a folder's alignment.csv.
///
/// # Errors
/// It cannot be read or is no such table.
pub(crate) fn read_scores(folder: &Path) -> Result<Vec<Row>, RunError> {
    let path = folder.join(EXACT);
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

fn read_csv<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>, String> {
    let rows = csv::Reader::from_path(path).and_then(|mut file| file.deserialize().collect());
    rows.map_err(|e: csv::Error| {
        format!(
            "{}, which belongs to it, cannot be read: {e}",
            path.display()
        )
    })
}
