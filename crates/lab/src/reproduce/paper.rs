//! The paper's numbers, part of the program: `experiments/paper/*.csv`.

use super::experiment::{Experiment, Section};
use sansprop::rule::Rule;

const FILES: [(&str, &str); 10] = [
    (
        "table1_cifar10_align_prop.csv",
        include_str!("../../../../experiments/paper/table1_cifar10_align_prop.csv"),
    ),
    (
        "table2_cifar10_x256_seeds.csv",
        include_str!("../../../../experiments/paper/table2_cifar10_x256_seeds.csv"),
    ),
    (
        "table3_alignment_cifar10_relu.csv",
        include_str!("../../../../experiments/paper/table3_alignment_cifar10_relu.csv"),
    ),
    (
        "table4_alignment_kmnist_relu.csv",
        include_str!("../../../../experiments/paper/table4_alignment_kmnist_relu.csv"),
    ),
    (
        "table5_alignment_cifar10_tanh.csv",
        include_str!("../../../../experiments/paper/table5_alignment_cifar10_tanh.csv"),
    ),
    (
        "table6_cifar10_width.csv",
        include_str!("../../../../experiments/paper/table6_cifar10_width.csv"),
    ),
    (
        "table7_kmnist_width.csv",
        include_str!("../../../../experiments/paper/table7_kmnist_width.csv"),
    ),
    (
        "table8_add_task.csv",
        include_str!("../../../../experiments/paper/table8_add_task.csv"),
    ),
    (
        "table9_small_cifar10.csv",
        include_str!("../../../../experiments/paper/table9_small_cifar10.csv"),
    ),
    (
        "table10_cifar10_standard_adam.csv",
        include_str!("../../../../experiments/paper/table10_cifar10_standard_adam.csv"),
    ),
];

/// One number of the paper.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Printed {
    /// Value of the row's key: a rule by our name for it, a layer.
    pub(crate) row: String,
    /// Value of the column's key.
    pub(crate) column: String,
    pub(crate) value: f64,
    /// Standard deviation, where the paper gives one.
    pub(crate) deviation: Option<f64>,
}

/// The numbers of one of an experiment's tables; none where the paper shows a figure only.
///
/// # Panics
/// If the program's files do not fit together; tests read them all.
pub(crate) fn printed(experiment: &Experiment, section: &Section) -> Vec<Printed> {
    let Some(columns) = &experiment.paper else {
        return Vec::new();
    };
    let Some(file) = section.file.as_ref().or(columns.file.as_ref()) else {
        return Vec::new();
    };
    let (_, text) = FILES
        .iter()
        .find(|(name, _)| name == file)
        .unwrap_or_else(|| panic!("no paper file {file}"));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head = reader.headers().expect("a head").clone();
    let place = |name: &str| {
        let place = head.iter().position(|h| h == name);
        place.unwrap_or_else(|| panic!("{file} has no column {name}"))
    };
    let picks: Vec<(usize, &String)> = section.paper.iter().map(|(k, v)| (place(k), v)).collect();
    let mut all = Vec::new();
    for line in reader.records() {
        let line = line.expect("a line of as many values as the head");
        if picks.iter().any(|(at, value)| &line[*at] != value.as_str()) {
            continue;
        }
        let number = |name: &str| -> f64 {
            let text = &line[place(name)];
            let number = text.parse();
            number.unwrap_or_else(|_| panic!("{file}: {text:?} is no number"))
        };
        let row = &line[place(&columns.row)];
        all.push(Printed {
            // The paper calls the recurrent network's last-layer training readout-only.
            row: Rule::named(row).map_or(row, |rule| rule.name).into(),
            column: line[place(&columns.column)].into(),
            value: number(&columns.value),
            deviation: columns.deviation.as_deref().map(number),
        });
    }
    assert!(!all.is_empty(), "{file}: no line for {}", section.name);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: lines of the files, counted by hand, and single numbers read off the paper.
    #[test]
    fn the_papers_numbers_are_found() {
        let of = |name: &str, section: usize| {
            let all = Experiment::all();
            let experiment = all.iter().find(|e| e.name == name).expect("an experiment");
            printed(experiment, &experiment.sections[section])
        };
        let value = |all: &[Printed], row: &str, column: &str| {
            let cell = all.iter().find(|p| p.row == row && p.column == column);
            cell.expect("a number").value
        };
        assert_eq!(value(&of("table6", 0), "normal", "8"), 54.8);
        assert_eq!(value(&of("table8", 0), "last-layer", "512"), 2.077);
        assert_eq!(value(&of("fig9", 1), "align-ada", "4096"), 0.466);
        assert_eq!(value(&of("table9", 0), "align-ada", "8"), 28.9);
        assert_eq!(value(&of("fig6", 1), "align-ada", "45"), 28.9);
        assert_eq!(value(&of("table10", 2), "normal", "512"), 46.2);
        assert_eq!(value(&of("fig1", 1), "layer-3", "512"), 0.581);
        assert_eq!(of("table2", 0)[0].deviation, Some(0.4));
        let counts = |name: &str| {
            let all = Experiment::all();
            let experiment = all.iter().find(|e| e.name == name).expect("an experiment");
            let sections = experiment.sections.iter();
            sections
                .map(|s| printed(experiment, s).len())
                .sum::<usize>()
        };
        let sizes = [
            ("table1", 21),
            ("table2", 5),
            ("table3", 49),
            ("table4", 21),
            ("table5", 49),
            ("table6", 42),
            ("table7", 42),
            ("table8", 80),
            ("table9", 245),
            ("table10", 63),
            ("fig1", 70),
            ("fig3", 0),
            ("fig4", 84),
            ("fig5", 0),
            ("fig6", 70),
            ("fig7", 0),
            ("fig8", 0),
            ("fig9", 80),
        ];
        for (name, size) in sizes {
            assert_eq!(counts(name), size, "{name}");
        }
    }
}
