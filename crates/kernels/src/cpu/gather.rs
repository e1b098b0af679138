//! A gather by whichever kernels compute the layer.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::buffer::CpuBuffer;
use super::fill::Fill;
use super::pack::{Direction, Packing, pack};
use super::rows::{self, Grid};
use super::scratch::Scratch;
use super::sweep::{Finish, sweep};
use super::winograd::{self, strips};
use super::{CpuBackend, dense};
use crate::Layer;

impl CpuBackend {
    /// Gathers through `layer` in one direction and finishes every block.
    pub(super) fn gather(
        &self,
        scratch: &mut Scratch,
        (layer, direction): (&Layer, Direction),
        batch: usize,
        weight: &[f32],
        panels: &CpuBuffer,
        finish: Finish<'_>,
    ) {
        let (links, destinations, depth, columns) = match direction {
            Direction::Forward => (
                layer.wiring.forward(),
                layer.locations(),
                layer.inputs,
                layer.outputs,
            ),
            Direction::Backward => (
                layer.wiring.backward(),
                layer.sources(),
                layer.outputs,
                layer.inputs,
            ),
        };
        let sources = match direction {
            Direction::Forward => layer.sources(),
            Direction::Backward => layer.locations(),
        };
        let len = sources * batch * depth;
        let weight = &weight[..layer.weights()];
        let set = self.set.for_columns(columns);
        let Scratch {
            packed,
            widened: [widened, _],
            parts,
            ..
        } = scratch;
        let mut workers = self.workers(set, parts);
        let packing = Packing::new(set.lanes(), layer.wiring.taps(), depth, columns);
        #[cfg(target_arch = "x86_64")]
        if self.product_on_tile_unit(layer) {
            let product = amx::Product {
                batch,
                panel: panels.as_f32(len, widened),
                weight,
                direction,
                packing,
            };
            match self.rounds() {
                true => amx::product::<1>(&mut workers, packed, product, finish),
                false => amx::product::<2>(&mut workers, packed, product, finish),
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if self.on_tile_unit(layer) {
            let [mut sources, mut destinations] = [
                (layer.sources(), layer.wiring.across()[0]),
                (layer.locations(), layer.wiring.across()[1]),
            ];
            if direction == Direction::Backward {
                std::mem::swap(&mut sources, &mut destinations);
            }
            let gather = amx::Gather {
                links,
                sources,
                destinations,
                batch,
                panels: panels.values(len),
                weight,
                direction,
                packing,
            };
            match self.rounds() {
                true => amx::gather::<1>(&mut workers, packed, gather, finish),
                false => amx::gather::<2>(&mut workers, packed, gather, finish),
            }
            return;
        }
        if let Some(tiles) = self.tiles(layer) {
            let weight = (weight, self.rounds());
            let packing = winograd::pack(&workers, (layer, tiles), direction, weight, packed);
            let panels = panels.values(len);
            let gather = winograd::Gather {
                tiles,
                direction,
                batch,
                panels,
                packed,
                packing,
            };
            winograd::gather(&mut workers, gather, finish);
            return;
        }
        let panels = panels.as_f32(len, widened);
        if dense::is_product(layer) {
            let strips = dense::Strips {
                weight,
                direction,
                rounded: self.rounds(),
                packing,
            };
            dense::gather(&mut workers, strips, batch, panels, finish);
            return;
        }
        let weight = (weight, self.rounds());
        if let Some(strips) = self.strips(layer, direction) {
            let packing = strips::pack(&workers, layer, direction, weight, packed);
            let weights = (&packed[..], packing);
            strips::gather(&mut workers, strips, batch, panels, weights, finish);
            return;
        }
        if let Some(grid) = Grid::of(layer, direction, columns.div_ceil(set.lanes())) {
            let packing = packing.one_vector(set.lanes());
            pack(&self.threads, direction, weight, packing, packed);
            let weights = (&packed[..], packing);
            rows::gather(&mut workers, grid, batch, panels, weights, finish);
            return;
        }
        pack(&self.threads, direction, weight, packing, packed);
        let fill = Fill::Gather {
            links,
            panels,
            packed,
            packing,
        };
        sweep(&mut workers, destinations, batch, fill, finish);
    }
}
