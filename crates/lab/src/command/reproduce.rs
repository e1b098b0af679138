//! `sansprop reproduce`.

use crate::cli::{Failure, given_once, print};
use crate::config::{Config, SetData, load, nearest, unknown_rule};
use crate::data::official_shape;
use crate::device::DeviceOption;
use crate::machine::stop_on_interrupt;
use crate::report::{Table, comparison_tables, latex, markdown};
use crate::reproduce::{Comparison, Estimator, Experiment, belongs, compare};
use crate::sweep::file::SweepFile;
use crate::sweep::trials::{DataSets, Trial, trials};
use crate::sweep::{Order, Trained, describe};
use crate::table::table;
use clap::Args;
use sansprop::rule::Rule;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use toml::Value;

/// Run a table or figure of the paper, and show each measured number beside the paper's.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop reproduce --list                            every table and figure, and what it costs
  sansprop reproduce table8 --widths 8,16,32,64,128    part of a table; what is not run is shown as not run
  sansprop reproduce table6 --widths 8,16 --epochs 3   a first look at a long one
  sansprop reproduce table9 --widths 8 --train-points 45,150
  sansprop reproduce table2 --dry-run                  trials, cohorts, FLOPs, time and memory
  sansprop report runs/table6 --open                   the same as a page with figures

The same command again goes on where it stopped, and a wider one runs only what is new. The folder is a sweep's
(sansprop sweep --help): several workers may share it, and sansprop status shows it. It also receives
comparison.json, which sansprop report reads.
Exit code: 0 all trials completed or diverged, 1 some failed or are left, 2 wrong usage.")]
pub(crate) struct Arguments {
    /// table1 to table10, fig1, fig3 to fig9.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// List every table and figure with its cost on this machine.
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// Only these rules.
    #[arg(long, value_delimiter = ',', value_name = "RULE,…")]
    rules: Vec<String>,
    /// Only these widths.
    #[arg(long, value_delimiter = ',', value_name = "W,…")]
    widths: Vec<u32>,
    /// Only these learning rates.
    #[arg(long, value_delimiter = ',', value_name = "LR,…")]
    lrs: Vec<f64>,
    /// These seeds instead of the paper's; 1-5 stands for 1,2,3,4,5.
    #[arg(long, value_delimiter = ',', value_name = "SEED,…", value_parser = seeds)]
    seeds: Vec<Seeds>,
    /// Only these numbers of training samples.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    train_points: Vec<u32>,
    /// Train no trial for more epochs than this.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Where the data lies; default: $SANSPROP_DATA, else ./data.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The experiment's folder; default: one named after it, below runs.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Cohorts to train at once; they divide the threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Train failed trials again.
    #[arg(long)]
    retry: bool,
    /// Print trials, cohorts, FLOPs, time and memory, and train nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the tables in Markdown.
    #[arg(long, conflicts_with = "latex")]
    markdown: bool,
    /// Print the tables in LaTeX (package booktabs).
    #[arg(long)]
    latex: bool,
    /// Change any other value of the config; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    device: DeviceOption,
}

/// One seed or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seeds(std::ops::RangeInclusive<u32>);

fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let range = match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(text).map(|seed| (seed, seed)),
    };
    let range = range.filter(|(first, last)| first <= last);
    let range = range.map(|(first, last)| Seeds(first..=last));
    range.ok_or_else(|| "write a seed as 99, or several as 100-104".into())
}

impl Arguments {
    /// The experiment as it is to be run.
    fn experiment(&self, whole: &Experiment) -> Result<Experiment, Failure> {
        let mut experiment = whole.clone();
        let rules = self.rules.iter().map(|name| match Rule::named(name) {
            Some(rule) => Ok(Value::from(rule.name)),
            None => Err(Failure::Usage(format!(
                "--rules {name}: {}",
                unknown_rule(name)
            ))),
        });
        let whole_numbers = |numbers: &[u32]| -> Vec<Value> {
            numbers.iter().map(|&n| Value::from(i64::from(n))).collect()
        };
        let seeds: Vec<u32> = self.seeds.iter().flat_map(|s| s.0.clone()).collect();
        let axes = [
            ("--rules", "train.rule", rules.collect::<Result<_, _>>()?),
            ("--widths", "network.width", whole_numbers(&self.widths)),
            (
                "--lrs",
                "train.lr",
                self.lrs.iter().map(|&lr| Value::from(lr)).collect(),
            ),
            ("--seeds", "train.seed", whole_numbers(&seeds)),
            (
                "--train-points",
                "data.train_points",
                whole_numbers(&self.train_points),
            ),
        ];
        for (option, key, values) in axes {
            if !values.is_empty() {
                given_once(option, key, &self.overrides)?;
                let replaced = experiment.replace(key, &values);
                replaced.map_err(|e| Failure::Usage(format!("{option}: {e}")))?;
            }
        }
        if let Some(most) = self.epochs {
            experiment.limit_epochs(i64::from(most));
        }
        let path = self.path.as_ref();
        let path = path.map(|path| ("data.path".to_owned(), Value::from(path.as_str())));
        let others = self.device.before(&self.overrides).into_iter();
        let others = others.map(|text| crate::config::over(&text));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        for (key, value) in path.into_iter().chain(others) {
            let replaced = experiment.replace(&key, &[value]);
            replaced.map_err(|e| Failure::Usage(format!("--set {key}: {e}")))?;
        }
        Ok(experiment)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let all = Experiment::all();
    let Some(name) = &arguments.name else {
        return list(&all);
    };
    let Some(whole) = all.iter().find(|e| e.name == *name) else {
        if name == "fig2" {
            return Err(Failure::Usage(
                "fig2 is a picture of weight changes, without a measurement to repeat".into(),
            ));
        }
        let names: Vec<&str> = all.iter().map(|e| e.name.as_str()).collect();
        let near = nearest(name, names.iter().copied());
        let hint = near.map_or(String::new(), |n| format!(", did you mean `{n}`?"));
        return Err(Failure::Usage(format!(
            "no such table or figure: {name}{hint} (there are {})",
            names.join(", ")
        )));
    };
    if let Some(missing) = &whole.missing {
        return Err(Failure::Failed(format!(
            "{name} ({}) cannot run yet: it needs {missing}, which this version does not have",
            whole.title
        )));
    }
    if whole.alone && arguments.jobs > 1 {
        return Err(Failure::Usage(format!(
            "--jobs {}: {name} measures times, so one trial runs at a time",
            arguments.jobs
        )));
    }
    let experiment = arguments.experiment(whole)?;
    let file = experiment.sweep()?;
    if let Some(config) = file
        .configs
        .iter()
        .find(|c| experiment.sections.iter().all(|s| !belongs(c, s)))
    {
        let sections: Vec<&str> = whole.sections.iter().map(|s| s.name.as_str()).collect();
        return Err(Failure::Usage(format!(
            "{name} has no place for a trial of width {} with {} training samples on {}; its tables are: {}",
            config.network.width,
            config.data.train_points,
            config.data.name,
            sections.join("; ")
        )));
    }
    let mut sets = DataSets::default();
    let mut trials = self::trials(&file, &mut sets)?;
    say_what_is_not_official(&trials, &mut sets)?;
    let cohorts = experiment.cohorts(&trials);
    let jobs = usize::from(arguments.jobs);
    if arguments.dry_run {
        return print(&describe(&trials, &cohorts, jobs, &mut sets)?);
    }
    let default = || Path::new(&file.out).join(name);
    let out = arguments.out.clone().unwrap_or_else(default);
    let earlier = earlier(&out, &trials, &mut sets);
    trials.extend(earlier);
    let order = Order {
        source: Path::new(name),
        trials: &trials,
        cohorts: &cohorts,
        axes: &file.axes,
        out: &out,
        jobs,
        retry: arguments.retry,
    };
    let stop = stop_on_interrupt()?;
    let Trained { rows, written } = order.carry_out(sets, &stop)?;
    let comparison = compare(&experiment, &whole.sweep()?, &file, &trials, &rows, &out)?;
    print(&tables(&comparison, arguments))?;
    written?;
    comparison.save(&out)?;
    if !(arguments.markdown || arguments.latex) {
        print(&format!(
            "{} trials; comparison.json, tables and run folders in {}\n",
            trials.len(),
            out.display()
        ))?;
    }
    order.outcome(&rows, &stop)
}

fn tables(comparison: &Comparison, arguments: &Arguments) -> String {
    let format = match (arguments.markdown, arguments.latex) {
        (true, _) => markdown,
        (_, true) => latex,
        _ => on_terminal,
    };
    let all = comparison_tables(comparison);
    let run = |table: &&Table| {
        let cells = table
            .rows
            .iter()
            .flat_map(|row| row.iter().skip(table.labels));
        cells.into_iter().any(|cell| cell.main != "not run")
    };
    let tables: Vec<String> = all.iter().filter(run).map(format).collect();
    let left: Vec<&str> = all
        .iter()
        .filter(|t| !run(t))
        .map(|t| t.caption.as_str())
        .collect();
    let left = match left.len() {
        0 => String::new(),
        _ => format!("not run: {}\n", left.join("; ")),
    };
    format!("{}\n{left}", tables.join("\n"))
}

/// What the folder holds of earlier commands on the same terms: trials that differ from one of these in rule, width and
/// number of training samples only. They belong to the table as well.
fn earlier(out: &Path, trials: &[Trial], sets: &mut DataSets) -> Vec<Trial> {
    let terms = |config: &Config| {
        let mut config = config.clone();
        config.train.rule = String::new();
        config.network.width = 0;
        // The minibatch follows from the number of samples.
        (config.data.train_points, config.train.batch) = (0, 0);
        config
    };
    let asked: Vec<Config> = trials.iter().map(|t| terms(&t.config)).collect();
    // A folder that is not there, or holds something else, has nothing to add.
    let folders = fs::read_dir(out).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
    folders.sort();
    let mut found = Vec::new();
    for folder in folders {
        let Ok(config) = load(Some(&folder.join("config.toml")), &[]) else {
            continue;
        };
        let same = |terms_of: &Config| terms(&config).difference(terms_of).is_none();
        if !asked.iter().any(same) {
            continue;
        }
        let alone = SweepFile {
            configs: vec![config],
            axes: Vec::new(),
            select: None,
            out: String::new(),
        };
        let resolved = self::trials(&alone, sets).unwrap_or_default();
        found.extend(resolved.into_iter().filter(|trial| {
            let named = folder.file_name().is_some_and(|name| *name == *trial.id);
            named && trials.iter().all(|t| t.id != trial.id)
        }));
    }
    found
}

/// A line for each published set that is not whole, or is more than was published: numbers will differ from the
/// paper's.
fn say_what_is_not_official(trials: &[Trial], sets: &mut DataSets) -> Result<(), Failure> {
    let mut said = BTreeSet::new();
    for trial in trials {
        let name = &trial.config.data.name;
        let (Some((_, _, official)), true) = (official_shape(name), said.insert(name)) else {
            continue;
        };
        if let SetData::Images(set) = sets.of(&trial.config)?
            && set.train.len() != official
        {
            eprintln!(
                "warning: {name} has {} training images here, {official} as published",
                set.train.len()
            );
        }
    }
    Ok(())
}

/// A table with the paper's numbers below the measured ones.
fn on_terminal(made: &Table) -> String {
    let head: Vec<&str> = made.head.iter().map(String::as_str).collect();
    let mut shown = table(&head, made.labels);
    for row in &made.rows {
        shown.add_row(row.iter().map(|cell| {
            let mut text = cell.main.clone();
            if let Some(note) = &cell.note {
                text += &format!("\n{note}");
            }
            if let Some(paper) = &cell.paper {
                text += &format!("\npaper {paper}");
            }
            if let Some(difference) = &cell.difference {
                text += &format!("\n({difference})");
            }
            text
        }));
    }
    format!("{}\n{shown}\n{}\n", made.caption, made.note)
}

fn list(all: &[Experiment]) -> Result<(), Failure> {
    let mut shown = table(&["name", "shows", "trials", "FLOPs", "hours"], 2);
    let mut estimator = Estimator::new();
    for experiment in all {
        let Experiment { name, title, .. } = experiment;
        let row = match &experiment.missing {
            Some(missing) => {
                let title = format!("{title}; needs {missing}");
                [name.clone(), title, "–".into(), "–".into(), "–".into()]
            }
            None => {
                let cost = estimator.cost(experiment)?;
                [
                    name.clone(),
                    title.clone(),
                    cost.trials.to_string(),
                    format!("{:.1e}", cost.flops),
                    format!("{:.1}", cost.seconds / 3600.0),
                ]
            }
        };
        shown.add_row(row);
    }
    print(&format!(
        "{shown}\nwhole experiments, with all that the paper ran; hours on this machine, from a few timed steps of \
         networks up to width 64\n"
    ))
}
