//! Weight gradients whose deltas are made on the way: while they are in cache, and not stored where nobody else reads
//! them.

use super::buffer::CpuBuffer;
use super::pack::{Direction, Packing, pack};
use super::panel::Slopes;
use super::pointer::Pointer;
use super::scratch::Scratch;
use super::sweep::Fill;
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
        let set = self.set.for_columns(port.outputs);
        let rounded = self.rounds();
        let len = port.locations() * batch * port.outputs;
        self.with_scratch(|scratch| {
            let Scratch {
                packed,
                partials,
                parts,
                ..
            } = scratch;
            let mut workers = self.workers(set, parts);
            let (through, scale) = match signal {
                Signal::Chain {
                    layer,
                    weight,
                    delta,
                } => {
                    let weight = (&weight[..layer.weights()], rounded);
                    let direction = Direction::Backward;
                    let panels = &delta[..layer.locations() * batch * layer.outputs];
                    let through = if self.strips(layer, direction).is_some() {
                        let packing = strips::pack(&workers, layer, direction, weight, packed);
                        Through::Strips {
                            panels,
                            packed,
                            packing,
                        }
                    } else {
                        let (taps, depth) = (layer.wiring.taps(), layer.outputs);
                        let packing = Packing::new(set.lanes(), taps, depth, layer.inputs);
                        pack(&self.threads, direction, weight, packing, packed);
                        Through::Links(Fill::Gather {
                            links: layer.wiring.backward(),
                            panels,
                            packed,
                            packing,
                        })
                    };
                    (through, layer.scale)
                }
                Signal::Direct {
                    wires,
                    weight,
                    error,
                } => {
                    let (taps, depth) = (wires.wiring.taps(), wires.inputs);
                    let packing = Packing::new(set.lanes(), taps, depth, wires.outputs);
                    let weight = (&weight[..wires.weights()], rounded);
                    pack(&self.threads, Direction::Forward, weight, packing, packed);
                    let through = Through::Links(Fill::Gather {
                        links: wires.wiring.forward(),
                        panels: &error[..wires.sources() * batch * depth],
                        packed,
                        packing,
                    });
                    (through, wires.scale)
                }
            };
            // The channel norm alone needs sums.
            let no_sums = Pointer::new(&mut []);
            let arriving = Arriving {
                through,
                slopes: Slopes {
                    norm: port.norm,
                    activation: port.activation,
                    scale: scale as f32,
                },
                path: feedback_port(port, len, path, rounded, no_sums),
                goes_on,
                local: local.map(|local| feedback_port(port, len, local, rounded, no_sums)),
            };
            let deltas = Deltas::Arriving(&arriving);
            let input = &input[..port.sources() * batch * port.inputs];
            let gradient = (&mut weights[..port.weights()], &mut biases[..]);
            let layer = (port, strips);
            strips::gradient(
                &mut workers,
                layer,
                batch,
                input,
                deltas,
                partials,
                gradient,
            );
        });
    }

    /// The strips of the layer where the signal lands, if its deltas can be made segment by segment.
    fn arriving(&self, work: &SignalGradient<'_, CpuBuffer>) -> Option<Strips> {
        let port = work.port;
        // The channel norm knows a panel's deltas only once all panels are there.
        if port.norm == Norm::Channel || self.on_tile_unit(port) || self.tiles(port).is_some() {
            return None;
        }
        let through = match work.signal {
            Signal::Chain { layer, .. } => layer,
            Signal::Direct { wires, .. } => wires,
        };
        let segment_by_segment = !self.on_tile_unit(through)
            && self.tiles(through).is_none()
            && !dense::is_product(through);
        self.strips_of_gradient(port).filter(|_| segment_by_segment)
    }
}
