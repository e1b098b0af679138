//! Which instruction set the kernels use, chosen once at run time.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::lanes::Lanes;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512, Narrow};
use std::fmt;
use std::str::FromStr;

/// An instruction set that the CPU kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// Plain Rust: SSE2 on x86-64, NEON on Arm.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 (F and VL).
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
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && Self::Avx2.available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512.available() && amx::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Amx => false,
        }
    }

    /// Whether `SANSPROP_EMULATED_AMX=1` has a part of it emulated, slowly, so that its kernels can be checked where that part is
    /// missing.
    pub fn emulated(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::emulated(),
            _ => false,
        }
    }

    /// The widest that this CPU has.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .rfind(|set| set.available())
            .unwrap_or(Self::Portable)
    }

    /// Its widest vectors.
    pub(super) fn vectors(self) -> Vectors {
        match self {
            Self::Portable => Vectors::Portable,
            Self::Avx2 => Vectors::Avx2,
            Self::Avx512 | Self::Amx => Vectors::Avx512,
        }
    }

    /// The vectors for panels of `columns` channels: eight or fewer do not fill one of AVX-512, but two samples may share it.
    pub(super) fn for_columns(self, columns: usize) -> Vectors {
        match self.vectors() {
            Vectors::Avx512 if columns <= 8 => Vectors::Narrow,
            other => other,
        }
    }
}

/// Vectors that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vectors {
    Portable,
    /// Eight lanes.
    Avx2,
    /// Eight lanes, in pairs where a kernel can.
    Narrow,
    /// Sixteen lanes.
    Avx512,
}

impl Vectors {
    /// The name of their instruction set.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Narrow | Self::Avx512 => "avx512",
        }
    }

    /// Lanes per vector.
    pub(super) fn lanes(self) -> usize {
        match self {
            Self::Portable => Portable::LEN,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::LEN,
            #[cfg(target_arch = "x86_64")]
            Self::Narrow => Narrow::LEN,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::LEN,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Narrow | Self::Avx512 => Portable::LEN,
        }
    }

    /// Runs a kernel compiled for these vectors.
    ///
    /// # Safety
    /// The machine must have them ([`InstructionSet::available`]), and the kernel's own contract must hold.
    #[inline]
    pub(super) unsafe fn run<K: Kernel>(self, kernel: K) {
        // SAFETY: the caller guarantees the vectors and the kernel's contract.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Narrow => Narrow::call(kernel),
                wide => wide.run_wide(kernel),
            }
        }
    }

    /// As [`run`](Self::run) for kernels of wide panels only, which need not be compiled for narrow ones.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    pub(super) unsafe fn run_wide<K: Kernel>(self, kernel: K) {
        // SAFETY: the caller guarantees the vectors and the kernel's contract.
        unsafe {
            match self {
                Self::Portable => Portable::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => Avx2::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => Avx512::call(kernel),
                #[cfg(not(target_arch = "x86_64"))]
                Self::Avx2 | Self::Avx512 => Portable::call(kernel),
                Self::Narrow => unreachable!("panels are wide"),
            }
        }
    }

    /// As [`run`](Self::run) for what the tile unit takes part in, which no machine with portable vectors alone has.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn run_beside_tiles<K: Kernel>(self, kernel: K) {
        // SAFETY: handed on from the caller.
        unsafe {
            match self {
                Self::Portable | Self::Avx2 => unreachable!("the tile unit without AVX-512"),
                Self::Narrow => Narrow::call(kernel),
                Self::Avx512 => Avx512::call(kernel),
            }
        }
    }
}

/// A kernel written over [`Lanes`]. `run` and all that it calls must be `#[inline(always)]`, closures
/// excluded, so that the whole body is compiled with the instruction set of its caller; or go through [`Lanes::call`].
pub(super) trait Kernel {
    /// Does the work.
    ///
    /// # Safety
    /// The CPU must have the instruction set of `V`; the implementor states what else must hold.
    unsafe fn run<V: Lanes>(self);
}
