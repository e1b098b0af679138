//! `sansprop bench`.

use crate::bench::{
    Cell, Extent, Outcome, Setting, lines, measure, measure_in_child, seeds, tables, triad_bytes,
};
use crate::cli::{Failure, given_once, print};
use crate::command::compare::named_rules;
use crate::config::{Config, Plan, load, resolve, syntax};
use crate::device::DeviceOption;
use crate::machine::{Machine, stop_on_interrupt_saying};
use clap::{Args, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use sansprop::cost::step_cost;
use sansprop::rule::Rule;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// The rules that are measured unless others are named: one for each way of learning that costs differently.
const RULES: [&str; 5] = ["normal", "align-ada", "align-zero", "dfa", "last-layer"];

/// Time training steps of each rule, beside what the machine can do at most.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop bench my.toml
  sansprop bench my.toml --widths 8,32,128 --rules normal,align-ada --threads 1
  sansprop bench my.toml --set data.train_points=1000 --set run.precision=f32-strict
  sansprop bench my.toml --json > steps.jsonl

Two ceilings are measured first, on the same threads and with the same instructions: multiply-adds that stay in
registers, and a triad over memory. Then every rule at every width trains some steps of each trial, each in a process of
its own, on the config's data: the first trial with the config's seed, each other with the next number. Rules take
turns, trial by trial. Operations are counted as they are written (tiles do fewer, so that shares may exceed 100 %),
bytes as if every kernel read and wrote each of its arrays once in memory. Ctrl-C stops and shows what is measured.
Exit code: 0 all measured, 1 some failed, diverged or were interrupted, 2 wrong usage.")]
pub(crate) struct Arguments {
    /// The config file; `sansprop config` prints one.
    #[arg(required_unless_present = "cell")]
    config: Option<PathBuf>,
    /// Change a value of the config; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    device: DeviceOption,
    /// Rules to time.
    #[arg(long, value_delimiter = ',', value_name = "RULE,…", default_values_t = RULES.map(String::from))]
    rules: Vec<String>,
    /// Widths to time; default: the config's.
    #[arg(long, value_delimiter = ',', value_name = "W,…")]
    widths: Vec<usize>,
    /// Timed steps of each trial, after one that is not timed.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = value_parser!(u16).range(1..))]
    steps: u16,
    /// Trials, each with a seed of its own.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..))]
    trials: u16,
    /// Trials at once in one cohort, as a sweep trains them; times are then those of one of them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=32))]
    cohort: u16,
    /// Threads, 0 for one per core; default: the config's `run.threads`.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print one JSON object for each rule and width, a line each, and nothing else.
    #[arg(long)]
    json: bool,
    /// Measure this rule here, on the config that standard input holds, and print what came of it.
    #[arg(long, value_name = "RULE", hide = true)]
    cell: Option<String>,
}

impl Arguments {
    /// The config at each width.
    fn configs(&self) -> Result<Vec<Config>, Failure> {
        let mut base = self.device.before(&self.overrides);
        if let Some(threads) = self.threads {
            given_once("--threads", "run.threads", &self.overrides)?;
            base.push(format!("run.threads={threads}"));
        }
        let path = self.config.as_deref();
        if self.widths.is_empty() {
            return Ok(vec![load(path, &base)?]);
        }
        given_once("--widths", "network.width", &self.overrides)?;
        let at = |width: &usize| {
            let mut overrides = base.clone();
            overrides.push(format!("network.width={width}"));
            Ok(load(path, &overrides)?)
        };
        self.widths.iter().map(at).collect()
    }

    fn extent(&self) -> Extent {
        Extent {
            steps: self.steps,
            cohort: self.cohort,
        }
    }

    /// The trials of each rule on one config, in turns; after an interrupt those that are whole. A rule that failed takes
    /// no more turns.
    fn turns(
        &self,
        rules: &[Rule],
        config: &Config,
        stop: &AtomicBool,
        bar: &ProgressBar,
    ) -> Result<Vec<(Rule, Outcome)>, Failure> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; rules.len()];
        for seed in seeds(config, self.trials) {
            let mut config = config.clone();
            config.train.seed = seed;
            for (&rule, outcome) in rules.iter().zip(&mut outcomes) {
                bar.set_message(format!("{rule} w{}", config.network.width));
                let before = outcome.take();
                let failed = |o: &Outcome| !matches!(o, Outcome::Measured { .. });
                let trial =
                    match stop.load(Ordering::Relaxed) || before.as_ref().is_some_and(failed) {
                        true => None,
                        false => measure_in_child(&config, rule, self.extent(), stop)?,
                    };
                *outcome = match (before, trial) {
                    (Some(before), Some(trial)) => Some(before.with(trial)),
                    (before, trial) => before.or(trial),
                };
                bar.inc(1);
            }
        }
        let outcomes = rules.iter().copied().zip(outcomes);
        Ok(outcomes.filter_map(|(rule, o)| Some((rule, o?))).collect())
    }

    /// Measures every rule at every width; with `--json` each width's lines are printed as soon as it is done.
    fn measure(&self, rules: &[Rule], configs: Vec<Config>) -> Result<(), Failure> {
        let first = &configs[0];
        let machine = Machine::new(&first.run, first.run.threads)?;
        let plan = Plan::new(first.clone())?;
        let stop = stop_on_interrupt_saying("stopping; press Ctrl-C again to stop at once")?;
        let setting = Setting {
            plan: &plan,
            machine: &machine,
            seeds: seeds(first, self.trials).collect(),
            steps: self.steps,
            cohort: self.cohort,
            ceilings: machine.ceilings(triad_bytes()),
        };
        let bar = bar(rules.len() * configs.len() * usize::from(self.trials));
        let mut cells = Vec::new();
        for config in &configs {
            let plan = Plan::with_data(config.clone(), plan.data.clone())?;
            let begin = cells.len();
            for (rule, outcome) in self.turns(rules, config, &stop, &bar)? {
                let batch = plan.config.train.batch;
                let spec = plan.trial(rule);
                cells.push(Cell {
                    rule,
                    width: config.network.width,
                    cost: step_cost(&plan.model, &spec, batch, machine.value_bytes()),
                    outcome,
                });
            }
            if self.json {
                print(&lines(&setting, &cells[begin..])?)?;
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        bar.finish_and_clear();
        if !self.json {
            print(&tables(&setting, &cells))?;
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted".into()));
        }
        let failed = |cell: &&Cell| !matches!(cell.outcome, Outcome::Measured { .. });
        match cells.iter().filter(failed).count() {
            0 => Ok(()),
            count => Err(Failure::Failed(format!(
                "{count} of {} measurements failed or diverged",
                cells.len()
            ))),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.cell {
        Some(rule) => run_cell(arguments, rule),
        None => {
            let rules = named_rules(&arguments.rules)?;
            arguments.measure(&rules, arguments.configs()?)
        }
    }
}

/// The child of another `sansprop bench`.
fn run_cell(arguments: &Arguments, rule: &str) -> Result<(), Failure> {
    let rules = named_rules(&[rule.to_owned()])?;
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Failure::Failed(format!("cannot read the config: {e}")))?;
    let config = resolve(syntax(&text, "standard input")?, "standard input")?;
    let outcome = measure(config, rules[0], arguments.extent())?;
    let json = serde_json::to_string(&outcome);
    print(&json.map_err(|e| Failure::Failed(format!("cannot write JSON: {e}")))?)
}

fn bar(cells: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24.green/dim} {pos}/{len} {msg} {eta:.dim}");
    let style = style.expect("a valid template").progress_chars("━╸─");
    ProgressBar::new(cells as u64).with_style(style)
}
