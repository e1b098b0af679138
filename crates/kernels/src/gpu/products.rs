//! Starts the kernels that multiply: which of them, with how many work-groups.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::gradient::{GradientSizesLaunch, GradientTile, add_parts, bias_part, gradient_part};
use super::group::{GroupLaunch, land, normalise};
use super::launch::{grid, per_value, units};
use super::panel::{Arrival, feedback_panel, forward_panel, product};
use super::tile::{Direction, MOST_ROWS, SIDE, SizesLaunch, Tile, columns_a_thread};
use super::wiring::DeviceWiring;
use crate::{Landing, Layer, NORM_EPSILON, Norm, Record};
use cubecl::prelude::*;

/// Work-groups that a weight gradient is cut into at least, where there are links enough.
const GRADIENT_GROUPS: usize = 512;

/// The walk of a product over a layer's wiring.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    layer: &'a Layer,
    batch: usize,
    direction: Direction,
    tile: Tile,
}

impl<'a> Walk<'a> {
    pub(super) fn new(layer: &'a Layer, batch: usize, direction: Direction) -> Self {
        let columns = match direction {
            Direction::Forward => layer.outputs,
            Direction::Backward => layer.inputs,
        };
        Self {
            layer,
            batch,
            direction,
            tile: Tile::new(batch, columns),
        }
    }

    /// Source panels, their channels, destination panels, their channels.
    fn ends(&self) -> [usize; 4] {
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

    fn input_len(&self) -> usize {
        let [panels, channels, ..] = self.ends();
        panels * self.batch * channels
    }

    fn output_len(&self) -> usize {
        let [.., panels, channels] = self.ends();
        panels * self.batch * channels
    }

    fn sizes<R: Runtime>(&self) -> SizesLaunch<R> {
        let [_, channels, locations, columns] = self.ends();
        SizesLaunch::new(self.batch, channels, columns, locations, 0)
    }

    fn links<R: Runtime>(&self, wiring: &DeviceWiring) -> ArrayArg<R> {
        match self.direction {
            Direction::Forward => wiring.forward.argument(),
            Direction::Backward => wiring.backward.argument(),
        }
    }

    fn count(&self) -> CubeCount {
        let [.., locations, columns] = self.ends();
        let tile = self.tile;
        grid(locations, tile.across(columns), tile.down(self.batch))
    }
}

/// Whether a panel's statistics are those of one work-group's rows.
fn fused(norm: Norm, batch: usize) -> bool {
    norm != Norm::Channel && batch <= MOST_ROWS
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

impl<R: Runtime> GpuBackend<R> {
    /// `out = scale · product + bias`.
    pub(super) fn product(
        &self,
        walk: Walk<'_>,
        scale: f64,
        weight: &GpuBuffer<R>,
        bias: Option<&GpuBuffer<R>>,
        input: &GpuBuffer<R>,
        out: &GpuBuffer<R>,
    ) {
        let wiring = self.wiring(&walk.layer.wiring);
        let links = walk.links(&wiring);
        let [.., columns] = walk.ends();
        let shift = bias.map_or_else(|| self.nothing.all(), |bias| bias.first(columns));
        // SAFETY: every argument is as long as the walk's sizes say (`first` asserts it), links name panels of the
        // wiring only, and the kernel keeps to rows and columns within the sizes.
        unsafe {
            product::launch_unchecked(
                self.next(),
                walk.count(),
                units(),
                weight.first(walk.layer.weights()),
                input.first(walk.input_len()),
                links,
                shift,
                out.first(walk.output_len()),
                walk.sizes(),
                scale as f32,
                walk.tile,
                walk.direction,
                bias.is_some(),
            );
        }
    }

    /// A layer's forward pass.
    pub(super) fn forward_pass(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &GpuBuffer<R>,
        bias: &GpuBuffer<R>,
        input: &GpuBuffer<R>,
        out: &Record<GpuBuffer<R>>,
    ) {
        let walk = Walk::new(layer, batch, Direction::Forward);
        let len = walk.output_len();
        if !fused(layer.norm, batch) {
            self.product(walk, layer.scale, weight, Some(bias), input, &out.z);
            let (count, rows) = groups(layer, batch);
            // SAFETY: z and a hold all rows of all groups (`first` asserts it), and the kernel keeps to them.
            unsafe {
                normalise::launch_unchecked(
                    self.next(),
                    grid(count, layer.outputs.div_ceil(SIDE) as u32, 1),
                    units(),
                    out.z.first(len),
                    out.a.first(len),
                    out.inverse_deviation.first(layer.deviations()),
                    GroupLaunch::new(rows, layer.outputs, rows),
                    NORM_EPSILON as f32,
                    arrival(layer),
                );
            }
            return;
        }
        let wiring = self.wiring(&layer.wiring);
        // SAFETY: as in `product`; the inverse deviations are one for each location and channel, or not touched.
        unsafe {
            forward_panel::launch_unchecked(
                self.next(),
                walk.count(),
                units(),
                weight.first(layer.weights()),
                input.first(walk.input_len()),
                wiring.forward.argument(),
                bias.first(layer.outputs),
                out.z.first(len),
                out.a.first(len),
                out.inverse_deviation.first(layer.deviations()),
                walk.sizes(),
                layer.scale as f32,
                walk.tile,
                arrival(layer),
            );
        }
    }

    /// A product whose result is a signal that lands at `port`, in one network or in two.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn product_lands(
        &self,
        walk: Walk<'_>,
        port: &Layer,
        weight: &GpuBuffer<R>,
        input: &GpuBuffer<R>,
        path: Landing<'_, GpuBuffer<R>>,
        local: Option<Landing<'_, GpuBuffer<R>>>,
    ) {
        let len = walk.output_len();
        let batch = walk.batch;
        if !fused(port.norm, batch) {
            let signal = GpuBuffer::empty(self.client(), len);
            self.product(walk, walk.layer.scale, weight, None, input, &signal);
            let path_z = &path.record.z;
            if let Some(local) = local {
                self.signal_lands(
                    port,
                    batch,
                    &signal,
                    batch * port.locations(),
                    path_z,
                    local,
                );
            }
            self.signal_lands(port, batch, &signal, batch * port.locations(), path_z, path);
            return;
        }
        let wiring = self.wiring(&walk.layer.wiring);
        let links = walk.links(&wiring);
        let second = local.is_some();
        let (local_z, local_inverse, local_delta) = match local {
            Some(local) => (
                local.record.z.first(len),
                local.record.inverse_deviation.first(port.deviations()),
                local.delta.first(len),
            ),
            None => (self.nothing.all(), self.nothing.all(), self.unwritten.all()),
        };
        // SAFETY: as in `product`; what belongs to a second network is touched only if there is one.
        unsafe {
            feedback_panel::launch_unchecked(
                self.next(),
                walk.count(),
                units(),
                weight.first(walk.layer.weights()),
                input.first(walk.input_len()),
                links,
                path.record.z.first(len),
                path.record.inverse_deviation.first(port.deviations()),
                path.delta.first(len),
                local_z,
                local_inverse,
                local_delta,
                walk.sizes(),
                walk.layer.scale as f32,
                walk.tile,
                walk.direction,
                arrival(port),
                second,
            );
        }
    }

    /// `ψ = scale · σ′(z_path) ⊙ signal` lands in one network. `signal` has `rows` rows, repeated over the
    /// locations if these are fewer than all.
    pub(super) fn scaled_signal_lands(
        &self,
        port: &Layer,
        batch: usize,
        scale: f64,
        signal: (&GpuBuffer<R>, usize),
        path_z: &GpuBuffer<R>,
        landing: Landing<'_, GpuBuffer<R>>,
    ) {
        let (signal, signal_rows) = signal;
        let len = port.locations() * batch * port.outputs;
        let (count, rows) = groups(port, batch);
        // SAFETY: z and delta hold all rows of all groups and the signal its own (`first` asserts it); the kernel
        // keeps to them.
        unsafe {
            land::launch_unchecked(
                self.next(),
                grid(count, port.outputs.div_ceil(SIDE) as u32, 1),
                units(),
                signal.first(signal_rows * port.outputs),
                path_z.first(len),
                landing.record.z.first(len),
                landing.record.inverse_deviation.first(port.deviations()),
                landing.delta.first(len),
                GroupLaunch::new(rows, port.outputs, signal_rows),
                scale as f32,
                arrival(port),
            );
        }
    }

    fn signal_lands(
        &self,
        port: &Layer,
        batch: usize,
        signal: &GpuBuffer<R>,
        rows: usize,
        path_z: &GpuBuffer<R>,
        landing: Landing<'_, GpuBuffer<R>>,
    ) {
        self.scaled_signal_lands(port, batch, 1.0, (signal, rows), path_z, landing);
    }

    /// Weight and bias gradients of a layer.
    pub(super) fn gradients(
        &self,
        layer: &Layer,
        batch: usize,
        input: &GpuBuffer<R>,
        delta: &GpuBuffer<R>,
        weights: &GpuBuffer<R>,
        biases: &GpuBuffer<R>,
    ) {
        let tile = GradientTile {
            inputs: columns_a_thread(layer.inputs),
            outputs: columns_a_thread(layer.outputs),
        };
        let taps = layer.wiring.taps();
        let across = layer.inputs.div_ceil(SIDE * tile.inputs);
        let down = layer.outputs.div_ceil(SIDE * tile.outputs);
        let longest = layer.wiring.forward().len().div_ceil(taps).max(1);
        let parts = GRADIENT_GROUPS
            .div_ceil(across * down * taps)
            .clamp(1, longest);
        let len = layer.weights();
        let wiring = self.wiring(&layer.wiring);
        let rows = layer.locations() * batch;
        self.in_parts(parts, len, weights, |parts, out| {
            // SAFETY: input and delta hold every panel that the links name (`first` asserts it), `out` a weight
            // tensor for each part; the kernel keeps to these sizes.
            unsafe {
                gradient_part::launch_unchecked(
                    self.next(),
                    grid(across, down as u32, (taps * parts) as u32),
                    units(),
                    input.first(layer.sources() * batch * layer.inputs),
                    delta.first(rows * layer.outputs),
                    wiring.by_tap.argument(),
                    out.first(parts * len),
                    GradientSizesLaunch::new(batch, layer.inputs, layer.outputs, taps, parts),
                    layer.scale as f32,
                    tile,
                );
            }
        });
        let groups = layer.outputs.div_ceil(SIDE);
        let parts = (GRADIENT_GROUPS / groups).clamp(1, rows.div_ceil(8 * SIDE));
        self.in_parts(parts, layer.outputs, biases, |parts, out| {
            // SAFETY: as above, with a bias for each part.
            unsafe {
                bias_part::launch_unchecked(
                    self.next(),
                    grid(groups, parts as u32, 1),
                    units(),
                    delta.first(rows * layer.outputs),
                    out.first(parts * layer.outputs),
                    rows,
                    layer.outputs,
                    parts,
                );
            }
        });
    }

    /// Lets `work` write parts of a sum of `len` values and adds them into `out`; a single part is written there
    /// directly.
    fn in_parts(
        &self,
        parts: usize,
        len: usize,
        out: &GpuBuffer<R>,
        work: impl FnOnce(usize, &GpuBuffer<R>),
    ) {
        if parts == 1 {
            work(1, out);
            return;
        }
        let scratch = GpuBuffer::empty(self.client(), parts * len);
        work(parts, &scratch);
        // SAFETY: the scratch holds `parts` times `len` values, `out` at least `len`.
        unsafe {
            add_parts::launch_unchecked(
                self.next(),
                per_value(len),
                units(),
                scratch.all(),
                out.first(len),
                parts,
                len,
            );
        }
    }
}
