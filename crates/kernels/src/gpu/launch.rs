//! How many work-groups a kernel is started with.

use super::tile::THREADS;
use cubecl::prelude::*;

/// Work-groups along the first dimension before a second one is used: every device has at least 65,535.
const ROW: usize = 32_768;

/// The threads of every work-group.
pub(super) fn units() -> CubeDim {
    CubeDim::new_1d(THREADS as u32)
}

/// One thread for each of `len` values.
pub(super) fn per_value(len: usize) -> CubeCount {
    let groups = len.div_ceil(THREADS);
    CubeCount::Static(groups.min(ROW) as u32, groups.div_ceil(ROW) as u32, 1)
}

/// A grid of work-groups.
pub(super) fn grid(x: usize, y: u32, z: u32) -> CubeCount {
    CubeCount::Static(x as u32, y, z)
}
