//! By which kernels a layer is computed: its shape alone decides, and whether sums are to be plain.

#[cfg(target_arch = "x86_64")]
use super::InstructionSet;
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::pack::Direction;
use super::winograd::Tiles;
use super::winograd::strips::Strips;
use super::{Arithmetic, CpuBackend, dense, winograd};
#[cfg(target_arch = "x86_64")]
use crate::RecurrentCell;
use crate::{Layer, LayerKernels, Norm};

impl CpuBackend {
    /// The names of the kernels that compute a layer.
    pub(super) fn choice(&self, layer: &Layer) -> LayerKernels {
        let to = |columns: usize, strips: Option<Strips>, on_tile_unit: bool| {
            let how = match (strips, self.tiles(layer)) {
                _ if on_tile_unit => return format!("AMX tiles, {}", self.set),
                (Some(_), _) => "Winograd strips",
                (None, Some(_)) => "Winograd tiles",
                (None, None) => "plain sums",
            };
            format!("{how}, {}", self.set.for_columns(columns).name())
        };
        let product = self.product_on_tile_unit(layer) || self.on_tile_unit(layer);
        let [forward, backward] =
            [Direction::Forward, Direction::Backward].map(|way| self.strips(layer, way));
        LayerKernels {
            forward: to(layer.outputs, forward, product),
            feedback: to(layer.inputs, backward, product),
            weight_gradient: to(
                layer.outputs,
                self.strips_of_gradient(layer),
                self.matrix_gradient_on_tile_unit(layer) || self.on_tile_unit(layer),
            ),
        }
    }

    /// Whether the tile unit computes a layer's products, in place of plain sums and of tiled convolutions.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn on_tile_unit(&self, layer: &Layer) -> bool {
        let suits = match self.arithmetic {
            Arithmetic::F32 => amx::suits_parts(layer),
            Arithmetic::Bf16 => amx::suits(layer),
            Arithmetic::Strict => false,
        };
        self.set == InstructionSet::Amx && suits
    }

    /// Whether it computes the gradient of a layer that is a single matrix, in one product of all samples.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn matrix_gradient_on_tile_unit(&self, layer: &Layer) -> bool {
        let suits = match self.arithmetic {
            Arithmetic::F32 => amx::suits_parts_of_matrix(layer),
            Arithmetic::Bf16 => amx::suits(layer) && layer.wiring.taps() == 1,
            Arithmetic::Strict => false,
        };
        self.set == InstructionSet::Amx && suits
    }

    /// Whether it computes the steps of a recurrent cell.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn cell_on_tile_unit(&self, cell: &RecurrentCell) -> bool {
        let plain = self.arithmetic == Arithmetic::Strict;
        self.set == InstructionSet::Amx && !plain && amx::suits_cell(cell.width)
    }

    /// Whether it computes the forward pass and feedback of a dense layer, packing its matrix on the way.
    pub(super) fn product_on_tile_unit(&self, layer: &Layer) -> bool {
        self.matrix_gradient_on_tile_unit(layer) && dense::is_product(layer)
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn on_tile_unit(&self, _: &Layer) -> bool {
        false
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn matrix_gradient_on_tile_unit(&self, _: &Layer) -> bool {
        false
    }

    /// Whether a layer's activations are kept in 16 bits: where tiles may read them, be they Winograd's or the tile unit's.
    pub(super) fn halves_activations(&self, layer: &Layer) -> bool {
        let wide = layer.wiring.taps() > 1 && layer.outputs >= winograd::FEWEST_CHANNELS;
        // Between the two passes of that norm their place holds other values.
        self.rounds() && wide && layer.norm != Norm::Channel
    }

    /// Whether its deltas are: where tiles compute it, or strips its gradient, which then read them.
    pub(super) fn halves_deltas(&self, layer: &Layer) -> bool {
        let in_tiles = self.on_tile_unit(layer) || self.tiles(layer).is_some();
        let in_strips = self.strips_of_gradient(layer).is_some();
        self.halves_activations(layer) && (in_tiles || in_strips)
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
        Strips::of_gather(layer, depth)
            .filter(|_| self.arithmetic != Arithmetic::Strict && self.tiles(layer).is_none())
    }

    /// The strips in which its weight gradient is computed, if it is.
    pub(super) fn strips_of_gradient(&self, layer: &Layer) -> Option<Strips> {
        Strips::of_gradient(layer)
            .filter(|_| self.arithmetic != Arithmetic::Strict && self.tiles(layer).is_none())
    }
}
