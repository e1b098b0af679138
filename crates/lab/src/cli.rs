//! The command line: what can be asked, and what the exit code says.
//!
//! Exit codes: 0 done, 1 failed (data, disk, a diverged or interrupted run, a failed check), 2 wrong usage
//! (options, config).

use crate::command::{
    align, bench, check, compare, config, data, devices, report, reproduce, status, sweep, train,
};
use crate::config::{ConfigError, PlanError};
use crate::data::DataError;
use crate::run::RunError;
use clap::{Parser, Subcommand};
use sansprop_kernels::{CpuError, GpuError, GpuFailure};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use thiserror::Error;

/// Train wide neural networks without backprop, and compare learning rules.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  sansprop compare                              all eight rules on handwritten digits, under a minute
  sansprop compare --data cifar-10 --path data --rules normal,align-ada,dfa --widths 16 --epochs 1
  sansprop config > my.toml                     a complete config, every key explained
  sansprop check my.toml                        prove that every rule does what it says on your network
  sansprop train my.toml --set train.rule=align-zero
  sansprop report runs/grid --open              tables and figures in the browser
  sansprop reproduce table6 --widths 8,16 --epochs 3
  sansprop align my.toml                        how aligned do the layers' weight changes get?
  sansprop bench my.toml --widths 8,32          what a step of each rule costs on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compare(compare::Arguments),
    Train(train::Arguments),
    Sweep(sweep::Arguments),
    Reproduce(reproduce::Arguments),
    Status(status::Arguments),
    Check(check::Arguments),
    Align(align::Arguments),
    Bench(bench::Arguments),
    Report(report::Arguments),
    Data(data::Arguments),
    Devices(devices::Arguments),
    Config(config::Arguments),
}

/// Why a command did not succeed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Cpu(#[from] CpuError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Plan(PlanError::Split { .. } | PlanError::NoTest(_) | PlanError::Network(_)) => 2,
            Self::Cpu(CpuError::InstructionSet(_)) | Self::Gpu(GpuError::Index { .. }) => 2,
            Self::Data(DataError::UnknownSet { .. }) => 2,
            Self::Plan(PlanError::Data(_))
            | Self::Data(_)
            | Self::Run(_)
            | Self::Cpu(CpuError::Threads(_))
            | Self::Gpu(_)
            | Self::Failed(_) => 1,
        }
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = match catch_unwind(AssertUnwindSafe(|| carry_out(&command))) {
        Ok(result) => result,
        Err(panic) => match panic.downcast::<GpuFailure>() {
            Ok(failure) => Err(Failure::Failed(failure.to_string())),
            Err(panic) => resume_unwind(panic),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Refuses `--set` of a key that an option gives already.
pub(crate) fn given_once(option: &str, key: &str, overrides: &[String]) -> Result<(), Failure> {
    let twice = |text: &&String| text.split('=').next().map(str::trim) == Some(key);
    match overrides.iter().find(twice) {
        Some(text) => Err(Failure::Usage(format!(
            "{option} and --set {text} contradict each other: give one of them"
        ))),
        None => Ok(()),
    }
}

fn carry_out(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Compare(arguments) => compare::run(arguments),
        Command::Train(arguments) => train::run(arguments),
        Command::Sweep(arguments) => sweep::run(arguments),
        Command::Reproduce(arguments) => reproduce::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Align(arguments) => align::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Data(arguments) => data::run(arguments),
        Command::Devices(arguments) => devices::run(arguments),
        Command::Config(arguments) => config::run(arguments),
    }
}

/// Writes to standard output; a reader that has gone away (`| head`) is no failure of ours.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Failed(format!(
            "cannot write to standard output: {e}"
        ))),
        _ => Ok(()),
    }
}
