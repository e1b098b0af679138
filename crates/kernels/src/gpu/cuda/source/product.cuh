// The product that all kernels share: a work-group's rows and columns of `Σ_(tap, source) panel(source) · W[tap]`.

/// Which way weights `[tap, input, output]` are walked.
enum class Direction { Forward, Backward };

template <bool Which, class A, class B> struct Either { using Type = A; };
template <class A, class B> struct Either<false, A, B> { using Type = B; };

/// Most rows that a work-group holds.
constexpr u32 MOST_ROWS = 128;

/// A work-group's share of a product, `MOST_ROWS` × `Columns` sums: how its warps share it and what they hold.
template <u32 Columns, Precision P, Direction D> struct Product {
    /// Terms that are staged at a time.
    static constexpr u32 TERMS = 32;
    using Left = Block<MOST_ROWS, TERMS>;
    /// Weights lie with their outputs side by side.
    using Right = typename Either<D == Direction::Forward, Block<TERMS, Columns>, Block<Columns, TERMS>>::Type;
    static constexpr u32 WARPS_ACROSS = Columns >= 128 ? 4 : Columns >= 32 ? 2 : 1;
    static constexpr u32 WARPS_DOWN = WARPS / WARPS_ACROSS;
    /// Pieces of a warp, down and across: every `WARPS_DOWN`-th row of pieces, so that few rows are all warps' work.
    static constexpr u32 DOWN = MOST_ROWS / ROWS / WARPS_DOWN;
    static constexpr u32 ACROSS = Columns / COLUMNS / WARPS_ACROSS;
    /// Values of bf16 that are staged at a time.
    static constexpr u32 STAGE = PARTS<P> * (Left::PART + Right::PART);
    /// Bytes of shared memory: the stages, and the warps' sums of columns.
    static constexpr u32 SHARED = STAGES<P> * STAGE * 2 + WARPS_DOWN * Columns * 4;

    Walk walk;
    Place at;
    float sums[DOWN][ACROSS][4];

    Four left[Left::TURNS];
    Four right[Right::TURNS];
    /// The next terms to be read: a link among the location's, and the channel of it.
    u32 link, channel;
    const u32 *pairs;
    u32 links;

    static METHOD u32 warp_down() { return thread() / LANES / WARPS_ACROSS; }
    static METHOD u32 warp_across() { return thread() / LANES % WARPS_ACROSS; }

    /// Row, among the panel's, of sum `half` of the `i`-th piece down.
    METHOD u32 row(u32 i, u32 half) const {
        return at.first_row + (i * WARPS_DOWN + warp_down()) * ROWS + thread() % LANES / 4 + half * 8;
    }

    /// Column, among the panel's, of the first of two sums of the `j`-th piece across.
    METHOD u32 column(u32 j) const {
        return at.first_column + (warp_across() * ACROSS + j) * COLUMNS + thread() % 4 * 2;
    }

    /// Where a value of the panel lies.
    METHOD u64 index(u32 row, u32 column) const {
        return (u64)(at.location * walk.batch + row) * walk.columns + column;
    }

    /// Whether the `i`-th piece down has rows.
    METHOD bool has_rows(u32 i) const {
        return at.first_row + (i * WARPS_DOWN + warp_down()) * ROWS < walk.batch;
    }

    /// Two values side by side, of which the second may lie outside.
    METHOD void read_two(const float *from, u32 row, u32 column, float (&to)[2]) const {
        to[0] = to[1] = 0.0f;
        if (row >= walk.batch || column >= walk.columns) return;
        u64 place = index(row, column);
        if (walk.columns % 2 == 0) {
            Two both = *reinterpret_cast<const Two *>(from + place);
            to[0] = both.value[0];
            to[1] = both.value[1];
            return;
        }
        to[0] = from[place];
        if (column + 1 < walk.columns) to[1] = from[place + 1];
    }

    METHOD void write_two(float *to, u32 row, u32 column, float first, float second) const {
        if (row >= walk.batch || column >= walk.columns) return;
        u64 place = index(row, column);
        if (walk.columns % 2 == 0) {
            *reinterpret_cast<Two *>(to + place) = {{first, second}};
            return;
        }
        to[place] = first;
        if (column + 1 < walk.columns) to[place + 1] = second;
    }

    /// The link and channel `terms` after the next.
    METHOD void ahead(u32 terms, u32 &link, u32 &channel) const {
        link = this->link;
        channel = this->channel + terms;
        while (channel >= walk.channels) {
            channel -= walk.channels;
            link++;
        }
    }

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

    static METHOD void load_right(u32 (&to)[ACROSS][2], const u16 *block, u32 term) {
        u32 first = warp_across() * ACROSS * COLUMNS;
        if constexpr (ACROSS == 1) {
            if (D == Direction::Forward) load_column_of_terms<Right>(to[0], block, first, term);
            else load_column<Right>(to[0], block, first, term);
        } else {
#pragma unroll
            for (u32 j = 0; j < ACROSS; j += 2) {
                u32 two[4];
                if (D == Direction::Forward) load_columns_of_terms<Right>(two, block, first + j * COLUMNS, term);
                else load_columns<Right>(two, block, first + j * COLUMNS, term);
                to[j][0] = two[0];
                to[j][1] = two[1];
                to[j + 1][0] = two[2];
                to[j + 1][1] = two[3];
            }
        }
    }

    /// Multiplies what is staged.
    METHOD void multiply_stage(const u16 *stage) {
        const u16 *block = stage + PARTS<P> * Left::PART;
#pragma unroll
        for (u32 term = 0; term < TERMS; term += 16) {
            u32 b[PARTS<P>][ACROSS][2];
#pragma unroll
            for (u32 part = 0; part < PARTS<P>; part++) load_right(b[part], block + part * Right::PART, term);
#pragma unroll
            for (u32 i = 0; i < DOWN; i++) {
                if (!has_rows(i)) continue;
                u32 a[PARTS<P>][4];
#pragma unroll
                for (u32 part = 0; part < PARTS<P>; part++)
                    load_rows<Left>(a[part], stage + part * Left::PART, (i * WARPS_DOWN + warp_down()) * ROWS, term);
#pragma unroll
                for (u32 j = 0; j < ACROSS; j++) {
                    const u32 *parts[PARTS<P>];
#pragma unroll
                    for (u32 part = 0; part < PARTS<P>; part++) parts[part] = b[part][j];
                    multiply_parts<PARTS<P>>(sums[i][j], a, parts);
                }
            }
        }
    }

    /// The sums of one work-group; `words` are those of the item's walk.
    METHOD void start(const Arguments &given, const u32 *words) {
        walk = read_walk(given, words);
        at = place_of(group(), walk, MOST_ROWS, Columns);
#pragma unroll
        for (u32 i = 0; i < DOWN; i++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 k = 0; k < 4; k++) sums[i][j][k] = 0.0f;
        u32 first_link = walk.links[at.location];
        links = walk.links[at.location + 1] - first_link;
        pairs = walk.links + walk.locations + 1 + 2 * first_link;
        link = channel = 0;
    }

    /// Adds the products of all links.
    METHOD void accumulate() {
        u16 *stages = reinterpret_cast<u16 *>(shared_memory());
        u32 chunks = (links * walk.channels + TERMS - 1) / TERMS;
        if (chunks == 0) return;
        read();
        for (u32 chunk = 0; chunk < chunks; chunk++) {
            u16 *stage = stages + chunk % STAGES<P> * STAGE;
            if (STAGES<P> == 1 && chunk > 0) barrier();
            put(stage);
            barrier();
            if (chunk + 1 < chunks) read();
            multiply_stage(stage);
        }
    }

    /// Replaces partial sums of columns by means over the panel's rows.
    METHOD void mean_over_rows(float (&columns)[ACROSS][2]) {
        float *shared = reinterpret_cast<float *>(shared_memory() + STAGES<P> * STAGE * 2);
        u32 lane = thread() % LANES;
        u32 first = warp_across() * ACROSS * COLUMNS + lane % 4 * 2;
#pragma unroll
        for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                float sum = columns[j][e];
#pragma unroll
                for (int mask = 4; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
                if (lane < 4) shared[warp_down() * Columns + first + j * COLUMNS + e] = sum;
            }
        barrier();
#pragma unroll
        for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                float sum = 0.0f;
#pragma unroll
                for (u32 w = 0; w < WARPS_DOWN; w++) sum += shared[w * Columns + first + j * COLUMNS + e];
                columns[j][e] = sum / (float)walk.batch;
            }
        barrier();
    }
};
