//! NVIDIA's driver, found when it is needed.

use super::super::GpuBackend;
use super::super::device::{GpuApi, GpuDevice, GpuError, choose, title};
use super::Cuda;
use super::compiler::binary;
use super::driver::{Driver, Graph, Node, Program};
use super::programs::{SHARED_BYTES, Source};
use cudarc::driver::result::{
    ctx, device, free_async, function, graph, init, launch_kernel, malloc_async, mem_pool,
    memcpy_dtod_async, memcpy_dtoh_async, memcpy_htod_async, module, primary_ctx, stream,
};
use cudarc::driver::sys;
use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

/// From this compute capability on, the compiler is asked for a chip's own instructions too.
const OWN_INSTRUCTIONS: i32 = 90;
/// The compiler's name for chips whose warps multiply in groups.
pub(super) const HOPPER: &str = "sm_90a";
/// The first driver whose graphs let kernels begin early (12.3).
const EARLY: c_int = 12030;
/// The first compute capability with matrix instructions of bf16.
const MATRIX_UNITS: i32 = 80;

/// Whether a library can be loaded.
fn loads(names: &[&str]) -> bool {
    // SAFETY: the libraries named here are drivers whose loading runs no code beyond their own set-up.
    names
        .iter()
        .any(|name| unsafe { libloading::Library::new(*name) }.is_ok())
}

/// Whether the run-time compiler is there, as far as that can be told.
pub(super) fn compiler_is_there() -> bool {
    let names = [
        "libnvrtc.so",
        "libnvrtc.so.13",
        "libnvrtc.so.12",
        "libnvrtc.so.11.2",
    ];
    cfg!(windows) || loads(&names)
}

/// The driver and the run-time compiler: what CUDA needs, or the first that is missing.
fn missing() -> Option<String> {
    if !loads(&["libcuda.so.1", "libcuda.so", "nvcuda.dll"]) {
        return Some("no NVIDIA driver is installed (libcuda was not found)".into());
    }
    (!compiler_is_there()).then(|| {
        "the run-time compiler libnvrtc was not found: install the CUDA toolkit or its package nvidia-cuda-nvrtc and \
         add the folder that holds libnvrtc to LD_LIBRARY_PATH, or use vulkan"
            .into()
    })
}

/// The devices of CUDA.
///
/// # Errors
/// No driver, no compiler, or no device.
pub(in super::super) fn cuda_devices() -> Result<Vec<GpuDevice>, GpuError> {
    let api = GpuApi::Cuda;
    if let Some(missing) = missing() {
        return Err(GpuError::unavailable(api, missing));
    }
    let failed = |e: cudarc::driver::DriverError| GpuError::unavailable(api, e.to_string());
    init().map_err(failed)?;
    let count = device::get_count().map_err(failed)?;
    if count == 0 {
        return Err(GpuError::unavailable(api, "the driver knows no device"));
    }
    (0..count)
        .map(|index| {
            let name = device::get(index).and_then(device::get_name);
            Ok(GpuDevice {
                api,
                index: index as usize,
                name: name.map_err(failed)?,
                software: false,
            })
        })
        .collect()
}

/// Opens a device of CUDA.
///
/// # Errors
/// No such device, it has no matrix units, or CUDA is not usable here.
pub(in super::super) fn open_cuda(index: Option<usize>) -> Result<GpuBackend, GpuError> {
    let devices = cuda_devices()?;
    let index = choose(devices.len(), GpuApi::Cuda, index)?;
    let failed = |reason: String| GpuError::Open {
        api: GpuApi::Cuda,
        index,
        name: devices[index].name.clone(),
        reason,
    };
    let driver = Nvidia::open(index).map_err(&failed)?;
    let backend = GpuBackend::on(Box::new(Cuda::new(driver)), title(&devices[index]));
    let backend = backend.trying_neighbours().map_err(&failed)?;
    backend.trying_early().map_err(failed)
}

/// A device, with one stream in which everything happens in order.
struct Nvidia {
    context: sys::CUcontext,
    stream: sys::CUstream,
    memory: u64,
    /// Whether kernels of a graph begin before those have ended whose results they read.
    early: AtomicBool,
    /// The compiler's name for the chip.
    chip: String,
}

// SAFETY: contexts and streams may be used from any thread to which the context is current, and every method makes it so.
unsafe impl Send for Nvidia {}
// SAFETY: as above; the driver locks what threads share.
unsafe impl Sync for Nvidia {}

fn words(error: cudarc::driver::DriverError) -> String {
    match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            "its memory is too small; a smaller network.width, train.batch or cohort may fit".into()
        }
        _ => error.to_string(),
    }
}

/// The driver's version, as it counts.
fn driver_version() -> c_int {
    let mut version = 0;
    // SAFETY: the number is written to a place that lives on. Without an answer it stays 0.
    let _ = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    version
}

fn check(result: sys::CUresult) -> Result<(), String> {
    result.result().map_err(words)
}

impl Nvidia {
    fn open(index: usize) -> Result<Self, String> {
        let number = device::get(index as c_int).map_err(words)?;
        let attribute = |attribute| {
            // SAFETY: the device is one that the driver named.
            unsafe { device::get_attribute(number, attribute) }.map_err(words)
        };
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let version = 10 * attribute(MAJOR)? + attribute(MINOR)?;
        if version < MATRIX_UNITS {
            return Err(format!(
                "its compute capability is {version}, and the kernels need {MATRIX_UNITS} (Ampere) or more; use vulkan"
            ));
        }
        let own = if version >= OWN_INSTRUCTIONS { "a" } else { "" };
        // SAFETY: the device is one that the driver named; its primary context is kept as long as the process lives,
        // and the pool is that of the same device.
        unsafe {
            let memory = device::total_mem(number).map_err(words)?;
            let context = primary_ctx::retain(number).map_err(words)?;
            ctx::set_current(context).map_err(words)?;
            let stream = stream::create(stream::StreamKind::NonBlocking).map_err(words)?;
            // Memory that was given back stays the process's.
            let pool = device::get_default_mem_pool(number).map_err(words)?;
            let mut threshold = u64::MAX;
            let release = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            mem_pool::set_attribute(pool, release, (&raw mut threshold).cast()).map_err(words)?;
            Ok(Self {
                context,
                stream,
                memory: memory as u64,
                early: AtomicBool::new(version >= OWN_INSTRUCTIONS && driver_version() >= EARLY),
                chip: format!("sm_{version}{own}"),
            })
        }
    }

    fn enter(&self) -> Result<(), String> {
        // SAFETY: the context lives as long as the process.
        unsafe { ctx::set_current(self.context) }.map_err(words)
    }
}

impl Driver for Nvidia {
    fn memory(&self) -> u64 {
        self.memory
    }

    fn has_groups(&self) -> bool {
        self.chip == HOPPER
    }

    fn begins_early(&self) -> bool {
        self.early.load(Ordering::Relaxed)
    }

    fn begin_in_turn(&self) {
        self.early.store(false, Ordering::Relaxed);
    }

    fn allocate(&self, bytes: usize) -> Result<u64, String> {
        self.enter()?;
        // SAFETY: the stream lives as long as the process, and all that uses the memory is ordered in it.
        unsafe { malloc_async(self.stream, bytes) }.map_err(words)
    }

    fn free(&self, address: u64) {
        if self.enter().is_ok() {
            // SAFETY: the address is one that `allocate` gave and is freed once, after what was started before.
            let _ = unsafe { free_async(address, self.stream) };
        }
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), String> {
        self.enter()?;
        // SAFETY: the allocation holds so many bytes; pageable memory is copied before the call returns.
        unsafe { memcpy_htod_async(to, bytes, self.stream) }.map_err(words)
    }

    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), String> {
        self.enter()?;
        // SAFETY: the allocation holds so many bytes, and the slice lives until they are there.
        unsafe {
            memcpy_dtoh_async(bytes, from, self.stream).map_err(words)?;
            stream::synchronize(self.stream).map_err(words)
        }
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), String> {
        self.enter()?;
        // SAFETY: both allocations hold so many bytes.
        unsafe { memcpy_dtod_async(to, from, bytes, self.stream) }.map_err(words)
    }

    fn compile(&self, source: &Source) -> Result<Program, String> {
        self.enter()?;
        let load = |anew| {
            let binary = binary(source, &self.chip, anew)?;
            // SAFETY: the binary is one that the compiler made for this chip, or a file where one was kept; the driver
            // refuses others.
            unsafe { module::load_data(binary.as_ptr().cast()) }.map_err(words)
        };
        // A file in the cache may be damaged.
        let module = load(false).or_else(|_| load(true))?;
        // SAFETY: the module lives as long as the process, and the constant is a word.
        unsafe {
            let name = |name: &str| CString::new(name).expect("a name without zeros");
            let entry = module::get_function(module, name(&source.entry())).map_err(words)?;
            let (at, _) = module::get_global(module, name(SHARED_BYTES)).map_err(words)?;
            let mut shared = [0u8; size_of::<u32>()];
            self.read(at, &mut shared)?;
            let shared = u32::from_ne_bytes(shared);
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function::set_function_attribute(entry, most, shared as c_int).map_err(words)?;
            Ok(Program {
                entry: entry as usize,
                shared,
                threads: source.threads(),
            })
        }
    }

    fn launch(&self, node: &Node) -> Result<(), String> {
        self.enter()?;
        let mut arguments = node.arguments;
        let mut parameters = [(&raw mut arguments).cast::<c_void>()];
        let ([x, y, z], program) = (node.grid, node.program);
        // SAFETY: the function takes one `Arguments`, whose addresses and offsets were those of live regions when its
        // item was noted (`GpuBuffer::first` asserts their length); links name panels of their wiring only, and kernels
        // keep to the sizes among their words.
        unsafe {
            launch_kernel(
                program.entry as sys::CUfunction,
                (x, y, z),
                (program.threads, 1, 1),
                program.shared,
                self.stream,
                &mut parameters,
            )
        }
        .map_err(words)
    }

    fn graph(&self, nodes: &[Node]) -> Result<Option<Box<dyn Graph>>, String> {
        self.enter()?;
        let mut graph: sys::CUgraph = std::ptr::null_mut();
        // SAFETY: the graph is written to a place that lives on; it is destroyed once, after the executable one was made of
        // it.
        unsafe {
            check(sys::cuGraphCreate(&raw mut graph, 0))?;
            let executable = add_nodes(graph, nodes, self.begins_early()).and_then(|()| {
                let flags = sys::CUgraphInstantiate_flags(0);
                graph::instantiate(graph, flags).map_err(words)
            });
            let _ = graph::destroy(graph);
            Ok(Some(Box::new(NvidiaGraph {
                executable: executable?,
                context: self.context,
                stream: self.stream,
            })))
        }
    }
}

/// Adds launches to a graph. Where they begin `early`, a launch begins as soon as the last one that it waits for lets it, and
/// waits for its end by itself.
///
/// # Safety
/// The graph is one that the driver made in the current context; launches are as for [`Driver::launch`].
unsafe fn add_nodes(graph: sys::CUgraph, nodes: &[Node], early: bool) -> Result<(), String> {
    let mut added: Vec<sys::CUgraphNode> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut arguments = node.arguments;
        let mut parameters = [(&raw mut arguments).cast::<c_void>()];
        let mut after: Vec<sys::CUgraphNode> = node.after.iter().map(|&n| added[n]).collect();
        let last = after.pop_if(|_| early);
        let [x, y, z] = node.grid;
        let launch = sys::CUDA_KERNEL_NODE_PARAMS {
            func: node.program.entry as sys::CUfunction,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: node.program.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: node.program.shared,
            kernelParams: parameters.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        };
        let mut place: sys::CUgraphNode = std::ptr::null_mut();
        // SAFETY: the driver copies the parameters, as many as the function takes, before it returns; the nodes are this
        // graph's.
        let add = unsafe {
            sys::cuGraphAddKernelNode_v2(
                &raw mut place,
                graph,
                after.as_ptr(),
                after.len(),
                &raw const launch,
            )
        };
        check(add)?;
        if let Some(last) = last {
            let edge = sys::CUgraphEdgeData {
                from_port: sys::CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC as u8,
                to_port: 0,
                type_: sys::CUgraphDependencyType::CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC as u8,
                reserved: [0; 5],
            };
            let (from, to, edge) = (&raw const last, &raw const place, &raw const edge);
            // SAFETY: both nodes are this graph's.
            check(unsafe { sys::cuGraphAddDependencies_v2(graph, from, to, edge, 1) })?;
        }
        added.push(place);
    }
    Ok(())
}

/// A graph of launches in a device's stream.
struct NvidiaGraph {
    executable: sys::CUgraphExec,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: as for `Nvidia`.
unsafe impl Send for NvidiaGraph {}

impl Graph for NvidiaGraph {
    fn launch(&self) -> Result<(), String> {
        // SAFETY: the graph is executable, and all that its kernels are given lives as long as the recording whose it is.
        unsafe {
            ctx::set_current(self.context).map_err(words)?;
            graph::launch(self.executable, self.stream).map_err(words)
        }
    }
}

impl Drop for NvidiaGraph {
    fn drop(&mut self) {
        // SAFETY: the graph is executable and destroyed once; the driver waits until it has run.
        unsafe {
            if ctx::set_current(self.context).is_ok() {
                let _ = graph::exec_destroy(self.executable);
            }
        }
    }
}
