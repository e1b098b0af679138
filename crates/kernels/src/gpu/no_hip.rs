//! AMD's ROCm where there is none: it is made for x86-64.

use super::GpuBackend;
use super::device::{GpuApi, GpuDevice, GpuError};

/// No device.
///
/// # Errors
/// Always.
pub(super) fn hip_devices() -> Result<Vec<GpuDevice>, GpuError> {
    Err(GpuError::unavailable(
        GpuApi::Hip,
        "AMD's ROCm is for x86-64 alone; vulkan may work",
    ))
}

/// Opens no device.
///
/// # Errors
/// Always.
pub(super) fn open_hip(_: Option<usize>) -> Result<GpuBackend, GpuError> {
    Err(hip_devices().expect_err("ROCm is for x86-64"))
}
