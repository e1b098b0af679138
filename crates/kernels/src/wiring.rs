//! Wirings: which source location feeds which destination location through which tap.

/// One connection seen from a destination: weights `tap` applied to location `location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index of the weight matrix, `0..taps`.
    pub tap: u32,
    /// The location at the other end.
    pub location: u32,
}

/// Links grouped by location (compressed rows).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    starts: Vec<u32>,
    links: Vec<Link>,
}

impl Links {
    fn new(groups: Vec<Vec<Link>>) -> Self {
        let mut starts = vec![0];
        let mut links = Vec::new();
        for group in groups {
            links.extend(group);
            starts.push(u32::try_from(links.len()).expect("a wiring holds fewer than 2^32 links"));
        }
        Self { starts, links }
    }

    /// The links of one location, in ascending order of the locations at their other ends: a kernel that follows them reads
    /// panels in the order in which they lie in memory.
    #[inline]
    pub fn of(&self, location: usize) -> &[Link] {
        &self.links[self.starts[location] as usize..self.starts[location + 1] as usize]
    }

    /// Number of locations.
    pub(crate) fn locations(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of links in all.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there is no link at all.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }
}

/// The grids that a 3×3 convolution links: destination `(i, j)` sees the sources from
/// `(i·stride − before[0], j·stride − before[1])` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGrid {
    /// Height and width.
    pub sources: [usize; 2],
    /// Height and width.
    pub destinations: [usize; 2],
    /// Sources from one destination's to the next one's.
    pub stride: usize,
    /// Rows and columns of padding before the first source.
    pub before: [usize; 2],
}

/// The wiring of a layer, with its transpose.
///
/// A layer computes `panel(dst) = Σ_(tap, src) panel(src) · W[tap]` where a panel is the
/// `[batch, channel]` matrix of one location. A 3×3 convolution has nine taps, a dense layer one
/// location and one tap; direct feedback (DFA) has one source and a tap of its own for every
/// destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    taps: usize,
    forward: Links,
    backward: Links,
    conv_grid: Option<ConvGrid>,
    /// Sources and destinations in a row of their grids; all of them where there is no grid.
    across: [usize; 2],
}

impl Wiring {
    fn new(taps: usize, sources: usize, incoming: Vec<Vec<Link>>) -> Self {
        let mut outgoing = vec![Vec::new(); sources];
        for (dst, links) in incoming.iter().enumerate() {
            for link in links {
                outgoing[link.location as usize].push(Link {
                    tap: link.tap,
                    location: dst as u32,
                });
            }
        }
        for links in &mut outgoing {
            links.sort_by_key(|l| (l.location, l.tap));
        }
        Self {
            taps,
            across: [sources, incoming.len()],
            forward: Links::new(incoming),
            backward: Links::new(outgoing),
            conv_grid: None,
        }
    }

    /// 3×3 convolution on a `height × width` grid with TensorFlow's "SAME" zero padding:
    /// `out = ⌈in/stride⌉`, total pad `max((out−1)·stride + 3 − in, 0)`, the smaller half before.
    ///
    /// Taps are numbered `kh·3 + kw`; locations row by row. Taps that fall on the padding have no link.
    pub fn conv3x3(height: usize, width: usize, stride: usize) -> Self {
        assert!(
            height > 0 && width > 0 && stride > 0,
            "conv3x3 needs a grid and a stride of at least 1, got {height}×{width} stride {stride}"
        );
        let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
        let pad = |out: usize, size: usize| ((out - 1) * stride + 3).saturating_sub(size) / 2;
        let (pad_rows, pad_columns) = (pad(out_height, height), pad(out_width, width));
        let mut incoming = Vec::with_capacity(out_height * out_width);
        for row in 0..out_height {
            for column in 0..out_width {
                let mut links = Vec::with_capacity(9);
                for tap in 0..9 {
                    let source_row = (row * stride + tap / 3).checked_sub(pad_rows);
                    let source_column = (column * stride + tap % 3).checked_sub(pad_columns);
                    if let (Some(r), Some(c)) = (source_row, source_column)
                        && r < height
                        && c < width
                    {
                        links.push(Link {
                            tap: tap as u32,
                            location: (r * width + c) as u32,
                        });
                    }
                }
                incoming.push(links);
            }
        }
        let mut wiring = Self::new(9, height * width, incoming);
        wiring.conv_grid = Some(ConvGrid {
            sources: [height, width],
            destinations: [out_height, out_width],
            stride,
            before: [pad_rows, pad_columns],
        });
        wiring.across = [width, out_width];
        wiring
    }

    /// One location to one location through one tap: a matrix product.
    pub fn dense() -> Self {
        Self::broadcast(1)
    }

    /// One source to `destinations` locations, each through a tap of its own (direct feedback).
    pub fn broadcast(destinations: usize) -> Self {
        let incoming = (0..destinations as u32)
            .map(|tap| vec![Link { tap, location: 0 }])
            .collect();
        Self::new(destinations, 1, incoming)
    }

    /// One matrix applied to every step of a sequence: destination `t < steps` is fed by source `t + offset`
    /// of `sources`.
    pub fn sequence(steps: usize, sources: usize, offset: usize) -> Self {
        assert!(
            steps + offset <= sources,
            "{steps} steps from source {offset} on need more than {sources} sources"
        );
        let incoming = (0..steps)
            .map(|t| {
                vec![Link {
                    tap: 0,
                    location: (t + offset) as u32,
                }]
            })
            .collect();
        Self::new(1, sources, incoming)
    }

    /// Every source to every destination, `count` of each: pair (i, j) through tap `i · count + j`.
    pub fn all_pairs(count: usize) -> Self {
        let incoming = (0..count)
            .map(|j| {
                (0..count)
                    .map(|i| Link {
                        tap: (i * count + j) as u32,
                        location: i as u32,
                    })
                    .collect()
            })
            .collect();
        Self::new(count * count, count, incoming)
    }

    /// The grids of a 3×3 convolution; none of other wirings.
    pub fn conv_grid(&self) -> Option<ConvGrid> {
        self.conv_grid
    }

    /// Height and width of the grid, of a 3×3 convolution of stride 1; none of other wirings.
    pub fn same_grid(&self) -> Option<(usize, usize)> {
        let grid = self.conv_grid.filter(|grid| grid.stride == 1)?;
        Some((grid.sources[0], grid.sources[1]))
    }

    /// How many locations lie in a row of the grids of sources and of destinations; all of them where there is no grid.
    pub fn across(&self) -> [usize; 2] {
        self.across
    }

    /// Number of weight matrices.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Number of source locations.
    pub fn sources(&self) -> usize {
        self.backward.starts.len() - 1
    }

    /// Number of destination locations.
    pub fn destinations(&self) -> usize {
        self.forward.starts.len() - 1
    }

    /// For every destination the taps and sources that feed it.
    pub fn forward(&self) -> &Links {
        &self.forward
    }

    /// For every source the taps and destinations that it feeds: the transposed wiring.
    pub fn backward(&self) -> &Links {
        &self.backward
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: TensorFlow's SAME rule worked out by hand for an even size and stride 2
    /// (0 before, 1 after) and for 224 with stride 4 (no padding).
    #[test]
    fn same_padding() {
        let w = Wiring::conv3x3(4, 4, 2);
        assert_eq!(w.destinations(), 4);
        assert_eq!(w.forward().of(0).len(), 9);
        assert_eq!(w.forward().of(0)[0].location, 0);
        assert_eq!(w.forward().of(3).len(), 4);
        let w = Wiring::conv3x3(224, 224, 4);
        assert_eq!(w.destinations(), 56 * 56);
        assert_eq!(w.forward().len(), 9 * 56 * 56);
        let w = Wiring::conv3x3(5, 7, 1);
        assert_eq!(w.forward().of(0).len(), 4);
        assert_eq!(
            w.forward().of(0)[0],
            Link {
                tap: 4,
                location: 0
            }
        );
        let w = Wiring::conv3x3(1, 1, 4);
        assert_eq!(
            w.forward().of(0),
            &[Link {
                tap: 4,
                location: 0
            }]
        );
    }

    /// Oracle: a transpose holds every link once, seen from the other end.
    #[test]
    fn transpose() {
        for (h, w, s) in [(5, 7, 1), (5, 7, 2), (8, 3, 4), (1, 1, 1)] {
            let wiring = Wiring::conv3x3(h, w, s);
            assert_eq!(wiring.forward().len(), wiring.backward().len());
            for src in 0..wiring.sources() {
                for link in wiring.backward().of(src) {
                    let there = Link {
                        tap: link.tap,
                        location: src as u32,
                    };
                    assert!(wiring.forward().of(link.location as usize).contains(&there));
                }
            }
        }
    }
}
