//! A recurrent cell step by step.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::tile::{Direction, Tile};
use super::work::{Item, Kernel, Span};
use crate::{Activation, CellWeights, Landing, Layer, Norm, Record, RecurrentCell, Unrolled};
use cubecl::prelude::*;
use std::sync::Arc;

impl<R: Runtime> GpuBackend<R> {
    /// One step of a recurrent cell as a product of dense panels, the source panel given.
    fn step_item(
        &self,
        kernel: Kernel,
        cell: &RecurrentCell,
        (batch, tile): (usize, Tile),
        hidden: Span,
        panel: Span,
        direction: Direction,
    ) -> Item {
        let wiring = self.wiring(self.dense());
        let links = match direction {
            Direction::Forward => &wiring.forward,
            Direction::Backward => &wiring.backward,
        };
        Item::new(kernel, tile.groups(1, batch, cell.width))
            .reads(hidden)
            .reads(panel)
            .count(links.start)
            .counts([batch, cell.width, cell.width, 1])
            .factor(cell.scale)
    }

    /// The states of all steps.
    pub(super) fn run_sequence(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: &CellWeights<'_, GpuBuffer<R>>,
        input: &GpuBuffer<R>,
        record: &Record<GpuBuffer<R>>,
    ) {
        // The drive of all steps is one product; the recurrent part is added step by step.
        let drive = Layer {
            wiring: Arc::clone(self.dense()),
            inputs: cell.inputs,
            outputs: cell.width,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        };
        let walk = self.walk(&drive, cell.steps * batch, Direction::Forward);
        self.product(
            walk,
            1.0,
            weights.input,
            Some(weights.bias),
            input,
            &record.z,
        );
        let (size, tile) = (
            batch * cell.width,
            Tile::new(batch, cell.width, self.operands()),
        );
        for t in 0..cell.steps {
            let kernel = Kernel::RecurStep(tile, cell.activation);
            let hidden = weights.hidden.first(cell.width * cell.width);
            let before = record.a.part(t * size, size);
            let item = self
                .step_item(
                    kernel,
                    cell,
                    (batch, tile),
                    hidden,
                    before,
                    Direction::Forward,
                )
                .writes(record.z.part(t * size, size))
                .writes(record.a.part((t + 1) * size, size));
            self.note(item);
        }
    }

    /// The deltas of all steps, from the last to the first.
    pub(super) fn feed_back_through_time(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &GpuBuffer<R>,
        signal: &GpuBuffer<R>,
        unrolled: &Unrolled<'_, GpuBuffer<R>>,
        local: Option<&Landing<'_, GpuBuffer<R>>>,
    ) {
        let (size, tile) = (
            batch * cell.width,
            Tile::new(batch, cell.width, self.operands()),
        );
        let hidden = hidden.first(cell.width * cell.width);
        for t in (0..=cell.steps).rev() {
            let (last, first) = (t == cell.steps, t == 0);
            let kernel = Kernel::FeedbackStep {
                tile,
                activation: cell.activation,
                last,
                first,
                local: local.is_some(),
            };
            // Panel t of the states is panel t − 1 of z and δ; what lies outside is not touched.
            let later = unrolled.delta.part(t.min(cell.steps - 1) * size, size);
            let here = t.saturating_sub(1) * size;
            let item = self
                .step_item(
                    kernel,
                    cell,
                    (batch, tile),
                    hidden,
                    later,
                    Direction::Backward,
                )
                .reads(signal.part(t * size, size))
                .writes(unrolled.carried.part(t * size, size))
                .reads(unrolled.path.z.part(here, size))
                .writes(unrolled.delta.part(here, size));
            self.note(match local {
                Some(local) => item
                    .reads(local.record.z.part(here, size))
                    .writes(local.delta.part(here, size)),
                None => item.counts([0; 2]),
            });
        }
    }
}
