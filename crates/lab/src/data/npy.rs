//! NumPy's `.npy` format: a header in Python's notation, then the raw values.
//!
//! Its header is read here rather than by a library: the two that exist parse it as arbitrary
//! Python (in exponential time on damaged headers) and multiply its sizes unchecked.

use std::io::Read;

use super::DataError;
use super::locate::{read_header, read_rest};

/// NumPy writes headers of 118 bytes, a few hundred for many dimensions.
const LONGEST_HEADER: usize = 4096;

/// Kind and size in bytes of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unsigned(usize),
    Signed(usize),
    Float(usize),
}

/// What the header of an array says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    kind: Kind,
    big_endian: bool,
    fortran: bool,
    /// NumPy's name of the type, as in `<f4`.
    descr: String,
    pub(super) shape: Vec<usize>,
}

/// Values in C order.
#[derive(Debug)]
pub(super) enum Values {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

/// Reads the header; the values follow in `reader`.
pub(super) fn header(reader: &mut dyn Read, file: &str) -> Result<Header, DataError> {
    let what = "the header of an npy array";
    let start: [u8; 8] = read_header(reader, file, what)?;
    let damaged = |problem: &str| DataError::Damaged {
        file: file.to_string(),
        problem: problem.to_string(),
    };
    if !start.starts_with(b"\x93NUMPY") {
        return Err(damaged("it does not begin with \\x93NUMPY"));
    }
    let length = match start[6] {
        1 => usize::from(u16::from_le_bytes(read_header(reader, file, what)?)),
        2 | 3 => u32::from_le_bytes(read_header(reader, file, what)?) as usize,
        _ => return Err(damaged("its npy format version is not 1, 2 or 3")),
    };
    if length > LONGEST_HEADER {
        return Err(damaged("its npy header is too long"));
    }
    let text = read_rest(&mut reader.take(length as u64), file, what, length as u64)?;
    let text = str::from_utf8(&text).map_err(|_| damaged("its npy header is not text"))?;
    parse(text, file)
}

fn parse(text: &str, file: &str) -> Result<Header, DataError> {
    let damaged = |key: &str| DataError::Damaged {
        file: file.to_string(),
        problem: format!("its npy header has no sound '{key}': {}", text.trim()),
    };
    let descr = entry(text, "descr").ok_or_else(|| damaged("descr"))?;
    let Some((descr, _)) = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')) else {
        return Err(DataError::Array {
            file: file.to_string(),
            problem: format!("arrays of records are not supported: {}", text.trim()),
        });
    };
    let order = entry(text, "fortran_order").ok_or_else(|| damaged("fortran_order"))?;
    let fortran = order.starts_with("True");
    if !fortran && !order.starts_with("False") {
        return Err(damaged("fortran_order"));
    }
    let shape = entry(text, "shape")
        .and_then(|s| s.strip_prefix('(')?.split_once(')'))
        .and_then(|(sizes, _)| {
            sizes
                .split(',')
                .map(|size| size.trim().trim_end_matches('L'))
                .filter(|size| !size.is_empty())
                .map(|size| size.parse().ok())
                .collect::<Option<Vec<usize>>>()
        })
        .ok_or_else(|| damaged("shape"))?;
    let (kind, big_endian) = kind(descr).ok_or_else(|| DataError::Array {
        file: file.to_string(),
        problem: format!(
            "values of type '{descr}' are not supported (pixels: uint8, float32 or float64; labels: integers)"
        ),
    })?;
    Ok(Header {
        kind,
        big_endian,
        fortran,
        descr: descr.to_string(),
        shape,
    })
}

/// What follows `'key':` in the header's dict.
fn entry<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

fn kind(descr: &str) -> Option<(Kind, bool)> {
    let mut chars = descr.chars();
    let big_endian = match chars.next()? {
        '>' => true,
        '<' | '|' | '=' => false,
        _ => return None,
    };
    let kind = chars.next()?;
    let size: usize = chars.as_str().parse().ok()?;
    let kind = match (kind, size) {
        ('u', 1 | 2 | 4 | 8) => Kind::Unsigned(size),
        ('i', 1 | 2 | 4 | 8) => Kind::Signed(size),
        ('f', 4 | 8) => Kind::Float(size),
        _ => return None,
    };
    Some((kind, big_endian))
}

/// Reads pixels: bytes, or floats that must be finite.
pub(super) fn pixels(
    header: &Header,
    reader: &mut dyn Read,
    file: &str,
) -> Result<Values, DataError> {
    match header.kind {
        Kind::Unsigned(1) => {
            let bytes = raw(header, 1, reader, file)?;
            Ok(Values::Bytes(c_order(bytes, header)))
        }
        Kind::Float(4) => {
            let bytes = raw(header, 4, reader, file)?;
            let values = decode(&bytes, header.big_endian, f32::from_le_bytes);
            let values = c_order(values, header);
            finite(header, file, values.iter().map(|&v| (f64::from(v), v)))?;
            Ok(Values::Floats(values))
        }
        Kind::Float(8) => {
            let bytes = raw(header, 8, reader, file)?;
            let values = decode(&bytes, header.big_endian, f64::from_le_bytes);
            let values = c_order(values, header);
            finite(header, file, values.iter().map(|&v| (v, v as f32)))?;
            Ok(Values::Floats(values.iter().map(|&v| v as f32).collect()))
        }
        _ => Err(DataError::Array {
            file: file.to_string(),
            problem: format!(
                "pixels are of type '{}'; they should be uint8, float32 or float64",
                header.descr
            ),
        }),
    }
}

/// Reads integers of any size.
pub(super) fn integers(
    header: &Header,
    reader: &mut dyn Read,
    file: &str,
) -> Result<Vec<i128>, DataError> {
    let big = header.big_endian;
    let mut read = |size| raw(header, size, reader, file);
    Ok(match header.kind {
        Kind::Unsigned(1) => wide(decode(&read(1)?, big, u8::from_le_bytes)),
        Kind::Unsigned(2) => wide(decode(&read(2)?, big, u16::from_le_bytes)),
        Kind::Unsigned(4) => wide(decode(&read(4)?, big, u32::from_le_bytes)),
        Kind::Unsigned(_) => wide(decode(&read(8)?, big, u64::from_le_bytes)),
        Kind::Signed(1) => wide(decode(&read(1)?, big, i8::from_le_bytes)),
        Kind::Signed(2) => wide(decode(&read(2)?, big, i16::from_le_bytes)),
        Kind::Signed(4) => wide(decode(&read(4)?, big, i32::from_le_bytes)),
        Kind::Signed(_) => wide(decode(&read(8)?, big, i64::from_le_bytes)),
        Kind::Float(_) => {
            return Err(DataError::Array {
                file: file.to_string(),
                problem: format!(
                    "labels are of type '{}'; they should be integers",
                    header.descr
                ),
            });
        }
    })
}

fn raw(
    header: &Header,
    size: usize,
    reader: &mut dyn Read,
    file: &str,
) -> Result<Vec<u8>, DataError> {
    let expected = header
        .shape
        .iter()
        .try_fold(size as u64, |product, &n| product.checked_mul(n as u64))
        .unwrap_or(u64::MAX);
    read_rest(reader, file, "the array's values", expected)
}

fn decode<const N: usize, T>(bytes: &[u8], big_endian: bool, from_le: fn([u8; N]) -> T) -> Vec<T> {
    let (values, _) = bytes.as_chunks::<N>();
    values
        .iter()
        .map(|&(mut value)| {
            if big_endian {
                value.reverse();
            }
            from_le(value)
        })
        .collect()
}

fn wide<T: Into<i128>>(values: Vec<T>) -> Vec<i128> {
    values.into_iter().map(Into::into).collect()
}

/// Reorders values whose first index runs fastest.
fn c_order<T: Copy>(values: Vec<T>, header: &Header) -> Vec<T> {
    let shape = &header.shape;
    if !header.fortran || shape.len() < 2 {
        return values;
    }
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

/// Refuses values that are not finite as `f32`.
fn finite(
    header: &Header,
    file: &str,
    values: impl Iterator<Item = (f64, f32)>,
) -> Result<(), DataError> {
    let sample: usize = header.shape.iter().skip(1).product();
    for (i, (value, single)) in values.enumerate() {
        if !single.is_finite() {
            return Err(DataError::Pixel {
                file: file.to_string(),
                sample: i / sample,
                index: i % sample,
                value,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_python_2_and_3_are_read() {
        let parsed = parse(
            "{'descr': '>i8', 'fortran_order': True, 'shape': (10L, 28L), }  \n",
            "a",
        )
        .unwrap();
        assert_eq!(parsed.kind, Kind::Signed(8));
        assert!(parsed.big_endian && parsed.fortran);
        assert_eq!(parsed.shape, [10, 28]);
        let parsed = parse(
            "{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n",
            "a",
        )
        .unwrap();
        assert_eq!(parsed.shape, [0; 0]);
    }

    #[test]
    fn damaged_headers_are_refused() {
        for text in [
            "",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
            "{'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<c8', 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}",
        ] {
            assert!(parse(text, "a").is_err(), "{text}");
        }
    }
}
