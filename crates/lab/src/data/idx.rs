//! IDX files: MNIST and the sets made to its measure.
//!
//! An IDX file is a big-endian magic number (`0x000008` and the number of dimensions), one 32-bit
//! size a dimension, then the bytes.

use std::io::Read;
use std::path::{Path, PathBuf};

use sansprop::images::{ImageShape, Images, ImagesError, Pixels};

use super::known::{self, Format, Known};
use super::locate::{missing, open, read_header, read_rest};
use super::{DataError, DataSet};

pub(super) const CLASSES: usize = 10;

/// Magic numbers of byte arrays of one and of three dimensions.
const LABELS_MAGIC: u32 = 0x0000_0801;
const IMAGES_MAGIC: u32 = 0x0000_0803;

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The files of a set.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    /// Images, labels.
    pub(super) train: [PathBuf; 2],
    pub(super) test: Option<[PathBuf; 2]>,
}

/// Finds the set in or at `base`: folders with its name first, then `base` itself unless that is
/// another set's folder (the files of all sets have the same names).
pub(super) fn locate(set: &Known, base: &Path) -> Result<Place, DataError> {
    let Format::Idx { folders: own } = set.format else {
        unreachable!("{} is not stored as IDX files", set.name)
    };
    let mut folders = Vec::new();
    for name in own {
        folders.push(base.join(name).join("raw"));
        folders.push(base.join(name));
    }
    let another = owner(base).filter(|&owner| owner != set.name);
    if another.is_none() {
        folders.push(base.join("raw"));
        folders.push(base.to_path_buf());
    }
    let Some(folder) = folders
        .iter()
        .find(|folder| FILES.iter().any(|f| present(folder, f).is_some()))
    else {
        return Err(DataError::Missing {
            set: set.name.to_string(),
            files: FILES.iter().map(|f| format!("{f}[.gz]")).collect(),
            folders,
            note: another.map(|o| format!("not in {} itself: it is {o}'s folder", base.display())),
            published: set.published.to_string(),
        });
    };
    let [train_images, train_labels, test_images, test_labels] = FILES.map(|f| present(folder, f));
    let absent = |file: &str| missing(set, &[&format!("{file}[.gz]")], vec![folder.clone()]);
    Ok(Place {
        folder: folder.clone(),
        train: [
            train_images.ok_or_else(|| absent(FILES[0]))?,
            train_labels.ok_or_else(|| absent(FILES[1]))?,
        ],
        test: match (test_images, test_labels) {
            (Some(images), Some(labels)) => Some([images, labels]),
            (None, None) => None,
            (None, Some(_)) => return Err(absent(FILES[2])),
            (Some(_), None) => return Err(absent(FILES[3])),
        },
    })
}

/// The file, else its gzipped form.
fn present(folder: &Path, file: &str) -> Option<PathBuf> {
    [folder.join(file), folder.join(format!("{file}.gz"))]
        .into_iter()
        .find(|path| path.is_file())
}

/// The set that a folder, or the parent of a folder `raw`, is named for.
fn owner(folder: &Path) -> Option<&'static str> {
    let folder = match folder.parent() {
        Some(parent) if folder.ends_with("raw") => parent,
        _ => folder,
    };
    let named = |set: &&Known| match set.format {
        Format::Idx { folders } => folders.iter().any(|name| folder.ends_with(name)),
        _ => false,
    };
    known::all().iter().find(named).map(|set| set.name)
}

pub(super) fn load(set: &Known, base: &Path) -> Result<DataSet, DataError> {
    let place = locate(set, base)?;
    let train = read_split(&place.train)?;
    let test = place.test.as_ref().map(read_split).transpose()?;
    if let (Some(test), Some([test_file, _])) = (&test, &place.test)
        && test.shape() != train.shape()
    {
        return Err(DataError::Shapes {
            train_file: place.train[0].display().to_string(),
            train: dims(train.shape()),
            test_file: test_file.display().to_string(),
            test: dims(test.shape()),
        });
    }
    Ok(DataSet {
        name: set.name.to_string(),
        source: place.folder.display().to_string(),
        train,
        test,
    })
}

fn dims(shape: ImageShape) -> [usize; 3] {
    [shape.height, shape.width, shape.channels]
}

/// Opens an image file and reads `[samples, rows, columns]`.
pub(super) fn open_images(path: &Path) -> Result<(Box<dyn Read>, [usize; 3]), DataError> {
    let file = path.display().to_string();
    let mut reader = open(path)?;
    let header: [u8; 16] = read_header(&mut reader, &file, "the header of IDX images")?;
    check_magic(&header, IMAGES_MAGIC, "IDX images", &file)?;
    let size = |i: usize| u32_at(&header, i) as usize;
    Ok((reader, [size(4), size(8), size(12)]))
}

fn read_split([images_path, labels_path]: &[PathBuf; 2]) -> Result<Images, DataError> {
    let images_file = images_path.display().to_string();
    let (mut reader, [samples, height, width]) = open_images(images_path)?;
    if samples == 0 || height == 0 || width == 0 {
        return Err(DataError::Images {
            file: images_file,
            error: ImagesError::Empty,
        });
    }
    let expected =
        u64::try_from(samples as u128 * height as u128 * width as u128).unwrap_or(u64::MAX);
    let values = read_rest(&mut reader, &images_file, "the pixels", expected)?;

    let labels_file = labels_path.display().to_string();
    let mut reader = open(labels_path)?;
    let header: [u8; 8] = read_header(&mut reader, &labels_file, "the header of IDX labels")?;
    check_magic(&header, LABELS_MAGIC, "IDX labels", &labels_file)?;
    let expected = u64::from(u32_at(&header, 4));
    let labels = read_rest(&mut reader, &labels_file, "the labels", expected)?;

    if labels.len() != samples {
        return Err(DataError::Counts {
            images_file,
            images: samples,
            labels_file,
            labels: labels.len(),
        });
    }
    if let Some(sample) = labels.iter().position(|&l| usize::from(l) >= CLASSES) {
        return Err(DataError::Label {
            file: labels_file,
            sample,
            label: labels[sample].into(),
            classes: CLASSES,
        });
    }
    let shape = ImageShape {
        height,
        width,
        channels: 1,
    };
    let pixels = Pixels::Bytes {
        values,
        divisor: 255.0,
    };
    let labels = labels.into_iter().map(u32::from).collect();
    Images::new(shape, CLASSES, pixels, labels).map_err(|error| DataError::Images {
        file: images_file,
        error,
    })
}

fn check_magic(
    header: &[u8],
    expected: u32,
    what: &'static str,
    file: &str,
) -> Result<(), DataError> {
    match u32_at(header, 0) {
        magic if magic == expected => Ok(()),
        actual => Err(DataError::Magic {
            file: file.to_string(),
            what,
            expected,
            actual,
        }),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
