//! How panels are stored: as f32, or, where their values were rounded to bf16 anyway, in 16 bits.

use super::lanes::{self, Lanes};
use super::pointer::Pointer;

/// The upper half of an f32, which is all of a value with 8 significant bits that is not denormal.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(super) struct Bf16(u16);

impl Bf16 {
    /// What is left of a value without its lower half.
    #[inline(always)]
    pub(super) fn truncated(value: f32) -> Self {
        Self((value.to_bits() >> 16) as u16)
    }
}

impl From<Bf16> for f32 {
    #[inline(always)]
    fn from(value: Bf16) -> Self {
        Self::from_bits(u32::from(value.0) << 16)
    }
}

/// A value of a stored panel.
pub(super) trait Value: Copy + Into<f32> + Send + Sync {
    /// So many fill a cache line.
    const LINE: usize = 64 / size_of::<Self>();
    /// Whether it is f32, which products read as it is.
    const F32: bool = false;

    /// `count` values, then zeros.
    ///
    /// # Safety
    /// The instruction set of `V`; that many readable values.
    unsafe fn load<V: Lanes>(from: *const Self, count: usize) -> V;

    /// Writes the first `count` lanes, in 16 bits only what bf16 holds.
    ///
    /// # Safety
    /// The instruction set of `V`; room for that many values.
    unsafe fn store<V: Lanes>(value: V, to: *mut Self, count: usize);

    /// Writes all lanes past the caches, see [`Lanes::stream`].
    ///
    /// # Safety
    /// The same.
    unsafe fn stream<V: Lanes>(value: V, to: *mut Self);
}

impl Value for f32 {
    const F32: bool = true;

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self, count: usize) -> V {
        // SAFETY: handed on from the caller.
        unsafe { lanes::load(from, count) }
    }
    #[inline(always)]
    unsafe fn store<V: Lanes>(value: V, to: *mut Self, count: usize) {
        // SAFETY: handed on from the caller.
        unsafe { lanes::store(value, to, count) };
    }
    #[inline(always)]
    unsafe fn stream<V: Lanes>(value: V, to: *mut Self) {
        // SAFETY: handed on from the caller.
        unsafe { value.stream(to) };
    }
}

impl Value for Bf16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self, count: usize) -> V {
        // SAFETY: handed on from the caller.
        unsafe {
            match count == V::LEN {
                true => V::load_bf16(from),
                false => V::load_bf16_partial(from, count),
            }
        }
    }
    #[inline(always)]
    unsafe fn store<V: Lanes>(value: V, to: *mut Self, count: usize) {
        // SAFETY: handed on from the caller.
        unsafe {
            match count == V::LEN {
                true => value.store_bf16(to),
                false => value.store_bf16_partial(to, count),
            }
        }
    }
    #[inline(always)]
    unsafe fn stream<V: Lanes>(value: V, to: *mut Self) {
        // SAFETY: handed on from the caller.
        unsafe { value.stream_bf16(to) };
    }
}

/// Stored panels.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [Bf16]),
}

impl Values<'_> {
    /// The address of value `index`.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn address(self, index: usize) -> *const f32 {
        match self {
            Self::F32(values) => values.as_ptr().wrapping_add(index),
            Self::Bf16(values) => values.as_ptr().wrapping_add(index).cast(),
        }
    }

    /// Asks for the cache lines of `len` values, from `first` on, that will soon be read; none if there are fewer.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    pub(super) unsafe fn ask_for<V: Lanes>(self, first: usize, len: usize) {
        // SAFETY: handed on from the caller.
        unsafe {
            match self {
                Self::F32(all) => ask_for::<V, _>(all.get(first..first + len).unwrap_or_default()),
                Self::Bf16(all) => ask_for::<V, _>(all.get(first..first + len).unwrap_or_default()),
            }
        }
    }

    /// Values of a cache line.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn line(self) -> usize {
        match self {
            Self::F32(_) => f32::LINE,
            Self::Bf16(_) => Bf16::LINE,
        }
    }
}

/// Asks for the cache lines of values that will soon be read. One a turn: the compiler would take eight of a plain loop at a time,
/// which fill the queue that other loads wait for.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn ask_for<V: Lanes, E: Value>(values: &[E]) {
    for line in values.chunks(E::LINE) {
        // SAFETY: any address may be asked for.
        unsafe { V::prefetch(line.as_ptr().cast()) };
    }
}

/// Where panels are stored.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub start: Pointer,
    /// In 16 bits a value.
    pub halved: bool,
}

impl Target {
    /// Panels of f32.
    pub(super) fn f32(start: Pointer) -> Self {
        Self {
            start,
            halved: false,
        }
    }

    /// The place of value `index`, which is stored so.
    #[inline(always)]
    pub(super) fn at<E: Value>(self, index: usize) -> *mut E {
        debug_assert!(E::F32 != self.halved, "values of another kind");
        self.start.at(0).cast::<E>().wrapping_add(index)
    }
}
