//! What can be wrong with a data set.

use std::path::PathBuf;

use sansprop::images::ImagesError;
use sansprop::sequences::SequencesError;
use thiserror::Error;

/// Why a data set was not loaded.
///
/// `file` is a path; for a member of an archive it is `ARCHIVE:MEMBER`, for an array of an npz
/// file `FILE:ARRAY`. Byte counts are counts after decompression.
#[derive(Debug, Error)]
pub enum DataError {
    /// No set has this name.
    #[error("unknown data set `{name}`{}; the known sets are {known}", suggestion(nearest.as_deref()))]
    UnknownSet {
        /// The name asked for.
        name: String,
        /// A known name that is spelt much like it.
        nearest: Option<String>,
        /// All known names.
        known: String,
    },
    /// Files of the set are not there.
    #[error("{}", missing(set, files, folders, note.as_deref(), published))]
    Missing {
        /// The set.
        set: String,
        /// The files looked for.
        files: Vec<String>,
        /// The folders searched.
        folders: Vec<PathBuf>,
        /// Why a folder that was named was not searched.
        note: Option<String>,
        /// Where the set is published; empty for the user's own arrays.
        published: String,
    },
    /// The operating system could not read a file, or it is no sound gzip file.
    #[error("cannot read {file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// What went wrong.
        error: std::io::Error,
    },
    /// An archive or pickle is damaged or is not what its name says.
    #[error("{file} is damaged or not what its name says: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file does not begin with its format's magic number.
    #[error("{file}: bytes 0 to 3 are {actual:#010x}, but {what} begin with {expected:#010x}")]
    Magic {
        /// The file.
        file: String,
        /// What the file should hold.
        what: &'static str,
        /// The format's magic number.
        expected: u32,
        /// What the file has in its place.
        actual: u32,
    },
    /// A file is shorter or longer than its header says.
    #[error("{file}: {what} should take {expected} bytes, the file has {}", actual_bytes(*expected, *actual))]
    Length {
        /// The file.
        file: String,
        /// The part of the file that is too short or too long.
        what: &'static str,
        /// Bytes it should take.
        expected: u64,
        /// Bytes there are; reading stops at the first one too many.
        actual: u64,
    },
    /// A file of fixed-size records holds none, or ends within one.
    #[error("{file}: {actual} bytes are not a whole number of {record}-byte records, at least one (the last whole record ends at byte {})", actual / record * record)]
    Records {
        /// The file.
        file: String,
        /// Bytes of one record.
        record: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// A label is negative or too large.
    #[error("{file}: label {label} of sample {sample} (counted from 0) is out of range: labels are 0 to {}", classes - 1)]
    Label {
        /// The file.
        file: String,
        /// Index of the sample.
        sample: usize,
        /// Its label.
        label: i128,
        /// Number of classes.
        classes: usize,
    },
    /// A pixel is NaN, infinite or too large for 32-bit floats.
    #[error(
        "{file}: value {value} at index {index} of sample {sample} (both counted from 0) is not a finite 32-bit number"
    )]
    Pixel {
        /// The file.
        file: String,
        /// Index of the sample.
        sample: usize,
        /// Index within the sample, in the order row, column, channel.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Images and labels differ in number.
    #[error("{images_file} holds {images} images, but {labels_file} holds {labels} labels")]
    Counts {
        /// File of the images.
        images_file: String,
        /// Images in it.
        images: usize,
        /// File of the labels.
        labels_file: String,
        /// Labels in it.
        labels: usize,
    },
    /// Training and test images differ in shape.
    #[error(
        "{train_file} holds images of {}, but {test_file} of {} (height×width×channels)",
        by(train),
        by(test)
    )]
    Shapes {
        /// File of the training images.
        train_file: String,
        /// Their height, width and channels.
        train: [usize; 3],
        /// File of the test images.
        test_file: String,
        /// Their height, width and channels.
        test: [usize; 3],
    },
    /// An array is of a type or shape that is not supported.
    #[error("{file}: {problem}")]
    Array {
        /// The file.
        file: String,
        /// What it holds and what it should hold.
        problem: String,
    },
    /// The set does not suit the network.
    #[error("data set `{set}` holds {holds}: it is for {network}")]
    Kind {
        /// The set.
        set: String,
        /// What it holds.
        holds: &'static str,
        /// What it is for.
        network: &'static str,
    },
    /// The values were read but do not make a set of sequences.
    #[error("{file}: {error}")]
    Sequences {
        /// The file.
        file: String,
        /// What is wrong with them.
        error: SequencesError,
    },
    /// The values were read but do not make an image set.
    #[error("{file}: {error}")]
    Images {
        /// The file.
        file: String,
        /// What is wrong with them.
        error: ImagesError,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

fn by(shape: &[usize; 3]) -> String {
    format!("{}×{}×{}", shape[0], shape[1], shape[2])
}

fn actual_bytes(expected: u64, actual: u64) -> String {
    if actual > expected {
        "more".to_string()
    } else {
        format!("only {actual}")
    }
}

fn missing(
    set: &str,
    files: &[String],
    folders: &[PathBuf],
    note: Option<&str>,
    published: &str,
) -> String {
    let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let mut text = format!(
        "data set `{set}` not found: looked for {} in {}",
        files.join(", "),
        folders.join(", "),
    );
    if let Some(note) = note {
        text += &format!(" ({note})");
    }
    if !published.is_empty() {
        text += &format!("; it is published at {published}");
    }
    text + "; say where it lies with `--set data.path=…` or the environment variable SANSPROP_DATA"
}
