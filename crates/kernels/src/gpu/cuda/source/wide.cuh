// Products of many channels, where warps multiply in groups of four (Hopper): instructions read both operands from shared
// memory, while the next terms are copied there.
//
// Operands lie in lines of 128 or 64 bytes whose pieces of 16 bytes are shuffled (`swizzled`), so that eight lines lie in
// different banks. A line is the terms of a row, or 64 rows (or columns) of a term: blocks of 64 then follow each other.

/// Threads of a group of warps, and rows of its instruction's sums.
constexpr u32 GROUP_THREADS = 128;
constexpr u32 GROUP_ROWS = 64;
constexpr u32 GROUPS = THREADS / GROUP_THREADS;
/// Values of a block that lie side by side in a line.
constexpr u32 BLOCK = 64;
/// Stages of shared memory.
constexpr u32 GROUP_STAGES = 3;

/// Where eight values of a line of `Length` values stand, of which `eighth` counts the eights.
template <u32 Length> DEVICE u32 swizzled(u32 line, u32 eighth) {
    return line * Length + (eighth ^ (Length == 64 ? line % 8 : line / 2 % 4)) * 8;
}

/// Terms that are staged at a time: of one part twice as many as of two.
template <Precision P> constexpr u32 GROUP_TERMS = 64 / PARTS<P>;

/// The matrix of an operand whose lines are the terms of rows, from a row and a term on.
template <u32 Terms> DEVICE u64 matrix_of_rows(const u16 *block, u32 row, u32 term) {
    return shared_matrix(block + row * Terms + term, 0, 8 * Terms * 2, Terms == 64 ? SWIZZLE_128 : SWIZZLE_64);
}

/// The matrix of an operand whose lines are 64 rows of a term, from a term on.
template <u32 Terms> DEVICE u64 matrix_of_terms(const u16 *block, u32 term) {
    return shared_matrix(block + term * BLOCK, Terms * BLOCK * 2, 8 * BLOCK * 2, SWIZZLE_128);
}

/// Eight values to be copied, or zeros in their place.
struct Copied8 {
    const u16 *from;
    bool there;
};

/// Copies lines of 64 rows of a term, `Rows` rows in all: `place` says for a line and an eight of its rows where it is.
template <u32 Terms, u32 Rows, u32 Parts, class Place>
DEVICE void copy_terms(u16 *to, u32 part, u64 plane, Place place) {
    constexpr u32 EIGHTS = Rows / 8, AT_ONCE = THREADS / EIGHTS;
    u32 eighth = thread() % EIGHTS, line = thread() / EIGHTS;
    to += eighth / 8 * (Terms * BLOCK) + swizzled<BLOCK>(line, eighth % 8);
#pragma unroll
    for (u32 turn = 0; turn < Terms / AT_ONCE; turn++) {
        Copied8 eight = place(line + turn * AT_ONCE, eighth);
        copy_parts<Parts>(to, part, eight.from, plane, eight.there);
        to += AT_ONCE * BLOCK;
    }
}

/// Starts the products of parts, the smallest first, of matrices that `left` and `right` give for each part.
template <Precision P, bool LeftTerms, bool RightTerms, u32 Across, class Left, class Right>
DEVICE void multiply_groups(float (&sums)[Across][4], Left left, Right right) {
#pragma unroll
    for (u32 rank = RANKS<P>; rank-- > 0;)
#pragma unroll
        for (u32 part = 0; part <= rank; part++)
            if (part < PARTS<P> && rank - part < PARTS<P>)
                multiply_group<LeftTerms, RightTerms>(sums, left(part), right(rank - part));
}

/// A product of cut panels and weights, whose channels and columns are multiples of 64, by groups of warps.
template <u32 Columns, Precision P, Direction D> struct WideProduct : Sums<Columns, P, 0, WARPS, true> {
    using Base = Sums<Columns, P, 0, WARPS, true>;
    using Base::walk, Base::at, Base::sums, Base::links, Base::link, Base::channel, Base::pairs;
    static constexpr u32 TERMS = GROUP_TERMS<P>;
    /// Values of a part.
    static constexpr u32 LEFT = MOST_ROWS * TERMS, RIGHT = Columns * TERMS;
    static constexpr u32 STAGE = PARTS<P> * (LEFT + RIGHT);
    static constexpr u32 SHARED = Base::EXCHANGE + GROUP_STAGES * STAGE * 2;

    /// Copies lines of so many values, which are `apart` from each other, from `first` on: those before `last`.
    template <u32 Lines, u32 Length>
    METHOD static void copy_rows(u16 *to, u32 part, const u16 *from, u64 plane, u32 apart, u32 last) {
        constexpr u32 EIGHTS = Length / 8, AT_ONCE = THREADS / EIGHTS;
        u32 eighth = thread() % EIGHTS, line = thread() / EIGHTS;
        from += line * apart + eighth * 8;
        to += swizzled<Length>(line, eighth);
#pragma unroll
        for (u32 turn = 0; turn < Lines / AT_ONCE; turn++) {
            if (line + turn * AT_ONCE < last) copy_parts<PARTS<P>>(to, part, from, plane, true);
            to += AT_ONCE * Length;
            from += AT_ONCE * apart;
        }
    }

    /// Copies the next terms.
    METHOD void fetch(u16 *stage) {
        const u16 *panel = reinterpret_cast<const u16 *>(walk.input) +
                           ((u64)pairs[2 * link + 1] * walk.batch + at.first_row) * walk.channels + channel;
        const u16 *matrix = reinterpret_cast<const u16 *>(walk.weight) +
                            (u64)pairs[2 * link] * walk.channels * walk.columns;
        u64 plane = (u64)walk.taps * walk.channels * walk.columns;
        copy_rows<MOST_ROWS, TERMS>(stage, LEFT, panel, walk.values, walk.channels, walk.batch - at.first_row);
        u16 *right = stage + PARTS<P> * LEFT;
        if constexpr (D == Direction::Forward) {
            const u16 *from = matrix + channel * walk.columns + at.first_column;
            copy_terms<TERMS, Columns, PARTS<P>>(right, RIGHT, plane, [&](u32 line, u32 eighth) {
                return Copied8{from + line * walk.columns + eighth * 8, true};
            });
        } else {
            copy_rows<Columns, TERMS>(right, RIGHT, matrix + at.first_column * walk.channels + channel, plane,
                                      walk.channels, Columns);
        }
        channel += TERMS;
        if (channel == walk.channels) {
            channel = 0;
            link++;
        }
    }

    /// What is copied is seen by instructions that read shared memory.
    METHOD static void arrived() { publish_copies(); }

    METHOD void multiply_stage(const u16 *stage) {
        u32 first_row = thread() / GROUP_THREADS * GROUP_ROWS;
        if (at.first_row + first_row >= walk.batch) return;
        const u16 *block = stage + PARTS<P> * LEFT;
        begin_products();
#pragma unroll
        for (u32 term = 0; term < TERMS; term += 16) {
            auto left = [&](u32 part) { return matrix_of_rows<TERMS>(stage + part * LEFT, first_row, term); };
            auto right = [&](u32 part) {
                if constexpr (D == Direction::Forward) return matrix_of_terms<TERMS>(block + part * RIGHT, term);
                else return matrix_of_rows<TERMS>(block + part * RIGHT, 0, term);
            };
            multiply_groups<P, false, D == Direction::Forward>(sums[0], left, right);
        }
        end_products();
    }

    /// Adds the products of all links.
    METHOD void accumulate() {
        u16 *stages = reinterpret_cast<u16 *>(shared_memory() + Base::EXCHANGE);
        multiply_copied<GROUP_STAGES>(*this, stages, links * (walk.channels / TERMS));
    }
};

/// A work-group's share of a gradient: 128 × 128 sums over the samples of a part of a tap's links, by groups of warps, of
/// which each holds 64 inputs. Operands are cut; inputs and outputs are multiples of 128.
template <Precision P> struct WideGradient : Part {
    static constexpr u32 INPUTS = GROUPS * GROUP_ROWS, OUTPUTS = 128;
    static constexpr u32 SAMPLES = GROUP_TERMS<P>;
    /// Values of a part of an operand.
    static constexpr u32 PART = INPUTS * SAMPLES;
    static constexpr u32 STAGE = PARTS<P> * 2 * PART;
    static constexpr u32 SHARED = GROUP_STAGES * STAGE * 2;

    float sums[OUTPUTS / COLUMNS][4];

    static METHOD u32 first_row() { return thread() / GROUP_THREADS * GROUP_ROWS; }

    /// Copies the next samples of an operand: of links' sources or destinations.
    METHOD void copy_one(u16 *stage, const float *panels, u64 values, u32 which, u32 channels, u32 first_channel) {
        const u16 *from = reinterpret_cast<const u16 *>(panels) + first_channel;
        copy_terms<SAMPLES, INPUTS, PARTS<P>>(stage, PART, values, [&](u32 line, u32 eighth) {
            u32 link, sample;
            ahead(line, link, sample);
            if (link >= links) return Copied8{from, false};
            return Copied8{from + ((u64)pairs[2 * link + which] * batch + sample) * channels + eighth * 8, true};
        });
    }

    METHOD void fetch(u16 *stage) {
        copy_one(stage, input, input_values, 0, inputs, first_input);
        copy_one(stage + PARTS<P> * PART, delta, delta_values, 1, outputs, first_output);
        ahead(SAMPLES, link, sample);
    }

    METHOD static void arrived() { publish_copies(); }

    METHOD void multiply_stage(const u16 *stage) {
        const u16 *left_block = stage + first_row() * SAMPLES, *right_block = stage + PARTS<P> * PART;
        begin_products();
#pragma unroll
        for (u32 term = 0; term < SAMPLES; term += 16) {
            auto left = [&](u32 part) { return matrix_of_terms<SAMPLES>(left_block + part * PART, term); };
            auto right = [&](u32 part) { return matrix_of_terms<SAMPLES>(right_block + part * PART, term); };
            multiply_groups<P, true, true>(sums, left, right);
        }
        end_products();
    }

    METHOD void accumulate() {
#pragma unroll
        for (u32 j = 0; j < OUTPUTS / COLUMNS; j++)
#pragma unroll
            for (u32 k = 0; k < 4; k++) sums[j][k] = 0.0f;
        u32 chunks = (links * batch + SAMPLES - 1) / SAMPLES;
        multiply_copied<GROUP_STAGES>(*this, reinterpret_cast<u16 *>(shared_memory()), chunks);
    }

    /// Writes `scale ·` the sums.
    METHOD void write(float *out, float scale) const {
        u32 row = first_input + thread() / LANES * ROWS + thread() % LANES / 4;
        u32 column = first_output + thread() % 4 * 2;
#pragma unroll
        for (u32 j = 0; j < OUTPUTS / COLUMNS; j++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                float *to = out + (u64)(row + half * 8) * outputs + column + j * COLUMNS;
                *reinterpret_cast<Two *>(to) = {{scale * sums[j][2 * half], scale * sums[j][2 * half + 1]}};
            }
    }
};
