//! Whether this process may use the tile unit.

use super::emulated;
use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Whether CPU, operating system and this process's permission are there; asked once.
pub(in crate::cpu) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        vectors() && (emulated::wanted() || tiles() && state_is_saved() && permitted())
    })
}

/// The vectors that panels are rounded and rearranged by.
fn vectors() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("xsave")
}

/// The CPU's own word on amx-bf16 and amx-tile.
fn tiles() -> bool {
    const LEAF: u32 = 7;
    const BITS: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= LEAF && __cpuid_count(LEAF, 0).edx & BITS == BITS
}

/// Whether the operating system saves configuration and tiles when it changes threads.
fn state_is_saved() -> bool {
    const BITS: u64 = 1 << 17 | 1 << 18;
    #[target_feature(enable = "xsave")]
    fn states() -> u64 {
        // SAFETY: this function has the instruction; register 0 exists wherever it does.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: `vectors` found the feature.
    unsafe { states() & BITS == BITS }
}

/// Asks Linux for the tiles, whose state is too large to be everyone's; it holds for the whole process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}
