//! Kernels of sansprop: location-major panels, wirings, and the three kernels that are all of training.
//!
//! Activations are stored `[location, batch, channel]`; the `[batch, channel]` matrix of one location is a
//! *panel*. A layer is a [`Wiring`] between panels. Training is then three kernels, for every layer type and
//! every learning rule: gather forward, gather feedback (the transposed wiring), and weight gradient, with norm
//! and activation applied while a panel is still in cache.
//!
//! [`Reference`] is the oracle (f64, naive); [`CpuBackend`] is the fast one (f32 and bf16, threads, AVX2, AVX-512 and
//! AMX chosen at run time). Both implement [`Backend`], and one conformance suite holds them together.

mod backend;
mod cpu;
mod gpu;
mod layer;
mod reference;
pub mod tolerance;
mod wiring;

pub use backend::{
    AdamStep, Backend, CellWeights, ForwardPass, Kept, Landing, LayerKernels, LossReport, Record,
    Replay, Resident, Signal, SignalGradient, Unrolled, Verdict,
};
pub use cpu::{Ceilings, CpuBackend, CpuBuffer, CpuError, InstructionSet};
pub use gpu::{
    GpuApi, GpuBackend, GpuBuffer, GpuDevice, GpuError, GpuFailure, Operands, gpu_devices,
};
pub use layer::{Activation, Layer, NORM_EPSILON, Norm, RecurrentCell};
pub use reference::Reference;
pub use wiring::{ConvGrid, Link, Links, Wiring};
