//! What a device does by itself over a window of minibatches.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::launch::groups_of;
use super::work::{Item, Kernel, MOST_MINIBATCHES, Span};
use crate::{Replay, Resident, Verdict};
use std::sync::Arc;

/// Values of one minibatch's report: loss and hits.
const REPORT: usize = 2;

impl GpuBackend {
    /// Loss of outputs; `verdict` is where its report and its gate stand.
    pub(super) fn note_loss(
        &self,
        labels: &GpuBuffer,
        (batch, classes, shift): (usize, usize, f64),
        output: &GpuBuffer,
        error: &GpuBuffer,
        (report, gate): (Span, Span),
    ) {
        let len = batch * classes;
        let item = Item::new(Kernel::ClassificationLoss, 1)
            .reads(output.first(len))
            .reads(labels.first(batch))
            .writes(error.written(len))
            .writes(report)
            .writes(gate)
            .counts([REPORT, batch, classes])
            .factor(shift);
        self.note(item);
    }

    /// Loss of a sequence of `len` values in all.
    pub(super) fn note_sequence_loss(
        &self,
        targets: &GpuBuffer,
        (len, batch): (usize, usize),
        output: &GpuBuffer,
        error: &GpuBuffer,
        (report, gate): (Span, Span),
    ) {
        let item = Item::new(Kernel::SequenceLoss, 1)
            .reads(output.first(len))
            .reads(targets.first(len))
            .writes(error.written(len))
            .writes(report)
            .writes(gate)
            .counts([REPORT, len, batch]);
        self.note(item);
    }
}

impl Resident<GpuBuffer> for GpuBackend {
    fn most_values(&self) -> u64 {
        self.memory().most_values()
    }

    fn values_in_use(&self) -> u64 {
        self.memory().values_in_use()
    }

    fn reserve(&self, values: u64) {
        self.memory().reserve(values);
    }

    fn set_places(&self, places: &[u32]) {
        self.memory().set_places(places);
    }

    fn gather(
        &self,
        data: &GpuBuffer,
        batch: usize,
        locations: usize,
        channels: usize,
        out: &mut GpuBuffer,
    ) {
        let len = batch * locations * channels;
        let item = Item::new(Kernel::Gather, groups_of(len))
            .reads(data.first(data.len()))
            .writes(out.written(len))
            .counts([0, batch, locations, channels]);
        self.note(item);
    }

    fn judge(
        &self,
        labels: &GpuBuffer,
        batch: usize,
        classes: usize,
        shift: f64,
        output: &GpuBuffer,
        error: &mut GpuBuffer,
        verdict: Verdict<'_, GpuBuffer>,
    ) {
        let Verdict { reports, gate } = verdict;
        let verdict = (reports.written(reports.len()), gate.written(1));
        self.note_loss(labels, (batch, classes, shift), output, error, verdict);
    }

    fn judge_sequence(
        &self,
        targets: &GpuBuffer,
        len: usize,
        batch: usize,
        output: &GpuBuffer,
        error: &mut GpuBuffer,
        verdict: Verdict<'_, GpuBuffer>,
    ) {
        let Verdict { reports, gate } = verdict;
        let verdict = (reports.written(reports.len()), gate.written(1));
        self.note_sequence_loss(targets, (len, batch), output, error, verdict);
    }

    fn gated(&self, gate: &GpuBuffer, rates: Option<&GpuBuffer>, work: &mut dyn FnMut()) {
        self.set_conditions(Some(gate.first(1)), rates.map(|rates| rates.first(1)));
        work();
        self.set_conditions(None, None);
    }

    fn most_minibatches(&self) -> usize {
        MOST_MINIBATCHES
    }

    fn record(&self, minibatches: usize, work: &mut dyn FnMut(usize)) -> Replay {
        let recording = self.memory().record(minibatches, work);
        let device = Arc::clone(self.memory());
        Box::new(move |minibatch| device.replay(&recording, minibatch))
    }
}
