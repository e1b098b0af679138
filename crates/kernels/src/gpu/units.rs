//! What multiplies: a device's matrix units are used where it reports them and a trial of them comes out right.

use super::backend::GpuBackend;
use super::buffer::GpuBuffer;
use super::matrix::{PLANE, SHARED_BYTES};
use super::operands::Operands;
use super::tile::{Direction, SIDE};
use crate::{Activation, Layer, Norm, Wiring};
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
use cubecl::prelude::*;
use std::sync::Arc;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Units {
    /// Each thread, in f32.
    Scalar,
    /// The matrix instruction, of a plane of threads together.
    Matrix,
}

impl Units {
    /// What multiplies such operands on a device, as far as it says itself.
    pub(super) fn reported(properties: &DeviceProperties, operands: Operands) -> Self {
        let kind = match operands {
            Operands::F32 => return Self::Scalar,
            Operands::Tf32 => FloatKind::TF32,
            Operands::Bf16 => FloatKind::BF16,
        };
        let instruction = MmaConfig {
            a_type: ElemType::Float(kind).into(),
            b_type: ElemType::Float(kind).into(),
            cd_type: ElemType::Float(FloatKind::F32).into(),
            m: SIDE as u32,
            n: SIDE as u32,
            k: operands.terms() as u32,
        };
        let hardware = &properties.hardware;
        let planes = [hardware.plane_size_min, hardware.plane_size_max];
        let there = properties.features.matmul.cmma.contains(&instruction)
            && planes == [PLANE as u32; 2]
            && hardware.max_shared_memory_size >= SHARED_BYTES;
        match there {
            true => Self::Matrix,
            false => Self::Scalar,
        }
    }

    /// How a kernel's description mentions it.
    pub(super) fn said(self) -> &'static str {
        match self {
            Self::Scalar => "",
            Self::Matrix => "matrix units, ",
        }
    }
}

impl<R: Runtime> GpuBackend<R> {
    /// Whether a product of small integers, which no precision rounds, is what it should be.
    ///
    /// CubeCL reports instructions for some devices that have none, and its kernels then do not compile.
    pub(super) fn multiplies_exactly(&self) -> bool {
        const BATCH: usize = 40;
        const INPUTS: usize = 50;
        const OUTPUTS: usize = 36;
        let layer = Layer {
            wiring: Arc::new(Wiring::dense()),
            inputs: INPUTS,
            outputs: OUTPUTS,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Linear,
        };
        let integers = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| (i * step % 11) as f32 - 5.0).collect()
        };
        let (weights, panel) = (integers(INPUTS * OUTPUTS, 7), integers(BATCH * INPUTS, 3));
        let [weight, input] = [&weights, &panel].map(|values| self.buffer_of(values));
        let out = GpuBuffer::empty(self.memory(), BATCH * OUTPUTS);
        let walk = self.walk(&layer, BATCH, Direction::Forward);
        self.product(walk, 1.0, &weight, None, &input, &out);
        let expected = (0..BATCH * OUTPUTS).map(|at| -> f32 {
            let (row, column) = (at / OUTPUTS, at % OUTPUTS);
            (0..INPUTS)
                .map(|i| panel[row * INPUTS + i] * weights[i * OUTPUTS + column])
                .sum()
        });
        let found = self.memory().try_read(out.region());
        found.is_ok_and(|found| found.into_iter().eq(expected))
    }
}
