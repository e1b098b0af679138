//! `sansprop check`.

use crate::cli::{Failure, print};
use crate::config::{Plan, load};
use crate::device::DeviceOption;
use crate::machine::Machine;
use crate::table::table;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sansprop::check::{Check, Finding, check_batch};
use sansprop::minibatch::Targets;
use sansprop::rng::LegacyRandom;
use sansprop::rule::RULES;
use sansprop_kernels::Reference;
use std::path::PathBuf;
use std::time::Duration;

/// Prove on your own network and data that every rule does what it says.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop check                                        the embedded digits, all defaults
  sansprop check my.toml
  sansprop check my.toml --set network.width=128
  sansprop check my.toml --device vulkan                the kernels of a GPU against the reference
  sansprop check --set data.name=cifar-10 --set data.path=data --set network.width=16

What is checked, each with its deviation and its bound:
  gradient           backprop's gradient against central differences of the loss, in f64
  first step         at step one every align rule's update is backprop's
  moved              the next two are looked at away from the initial weights
  feedback := W⁽⁰⁾   fa with the initial weights as feedback is align-prop
  linear             align-zero's update is linear in the error
  trained, untouched two steps change the layers that a rule trains, and no others
  loss, kernel       the fast kernels against the f64 reference, on this network's shapes
Exit code: 0 all hold, 1 one does not, 2 wrong usage.")]
pub(crate) struct Arguments {
    /// The config file; default: the embedded digits with all defaults.
    config: Option<PathBuf>,
    /// Change a value of the config; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    device: DeviceOption,
    /// Show only what does not hold.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let overrides = arguments.device.before(&arguments.overrides);
    let config = load(arguments.config.as_deref(), &overrides)?;
    let machine = Machine::new(&config.run, config.run.threads)?;
    let plan = Plan::new(config)?;
    let Some(network) = plan.model.feed_forward() else {
        return Err(Failure::Usage(
            "check covers convolutional and dense networks; the recurrent network has no checks of its own yet"
                .into(),
        ));
    };
    let split = plan.split()?;
    let samples = check_batch(network, plan.config.train.batch);
    let order = LegacyRandom::new(plan.config.train.seed).permutation(split.train.samples.len());
    let layout = network.minibatch_layout();
    let minibatch = split.train.minibatch(&order[..samples], layout);
    let Targets::Labels(labels) = &minibatch.targets else {
        unreachable!("images have labels");
    };
    let check = Check {
        network,
        rules: &RULES,
        seed: plan.config.train.seed,
        target_shift: plan.config.train.target_shift,
        input: &minibatch.input,
        labels,
    };
    let findings = observe(&check, &machine);
    report(&plan, &machine, samples, &findings, arguments.quiet)
}

/// Runs all checks behind a spinner that names the latest finding.
fn observe(check: &Check<'_>, machine: &Machine) -> Vec<Finding> {
    let style = ProgressStyle::with_template("{spinner} {pos} checked: {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("a valid template"));
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut findings = Vec::new();
    let mut take = |finding: Finding| {
        bar.inc(1);
        bar.set_message(format!("{} {}", finding.property, finding.subject));
        findings.push(finding);
    };
    match machine {
        Machine::Cpu(backend) => check.run(backend, &Reference, &mut take),
        Machine::Reference(backend) => check.run(backend, &Reference, &mut take),
        Machine::Gpu(backend) => check.run(&**backend, &Reference, &mut take),
    }
    bar.finish_and_clear();
    findings
}

fn report(
    plan: &Plan,
    machine: &Machine,
    samples: usize,
    findings: &[Finding],
    quiet: bool,
) -> Result<(), Failure> {
    let failed = findings.iter().filter(|f| !f.passed).count();
    let mut table = table(&["check", "of", "deviation", "bound", "result"], 2);
    for finding in findings.iter().filter(|f| !(quiet && f.passed)) {
        table.add_row([
            finding.property.to_string(),
            finding.subject.clone(),
            format!("{:.2e}", finding.deviation),
            finding.bound.to_string(),
            if finding.passed { "pass" } else { "FAIL" }.into(),
        ]);
    }
    let config = &plan.config;
    let rows = if quiet && failed == 0 {
        String::new()
    } else {
        format!("{table}\n")
    };
    print(&format!(
        "{}, width {}, {samples} samples, seed {}, {} against f64\n{rows}{} of {} checks hold\n",
        config.data.name,
        config.network.width,
        config.train.seed,
        machine.describe(),
        findings.len() - failed,
        findings.len(),
    ))?;
    if failed == 0 {
        return Ok(());
    }
    let first = findings.iter().find(|f| !f.passed);
    let what = first.map_or(String::new(), |f| {
        format!(
            ": {} of {}: {}",
            f.property,
            f.subject,
            f.property.statement()
        )
    });
    Err(Failure::Failed(format!(
        "{failed} checks do not hold{what}"
    )))
}
