//! NVIDIA's run-time compiler, and what it made before.

use super::programs::Source;
use cudarc::nvrtc;
use std::collections::hash_map::DefaultHasher;
use std::ffi::{CStr, CString, c_char, c_int};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::{env, fs, process};

/// The compiled program for a chip, by the compiler's name for that; from the user's cache if it is there, unless it is to
/// be made anew.
pub(super) fn binary(source: &Source, chip: &str, anew: bool) -> Result<Vec<u8>, String> {
    let text = source.text();
    let file = cache().map(|folder| {
        let mut hasher = DefaultHasher::new();
        (&text, chip, compiler_version()).hash(&mut hasher);
        folder.join(format!("{:016x}.cubin", hasher.finish()))
    });
    if let Some(file) = file.as_ref().filter(|_| !anew)
        && let Ok(binary) = fs::read(file)
    {
        return Ok(binary);
    }
    let binary = compile(&text, chip)
        .map_err(|log| format!("{} does not compile: {log}", source.function()))?;
    // A cache that cannot be written is none.
    if let Some(file) = file {
        let partial = file.with_extension(format!("{}.partial", process::id()));
        let made = file.parent().map(fs::create_dir_all);
        if matches!(made, Some(Ok(()))) && fs::write(&partial, &binary).is_ok() {
            let _ = fs::rename(&partial, &file);
        }
    }
    Ok(binary)
}

/// Where compiled kernels are kept.
fn cache() -> Option<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("sansprop").join("cuda"))
}

fn compiler_version() -> (c_int, c_int) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both numbers are written to places that live on. Without an answer they stay 0.
    let _ = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    (major, minor)
}

/// Compiles a text for a chip, or returns what the compiler says.
fn compile(text: &str, chip: &str) -> Result<Vec<u8>, String> {
    let text = CString::new(text).map_err(|e| e.to_string())?;
    let options = [
        format!("--gpu-architecture={chip}"),
        "--std=c++17".into(),
        "--disable-warnings".into(),
        // Products are the matrix units'; elsewhere what is written twice is to be the same twice.
        "--fmad=false".into(),
    ];
    let program = nvrtc::result::create_program(&text, None).map_err(|e| e.to_string())?;
    // SAFETY: the program is one that was just made, and is destroyed once; the binary has the size that is asked for.
    unsafe {
        let compiled = nvrtc::result::compile_program(program, &options);
        let result = match compiled {
            Ok(()) => {
                let mut size = 0;
                let asked = nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size).result();
                asked.map_err(|e| e.to_string()).and_then(|()| {
                    let mut binary = vec![0u8; size];
                    let to: *mut c_char = binary.as_mut_ptr().cast();
                    let got = nvrtc::sys::nvrtcGetCUBIN(program, to).result();
                    got.map(|()| binary).map_err(|e| e.to_string())
                })
            }
            Err(error) => Err(match nvrtc::result::get_program_log(program) {
                Ok(log) => CStr::from_ptr(log.as_ptr()).to_string_lossy().into_owned(),
                Err(_) => error.to_string(),
            }),
        };
        let _ = nvrtc::result::destroy_program(program);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::gradient::GradientTile;
    use super::super::super::operands::{Form, Operands};
    use super::super::super::panel::Arrival;
    use super::super::super::patches::{patch_list, ribbon_of, stacks as stacks_of};
    use super::super::super::tile::{Direction, Tile};
    use super::super::super::units::{By, Panels, Parts, Patch, Units};
    use super::super::super::walks::{WalkShape, walk_list};
    use super::super::super::work::Kernel;
    use super::super::nvidia::{HOPPER, compiler_is_there};
    use super::super::programs::{next_step, source};
    use super::super::{
        BLOCK, LONG_WALK, MOST_BLOCKS, SAMPLES, STACKED, in_company, patches, sides_of_a_gradient,
        stacks, stages_of_stacks, wide_product,
    };
    use super::*;
    use crate::{Activation, Links, Wiring};
    use rayon::prelude::*;

    /// What becomes of the products.
    const ARRIVAL: Arrival = Arrival {
        normalised: true,
        activation: Activation::Relu,
    };
    /// A chip of consumers, which has little shared memory.
    const SMALL: &str = "sm_89";

    /// The oldest chip that is supported, which has much. Gradients alone make use of it; the rest is the other's text.
    const LARGE: &str = "sm_80";

    /// Kernels of every width in every precision, and those that have neither.
    fn kernels() -> Vec<Kernel> {
        let parts = |exact, cut| {
            Units::Cuda(Parts {
                exact,
                cut,
                result: Form::Plain,
                groups: false,
                neighbours: false,
                by: By::Pieces,
            })
        };
        let kinds = [
            (Operands::F32, parts(false, true)),
            (Operands::Bf16, parts(false, true)),
            (Operands::F32, parts(true, false)),
            (Operands::Tf32, parts(false, false)),
        ];
        let mut all = vec![
            Kernel::Normalise(ARRIVAL),
            Kernel::Land(ARRIVAL, [Form::TwoParts, Form::Plain]),
            Kernel::Pool(Form::TwoParts),
            Kernel::Cut(Form::TwoParts),
            Kernel::Unfold(Form::TwoParts),
            Kernel::Join(Form::TwoParts),
            Kernel::Clear,
            Kernel::Copy,
            Kernel::Sign,
            Kernel::Gather,
            Kernel::ClassificationLoss,
            Kernel::SequenceLoss,
            Kernel::BiasPart(Form::TwoParts),
            Kernel::AddParts,
            Kernel::Descend,
            Kernel::Sgd,
            Kernel::Adam,
        ];
        for operands in [Operands::F32, Operands::Bf16] {
            all.extend(by_panels(operands));
        }
        for (operands, units) in kinds {
            let most = if units == parts(true, false) { 64 } else { 128 };
            for columns in [8, 32, most] {
                let tile = Tile {
                    rows: 8,
                    columns,
                    operands,
                    units,
                };
                all.extend(both_directions(tile));
            }
            for (inputs, outputs) in [(3, 8), (100, 10), (40, 20), (64, 64), (200, 300)] {
                let [inputs, outputs] = sides_of_a_gradient(inputs, outputs);
                let tile = GradientTile {
                    inputs,
                    outputs,
                    all_taps: 0,
                    panel: [0; 2],
                    operands,
                    units,
                };
                all.push(Kernel::GradientPart(tile, Form::Plain));
            }
        }
        all
    }

    /// A forward panel and a feedback panel, each with all that it may do.
    fn both_directions(tile: Tile) -> [Kernel; 2] {
        let forward = Kernel::ForwardPanel {
            tile,
            arrival: ARRIVAL,
            z: true,
        };
        let feedback = Kernel::FeedbackPanel {
            tile,
            direction: Direction::Backward,
            arrival: ARRIVAL,
            local: true,
        };
        [forward, feedback]
    }

    /// Kernels whose warps make panels by themselves, or hold all taps of a gradient.
    fn by_panels(operands: Operands) -> Vec<Kernel> {
        let cut = |by| {
            Units::Cuda(Parts {
                cut: true,
                by,
                ..Parts::default()
            })
        };
        let panels = |channels, eights| {
            let warps = 8;
            cut(By::Panels(Panels {
                channels,
                warps,
                eights,
            }))
        };
        let forward = |rows, columns, units| Kernel::ForwardPanel {
            tile: Tile {
                rows,
                columns,
                operands,
                units,
            },
            arrival: ARRIVAL,
            z: true,
        };
        let gradient = |inputs, outputs| {
            let tile = GradientTile {
                inputs,
                outputs,
                all_taps: 9,
                panel: [0; 2],
                operands,
                units: cut(By::Pieces),
            };
            Kernel::GradientPart(tile, Form::Plain)
        };
        vec![
            Kernel::Fragments(Form::TwoParts),
            forward(7, 8, panels(8, false)),
            forward(8, 16, panels(16, false)),
            forward(7, 16, panels(32, false)),
            forward(7, 8, panels(8, true)),
            forward(8, 16, panels(16, true)),
            forward(7, 16, panels(32, true)),
            gradient(8, 8),
            gradient(16, 16),
        ]
    }

    /// What multiplies cut operands on Hopper.
    fn on_hopper(by: By) -> Units {
        Units::Cuda(Parts {
            cut: true,
            groups: true,
            by,
            ..Parts::default()
        })
    }

    /// Kernels whose warps multiply in groups, which only Hopper's do: of many panels and of few, wide and narrow.
    fn by_groups(operands: Operands) -> Vec<Kernel> {
        let panels = [1024, 256, 64];
        let sizes = panels.map(|panels| [64, 128, 256].map(|columns| (panels, 100, columns)));
        let sizes = sizes.into_iter().flatten().chain([(256, 128, 128)]);
        let products = sizes.flat_map(|(panels, rows, columns)| {
            let wide = wide_product(panels, rows, columns, operands);
            let tile = Tile {
                rows: rows.next_multiple_of(SAMPLES),
                columns: wide.blocks() * BLOCK,
                operands,
                units: on_hopper(By::Groups(wide)),
            };
            both_directions(tile)
        });
        let sides = [64, 128].map(|inputs| [64, 128, 256].map(|outputs| [inputs, outputs]));
        let sides = sides.into_iter().flatten().chain([[256, 256]]);
        let gradients = sides.flat_map(|channels| {
            [100, 128].map(|rows| {
                let units = on_hopper(By::Pieces);
                let tile = GradientTile::in_groups(channels, rows, operands, units);
                Kernel::GradientPart(tile, Form::Plain)
            })
        });
        products.chain(gradients).collect()
    }

    /// Kernels that make neighbouring panels together, which only Hopper's do: of layers at strides one and two, both ways,
    /// and of one tap, and gradients of these.
    fn by_patches(operands: Operands) -> Vec<Kernel> {
        let product = |links: &Links, locations, channels, columns| {
            if !in_company(columns) {
                return Vec::new();
            }
            let panels = STACKED / columns;
            let taps = ribbon_of(&stacks_of(links, locations, panels), panels).len();
            let tile = |lands| {
                let sides = [100, channels, columns];
                let choices = patches(locations, sides, taps, operands, lands);
                let is_made =
                    |patch: &Patch| patch_list(links, locations, patch.shape(columns)).is_some();
                Some(Tile {
                    rows: 100usize.next_multiple_of(SAMPLES),
                    columns,
                    operands,
                    units: on_hopper(By::Patches(choices.into_iter().find(is_made)?)),
                })
            };
            let kernel = |lands: bool| Some(both_directions(tile(lands)?)[usize::from(lands)]);
            [false, true]
                .into_iter()
                .filter_map(kernel)
                .collect::<Vec<_>>()
        };
        let gradient = |wiring: &Wiring, inputs, outputs| {
            let [_, stages] = stages_of_stacks(100, operands);
            let shape = WalkShape {
                panels: STACKED / outputs,
                sources: STACKED / inputs,
                stages,
                blocks: MOST_BLOCKS,
                long: LONG_WALK,
                zeros: 0,
            };
            let links = (wiring.forward(), wiring.destinations());
            let walks = walk_list(links, wiring.taps(), shape)?;
            let work = stacks(100, walks.sizes, operands);
            let tile = GradientTile {
                inputs,
                outputs,
                all_taps: 0,
                panel: [100, 1],
                operands,
                units: on_hopper(By::Stacks(work)),
            };
            Some(Kernel::GradientPart(tile, Form::Plain))
        };
        let [one, two] = [1, 2].map(|stride| Wiring::conv3x3(32, 32, stride));
        let alone = Wiring::sequence(1024, 1024, 0);
        let sizes = [8, 16, 32].map(|channels| (&one, channels, channels));
        let others = [(&two, 32, 32), (&alone, 32, 8), (&alone, 32, 32)];
        let kernels = sizes
            .into_iter()
            .chain(others)
            .flat_map(|(wiring, inputs, outputs)| {
                let panels = wiring.destinations();
                let products = product(wiring.forward(), panels, inputs, outputs);
                let gradient = gradient(wiring, inputs, outputs);
                products.into_iter().chain(gradient)
            });
        kernels.chain([Kernel::Ribbon(Form::TwoParts)]).collect()
    }

    /// What the emulation's compiler takes is not all that NVIDIA's must take.
    #[test]
    fn kernels_compile_for_every_kind_of_chip() {
        if !compiler_is_there() {
            let required = env::var_os("SANSPROP_REQUIRE_NVRTC").is_some();
            assert!(!required, "libnvrtc was not found");
            println!("skipped without libnvrtc");
            return;
        }
        let kernels = kernels();
        let gradients = kernels
            .iter()
            .filter(|kernel| matches!(kernel, Kernel::GradientPart(..)))
            .map(|kernel| (source(*kernel), LARGE));
        let of_hopper = [Operands::F32, Operands::Bf16]
            .into_iter()
            .flat_map(|operands| [by_groups(operands), by_patches(operands)].concat())
            .map(|kernel| (source(kernel), HOPPER));
        let mut sources: Vec<(Source, &str)> = gradients
            .chain(of_hopper)
            .chain(kernels.iter().map(|kernel| (source(*kernel), SMALL)))
            .chain([(next_step(), SMALL)])
            .collect();
        // Some sizes take the same kernel.
        sources.sort_unstable();
        sources.dedup();
        let failures: Vec<String> = sources
            .par_iter()
            .filter_map(|(source, chip)| {
                let log = compile(&source.text(), chip).err()?;
                Some(format!("{} for {chip}: {log}", source.function()))
            })
            .collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
