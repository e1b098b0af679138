//! The GPU kernels behind the [`Backend`] interface.

use super::accelerator::Accelerator;
use super::buffer::GpuBuffer;
use super::failure::GpuFailure;
use super::launch::groups_of;
use super::memory::Device;
use super::operands::Operands;
use super::tile::Direction;
use super::units::Units;
use super::wiring::{DeviceWiring, Wirings};
use super::work::{Item, Kernel, Span};
use crate::{
    AdamStep, Backend, CellWeights, ForwardPass, Landing, Layer, LayerKernels, LossReport, Norm,
    Record, RecurrentCell, Resident, Unrolled, Wiring,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Kernels on a GPU: sums in f32, of operands in f32 or rounded.
pub struct GpuBackend {
    device: Arc<Device>,
    name: String,
    pub(super) operands: Operands,
    pub(super) units: Units,
    pub(super) neighbours: Neighbours,
    /// Whether a trial of launches that begin early did not come out right.
    pub(super) refuses_early: bool,
    wirings: Wirings,
    dense: Arc<Wiring>,
    /// Wirings of as many locations to themselves, one tap for all.
    alone: Mutex<HashMap<usize, Arc<Wiring>>>,
    /// A single 1: the gate of updates that always happen, and what stands for operands that a kernel does not use.
    one: GpuBuffer,
    /// Where a loss that no one gates writes its verdict.
    unread: GpuBuffer,
    updates: Mutex<Updates>,
}

/// Whether neighbouring panels are made together where a device knows how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbours {
    /// They are.
    Made,
    /// Somebody does not want it.
    Unwanted,
    /// A trial did not come out right.
    Refused,
}

/// What optimisers' updates depend on, beside their own operands.
struct Updates {
    gate: Option<Span>,
    rates: Option<Span>,
    /// Adam's rate of updates outside a window, as it stands on the device.
    rate: (f32, GpuBuffer),
}

impl GpuBackend {
    /// Kernels on a device, which `name` describes.
    pub(super) fn on(accelerator: Box<dyn Accelerator>, name: String) -> Self {
        let device = Device::new(accelerator);
        let [one, unread, rate] = [1.0, 1.0, 0.0].map(|value| {
            let buffer = GpuBuffer::empty(&device, 1);
            device.write(&[value], buffer.region());
            buffer
        });
        Self {
            device,
            name,
            operands: Operands::F32,
            units: Units::Scalar,
            neighbours: Neighbours::Made,
            refuses_early: false,
            wirings: Wirings::default(),
            dense: Arc::new(Wiring::dense()),
            alone: Mutex::default(),
            one,
            unread,
            updates: Mutex::new(Updates {
                gate: None,
                rates: None,
                rate: (0.0, rate),
            }),
        }
    }

    /// The wiring of a single panel.
    pub(super) fn dense(&self) -> &Arc<Wiring> {
        &self.dense
    }

    /// The wiring of each of so many locations to itself, through one tap.
    pub(super) fn alone(&self, locations: usize) -> Arc<Wiring> {
        let mut known = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Wiring::sequence(locations, locations, 0));
        Arc::clone(known.entry(locations).or_insert_with(make))
    }

    pub(super) fn memory(&self) -> &Arc<Device> {
        &self.device
    }

    pub(super) fn note(&self, item: Item) {
        self.device.note(item);
    }

    /// Stands where a kernel has no use for an operand that it reads.
    pub(super) fn nothing(&self) -> Span {
        self.one.first(1)
    }

    pub(super) fn wiring(&self, wiring: &Arc<Wiring>) -> Arc<DeviceWiring> {
        self.wirings.get(&self.device, wiring)
    }

    /// What the updates that follow depend on.
    pub(super) fn set_conditions(&self, gate: Option<Span>, rates: Option<Span>) {
        let mut updates = self.updates();
        (updates.gate, updates.rates) = (gate, rates);
    }

    fn updates(&self) -> MutexGuard<'_, Updates> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn buffer_of(&self, values: &[f32]) -> GpuBuffer {
        let buffer = GpuBuffer::empty(&self.device, values.len());
        self.device.write(values, buffer.region());
        buffer
    }

    fn fetch(&self, buffer: &GpuBuffer) -> Vec<f32> {
        let values = self.device.read(buffer.region());
        values.unwrap_or_else(|reason| GpuFailure::raise(reason))
    }
}

impl Backend for GpuBackend {
    type Buffer = GpuBuffer;

    fn device(&self) -> String {
        match self.units {
            Units::Scalar => self.name.clone(),
            Units::Matrix | Units::Cuda(_) => {
                let refused = match self.neighbours {
                    Neighbours::Refused => ", neighbouring panels made alone: they failed a trial",
                    Neighbours::Made | Neighbours::Unwanted => "",
                };
                let in_turn = match self.refuses_early {
                    true => ", kernels in turn: beginning early, they failed a trial",
                    false => "",
                };
                format!("{}, matrix units{refused}{in_turn}", self.name)
            }
        }
    }

    fn precision(&self) -> &'static str {
        self.operands.name()
    }

    fn operand_rounding(&self) -> f64 {
        self.operands.rounding()
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
        Some(self.device.launches())
    }

    fn resident(&self) -> Option<&dyn Resident<GpuBuffer>> {
        Some(self)
    }

    fn zeros(&self, len: usize) -> GpuBuffer {
        let buffer = GpuBuffer::empty(&self.device, len);
        if len > 0 {
            let item = Item::new(Kernel::Clear, groups_of(len))
                .writes(buffer.written(len))
                .count(len);
            self.note(item);
        }
        buffer
    }

    fn write(&self, values: &[f64], to: &mut GpuBuffer) {
        let rounded: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        self.write_f32(&rounded, to);
    }

    fn write_f32(&self, values: &[f32], to: &mut GpuBuffer) {
        to.written(values.len());
        self.device.write(values, to.region());
    }

    fn copy(&self, len: usize, from: &GpuBuffer, to: &mut GpuBuffer) {
        to.overwrite(len, from);
    }

    fn read(&self, from: &GpuBuffer) -> Vec<f64> {
        self.fetch(from).into_iter().map(f64::from).collect()
    }

    fn forward_pass(&self, pass: ForwardPass<'_, GpuBuffer>, out: &mut Record<GpuBuffer>) {
        self.run_forward(pass, out);
    }

    fn pool(
        &self,
        locations: usize,
        batch: usize,
        channels: usize,
        input: &GpuBuffer,
        out: &mut GpuBuffer,
    ) {
        let size = batch * channels;
        let item = Item::new(Kernel::Pool(input.form(locations * size)), groups_of(size))
            .reads(input.as_it_is(locations * size))
            .writes(out.written(size))
            .counts([locations, size, channels]);
        self.note(item);
    }

    fn loss(
        &self,
        labels: &[u32],
        classes: usize,
        shift: f64,
        output: &GpuBuffer,
        error: &mut GpuBuffer,
    ) -> LossReport {
        let values: Vec<f32> = labels.iter().map(|&label| label as f32).collect();
        let (labels, report) = (self.buffer_of(&values), GpuBuffer::empty(&self.device, 2));
        let sizes = (values.len(), classes, shift);
        let verdict = (report.first(2), self.unread.first(1));
        self.note_loss(&labels, sizes, output, error, verdict);
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
        weight: &GpuBuffer,
        delta: &GpuBuffer,
        out: &mut GpuBuffer,
    ) {
        let walk = self.walk(layer, batch, Direction::Backward);
        self.product(walk, layer.scale, weight, None, delta, out);
    }

    fn feedback(
        &self,
        layer: &Layer,
        port: &Layer,
        batch: usize,
        weight: &GpuBuffer,
        delta: &GpuBuffer,
        path: Landing<'_, GpuBuffer>,
        local: Option<Landing<'_, GpuBuffer>>,
    ) {
        let walk = self.walk(layer, batch, Direction::Backward);
        self.product_lands(walk, port, weight, delta, path, local);
    }

    fn pool_feedback(
        &self,
        port: &Layer,
        batch: usize,
        signal: &GpuBuffer,
        landing: Landing<'_, GpuBuffer>,
    ) {
        let share = 1.0 / port.locations() as f64;
        let path_z = &landing.record.z;
        self.signal_lands(port, batch, share, (signal, batch), path_z, landing);
    }

    fn direct_feedback(
        &self,
        direct: &Layer,
        port: &Layer,
        batch: usize,
        weight: &GpuBuffer,
        error: &GpuBuffer,
        landing: Landing<'_, GpuBuffer>,
    ) {
        let walk = self.walk(direct, batch, Direction::Forward);
        self.product_lands(walk, port, weight, error, landing, None);
    }

    fn weight_gradient(
        &self,
        layer: &Layer,
        batch: usize,
        input: &GpuBuffer,
        delta: &GpuBuffer,
        weight_gradient: &mut GpuBuffer,
        bias_gradient: &mut GpuBuffer,
    ) {
        self.gradients(layer, batch, input, delta, weight_gradient, bias_gradient);
    }

    fn recur(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: CellWeights<'_, GpuBuffer>,
        input: &GpuBuffer,
        record: &mut Record<GpuBuffer>,
    ) {
        self.run_sequence(cell, batch, &weights, input, record);
    }

    fn recur_feedback(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &GpuBuffer,
        signal: &GpuBuffer,
        unrolled: Unrolled<'_, GpuBuffer>,
        local: Option<Landing<'_, GpuBuffer>>,
    ) {
        self.feed_back_through_time(cell, batch, hidden, signal, &unrolled, local.as_ref());
    }

    fn sequence_loss(
        &self,
        targets: &[f32],
        batch: usize,
        output: &GpuBuffer,
        error: &mut GpuBuffer,
    ) -> f64 {
        let (targets, len) = (self.buffer_of(targets), targets.len());
        let report = GpuBuffer::empty(&self.device, 2);
        let verdict = (report.first(2), self.unread.first(1));
        self.note_sequence_loss(&targets, (len, batch), output, error, verdict);
        f64::from(self.fetch(&report)[0])
    }

    fn sign(&self, scale: f64, weight: &GpuBuffer, out: &mut GpuBuffer) {
        let len = weight.len();
        let item = Item::new(Kernel::Sign, groups_of(len))
            .reads(weight.first(len))
            .writes(out.written(len))
            .count(len)
            .factor(scale);
        self.note(item);
    }

    fn sgd(&self, rate: f64, gradient: &GpuBuffer, weight: &mut GpuBuffer) {
        let len = weight.len();
        let gate = self.updates().gate.unwrap_or_else(|| self.nothing());
        let item = Item::new(Kernel::Sgd, groups_of(len))
            .reads(gate)
            .reads(gradient.first(len))
            .writes(weight.written(len))
            .count(len)
            .factor(rate);
        self.note(item);
    }

    fn adam(
        &self,
        step: AdamStep,
        gradient: &GpuBuffer,
        first: &mut GpuBuffer,
        second: &mut GpuBuffer,
        weight: &mut GpuBuffer,
    ) {
        let len = weight.len();
        let mut updates = self.updates();
        let rates = match updates.rates {
            Some(rates) => rates,
            None => {
                let (known, buffer) = &mut updates.rate;
                if *known != step.rate as f32 {
                    *known = step.rate as f32;
                    self.device.write(&[*known], buffer.region());
                }
                buffer.first(1)
            }
        };
        let item = Item::new(Kernel::Adam, groups_of(len))
            .reads(updates.gate.unwrap_or_else(|| self.nothing()))
            .reads(rates)
            .reads(gradient.first(len))
            .writes(first.written(len))
            .writes(second.written(len))
            .writes(weight.written(len))
            .count(len);
        let factors = [
            step.beta1,
            step.beta2,
            1.0 - step.beta1,
            1.0 - step.beta2,
            step.epsilon,
        ];
        self.note(factors.into_iter().fold(item, Item::factor));
    }
}
