//! `sansprop devices`.

use crate::cli::{Failure, print};
use crate::device::Device;
use crate::table::table;
use clap::Args;
use sansprop_kernels::{Backend, CpuBackend, GpuApi, gpu_devices};

/// List what can compute here, and why a way to a GPU is not usable.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop devices
  sansprop check my.toml --device vulkan        are this device's kernels right on my network?
  sansprop train my.toml --device cuda:1")]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<(), Failure> {
    let mut table = table(&["--device", "what it is", "precisions"], 3);
    let cpu = CpuBackend::new(0)?;
    let precisions = |device: Device| device.precisions().join(", ");
    table.add_row(["cpu".into(), cpu.device(), precisions(Device::Cpu)]);
    let mut missing = String::new();
    for api in GpuApi::ALL {
        match gpu_devices(api) {
            Ok(devices) => {
                for device in devices {
                    let note = match device.software {
                        true => " (a driver that computes on the CPU: slow)",
                        false => "",
                    };
                    let index = Some(device.index);
                    let gpu = Device::Gpu { api, index };
                    let name = gpu.to_string();
                    table.add_row([name, format!("{}{note}", device.name), precisions(gpu)]);
                }
            }
            Err(error) => missing.push_str(&format!("{error}\n")),
        }
    }
    print(&format!("{table}\n{missing}"))
}
