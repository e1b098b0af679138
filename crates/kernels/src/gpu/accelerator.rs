//! What a device must do for the backend: hold arrays, and run launches on them.

use super::cuda::Allocation;
use super::launch::Arguments;
use super::operands::Operands;
use super::units::Units;
use super::work::Launch;
use cubecl::server::Handle;
use std::any::Any;
use std::sync::Arc;

/// An array of values of four bytes on a device.
#[derive(Clone)]
pub(super) struct DeviceArray {
    pub(super) place: Place,
    pub(super) len: usize,
}

/// Where an array lies: each accelerator is given back its own.
#[derive(Clone)]
pub(super) enum Place {
    Portable(Handle),
    Cuda(Arc<Allocation>),
}

impl DeviceArray {
    /// Where it lies on a device of CubeCL's.
    pub(super) fn handle(&self) -> &Handle {
        match &self.place {
            Place::Portable(handle) => handle,
            Place::Cuda(_) => unreachable!("another device's array"),
        }
    }

    /// Where it lies on a device of CUDA's.
    pub(super) fn address(&self) -> u64 {
        match &self.place {
            Place::Cuda(allocation) => allocation.address(),
            Place::Portable(_) => unreachable!("another device's array"),
        }
    }
}

/// What an accelerator keeps with recorded launches.
pub(super) type Kept = Option<Box<dyn Any + Send>>;

/// A device behind one of its programming interfaces.
pub(super) trait Accelerator: Send + Sync {
    /// Values that it holds in one piece.
    fn most_values(&self) -> u64;

    /// What multiplies such operands on it, as far as it says itself.
    fn units(&self, operands: Operands) -> Units;

    /// Whether launches of a recording begin before those have ended whose results they read, and wait for them by themselves.
    fn begins_early(&self) -> bool {
        false
    }

    /// From now on none begins early.
    fn begin_in_turn(&self) {}

    /// Whether it adds parts and descends along their sum in one kernel.
    fn descends(&self) -> bool {
        false
    }

    /// An array of so many values, whatever they are.
    fn empty(&self, values: usize) -> DeviceArray;

    /// An array of these values of four bytes.
    fn upload(&self, bytes: &[u8]) -> DeviceArray;

    /// An array of these values, in the place of one that nobody needs any more if it fits there.
    fn replace(&self, _old: Option<DeviceArray>, bytes: &[u8]) -> DeviceArray {
        self.upload(bytes)
    }

    /// Overwrites `to` from `start` on with the first `len` values of `from`.
    fn transfer(&self, from: &DeviceArray, to: &DeviceArray, start: usize, len: usize);

    /// `len` values from `start` on after all that was started, or why that did not run.
    fn read(&self, array: &DeviceArray, start: usize, len: usize) -> Result<Vec<f32>, String>;

    /// Starts launches, one after the other.
    fn start(&self, launches: &[Launch], given: &Arguments<'_>);

    /// Starts launches that will be started again; what helps then is kept.
    fn replay(&self, launches: &[Launch], given: &Arguments<'_>, _kept: &mut Kept) {
        self.start(launches, given);
    }
}
