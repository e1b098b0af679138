//! Vectors in plain Rust.

use super::isa::Kernel;
use super::lanes::Lanes;

/// Four lanes in plain Rust; the compiler maps them to SSE2 or NEON.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (o, y) in out.iter_mut().zip(other.0) {
            *o = f(*o, y);
        }
        Self(out)
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }
}

impl Lanes for Portable {
    type Pair = Self;

    const LEN: usize = 4;
    const ROWS: usize = 6;
    const ROWS_OF_ONE: usize = 12;

    #[inline(never)]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: handed on from the caller.
        unsafe { kernel.run::<Self>() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller guarantees four readable values; the read needs no alignment.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        let mut out = [0.0; 4];
        // SAFETY: the caller guarantees `count ≤ 4` readable values.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), count) };
        Self(out)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller guarantees four writable values; the write needs no alignment.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        // SAFETY: the caller guarantees `count ≤ 4` writable values.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, count) };
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |x, y| x * y)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |x, y| x / y)
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let mut out = addend.0;
        for ((o, x), y) in out.iter_mut().zip(self.0).zip(factor.0) {
            // Where the target has no fused instruction, `f32::mul_add` would be a slow library call.
            *o = if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
                x.mul_add(y, *o)
            } else {
                x * y + *o
            };
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        self.map(|x| if x < 0.0 { 0.0 } else { x })
    }
    #[inline(always)]
    unsafe fn keep_where_positive(self, value: Self) -> Self {
        self.zip(value, |x, v| if x > 0.0 { v } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn select_below(self, bound: Self, less: Self, otherwise: Self) -> Self {
        let mut out = otherwise.0;
        for (i, out) in out.iter_mut().enumerate() {
            if self.0[i] < bound.0[i] {
                *out = less.0[i];
            }
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        self.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.map(f32::round_ties_even)
    }
}
