//! Numbers in a device's memory.

use super::elementwise::copy;
use super::failure::GpuFailure;
use super::launch::{per_value, units};
use cubecl::prelude::*;
use cubecl::server::Handle;

/// A buffer of `f32` on a device. A clone is a buffer of its own, with the same values.
pub struct GpuBuffer<R: Runtime> {
    client: ComputeClient<R>,
    handle: Handle,
    len: usize,
}

impl<R: Runtime> GpuBuffer<R> {
    /// A buffer whose values are whatever lay there.
    pub(super) fn empty(client: &ComputeClient<R>, len: usize) -> Self {
        check_size(client, len);
        Self {
            client: client.clone(),
            handle: client.empty(len.max(1) * size_of::<f32>()),
            len,
        }
    }

    /// A buffer of `values`.
    pub(super) fn of(client: &ComputeClient<R>, values: &[f32]) -> Self {
        check_size(client, values.len());
        let stored = if values.is_empty() { &[0.0] } else { values };
        Self {
            client: client.clone(),
            handle: client.create_from_slice(f32::as_bytes(stored)),
            len: values.len(),
        }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The first `len` values, as an argument of a kernel.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn first(&self, len: usize) -> ArrayArg<R> {
        assert!(
            len <= self.len,
            "a kernel needs {len} values of a buffer of {}",
            self.len
        );
        // SAFETY: the allocation holds at least `len` values, as was just asserted.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), len.max(1)) }
    }

    /// All values, as an argument of a kernel.
    pub(super) fn all(&self) -> ArrayArg<R> {
        self.first(self.len)
    }

    /// Overwrites the start with the first `len` values of another buffer.
    pub(super) fn overwrite(&mut self, len: usize, from: &Self) {
        if len == 0 {
            return;
        }
        // SAFETY: both arguments hold `len` values, beyond which no thread works.
        unsafe {
            copy::launch_unchecked(
                &self.client,
                per_value(len),
                units(),
                from.first(len),
                self.first(len),
                len,
            );
        }
    }
}

/// Refuses what no allocation of this device can hold.
fn check_size<R: Runtime>(client: &ComputeClient<R>, len: usize) {
    let (bytes, most) = (
        len as u64 * size_of::<f32>() as u64,
        client.properties().memory.max_page_size,
    );
    if bytes > most {
        GpuFailure::raise(format!(
            "one array needs {bytes} bytes, and this device holds at most {most} in one piece; a smaller \
             network.width or train.batch may fit"
        ));
    }
}

impl<R: Runtime> Clone for GpuBuffer<R> {
    fn clone(&self) -> Self {
        let mut twin = Self::empty(&self.client, self.len);
        twin.overwrite(self.len, self);
        twin
    }
}
