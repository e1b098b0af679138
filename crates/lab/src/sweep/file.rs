//! `SWEEP.toml`: a base config and the axes along which trials differ.

use crate::config::{self, Config, ConfigError, SECTIONS};
use serde::{Deserialize, Serialize};
use std::path::Path;
use toml::{Table, Value};

/// Keys that change no result: trials cannot differ in them.
const NO_AXES: [&str; 7] = [
    "data.path",
    "run.out",
    "run.threads",
    "run.device",
    "run.tensorboard",
    "run.checkpoint_every",
    "run.checkpoint_minutes",
];

/// What `select` may ask for, and whether more is better.
pub const METRICS: [(&str, bool); 6] = [
    ("eval_accuracy", true),
    ("eval_loss", false),
    ("train_loss", false),
    ("final_eval_accuracy", true),
    ("final_eval_loss", false),
    ("final_train_loss", false),
];

/// Of several trials that differ in one key only, the one to report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {
    /// The key, dotted.
    pub over: String,
    /// The number that decides, one of [`METRICS`]; those without `final_` are the best over epochs.
    pub best: String,
}

/// A sweep as its file says it.
#[derive(Clone, Debug)]
pub struct SweepFile {
    /// Every trial's config, in the order of the products; the same one may come twice.
    pub configs: Vec<Config>,
    /// The keys along which trials differ, dotted.
    pub axes: Vec<String>,
    /// Which trials to report.
    pub select: Option<Select>,
    /// Where run folders go unless the command line says otherwise.
    pub out: String,
}

type Axes = Vec<(String, Vec<Value>)>;

/// Reads a sweep file; `overrides`, each `section.key=value`, change its base config.
///
/// # Errors
/// An unreadable file, bad TOML, unknown keys (with the nearest known one), wrong types, impossible values, an
/// empty list of values.
pub fn read(path: &Path, overrides: &[String]) -> Result<SweepFile, ConfigError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, &origin, overrides)
}

fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<SweepFile, ConfigError> {
    let mut table = config::syntax(text, origin)?;
    for text in overrides {
        config::apply(&mut table, text)?;
    }
    of_table(table, origin)
}

/// The sweep that a file's content, read as TOML, says.
pub(crate) fn of_table(mut base: Table, origin: &str) -> Result<SweepFile, ConfigError> {
    let wrong = |key: &str, message: String| ConfigError::Type {
        origin: origin.into(),
        key: key.into(),
        message,
    };
    let Some(sweep) = base.remove("sweep") else {
        let near = base.keys().map(String::as_str);
        if let Some(near) = config::nearest("sweep", near) {
            return Err(wrong(near, "unknown section, did you mean [sweep]?".into()));
        }
        let message =
            "is missing; give its axes, for example [sweep] and rule = [\"normal\", \"fa\"]";
        return Err(wrong("sweep", message.into()));
    };
    config::check_keys(&base, origin)?;
    let Value::Table(mut sweep) = sweep else {
        return Err(wrong("sweep", "a section is written [sweep]".into()));
    };
    let select = sweep.remove("select");
    let also = match sweep.remove("also") {
        None => Vec::new(),
        Some(Value::Array(blocks)) => blocks,
        Some(_) => return Err(wrong("sweep.also", "is written [[sweep.also]]".into())),
    };
    let main = axes(&sweep, "sweep", origin)?;
    let mut products = vec![main.clone()];
    for block in also {
        let Value::Table(block) = block else {
            return Err(wrong("sweep.also", "is written [[sweep.also]]".into()));
        };
        let mut own = axes(&block, "sweep.also", origin)?;
        let kept = main
            .iter()
            .filter(|(key, _)| own.iter().all(|(k, _)| k != key));
        let mut all: Axes = kept.cloned().collect();
        all.append(&mut own);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        products.push(all);
    }
    let mut keys: Vec<String> = products
        .iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect();
    keys.sort();
    keys.dedup();
    let select = select
        .map(|value| parse_select(value, &keys, origin))
        .transpose()?;
    let mut configs = Vec::new();
    for axes in &products {
        for values in product(axes) {
            let mut table = base.clone();
            for ((key, _), value) in axes.iter().zip(values) {
                set(&mut table, key, value);
            }
            configs.push(config::resolve(table, origin)?);
        }
    }
    let out = config::resolve(base, origin)?.run.out;
    Ok(SweepFile {
        configs,
        axes: keys,
        select,
        out,
    })
}

/// The axes of one table: short names, dotted keys in quotes, or dotted keys without, which TOML reads as tables.
fn axes(table: &Table, section: &str, origin: &str) -> Result<Axes, ConfigError> {
    let mut axes = Axes::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                for (key, value) in inner {
                    axes.push(axis(&format!("{name}.{key}"), value, section, origin)?);
                }
            }
            _ => axes.push(axis(name, value, section, origin)?),
        }
    }
    axes.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = axes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(ConfigError::Type {
            origin: origin.into(),
            key: format!("{section}.{}", pair[0].0),
            message: "is given twice, by its short and its dotted name".into(),
        });
    }
    Ok(axes)
}

fn axis(
    name: &str,
    value: &Value,
    section: &str,
    origin: &str,
) -> Result<(String, Vec<Value>), ConfigError> {
    let key = dotted(name).ok_or_else(|| ConfigError::UnknownKey {
        origin: origin.into(),
        key: format!("{section}.{name}"),
        nearest: near_axis(name),
    })?;
    let wrong = |message: &str| ConfigError::Type {
        origin: origin.into(),
        key: format!("{section}.{name}"),
        message: message.into(),
    };
    if NO_AXES.contains(&key.as_str()) {
        return Err(wrong(
            "changes no result, so trials cannot differ in it; set it in the base config",
        ));
    }
    let values = match value {
        // A list is one value of a key that takes lists.
        Value::Array(values)
            if ["network.strides", "data.lags"].contains(&key.as_str())
                && !values.iter().all(Value::is_array) =>
        {
            vec![value.clone()]
        }
        Value::Array(values) => values.clone(),
        one => vec![one.clone()],
    };
    if values.is_empty() {
        return Err(wrong("has no values; give at least one"));
    }
    Ok((key, values))
}

/// All keys, dotted.
fn known_keys() -> impl Iterator<Item = String> {
    let of = |(section, keys): &(&'static str, &'static [&'static str])| {
        let section = *section;
        keys.iter().map(move |key| format!("{section}.{key}"))
    };
    SECTIONS.iter().flat_map(of)
}

/// A dotted key without its section.
pub(crate) fn short(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, name)| name)
}

/// The dotted key that a name stands for.
pub(crate) fn dotted(name: &str) -> Option<String> {
    known_keys().find(|key| key == name || key.split_once('.').is_some_and(|(_, k)| k == name))
}

fn near_axis(name: &str) -> Option<String> {
    let short = name.rsplit('.').next().unwrap_or(name);
    let keys: Vec<String> = known_keys()
        .filter(|key| !NO_AXES.contains(&key.as_str()))
        .collect();
    let candidates = keys.iter().filter_map(|key| key.split_once('.'));
    let own = ["select", "also"].into_iter();
    config::nearest(short, candidates.map(|(_, k)| k).chain(own)).map(str::to_owned)
}

fn parse_select(value: Value, axes: &[String], origin: &str) -> Result<Select, ConfigError> {
    let wrong = |key: &str, message: String| ConfigError::Type {
        origin: origin.into(),
        key: key.into(),
        message,
    };
    let example = "write { over = \"lr\", best = \"eval_accuracy\" }";
    let Value::Table(table) = value else {
        return Err(wrong("sweep.select", example.into()));
    };
    let known = ["over", "best"];
    if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(ConfigError::UnknownKey {
            origin: origin.into(),
            key: format!("sweep.select.{key}"),
            nearest: config::nearest(key, known.into_iter()).map(str::to_owned),
        });
    }
    let text = |key: &str| match table.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(wrong("sweep.select", example.into())),
    };
    let (over, best) = (text("over")?, text("best")?);
    let over = dotted(&over)
        .filter(|key| axes.contains(key))
        .ok_or_else(|| {
            let message = format!("{over:?} is no axis of this sweep ({})", axes.join(", "));
            wrong("sweep.select.over", message)
        })?;
    if METRICS.iter().all(|(name, _)| *name != best) {
        let names: Vec<_> = METRICS.iter().map(|(name, _)| *name).collect();
        let message = format!("no such number: {best:?} (there are {})", names.join(", "));
        return Err(wrong("sweep.select.best", message));
    }
    Ok(Select { over, best })
}

/// All combinations, the last axis varying fastest.
fn product(axes: &Axes) -> Vec<Vec<Value>> {
    axes.iter().fold(vec![Vec::new()], |done, (_, values)| {
        let longer = |start: &Vec<Value>| {
            let start = start.clone();
            values.iter().map(move |value| {
                let mut row = start.clone();
                row.push(value.clone());
                row
            })
        };
        done.iter().flat_map(longer).collect()
    })
}

fn set(table: &mut Table, key: &str, value: Value) {
    let (section, name) = key.split_once('.').expect("axes have dotted keys");
    let entry = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(entries) = entry {
        entries.insert(name.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "s.toml", &[])
            .expect_err("a bad file")
            .to_string()
    }

    /// Oracle: products counted by hand.
    #[test]
    fn products_and_blocks() {
        let text = "[train]\nepochs = 3\n[sweep]\nrule = [\"fa\", \"dfa\"]\nlr = [1, 2.5]\nwidth = 4\n\
            \"network.activation\" = [\"relu\", \"tanh\"]\nselect = { over = \"lr\", best = \"eval_accuracy\" }\n\
            [[sweep.also]]\nrule = \"normal\"\nlr = [3]\ntrain.seed = [1, 2]\n";
        let file = parse(text, "s.toml", &[]).expect("a good file");
        assert_eq!(file.configs.len(), 2 * 2 * 2 + 2 * 2);
        let last = file.configs.last().expect("configs");
        assert_eq!(
            (last.train.lr, last.train.seed, last.network.width),
            (3.0, 2, 4)
        );
        assert_eq!(last.train.epochs, 3);
        assert_eq!(file.axes.len(), 5);
        assert_eq!(file.select.map(|s| s.over), Some("train.lr".into()));
    }

    #[test]
    fn mistakes_are_named() {
        let nearest = error("[sweep]\nrul = [\"fa\"]\n");
        assert!(
            nearest.contains("`sweep.rul`") && nearest.contains("`rule`"),
            "{nearest}"
        );
        assert!(error("[sweap]\nrule = [\"fa\"]\n").contains("[sweep]"));
        assert!(error("[train]\nlr = 1\n").contains("missing"));
        assert!(error("[tran]\nlr = 1\n[sweep]\nlr = [1]\n").contains("`train`"));
        assert!(error("[sweep]\nlr = []\n").contains("no values"));
        assert!(error("[sweep]\nlr = [\"much\"]\n").contains("train.lr"));
        assert!(error("[sweep]\nrule = [\"fb\"]\n").contains("no such rule"));
        assert!(error("[sweep]\nthreads = [1, 2]\n").contains("no result"));
        let select = "[sweep]\nlr = [1]\nselect = { over = \"width\", best = \"eval_accuracy\" }\n";
        assert!(error(select).contains("no axis"));
        assert!(error("[sweep]\nlr = [1]\nselect = { ovr = \"lr\" }\n").contains("`over`"));
        assert!(error("[sweep]\nlr = [1]\ntrain.lr = [2]\n").contains("twice"));
    }
}
