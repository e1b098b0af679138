//! `sansprop report`.

use crate::cli::{Failure, print};
use crate::report::{
    Collection, Groups, Table, collect, comparison_tables, latex, markdown, page, summary_table,
};
use crate::run::write_whole;
use clap::Args;
use std::path::PathBuf;

/// Make a page of tables and figures from run folders, to read, to print and to share.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop report runs/grid --open
  sansprop report runs/grid runs/table6 --out report.html
  sansprop report runs/grid --markdown > summary.md
  sansprop report runs/table6 --latex > table6.tex

All runs, sweeps, comparison.json and alignment.csv below the folders are shown; a trial that lies there twice
counts once. The page is one file that needs no network: tables beside the paper's numbers, a summary over seeds,
figures (SVG and CSV can be saved from it), every config, device and seed, and every trial that did not complete.
A damaged file is named, on the page and here, and the rest is shown.")]
pub(crate) struct Arguments {
    /// Folders of runs, sweeps or experiments.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// The page; default: report.html in the first folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the page in the browser.
    #[arg(long)]
    open: bool,
    /// Print the tables in Markdown, and write no page.
    #[arg(long, conflicts_with_all = ["latex", "out", "open"])]
    markdown: bool,
    /// Print the tables in LaTeX (package booktabs), and write no page.
    #[arg(long, conflicts_with_all = ["out", "open"])]
    latex: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let collection = collect(&arguments.folders)?;
    for problem in &collection.problems {
        eprintln!("warning: {problem}");
    }
    let groups = Groups::new(&collection);
    if arguments.markdown {
        return print(&tables(&collection, &groups, markdown));
    }
    if arguments.latex {
        return print(&tables(&collection, &groups, latex));
    }
    let default = || arguments.folders[0].join("report.html");
    let path = arguments.out.clone().unwrap_or_else(default);
    let html = page(&collection, &groups, &arguments.folders);
    write_whole(&path, html.as_bytes())?;
    let megabytes = html.len() as f64 / 1e6;
    print(&format!("{}: {megabytes:.1} MB\n", path.display()))?;
    if arguments.open {
        open::that_detached(&path)
            .map_err(|e| Failure::Failed(format!("cannot open {}: {e}", path.display())))?;
    }
    Ok(())
}

/// All comparisons, then the summary if there are trials.
fn tables(
    collection: &Collection,
    groups: &Groups<'_>,
    format: impl Fn(&Table) -> String,
) -> String {
    let mut tables: Vec<Table> = collection
        .comparisons
        .iter()
        .flat_map(comparison_tables)
        .collect();
    tables.extend((!groups.groups.is_empty()).then(|| summary_table(groups)));
    let tables: Vec<String> = tables.iter().map(format).collect();
    tables.join("\n")
}
