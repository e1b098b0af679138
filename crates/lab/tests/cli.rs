//! Everything that a user can run, run through the binary at tiny size.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn sansprop(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(folder).args(arguments);
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    sansprop(folder, arguments)
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs and demands an exit code; returns standard output and standard error.
#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = run(folder, arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{out}\n{err}"
    );
    (out, err)
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).expect("a writable folder");
    path
}

fn metrics(run: &Path) -> Vec<Value> {
    fs::read_to_string(run.join("metrics.jsonl"))
        .expect("a metrics file")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect()
}

fn read(path: PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The one folder below `folder` whose name contains `part`.
fn folder_named(folder: &Path, part: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.to_string_lossy().contains(part))
        .collect();
    assert_eq!(found.len(), 1, "folders with {part}: {found:?}");
    found.remove(0)
}

const SMALL: &str = "[network]\nwidth = 5\n[train]\nepochs = 2\nrule = \"align-ada\"\n";

#[test]
fn compare_prints_and_writes_every_trial() {
    let folder = temporary();
    let (out, err) = expect(
        folder.path(),
        &[
            "compare",
            "--widths",
            "3,4",
            "--epochs",
            "1",
            "--set",
            "data.train_points=200",
        ],
        0,
    );
    let rules = [
        "normal",
        "last-layer",
        "fa",
        "dfa",
        "sign-symmetry",
        "align-ada",
        "align-zero",
        "align-prop",
    ];
    for rule in rules {
        assert_eq!(out.matches(&format!("│ {rule} ")).count(), 2, "{out}");
        assert!(err.contains(&format!("{rule} w3 epoch 1/1")), "{err}");
    }
    assert!(out.contains("seed 99") && out.contains("f32"), "{out}");
    let runs = folder.path().join("runs");
    let mut summary = csv::Reader::from_path(runs.join("summary.csv")).expect("a summary");
    let rows: Vec<csv::StringRecord> = summary.records().map(|r| r.expect("a row")).collect();
    assert_eq!(rows.len(), 16);
    let head = summary.headers().expect("a head").clone();
    let column = |name: &str| head.iter().position(|h| h == name).expect("a column");
    for row in &rows {
        assert_eq!(&row[column("status")], "completed");
        let run = runs.join(&row[column("run")]);
        for file in [
            "config.toml",
            "env.json",
            "initial.safetensors",
            "final.safetensors",
        ] {
            assert!(run.join(file).is_file(), "{file} of {}", run.display());
        }
        let best: f64 = row[column("best_eval_accuracy")].parse().expect("a number");
        let end = metrics(&run).pop().expect("lines");
        assert_eq!(end["event"], "end");
        assert_eq!(end["best_eval_accuracy"].as_f64(), Some(best));
    }
    // A second run of the same comparison replaces the first and gives the same accuracies.
    let before = read(folder_named(&runs, "w4-align-ada").join("final.safetensors"));
    expect(
        folder.path(),
        &[
            "compare",
            "--widths",
            "4",
            "--epochs",
            "1",
            "--rules",
            "align-ada",
            "--set",
            "data.train_points=200",
        ],
        0,
    );
    assert_eq!(
        before,
        read(folder_named(&runs, "w4-align-ada").join("final.safetensors"))
    );
}

#[test]
fn train_writes_metrics_as_documented() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    expect(
        folder.path(),
        &[
            "train",
            "c.toml",
            "--out",
            "run",
            "--set",
            "run.log_steps=true",
        ],
        0,
    );
    let run = folder.path().join("run");
    let lines = metrics(&run);
    let of = |event: &str| {
        lines
            .iter()
            .filter(|l| l["event"] == event)
            .collect::<Vec<_>>()
    };
    let steps = of("step");
    assert_eq!(steps.len(), 30);
    for (i, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], i);
        assert_eq!(step["epoch"], i / 15);
        assert!(step["loss"].as_f64().expect("a loss") > 0.0);
        assert!(step["accuracy"].is_f64());
    }
    let epochs = of("epoch");
    assert_eq!(epochs.len(), 2);
    let mean = |epoch: usize| {
        steps[15 * epoch..][..15]
            .iter()
            .map(|s| s["loss"].as_f64().expect("a loss"))
            .sum::<f64>()
            / 15.0
    };
    for (i, epoch) in epochs.iter().enumerate() {
        assert_eq!(epoch["epoch"], i);
        let train_loss = epoch["train_loss"].as_f64().expect("a loss");
        assert!((train_loss - mean(i)).abs() < 1e-12);
        for key in ["train_accuracy", "eval_loss", "eval_accuracy", "seconds"] {
            assert!(epoch[key].is_f64(), "{key}");
        }
    }
    let end = lines.last().expect("lines");
    assert_eq!(
        (&end["event"], &end["status"]),
        (&"end".into(), &"completed".into())
    );
    let best = epochs
        .iter()
        .map(|e| e["eval_accuracy"].as_f64().expect("accuracy"))
        .fold(0.0, f64::max);
    assert_eq!(end["best_eval_accuracy"].as_f64(), Some(best));

    let bytes = read(run.join("final.safetensors"));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let shape = |name: &str| tensors.tensor(name).expect(name).shape().to_vec();
    assert_eq!(shape("layers.0.weight"), [3, 3, 1, 5]);
    assert_eq!(shape("layers.2.bias"), [5]);
    assert_eq!(shape("layers.3.weight"), [5, 10]);
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).expect("a head");
    assert_eq!(
        metadata.metadata().as_ref().expect("metadata")["step"],
        "30"
    );
    let environment: Value = serde_json::from_slice(&read(run.join("env.json"))).expect("JSON");
    assert_eq!(environment["precision"], "f32");
    assert!(environment["started"].is_string() && environment["version"].is_string());
}

/// Oracle: bitwise equality of the final weights.
#[test]
fn neither_threads_nor_company_nor_a_resolved_config_change_a_bit() {
    let folder = temporary();
    let path = folder.path();
    write(path, "c.toml", SMALL);
    for rule in ["align-ada", "fa", "dfa"] {
        let rule_option = format!("train.rule={rule}");
        let train = |config: &str, out: &str, more: &[&str]| {
            let mut arguments = vec!["train", config, "--out", out, "--set", &rule_option];
            arguments.extend(more);
            expect(path, &arguments, 0);
            read(path.join(out).join("final.safetensors"))
        };
        let alone = train("c.toml", &format!("{rule}-1"), &["--set", "run.threads=1"]);
        let threads = train("c.toml", &format!("{rule}-3"), &["--set", "run.threads=3"]);
        assert_eq!(alone, threads, "{rule}: threads");
        let resolved = train(
            &format!("{rule}-1/config.toml"),
            &format!("{rule}-again"),
            &[],
        );
        assert_eq!(alone, resolved, "{rule}: resolved config");
        expect(path, &["compare", "--widths", "5", "--epochs", "2"], 0);
        let company = folder_named(&path.join("runs"), &format!("w5-{rule}"));
        assert_eq!(
            alone,
            read(company.join("final.safetensors")),
            "{rule}: company"
        );
        fs::remove_dir_all(path.join("runs")).expect("a removable folder");
    }
}

#[test]
fn feedback_weights_are_saved_in_their_documented_shapes() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    for (rule, name, shape) in [
        ("fa", "feedback.3.weight", vec![5, 10]),
        ("fa", "feedback.0.weight", vec![3, 3, 1, 5]),
        ("dfa", "feedback.1.weight", vec![4, 4, 10, 5]),
    ] {
        let rule = format!("train.rule={rule}");
        let arguments = [
            "train",
            "c.toml",
            "--out",
            "r",
            "--force",
            "--set",
            &rule,
            "--set",
            "train.max_steps=1",
        ];
        expect(folder.path(), &arguments, 0);
        let bytes = read(folder.path().join("r/final.safetensors"));
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        assert_eq!(tensors.tensor(name).expect(name).shape(), shape);
    }
}

#[test]
fn the_printed_config_is_the_default_for_every_set() {
    let folder = temporary();
    for name in sansprop_lab::data::names() {
        let (out, _) = expect(folder.path(), &["config", "--data", name], 0);
        let path = write(folder.path(), "printed.toml", &out);
        let printed = sansprop_lab::config::load(Some(&path), &[]).expect("a valid config");
        let defaults = sansprop_lab::config::load(None, &[format!("data.name={name}")]);
        assert_eq!(printed, defaults.expect("valid defaults"), "{name}");
        for (section, keys) in sansprop_lab::config::SECTIONS {
            assert!(out.contains(&format!("[{section}]")));
            for key in keys {
                assert!(
                    out.contains(&format!("\n{key} =")) || out.contains(&format!("\n# {key} =")),
                    "{key}"
                );
            }
        }
    }
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_would_be_right() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    write(folder.path(), "typo.toml", "[train]\nlearning_rate = 1\n");
    write(folder.path(), "section.toml", "[trian]\nlr = 1\n");
    write(folder.path(), "broken.toml", "[train\n");
    let set = |value| vec!["train", "c.toml", "--set", value];
    for (arguments, words) in [
        (vec!["compere"], "compare"),
        (vec!["train"], "<CONFIG>"),
        (vec!["train", "none.toml"], "none.toml"),
        (vec!["train", "typo.toml"], "train.learning_rate"),
        (vec!["train", "section.toml"], "did you mean `train`"),
        (vec!["train", "broken.toml"], "broken.toml"),
        (vec!["train", "c.toml", "--bogus"], "--bogus"),
        (set("train.lrr=1"), "did you mean `train.lr`"),
        (set("lr=1"), "did you mean `train.lr`"),
        (set("train.lr"), "section.key=value"),
        (set("train.lr=fast"), "train.lr"),
        (set("train.lr=-1"), "at least 0"),
        (set("train.rule=align-adda"), "did you mean `align-ada`"),
        (set("network.width=0"), "at least 1"),
        (set("network.norm=batch"), "location"),
        (set("network.depth=3"), "dense"),
        (set("network.strides=[1,0]"), "at least 1"),
        (set("data.name=digit"), "did you mean `digits`"),
        (set("data.evaluate=test"), "no test samples"),
        (set("data.train_points=5000"), "1500"),
        (set("data.holdout=1797"), "holdout"),
        (vec!["compare", "--rules", "fb"], "fa"),
        (vec!["compare", "--widths", "x"], "--widths"),
        (vec!["data", "verify", "cifar"], "cifar-10"),
    ] {
        let (_, err) = expect(folder.path(), &arguments, 2);
        assert!(
            err.contains(words),
            "{arguments:?} does not say {words:?}:\n{err}"
        );
    }
    assert!(!folder.path().join("runs").exists(), "nothing was started");
}

#[test]
fn what_cannot_be_read_or_written_exits_with_1() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    write(folder.path(), "file", "in the way");
    let (_, err) = expect(
        folder.path(),
        &[
            "train",
            "c.toml",
            "--set",
            "data.name=cifar-10",
            "--set",
            "data.path=none",
        ],
        1,
    );
    assert!(
        err.contains("data_batch_1.bin") && err.contains("cs.toronto.edu"),
        "{err}"
    );
    let (_, err) = expect(folder.path(), &["train", "c.toml", "--out", "file/run"], 1);
    assert!(err.contains("file/run"), "{err}");
    fs::create_dir(folder.path().join("mine")).expect("a folder");
    write(&folder.path().join("mine"), "thesis.tex", "precious");
    let (_, err) = expect(
        folder.path(),
        &["train", "c.toml", "--out", "mine", "--force"],
        1,
    );
    assert!(err.contains("no sansprop run"), "{err}");
    assert_eq!(read(folder.path().join("mine/thesis.tex")), b"precious");
    expect(
        folder.path(),
        &[
            "train",
            "c.toml",
            "--out",
            "run",
            "--set",
            "train.max_steps=1",
        ],
        0,
    );
    let (_, err) = expect(folder.path(), &["train", "c.toml", "--out", "run"], 1);
    assert!(err.contains("--force"), "{err}");
}

#[test]
fn a_diverging_run_ends_as_such() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    let arguments = ["train", "c.toml", "--out", "run", "--set", "train.lr=1e30"];
    let (out, err) = expect(folder.path(), &arguments, 1);
    assert!(out.contains("diverged in epoch 1"), "{out}");
    assert!(err.contains("diverged in epoch 1"), "{err}");
    let end = metrics(&folder.path().join("run")).pop().expect("lines");
    assert_eq!(end["status"], "diverged");
    assert_eq!(end["diverged_epoch"], 0);
    // In a comparison it is a row like any other.
    let arguments = [
        "compare",
        "--widths",
        "3",
        "--epochs",
        "1",
        "--lr",
        "1e30",
        "--rules",
        "normal,fa",
    ];
    let (out, _) = expect(folder.path(), &arguments, 0);
    assert_eq!(out.matches("diverged in epoch 1").count(), 2, "{out}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_what_is_done() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    let arguments = [
        "train",
        "c.toml",
        "--out",
        "run",
        "--set",
        "train.epochs=1000000",
    ];
    let mut child = sansprop(folder.path(), &arguments)
        .spawn()
        .expect("the binary starts");
    let lines = folder.path().join("run/metrics.jsonl");
    let started = std::time::Instant::now();
    while fs::read_to_string(&lines).map_or(0, |t| t.lines().count()) < 3 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no epoch in a minute"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    let status = child.wait().expect("the process ends");
    assert_eq!(status.code(), Some(1));
    let end = metrics(&folder.path().join("run")).pop().expect("lines");
    assert_eq!(end["status"], "interrupted");
    let bytes = read(folder.path().join("run/final.safetensors"));
    let (_, head) = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors");
    let step = &head.metadata().as_ref().expect("metadata")["step"];
    assert_eq!(
        step.parse::<u64>().expect("a number"),
        end["steps"].as_u64().expect("steps")
    );
}

#[test]
fn instruction_sets_can_be_forced() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    let with = |set: &str| {
        let arguments = [
            "train",
            "c.toml",
            "--out",
            "run",
            "--force",
            "--set",
            "train.max_steps=2",
        ];
        let mut command = sansprop(folder.path(), &arguments);
        command
            .env("SANSPROP_ISA", set)
            .output()
            .expect("the binary starts")
    };
    let output = with("portable");
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("cpu (portable"));
    let output = with("avx1024");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("portable"));
}

/// Oracle: the rule of docs/performance.md, by hand. Tiles need 32 channels on both sides, strips 6 on the side that is
/// read, gradients in strips none; all need stride 1, and `f32`.
#[test]
fn the_kernels_of_each_layer_are_recorded() {
    let folder = temporary();
    let config = "[network]\nstrides = [1, 1, 2]\n[train]\nmax_steps = 1\nbatch = 20\n\
                  [data]\ntrain_points = 40\n";
    write(folder.path(), "c.toml", config);
    let (plain, strips, tiles) = (
        "plain sums, portable",
        "Winograd strips, portable",
        "Winograd tiles, portable",
    );
    let first = [plain, strips, strips];
    for (precision, set, width, expected) in [
        ("f32", "portable", 32, [first, [tiles; 3], [plain; 3]]),
        ("f32", "portable", 8, [first, [strips; 3], [plain; 3]]),
        ("f32-strict", "portable", 8, [[plain; 3]; 3]),
        ("f32-strict", "portable", 32, [[plain; 3]; 3]),
        ("bf16", "portable", 32, [first, [tiles; 3], [plain; 3]]),
        ("f64", "none", 32, [["plain sums"; 3]; 3]),
    ] {
        let option = format!("run.precision={precision}");
        let width = format!("network.width={width}");
        let arguments = [
            "train", "c.toml", "--out", "run", "--force", "--set", &option, "--set", &width,
        ];
        let output = sansprop(folder.path(), &arguments)
            .env("SANSPROP_ISA", "portable")
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let environment: Value =
            serde_json::from_slice(&read(folder.path().join("run/env.json"))).expect("JSON");
        assert_eq!(environment["instruction_set"], set);
        let layers = environment["kernels"].as_array().expect("a list");
        // The head is computed as a layer of stride 2 is.
        let kernels = expected.iter().chain([&expected[2]]);
        for (l, (layer, kernels)) in layers.iter().zip(kernels).enumerate() {
            assert_eq!(layer["layer"], format!("layers.{l}"));
            for (direction, kernel) in ["forward", "feedback", "weight_gradient"]
                .iter()
                .zip(kernels)
            {
                assert_eq!(
                    &layer[direction], kernel,
                    "{precision}, {width}, layer {l}, {direction}"
                );
            }
        }
        assert_eq!(layers.len(), 4);
    }
}

/// Every kind of network, norm, activation, optimiser and precision that a config can name.
#[test]
fn every_choice_of_a_config_trains() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    for choice in [
        "network.kind=dense",
        "network.kind=\"dense\"",
        "network.strides=[]",
        "network.strides=[1]",
        "network.norm=channel",
        "network.norm=none",
        "network.activation=tanh",
        "network.activation=erf",
        "network.activation=linear",
        "network.parameterization=standard",
        "train.optimizer=adam",
        "train.batch=1",
        "train.batch=257",
        "data.train_points=45",
        "run.precision=f64",
        "run.precision=bf16",
        "run.eval_every=7",
    ] {
        let arguments = [
            "train",
            "c.toml",
            "--out",
            "run",
            "--force",
            "--set",
            choice,
            "--set",
            "train.max_steps=20",
            "--set",
            "train.lr=0.01",
        ];
        expect(folder.path(), &arguments, 0);
        let end = metrics(&folder.path().join("run")).pop().expect("lines");
        assert_eq!(end["status"], "completed", "{choice}");
        assert!(end["best_eval_accuracy"].is_f64(), "{choice}");
    }
}

/// Oracle: Table 8's chance losses; the losses of the first epochs stand in the golden files.
#[test]
fn the_add_task_trains_a_recurrent_network() {
    let folder = temporary();
    let path = folder.path();
    write(
        path,
        "add.toml",
        "[data]\nname = \"add-task\"\n[network]\nwidth = 8\n",
    );
    let arguments = [
        "train",
        "add.toml",
        "--out",
        "run",
        "--set",
        "train.epochs=2",
        "--set",
        "train.rule=readout-only",
    ];
    let (out, _) = expect(path, &arguments, 0);
    assert!(
        out.contains("9.3585 in training, 9.3119 in evaluation"),
        "{out}"
    );
    let lines = metrics(&path.join("run"));
    assert!(lines[0]["train_loss"].as_f64() > lines[1]["train_loss"].as_f64());
    assert!(lines[0]["eval_accuracy"].is_null());
    let environment: Value =
        serde_json::from_slice(&read(path.join("run/env.json"))).expect("JSON");
    for (layer, name) in ["input", "hidden", "readout"].iter().enumerate() {
        assert_eq!(environment["kernels"][layer]["layer"], *name);
    }
    let end = &lines[2];
    assert_eq!(end["best_epoch"], 1);
    assert_eq!(end["best_eval_loss"], lines[1]["eval_loss"]);
    assert_eq!(end["best_train_loss"], lines[1]["train_loss"]);
    assert!((end["chance_train_loss"].as_f64().expect("a number") - 9.359).abs() < 5e-4);
    assert!((end["chance_eval_loss"].as_f64().expect("a number") - 9.312).abs() < 5e-4);
    let bytes = read(path.join("run/final.safetensors"));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    for (name, shape) in [
        ("hidden.weight", vec![8, 8]),
        ("initial_state", vec![50, 8]),
        ("readout.bias", vec![1]),
    ] {
        assert_eq!(tensors.tensor(name).expect(name).shape(), shape);
    }
    // Every rule, and the causal variant with other steps and lags.
    let arguments = [
        "compare",
        "--data",
        "add-task",
        "--widths",
        "3",
        "--epochs",
        "1",
        "--set",
        "data.variant=causal",
        "--set",
        "data.steps=20",
        "--set",
        "data.lags=[1,3]",
    ];
    let (out, _) = expect(path, &arguments, 0);
    assert_eq!(out.matches("completed").count(), 8, "{out}");
    for (option, words) in [
        ("network.kind=conv", "recurrent"),
        ("network.norm=location", "no norm"),
        ("data.variant=casual", "causal"),
        ("data.steps=0", "at least 1"),
    ] {
        let (_, err) = expect(path, &["train", "add.toml", "--set", option], 2);
        assert!(err.contains(words), "{option}: {err}");
    }
    let (_, err) = expect(path, &["compare", "--set", "network.kind=recurrent"], 2);
    assert!(err.contains("add-task"), "{err}");
    // A recurrent network without a data set is one for the Add task.
    write(
        path,
        "kind.toml",
        "[network]\nkind = \"recurrent\"\nwidth = 3\n",
    );
    let arguments = [
        "train",
        "kind.toml",
        "--out",
        "kind",
        "--set",
        "train.epochs=1",
    ];
    let (out, _) = expect(path, &arguments, 0);
    assert!(out.starts_with("add-task"), "{out}");
}

fn scores(path: &Path) -> Vec<(usize, u64, usize, f64, f64)> {
    let mut reader = csv::Reader::from_path(path).expect("alignment.csv");
    let head: Vec<&str> = reader
        .headers()
        .expect("a head")
        .iter()
        .map(|h| match h {
            "epoch" => "epoch",
            "step" => "step",
            "layer" => "layer",
            "score" => "score",
            "score_permuted" => "score_permuted",
            other => panic!("column {other}"),
        })
        .collect();
    assert_eq!(head, ["epoch", "step", "layer", "score", "score_permuted"]);
    reader
        .deserialize()
        .map(|row| row.expect("a row"))
        .collect()
}

#[test]
fn align_scores_a_run_and_files_alike() {
    let folder = temporary();
    let path = folder.path();
    write(
        path,
        "c.toml",
        "[network]\nwidth = 5\nstrides = [1, 2]\n[train]\nepochs = 3\nmax_steps = 40\n",
    );
    let arguments = [
        "align",
        "c.toml",
        "--out",
        "run",
        "--every",
        "2",
        "--probes",
        "30",
        "--probe-batch",
        "10",
    ];
    let (out, _) = expect(path, &arguments, 0);
    assert!(out.contains("normal"), "the default rule: {out}");
    let rows = scores(&path.join("run/alignment.csv"));
    let keys: Vec<_> = rows.iter().map(|r| (r.0, r.1, r.2)).collect();
    assert_eq!(keys, [(1, 30, 1), (1, 30, 2), (2, 40, 1), (2, 40, 2)]);
    for row in &rows {
        assert!(row.3 > 0.3 && row.3 <= 1.0 + 1e-6, "{row:?}");
        // Forty-five weights of one input channel may align by chance.
        assert!(row.2 == 1 || row.4 < row.3, "permuted: {row:?}");
    }
    // The probes' estimate agrees with the exact score within its own error.
    let mut probes = csv::Reader::from_path(path.join("run/alignment_probes.csv")).expect("probes");
    let mut count = 0;
    for row in probes.deserialize::<(usize, u64, usize, f64, f64, f64)>() {
        let (.., score, estimate, error) = row.expect("a row");
        assert!(
            (score - estimate).abs() < 5.0 * error,
            "{score} {estimate} ± {error}"
        );
        count += 1;
    }
    assert_eq!(count, 4);

    // The same weights as files give the same scores: from the run folder, and as npz with --network.
    let files =
        |suffix: &str| ["initial", "final", "companion"].map(|name| format!("run/{name}.{suffix}"));
    let [from, to, reference] = files("safetensors");
    let arguments = [
        "align",
        "--from",
        &from,
        "--to",
        &to,
        "--reference",
        &reference,
        "--out",
        "again",
    ];
    expect(path, &arguments, 0);
    let again = scores(&path.join("again/alignment.csv"));
    for (row, file) in rows[2..].iter().zip(&again) {
        assert_eq!((row.3, row.4), (file.3, file.4));
    }
    fs::remove_file(path.join("run/config.toml")).expect("a removable file");
    let (_, err) = expect(path, &arguments, 2);
    assert!(err.contains("--network"), "{err}");
    let mut with_network = arguments.to_vec();
    with_network.extend(["--network", "c.toml"]);
    expect(path, &with_network, 0);
    let mut other = arguments.to_vec();
    other.extend(["--network", "c.toml", "--set", "network.width=4"]);
    let (_, err) = expect(path, &other, 2);
    assert!(err.contains("layers.0.weight"), "{err}");
    write(path, "bad.safetensors", "nonsense");
    let arguments = [
        "align",
        "--from",
        "bad.safetensors",
        "--to",
        &to,
        "--reference",
        &reference,
    ];
    let (_, err) = expect(path, &arguments, 1);
    assert!(err.contains("bad.safetensors"), "{err}");
    expect(path, &["align"], 2);
    expect(path, &["align", "c.toml", "--every", "0"], 2);
}

/// Oracle: the companion that trains beside the run.
#[test]
fn integrated_errors_give_the_companion() {
    let folder = temporary();
    let path = folder.path();
    write(
        path,
        "c.toml",
        "[network]\nwidth = 6\nnorm = \"none\"\nactivation = \"tanh\"\n[train]\nepochs = 2\nlr = 0.5\n",
    );
    expect(path, &["align", "c.toml", "--out", "beside"], 0);
    expect(
        path,
        &["align", "c.toml", "--out", "after", "--integrated"],
        0,
    );
    let beside = scores(&path.join("beside/alignment.csv"));
    let after = scores(&path.join("after/alignment.csv"));
    assert_eq!(beside.len(), 3);
    for (one, other) in beside.iter().zip(&after) {
        assert!((one.3 - other.3).abs() < 1e-4, "{one:?} {other:?}");
    }
    let load = |run: &str| {
        let bytes = read(path.join(run).join("companion.safetensors"));
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let data = tensors
            .tensor("layers.1.weight")
            .expect("a layer")
            .data()
            .to_vec();
        data.as_chunks::<4>()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)))
            .collect::<Vec<_>>()
    };
    let (one, other) = (load("beside"), load("after"));
    for (a, b) in one.iter().zip(&other) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let arguments = [
        "align",
        "c.toml",
        "--out",
        "no",
        "--integrated",
        "--set",
        "network.norm=location",
    ];
    let (_, err) = expect(path, &arguments, 2);
    assert!(err.contains("network.norm"), "{err}");
}

#[test]
fn layers_are_reported_on_request() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    let train = |out: &str, options: &[&str]| {
        let mut arguments = vec!["train", "c.toml", "--out", out];
        arguments.extend(options);
        expect(folder.path(), &arguments, 0);
        let run = folder.path().join(out);
        (metrics(&run), read(run.join("final.safetensors")))
    };
    let (plain, weights) = train("plain", &[]);
    assert!(plain.iter().all(|line| line["event"] != "layer"));
    let (lines, same) = train("layers", &["--gradient-angle", "--layer-drift"]);
    assert_eq!(weights, same, "looking changes nothing");
    let layers: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "layer")
        .collect();
    assert_eq!(layers.len(), 8, "four layers, two epochs");
    for layer in &layers[4..] {
        assert_eq!((&layer["epoch"], &layer["step"]), (&1.into(), &15.into()));
        for key in [
            "gradient_cosine",
            "gradient_norm_ratio",
            "feedback_cosine",
            "weight_change",
            "kernel_drift",
        ] {
            assert!(layer[key].is_f64(), "{key}: {layer}");
        }
    }
    assert_eq!(layers[3]["layer"], 4);
    let arguments = [
        "train",
        "c.toml",
        "--gradient-angle",
        "--set",
        "data.name=add-task",
        "--set",
        "run.out=x",
    ];
    let (_, err) = expect(folder.path(), &arguments, 2);
    assert!(err.contains("gradient_angle"), "{err}");
}

#[test]
fn check_holds_on_good_networks_and_exits_with_0() {
    let folder = temporary();
    write(folder.path(), "c.toml", SMALL);
    let (out, _) = expect(folder.path(), &["check", "c.toml"], 0);
    for property in [
        "gradient",
        "first step",
        "linear",
        "trained",
        "untouched",
        "kernel",
    ] {
        assert!(out.contains(&format!("│ {property} ")), "{out}");
    }
    assert!(!out.contains("FAIL"), "{out}");
    for change in ["network.kind=dense", "run.precision=bf16"] {
        let arguments = ["check", "c.toml", "--quiet", "--set", change];
        let (out, _) = expect(folder.path(), &arguments, 0);
        assert_eq!(out.lines().count(), 2, "{out}");
    }
}

#[test]
fn data_sets_are_listed_and_verified() {
    let folder = temporary();
    let (out, _) = expect(folder.path(), &["data", "list"], 0);
    for name in sansprop_lab::data::names() {
        assert!(out.contains(name), "{out}");
    }
    let (out, _) = expect(folder.path(), &["data", "verify", "digits"], 0);
    assert!(out.contains("1797 images of 8×8×1"), "{out}");
    let (_, err) = expect(
        folder.path(),
        &["data", "verify", "mnist", "--path", "none"],
        1,
    );
    assert!(err.contains("train-images-idx3-ubyte"), "{err}");
}

#[test]
fn help_has_examples_on_every_command() {
    let folder = temporary();
    for command in [
        vec!["--help"],
        vec!["compare", "--help"],
        vec!["train", "--help"],
        vec!["sweep", "--help"],
        vec!["status", "--help"],
        vec!["check", "--help"],
        vec!["align", "--help"],
        vec!["report", "--help"],
        vec!["data", "--help"],
        vec!["data", "list", "--help"],
        vec!["data", "verify", "--help"],
        vec!["config", "--help"],
    ] {
        let (out, _) = expect(folder.path(), &command, 0);
        assert!(out.contains("Example"), "{command:?}\n{out}");
    }
}

/// Real CIFAR-10 and KMNIST, where `SANSPROP_DATA` says where they lie.
#[test]
fn real_data_trains() {
    if std::env::var_os("SANSPROP_DATA").is_none() {
        eprintln!("skipped: SANSPROP_DATA is not set, so there is no real data to train on");
        return;
    }
    let folder = temporary();
    for (data, holdout) in [
        ("cifar-10", "data.holdout=5000"),
        ("kmnist", "data.holdout=1000"),
    ] {
        let arguments = [
            "compare",
            "--data",
            data,
            "--widths",
            "4",
            "--set",
            holdout,
            "--set",
            "data.train_points=300",
            "--epochs",
            "2",
            "--rules",
            "normal,align-zero",
        ];
        let (out, _) = expect(folder.path(), &arguments, 0);
        assert_eq!(out.matches("completed").count(), 2, "{out}");
    }
}
