//! What multiplies: a device's matrix units are used where it reports them and a trial of them comes out right.

use super::cuda;
use super::matrix::{PLANE, SHARED_BYTES};
use super::operands::{Blocks, Form, Operands};
use super::patches::PatchShape;
use super::tile::{SIDE, THREADS};
use crate::Layer;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Units {
    /// Each thread, in f32.
    Scalar,
    /// The matrix instruction, of a plane of threads together.
    Matrix,
    /// The same, by the kernels written for CUDA.
    Cuda(Parts),
}

/// How kernels written for CUDA multiply: bf16 alone, into parts of which f32 is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Parts {
    /// Whether all of f32 is kept, in three parts.
    pub(super) exact: bool,
    /// Whether the operands are cut in memory, by those who wrote them.
    pub(super) cut: bool,
    /// How the next product's operand is to lie in memory.
    pub(super) result: Form,
    /// Whether the device has instructions of groups of warps (Hopper's wgmma), and whether panels of few channels lie in
    /// blocks as these take them unshuffled.
    pub(super) groups: bool,
    pub(super) neighbours: bool,
    pub(super) by: By,
}

/// How the warps of a work-group share its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum By {
    /// Pieces of a panel for each, by the instruction of a warp.
    #[default]
    Pieces,
    /// Channels of some panels for each group of them, by its instruction.
    Groups(Wide),
    /// Panels for each.
    Panels(Panels),
    /// Stacks of neighbouring panels for each group of them.
    Patches(Patch),
    /// Sources of a gradient's stacks for each group of them.
    Stacks(Stacks),
}

/// Work-groups of groups of warps that sum a gradient over stacks of neighbouring panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stacks {
    /// Groups of warps.
    pub(super) groups: usize,
    /// Blocks of sources of each.
    pub(super) deep: usize,
    /// Tiles of samples that a panel is taken in.
    pub(super) halves: usize,
    /// Blocks and deltas in shared memory at a time.
    pub(super) stages: usize,
    /// Most blocks of a share, most taps, and most slots for the sums of a source and a panel.
    pub(super) blocks: usize,
    pub(super) taps: usize,
    pub(super) slots: usize,
}

/// Work-groups of groups of warps that make a patch of neighbouring panels, a stack each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Patch {
    /// Groups of warps.
    pub(super) groups: usize,
    /// Channels of a source panel.
    pub(super) channels: usize,
    /// Rows of the ribbon of weights.
    pub(super) ribbon: usize,
    /// Sources in shared memory at a time.
    pub(super) stages: usize,
    /// Sources that a stack is multiplied by in one chunk.
    pub(super) sources: usize,
    /// Whether it lands where z is.
    pub(super) lands: bool,
    /// Work-groups that are to share a multiprocessor.
    pub(super) together: usize,
}

impl Patch {
    /// The patches of panels of so many channels.
    pub(super) fn shape(self, channels: usize) -> PatchShape {
        PatchShape {
            panels: cuda::STACKED / channels,
            channels,
            stacks: self.groups,
            stages: self.stages,
            together: self.sources,
        }
    }
}

/// Work-groups of groups of warps. Gradients have no panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wide {
    /// Groups of warps.
    pub(super) groups: usize,
    /// Blocks of channels of each.
    pub(super) deep: usize,
    /// Panels that are made together.
    pub(super) panels: usize,
    /// Work-groups that are to share a multiprocessor.
    pub(super) together: usize,
}

impl Wide {
    /// Blocks of channels of a work-group.
    pub(super) fn blocks(self) -> usize {
        self.groups * self.deep
    }
}

/// Work-groups whose warps make panels by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Panels {
    /// Channels of a source panel.
    pub(super) channels: usize,
    /// Warps of a work-group.
    pub(super) warps: usize,
    /// Whether panels lie in blocks of eight channels.
    pub(super) eights: bool,
}

/// Values of a result below which the errors of two parts do not average out. Nor may they in narrow layers; those that
/// are not cut are exact.
const FEW: usize = 128;
/// Locations from which on it is worth while to unfold what a layer of few inputs reads.
const UNFOLDED: usize = 256;
/// Channels that are copied at once: cut arrays have a multiple of it.
const TOGETHER: usize = 8;
/// Fewest panels that lie in blocks: fewer would leave most of a GPU idle.
const PANELS_IN_BLOCKS: usize = 16;
/// Most rows of panels that lie in blocks: more than are made at once would not be normalised there.
const ROWS_IN_BLOCKS: usize = 128;

impl Units {
    /// What multiplies such operands where a result has so many values, and the operands channels side by side.
    pub(super) fn of(self, operands: Operands, values: usize, channels: [usize; 2]) -> Self {
        let Self::Cuda(device) = self else {
            return self;
        };
        let whole = channels.iter().all(|c| c.is_multiple_of(TOGETHER));
        let exact = operands == Operands::F32 && (!whole || values < FEW);
        Self::Cuda(Parts {
            exact,
            cut: whole && !exact && self.form(operands) != Form::Plain,
            result: Form::Plain,
            groups: device.groups,
            neighbours: device.neighbours,
            by: By::Pieces,
        })
    }

    /// How operands are cut that products read.
    pub(super) fn form(self, operands: Operands) -> Form {
        match (self, operands) {
            (Self::Cuda(_), Operands::F32) => Form::TwoParts,
            (Self::Cuda(_), Operands::Bf16) => Form::OnePart,
            _ => Form::Plain,
        }
    }

    /// Channels of the blocks in which so many panels, of so many rows and channels, lie where they are cut.
    pub(super) fn block(self, operands: Operands, sides: [usize; 3]) -> Option<usize> {
        let [panels, rows, channels] = sides;
        let Self::Cuda(Parts {
            groups: true,
            neighbours,
            ..
        }) = self
        else {
            return None;
        };
        let enough = panels >= PANELS_IN_BLOCKS && rows <= ROWS_IN_BLOCKS;
        let block = cuda::block_of(channels, neighbours);
        block.filter(|_| enough && self.form(operands) != Form::Plain)
    }

    /// How operands are cut that lie in blocks of so many of their channels.
    pub(super) fn blocks(self, operands: Operands, block: usize, sides: [usize; 2]) -> Form {
        let [rows, channels] = sides;
        Form::Blocks(Blocks {
            two_parts: self.form(operands).has_two_parts(),
            block,
            rows,
            channels,
        })
    }

    /// Channels of the panels that stand for those of a layer whose inputs are too few to be copied together: those of
    /// all its taps.
    pub(super) fn unfolded(self, operands: Operands, layer: &Layer, batch: usize) -> Option<usize> {
        let unfolds = self.form(operands) != Form::Plain
            && layer.inputs < TOGETHER
            && layer.outputs.is_multiple_of(TOGETHER)
            && layer.locations() >= UNFOLDED
            && layer.weights() >= FEW
            && layer.wiring.taps() <= THREADS;
        let channels = layer.wiring.taps() * layer.inputs;
        let block = self.block(operands, [layer.locations(), batch, layer.outputs]);
        let wide = match block {
            Some(cuda::EIGHT) => cuda::widened(channels),
            Some(block) => Some(channels.next_multiple_of(block)),
            None => None,
        };
        unfolds.then_some(wide.unwrap_or(channels.next_multiple_of(TOGETHER)))
    }

    /// How a result of so many panels, rows and channels is to lie in memory.
    pub(super) fn result(self, operands: Operands, sides: [usize; 3]) -> Form {
        let [_, rows, channels] = sides;
        match self.block(operands, sides) {
            Some(block) => self.blocks(operands, block, [rows, channels]),
            None if channels.is_multiple_of(TOGETHER) => self.form(operands),
            None => Form::Plain,
        }
    }

    /// The same where an operand has lost already what `exact` would keep.
    pub(super) fn of_cut_operand(self, form: Form) -> Self {
        match self {
            Self::Cuda(parts) if form != Form::Plain => Self::Cuda(Parts {
                exact: false,
                ..parts
            }),
            other => other,
        }
    }

    /// Whether operands are cut in memory.
    pub(super) fn cuts(self) -> bool {
        matches!(self, Self::Cuda(Parts { cut: true, .. }))
    }

    /// How warps share the work of CUDA's kernels.
    pub(super) fn by(self) -> By {
        match self {
            Self::Cuda(parts) => parts.by,
            Self::Scalar | Self::Matrix => By::Pieces,
        }
    }

    /// The same, of which warps share the work so.
    pub(super) fn taking(self, by: By) -> Self {
        match self {
            Self::Cuda(parts) => Self::Cuda(Parts { by, ..parts }),
            other => other,
        }
    }

    /// The same, with a result that lies in such a form.
    pub(super) fn giving(self, result: Form) -> Self {
        match self {
            Self::Cuda(parts) => Self::Cuda(Parts { result, ..parts }),
            other => other,
        }
    }

    /// Whether panels of few channels may lie in blocks.
    pub(super) fn has_neighbours(self) -> bool {
        matches!(
            self,
            Self::Cuda(Parts {
                neighbours: true,
                ..
            })
        )
    }

    /// The same, for whom panels of few channels lie in blocks only if `neighbours` says so.
    pub(super) fn with_neighbours(self, neighbours: bool) -> Self {
        match self {
            Self::Cuda(parts) => Self::Cuda(Parts {
                neighbours: parts.neighbours && neighbours,
                ..parts
            }),
            other => other,
        }
    }

    /// What multiplies such operands on a device, as far as it says itself.
    pub(super) fn reported(properties: &DeviceProperties, operands: Operands) -> Self {
        let kind = match operands {
            Operands::F32 => return Self::Scalar,
            Operands::Tf32 => FloatKind::TF32,
            Operands::Bf16 => FloatKind::BF16,
        };
        let instruction = MmaConfig {
            a_type: ElemType::Float(kind).into(),
            b_type: ElemType::Float(kind).into(),
            cd_type: ElemType::Float(FloatKind::F32).into(),
            m: SIDE as u32,
            n: SIDE as u32,
            k: operands.terms() as u32,
        };
        let hardware = &properties.hardware;
        let planes = [hardware.plane_size_min, hardware.plane_size_max];
        let there = properties.features.matmul.cmma.contains(&instruction)
            && planes == [PLANE as u32; 2]
            && hardware.max_shared_memory_size >= SHARED_BYTES;
        match there {
            true => Self::Matrix,
            false => Self::Scalar,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cubecl::ir::features::Features;
    use cubecl::ir::{HardwareProperties, MemoryDeviceProperties};
    use cubecl::profile::TimingMethod;

    const PRECISIONS: [Operands; 3] = [Operands::F32, Operands::Tf32, Operands::Bf16];

    /// A device of so many threads to a plane, with the instruction for such operands, and so many terms.
    fn device(plane: u32, kind: FloatKind, terms: u32) -> DeviceProperties {
        let hardware = HardwareProperties {
            load_width: 128,
            plane_size_min: plane,
            plane_size_max: plane,
            max_bindings: 16,
            max_shared_memory_size: SHARED_BYTES,
            max_cube_count: (1, 1, 1),
            max_units_per_cube: 1024,
            max_cube_dim: (1, 1, 1),
            num_streaming_multiprocessors: None,
            num_cpu_cores: None,
            num_tensor_cores: None,
            min_tensor_cores_dim: None,
            max_vector_size: 4,
        };
        let memory = MemoryDeviceProperties {
            max_page_size: 1,
            alignment: 1,
        };
        let mut features = Features::default();
        features.matmul.cmma.insert(MmaConfig {
            a_type: ElemType::Float(kind).into(),
            b_type: ElemType::Float(kind).into(),
            cd_type: ElemType::Float(FloatKind::F32).into(),
            m: 16,
            n: 16,
            k: terms,
        });
        DeviceProperties::new(features, memory, hardware, TimingMethod::System)
    }

    #[test]
    fn an_instruction_serves_its_own_operands() {
        use Units::{Matrix, Scalar};
        let units = |device: &DeviceProperties| PRECISIONS.map(|o| Units::reported(device, o));
        let bf16 = device(32, FloatKind::BF16, 16);
        assert_eq!(units(&bf16), [Scalar, Scalar, Matrix]);
        let tf32 = device(32, FloatKind::TF32, 8);
        assert_eq!(units(&tf32), [Scalar, Matrix, Scalar]);
        let others = [
            device(32, FloatKind::F16, 16),
            device(32, FloatKind::BF16, 8),
            device(64, FloatKind::BF16, 16),
        ];
        for other in others {
            assert_eq!(units(&other), [Scalar; 3]);
        }
        let mut planes_vary = bf16.clone();
        planes_vary.hardware.plane_size_min = 8;
        assert_eq!(units(&planes_vary), [Scalar; 3]);
        let mut little_memory = bf16;
        little_memory.hardware.max_shared_memory_size = 32 << 10;
        assert_eq!(units(&little_memory), [Scalar; 3]);
    }
}
