//! The conformance suite on the kernels written for CUDA.
//!
//! They run on a device of CUDA if there is one. Elsewhere the C++ compiler `c++` (or `CXX`) compiles the same text for
//! the processor, with an emulation of what it uses of a device. Where neither is there, each test says so and counts as
//! skipped; `SANSPROP_REQUIRE_GPU=1` makes it fail.

use sansprop_kernels::{Backend, GpuApi, GpuBackend, Operands};
use std::path::PathBuf;

mod cases;
mod rounded;
mod suite;

/// Whether kernels leave operands of the next product as it reads them.
const CUTS: bool = true;

fn device() -> Option<GpuBackend> {
    let compiler = std::env::var_os("CXX").map_or_else(|| PathBuf::from("c++"), PathBuf::from);
    let found = GpuBackend::open(GpuApi::Cuda, None)
        .inspect(|device| assert!(!device.device().contains("failed"), "{}", device.device()))
        .map_err(|e| e.to_string())
        .or_else(|e| {
            GpuBackend::emulated(&compiler, true).map_err(|other| format!("{e}; {other}"))
        });
    suite::found(found.map(|backend| backend.rounding(Operands::F32)))
}
