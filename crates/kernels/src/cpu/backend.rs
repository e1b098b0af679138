//! The CPU kernels behind the [`Backend`] interface.

use super::buffer::CpuBuffer;
use super::fill::Fill;
use super::pack::{Direction, Packing};
use super::pointer::Pointer;
use super::recurrent::{self, StepDrive, StepFinish, StepLanding};
use super::sweep::{Finish, sweep};
use super::threads::Threads;
use super::values::Values;
use super::{Arithmetic, CpuBackend, elementwise};
use crate::tolerance::{BF16_ROUNDING, F32_ROUNDING};
use crate::{
    AdamStep, Backend, CellWeights, ForwardPass, Landing, Layer, LayerKernels, LossReport, Record,
    RecurrentCell, SignalGradient, Unrolled,
};
use std::sync::Mutex;

impl Backend for CpuBackend {
    type Buffer = CpuBuffer;

    fn device(&self) -> String {
        let emulated = if self.set.emulated() {
            ", emulated"
        } else {
            ""
        };
        format!(
            "cpu ({}{emulated}, {} threads)",
            self.set,
            self.threads.count()
        )
    }

    fn precision(&self) -> &'static str {
        match self.arithmetic {
            Arithmetic::F32 => "f32",
            Arithmetic::Strict => "f32-strict",
            Arithmetic::Bf16 => "bf16",
        }
    }

    fn operand_rounding(&self) -> f64 {
        match self.arithmetic {
            Arithmetic::F32 | Arithmetic::Strict => F32_ROUNDING,
            Arithmetic::Bf16 => BF16_ROUNDING,
        }
    }

    fn kernels(&self, layer: &Layer) -> LayerKernels {
        self.choice(layer)
    }

    fn lanes(&self) -> Vec<Self> {
        let lane = |_| Self {
            set: self.set,
            arithmetic: self.arithmetic,
            threads: Threads::caller(),
            scratch: Mutex::default(),
        };
        match self.threads.count() {
            1 => Vec::new(),
            count => (0..count).map(lane).collect(),
        }
    }

    fn side_by_side<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Send + Sync) {
        self.threads.side_by_side(items, work);
    }

    fn zeros(&self, len: usize) -> CpuBuffer {
        CpuBuffer::zeros(len)
    }

    fn write(&self, values: &[f64], to: &mut CpuBuffer) {
        for (to, &v) in to[..values.len()].iter_mut().zip(values) {
            *to = v as f32;
        }
    }

    fn write_f32(&self, values: &[f32], to: &mut CpuBuffer) {
        to[..values.len()].copy_from_slice(values);
    }

    fn copy(&self, len: usize, from: &CpuBuffer, to: &mut CpuBuffer) {
        to.copy(len, from);
    }

    fn read(&self, from: &CpuBuffer) -> Vec<f64> {
        match from.all() {
            Values::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
            Values::Bf16(values) => values.iter().map(|&v| f64::from(f32::from(v))).collect(),
        }
    }

    fn forward_pass(&self, pass: ForwardPass<'_, CpuBuffer>, out: &mut Record<CpuBuffer>) {
        self.run_forward(pass, out);
    }

    fn pool(
        &self,
        locations: usize,
        batch: usize,
        channels: usize,
        input: &CpuBuffer,
        out: &mut CpuBuffer,
    ) {
        let size = batch * channels;
        let out = &mut out[..size];
        match input.values(locations * size) {
            Values::F32(input) => elementwise::mean_of_panels(&self.threads, input, out),
            Values::Bf16(input) => elementwise::mean_of_panels(&self.threads, input, out),
        }
        self.round(out);
    }

    fn loss(
        &self,
        labels: &[u32],
        classes: usize,
        shift: f64,
        output: &CpuBuffer,
        error: &mut CpuBuffer,
    ) -> LossReport {
        let report = elementwise::classification_loss(labels, classes, shift, output, error);
        self.round(&mut error[..labels.len() * classes]);
        report
    }

    fn transposed(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &CpuBuffer,
        delta: &CpuBuffer,
        out: &mut CpuBuffer,
    ) {
        let finish = Finish::Store {
            scale: layer.scale as f32,
            out: Pointer::new(&mut out[..layer.sources() * batch * layer.inputs]),
        };
        let through = (layer, Direction::Backward);
        self.with_scratch(|scratch| self.gather(scratch, through, batch, weight, delta, finish));
    }

    fn feedback(
        &self,
        layer: &Layer,
        port: &Layer,
        batch: usize,
        weight: &CpuBuffer,
        delta: &CpuBuffer,
        path: Landing<'_, CpuBuffer>,
        local: Option<Landing<'_, CpuBuffer>>,
    ) {
        self.land(port, batch, layer.scale, path, local, |scratch, finish| {
            let through = (layer, Direction::Backward);
            self.gather(scratch, through, batch, weight, delta, finish);
        });
    }

    fn pool_feedback(
        &self,
        port: &Layer,
        batch: usize,
        signal: &CpuBuffer,
        landing: Landing<'_, CpuBuffer>,
    ) {
        let set = self.set.for_columns(port.outputs);
        let fill = Fill::Broadcast {
            panel: &signal[..batch * port.outputs],
            packing: Packing::new(set.lanes(), 1, 1, port.outputs),
        };
        let share = 1.0 / port.locations() as f64;
        self.land(port, batch, share, landing, None, |scratch, finish| {
            let mut workers = self.workers(set, &mut scratch.parts);
            sweep(&mut workers, port.locations(), batch, fill, finish);
        });
    }

    fn direct_feedback(
        &self,
        direct: &Layer,
        port: &Layer,
        batch: usize,
        weight: &CpuBuffer,
        error: &CpuBuffer,
        landing: Landing<'_, CpuBuffer>,
    ) {
        self.land(
            port,
            batch,
            direct.scale,
            landing,
            None,
            |scratch, finish| {
                let through = (direct, Direction::Forward);
                self.gather(scratch, through, batch, weight, error, finish);
            },
        );
    }

    fn weight_gradient(
        &self,
        layer: &Layer,
        batch: usize,
        input: &CpuBuffer,
        delta: &CpuBuffer,
        weights: &mut CpuBuffer,
        biases: &mut CpuBuffer,
    ) {
        let weights = &mut weights[..layer.weights()];
        self.with_scratch(|scratch| {
            self.gradient(scratch, (layer, batch), (input, delta), weights, biases);
        });
    }

    fn signal_gradient(&self, work: SignalGradient<'_, CpuBuffer>) {
        self.gradient_of_signal(work);
    }

    fn recur(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: CellWeights<'_, CpuBuffer>,
        input: &CpuBuffer,
        record: &mut Record<CpuBuffer>,
    ) {
        let size = batch * cell.width;
        let z = Pointer::new(&mut record.z[..cell.steps * size]);
        let states = Pointer::new(&mut record.a[..(cell.steps + 1) * size]);
        self.with_sequence(
            cell,
            Direction::Forward,
            batch,
            weights.hidden,
            |sequence, workers| {
                for t in 0..cell.steps {
                    // SAFETY: step t reads state t and writes state t + 1; nothing else runs meanwhile.
                    let before = unsafe { states.slice(t * size, size) };
                    let drive = StepDrive {
                        input: &input[t * batch * cell.inputs..][..batch * cell.inputs],
                        weights: &weights.input[..cell.inputs * cell.width],
                        bias: &weights.bias[..cell.width],
                        z: z.skip(t * size),
                        h: states.skip((t + 1) * size),
                    };
                    let finish = StepFinish::Forward(drive);
                    recurrent::step(workers, sequence, Some(before), finish);
                }
            },
        );
    }

    fn recur_feedback(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &CpuBuffer,
        signal: &CpuBuffer,
        unrolled: Unrolled<'_, CpuBuffer>,
        local: Option<Landing<'_, CpuBuffer>>,
    ) {
        let size = batch * cell.width;
        let panels = cell.steps * size;
        let delta = Pointer::new(&mut unrolled.delta[..panels]);
        let carried = Pointer::new(&mut unrolled.carried[..panels + size]);
        let path = &unrolled.path.z[..panels];
        let local = local.map(|l| (&l.record.z[..panels], Pointer::new(&mut l.delta[..panels])));
        self.with_sequence(
            cell,
            Direction::Backward,
            batch,
            hidden,
            |sequence, workers| {
                for t in (0..=cell.steps).rev() {
                    // δ of step t + 1 lies at t: the deltas have no panel for the initial state.
                    // SAFETY: it was written in the turn before; this turn writes other panels.
                    let after = (t < cell.steps).then(|| &*unsafe { delta.slice(t * size, size) });
                    let landing = t.checked_sub(1).map(|at| StepLanding {
                        signal: &signal[t * size..][..size],
                        z: &path[at * size..][..size],
                        delta: delta.skip(at * size),
                        local: local
                            .map(|(z, delta)| (&z[at * size..][..size], delta.skip(at * size))),
                    });
                    let finish = StepFinish::Feedback {
                        carried: carried.skip(t * size),
                        landing,
                    };
                    recurrent::step(workers, sequence, after, finish);
                }
            },
        );
    }

    fn sequence_loss(
        &self,
        targets: &[f32],
        batch: usize,
        output: &CpuBuffer,
        error: &mut CpuBuffer,
    ) -> f64 {
        let loss = elementwise::sequence_loss(targets, batch, output, error);
        self.round(&mut error[..targets.len()]);
        loss
    }

    fn sign(&self, scale: f64, weight: &CpuBuffer, out: &mut CpuBuffer) {
        elementwise::sign(scale, weight, out);
    }

    fn sgd(&self, rate: f64, gradient: &CpuBuffer, weight: &mut CpuBuffer) {
        elementwise::sgd(&self.threads, rate, gradient, weight);
    }

    fn adam(
        &self,
        step: AdamStep,
        gradient: &CpuBuffer,
        first: &mut CpuBuffer,
        second: &mut CpuBuffer,
        weight: &mut CpuBuffer,
    ) {
        elementwise::adam(&self.threads, step, gradient, [first, second, weight]);
    }
}
