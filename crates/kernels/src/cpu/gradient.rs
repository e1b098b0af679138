//! A weight gradient by whichever kernels compute the layer.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::buffer::CpuBuffer;
use super::scratch::Scratch;
use super::values::Values;
use super::weight_gradient::{Operands, weight_gradient};
use super::winograd::strips::{self, Deltas};
use super::{CpuBackend, dense, winograd};
use crate::Layer;

impl CpuBackend {
    /// See [`Backend::weight_gradient`](crate::Backend::weight_gradient); weights are as many as the layer has.
    pub(super) fn gradient(
        &self,
        scratch: &mut Scratch,
        (layer, batch): (&Layer, usize),
        (input, delta): (&CpuBuffer, &CpuBuffer),
        weights: &mut [f32],
        biases: &mut [f32],
    ) {
        let set = self.set.for_columns(layer.outputs);
        let Scratch {
            widened,
            partials,
            parts,
            ..
        } = scratch;
        let mut workers = self.workers(set, parts);
        let lens = [
            layer.sources() * batch * layer.inputs,
            layer.locations() * batch * layer.outputs,
        ];
        let stored = Operands {
            layer,
            batch,
            input: input.values(lens[0]),
            delta: delta.values(lens[1]),
        };
        #[cfg(target_arch = "x86_64")]
        if self.on_tile_unit(layer) && !self.matrix_gradient_on_tile_unit(layer) {
            let gradient = match self.rounds() {
                true => amx::gradient::<1>,
                false => amx::gradient::<2>,
            };
            gradient(&mut workers, &stored, partials, weights, biases);
            return;
        }
        let tiles = self.tiles(layer);
        if let (Some(tiles), Values::Bf16(input), Values::Bf16(delta)) =
            (tiles, stored.input, stored.delta)
        {
            let operands = Operands {
                layer,
                batch,
                input,
                delta,
            };
            winograd::gradient(&mut workers, tiles, &operands, partials, weights, biases);
            return;
        }
        let [widened_input, widened_delta] = widened;
        if let Some(strips) = self.strips_of_gradient(layer) {
            let input = input.as_f32(lens[0], widened_input);
            strips::gradient(
                &mut workers,
                (layer, strips),
                batch,
                input,
                Deltas::Panels(stored.delta),
                partials,
                (weights, biases),
            );
            return;
        }
        let operands = Operands {
            layer,
            batch,
            input: input.as_f32(lens[0], widened_input),
            delta: delta.as_f32(lens[1], widened_delta),
        };
        #[cfg(target_arch = "x86_64")]
        if self.matrix_gradient_on_tile_unit(layer) {
            let gradient = match self.rounds() {
                true => amx::matrix_gradient::<1>,
                false => amx::matrix_gradient::<2>,
            };
            gradient(&mut workers, &operands, weights, biases);
            return;
        }
        if dense::suits_gradient(layer) {
            dense::gradient(&mut workers, &operands, weights, biases);
            return;
        }
        if let Some(tiles) = tiles {
            winograd::gradient(&mut workers, tiles, &operands, partials, weights, biases);
        } else {
            weight_gradient(&mut workers, &operands, partials, weights, biases);
        }
    }
}
