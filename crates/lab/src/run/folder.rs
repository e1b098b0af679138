//! One run's folder and its files, each written whole or not at all.

use crate::config::Config;
use safetensors::tensor::{Dtype, TensorView};
use sansprop::cohort::NamedTensor;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Version of the files in a run folder.
const FORMAT: u32 = 1;

/// Why a run folder cannot be written.
#[derive(Debug, Error)]
pub enum RunError {
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds something that is not a run.
    #[error("{} is not empty and holds no sansprop run (no config.toml); choose another --out", .0.display())]
    Foreign(PathBuf),
    /// The folder holds a run and nobody asked to replace it.
    #[error("{} holds an earlier run; choose another --out, or --force to replace it", .0.display())]
    Occupied(PathBuf),
}

/// What is recorded of the machine and the program.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    format: u32,
    version: &'static str,
    device: String,
    instruction_set: String,
    threads: usize,
    precision: &'static str,
    parameters: usize,
    data: String,
    started: String,
}

impl Environment {
    /// Describes this process, now.
    pub fn now(
        device: String,
        instruction_set: String,
        threads: usize,
        precision: &'static str,
        parameters: usize,
        data: &str,
    ) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            device,
            instruction_set,
            threads,
            precision,
            parameters,
            data: data.into(),
            started: jiff::Timestamp::now().to_string(),
        }
    }
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder, or with `replace` takes over one that holds an earlier run.
    ///
    /// # Errors
    /// The folder cannot be made; it holds other files; it holds a run and `replace` is false.
    pub fn create(path: &Path, replace: bool) -> Result<Self, RunError> {
        let folder = Self { path: path.into() };
        let error = |source| RunError::Write {
            path: path.into(),
            source,
        };
        fs::create_dir_all(path).map_err(error)?;
        if fs::read_dir(path).map_err(error)?.next().is_none() {
            return Ok(folder);
        }
        if !folder.file("config.toml").exists() {
            return Err(RunError::Foreign(path.into()));
        }
        if !replace {
            return Err(RunError::Occupied(path.into()));
        }
        for name in ["metrics.jsonl", "final.safetensors", "initial.safetensors"] {
            match fs::remove_file(folder.file(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(error(e)),
                _ => {}
            }
        }
        Ok(folder)
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's place in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the config and the environment.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn describe(&self, config: &Config, environment: &Environment) -> Result<(), RunError> {
        self.write("config.toml", config.to_toml().as_bytes())?;
        let mut json = serde_json::to_vec_pretty(environment).expect("plain strings and numbers");
        json.push(b'\n');
        self.write("env.json", &json)
    }

    /// Writes tensors with the number of updates done in the metadata key `step`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, name: &str, tensors: &[NamedTensor], step: u64) -> Result<(), RunError> {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|t| t.values.iter().flat_map(|v| v.to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
                .expect("a tensor has as many values as its shape says");
            (tensor.name.as_str(), view)
        });
        let metadata = HashMap::from([("step".to_string(), step.to_string())]);
        let file = safetensors::serialize(views, Some(metadata))
            .expect("names are distinct and sizes fit in memory");
        self.write(name, &file)
    }

    /// Writes a file under another name, syncs it, and renames it into place.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), RunError> {
        write_whole(&self.file(name), content)
    }
}

/// Writes a file under a temporary name beside it, syncs it, and renames it into place.
///
/// # Errors
/// The file cannot be written; what stood there before is untouched.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), RunError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let result = File::create(&partial).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    });
    result.map_err(|source| {
        // The error that is reported is the first one.
        let _ = fs::remove_file(&partial);
        RunError::Write {
            path: path.into(),
            source,
        }
    })
}
