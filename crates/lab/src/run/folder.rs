//! One run's folder and its files, each written whole or not at all.

use super::EventFile;
use crate::config::Config;
use safetensors::tensor::{Dtype, TensorView};
use sansprop::cohort::NamedTensor;
use sansprop_kernels::LayerKernels;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
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
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is damaged: {message}; restore it or delete it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The folder's config is not the one that its trial has.
    #[error("{} is not the config of this trial (`{key}` differs): it was edited after the trial began. Restore it, or delete the folder to train anew", path.display())]
    Edited {
        /// The config in the folder.
        path: PathBuf,
        /// The first key that differs.
        key: String,
    },
    /// The checkpoint was made where the initial draws had other bits.
    #[error("{} holds other initial weights than this machine draws: the trial cannot go on here. Delete the folder to train anew", .0.display())]
    OtherDraws(PathBuf),
    /// Another worker took the trial over.
    #[error("{} was taken over by another worker", .0.display())]
    TakenOver(PathBuf),
    /// The folder holds something that is not a run.
    #[error("{} is not empty and holds no sansprop run (no config.toml); choose another --out", .0.display())]
    Foreign(PathBuf),
    /// The folder holds a run and nobody asked to replace it.
    #[error("{} holds an earlier run; choose another --out, --resume to go on with it, or --force to replace it", .0.display())]
    Occupied(PathBuf),
}

/// What is recorded of the machine and the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Environment {
    format: u32,
    /// Version of the program.
    pub version: String,
    /// What computes.
    pub device: String,
    /// Instruction set of the kernels.
    pub instruction_set: String,
    /// Threads of the process.
    pub threads: usize,
    /// Arithmetic.
    pub precision: String,
    /// By what each layer is computed; none in folders of earlier versions.
    #[serde(default)]
    pub kernels: Vec<LayerRecord>,
    /// Weights and biases of the network.
    pub parameters: usize,
    /// Where the data came from.
    pub data: String,
    /// When the run began, or went on.
    pub started: String,
}

/// By what one layer is computed, as [`LayerKernels`] says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerRecord {
    layer: String,
    forward: String,
    feedback: String,
    weight_gradient: String,
}

impl LayerRecord {
    /// Of the layer of that name.
    pub fn new(layer: String, kernels: LayerKernels) -> Self {
        Self {
            layer,
            forward: kernels.forward,
            feedback: kernels.feedback,
            weight_gradient: kernels.weight_gradient,
        }
    }
}

impl Environment {
    /// Describes this process, now.
    pub fn now(
        device: String,
        instruction_set: String,
        threads: usize,
        precision: &'static str,
        kernels: Vec<LayerRecord>,
        parameters: usize,
        data: &str,
    ) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            device,
            instruction_set,
            threads,
            precision: precision.into(),
            kernels,
            parameters,
            data: data.into(),
            started: jiff::Timestamp::now().to_string(),
        }
    }

    /// Reads a run folder's `env.json`; none where there is none.
    ///
    /// # Errors
    /// It cannot be read or is no such file.
    pub fn read(folder: &Path) -> Result<Option<Self>, RunError> {
        read_json(&folder.join("env.json"))
    }
}

/// Reads a JSON file; none where there is none.
///
/// # Errors
/// It cannot be read or is not what is expected.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RunError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(RunError::Read {
                path: path.into(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| RunError::Damaged {
            path: path.into(),
            message: e.to_string(),
        })
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
        folder.clear()?;
        Ok(folder)
    }

    /// Makes the folder or opens it, whatever a killed run left there.
    ///
    /// # Errors
    /// The folder cannot be made; it holds other files; it holds a run of another config.
    pub fn open(path: &Path, config: &Config) -> Result<Self, RunError> {
        let folder = Self { path: path.into() };
        let error = |source| RunError::Write {
            path: path.into(),
            source,
        };
        fs::create_dir_all(path).map_err(error)?;
        let mut empty = true;
        for entry in fs::read_dir(path).map_err(error)? {
            let entry = entry.map_err(error)?;
            if entry.file_name().to_string_lossy().ends_with(PARTIAL) {
                folder.remove(&entry.file_name().to_string_lossy())?;
            } else {
                empty = false;
            }
        }
        let file = folder.file("config.toml");
        if file.exists() {
            folder.check_config(file, config)?;
        } else if !empty {
            return Err(RunError::Foreign(path.into()));
        }
        Ok(folder)
    }

    /// Whether the config in the folder gives the results that `config` gives.
    fn check_config(&self, path: PathBuf, config: &Config) -> Result<(), RunError> {
        let found = crate::config::load(Some(&path), &[]).map_err(|e| RunError::Damaged {
            path: path.clone(),
            message: e.to_string(),
        })?;
        match config.difference(&found) {
            Some(key) => Err(RunError::Edited { path, key }),
            None => Ok(()),
        }
    }

    /// Removes what an earlier run left, the mark of its end first.
    ///
    /// # Errors
    /// A file stays.
    pub fn clear(&self) -> Result<(), RunError> {
        let names = [
            "result.json",
            "checkpoint.safetensors",
            "metrics.jsonl",
            "final.safetensors",
            "initial.safetensors",
            "alignment.csv",
            "alignment_probes.csv",
            "companion.safetensors",
        ];
        names.into_iter().try_for_each(|name| self.remove(name))?;
        EventFile::remove(self)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), RunError> {
        match fs::remove_file(self.file(name)) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(RunError::Write {
                path: self.file(name),
                source,
            }),
            _ => Ok(()),
        }
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
        self.write(name, &serialized(tensors, step))
    }

    /// Writes the initial weights, or finds that they are those of the run that is taken up again.
    ///
    /// # Errors
    /// The file cannot be written; a run is taken up again and began with other weights.
    pub fn save_initial(&self, tensors: &[NamedTensor], resumed: bool) -> Result<(), RunError> {
        let name = "initial.safetensors";
        let path = self.file(name);
        let bytes = serialized(tensors, 0);
        match fs::read(&path) {
            Ok(found) if resumed && found != bytes => Err(RunError::OtherDraws(path)),
            Ok(found) if found == bytes => Ok(()),
            _ => self.write(name, &bytes),
        }
    }

    /// Writes a file under another name, syncs it, and renames it into place.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), RunError> {
        write_whole(&self.file(name), content)
    }
}

fn serialized(tensors: &[NamedTensor], step: u64) -> Vec<u8> {
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
    safetensors::serialize(views, Some(metadata))
        .expect("names are distinct and sizes fit in memory")
}

/// How names of files end that are not yet in place.
const PARTIAL: &str = ".partial";

/// A name that no other process has, on this machine or another that shares the disk: host, process, start.
pub fn process_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let host = host_name();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanoseconds = since.map_or(0, |d| d.as_nanos());
        format!("{host}-{}-{nanoseconds:x}", std::process::id())
    })
}

/// The letters and digits of this machine's name.
pub(super) fn host_name() -> String {
    let host = gethostname::gethostname();
    let host = host.to_string_lossy();
    host.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Writes a file under a temporary name beside it, syncs it, and renames it into place.
///
/// # Errors
/// The file cannot be written; what stood there before is untouched.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), RunError> {
    write_whole_by(path, path, content)
}

/// As [`write_whole`], where the temporary name begins with `stem` and not with the file's own.
pub(super) fn write_whole_by(stem: &Path, path: &Path, content: &[u8]) -> Result<(), RunError> {
    let mut partial = stem.as_os_str().to_owned();
    // Two workers may write the same file: never into the same temporary one.
    partial.push(format!(".{}{PARTIAL}", process_name()));
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
