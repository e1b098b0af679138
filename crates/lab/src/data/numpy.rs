//! The user's own arrays: `x_train`, `y_train` and, if there is a test set, `x_test`, `y_test`,
//! as one `.npz` file or as `.npy` files in a folder.
//!
//! Images are `[n, height, width, channel]`, `[n, height, width]` or `[n, feature]` (each then an
//! image of 1×1), uint8 (255 stands for 1) or float32 or float64 (used as they are). Labels are
//! integers `[n]` or `[n, 1]`; the classes are 0 to the largest label of both parts.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use sansprop::images::{ImageShape, Images, ImagesError, Pixels};
use zip::ZipArchive;
use zip::result::ZipError;

use super::known::Known;
use super::locate::{missing, read_error};
use super::npy::{self, Header, Values};
use super::{DataError, DataSet};

/// Larger labels are taken for an error: the output layer has one unit a class.
const MOST_CLASSES: usize = 1 << 16;

/// The opened npz file or the folder.
pub(super) enum Arrays {
    Npz(String, ZipArchive<BufReader<File>>),
    Npy(PathBuf),
}

/// Images and labels of one part, with the names of their arrays.
struct Part {
    images: String,
    shape: ImageShape,
    values: Values,
    labels: Vec<u32>,
}

impl Arrays {
    /// Opens `base`, which must be an npz file.
    pub(super) fn npz(set: &Known, base: &Path) -> Result<Self, DataError> {
        if !base.is_file() {
            let file = "an npz file, named by its own path";
            return Err(missing(set, &[file], vec![base.to_path_buf()]));
        }
        Self::open_npz(base)
    }

    /// Opens an npz file.
    pub(super) fn open_npz(path: &Path) -> Result<Self, DataError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| read_error(&name, e))?;
        match ZipArchive::new(BufReader::new(file)) {
            Ok(archive) => Ok(Arrays::Npz(name, archive)),
            Err(e) => Err(DataError::Damaged {
                file: name,
                problem: format!("no whole npz (zip) archive: {e}"),
            }),
        }
    }

    /// Checks that `base` is a folder that holds `x_train.npy`.
    pub(super) fn npy(set: &Known, base: &Path) -> Result<Self, DataError> {
        if base.join("x_train.npy").is_file() {
            Ok(Arrays::Npy(base.to_path_buf()))
        } else {
            Err(missing(set, &["x_train.npy"], vec![base.to_path_buf()]))
        }
    }

    /// Names of the arrays of an npz file.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Arrays::Npz(_, archive) => archive
                .file_names()
                .filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned()))
                .collect(),
            Arrays::Npy(_) => Vec::new(),
        }
    }

    fn name(&self) -> String {
        match self {
            Arrays::Npz(name, _) => name.clone(),
            Arrays::Npy(folder) => folder.display().to_string(),
        }
    }

    /// Passes the array's name and header, and a reader of its values, to `take`; none where there
    /// is no such array.
    pub(super) fn with<T>(
        &mut self,
        key: &str,
        take: impl FnOnce(&str, &Header, &mut dyn Read) -> Result<T, DataError>,
    ) -> Result<Option<T>, DataError> {
        match self {
            Arrays::Npz(file, archive) => {
                let name = format!("{file}:{key}");
                let mut reader = match archive.by_name(&format!("{key}.npy")) {
                    Ok(reader) => reader,
                    Err(ZipError::FileNotFound) => return Ok(None),
                    Err(e) => {
                        return Err(DataError::Damaged {
                            file: name,
                            problem: e.to_string(),
                        });
                    }
                };
                let header = npy::header(&mut reader, &name)?;
                take(&name, &header, &mut reader).map(Some)
            }
            Arrays::Npy(folder) => {
                let path = folder.join(format!("{key}.npy"));
                if !path.is_file() {
                    return Ok(None);
                }
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|e| read_error(&name, e))?;
                let mut reader = BufReader::new(file);
                let header = npy::header(&mut reader, &name)?;
                take(&name, &header, &mut reader).map(Some)
            }
        }
    }

    /// Samples and shape of a part by the header of its images; none where the part is absent.
    pub(super) fn peek(&mut self, key: &str) -> Result<Option<(usize, ImageShape)>, DataError> {
        self.with(key, |name, header, _| image_shape(name, header))
    }

    /// Reads one part; none where both its arrays are absent.
    fn part(&mut self, part: &str) -> Result<Option<Part>, DataError> {
        let keys = ["x", "y"].map(|axis| format!("{axis}_{part}"));
        let images = self.with(&keys[0], |name, header, reader| {
            let (samples, shape) = image_shape(name, header)?;
            let values = npy::pixels(header, reader, name)?;
            Ok((name.to_string(), samples, shape, values))
        })?;
        let labels = self.with(&keys[1], |name, header, reader| {
            if !matches!(header.shape[..], [_] | [_, 1]) {
                return Err(DataError::Array {
                    file: name.to_string(),
                    problem: format!("labels of shape {:?}; they should be [n]", header.shape),
                });
            }
            let labels = npy::integers(header, reader, name)?;
            Ok((name.to_string(), checked(labels, name)?))
        })?;
        let absent = |key: &str| DataError::Damaged {
            file: self.name(),
            problem: format!("there is no array {key}"),
        };
        let ((images, samples, shape, values), (labels_file, labels)) = match (images, labels) {
            (Some(images), Some(labels)) => (images, labels),
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(absent(&keys[0])),
            (Some(_), None) => return Err(absent(&keys[1])),
        };
        if samples != labels.len() {
            return Err(DataError::Counts {
                images_file: images,
                images: samples,
                labels_file,
                labels: labels.len(),
            });
        }
        Ok(Some(Part {
            images,
            shape,
            values,
            labels,
        }))
    }
}

/// Samples and image shape by an array's shape.
fn image_shape(name: &str, header: &Header) -> Result<(usize, ImageShape), DataError> {
    let (samples, height, width, channels) = match header.shape[..] {
        ref sizes if sizes.contains(&0) => {
            return Err(DataError::Images {
                file: name.to_string(),
                error: ImagesError::Empty,
            });
        }
        [n, features] => (n, 1, 1, features),
        [n, height, width] => (n, height, width, 1),
        [n, height, width, channels] => (n, height, width, channels),
        _ => {
            return Err(DataError::Array {
                file: name.to_string(),
                problem: format!(
                    "images of shape {:?}; it should be [n, height, width, channels], [n, height, width] or [n, features]",
                    header.shape
                ),
            });
        }
    };
    let shape = ImageShape {
        height,
        width,
        channels,
    };
    Ok((samples, shape))
}

fn checked(labels: Vec<i128>, name: &str) -> Result<Vec<u32>, DataError> {
    labels
        .into_iter()
        .enumerate()
        .map(|(sample, label)| match u32::try_from(label) {
            Ok(l) if (l as usize) < MOST_CLASSES => Ok(l),
            _ => Err(DataError::Label {
                file: name.to_string(),
                sample,
                label,
                classes: MOST_CLASSES,
            }),
        })
        .collect()
}

pub(super) fn load_npz(set: &Known, base: &Path) -> Result<DataSet, DataError> {
    load(set, Arrays::npz(set, base)?)
}

pub(super) fn load_npy(set: &Known, base: &Path) -> Result<DataSet, DataError> {
    load(set, Arrays::npy(set, base)?)
}

fn load(set: &Known, mut arrays: Arrays) -> Result<DataSet, DataError> {
    let source = arrays.name();
    let train = arrays.part("train")?.ok_or_else(|| DataError::Damaged {
        file: source.clone(),
        problem: "there are no arrays x_train and y_train".to_string(),
    })?;
    let test = arrays.part("test")?;
    if let Some(test) = &test
        && test.shape != train.shape
    {
        let dims = |s: ImageShape| [s.height, s.width, s.channels];
        return Err(DataError::Shapes {
            train_file: train.images,
            train: dims(train.shape),
            test_file: test.images.clone(),
            test: dims(test.shape),
        });
    }
    let labels = || {
        train
            .labels
            .iter()
            .chain(test.iter().flat_map(|t| &t.labels))
    };
    let classes = labels().max().map_or(0, |&l| l as usize + 1);
    Ok(DataSet {
        name: set.name.to_string(),
        source,
        train: images(train, classes)?,
        test: test.map(|t| images(t, classes)).transpose()?,
    })
}

fn images(part: Part, classes: usize) -> Result<Images, DataError> {
    let pixels = match part.values {
        Values::Bytes(values) => Pixels::Bytes {
            values,
            divisor: 255.0,
        },
        Values::Floats(values) => Pixels::Floats(values),
    };
    Images::new(part.shape, classes, pixels, part.labels).map_err(|error| DataError::Images {
        file: part.images,
        error,
    })
}
