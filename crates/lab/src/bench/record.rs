//! What was measured, beside what it was counted and compared with: the lines of `--json`.

use super::cell::Outcome;
use crate::cli::Failure;
use crate::config::Plan;
use crate::machine::Machine;
use crate::sweep::stats::mean_and_deviation;
use sansprop::cost::Cost;
use sansprop::rule::Rule;
use sansprop_kernels::Ceilings;
use serde::Serialize;

/// What all rules and widths have in common.
pub(crate) struct Setting<'a> {
    /// The first width's plan: widths differ in nothing else.
    pub(crate) plan: &'a Plan,
    pub(crate) machine: &'a Machine,
    pub(crate) seeds: Vec<u32>,
    /// Timed steps of each trial.
    pub(crate) steps: u16,
    /// Trials at once, of which the times are one's.
    pub(crate) cohort: u16,
    /// None for arithmetic whose ceilings are not measured.
    pub(crate) ceilings: Option<Ceilings>,
}

impl Setting<'_> {
    /// The seeds of a cell's trials: after an interrupt not all that were asked for.
    pub(crate) fn seeds_of(&self, cell: &Cell) -> &[u32] {
        match cell.trials().len() {
            0 => &self.seeds,
            count => &self.seeds[..count],
        }
    }
}

/// One rule at one width.
pub(crate) struct Cell {
    pub(crate) rule: Rule,
    pub(crate) width: usize,
    pub(crate) cost: Cost,
    pub(crate) outcome: Outcome,
}

/// What follows from a cell's times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times {
    /// Median of all steps of all trials, in seconds.
    pub(crate) median: f64,
    /// The fastest step, in seconds.
    pub(crate) fastest: f64,
    /// Over trials, each its median step times the steps of an epoch: the mean.
    pub(crate) epoch: f64,
    /// And its standard error; none of one trial.
    pub(crate) epoch_error: Option<f64>,
}

impl Cell {
    /// Its times; none if it failed.
    pub(crate) fn times(&self, steps_per_epoch: usize) -> Option<Times> {
        let seconds = self.trials();
        let all: Vec<f64> = seconds.iter().flatten().copied().collect();
        let epoch = |trial: &Vec<f64>| Some(median(trial)? * steps_per_epoch as f64);
        let epochs: Vec<f64> = seconds.iter().filter_map(epoch).collect();
        let (mean, deviation) = mean_and_deviation(&epochs)?;
        Some(Times {
            median: median(&all)?,
            fastest: all.iter().copied().reduce(f64::min)?,
            epoch: mean,
            epoch_error: deviation.map(|d| d / (epochs.len() as f64).sqrt()),
        })
    }

    /// Kernels that a step of all trials at once starts on a device; none if it failed or where kernels are calls.
    pub(crate) fn launches(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Measured { launches, .. } => launches,
            Outcome::Diverged(_) | Outcome::Failed(_) => None,
        }
    }

    /// The most memory that its process had; none if it failed or where the system does not say.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Measured {
                peak_memory_bytes, ..
            } => peak_memory_bytes,
            Outcome::Diverged(_) | Outcome::Failed(_) => None,
        }
    }

    /// In a word, and why, if it is not measured.
    pub(crate) fn status(&self) -> (&'static str, Option<&str>) {
        match &self.outcome {
            Outcome::Measured { .. } => ("measured", None),
            Outcome::Diverged(error) => ("diverged", Some(error)),
            Outcome::Failed(error) => ("failed", Some(error)),
        }
    }

    /// The median over trials of its median step over backprop's of the same width and turn; none where either is missing.
    pub(crate) fn ratio_to_normal(&self, all: &[Self]) -> Option<f64> {
        let normal = |cell: &&Self| cell.rule.name == "normal" && cell.width == self.width;
        let normal = all.iter().find(normal)?;
        let turns = self.trials().iter().zip(normal.trials());
        let ratios = turns.map(|(own, normal)| Some(median(own)? / median(normal)?));
        median(&ratios.collect::<Option<Vec<f64>>>()?)
    }

    /// Seconds of each timed step of each trial; none if it failed.
    pub(crate) fn trials(&self) -> &[Vec<f64>] {
        match &self.outcome {
            Outcome::Measured { seconds, .. } => seconds,
            Outcome::Diverged(_) | Outcome::Failed(_) => &[],
        }
    }
}

/// What a step of so many seconds reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// Operations per second.
    pub(crate) flops: f64,
    /// Of what the machine can compute at most.
    pub(crate) of_compute: Option<f64>,
    /// Of what the machine can move at most.
    pub(crate) of_memory: Option<f64>,
}

impl Rates {
    pub(crate) fn new(cost: Cost, seconds: f64, ceilings: Option<Ceilings>) -> Self {
        let (flops, bytes) = (cost.flops as f64 / seconds, cost.bytes as f64 / seconds);
        Self {
            flops,
            of_compute: ceilings.map(|c| flops / c.flops),
            of_memory: ceilings.map(|c| bytes / c.bytes),
        }
    }
}

/// The middle of the values, or of the two in the middle the mean.
fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some((values[(values.len() - 1) / 2] + upper) / 2.0)
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    rule: &'a str,
    width: usize,
    status: &'a str,
    error: Option<&'a str>,
    data: &'a str,
    optimizer: &'a str,
    lr: f64,
    precision: &'a str,
    isa: String,
    device: String,
    threads: usize,
    batch: usize,
    seeds: &'a [u32],
    steps: u16,
    cohort: u16,
    steps_per_epoch: usize,
    step_ms_median: Option<f64>,
    step_ms_min: Option<f64>,
    /// The median of each trial, in the order of the seeds.
    step_ms_of_trials: Vec<f64>,
    flops_per_step: u64,
    bytes_per_step: u64,
    launches_per_step: Option<u64>,
    gflops: Option<f64>,
    share_of_compute_ceiling: Option<f64>,
    share_of_memory_ceiling: Option<f64>,
    compute_ceiling_gflops: Option<f64>,
    memory_ceiling_gbs: Option<f64>,
    peak_memory_bytes: Option<u64>,
    seconds_per_epoch_mean: Option<f64>,
    seconds_per_epoch_standard_error: Option<f64>,
    ratio_to_normal: Option<f64>,
}

/// One JSON object a line for each of the cells, which hold backprop's of their widths if it was measured.
pub(crate) fn lines(setting: &Setting<'_>, cells: &[Cell]) -> Result<String, Failure> {
    let config = &setting.plan.config;
    let machine = setting.machine;
    let per_epoch = setting.plan.steps_per_epoch();
    let mut text = String::new();
    for cell in cells {
        let times = cell.times(per_epoch);
        let rates = times.map(|t| Rates::new(cell.cost, t.median, setting.ceilings));
        let (status, error) = cell.status();
        let line = Line {
            rule: cell.rule.name,
            width: cell.width,
            status,
            error,
            data: &config.data.name,
            optimizer: setting.plan.trial(cell.rule).optimizer.name(),
            lr: config.train.lr,
            precision: machine.precision(),
            isa: machine.instruction_set(),
            device: machine.device(),
            threads: machine.threads(),
            batch: config.train.batch,
            seeds: setting.seeds_of(cell),
            steps: setting.steps,
            cohort: setting.cohort,
            steps_per_epoch: per_epoch,
            step_ms_median: times.map(|t| 1e3 * t.median),
            step_ms_min: times.map(|t| 1e3 * t.fastest),
            step_ms_of_trials: cell
                .trials()
                .iter()
                .filter_map(|trial| Some(1e3 * median(trial)?))
                .collect(),
            flops_per_step: cell.cost.flops,
            bytes_per_step: cell.cost.bytes,
            launches_per_step: cell.launches(),
            gflops: rates.map(|r| r.flops / 1e9),
            share_of_compute_ceiling: rates.and_then(|r| r.of_compute),
            share_of_memory_ceiling: rates.and_then(|r| r.of_memory),
            compute_ceiling_gflops: setting.ceilings.map(|c| c.flops / 1e9),
            memory_ceiling_gbs: setting.ceilings.map(|c| c.bytes / 1e9),
            peak_memory_bytes: cell.peak_memory(),
            seconds_per_epoch_mean: times.map(|t| t.epoch),
            seconds_per_epoch_standard_error: times.and_then(|t| t.epoch_error),
            ratio_to_normal: cell.ratio_to_normal(cells),
        };
        let json = serde_json::to_string(&line);
        text += &json.map_err(|e| Failure::Failed(format!("cannot write JSON: {e}")))?;
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(rule: &str, seconds: &[&[f64]]) -> Cell {
        Cell {
            rule: Rule::named(rule).expect("a rule"),
            width: 8,
            cost: Cost {
                flops: 6_000,
                bytes: 3_000,
            },
            outcome: Outcome::Measured {
                seconds: seconds.iter().map(|trial| trial.to_vec()).collect(),
                launches: None,
                peak_memory_bytes: None,
            },
        }
    }

    /// Oracle: by hand. Medians of the trials 2 and 4, epochs of 10 steps 20 and 40: their deviation is √200, their
    /// standard error 10; all six steps in order 1 2 3 4 5 9. The other rule's one trial took turns with the first.
    #[test]
    fn times_over_trials() {
        let normal = cell("normal", &[&[1.0, 9.0, 2.0], &[5.0, 4.0, 3.0]]);
        let times = normal.times(10).expect("times");
        assert_eq!((times.median, times.fastest, times.epoch), (3.5, 1.0, 30.0));
        assert!((times.epoch_error.expect("two trials") - 10.0).abs() < 1e-12);
        let one = cell("dfa", &[&[7.0]]);
        assert_eq!(one.times(10).expect("times").epoch_error, None);
        let all = [normal, one];
        assert_eq!(all[0].ratio_to_normal(&all), Some(1.0));
        assert_eq!(all[1].ratio_to_normal(&all), Some(3.5));
        assert_eq!(all[1].ratio_to_normal(&all[1..]), None);
    }

    #[test]
    fn what_went_wrong_in_a_trial_goes_for_all() {
        let trial = |second: f64, peak| Outcome::Measured {
            seconds: vec![vec![second]],
            launches: Some(3),
            peak_memory_bytes: Some(peak),
        };
        let both = Outcome::Measured {
            seconds: vec![vec![1.0], vec![2.0]],
            launches: Some(3),
            peak_memory_bytes: Some(9),
        };
        assert_eq!(trial(1.0, 9).with(trial(2.0, 7)), both);
        let diverged = Outcome::Diverged("loss not finite".into());
        assert_eq!(trial(1.0, 9).with(diverged.clone()), diverged);
        assert_eq!(diverged.clone().with(trial(1.0, 9)), diverged);
    }

    #[test]
    fn a_failed_cell_has_no_times() {
        let failed = Cell {
            outcome: Outcome::Diverged("loss not finite".into()),
            ..cell("normal", &[])
        };
        assert_eq!(failed.times(10), None);
        assert_eq!(failed.status(), ("diverged", Some("loss not finite")));
        let all = [failed, cell("dfa", &[&[7.0]])];
        assert_eq!(all[1].ratio_to_normal(&all), None);
    }

    /// Oracle: 6,000 operations and 3,000 bytes in 2 s of at most 12,000 and 6,000 a second.
    #[test]
    fn rates_beside_ceilings() {
        let ceilings = Ceilings {
            flops: 12_000.0,
            bytes: 6_000.0,
        };
        let cost = cell("normal", &[]).cost;
        let rates = Rates::new(cost, 2.0, Some(ceilings));
        assert_eq!(rates.flops, 3_000.0);
        assert_eq!(
            (rates.of_compute, rates.of_memory),
            (Some(0.25), Some(0.25))
        );
        assert_eq!(Rates::new(cost, 2.0, None).of_memory, None);
    }
}
