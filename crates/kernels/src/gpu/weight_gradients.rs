//! Notes the kernels of a layer's gradients: which of them, in how many parts.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::cuda;
use super::gradient::GradientTile;
use super::launch::groups_of;
use super::operands::Form;
use super::tile::SIDE;
use super::units::{By, Units};
use super::walks::{WalkShape, share_words};
use super::wiring::DeviceWiring;
use super::work::{Item, Kernel, Span};
use crate::Layer;

/// Work-groups that a weight gradient is cut into at least, where there are links enough.
const GRADIENT_GROUPS: usize = 512;

/// How a weight gradient is summed.
struct Plan {
    tile: GradientTile,
    /// Where its links begin, or what stands for them.
    links: usize,
    /// Work-groups of a part, and parts.
    groups: usize,
    parts: usize,
}

impl GpuBackend {
    /// How the weight gradient of a layer is summed, whose operands are cut if `units` say so.
    fn plan_of_gradient(
        &self,
        layer: &Layer,
        len: usize,
        batch: usize,
        units: Units,
        wiring: &DeviceWiring,
    ) -> Plan {
        let (taps, operands) = (layer.wiring.taps(), self.operands);
        let channels = [layer.inputs, layer.outputs];
        let ends = [layer.sources(), layer.locations()];
        let block = |end: usize| units.block(operands, [ends[end], batch, channels[end]]);
        let blocks = match units.cuts() {
            true => [0, 1].map(block),
            false => [None; 2],
        };
        if wiring.unfolds
            && blocks == [Some(cuda::EIGHT); 2]
            && let Some(plan) = self.plan_of_stacks(layer, batch, units, wiring)
        {
            return plan;
        }
        let few = cuda::sides_of_all_taps(channels, taps);
        if let Some([inputs, outputs]) = few.filter(|_| units.cuts() && wiring.unfolds) {
            let tile = GradientTile {
                inputs,
                outputs,
                all_taps: taps,
                panel: [0; 2],
                operands,
                units,
            };
            let [across, down] = tile.groups(layer.inputs, layer.outputs);
            let groups = across * down;
            let longest = layer.locations().div_ceil(cuda::WARPS);
            return Plan {
                tile,
                links: wiring.forward.start,
                groups,
                parts: cuda::GRADIENT_GROUPS.div_ceil(groups).clamp(1, longest),
            };
        }
        let tile = match blocks == [Some(cuda::BLOCK); 2] {
            true => GradientTile::in_groups(channels, batch, operands, units),
            false => GradientTile::new(channels[0], channels[1], operands, units),
        };
        let [across, down] = tile.groups(layer.inputs, layer.outputs);
        let longest = layer.wiring.forward().len().div_ceil(taps).max(1);
        let groups = across * down * taps;
        let parts = match (self.units, tile.units.by()) {
            (_, By::Groups(wide)) => cuda::parts_of_wide_gradient(wide, groups, longest, len),
            (Units::Cuda(_), _) => cuda::GRADIENT_GROUPS.div_ceil(groups).clamp(1, longest),
            (Units::Scalar | Units::Matrix, _) => {
                GRADIENT_GROUPS.div_ceil(groups).clamp(1, longest)
            }
        };
        Plan {
            tile,
            links: wiring.by_tap.start,
            groups,
            parts,
        }
    }

    /// The same over stacks of neighbouring panels, if there is room for it.
    fn plan_of_stacks(
        &self,
        layer: &Layer,
        batch: usize,
        units: Units,
        wiring: &DeviceWiring,
    ) -> Option<Plan> {
        let (inputs, outputs, operands) = (layer.inputs, layer.outputs, self.operands);
        let [halves, stages] = cuda::stages_of_stacks(batch, operands);
        let panels = cuda::STACKED / outputs;
        let shape = WalkShape {
            panels,
            sources: cuda::STACKED / inputs,
            stages,
            blocks: cuda::MOST_BLOCKS,
            long: cuda::LONG_WALK,
            zeros: batch * cuda::EIGHT / 2,
        };
        let walks = wiring.walks(&layer.wiring, shape)?;
        let [blocks, taps, slots] = walks.sizes;
        let words = share_words(taps, blocks * (cuda::STACKED / inputs) * panels);
        if !cuda::share_fits(words, slots * inputs * outputs) {
            return None;
        }
        let work = cuda::stacks(batch, walks.sizes, operands);
        let tile = GradientTile {
            inputs,
            outputs,
            all_taps: 0,
            panel: [batch, 1],
            operands,
            units: units.taking(By::Stacks(work)),
        };
        Some(Plan {
            tile,
            links: walks.list.start,
            groups: walks.shares,
            parts: walks.parts * halves,
        })
    }

    /// Weight and bias gradients of a layer.
    pub(super) fn gradients(
        &self,
        layer: &Layer,
        batch: usize,
        input: &GpuBuffer,
        delta: &GpuBuffer,
        weights: &GpuBuffer,
        biases: &GpuBuffer,
    ) {
        let (len, given) = (layer.weights(), input);
        let (layer, input) = &self.unfolded(layer, batch, given);
        let values = [
            layer.sources() * batch * layer.inputs,
            layer.locations() * batch * layer.outputs,
        ];
        let units = self
            .units
            .of(self.operands, len, [layer.inputs, layer.outputs]);
        // What lies in blocks is read as that or plain.
        let delta_form = match delta.form(values[1]) {
            form if units.cuts() || form.in_blocks() => Form::Plain,
            form => form,
        };
        let units = units.of_cut_operand(delta_form);
        let taps = layer.wiring.taps();
        let wiring = self.wiring(&layer.wiring);
        let Plan {
            tile,
            links,
            groups,
            parts,
        } = self.plan_of_gradient(layer, len, batch, units, &wiring);
        let rows = layer.locations() * batch;
        let operands = match (tile.units.by(), delta_form) {
            (by @ (By::Groups(_) | By::Stacks(_)), _) => {
                let block = match by {
                    By::Groups(_) => cuda::BLOCK,
                    _ => cuda::EIGHT,
                };
                let form = |channels| {
                    let sides = [batch, channels];
                    units.blocks(self.operands, block, sides)
                };
                [
                    input.cut(form(layer.inputs), values[0]),
                    delta.cut(form(layer.outputs), values[1]),
                ]
            }
            _ if units.cuts() => {
                let form = units.form(self.operands);
                [input.cut(form, values[0]), delta.cut(form, values[1])]
            }
            (_, Form::Plain) => [given.first(values[0]), delta.first(values[1])],
            _ => [given.first(values[0]), delta.as_it_is(values[1])],
        };
        self.in_parts(parts, len, weights, |out| {
            let kernel = Kernel::GradientPart(tile, delta_form);
            Item::new(kernel, groups * parts)
                .reads(operands[0])
                .reads(operands[1])
                .count(links)
                .writes(out)
                .counts([batch, layer.inputs, layer.outputs, taps, parts])
                .factor(layer.scale)
                .counts(values)
                .counts([len / (taps * layer.outputs), layer.locations()])
        });
        if let Some(sums) = delta.sums(layer.locations(), layer.outputs) {
            self.add_parts(layer.locations(), layer.outputs, sums, biases);
            return;
        }
        let groups = layer.outputs.div_ceil(SIDE);
        let wanted = match self.units {
            Units::Cuda(_) => cuda::BIAS_GROUPS,
            Units::Scalar | Units::Matrix => GRADIENT_GROUPS,
        };
        let parts = (wanted / groups).clamp(1, rows.div_ceil(8 * SIDE));
        self.in_parts(parts, layer.outputs, biases, |out| {
            let kernel = Kernel::BiasPart(delta.form(values[1]));
            Item::new(kernel, groups * parts)
                .reads(delta.as_it_is(values[1]))
                .writes(out)
                .counts([rows, layer.outputs, parts, batch])
        });
    }

    /// Lets `work` write parts of a sum of `len` values and adds them into `out`; a single part is written there
    /// directly.
    fn in_parts(&self, parts: usize, len: usize, out: &GpuBuffer, work: impl FnOnce(Span) -> Item) {
        if parts == 1 {
            self.note(work(out.written(len)));
            return;
        }
        let room = out.parts(parts * len);
        self.note(work(room));
        self.add_parts(parts, len, room, out);
    }

    /// Adds parts of a sum of `len` values.
    fn add_parts(&self, parts: usize, len: usize, from: Span, out: &GpuBuffer) {
        let width = cuda::values_added_by_a_group(parts);
        let groups = match self.units {
            Units::Cuda(_) => len.div_ceil(width),
            Units::Scalar | Units::Matrix => groups_of(len),
        };
        let sum = Item::new(Kernel::AddParts, groups)
            .reads(from)
            .writes(out.written(len))
            .counts([parts, len, width]);
        self.note(sum);
    }
}
