//! Two vectors side by side, which are finished as one. What is written past the caches must be whole lines, and one vector of
//! AVX2, or one of values of 16 bits, does not fill any.

use super::isa::Kernel;
use super::lanes::Lanes;
use super::values::Bf16;

/// Two vectors, lane by lane what each of them is.
#[derive(Clone, Copy)]
pub(super) struct Twin<V>([V; 2]);

impl<V: Lanes> Twin<V> {
    /// # Safety
    /// As for what is done to each.
    #[inline(always)]
    unsafe fn with(self, other: Self, f: unsafe fn(V, V) -> V) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        // SAFETY: handed on from the caller.
        unsafe { Self([f(a, c), f(b, d)]) }
    }

    /// # Safety
    /// As for what is done to each.
    #[inline(always)]
    unsafe fn each(self, f: unsafe fn(V) -> V) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { Self([f(self.0[0]), f(self.0[1])]) }
    }
}

impl<V: Lanes> Lanes for Twin<V> {
    type Pair = Self;

    const LEN: usize = 2 * V::LEN;
    const ROWS: usize = V::ROWS;
    const ROWS_OF_ONE: usize = V::ROWS;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: handed on from the caller.
        unsafe { V::call(kernel) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: handed on from the caller.
        unsafe { V::prefetch(at) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { Self([V::splat(x); 2]) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { Self([V::load(from), V::load(from.add(V::LEN))]) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        let first = count.min(V::LEN);
        let second = from.wrapping_add(V::LEN);
        // SAFETY: handed on from the caller.
        unsafe {
            Self([
                V::load_partial(from, first),
                V::load_partial(second, count - first),
            ])
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { Self([V::load_bf16(from), V::load_bf16(from.add(V::LEN))]) }
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(from: *const Bf16, count: usize) -> Self {
        let first = count.min(V::LEN);
        let second = from.wrapping_add(V::LEN);
        // SAFETY: handed on from the caller.
        unsafe {
            Self([
                V::load_bf16_partial(from, first),
                V::load_bf16_partial(second, count - first),
            ])
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut Bf16) {
        // SAFETY: handed on from the caller.
        unsafe {
            self.0[0].store_bf16(to);
            self.0[1].store_bf16(to.add(V::LEN));
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_partial(self, to: *mut Bf16, count: usize) {
        let first = count.min(V::LEN);
        // SAFETY: handed on from the caller.
        unsafe {
            self.0[0].store_bf16_partial(to, first);
            self.0[1].store_bf16_partial(to.wrapping_add(V::LEN), count - first);
        }
    }
    #[inline(always)]
    unsafe fn stream_bf16(self, to: *mut Bf16) {
        let [first, second] = self.0;
        // SAFETY: handed on from the caller.
        unsafe { V::stream_two_bf16(first, second, to) };
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: handed on from the caller.
        unsafe {
            self.0[0].store(to);
            self.0[1].store(to.add(V::LEN));
        }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: handed on from the caller.
        unsafe {
            self.0[0].stream(to);
            self.0[1].stream(to.add(V::LEN));
        }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        let first = count.min(V::LEN);
        // SAFETY: handed on from the caller.
        unsafe {
            self.0[0].store_partial(to, first);
            self.0[1].store_partial(to.wrapping_add(V::LEN), count - first);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.with(other, V::add) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.with(other, V::sub) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.with(other, V::mul) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.with(other, V::div) }
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.each(V::sqrt) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let ([a, b], [c, d], [e, f]) = (self.0, factor.0, addend.0);
        // SAFETY: handed on from the caller.
        unsafe { Self([a.mul_add(c, e), b.mul_add(d, f)]) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.each(V::relu) }
    }
    #[inline(always)]
    unsafe fn keep_where_positive(self, value: Self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.with(value, V::keep_where_positive) }
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.each(V::abs) }
    }
    #[inline(always)]
    unsafe fn select_below(self, bound: Self, less: Self, otherwise: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, bound.0);
        let ([e, f], [g, h]) = (less.0, otherwise.0);
        // SAFETY: handed on from the caller.
        unsafe { Self([a.select_below(c, e, g), b.select_below(d, f, h)]) }
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.each(V::power_of_two) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { self.each(V::round) }
    }
}
