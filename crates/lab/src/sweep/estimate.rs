//! `--dry-run`: what a sweep will cost, from counts and from a few timed steps of each network.

use super::trials::{DataSets, Trial};
use super::work::threads_of_job;
use crate::cli::Failure;
use crate::config::{Plan, Precision, SetData};
use crate::machine::Machine;
use crate::table::table;
use sansprop::cohort::{Cohort, TrialSpec, shares_hidden_pass};
use sansprop::images::{Images, Pixels};
use sansprop::init::FeedbackDraw;
use sansprop::lanes::{lane_count, lane_values};
use sansprop::model::Model;
use sansprop::optim::Optimizer;
use sansprop::rule::{Feedback, RULES, Rule};
use sansprop::sequences::Sequences;
use sansprop::train::{Blind, Schedule, train};
use sansprop_kernels::Backend;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Instant;

/// Steps that are timed.
const TIMED_STEPS: u64 = 3;

/// The widest network that is timed.
const WIDEST_TIMED: usize = 64;

/// What one cohort will take.
struct Cost {
    flops: f64,
    seconds: f64,
    bytes: f64,
}

/// The text that `--dry-run` prints: trials, cohorts, and what they will cost with `jobs` cohorts at once.
pub(crate) fn describe(
    trials: &[Trial],
    cohorts: &[Vec<usize>],
    jobs: usize,
    sets: &mut DataSets,
) -> Result<String, Failure> {
    let mut text = String::new();
    let mut table = table(&["cohort", "trials", "FLOPs", "seconds", "MB"], 1);
    let mut speeds = Speeds::default();
    let mut whole = Cost {
        flops: 0.0,
        seconds: 0.0,
        bytes: 0.0,
    };
    for (number, cohort) in cohorts.iter().enumerate() {
        let first = &trials[cohort[0]].config;
        let data = sets.of(first)?;
        let plan = Plan::with_data(first.clone(), data)?;
        let threads = threads_of_job(first.run.threads, jobs);
        let speed = speeds.of(&plan, threads)?;
        let specs: Vec<TrialSpec> = cohort.iter().map(|&i| trials[i].config.trial()).collect();
        let flops = cohort_flops(&plan, &specs)?;
        let cost = Cost {
            flops,
            seconds: flops / speed,
            bytes: bytes(&plan, &specs, threads),
        };
        table.add_row([
            format!("{} seed {}", plan.config.data.name, first.train.seed),
            cohort.len().to_string(),
            format!("{:.2e}", cost.flops),
            format!("{:.1}", cost.seconds),
            format!("{:.1}", cost.bytes / 1e6),
        ]);
        let _ = writeln!(text, "cohort {}", number + 1);
        for &i in cohort {
            let train = &trials[i].config.train;
            let optimizer = trials[i].config.trial().optimizer.name();
            let _ = writeln!(
                text,
                "  {}  {optimizer} lr {}, seed {}, {} training samples",
                trials[i].id, train.lr, train.seed, trials[i].config.data.train_points
            );
        }
        whole.flops += cost.flops;
        whole.seconds += cost.seconds;
        whole.bytes = whole.bytes.max(cost.bytes);
    }
    let data: f64 = trials
        .iter()
        .map(|t| {
            (
                t.config.data.name.clone(),
                t.config.data.path.clone(),
                &t.config,
            )
        })
        .map(|(name, path, config)| ((name, path), config))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .map(|config| Ok(set_bytes(&sets.of(config)?)))
        .collect::<Result<Vec<_>, Failure>>()?
        .into_iter()
        .sum();
    let seeds: BTreeSet<u32> = trials.iter().map(|t| t.config.train.seed).collect();
    let _ = writeln!(
        text,
        "{table}\n{} trials ({} seeds) in {} cohorts; {:.2e} FLOPs, about {:.1} s with {jobs} at once, \
         about {:.0} MB of memory",
        trials.len(),
        seeds.len(),
        cohorts.len(),
        whole.flops,
        whole.seconds / jobs.min(cohorts.len()).max(1) as f64,
        (whole.bytes * jobs as f64 + data) / 1e6
    );
    Ok(text)
}

/// Whether a trial's companion looks at the initial network that align rules share, not at one of its own.
fn shares_initial(spec: &TrialSpec) -> bool {
    FeedbackDraw::of(&spec.rule) == FeedbackDraw::None
}

/// A companion's feedback and weight gradient, and its initial pass where it shares none.
fn companion_passes(spec: &TrialSpec) -> usize {
    if shares_initial(spec) { 2 } else { 3 }
}

/// Floating point operations of a cohort's whole training and evaluation.
pub(crate) fn cohort_flops(plan: &Plan, specs: &[TrialSpec]) -> Result<f64, Failure> {
    let sample = 2.0 * multiply_adds(plan);
    let config = &plan.config;
    let trained = (plan.total_steps() * config.train.batch as u64) as f64;
    let evaluations = config.train.epochs.div_ceil(config.run.eval_every);
    let evaluated = (evaluations * plan.split()?.evaluation.samples.len()) as f64;
    let alignment = config.run.alignment;
    let looks = |s: &TrialSpec| s.rule.needs_initial_pass() || (alignment && shares_initial(s));
    let initial = specs.iter().any(looks);
    let lent = shares_hidden_pass(&plan.model, specs);
    // Trials that only read out use a pass that is run once for all of them.
    let own = || {
        let only_head = |s: &&TrialSpec| lent && s.rule.feedback == Feedback::Off;
        specs.iter().filter(move |s| !only_head(s))
    };
    let mut passes: usize = own().map(|s| s.rule.passes()).sum();
    if alignment {
        passes += specs.iter().map(companion_passes).sum::<usize>();
    }
    let (learning, evaluating) = (usize::from(initial || lent), usize::from(lent));
    let trained = trained * (passes + learning) as f64;
    Ok(sample * (trained + evaluated * (own().count() + evaluating) as f64))
}

/// Multiply-adds of one sample's forward pass.
fn multiply_adds(plan: &Plan) -> f64 {
    match (&plan.model, &plan.data) {
        (Model::FeedForward(network), _) => network.multiply_adds(1) as f64,
        (Model::Recurrent(network), SetData::Sequences(set)) => {
            (network.parameters() * set.train.steps()) as f64
        }
        (Model::Recurrent(network), SetData::Images(_)) => network.parameters() as f64,
    }
}

/// Weights and moments of every trial and companion, W⁽⁰⁾, the initial network's pass, and rooms to learn in.
fn bytes(plan: &Plan, specs: &[TrialSpec], threads: usize) -> f64 {
    let (model, batch) = (&plan.model, plan.config.train.batch);
    let alignment = plan.config.run.alignment;
    // Trials with companions step one after the other; on a GPU, each of the others has a room of its own.
    let lanes = match (alignment, plan.config.run.device.is_cpu()) {
        (true, _) => 0,
        (false, true) => lane_count(model, batch, specs.len(), threads),
        (false, false) => specs.len(),
    };
    let parameters = model.parameters();
    let looks = |s: &TrialSpec| alignment && shares_initial(s);
    let needs = |f: fn(&Rule) -> bool| usize::from(specs.iter().any(|s| f(&s.rule) || looks(s)));
    let shared = (1 + lanes + needs(Rule::needs_initial_pass)) * lane_values(model, batch)
        + parameters * needs(Rule::needs_initial_weights);
    let own = |spec: &TrialSpec| {
        let moments = match spec.optimizer {
            Optimizer::Sgd { .. } => 0,
            Optimizer::Adam { .. } => 2,
        };
        let feedback = usize::from(FeedbackDraw::of(&spec.rule) != FeedbackDraw::None);
        let companion = match (alignment, shares_initial(spec)) {
            (false, _) => 0,
            (true, true) => parameters * (1 + moments),
            (true, false) => parameters * (2 + moments) + lane_values(model, batch),
        };
        parameters * (1 + moments + feedback) + companion
    };
    let values = shared + specs.iter().map(own).sum::<usize>();
    let width = match plan.config.run.precision {
        Precision::F32 | Precision::F32Strict | Precision::Tf32 | Precision::Bf16 => 4,
        Precision::F64 => 8,
    };
    (values * width) as f64
}

fn set_bytes(data: &SetData) -> f64 {
    let bytes: usize = match data {
        SetData::Images(set) => {
            let images = [Some(&set.train), set.test.as_ref()];
            let size = |set: &Images| match set.pixels() {
                Pixels::Bytes { values, .. } => values.len(),
                Pixels::Floats(values) => 4 * values.len(),
            };
            images.into_iter().flatten().map(size).sum()
        }
        SetData::Sequences(set) => {
            let size = |set: &Sequences| 4 * (set.inputs().len() + set.targets().len());
            let sets = [Some(&set.train), set.test.as_ref()];
            sets.into_iter().flatten().map(size).sum()
        }
    };
    bytes as f64
}

/// Speeds that were measured, each network's once.
#[derive(Default)]
pub(crate) struct Speeds(BTreeMap<String, f64>);

impl Speeds {
    /// FLOPs per second of a few steps of backprop on a plan's network, after one that is not timed. A network wider
    /// than [`WIDEST_TIMED`] counts as fast as one of that width, so that nobody waits for minutes.
    pub(crate) fn of(&mut self, plan: &Plan, threads: usize) -> Result<f64, Failure> {
        let mut config = plan.config.clone();
        config.network.width = config.network.width.min(WIDEST_TIMED);
        let (train, run) = (&config.train, &config.run);
        let network = format!(
            "{} {:?} {} {:?} {} {threads}",
            config.data.name, config.network, train.batch, run.precision, run.device
        );
        if let Some(speed) = self.0.get(&network) {
            return Ok(*speed);
        }
        let plan = Plan::with_data(config, plan.data.clone())?;
        let speed = match Machine::new(&plan.config.run, threads)? {
            Machine::Cpu(backend) => measure_on(&backend, &plan),
            Machine::Reference(backend) => measure_on(&backend, &plan),
            Machine::Gpu(backend) => measure_on(&*backend, &plan),
        }?;
        self.0.insert(network, speed);
        Ok(speed)
    }
}

fn measure_on<B: Backend>(backend: &B, plan: &Plan) -> Result<f64, Failure> {
    let split = plan.split()?;
    let specs = [TrialSpec {
        rule: RULES[0],
        optimizer: Optimizer::Sgd { lr: 0.0 },
    }];
    let new = || {
        let batch = plan.config.train.batch;
        Cohort::new(backend, plan.model.clone(), 0, batch, 0.0, &specs)
    };
    let mut cohort = new();
    let mut part = split.clone();
    part.evaluation.samples.end = part.evaluation.samples.start + 1;
    let mut seconds = [0.0; 2];
    for (seconds, steps) in seconds.iter_mut().zip([1, TIMED_STEPS]) {
        let schedule = Schedule {
            max_steps: Some(steps),
            ..plan.schedule()
        };
        let started = Instant::now();
        train(&mut cohort, &part, &schedule, &mut Blind);
        *seconds = started.elapsed().as_secs_f64();
        cohort = new();
    }
    let steps = TIMED_STEPS.min(plan.total_steps()) as f64;
    let sample = 2.0 * multiply_adds(plan);
    let done = sample * plan.config.train.batch as f64 * steps * RULES[0].passes() as f64;
    Ok(done / seconds[1].max(1e-9))
}
