//! Trials of what a device multiplies with: it is used where small integers come out right.

use super::backend::{GpuBackend, Neighbours};
use super::buffer::GpuBuffer;
use super::operands::Operands;
use super::tile::Direction;
use super::units::Units;
use crate::{Activation, Backend, Landing, Layer, Norm, Record, Wiring};
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
            .with_neighbours(self.neighbours == Neighbours::Made);
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

    /// Whether a trial comes out right: a kernel that does not compile, or fails, unwinds. `variable` is that which opens the
    /// device without the trial.
    ///
    /// # Errors
    /// A kernel failed so that the device cannot be used any more.
    pub(super) fn passes(
        &mut self,
        trial: impl FnOnce(&mut Self) -> bool,
        variable: &str,
    ) -> Result<bool, String> {
        let passed = catch_unwind(AssertUnwindSafe(|| trial(self))).unwrap_or(false);
        let reads = AssertUnwindSafe(|| self.memory().read(self.buffer_of(&[1.0]).region()));
        if !passed && !catch_unwind(reads).is_ok_and(|read| read.is_ok()) {
            return Err(format!(
                "a kernel of its trial failed; {variable}=0 opens it without these"
            ));
        }
        Ok(passed)
    }

    /// Lets neighbouring panels be made together only if a trial of that comes out right, in either precision: a device's
    /// instructions may take operands otherwise than its manual says. Not at all if `SANSPROP_NEIGHBOURS` is 0.
    ///
    /// # Errors
    /// A kernel of the trial failed so that the device cannot be used any more.
    pub(super) fn trying_neighbours(mut self) -> Result<Self, String> {
        const VARIABLE: &str = "SANSPROP_NEIGHBOURS";
        if is_unwanted(VARIABLE) {
            self.neighbours = Neighbours::Unwanted;
        }
        for operands in [Operands::F32, Operands::Bf16] {
            self = self.rounding(operands);
            if !self.units.has_neighbours() {
                break;
            }
            let trial = |backend: &mut Self| backend.makes_neighbours_exactly([32, 128]);
            if !self.passes(trial, VARIABLE)? {
                self.neighbours = Neighbours::Refused;
            }
        }
        Ok(self.rounding(Operands::F32))
    }

    /// Whether small integers, which no precision rounds, come out as without them: of layers of some stacks to a patch and of
    /// one, at either stride, on a grid of such a side and of so many samples.
    fn makes_neighbours_exactly(&mut self, [side, batch]: [usize; 2]) -> bool {
        let layer = |side, channels, stride| Layer {
            wiring: Arc::new(Wiring::conv3x3(side, side, stride)),
            inputs: channels,
            outputs: channels,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Relu,
        };
        let layers = [(side, 32, 1), (side, 32, 2), (8, 8, 1)];
        layers.into_iter().all(|(side, channels, stride)| {
            let [port, layer] = [1, stride].map(|stride| layer(side, channels, stride));
            let together = results_of(self, &port, &layer, batch);
            let units = self.units;
            self.units = units.with_neighbours(false);
            let alone = results_of(self, &port, &layer, batch);
            self.units = units;
            together == alone
        })
    }
}

/// Whether an environment variable is 0.
pub(super) fn is_unwanted(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "0")
}

/// So many values from -1 to 1.
pub(super) fn filled<B: Backend>(backend: &B, count: usize, step: usize) -> B::Buffer {
    let values: Vec<f64> = (0..count)
        .map(|i| (i * step % 7 % 3) as f64 - 1.0)
        .collect();
    let mut buffer = backend.zeros(count);
    backend.write(&values, &mut buffer);
    buffer
}

/// Room for what a layer leaves behind.
pub(super) fn record<B: Backend>(backend: &B, layer: &Layer, batch: usize) -> Record<B::Buffer> {
    let len = layer.locations() * batch * layer.outputs;
    Record {
        z: backend.zeros(len),
        inverse_deviation: backend.zeros(layer.deviations()),
        a: backend.zeros(len),
    }
}

/// Activations, a weight gradient and a delta of a layer on its port, of inputs, weights and deltas from -1 to 1.
fn results_of<B: Backend>(backend: &B, port: &Layer, layer: &Layer, batch: usize) -> [Vec<f64>; 3] {
    let filled = |count, step| filled(backend, count, step);
    let weight = filled(layer.weights(), 5);
    let input = filled(layer.sources() * batch * layer.inputs, 3);
    let bias = backend.zeros(layer.outputs);
    let pass = |layer: &Layer| {
        let mut out = record(backend, layer, batch);
        backend.forward(layer, batch, &weight, &bias, &input, &mut out);
        out
    };
    let (below, out) = (pass(port), pass(layer));
    let delta = filled(layer.locations() * batch * layer.outputs, 2);
    let mut gradient = backend.zeros(layer.weights());
    let mut bias_gradient = backend.zeros(layer.outputs);
    backend.weight_gradient(
        layer,
        batch,
        &input,
        &delta,
        &mut gradient,
        &mut bias_gradient,
    );
    let mut lands = backend.zeros(port.locations() * batch * port.outputs);
    let path = Landing {
        record: &below,
        delta: &mut lands,
    };
    backend.feedback(layer, port, batch, &weight, &delta, path, None);
    [&out.a, &gradient, &lands].map(|buffer| backend.read(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GpuApi, Reference};
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

    /// Oracle: the f64 reference, and kernels that make panels alone.
    #[test]
    fn trials_of_neighbours_come_out_right() {
        let layer = |stride, scale| Layer {
            wiring: Arc::new(Wiring::conv3x3(8, 8, stride)),
            inputs: 32,
            outputs: 32,
            scale,
            norm: Norm::None,
            activation: Activation::Relu,
        };
        for operands in [Operands::F32, Operands::Bf16] {
            let emulated = GpuBackend::emulated(Path::new("c++"), true).expect("a compiler");
            let mut emulated = emulated.rounding(operands);
            assert!(emulated.units.has_neighbours());
            // A device tries both; here it takes a while.
            assert!(operands == Operands::F32 || emulated.makes_neighbours_exactly([16, 2]));
            let [port, above, wrong] = [layer(1, 1.0), layer(2, 1.0), layer(2, 2.0)];
            let found = results_of(&emulated, &port, &above, 12);
            assert!(found == results_of(&Reference, &port, &above, 12));
            let differs = results_of(&Reference, &port, &wrong, 12);
            assert!((0..3).all(|result| found[result] != differs[result]));
        }
    }
}
