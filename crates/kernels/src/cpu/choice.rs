//! By which kernels a layer is computed: its shape alone decides, and whether sums are to be plain.

use super::pack::Direction;
use super::winograd::Tiles;
use super::winograd::strips::Strips;
use super::{Arithmetic, CpuBackend};
#[cfg(target_arch = "x86_64")]
use super::{InstructionSet, amx};
use crate::{Layer, LayerKernels};

impl CpuBackend {
    /// The names of the kernels that compute a layer.
    pub(super) fn choice(&self, layer: &Layer) -> LayerKernels {
        let to = |columns: usize, strips: Option<Strips>| {
            let how = match (self.tiles(layer), strips) {
                _ if self.on_tile_unit(layer) => return format!("AMX tiles, {}", self.set),
                (Some(_), _) => "Winograd tiles",
                (None, Some(_)) => "Winograd strips",
                (None, None) => "plain sums",
            };
            format!("{how}, {}", self.set.for_columns(columns))
        };
        LayerKernels {
            forward: to(layer.outputs, self.strips(layer, Direction::Forward)),
            feedback: to(layer.inputs, self.strips(layer, Direction::Backward)),
            weight_gradient: to(layer.outputs, self.strips_of_gradient(layer)),
        }
    }

    /// Whether the tile unit computes a layer's products, in place of plain sums and of tiled convolutions.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn on_tile_unit(&self, layer: &Layer) -> bool {
        self.set == InstructionSet::Amx && self.rounds() && amx::suits(layer)
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn on_tile_unit(&self, _: &Layer) -> bool {
        false
    }

    /// The tiles in which a layer is computed, if it is.
    pub(super) fn tiles(&self, layer: &Layer) -> Option<Tiles> {
        Tiles::of(layer).filter(|_| self.arithmetic != Arithmetic::Strict)
    }

    /// The strips in which a layer is computed in one direction, if it is.
    pub(super) fn strips(&self, layer: &Layer, direction: Direction) -> Option<Strips> {
        let depth = match direction {
            Direction::Forward => layer.inputs,
            Direction::Backward => layer.outputs,
        };
        Strips::of_gather(layer, depth).filter(|_| self.arithmetic != Arithmetic::Strict)
    }

    /// The strips in which its weight gradient is computed, if it is.
    pub(super) fn strips_of_gradient(&self, layer: &Layer) -> Option<Strips> {
        Strips::of_gradient(layer).filter(|_| self.arithmetic != Arithmetic::Strict)
    }
}
