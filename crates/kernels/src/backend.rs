//! The narrow interface between the learning rules and the machine.

use crate::{Layer, RecurrentCell, tolerance};

/// Loss and hits of one minibatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossReport {
    /// `1/(B·K) Σ (f − y)²` over the batch and the K classes.
    pub loss: f64,
    /// Samples whose largest output stands at their label (the first of equal outputs counts).
    pub correct: usize,
}

/// One Adam step in TensorFlow's form: `w −= rate · m/(√v + ε)` after
/// `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// `lr · √(1−β₂ᵗ)/(1−β₁ᵗ)`, the bias-corrected rate of step t (counted from 1).
    pub rate: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε, outside the bias correction as TensorFlow has it.
    pub epsilon: f64,
}

/// By what a backend computes a layer in each direction, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerKernels {
    /// Forward pass.
    pub forward: String,
    /// Feedback to the layer below, whether a rule sends one or not.
    pub feedback: String,
    /// Weight gradient.
    pub weight_gradient: String,
}

/// What a minibatch left behind at one layer, read again by feedback and weight gradients.
#[derive(Clone, Debug)]
pub struct Record<T> {
    /// Normalised pre-activations `[location, batch, channel]`.
    pub z: T,
    /// `1/√(var + ε)`: `[location, channel]`, `[channel]` or empty, as the layer's norm has it.
    pub inverse_deviation: T,
    /// Activations `σ(z)`, `[location, batch, channel]`.
    pub a: T,
}

/// What of a forward pass is looked at once the next layer's is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of its record.
    All,
    /// z and inverse deviations: a is the next layer's alone, and its place is soon another's.
    Slopes,
    /// Nothing: a is the next layer's alone, z and inverse deviations hold anything afterwards.
    Nothing,
}

/// One layer's forward pass.
pub struct ForwardPass<'a, T> {
    /// The layer.
    pub layer: &'a Layer,
    /// Samples.
    pub batch: usize,
    /// `[tap, in, out]`
    pub weight: &'a T,
    /// `[out]`
    pub bias: &'a T,
    /// `[source, batch, channel]`
    pub input: &'a T,
    /// What of its record is wanted.
    pub kept: Kept,
}

/// A second place where a feedback signal lands: a record whose normᵀ meets the signal, and the result.
pub struct Landing<'a, T> {
    /// The network whose normalisation the signal meets.
    pub record: &'a Record<T>,
    /// Receives `normᵀ(ψ)`, `[location, batch, channel]`.
    pub delta: &'a mut T,
}

/// A feedback signal on its way to the port where it lands.
pub enum Signal<'a, T> {
    /// From a layer to the port below it: `scale · Σ W[tap]ᵀ delta`.
    Chain {
        /// The layer.
        layer: &'a Layer,
        /// Its feedback weights, `[tap, in, out]`.
        weight: &'a T,
        /// Its deltas, `[location, batch, channel]`.
        delta: &'a T,
    },
    /// From the outputs straight to the port: `B e`.
    Direct {
        /// The layer that wires the outputs to every location.
        wires: &'a Layer,
        /// B, `[location, class, channel]`.
        weight: &'a T,
        /// e, `[batch, class]`.
        error: &'a T,
    },
}

/// The weight gradient of the layer where a signal lands.
pub struct SignalGradient<'a, T> {
    /// The signal.
    pub signal: Signal<'a, T>,
    /// The layer.
    pub port: &'a Layer,
    /// Samples.
    pub batch: usize,
    /// The network of σ′, and of normᵀ where there is no second one.
    pub path: Landing<'a, T>,
    /// Whether the path goes on from here. Otherwise the path's delta holds anything afterwards.
    pub goes_on: bool,
    /// A second network whose normᵀ makes the deltas of the gradient. Its delta holds anything afterwards.
    pub local: Option<Landing<'a, T>>,
    /// The layer's input, `[source, batch, channel]`.
    pub input: &'a T,
    /// Receives the gradient of the weights, `[tap, in, out]`.
    pub weights: &'a mut T,
    /// Receives that of the biases.
    pub biases: &'a mut T,
}

impl<T> SignalGradient<'_, T> {
    /// Feedback first, then the gradient.
    ///
    /// # Panics
    /// If a direct signal is to land twice.
    pub fn step_by_step<B: Backend<Buffer = T> + ?Sized>(self, backend: &B) {
        let Self {
            signal,
            port,
            batch,
            path,
            mut local,
            input,
            weights,
            biases,
            ..
        } = self;
        let once = Landing {
            record: path.record,
            delta: &mut *path.delta,
        };
        let again = local.as_mut().map(|local| Landing {
            record: local.record,
            delta: &mut *local.delta,
        });
        match signal {
            Signal::Chain {
                layer,
                weight,
                delta,
            } => backend.feedback(layer, port, batch, weight, delta, once, again),
            Signal::Direct {
                wires,
                weight,
                error,
            } => {
                assert!(again.is_none(), "a direct signal lands once");
                backend.direct_feedback(wires, port, batch, weight, error, once);
            }
        }
        let delta = local.map_or(path.delta, |local| local.delta);
        backend.weight_gradient(port, batch, input, delta, weights, biases);
    }
}

/// The weights of a recurrent cell.
pub struct CellWeights<'a, T> {
    /// W_i, `[input, unit]`.
    pub input: &'a T,
    /// W_h, `[unit, unit]`, used as `h · W_h`.
    pub hidden: &'a T,
    /// b, `[unit]`.
    pub bias: &'a T,
}

/// Where the feedback of a recurrent cell goes.
pub struct Unrolled<'a, T> {
    /// The pass whose slopes the path through time uses.
    pub path: &'a Record<T>,
    /// Receives `δ_t = σ′(z_t) ⊙ (signal_t + carried_t)` of the path, `[step, batch, unit]`.
    pub delta: &'a mut T,
    /// Receives `carried_t`, the part of the signal on h_t that comes from later steps,
    /// `scale · W_hᵀ δ_{t+1}` for t = 0 … steps, `[step + 1, batch, unit]`.
    pub carried: &'a mut T,
}

/// Where a judged minibatch leaves what the host will want to know.
pub struct Verdict<'a, T> {
    /// Loss and hits of each minibatch of the window, `[minibatch, 2]`.
    pub reports: &'a mut T,
    /// One value, which becomes 0 where a loss is not finite.
    pub gate: &'a mut T,
}

/// Starts recorded work for minibatches of the window, from the one of that number on.
pub type Replay = Box<dyn Fn(usize) + Send>;

/// What a device can do by itself over a window of minibatches, without the host in between.
///
/// The data stay on the device; a step's work is recorded once and started again for each minibatch, whose number
/// says which samples it takes and where its report goes. Updates stop by themselves where a loss was not finite.
pub trait Resident<T> {
    /// Values that the device can hold for all buffers together.
    fn most_values(&self) -> u64;

    /// Values that are in use.
    fn values_in_use(&self) -> u64;

    /// Makes room for so many values in all, so that memory is not enlarged piece by piece.
    fn reserve(&self, values: u64);

    /// Says which samples the window's minibatches take, `[minibatch, sample]`.
    fn set_places(&self, places: &[u32]);

    /// Panels `[location, batch, channel]` of the minibatch's samples from `data`, `[sample, location, channel]`.
    fn gather(&self, data: &T, batch: usize, locations: usize, channels: usize, out: &mut T);

    /// As [`Backend::loss`], of labels that stand in a buffer, one for each of `batch` samples.
    #[allow(clippy::too_many_arguments)]
    fn judge(
        &self,
        labels: &T,
        batch: usize,
        classes: usize,
        shift: f64,
        output: &T,
        error: &mut T,
        verdict: Verdict<'_, T>,
    );

    /// As [`Backend::sequence_loss`], of targets that stand in a buffer, `len` in all.
    fn judge_sequence(
        &self,
        targets: &T,
        len: usize,
        batch: usize,
        output: &T,
        error: &mut T,
        verdict: Verdict<'_, T>,
    );

    /// Updates that `work` asks for happen only where the gate's value is not 0; Adam's take their rate from `rates`,
    /// one for each minibatch of the window.
    fn gated(&self, gate: &T, rates: Option<&T>, work: &mut dyn FnMut());

    /// Most minibatches that can be recorded together: what the later ones need beforehand can be done while the earlier
    /// ones are under way.
    fn most_minibatches(&self) -> usize;

    /// Notes what `work` asks for for each of so many minibatches that follow each other, instead of doing it. Within,
    /// nothing can be exchanged with the host.
    fn record(&self, minibatches: usize, work: &mut dyn FnMut(usize)) -> Replay;
}

/// The machine: storage and the kernels of training, each one step of the paper's pseudocode.
///
/// All panels are `[location, batch, channel]`; weights are `[tap, input, output]`. Buffers may be longer than
/// needed, so that one allocation serves several batch sizes. Every result depends on its arguments alone,
/// never on the number of threads.
///
/// Methods panic on buffers that are too short: that is a bug of the caller, not of the user.
pub trait Backend: Send + Sync {
    /// Storage of numbers on this machine.
    type Buffer: Clone + Send + Sync;

    /// Device and instruction set, in words.
    fn device(&self) -> String;

    /// Name of the arithmetic: `f32`, `f32-strict`, `tf32`, `bf16`, `f64`.
    fn precision(&self) -> &'static str;

    /// By what a layer is computed: all that decides it are its shape, the precision and the instruction set.
    fn kernels(&self, _layer: &Layer) -> LayerKernels {
        let sums = || "plain sums".to_string();
        LayerKernels {
            forward: sums(),
            feedback: sums(),
            weight_gradient: sums(),
        }
    }

    /// Largest relative error of one rounding of an operand.
    fn operand_rounding(&self) -> f64 {
        tolerance::F32_ROUNDING
    }

    /// Kernels that were started on a device so far; none where a kernel is a call.
    fn launches(&self) -> Option<u64> {
        None
    }

    /// What it can do without the host, if it is a device that can.
    fn resident(&self) -> Option<&dyn Resident<Self::Buffer>> {
        None
    }

    /// Backends of one thread each, one for every thread of this one, whose results are bitwise this one's and
    /// whose buffers are this one's: for work of which there is enough that each piece can stay on its thread.
    /// None where work is not divided by threads.
    fn lanes(&self) -> Vec<Self>
    where
        Self: Sized,
    {
        Vec::new()
    }

    /// Runs `work` on all items, at the same time as far as the machine can.
    fn side_by_side<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Send + Sync) {
        items.iter_mut().for_each(work);
    }

    /// A buffer of `len` zeros.
    fn zeros(&self, len: usize) -> Self::Buffer;

    /// Overwrites the start of a buffer.
    fn write(&self, values: &[f64], to: &mut Self::Buffer);

    /// Overwrites the start of a buffer with 32-bit values.
    fn write_f32(&self, values: &[f32], to: &mut Self::Buffer);

    /// Overwrites the start of `to` with the first `len` values of `from`.
    fn copy(&self, len: usize, from: &Self::Buffer, to: &mut Self::Buffer);

    /// The whole buffer.
    fn read(&self, from: &Self::Buffer) -> Vec<f64>;

    /// Forward pass of one layer: fills z, inverse deviation and a (Eq. 1 with the layer's norm), or what is kept of them,
    /// and a in any case.
    fn forward_pass(&self, pass: ForwardPass<'_, Self::Buffer>, out: &mut Record<Self::Buffer>);

    /// The same, with all that it fills.
    fn forward(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &Self::Buffer,
        bias: &Self::Buffer,
        input: &Self::Buffer,
        out: &mut Record<Self::Buffer>,
    ) {
        let pass = ForwardPass {
            layer,
            batch,
            weight,
            bias,
            input,
            kept: Kept::All,
        };
        self.forward_pass(pass, out);
    }

    /// Mean over locations: `[location, batch, channel]` to `[batch, channel]`.
    fn pool(
        &self,
        locations: usize,
        batch: usize,
        channels: usize,
        input: &Self::Buffer,
        out: &mut Self::Buffer,
    );

    /// Squared error of outputs `[batch, class]` against `one-hot(label) − shift`;
    /// writes `e = ∇_f L = 2(f − y)/(B·K)`.
    fn loss(
        &self,
        labels: &[u32],
        classes: usize,
        shift: f64,
        output: &Self::Buffer,
        error: &mut Self::Buffer,
    ) -> LossReport;

    /// Feedback without slopes: `out = scale · Σ W[tap]ᵀ delta`, from a layer's destinations to its sources.
    fn transposed(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &Self::Buffer,
        delta: &Self::Buffer,
        out: &mut Self::Buffer,
    );

    /// Feedback from `layer` to the port below it, whose own layer is `port`:
    /// `ψ = σ′(z_path) ⊙ scale · Σ W[tap]ᵀ delta`, then `path.delta = normᵀ_path(ψ)` and, if a second
    /// network receives the same signal (align-ada), `local.delta = normᵀ_local(ψ)`.
    #[allow(clippy::too_many_arguments)]
    fn feedback(
        &self,
        layer: &Layer,
        port: &Layer,
        batch: usize,
        weight: &Self::Buffer,
        delta: &Self::Buffer,
        path: Landing<'_, Self::Buffer>,
        local: Option<Landing<'_, Self::Buffer>>,
    );

    /// Feedback through global average pooling: `ψ = σ′(z) ⊙ signal/locations`, then normᵀ.
    /// `signal` is `[batch, channel]`.
    fn pool_feedback(
        &self,
        port: &Layer,
        batch: usize,
        signal: &Self::Buffer,
        landing: Landing<'_, Self::Buffer>,
    );

    /// Direct feedback (DFA): `ψ = σ′(z) ⊙ B e`, then normᵀ. `weight` is `[location, class, channel]`,
    /// `error` `[batch, class]`, and `direct` the layer that wires the outputs to every location.
    fn direct_feedback(
        &self,
        direct: &Layer,
        port: &Layer,
        batch: usize,
        weight: &Self::Buffer,
        error: &Self::Buffer,
        landing: Landing<'_, Self::Buffer>,
    );

    /// `∂W[tap] = scale · Σ a(src)ᵀ · delta(dst)` over the wiring's links and `∂b = Σ delta`.
    fn weight_gradient(
        &self,
        layer: &Layer,
        batch: usize,
        input: &Self::Buffer,
        delta: &Self::Buffer,
        weight_gradient: &mut Self::Buffer,
        bias_gradient: &mut Self::Buffer,
    );

    /// [`feedback`](Self::feedback) or [`direct_feedback`](Self::direct_feedback) into a layer, and that layer's
    /// [`weight_gradient`](Self::weight_gradient). Deltas that nobody else reads may never be stored.
    fn signal_gradient(&self, work: SignalGradient<'_, Self::Buffer>) {
        work.step_by_step(self);
    }

    /// Runs a recurrent cell over `input`, `[step, batch, input]`, from the initial state that stands in the
    /// record's first panel.
    fn recur(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: CellWeights<'_, Self::Buffer>,
        input: &Self::Buffer,
        record: &mut Record<Self::Buffer>,
    );

    /// Feedback through time: `signal`, `[step + 1, batch, unit]`, lands on every state and travels from the last
    /// step to the first through `hidden`ᵀ. With `local`, a pass and a place for its delta, the part that was
    /// carried lands there too: `local_t = σ′(z_t of local) ⊙ carried_t` (align-ada, Eq. 58).
    #[allow(clippy::too_many_arguments)]
    fn recur_feedback(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &Self::Buffer,
        signal: &Self::Buffer,
        unrolled: Unrolled<'_, Self::Buffer>,
        local: Option<Landing<'_, Self::Buffer>>,
    );

    /// Squared error of a sequence: `Σ_t 1/B Σ_b (o_tb − y_tb)²`, and `e = 2(o − y)/B`. `targets` and
    /// `output` are `[step, batch, output]`, of which `targets.len()` values count.
    fn sequence_loss(
        &self,
        targets: &[f32],
        batch: usize,
        output: &Self::Buffer,
        error: &mut Self::Buffer,
    ) -> f64;

    /// `out = scale · sign(weight)`, with sign(0) = 0.
    fn sign(&self, scale: f64, weight: &Self::Buffer, out: &mut Self::Buffer);

    /// `weight −= rate · gradient`.
    fn sgd(&self, rate: f64, gradient: &Self::Buffer, weight: &mut Self::Buffer);

    /// Adam in TensorFlow's form, see [`AdamStep`].
    fn adam(
        &self,
        step: AdamStep,
        gradient: &Self::Buffer,
        first: &mut Self::Buffer,
        second: &mut Self::Buffer,
        weight: &mut Self::Buffer,
    );
}
