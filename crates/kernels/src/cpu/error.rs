//! Why the CPU kernels cannot be used.

use super::InstructionSet;
use std::fmt;

/// Why the CPU backend could not be made.
#[derive(Debug)]
pub enum CpuError {
    /// An instruction set was asked for that is unknown or that this CPU lacks.
    InstructionSet(String),
    /// Threads could not be started.
    Threads(String),
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstructionSet(name) => {
                let names: Vec<_> = InstructionSet::ALL
                    .into_iter()
                    .filter(|set| set.available())
                    .map(|set| set.to_string())
                    .collect();
                write!(
                    f,
                    "instruction set {name:?} is not available here; this CPU has {}",
                    names.join(", ")
                )
            }
            Self::Threads(reason) => write!(f, "cannot start the worker threads: {reason}"),
        }
    }
}

impl std::error::Error for CpuError {}
