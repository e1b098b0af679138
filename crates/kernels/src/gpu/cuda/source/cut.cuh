// Products of cut arrays: shared memory is filled with their parts in the background, some stages ahead.

/// Stages of a product of cut arrays: more would leave room for fewer work-groups.
constexpr u32 DEEP = 2;

/// A block of parts as it is staged: see [`Block`].
template <u32 Lines, u32 Length> struct Copied : Block<Lines, Length> {
    static constexpr u32 EIGHTS = Length / 8;
    /// Lines that the work-group copies at once.
    static constexpr u32 AT_ONCE = THREADS / EIGHTS < Lines ? THREADS / EIGHTS : Lines;
    static constexpr u32 TURNS = (Lines + AT_ONCE - 1) / AT_ONCE;
};

/// Copies eight values of every part.
template <u32 Parts> DEVICE void copy_parts(u16 *to, u32 part, const u16 *from, u64 plane, bool inside) {
#pragma unroll
    for (u32 n = 0; n < Parts; n++) copy_async(to + n * part, from + n * plane, inside);
}

/// A product of cut panels and weights, whose channels and columns are multiples of eight.
template <u32 Columns, Precision P, Direction D> struct CutProduct : Sums<Columns, P> {
    using Base = Sums<Columns, P>;
    using Base::walk, Base::at, Base::sums, Base::links, Base::link, Base::channel, Base::pairs, Base::ahead;
    using Base::DOWN, Base::ACROSS, Base::WARPS_DOWN, Base::warp_down, Base::warp_across, Base::has_rows;
    /// Terms that are staged at a time: nine taps of few channels are a multiple of 48.
    static constexpr u32 TERMS = Columns <= 16 ? 48 : P == Precision::Bf16 ? 64 : 32;
    using Left = Copied<MOST_ROWS, TERMS>;
    /// Weights lie with their outputs side by side.
    using Right = typename Either<D == Direction::Forward, Copied<TERMS, Columns>, Copied<Columns, TERMS>>::Type;
    static constexpr u32 STAGE = PARTS<P> * (Left::PART + Right::PART);
    static constexpr u32 SHARED = Base::EXCHANGE + DEEP * STAGE * 2;

    /// Copies the next terms where all are channels of one link.
    METHOD void fetch_of_one(u16 *stage) {
        const u16 *panel = reinterpret_cast<const u16 *>(walk.input) +
                           ((u64)pairs[2 * link + 1] * walk.batch + at.first_row) * walk.channels + channel;
        const u16 *matrix = reinterpret_cast<const u16 *>(walk.weight) +
                            (u64)pairs[2 * link] * walk.channels * walk.columns;
        u64 plane = (u64)walk.taps * walk.channels * walk.columns;
        u32 rows = walk.batch - at.first_row, columns = walk.columns - at.first_column;
        u32 first = thread() / Left::EIGHTS, eighth = thread() % Left::EIGHTS * 8;
        const u16 *from = panel + (first * walk.channels + eighth);
        u16 *to = stage + first * Left::STRIDE + eighth;
        u32 most = smaller((rows + ROWS - 1) / ROWS * ROWS, MOST_ROWS);
#pragma unroll
        for (u32 turn = 0; turn < Left::TURNS; turn++) {
            u32 row = first + turn * Left::AT_ONCE;
            if (row < most) copy_parts<PARTS<P>>(to, Left::PART, from, walk.values, row < rows);
            to += Left::AT_ONCE * Left::STRIDE;
            from += Left::AT_ONCE * walk.channels;
        }
        first = thread() / Right::EIGHTS;
        eighth = thread() % Right::EIGHTS * 8;
        to = stage + PARTS<P> * Left::PART + first * Right::STRIDE + eighth;
        if (D == Direction::Forward) {
            bool inside = eighth < columns;
            from = matrix + ((channel + first) * walk.columns + at.first_column + eighth);
#pragma unroll
            for (u32 turn = 0; turn < Right::TURNS; turn++) {
                if (first < Right::AT_ONCE && first + turn * Right::AT_ONCE < TERMS)
                    copy_parts<PARTS<P>>(to, Right::PART, from, plane, inside);
                to += Right::AT_ONCE * Right::STRIDE;
                from += Right::AT_ONCE * walk.columns;
            }
        } else {
            from = matrix + ((at.first_column + first) * walk.channels + channel + eighth);
#pragma unroll
            for (u32 turn = 0; turn < Right::TURNS; turn++) {
                u32 line = first + turn * Right::AT_ONCE;
                if (first < Right::AT_ONCE && line < Columns)
                    copy_parts<PARTS<P>>(to, Right::PART, from, plane, line < columns);
                to += Right::AT_ONCE * Right::STRIDE;
                from += Right::AT_ONCE * walk.channels;
            }
        }
        channel += TERMS;
        if (channel == walk.channels) {
            channel = 0;
            link++;
        }
    }

    /// Copies the next terms.
    METHOD void fetch(u16 *stage) {
        if constexpr (TERMS % 32 == 0) {
            if (channel + TERMS <= walk.channels) return fetch_of_one(stage);
        }
        const u16 *panels = reinterpret_cast<const u16 *>(walk.input);
        const u16 *weights = reinterpret_cast<const u16 *>(walk.weight);
        u64 plane = (u64)walk.taps * walk.channels * walk.columns;
        u32 link, channel;
        {
            u32 eighth = thread() % Left::EIGHTS, first = thread() / Left::EIGHTS;
            ahead(8 * eighth, link, channel);
            bool there = link < links;
            const u16 *from = panels + channel;
            if (there) from += ((u64)pairs[2 * link + 1] * walk.batch + at.first_row + first) * walk.channels;
            // Rows of pieces that have none of the panel's are not multiplied.
            u32 rows = smaller((walk.batch - at.first_row + ROWS - 1) / ROWS * ROWS, MOST_ROWS);
            u16 *to = stage + first * Left::STRIDE + 8 * eighth;
#pragma unroll
            for (u32 turn = 0; turn < Left::TURNS; turn++) {
                u32 row = first + turn * Left::AT_ONCE;
                if (first < Left::AT_ONCE && row < rows)
                    copy_parts<PARTS<P>>(to, Left::PART, from, walk.values, there && at.first_row + row < walk.batch);
                to += Left::AT_ONCE * Left::STRIDE;
                from += (u64)Left::AT_ONCE * walk.channels;
            }
        }
        u32 eighth = thread() % Right::EIGHTS, first = thread() / Right::EIGHTS;
        u16 *to = stage + PARTS<P> * Left::PART + first * Right::STRIDE + 8 * eighth;
#pragma unroll
        for (u32 turn = 0; turn < Right::TURNS; turn++) {
            u32 line = first + turn * Right::AT_ONCE;
            ahead(D == Direction::Forward ? line : 8 * eighth, link, channel);
            u32 column = at.first_column + (D == Direction::Forward ? 8 * eighth : line);
            bool there = link < links && column < walk.columns;
            const u16 *from = weights;
            if (there) {
                u64 tap = pairs[2 * link];
                from += D == Direction::Forward ? (tap * walk.channels + channel) * walk.columns + column
                                                : (tap * walk.columns + column) * walk.channels + channel;
            }
            if (first < Right::AT_ONCE && line < Right::PART / Right::STRIDE)
                copy_parts<PARTS<P>>(to, Right::PART, from, plane, there);
            to += Right::AT_ONCE * Right::STRIDE;
        }
        ahead(TERMS, this->link, this->channel);
    }

    METHOD void multiply_stage(const u16 *stage) { multiply_staged<Left, Right, TERMS, D>(*this, stage); }

    /// Adds the products of all links.
    METHOD void accumulate() {
        u32 chunks = (links * walk.channels + TERMS - 1) / TERMS;
        multiply_copied<DEEP>(*this, reinterpret_cast<u16 *>(shared_memory() + Base::EXCHANGE), chunks);
    }
};
