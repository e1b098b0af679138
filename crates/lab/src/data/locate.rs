//! Where data sets are looked for, and how their files are opened.

use std::env;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::DataError;
use super::known::Known;

/// Names the folder to look in when the config names none.
const VARIABLE: &str = "SANSPROP_DATA";

/// The path to look at: `path`, else `SANSPROP_DATA`, else `data`.
pub(super) fn base(path: Option<&Path>) -> PathBuf {
    path.map(Path::to_path_buf)
        .or_else(|| {
            env::var_os(VARIABLE)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        })
        .unwrap_or_else(|| PathBuf::from("data"))
}

/// The error for files of a set that are in none of `folders`.
pub(super) fn missing(set: &Known, files: &[&str], folders: Vec<PathBuf>) -> DataError {
    DataError::Missing {
        set: set.name.to_string(),
        files: files.iter().map(|f| f.to_string()).collect(),
        folders,
        note: None,
        published: set.published.to_string(),
    }
}

/// The error for a file that the operating system or the gzip reader refuses.
pub(super) fn read_error(file: &str, error: std::io::Error) -> DataError {
    DataError::Read {
        file: file.to_string(),
        error,
    }
}

/// Opens a file, through gzip where its first two bytes say so, whatever its name.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let error = |e| read_error(&path.display().to_string(), e);
    let mut file = File::open(path).map_err(error)?;
    let mut start = Vec::new();
    file.by_ref()
        .take(2)
        .read_to_end(&mut start)
        .map_err(error)?;
    let gzipped = start == [0x1f, 0x8b];
    let whole = std::io::Cursor::new(start).chain(BufReader::with_capacity(1 << 16, file));
    Ok(if gzipped {
        Box::new(MultiGzDecoder::new(whole))
    } else {
        Box::new(whole)
    })
}

/// Reads the bytes that remain, which should be `expected` in number.
///
/// Memory grows with the bytes that are there, never with the number that a header claims.
pub(super) fn read_rest(
    reader: &mut dyn Read,
    file: &str,
    what: &'static str,
    expected: u64,
) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::with_capacity(expected.min(1 << 20) as usize);
    reader
        .take(expected.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| read_error(file, e))?;
    if bytes.len() as u64 == expected {
        Ok(bytes)
    } else {
        Err(DataError::Length {
            file: file.to_string(),
            what,
            expected,
            actual: bytes.len() as u64,
        })
    }
}

/// Reads exactly `N` header bytes.
pub(super) fn read_header<const N: usize>(
    reader: &mut dyn Read,
    file: &str,
    what: &'static str,
) -> Result<[u8; N], DataError> {
    let mut bytes = Vec::with_capacity(N);
    reader
        .take(N as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| read_error(file, e))?;
    let actual = bytes.len() as u64;
    bytes.try_into().map_err(|_| DataError::Length {
        file: file.to_string(),
        what,
        expected: N as u64,
        actual,
    })
}
