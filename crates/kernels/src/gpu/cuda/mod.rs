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
mod shares;

pub(super) use driver::Allocation;
pub(super) use nvidia::{cuda_devices, open_cuda};
pub(super) use shares::{
    BIAS_GROUPS, BLOCK, EIGHT, GRADIENT_GROUPS, LONG_WALK, MOST_BLOCKS, SAMPLES, STACKED, WARPS,
    block_of, columns_and_warps, columns_of_a_group, in_company, parts_of_wide_gradient, patches,
    share_fits, sides_of_a_gradient, sides_of_all_taps, stacks, stages_of_stacks,
    values_added_by_a_group, wide_gradient, wide_product, widened,
};

use super::accelerator::{Accelerator, DeviceArray, Kept, Place};
use super::backend::GpuBackend;
use super::failure::GpuFailure;
use super::launch::{Arguments, extents};
use super::operands::Operands;
use super::units::{Parts, Units};
use super::work::{Kernel, Launch, MOST_MINIBATCHES};
use driver::{Driver, Graph, Node, Program, Raw};
use programs::{Source, next_step, source, variant};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Offsets on a device are 32-bit numbers.
const MOST_VALUES: u64 = u32::MAX as u64;

/// A device of CUDA.
struct Cuda<D: Driver> {
    driver: Arc<D>,
    programs: Mutex<HashMap<Source, Program>>,
    /// The minibatch of the window and those that follow it, where kernels read them.
    step: Arc<Allocation>,
    /// The first one that stands there.
    written: Mutex<Option<u32>>,
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
        let step = or_fail(Allocation::new(
            &driver,
            MOST_MINIBATCHES * size_of::<u32>(),
        ));
        let cuda = Self {
            driver,
            programs: Mutex::new(HashMap::new()),
            step: Arc::new(step),
            written: Mutex::new(None),
        };
        or_fail(cuda.set_step(0));
        cuda
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
                step: self.step.address() + (launch.minibatch * size_of::<u32>()) as u64,
                first_word: u32::try_from(launch.first_word)
                    .expect("a table of less than 2^32 words"),
                variant: variant(launch.kernel),
            },
            after: launch.after.clone(),
        };
        launches.iter().zip(programs).map(node).collect()
    }

    /// The minibatch and those that follow it are where kernels read them.
    fn set_step(&self, step: usize) -> Result<(), String> {
        let step = u32::try_from(step).expect("a window of less than 2^32 steps");
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written != Some(step) {
            let steps: Vec<u32> = (step..).take(MOST_MINIBATCHES).collect();
            self.driver
                .write(self.step.address(), bytemuck::cast_slice(&steps))?;
            *written = Some(step);
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
        // When all have run, it is the turn of the minibatches that follow.
        nodes.push(Node {
            program: next,
            grid: [1; 3],
            arguments: Raw {
                step: self.step.address(),
                first_word: given.minibatches as u32,
                variant: MOST_MINIBATCHES as u32,
                ..Raw::default()
            },
            after: (0..launches.len()).collect(),
        });
        keep_direct(&mut nodes);
        let graph = self.driver.graph(&nodes)?;
        Ok(graph.map(|graph| Captured {
            addresses: addresses(given),
            graph,
        }))
    }
}

/// Forgets which nodes a node waits for through another one.
fn keep_direct(nodes: &mut [Node]) {
    // Of each node, those that it waits for, directly or not.
    let mut all: Vec<Vec<bool>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut waits = vec![false; all.len()];
        let mut direct = Vec::new();
        for &before in node.after.iter().rev() {
            if !waits[before] {
                direct.push(before);
                waits[before] = true;
                for (wait, &through) in waits.iter_mut().zip(&all[before]) {
                    *wait |= through;
                }
            }
        }
        direct.reverse();
        node.after = direct;
        all.push(waits);
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
            neighbours: self.driver.has_groups(),
            ..Parts::default()
        })
    }

    fn begins_early(&self) -> bool {
        self.driver.begins_early()
    }

    fn begin_in_turn(&self) {
        self.driver.begin_in_turn();
    }

    fn descends(&self) -> bool {
        true
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
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        *written = Some((given.step + given.minibatches) as u32);
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
    fn nodes_wait_for_their_direct_predecessors() {
        let node = |after: &[usize]| Node {
            program: Program {
                entry: 0,
                shared: 0,
                threads: 1,
            },
            grid: [1; 3],
            arguments: Raw::default(),
            after: after.to_vec(),
        };
        let mut nodes: Vec<Node> = [&[][..], &[0], &[], &[0, 1, 2], &[0, 1], &[0, 1, 2, 3, 4]]
            .map(node)
            .into();
        keep_direct(&mut nodes);
        let after: Vec<Vec<usize>> = nodes.into_iter().map(|node| node.after).collect();
        assert_eq!(
            after,
            [vec![], vec![0], vec![], vec![1, 2], vec![1], vec![3, 4]]
        );
    }
}
