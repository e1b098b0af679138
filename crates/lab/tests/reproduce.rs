//! `sansprop reproduce` through the binary: every table and figure at tiny size, on made-up images.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Training images of each made-up set; the first 20 are held out.
const IMAGES: usize = 70;

/// CIFAR-10's and KMNIST's files with few images each, below one folder.
fn data() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let pixel = |sample: usize, at: usize| ((sample * 7919 + at * at * 31 + at * 17) % 256) as u8;
    let cifar = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&cifar).expect("a folder");
    for file in 0..6 {
        let count = if file == 5 { 2 } else { IMAGES / 5 };
        let mut bytes = Vec::new();
        for sample in 0..count {
            bytes.push((sample % 10) as u8);
            bytes.extend((0..3072).map(|at| pixel(file * count + sample, at)));
        }
        let name = match file {
            5 => "test_batch.bin".into(),
            file => format!("data_batch_{}.bin", file + 1),
        };
        fs::write(cifar.join(name), bytes).expect("a file");
    }
    let kmnist = folder.path().join("kmnist");
    fs::create_dir(&kmnist).expect("a folder");
    let sizes = |magic: u32, sizes: &[u32]| -> Vec<u8> {
        let numbers = [magic].into_iter().chain(sizes.iter().copied());
        numbers.flat_map(u32::to_be_bytes).collect()
    };
    for (part, count) in [("train", IMAGES), ("t10k", 2)] {
        let mut images = sizes(0x803, &[count as u32, 28, 28]);
        images.extend((0..count).flat_map(|s| (0..784).map(move |at| pixel(s, at))));
        fs::write(kmnist.join(format!("{part}-images-idx3-ubyte")), images).expect("a file");
        let mut labels = sizes(0x801, &[count as u32]);
        labels.extend((0..count).map(|s| (s % 10) as u8));
        fs::write(kmnist.join(format!("{part}-labels-idx1-ubyte")), labels).expect("a file");
    }
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(folder).env_remove("SANSPROP_DATA");
    command.arg("reproduce").args(arguments);
    command.output().expect("the binary starts")
}

/// Standard output of a command that ends with `code`, or standard error where that is not 0.
#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{out}\n{err}"
    );
    if code == 0 { out } else { err }
}

fn comparison(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("comparison.json")).expect("comparison.json");
    serde_json::from_str(&text).expect("JSON")
}

fn cells(comparison: &Value) -> &Vec<Value> {
    comparison["cells"].as_array().expect("cells")
}

/// Oracle: the number of the paper's printed numbers (counted by hand), and of the trials that the options ask for.
#[test]
fn every_table_and_figure_runs_at_tiny_size() {
    let data = data();
    let path = data.path().to_str().expect("a name");
    // Name, options, the paper's numbers, places that are measured.
    let cases: [(&str, &[&str], usize, usize); 17] = [
        ("table1", &["--widths", "4", "--lrs", "1"], 21, 7),
        (
            "table2",
            &["--widths", "4", "--lrs", "1", "--seeds", "1-2"],
            5,
            5,
        ),
        ("table3", &["--widths", "4"], 49, 7),
        ("table4", &["--widths", "4,5"], 21, 6),
        ("table5", &["--widths", "4"], 49, 7),
        ("table6", &["--widths", "4,8", "--lrs", "1,2"], 42, 12),
        ("table7", &["--widths", "4", "--lrs", "1"], 42, 6),
        ("table8", &["--widths", "4"], 80, 8),
        (
            "table9",
            &["--widths", "4", "--lrs", "1", "--train-points", "45"],
            245,
            5,
        ),
        (
            "table10",
            &["--widths", "4", "--lrs", "0.0005,0.01", "--rules", "normal"],
            63,
            3,
        ),
        ("fig1", &["--widths", "4"], 70, 10),
        (
            "fig3",
            &["--widths", "8", "--lrs", "1", "--rules", "fa,dfa"],
            0,
            4,
        ),
        (
            "fig4",
            &["--widths", "4", "--lrs", "1", "--rules", "normal"],
            84,
            2,
        ),
        (
            "fig6",
            &["--widths", "8", "--lrs", "1", "--train-points", "45,50"],
            70,
            10,
        ),
        ("fig7", &["--widths", "4", "--seeds", "1-3"], 0, 3),
        // Two sets, seven and three layers, each with its permuted twin, after one epoch.
        ("fig8", &["--widths", "4"], 0, 20),
        (
            "fig9",
            &["--widths", "4", "--rules", "normal,last-layer"],
            80,
            4,
        ),
    ];
    for (name, options, printed, measured) in cases {
        let folder = data.path().join("runs").join(name);
        let out = folder.to_str().expect("a name");
        let mut arguments = vec![name, "--epochs", "1", "--path", path, "--out", out];
        arguments.extend(options);
        if !["table8", "fig9"].contains(&name) {
            arguments.extend(["--set", "data.holdout=20"]);
        }
        let text = expect(data.path(), &arguments, 0);
        assert!(text.contains(&format!("{name}: ")), "{text}");
        let comparison = comparison(&folder);
        let with = |key: &str| {
            let cells = cells(&comparison).iter();
            cells.filter(|cell| !cell[key].is_null()).count()
        };
        assert_eq!(with("paper"), printed, "{name}");
        assert_eq!(with("measured"), measured, "{name}");
        for cell in cells(&comparison) {
            let expected = match cell["measured"].is_null() {
                true => "not run",
                false => "completed",
            };
            assert_eq!(cell["status"], expected, "{name}: {cell}");
        }
    }
}

/// Oracle: trials.csv of the same folder, and the paper's table.
#[test]
fn places_hold_the_best_learning_rates_numbers() {
    let data = data();
    let path = data.path().to_str().expect("a name");
    let arguments = [
        "table6",
        "--widths",
        "8",
        "--epochs",
        "2",
        "--lrs",
        "0.1,5",
        "--seeds",
        "3,4",
        "--rules",
        "normal,fa",
        "--path",
        path,
        "--set",
        "data.holdout=20",
    ];
    let text = expect(data.path(), &arguments, 0);
    let folder = data.path().join("runs/table6");
    let comparison = comparison(&folder);
    let mut reader = csv::Reader::from_path(folder.join("trials.csv")).expect("trials.csv");
    let rows: Vec<std::collections::HashMap<String, String>> = reader
        .deserialize()
        .collect::<Result<_, _>>()
        .expect("rows");
    assert_eq!(rows.len(), 8);
    for (rule, paper) in [("normal", 54.8), ("fa", 36.1)] {
        let mean = |lr: &str| {
            let of = |row: &&std::collections::HashMap<String, String>| {
                row["rule"] == rule && row["lr"] == lr
            };
            let values = rows.iter().filter(of);
            let values: Vec<f64> = values
                .map(|r| r["best_eval_accuracy"].parse().expect("a number"))
                .collect();
            assert_eq!(values.len(), 2, "{rule} {lr}");
            100.0 * (values[0] + values[1]) / 2.0
        };
        let best = mean("0.1").max(mean("5"));
        let cell = cells(&comparison)
            .iter()
            .find(|c| c["row"] == rule && c["column"] == "8")
            .expect("a cell");
        assert!((cell["measured"].as_f64().expect("a number") - best).abs() < 1e-9);
        assert_eq!(cell["seeds"], 2);
        assert_eq!(cell["paper"], paper);
        let difference = format!("{:+.2}", best - paper).replace('-', "−");
        assert!(text.contains(&difference), "{difference}\n{text}");
    }
    let note = comparison["note"].as_str().expect("a note");
    for part in [
        "epochs 2",
        "lr 0.1, 5",
        "seed 3, 4",
        "50 training samples",
        "cpu (",
        "f32",
    ] {
        assert!(note.contains(part), "{part}: {note}");
    }
    // A wider command runs only what is new; the tables come in other formats.
    let mut wider = arguments.to_vec();
    wider[2] = "8,4";
    wider.push("--markdown");
    let output = run(data.path(), &wider);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(err.matches(": completed").count(), 8, "{err}");
    assert!(!err.contains("-w8-"), "{err}");
    assert!(
        out.contains("| rule / width |") && out.contains("| normal |"),
        "{out}"
    );
    wider.pop();
    wider.push("--latex");
    let latex = expect(data.path(), &wider, 0);
    assert!(
        latex.contains("\\toprule") && latex.contains("not run / 61.00"),
        "{latex}"
    );
    // A narrower one keeps what is there.
    let mut narrower = arguments.to_vec();
    narrower[2] = "4";
    let rules = narrower.iter().position(|a| *a == "normal,fa");
    narrower[rules.expect("an argument")] = "normal";
    expect(data.path(), &narrower, 0);
    let after = self::comparison(&folder);
    let before = cells(&comparison).iter().filter(|c| c["column"] == "8");
    for cell in before {
        assert!(cells(&after).contains(cell), "{cell}");
    }
    let measured = |c: &&Value| !c["measured"].is_null();
    assert_eq!(cells(&after).iter().filter(measured).count(), 4);
}

/// Oracle: each axis of the paper's tables.
#[test]
fn mistakes_are_named() {
    let data = data();
    let cases: [(&[&str], i32, &[&str]); 13] = [
        (
            &["tabel6"],
            2,
            &["no such table or figure: tabel6", "did you mean `table6`?"],
        ),
        (&["fig5"], 1, &["ImageNet", "image folders"]),
        (
            &["fig6", "--widths", "16"],
            2,
            &["no place for a trial of width 16", "width 512; width 8"],
        ),
        (&["fig7", "--jobs", "2"], 2, &["measures times"]),
        (&["fig2"], 2, &["picture of weight changes"]),
        (
            &["table8", "--widths", "8", "--set", "network.width=4"],
            2,
            &["--widths", "network.width=4", "contradict"],
        ),
        (
            &["table6", "--train-points", "45,150"],
            2,
            &["--train-points", "table6", "give one value"],
        ),
        (&["table6", "--seeds", "5-1"], 2, &["100-104"]),
        (
            &["table6", "--rules", "align-zro"],
            2,
            &["align-zro", "did you mean `align-zero`?"],
        ),
        (
            &["table6", "--set", "train.lrr=2"],
            2,
            &["train.lrr", "did you mean `train.lr`?"],
        ),
        (&["table6", "--epochs", "0"], 2, &["--epochs"]),
        (&["table8", "--widths", "0"], 2, &["network.width"]),
        (&["table6"], 1, &["cifar-10", "looked for"]),
    ];
    for (arguments, code, parts) in cases {
        let text = expect(data.path().join("kmnist").as_path(), arguments, code);
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: {part}\n{text}");
        }
        assert!(!data.path().join("kmnist/runs").exists(), "{arguments:?}");
    }
    assert_eq!(run(data.path(), &[]).status.code(), Some(2));
}

/// Oracle: the paper's 18 tables and figures; a learning rate more costs more.
#[test]
fn costs_are_listed() {
    let data = data();
    let text = expect(data.path(), &["--list"], 0);
    let names = ["table1", "table10", "fig1", "fig9"];
    for name in names {
        assert!(text.contains(&format!(" {name} ")), "{name}\n{text}");
    }
    let rows = text
        .lines()
        .filter(|l| l.contains("table") || l.contains(" fig"));
    assert_eq!(rows.count(), 18, "{text}");
    assert!(text.contains("hours"), "{text}");
    let path = data.path().to_str().expect("a name");
    let dry = |lrs: &str| {
        let arguments = [
            "table6",
            "--widths",
            "4",
            "--rules",
            "fa",
            "--lrs",
            lrs,
            "--dry-run",
            "--path",
            path,
            "--set",
            "data.holdout=20",
        ];
        expect(data.path(), &arguments, 0)
    };
    assert!(dry("1").contains("1 trials (1 seeds) in 1 cohorts"));
    assert!(dry("1,2").contains("2 trials (1 seeds) in 1 cohorts"));
    assert!(!data.path().join("runs").exists());
}
