//! Labelled images in memory and the minibatches cut from them.

use crate::minibatch::Minibatch;
use thiserror::Error;

/// Pixel values, row-major `[sample, row, column, channel]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// Integers as stored in the file; the network sees `value / divisor` (255 for 8-bit images).
    Bytes {
        /// `samples · height · width · channels` values.
        values: Vec<u8>,
        /// The value that stands for 1.0.
        divisor: f32,
    },
    /// The network sees these values as they are.
    Floats(Vec<f32>),
}

/// Height, width and channels of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels (1 grey, 3 colour).
    pub channels: usize,
}

impl ImageShape {
    /// Values in one image.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether an image of this shape holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A labelled image set.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    shape: ImageShape,
    classes: usize,
    pixels: Pixels,
    labels: Vec<u32>,
}

/// Why pixels and labels do not make an [`Images`].
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ImagesError {
    /// The pixel count is no multiple of the image size, or does not match the labels.
    #[error("{pixels} pixel values do not make {labels} images of {height}×{width}×{channels} (= {} values each)", height * width * channels)]
    Count {
        /// Pixel values given.
        pixels: usize,
        /// Labels given.
        labels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Channels.
        channels: usize,
    },
    /// A label is not below the class count.
    #[error("label {label} of sample {sample} is out of range: the set has {classes} classes, labels 0 to {}", classes - 1)]
    Label {
        /// Index of the sample.
        sample: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A pixel is NaN or infinite.
    #[error("pixel value {value} in sample {sample}: all pixels must be finite")]
    NotFinite {
        /// Index of the sample.
        sample: usize,
        /// The value.
        value: f32,
    },
    /// The set has no sample, no class or an empty image.
    #[error("the set is empty (no sample, no class, or images without pixels)")]
    Empty,
}

impl Images {
    /// Checks counts, label range and finiteness.
    pub fn new(
        shape: ImageShape,
        classes: usize,
        pixels: Pixels,
        labels: Vec<u32>,
    ) -> Result<Self, ImagesError> {
        if shape.is_empty() || labels.is_empty() || classes == 0 {
            return Err(ImagesError::Empty);
        }
        let count = match &pixels {
            Pixels::Bytes { values, .. } => values.len(),
            Pixels::Floats(values) => values.len(),
        };
        if count != shape.len() * labels.len() {
            return Err(ImagesError::Count {
                pixels: count,
                labels: labels.len(),
                height: shape.height,
                width: shape.width,
                channels: shape.channels,
            });
        }
        if let Some(sample) = labels.iter().position(|&l| l as usize >= classes) {
            return Err(ImagesError::Label {
                sample,
                label: labels[sample],
                classes,
            });
        }
        if let Pixels::Floats(values) = &pixels
            && let Some(i) = values.iter().position(|v| !v.is_finite())
        {
            return Err(ImagesError::NotFinite {
                sample: i / shape.len(),
                value: values[i],
            });
        }
        Ok(Self {
            shape,
            classes,
            pixels,
            labels,
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never true: an empty set is refused by [`Images::new`].
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Shape of one image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Class of every sample, `[sample]`.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The stored pixels, `[sample, row, column, channel]`.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }
}

/// How a minibatch is laid out for a network's first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinibatchLayout {
    /// `[location, batch, channel]`, one panel per pixel: for convolutions.
    Locations,
    /// `[batch, value]`, one panel in all: for dense layers.
    Flat,
}

impl Images {
    /// Gathers samples in the given layout.
    ///
    /// # Panics
    /// If a sample index is out of range.
    pub fn minibatch(&self, samples: &[usize], layout: MinibatchLayout) -> Minibatch {
        let labels = samples.iter().map(|&s| self.labels[s]).collect();
        let mut input = vec![0.0; samples.len() * self.shape.len()];
        // A flat image is one location with all its values as channels.
        let channels = match layout {
            MinibatchLayout::Locations => self.shape.channels,
            MinibatchLayout::Flat => self.shape.len(),
        };
        match &self.pixels {
            Pixels::Bytes { values, divisor } => {
                let table: [f32; 256] = std::array::from_fn(|v| v as f32 / divisor);
                scatter(
                    samples,
                    self.shape.len(),
                    channels,
                    values,
                    &mut input,
                    |&v| table[usize::from(v)],
                );
            }
            Pixels::Floats(values) => {
                scatter(
                    samples,
                    self.shape.len(),
                    channels,
                    values,
                    &mut input,
                    |&v| v,
                );
            }
        }
        Minibatch::labelled(input, labels)
    }
}

/// `[sample, location, channel]` to `[location, batch, channel]`.
fn scatter<T>(
    samples: &[usize],
    len: usize,
    channels: usize,
    values: &[T],
    input: &mut [f32],
    value: impl Fn(&T) -> f32,
) {
    for (b, &sample) in samples.iter().enumerate() {
        let image = &values[sample * len..][..len];
        for (location, pixel) in image.chunks_exact(channels).enumerate() {
            let to = &mut input[(location * samples.len() + b) * channels..][..channels];
            for (to, from) in to.iter_mut().zip(pixel) {
                *to = value(from);
            }
        }
    }
}
