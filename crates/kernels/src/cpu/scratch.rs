//! Working memory that kernel calls leave to the next ones, so that a training step allocates nothing.

use super::buffer::CpuBuffer;
use super::isa::Vectors;
use super::pointer::Pointer;
use super::threads::Threads;

/// Working memory of one kernel call. Every part has one use, so that none grows any more once each layer was seen.
#[derive(Default)]
pub(super) struct Scratch {
    /// What the channel norm knows of panels and of channels.
    pub sums: CpuBuffer,
    /// Packed weights.
    pub packed: CpuBuffer,
    /// A recurrent state as tiles.
    #[cfg(target_arch = "x86_64")]
    pub state: CpuBuffer,
    /// Panels of 16 bits in f32, for kernels that do not read these.
    pub widened: [CpuBuffer; 2],
    /// A weight gradient's partial sums.
    pub partials: CpuBuffer,
    /// A part for each thread.
    pub parts: CpuBuffer,
}

/// Who computes: threads, their vectors, and working memory of which each of them has a part.
pub(super) struct Workers<'a> {
    pub threads: &'a Threads,
    pub set: Vectors,
    pub parts: &'a mut CpuBuffer,
}

impl Workers<'_> {
    /// As [`Threads::for_each`], with `len` values for the thread that an item runs on; they begin on a cache line
    /// and hold anything.
    pub(super) fn for_each(
        &mut self,
        items: usize,
        cost: usize,
        len: usize,
        work: impl Fn(&mut [f32], usize) + Send + Sync,
    ) {
        // Whole cache lines, so that threads never write the same one.
        let stride = len.next_multiple_of(16);
        self.parts.reserve(self.threads.count() * stride);
        let parts = Pointer::new(self.parts);
        self.threads.for_each(items, cost, |thread, item| {
            // SAFETY: every thread has a number of its own below the count, and runs one item at a time.
            work(unsafe { parts.slice(thread * stride, len) }, item);
        });
    }
}
