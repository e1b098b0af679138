//! `sansprop sweep`.

use crate::cli::{Failure, print};
use crate::device::DeviceOption;
use crate::machine::stop_on_interrupt;
use crate::sweep::trials::{DataSets, Shard, cohorts, trials};
use crate::sweep::{Order, Trained, describe, file, summary};
use clap::Args;
use std::path::{Path, PathBuf};

/// Train many networks from one file; what is done stays done, what was stopped goes on.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop sweep grid.toml --dry-run            what would be trained, and what it would cost
  sansprop sweep grid.toml --jobs 4             four cohorts at once; the same again goes on where it stopped
  sansprop sweep grid.toml --shard 2/3          the second third of the trials
  sansprop status runs/grid                     who trains what, and what is left

A sweep file is a config with a section of axes; every combination is a trial:

  [network]
  activation = \"tanh\"
  [sweep]
  rule = [\"normal\", \"fa\", \"align-ada\"]
  width = [16, 64]
  lr = [1, 3, 10]
  seed = [1, 2, 3]
  \"train.optimizer\" = \"sgd\"
  select = { over = \"lr\", best = \"eval_accuracy\" }
  [[sweep.also]]                  # the same axes with some replaced
  rule = \"align-zero\"
  width = 256

Several workers may be started on one folder, also from several machines: they divide the trials, and take over
those of a worker that died. Ctrl-C stops with checkpoints; a second Ctrl-C stops at once.
Exit code: 0 all trials completed or diverged, 1 some failed or are left, 2 wrong usage.")]
pub(crate) struct Arguments {
    /// The sweep file.
    file: PathBuf,
    /// The sweep's folder; default: one named after the file, below `run.out`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Cohorts to train at once; they divide the threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Print trials, cohorts, FLOPs, time and memory, and train nothing.
    #[arg(long)]
    dry_run: bool,
    /// Train failed trials again.
    #[arg(long)]
    retry: bool,
    /// Train only part i of n.
    #[arg(long, value_name = "i/n")]
    shard: Option<Shard>,
    #[command(flatten)]
    device: DeviceOption,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = file::read(&arguments.file, &arguments.device.before(&[]))?;
    let mut sets = DataSets::default();
    let trials = trials(&file, &mut sets)?;
    let mut cohorts = cohorts(&trials);
    if let Some(shard) = arguments.shard {
        cohorts = shard.share(cohorts);
    }
    let jobs = usize::from(arguments.jobs);
    if arguments.dry_run {
        return print(&describe(&trials, &cohorts, jobs, &mut sets)?);
    }
    let out = arguments.out.clone().unwrap_or_else(|| {
        let stem = arguments.file.file_stem().unwrap_or_default();
        Path::new(&file.out).join(stem)
    });
    let order = Order {
        source: &arguments.file,
        trials: &trials,
        cohorts: &cohorts,
        axes: &file.axes,
        out: &out,
        jobs,
        retry: arguments.retry,
    };
    let stop = stop_on_interrupt()?;
    let Trained { rows, written } = order.carry_out(sets, &stop)?;
    print(&summary(&trials, &rows, &file.axes, file.select.as_ref()))?;
    let of_all = if order.own() == trials.len() {
        String::new()
    } else {
        format!(" ({} of them in this part)", order.own())
    };
    print(&format!(
        "{} trials{of_all}; tables and run folders in {}\n",
        trials.len(),
        out.display()
    ))?;
    written?;
    order.outcome(&rows, &stop)
}
