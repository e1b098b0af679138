// Panels whose channels are the rows of instructions and whose samples are their columns: a thread holds many samples of a
// channel, so that norms need two exchanges among four threads. Results go through tiles in shared memory.

/// Threads of a group of warps, and rows of its instruction's sums.
constexpr u32 GROUP_THREADS = 128, STACKED = 64;

/// Sums of a thread.
template <u32 Count> DEVICE void settle_all(float (&sums)[Count][4]) {
#pragma unroll
    for (u32 j = 0; j < Count; j++)
#pragma unroll
        for (u32 k = 0; k < 4; k++) settle(sums[j][k]);
}

template <u32 Deep, u32 Count> DEVICE void settle_all(float (&sums)[Deep][Count][4]) {
#pragma unroll
    for (u32 d = 0; d < Deep; d++) settle_all(sums[d]);
}

/// The sums of a group of warps: `Deep` times 64 channels of one or two panels of up to `Rows` rows.
template <u32 Deep, u32 Panels, u32 Rows, Precision P> struct ChannelSums {
    static constexpr u32 DEEP = Deep, PANELS = Panels;
    /// Pieces of eight samples of a panel.
    static constexpr u32 PIECES = Rows / COLUMNS;
    static constexpr u32 PARTS_OUT = P == Precision::Bf16 ? 1 : 2;

    Walk walk;
    float sums[Deep][Panels * PIECES][4];

    static METHOD u32 own_group() { return thread() / GROUP_THREADS; }
    static METHOD u32 own_warp() { return thread() / LANES % 4; }

    /// Values of all panels of the result.
    METHOD u64 values_out() const { return (u64)walk.locations * walk.batch * walk.columns; }

    /// The sample of a sum, the `e`-th of two in a piece.
    static METHOD u32 sample(u32 piece, u32 e) { return piece * COLUMNS + thread() % 4 * 2 + e; }
    METHOD bool holds(u32 piece, u32 e) const { return piece + 1 < PIECES || sample(piece, e) < walk.batch; }

    /// Calls `with(piece, e, sum)` for the sums of a channel that are samples of a panel.
    template <class With> METHOD void for_each(u32 d, u32 p, u32 half, With with) {
#pragma unroll
        for (u32 piece = 0; piece < PIECES; piece++)
#pragma unroll
            for (u32 e = 0; e < 2; e++) with(piece, e, sums[d][p * PIECES + piece][2 * half + e]);
    }

    /// Sums of the four threads that hold samples of a channel.
    static METHOD float over_samples(float sum) {
        sum += shuffle_xor(sum, 1);
        return sum + shuffle_xor(sum, 2);
    }

    /// Puts the values of a channel, `value(piece, e)`, into a tile whose rows of this thread begin at `row`: so many values
    /// from piece to piece, and from part to part.
    template <u32 Piece, u32 Part, class Value> static METHOD void put_rows(u16 *row, Value value) {
#pragma unroll
        for (u32 piece = 0; piece < PIECES; piece++) {
            float first = value(piece, 0), second = value(piece, 1);
            u32 word = pack_bf16(first, second);
            store_matrix_transposed(row + piece * Piece, word);
            if (PARTS_OUT == 1) continue;
            u32 left = pack_bf16(what_is_left(first, word << 16), what_is_left(second, word & 0xffff0000u));
            store_matrix_transposed(row + Part + piece * Piece, left);
        }
    }

    /// A channel's two samples of a piece, of such a tile; 0 where there is no such sample.
    template <u32 Piece, u32 Part> METHOD void take_rows(float (&to)[2], const u16 *row, u32 piece) const {
        to[0] = to[1] = 0.0f;
#pragma unroll
        for (u32 part = 0; part < PARTS_OUT; part++) {
            u32 word;
            load_matrix_transposed(word, row + part * Part + piece * Piece);
            to[0] += as_float(word << 16);
            to[1] += as_float(word & 0xffff0000u);
        }
#pragma unroll
        for (u32 e = 0; e < 2; e++) to[e] = holds(piece, e) ? to[e] : 0.0f;
    }
};
