//! What the channel norm needs once all locations are filled: moments or sums of all panels, and a second pass.

use super::isa::{Kernel, Vectors};
use super::lanes::Lanes;
use super::pack::Packing;
use super::panel::{self, Column, FeedbackPort, ForwardPort, Part};
use super::sweep::Finish;
use super::threads::Threads;
use crate::{NORM_EPSILON, Norm};
use std::marker::PhantomData;

/// What the channel norm needs once all locations are filled.
pub(super) fn complete(
    threads: &Threads,
    set: Vectors,
    locations: usize,
    batch: usize,
    packing: Packing,
    finish: Finish<'_>,
) {
    match finish {
        Finish::Forward(port) if port.norm == Norm::Channel => {
            finish_channel_forward(threads, set, locations, batch, packing, port);
        }
        Finish::Feedback {
            slopes,
            path,
            local,
        } if slopes.norm == Norm::Channel => {
            for port in std::iter::once(path).chain(local) {
                finish_channel_feedback(threads, set, locations, batch, packing, port);
            }
        }
        _ => {}
    }
}

/// Second pass over one panel under the channel norm; the two vectors are what that pass needs per channel.
struct ChannelKernel<'a> {
    location: usize,
    batch: usize,
    channels: usize,
    second_pass: SecondPass<'a>,
    first: &'a [f32],
    second: &'a [f32],
}

#[derive(Clone, Copy)]
enum SecondPass<'a> {
    Forward(ForwardPort<'a>),
    Feedback(FeedbackPort<'a>),
}

impl Kernel for ChannelKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for channel in (0..self.channels).step_by(V::LEN) {
            let column = Column::<Part> {
                scratch: std::ptr::null_mut(),
                stride: 0,
                batch: self.batch,
                channel,
                count: V::LEN.min(self.channels - channel),
                channels: self.channels,
                location: self.location,
                cut: PhantomData,
            };
            // SAFETY: the second pass uses no scratch; every item has a location of its own.
            unsafe {
                match self.second_pass {
                    SecondPass::Forward(port) => {
                        panel::finish_forward::<V>(port, column, self.first, self.second);
                    }
                    SecondPass::Feedback(port) => {
                        panel::finish_feedback::<V>(port, column, self.first, self.second);
                    }
                }
            }
        }
    }
}

fn second_pass(
    threads: &Threads,
    set: Vectors,
    (locations, batch, channels): (usize, usize, usize),
    pass: SecondPass<'_>,
    first: &[f32],
    second: &[f32],
) {
    threads.for_each(locations, 4 * batch * channels, |_, location| {
        let kernel = ChannelKernel {
            location,
            batch,
            channels,
            second_pass: pass,
            first,
            second,
        };
        // SAFETY: `set` is available; items touch different locations.
        unsafe { set.run(kernel) };
    });
}

/// Joins the panels' moments in location order (Chan's formula, in f64) and normalises.
fn finish_channel_forward(
    threads: &Threads,
    set: Vectors,
    locations: usize,
    batch: usize,
    packing: Packing,
    port: ForwardPort<'_>,
) {
    let channels = packing.columns;
    let len = 2 * locations * channels;
    // SAFETY: the first pass is over, no other thread holds these arrays.
    let (moments, joined, out) = unsafe {
        (
            port.moments.slice(0, len),
            port.moments.slice(len, 2 * channels),
            port.inverse_deviation.slice(0, channels),
        )
    };
    let (means, inverses) = joined.split_at_mut(channels);
    for c in 0..channels {
        let (mut mean, mut squares) = (0.0f64, 0.0f64);
        for location in 0..locations {
            let panel_mean = f64::from(moments[2 * location * channels + c]);
            let panel_squares = f64::from(moments[(2 * location + 1) * channels + c]);
            let difference = panel_mean - mean;
            let (before, after) = (location as f64, location as f64 + 1.0);
            mean += difference / after;
            squares += panel_squares + difference * difference * batch as f64 * before / after;
        }
        let variance = squares / (locations * batch) as f64;
        means[c] = mean as f32;
        inverses[c] = (1.0 / (variance + NORM_EPSILON).sqrt()) as f32;
    }
    out.copy_from_slice(inverses);
    let shape = (locations, batch, channels);
    second_pass(
        threads,
        set,
        shape,
        SecondPass::Forward(port),
        means,
        inverses,
    );
}

/// Joins the panels' sums in location order (in f64) and applies normᵀ.
fn finish_channel_feedback(
    threads: &Threads,
    set: Vectors,
    locations: usize,
    batch: usize,
    packing: Packing,
    port: FeedbackPort<'_>,
) {
    let channels = packing.columns;
    let len = 2 * locations * channels;
    // SAFETY: the first pass is over, no other thread holds these arrays, which do not overlap.
    let (sums, averages) = unsafe { (port.sums.slice(0, len), port.sums.slice(len, 2 * channels)) };
    let count = (locations * batch) as f64;
    for (at, average) in averages.iter_mut().enumerate() {
        let panels = sums.chunks_exact(2 * channels);
        let sum: f64 = panels.map(|panel| f64::from(panel[at])).sum();
        *average = (sum / count) as f32;
    }
    let (mean, along) = averages.split_at(channels);
    let shape = (locations, batch, channels);
    second_pass(threads, set, shape, SecondPass::Feedback(port), mean, along);
}
