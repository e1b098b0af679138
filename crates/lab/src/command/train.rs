//! `sansprop train`.

use crate::cli::{Failure, print};
use crate::command::compare::{foot, head, rows_table};
use crate::config::{Config, Plan, load};
use crate::device::DeviceOption;
use crate::machine::{Contestant, Machine, stop_on_interrupt};
use crate::progress::Screen;
use crate::run::{Checkpoint, Outcome, RunFolder};
use clap::Args;
use sansprop::cohort::Status;
use sansprop::rule::Rule;
use std::path::{Path, PathBuf};

/// Train one network with one rule, as a config file says.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop train my.toml
  sansprop train my.toml --set train.rule=fa --set network.width=128 --out runs/fa-128
  sansprop train cifar.toml --set data.path=/data --set train.epochs=1
  sansprop train my.toml --set run.tensorboard=true --out runs/a     then: tensorboard --logdir runs
  sansprop train my.toml --resume               go on where a stopped or killed run was

The run folder receives config.toml, env.json, metrics.jsonl, initial.safetensors, final.safetensors and
result.json; with run.alignment = true also alignment.csv and companion.safetensors, with run.tensorboard an event
file for TensorBoard; while it is unfinished also checkpoint.safetensors (run.checkpoint_every, run.checkpoint_minutes).
Ctrl-C stops after the current step with a checkpoint; a second Ctrl-C stops at once.
Exit code: 0 completed, 1 failed, diverged or interrupted, 2 wrong usage.")]
pub(crate) struct Arguments {
    /// The config file; `sansprop config` prints one.
    config: PathBuf,
    /// Change a value of the config; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    device: DeviceOption,
    /// The run folder itself; default: a folder named after the config, below `run.out`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    beginning: Beginning,
    #[command(flatten)]
    layers: LayerOptions,
}

/// What is done with a run that the folder holds already.
#[derive(Args)]
pub(crate) struct Beginning {
    /// Replace a run that the folder holds.
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Go on with an unfinished run that the folder holds, bit for bit as if it had never stopped.
    #[arg(long)]
    resume: bool,
}

impl Beginning {
    /// The run of `config` in the folder `path`; none, and a line that says so, if it is to go on but has ended.
    pub(crate) fn contestant(
        &self,
        config: Config,
        path: &Path,
    ) -> Result<Option<Contestant>, Failure> {
        if !self.resume {
            let folder = RunFolder::create(path, self.force)?;
            return Ok(Some(Contestant::fresh(config, folder)));
        }
        let folder = RunFolder::open(path, &config)?;
        if let Some(outcome) = Outcome::load(&folder)? {
            print(&format!("{}: {} already\n", path.display(), outcome.status))?;
            return Ok(None);
        }
        Ok(Some(Contestant {
            checkpoint: Checkpoint::load(&folder)?,
            ..Contestant::fresh(config, folder)
        }))
    }
}

/// What is reported of each layer, once an epoch, in metrics.jsonl.
#[derive(Args)]
pub(crate) struct LayerOptions {
    /// Compare each layer's update with the gradient: cosine and norm ratio; one extra backward pass an epoch.
    #[arg(long)]
    gradient_angle: bool,
    /// Measure each layer's feedback angle, weight change and kernel drift.
    #[arg(long)]
    layer_drift: bool,
}

impl LayerOptions {
    /// The options as config overrides.
    pub(crate) fn overrides(&self) -> impl Iterator<Item = String> {
        let gradient = self
            .gradient_angle
            .then(|| "run.gradient_angle=true".into());
        let drift = self.layer_drift.then(|| "run.layer_drift=true".into());
        gradient.into_iter().chain(drift)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut overrides: Vec<String> = arguments.layers.overrides().collect();
    overrides.extend(arguments.device.before(&arguments.overrides));
    let config = load(Some(&arguments.config), &overrides)?;
    let machine = Machine::new(&config.run, config.run.threads)?;
    let plan = Plan::new(config)?;
    let rule = Rule::named(&plan.config.train.rule).expect("the config was checked");
    let config = plan.trial_config(rule);
    let path = match &arguments.out {
        Some(path) => path.clone(),
        None => Path::new(&plan.config.run.out).join(config.run_name()),
    };
    let Some(contestant) = arguments.beginning.contestant(config, &path)? else {
        return Ok(());
    };
    let stop = stop_on_interrupt()?;
    let results = machine.train(&plan, &[contestant], &Screen::new(), &stop)?;
    print(&format!(
        "{}\n{}\n{}; written to {}\n",
        head(&plan),
        rows_table(std::iter::once((&plan, rule, &results[0]))),
        foot(&plan, &machine),
        path.display()
    ))?;
    outcome(results[0].status)
}

/// What a single run's status means for the exit code.
pub(crate) fn outcome(status: Status) -> Result<(), Failure> {
    match status {
        Status::Diverged { epoch } => Err(Failure::Failed(format!(
            "the run diverged in epoch {} (loss not finite); a smaller train.lr may help",
            epoch + 1
        ))),
        Status::Interrupted => Err(Failure::Failed(
            "interrupted; the same command with --resume goes on from here".into(),
        )),
        Status::Completed | Status::Running => Ok(()),
    }
}
