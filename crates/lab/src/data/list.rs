//! Which sets are there, without loading them.

use std::path::Path;

use sansprop::images::ImageShape;
use sansprop::sequences::ADD_TASK_SEQUENCES;
use serde::Serialize;

use super::cifar::{self, Layout, Place};
use super::known::{self, Format, Known};
use super::numpy::Arrays;
use super::{DataError, digits, idx, locate, sequences};

/// What is known of one set before it is loaded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Its name for [`load`](super::load).
    pub name: String,
    /// Whether its files are there.
    pub found: bool,
    /// The folder or file they are in.
    pub location: Option<String>,
    /// Training samples, where headers or file sizes tell.
    pub train: Option<usize>,
    /// Test samples, where headers or file sizes tell.
    pub test: Option<usize>,
    /// Height, width and channels of an image.
    pub shape: Option<[usize; 3]>,
    /// Number of classes; unknown for the user's own arrays until they are loaded.
    pub classes: Option<usize>,
    /// Where the set is published; none for the user's own arrays.
    pub published: Option<String>,
    /// What is wrong with files that were found, as far as their headers and sizes show.
    pub problem: Option<String>,
}

/// Every known set and whether it is found under `path` (else `SANSPROP_DATA`, else `./data`).
///
/// Reads headers and file sizes only; [`verify`](super::verify()) reads everything.
pub fn list(path: Option<&Path>) -> Vec<Entry> {
    let base = locate::base(path);
    known::all().iter().map(|set| entry(set, &base)).collect()
}

fn entry(set: &Known, base: &Path) -> Entry {
    let mut entry = Entry {
        name: set.name.to_string(),
        found: false,
        location: None,
        train: None,
        test: None,
        shape: None,
        classes: None,
        published: Some(set.published.to_string()).filter(|p| !p.is_empty()),
        problem: None,
    };
    let looked = match set.format {
        Format::Digits => {
            let samples = set.official.map(|(train, _)| train);
            entry.found_at(digits::SOURCE.to_string());
            entry.set(samples, digits::SHAPE);
            entry.classes = Some(digits::CLASSES);
            Ok(())
        }
        Format::AddTask => {
            entry.found_at(sequences::ADD_TASK_SOURCE.to_string());
            let (train, test) = ADD_TASK_SEQUENCES;
            (entry.train, entry.test) = (Some(train), Some(test));
            Ok(())
        }
        Format::Cifar10 => cifar10(set, base, &mut entry),
        Format::Idx { .. } => idx_files(set, base, &mut entry),
        Format::Npz if !ends_in(base, &[".npz"]) => Ok(()),
        Format::Npz => arrays(Arrays::npz(set, base), base, &mut entry),
        Format::Npy => arrays(Arrays::npy(set, base), base, &mut entry),
    };
    match looked {
        Ok(()) => {}
        Err(DataError::Missing { .. }) if !entry.found => {}
        Err(e) => entry.problem = Some(e.to_string()),
    }
    entry
}

impl Entry {
    fn found_at(&mut self, location: String) {
        self.found = true;
        self.location = Some(location);
    }

    fn set(&mut self, train: Option<usize>, shape: ImageShape) {
        self.train = train;
        self.shape = Some([shape.height, shape.width, shape.channels]);
    }
}

fn cifar10(set: &Known, base: &Path, entry: &mut Entry) -> Result<(), DataError> {
    let place = cifar::locate(set, base)?;
    let (Place::Folder(path, _) | Place::Archive(path)) = &place;
    if path == base && base.is_file() && !ends_in(base, &[".tar.gz", ".tgz"]) {
        return Ok(());
    }
    entry.found_at(path.display().to_string());
    entry.set(None, cifar::SHAPE);
    entry.classes = Some(cifar::CLASSES);
    let Place::Folder(folder, layout) = place else {
        return Ok(());
    };
    let files = cifar::check_present(set, &folder, layout)?;
    if layout == Layout::Binary {
        let mut records = [0; 6];
        for (count, path) in records.iter_mut().zip(&files) {
            let meta = path
                .metadata()
                .map_err(|e| locate::read_error(&path.display().to_string(), e))?;
            *count = cifar::records(meta.len(), &path.display().to_string())?;
        }
        entry.train = Some(records[..5].iter().sum());
        entry.test = Some(records[5]);
    }
    Ok(())
}

fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let name = path.to_string_lossy();
    endings.iter().any(|ending| name.ends_with(ending))
}

fn idx_files(set: &Known, base: &Path, entry: &mut Entry) -> Result<(), DataError> {
    let place = idx::locate(set, base)?;
    entry.found_at(place.folder.display().to_string());
    let (_, [samples, height, width]) = idx::open_images(&place.train[0])?;
    let shape = ImageShape {
        height,
        width,
        channels: 1,
    };
    entry.set(Some(samples), shape);
    entry.classes = Some(idx::CLASSES);
    if let Some([images, _]) = &place.test {
        entry.test = Some(idx::open_images(images)?.1[0]);
    }
    Ok(())
}

fn arrays(
    opened: Result<Arrays, DataError>,
    base: &Path,
    entry: &mut Entry,
) -> Result<(), DataError> {
    if !matches!(opened, Err(DataError::Missing { .. })) {
        entry.found_at(base.display().to_string());
    }
    let mut arrays = opened?;
    if let Some((samples, shape)) = arrays.peek("x_train")? {
        entry.set(Some(samples), shape);
    }
    entry.test = arrays.peek("x_test")?.map(|(samples, _)| samples);
    Ok(())
}
