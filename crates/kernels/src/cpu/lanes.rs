//! One vector of `f32` lanes: what the micro-kernels are written in, for every instruction set.

use super::isa::Kernel;
use super::values::Bf16;

/// Lanes of the longest vectors, or of two side by side.
pub(super) const MOST_LANES: usize = 32;

/// A SIMD vector. All methods but [`call`](Self::call) are inlined into a caller that enables the instruction set.
///
/// # Safety
/// Every method may be called only where the CPU has the instruction set of the type; loads and stores need
/// `LEN` (or, for the partial ones, `count`) valid elements behind the pointer. No alignment is required.
pub(super) trait Lanes: Copy {
    /// Vectors of twice the lanes, which two samples share where panels are as wide as one of these; these themselves where
    /// the machine has no such vectors.
    type Pair: Lanes;

    /// Lanes per vector.
    const LEN: usize;
    /// Rows of a micro-tile that is two vectors wide: as many as the register file holds.
    const ROWS: usize;
    /// Rows of a micro-tile that is one vector wide.
    const ROWS_OF_ONE: usize;
    /// Those where [`TERMS`](Self::TERMS) follow each other: with as many the compiler leaves some sums in memory.
    const ROWS_OF_TERMS: usize = Self::ROWS_OF_ONE;
    /// Rows from which on micro-tiles of one height are better than fewer of two.
    const EVEN_ROWS: usize = usize::MAX;
    /// Whether there are pairs.
    const PAIRED: bool = Self::Pair::LEN > Self::LEN;
    /// Whether registers are left for two rows of weights beside a micro-tile two vectors wide.
    const TWO_TERMS: bool = false;

    /// Values of weights that stay near while all rows of a panel go by: of few, in the first-level cache, a tile begins and ends
    /// too often; of many, in the second-level one, each tile fetches them anew.
    const NEAR: usize = 2 << 10;

    /// Terms of a micro-tile's sums that follow each other without a loop, and so share its additions of addresses.
    const TERMS: usize = 1;

    /// Runs a kernel in a function of its own, which has the instruction set: what several kernels do is compiled once.
    ///
    /// # Safety
    /// The kernel's own contract, too.
    unsafe fn call<K: Kernel>(kernel: K);

    /// Asks for the cache line at an address that will soon be read; any address may be given.
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self;
    /// `low` in the first half of all lanes, `high` in the second.
    #[inline(always)]
    unsafe fn splat_two(low: f32, high: f32) -> Self {
        let mut values = [high; MOST_LANES];
        values[..Self::LEN / 2].fill(low);
        // SAFETY: no vector has more lanes.
        unsafe { Self::load(values.as_ptr()) }
    }
    /// `LEN` values.
    unsafe fn load(from: *const f32) -> Self;
    /// `LEN/2` values of `low` in the first half, so many of `high` in the second.
    #[inline(always)]
    unsafe fn load_two(low: *const f32, high: *const f32) -> Self {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: no vector has more lanes; the caller guarantees the values.
        unsafe {
            for (half, from) in values.chunks_exact_mut(Self::LEN / 2).zip([low, high]) {
                half.copy_from_slice(std::slice::from_raw_parts(from, Self::LEN / 2));
            }
            Self::load(values.as_ptr())
        }
    }
    /// The same in both halves.
    #[inline(always)]
    unsafe fn load_twice(from: *const f32) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { Self::load_two(from, from) }
    }
    /// Lane `low` in the first half of all lanes, lane `high` in the second.
    #[inline(always)]
    unsafe fn spread_two(self, low: usize, high: usize) -> Self {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: no vector has more lanes.
        unsafe {
            self.store(values.as_mut_ptr());
            Self::splat_two(values[low], values[high])
        }
    }
    /// The sum of both halves, in both.
    #[inline(always)]
    unsafe fn add_halves(self) -> Self {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: no vector has more lanes.
        unsafe {
            self.store(values.as_mut_ptr());
            for lane in 0..Self::LEN / 2 {
                values[lane] += values[lane + Self::LEN / 2];
            }
            Self::load_twice(values.as_ptr())
        }
    }
    /// `count ≤ LEN` values, then zeros.
    unsafe fn load_partial(from: *const f32, count: usize) -> Self;
    /// `LEN` values of 16 bits.
    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: handed on from the caller.
        unsafe { Self::load_bf16_partial(from, Self::LEN) }
    }
    /// `count ≤ LEN` of them, then zeros.
    #[inline(always)]
    unsafe fn load_bf16_partial(from: *const Bf16, count: usize) -> Self {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: no vector has more lanes; the caller guarantees the values.
        unsafe {
            for (i, value) in values.iter_mut().take(count).enumerate() {
                *value = f32::from(*from.add(i));
            }
            Self::load(values.as_ptr())
        }
    }
    /// Writes the upper halves of `LEN` values.
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut Bf16) {
        // SAFETY: handed on from the caller.
        unsafe { self.store_bf16_partial(to, Self::LEN) };
    }
    /// Writes those of the first `count ≤ LEN`.
    #[inline(always)]
    unsafe fn store_bf16_partial(self, to: *mut Bf16, count: usize) {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: no vector has more lanes; the caller guarantees the room.
        unsafe {
            self.store(values.as_mut_ptr());
            for (i, &value) in values.iter().take(count).enumerate() {
                *to.add(i) = Bf16::truncated(value);
            }
        }
    }
    /// As [`store_bf16`](Self::store_bf16), past the caches as [`stream`](Self::stream) has it.
    #[inline(always)]
    unsafe fn stream_bf16(self, to: *mut Bf16) {
        // SAFETY: handed on from the caller.
        unsafe { self.store_bf16(to) };
    }
    /// The same of two vectors, one behind the other.
    #[inline(always)]
    unsafe fn stream_two_bf16(first: Self, second: Self, to: *mut Bf16) {
        // SAFETY: handed on from the caller.
        unsafe {
            first.store_bf16(to);
            second.store_bf16(to.add(Self::LEN));
        }
    }
    /// Writes `LEN` values.
    unsafe fn store(self, to: *mut f32);
    /// Writes `LEN` values past the caches, if the machine gains by it; they begin on a cache line if they fill one. Other
    /// threads may read them once [`Threads`](super::threads::Threads) has ended the work.
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: handed on from the caller.
        unsafe { self.store(to) };
    }
    /// Writes the first `count ≤ LEN` values.
    unsafe fn store_partial(self, to: *mut f32, count: usize);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self − other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// `√self`.
    unsafe fn sqrt(self) -> Self;
    /// `self · factor + addend`.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `max(self, 0)`, NaN for NaN.
    unsafe fn relu(self) -> Self;
    /// `value` where `self > 0`, else 0.
    unsafe fn keep_where_positive(self, value: Self) -> Self;
    /// `|self|`.
    unsafe fn abs(self) -> Self;
    /// `less` where `self < bound`, else `otherwise` (also where a side is NaN).
    unsafe fn select_below(self, bound: Self, less: Self, otherwise: Self) -> Self;
    /// `2^n` for whole `n` in −126 ..= 127.
    unsafe fn power_of_two(self) -> Self;
    /// Nearest whole number.
    unsafe fn round(self) -> Self;
    /// `to[j, i] = from[i, j]`, both `LEN` rows of `LEN` values, the rows so many values apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: the caller guarantees both squares.
        unsafe {
            for j in 0..Self::LEN {
                for i in 0..Self::LEN {
                    *to.add(j * to_row + i) = *from.add(i * from_row + j);
                }
            }
        }
    }
}

/// `count` values, then zeros.
///
/// # Safety
/// The instruction set of `V`; that many readable values.
#[inline(always)]
pub(super) unsafe fn load<V: Lanes>(from: *const f32, count: usize) -> V {
    // SAFETY: handed on from the caller.
    unsafe {
        if count == V::LEN {
            V::load(from)
        } else {
            V::load_partial(from, count)
        }
    }
}

/// Writes the first `count` values: masked only where it must be, as a masked store costs a multiple of a whole one.
///
/// # Safety
/// The instruction set of `V`; that many writable values.
#[inline(always)]
pub(super) unsafe fn store<V: Lanes>(value: V, to: *mut f32, count: usize) {
    // SAFETY: handed on from the caller.
    unsafe {
        if count == V::LEN {
            value.store(to);
        } else {
            value.store_partial(to, count);
        }
    }
}

/// Sums that several rows add to in turn, so that no addition waits for the one before.
pub(super) const CHAINS: usize = 4;

/// The sum of such sums.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn fold<V: Lanes>(sums: [V; CHAINS]) -> V {
    // SAFETY: arithmetic only.
    unsafe { sums[0].add(sums[1]).add(sums[2].add(sums[3])) }
}

/// `tanh` to about 2 ulp: Cephes' rational form, `x + x³ P(x²)` near 0 and `1 − 2/(e^{2x}+1)` beyond.
///
/// # Safety
/// As for every method of [`Lanes`].
#[inline(always)]
pub(super) unsafe fn tanh<V: Lanes>(x: V) -> V {
    const P: [f32; 5] = [
        -5.704_988_7e-3,
        2.063_908_8e-2,
        -5.373_971_5e-2,
        1.333_144_1e-1,
        -3.333_328e-1,
    ];
    // SAFETY: arithmetic only; the caller guarantees the instruction set.
    unsafe {
        let square = x.mul(x);
        let mut p = V::splat(P[0]);
        for c in &P[1..] {
            p = p.mul_add(square, V::splat(*c));
        }
        let near = p.mul(square).mul_add(x, x);

        // Beyond |x| = 9.02 the f32 result is ±1; clamping keeps the exponential finite, NaN passes through.
        let size = x.abs();
        let limit = V::splat(9.1);
        let clamped = limit.select_below(size, limit, size);
        let e = exp(clamped.add(clamped));
        let one = V::splat(1.0);
        let far = one.sub(V::splat(2.0).div(e.add(one)));
        let zero = V::splat(0.0);
        let signed = x.select_below(zero, zero.sub(far), far);
        size.select_below(V::splat(0.625), near, signed)
    }
}

/// `exp` to about 1 ulp for |x| ≤ 80: `2^n · e^r` with a polynomial of degree 6 in r.
///
/// # Safety
/// As for every method of [`Lanes`].
#[inline(always)]
unsafe fn exp<V: Lanes>(x: V) -> V {
    const P: [f32; 6] = [
        1.987_569_1e-4,
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    // SAFETY: arithmetic only; the caller guarantees the instruction set.
    unsafe {
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, so that r keeps all its bits.
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(P[0]);
        for c in &P[1..] {
            p = p.mul_add(r, V::splat(*c));
        }
        let one = V::splat(1.0);
        p.mul(r).mul_add(r, r).add(one).mul(n.power_of_two())
    }
}
