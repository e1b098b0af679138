//! Which instruction set the kernels use, chosen once at run time.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::lanes::{Lanes, Portable};
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use std::fmt;
use std::str::FromStr;

/// An instruction set that the CPU kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// Plain Rust: SSE2 on x86-64, NEON on Arm.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512F.
    Avx512,
    /// AVX-512 and the tile unit (AMX), which multiplies bf16 values; all else runs as [`Avx512`](Self::Avx512).
    Amx,
}

/// The name is not one of an instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownInstructionSet;

impl FromStr for InstructionSet {
    type Err = UnknownInstructionSet;

    fn from_str(name: &str) -> Result<Self, UnknownInstructionSet> {
        Self::ALL
            .into_iter()
            .find(|set| set.to_string() == name)
            .ok_or(UnknownInstructionSet)
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        })
    }
}

impl InstructionSet {
    /// All of them, the narrowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx];

    /// Whether this CPU has it.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f") && Self::Avx2.available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512.available() && amx::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Amx => false,
        }
    }

    /// The widest that this CPU has.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .rfind(|set| set.available())
            .unwrap_or(Self::Portable)
    }

    /// The set of vectors for panels of `columns` channels: eight or fewer do not fill an AVX-512 vector.
    pub(super) fn for_columns(self, columns: usize) -> Self {
        match self {
            Self::Avx512 | Self::Amx if columns <= 8 => Self::Avx2,
            Self::Amx => Self::Avx512,
            other => other,
        }
    }

    /// Weights that the second-level caches of processors with this set hold beside some panels.
    pub(super) fn cached_weights(self) -> usize {
        match self {
            Self::Portable | Self::Avx2 => 1 << 16,
            Self::Avx512 | Self::Amx => 1 << 18,
        }
    }

    /// Lanes per vector.
    pub(super) fn lanes(self) -> usize {
        match self {
            Self::Portable => Portable::LEN,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::LEN,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Amx => Avx512::LEN,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Amx => Portable::LEN,
        }
    }

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Safety
    /// The set must be [`available`](Self::available), and the kernel's own contract must hold.
    #[inline]
    pub(super) unsafe fn run<K: Kernel>(self, kernel: K) {
        // SAFETY: the caller guarantees the instruction set and the kernel's contract.
        unsafe {
            match self {
                Self::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => run_avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 | Self::Amx => run_avx512(kernel),
                #[cfg(not(target_arch = "x86_64"))]
                Self::Avx2 | Self::Avx512 | Self::Amx => kernel.run::<Portable>(),
            }
        }
    }
}

/// A kernel written over [`Lanes`]. `run` and all that it calls must be `#[inline(always)]`, closures
/// excluded, so that the whole body is compiled with the instruction set of its caller.
pub(super) trait Kernel {
    /// Does the work.
    ///
    /// # Safety
    /// The CPU must have the instruction set of `V`; the implementor states what else must hold.
    unsafe fn run<V: Lanes>(self);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) {
    // SAFETY: this function's features are those of `Avx2`; the rest is the caller's promise.
    unsafe { kernel.run::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn run_avx512<K: Kernel>(kernel: K) {
    // SAFETY: this function's features are those of `Avx512`; the rest is the caller's promise.
    unsafe { kernel.run::<Avx512>() }
}
