//! What runs the kernels: memory, a compiler and launches in order.

use super::programs::Source;
use std::sync::Arc;

/// A compiled kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// The driver's word for it.
    pub(super) entry: usize,
    /// Bytes of shared memory of a work-group.
    pub(super) shared: u32,
    /// Threads of a work-group.
    pub(super) threads: u32,
}

/// What every kernel is given, as `Arguments` in `source/work.cuh` lays it out.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Raw {
    pub(super) heap: u64,
    pub(super) links: u64,
    pub(super) places: u64,
    pub(super) table: u64,
    pub(super) step: u64,
    pub(super) first_word: u32,
    pub(super) variant: u32,
}

/// A launch.
pub(super) struct Node {
    pub(super) program: Program,
    pub(super) grid: [u32; 3],
    pub(super) arguments: Raw,
    /// The earlier ones that it waits for, ascending; none that it waits for through another one of them.
    pub(super) after: Vec<usize>,
}

/// Launches that are started together.
pub(super) trait Graph: Send {
    /// Starts them.
    fn launch(&self) -> Result<(), String>;
}

/// Runs kernels and copies in the order in which they are asked for. Errors are the driver's words.
pub(super) trait Driver: Send + Sync + 'static {
    /// Bytes that it can hold in one piece.
    fn memory(&self) -> u64;

    /// Whether warps multiply in groups (Hopper's wgmma).
    fn has_groups(&self) -> bool;

    /// Whether launches of a graph begin before the last one has ended that they wait for.
    fn begins_early(&self) -> bool {
        false
    }

    /// From now on none begins early.
    fn begin_in_turn(&self) {}

    fn allocate(&self, bytes: usize) -> Result<u64, String>;

    fn free(&self, address: u64);

    /// Copies from the host.
    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), String>;

    /// Copies to the host, after all that was started.
    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), String>;

    /// Copies on the device.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), String>;

    fn compile(&self, source: &Source) -> Result<Program, String>;

    /// Starts a launch after all others.
    fn launch(&self, node: &Node) -> Result<(), String>;

    /// Makes a graph of launches, where the driver can.
    fn graph(&self, nodes: &[Node]) -> Result<Option<Box<dyn Graph>>, String>;
}

/// A stretch of a device's memory.
pub struct Allocation {
    address: u64,
    driver: Arc<dyn Driver>,
}

impl Allocation {
    pub(super) fn new<D: Driver>(driver: &Arc<D>, bytes: usize) -> Result<Self, String> {
        let address = driver.allocate(bytes.max(1))?;
        let driver: Arc<dyn Driver> = Arc::<D>::clone(driver);
        Ok(Self { address, driver })
    }

    pub(in super::super) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.driver.free(self.address);
    }
}
