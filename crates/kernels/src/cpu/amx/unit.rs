//! The tile unit: its configuration and its few instructions.
//!
//! Tiles 0 to 3 hold a square of sums, 4 and 5 its rows' operands, 6 and 7 its columns'. The compiler uses no tile by
//! itself, since no function here is compiled for them: they keep their content from one assembly block to the next.

use super::WORDS;
use std::arch::asm;
use std::marker::PhantomData;

/// Bytes of a word: two bf16 values that are multiplied with another two and added.
const WORD: usize = 4;
/// Bytes between rows of an operand.
const LINE: usize = WORDS * WORD;
/// Number of tiles.
const TILES: usize = 8;

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Up to two operand tiles of each step; a tile's rows are cache lines one after the other.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    /// First tile of the first step.
    pub first: *const f32,
    /// Words from there to the second tile.
    pub second: usize,
    /// Words from one step to the next.
    pub step: usize,
}

/// This thread's tile unit, from its configuration to its release.
pub(super) struct Unit {
    height: usize,
    /// It belongs to a thread.
    thread: PhantomData<*const ()>,
}

impl Unit {
    /// Sums and rows' operands of `height` rows, products over `words` words.
    ///
    /// # Safety
    /// The tiles must be available.
    pub(super) unsafe fn new(height: usize, words: usize) -> Self {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for tile in 0..TILES {
            let (rows, row) = match tile {
                0..4 => (height, WORDS),
                4 | 5 => (height, words),
                _ => (words, WORDS),
            };
            configuration.rows[tile] = rows as u8;
            configuration.row_bytes[tile] = (row * WORD) as u16;
        }
        // SAFETY: the caller guarantees the instruction; the configuration is 64 bytes in its format.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration,
                options(nostack, preserves_flags, readonly));
        }
        Self {
            height,
            thread: PhantomData,
        }
    }

    /// Makes all sums 0.
    pub(super) fn clear(&self) {
        // SAFETY: the unit is configured.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, preserves_flags, nomem)
            );
        }
    }

    /// Adds to `ROWS` by `COLUMNS` tiles of sums, one or two each way, the products of so many steps.
    ///
    /// # Safety
    /// Readable operands of that many tiles and steps.
    #[inline(always)]
    pub(super) unsafe fn add_products<const ROWS: usize, const COLUMNS: usize>(
        &self,
        rows: Operand,
        columns: Operand,
        steps: usize,
    ) {
        for step in 0..steps {
            let row = rows.first.wrapping_add(step * rows.step);
            let column = columns.first.wrapping_add(step * columns.step);
            // SAFETY: the unit is configured; the operands are readable by the caller's promise.
            unsafe {
                asm!("tileloadd tmm6, [{column} + {line}]", "tileloadd tmm4, [{row} + {line}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    column = in(reg) column, row = in(reg) row, line = in(reg) LINE,
                    options(nostack, preserves_flags, readonly));
                if COLUMNS == 2 {
                    asm!("tileloadd tmm7, [{column} + {line}]", "tdpbf16ps tmm1, tmm4, tmm7",
                        column = in(reg) column.wrapping_add(columns.second), line = in(reg) LINE,
                        options(nostack, preserves_flags, readonly));
                }
                if ROWS == 2 {
                    asm!("tileloadd tmm5, [{row} + {line}]", "tdpbf16ps tmm2, tmm5, tmm6",
                        row = in(reg) row.wrapping_add(rows.second), line = in(reg) LINE,
                        options(nostack, preserves_flags, readonly));
                }
                if ROWS == 2 && COLUMNS == 2 {
                    asm!(
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        options(nostack, preserves_flags, nomem)
                    );
                }
            }
        }
    }

    /// Writes `ROWS` by `COLUMNS` tiles of sums to a matrix whose rows are `stride` values apart.
    ///
    /// # Safety
    /// That many writable rows of that many whole tiles.
    #[inline(always)]
    pub(super) unsafe fn store<const ROWS: usize, const COLUMNS: usize>(
        &self,
        out: *mut f32,
        stride: usize,
    ) {
        let below = out.wrapping_add(self.height * stride);
        let stride = stride * WORD;
        // SAFETY: the unit is configured; the matrix is writable by the caller's promise.
        unsafe {
            asm!("tilestored [{out} + {stride}], tmm0", out = in(reg) out, stride = in(reg) stride,
                options(nostack, preserves_flags));
            if COLUMNS == 2 {
                asm!("tilestored [{out} + {stride}], tmm1", out = in(reg) out.wrapping_add(WORDS),
                    stride = in(reg) stride, options(nostack, preserves_flags));
            }
            if ROWS == 2 {
                asm!("tilestored [{out} + {stride}], tmm2", out = in(reg) below,
                    stride = in(reg) stride, options(nostack, preserves_flags));
            }
            if ROWS == 2 && COLUMNS == 2 {
                asm!("tilestored [{out} + {stride}], tmm3", out = in(reg) below.wrapping_add(WORDS),
                    stride = in(reg) stride, options(nostack, preserves_flags));
            }
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: this thread configured the unit, and no sum in it is needed any more. A released unit costs nothing
        // when threads change.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}
