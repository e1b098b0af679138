//! A recurrent cell step by step.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::tile::Direction;
use super::work::Kernel;
use crate::{Activation, CellWeights, Landing, Layer, Norm, Record, RecurrentCell, Unrolled};
use std::sync::Arc;

impl GpuBackend {
    /// A product of dense panels with a cell's units.
    fn to_units(&self, cell: &RecurrentCell, inputs: usize, scale: f64) -> Layer {
        Layer {
            wiring: Arc::clone(self.dense()),
            inputs,
            outputs: cell.width,
            scale,
            norm: Norm::None,
            activation: Activation::Linear,
        }
    }

    /// The states of all steps.
    pub(super) fn run_sequence(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: &CellWeights<'_, GpuBuffer>,
        input: &GpuBuffer,
        record: &Record<GpuBuffer>,
    ) {
        // The drive of all steps is one product; the recurrent part is added step by step.
        let drive = self.to_units(cell, cell.inputs, 1.0);
        let walk = self.walk(&drive, cell.steps * batch, Direction::Forward);
        self.product(
            walk,
            1.0,
            weights.input,
            Some(weights.bias),
            input,
            &record.z,
        );
        let step = self.to_units(cell, cell.width, cell.scale);
        // A step reads one panel among many, which lies as its predecessor wrote it.
        let walk = self.walk(&step, batch, Direction::Forward).plain();
        let kernel = Kernel::RecurStep(walk.tile, cell.activation);
        let (size, wiring) = (batch * cell.width, self.wiring(self.dense()));
        let hidden = weights.hidden.first(step.weights());
        for t in 0..cell.steps {
            let before = record.a.part(t * size, size);
            let item = walk
                .item(kernel, step.scale, hidden, before, &wiring)
                .writes(record.z.written_part(t * size, size))
                .writes(record.a.written_part((t + 1) * size, size));
            self.note(item);
        }
    }

    /// The deltas of all steps, from the last to the first.
    pub(super) fn feed_back_through_time(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &GpuBuffer,
        signal: &GpuBuffer,
        unrolled: &Unrolled<'_, GpuBuffer>,
        local: Option<&Landing<'_, GpuBuffer>>,
    ) {
        let step = self.to_units(cell, cell.width, cell.scale);
        let walk = self.walk(&step, batch, Direction::Backward).plain();
        let (size, wiring) = (batch * cell.width, self.wiring(self.dense()));
        let hidden = hidden.first(step.weights());
        for t in (0..=cell.steps).rev() {
            let (last, first) = (t == cell.steps, t == 0);
            let kernel = Kernel::FeedbackStep {
                tile: walk.tile,
                activation: cell.activation,
                last,
                first,
                local: local.is_some(),
            };
            // Panel t of the states is panel t − 1 of z and δ; what lies outside is not touched.
            let later = unrolled.delta.part(t.min(cell.steps - 1) * size, size);
            let here = t.saturating_sub(1) * size;
            let item = walk
                .item(kernel, step.scale, hidden, later, &wiring)
                .reads(signal.part(t * size, size))
                .writes(unrolled.carried.written_part(t * size, size))
                .reads(unrolled.path.z.part(here, size))
                .writes(unrolled.delta.written_part(here, size));
            self.note(match local {
                Some(local) => item
                    .reads(local.record.z.part(here, size))
                    .writes(local.delta.written_part(here, size)),
                None => item.counts([0; 2]),
            });
        }
    }
}
