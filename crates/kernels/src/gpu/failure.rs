//! What happens when a device fails in the middle of work.

use std::fmt;
use std::panic::resume_unwind;

/// A device that ran out of memory or was lost. Kernels have no way to return it, so they unwind with it, without a
/// panic's message: catch it where the work was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFailure(String);

impl GpuFailure {
    /// Unwinds.
    pub(super) fn raise(reason: impl Into<String>) -> ! {
        resume_unwind(Box::new(Self(reason.into())))
    }
}

impl fmt::Display for GpuFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the GPU failed: {}", self.0)
    }
}

impl std::error::Error for GpuFailure {}
