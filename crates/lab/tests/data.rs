//! Reading of data sets. Files are made here byte by byte, after each format's own definition;
//! Python's pickles come from `data/make_pickles.py`.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sansprop::images::{Images, Pixels};
use sansprop_lab::data::{DataError, DataSet, list, load, names, verify};
use tempfile::TempDir;

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write(path: PathBuf, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn bytes(images: &Images) -> &[u8] {
    match images.pixels() {
        Pixels::Bytes { values, .. } => values,
        Pixels::Floats(_) => panic!("bytes expected"),
    }
}

fn floats(images: &Images) -> &[f32] {
    match images.pixels() {
        Pixels::Floats(values) => values,
        Pixels::Bytes { .. } => panic!("floats expected"),
    }
}

/// The error of a load that must fail; its text must name all of `parts`.
#[track_caller]
fn refused(name: &str, path: &Path, parts: &[&str]) -> DataError {
    let error = load(name, Some(path)).expect_err("the load should fail");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    assert!(text.len() < 2000, "an error of {} bytes", text.len());
    error
}

// ---- names and digits ----

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    refused(
        "cifar10",
        Path::new("."),
        &[
            "unknown data set `cifar10`",
            "did you mean `cifar-10`?",
            "fashion-mnist",
        ],
    );
    refused(
        "imagenet",
        Path::new("."),
        &["the known sets are digits, cifar-10"],
    );
}

/// Oracle: counts, mean and hash computed from the file by a few lines of Python; the counts are
/// also those that scikit-learn documents.
#[test]
fn digits_are_those_of_scikit_learn() {
    let report = verify("digits", None).unwrap();
    assert_eq!(report.complete, Some(true));
    assert_eq!(report.test, None);
    let train = report.train;
    assert_eq!(
        (train.samples, train.shape, train.classes),
        (1797, [8, 8, 1], 10)
    );
    assert_eq!(
        train.per_class,
        [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    );
    assert_eq!((train.pixel_min, train.pixel_max), (0.0, 1.0));
    assert!((train.pixel_mean - 0.305_260_286_240_957_15).abs() < 1e-12);
    assert_eq!(
        train.sha256,
        "fe61bc84cd6a594d5ed1b937b7d8f8f791d4091d2a9df91fe5d6066156a4db6e"
    );
    let set = load("digits", None).unwrap();
    assert_eq!(set.train.labels()[..4], [0, 1, 2, 3]);
    assert_eq!(bytes(&set.train)[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
}

// ---- CIFAR-10 ----

/// Pixel of `make_pickles.py`, with the file's number added so that order shows.
fn cifar_pixel(file: usize, i: usize, c: usize, y: usize, x: usize) -> u8 {
    (100 * file + 7 * i + 50 * c + 3 * y + x) as u8
}

fn cifar_records(file: usize, labels: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, &label) in labels.iter().enumerate() {
        out.push(label);
        for c in 0..3 {
            for y in 0..32 {
                out.extend((0..32).map(|x| cifar_pixel(file, i, c, y, x)));
            }
        }
    }
    out
}

const CIFAR_FILES: [&str; 6] = [
    "data_batch_1",
    "data_batch_2",
    "data_batch_3",
    "data_batch_4",
    "data_batch_5",
    "test_batch",
];

/// Six files of two images each, labels 3 and 9.
fn cifar_folder(folder: &Path, contents: impl Fn(usize) -> Vec<u8>, ending: &str) {
    for (number, file) in CIFAR_FILES.iter().enumerate() {
        write(folder.join(format!("{file}{ending}")), &contents(number));
    }
}

/// The files of `folder`, last first, as `inner/…` of a gzipped tar.
fn tar_gz(folder: &Path, inner: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths.iter().rev() {
        let name = Path::new(inner).join(path.file_name().unwrap());
        builder.append_path_with_name(path, name).unwrap();
    }
    gz(&builder.into_inner().unwrap())
}

#[track_caller]
fn check_cifar(set: &DataSet, file_number: impl Fn(usize) -> usize) {
    let test = set.test.as_ref().unwrap();
    assert_eq!((set.train.len(), test.len()), (10, 2));
    assert_eq!(set.train.labels(), [3, 9].repeat(5));
    assert_eq!(test.labels(), [3, 9]);
    for (images, first) in [(&set.train, 0), (test, 5)] {
        assert_eq!(images.classes(), 10);
        for (at, &value) in bytes(images).iter().enumerate() {
            let (c, x, y, sample) = (at % 3, at / 3 % 32, at / 96 % 32, at / 3072);
            let expected = cifar_pixel(file_number(first + sample / 2), sample % 2, c, y, x);
            assert_eq!(value, expected, "sample {sample}, {y}, {x}, {c}");
        }
    }
}

#[test]
fn cifar_binary_is_read_from_every_place() {
    let dir = TempDir::new().unwrap();
    let inner = dir.path().join("cifar-10/cifar-10-batches-bin");
    cifar_folder(&inner, |f| cifar_records(f, &[3, 9]), ".bin");
    for path in [dir.path(), &dir.path().join("cifar-10"), &inner] {
        let set = load("cifar-10", Some(path)).unwrap();
        check_cifar(&set, |file| file);
        assert_eq!(set.source, inner.display().to_string());
    }
    let other = TempDir::new().unwrap();
    let archive = other.path().join("cifar-10/cifar-10-binary.tar.gz");
    write(archive.clone(), &tar_gz(&inner, "cifar-10-batches-bin"));
    for path in [other.path(), &other.path().join("cifar-10"), &archive] {
        check_cifar(&load("cifar-10", Some(path)).unwrap(), |file| file);
    }
    let hash = |path| verify("cifar-10", Some(path)).unwrap().train.sha256;
    assert_eq!(hash(inner.as_path()), hash(archive.as_path()));
    assert_eq!(
        verify("cifar-10", Some(&archive)).unwrap().complete,
        Some(false)
    );
}

#[test]
fn cifar_pickles_of_python_2_and_3_are_read() {
    for made_by in [
        "python2-protocol2",
        "python3-protocol2",
        "python3-protocol3",
        "python3-protocol4",
        "python3-protocol5",
    ] {
        let pickle = fs::read(Path::new("data/pickles").join(made_by)).unwrap();
        let dir = TempDir::new().unwrap();
        let inner = dir.path().join("cifar-10-batches-py");
        cifar_folder(&inner, |_| pickle.clone(), "");
        check_cifar(&load("cifar-10", Some(dir.path())).unwrap(), |_| 0);

        let archive = TempDir::new().unwrap();
        let path = archive.path().join("cifar-10-python.tar.gz");
        write(path, &tar_gz(&inner, "cifar-10-batches-py"));
        check_cifar(&load("cifar-10", Some(archive.path())).unwrap(), |_| 0);
    }
}

#[test]
fn damaged_pickles_are_refused() {
    let pickle = fs::read("data/pickles/python2-protocol2").unwrap();
    let dir = TempDir::new().unwrap();
    let with = |bytes: &[u8]| {
        cifar_folder(dir.path(), |_| pickle.clone(), "");
        write(dir.path().join("data_batch_2"), bytes);
    };
    with(b"garbage");
    refused("cifar-10", dir.path(), &["data_batch_2", "no pickle"]);
    with(b"");
    refused("cifar-10", dir.path(), &["data_batch_2", "no pickle"]);
    with(b"\x80\x02]q\x01.");
    refused("cifar-10", dir.path(), &["data_batch_2", "not a dict"]);
    with(b"\x80\x02}q\x01.");
    refused("cifar-10", dir.path(), &["data_batch_2", "no entry 'data'"]);
    with(b"\x80\x02}(U\x04dataK\x01U\x06labels]u.");
    refused(
        "cifar-10",
        dir.path(),
        &["data_batch_2", "'data' is not a NumPy array"],
    );
    // Wherever the file is cut off, it is an error, never a panic or a short set.
    for cut in (0..pickle.len()).step_by(97) {
        with(&pickle[..cut]);
        refused("cifar-10", dir.path(), &["data_batch_2"]);
    }
    // The label 9 (`K\x09`) made 10.
    let at = pickle.windows(4).position(|w| w == b"K\x03K\x09").unwrap();
    let mut wrong = pickle.clone();
    wrong[at + 3] = 10;
    with(&wrong);
    refused(
        "cifar-10",
        dir.path(),
        &["data_batch_2", "label 10 of sample 1", "0 to 9"],
    );
    // Any byte of the structure changed: an answer of some kind, quickly.
    for at in (0..250).chain(pickle.len() - 150..pickle.len()) {
        let mut wrong = pickle.clone();
        wrong[at] ^= 0xff;
        with(&wrong);
        let _ = load("cifar-10", Some(dir.path()));
    }
}

#[test]
fn damaged_cifar_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let good = |f| cifar_records(f, &[3, 9]);
    cifar_folder(dir.path(), good, ".bin");
    let third = dir.path().join("data_batch_3.bin");
    write(third.clone(), &good(2)[..6000]);
    refused(
        "cifar-10",
        dir.path(),
        &[
            "data_batch_3.bin",
            "6000 bytes",
            "3073-byte records",
            "ends at byte 3073",
        ],
    );
    let entry = list(Some(dir.path()))
        .into_iter()
        .find(|e| e.name == "cifar-10")
        .unwrap();
    assert!(entry.found && entry.problem.unwrap().contains("3073-byte records"));
    write(third.clone(), b"");
    refused(
        "cifar-10",
        dir.path(),
        &["data_batch_3.bin", "at least one"],
    );
    write(third.clone(), &cifar_records(2, &[3, 10]));
    refused(
        "cifar-10",
        dir.path(),
        &["data_batch_3.bin", "label 10 of sample 1"],
    );
    fs::remove_file(&third).unwrap();
    refused("cifar-10", dir.path(), &["looked for data_batch_3.bin in"]);
}

#[test]
fn damaged_archives_are_refused() {
    let inner = TempDir::new().unwrap();
    cifar_folder(inner.path(), |f| cifar_records(f, &[3, 9]), ".bin");
    let whole = tar_gz(inner.path(), "cifar-10-batches-bin");
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("cifar-10-binary.tar.gz");
    for cut in [0, 1, 9, 200, whole.len() / 2, whole.len() - 1] {
        write(path.clone(), &whole[..cut]);
        refused("cifar-10", dir.path(), &["cifar-10-binary.tar.gz"]);
    }
    let mut wrong = whole.clone();
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    write(path.clone(), &wrong);
    refused(
        "cifar-10",
        dir.path(),
        &["cifar-10-binary.tar.gz", "is damaged"],
    );
    write(path.clone(), b"this is not gzip");
    refused("cifar-10", &path, &["no whole .tar.gz archive"]);
    fs::remove_file(inner.path().join("data_batch_4.bin")).unwrap();
    write(path.clone(), &tar_gz(inner.path(), "cifar-10-batches-bin"));
    refused("cifar-10", &path, &["it lacks data_batch_4"]);
}

#[test]
fn missing_sets_say_where_they_were_looked_for_and_where_to_get_them() {
    let dir = TempDir::new().unwrap();
    let here = dir.path().display().to_string();
    for (name, address) in [
        ("cifar-10", "https://www.cs.toronto.edu/~kriz/cifar.html"),
        ("kmnist", "https://github.com/rois-codh/kmnist"),
        (
            "fashion-mnist",
            "https://github.com/zalandoresearch/fashion-mnist",
        ),
        ("mnist", "http://yann.lecun.com/exdb/mnist/"),
        ("npz", "an npz file"),
        ("npy", "x_train.npy"),
    ] {
        let parts = [address, &here, "--set data.path=", "SANSPROP_DATA"];
        let error = refused(name, dir.path(), &parts);
        assert!(matches!(error, DataError::Missing { .. }), "{error:?}");
    }
    for entry in list(Some(dir.path())) {
        let built_in = ["digits", "add-task"].contains(&entry.name.as_str());
        assert_eq!(entry.found, built_in, "{entry:?}");
        assert_eq!(entry.problem, None);
    }
}

// ---- IDX ----

fn idx(magic: u32, sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut out = magic.to_be_bytes().to_vec();
    out.extend(sizes.iter().flat_map(|s| s.to_be_bytes()));
    out.extend_from_slice(values);
    out
}

fn idx_images(n: usize) -> Vec<u8> {
    let values: Vec<u8> = (0..n * 6).map(|i| (i * 11) as u8).collect();
    idx(0x803, &[n as u32, 2, 3], &values)
}

fn idx_labels(labels: &[u8]) -> Vec<u8> {
    idx(0x801, &[labels.len() as u32], labels)
}

const IDX_FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Five training and two test images.
fn idx_folder(folder: &Path, gzipped: bool) {
    let contents = [
        idx_images(5),
        idx_labels(&[0, 9, 1, 2, 0]),
        idx_images(2),
        idx_labels(&[3, 4]),
    ];
    for (file, content) in IDX_FILES.iter().zip(contents) {
        if gzipped {
            write(folder.join(format!("{file}.gz")), &gz(&content));
        } else {
            write(folder.join(file), &content);
        }
    }
}

#[test]
fn idx_files_are_read_from_every_layout() {
    for (set, torchvision) in [
        ("kmnist", "KMNIST"),
        ("fashion-mnist", "FashionMNIST"),
        ("mnist", "MNIST"),
    ] {
        for gzipped in [false, true] {
            for folder in [&format!("{torchvision}/raw"), torchvision, set, "raw", ""] {
                let dir = TempDir::new().unwrap();
                idx_folder(&dir.path().join(folder), gzipped);
                let loaded = load(set, Some(dir.path())).unwrap();
                let test = loaded.test.unwrap();
                assert_eq!(loaded.train.labels(), [0, 9, 1, 2, 0]);
                assert_eq!(test.labels(), [3, 4]);
                assert_eq!(bytes(&loaded.train), &idx_images(5)[16..]);
                assert_eq!(bytes(&test), &idx_images(2)[16..]);
                let shape = loaded.train.shape();
                assert_eq!((shape.height, shape.width, shape.channels), (2, 3, 1));

                let entry = list(Some(dir.path()))
                    .into_iter()
                    .find(|e| e.name == set)
                    .unwrap();
                assert_eq!((entry.train, entry.test), (Some(5), Some(2)));
                assert_eq!(entry.shape, Some([2, 3, 1]));
            }
        }
    }
}

/// All these sets' files have the same names, so a folder named for one is not read as another.
#[test]
fn another_sets_folder_is_not_taken() {
    let dir = TempDir::new().unwrap();
    idx_folder(&dir.path().join("fashion-mnist"), true);
    idx_folder(&dir.path().join("KMNIST/raw"), false);
    refused("mnist", dir.path(), &["not found"]);
    refused(
        "kmnist",
        &dir.path().join("fashion-mnist"),
        &["not found", "it is fashion-mnist's folder"],
    );
    refused(
        "fashion-mnist",
        &dir.path().join("KMNIST/raw"),
        &["not found"],
    );
    load("fashion-mnist", Some(&dir.path().join("fashion-mnist"))).unwrap();
    load("kmnist", Some(&dir.path().join("KMNIST/raw"))).unwrap();
}

#[test]
fn the_test_part_is_whole_or_absent() {
    let dir = TempDir::new().unwrap();
    idx_folder(dir.path(), false);
    fs::remove_file(dir.path().join(IDX_FILES[2])).unwrap();
    refused(
        "mnist",
        dir.path(),
        &["looked for t10k-images-idx3-ubyte[.gz]"],
    );
    fs::remove_file(dir.path().join(IDX_FILES[3])).unwrap();
    assert_eq!(load("mnist", Some(dir.path())).unwrap().test, None);
    fs::remove_file(dir.path().join(IDX_FILES[1])).unwrap();
    refused(
        "mnist",
        dir.path(),
        &["looked for train-labels-idx1-ubyte[.gz]"],
    );
}

#[test]
fn damaged_idx_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let with = |file: usize, content: &[u8]| {
        idx_folder(dir.path(), false);
        write(dir.path().join(IDX_FILES[file]), content);
    };
    with(0, &idx_images(5)[..40]);
    refused(
        "mnist",
        dir.path(),
        &[IDX_FILES[0], "should take 30 bytes", "only 24"],
    );
    with(0, &[idx_images(5), vec![0]].concat());
    refused(
        "mnist",
        dir.path(),
        &[IDX_FILES[0], "should take 30 bytes", "more"],
    );
    with(0, &idx_images(5)[..9]);
    refused(
        "mnist",
        dir.path(),
        &[IDX_FILES[0], "header", "16 bytes", "only 9"],
    );
    with(0, &idx_labels(&[1; 30]));
    refused(
        "mnist",
        dir.path(),
        &[IDX_FILES[0], "0x00000801", "begin with 0x00000803"],
    );
    with(1, &idx_images(5));
    refused(
        "mnist",
        dir.path(),
        &[IDX_FILES[1], "0x00000803", "begin with 0x00000801"],
    );
    with(1, &idx_labels(&[1, 2, 3, 4]));
    refused("mnist", dir.path(), &["holds 5 images", "holds 4 labels"]);
    with(1, &idx_labels(&[1, 2, 10, 4, 5]));
    refused("mnist", dir.path(), &[IDX_FILES[1], "label 10 of sample 2"]);
    with(1, &idx_labels(&[1, 2, 3, 4, 5])[..11]);
    refused(
        "mnist",
        dir.path(),
        &[IDX_FILES[1], "should take 5 bytes", "only 3"],
    );
    with(2, &idx(0x803, &[2, 3, 3], &[0; 18]));
    refused("mnist", dir.path(), &["2×3×1", "3×3×1"]);
    // Sizes that no file has, and sizes of nothing.
    with(0, &idx(0x803, &[u32::MAX; 3], &[0; 30]));
    refused("mnist", dir.path(), &[IDX_FILES[0], "only 30"]);
    with(0, &idx(0x803, &[0, u32::MAX, u32::MAX], &[]));
    refused("mnist", dir.path(), &[IDX_FILES[0], "empty"]);
    // gzip: recognised by content, cut off, damaged.
    let packed = gz(&idx_images(5));
    with(0, &packed);
    load("mnist", Some(dir.path())).unwrap();
    with(0, &packed[..packed.len() - 9]);
    refused("mnist", dir.path(), &["cannot read", IDX_FILES[0]]);
    with(0, b"\x1f\x8bgarbage that is no gzip at all");
    refused("mnist", dir.path(), &["cannot read", IDX_FILES[0]]);
    let mut wrong = packed.clone();
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    with(0, &wrong);
    refused("mnist", dir.path(), &["cannot read", IDX_FILES[0]]);
}

// ---- NumPy ----

fn npy(descr: &str, fortran: bool, shape: &[usize], values: &[u8]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|s| format!("{s}, ")).collect();
    let order = if fortran { "True" } else { "False" };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({sizes}), }}");
    text += &" ".repeat(63 - (10 + text.len()) % 64);
    text += "\n";
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out.extend(values);
    out
}

fn npz(arrays: &[(&str, Vec<u8>)], compressed: bool) -> Vec<u8> {
    let method = if compressed {
        zip::CompressionMethod::Deflated
    } else {
        zip::CompressionMethod::Stored
    };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (key, content) in arrays {
        writer.start_file(format!("{key}.npy"), options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Loads arrays as npz, stored and compressed, and as npy, which must agree.
fn load_arrays(arrays: &[(&str, Vec<u8>)]) -> Result<DataSet, String> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("my.npz");
    for (key, content) in arrays {
        write(dir.path().join(format!("{key}.npy")), content);
    }
    let folder = load("npy", Some(dir.path()));
    for compressed in [false, true] {
        write(file.clone(), &npz(arrays, compressed));
        let archive = load("npz", Some(&file));
        match (&folder, &archive) {
            (Ok(a), Ok(b)) => assert_eq!((&a.train, &a.test), (&b.train, &b.test)),
            (Err(_), Err(_)) => {}
            _ => panic!("npy gives {folder:?}, npz {archive:?}"),
        }
    }
    folder.map_err(|e| e.to_string())
}

fn le<T: Copy, const N: usize>(values: &[T], to: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| to(v)).collect()
}

fn y(labels: &[u8]) -> Vec<u8> {
    npy("|u1", false, &[labels.len()], labels)
}

#[test]
fn arrays_of_every_rank_and_type_are_read() {
    let values: Vec<u8> = (0..24).collect();
    for (shape, image) in [
        (vec![2, 2, 3, 2], [2, 3, 2]),
        (vec![2, 3, 4], [3, 4, 1]),
        (vec![2, 12], [1, 1, 12]),
    ] {
        let singles: Vec<f32> = values.iter().map(|&v| f32::from(v) / 4.0).collect();
        let doubles: Vec<f64> = singles.iter().map(|&v| f64::from(v)).collect();
        let set = load_arrays(&[
            ("x_train", npy("|u1", false, &shape, &values)),
            ("y_train", y(&[1, 0])),
        ])
        .unwrap();
        let s = set.train.shape();
        assert_eq!([s.height, s.width, s.channels], image);
        assert_eq!(bytes(&set.train), values);
        assert_eq!((set.train.classes(), set.test), (2, None));
        for (descr, raw) in [
            ("<f4", le(&singles, f32::to_le_bytes)),
            (">f4", le(&singles, f32::to_be_bytes)),
            ("<f8", le(&doubles, f64::to_le_bytes)),
            (">f8", le(&doubles, f64::to_be_bytes)),
        ] {
            let set = load_arrays(&[
                ("x_train", npy(descr, false, &shape, &raw)),
                ("y_train", y(&[1, 0])),
                ("x_test", npy(descr, false, &shape, &raw)),
                ("y_test", y(&[0, 4])),
            ])
            .unwrap();
            assert_eq!(floats(&set.train), singles, "{descr}");
            assert_eq!(floats(set.test.as_ref().unwrap()), singles, "{descr}");
            assert_eq!((set.train.classes(), set.test.unwrap().classes()), (5, 5));
        }
    }
}

/// Oracle: the definition, element (i, j, k, l) lies at i + 2 j + 2·3 k + 2·3·4 l.
#[test]
fn fortran_order_is_undone() {
    let (mut stored, mut expected) = (vec![0; 120], Vec::new());
    for i in 0..2 {
        for j in 0..3 {
            for k in 0..4 {
                for l in 0..5 {
                    let value = expected.len() as u8;
                    expected.push(value);
                    stored[i + 2 * j + 6 * k + 24 * l] = value;
                }
            }
        }
    }
    let set = load_arrays(&[
        ("x_train", npy("|u1", true, &[2, 3, 4, 5], &stored)),
        ("y_train", npy("|u1", true, &[2, 1], &[0, 1])),
    ])
    .unwrap();
    assert_eq!(bytes(&set.train), expected);
}

#[test]
fn labels_of_every_integer_type_are_read() {
    let x = npy("|u1", false, &[3, 1], &[7, 8, 9]);
    for (descr, raw) in [
        ("|u1", vec![2, 0, 5]),
        ("|i1", vec![2, 0, 5]),
        ("<u2", le(&[2, 0, 5], u16::to_le_bytes)),
        (">i2", le(&[2, 0, 5], i16::to_be_bytes)),
        ("<u4", le(&[2, 0, 5], u32::to_le_bytes)),
        ("<i4", le(&[2, 0, 5], i32::to_le_bytes)),
        (">u8", le(&[2, 0, 5], u64::to_be_bytes)),
        ("<i8", le(&[2, 0, 5], i64::to_le_bytes)),
    ] {
        for shape in [&[3][..], &[3, 1]] {
            let labels = npy(descr, false, shape, &raw);
            let set = load_arrays(&[("x_train", x.clone()), ("y_train", labels)]).unwrap();
            assert_eq!(set.train.labels(), [2, 0, 5], "{descr}");
            assert_eq!(set.train.classes(), 6);
        }
    }
}

#[test]
fn unsound_arrays_are_refused() {
    let x = || npy("|u1", false, &[2, 2], &[1, 2, 3, 4]);
    let f4 = |values: &[f32]| npy("<f4", false, &[2, 2], &le(values, f32::to_le_bytes));
    let f8 = |values: &[f64]| npy("<f8", false, &[2, 2], &le(values, f64::to_le_bytes));
    let i8 = |values: &[i64]| npy("<i8", false, &[values.len()], &le(values, i64::to_le_bytes));
    let cases: Vec<(Vec<u8>, Vec<u8>, &str)> = vec![
        (
            f4(&[0.0, 1.0, 2.0, f32::NAN]),
            y(&[0, 1]),
            "value NaN at index 1 of sample 1",
        ),
        (
            f4(&[0.0, f32::INFINITY, 2.0, 3.0]),
            y(&[0, 1]),
            "value inf at index 1 of sample 0",
        ),
        (
            f8(&[0.0, 1.0, 1e300, 3.0]),
            y(&[0, 1]),
            "at index 0 of sample 1",
        ),
        (x(), y(&[0, 1, 2]), "holds 3 labels"),
        (x(), i8(&[0, -1]), "label -1 of sample 1"),
        (x(), i8(&[1 << 40, 0]), "of sample 0"),
        (x(), f4(&[0.0; 4]), "labels of shape [2, 2]"),
        (
            x(),
            npy("<f4", false, &[2], &[0; 8]),
            "'<f4'; they should be integers",
        ),
        (
            npy("<i4", false, &[2, 1], &[0; 8]),
            y(&[0, 1]),
            "'<i4'; they should be uint8",
        ),
        (
            npy("<c8", false, &[2, 1], &[0; 16]),
            y(&[0, 1]),
            "'<c8' are not supported",
        ),
        (
            npy("|u1", false, &[2], &[0; 2]),
            y(&[0, 1]),
            "images of shape [2]",
        ),
        (
            npy("|u1", false, &[2, 2], &[0; 3]),
            y(&[0, 1]),
            "should take 4 bytes",
        ),
        (npy("|u1", false, &[2, 2], &[0; 5]), y(&[0, 1]), "has more"),
        (
            npy("|u1", false, &[0, 1 << 40, 1 << 40], &[]),
            y(&[]),
            "empty",
        ),
        (
            npy("<f8", true, &[1 << 40, 1 << 40], &[0; 64]),
            y(&[]),
            "only 64",
        ),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(),
            y(&[0]),
            "too long",
        ),
        (x()[..50].to_vec(), y(&[0, 1]), "the header"),
        (b"no array".to_vec(), y(&[0]), "does not begin with"),
        (b"".to_vec(), y(&[0]), "only 0"),
    ];
    for (images, labels, part) in cases {
        let error = load_arrays(&[("x_train", images), ("y_train", labels)]).unwrap_err();
        assert!(error.contains(part), "no `{part}` in: {error}");
        assert!(error.contains("_train"), "no array named in: {error}");
    }
}

#[test]
fn parts_must_be_whole_and_of_one_shape() {
    let x = || npy("|u1", false, &[2, 2], &[1, 2, 3, 4]);
    let wide = || npy("|u1", false, &[2, 3], &[0; 6]);
    let train = || vec![("x_train", x()), ("y_train", y(&[0, 1]))];
    let error = |more: Vec<(&'static str, Vec<u8>)>| load_arrays(&more).unwrap_err();
    assert!(error(vec![("x_train", x())]).contains("no array y_train"));
    let with = |more| [train(), more].concat();
    assert!(error(with(vec![("x_test", x())])).contains("no array y_test"));
    assert!(error(with(vec![("y_test", y(&[0, 1]))])).contains("no array x_test"));
    let shapes = error(with(vec![("x_test", wide()), ("y_test", y(&[0, 1]))]));
    assert!(
        shapes.contains("1×1×2") && shapes.contains("1×1×3"),
        "{shapes}"
    );
}

#[test]
fn damaged_npz_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("my.npz");
    let x = npy("|u1", false, &[2, 2], &[1, 2, 3, 4]);
    let whole = npz(&[("x_train", x), ("y_train", y(&[0, 1]))], false);
    for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
        write(file.clone(), &whole[..cut]);
        refused("npz", &file, &["my.npz", "no whole npz"]);
    }
    // A changed pixel fails the archive's checksum.
    let at = whole.windows(4).position(|w| w == [1, 2, 3, 4]).unwrap();
    let mut wrong = whole.clone();
    wrong[at] ^= 1;
    write(file.clone(), &wrong);
    refused("npz", &file, &["my.npz:x_train"]);
    write(file.clone(), &whole);
    let entries = list(Some(&file));
    let entry = entries.iter().find(|e| e.name == "npz").unwrap();
    assert_eq!(
        (entry.train, entry.test, entry.shape),
        (Some(2), None, Some([1, 1, 2]))
    );
    assert!(
        entries
            .iter()
            .all(|e| e.found == ["digits", "npz", "add-task"].contains(&e.name.as_str()))
    );
}

// ---- real data ----

/// Oracle: the sizes that the sets' authors publish.
#[test]
fn real_sets_have_their_published_sizes() {
    if std::env::var_os("SANSPROP_DATA").is_none() {
        eprintln!("SKIPPED: SANSPROP_DATA names no folder with cifar-10, kmnist and fashion-mnist");
        return;
    }
    let entries = list(None);
    assert_eq!(entries.len(), names().count());
    for (name, train, shape) in [
        ("cifar-10", Some(50_000), [32, 32, 3]),
        ("fashion-mnist", Some(60_000), [28, 28, 1]),
        // Any part of the training images will do.
        ("kmnist", None, [28, 28, 1]),
    ] {
        let entry = entries.iter().find(|e| e.name == name).unwrap();
        if !entry.found {
            eprintln!("SKIPPED: no {name} under SANSPROP_DATA");
            continue;
        }
        let start = std::time::Instant::now();
        let report = verify(name, None).unwrap();
        eprintln!("{name}: {:.2} s\n{report:?}", start.elapsed().as_secs_f64());
        let test = report.test.unwrap();
        assert_eq!(test.samples, 10_000);
        assert_eq!(test.per_class, [1000; 10]);
        assert_eq!((report.train.shape, test.shape), (shape, shape));
        if let Some(samples) = train {
            assert_eq!(report.train.samples, samples);
            assert_eq!(report.train.per_class, vec![samples / 10; 10]);
        }
        assert_eq!(
            report.complete,
            Some(report.train.samples == report.official.unwrap().0)
        );
        assert_eq!(
            entry.train.unwrap_or(report.train.samples),
            report.train.samples
        );
        assert_eq!((report.train.pixel_min, report.train.pixel_max), (0.0, 1.0));
    }
}
