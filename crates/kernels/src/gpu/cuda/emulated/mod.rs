//! The kernels on this processor: compiled by a C++ compiler with an emulation of what they use of a device.

use super::driver::{Driver, Graph, Node, Program, Raw};
use super::programs::{SHARED_BYTES, Source};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Memory that it says to have: as much as tests need.
const MEMORY: u64 = 1 << 32;

/// What the emulation makes of a kernel: arguments, work-groups in three dimensions, bytes of shared memory.
type Entry = unsafe extern "C" fn(Raw, u32, u32, u32, u32);

/// A compiler's kernels.
pub(super) struct Emulator {
    compiler: PathBuf,
    groups: bool,
    /// Memory by its address, in words of 16 bytes, to which kernels align what they read at once.
    memory: Mutex<HashMap<u64, Vec<u128>>>,
}

/// Programs of this process, with the libraries that hold them: each is compiled once.
static LOADED: Mutex<Vec<(PathBuf, Source, Program, libloading::Library)>> = Mutex::new(Vec::new());

impl Emulator {
    pub(super) fn new(compiler: &Path, groups: bool) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("{} does not start: {e}", compiler.display());
        Command::new(compiler)
            .arg("--version")
            .output()
            .map_err(failed)?;
        Ok(Self {
            compiler: compiler.to_owned(),
            groups,
            memory: Mutex::default(),
        })
    }
}

impl Driver for Emulator {
    fn memory(&self) -> u64 {
        MEMORY
    }

    fn has_groups(&self) -> bool {
        self.groups
    }

    fn allocate(&self, bytes: usize) -> Result<u64, String> {
        // What nobody wrote is no number.
        let mut words = vec![u128::MAX; bytes.div_ceil(size_of::<u128>())];
        let address = words.as_mut_ptr() as u64;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.insert(address, words);
        Ok(address)
    }

    fn free(&self, address: u64) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(&address);
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), String> {
        // SAFETY: the address lies in memory that `allocate` gave, with room for so many bytes; work is never under way.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), String> {
        // SAFETY: as in `write`.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), String> {
        // SAFETY: as in `write`, for both.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn compile(&self, source: &Source) -> Result<Program, String> {
        let known = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(compiler, text, ..): &&(PathBuf, Source, Program, libloading::Library)| {
            (compiler, text) == (&self.compiler, source)
        };
        if let Some((_, _, program, _)) = known.iter().find(same) {
            return Ok(*program);
        }
        drop(known);
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let [text, library] = ["kernel.cpp", "kernel.so"].map(|name| folder.path().join(name));
        fs::write(&text, source.emulated()).map_err(|e| format!("{}: {e}", text.display()))?;
        let output = Command::new(&self.compiler)
            .args([
                "-std=c++17",
                "-O1",
                "-fno-strict-aliasing",
                "-w",
                "-shared",
                "-fPIC",
                "-o",
            ])
            .args([&library, &text])
            .output()
            .map_err(|e| format!("{}: {e}", self.compiler.display()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} does not compile: {words}", source.function()));
        }
        // SAFETY: the library is the one just compiled, whose loading runs nothing; it stays loaded as long as the
        // process runs, and the names are those of a kernel and of a word.
        let (library, program) = unsafe {
            let library = libloading::Library::new(&library).map_err(|e| e.to_string())?;
            let entry: Entry = *library
                .get(source.entry().as_bytes())
                .map_err(|e| e.to_string())?;
            let shared = library.get::<*const u32>(SHARED_BYTES.as_bytes());
            let program = Program {
                entry: entry as usize,
                shared: **shared.map_err(|e| e.to_string())?,
                threads: source.threads(),
            };
            (library, program)
        };
        let mut known = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((self.compiler.clone(), source.clone(), program, library));
        Ok(program)
    }

    fn launch(&self, node: &Node) -> Result<(), String> {
        let [x, y, z] = node.grid;
        // SAFETY: the entry is that of a library which is still loaded; its operands are as for a device.
        unsafe {
            let entry: Entry = std::mem::transmute(node.program.entry);
            entry(node.arguments, x, y, z, node.program.shared);
        }
        Ok(())
    }

    fn graph(&self, _: &[Node]) -> Result<Option<Box<dyn Graph>>, String> {
        Ok(None)
    }
}
