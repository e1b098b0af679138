//! Alignment scores of a run: trained beside its companion, or from files of weights.

mod files;
mod observer;
mod scores;

pub(crate) use files::{Files, config_beside, score_files};
pub(crate) use observer::Aligned;
pub(crate) use scores::{ProbeRow, Row, Scores, read_scores};

/// What may be asked for beside the exact score of a trained companion.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Batches of Gaussian probes; 0 for none.
    pub probes: usize,
    /// Probes in a batch.
    pub probe_batch: usize,
    /// Build W* at the end from integrated errors instead of training it; for a single trial from its beginning.
    pub integrated: bool,
}
