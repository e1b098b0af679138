//! The conformance suite on a GPU through the portable kernels, or on Mesa's software driver.
//!
//! Where no device is there, each test says so and counts as skipped; `SANSPROP_REQUIRE_GPU=1` makes it fail.

use sansprop_kernels::{GpuApi, GpuBackend};

mod cases;
mod rounded;
mod suite;

/// Whether kernels leave operands of the next product as it reads them.
const CUTS: bool = false;

/// The first device of Vulkan (of Metal on Apple's systems), if there is one.
fn device() -> Option<GpuBackend> {
    let api = match cfg!(target_vendor = "apple") {
        true => GpuApi::Metal,
        false => GpuApi::Vulkan,
    };
    suite::found(GpuBackend::open(api, None).map_err(|e| e.to_string()))
}
