//! Cache-line aligned storage.

use super::pointer::Pointer;
use super::values::{Bf16, Target, Values};
use std::ops::{Deref, DerefMut};

/// Values of a cache line.
const LINE: usize = 16;

/// Values that start on a cache line: `f32`, or of 16 bits if whoever wrote them last left them so.
///
/// It can be taken for a slice of `f32`, which panics if its values have 16 bits; [`Backend::read`](crate::Backend::read) reads both.
#[derive(Default)]
pub struct CpuBuffer {
    /// Among them lie the values.
    words: Vec<f32>,
    /// Words before the first cache line.
    start: usize,
    len: usize,
    /// Whether values have 16 bits. They fill the first half then.
    halved: bool,
}

impl CpuBuffer {
    /// `len` zeros. Of a large array the system gives pages when they are first written.
    pub(super) fn zeros(len: usize) -> Self {
        let mut words = vec![0.0; len + LINE - 1];
        ask_for_large_pages(&mut words);
        let start = words.as_ptr().align_offset(LINE * size_of::<f32>());
        assert!(start < LINE, "a cache line begins among sixteen words");
        Self {
            words,
            start,
            len,
            halved: false,
        }
    }

    /// Makes room for at least `len` values; their content is unspecified.
    pub(super) fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeros(len);
        }
    }

    /// The first `len` values, as they are stored.
    pub(super) fn values(&self, len: usize) -> Values<'_> {
        let words = self.lines();
        if !self.halved {
            return Values::F32(&words[..len]);
        }
        // SAFETY: that many words hold twice as many values of any content, aligned more strictly.
        let halves: &[Bf16] =
            unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), self.len) };
        Values::Bf16(&halves[..len])
    }

    /// All values, as they are stored.
    pub(super) fn all(&self) -> Values<'_> {
        self.values(self.len)
    }

    /// Where `len` values can be stored, in 16 bits each if `halved`.
    pub(super) fn target(&mut self, len: usize, halved: bool) -> Target {
        let start = Pointer::new(&mut self[..len]);
        self.halved = halved;
        Target { start, halved }
    }

    /// Overwrites the start with the first `len` values of another, stored as they are there.
    pub(super) fn copy(&mut self, len: usize, from: &Self) {
        match from.halved {
            false => self[..len].copy_from_slice(&from[..len]),
            true => {
                let words = len.div_ceil(2);
                self.lines_mut()[..words].copy_from_slice(&from.lines()[..words]);
                self.halved = true;
            }
        }
    }

    /// The first `len` values as f32, in `widened` if they are not stored so.
    pub(super) fn as_f32<'a>(&'a self, len: usize, widened: &'a mut Self) -> &'a [f32] {
        match self.values(len) {
            Values::F32(values) => values,
            Values::Bf16(values) => {
                widened.reserve(len);
                let widened = &mut widened[..len];
                for (to, value) in widened.iter_mut().zip(values) {
                    *to = f32::from(*value);
                }
                widened
            }
        }
    }

    fn lines(&self) -> &[f32] {
        &self.words[self.start..][..self.len]
    }

    fn lines_mut(&mut self) -> &mut [f32] {
        &mut self.words[self.start..][..self.len]
    }
}

impl Clone for CpuBuffer {
    fn clone(&self) -> Self {
        let mut clone = Self::zeros(self.len);
        clone.copy(self.len, self);
        clone
    }
}

/// Asks the system to back an array by large pages, where it holds any: kernels walk dozens of panels side by side, more
/// than a processor keeps small pages' addresses of. It counts for pages that were not touched yet. It is a wish; nothing but
/// speed depends on it.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(words: &mut [f32]) {
    const PAGE: usize = 2 << 20;
    let range = words.as_mut_ptr_range();
    let (start, end) = (range.start.addr().next_multiple_of(PAGE), range.end.addr());
    let len = end.saturating_sub(start) / PAGE * PAGE;
    if len > 0 {
        let first = range.start.with_addr(start);
        // SAFETY: whole pages inside one live allocation; the advice changes neither their content nor their mapping.
        unsafe { libc::madvise(first.cast(), len, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &mut [f32]) {}

impl Deref for CpuBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        assert!(!self.halved, "values of 16 bits read as f32");
        self.lines()
    }
}

impl DerefMut for CpuBuffer {
    /// What is written is f32.
    fn deref_mut(&mut self) -> &mut [f32] {
        self.halved = false;
        self.lines_mut()
    }
}
