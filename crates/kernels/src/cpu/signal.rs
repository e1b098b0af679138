//! Deltas that only a weight gradient reads, made where it needs them.

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
                    let packing = strips::pack(&workers, layer, direction, weight, packed);
                    let through = Through::Strips {
                        panels: &delta[..layer.locations() * batch * layer.outputs],
                        packed,
                        packing,
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
            let deltas = Deltas::Arriving(Arriving {
                through,
                slopes: Slopes {
                    norm: port.norm,
                    activation: port.activation,
                    scale: scale as f32,
                },
                path: feedback_port(port, len, path, rounded, no_sums),
                local: local.map(|local| feedback_port(port, len, local, rounded, no_sums)),
            });
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
        let segment_by_segment = match work.signal {
            Signal::Chain { layer, .. } => {
                !self.on_tile_unit(layer)
                    && self.tiles(layer).is_none()
                    && self.strips(layer, Direction::Backward).is_some()
            }
            Signal::Direct { wires, .. } => {
                !self.on_tile_unit(wires) && !dense::is_product(wires)
            }
        };
        self.strips_of_gradient(port).filter(|_| segment_by_segment)
    }
}
