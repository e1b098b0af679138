//! The tile unit: its configuration and its few instructions.
//!
//! Tiles 0 to 3 hold a square of sums, 4 and 5 its rows' operands, 6 and 7 its columns'. Operands of two parts, which
//! together hold twice the bits of bf16, take turns in the same tiles. The compiler uses no tile by
//! itself, since no function here is compiled for them: they keep their content from one assembly block to the next.

use super::emulated::{self, Tiles};
use super::{TILE, WORDS};
use std::arch::asm;
use std::marker::PhantomData;

/// Bytes of a word: two bf16 values that are multiplied with another two and added.
const WORD: usize = 4;
/// Bytes between rows of an operand.
const LINE: usize = WORDS * WORD;
/// Number of tiles.
const TILES: usize = 8;
/// Products, of sixteen cycles or so, between two stored tiles.
const MOST_PRODUCTS: usize = 48;

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
    /// Words from a tile to its second part, if it has one.
    pub part: usize,
}

impl Operand {
    /// The second part of all tiles.
    fn second_part(self) -> Self {
        Self {
            first: self.first.wrapping_add(self.part),
            ..self
        }
    }

    /// A tile of a step, the first or the second.
    #[inline(always)]
    pub(super) fn tile(self, step: usize, second: bool) -> *const f32 {
        let second = if second { self.second } else { 0 };
        self.first.wrapping_add(step * self.step + second)
    }
}

/// Where tiles are stored that nobody reads.
#[repr(C, align(64))]
struct Nowhere([f32; TILE]);

/// This thread's tile unit, from its configuration to its release.
pub(super) struct Unit {
    height: usize,
    /// Products since a tile was stored.
    products: usize,
    nowhere: Nowhere,
    /// What takes its place on a machine without one.
    emulated: Option<Tiles>,
    /// It belongs to a thread.
    thread: PhantomData<*const ()>,
}

impl Unit {
    /// Sums and rows' operands of `height` rows, products over `words` words.
    ///
    /// # Safety
    /// The tiles must be available.
    pub(super) unsafe fn new(height: usize, words: usize) -> Self {
        let unit = |emulated| Self {
            height,
            products: 0,
            nowhere: Nowhere([0.0; TILE]),
            emulated,
            thread: PhantomData,
        };
        if emulated::wanted() {
            return unit(Some(Tiles::new(height, words)));
        }
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
        unit(None)
    }

    /// Makes all sums 0.
    pub(super) fn clear(&mut self) {
        if let Some(tiles) = &mut self.emulated {
            tiles.clear();
            return;
        }
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

    /// Adds to `ROWS` by `COLUMNS` tiles of sums, one or two each way, the products of so many steps. Where operands have
    /// two parts, a product is the sum of three: of the first parts, and of each first part with the other's second.
    ///
    /// # Safety
    /// Readable operands of that many tiles, steps and parts.
    #[inline(always)]
    pub(super) unsafe fn add_products<
        const ROWS: usize,
        const COLUMNS: usize,
        const PARTS: usize,
    >(
        &mut self,
        rows: Operand,
        columns: Operand,
        steps: usize,
    ) {
        let (rows_rest, columns_rest) = (rows.second_part(), columns.second_part());
        if let Some(tiles) = &mut self.emulated {
            let parts = [(rows, columns_rest), (rows, columns), (rows_rest, columns)];
            let parts = if PARTS == 2 { &parts[..] } else { &parts[1..2] };
            for step in 0..steps {
                for &(rows, columns) in parts {
                    // SAFETY: the operands are readable by the caller's promise.
                    unsafe { tiles.add_product::<ROWS, COLUMNS>(rows, columns, step) };
                }
            }
            return;
        }
        for step in 0..steps {
            // SAFETY: the unit is configured; the operands are readable by the caller's promise.
            unsafe {
                self.keep_awake(ROWS * COLUMNS * (2 * PARTS - 1));
                load_row::<false>(rows.tile(step, false));
                if ROWS == 2 {
                    load_row::<true>(rows.tile(step, true));
                }
                if PARTS == 2 {
                    load_columns::<COLUMNS>(columns_rest, step);
                    multiply_all::<ROWS, COLUMNS>();
                }
                load_columns::<COLUMNS>(columns, step);
                multiply_all::<ROWS, COLUMNS>();
                if PARTS == 2 {
                    load_row::<false>(rows_rest.tile(step, false));
                    if ROWS == 2 {
                        load_row::<true>(rows_rest.tile(step, true));
                    }
                    multiply_all::<ROWS, COLUMNS>();
                }
            }
        }
    }

    /// Counts products. A processor whose last tile was stored some 2,000 cycles ago takes another 1,000 for the next one
    /// (seen on Sapphire Rapids' successors); a tile stored to nowhere in time prevents it.
    #[inline(always)]
    fn keep_awake(&mut self, products: usize) {
        self.products += products;
        if self.products > MOST_PRODUCTS {
            self.products = 0;
            let out = self.nowhere.0.as_mut_ptr();
            // SAFETY: the unit is configured; no tile is longer than the array.
            unsafe {
                asm!("tilestored [{out} + {line}], tmm4", out = in(reg) out, line = in(reg) LINE,
                    options(nostack, preserves_flags));
            }
        }
    }

    /// Reads `ROWS` by `COLUMNS` tiles of sums from where [`store`](Self::store) writes them.
    ///
    /// # Safety
    /// That many readable rows of that many whole tiles.
    #[inline(always)]
    pub(super) unsafe fn load<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        from: *const f32,
        stride: usize,
    ) {
        if let Some(tiles) = &mut self.emulated {
            // SAFETY: the matrix is readable by the caller's promise.
            unsafe { tiles.load::<ROWS, COLUMNS>(from, stride) };
            return;
        }
        let below = from.wrapping_add(self.height * stride);
        let stride = stride * WORD;
        // SAFETY: the unit is configured; the matrix is readable by the caller's promise.
        unsafe {
            asm!("tileloadd tmm0, [{from} + {stride}]", from = in(reg) from, stride = in(reg) stride,
                options(nostack, preserves_flags, readonly));
            if COLUMNS == 2 {
                asm!("tileloadd tmm1, [{from} + {stride}]", from = in(reg) from.wrapping_add(WORDS),
                    stride = in(reg) stride, options(nostack, preserves_flags, readonly));
            }
            if ROWS == 2 {
                asm!("tileloadd tmm2, [{from} + {stride}]", from = in(reg) below,
                    stride = in(reg) stride, options(nostack, preserves_flags, readonly));
            }
            if ROWS == 2 && COLUMNS == 2 {
                asm!("tileloadd tmm3, [{from} + {stride}]", from = in(reg) below.wrapping_add(WORDS),
                    stride = in(reg) stride, options(nostack, preserves_flags, readonly));
            }
        }
    }

    /// Writes `ROWS` by `COLUMNS` tiles of sums to a matrix whose rows are `stride` values apart.
    ///
    /// # Safety
    /// That many writable rows of that many whole tiles.
    #[inline(always)]
    pub(super) unsafe fn store<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        out: *mut f32,
        stride: usize,
    ) {
        if let Some(tiles) = &mut self.emulated {
            // SAFETY: the matrix is writable by the caller's promise.
            unsafe { tiles.store::<ROWS, COLUMNS>(out, stride) };
            return;
        }
        self.products = 0;
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

/// Reads a tile of rows' operands, the first or the second.
///
/// # Safety
/// A configured unit; a readable tile.
#[inline(always)]
unsafe fn load_row<const SECOND: bool>(from: *const f32) {
    // SAFETY: handed on from the caller.
    unsafe {
        if SECOND {
            asm!("tileloadd tmm5, [{from} + {line}]", from = in(reg) from, line = in(reg) LINE,
                options(nostack, preserves_flags, readonly));
        } else {
            asm!("tileloadd tmm4, [{from} + {line}]", from = in(reg) from, line = in(reg) LINE,
                options(nostack, preserves_flags, readonly));
        }
    }
}

/// The same of columns' operands.
///
/// # Safety
/// As for [`load_row`].
#[inline(always)]
unsafe fn load_column<const SECOND: bool>(from: *const f32) {
    // SAFETY: handed on from the caller.
    unsafe {
        if SECOND {
            asm!("tileloadd tmm7, [{from} + {line}]", from = in(reg) from, line = in(reg) LINE,
                options(nostack, preserves_flags, readonly));
        } else {
            asm!("tileloadd tmm6, [{from} + {line}]", from = in(reg) from, line = in(reg) LINE,
                options(nostack, preserves_flags, readonly));
        }
    }
}

/// Reads one or two tiles of columns' operands of a step.
///
/// # Safety
/// As for [`load_row`].
#[inline(always)]
unsafe fn load_columns<const COLUMNS: usize>(columns: Operand, step: usize) {
    // SAFETY: handed on from the caller.
    unsafe {
        load_column::<false>(columns.tile(step, false));
        if COLUMNS == 2 {
            load_column::<true>(columns.tile(step, true));
        }
    }
}

/// Adds all products of the operands that are there.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn multiply_all<const ROWS: usize, const COLUMNS: usize>() {
    // SAFETY: handed on from the caller.
    unsafe {
        multiply::<0>();
        if COLUMNS == 2 {
            multiply::<1>();
        }
        if ROWS == 2 {
            multiply::<2>();
        }
        if ROWS == 2 && COLUMNS == 2 {
            multiply::<3>();
        }
    }
}

/// Adds to the tile of sums `2 · row + column` the product of its row's and its column's operands.
///
/// # Safety
/// A configured unit.
#[inline(always)]
unsafe fn multiply<const SUMS: usize>() {
    // SAFETY: handed on from the caller.
    unsafe {
        match SUMS {
            0 => asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                options(nostack, preserves_flags, nomem)
            ),
            1 => asm!(
                "tdpbf16ps tmm1, tmm4, tmm7",
                options(nostack, preserves_flags, nomem)
            ),
            2 => asm!(
                "tdpbf16ps tmm2, tmm5, tmm6",
                options(nostack, preserves_flags, nomem)
            ),
            _ => asm!(
                "tdpbf16ps tmm3, tmm5, tmm7",
                options(nostack, preserves_flags, nomem)
            ),
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if self.emulated.is_some() {
            return;
        }
        // SAFETY: this thread configured the unit, and no sum in it is needed any more. A released unit costs nothing
        // when threads change.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}
