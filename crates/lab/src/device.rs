//! What computes: `run.device` and `--device`.

use clap::Args;
use sansprop_kernels::GpuApi;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The CPU, or a GPU by its API and, where there are several, its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU.
    Gpu {
        /// How it is reached.
        api: GpuApi,
        /// Its number among the devices of the API; none: the first.
        index: Option<usize>,
    },
}

impl Device {
    /// Whether it is the CPU.
    pub(crate) fn is_cpu(&self) -> bool {
        *self == Self::Cpu
    }

    /// The precisions that it computes in.
    pub(crate) fn precisions(&self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &["f32", "f32-strict", "bf16", "f64"],
            Self::Gpu { .. } => &["f32", "tf32", "bf16"],
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu { api, index: None } => write!(f, "{api}"),
            Self::Gpu {
                api,
                index: Some(index),
            } => write!(f, "{api}:{index}"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let api = GpuApi::named(name);
        let index = number.map(str::parse).transpose();
        match (api, index) {
            (Some(api), Ok(index)) => Ok(Self::Gpu { api, index }),
            _ => Err(format!(
                "no such device {text:?}: write cpu, cuda, hip, vulkan or metal, or cuda:1 for the second of several \
                 (`sansprop devices` lists what is here)"
            )),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// `--device`, of every command that trains.
#[derive(Args)]
pub(crate) struct DeviceOption {
    /// What computes: cpu, cuda, hip, vulkan or metal, or cuda:1 for the second of several; the same as run.device.
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
}

impl DeviceOption {
    /// The option as a config override, before `others`, which win.
    pub(crate) fn before(&self, others: &[String]) -> Vec<String> {
        let device = self.device.map(|device| format!("run.device={device}"));
        device.into_iter().chain(others.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_as_they_are_written() {
        for text in [
            "cpu", "cuda", "cuda:1", "hip", "vulkan", "vulkan:0", "metal",
        ] {
            let device: Device = text.parse().expect("a device");
            assert_eq!(device.to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cpu:0", "cuda:-1", "Vulkan"] {
            let error = text.parse::<Device>().expect_err("no device");
            assert!(error.contains("sansprop devices"), "{error}");
        }
    }
}
