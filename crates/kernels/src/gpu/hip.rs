//! AMD's ROCm, found at run time like every other driver.

use super::GpuBackend;
use super::device::{GpuApi, GpuDevice, GpuError, choose, title};
use super::portable::Portable;
use cubecl::hip::{AmdDevice, HipRuntime};
use cubecl::prelude::Runtime;
use cubecl_hip_sys::{HIP_SUCCESS, hipDeviceGetName, hipGetDeviceCount, is_available};
use std::ffi::CStr;

/// Room for a device's name, its end included.
const NAME: usize = 256;

/// The devices of ROCm.
///
/// # Errors
/// ROCm is not installed, or knows no device.
pub(super) fn hip_devices() -> Result<Vec<GpuDevice>, GpuError> {
    let api = GpuApi::Hip;
    if !is_available() {
        return Err(GpuError::unavailable(
            api,
            "AMD's ROCm is not installed (libamdhip64 or libhiprtc was not found; ROCM_PATH says where it lies); \
             vulkan may work",
        ));
    }
    let mut count = 0;
    // SAFETY: the library is loaded, and the count is written to a place that lives on.
    let status = unsafe { hipGetDeviceCount(&raw mut count) };
    if status != HIP_SUCCESS || count < 1 {
        return Err(GpuError::unavailable(api, "ROCm knows no device"));
    }
    Ok((0..count)
        .map(|index| GpuDevice {
            api,
            index: usize::try_from(index).unwrap_or_default(),
            name: name(index),
            software: false,
        })
        .collect())
}

fn name(index: i32) -> String {
    let mut bytes = [0u8; NAME];
    // SAFETY: the library is loaded, and at most `NAME` bytes are written to an array of as many.
    let status = unsafe { hipDeviceGetName(bytes.as_mut_ptr().cast(), NAME as i32, index) };
    match CStr::from_bytes_until_nul(&bytes) {
        Ok(name) if status == HIP_SUCCESS => name.to_string_lossy().into_owned(),
        _ => "a device without a name".into(),
    }
}

/// Opens a device of ROCm.
///
/// # Errors
/// No such device, or ROCm is not usable here.
pub(super) fn open_hip(index: Option<usize>) -> Result<GpuBackend, GpuError> {
    let devices = hip_devices()?;
    let index = choose(devices.len(), GpuApi::Hip, index)?;
    let client = HipRuntime::client(&AmdDevice::new(index));
    Ok(GpuBackend::on(
        Box::new(Portable(client)),
        title(&devices[index]),
    ))
}
