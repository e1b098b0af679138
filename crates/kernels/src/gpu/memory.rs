//! A device's memory and the work that waits for it.

use super::accelerator::{Accelerator, DeviceArray, Kept};
use super::failure::GpuFailure;
use super::heap::Heap;
use super::launch::Arguments;
use super::operands::Operands;
use super::units::Units;
use super::work::{Item, Launch, MOST_MINIBATCHES, Plan, Span, plan, with_descents};
use bytemuck::Pod;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Values that the array for everything holds at first.
const FIRST_CAPACITY: usize = 1 << 18;
/// Items that are noted at most before they are started.
const MOST_WAITING: usize = 1 << 14;

/// The bytes of numbers.
fn as_bytes<T: Pod>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// A stretch of a device's memory that belongs to a buffer.
pub(super) struct Region {
    device: Arc<Device>,
    start: usize,
    len: usize,
}

impl Region {
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The stretch from value `from` on.
    pub(super) fn span(&self, from: usize) -> Span {
        Span {
            start: self.start + from,
            region: self.start,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // Work that was noted may still need it.
        self.device.open().released.push((self.start, self.len));
    }
}

/// Links of a wiring, among those of all.
pub(super) struct LinkList {
    device: Arc<Device>,
    pub(super) start: usize,
    len: usize,
}

impl Drop for LinkList {
    fn drop(&mut self) {
        self.device
            .open()
            .released_links
            .push((self.start, self.len));
    }
}

/// Work in launches.
struct Program {
    launches: Vec<Launch>,
    table: DeviceArray,
    kept: Mutex<Kept>,
}

/// Work that was noted once, to be started again and again.
pub struct Recording {
    program: Program,
    device: Arc<Device>,
    minibatches: usize,
    /// Regions that nobody else holds any more.
    kept: Vec<(usize, usize)>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.device.open().released.append(&mut self.kept);
    }
}

struct State {
    heap: Heap,
    array: Option<DeviceArray>,
    link_heap: Heap,
    links: Vec<u32>,
    link_array: Option<DeviceArray>,
    places: Option<DeviceArray>,
    waiting: Vec<Item>,
    recording: bool,
    /// Which minibatch of a recording is noted.
    minibatch: usize,
    released: Vec<(usize, usize)>,
    released_links: Vec<(usize, usize)>,
}

/// A device: one array that holds all buffers, and the items that wait.
pub(super) struct Device {
    accelerator: Box<dyn Accelerator>,
    state: Mutex<State>,
    launches: AtomicU64,
    /// Recordings begun and ended: what was noted before one is no part of it.
    epoch: AtomicU64,
}

impl Device {
    pub(super) fn new(accelerator: Box<dyn Accelerator>) -> Arc<Self> {
        let state = State {
            heap: Heap::default(),
            array: None,
            link_heap: Heap::default(),
            links: Vec::new(),
            link_array: None,
            places: None,
            waiting: Vec::new(),
            recording: false,
            minibatch: 0,
            released: Vec::new(),
            released_links: Vec::new(),
        };
        Arc::new(Self {
            accelerator,
            state: Mutex::new(state),
            launches: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
        })
    }

    fn open(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that changes whenever a recording begins or ends.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Kernels started so far.
    pub(super) fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed)
    }

    /// Values that the device holds in one piece.
    pub(super) fn most_values(&self) -> u64 {
        self.accelerator.most_values()
    }

    /// Whether launches of a recording begin before those have ended whose results they read.
    pub(super) fn begins_early(&self) -> bool {
        self.accelerator.begins_early()
    }

    /// From now on none begins early.
    pub(super) fn begin_in_turn(&self) {
        self.accelerator.begin_in_turn();
    }

    /// Notes an item.
    pub(super) fn note(&self, item: Item) {
        let mut state = self.open();
        let item = item.of_minibatch(state.minibatch);
        state.waiting.push(item);
        if state.waiting.len() >= MOST_WAITING && !state.recording {
            self.run_waiting(&mut state);
        }
    }

    /// A region of `len` values, whatever lies there.
    pub(super) fn region(self: &Arc<Self>, len: usize) -> Region {
        let mut state = self.open();
        let start = match state.heap.take(len) {
            Some(start) => start,
            None => self.make_room(&mut state, len),
        };
        Region {
            device: Arc::clone(self),
            start,
            len,
        }
    }

    /// Finishes what waits, so that its memory is free again, and makes the array longer if that was not enough.
    fn make_room(&self, state: &mut State, len: usize) -> usize {
        if !state.recording {
            self.run_waiting(state);
            if let Some(start) = state.heap.take(len) {
                return start;
            }
        }
        let capacity = state.heap.capacity();
        let least = capacity + Heap::stride(len);
        let most = self.most_values();
        if least as u64 > most {
            GpuFailure::raise(format!(
                "this needs {} bytes in one piece, and this device holds at most {}; a smaller network.width or \
                 train.batch may fit",
                least as u64 * size_of::<f32>() as u64,
                most * size_of::<f32>() as u64,
            ));
        }
        let wanted = least.max(2 * capacity).max(FIRST_CAPACITY);
        self.lengthen(
            state,
            wanted.min(usize::try_from(most).unwrap_or(usize::MAX)),
        );
        state.heap.take(len).expect("room was just made")
    }

    /// Values in regions that are in use.
    pub(super) fn values_in_use(&self) -> u64 {
        let mut state = self.open();
        self.run_waiting(&mut state);
        (state.heap.capacity() - state.heap.free()) as u64
    }

    /// Makes the array at least so long, if the device can, so that it need not grow piece by piece.
    pub(super) fn reserve(&self, values: u64) {
        let mut state = self.open();
        let wanted = usize::try_from(values.min(self.most_values())).unwrap_or(usize::MAX);
        if wanted > state.heap.capacity() {
            self.run_waiting(&mut state);
            self.lengthen(&mut state, wanted);
        }
    }

    fn lengthen(&self, state: &mut State, capacity: usize) {
        let array = self.accelerator.empty(capacity);
        if let Some(old) = &state.array {
            self.transfer(old, &array, 0, old.len);
        }
        state.array = Some(array);
        state.heap.grow(capacity);
    }

    /// Overwrites `to` from `start` on with `from`.
    fn transfer(&self, from: &DeviceArray, to: &DeviceArray, start: usize, len: usize) {
        self.launches.fetch_add(1, Ordering::Relaxed);
        self.accelerator.transfer(from, to, start, len);
    }

    /// Overwrites the start of a region. What was noted before runs before.
    pub(super) fn write(&self, values: &[f32], to: &Region) {
        assert!(values.len() <= to.len, "more values than the buffer holds");
        if values.is_empty() {
            return;
        }
        let mut state = self.open();
        self.run_waiting(&mut state);
        let array = state.array.clone().expect("regions lie in the array");
        let source = self.accelerator.upload(as_bytes(values));
        self.transfer(&source, &array, to.start, values.len());
    }

    /// What multiplies such operands on the device, as far as it says itself.
    pub(super) fn units(&self, operands: Operands) -> Units {
        self.accelerator.units(operands)
    }

    /// The values of a region after all that was noted, or why that did not run.
    pub(super) fn read(&self, region: &Region) -> Result<Vec<f32>, String> {
        let mut state = self.open();
        self.run_waiting(&mut state);
        if region.len == 0 {
            return Ok(Vec::new());
        }
        let array = state.array.clone().expect("regions lie in the array");
        drop(state);
        self.accelerator.read(&array, region.start, region.len)
    }

    /// Places links among those of all wirings.
    pub(super) fn link_list(self: &Arc<Self>, links: &[u32]) -> LinkList {
        let mut state = self.open();
        let start = match state.link_heap.take(links.len()) {
            Some(start) => start,
            None => {
                let capacity = state.link_heap.capacity() + Heap::stride(links.len());
                state.link_heap.grow(capacity);
                state.links.resize(capacity, 0);
                let taken = state.link_heap.take(links.len());
                taken.expect("room was just made")
            }
        };
        state.links[start..start + links.len()].copy_from_slice(links);
        state.link_array = None;
        LinkList {
            device: Arc::clone(self),
            start,
            len: links.len(),
        }
    }

    /// The samples of a window of minibatches, `[minibatch, sample]`.
    pub(super) fn set_places(&self, places: &[u32]) {
        let mut state = self.open();
        self.run_waiting(&mut state);
        let old = state.places.take();
        state.places = Some(self.accelerator.replace(old, as_bytes(places)));
    }

    /// Starts what waits, and frees what was released meanwhile.
    fn run_waiting(&self, state: &mut State) {
        assert!(
            !state.recording,
            "what is being recorded cannot exchange values with the host"
        );
        if !state.waiting.is_empty() {
            let program = self.settle(state);
            self.start_all(state, &program, [0, 1], false);
        }
        for (start, len) in std::mem::take(&mut state.released) {
            state.heap.release(start, len);
        }
        for (start, len) in std::mem::take(&mut state.released_links) {
            state.link_heap.release(start, len);
        }
    }

    /// Plans what waits.
    fn settle(&self, state: &mut State) -> Program {
        let mut items = std::mem::take(&mut state.waiting);
        if self.accelerator.descends() {
            items = with_descents(items);
        }
        let Plan { launches, words } = plan(&items);
        Program {
            launches,
            table: self.accelerator.upload(as_bytes(&words)),
            kept: Mutex::new(None),
        }
    }

    /// Starts a program for minibatches of the window: the first one, and how many.
    fn start_all(
        &self,
        state: &mut State,
        program: &Program,
        [step, minibatches]: [usize; 2],
        again: bool,
    ) {
        let links = match &state.link_array {
            Some(links) => links.clone(),
            None => {
                // Never empty: kernels that read links are given the array even where no wiring has any.
                state.links.resize(state.links.len().max(1), 0);
                let links = self.accelerator.upload(as_bytes(&state.links));
                state.link_array = Some(links.clone());
                links
            }
        };
        let given = Arguments {
            heap: state.array.as_ref().expect("work has operands"),
            links: &links,
            places: state.places.as_ref().unwrap_or(&links),
            table: &program.table,
            step,
            minibatches,
        };
        if again {
            let mut kept = program.kept.lock().unwrap_or_else(PoisonError::into_inner);
            self.accelerator
                .replay(&program.launches, &given, &mut kept);
        } else {
            self.accelerator.start(&program.launches, &given);
        }
        let count = program.launches.len() as u64;
        self.launches.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes the work of `work` for each of so many minibatches without starting it. What it frees stays the recording's.
    pub(super) fn record(
        self: &Arc<Self>,
        minibatches: usize,
        work: &mut dyn FnMut(usize),
    ) -> Recording {
        assert!(
            (1..=MOST_MINIBATCHES).contains(&minibatches),
            "{minibatches} minibatches in a recording"
        );
        let mut state = self.open();
        self.run_waiting(&mut state);
        state.recording = true;
        self.epoch.fetch_add(1, Ordering::Relaxed);
        drop(state);
        for minibatch in 0..minibatches {
            self.open().minibatch = minibatch;
            work(minibatch);
        }
        let mut state = self.open();
        state.recording = false;
        state.minibatch = 0;
        self.epoch.fetch_add(1, Ordering::Relaxed);
        Recording {
            program: self.settle(&mut state),
            device: Arc::clone(self),
            minibatches,
            kept: std::mem::take(&mut state.released),
        }
    }

    /// Starts recorded work for minibatches of the window, from `step` on.
    pub(super) fn replay(&self, recording: &Recording, step: usize) {
        let mut state = self.open();
        self.run_waiting(&mut state);
        let minibatches = [step, recording.minibatches];
        self.start_all(&mut state, &recording.program, minibatches, true);
    }
}
