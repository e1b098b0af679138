//! The GPU kernels behind the [`Backend`] interface.

use super::buffer::GpuBuffer;
use super::elementwise::{
    AdamRatesLaunch, adam, classification_loss, clear, pool, sequence_loss, sgd, sign,
};
use super::failure::GpuFailure;
use super::launch::{grid, per_value, units};
use super::products::Walk;
use super::recurrent::{feedback_step, recur_step};
use super::tile::{Direction, SizesLaunch, Tile};
use super::wiring::{DeviceWiring, Wirings};
use crate::{
    Activation, AdamStep, Backend, CellWeights, Landing, Layer, LayerKernels, LossReport, Norm,
    Record, RecurrentCell, Unrolled, Wiring,
};
use cubecl::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kernels on a GPU, in f32.
pub struct GpuBackend<R: Runtime> {
    client: ComputeClient<R>,
    name: String,
    wirings: Wirings,
    launches: AtomicU64,
    dense: Arc<Wiring>,
    /// Stands where a kernel has no use for an argument that it reads.
    pub(super) nothing: GpuBuffer<R>,
    /// Stands where a kernel has no use for an argument that it would write.
    pub(super) unwritten: GpuBuffer<R>,
}

impl<R: Runtime> GpuBackend<R> {
    /// Kernels on the device of `client`, which `name` describes.
    pub(super) fn on(client: ComputeClient<R>, name: String) -> Self {
        let [nothing, unwritten] = [0.0, 0.0].map(|value| GpuBuffer::of(&client, &[value]));
        Self {
            client,
            name,
            wirings: Wirings::default(),
            launches: AtomicU64::new(0),
            dense: Arc::new(Wiring::dense()),
            nothing,
            unwritten,
        }
    }

    pub(super) fn client(&self) -> &ComputeClient<R> {
        &self.client
    }

    /// Where the next kernel is started, which is counted.
    pub(super) fn next(&self) -> &ComputeClient<R> {
        self.launches.fetch_add(1, Ordering::Relaxed);
        &self.client
    }

    pub(super) fn wiring(&self, wiring: &Arc<Wiring>) -> Arc<DeviceWiring> {
        self.wirings.get(&self.client, wiring)
    }

    fn fetch(&self, buffer: &GpuBuffer<R>) -> Vec<f32> {
        // The runtime panics where its own thread has died of an error.
        let read = || self.client.read_one(buffer.handle());
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(bytes)) => f32::from_bytes(&bytes)[..buffer.len()].to_vec(),
            Ok(Err(error)) => GpuFailure::raise(error.to_string()),
            Err(_) => GpuFailure::raise(
                "its memory may be too small for network.width and train.batch, or it was lost",
            ),
        }
    }

    /// One step of a recurrent cell seen as a product of dense panels, reading from `input_start` on.
    fn step_sizes(cell: &RecurrentCell, batch: usize, input_start: usize) -> SizesLaunch<R> {
        SizesLaunch::new(batch, cell.width, cell.width, 1, input_start)
    }
}

impl<R: Runtime> Backend for GpuBackend<R> {
    type Buffer = GpuBuffer<R>;

    fn device(&self) -> String {
        self.name.clone()
    }

    fn precision(&self) -> &'static str {
        "f32"
    }

    fn kernels(&self, layer: &Layer) -> LayerKernels {
        let fused = |panels: &str| format!("gpu, {panels}");
        let sums = match layer.norm {
            Norm::Channel => "sums, then norm",
            Norm::Location | Norm::None => "sums with norm up to 128 samples",
        };
        LayerKernels {
            forward: fused(sums),
            feedback: fused(sums),
            weight_gradient: fused("sums in parts"),
        }
    }

    fn launches(&self) -> Option<u64> {
        Some(self.launches.load(Ordering::Relaxed))
    }

    fn scope<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        work()
    }

    fn zeros(&self, len: usize) -> GpuBuffer<R> {
        let buffer = GpuBuffer::empty(&self.client, len);
        if len > 0 {
            // SAFETY: the buffer holds `len` values, beyond which no thread works.
            unsafe {
                clear::launch_unchecked(self.next(), per_value(len), units(), buffer.all(), len);
            }
        }
        buffer
    }

    fn write(&self, values: &[f64], to: &mut GpuBuffer<R>) {
        let rounded: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        self.write_f32(&rounded, to);
    }

    fn write_f32(&self, values: &[f32], to: &mut GpuBuffer<R>) {
        let source = GpuBuffer::of(&self.client, values);
        if values.len() == to.len() {
            *to = source;
        } else {
            to.overwrite(values.len(), &source);
        }
    }

    fn copy(&self, len: usize, from: &GpuBuffer<R>, to: &mut GpuBuffer<R>) {
        to.overwrite(len, from);
    }

    fn read(&self, from: &GpuBuffer<R>) -> Vec<f64> {
        self.fetch(from).into_iter().map(f64::from).collect()
    }

    fn forward(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &GpuBuffer<R>,
        bias: &GpuBuffer<R>,
        input: &GpuBuffer<R>,
        out: &mut Record<GpuBuffer<R>>,
    ) {
        self.forward_pass(layer, batch, weight, bias, input, out);
    }

    fn pool(
        &self,
        locations: usize,
        batch: usize,
        channels: usize,
        input: &GpuBuffer<R>,
        out: &mut GpuBuffer<R>,
    ) {
        let size = batch * channels;
        // SAFETY: the input holds a panel of `size` values for each location, `out` one of them.
        unsafe {
            pool::launch_unchecked(
                self.next(),
                per_value(size),
                units(),
                input.first(locations * size),
                out.first(size),
                locations,
                size,
            );
        }
    }

    fn loss(
        &self,
        labels: &[u32],
        classes: usize,
        shift: f64,
        output: &GpuBuffer<R>,
        error: &mut GpuBuffer<R>,
    ) -> LossReport {
        let len = labels.len() * classes;
        let report = GpuBuffer::empty(&self.client, 2);
        let handle = self.client.create_from_slice(u32::as_bytes(labels));
        // SAFETY: the allocation was made from the labels; outputs and errors are one for each label and class.
        unsafe {
            classification_loss::launch_unchecked(
                self.next(),
                grid(1, 1, 1),
                units(),
                ArrayArg::from_raw_parts(handle, labels.len()),
                output.first(len),
                error.first(len),
                report.all(),
                labels.len(),
                classes,
                shift as f32,
            );
        }
        let report = self.fetch(&report);
        LossReport {
            loss: f64::from(report[0]),
            correct: report[1] as usize,
        }
    }

    fn transposed(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &GpuBuffer<R>,
        delta: &GpuBuffer<R>,
        out: &mut GpuBuffer<R>,
    ) {
        let walk = Walk::new(layer, batch, Direction::Backward);
        self.product(walk, layer.scale, weight, None, delta, out);
    }

    fn feedback(
        &self,
        layer: &Layer,
        port: &Layer,
        batch: usize,
        weight: &GpuBuffer<R>,
        delta: &GpuBuffer<R>,
        path: Landing<'_, GpuBuffer<R>>,
        local: Option<Landing<'_, GpuBuffer<R>>>,
    ) {
        let walk = Walk::new(layer, batch, Direction::Backward);
        self.product_lands(walk, port, weight, delta, path, local);
    }

    fn pool_feedback(
        &self,
        port: &Layer,
        batch: usize,
        signal: &GpuBuffer<R>,
        landing: Landing<'_, GpuBuffer<R>>,
    ) {
        let share = 1.0 / port.locations() as f64;
        let path_z = &landing.record.z;
        self.scaled_signal_lands(port, batch, share, (signal, batch), path_z, landing);
    }

    fn direct_feedback(
        &self,
        direct: &Layer,
        port: &Layer,
        batch: usize,
        weight: &GpuBuffer<R>,
        error: &GpuBuffer<R>,
        landing: Landing<'_, GpuBuffer<R>>,
    ) {
        let walk = Walk::new(direct, batch, Direction::Forward);
        self.product_lands(walk, port, weight, error, landing, None);
    }

    fn weight_gradient(
        &self,
        layer: &Layer,
        batch: usize,
        input: &GpuBuffer<R>,
        delta: &GpuBuffer<R>,
        weight_gradient: &mut GpuBuffer<R>,
        bias_gradient: &mut GpuBuffer<R>,
    ) {
        self.gradients(layer, batch, input, delta, weight_gradient, bias_gradient);
    }

    fn recur(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: CellWeights<'_, GpuBuffer<R>>,
        input: &GpuBuffer<R>,
        record: &mut Record<GpuBuffer<R>>,
    ) {
        // The drive of all steps is one product; the recurrent part is added step by step.
        let drive = Layer {
            wiring: Arc::clone(&self.dense),
            inputs: cell.inputs,
            outputs: cell.width,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        };
        let walk = Walk::new(&drive, cell.steps * batch, Direction::Forward);
        self.product(
            walk,
            1.0,
            weights.input,
            Some(weights.bias),
            input,
            &record.z,
        );
        let wiring = self.wiring(&self.dense);
        let (size, tile) = (batch * cell.width, Tile::new(batch, cell.width));
        for t in 0..cell.steps {
            // SAFETY: z holds a panel for each step, the states one more (`first` asserts it); step t reads state t
            // and writes state t + 1.
            unsafe {
                recur_step::launch_unchecked(
                    self.next(),
                    grid(tile.down(batch) as usize, tile.across(cell.width), 1),
                    units(),
                    weights.hidden.first(cell.width * cell.width),
                    wiring.forward.argument(),
                    record.a.first((cell.steps + 1) * size),
                    record.z.first(cell.steps * size),
                    Self::step_sizes(cell, batch, t * size),
                    t,
                    cell.scale as f32,
                    tile,
                    cell.activation,
                );
            }
        }
    }

    fn recur_feedback(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &GpuBuffer<R>,
        signal: &GpuBuffer<R>,
        unrolled: Unrolled<'_, GpuBuffer<R>>,
        local: Option<Landing<'_, GpuBuffer<R>>>,
    ) {
        let wiring = self.wiring(&self.dense);
        let (size, tile) = (batch * cell.width, Tile::new(batch, cell.width));
        let panels = cell.steps * size;
        for t in (0..=cell.steps).rev() {
            let (local_z, local_delta) = match &local {
                Some(local) => (local.record.z.first(panels), local.delta.first(panels)),
                None => (self.nothing.all(), self.unwritten.all()),
            };
            // SAFETY: z and the deltas hold a panel for each step, signal and carried one more (`first` asserts
            // it). State t reads the delta of step t + 1, which lies at t, and writes the one at t − 1.
            unsafe {
                feedback_step::launch_unchecked(
                    self.next(),
                    grid(tile.down(batch) as usize, tile.across(cell.width), 1),
                    units(),
                    hidden.first(cell.width * cell.width),
                    wiring.backward.argument(),
                    signal.first(panels + size),
                    unrolled.path.z.first(panels),
                    unrolled.delta.first(panels),
                    unrolled.carried.first(panels + size),
                    local_z,
                    local_delta,
                    Self::step_sizes(cell, batch, t * size),
                    t,
                    cell.scale as f32,
                    tile,
                    cell.activation,
                    t == cell.steps,
                    t == 0,
                    local.is_some(),
                );
            }
        }
    }

    fn sequence_loss(
        &self,
        targets: &[f32],
        batch: usize,
        output: &GpuBuffer<R>,
        error: &mut GpuBuffer<R>,
    ) -> f64 {
        let report = GpuBuffer::empty(&self.client, 1);
        let len = targets.len();
        // SAFETY: outputs and errors are one for each target (`first` asserts it).
        unsafe {
            sequence_loss::launch_unchecked(
                self.next(),
                grid(1, 1, 1),
                units(),
                GpuBuffer::of(&self.client, targets).all(),
                output.first(len),
                error.first(len),
                report.all(),
                batch as f32,
                len,
            );
        }
        f64::from(self.fetch(&report)[0])
    }

    fn sign(&self, scale: f64, weight: &GpuBuffer<R>, out: &mut GpuBuffer<R>) {
        let len = weight.len();
        // SAFETY: both arguments hold `len` values, beyond which no thread works.
        unsafe {
            sign::launch_unchecked(
                self.next(),
                per_value(len),
                units(),
                weight.all(),
                out.first(len),
                scale as f32,
                len,
            );
        }
    }

    fn sgd(&self, rate: f64, gradient: &GpuBuffer<R>, weight: &mut GpuBuffer<R>) {
        let len = weight.len();
        // SAFETY: both arguments hold `len` values, beyond which no thread works.
        unsafe {
            sgd::launch_unchecked(
                self.next(),
                per_value(len),
                units(),
                gradient.first(len),
                weight.all(),
                rate as f32,
                len,
            );
        }
    }

    fn adam(
        &self,
        step: AdamStep,
        gradient: &GpuBuffer<R>,
        first: &mut GpuBuffer<R>,
        second: &mut GpuBuffer<R>,
        weight: &mut GpuBuffer<R>,
    ) {
        let len = weight.len();
        let rates = AdamRatesLaunch::new(
            step.rate as f32,
            step.beta1 as f32,
            step.beta2 as f32,
            (1.0 - step.beta1) as f32,
            (1.0 - step.beta2) as f32,
            step.epsilon as f32,
        );
        // SAFETY: all arguments hold `len` values, beyond which no thread works.
        unsafe {
            adam::launch_unchecked(
                self.next(),
                per_value(len),
                units(),
                gradient.first(len),
                first.first(len),
                second.first(len),
                weight.all(),
                rates,
                len,
            );
        }
    }
}
