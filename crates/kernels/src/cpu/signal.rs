//! Weight gradients whose deltas are made on the way: while they are in cache, and not stored where nobody else reads
//! them.

use super::buffer::CpuBuffer;
use super::fill::Fill;
use super::pack::{Direction, Packing, pack};
use super::panel::{FeedbackPort, Slopes};
use super::pointer::Pointer;
use super::scratch::Scratch;
use super::winograd::strips::{self, Arriving, Deltas, Strips, Through};
use super::{CpuBackend, dense, feedback_port};
use crate::{Norm, Signal, SignalGradient};

impl CpuBackend {
    /// See [`Backend::signal_gradient`](crate::Backend::signal_gradient).
    pub(super) fn gradient_of_signal(&self, work: SignalGradient<'_, CpuBuffer>) {
        let Some(strips) = self.arriving(&work) else {
            work.step_by_step(self);
            return;
        };
        let SignalGradient {
            signal,
            port,
            batch,
            path,
            goes_on,
            local,
            input,
            weights,
            biases,
        } = work;
        let (layer, direction, weight, panels) = match signal {
            Signal::Chain {
                layer,
                weight,
                delta,
            } => (layer, Direction::Backward, weight, delta),
            Signal::Direct {
                wires,
                weight,
                error,
            } => (wires, Direction::Forward, weight, error),
        };
        let set = self.set.for_columns(port.outputs);
        let rounded = self.rounds();
        let len = port.locations() * batch * port.outputs;
        self.with_scratch(|scratch| {
            let Scratch {
                packed,
                widened: [widened_panels, widened_input],
                partials,
                parts,
                ..
            } = scratch;
            let mut workers = self.workers(set, parts);
            let (links, sources, depth) = match direction {
                Direction::Forward => (layer.wiring.forward(), layer.sources(), layer.inputs),
                Direction::Backward => (layer.wiring.backward(), layer.locations(), layer.outputs),
            };
            let panels = panels.as_f32(sources * batch * depth, widened_panels);
            let weight = (&weight[..layer.weights()], rounded);
            let through = if self.strips(layer, direction).is_some() {
                let packing = strips::pack(&workers, layer, direction, weight, packed);
                Through::Strips {
                    panels,
                    packed,
                    packing,
                }
            } else {
                let packing = Packing::new(set.lanes(), layer.wiring.taps(), depth, port.outputs);
                pack(&self.threads, direction, weight, packing, packed);
                Through::Links(Fill::Gather {
                    links,
                    panels,
                    packed,
                    packing,
                })
            };
            // The channel norm alone needs sums.
            let no_sums = Pointer::new(&mut []);
            // The gradient reads deltas at once.
            let read_at_once = |landing| FeedbackPort {
                long: false,
                ..feedback_port(port, len, landing, (rounded, false), no_sums)
            };
            let arriving = Arriving {
                through,
                slopes: Slopes {
                    norm: port.norm,
                    activation: port.activation,
                    scale: layer.scale as f32,
                },
                path: read_at_once(path),
                goes_on,
                local: local.map(read_at_once),
            };
            let deltas = Deltas::Arriving(&arriving);
            let input = input.as_f32(port.sources() * batch * port.inputs, widened_input);
            let gradient = (&mut weights[..port.weights()], &mut biases[..]);
            strips::gradient(
                &mut workers,
                (port, strips),
                batch,
                input,
                deltas,
                partials,
                gradient,
            );
        });
    }

    /// The strips of the layer where the signal lands, if its deltas can be made segment by segment, with the same bits as
    /// all at once.
    fn arriving(&self, work: &SignalGradient<'_, CpuBuffer>) -> Option<Strips> {
        let port = work.port;
        // The channel norm knows a panel's deltas only once all panels are there.
        if port.norm == Norm::Channel || self.on_tile_unit(port) || self.tiles(port).is_some() {
            return None;
        }
        let (through, direction) = match work.signal {
            Signal::Chain { layer, .. } => (layer, Direction::Backward),
            Signal::Direct { wires, .. } => (wires, Direction::Forward),
        };
        let in_strips = self.strips(through, direction).is_some();
        let segment_by_segment = !self.on_tile_unit(through)
            && self.tiles(through).is_none()
            && !dense::is_product(through)
            && (in_strips || through.wiring.same_grid().is_none());
        self.strips_of_gradient(port)
            .filter(|strips| segment_by_segment && strips.keep_busy(port, self.threads.count()))
    }
}
