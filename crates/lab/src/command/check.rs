//! `sansprop check`.

use crate::cli::Failure;
use clap::Args;
use std::path::PathBuf;

/// Prove on your own network and data that every rule does what it says.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The config file; default: the embedded digits with all defaults.
    config: Option<PathBuf>,
}

pub(crate) fn run(_: &Arguments) -> Result<(), Failure> {
    Ok(())
}
