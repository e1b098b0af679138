//! Trials of what a device multiplies with: it is used where small integers come out right.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::operands::Operands;
use super::tile::Direction;
use super::units::{Parts, Units};
use crate::{Activation, Backend, Landing, Layer, Norm, Record, Reference, Wiring};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl GpuBackend {
    /// Rounds what products read to so many bits, when it is staged: what lies in memory stays f32. Matrix units
    /// multiply it where the device has them for such operands and passes a trial, which compiles one kernel.
    #[must_use]
    pub fn rounding(mut self, operands: Operands) -> Self {
        self.operands = operands;
        self.units = self
            .memory()
            .units(operands)
            .with_neighbours(self.neighbours);
        if self.units == Units::Matrix && !self.multiplies_exactly() {
            self.units = Units::Scalar;
        }
        self
    }

    /// Whether a product of small integers, which no precision rounds, is what it should be.
    ///
    /// CubeCL reports instructions for some devices that have none, and its kernels then do not compile.
    fn multiplies_exactly(&self) -> bool {
        const BATCH: usize = 40;
        const INPUTS: usize = 50;
        const OUTPUTS: usize = 36;
        let layer = Layer {
            wiring: Arc::new(Wiring::dense()),
            inputs: INPUTS,
            outputs: OUTPUTS,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        };
        let integers = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| (i * step % 11) as f32 - 5.0).collect()
        };
        let (weights, panel) = (integers(INPUTS * OUTPUTS, 7), integers(BATCH * INPUTS, 3));
        let [weight, input] = [&weights, &panel].map(|values| self.buffer_of(values));
        let out = GpuBuffer::empty(self.memory(), BATCH * OUTPUTS);
        let walk = self.walk(&layer, BATCH, Direction::Forward);
        self.product(walk, 1.0, &weight, None, &input, &out);
        let expected = (0..BATCH * OUTPUTS).map(|at| -> f32 {
            let (row, column) = (at / OUTPUTS, at % OUTPUTS);
            (0..INPUTS)
                .map(|i| panel[row * INPUTS + i] * weights[i * OUTPUTS + column])
                .sum()
        });
        let found = self.memory().read(out.region());
        found.is_ok_and(|found| found.into_iter().eq(expected))
    }

    /// Lets neighbouring panels be made together only if a trial of that comes out right, in either precision: a device's
    /// instructions may take operands otherwise than its manual says. Not at all if `SANSPROP_NEIGHBOURS` is 0.
    pub(super) fn trying_neighbours(mut self) -> Self {
        self.neighbours = std::env::var_os("SANSPROP_NEIGHBOURS").is_none_or(|value| value != "0");
        for operands in [Operands::F32, Operands::Bf16] {
            self = self.rounding(operands);
            let makes = matches!(
                self.units,
                Units::Cuda(Parts {
                    neighbours: true,
                    ..
                })
            );
            // A kernel that does not compile, or fails, unwinds.
            let tried = || makes && self.makes_neighbours_exactly();
            self.neighbours = catch_unwind(AssertUnwindSafe(tried)).unwrap_or(false);
        }
        self.rounding(Operands::F32)
    }

    /// Whether small integers, which no precision rounds, come out right: of layers of some stacks to a patch, and of one.
    fn makes_neighbours_exactly(&self) -> bool {
        let layer = |side, channels| Layer {
            wiring: Arc::new(Wiring::conv3x3(side, side, 1)),
            inputs: channels,
            outputs: channels,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Relu,
        };
        let layers = [layer(32, 16), layer(8, 8)];
        layers
            .iter()
            .all(|layer| results_of(self, layer) == results_of(&Reference, layer))
    }
}

/// Activations, a weight gradient and a delta, of inputs, weights and deltas from -1 to 1.
fn results_of<B: Backend>(backend: &B, layer: &Layer) -> [Vec<f64>; 3] {
    const BATCH: usize = 4;
    let filled = |count: usize, step: usize| {
        let values: Vec<f64> = (0..count)
            .map(|i| (i * step % 7 % 3) as f64 - 1.0)
            .collect();
        let mut buffer = backend.zeros(count);
        backend.write(&values, &mut buffer);
        buffer
    };
    let outputs = layer.locations() * BATCH * layer.outputs;
    let weight = filled(layer.weights(), 5);
    let input = filled(layer.sources() * BATCH * layer.inputs, 3);
    let delta = filled(outputs, 2);
    let bias = backend.zeros(layer.outputs);
    let mut out = Record {
        z: backend.zeros(outputs),
        inverse_deviation: backend.zeros(layer.deviations()),
        a: backend.zeros(outputs),
    };
    backend.forward(layer, BATCH, &weight, &bias, &input, &mut out);
    let mut gradient = backend.zeros(layer.weights());
    let mut bias_gradient = backend.zeros(layer.outputs);
    backend.weight_gradient(
        layer,
        BATCH,
        &input,
        &delta,
        &mut gradient,
        &mut bias_gradient,
    );
    // Layers have as many inputs as outputs: one is the port below itself.
    let mut below = backend.zeros(outputs);
    let path = Landing {
        record: &out,
        delta: &mut below,
    };
    backend.feedback(layer, layer, BATCH, &weight, &delta, path, None);
    [&out.a, &gradient, &below].map(|buffer| backend.read(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GpuApi;
    use std::path::Path;

    const PRECISIONS: [Operands; 3] = [Operands::F32, Operands::Tf32, Operands::Bf16];

    /// What needs no rounding is exact by whatever multiplies, so that only units that are broken fail the trial.
    #[test]
    fn the_trial_needs_no_rounding() {
        let api = match cfg!(target_vendor = "apple") {
            true => GpuApi::Metal,
            false => GpuApi::Vulkan,
        };
        for operands in PRECISIONS {
            match GpuBackend::open(api, None) {
                Ok(backend) => assert!(backend.rounding(operands).multiplies_exactly()),
                Err(e) if std::env::var_os("SANSPROP_REQUIRE_GPU").is_some() => panic!("{e}"),
                Err(e) => println!("skipped without a GPU: {e}"),
            }
        }
    }

    #[test]
    fn neighbours_are_tried() {
        let emulated = GpuBackend::emulated(Path::new("c++"), true).expect("a compiler");
        assert!(emulated.trying_neighbours().neighbours);
        // Where results are wrong, it shows.
        let emulated = GpuBackend::emulated(Path::new("c++"), true).expect("a compiler");
        let emulated = emulated.rounding(Operands::F32);
        let layer = |scale| Layer {
            wiring: Arc::new(Wiring::conv3x3(4, 4, 1)),
            inputs: 16,
            outputs: 16,
            scale,
            norm: Norm::None,
            activation: Activation::Relu,
        };
        let [found, expected] = [
            results_of(&emulated, &layer(1.0)),
            results_of(&Reference, &layer(2.0)),
        ];
        assert!((0..3).all(|result| found[result] != expected[result]));
    }
}
