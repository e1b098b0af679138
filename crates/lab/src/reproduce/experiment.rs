//! `experiments/NAME.toml`: the trials of a table or figure of the paper, and how they make it.

use super::comparison::Quantity;
use crate::config::ConfigError;
use crate::sweep::file::{self, SweepFile};
use crate::sweep::trials::{Trial, cohorts};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Every experiment's file, in the order of the list.
const FILES: [(&str, &str); 18] = [
    (
        "table1",
        include_str!("../../../../experiments/table1.toml"),
    ),
    (
        "table2",
        include_str!("../../../../experiments/table2.toml"),
    ),
    (
        "table3",
        include_str!("../../../../experiments/table3.toml"),
    ),
    (
        "table4",
        include_str!("../../../../experiments/table4.toml"),
    ),
    (
        "table5",
        include_str!("../../../../experiments/table5.toml"),
    ),
    (
        "table6",
        include_str!("../../../../experiments/table6.toml"),
    ),
    (
        "table7",
        include_str!("../../../../experiments/table7.toml"),
    ),
    (
        "table8",
        include_str!("../../../../experiments/table8.toml"),
    ),
    (
        "table9",
        include_str!("../../../../experiments/table9.toml"),
    ),
    (
        "table10",
        include_str!("../../../../experiments/table10.toml"),
    ),
    ("fig1", include_str!("../../../../experiments/fig1.toml")),
    ("fig3", include_str!("../../../../experiments/fig3.toml")),
    ("fig4", include_str!("../../../../experiments/fig4.toml")),
    ("fig5", include_str!("../../../../experiments/fig5.toml")),
    ("fig6", include_str!("../../../../experiments/fig6.toml")),
    ("fig7", include_str!("../../../../experiments/fig7.toml")),
    ("fig8", include_str!("../../../../experiments/fig8.toml")),
    ("fig9", include_str!("../../../../experiments/fig9.toml")),
];

/// One of an experiment's tables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    /// Its name; empty where there is one table.
    #[serde(default)]
    pub(crate) name: String,
    /// The config values of its trials, by dotted key.
    #[serde(default, rename = "where")]
    pub(crate) trials: BTreeMap<String, Value>,
    /// The values that pick its lines of the paper's file, by column.
    #[serde(default)]
    pub(crate) paper: BTreeMap<String, String>,
    /// The paper's file, where it is not the experiment's.
    pub(crate) file: Option<String>,
    /// The number of each trial, where it is not the best held-out one.
    pub(crate) metric: Option<String>,
}

/// The columns of the paper's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PaperColumns {
    pub(crate) file: Option<String>,
    pub(crate) row: String,
    pub(crate) column: String,
    pub(crate) value: String,
    pub(crate) deviation: Option<String>,
}

/// One table or figure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    /// `table6`; the file's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// What it shows.
    pub(crate) title: String,
    /// How the paper ran it.
    pub(crate) protocol: String,
    /// What the numbers are.
    pub(crate) quantity: Quantity,
    /// The config key whose values are rows, or `layer`.
    pub(crate) rows: String,
    /// The config key whose values are columns, or `epoch`.
    pub(crate) columns: String,
    /// Whether trials run one at a time, for their times.
    #[serde(default)]
    pub(crate) alone: bool,
    /// What this program lacks for it.
    pub(crate) missing: Option<String>,
    pub(crate) paper: Option<PaperColumns>,
    #[serde(default, rename = "section")]
    pub(crate) sections: Vec<Section>,
    config: Table,
}

impl Experiment {
    /// All experiments.
    ///
    /// # Panics
    /// If a file of the program is no experiment; tests read them all.
    pub(crate) fn all() -> Vec<Self> {
        let read = |(name, text): &(&str, &str)| {
            let mut experiment: Self =
                toml::from_str(text).unwrap_or_else(|e| panic!("experiments/{name}.toml: {e}"));
            experiment.name = (*name).into();
            if experiment.sections.is_empty() {
                experiment.sections.push(Section::default());
            }
            experiment
        };
        FILES.iter().map(read).collect()
    }

    /// Its trials, as a sweep file.
    ///
    /// # Errors
    /// Values that no config can have.
    pub(crate) fn sweep(&self) -> Result<SweepFile, ConfigError> {
        file::of_table(self.config.clone(), &self.name)
    }

    /// Its trials' cohorts; each trial by itself where times are measured.
    pub(crate) fn cohorts(&self, trials: &[Trial]) -> Vec<Vec<usize>> {
        match self.alone {
            true => (0..trials.len()).map(|i| vec![i]).collect(),
            false => cohorts(trials),
        }
    }

    /// The values of an axis, over all blocks; none where trials do not differ in it.
    fn axis(&mut self, key: &str) -> Vec<&mut Value> {
        let Some(Value::Table(sweep)) = self.config.get_mut("sweep") else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for (name, value) in sweep.iter_mut() {
            if is_key(name, key) {
                values.push(value);
            } else if name == "also"
                && let Value::Array(blocks) = value
            {
                let tables = blocks.iter_mut().filter_map(Value::as_table_mut);
                let entries = tables.flat_map(|table| table.iter_mut());
                let of_key = entries.filter(|(name, _)| is_key(name, key));
                values.extend(of_key.map(|(_, value)| value));
            }
        }
        values
    }

    /// Gives an axis other values; a key that is no axis takes a single one.
    ///
    /// # Errors
    /// Several values for what is no axis.
    pub(crate) fn replace(&mut self, key: &str, values: &[Value]) -> Result<(), String> {
        let places = self.axis(key);
        if places.is_empty() {
            let [value] = values else {
                return Err(format!(
                    "the trials of {} do not differ in {key}: give one value",
                    self.name
                ));
            };
            let (section, name) = key.split_once('.').ok_or("write it as section.key")?;
            let section = self.config.entry(section);
            if let Value::Table(table) = section.or_insert_with(|| Value::Table(Table::new())) {
                table.insert(name.into(), value.clone());
            }
            return Ok(());
        }
        for place in places {
            *place = Value::Array(values.to_vec());
        }
        Ok(())
    }

    /// Lets no trial train longer than so many epochs.
    pub(crate) fn limit_epochs(&mut self, most: i64) {
        let limit = |value: &mut Value| {
            if let Value::Integer(epochs) = value {
                *epochs = most.min(*epochs);
            }
        };
        for axis in self.axis("train.epochs") {
            if let Value::Array(values) = axis {
                values.iter_mut().for_each(limit);
            }
        }
        for section in &mut self.sections {
            section.trials.get_mut("train.epochs").map(limit);
        }
    }
}

/// Whether an axis of this name, short or dotted, is that of a key.
fn is_key(name: &str, key: &str) -> bool {
    file::dotted(name).as_deref() == Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn named(name: &str) -> Experiment {
        let mut all = Experiment::all().into_iter();
        all.find(|e| e.name == name).expect("an experiment")
    }

    fn count(experiment: &Experiment, of: impl Fn(&Config) -> bool) -> usize {
        let configs = experiment.sweep().expect("a sweep").configs;
        configs.iter().filter(|c| of(c)).count()
    }

    /// Oracle: trials counted by hand from the paper's tables.
    #[test]
    fn every_file_is_a_sweep_of_the_papers_size() {
        let sizes = [
            ("table1", 7 * 3 * 3),
            ("table2", 5 * 3 * 5),
            ("table3", 7),
            ("table4", 7),
            ("table5", 7),
            ("table6", 6 * 7 * 3),
            ("table7", 6 * 7 * 3),
            ("table8", 4 * 10),
            ("table9", 7 * 5 * 7 * 3),
            ("table10", 3 * 7 * 10 * 2),
            ("fig1", 14),
            ("fig3", 2 * 6 * 2 * 9),
            ("fig4", 2 * 6 * 7 * 3),
            ("fig6", 7 * 5 * 2 * 3),
            ("fig7", 3 * 7 * 15),
            ("fig8", 2),
            ("fig9", 40),
        ];
        for (name, size) in sizes {
            assert_eq!(count(&named(name), |_| true), size, "{name}");
        }
        assert_eq!(
            sizes.len() + 1,
            Experiment::all().len(),
            "fig5 is missing its data"
        );
        assert!(named("fig5").missing.is_some());
    }

    /// Oracle: by hand. Also blocks and sections follow.
    #[test]
    fn axes_are_replaced_and_epochs_limited_everywhere() {
        let mut fig1 = named("fig1");
        fig1.limit_epochs(120);
        assert_eq!(count(&fig1, |c| c.train.epochs == 120), 7);
        assert_eq!(count(&fig1, |c| c.train.epochs == 100), 7);
        fig1.replace("network.width", &[Value::Integer(8), Value::Integer(9)])
            .expect("an axis");
        assert_eq!(count(&fig1, |c| c.network.width == 9), 2);
        assert_eq!(count(&fig1, |c| c.network.width == 512), 0);
        let kmnist = |c: &Config| c.data.name == "kmnist" && c.train.lr == 5.0;
        assert_eq!(count(&fig1, kmnist), 2);

        let mut table10 = named("table10");
        table10.limit_epochs(3);
        let epochs = |s: &Section| s.trials["train.epochs"].as_integer();
        let epochs: Vec<_> = table10.sections.iter().map(epochs).collect();
        assert_eq!(epochs, [Some(3), Some(1), Some(1)]);

        let points = [Value::Integer(45), Value::Integer(150)];
        assert!(table10.replace("data.train_points", &points).is_err());
        table10
            .replace("data.train_points", &points[..1])
            .expect("one value");
        assert_eq!(count(&table10, |c| c.data.train_points == 45), 420);
    }
}
