//! `sansprop data`.

use crate::cli::{Failure, print};
use crate::data::{self, SplitReport};
use crate::table::table;
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::path::PathBuf;

/// Show which data sets are at hand, or read one in full and describe it.
#[derive(Args)]
#[command(after_help = "Examples:
  sansprop data list
  sansprop data list --path /data
  sansprop data verify cifar-10 --path /data")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// All known sets, and whether their files are found.
    #[command(after_help = "Example:\n  sansprop data list --path /data")]
    List(Place),
    /// Read a set in full: counts, classes, pixel range, checksum. Exit code 1 if anything is wrong.
    #[command(after_help = "Example:\n  sansprop data verify cifar-10 --path /data")]
    Verify {
        /// The set; default: every set that is found.
        name: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
struct Place {
    /// Folder, archive or file; default: $SANSPROP_DATA, else ./data.
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.action {
        Action::List(place) => list(place),
        Action::Verify { name, place } => {
            let names = match name {
                Some(name) => vec![name.clone()],
                None => data::list(place.path.as_deref())
                    .into_iter()
                    .filter(|entry| entry.found)
                    .map(|entry| entry.name)
                    .collect(),
            };
            for name in names {
                verify(&name, place)?;
            }
            Ok(())
        }
    }
}

fn list(place: &Place) -> Result<(), Failure> {
    let mut table = table(
        &["set", "found", "train", "test", "image", "classes", "where"],
        2,
    );
    for entry in data::list(place.path.as_deref()) {
        let count = |n: Option<usize>| n.map_or(String::new(), |n| n.to_string());
        let published = entry.published.map_or_else(
            || "your own arrays: --path FILE.npz or a folder of .npy".into(),
            |address| format!("published at {address}"),
        );
        table.add_row([
            entry.name,
            if entry.found { "yes" } else { "no" }.into(),
            count(entry.train),
            count(entry.test),
            entry
                .shape
                .map_or(String::new(), |[h, w, c]| format!("{h}×{w}×{c}")),
            count(entry.classes),
            entry.problem.or(entry.location).unwrap_or(published),
        ]);
    }
    print(&format!("{table}\n"))
}

fn verify(name: &str, place: &Place) -> Result<(), Failure> {
    let report = data::verify(name, place.path.as_deref())?;
    let mut text = format!("{} from {}\n", report.name, report.source);
    let mut part = |what: &str, split: &SplitReport| {
        let [height, width, channels] = split.shape;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "  {what}: {} images of {height}×{width}×{channels}, {} classes\n    images per class {:?}\n    pixels {} to {}, mean {:.6}\n    sha256 {}\n",
            split.samples,
            split.classes,
            split.per_class,
            split.pixel_min,
            split.pixel_max,
            split.pixel_mean,
            split.sha256
        );
    };
    part("training", &report.train);
    if let Some(test) = &report.test {
        part("test", test);
    }
    if report.complete == Some(false)
        && let Some((train, test)) = report.official
    {
        let test = test.map_or(String::new(), |n| format!(" and {n} test images"));
        text += &format!("  not the whole set: as published it has {train} training{test}\n");
    }
    print(&text)
}
