//! Cache-line aligned storage.

use std::ops::{Deref, DerefMut};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// `f32` values that start on a cache line.
#[derive(Clone, Default)]
pub struct CpuBuffer {
    lines: Vec<Line>,
    len: usize,
}

impl CpuBuffer {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let mut lines = vec![Line([0.0; 16]); len.div_ceil(16)];
        ask_for_large_pages(&mut lines);
        Self { lines, len }
    }

    /// Makes room for at least `len` values; their content is unspecified.
    pub(super) fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeros(len);
        }
    }
}

/// Asks the system to back an array by large pages, where it holds any: kernels walk dozens of panels side by side, more
/// than a processor keeps small pages' addresses of. It is a wish; nothing but speed depends on it.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(lines: &mut [Line]) {
    const PAGE: usize = 2 << 20;
    let range = lines.as_mut_ptr_range();
    let (start, end) = (range.start.addr().next_multiple_of(PAGE), range.end.addr());
    let len = end.saturating_sub(start) / PAGE * PAGE;
    if len > 0 {
        let first = range.start.with_addr(start);
        // SAFETY: whole pages inside one live allocation; the advice changes neither their content nor their mapping.
        unsafe { libc::madvise(first.cast(), len, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &mut [Line]) {}

impl Deref for CpuBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `lines` holds at least `len` initialised values in one allocation without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for CpuBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
