//! The page: one HTML file with everything in it.

use super::collect::{Collection, Problem};
use super::figures::figures;
use super::group::Groups;
use super::html::{details, escape, pairs, table};
use super::tables::{Cell, Table, comparison_tables, short, summary_table, value_text};
use super::trial::Trial;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const TEMPLATE: &str = include_str!("../../assets/report.html");
const STYLE: &str = include_str!("../../assets/report.css");
const PLOTLY: &str = include_str!("../../assets/plotly-basic.min.js");
const FIGURES: &str = include_str!("../../assets/figures.js");
const SCRIPT: &str = include_str!("../../assets/report.js");

/// The whole page.
pub(crate) fn page(collection: &Collection, groups: &Groups<'_>, folders: &[PathBuf]) -> String {
    let data = figures(collection, groups);
    let head = head(collection, folders);
    // Known only to who writes the page: no script but the page's own runs.
    let nonce = Sha256::digest(format!("{data}{head}{:?}", std::time::SystemTime::now()));
    let nonce: String = nonce.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let names: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    fill(&[
        ("title", &escape(&names.join(", "))),
        ("style", STYLE),
        ("nonce", &nonce),
        ("head", &head),
        ("comparisons", &comparisons(collection)),
        ("summary", &table(&summary_table(groups))),
        ("troubles", &troubles(collection)),
        ("trials", &trials(collection, groups)),
        ("configs", &configs(collection)),
        ("data", &data),
        ("plotly", PLOTLY),
        ("figures", FIGURES),
        ("script", SCRIPT),
    ])
}

/// Puts values into the template, in one pass: what is put in is never looked at again.
fn fill(values: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("places are closed");
        let value = values.iter().find(|(n, _)| *n == name);
        page += before;
        page += value.expect("every place of the template has a value").1;
        rest = after;
    }
    page + rest
}

/// When, by what, of what, and how the trials stand.
fn head(collection: &Collection, folders: &[PathBuf]) -> String {
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M UTC")
        .to_string();
    let names: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for trial in &collection.trials {
        *counts.entry(&trial.row.status).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(s, n)| format!("{n} {s}")).collect();
    let counts = match counts.is_empty() {
        true => String::new(),
        false => format!(": {}", counts.join(", ")),
    };
    let entries = [
        ("Written", now),
        ("By", format!("sansprop {}", env!("CARGO_PKG_VERSION"))),
        ("From", names.join(", ")),
        ("Trials", format!("{}{counts}", collection.trials.len())),
    ];
    let damaged = collection.problems.len();
    let damaged = (damaged > 0).then(|| ("Damaged files", format!("{damaged}, listed below")));
    pairs(entries.into_iter().chain(damaged))
}

fn comparisons(collection: &Collection) -> String {
    if collection.comparisons.is_empty() {
        return String::new();
    }
    let tables = collection.comparisons.iter().flat_map(comparison_tables);
    let tables: String = tables.map(|t| table(&t)).collect();
    format!(
        "<section id=\"comparisons\" aria-labelledby=\"comparisons-title\">\n\
         <h2 id=\"comparisons-title\">Measured beside the paper</h2>\n{tables}</section>\n"
    )
}

/// Every trial that did not complete, and every file that cannot be used.
fn troubles(collection: &Collection) -> String {
    let trials = collection.trials.iter();
    let rows: Vec<Vec<Cell>> = trials
        .filter(|t| t.row.status != "completed")
        .map(|t| {
            let cells = [t.id.clone(), t.row.status.clone(), t.message()];
            cells.map(Cell::from).into()
        })
        .collect();
    let files = |p: &Problem| {
        let cells = [p.path.display().to_string(), p.message.clone()];
        cells.map(Cell::from).into()
    };
    let files: Vec<Vec<Cell>> = collection.problems.iter().map(files).collect();
    if rows.is_empty() && files.is_empty() {
        return "<p>Every trial completed, and every file could be read.</p>\n".into();
    }
    let listed = |caption: &str, head: &[&str], rows: Vec<Vec<Cell>>| match rows.is_empty() {
        true => String::new(),
        false => table(&Table {
            caption: caption.into(),
            note: String::new(),
            head: head.iter().map(|h| (*h).to_owned()).collect(),
            labels: head.len(),
            rows,
        }),
    };
    listed(
        "Trials that did not complete",
        &["trial", "status", "message"],
        rows,
    ) + &listed("Damaged files", &["file", "what is wrong"], files)
}

/// One row a trial: what tells it apart, how it went, and what it ran on.
fn trials(collection: &Collection, groups: &Groups<'_>) -> String {
    let keys: Vec<&str> = groups.keys.iter().map(String::as_str).collect();
    let mut head: Vec<String> = vec!["trial".into(), "status".into(), "rule".into()];
    head.extend(keys.iter().map(|key| short(key).replace('_', " ")));
    head.push("seed".into());
    let labels = head.len();
    let about = ["seconds", "device", "precision", "version", "started"];
    head.extend(about.map(str::to_owned));
    let row = |trial: &Trial| {
        let known = |value: Option<String>| value.unwrap_or_else(|| "–".into());
        let mut cells = vec![trial.id.clone(), trial.row.status.clone()];
        cells.push(known(trial.rule().map(str::to_owned)));
        cells.extend(keys.iter().map(|key| value_text(trial.value(key).as_ref())));
        cells.push(known(trial.value("train.seed")));
        let environment = trial.environment.as_ref();
        let ended = ["completed", "diverged"].contains(&trial.row.status.as_str());
        let seconds = ended.then(|| format!("{:.2}", trial.row.outcome.seconds));
        cells.extend([
            known(seconds),
            known(environment.map(|e| e.device.clone())),
            known(environment.map(|e| e.precision.clone())),
            known(environment.map(|e| e.version.clone())),
            known(environment.map(|e| e.started.chars().take(19).collect())),
        ]);
        cells.into_iter().map(Cell::from).collect()
    };
    table(&Table {
        caption: "All trials".into(),
        note: String::new(),
        head,
        labels,
        rows: collection.trials.iter().map(row).collect(),
    })
}

/// What all configs have in common, and each config in full.
fn configs(collection: &Collection) -> String {
    let configs = || collection.trials.iter().filter_map(|t| t.config.as_ref());
    let keys = crate::config::SECTIONS.iter().flat_map(|(section, keys)| {
        let dotted = move |key: &&str| format!("{section}.{key}");
        keys.iter().map(dotted)
    });
    let shared = keys.filter_map(|key| {
        let values: BTreeSet<_> = configs().map(|c| c.value(&key)).collect();
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(Some(value)), None) => Some([key, value].map(Cell::from).into()),
            _ => None,
        }
    });
    let shared = table(&Table {
        caption: "What all configs have in common".into(),
        note: String::new(),
        head: vec!["key".into(), "value".into()],
        labels: 2,
        rows: shared.collect(),
    });
    let each: String = (collection.trials.iter())
        .filter_map(|trial| {
            let toml = escape(&trial.config.as_ref()?.to_toml());
            let folder = escape(&trial.folder.display().to_string());
            let content = format!("<p>{folder}</p>\n<pre tabindex=\"0\">{toml}</pre>\n");
            Some(details(&trial.id, &content))
        })
        .collect();
    shared + &details("Each trial's config", &each)
}
