//! The protocol-buffer messages of an event file, as far as runs need them: TensorFlow's `event.proto`,
//! `summary.proto`, `tensor.proto` and `tensor_shape.proto`, with their field numbers as tags.

use prost::{Message, Oneof};

/// What the first event of a file says of its format.
pub(super) const FILE_VERSION: &str = "brain.Event:2";

/// `DataType.DT_STRING` of `types.proto`.
const STRING: i32 = 7;

/// `Event` of `event.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// The x axis.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// What happened.
    #[prost(oneof = "What", tags = "3, 5")]
    pub what: Option<What>,
}

/// `Event.what`.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum What {
    /// In the first event of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    /// In all others.
    #[prost(message, tag = "5")]
    Summary(Summary),
}

/// `Summary` of `summary.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    /// One for each tag.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// `Summary.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    /// The name of the curve.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// Which part of TensorBoard shows it; none for scalars.
    #[prost(message, optional, tag = "9")]
    pub metadata: Option<Metadata>,
    /// A number or a tensor.
    #[prost(oneof = "Content", tags = "2, 8")]
    pub content: Option<Content>,
}

/// `Summary.Value.value`.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Content {
    /// A scalar.
    #[prost(float, tag = "2")]
    Scalar(f32),
    /// Here: a text.
    #[prost(message, tag = "8")]
    Tensor(Tensor),
}

/// `SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    /// The part of TensorBoard.
    #[prost(message, optional, tag = "1")]
    pub plugin: Option<Plugin>,
}

/// `SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Plugin {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `TensorProto` of `tensor.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    /// A `DataType`.
    #[prost(int32, tag = "1")]
    pub dtype: i32,
    /// How many values along which axis.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
    /// The values of a tensor of strings.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub strings: Vec<Vec<u8>>,
}

/// `TensorShapeProto` of `tensor_shape.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    /// The axes.
    #[prost(message, repeated, tag = "2")]
    pub axes: Vec<Axis>,
}

/// `TensorShapeProto.Dim`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Axis {
    /// Its length.
    #[prost(int64, tag = "1")]
    pub size: i64,
}

impl Value {
    /// A point of a curve.
    pub(super) fn scalar(tag: String, value: f64) -> Self {
        Self {
            tag,
            metadata: None,
            content: Some(Content::Scalar(value as f32)),
        }
    }

    /// A text in Markdown.
    pub(super) fn text(tag: &str, text: String) -> Self {
        Self {
            tag: tag.into(),
            metadata: Some(Metadata {
                plugin: Some(Plugin {
                    name: "text".into(),
                }),
            }),
            content: Some(Content::Tensor(Tensor {
                dtype: STRING,
                shape: Some(Shape {
                    axes: vec![Axis { size: 1 }],
                }),
                strings: vec![text.into_bytes()],
            })),
        }
    }
}
