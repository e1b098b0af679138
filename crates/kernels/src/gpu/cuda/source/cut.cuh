// Products of cut arrays: shared memory is filled with their parts in the background, some stages ahead.

/// Stages of a product of cut arrays.
template <u32 Columns> constexpr u32 DEEP = Columns <= 32 ? 2 : 3;

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
    static constexpr u32 TERMS = Columns <= 32 ? 48 : 32;
    using Left = Copied<MOST_ROWS, TERMS>;
    /// Weights lie with their outputs side by side.
    using Right = typename Either<D == Direction::Forward, Copied<TERMS, Columns>, Copied<Columns, TERMS>>::Type;
    static constexpr u32 STAGE = PARTS<P> * (Left::PART + Right::PART);
    static constexpr u32 SHARED = Base::EXCHANGE + DEEP<Columns> * STAGE * 2;

    /// The location whose terms are copied, its chunks that are left, the stage into which the next one comes, and the
    /// stage that is multiplied next.
    u32 coming, left, into, from;

    /// Copies the next terms.
    METHOD void fetch(u16 *stage) {
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

    /// Chunks of a location's sum.
    METHOD u32 chunks() const { return (links * walk.channels + TERMS - 1) / TERMS; }

    /// Copies the next chunk, of this location or of those after it, into the stage that is multiplied last.
    METHOD void fetch_next() {
        while (left == 0 && coming + 1 < Base::last) {
            coming++;
            Base::reach(coming);
            left = chunks();
        }
        if (left > 0) {
            left--;
            fetch(reinterpret_cast<u16 *>(shared_memory() + Base::EXCHANGE) + into * STAGE);
        }
        commit_copies();
        into = into + 1 == DEEP<Columns> ? 0 : into + 1;
    }

    /// Goes to the first panel, or to the next one; whether there is one.
    METHOD bool next_panel(bool first) {
        if (first) {
            coming = at.location;
            left = chunks();
            into = from = 0;
            for (u32 chunk = 0; chunk + 1 < DEEP<Columns>; chunk++) fetch_next();
        } else {
            at.location++;
        }
        return at.location < Base::last;
    }

    /// Adds the products of all links of the panel.
    METHOD void accumulate() {
        constexpr u32 deep = DEEP<Columns>;
        Base::clear();
        u32 count = walk.links[at.location + 1] - walk.links[at.location];
        u32 wanted = (count * walk.channels + TERMS - 1) / TERMS;
        for (u32 chunk = 0; chunk < wanted; chunk++) {
            wait_for_copies<deep - 2>();
            barrier();
            // What is fetched lies where all have multiplied what lay there.
            fetch_next();
            multiply_staged<Left, Right, TERMS, D>(
                *this, reinterpret_cast<u16 *>(shared_memory() + Base::EXCHANGE) + from * STAGE);
            from = from + 1 == deep ? 0 : from + 1;
        }
    }
};
