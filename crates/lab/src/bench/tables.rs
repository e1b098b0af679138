//! What people read: a table of steps beside the ceilings, and the paper's Figure 7 as a table.

use super::record::{Cell, Rates, Setting};
use crate::table::table;
use std::fmt::Write;

/// What the columns of the first table hold, as far as their heads do not say it.
const COLUMNS: &str = "GFLOP and MB: counted, of one step; peak MB: of the whole process with its data; launches: kernels that a step starts on a GPU";

/// What is not known.
const UNKNOWN: &str = "unknown";

/// The whole text.
pub(crate) fn tables(setting: &Setting<'_>, cells: &[Cell]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let (head, table) = (head(setting), steps(setting, cells));
    let _ = writeln!(text, "{head}\n{table}\n{COLUMNS}");
    for cell in cells {
        if let (status, Some(error)) = cell.status() {
            let _ = writeln!(
                text,
                "{status}: {} at width {}: {error}",
                cell.rule, cell.width
            );
        }
    }
    let _ = writeln!(
        text,
        "\n{}\n{}",
        epoch_head(setting, cells),
        epochs(setting, cells)
    );
    let (seeds, machine) = (seeds(setting, cells), setting.machine.describe());
    let _ = writeln!(text, "{seeds}, {machine}");
    text
}

fn seeds(setting: &Setting<'_>, cells: &[Cell]) -> String {
    let most = cells.iter().map(|cell| setting.seeds_of(cell));
    let most = most.max_by_key(|seeds| seeds.len()).unwrap_or_default();
    let seeds: Vec<_> = most.iter().map(u32::to_string).collect();
    let plural = if seeds.len() == 1 { "" } else { "s" };
    format!("seed{plural} {}", seeds.join(", "))
}

/// Says that times are one trial's share of a cohort's.
fn together(setting: &Setting<'_>) -> String {
    match setting.cohort {
        1 => String::new(),
        count => format!("; times are those of one of {count} trials in a cohort"),
    }
}

fn head(setting: &Setting<'_>) -> String {
    let config = &setting.plan.config;
    let ceilings = match setting.ceilings {
        Some(ceilings) => format!(
            "ceilings: {:.1} GFLOP/s of multiply-adds in registers, {:.1} GB/s of a triad in memory",
            ceilings.flops / 1e9,
            ceilings.bytes / 1e9
        ),
        None => format!("ceilings: {UNKNOWN} for this precision"),
    };
    format!(
        "{}: {} training samples, batch {}, {} lr {}; {} training steps of each trial, after one that is not timed{}\n\
         {ceilings}",
        config.data.name,
        config.data.train_points,
        config.train.batch,
        config.trial().optimizer.name(),
        config.train.lr,
        setting.steps,
        together(setting),
    )
}

fn steps(setting: &Setting<'_>, cells: &[Cell]) -> comfy_table::Table {
    let mut table = table(
        &[
            "rule",
            "width",
            "ms (median)",
            "ms (min)",
            "GFLOP",
            "GFLOP/s",
            "of compute",
            "MB",
            "of memory",
            "peak MB",
            "launches",
        ],
        1,
    );
    let share = |share: Option<f64>| match share {
        Some(share) => format!("{:.1} %", 100.0 * share),
        None => UNKNOWN.into(),
    };
    for cell in cells {
        let mut row = vec![cell.rule.to_string(), cell.width.to_string()];
        let counted = [cell.cost.flops as f64 / 1e9, cell.cost.bytes as f64 / 1e6];
        let [gflop, mb] = counted.map(significant);
        match cell.times(1) {
            Some(times) => {
                let rates = Rates::new(cell.cost, times.median, setting.ceilings);
                let peak = cell.peak_memory().map(|bytes| bytes as f64 / 1e6);
                row.extend([
                    format!("{:.2}", 1e3 * times.median),
                    format!("{:.2}", 1e3 * times.fastest),
                    gflop,
                    significant(rates.flops / 1e9),
                    share(rates.of_compute),
                    mb,
                    share(rates.of_memory),
                    peak.map_or(UNKNOWN.into(), |peak| format!("{peak:.1}")),
                    cell.launches()
                        .map_or("–".into(), |count| count.to_string()),
                ]);
            }
            None => {
                let dash = || "–".to_string();
                let status = cell.status().0.to_string();
                row.extend([
                    status,
                    dash(),
                    gflop,
                    dash(),
                    dash(),
                    mb,
                    dash(),
                    dash(),
                    dash(),
                ]);
            }
        }
        table.add_row(row);
    }
    table
}

/// Three digits or more.
fn significant(value: f64) -> String {
    format!("{value:.*}", decimals(value, 3))
}

/// Decimals with which a value shows so many digits; larger ones show more.
fn decimals(value: f64, digits: i32) -> usize {
    let first = value.abs().max(1e-9).log10().floor() as i32;
    usize::try_from(digits - 1 - first).unwrap_or(0)
}

fn epoch_head(setting: &Setting<'_>, cells: &[Cell]) -> String {
    let ratio = match cells.iter().any(|cell| cell.rule.name == "normal") {
        true => "; in brackets: step to normal's of the same width and seed, median over trials",
        false => "",
    };
    let counts = || cells.iter().map(|cell| setting.seeds_of(cell).len());
    let spread = match (counts().min().unwrap_or(0), counts().max().unwrap_or(0)) {
        (1, 1) => "one trial".into(),
        (least, most) if least < most => {
            format!("mean ± standard error over trials, {least} to {most} of each")
        }
        (_, trials) => format!("mean ± standard error over {trials} trials"),
    };
    format!(
        "seconds per epoch (Figure 7 of the paper), extrapolated: median step of a trial × {} steps, no evaluation\n\
         {spread}{ratio}",
        setting.plan.steps_per_epoch()
    )
}

fn epochs(setting: &Setting<'_>, cells: &[Cell]) -> comfy_table::Table {
    let (mut rules, mut widths) = (Vec::new(), Vec::new());
    for cell in cells {
        if !rules.contains(&cell.rule) {
            rules.push(cell.rule);
        }
        if !widths.contains(&cell.width) {
            widths.push(cell.width);
        }
    }
    let mut head = vec!["rule".to_string()];
    head.extend(widths.iter().map(|width| format!("width {width}")));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = table(&head, 1);
    for rule in rules {
        let mut row = vec![rule.to_string()];
        for &width in &widths {
            let here = |cell: &&Cell| cell.rule == rule && cell.width == width;
            let found = cells.iter().find(here);
            row.push(found.map_or("–".into(), |cell| epoch(setting, cell, cells)));
        }
        table.add_row(row);
    }
    table
}

fn epoch(setting: &Setting<'_>, cell: &Cell, cells: &[Cell]) -> String {
    let Some(times) = cell.times(setting.plan.steps_per_epoch()) else {
        return cell.status().0.into();
    };
    let decimals = decimals(times.epoch, 4);
    let error = times.epoch_error;
    let error = error.map_or(String::new(), |error| format!(" ± {error:.decimals$}"));
    let ratio = cell.ratio_to_normal(cells);
    let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
    format!("{:.decimals$}{error}{ratio}", times.epoch)
}

#[cfg(test)]
mod tests {
    use super::significant;

    #[test]
    fn three_digits() {
        let text = [0.001234, 0.5, 9.996, 12.345, 123.4, 12345.6].map(significant);
        let right = ["0.00123", "0.500", "10.00", "12.3", "123", "12346"];
        assert_eq!(text, right);
    }
}
