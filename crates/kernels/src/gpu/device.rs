//! Which GPUs there are, and kernels on one of them. Nothing here is linked: drivers are looked for at run time.

use super::GpuBackend;
use super::cuda::{cuda_devices, open_cuda};
use super::hip::{hip_devices, open_hip};
use super::portable::Portable;
use cubecl::future::block_on;
use cubecl::prelude::Runtime;
use cubecl::wgpu::{RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuSetup, init_device};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// A way to reach GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GpuApi {
    /// NVIDIA's driver.
    Cuda,
    /// AMD's ROCm.
    Hip,
    /// Vulkan: NVIDIA, AMD and Intel on Linux and Windows, and Mesa's software driver.
    Vulkan,
    /// Apple's.
    Metal,
}

impl GpuApi {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cuda, Self::Hip, Self::Vulkan, Self::Metal];

    /// The name by which a device is chosen: `cuda`, `hip`, `vulkan`, `metal`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Hip => "hip",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
        }
    }

    /// The API of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.name() == name)
    }
}

impl fmt::Display for GpuApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A device that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuDevice {
    /// How it is reached.
    pub api: GpuApi,
    /// Its number among the devices of its API.
    pub index: usize,
    /// Its name and driver.
    pub name: String,
    /// Whether it is a driver that computes on the CPU.
    pub software: bool,
}

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GpuError {
    /// The API has no device, or is not there.
    #[error("{api} is not usable here: {reason}")]
    Unavailable {
        /// The API.
        api: GpuApi,
        /// Why, and what would help.
        reason: String,
    },
    /// There are devices, but not so many.
    #[error("there is no device {api}:{index}; {api} has {count}, counted from 0")]
    Index {
        /// The API.
        api: GpuApi,
        /// The number asked for.
        index: usize,
        /// Devices there are.
        count: usize,
    },
    /// The device does not open.
    #[error("{api}:{index} ({name}) does not open: {reason}")]
    Open {
        /// The API.
        api: GpuApi,
        /// The device's number.
        index: usize,
        /// Its name.
        name: String,
        /// The driver's words.
        reason: String,
    },
}

impl GpuError {
    pub(super) fn unavailable(api: GpuApi, reason: impl Into<String>) -> Self {
        Self::Unavailable {
            api,
            reason: reason.into(),
        }
    }
}

/// The devices of an API: at least one.
///
/// # Errors
/// [`GpuError::Unavailable`]: there is none, with the reason.
pub fn gpu_devices(api: GpuApi) -> Result<Vec<GpuDevice>, GpuError> {
    match api {
        GpuApi::Cuda => cuda_devices(),
        GpuApi::Hip => hip_devices(),
        GpuApi::Vulkan | GpuApi::Metal => {
            let (_, adapters) = adapters(api)?;
            Ok((0..)
                .zip(&adapters)
                .map(|(i, a)| describe(api, i, a))
                .collect())
        }
    }
}

/// Adapters of an API, hardware before software.
fn adapters(api: GpuApi) -> Result<(wgpu::Instance, Vec<wgpu::Adapter>), GpuError> {
    let backends = match api {
        GpuApi::Metal => wgpu::Backends::METAL,
        _ => wgpu::Backends::VULKAN,
    };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = block_on(instance.enumerate_adapters(backends));
    adapters.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    match adapters.is_empty() {
        false => Ok((instance, adapters)),
        true if api == GpuApi::Metal && !cfg!(target_vendor = "apple") => Err(
            GpuError::unavailable(api, "it is part of Apple's systems only"),
        ),
        true => Err(GpuError::unavailable(
            api,
            "no driver offers a device (on Linux, drivers are listed in /usr/share/vulkan/icd.d)",
        )),
    }
}

fn rank(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn describe(api: GpuApi, index: usize, adapter: &wgpu::Adapter) -> GpuDevice {
    let info = adapter.get_info();
    let driver = match info.driver_info.is_empty() {
        true => info.driver,
        false => format!("{} {}", info.driver, info.driver_info),
    };
    GpuDevice {
        api,
        index,
        name: match driver.trim() {
            "" => info.name,
            driver => format!("{}, {driver}", info.name),
        },
        software: info.device_type == wgpu::DeviceType::Cpu,
    }
}

/// The device asked for: the first unless a number says which.
pub(super) fn choose(devices: usize, api: GpuApi, index: Option<usize>) -> Result<usize, GpuError> {
    match index.unwrap_or(0) {
        index if index < devices => Ok(index),
        index => Err(GpuError::Index {
            api,
            index,
            count: devices,
        }),
    }
}

pub(super) fn title(device: &GpuDevice) -> String {
    let kind = if device.software { ", on the CPU" } else { "" };
    format!("{}:{} ({}{kind})", device.api, device.index, device.name)
}

impl GpuBackend {
    /// Opens a device: of Vulkan or Metal, hardware before software if no number is given.
    ///
    /// # Errors
    /// No such device, or its driver does not open it.
    pub fn open(api: GpuApi, index: Option<usize>) -> Result<Self, GpuError> {
        match api {
            GpuApi::Cuda => open_cuda(index),
            GpuApi::Hip => open_hip(index),
            GpuApi::Vulkan | GpuApi::Metal => open_wgpu(api, index),
        }
    }
}

fn open_wgpu(api: GpuApi, index: Option<usize>) -> Result<GpuBackend, GpuError> {
    // A device is opened once in a process: its memory is one pool for all who use it.
    static OPENED: Mutex<Vec<(GpuDevice, WgpuDevice)>> = Mutex::new(Vec::new());
    let backend = |handle: &WgpuDevice, device: &GpuDevice| {
        let client = WgpuRuntime::client(handle);
        GpuBackend::on(Box::new(Portable(client)), title(device))
    };
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let number = index.unwrap_or(0);
    let known = opened
        .iter()
        .find(|(d, _)| (d.api, d.index) == (api, number));
    if let Some((device, handle)) = known {
        return Ok(backend(handle, device));
    }
    let (device, handle) = open_adapter(api, index)?;
    let made = backend(&handle, &device);
    opened.push((device, handle));
    Ok(made)
}

/// Opens an adapter and makes it known to the runtime.
fn open_adapter(api: GpuApi, index: Option<usize>) -> Result<(GpuDevice, WgpuDevice), GpuError> {
    let (instance, mut adapters) = adapters(api)?;
    let index = choose(adapters.len(), api, index)?;
    let adapter = adapters.swap_remove(index);
    let device = describe(api, index, &adapter);
    let (opened, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..wgpu::DeviceDescriptor::default()
    }))
    .map_err(|e| GpuError::Open {
        api,
        index,
        name: device.name.clone(),
        reason: e.to_string(),
    })?;
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup {
        instance,
        adapter,
        device: opened,
        queue,
        backend,
    };
    Ok((device, init_device(setup, RuntimeOptions::default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_from_zero() {
        assert_eq!(choose(2, GpuApi::Vulkan, None), Ok(0));
        assert_eq!(choose(2, GpuApi::Vulkan, Some(1)), Ok(1));
        let error = choose(2, GpuApi::Vulkan, Some(2)).expect_err("two devices");
        assert_eq!(
            error.to_string(),
            "there is no device vulkan:2; vulkan has 2, counted from 0"
        );
    }
}
