//! Devices of CUDA, with kernels in CUDA's own words: products are multiplied in bf16 by the matrix units, of operands
//! cut into two parts where f32 is asked for, and a window's steps are replayed as one graph.
//!
//! The kernels (`source/`) take the same items as the portable ones and are compiled at run time by [`Driver`]s: of a
//! device ([`nvidia`]), or for the processor ([`emulated`]), which checks them where there is no device.

mod compiler;
mod driver;
mod emulated;
mod nvidia;
mod programs;

pub(super) use driver::Allocation;
pub(super) use nvidia::{cuda_devices, open_cuda};

use super::accelerator::{Accelerator, DeviceArray, Kept, Place};
use super::backend::GpuBackend;
use super::failure::GpuFailure;
use super::launch::{Arguments, extents};
use super::operands::Operands;
use super::units::{Parts, Units};
use super::work::{Kernel, Launch};
use driver::{Driver, Graph, Node, Program, Raw};
use programs::{Source, next_step, source, variant};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Work-groups that a weight gradient is cut into at least, where there are links enough: a large GPU's
/// multiprocessors twice.
pub(super) const GRADIENT_GROUPS: usize = 264;
/// The same of a bias gradient: few, as their parts are added by few.
pub(super) const BIAS_GROUPS: usize = 132;
/// Work-groups below which a product's are made narrower: about a large GPU's multiprocessors.
const FEW_GROUPS: usize = 128;
/// Channels that products of groups of warps read at once, and columns that they make.
pub(super) const BLOCK: usize = 64;
/// Inputs and outputs of the gradients of groups of warps.
pub(super) const GRADIENT_OF_GROUPS: usize = 128;
/// Most channels of what warps make alone.
const MOST_ALONE: usize = 32;
/// Warps of a product from which on they are given more work each.
const MANY_WARPS: usize = 1024;
/// Warps of a work-group, but for those that are alone.
pub(super) const WARPS: usize = 8;
/// Offsets on a device are 32-bit numbers.
const MOST_VALUES: u64 = u32::MAX as u64;

/// Columns of a product's work-groups: as many as the matrix has, up to 128, but few enough that all multiprocessors
/// have work. Sums do not depend on it, but the means of norms may in their last bits, so that it is the layer's alone.
pub(super) fn columns_of_a_group(panels: usize, columns: usize, exact: bool) -> usize {
    // Three parts of 128 columns would not fit into every device's shared memory.
    let most = if exact { 64 } else { 128 };
    let mut width = columns.next_power_of_two().clamp(8, most);
    while width > 16 && panels * columns.div_ceil(width) < FEW_GROUPS {
        width /= 2;
    }
    width
}

/// Columns of a panel that a warp makes, and warps of a work-group, if products of so many channels and columns are made by
/// warps alone: narrow ones, few to a work-group, where there are few panels.
pub(super) fn columns_and_warps(
    panels: usize,
    channels: usize,
    columns: usize,
) -> Option<[usize; 2]> {
    if !matches!(channels, 8 | 16 | 32) || columns > MOST_ALONE || !columns.is_multiple_of(8) {
        return None;
    }
    let wide = half_or_whole(columns);
    let wide = match panels * (columns / wide) {
        ..MANY_WARPS => 8,
        _ => wide,
    };
    let warps = panels * (columns / wide);
    let together = warps.div_ceil(FEW_GROUPS).next_power_of_two().min(WARPS);
    Some([wide, together])
}

/// Inputs and outputs of the work-groups of a weight gradient of so many taps whose warps hold all of these, if it is
/// made so.
pub(super) fn sides_of_all_taps(channels: [usize; 2], taps: usize) -> Option<[usize; 2]> {
    let few = channels.iter().all(|&c| c <= MOST_ALONE) && matches!(taps, 1 | 9);
    few.then(|| channels.map(half_or_whole))
}

/// Rows of an instruction, or half of them where the channels, a multiple of eight, are no multiple of those.
fn half_or_whole(channels: usize) -> usize {
    if channels.is_multiple_of(16) { 16 } else { 8 }
}

/// Values of a sum of so many parts that a work-group adds: few where there are many parts, so that more threads share
/// them.
pub(super) fn values_added_by_a_group(parts: usize) -> usize {
    match parts {
        ..=16 => 256,
        17..128 => 32,
        _ => 8,
    }
}

/// Inputs and outputs of a weight gradient's work-groups.
pub(super) fn sides_of_a_gradient(inputs: usize, outputs: usize) -> [usize; 2] {
    let side = |channels: usize, least| channels.next_power_of_two().clamp(least, 128);
    match [side(inputs, 16), side(outputs, 8)] {
        // Its eight warps, each with samples of its own, would stage more than every device has room for.
        [64, outputs @ ..=32] => [32, outputs],
        sides => sides,
    }
}

/// A device of CUDA.
struct Cuda<D: Driver> {
    driver: Arc<D>,
    programs: Mutex<HashMap<Source, Program>>,
    /// The minibatch of the window, where kernels read it.
    step: Arc<Allocation>,
    /// What stands there.
    written: Mutex<u32>,
}

/// A recorded program as a graph, with what it was captured for.
struct Captured {
    addresses: [u64; 4],
    graph: Box<dyn Graph>,
}

/// Unwinds with what the driver says.
fn or_fail<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|reason| GpuFailure::raise(reason))
}

impl<D: Driver> Cuda<D> {
    fn new(driver: D) -> Self {
        let driver = Arc::new(driver);
        let step = or_fail(Allocation::new(&driver, size_of::<u32>()));
        or_fail(driver.write(step.address(), &0u32.to_ne_bytes()));
        Self {
            driver,
            programs: Mutex::new(HashMap::new()),
            step: Arc::new(step),
            written: Mutex::new(0),
        }
    }

    /// Compiles what is not compiled yet.
    fn programs_for(&self, sources: Vec<Source>) -> Result<Vec<Program>, String> {
        let mut known = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<&Source> =
            sources.iter().filter(|s| !known.contains_key(*s)).collect();
        missing.sort_unstable();
        missing.dedup();
        let compiled: Vec<(Source, Program)> = missing
            .into_par_iter()
            .map(|source| Ok((source.clone(), self.driver.compile(source)?)))
            .collect::<Result<_, String>>()?;
        known.extend(compiled);
        Ok(sources.iter().map(|source| known[source]).collect())
    }

    /// Launches with their programs.
    fn nodes(&self, launches: &[Launch], programs: &[Program], given: &Arguments<'_>) -> Vec<Node> {
        let [heap, links, places, table] = addresses(given);
        let node = |(launch, program): (&Launch, &Program)| Node {
            program: *program,
            grid: extents(launch.groups, launch.items),
            arguments: Raw {
                heap,
                links,
                places,
                table,
                step: self.step.address(),
                first_word: u32::try_from(launch.first_word)
                    .expect("a table of less than 2^32 words"),
                variant: variant(launch.kernel),
            },
            after: launch.after.clone(),
        };
        launches.iter().zip(programs).map(node).collect()
    }

    /// The minibatch is where kernels read it.
    fn set_step(&self, step: usize) -> Result<(), String> {
        let step = u32::try_from(step).expect("a window of less than 2^32 steps");
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written != step {
            self.driver.fill(self.step.address(), step)?;
            *written = step;
        }
        Ok(())
    }

    fn capture(
        &self,
        launches: &[Launch],
        given: &Arguments<'_>,
    ) -> Result<Option<Captured>, String> {
        let sources = launches.iter().map(|launch| source(launch.kernel));
        let mut programs = self.programs_for(sources.chain([next_step()]).collect())?;
        let next = programs.pop().expect("as many programs as sources");
        let mut nodes = self.nodes(launches, &programs, given);
        // When all have run, it is the next minibatch's turn.
        nodes.push(Node {
            program: next,
            grid: [1; 3],
            arguments: Raw {
                step: self.step.address(),
                ..Raw::default()
            },
            after: (0..launches.len()).collect(),
        });
        let graph = self.driver.graph(&nodes)?;
        Ok(graph.map(|graph| Captured {
            addresses: addresses(given),
            graph,
        }))
    }
}

fn addresses(given: &Arguments<'_>) -> [u64; 4] {
    [given.heap, given.links, given.places, given.table].map(DeviceArray::address)
}

impl<D: Driver> Accelerator for Cuda<D> {
    fn most_values(&self) -> u64 {
        (self.driver.memory() / size_of::<f32>() as u64).min(MOST_VALUES)
    }

    fn units(&self, _: Operands) -> Units {
        Units::Cuda(Parts {
            groups: self.driver.has_groups(),
            ..Parts::default()
        })
    }

    fn empty(&self, values: usize) -> DeviceArray {
        let allocation = or_fail(Allocation::new(&self.driver, values * size_of::<f32>()));
        DeviceArray {
            place: Place::Cuda(Arc::new(allocation)),
            len: values,
        }
    }

    fn upload(&self, bytes: &[u8]) -> DeviceArray {
        let array = self.empty(bytes.len().div_ceil(4));
        or_fail(self.driver.write(array.address(), bytes));
        array
    }

    /// Where it lies is part of what was captured.
    fn replace(&self, old: Option<DeviceArray>, bytes: &[u8]) -> DeviceArray {
        match old {
            Some(array) if array.len * 4 == bytes.len() => {
                or_fail(self.driver.write(array.address(), bytes));
                array
            }
            _ => self.upload(bytes),
        }
    }

    fn transfer(&self, from: &DeviceArray, to: &DeviceArray, start: usize, len: usize) {
        let to = to.address() + (start * size_of::<f32>()) as u64;
        or_fail(self.driver.copy(from.address(), to, len * size_of::<f32>()));
    }

    fn read(&self, array: &DeviceArray, start: usize, len: usize) -> Result<Vec<f32>, String> {
        let mut values = vec![0.0f32; len];
        let from = array.address() + (start * size_of::<f32>()) as u64;
        self.driver
            .read(from, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    fn start(&self, launches: &[Launch], given: &Arguments<'_>) {
        let sources = launches
            .iter()
            .map(|launch| source(launch.kernel))
            .collect();
        let programs = or_fail(self.programs_for(sources));
        or_fail(self.set_step(given.step));
        for node in self.nodes(launches, &programs, given) {
            or_fail(self.driver.launch(&node));
        }
    }

    fn replay(&self, launches: &[Launch], given: &Arguments<'_>, kept: &mut Kept) {
        let captured = kept
            .as_ref()
            .and_then(|kept| kept.downcast_ref::<Captured>());
        if captured.is_none_or(|captured| captured.addresses != addresses(given)) {
            match or_fail(self.capture(launches, given)) {
                Some(captured) => *kept = Some(Box::new(captured)),
                None => return self.start(launches, given),
            }
        }
        let captured = kept
            .as_ref()
            .and_then(|kept| kept.downcast_ref::<Captured>());
        or_fail(self.set_step(given.step));
        or_fail(captured.expect("captured just now").graph.launch());
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

impl GpuBackend {
    /// The kernels written for CUDA, compiled for this processor by the C++ compiler `compiler`, work-group after
    /// work-group: to check them where there is no device. With `groups`, those for Hopper, whose warps multiply in groups.
    /// Very slow.
    ///
    /// # Errors
    /// The compiler does not start.
    pub fn emulated(compiler: &Path, groups: bool) -> Result<Self, String> {
        let driver = emulated::Emulator::new(compiler, groups)?;
        let name = format!("CUDA's kernels on the CPU, by {}", compiler.display());
        Ok(Self::on(Box::new(Cuda::new(driver)), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_groups_are_as_wide_as_they_find_company() {
        assert_eq!(columns_of_a_group(1024, 3, true), 8);
        assert_eq!(columns_of_a_group(1024, 512, false), 128);
        assert_eq!(columns_of_a_group(64, 64, false), 32);
        assert_eq!(columns_of_a_group(1, 10, false), 16);
        assert_eq!(columns_and_warps(1024, 32, 32), Some([16, 8]));
        assert_eq!(columns_and_warps(64, 8, 16), Some([8, 1]));
        assert_eq!(columns_and_warps(1024, 64, 8), None);
        assert_eq!(columns_and_warps(1024, 8, 10), None);
        assert_eq!(sides_of_all_taps([8, 24], 9), Some([8, 8]));
        assert_eq!(sides_of_all_taps([16, 16], 25), None);
        assert_eq!(sides_of_a_gradient(3, 8), [16, 8]);
        assert_eq!(sides_of_a_gradient(300, 65), [128, 128]);
        assert_eq!(sides_of_a_gradient(64, 20), [32, 32]);
    }
}
