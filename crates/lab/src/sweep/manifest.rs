//! `sweep.json`: which trials a folder is for, so that its state can be told without the data.

use super::trials::Trial;
use crate::run::{RunError, write_whole};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Version of the file's content.
const FORMAT: u32 = 1;

const NAME: &str = "sweep.json";

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The sweep file as it was read last.
    pub(crate) file: String,
    /// Ids of all trials.
    pub(crate) trials: Vec<String>,
}

impl Manifest {
    /// Of a sweep read from `file`.
    pub(crate) fn new(file: &Path, trials: &[Trial]) -> Self {
        Self {
            format: FORMAT,
            file: file.display().to_string(),
            trials: trials.iter().map(|t| t.id.clone()).collect(),
        }
    }

    /// Writes the file into the sweep's folder.
    pub(crate) fn save(&self, out: &Path) -> Result<(), RunError> {
        let mut json = serde_json::to_vec_pretty(self).expect("plain strings and numbers");
        json.push(b'\n');
        write_whole(&out.join(NAME), &json)
    }

    /// Reads the file of a sweep's folder.
    pub(crate) fn load(out: &Path) -> Result<Self, RunError> {
        let path = out.join(NAME);
        let bytes = fs::read(&path).map_err(|source| RunError::Read {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&bytes).map_err(|e| RunError::Damaged {
            path,
            message: e.to_string(),
        })
    }
}
