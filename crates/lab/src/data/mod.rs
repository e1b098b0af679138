//! Data sets: where they lie, how their files are read, and what is in them.
//!
//! A set is named by [`load`]'s first argument and looked for under one path: the config's
//! `data.path`, else the environment variable `SANSPROP_DATA`, else `./data`. The path may be the
//! folder that holds all sets, a set's own folder, or (CIFAR-10's archive, npz) a file.
//!
//! | name | files |
//! |---|---|
//! | `digits` | none: the 1,797 UCI digits are part of the program |
//! | `cifar-10` | `cifar-10-batches-bin/`, `cifar-10-batches-py/`, or either's `.tar.gz`, read in place |
//! | `kmnist`, `fashion-mnist`, `mnist` | IDX files, raw or `.gz`, flat or in torchvision's `NAME/raw` |
//! | `npz` | one file with `x_train`, `y_train` and, if there is a test set, `x_test`, `y_test` |
//! | `npy` | a folder with the same arrays as `x_train.npy` and so on |
//! | `add-task` | none: sequences that the program makes, see [`add_task_set`] |
//!
//! Nothing is downloaded, nothing is written, and no reader changes the order of the samples.
//! The readers are made for damaged files (every length is checked before it is believed), not for
//! files made by an adversary.

mod cifar;
mod digits;
mod error;
mod idx;
mod known;
mod list;
mod locate;
mod npy;
mod numpy;
mod pickle;
mod sequences;
mod verify;
mod weights;

use std::path::Path;

pub use error::DataError;
pub use known::{names, official_shape};
pub use list::{Entry, list};
use sansprop::images::Images;
pub use sequences::{SequenceSet, add_task_set, load_sequences};
pub use verify::{Report, SplitReport, verify};
pub use weights::{Tensor, load_weights};

/// The set of sequences that the program makes by itself.
pub const ADD_TASK: &str = "add-task";

/// A loaded data set.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSet {
    /// The name it was asked for by.
    pub name: String,
    /// The folder or files it came from.
    pub source: String,
    /// The training images.
    pub train: Images,
    /// The test images; none where the set has no test part.
    pub test: Option<Images>,
}

/// Loads the set `name` from `path` (else `SANSPROP_DATA`, else `./data`).
///
/// `digits` puts all its images into `train`; which of them to hold out is the caller's choice.
///
/// # Errors
/// A name that is not in [`names`], files that are missing (with the folders searched and the
/// address where the set is published), and files whose length, header, labels or pixel values
/// are not what their format says.
pub fn load(name: &str, path: Option<&Path>) -> Result<DataSet, DataError> {
    let known = known::find(name)?;
    let base = locate::base(path);
    match known.format {
        known::Format::Digits => digits::load(),
        known::Format::Cifar10 => cifar::load(known, &base),
        known::Format::Idx { .. } => idx::load(known, &base),
        known::Format::Npz => numpy::load_npz(known, &base),
        known::Format::Npy => numpy::load_npy(known, &base),
        known::Format::AddTask => Err(DataError::Kind {
            set: name.to_string(),
            holds: "sequences",
            network: "a recurrent network (network.kind = \"recurrent\")",
        }),
    }
}
