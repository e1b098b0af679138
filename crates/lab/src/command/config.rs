//! `sansprop config`.

use crate::cli::{Failure, print};
use crate::config::template;
use clap::Args;

/// Print a complete config: every key, its default, its meaning.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop config > my.toml
  sansprop config --data cifar-10 > cifar.toml")]
pub(crate) struct Arguments {
    /// The data set whose defaults are printed.
    #[arg(long, value_name = "NAME", default_value = "digits")]
    data: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    print(&template(&arguments.data)?)
}
