//! GPU kernels, compiled at run time for whatever device there is: written once for all ([`portable`]), and once more in
//! CUDA's own words ([`cuda`]), with which NVIDIA's matrix units and graphs are reached.
//!
//! A work-group owns a panel (its batch, padded to the tile) and a few channels; it walks the wiring's links and
//! finishes norm and activation where the batch statistics are its own rows'. Norms over batch and locations, and
//! minibatches of more than 128 samples, take a second pass ([`group`]). Sums are taken in an order that the
//! sizes alone decide: results repeat bitwise on one device.

mod accelerator;
mod activation;
mod backend;
mod buffer;
mod cuda;
mod device;
mod early;
mod elementwise;
mod failure;
mod gradient;
mod group;
mod heap;
#[cfg(target_arch = "x86_64")]
mod hip;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_hip.rs"]
mod hip;
mod launch;
mod matrix;
mod memory;
mod operands;
mod panel;
mod patches;
mod portable;
mod products;
mod recurrent;
mod resident;
mod sequence;
mod staging;
mod tile;
mod trial;
mod units;
mod walk;
mod walks;
mod weight_gradients;
mod wiring;
mod work;

pub use backend::GpuBackend;
pub use buffer::GpuBuffer;
pub use device::{GpuApi, GpuDevice, GpuError, gpu_devices};
pub use failure::GpuFailure;
pub use operands::Operands;
