//! Numbers in a device's memory.

use super::launch::groups_of;
use super::memory::{Device, Region};
use super::work::{Item, Kernel, Span};
use std::sync::Arc;

/// A buffer of `f32` on a device. A clone is a buffer of its own, with the same values.
pub struct GpuBuffer(Region);

impl GpuBuffer {
    /// A buffer whose values are whatever lay there.
    pub(super) fn empty(device: &Arc<Device>, len: usize) -> Self {
        Self(device.region(len))
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn region(&self) -> &Region {
        &self.0
    }

    /// The first `len` values, as an operand.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn first(&self, len: usize) -> Span {
        self.part(0, len)
    }

    /// `len` values from `from` on, as an operand.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn part(&self, from: usize, len: usize) -> Span {
        assert!(
            from + len <= self.len(),
            "a kernel needs {len} values from {from} on of a buffer of {}",
            self.len()
        );
        self.0.span(from)
    }

    /// Overwrites the start with the first `len` values of another buffer.
    pub(super) fn overwrite(&mut self, len: usize, from: &Self) {
        if len == 0 {
            return;
        }
        let item = Item::new(Kernel::Copy, groups_of(len))
            .reads(from.first(len))
            .writes(self.first(len))
            .count(len);
        self.0.device().note(item);
    }
}

impl Clone for GpuBuffer {
    fn clone(&self) -> Self {
        let mut twin = Self::empty(self.0.device(), self.len());
        twin.overwrite(self.len(), self);
        twin
    }
}
