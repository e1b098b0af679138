//! The kernels' text: which function, with which sizes, stands for a [`Kernel`].

use super::super::matrix::PLANE;
use super::super::operands::{Form, Operands};
use super::super::panel::Arrival;
use super::super::tile::{Direction, Tile};
use super::super::units::{By, Panels, Parts, Patch, Stacks, Units, Wide};
use super::{Kernel, STACKED, WARPS};
use crate::Activation;

/// The text that all kernels share, without what a device or an emulation of one says about itself.
const SHARED: [&str; 20] = [
    include_str!("source/work.cuh"),
    include_str!("source/activation.cuh"),
    include_str!("source/stage.cuh"),
    include_str!("source/planes.cuh"),
    include_str!("source/sums.cuh"),
    include_str!("source/cut.cuh"),
    include_str!("source/product.cuh"),
    include_str!("source/warp.cuh"),
    include_str!("source/panel.cuh"),
    include_str!("source/recurrent.cuh"),
    include_str!("source/gradient.cuh"),
    include_str!("source/channels.cuh"),
    include_str!("source/wide.cuh"),
    include_str!("source/patch.cuh"),
    include_str!("source/wide_panel.cuh"),
    include_str!("source/wide_gradient.cuh"),
    include_str!("source/gradients.cuh"),
    include_str!("source/warp_gradient.cuh"),
    include_str!("source/patch_gradient.cuh"),
    include_str!("source/elementwise.cuh"),
];

/// What a device says about itself.
const DEVICE: &str = include_str!("source/device.cuh");
/// What an emulation says about itself.
const EMULATED: &str = concat!(
    include_str!("emulated/threads.hpp"),
    include_str!("emulated/device.hpp"),
    include_str!("emulated/groups.hpp")
);

/// Name of the constant that holds the bytes of shared memory a kernel needs.
pub(super) const SHARED_BYTES: &str = "shared_bytes";

/// A kernel as it is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Source {
    /// The function.
    function: String,
    /// The bytes of shared memory it needs.
    shared: String,
    /// Warps of a work-group.
    warps: usize,
    /// Work-groups that are to share a multiprocessor.
    together: u32,
    /// Columns of the instruction of a group of warps, if it has any use for one.
    group_columns: usize,
    /// Whether it begins before the kernels whose results it reads have ended, and waits for them by itself.
    early: bool,
}

/// Warps that multiply together, on Hopper.
const WARPS_OF_A_GROUP: usize = 4;

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
        warps: WARPS,
        together: 1,
        group_columns: 0,
        early: false,
    }
}

/// The instruction of groups of warps with so many columns: its operands can be no loop of C++'s.
fn multiply_group(columns: usize) -> String {
    let sums = columns / 2;
    let list = |item: &dyn Fn(usize) -> String| (0..sums).map(item).collect::<Vec<_>>().join(", ");
    let names = list(&|n| format!("%{n}"));
    let operands = list(&|n| format!("\"+f\"(d[{n}])"));
    let [a, b, left, right] = [0, 1, 2, 3].map(|n| sums + n);
    format!(
        "/// Starts adding a product of 64 × 16 by 16 × {columns} values of bf16, by a group of warps. An operand's lines are \
         the terms of its rows\n/// (or columns), or 64 of these of a term. Sums are as those of [`multiply`], a warp's the \
         next 16 rows.\n\
         template <bool LeftTerms, bool RightTerms, u32 Across>\n\
         DEVICE void multiply_group(float (&sums)[Across][4], u64 a, u64 b) {{\n    \
         static_assert(Across == {columns} / 8, \"the instruction's columns\");\n    \
         float *d = &sums[0][0];\n    \
         asm volatile(\"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16 {{{names}}}, %{a}, %{b}, 1, 1, 1, \
         %{left}, %{right};\" : {operands} : \"l\"(a), \"l\"(b), \"n\"(LeftTerms ? 1 : 0), \"n\"(RightTerms ? 1 : 0));\n}}\n"
    )
}

impl Source {
    /// The program's text for a device.
    pub(super) fn text(&self) -> String {
        self.text_after(&format!(
            "{DEVICE}\n{}",
            multiply_group(self.group_columns.max(8))
        ))
    }

    /// The program's text for an emulation of one.
    pub(super) fn emulated(&self) -> String {
        self.text_after(EMULATED)
    }

    fn text_after(&self, device: &str) -> String {
        let shared = SHARED.join("\n");
        let Self {
            function,
            shared: bytes,
            together,
            early,
            ..
        } = self;
        let threads = self.threads();
        let entry = self.entry();
        format!(
            "{device}\n{shared}\nKERNEL({entry}, {SHARED_BYTES}, {bytes}, {threads}, {together}, {early}, {function})\n"
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

    /// Threads of a work-group.
    pub(super) fn threads(&self) -> u32 {
        (self.warps * PLANE) as u32
    }

    /// The function, for messages.
    pub(super) fn function(&self) -> &str {
        &self.function
    }
}

fn precision(operands: Operands, units: Units) -> &'static str {
    match operands {
        _ if matches!(units, Units::Cuda(Parts { exact: true, .. })) => "Precision::Exact",
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

/// A function that multiplies panels by weights, for so many columns.
fn product(name: &str, tile: Tile, direction: Direction, activation: Option<Activation>) -> Source {
    let columns = tile.columns;
    let (precision, way) = (precision(tile.operands, tile.units), way(direction));
    let (kind, warps) = match tile.units.by() {
        By::Pieces if tile.units.cuts() => ("CutProduct", WARPS),
        By::Pieces => ("Product", WARPS),
        By::Groups(wide) => return wide_product(name, tile, wide, direction, activation),
        By::Patches(patch) => return patch_product(name, tile, patch, activation),
        By::Panels(Panels { warps, .. }) => ("WarpProduct", warps),
        By::Stacks(_) => unreachable!("only gradients are summed over stacks"),
    };
    let product = match tile.units.by() {
        By::Panels(Panels {
            channels, eights, ..
        }) => {
            let rows = tile.rows;
            format!("{kind}<{channels}, {columns}, {rows}, {warps}, {eights}, {precision}>")
        }
        By::Pieces | By::Groups(_) | By::Patches(_) | By::Stacks(_) => {
            format!("{kind}<{columns}, {precision}, {way}>")
        }
    };
    let function = match activation {
        Some(activation) => format!("{name}<{product}, {}>", sigma(activation)),
        None => format!("{name}<{product}>"),
    };
    Source {
        function,
        shared: format!("({product}::SHARED)"),
        warps,
        // Registers allow so many.
        together: match (columns, tile.units.cuts()) {
            _ if kind == "WarpProduct" => 1,
            (128.., false) => 1,
            (32.., _) => 2,
            _ => 3,
        },
        group_columns: 0,
        // Steps of a sequence wait at their beginning.
        early: matches!(name, "product" | "forward_panel" | "feedback_panel"),
    }
}

/// The same by groups of warps.
fn wide_product(
    name: &str,
    tile: Tile,
    wide: Wide,
    direction: Direction,
    activation: Option<Activation>,
) -> Source {
    let (precision, way) = (precision(tile.operands, tile.units), way(direction));
    let Wide {
        groups,
        deep,
        panels,
        together,
    } = wide;
    let rows = tile.rows;
    let product =
        format!("WideProduct<{groups}, {deep}, {panels}, {rows}, {together}, {precision}, {way}>");
    let columns = panels * rows;
    of_blocks(name, &product, activation, [groups, together, columns])
}

/// The same by groups of warps that make neighbouring panels together.
fn patch_product(name: &str, tile: Tile, patch: Patch, activation: Option<Activation>) -> Source {
    let precision = precision(tile.operands, tile.units);
    let Patch {
        groups,
        channels,
        ribbon,
        stages,
        sources,
        lands,
        together,
    } = patch;
    let Tile { columns, rows, .. } = tile;
    let product = format!(
        "PatchProduct<{groups}, {channels}, {columns}, {ribbon}, {rows}, {stages}, {sources}, {lands}, {precision}>"
    );
    of_blocks(name, &product, activation, [groups, together, rows])
}

/// A product of panels in blocks: of so many groups of warps, so many work-groups of which share a multiprocessor, with an
/// instruction of so many columns.
fn of_blocks(
    name: &str,
    product: &str,
    activation: Option<Activation>,
    [groups, together, columns]: [usize; 3],
) -> Source {
    let function = match (name, activation) {
        ("forward_panel", Some(activation)) => {
            format!("forward_blocks<{product}, {}>", sigma(activation))
        }
        ("feedback_panel", Some(activation)) => {
            format!("feedback_blocks<{product}, {}>", sigma(activation))
        }
        _ => format!("product_of_blocks<{product}>"),
    };
    Source {
        function,
        shared: format!("({product}::SHARED)"),
        warps: WARPS_OF_A_GROUP * groups,
        together: together as u32,
        group_columns: columns,
        early: true,
    }
}

/// The function that stands for a kernel.
pub(super) fn source(kernel: Kernel) -> Source {
    match kernel {
        Kernel::Product {
            tile, direction, ..
        } => product("product", tile, direction, None),
        Kernel::ForwardPanel { tile, arrival, .. } => {
            let activation = Some(arrival.activation);
            product("forward_panel", tile, Direction::Forward, activation)
        }
        Kernel::FeedbackPanel {
            tile,
            direction,
            arrival,
            ..
        } => product("feedback_panel", tile, direction, Some(arrival.activation)),
        Kernel::RecurStep(tile, activation) => {
            product("recur_step", tile, Direction::Forward, Some(activation))
        }
        Kernel::FeedbackStep {
            tile, activation, ..
        } => product("feedback_step", tile, Direction::Backward, Some(activation)),
        Kernel::GradientPart(tile, _) => {
            let (inputs, outputs) = (tile.inputs, tile.outputs);
            let precision = precision(tile.operands, tile.units);
            if tile.all_taps > 0 {
                let sum = format!(
                    "WarpGradient<{inputs}, {outputs}, {}, {precision}>",
                    tile.all_taps
                );
                return Source {
                    function: format!("gradient_of_all_taps<{inputs}, {outputs}, {sum}>"),
                    shared: format!("({sum}::SHARED)"),
                    warps: WARPS,
                    together: 1,
                    group_columns: 0,
                    early: true,
                };
            }
            if let By::Groups(Wide {
                groups, together, ..
            }) = tile.units.by()
            {
                let [batch, tiles] = tile.panel;
                let sum = format!(
                    "WideGradient<{groups}, {outputs}, {batch}, {tiles}, {together}, {precision}>"
                );
                return Source {
                    function: format!("gradient_part<{inputs}, {outputs}, {sum}>"),
                    shared: format!("({sum}::SHARED)"),
                    warps: WARPS_OF_A_GROUP * groups,
                    together: together as u32,
                    group_columns: outputs,
                    early: true,
                };
            }
            if let By::Stacks(Stacks {
                groups,
                deep,
                halves,
                stages,
                blocks,
                taps,
                slots,
            }) = tile.units.by()
            {
                let batch = tile.panel[0];
                let sum = format!(
                    "PatchGradient<{groups}, {deep}, {inputs}, {outputs}, {batch}, {halves}, {stages}, {blocks}, {taps}, {slots}, {precision}>"
                );
                return Source {
                    function: format!("gradient_of_stacks<{halves}, {sum}>"),
                    shared: format!("({sum}::SHARED)"),
                    warps: WARPS_OF_A_GROUP * groups,
                    together: 1,
                    group_columns: STACKED,
                    early: true,
                };
            }
            let cut = tile.units.cuts();
            let sum = format!("Gradient<{inputs}, {outputs}, {precision}, {cut}>");
            Source {
                function: format!("gradient_part<{inputs}, {outputs}, {sum}>"),
                shared: format!("({sum}::SHARED)"),
                warps: WARPS,
                together: match (inputs * outputs, tile.units.cuts()) {
                    (_, false) => 1,
                    (1024.., true) => 2,
                    _ => 3,
                },
                group_columns: 0,
                early: true,
            }
        }
        Kernel::Normalise(arrival) => {
            elementwise(&format!("normalise<{}>", sigma(arrival.activation)))
        }
        Kernel::Land(arrival, _) => {
            elementwise(&format!("land_signal<{}>", sigma(arrival.activation)))
        }
        Kernel::Pool(_) => elementwise("pool"),
        Kernel::Cut(_) => elementwise("cut"),
        Kernel::Unfold(_) => elementwise("unfold"),
        Kernel::Fragments(_) => elementwise("fragments"),
        Kernel::Ribbon(_) => elementwise("ribbon"),
        Kernel::Join(_) => elementwise("join"),
        Kernel::Clear => elementwise("clear"),
        Kernel::Copy => elementwise("copy"),
        Kernel::Sign => elementwise("sign"),
        Kernel::Gather => elementwise("gather"),
        Kernel::ClassificationLoss => elementwise("classification_loss"),
        Kernel::SequenceLoss => elementwise("sequence_loss"),
        Kernel::BiasPart(_) => elementwise("bias_part"),
        Kernel::AddParts => elementwise("add_parts<false>"),
        Kernel::Descend => elementwise("add_parts<true>"),
        Kernel::Sgd => elementwise("sgd"),
        Kernel::Adam => elementwise("adam"),
    }
}

/// What a kernel is to do beside what its name says: the bits of `Do` in `source/work.cuh`.
pub(super) fn variant(kernel: Kernel) -> u32 {
    let normalised = |arrival: Arrival| bit(arrival.normalised, 1);
    let result = |tile: Tile| match tile.units {
        Units::Cuda(parts) => form(parts.result, 64),
        Units::Scalar | Units::Matrix => 0,
    };
    match kernel {
        Kernel::Product { biased, .. } => bit(biased, 2),
        Kernel::ForwardPanel { tile, arrival, z } => {
            normalised(arrival) | result(tile) | bit(!z, 256)
        }
        Kernel::Normalise(arrival) => normalised(arrival),
        Kernel::Land(arrival, [delta, z]) => {
            let two_parts = bit(z.has_two_parts(), 128);
            let z_lies = bit(z.in_blocks(), 1024) | bit(z.in_eights(), 2048);
            normalised(arrival) | form(delta, 64) | two_parts | z_lies
        }
        Kernel::FeedbackPanel {
            tile,
            arrival,
            local,
            ..
        } => normalised(arrival) | result(tile) | bit(local, 4),
        Kernel::FeedbackStep {
            last, first, local, ..
        } => bit(local, 4) | bit(last, 8) | bit(first, 16),
        Kernel::GradientPart(_, of)
        | Kernel::Pool(of)
        | Kernel::BiasPart(of)
        | Kernel::Cut(of)
        | Kernel::Unfold(of)
        | Kernel::Fragments(of)
        | Kernel::Ribbon(of)
        | Kernel::Join(of) => form(of, 32),
        _ => 0,
    }
}

fn bit(on: bool, bit: u32) -> u32 {
    u32::from(on) * bit
}

/// Whether an array is cut, which is `cut`, whether it has two parts, and whether and in what blocks it lies.
fn form(form: Form, cut: u32) -> u32 {
    let lies = bit(form.in_blocks(), 512) | bit(form.in_eights(), 2048);
    bit(form != Form::Plain, cut) | bit(form.has_two_parts(), 128) | lies
}
