//! Notes the kernels that multiply: which of them, with how many work-groups.

use super::backend::GpuBackend;
use super::buffer::{GpuBuffer, Unfolding};
use super::operands::Form;
use super::panel::Arrival;
use super::tile::{Direction, MOST_ROWS, SIDE};
use super::units::Units;
use super::walk::{Input, Walk};
use super::work::{Item, Kernel};
use crate::{Activation, ForwardPass, Kept, Landing, Layer, Norm, Record};

/// Whether a panel's statistics are those of one work-group's rows.
fn fused(norm: Norm, batch: usize) -> bool {
    norm != Norm::Channel && batch <= MOST_ROWS
}

/// How z lies where a product makes activations, or a delta, that lie so.
fn form_of_z(result: Form) -> Form {
    match result.in_blocks() {
        true => result,
        false => Form::Plain,
    }
}

pub(super) fn arrival(layer: &Layer) -> Arrival {
    Arrival {
        normalised: layer.norm != Norm::None,
        activation: layer.activation,
    }
}

/// Groups of a layer's norm, the rows of each.
fn groups(layer: &Layer, batch: usize) -> (usize, usize) {
    match layer.norm {
        Norm::Channel => (1, layer.locations() * batch),
        Norm::Location | Norm::None => (layer.locations(), batch),
    }
}

impl GpuBackend {
    /// The walk of a product of this backend's operands.
    pub(super) fn walk<'a>(
        &self,
        layer: &'a Layer,
        batch: usize,
        direction: Direction,
    ) -> Walk<'a> {
        Walk::new(layer, batch, direction, self.operands, self.units)
    }

    /// `out = scale · product + bias`.
    pub(super) fn product(
        &self,
        walk: Walk<'_>,
        scale: f64,
        weight: &GpuBuffer,
        bias: Option<&GpuBuffer>,
        input: &GpuBuffer,
        out: &GpuBuffer,
    ) {
        self.product_of(walk, scale, weight, bias, &Input::of(input), out);
    }

    fn product_of(
        &self,
        walk: Walk<'_>,
        scale: f64,
        weight: &GpuBuffer,
        bias: Option<&GpuBuffer>,
        input: &Input<'_>,
        out: &GpuBuffer,
    ) {
        let walk = walk.in_groups();
        let wiring = self.wiring(&walk.layer.wiring);
        let [.., columns] = walk.ends();
        let kernel = Kernel::Product {
            tile: walk.tile,
            direction: walk.direction,
            biased: bias.is_some(),
        };
        let shift = bias.map_or_else(|| self.nothing(), |bias| bias.first(columns));
        let [weight, input] = walk.operands(weight, input, &wiring);
        let item = walk
            .item(kernel, scale, weight, input, &wiring)
            .writes(out.written(walk.output_len()))
            .reads(shift);
        self.note(item);
    }

    /// How a layer's activations, or their deltas, are to lie in memory.
    fn result(&self, layer: &Layer, batch: usize) -> Form {
        let panels = [layer.locations(), batch, layer.outputs];
        self.units.result(self.operands, panels)
    }

    /// The layer that stands for one whose inputs are few, and what it reads.
    pub(super) fn unfolded<'a>(
        &self,
        layer: &Layer,
        batch: usize,
        input: &'a GpuBuffer,
    ) -> (Layer, Input<'a>) {
        let wiring = self.wiring(&layer.wiring);
        match self.units.unfolded(self.operands, layer, batch) {
            Some(wide) if wiring.unfolds => {
                let unfolding = Unfolding {
                    links: wiring.forward.start,
                    locations: layer.locations(),
                    taps: layer.wiring.taps(),
                    batch,
                    channels: layer.inputs,
                    wide,
                };
                let stands = Layer {
                    wiring: self.alone(layer.locations()),
                    inputs: wide,
                    ..layer.clone()
                };
                let input = Input {
                    buffer: input,
                    unfolding: Some((unfolding, layer.sources())),
                };
                (stands, input)
            }
            _ => (layer.clone(), Input::of(input)),
        }
    }

    /// A layer's forward pass.
    pub(super) fn run_forward(&self, pass: ForwardPass<'_, GpuBuffer>, out: &Record<GpuBuffer>) {
        let ForwardPass {
            layer,
            batch,
            weight,
            bias,
            input,
            kept,
        } = pass;
        // A thread writes z, then a: in one place, z is gone before it leaves the caches.
        let z = match kept {
            Kept::All | Kept::Slopes => &out.z,
            Kept::Nothing => &out.a,
        };
        let (layer, input) = &self.unfolded(layer, batch, input);
        let walk = self.walk(layer, batch, Direction::Forward);
        let len = walk.output_len();
        let inverse_deviation = out.inverse_deviation.first(layer.deviations());
        if !fused(layer.norm, batch) {
            self.product_of(walk, layer.scale, weight, Some(bias), input, z);
            let (count, rows) = groups(layer, batch);
            let kernel = Kernel::Normalise(arrival(layer));
            let item = Item::new(kernel, count * layer.outputs.div_ceil(SIDE))
                .writes(z.written(len))
                .writes(out.a.written(len))
                .writes(inverse_deviation)
                .counts([count, rows, layer.outputs]);
            self.note(item);
            return;
        }
        // An output that is a sum and nothing else is the network's: no product reads it.
        let result = match (layer.norm, layer.activation) {
            (Norm::None, Activation::Linear) => Form::Plain,
            _ => self.result(layer, batch),
        };
        let wiring = self.wiring(&layer.wiring);
        let walk = walk.giving(result).of_whole_panels(&wiring, false);
        let kernel = Kernel::ForwardPanel {
            tile: walk.tile,
            arrival: arrival(layer),
            z: !std::ptr::eq(z, &raw const out.a),
        };
        let [weight, input] = walk.operands(weight, input, &wiring);
        let item = walk
            .item(kernel, layer.scale, weight, input, &wiring)
            .writes(z.written_as(form_of_z(result), len))
            .writes(out.a.written_as(result, len))
            .writes(inverse_deviation)
            .reads(bias.first(layer.outputs));
        self.note(item);
    }

    /// A product whose result is a signal that lands at `port`, in one network or in two.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn product_lands(
        &self,
        walk: Walk<'_>,
        port: &Layer,
        weight: &GpuBuffer,
        input: &GpuBuffer,
        path: Landing<'_, GpuBuffer>,
        local: Option<Landing<'_, GpuBuffer>>,
    ) {
        let len = walk.output_len();
        let batch = walk.batch;
        if !fused(port.norm, batch) {
            let signal = GpuBuffer::empty(self.memory(), len);
            self.product(walk, walk.layer.scale, weight, None, input, &signal);
            let signal = (&signal, batch * port.locations());
            let path_z = &path.record.z;
            if let Some(local) = local {
                self.signal_lands(port, batch, 1.0, signal, path_z, local);
            }
            self.signal_lands(port, batch, 1.0, signal, path_z, path);
            return;
        }
        let result = self.result(port, batch);
        let wiring = self.wiring(&walk.layer.wiring);
        let walk = walk.giving(result).of_whole_panels(&wiring, true);
        let kernel = Kernel::FeedbackPanel {
            tile: walk.tile,
            direction: walk.direction,
            arrival: arrival(port),
            local: local.is_some(),
        };
        let lands = |item: Item, landing: &Landing<'_, GpuBuffer>| {
            let inverse_deviation = &landing.record.inverse_deviation;
            let z = match form_of_z(result) {
                Form::Plain => landing.record.z.first(len),
                form => landing.record.z.cut(form, len),
            };
            let item = item
                .reads(z)
                .reads(inverse_deviation.first(port.deviations()))
                .writes(landing.delta.written_as(result, len));
            match self.units {
                Units::Cuda(_) => {
                    item.writes(landing.delta.written_sums(port.locations(), port.outputs))
                }
                Units::Scalar | Units::Matrix => item.count(0),
            }
        };
        let [weight, input] = walk.operands(weight, &Input::of(input), &wiring);
        let item = walk.item(kernel, walk.layer.scale, weight, input, &wiring);
        let item = lands(item, &path);
        self.note(match local {
            Some(local) => lands(item, &local),
            None => item.counts([0; 4]),
        });
    }

    /// `ψ = scale · σ′(z_path) ⊙ signal` lands in one network. `signal` has so many rows, repeated over the
    /// locations if these are fewer than all.
    pub(super) fn signal_lands(
        &self,
        port: &Layer,
        batch: usize,
        scale: f64,
        (signal, signal_rows): (&GpuBuffer, usize),
        path_z: &GpuBuffer,
        landing: Landing<'_, GpuBuffer>,
    ) {
        let len = port.locations() * batch * port.outputs;
        let (count, rows) = groups(port, batch);
        let result = self.result(port, batch);
        // z is read as it lies if both networks' lie alike.
        let z = [path_z, &landing.record.z];
        let [form, other] = z.map(|z| z.form(len));
        let form = match form == other && form.in_blocks() {
            true => form,
            false => Form::Plain,
        };
        let [path_z, z] = z.map(|z| match form {
            Form::Plain => z.first(len),
            _ => z.as_it_is(len),
        });
        let kernel = Kernel::Land(arrival(port), [result, form]);
        let item = Item::new(kernel, count * port.outputs.div_ceil(SIDE))
            .reads(signal.first(signal_rows * port.outputs))
            .reads(path_z)
            .reads(z)
            .reads(landing.record.inverse_deviation.first(port.deviations()))
            .writes(landing.delta.written_as(result, len))
            .counts([count, rows, port.outputs, signal_rows])
            .factor(scale)
            .count(batch);
        self.note(match self.units {
            Units::Cuda(_) => item.writes(landing.delta.written_sums(count, port.outputs)),
            Units::Scalar | Units::Matrix => item.count(0),
        });
    }
}
