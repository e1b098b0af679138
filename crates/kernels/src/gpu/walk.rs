//! What a product walks over: a layer's wiring in one of its directions, and what the layer reads.

use super::buffer::{Fragments, GpuBuffer, Ribbon, Unfolding};
use super::cuda;
use super::operands::{Form, Operands};
use super::tile::{Direction, SIDE, Tile};
use super::units::{By, Panels, Patch, Units};
use super::wiring::{DeviceWiring, Patches, RibbonTaps};
use super::work::{Item, Kernel, Span};
use crate::Layer;
use std::sync::Arc;

/// The walk of a product over a layer's wiring.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) layer: &'a Layer,
    pub(super) batch: usize,
    pub(super) direction: Direction,
    pub(super) tile: Tile,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        layer: &'a Layer,
        batch: usize,
        direction: Direction,
        operands: Operands,
        units: Units,
    ) -> Self {
        let (locations, columns) = match direction {
            Direction::Forward => (layer.locations(), layer.outputs),
            Direction::Backward => (layer.sources(), layer.inputs),
        };
        Self {
            layer,
            batch,
            direction,
            tile: Tile::new(
                locations,
                batch,
                columns,
                operands,
                units.of(
                    operands,
                    locations * batch * columns,
                    [layer.inputs, layer.outputs],
                ),
            ),
        }
    }

    /// Source panels, their channels, destination panels, their channels.
    pub(super) fn ends(&self) -> [usize; 4] {
        let layer = self.layer;
        let (below, above) = (
            [layer.sources(), layer.inputs],
            [layer.locations(), layer.outputs],
        );
        let (from, to) = match self.direction {
            Direction::Forward => (below, above),
            Direction::Backward => (above, below),
        };
        [from[0], from[1], to[0], to[1]]
    }

    pub(super) fn input_len(&self) -> usize {
        let [panels, channels, ..] = self.ends();
        panels * self.batch * channels
    }

    pub(super) fn output_len(&self) -> usize {
        let [.., panels, channels] = self.ends();
        panels * self.batch * channels
    }

    fn groups(&self) -> usize {
        let [.., locations, columns] = self.ends();
        self.tile.groups(locations, self.batch, columns)
    }

    /// An item of this product, its walk among the words.
    pub(super) fn item(
        &self,
        kernel: Kernel,
        scale: f64,
        weight: Span,
        input: Span,
        wiring: &DeviceWiring,
    ) -> Item {
        let columns = self.ends()[3];
        let (links, groups) = match (self.tile.units.by(), self.direction) {
            (By::Groups(wide), direction) => {
                let bundles = wiring.bundles(direction, wide.panels);
                (&bundles.list, bundles.count * columns / self.tile.columns)
            }
            (By::Patches(patch), _) => {
                let patches = self.patches(wiring, patch).expect("looked up before");
                return self.item_of(
                    kernel,
                    scale,
                    [weight, input],
                    patches.list.start,
                    patches.count,
                );
            }
            (_, Direction::Forward) => (&wiring.forward, self.groups()),
            (_, Direction::Backward) => (&wiring.backward, self.groups()),
        };
        self.item_of(kernel, scale, [weight, input], links.start, groups)
    }

    fn item_of(
        &self,
        kernel: Kernel,
        scale: f64,
        [weight, input]: [Span; 2],
        links: usize,
        groups: usize,
    ) -> Item {
        let [_, channels, locations, columns] = self.ends();
        Item::new(kernel, groups)
            .reads(weight)
            .reads(input)
            .count(links)
            .counts([self.batch, channels, columns, locations])
            .factor(scale)
            .counts([self.input_len(), self.layer.wiring.taps()])
    }

    /// Weights and source panels as the product reads them.
    pub(super) fn operands(
        &self,
        weight: &GpuBuffer,
        input: &Input<'_>,
        wiring: &DeviceWiring,
    ) -> [Span; 2] {
        let lengths = [self.layer.weights(), self.input_len()];
        let units = self.tile.units;
        if !units.cuts() {
            return [weight.first(lengths[0]), input.buffer.first(lengths[1])];
        }
        let form = units.form(self.tile.operands);
        let sides = [self.batch, self.ends()[1]];
        let in_eights = units.blocks(self.tile.operands, cuda::EIGHT, sides);
        let weight = match units.by() {
            By::Groups(_) => {
                let [panels, channels, ..] = self.ends();
                let blocks = |sides| units.blocks(self.tile.operands, cuda::BLOCK, sides);
                let of_weights = blocks([cuda::BLOCK, self.layer.outputs]);
                let of_input = blocks([self.batch, channels]);
                let input = input.cut(of_input, panels * self.batch * channels);
                return [weight.cut(of_weights, lengths[0]), input];
            }
            By::Patches(patch) => {
                let (channels, columns) = (patch.channels, self.ends()[3]);
                let taps = self.ribbon(wiring, columns);
                let ribbon = Ribbon {
                    taps: taps.taps,
                    taps_at: taps.list.start,
                    channels,
                    columns,
                    backward: self.direction == Direction::Backward,
                };
                return [
                    weight.ribbon(form, ribbon, lengths[0]),
                    input.cut(in_eights, lengths[1]),
                ];
            }
            By::Panels(Panels {
                channels, eights, ..
            }) => {
                let fragments = Fragments {
                    taps: self.layer.wiring.taps(),
                    channels,
                    columns: self.ends()[3],
                    backward: self.direction == Direction::Backward,
                };
                let of_input = if eights { in_eights } else { form };
                return [
                    weight.fragments(form, fragments),
                    input.cut(of_input, lengths[1]),
                ];
            }
            By::Pieces => weight.cut(form, lengths[0]),
            By::Stacks(_) => unreachable!("only gradients are summed over stacks"),
        };
        [weight, input.cut(form, lengths[1])]
    }

    /// The same product, by groups of warps where both its ends lie in blocks.
    pub(super) fn in_groups(mut self) -> Self {
        let [.., locations, columns] = self.ends();
        let (batch, operands) = (self.batch, self.tile.operands);
        let both = self.lies_in(cuda::BLOCK);
        let tile = &mut self.tile;
        if let Units::Cuda(parts) = &mut tile.units
            && parts.cut
            && both
        {
            let wide = cuda::wide_product(locations, batch, columns, operands);
            tile.columns = wide.blocks() * cuda::BLOCK;
            tile.rows = batch.next_multiple_of(cuda::SAMPLES);
            parts.by = By::Groups(wide);
        }
        self
    }

    /// The ribbon of the stacks of panels of so many channels.
    fn ribbon(&self, wiring: &DeviceWiring, columns: usize) -> Arc<RibbonTaps> {
        let panels = cuda::STACKED / columns;
        wiring.ribbon(&self.layer.wiring, self.direction, panels)
    }

    fn patches(&self, wiring: &DeviceWiring, patch: Patch) -> Option<Arc<Patches>> {
        let shape = patch.shape(self.ends()[3]);
        wiring.patches(&self.layer.wiring, self.direction, shape)
    }

    /// The same product, by groups of warps that make neighbouring panels together, where both its ends lie in blocks of
    /// eight channels.
    fn in_patches(mut self, wiring: &DeviceWiring, lands: bool) -> Self {
        let [_, channels, locations, columns] = self.ends();
        let (batch, operands) = (self.batch, self.tile.operands);
        if !self.lies_in(cuda::EIGHT) || !self.tile.units.cuts() || !cuda::in_company(columns) {
            return self;
        }
        let taps = self.ribbon(wiring, columns).taps;
        let sides = [batch, channels, columns];
        let choices = cuda::patches(locations, sides, taps, operands, lands);
        let there = |patch: &Patch| self.patches(wiring, *patch).is_some();
        if let Some(patch) = choices.into_iter().find(there) {
            self.tile.columns = columns;
            self.tile.rows = batch.next_multiple_of(cuda::SAMPLES);
            self.tile.units = self.tile.units.taking(By::Patches(patch));
        }
        self
    }

    /// Whether both its ends lie in blocks of so many channels.
    fn lies_in(&self, wanted: usize) -> bool {
        let [sources, channels, locations, columns] = self.ends();
        let ends = [[sources, channels], [locations, columns]];
        let block = |[panels, channels]: [usize; 2]| {
            let sides = [panels, self.batch, channels];
            self.tile.units.block(self.tile.operands, sides)
        };
        ends.map(block) == [Some(wanted); 2]
    }

    /// The same product, whose work-groups hold all rows of a panel: by groups of warps where operands lie as these take
    /// them, else with a warp for each panel where channels are few. `lands` says whether it reads z.
    pub(super) fn of_whole_panels(mut self, wiring: &DeviceWiring, lands: bool) -> Self {
        self = self.in_groups().in_patches(wiring, lands);
        let [_, channels, locations, columns] = self.ends();
        let eights = self.lies_in(cuda::EIGHT);
        let tile = &mut self.tile;
        let Units::Cuda(parts) = &mut tile.units else {
            return self;
        };
        if parts.cut
            && parts.by == By::Pieces
            && parts.result.in_blocks() == eights
            && let Some([wide, warps]) = cuda::columns_and_warps(locations, channels, columns)
        {
            parts.by = By::Panels(Panels {
                channels,
                warps,
                eights,
            });
            tile.rows = self.batch.div_ceil(SIDE);
            tile.columns = wide;
        }
        self
    }

    /// The same product, with a result that lies in such a form.
    pub(super) fn giving(mut self, result: Form) -> Self {
        self.tile.units = self.tile.units.giving(result);
        self
    }

    /// The same product, of operands that are plain.
    pub(super) fn plain(mut self) -> Self {
        if let Units::Cuda(parts) = &mut self.tile.units {
            parts.cut = false;
        }
        self
    }
}

/// What a layer reads.
pub(super) struct Input<'a> {
    pub(super) buffer: &'a GpuBuffer,
    /// If it is to be unfolded: how, and of how many sources.
    pub(super) unfolding: Option<(Unfolding, usize)>,
}

impl<'a> Input<'a> {
    pub(super) fn of(buffer: &'a GpuBuffer) -> Self {
        Self {
            buffer,
            unfolding: None,
        }
    }

    /// `len` values as products read them that are cut.
    pub(super) fn cut(&self, form: Form, len: usize) -> Span {
        match &self.unfolding {
            Some((unfolding, sources)) => self.buffer.unfolded(form, unfolding, *sources),
            None => self.buffer.cut(form, len),
        }
    }
}
