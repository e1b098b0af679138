// The product that all kernels share: a work-group's rows and columns of `Σ_(tap, source) panel(source) · W[tap]`.

/// A product of panels and weights of f32, which go through registers into parts.
template <u32 Columns, Precision P, Direction D> struct Product : Sums<Columns, P> {
    using Base = Sums<Columns, P>;
    using Base::walk, Base::at, Base::sums, Base::links, Base::link, Base::channel, Base::pairs, Base::ahead;
    using Base::DOWN, Base::ACROSS, Base::WARPS_DOWN, Base::warp_down, Base::warp_across, Base::has_rows;
    /// Terms that are staged at a time.
    static constexpr u32 TERMS = 32;
    using Left = Block<MOST_ROWS, TERMS>;
    /// Weights lie with their outputs side by side.
    using Right = typename Either<D == Direction::Forward, Block<TERMS, Columns>, Block<Columns, TERMS>>::Type;
    /// Values of bf16 that are staged at a time.
    static constexpr u32 STAGE = PARTS<P> * (Left::PART + Right::PART);
    /// Bytes of shared memory.
    static constexpr u32 SHARED = Base::EXCHANGE + STAGES<P> * STAGE * 2;

    Four left[Left::TURNS];
    Four right[Right::TURNS];

    /// Reads this thread's values of the next terms.
    METHOD void read_left() {
        u32 quad = thread() % Left::QUADS;
        bool aligned = walk.channels % 4 == 0;
        const float *from[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            from[i] = nullptr;
            if (aligned && i > 0) continue;
            u32 link, channel;
            ahead(4 * quad + i, link, channel);
            if (link < links) {
                u32 source = pairs[2 * link + 1];
                from[i] = walk.input + (u64)source * walk.batch * walk.channels + channel;
            }
        }
#pragma unroll
        for (u32 turn = 0; turn < Left::TURNS; turn++) {
            u32 row = at.first_row + thread() / Left::QUADS + turn * Left::AT_ONCE;
            u64 there = (u64)row * walk.channels;
            bool inside = row < walk.batch;
            if (aligned) {
                left[turn] = read_four(from[0] + there, inside && from[0] ? 4 : 0, true);
                continue;
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                left[turn].value[i] = inside && from[i] ? from[i][there] : 0.0f;
        }
    }

    /// The same of weights whose lines are terms.
    METHOD void read_right_terms() {
        u32 first = at.first_column + thread() % Right::QUADS * 4;
        u32 there = first < walk.columns ? smaller(walk.columns - first, 4) : 0;
        bool aligned = walk.columns % 4 == 0;
#pragma unroll
        for (u32 turn = 0; turn < Right::TURNS; turn++) {
            u32 line = thread() / Right::QUADS + turn * Right::AT_ONCE;
            u32 link, channel;
            ahead(line, link, channel);
            const float *from = walk.weight + first;
            u32 count = 0;
            if (line < TERMS && link < links) {
                from += (u64)(pairs[2 * link] * walk.channels + channel) * walk.columns;
                count = there;
            }
            right[turn] = read_four(from, count, aligned);
        }
    }

    /// The same of weights whose lines are columns.
    METHOD void read_right_columns() {
        u32 quad = thread() % Right::QUADS;
        bool aligned = walk.channels % 4 == 0;
        u64 from[4];
        bool there[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            from[i] = 0;
            there[i] = false;
            if (aligned && i > 0) continue;
            u32 link, channel;
            ahead(4 * quad + i, link, channel);
            there[i] = link < links;
            if (there[i]) from[i] = (u64)pairs[2 * link] * walk.columns * walk.channels + channel;
        }
#pragma unroll
        for (u32 turn = 0; turn < Right::TURNS; turn++) {
            u32 line = thread() / Right::QUADS + turn * Right::AT_ONCE;
            u32 column = at.first_column + line;
            bool inside = line < Columns && column < walk.columns;
            u64 lies = (u64)column * walk.channels;
            if (aligned) {
                right[turn] = read_four(walk.weight + from[0] + lies, inside && there[0] ? 4 : 0, true);
                continue;
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                right[turn].value[i] = inside && there[i] ? walk.weight[from[i] + lies] : 0.0f;
        }
    }

    METHOD void read() {
        read_left();
        if (D == Direction::Forward) read_right_terms();
        else read_right_columns();
        ahead(TERMS, link, channel);
    }

    /// Stages what was read.
    METHOD void put(u16 *stage) {
#pragma unroll
        for (u32 turn = 0; turn < Left::TURNS; turn++) {
            u32 line = thread() / Left::QUADS + turn * Left::AT_ONCE;
            // Rows of pieces that have none of the panel's are not multiplied.
            if (at.first_row + line / ROWS * ROWS >= walk.batch) continue;
            put_four<P>(stage + line * Left::STRIDE + thread() % Left::QUADS * 4, Left::PART, left[turn]);
        }
        stage += PARTS<P> * Left::PART;
#pragma unroll
        for (u32 turn = 0; turn < Right::TURNS; turn++) {
            u32 line = thread() / Right::QUADS + turn * Right::AT_ONCE;
            if (line < Right::PART / Right::STRIDE)
                put_four<P>(stage + line * Right::STRIDE + thread() % Right::QUADS * 4, Right::PART, right[turn]);
        }
    }

    METHOD void multiply_stage(const u16 *stage) { multiply_staged<Left, Right, TERMS, D>(*this, stage); }

    /// Adds the products of all links.
    METHOD void accumulate() {
        u32 chunks = (links * walk.channels + TERMS - 1) / TERMS;
        multiply_read<STAGES<P>>(*this, reinterpret_cast<u16 *>(shared_memory() + Base::EXCHANGE), chunks);
    }
};
