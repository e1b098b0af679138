//! `sansprop compare`.

use crate::cli::{Failure, print};
use crate::config::{Evaluate, Plan, SetData, load, unknown_rule};
use crate::device::DeviceOption;
use crate::machine::{Contestant, Machine, run_folder, stop_on_interrupt};
use crate::progress::Screen;
use crate::run::{RunFolder, TrialResult, status_name, write_whole};
use crate::table::{percent, table};
use clap::Args;
use comfy_table::Table;
use sansprop::cohort::Status;
use sansprop::rule::{RULES, Rule};
use sansprop::train::Score;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Compare learning rules: train each at each width, and print a table.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop compare
  sansprop compare --rules normal,fa,align-ada --widths 8,16,32,64
  sansprop compare --data cifar-10 --path data --rules normal,align-ada,dfa --widths 16 --epochs 1
  sansprop compare --data fashion-mnist --set network.activation=tanh --set data.train_points=5000

All rules of one width train in lockstep on the same minibatches. Every trial leaves a run folder, and
summary.csv in the same place holds the table. Earlier runs of the very same config are replaced.")]
pub(crate) struct Arguments {
    /// Data set: digits, cifar-10, kmnist, fashion-mnist, mnist, npz, npy.
    #[arg(long, value_name = "NAME", default_value = "digits")]
    data: String,
    /// Where the data lies; default: $SANSPROP_DATA, else ./data.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Rules to compare; default: all.
    #[arg(long, value_delimiter = ',', value_name = "RULE,…")]
    rules: Vec<String>,
    /// Widths to compare.
    #[arg(long, value_delimiter = ',', value_name = "W,…", default_values_t = [16, 64])]
    widths: Vec<usize>,
    /// Learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Passes over the training samples.
    #[arg(long)]
    epochs: Option<usize>,
    /// Seed of weights and sample order.
    #[arg(long)]
    seed: Option<u32>,
    /// Folder that receives the run folders and summary.csv.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Change any other value of the config; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    device: DeviceOption,
}

impl Arguments {
    fn rules(&self) -> Result<Vec<Rule>, Failure> {
        if self.rules.is_empty() {
            return Ok(RULES.to_vec());
        }
        named_rules(&self.rules)
    }

    /// The options as config overrides; `--set` comes last and wins.
    fn overrides(&self, width: usize) -> Vec<String> {
        let mut all = vec![
            format!("data.name={}", self.data),
            format!("network.width={width}"),
        ];
        let path = self
            .path
            .as_ref()
            .map(|path| toml::Value::from(path.as_str()));
        all.extend(path.map(|v| format!("data.path={v}")));
        all.extend(self.lr.map(|v| format!("train.lr={v:?}")));
        all.extend(self.epochs.map(|v| format!("train.epochs={v}")));
        all.extend(self.seed.map(|v| format!("train.seed={v}")));
        all.extend(self.device.before(&self.overrides));
        all
    }
}

/// A line of summary.csv.
#[derive(Serialize)]
struct Row<'a> {
    data: &'a str,
    rule: &'a str,
    width: usize,
    optimizer: &'a str,
    lr: f64,
    seed: u32,
    status: &'a str,
    best_eval_accuracy: Option<f64>,
    best_epoch: Option<usize>,
    best_eval_loss: Option<f64>,
    best_train_loss: Option<f64>,
    final_eval_accuracy: Option<f64>,
    final_eval_loss: Option<f64>,
    final_train_loss: Option<f64>,
    seconds: f64,
    steps: u64,
    parameters: usize,
    device: &'a str,
    run: String,
}

/// A width whose trials are over.
struct Done<'a> {
    plan: &'a Plan,
    trials: Vec<(Rule, RunFolder)>,
    results: Vec<TrialResult>,
}

/// The rules that `--rules` names.
pub(crate) fn named_rules(names: &[String]) -> Result<Vec<Rule>, Failure> {
    let named = |name: &String| {
        Rule::named(name)
            .ok_or_else(|| Failure::Usage(format!("--rules {name}: {}", unknown_rule(name))))
    };
    names.iter().map(named).collect()
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let rules = arguments.rules()?;
    let configs = arguments
        .widths
        .iter()
        .map(|&width| load(None, &arguments.overrides(width)))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = configs.first() else {
        return Err(Failure::Usage("--widths: at least one width".into()));
    };
    let machine = Machine::new(&first.run, first.run.threads)?;
    let data = SetData::load(first)?;
    let plans = configs
        .into_iter()
        .map(|config| Plan::with_data(config, data.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let stop = stop_on_interrupt()?;

    let mut done: Vec<Done<'_>> = Vec::new();
    for plan in &plans {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let trials = rules
            .iter()
            .map(|&rule| Ok((rule, run_folder(plan, rule, &arguments.out, true)?)))
            .collect::<Result<Vec<_>, Failure>>()?;
        let contestants: Vec<_> = trials
            .iter()
            .map(|(rule, folder)| Contestant::fresh(plan.trial_config(*rule), folder.clone()))
            .collect();
        let results = machine.train(plan, &contestants, &Screen::new(), &stop)?;
        done.push(Done {
            plan,
            trials,
            results,
        });
        // Written after every width, so that what is done is never lost.
        write_summary(
            &arguments.out.join("summary.csv"),
            &done,
            &machine.describe(),
        )?;
    }

    let rows = done.iter().flat_map(|cohort| {
        let rules = cohort.trials.iter().map(|(rule, _)| *rule);
        rules
            .zip(&cohort.results)
            .map(|(rule, result)| (cohort.plan, rule, result))
    });
    print(&format!(
        "{}\n{}\n{}; runs and summary.csv in {}\n",
        head(&plans[0]),
        rows_table(rows),
        foot(&plans[0], &machine),
        arguments.out.display()
    ))?;
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::Failed("interrupted".into()));
    }
    Ok(())
}

/// What all rows have in common, before the table.
pub(crate) fn head(plan: &Plan) -> String {
    let config = &plan.config;
    let train = &config.train;
    let evaluated = match config.data.evaluate {
        Evaluate::Holdout => "held-out",
        Evaluate::Test => "test",
    };
    let chance = plan
        .chance_losses()
        .map_or(String::new(), |(train, evaluation)| {
            format!("; chance losses {train:.4} in training, {evaluation:.4} in evaluation")
        });
    format!(
        "{}: {} training samples, batch {}, {} lr {}, {} epochs; {} on {evaluated} samples{chance}",
        config.data.name,
        config.data.train_points,
        train.batch,
        plan.trial(RULES[0]).optimizer.name(),
        train.lr,
        train.epochs,
        if plan.model.feed_forward().is_some() {
            "best and final accuracy"
        } else {
            "best and final loss"
        },
    )
}

/// What the numbers were made with, after the table.
pub(crate) fn foot(plan: &Plan, machine: &Machine) -> String {
    format!("seed {}, {}", plan.config.train.seed, machine.describe())
}

/// One row a trial: accuracies on the evaluated samples, losses, seconds, parameters.
pub(crate) fn rows_table<'a>(
    trials: impl Iterator<Item = (&'a Plan, Rule, &'a TrialResult)>,
) -> Table {
    let mut table = table(
        &[
            "rule",
            "width",
            "parameters",
            "best (epoch)",
            "final",
            "eval loss",
            "train loss",
            "seconds",
            "status",
        ],
        1,
    );
    for (plan, rule, result) in trials {
        let status = match result.status {
            Status::Diverged { epoch } => format!("diverged in epoch {}", epoch + 1),
            status => status_name(status).into(),
        };
        let number = |v: Option<f64>| v.map_or("–".into(), loss);
        // Sequences have no accuracy: their best and final losses stand in its place.
        let best = match (result.best_accuracy, result.best_loss) {
            (Some((accuracy, epoch)), _) => {
                format!("{} ({})", percent(Some(accuracy)), epoch + 1)
            }
            (None, Some((best, epoch))) => format!("{} ({})", loss(best), epoch + 1),
            (None, None) => "–".into(),
        };
        let last = match result.last {
            Some(Score {
                accuracy: Some(accuracy),
                ..
            }) => percent(Some(accuracy)),
            last => number(last.map(|score| score.loss)),
        };
        table.add_row([
            rule.name.to_string(),
            plan.config.network.width.to_string(),
            plan.model.parameters().to_string(),
            best,
            last,
            number(result.last.map(|score| score.loss)),
            number(result.train.map(|score| score.loss)),
            format!("{:.2}", result.seconds),
            status,
        ]);
    }
    table
}

/// A loss with five decimals; one of a run that is on its way out, in scientific notation.
fn loss(value: f64) -> String {
    if value.abs() < 1e4 {
        format!("{value:.5}")
    } else {
        format!("{value:.3e}")
    }
}

fn write_summary(path: &Path, done: &[Done<'_>], device: &str) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for Done {
        plan,
        trials,
        results,
    } in done
    {
        for ((rule, folder), result) in trials.iter().zip(results) {
            let config = &plan.config;
            let spec = plan.trial(*rule);
            let row = Row {
                data: &config.data.name,
                rule: rule.name,
                width: config.network.width,
                optimizer: spec.optimizer.name(),
                lr: config.train.lr,
                seed: config.train.seed,
                status: status_name(result.status),
                best_eval_accuracy: result.best_accuracy.map(|(accuracy, _)| accuracy),
                best_epoch: result.best_epoch(),
                best_eval_loss: result.best_loss.map(|(loss, _)| loss),
                best_train_loss: result.best_train_loss,
                final_eval_accuracy: result.last.and_then(|score| score.accuracy),
                final_eval_loss: result.last.map(|score| score.loss),
                final_train_loss: result.train.map(|score| score.loss),
                seconds: result.seconds,
                steps: result.steps,
                parameters: plan.model.parameters(),
                device,
                run: folder
                    .path()
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into(),
            };
            writer
                .serialize(row)
                .map_err(|e| Failure::Failed(format!("cannot make summary.csv: {e}")))?;
        }
    }
    let bytes = writer
        .into_inner()
        .map_err(|e| Failure::Failed(format!("cannot make summary.csv: {e}")))?;
    Ok(write_whole(path, &bytes)?)
}
