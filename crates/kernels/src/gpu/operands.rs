//! What a product's operands keep of f32 when they are staged: sums, norms, z and updates stay f32.

use crate::tolerance::{BF16_ROUNDING, F32_ROUNDING, TF32_ROUNDING};
use cubecl::prelude::*;

/// How many significant bits the operands of products keep: weights, activations, errors and deltas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operands {
    /// All 24.
    #[default]
    F32,
    /// 11.
    Tf32,
    /// 8.
    Bf16,
}

impl Operands {
    /// Name of the precision.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// Parts of bf16 into which CUDA's kernels cut an operand.
    pub(super) fn parts(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 2,
            Self::Bf16 => 1,
        }
    }

    /// Largest relative error of one rounding.
    pub(super) fn rounding(self) -> f64 {
        match self {
            Self::F32 => F32_ROUNDING,
            Self::Tf32 => TF32_ROUNDING,
            Self::Bf16 => BF16_ROUNDING,
        }
    }

    /// Bits of an f32 that become zeros.
    fn dropped(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Tf32 => 13,
            Self::Bf16 => 16,
        }
    }
}

/// How an array lies in a device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As f32.
    #[default]
    Plain,
    /// As bf16.
    OnePart,
    /// As the nearest bf16 and, after all of these, the nearest ones of what that leaves.
    TwoParts,
    /// As one of these, in blocks.
    Blocks(Blocks),
}

/// Parts of panels that lie in blocks of channels, as Hopper's instructions read them: shuffled if they are many
/// (`cuda/source/wide.cuh`), or eight each (`cuda/source/patch.cuh`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Blocks {
    pub(super) two_parts: bool,
    /// Channels of a block.
    pub(super) block: usize,
    /// Rows of a panel.
    pub(super) rows: usize,
    /// Channels of a panel.
    pub(super) channels: usize,
}

impl Form {
    /// Whether values have two parts.
    pub(super) fn has_two_parts(self) -> bool {
        match self {
            Self::Plain | Self::OnePart => false,
            Self::TwoParts => true,
            Self::Blocks(blocks) => blocks.two_parts,
        }
    }

    /// Whether values lie in blocks.
    pub(super) fn in_blocks(self) -> bool {
        matches!(self, Self::Blocks(_))
    }

    /// Whether values lie in blocks of eight channels.
    pub(super) fn in_eights(self) -> bool {
        matches!(self, Self::Blocks(Blocks { block: 8, .. }))
    }

    /// Rows and channels of a panel where values lie in blocks; kernels read nothing else of them.
    pub(super) fn sides(self) -> [usize; 2] {
        match self {
            Self::Blocks(blocks) => [blocks.rows, blocks.channels],
            Self::Plain | Self::OnePart | Self::TwoParts => [0; 2],
        }
    }
}

/// The nearest value that operands can be, the even one of two. NaN and infinity stay what they are.
#[cube]
pub(super) fn nearest(value: f32, #[comptime] operands: Operands) -> f32 {
    let mut result = value;
    let bits = u32::reinterpret(value);
    let exponent = 0x7f80_0000u32;
    if (bits & exponent) != exponent {
        let dropped = comptime!(operands.dropped());
        let below_half = comptime!((1u32 << (dropped - 1)) - 1);
        let kept = comptime!(u32::MAX << dropped);
        let odd = (bits >> dropped) & 1u32;
        result = f32::reinterpret((bits + below_half + odd) & kept);
    }
    result
}

/// `values[at]` as an operand, or 0 where `at` lies outside.
#[cube]
pub(super) fn operand_or_zero(
    values: &Array<f32>,
    at: usize,
    inside: bool,
    #[comptime] operands: Operands,
) -> f32 {
    let mut value = 0.0f32;
    if inside {
        value = values[at];
        if comptime!(operands != Operands::F32) {
            value = nearest(value, operands);
        }
    }
    value
}
