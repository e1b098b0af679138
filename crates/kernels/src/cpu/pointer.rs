//! A pointer that threads may share while each writes its own part.

/// The start of a buffer that several threads write, each to a range of its own.
#[derive(Clone, Copy)]
pub(super) struct Pointer {
    start: *mut f32,
    len: usize,
}

// SAFETY: a `Pointer` only names memory; every access goes through an unsafe method or a raw read whose caller
// guarantees that no two threads touch the same values while one of them writes.
unsafe impl Send for Pointer {}
// SAFETY: as for `Send`.
unsafe impl Sync for Pointer {}

impl Pointer {
    pub(super) fn new(values: &mut [f32]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
        }
    }

    /// The values `[from, from + len)`.
    ///
    /// # Safety
    /// The buffer must outlive the slice, and no other thread may access this range meanwhile.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn slice<'a>(self, from: usize, len: usize) -> &'a mut [f32] {
        debug_assert!(from + len <= self.len, "slice outside its buffer");
        // SAFETY: the caller guarantees exclusive access; the range lies inside the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// The same memory from value `from` on.
    pub(super) fn skip(self, from: usize) -> Self {
        assert!(from <= self.len, "start outside the buffer");
        Self {
            start: self.start.wrapping_add(from),
            len: self.len - from,
        }
    }

    /// The address of value `from`.
    #[inline(always)]
    pub(super) fn at(self, from: usize) -> *mut f32 {
        debug_assert!(from <= self.len, "address outside its buffer");
        self.start.wrapping_add(from)
    }
}
