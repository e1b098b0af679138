// What a work-group of a product holds, and what becomes of it in registers.

/// Which way weights `[tap, input, output]` are walked.
enum class Direction { Forward, Backward };

/// Most rows that a work-group holds.
constexpr u32 MOST_ROWS = 128;

/// The sums of a work-group, `MOST_ROWS` × `Columns`, and how its warps share them; or, with `Alone`, those of a warp,
/// so many pieces of rows, which are all of a panel's; a work-group then has so many warps, and panels lie in blocks of eight
/// channels if they lie in `Eights`.
template <u32 Columns, Precision P, u32 Alone = 0, u32 Warps = WARPS, bool Eights = false> struct Sums {
    static constexpr u32 PARTS_OUT = P == Precision::Bf16 ? 1 : 2;
    static constexpr u32 WARPS_ACROSS = Alone ? 1 : Columns >= 128 ? 4 : Columns >= 32 ? 2 : 1;
    static constexpr u32 WARPS_DOWN = Alone ? 1 : WARPS / WARPS_ACROSS;
    /// Pieces of a warp, down and across: every `WARPS_DOWN`-th row of pieces, so that few rows are all warps' work.
    static constexpr u32 DOWN = Alone ? Alone : MOST_ROWS / ROWS / WARPS_DOWN;
    static constexpr u32 ACROSS = Columns / COLUMNS / WARPS_ACROSS;
    /// Whether there are registers for a second panel's values.
    static constexpr bool KEEPS = Alone > 0;
    /// Values that warps exchange when they add columns: two quantities, twice, so that the next sum need not wait until
    /// all have read the last.
    static constexpr u32 EXCHANGED = Alone ? 0 : 4 * WARPS_DOWN * Columns;
    /// Bytes of shared memory of that, at its start.
    static constexpr u32 EXCHANGE = EXCHANGED * 4;

    Walk walk;
    Place at;
    float sums[DOWN][ACROSS][4];
    /// The next terms to be read: a link among the location's, and the channel of it.
    u32 link, channel;
    const u32 *pairs;
    u32 links;
    /// Whether the second half of the exchange is next.
    u32 turn;

    static METHOD u32 warp_down() { return Alone ? 0 : thread() / LANES / WARPS_ACROSS; }
    static METHOD u32 warp_across() { return Alone ? 0 : thread() / LANES % WARPS_ACROSS; }

    /// Row, among the panel's, of sum `half` of the `i`-th piece down.
    METHOD u32 row(u32 i, u32 half) const {
        return at.first_row + (i * WARPS_DOWN + warp_down()) * ROWS + thread() % LANES / 4 + half * 8;
    }

    /// Column, among the panel's, of the first of two sums of the `j`-th piece across.
    METHOD u32 column(u32 j) const {
        return at.first_column + (warp_across() * ACROSS + j) * COLUMNS + thread() % 4 * 2;
    }

    /// Whether the panel has that row: a warp alone has as few pieces as hold all rows, and columns for all its pieces.
    METHOD bool holds(u32 i, u32 half) const { return (Alone && i + 1 < DOWN) || row(i, half) < walk.batch; }
    METHOD bool holds(u32 i, u32 half, u32 j) const { return holds(i, half) && (Alone || column(j) < walk.columns); }
    /// Whether columns come in twos.
    METHOD bool even() const { return Alone || walk.columns % 2 == 0; }

    /// Where the first of two sums lies in an array of panels.
    METHOD u32 index(u32 i, u32 half, u32 j) const {
        return (at.location * walk.batch + row(i, half)) * walk.columns + column(j);
    }

    /// Values of all panels of the result.
    METHOD u64 values_out() const { return (u64)walk.locations * walk.batch * walk.columns; }

    /// Whether the `i`-th piece down has rows.
    METHOD bool has_rows(u32 i) const {
        return at.first_row + (i * WARPS_DOWN + warp_down()) * ROWS < walk.batch;
    }

    /// Two values at the place of two sums, of which the second may lie outside.
    METHOD void read_two(const float *from, u32 i, u32 half, u32 j, float (&to)[2]) const {
        to[0] = to[1] = 0.0f;
        if (!holds(i, half, j)) return;
        u32 place = index(i, half, j);
        if (even()) {
            Two both = *reinterpret_cast<const Two *>(from + place);
            to[0] = both.value[0];
            to[1] = both.value[1];
            return;
        }
        to[0] = from[place];
        if (column(j) + 1 < walk.columns) to[1] = from[place + 1];
    }

    METHOD void write_two(float *to, u32 i, u32 half, u32 j, float first, float second) const {
        if (!holds(i, half, j)) return;
        u32 place = index(i, half, j);
        if (even()) {
            *reinterpret_cast<Two *>(to + place) = {{first, second}};
            return;
        }
        to[place] = first;
        if (column(j) + 1 < walk.columns) to[place + 1] = second;
    }

    /// Whether what is cut lies in blocks.
    static METHOD bool in_blocks(u32 variant) { return Alone ? Eights : variant & IN_BLOCKS; }

    /// Where the first of two sums lies in an array in blocks.
    METHOD u64 index_in_blocks(u32 i, u32 half, u32 j, u32 variant) const {
        if (Alone) variant = IN_BLOCKS | IN_EIGHTS;
        return place_in_blocks(at.location, row(i, half), column(j), walk.batch, walk.columns, variant);
    }

    /// Two values of z, which is cut where it lies in blocks.
    METHOD void read_z(const float *from, u32 i, u32 half, u32 j, float (&to)[2], u32 variant) const {
        if (!in_blocks(variant)) return read_two(from, i, half, j, to);
        to[0] = to[1] = 0.0f;
        if (!holds(i, half, j)) return;
        const u16 *words = reinterpret_cast<const u16 *>(from) + index_in_blocks(i, half, j, variant);
#pragma unroll
        for (u32 part = 0; part < PARTS_OUT; part++) {
            u32 both = *reinterpret_cast<const u32 *>(words + part * values_out());
            to[0] += as_float(both << 16);
            to[1] += as_float(both & 0xffff0000u);
        }
    }

    METHOD void write_z(float *to, u32 i, u32 half, u32 j, float first, float second, u32 variant) const {
        if (in_blocks(variant)) write_form(to, i, half, j, first, second, variant);
        else write_two(to, i, half, j, first, second);
    }

    /// The same of what is cut if a kernel's variant says so.
    METHOD void write_form(float *to, u32 i, u32 half, u32 j, float first, float second, u32 variant) const {
        if (!(variant & CUT_OUT)) return write_two(to, i, half, j, first, second);
        if (!holds(i, half, j)) return;
        u64 place = in_blocks(variant) ? index_in_blocks(i, half, j, variant) : index(i, half, j);
        put_two<PARTS_OUT>(planes_of(to, values_out()), place, first, second);
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

    /// A work-group's or a warp's place and no sums yet; `words` are those of the item's walk. Whether there is a place.
    METHOD bool start(const Arguments &given, const u32 *words) {
        walk = read_walk(given, words);
        if constexpr (Alone) {
            // Warps of one panel are neighbours.
            u32 across = walk.columns / Columns, number = group() * Warps + thread() / LANES;
            at = {number / across, 0, number % across * Columns};
            if (at.location >= walk.locations) return false;
        } else {
            at = place_of(group(), walk, MOST_ROWS, Columns);
        }
        clear_sums(sums);
        u32 first_link = walk.links[at.location];
        links = walk.links[at.location + 1] - first_link;
        pairs = walk.links + walk.locations + 1 + 2 * first_link;
        link = channel = turn = 0;
        return true;
    }

    /// Called when what was copied has arrived.
    METHOD static void arrived() {}

    /// Replaces partial sums of columns, of one or two quantities, by sums over all of the panel's rows.
    template <u32 Quantities> METHOD void sum_over_rows(float (&columns)[Quantities][ACROSS][2]) {
        float *shared = reinterpret_cast<float *>(shared_memory()) + turn * EXCHANGED / 2;
        turn ^= 1;
        u32 lane = thread() % LANES;
        u32 first = warp_across() * ACROSS * COLUMNS + lane % 4 * 2;
#pragma unroll
        for (u32 q = 0; q < Quantities; q++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    float sum = columns[q][j][e];
#pragma unroll
                    for (int mask = 4; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
                    if constexpr (Alone) columns[q][j][e] = sum;
                    else if (lane < 4) shared[(q * WARPS_DOWN + warp_down()) * Columns + first + j * COLUMNS + e] = sum;
                }
        if constexpr (Alone) return;
        barrier();
#pragma unroll
        for (u32 q = 0; q < Quantities; q++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    float sum = 0.0f;
#pragma unroll
                    for (u32 w = 0; w < WARPS_DOWN; w++)
                        sum += shared[(q * WARPS_DOWN + w) * Columns + first + j * COLUMNS + e];
                    columns[q][j][e] = sum;
                }
    }

    /// The same, by means.
    template <u32 Quantities> METHOD void mean_over_rows(float (&columns)[Quantities][ACROSS][2]) {
        sum_over_rows(columns);
#pragma unroll
        for (u32 q = 0; q < Quantities; q++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 e = 0; e < 2; e++) columns[q][j][e] /= (float)walk.batch;
    }

    /// Writes sums over the panel's rows, of one quantity, to its row of `[location, column]`.
    METHOD void write_columns(float *to, const float (&columns)[ACROSS][2]) const {
        if (thread() % LANES >= 4 || warp_down() > 0) return;
#pragma unroll
        for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
            for (u32 e = 0; e < 2; e++)
                if (column(j) + e < walk.columns) to[(u64)at.location * walk.columns + column(j) + e] = columns[j][e];
    }
};

template <bool Which, class A, class B> struct Either { using Type = A; };
template <class A, class B> struct Either<false, A, B> { using Type = B; };

/// Adds the products of what is staged: a left block whose lines are rows, and weights as they lie in memory.
template <class Left, class Right, u32 Terms, Direction D, u32 Columns, Precision P>
DEVICE void multiply_staged(Sums<Columns, P> &to, const u16 *stage) {
    using Base = Sums<Columns, P>;
    const u16 *block = stage + PARTS<P> * Left::PART;
    u32 first = to.warp_across() * Base::ACROSS * COLUMNS;
#pragma unroll
    for (u32 term = 0; term < Terms; term += 16) {
        u32 b[PARTS<P>][Base::ACROSS][2];
#pragma unroll
        for (u32 part = 0; part < PARTS<P>; part++)
            load_right<Right, D == Direction::Forward, Base::ACROSS>(b[part], block + part * Right::PART, first, term);
#pragma unroll
        for (u32 i = 0; i < Base::DOWN; i++) {
            if (!to.has_rows(i)) continue;
            u32 a[PARTS<P>][4];
#pragma unroll
            for (u32 part = 0; part < PARTS<P>; part++)
                load_rows<Left>(a[part], stage + part * Left::PART, (i * Base::WARPS_DOWN + to.warp_down()) * ROWS, term);
            multiply_row<P>(to.sums[i], a, b);
        }
    }
}
