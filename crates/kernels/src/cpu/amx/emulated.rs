//! The tile unit in plain Rust, so that its kernels can be checked on machines without one. It is slow, and adds in the same
//! order but for the last bits.

use super::unit::Operand;
use super::{TILE, WORDS};
use std::sync::OnceLock;

/// Environment variable that asks for it, where the machine's vectors suffice for all else.
const VARIABLE: &str = "SANSPROP_EMULATED_AMX";

/// Whether it was asked for; looked up once.
pub(in crate::cpu) fn wanted() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| std::env::var_os(VARIABLE).is_some_and(|v| v == "1"))
}

/// The four tiles of sums.
pub(super) struct Tiles {
    height: usize,
    /// Words of a product.
    words: usize,
    /// `[row tile, column tile]`
    sums: [[[f32; TILE]; 2]; 2],
}

impl Tiles {
    /// As [`Unit::new`](super::unit::Unit::new).
    pub(super) fn new(height: usize, words: usize) -> Self {
        Self {
            height,
            words,
            sums: [[[0.0; TILE]; 2]; 2],
        }
    }

    pub(super) fn clear(&mut self) {
        self.sums = [[[0.0; TILE]; 2]; 2];
    }

    /// The product of a step's tiles of one part each.
    ///
    /// # Safety
    /// Readable operands of `ROWS` and `COLUMNS` tiles.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn add_product<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        rows: Operand,
        columns: Operand,
        step: usize,
    ) {
        for (i, sums) in self.sums.iter_mut().take(ROWS).enumerate() {
            for (j, sums) in sums.iter_mut().take(COLUMNS).enumerate() {
                let (row, column) = (rows.tile(step, i == 1), columns.tile(step, j == 1));
                for (at, sum) in sums.iter_mut().take(self.height * WORDS).enumerate() {
                    for word in 0..self.words {
                        // SAFETY: handed on from the caller.
                        let (a, b) = unsafe {
                            (
                                *row.add(at / WORDS * WORDS + word),
                                *column.add(word * WORDS + at % WORDS),
                            )
                        };
                        let ([a0, a1], [b0, b1]) = (pair(a), pair(b));
                        *sum += a0 * b0 + a1 * b1;
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`Unit::load`](super::unit::Unit::load).
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn load<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        from: *const f32,
        stride: usize,
    ) {
        self.each::<ROWS, COLUMNS>(stride, |sum, at| {
            // SAFETY: handed on from the caller.
            *sum = unsafe { *from.add(at) };
        });
    }

    /// # Safety
    /// As for [`Unit::store`](super::unit::Unit::store).
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn store<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        out: *mut f32,
        stride: usize,
    ) {
        self.each::<ROWS, COLUMNS>(stride, |sum, at| {
            // SAFETY: handed on from the caller.
            unsafe { *out.add(at) = *sum };
        });
    }

    /// Every sum, and where it lies in a matrix whose rows are `stride` values apart.
    fn each<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        stride: usize,
        mut work: impl FnMut(&mut f32, usize),
    ) {
        let height = self.height;
        for (i, sums) in self.sums.iter_mut().take(ROWS).enumerate() {
            for (j, sums) in sums.iter_mut().take(COLUMNS).enumerate() {
                for (at, sum) in sums.iter_mut().take(height * WORDS).enumerate() {
                    let (row, column) = (i * height + at / WORDS, j * WORDS + at % WORDS);
                    work(sum, row * stride + column);
                }
            }
        }
    }
}

/// The two values of a word, those near zero as 0.
fn pair(word: f32) -> [f32; 2] {
    let bits = word.to_bits();
    [bits << 16, bits & 0xffff_0000].map(|bits| {
        let value = f32::from_bits(bits);
        if value.is_subnormal() { 0.0 } else { value }
    })
}
