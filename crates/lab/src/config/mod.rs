//! Configs: TOML as written, dotted overrides, then a complete and checked [`Config`].

mod plan;
mod schema;
mod template;
mod written;

pub use plan::{Plan, PlanError, SetData};
pub use schema::{
    Activation, AddTask, Config, Data, Evaluate, Kind, Network, Norm, Optimizer, Parameterization,
    Precision, Run, SECTIONS, Train, Variant,
};
pub use template::template;

use crate::data;
use sansprop::rule::{RULES, Rule};
use std::path::{Path, PathBuf};
use thiserror::Error;
use toml::{Table, Value};
use written::Written;

/// What is wrong with a config.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the config {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{origin} is no valid TOML: {message}")]
    Syntax {
        /// The file or option.
        origin: String,
        /// What the parser says.
        message: String,
    },
    /// A key that no config has.
    #[error("{origin}: unknown key `{key}`{}", suggestion(nearest.as_deref()))]
    UnknownKey {
        /// The file or option.
        origin: String,
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type or an unknown name.
    #[error("{origin}: `{key}`: {message}")]
    Type {
        /// The file or option.
        origin: String,
        /// The key.
        key: String,
        /// What was found and what was expected.
        message: String,
    },
    /// An override that is not `key=value`.
    #[error("--set {0}: write it as section.key=value, for example --set train.lr=2")]
    Override(String),
    /// A value that no run can have.
    #[error("`{key} = {value}`: {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        expected: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "; `sansprop config` prints all keys".into(),
        |nearest| format!("; did you mean `{nearest}`?"),
    )
}

/// The candidate most like `word`, if it is like it at all.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Reads a config file (or none: all defaults), applies `key=value` overrides in order, fills in defaults and
/// checks every value.
///
/// # Errors
/// An unreadable file, bad TOML, unknown keys (with the nearest known one), wrong types, impossible values.
pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Config, ConfigError> {
    load_over(&[], path, overrides)
}

/// As [`load`] on top of `base`: `key=value` defaults that the file and the overrides may change.
///
/// # Errors
/// As for [`load`].
pub fn load_over(
    base: &[String],
    path: Option<&Path>,
    overrides: &[String],
) -> Result<Config, ConfigError> {
    let mut table = Table::new();
    let mut origin = "config".to_string();
    if let Some(path) = path {
        origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        table = parse(&text, &origin)?;
    }
    let mut whole = Table::new();
    for text in base {
        apply(&mut whole, text)?;
    }
    for (section, values) in table {
        match (
            whole.entry(&section).or_insert(Value::Table(Table::new())),
            values,
        ) {
            (Value::Table(below), Value::Table(above)) => below.extend(above),
            (below, above) => *below = above,
        }
    }
    let mut table = whole;
    for text in overrides {
        apply(&mut table, text)?;
    }
    resolve(table, &origin)
}

/// Fills in defaults and checks every value of a table whose keys are known.
pub(crate) fn resolve(table: Table, origin: &str) -> Result<Config, ConfigError> {
    let config = typed(table, origin)?.with_defaults();
    validate(&config)?;
    Ok(config)
}

fn parse(text: &str, origin: &str) -> Result<Table, ConfigError> {
    let table = syntax(text, origin)?;
    check_keys(&table, origin)?;
    Ok(table)
}

/// Reads TOML, whatever its keys.
pub(crate) fn syntax(text: &str, origin: &str) -> Result<Table, ConfigError> {
    text.parse()
        .map_err(|e: toml::de::Error| ConfigError::Syntax {
            origin: origin.into(),
            message: e.to_string(),
        })
}

/// Refuses sections and keys that no config has.
pub(crate) fn check_keys(table: &Table, origin: &str) -> Result<(), ConfigError> {
    let unknown = |key: String, nearest: Option<String>| {
        Err(ConfigError::UnknownKey {
            origin: origin.into(),
            key,
            nearest,
        })
    };
    for (section, value) in table {
        let Some((_, keys)) = SECTIONS.iter().find(|(name, _)| name == section) else {
            // A key outside its section, or a section that does not exist.
            let sections = SECTIONS.iter().map(|(name, _)| *name);
            let inside = SECTIONS
                .iter()
                .find(|(_, keys)| keys.contains(&section.as_str()))
                .map(|(name, _)| format!("{name}.{section}"));
            let near = inside.or_else(|| nearest(section, sections).map(str::to_owned));
            return unknown(section.clone(), near);
        };
        let Value::Table(entries) = value else {
            return Err(ConfigError::Type {
                origin: origin.into(),
                key: section.clone(),
                message: format!("a section is written [{section}]"),
            });
        };
        for key in entries.keys() {
            if !keys.contains(&key.as_str()) {
                return unknown(format!("{section}.{key}"), nearest_key(section, key, keys));
            }
        }
    }
    Ok(())
}

/// The key of this section that looks like `key`, else the section in which `key` is right.
fn nearest_key(section: &str, key: &str, keys: &[&str]) -> Option<String> {
    let elsewhere = SECTIONS
        .iter()
        .find(|(_, keys)| keys.contains(&key))
        .map(|(name, _)| format!("{name}.{key}"));
    elsewhere.or_else(|| nearest(key, keys.iter().copied()).map(|near| format!("{section}.{near}")))
}

/// Applies one `section.key=value`.
pub(crate) fn apply(table: &mut Table, text: &str) -> Result<(), ConfigError> {
    let (key, value) = over(text)?;
    let (section, name) = key.split_once('.').expect("an override's key is dotted");
    let entry = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(entries) = entry {
        entries.insert(name.into(), value);
    }
    Ok(())
}

/// Reads one `section.key=value`; the value is TOML, or a string where it is not.
///
/// # Errors
/// Not of this form, an unknown key, a value of another type.
pub(crate) fn over(text: &str) -> Result<(String, Value), ConfigError> {
    let bad = || ConfigError::Override(text.into());
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let (key, value) = (key.trim(), value.trim());
    let Some((section, name)) = key.split_once('.') else {
        let inside = SECTIONS.iter().find(|(_, keys)| keys.contains(&key));
        return Err(ConfigError::UnknownKey {
            origin: "--set".into(),
            key: key.into(),
            nearest: inside.map(|(section, _)| format!("{section}.{key}")),
        });
    };
    let value = match format!("v = {value}").parse::<Table>() {
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("v").ok_or_else(bad)?,
        _ => Value::String(value.into()),
    };
    let mut small = Table::new();
    small.insert(name.into(), value.clone());
    let mut one = Table::new();
    one.insert(section.into(), Value::Table(small));
    check_keys(&one, "--set")?;
    typed(one, "--set")?;
    Ok((key.into(), value))
}

fn typed(table: Table, origin: &str) -> Result<Written, ConfigError> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
        let key = e.path().to_string();
        ConfigError::Type {
            origin: origin.into(),
            key,
            // The parser repeats the key on a second line.
            message: e
                .into_inner()
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    })
}

fn validate(config: &Config) -> Result<(), ConfigError> {
    let value = |key, value: String, expected: &str| ConfigError::Value {
        key,
        value,
        expected: expected.into(),
    };
    let Config {
        data,
        network,
        train,
        run,
    } = config;
    let positive = [
        ("network.width", network.width),
        ("train.batch", train.batch),
        ("train.epochs", train.epochs),
        ("run.eval_every", run.eval_every),
    ];
    for (key, number) in positive {
        if number == 0 {
            return Err(value(key, "0".into(), "must be at least 1"));
        }
    }
    if !data::names().any(|name| name == data.name) {
        let names: Vec<_> = data::names().collect();
        let near = nearest(&data.name, data::names());
        let hint = near.map_or(String::new(), |n| format!(", did you mean `{n}`?"));
        let expected = format!("no such data set{hint} (there are {})", names.join(", "));
        return Err(value("data.name", data.name.clone(), &expected));
    }
    if Rule::named(&train.rule).is_none() {
        return Err(value(
            "train.rule",
            train.rule.clone(),
            &unknown_rule(&train.rule),
        ));
    }
    if !(train.lr.is_finite() && train.lr >= 0.0) {
        let expected = "must be a finite number, at least 0";
        return Err(value("train.lr", train.lr.to_string(), expected));
    }
    if !(run.checkpoint_minutes.is_finite() && run.checkpoint_minutes >= 0.0) {
        return Err(value(
            "run.checkpoint_minutes",
            run.checkpoint_minutes.to_string(),
            "must be a finite number, at least 0",
        ));
    }
    if !train.target_shift.is_finite() {
        let shift = train.target_shift.to_string();
        return Err(value(
            "train.target_shift",
            shift,
            "must be a finite number",
        ));
    }
    let precisions = run.device.precisions();
    if !precisions.contains(&run.precision.name()) {
        let expected = format!(
            "run.device = {:?} computes in {}; f32-strict and f64 are for the cpu, tf32 is for GPUs",
            run.device.to_string(),
            precisions.join(", ")
        );
        return Err(value(
            "run.precision",
            run.precision.name().into(),
            &expected,
        ));
    }
    if network.strides.iter().flatten().any(|&stride| stride == 0) {
        let strides = format!("{:?}", network.strides.as_deref().unwrap_or_default());
        let expected = "every stride must be at least 1";
        return Err(value("network.strides", strides, expected));
    }
    let sequences = data.name == data::ADD_TASK;
    if network.kind == Kind::Recurrent {
        if run.alignment {
            let expected = "alignment is scored for convolutional and dense networks";
            return Err(value("run.alignment", "true".into(), expected));
        }
        if network.norm != Norm::None {
            let norm = format!("{:?}", network.norm).to_lowercase();
            return Err(value(
                "network.norm",
                norm,
                "a recurrent network has no norm",
            ));
        }
        if !(sequences || ["npz", "npy"].contains(&data.name.as_str())) {
            let expected = "images are for kind = \"conv\" or \"dense\"; a recurrent network reads add-task, npz or npy";
            return Err(value("data.name", data.name.clone(), expected));
        }
        if let Some(depth) = network.depth {
            let expected = "a recurrent network has one layer; depth is for kind = \"dense\"";
            return Err(value("network.depth", depth.to_string(), expected));
        }
    } else if sequences {
        let kind = format!("{:?}", network.kind).to_lowercase();
        let expected = "add-task holds sequences, which are for kind = \"recurrent\"";
        return Err(value("network.kind", kind, expected));
    }
    if let Some(task) = &data.add_task {
        if !sequences {
            let expected = "variant, steps and lags are for add-task";
            return Err(value("data.name", data.name.clone(), expected));
        }
        if task.steps == 0 {
            return Err(value("data.steps", "0".into(), "must be at least 1"));
        }
        if data.evaluate == Evaluate::Holdout && data.holdout.is_none() {
            let expected = "must be set to hold add-task's training sequences out";
            return Err(value("data.holdout", "none".into(), expected));
        }
    }
    if let (Kind::Conv, Some(depth)) = (network.kind, network.depth) {
        let expected =
            "a conv net has one layer for each of `network.strides`; depth is for kind = \"dense\"";
        return Err(value("network.depth", depth.to_string(), expected));
    }
    Ok(())
}

/// What to say of a rule that does not exist.
pub(crate) fn unknown_rule(name: &str) -> String {
    let names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
    let near = nearest(name, names.iter().copied());
    let hint = near.map_or(String::new(), |n| format!(", did you mean `{n}`?"));
    format!("no such rule{hint} (there are {})", names.join(", "))
}
