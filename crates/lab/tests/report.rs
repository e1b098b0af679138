//! Reports through the binary: what they show, what they survive, and how they behave in a real browser.
#![cfg(unix)]

use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Text that must never run: it would set `window.owned`.
const HOSTILE: &str =
    "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>";

const GRID: &str = r#"
[data]
train_points = 100
[train]
epochs = 2
[sweep]
rule = ["normal", "align-ada"]
width = [4, 8]
lr = [1, 5]
seed = [1, 2]
[[sweep.also]]
rule = "align-zero"
width = 4
lr = 1e30
seed = 1
"#;

const COMPARISON: &str = r#"{
"format": 1, "experiment": "table9", "title": "Rules & widths", "note": "2 seeds; 100 % cpu, lr #1.",
"quantity": "accuracy", "rows": "rule", "columns": "width",
"cells": [
{"section": "450_points", "row": "normal", "column": "8", "measured": 62.961, "deviation": 0.404, "seeds": 3,
 "paper": 63.1, "paper_deviation": 0.2, "status": "completed"},
{"section": "450_points", "row": "normal", "column": "64", "measured": 71.0, "deviation": null, "seeds": 1,
 "paper": 70.5, "paper_deviation": null, "status": "2 diverged"},
{"section": "450_points", "row": "a|b", "column": "8", "measured": null, "deviation": null, "seeds": 0,
 "paper": 55.5, "paper_deviation": null, "status": "not run"},
{"section": "450_points", "row": "a|b", "column": "64", "measured": null, "deviation": null, "seeds": 0,
 "paper": null, "paper_deviation": null, "status": "3 diverged"}]}"#;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(folder).args(arguments);
    command.output().expect("the binary starts")
}

/// Runs and demands an exit code; returns standard output and standard error.
#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = run(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
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

fn write(path: PathBuf, content: &str) {
    let folder = path.parent().expect("a folder");
    fs::create_dir_all(folder).expect("a writable folder");
    fs::write(path, content).expect("a writable folder");
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A folder whose `runs/grid` is a real sweep of 17 trials, one of them diverged.
fn swept() -> tempfile::TempDir {
    let folder = temporary();
    write(folder.path().join("grid.toml"), GRID);
    expect(folder.path(), &["sweep", "grid.toml"], 0);
    folder
}

/// Scores of a trial that `runs/grid` has, too.
fn align(folder: &Path) {
    let config =
        "[data]\ntrain_points = 100\n[network]\nwidth = 8\n[train]\nepochs = 2\nlr = 5\nseed = 1\n";
    write(folder.join("align.toml"), config);
    let arguments = [
        "align",
        "align.toml",
        "--every",
        "1",
        "--out",
        "runs/scores",
    ];
    expect(folder, &arguments, 0);
}

/// The page's data for its script.
fn data(page: &str) -> Value {
    let (_, after) = page
        .split_once("<script type=\"application/json\" id=\"data\">")
        .expect("data");
    let (text, _) = after.split_once("</script>").expect("an end");
    serde_json::from_str(text).expect("JSON")
}

fn groups(page: &str) -> Vec<Value> {
    let all = data(page);
    all["groups"].as_array().expect("a list").clone()
}

/// A trial's folder as the program writes it.
struct Written<'a> {
    rule: &'a str,
    width: usize,
    lr: f64,
    seed: u32,
    epochs: usize,
}

impl Written<'_> {
    fn write(&self, folder: &Path) {
        let Self {
            rule,
            width,
            lr,
            seed,
            epochs,
        } = self;
        let config = format!(
            "[data]\nname = \"digits\"\ntrain_points = 100\n[network]\nwidth = {width}\n\
             [train]\nrule = \"{rule}\"\nlr = {lr:?}\nseed = {seed}\nepochs = {epochs}\n"
        );
        write(folder.join("config.toml"), &config);
        let mut metrics = String::new();
        for epoch in 0..*epochs {
            let loss = 1.0 / (epoch + 1) as f64 + 0.01 * f64::from(*seed);
            // A loss that was not finite.
            let train = if epoch == 1 { Value::Null } else { json!(loss) };
            let line = json!({"event": "epoch", "epoch": epoch, "train_loss": train, "train_accuracy": 0.5,
                "eval_loss": loss, "eval_accuracy": 0.5, "seconds": 0.25});
            writeln!(metrics, "{line}").expect("memory");
        }
        write(folder.join("metrics.jsonl"), &metrics);
        let result = json!({"status": "completed", "best_eval_accuracy": 0.5 + 0.01 * f64::from(*seed),
            "best_epoch": 0, "best_eval_loss": 0.1, "best_train_loss": 0.1, "final_eval_accuracy": 0.5,
            "final_eval_loss": 0.1, "final_train_loss": 0.1, "final_train_accuracy": 0.5, "steps": 10,
            "seconds": 1.0});
        write(folder.join("result.json"), &result.to_string());
    }
}

/// Oracle: the sweep's own trials.csv, with the mean and the deviation of two numbers worked by hand.
#[test]
fn a_sweep_becomes_a_page_with_its_numbers() {
    let folder = swept();
    let here = folder.path();
    align(here);
    let (out, err) = expect(here, &["report", "runs/grid", "runs"], 0);
    assert!(
        out.starts_with("runs/grid/report.html: ") && out.contains(" MB"),
        "{out}"
    );
    assert_eq!(err, "");
    let page = read(here.join("runs/grid/report.html"));
    assert!(
        page.contains("<dd>17: 16 completed, 1 diverged</dd>"),
        "counts"
    );
    let groups = groups(&page);
    assert_eq!(groups.len(), 9);
    let mut table = csv::Reader::from_path(here.join("runs/grid/trials.csv")).expect("a table");
    let head = table.headers().expect("a head").clone();
    let place = |name: &str| head.iter().position(|h| h == name).expect("a column");
    let rows: Vec<csv::StringRecord> = table.records().map(|r| r.expect("a row")).collect();
    for group in &groups {
        let (rule, values) = (&group["rule"], &group["values"]);
        let number = |row: &csv::StringRecord, name: &str| -> f64 {
            row[place(name)].parse().unwrap_or(f64::NAN)
        };
        let same = |row: &&csv::StringRecord| {
            row[place("rule")] == *rule.as_str().expect("a rule")
                && Some(number(row, "width")) == values["network.width"].as_f64()
                && Some(number(row, "lr")) == values["train.lr"].as_f64()
        };
        let own: Vec<_> = rows.iter().filter(same).collect();
        if rule == "align-zero" {
            assert_eq!(group["best"], Value::Null);
            assert_eq!(group["troubles"], "1 diverged");
            continue;
        }
        let best = own.iter().map(|row| number(row, "best_eval_accuracy"));
        let best: Vec<f64> = best.collect();
        let [a, b] = best[..] else {
            panic!("two seeds: {best:?}");
        };
        let close = |value: &Value, right: f64| {
            let value = value.as_f64().expect("a number");
            assert!(
                (value - right).abs() <= 1e-5 * right.abs(),
                "{value} {right}"
            );
        };
        close(&group["best"]["mean"], (a + b) / 2.0);
        close(&group["best"]["deviation"], (a - b).abs() / f64::sqrt(2.0));
        let shown = format!(
            "{:.2} ± {:.2} %",
            50.0 * (a + b),
            100.0 * (a - b).abs() / f64::sqrt(2.0)
        );
        assert!(page.contains(&shown), "{shown}");
        let curve = &group["curve"];
        assert_eq!(curve["epoch"], json!([1, 2]));
        assert_eq!(curve["seeds"], 2);
        let scored =
            rule == "normal" && values["network.width"] == 8.0 && values["train.lr"] == 5.0;
        // Three layers, two epochs; the trial itself is that of the sweep and counts once.
        let scores = group["scores"].as_array().expect("a list").len();
        assert_eq!(scores, if scored { 6 } else { 0 }, "{rule} {values}");
    }
    // One file that asks for nothing: no address is loaded anywhere, and the policy forbids it.
    assert!(page.contains("default-src 'none'"));
    let (own, _) = page.split_once("<script nonce").expect("scripts");
    for part in ["src=", "href=\"http", "url(", "@import"] {
        assert!(!own.contains(part), "{part}");
    }
    for id in [
        "learning",
        "rate",
        "aria-label",
        "scope=\"col\"",
        "scope=\"row\"",
        "lang=\"en\"",
        "class=\"skip\"",
    ] {
        assert!(page.contains(id), "{id}");
    }
}

/// Oracle: the count of folders; copies, links and loops add nothing.
#[test]
fn every_trial_counts_once_and_missing_ones_are_shown() {
    let folder = swept();
    let here = folder.path();
    let copied = Command::new("cp")
        .args(["-r", "runs/grid", "copy"])
        .current_dir(here)
        .status();
    assert!(copied.is_ok_and(|s| s.success()));
    let lost = "digits-conv-w4-align-zero";
    for entry in fs::read_dir(here.join("runs/grid"))
        .expect("a folder")
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(lost) {
            fs::remove_dir_all(entry.path()).expect("a folder");
        }
    }
    std::os::unix::fs::symlink(here.join("runs"), here.join("runs/grid/loop")).expect("a link");
    std::os::unix::fs::symlink("nowhere", here.join("runs/grid/broken")).expect("a link");
    expect(
        here,
        &["report", "runs/grid", "runs", "--out", "one.html"],
        0,
    );
    let one = read(here.join("one.html"));
    assert!(
        one.contains("<dd>17: 16 completed, 1 missing</dd>"),
        "a missing trial"
    );
    assert!(
        one.contains(&format!("<th scope=\"row\">{lost}")),
        "its name"
    );
    let missing = groups(&one)
        .into_iter()
        .find(|g| g["rule"] == "align-zero")
        .expect("a group");
    assert_eq!(missing["values"]["network.width"], 4.0);
    assert_eq!(missing["troubles"], "1 missing");
    // The copy has the lost trial.
    expect(
        here,
        &["report", "runs/grid", "copy", "--out", "two.html"],
        0,
    );
    let two = read(here.join("two.html"));
    assert!(
        two.contains("<dd>17: 16 completed, 1 diverged</dd>"),
        "the copy's trial"
    );
}

/// Oracle: what was damaged here, file by file.
#[test]
fn damage_is_named_and_loses_nothing_else() {
    let folder = temporary();
    let here = folder.path();
    let trial = |name: &str, seed: u32| {
        let trial = Written {
            rule: "fa",
            width: 4,
            lr: 1.0,
            seed,
            epochs: 3,
        };
        trial.write(&here.join("runs").join(name));
        here.join("runs").join(name)
    };
    trial("sound", 1);
    write(trial("config", 2).join("config.toml"), "[train]\nrul = 3\n");
    write(trial("result", 3).join("result.json"), "{\"status\": ");
    let metrics = trial("metrics", 4).join("metrics.jsonl");
    let lines = read(metrics.clone());
    write(metrics, &format!("torn {HOSTILE}\n{lines}"));
    write(
        trial("scores", 5).join("alignment.csv"),
        "epoch,step,layer,score,score_permuted\n0,1,1,much,0\n",
    );
    write(trial("env", 6).join("env.json"), "[]");
    let failed = json!({"status": "failed", "message": HOSTILE, "best_eval_accuracy": null, "best_epoch": null,
        "best_eval_loss": null, "best_train_loss": null, "final_eval_accuracy": null, "final_eval_loss": null,
        "final_train_loss": null, "final_train_accuracy": null, "steps": 0, "seconds": 0.0});
    write(trial("failed", 7).join("result.json"), &failed.to_string());
    fs::remove_file(trial("stopped", 8).join("result.json")).expect("a file");
    write(here.join("runs/paper/comparison.json"), "{}");
    write(here.join("runs/sweep.json"), "null");
    let (_, err) = expect(here, &["report", "runs"], 0);
    let page = read(here.join("runs/report.html"));
    let damaged = [
        "config/config.toml",
        "result/result.json",
        "metrics/metrics.jsonl",
        "scores/alignment.csv",
        "env/env.json",
        "paper/comparison.json",
        "sweep.json",
    ];
    assert_eq!(err.matches("warning: ").count(), damaged.len(), "{err}");
    for file in damaged {
        assert!(err.contains(file), "{file}: {err}");
        assert!(page.contains(file), "{file}");
    }
    assert!(
        page.contains("<dd>8: 4 completed, 3 failed, 1 interrupted</dd>"),
        "counts"
    );
    assert!(
        !page.contains("<script>window.owned") && !page.contains("<img src=x"),
        "hostile text"
    );
    assert!(
        page.contains("&lt;script&gt;window.owned"),
        "the message is shown"
    );
    let groups = groups(&page);
    let fa = groups
        .iter()
        .find(|g| !g["best"].is_null())
        .expect("a group");
    // Seeds 1, 4, 5, 6 completed: 0.51, 0.54, 0.55, 0.56.
    assert_eq!(
        fa["best"],
        json!({"mean": 0.54, "deviation": 0.0216025, "seeds": 4})
    );
    assert_eq!(fa["troubles"], "2 failed, 1 interrupted");
    // The loss that was not finite is no number, and the curve goes on.
    assert_eq!(fa["curve"]["train_loss"][1], Value::Null);
    assert!(fa["curve"]["train_loss"][2].is_number());
}

/// Oracle: written by hand after the Markdown and booktabs manuals.
#[test]
fn comparisons_as_text() {
    let folder = temporary();
    let here = folder.path();
    write(here.join("paper/comparison.json"), COMPARISON);
    let (out, _) = expect(here, &["report", "paper", "--markdown"], 0);
    let markdown = "### table9: Rules &amp; widths (450\\_points)

Best accuracy over epochs, %: measured / paper (difference). 2 seeds; 100 % cpu, lr #1.

| rule / width | 8 | 64 |
| --- | ---: | ---: |
| normal | 62.96 ± 0.40 / 63.10 ± 0.20 (−0.14) | 71.00 / 70.50 (+0.50), 2 diverged |
| a\\|b | not run / 55.50 | 3 diverged |
";
    assert_eq!(out, markdown);
    let (out, _) = expect(here, &["report", "paper", "--latex"], 0);
    let latex = "\\begin{table}
  \\centering
  \\caption{table9: Rules \\& widths (450\\_points). Best accuracy over epochs, \\%: measured / paper (difference). \
2 seeds; 100 \\% cpu, lr \\#1.}
  \\begin{tabular}{lrr}
    \\toprule
    rule / width & 8 & 64 \\\\
    \\midrule
    normal & 62.96 $\\pm$ 0.40 / 63.10 $\\pm$ 0.20 ($-$0.14) & 71.00 / 70.50 (+0.50), 2 diverged \\\\
    a\\textbar{}b & not run / 55.50 & 3 diverged \\\\
    \\bottomrule
  \\end{tabular}
\\end{table}
";
    assert_eq!(out, latex);
    assert!(!here.join("paper/report.html").exists());
    expect(here, &["report", "paper"], 0);
    let page = read(here.join("paper/report.html"));
    let cell = "<td class=\"number\">62.96 ± 0.40 <span class=\"paper\">paper 63.10 ± 0.20</span> \
        <span class=\"difference\">−0.14</span></td>";
    assert!(page.contains(cell), "{cell}");
    assert!(
        page.contains("<td class=\"number\">not run <span class=\"paper\">paper 55.50</span></td>")
    );
    assert!(page.contains("<td class=\"number\">3 diverged</td>"));
}

/// Oracle: a stand-in for the desktop's opener that writes down what it is given.
#[test]
fn exit_codes_and_the_opener() {
    let folder = temporary();
    let here = folder.path();
    fs::create_dir(here.join("empty")).expect("a folder");
    write(here.join("file"), "");
    let (_, err) = expect(here, &["report", "nowhere"], 1);
    assert!(err.contains("nowhere does not exist"), "{err}");
    let (_, err) = expect(here, &["report", "empty"], 1);
    assert!(err.contains("empty holds no run"), "{err}");
    let (_, err) = expect(here, &["report", "file"], 1);
    assert!(err.contains("file is no folder"), "{err}");
    expect(here, &["report"], 2);
    expect(here, &["report", "empty", "--markdown", "--latex"], 2);
    expect(here, &["report", "empty", "--markdown", "--open"], 2);
    let trial = Written {
        rule: "fa",
        width: 4,
        lr: 1.0,
        seed: 1,
        epochs: 2,
    };
    trial.write(&here.join("runs/one"));
    let (_, err) = expect(here, &["report", "runs", "empty"], 1);
    assert!(err.contains("empty holds no run"), "{err}");
    let (_, err) = expect(here, &["report", "runs", "--out", "no/such/report.html"], 1);
    assert!(err.contains("cannot write no/such/report.html"), "{err}");
    // The run folder itself, and as `.`.
    expect(here, &["report", "runs/one", "--out", "one.html"], 0);
    expect(
        &here.join("runs/one"),
        &["report", ".", "--out", "../../two.html"],
        0,
    );
    let number = |name: &str| groups(&read(here.join(name)));
    assert_eq!(number("one.html"), number("two.html"));

    if !cfg!(target_os = "linux") {
        eprintln!("skipped: the opener has another name here");
        return;
    }
    let opener = here.join("bin/xdg-open");
    write(
        opener.clone(),
        "#!/bin/sh\nprintf %s \"$1\" > opened.part && mv opened.part opened\n",
    );
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&opener, executable).expect("a writable folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(here).args(["report", "runs", "--open"]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", here.join("bin").display()));
    let output = command.output().expect("the binary starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for _ in 0..100 {
        if here.join("opened").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(read(here.join("opened")).ends_with("runs/report.html"));
}

/// 300 trials of 500 epochs: four rules, five widths, five learning rates, three seeds.
fn three_hundred(folder: &Path) {
    for rule in ["normal", "fa", "dfa", "align-ada"] {
        for width in [4, 8, 16, 32, 64] {
            for lr in [0.1, 0.3, 1.0, 3.0, 10.0] {
                for seed in 1..=3 {
                    let trial = Written {
                        rule,
                        width,
                        lr,
                        seed,
                        epochs: 500,
                    };
                    trial.write(&folder.join(format!("runs/{rule}-{width}-{lr}-{seed}")));
                }
            }
        }
    }
}

/// Oracle: the trials as they were written; the size of the page without them.
#[test]
fn three_hundred_trials_make_a_small_page() {
    let folder = temporary();
    let here = folder.path();
    three_hundred(here);
    expect(here, &["report", "runs"], 0);
    let page = read(here.join("runs/report.html"));
    assert!(page.contains("<dd>300: 300 completed</dd>"));
    let groups = groups(&page);
    assert_eq!(groups.len(), 100);
    let mut chosen = 0;
    for group in &groups {
        assert_eq!(
            group["best"],
            json!({"mean": 0.52, "deviation": 0.01, "seeds": 3})
        );
        let epochs = group["curve"]["epoch"].as_array().expect("a list");
        assert_eq!(epochs.len(), 400);
        assert_eq!((&epochs[0], &epochs[399]), (&json!(1), &json!(500)));
        // The mean over seeds 1 to 3 of 1 + seed/100.
        assert_eq!(group["curve"]["eval_loss"][0], json!(1.02));
        chosen += usize::from(group["chosen"] == true);
    }
    assert_eq!(chosen, 20, "one learning rate for each rule and width");
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    in_browser(
        &here.join("runs/report.html"),
        &json!({"series": {"width": 4, "lr": 4, "curves": 8, "seconds": 4}, "rule": "dfa"}),
    );
}

/// Oracle: the sweep's rules, counted by hand.
#[test]
fn a_page_in_a_real_browser() {
    let folder = swept();
    let here = folder.path();
    align(here);
    let trial = Written {
        rule: "fa",
        width: 8,
        lr: 1.0,
        seed: 1,
        epochs: 2,
    };
    let hostile = here
        .join("runs")
        .join("<img src=x onerror='window.owned=1'>");
    trial.write(&hostile);
    let result = json!({"status": "failed", "message": HOSTILE, "steps": 0, "seconds": 0.0});
    write(hostile.join("result.json"), &result.to_string());
    let config = read(hostile.join("config.toml"));
    write(
        hostile.join("config.toml"),
        &format!("{config}[run]\nout = {HOSTILE:?}\n"),
    );
    // Another data set, with a number of training points of its own.
    for width in [4, 8] {
        let sequences = here.join(format!("runs/add-{width}"));
        let trial = Written {
            rule: "normal",
            width,
            lr: 1.0,
            seed: 1,
            epochs: 2,
        };
        trial.write(&sequences);
        let config = read(sequences.join("config.toml"));
        let config = config
            .replace("digits", "add-task")
            .replace("= 100", "= 300");
        write(sequences.join("config.toml"), &config);
    }
    let title = COMPARISON.replace("Rules & widths", HOSTILE);
    write(here.join("runs/paper/comparison.json"), &title);
    expect(here, &["report", "runs"], 0);
    // Width: normal and align-ada. Curves at width 8: those and fa, held-out and training.
    // Scores: normal at width 8, measured and permuted; over time its three layers.
    let series = json!({"width": 2, "lr": 2, "curves": 6, "alignment-layers": 2, "alignment-time": 3, "seconds": 3});
    in_browser(
        &here.join("runs/report.html"),
        &json!({"series": series, "rule": "normal"}),
    );
}

/// Looks at a page with Chromium, where there is one.
#[track_caller]
fn in_browser(page: &Path, expected: &Value) {
    let wish = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let python = wish("SANSPROP_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let folder = temporary();
    let file = folder.path().join("expected.json");
    write(file.clone(), &expected.to_string());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report_browser.py");
    let output = Command::new(&python)
        .arg(script)
        .arg(page)
        .arg(file)
        .output();
    let (code, text) = match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            (
                output.status.code(),
                String::from_utf8_lossy(&text).into_owned(),
            )
        }
        Err(e) => (Some(77), format!("{python}: {e}")),
    };
    if code == Some(77) {
        eprintln!("skipped: {}", text.trim());
        let required = wish("SANSPROP_REQUIRE_BROWSER").is_some_and(|v| v == "1");
        assert!(!required, "SANSPROP_REQUIRE_BROWSER is set, and {text}");
        return;
    }
    assert_eq!(code, Some(0), "{text}");
}
