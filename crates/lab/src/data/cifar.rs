//! CIFAR-10 in its official layouts: binary records or Python pickles, unpacked or as `.tar.gz`.
//!
//! Every layout stores an image as three planes (red, green, blue) of 32×32 bytes; the network
//! reads `[row, column, channel]`. Batches 1 to 5 are the training images, in that order.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sansprop::images::{ImageShape, Images, Pixels};

use super::known::Known;
use super::locate::{missing, read_error};
use super::pickle;
use super::{DataError, DataSet};

pub(super) const SHAPE: ImageShape = ImageShape {
    height: 32,
    width: 32,
    channels: 3,
};
pub(super) const CLASSES: usize = 10;

/// Bytes of one colour plane.
const PLANE: usize = 32 * 32;
/// Bytes of one image.
const IMAGE: usize = 3 * PLANE;
/// Bytes of one binary record: the label, then the image.
const RECORD: usize = 1 + IMAGE;

/// The official files take 31 MB; anything far beyond is no batch of CIFAR-10.
const LARGEST_FILE: u64 = 256 << 20;

/// Names of the six files; the binary ones end in `.bin`.
const BATCHES: [&str; 6] = [
    "data_batch_1",
    "data_batch_2",
    "data_batch_3",
    "data_batch_4",
    "data_batch_5",
    "test_batch",
];

/// How the records of one file are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Binary,
    Pickle,
}

impl Layout {
    fn folder(self) -> &'static str {
        match self {
            Layout::Binary => "cifar-10-batches-bin",
            Layout::Pickle => "cifar-10-batches-py",
        }
    }

    fn files(self) -> [String; 6] {
        BATCHES.map(|name| match self {
            Layout::Binary => format!("{name}.bin"),
            Layout::Pickle => name.to_string(),
        })
    }
}

/// Where the set lies.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// A folder with the six files.
    Folder(PathBuf, Layout),
    /// A `.tar.gz`, whose entries say which layout it is.
    Archive(PathBuf),
}

/// One file's images, `[sample, row, column, channel]`.
struct Batch {
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

/// Finds the set in or at `base`: unpacked files before archives, binary before pickles.
pub(super) fn locate(set: &Known, base: &Path) -> Result<Place, DataError> {
    if base.is_file() {
        return Ok(Place::Archive(base.to_path_buf()));
    }
    let parents = [
        base.to_path_buf(),
        base.join("cifar-10"),
        base.join("CIFAR10"),
    ];
    let mut searched = Vec::new();
    for layout in [Layout::Binary, Layout::Pickle] {
        for parent in &parents {
            for folder in [parent.join(layout.folder()), parent.clone()] {
                if layout.files().iter().any(|f| folder.join(f).is_file()) {
                    return Ok(Place::Folder(folder, layout));
                }
                if !searched.contains(&folder) {
                    searched.push(folder);
                }
            }
        }
    }
    let archives = ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"];
    for archive in archives {
        for parent in &parents {
            let path = parent.join(archive);
            if path.is_file() {
                return Ok(Place::Archive(path));
            }
        }
    }
    let mut files = vec!["data_batch_1.bin to data_batch_5.bin and test_batch.bin"];
    files.push("data_batch_1 to data_batch_5 and test_batch (Python)");
    files.extend(archives);
    Err(missing(set, &files, searched))
}

pub(super) fn load(set: &Known, base: &Path) -> Result<DataSet, DataError> {
    let (source, batches) = match locate(set, base)? {
        Place::Folder(folder, layout) => {
            let batches = from_folder(set, &folder, layout)?;
            (folder.display().to_string(), batches)
        }
        Place::Archive(path) => (path.display().to_string(), from_archive(&path)?),
    };
    let [b1, b2, b3, b4, b5, test] = batches;
    Ok(DataSet {
        name: set.name.to_string(),
        train: join(vec![b1, b2, b3, b4, b5], &source)?,
        test: Some(join(vec![test], &source)?),
        source,
    })
}

/// Paths of the six files, which must all be there.
pub(super) fn check_present(
    set: &Known,
    folder: &Path,
    layout: Layout,
) -> Result<[PathBuf; 6], DataError> {
    let files = layout.files();
    let absent: Vec<&str> = files
        .iter()
        .map(String::as_str)
        .filter(|f| !folder.join(f).is_file())
        .collect();
    if absent.is_empty() {
        Ok(files.map(|f| folder.join(f)))
    } else {
        Err(missing(set, &absent, vec![folder.to_path_buf()]))
    }
}

fn from_folder(set: &Known, folder: &Path, layout: Layout) -> Result<[Batch; 6], DataError> {
    let mut batches: [Option<Batch>; 6] = Default::default();
    for (batch, path) in batches.iter_mut().zip(check_present(set, folder, layout)?) {
        let name = path.display().to_string();
        let reader = File::open(&path).map_err(|e| read_error(&name, e))?;
        *batch = Some(read_batch(reader, layout, &name)?);
    }
    all_six(batches, &folder.display().to_string())
}

fn from_archive(path: &Path) -> Result<[Batch; 6], DataError> {
    let archive_name = path.display().to_string();
    let damaged = |e: std::io::Error| DataError::Damaged {
        file: archive_name.clone(),
        problem: format!("no whole .tar.gz archive: {e}"),
    };
    let file = File::open(path).map_err(|e| read_error(&archive_name, e))?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 16, file)));
    let mut batches: [Option<Batch>; 6] = Default::default();
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let member = entry.path().map_err(damaged)?.into_owned();
        let Some((slot, layout)) = member.file_name().and_then(|n| slot(n.to_str()?)) else {
            continue;
        };
        let name = format!("{archive_name}:{}", member.display());
        batches[slot] = Some(read_batch(entry, layout, &name)?);
    }
    // What follows the last entry holds gzip's checksum, which is only compared at the very end.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(damaged)?;
    all_six(batches, &archive_name)
}

/// Which of the six files a name denotes, and its layout.
fn slot(name: &str) -> Option<(usize, Layout)> {
    let (stem, layout) = match name.strip_suffix(".bin") {
        Some(stem) => (stem, Layout::Binary),
        None => (name, Layout::Pickle),
    };
    let slot = BATCHES.iter().position(|&b| b == stem)?;
    Some((slot, layout))
}

fn all_six(batches: [Option<Batch>; 6], file: &str) -> Result<[Batch; 6], DataError> {
    match batches {
        [Some(b1), Some(b2), Some(b3), Some(b4), Some(b5), Some(test)] => {
            Ok([b1, b2, b3, b4, b5, test])
        }
        some => {
            let absent = some
                .iter()
                .zip(BATCHES)
                .filter(|(batch, _)| batch.is_none());
            let names: Vec<&str> = absent.map(|(_, name)| name).collect();
            Err(DataError::Damaged {
                file: file.to_string(),
                problem: format!("of CIFAR-10's batches it lacks {}", names.join(", ")),
            })
        }
    }
}

fn read_batch(reader: impl Read, layout: Layout, name: &str) -> Result<Batch, DataError> {
    let mut bytes = Vec::new();
    reader
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| read_error(name, e))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(DataError::Damaged {
            file: name.to_string(),
            problem: format!("more than {LARGEST_FILE} bytes, far beyond a batch of CIFAR-10"),
        });
    }
    match layout {
        Layout::Binary => from_records(&bytes, name),
        Layout::Pickle => from_pickle(&bytes, name),
    }
}

/// Number of records in a binary file of this length.
pub(super) fn records(bytes: u64, name: &str) -> Result<usize, DataError> {
    let record = RECORD as u64;
    if bytes == 0 || !bytes.is_multiple_of(record) {
        return Err(DataError::Records {
            file: name.to_string(),
            record,
            actual: bytes,
        });
    }
    Ok((bytes / record) as usize)
}

fn from_records(bytes: &[u8], name: &str) -> Result<Batch, DataError> {
    records(bytes.len() as u64, name)?;
    let records = || bytes.chunks_exact(RECORD);
    Ok(Batch {
        labels: labels(records().map(|r| i64::from(r[0])), name)?,
        pixels: interleave(records().map(|r| &r[1..])),
    })
}

fn from_pickle(bytes: &[u8], name: &str) -> Result<Batch, DataError> {
    let batch = pickle::read(bytes, IMAGE, name)?;
    Ok(Batch {
        labels: labels(batch.labels.into_iter(), name)?,
        pixels: interleave(batch.data.chunks_exact(IMAGE)),
    })
}

fn labels(stored: impl Iterator<Item = i64>, name: &str) -> Result<Vec<u32>, DataError> {
    stored
        .enumerate()
        .map(|(sample, label)| match u32::try_from(label) {
            Ok(l) if (l as usize) < CLASSES => Ok(l),
            _ => Err(DataError::Label {
                file: name.to_string(),
                sample,
                label: label.into(),
                classes: CLASSES,
            }),
        })
        .collect()
}

/// Turns images `[channel, row, column]` into `[row, column, channel]`.
fn interleave<'a>(images: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = vec![0; images.len() * IMAGE];
    for (image, out) in images.zip(out.chunks_exact_mut(IMAGE)) {
        let (red, rest) = image.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        let planes = red.iter().zip(green).zip(blue);
        for (pixel, ((&r, &g), &b)) in out.chunks_exact_mut(3).zip(planes) {
            pixel.copy_from_slice(&[r, g, b]);
        }
    }
    out
}

fn join(batches: Vec<Batch>, source: &str) -> Result<Images, DataError> {
    let mut values = Vec::with_capacity(batches.iter().map(|b| b.pixels.len()).sum());
    let mut labels = Vec::with_capacity(batches.iter().map(|b| b.labels.len()).sum());
    for batch in batches {
        values.extend_from_slice(&batch.pixels);
        labels.extend_from_slice(&batch.labels);
    }
    let pixels = Pixels::Bytes {
        values,
        divisor: 255.0,
    };
    Images::new(SHAPE, CLASSES, pixels, labels).map_err(|error| DataError::Images {
        file: source.to_string(),
        error,
    })
}
