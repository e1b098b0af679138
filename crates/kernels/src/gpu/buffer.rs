//! Numbers in a device's memory.

use super::launch::groups_of;
use super::memory::{Device, Region};
use super::operands::Form;
use super::work::{Item, Kernel, Span};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Values that a thread cuts at once, of channels that are a multiple of these.
const EIGHT: usize = 8;

/// A buffer of `f32` on a device. A clone is a buffer of its own, with the same values.
///
/// What kernels were asked to write there may lie there in parts of bf16: who wants it plain finds it so, at the cost
/// of a kernel.
pub struct GpuBuffer {
    region: Region,
    layout: Mutex<Layout>,
}

#[derive(Default)]
struct Layout {
    /// How the first so many values lie, if not plain.
    cut: Option<(Form, usize)>,
    /// What was made of plain values, beside them. It stays where it is: recordings write there again.
    made: Vec<Made>,
}

impl Layout {
    /// What is known by a shape and form, or room for it.
    fn made_or(&mut self, form: Form, shape: Shape, room: impl FnOnce() -> Region) -> &mut Made {
        let known = |made: &Made| made.form == form && made.shape == shape;
        let at = match self.made.iter().position(known) {
            Some(at) => at,
            None => {
                self.made.push(Made {
                    shape,
                    form,
                    region: room(),
                    when: None,
                });
                self.made.len() - 1
            }
        };
        &mut self.made[at]
    }
}

/// What products read instead of a buffer's plain values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Parts of the first `values`, zeros beyond the buffer's end.
    Cut { values: usize },
    /// Parts of what the links of each destination of a wiring reach, side by side.
    Unfolded(Unfolding),
    /// Parts of weights, in the order in which warps take them, zeros beyond the buffer's end.
    Fragments(Fragments),
    /// Parts of weights, as neighbouring panels take them.
    Ribbon(Ribbon),
    /// Sums over the rows of each of so many panels.
    Sums { panels: usize, channels: usize },
    /// Parts, so many values in all, whose sums are the buffer's values.
    Parts { values: usize },
}

/// Panels `[location, batch, channel]` whose rows are the channels of all taps of a location, and zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfolding {
    /// Where the links begin.
    pub(super) links: usize,
    pub(super) locations: usize,
    pub(super) taps: usize,
    pub(super) batch: usize,
    /// Channels of a source.
    pub(super) channels: usize,
    /// Channels of a panel.
    pub(super) wide: usize,
}

/// Weights `[tap, channel, column]`, or `[tap, column, channel]` where they are walked backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fragments {
    pub(super) taps: usize,
    pub(super) channels: usize,
    pub(super) columns: usize,
    pub(super) backward: bool,
}

/// Weights `[tap, channel, column]`, or `[tap, column, channel]` where they are walked backward, of the taps of a ribbon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ribbon {
    pub(super) taps: usize,
    /// Where the taps stand among the links.
    pub(super) taps_at: usize,
    pub(super) channels: usize,
    pub(super) columns: usize,
    pub(super) backward: bool,
}

struct Made {
    shape: Shape,
    form: Form,
    region: Region,
    /// When it was made, as the device counts; none if the values changed since.
    when: Option<u64>,
}

impl GpuBuffer {
    /// A buffer whose values are whatever lay there.
    pub(super) fn empty(device: &Arc<Device>, len: usize) -> Self {
        Self {
            region: device.region(len),
            layout: Mutex::default(),
        }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.region.len()
    }

    /// Where the values lie, as f32.
    pub(super) fn region(&self) -> &Region {
        self.join();
        &self.region
    }

    fn layout(&self) -> MutexGuard<'_, Layout> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `len` values, as an operand that is read.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn first(&self, len: usize) -> Span {
        self.part(0, len)
    }

    /// `len` values from `from` on, as an operand that is read.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn part(&self, from: usize, len: usize) -> Span {
        self.join();
        self.span(from, len)
    }

    #[track_caller]
    fn span(&self, from: usize, len: usize) -> Span {
        assert!(
            from + len <= self.len(),
            "a kernel needs {len} values from {from} on of a buffer of {}",
            self.len()
        );
        self.region.span(from)
    }

    /// The first `len` values, as an operand that is written.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn written(&self, len: usize) -> Span {
        self.written_part(0, len)
    }

    /// `len` values from `from` on, as an operand that is written.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn written_part(&self, from: usize, len: usize) -> Span {
        let whole = |&(_, values): &(Form, usize)| from == 0 && values <= len;
        if !self.layout().cut.as_ref().is_none_or(whole) {
            self.join();
        }
        self.forget();
        self.span(from, len)
    }

    /// The first `len` values, as an operand that is written in such a form.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn written_as(&self, form: Form, len: usize) -> Span {
        let span = self.written(len);
        if form != Form::Plain {
            self.layout().cut = Some((form, len));
        }
        span
    }

    /// Nothing is known of the values any more.
    fn forget(&self) {
        let mut layout = self.layout();
        layout.cut = None;
        for made in &mut layout.made {
            made.when = None;
        }
    }

    /// How the first `len` values lie.
    pub(super) fn form(&self, len: usize) -> Form {
        match self.layout().cut {
            Some((form, values)) if values == len => form,
            _ => Form::Plain,
        }
    }

    /// The first `len` values in whatever form they lie.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn as_it_is(&self, len: usize) -> Span {
        match self.form(len) {
            Form::Plain => self.first(len),
            _ => self.span(0, len),
        }
    }

    /// The first `len` values cut, where they lie or, if they are plain there, beside them; zeros beyond the end.
    pub(super) fn cut(&self, form: Form, len: usize) -> Span {
        if self.form(len) == form {
            return self.span(0, len);
        }
        let there = len.min(self.len());
        let cut = |to: Span, from: Span| {
            Item::new(Kernel::Cut(form), groups_of(len.div_ceil(EIGHT)))
                .reads(from)
                .writes(to)
                .counts([there, len])
                .counts(form.sides())
        };
        self.beside(form, Shape::Cut { values: len }, (there, len), cut)
    }

    /// The values unfolded, beside them.
    pub(super) fn unfolded(&self, form: Form, unfolding: &Unfolding, sources: usize) -> Span {
        let of = unfolding;
        let len = of.locations * of.batch * of.wide;
        let unfold = |to: Span, from: Span| {
            Item::new(Kernel::Unfold(form), of.locations)
                .reads(from)
                .writes(to)
                .count(of.links)
                .counts([of.batch, of.channels, of.wide, of.locations, of.taps])
        };
        let there = sources * of.batch * of.channels;
        self.beside(form, Shape::Unfolded(of.clone()), (there, len), unfold)
    }

    /// The values as fragments, beside them.
    pub(super) fn fragments(&self, form: Form, of: Fragments) -> Span {
        let len = of.taps * of.channels * of.columns;
        let there = len.min(self.len());
        let lay_out = |to: Span, from: Span| {
            Item::new(Kernel::Fragments(form), groups_of(len / 2))
                .reads(from)
                .writes(to)
                .counts([there, of.taps, of.channels, of.columns])
                .count(usize::from(of.backward))
        };
        self.beside(form, Shape::Fragments(of), (there, len), lay_out)
    }

    /// The first `len` values as a ribbon, beside them; zeros beyond the end.
    pub(super) fn ribbon(&self, form: Form, of: Ribbon, len: usize) -> Span {
        // Instructions take sixteen terms.
        let wide = of.channels.max(2 * EIGHT);
        let values = of.taps * of.columns * wide;
        let there = len.min(self.len());
        let lay_out = |to: Span, from: Span| {
            Item::new(Kernel::Ribbon(form), groups_of(values / EIGHT))
                .reads(from)
                .writes(to)
                .counts([there, of.channels, of.columns, of.taps, of.taps_at])
                .count(usize::from(of.backward))
        };
        self.beside(form, Shape::Ribbon(of), (there, values), lay_out)
    }

    /// Room for sums over the rows of panels, which whoever writes these writes too.
    pub(super) fn written_sums(&self, panels: usize, channels: usize) -> Span {
        let device = self.region.device();
        let mut layout = self.layout();
        let shape = Shape::Sums { panels, channels };
        let made = layout.made_or(Form::Plain, shape, || device.region(panels * channels));
        made.when = Some(device.epoch());
        made.region.span(0)
    }

    /// Sums over the rows of panels, if whoever wrote these wrote them.
    pub(super) fn sums(&self, panels: usize, channels: usize) -> Option<Span> {
        let now = self.region.device().epoch();
        let layout = self.layout();
        let wanted = Shape::Sums { panels, channels };
        let made = layout.made.iter().find(|made| made.shape == wanted)?;
        (made.when == Some(now)).then(|| made.region.span(0))
    }

    /// Room for the parts of a sum that is to stand here.
    pub(super) fn parts(&self, values: usize) -> Span {
        let device = self.region.device();
        let mut layout = self.layout();
        let made = layout.made_or(Form::Plain, Shape::Parts { values }, || {
            device.region(values)
        });
        made.region.span(0)
    }

    /// Room for `len` values beside the first `there` ones, with what `work` makes of these.
    fn beside(
        &self,
        form: Form,
        shape: Shape,
        (there, len): (usize, usize),
        work: impl FnOnce(Span, Span) -> Item,
    ) -> Span {
        let from = self.first(there);
        let device = self.region.device();
        let now = device.epoch();
        let mut layout = self.layout();
        let made = layout.made_or(form, shape, || device.region(len));
        let span = made.region.span(0);
        if made.when != Some(now) {
            made.when = Some(now);
            device.note(work(span, from));
        }
        span
    }

    /// Makes values plain that lie cut.
    fn join(&self) {
        let Some((form, len)) = self.layout().cut.take() else {
            return;
        };
        let device = self.region.device();
        let room = device.region(len);
        let join = Item::new(Kernel::Join(form), groups_of(len))
            .reads(self.region.span(0))
            .writes(room.span(0))
            .count(len)
            .counts(form.sides());
        device.note(join);
        let back = Item::new(Kernel::Copy, groups_of(len))
            .reads(room.span(0))
            .writes(self.region.span(0))
            .count(len);
        device.note(back);
    }

    /// Overwrites the start with the first `len` values of another buffer.
    pub(super) fn overwrite(&mut self, len: usize, from: &Self) {
        if len == 0 {
            return;
        }
        let item = Item::new(Kernel::Copy, groups_of(len))
            .reads(from.first(len))
            .writes(self.written(len))
            .count(len);
        self.region.device().note(item);
    }
}

impl Clone for GpuBuffer {
    fn clone(&self) -> Self {
        let mut twin = Self::empty(self.region.device(), self.len());
        twin.overwrite(self.len(), self);
        twin
    }
}
