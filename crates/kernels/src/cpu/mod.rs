//! The fast CPU kernels: f32, threads, and the widest instruction set that the machine has.

mod buffer;
mod isa;
mod lanes;
mod pack;
mod panel;
mod pointer;
mod sweep;
mod threads;
mod tile;
mod weight_gradient;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::{AdamStep, Backend, Landing, Layer, LossReport, Norm, Record};
pub use buffer::CpuBuffer;
pub use isa::InstructionSet;
use pack::{Direction, Packing, pack};
use panel::{FeedbackPort, ForwardPort, Slopes};
use pointer::Pointer;
use std::fmt;
use std::sync::Mutex;
use sweep::{Fill, Finish, sweep};
use threads::Threads;
use weight_gradient::{Operands, weight_gradient};

/// Environment variable that forces an instruction set: `portable`, `avx2` or `avx512`.
const FORCE_VARIABLE: &str = "SANSPROP_ISA";

/// Values that one thread updates at a time in the optimisers and in pooling.
const STRIP: usize = 4096;

/// f32 kernels on the CPU.
pub struct CpuBackend {
    set: InstructionSet,
    threads: Threads,
    scratch: Mutex<Vec<CpuBuffer>>,
}

/// Why the CPU backend could not be made.
#[derive(Debug)]
pub enum CpuError {
    /// An instruction set was asked for that is unknown or that this CPU lacks.
    InstructionSet(String),
    /// The thread pool could not be started.
    Threads(String),
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstructionSet(name) => {
                let names: Vec<_> = InstructionSet::ALL
                    .into_iter()
                    .filter(|set| set.available())
                    .map(|set| set.to_string())
                    .collect();
                write!(
                    f,
                    "instruction set {name:?} is not available here; this CPU has {}",
                    names.join(", ")
                )
            }
            Self::Threads(reason) => write!(f, "cannot start the worker threads: {reason}"),
        }
    }
}

impl std::error::Error for CpuError {}

impl CpuBackend {
    /// `threads` threads (0: one per core) on the widest instruction set of this CPU, or on the one that the
    /// environment variable `SANSPROP_ISA` names.
    ///
    /// # Errors
    /// The variable names a set that this CPU lacks; threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, CpuError> {
        let set = match std::env::var(FORCE_VARIABLE) {
            Ok(name) => name
                .parse()
                .map_err(|_| CpuError::InstructionSet(format!("{FORCE_VARIABLE}={name}")))?,
            Err(_) => InstructionSet::best(),
        };
        Self::with_instruction_set(threads, set)
    }

    /// As [`new`](Self::new) on a given instruction set.
    ///
    /// # Errors
    /// This CPU lacks the set; threads cannot be started.
    pub fn with_instruction_set(threads: usize, set: InstructionSet) -> Result<Self, CpuError> {
        if !set.available() {
            return Err(CpuError::InstructionSet(set.to_string()));
        }
        let threads = Threads::new(threads).map_err(|e| CpuError::Threads(e.to_string()))?;
        Ok(Self {
            set,
            threads,
            scratch: Mutex::default(),
        })
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Runs `work` with a scratch buffer that is kept for the next kernel.
    fn with_scratch<R>(&self, work: impl FnOnce(&mut CpuBuffer) -> R) -> R {
        let lock = || self.scratch.lock().unwrap_or_else(|e| e.into_inner());
        let mut buffer = lock().pop().unwrap_or_else(|| CpuBuffer::zeros(0));
        let result = work(&mut buffer);
        lock().push(buffer);
        result
    }

    /// Gathers through `layer` in one direction and finishes every block.
    fn gather(
        &self,
        layer: &Layer,
        direction: Direction,
        batch: usize,
        weight: &[f32],
        panels: &[f32],
        finish: Finish<'_>,
    ) {
        let (links, destinations, depth, columns) = match direction {
            Direction::Forward => (
                layer.wiring.forward(),
                layer.locations(),
                layer.inputs,
                layer.outputs,
            ),
            Direction::Backward => (
                layer.wiring.backward(),
                layer.sources(),
                layer.outputs,
                layer.inputs,
            ),
        };
        let sources = match direction {
            Direction::Forward => layer.sources(),
            Direction::Backward => layer.locations(),
        };
        let panels = &panels[..sources * batch * depth];
        let weight = &weight[..layer.weights()];
        let set = self.set.for_columns(columns);
        let packing = Packing::new(set.lanes(), layer.wiring.taps(), depth, columns);
        self.with_scratch(|packed| {
            pack(&self.threads, layer, direction, weight, packing, packed);
            let fill = Fill::Gather {
                links,
                panels,
                packed,
                packing,
            };
            sweep(&self.threads, set, destinations, batch, fill, finish);
        });
    }

    /// Runs `work` with room for the per-location sums that the channel norm needs.
    fn with_channel_sums(&self, port: &Layer, networks: usize, work: impl FnOnce([Pointer; 2])) {
        let len = match port.norm {
            Norm::Channel => 2 * port.locations() * port.outputs,
            Norm::Location | Norm::None => 0,
        };
        self.with_scratch(|sums| {
            sums.reserve(len * networks);
            let start = Pointer::new(sums);
            work([start, start.skip(len * (networks - 1))]);
        });
    }

    /// Lands a signal that arrives at `port`, scaled by `scale`, on one or two networks.
    fn land(
        &self,
        port: &Layer,
        batch: usize,
        scale: f64,
        path: Landing<'_, CpuBuffer>,
        local: Option<Landing<'_, CpuBuffer>>,
        fill: impl FnOnce(Finish<'_>),
    ) {
        let len = port.locations() * batch * port.outputs;
        let networks = 1 + usize::from(local.is_some());
        self.with_channel_sums(port, networks, |[path_sums, local_sums]| {
            fill(Finish::Feedback {
                slopes: Slopes {
                    norm: port.norm,
                    activation: port.activation,
                    scale: scale as f32,
                },
                path: feedback_port(port, len, path, path_sums),
                local: local.map(|local| feedback_port(port, len, local, local_sums)),
            });
        });
    }
}

fn feedback_port<'a>(
    port: &Layer,
    len: usize,
    landing: Landing<'a, CpuBuffer>,
    sums: Pointer,
) -> FeedbackPort<'a> {
    FeedbackPort {
        z: &landing.record.z[..len],
        inverse_deviation: &landing.record.inverse_deviation[..port.deviations()],
        delta: Pointer::new(&mut landing.delta[..len]),
        sums,
    }
}

impl Backend for CpuBackend {
    type Buffer = CpuBuffer;

    fn device(&self) -> String {
        format!("cpu ({}, {} threads)", self.set, self.threads.count())
    }

    fn precision(&self) -> &'static str {
        "f32"
    }

    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.scope(work)
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

    fn read(&self, from: &CpuBuffer) -> Vec<f64> {
        from.iter().map(|&v| f64::from(v)).collect()
    }

    fn forward(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &CpuBuffer,
        bias: &CpuBuffer,
        input: &CpuBuffer,
        out: &mut Record<CpuBuffer>,
    ) {
        let len = layer.locations() * batch * layer.outputs;
        self.with_channel_sums(layer, 1, |[moments, _]| {
            let port = ForwardPort {
                norm: layer.norm,
                activation: layer.activation,
                scale: layer.scale as f32,
                bias: &bias[..layer.outputs],
                z: Pointer::new(&mut out.z[..len]),
                a: Pointer::new(&mut out.a[..len]),
                inverse_deviation: Pointer::new(&mut out.inverse_deviation[..layer.deviations()]),
                moments,
            };
            let finish = Finish::Forward(port);
            self.gather(layer, Direction::Forward, batch, weight, input, finish);
        });
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
        let input = &input[..locations * size];
        let out = Pointer::new(&mut out[..size]);
        let share = 1.0 / locations as f32;
        self.strips(size, locations, |from, len| {
            // SAFETY: strips do not overlap.
            let out = unsafe { out.slice(from, len) };
            out.copy_from_slice(&input[from..][..len]);
            for panel in input.chunks_exact(size).skip(1) {
                for (sum, v) in out.iter_mut().zip(&panel[from..]) {
                    *sum += v;
                }
            }
            for v in out {
                *v *= share;
            }
        });
    }

    fn loss(
        &self,
        labels: &[u32],
        classes: usize,
        shift: f64,
        output: &CpuBuffer,
        error: &mut CpuBuffer,
    ) -> LossReport {
        let count = (labels.len() * classes) as f64;
        let mut report = LossReport {
            loss: 0.0,
            correct: 0,
        };
        let rows = output.chunks_exact(classes);
        let errors = error.chunks_exact_mut(classes);
        for ((f, e), &label) in rows.zip(errors).zip(labels) {
            let mut best = 0;
            for (k, (&value, e)) in f.iter().zip(e).enumerate() {
                let target = f64::from(u8::from(k == label as usize)) - shift;
                let difference = f64::from(value) - target;
                *e = (2.0 * difference / count) as f32;
                report.loss += difference * difference / count;
                if value > f[best] {
                    best = k;
                }
            }
            report.correct += usize::from(best == label as usize);
        }
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
        self.gather(layer, Direction::Backward, batch, weight, delta, finish);
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
        self.land(port, batch, layer.scale, path, local, |finish| {
            self.gather(layer, Direction::Backward, batch, weight, delta, finish);
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
        self.land(port, batch, share, landing, None, |finish| {
            sweep(&self.threads, set, port.locations(), batch, fill, finish);
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
        self.land(port, batch, direct.scale, landing, None, |finish| {
            self.gather(direct, Direction::Forward, batch, weight, error, finish);
        });
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
        let operands = Operands {
            layer,
            batch,
            input: &input[..layer.sources() * batch * layer.inputs],
            delta: &delta[..layer.locations() * batch * layer.outputs],
        };
        let set = self.set.for_columns(layer.outputs);
        let weights = &mut weights[..layer.weights()];
        self.with_scratch(|partials| {
            weight_gradient(&self.threads, set, &operands, partials, weights, biases);
        });
    }

    fn sign(&self, scale: f64, weight: &CpuBuffer, out: &mut CpuBuffer) {
        let scale = scale as f32;
        for (out, &w) in out.iter_mut().zip(weight.iter()) {
            *out = if w == 0.0 { 0.0 } else { scale.copysign(w) };
        }
    }

    fn sgd(&self, rate: f64, gradient: &CpuBuffer, weight: &mut CpuBuffer) {
        let rate = rate as f32;
        let weight = Pointer::new(&mut weight[..gradient.len()]);
        self.strips(gradient.len(), 1, |from, len| {
            // SAFETY: strips do not overlap.
            let weight = unsafe { weight.slice(from, len) };
            for (w, g) in weight.iter_mut().zip(&gradient[from..]) {
                *w -= rate * g;
            }
        });
    }

    fn adam(
        &self,
        step: AdamStep,
        gradient: &CpuBuffer,
        first: &mut CpuBuffer,
        second: &mut CpuBuffer,
        weight: &mut CpuBuffer,
    ) {
        let (rate, epsilon) = (step.rate as f32, step.epsilon as f32);
        let (beta1, beta2) = (step.beta1 as f32, step.beta2 as f32);
        let (rest1, rest2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
        let len = gradient.len();
        let [first, second, weight] =
            [first, second, weight].map(|buffer| Pointer::new(&mut buffer[..len]));
        self.strips(len, 8, |from, len| {
            // SAFETY: strips do not overlap, and the three buffers are distinct.
            let (first, second, weight) = unsafe {
                (
                    first.slice(from, len),
                    second.slice(from, len),
                    weight.slice(from, len),
                )
            };
            let moments = first.iter_mut().zip(second);
            for ((w, g), (m, v)) in weight.iter_mut().zip(&gradient[from..]).zip(moments) {
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * (g * g);
                *w -= rate * *m / (v.sqrt() + epsilon);
            }
        });
    }
}

impl CpuBackend {
    /// Runs `work(from, len)` over strips of `0..total`, where one value costs about `cost` multiply-adds.
    fn strips(&self, total: usize, cost: usize, work: impl Fn(usize, usize) + Send + Sync) {
        self.threads
            .for_each(total.div_ceil(STRIP), STRIP * cost, |strip| {
                let from = strip * STRIP;
                work(from, STRIP.min(total - from));
            });
    }
}
