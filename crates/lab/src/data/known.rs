//! The table of known sets.

use super::DataError;
use sansprop::images::ImageShape;

/// How a set is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Part of the program.
    Digits,
    /// CIFAR-10's own binary records or Python pickles.
    Cifar10,
    /// The four IDX files of MNIST and the sets made to its measure.
    Idx {
        /// Folder names: torchvision's, then the plain one.
        folders: [&'static str; 2],
    },
    /// One NumPy archive.
    Npz,
    /// A folder of NumPy arrays.
    Npy,
    /// Sequences that the program makes.
    AddTask,
}

/// One known set.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) format: Format,
    /// Where the set is published; empty for the user's own arrays.
    pub(super) published: &'static str,
    /// Official numbers of training and test samples.
    pub(super) official: Option<(usize, Option<usize>)>,
}

static KNOWN: [Known; 8] = [
    Known {
        name: "digits",
        format: Format::Digits,
        published: "https://archive.ics.uci.edu/dataset/80",
        official: Some((1_797, None)),
    },
    Known {
        name: "cifar-10",
        format: Format::Cifar10,
        published: "https://www.cs.toronto.edu/~kriz/cifar.html",
        official: Some((50_000, Some(10_000))),
    },
    Known {
        name: "kmnist",
        format: Format::Idx {
            folders: ["KMNIST", "kmnist"],
        },
        published: "https://github.com/rois-codh/kmnist",
        official: Some((60_000, Some(10_000))),
    },
    Known {
        name: "fashion-mnist",
        format: Format::Idx {
            folders: ["FashionMNIST", "fashion-mnist"],
        },
        published: "https://github.com/zalandoresearch/fashion-mnist",
        official: Some((60_000, Some(10_000))),
    },
    Known {
        name: "mnist",
        format: Format::Idx {
            folders: ["MNIST", "mnist"],
        },
        published: "http://yann.lecun.com/exdb/mnist/",
        official: Some((60_000, Some(10_000))),
    },
    Known {
        name: "npz",
        format: Format::Npz,
        published: "",
        official: None,
    },
    Known {
        name: "npy",
        format: Format::Npy,
        published: "",
        official: None,
    },
    Known {
        name: super::ADD_TASK,
        format: Format::AddTask,
        published: "",
        official: None,
    },
];

/// The names that [`load`](super::load) knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|k| k.name)
}

/// Shape, classes and number of training images of a published set; none of other sets.
pub fn official_shape(name: &str) -> Option<(ImageShape, usize, usize)> {
    let known = KNOWN.iter().find(|k| k.name == name)?;
    let (count, _) = known.official?;
    let shape = match known.format {
        Format::Cifar10 => super::cifar::SHAPE,
        Format::Idx { .. } => ImageShape {
            height: 28,
            width: 28,
            channels: 1,
        },
        Format::Digits | Format::Npz | Format::Npy | Format::AddTask => return None,
    };
    Some((shape, 10, count))
}

pub(super) fn all() -> &'static [Known] {
    &KNOWN
}

pub(super) fn find(name: &str) -> Result<&'static Known, DataError> {
    KNOWN
        .iter()
        .find(|k| k.name == name)
        .ok_or_else(|| DataError::UnknownSet {
            name: name.to_string(),
            nearest: nearest(name),
            known: names().collect::<Vec<_>>().join(", "),
        })
}

/// The known name within a third of `name`'s letters.
fn nearest(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    names()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .filter(|&(distance, known)| distance <= known.len() / 3)
        .min()
        .map(|(_, known)| known.to_string())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn misspelt_names_find_the_set_meant() {
        for (written, meant) in [
            ("cifar10", Some("cifar-10")),
            ("CIFAR_10", Some("cifar-10")),
            ("FashionMNIST", Some("fashion-mnist")),
            ("KMNIST", Some("kmnist")),
            ("digit", Some("digits")),
            ("imagenet", None),
            ("", None),
        ] {
            assert_eq!(nearest(written).as_deref(), meant, "{written}");
        }
    }
}
