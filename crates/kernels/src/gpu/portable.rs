//! Devices of CubeCL's runtimes: kernels written once in Rust, for Vulkan, Metal and ROCm.

use super::accelerator::{Accelerator, DeviceArray, Place};
use super::elementwise::transfer;
use super::launch::{Arguments, argument, grid, groups_of, start, units};
use super::operands::Operands;
use super::units::Units;
use super::work::Launch;
use cubecl::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Offsets on a device are 32-bit numbers.
const MOST_VALUES: u64 = u32::MAX as u64;

/// A device of a runtime.
pub(super) struct Portable<R: Runtime>(pub(super) ComputeClient<R>);

impl<R: Runtime> Accelerator for Portable<R> {
    fn most_values(&self) -> u64 {
        let bytes = self.0.properties().memory.max_page_size;
        (bytes / size_of::<f32>() as u64).min(MOST_VALUES)
    }

    fn units(&self, operands: Operands) -> Units {
        Units::reported(self.0.properties(), operands)
    }

    fn empty(&self, values: usize) -> DeviceArray {
        DeviceArray {
            place: Place::Portable(self.0.empty(values * size_of::<f32>())),
            len: values,
        }
    }

    fn upload(&self, bytes: &[u8]) -> DeviceArray {
        DeviceArray {
            place: Place::Portable(self.0.create_from_slice(bytes)),
            len: bytes.len() / 4,
        }
    }

    fn transfer(&self, from: &DeviceArray, to: &DeviceArray, start: usize, len: usize) {
        // SAFETY: `from` holds `len` values and `to` as many from `start` on, beyond which no thread works.
        unsafe {
            transfer::launch_unchecked(
                &self.0,
                grid(groups_of(len), 1),
                units(),
                argument::<R>(from),
                argument::<R>(to),
                start,
                len,
            );
        }
    }

    fn read(&self, array: &DeviceArray, start: usize, len: usize) -> Result<Vec<f32>, String> {
        let bytes = |values: usize| (values * size_of::<f32>()) as u64;
        let handle = array
            .handle()
            .clone()
            .offset_start(bytes(start))
            .offset_end(bytes(array.len - start - len));
        // The runtime panics where its own thread has died of an error.
        let read = || self.0.read_one(handle);
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(bytes)) => Ok(f32::from_bytes(&bytes)[..len].to_vec()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(
                "its memory may be too small for network.width and train.batch, or it was lost"
                    .into(),
            ),
        }
    }

    fn start(&self, launches: &[Launch], given: &Arguments<'_>) {
        for launch in launches {
            start(&self.0, launch, given);
        }
    }
}
