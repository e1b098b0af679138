//! `sansprop align`.

use crate::align::{Files, Options, ProbeRow, Scores, config_beside, score_files};
use crate::cli::{Failure, print};
use crate::command::compare::{foot, head, rows_table};
use crate::command::train::{Beginning, LayerOptions, outcome};
use crate::config::{Plan, load, load_over};
use crate::device::DeviceOption;
use crate::machine::{Machine, stop_on_interrupt};
use crate::progress::Screen;
use crate::table::table;
use clap::Args;
use sansprop::rule::Rule;
use sansprop_kernels::Norm;
use std::path::{Path, PathBuf};

/// Score how well weight changes align with error-weighted input correlations.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop align my.toml                              train `normal` (or the config's rule) and score the end
  sansprop align my.toml --every 1 --out runs/fig8
  sansprop align my.toml --resume                     go on where a stopped or killed run was
  sansprop align my.toml --probes 100 --probe-batch 100
  sansprop align --from initial.safetensors --to final.safetensors --reference companion.safetensors
  sansprop align --from a.npz --to b.npz --reference c.npz --network my.toml

The score is exact: S = ||D D*'||^2 / (||D D'|| ||D* D*'||) of the layers' linear maps, D the change of the
weights and D* that of a companion that receives align-zero's update under the same errors. The run folder
receives alignment.csv (epoch,step,layer,score,score_permuted; layers from 1, step = updates done) and
companion.safetensors; with probes also alignment_probes.csv. Exit code as for train.

`train`, `compare` and `sweep` score their trials as well where the config has run.alignment = true.")]
pub(crate) struct Arguments {
    /// The config file of the run to train; `sansprop config` prints one.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    config: Option<PathBuf>,
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
    /// Score after every so many epochs, and at the end (run.alignment_every); default: at the end only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: Option<u32>,
    /// Also estimate the score as the paper does, from so many batches of Gaussian inputs (the paper: 100).
    #[arg(long, value_name = "N", default_value_t = 0)]
    probes: usize,
    /// Inputs in each batch of probes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    probe_batch: usize,
    /// Build the companion in one pass at the end from integrated errors; no second network during training.
    /// For networks without a norm, trained by SGD.
    #[arg(long, conflicts_with_all = ["every", "from", "resume"])]
    integrated: bool,
    /// Score these initial weights (.safetensors or .npz) …
    #[arg(long, value_name = "FILE", requires = "to", requires = "reference")]
    from: Option<PathBuf>,
    /// … against these final ones …
    #[arg(long, value_name = "FILE", requires = "from")]
    to: Option<PathBuf>,
    /// … and the companion's.
    #[arg(long, value_name = "FILE", requires = "from")]
    reference: Option<PathBuf>,
    /// Config of the network that the weights belong to; default: the config.toml beside them, if there is one.
    #[arg(long, value_name = "CONFIG", requires = "from")]
    network: Option<PathBuf>,
    #[command(flatten)]
    layers: LayerOptions,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(e) => Err(format!("{e}")),
    }
}

impl Arguments {
    fn options(&self) -> Options {
        Options {
            probes: self.probes,
            probe_batch: self.probe_batch,
            integrated: self.integrated,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match (&arguments.from, &arguments.to, &arguments.reference) {
        (Some(from), Some(to), Some(reference)) => {
            let files = Files {
                from,
                to,
                reference,
            };
            of_files(arguments, &files)
        }
        _ => of_run(arguments),
    }
}

fn of_run(arguments: &Arguments) -> Result<(), Failure> {
    let mut overrides: Vec<String> = arguments.layers.overrides().collect();
    overrides.extend(arguments.every.map(|n| format!("run.alignment_every={n}")));
    overrides.extend(arguments.device.before(&arguments.overrides));
    overrides.push("run.alignment=true".into());
    // The score is defined for backprop; any other rule may be asked for.
    let base = ["train.rule=normal".to_string()];
    let config = load_over(&base, arguments.config.as_deref(), &overrides)?;
    let machine = Machine::new(&config.run, config.run.threads)?;
    let plan = Plan::new(config)?;
    let rule = Rule::named(&plan.config.train.rule).expect("the config was checked");
    let options = arguments.options();
    if options.integrated {
        check_integrated(&plan, rule)?;
    }
    let config = plan.trial_config(rule);
    let path = match &arguments.out {
        Some(path) => path.clone(),
        None => {
            let below = Path::new(&plan.config.run.out).join("alignment");
            below.join(config.run_name())
        }
    };
    let Some(trial) = arguments.beginning.contestant(config, &path)? else {
        return Ok(());
    };
    let stop = stop_on_interrupt()?;
    let trained = machine.train_scored(&plan, &[trial], options, &Screen::new(), &stop)?;
    let (result, scores) = &trained[0];
    print(&format!(
        "{}\n{}\n{}{}; written to {}\n",
        head(&plan),
        rows_table(std::iter::once((&plan, rule, result))),
        scores_table(scores, true),
        foot(&plan, &machine),
        path.display()
    ))?;
    outcome(result.status)
}

/// Integrated errors give W* where steps add up and no norm mixes samples.
fn check_integrated(plan: &Plan, rule: Rule) -> Result<(), Failure> {
    let sums = plan.trial(rule).optimizer.name() == "sgd";
    let mut layers = plan
        .model
        .feed_forward()
        .into_iter()
        .flat_map(|n| n.hidden());
    if sums && layers.all(|l| l.norm == Norm::None) {
        return Ok(());
    }
    Err(Failure::Usage(
        "--integrated is exact only for network.norm = \"none\" and train.optimizer = \"sgd\"; without it the \
         companion is trained"
            .into(),
    ))
}

fn of_files(arguments: &Arguments, files: &Files<'_>) -> Result<(), Failure> {
    let beside = config_beside(files.to);
    let config = arguments.network.as_ref().or(beside.as_ref());
    let overrides = arguments.device.before(&arguments.overrides);
    let loaded = load(config.map(PathBuf::as_path), &overrides)?;
    let machine = Machine::new(&loaded.run, loaded.run.threads)?;
    let seed = loaded.train.seed;
    let plan = config.map(|_| Plan::new(loaded)).transpose()?;
    let network = plan.as_ref().and_then(|plan| plan.model.feed_forward());
    let scores = score_files(&machine, files, network, &arguments.options(), seed)?;
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out)
            .map_err(|e| Failure::Failed(format!("cannot write {}: {e}", out.display())))?;
        scores.write(out)?;
    }
    print(&format!(
        "{}seed of permutations and probes {seed}, {}\n",
        scores_table(&scores, false),
        machine.describe()
    ))
}

/// One row a layer and time; without times for weights that come from files.
fn scores_table(scores: &Scores, times: bool) -> String {
    if scores.rows.is_empty() {
        return String::new();
    }
    let probed = !scores.probes.is_empty();
    let mut names = Vec::new();
    if times {
        names.extend(["epoch", "step"]);
    }
    names.extend(["layer", "score", "permuted"]);
    if probed {
        names.extend(["probes", "± standard error"]);
    }
    let mut table = table(&names, 0);
    for row in &scores.rows {
        let mut cells = Vec::new();
        if times {
            cells.extend([(row.epoch + 1).to_string(), row.step.to_string()]);
        }
        cells.extend([
            row.layer.to_string(),
            format!("{:.5}", row.score),
            format!("{:.5}", row.score_permuted),
        ]);
        // A run that was resumed may have been asked for probes in one part only.
        let same = |probe: &&ProbeRow| (probe.step, probe.layer) == (row.step, row.layer);
        if let Some(probe) = scores.probes.iter().find(same) {
            cells.extend([
                format!("{:.5}", probe.probe_score),
                format!("{:.5}", probe.probe_standard_error),
            ]);
        }
        table.add_row(cells);
    }
    format!("{table}\n")
}
