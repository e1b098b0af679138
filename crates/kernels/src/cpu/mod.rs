//! The fast CPU kernels: f32, threads, and the widest instruction set that the machine has.

#[cfg(target_arch = "x86_64")]
mod amx;
mod backend;
mod buffer;
mod ceiling;
mod channel_norm;
mod choice;
mod dense;
mod elementwise;
mod error;
mod fill;
mod gather;
mod gradient;
mod isa;
mod lanes;
mod nonlinearity;
mod outer_product;
mod pack;
mod pairs;
mod panel;
mod pointer;
mod portable;
mod recurrent;
mod rounding;
mod rows;
mod scratch;
mod signal;
mod sweep;
mod team;
mod threads;
mod tile;
mod twin;
mod values;
mod weight_gradient;
mod winograd;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::{ForwardPass, Kept, Landing, Layer, Norm, Record, RecurrentCell};
pub use buffer::CpuBuffer;
pub use ceiling::Ceilings;
pub use error::CpuError;
pub use isa::InstructionSet;
use isa::Vectors;
use pack::{Direction, Packing, pack};
use panel::{Delta, FeedbackPort, ForwardPort, Slopes};
use pointer::Pointer;
use recurrent::{Sequence, StateTiles};
use scratch::{Scratch, Workers};
use std::sync::Mutex;
use sweep::Finish;
use threads::Threads;

/// Environment variable that forces an instruction set: `portable`, `avx2`, `avx512` or `amx`.
const FORCE_VARIABLE: &str = "SANSPROP_ISA";

/// Values of an array that will have left the caches before the next kernel reads it: it is written past them, where the
/// instruction set can write whole cache lines.
const LONG: usize = 2 << 20;
/// Those of one that is read after all layers' passes, once or again: it is not to take the place of others meanwhile.
const READ_LATE: usize = 1 << 19;

/// What the kernels compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    /// f32 by whatever sums are fastest.
    F32,
    /// f32 with every sum in a plain order: no tiled convolutions.
    Strict,
    /// f32 sums of operands that are rounded to bf16.
    Bf16,
}

/// f32 kernels on the CPU.
///
/// Denormal numbers are kept as IEEE 754 has them, on any instruction set and number of threads; only Adam's moments
/// become 0 there, because they would stay denormal for good where a gradient stays 0 (docs/performance.md), and so do
/// denormal operands of products on the tile unit, which knows none.
pub struct CpuBackend {
    set: InstructionSet,
    arithmetic: Arithmetic,
    threads: Threads,
    /// Working memory that no call uses now.
    scratch: Mutex<Vec<Scratch>>,
}

impl CpuBackend {
    /// `threads` threads (0: one per core) on the widest instruction set of this CPU, or on the one that the
    /// environment variable `SANSPROP_ISA` names.
    ///
    /// # Errors
    /// The variable names a set that this CPU lacks; threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, CpuError> {
        let set = match std::env::var(FORCE_VARIABLE) {
            Ok(name) => name
                .parse()
                .map_err(|_| CpuError::InstructionSet(format!("{FORCE_VARIABLE}={name}")))?,
            Err(_) => InstructionSet::best(),
        };
        Self::with_instruction_set(threads, set)
    }

    /// As [`new`](Self::new) on a given instruction set.
    ///
    /// # Errors
    /// This CPU lacks the set; threads cannot be started.
    pub fn with_instruction_set(threads: usize, set: InstructionSet) -> Result<Self, CpuError> {
        if !set.available() {
            return Err(CpuError::InstructionSet(set.to_string()));
        }
        let threads = Threads::new(threads).map_err(|e| CpuError::Threads(e.to_string()))?;
        Ok(Self {
            set,
            arithmetic: Arithmetic::F32,
            threads,
            scratch: Mutex::default(),
        })
    }

    /// The same with every sum in a plain order, product by product: no transforms, least rounding. It runs over taps,
    /// then channels; where a grid is walked row by row, as `rows` describes, over columns, channels, rows.
    #[must_use]
    pub fn strict(self) -> Self {
        Self {
            arithmetic: Arithmetic::Strict,
            ..self
        }
    }

    /// The same with operands of 16 bits, bf16: weights as a product reads them, activations, errors and deltas are
    /// rounded to 8 significant bits. Sums, norm statistics and the weights that updates change stay f32, and so does the
    /// minibatch. Pre-activations of wide convolutions are rounded as they are stored, after norm and activation; others are
    /// not.
    #[must_use]
    pub fn bf16(self) -> Self {
        Self {
            arithmetic: Arithmetic::Bf16,
            ..self
        }
    }

    /// Rounds operands in place, if they are to be rounded.
    fn round(&self, operands: &mut [f32]) {
        if self.rounds() {
            operands.iter_mut().for_each(|v| *v = rounding::bf16(*v));
        }
    }

    /// Whether operands are rounded to bf16.
    fn rounds(&self) -> bool {
        self.arithmetic == Arithmetic::Bf16
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Measures what this machine can do at most on this backend's threads and instruction set, which takes a second
    /// or two; the triad's arrays take about `bytes` bytes, which should be several times what the last-level caches
    /// hold.
    pub fn ceilings(&self, bytes: usize) -> Ceilings {
        ceiling::ceilings(&self.threads, self.set, bytes)
    }

    /// Runs `work` with working memory that is kept for the next kernel. There is one for each thread that calls
    /// kernels at the same time, usually one in all.
    fn with_scratch(&self, work: impl FnOnce(&mut Scratch)) {
        let lock = || self.scratch.lock().unwrap_or_else(|e| e.into_inner());
        let mut scratch = lock().pop().unwrap_or_default();
        work(&mut scratch);
        lock().push(scratch);
    }

    /// This backend's threads with vectors of one kind.
    fn workers<'a>(&'a self, set: Vectors, parts: &'a mut CpuBuffer) -> Workers<'a> {
        Workers {
            threads: &self.threads,
            set,
            parts,
        }
    }

    /// A forward pass; where nothing is kept of it, z is not written.
    fn run_forward(&self, pass: ForwardPass<'_, CpuBuffer>, out: &mut Record<CpuBuffer>) {
        let ForwardPass {
            layer,
            batch,
            weight,
            bias,
            input,
            kept,
        } = pass;
        let len = layer.locations() * batch * layer.outputs;
        let halved = self.halves_activations(layer);
        self.with_channel_sums(layer, 1, |[moments, _], scratch| {
            let port = ForwardPort {
                norm: layer.norm,
                activation: layer.activation,
                scale: layer.scale as f32,
                rounded: self.rounds(),
                bias: &bias[..layer.outputs],
                z: (kept != Kept::Nothing).then(|| out.z.target(len, halved)),
                a: out.a.target(len, halved),
                past: match kept {
                    Kept::All => [len >= READ_LATE; 2],
                    Kept::Slopes | Kept::Nothing => [len >= READ_LATE, len >= LONG],
                },
                inverse_deviation: Pointer::new(&mut out.inverse_deviation[..layer.deviations()]),
                moments,
            };
            let finish = Finish::Forward(port);
            self.gather(
                scratch,
                (layer, Direction::Forward),
                batch,
                weight,
                input,
                finish,
            );
        });
    }

    /// Runs `work` with working memory, and room for the sums that the channel norm needs.
    fn with_channel_sums(
        &self,
        port: &Layer,
        networks: usize,
        work: impl FnOnce([Pointer; 2], &mut Scratch),
    ) {
        let len = match port.norm {
            // Behind each location's sums lie those of all locations.
            Norm::Channel => 2 * (port.locations() + 1) * port.outputs,
            Norm::Location | Norm::None => 0,
        };
        self.with_scratch(|scratch| {
            scratch.sums.reserve(len * networks);
            let start = Pointer::new(&mut scratch.sums);
            work([start, start.skip(len * (networks - 1))], scratch);
        });
    }

    /// Lands a signal that arrives at `port`, scaled by `scale`, on one or two networks.
    fn land(
        &self,
        port: &Layer,
        batch: usize,
        scale: f64,
        path: Landing<'_, CpuBuffer>,
        local: Option<Landing<'_, CpuBuffer>>,
        fill: impl FnOnce(&mut Scratch, Finish<'_>),
    ) {
        let len = port.locations() * batch * port.outputs;
        let networks = 1 + usize::from(local.is_some());
        let rounding = (self.rounds(), self.halves_deltas(port));
        self.with_channel_sums(port, networks, |[path_sums, local_sums], scratch| {
            let finish = Finish::Feedback {
                slopes: Slopes {
                    norm: port.norm,
                    activation: port.activation,
                    scale: scale as f32,
                },
                path: feedback_port(port, len, path, rounding, path_sums),
                local: local.map(|local| feedback_port(port, len, local, rounding, local_sums)),
            };
            fill(scratch, finish);
        });
    }

    /// Runs `work` with a recurrent cell's packed weights.
    fn with_sequence(
        &self,
        cell: &RecurrentCell,
        direction: Direction,
        batch: usize,
        hidden: &[f32],
        work: impl FnOnce(Sequence<'_>, &mut Workers<'_>),
    ) {
        let set = self.set.for_columns(cell.width);
        let packing = Packing::new(set.lanes(), 1, cell.width, cell.width);
        let hidden = &hidden[..cell.width * cell.width];
        self.with_scratch(|scratch| {
            let tiles = self.pack_cell(cell, direction, batch, (hidden, packing), scratch);
            let sequence = Sequence {
                cell,
                rounded: self.rounds(),
                batch,
                packing,
                packed: &scratch.packed,
                tiles,
            };
            let mut workers = self.workers(set, &mut scratch.parts);
            work(sequence, &mut workers);
        });
    }

    /// Packs a recurrent cell's weights, for the tile unit if it computes the products; then with room for states.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    fn pack_cell(
        &self,
        cell: &RecurrentCell,
        direction: Direction,
        batch: usize,
        (hidden, packing): (&[f32], Packing),
        scratch: &mut Scratch,
    ) -> Option<StateTiles> {
        let packed = &mut scratch.packed;
        #[cfg(target_arch = "x86_64")]
        if self.cell_on_tile_unit(cell) {
            match self.rounds() {
                true => amx::pack::<1>(&self.threads, direction, hidden, packing, packed),
                false => amx::pack::<2>(&self.threads, direction, hidden, packing, packed),
            }
            scratch.state.reserve(amx::state_words(batch, cell.width));
            return Some(StateTiles {
                two_parts: !self.rounds(),
                words: Pointer::new(&mut scratch.state),
            });
        }
        pack(
            &self.threads,
            direction,
            (hidden, self.rounds()),
            packing,
            packed,
        );
        None
    }
}

fn feedback_port<'a>(
    port: &Layer,
    len: usize,
    landing: Landing<'a, CpuBuffer>,
    (rounded, halved): (bool, bool),
    sums: Pointer,
) -> FeedbackPort<'a> {
    FeedbackPort {
        z: landing.record.z.values(len),
        inverse_deviation: &landing.record.inverse_deviation[..port.deviations()],
        delta: Some(Delta {
            values: landing.delta.target(len, halved),
            first: 0,
        }),
        rounded,
        long: len >= LONG,
        sums,
    }
}
