//! The kernels' text: which function, with which sizes, stands for a [`Kernel`].

use super::super::operands::Operands;
use super::super::panel::Arrival;
use super::super::tile::{Direction, Tile};
use super::super::units::Units;
use super::Kernel;
use crate::Activation;

/// The text that all kernels share, without what a device or an emulation of one says about itself.
const SHARED: [&str; 8] = [
    include_str!("source/work.cuh"),
    include_str!("source/activation.cuh"),
    include_str!("source/stage.cuh"),
    include_str!("source/product.cuh"),
    include_str!("source/panel.cuh"),
    include_str!("source/recurrent.cuh"),
    include_str!("source/gradient.cuh"),
    include_str!("source/elementwise.cuh"),
];

/// What a device says about itself.
pub(super) const DEVICE: &str = include_str!("source/device.cuh");
/// What an emulation says about itself.
pub(super) const EMULATED: &str = include_str!("emulated.hpp");

/// Name of the constant that holds the bytes of shared memory a kernel needs.
pub(super) const SHARED_BYTES: &str = "shared_bytes";

/// A kernel as it is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Source {
    /// The function.
    function: String,
    /// The bytes of shared memory it needs.
    shared: String,
    /// Work-groups that are to share a multiprocessor.
    together: u32,
}

/// Bytes of shared memory of kernels that only add across threads.
const SUMS: &str = "THREADS * 4";

/// The kernel after a window's step.
pub(super) fn next_step() -> Source {
    elementwise("next_step")
}

fn elementwise(function: &str) -> Source {
    Source {
        function: function.into(),
        shared: SUMS.into(),
        together: 1,
    }
}

impl Source {
    /// The program's text, in the words of `device`.
    pub(super) fn text(&self, device: &str) -> String {
        let shared = SHARED.join("\n");
        let Self {
            function,
            shared: bytes,
            together,
        } = self;
        let entry = self.entry();
        format!(
            "{device}\n{shared}\nKERNEL({entry}, {SHARED_BYTES}, {bytes}, THREADS, {together}, {function})\n"
        )
    }

    /// Name of the compiled kernel, by which profilers know it: `forward_panel_8_f32_relu`.
    pub(super) fn entry(&self) -> String {
        let bare = ["Precision::", "Direction::", "Activation::"];
        let name = bare
            .iter()
            .fold(self.function.clone(), |name, word| name.replace(word, ""));
        let words = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        // No function's own name.
        format!("{}_kernel", words.join("_").to_lowercase())
    }

    /// The function, for messages.
    pub(super) fn function(&self) -> &str {
        &self.function
    }
}

fn precision(operands: Operands, units: Units) -> &'static str {
    match operands {
        _ if units == (Units::Cuda { exact: true }) => "Precision::Exact",
        Operands::F32 => "Precision::F32",
        Operands::Tf32 => "Precision::Tf32",
        Operands::Bf16 => "Precision::Bf16",
    }
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "Direction::Forward",
        Direction::Backward => "Direction::Backward",
    }
}

fn sigma(activation: Activation) -> &'static str {
    match activation {
        Activation::Linear => "Activation::Linear",
        Activation::Relu => "Activation::Relu",
        Activation::Tanh => "Activation::Tanh",
        Activation::Erf => "Activation::Erf",
    }
}

/// A function that multiplies panels by weights; `activation` is its last size where it has one.
fn product(name: &str, tile: Tile, direction: Direction, sizes: &[&str]) -> Source {
    let columns = tile.columns;
    let (precision, way) = (precision(tile.operands, tile.units), way(direction));
    let mut all = vec![columns.to_string(), precision.to_owned()];
    all.extend(sizes.iter().map(|&size| size.to_owned()));
    Source {
        function: format!("{name}<{}>", all.join(", ")),
        shared: format!("(Product<{columns}, {precision}, {way}>::SHARED)"),
        // Registers allow so many without spilling.
        together: match columns {
            128.. => 1,
            64.. => 2,
            _ => 3,
        },
    }
}

/// The function that stands for a kernel.
pub(super) fn source(kernel: Kernel) -> Source {
    match kernel {
        Kernel::Product {
            tile, direction, ..
        } => product("product", tile, direction, &[way(direction)]),
        Kernel::ForwardPanel { tile, arrival } => {
            let sizes = [sigma(arrival.activation)];
            product("forward_panel", tile, Direction::Forward, &sizes)
        }
        Kernel::FeedbackPanel {
            tile,
            direction,
            arrival,
            ..
        } => {
            let sizes = [way(direction), sigma(arrival.activation)];
            product("feedback_panel", tile, direction, &sizes)
        }
        Kernel::RecurStep(tile, activation) => {
            product("recur_step", tile, Direction::Forward, &[sigma(activation)])
        }
        Kernel::FeedbackStep {
            tile, activation, ..
        } => product(
            "feedback_step",
            tile,
            Direction::Backward,
            &[sigma(activation)],
        ),
        Kernel::GradientPart(tile) => {
            let sizes = format!(
                "{}, {}, {}",
                tile.inputs,
                tile.outputs,
                precision(tile.operands, tile.units)
            );
            Source {
                function: format!("gradient_part<{sizes}>"),
                shared: format!("(Gradient<{sizes}>::SHARED)"),
                together: 1,
            }
        }
        Kernel::Normalise(arrival) => {
            elementwise(&format!("normalise<{}>", sigma(arrival.activation)))
        }
        Kernel::Land(arrival) => {
            elementwise(&format!("land_signal<{}>", sigma(arrival.activation)))
        }
        Kernel::Pool => elementwise("pool"),
        Kernel::Clear => elementwise("clear"),
        Kernel::Copy => elementwise("copy"),
        Kernel::Sign => elementwise("sign"),
        Kernel::Gather => elementwise("gather"),
        Kernel::ClassificationLoss => elementwise("classification_loss"),
        Kernel::SequenceLoss => elementwise("sequence_loss"),
        Kernel::BiasPart => elementwise("bias_part"),
        Kernel::AddParts => elementwise("add_parts"),
        Kernel::Sgd => elementwise("sgd"),
        Kernel::Adam => elementwise("adam"),
    }
}

/// What a kernel is to do beside what its name says: the bits of `Do` in `source/work.cuh`.
pub(super) fn variant(kernel: Kernel) -> u32 {
    let bits = |bits: [(bool, u32); 2]| bits.iter().map(|&(on, bit)| u32::from(on) * bit).sum();
    let normalised = |arrival: Arrival| (arrival.normalised, 1);
    match kernel {
        Kernel::Product { biased, .. } => u32::from(biased) * 2,
        Kernel::ForwardPanel { arrival, .. }
        | Kernel::Normalise(arrival)
        | Kernel::Land(arrival) => bits([normalised(arrival), (false, 0)]),
        Kernel::FeedbackPanel { arrival, local, .. } => bits([normalised(arrival), (local, 4)]),
        Kernel::FeedbackStep {
            last, first, local, ..
        } => u32::from(local) * 4 + bits([(last, 8), (first, 16)]),
        _ => 0,
    }
}
