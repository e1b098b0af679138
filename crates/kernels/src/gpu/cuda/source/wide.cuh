// Products of many channels on Hopper, whose warps multiply in groups of four: instructions read both operands from
// shared memory, where whole tiles are copied in the background, by one thread.
//
// What is multiplied lies in *blocks* of 64 channels: of a panel, its rows' values of the first 64 channels, row after row,
// then those of the next 64. The eight pieces of 16 bytes of a row of a block are shuffled by the row's number, as the
// instructions want it, so that a tile is copied as it lies.

/// Most stages of shared memory.
constexpr u32 MOST_STAGES = 4;
/// Bytes of shared memory that work-groups on a multiprocessor may share.
constexpr u32 ROOM_OF_STAGES = 225 * 1024;
/// Stages of so many values that fit, where so many work-groups are to share a multiprocessor.
template <u32 Values, u32 Together, u32 Fit = ROOM_OF_STAGES / Together / (2 * Values)>
constexpr u32 STAGES_OF = Fit < MOST_STAGES ? Fit : MOST_STAGES;

/// The matrix of a block whose rows are the instruction's rows (or columns), and its channels the terms, from a term on.
DEVICE u64 matrix_of_rows(const u16 *block, u32 term) { return shared_matrix(block + term, 0, 8 * BLOCK * 2); }

/// The matrix of blocks of so many rows each, whose channels are the instruction's rows (or columns), and their rows the
/// terms, from a term on.
template <u32 Rows> DEVICE u64 matrix_of_terms(const u16 *blocks, u32 term) {
    return shared_matrix(blocks + term * BLOCK, Rows * BLOCK * 2, 8 * BLOCK * 2);
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

/// Where the arrivals of stages are counted.
template <class Sum> DEVICE u64 *arrivals_of() {
    return reinterpret_cast<u64 *>(shared_memory() + Sum::STAGES * Sum::STAGE * 2);
}

/// Waits for what was fetched as so many things before it were.
template <class Sum> DEVICE void wait_for_fetched(u32 number) {
    wait_for_arrival(arrivals_of<Sum>() + number % Sum::STAGES, number / Sum::STAGES % 2);
}

/// A chunk, and where it is fetched to: a stage, for the so-manieth time, in twos.
struct Turn {
    u32 chunk, stage, phase;

    /// The stage of the chunk before.
    METHOD u32 freed(u32 stages) const { return stage == 0 ? stages - 1 : stage - 1; }
};

/// Multiplies a chunk of some kind; meanwhile the stage of the one before is filled again, if there is anything left.
template <u32 Kind, class Sum> DEVICE void multiply_chunk(Sum &sum, Turn &turn, u32 all) {
    u64 *arrivals = arrivals_of<Sum>();
    wait_for_arrival(arrivals + turn.stage, turn.phase);
    begin_products();
    sum.template multiply_stage<Kind>(turn.stage);
    commit_products();
    wait_for_products<1>();
    if (turn.chunk > 0 && turn.chunk - 1 + Sum::STAGES < all) {
        barrier();
        u32 freed = turn.freed(Sum::STAGES);
        if (thread() == 0) sum.fetch(freed, arrivals + freed);
    }
    turn.chunk++;
    if (++turn.stage == Sum::STAGES) {
        turn.stage = 0;
        turn.phase ^= 1;
    }
}

/// Multiplies chunk after chunk. The first thread starts the copies of one into a stage as soon as what lay there is
/// multiplied, while the next one is; after the last one, those of what else there is to be fetched.
template <class Sum> DEVICE void multiply_fetched(Sum &sum, u32 chunks, u32 more) {
    constexpr u32 STAGES = Sum::STAGES;
    u64 *arrivals = arrivals_of<Sum>();
    bool leads = thread() == 0;
    u32 all = chunks + more;
    if (leads) {
        for (u32 stage = 0; stage < STAGES; stage++) prepare_arrival(arrivals + stage);
        publish_arrivals();
    }
    publish_copies();
    barrier();
    if (leads)
        for (u32 number = 0; number < STAGES && number < all; number++) sum.fetch(number, arrivals + number);
    Turn turn = {0, 0, 0};
    settle_all(sum.sums);
    // Kinds of chunks come in turn. What is multiplied of each is fixed: a branch would keep products apart.
#pragma unroll 1
    while (turn.chunk < chunks) {
        multiply_chunk<0>(sum, turn, all);
        if constexpr (Sum::KINDS == 2) multiply_chunk<1>(sum, turn, all);
    }
    wait_for_products<0>();
    settle_all(sum.sums);
    barrier();
    u32 freed = turn.freed(STAGES);
    if (leads && chunks > 0 && chunks - 1 + STAGES < all) sum.fetch(freed, arrivals + freed);
}

/// A product of panels and weights that lie in blocks: for some groups of warps, `Deep` blocks of output channels each, of
/// one or two panels of up to `Rows` rows. Panels that are made together have links of the same taps.
template <u32 Groups, u32 Deep, u32 Panels, u32 Rows, u32 Together, Precision P, Direction D>
struct WideProduct : ChannelSums<Deep, Panels, Rows, P> {
    using Base = ChannelSums<Deep, Panels, Rows, P>;
    using Base::walk, Base::sums, Base::own_group, Base::own_warp, Base::values_out, Base::PARTS_OUT;
    static constexpr u32 THREADS = Groups * GROUP_THREADS;
    /// Blocks of output channels.
    static constexpr u32 BLOCKS = Groups * Deep;
    static constexpr u32 CHANNELS = BLOCKS * BLOCK;
    /// Values of a block of weights, and of a block of a panel.
    static constexpr u32 LEFT = BLOCK * BLOCK, RIGHT = Rows * BLOCK;
    static constexpr u32 STAGE = PARTS<P> * (BLOCKS * LEFT + Panels * RIGHT);
    static constexpr u32 STAGES = STAGES_OF<STAGE, Together>;
    static constexpr u32 SHARED = STAGES * STAGE * 2 + MOST_STAGES * 8;
    static constexpr u32 KINDS = 1;
    static_assert(STAGES >= 2, "one stage is filled while another is multiplied");
    /// Values of the tiles of a panel of the result, which lie where operands lay.
    static constexpr u32 TILES = PARTS_OUT * BLOCKS * RIGHT;
    static_assert(TILES <= STAGE && Panels <= STAGES, "a stage holds a panel of the result");

    u32 first_channel, links;
    u32 destinations[Panels];
    /// Of each link: its tap and the source of each panel.
    const u32 *entries;
    /// The next tiles to be copied: a link's tap and sources, and a block of its channels. After the last ones, those of a
    /// panel of z.
    u32 tap, sources[Panels], block, panel;
    const float *z;
    /// Things fetched by the products.
    u32 chunks;

    static METHOD u16 *stage_at(u32 stage) { return reinterpret_cast<u16 *>(shared_memory()) + stage * STAGE; }

    METHOD void start(const Arguments &given, const u32 *words) {
        walk = read_walk(given, words);
        u32 across = walk.columns / CHANNELS, bundle = group() / across;
        first_channel = group() % across * CHANNELS;
        u32 bundles = walk.links[0];
        const u32 *starts = walk.links + 1, *panels = starts + bundles + 1;
#pragma unroll
        for (u32 p = 0; p < Panels; p++) destinations[p] = panels[bundle * Panels + p];
        links = starts[bundle + 1] - starts[bundle];
        entries = panels + bundles * Panels + starts[bundle] * (1 + Panels);
        block = panel = 0;
        chunks = links * (walk.channels / BLOCK);
        if (links > 0) read_entry();
        clear_sums(sums);
    }

    /// Reads the next link.
    METHOD void read_entry() {
        tap = entries[0];
#pragma unroll
        for (u32 p = 0; p < Panels; p++) sources[p] = entries[1 + p];
        entries += 1 + Panels;
    }

    /// Where a panel of the result begins, in memory.
    METHOD u64 panel_in_blocks(u32 destination) const {
        return ((u64)destination * (walk.columns / BLOCK) + first_channel / BLOCK) * (walk.batch * BLOCK);
    }
    /// Starts the copies of the next panel of z.
    METHOD void fetch_z(u32 stage, u64 *arrival) {
        u32 bytes = walk.batch * (BLOCK * 2);
        // No index: what is in registers has none.
        u32 destination = panel == 0 ? destinations[0] : destinations[Panels - 1];
        bool there = destination != NONE;
        expect_bytes(arrival, there ? PARTS_OUT * BLOCKS * bytes : 0);
        const u16 *from = reinterpret_cast<const u16 *>(z) + panel_in_blocks(destination);
        u16 *to = stage_at(stage);
        if (there)
#pragma unroll
            for (u32 part = 0; part < PARTS_OUT; part++)
#pragma unroll
                for (u32 b = 0; b < BLOCKS; b++)
                    copy_stretch(to + (part * BLOCKS + b) * RIGHT, from + part * values_out() + b * (walk.batch * BLOCK),
                                 bytes, arrival);
        panel++;
    }

    /// Starts the copies of the next tiles.
    METHOD void fetch(u32 stage, u64 *arrival) {
        if (links == 0) return fetch_z(stage, arrival);
        u32 blocks = walk.channels / BLOCK, across = walk.columns / BLOCK;
        u32 row_bytes = BLOCK * 2;
        expect_bytes(arrival, PARTS<P> * (BLOCKS * BLOCK + Panels * walk.batch) * row_bytes);
        u16 *to = stage_at(stage);
        u64 plane = (u64)walk.taps * walk.channels * walk.columns;
        // Blocks of weights `[tap, block of inputs, block of outputs]`.
        const u16 *weights = reinterpret_cast<const u16 *>(walk.weight);
        u32 first = first_channel / BLOCK;
        u32 place = D == Direction::Forward ? (tap * blocks + block) * across + first : (tap * across + first) * blocks + block;
#pragma unroll
        for (u32 part = 0; part < PARTS<P>; part++) {
            const u16 *from = weights + part * plane + (u64)place * LEFT;
            if constexpr (D == Direction::Forward) {
                copy_stretch(to, from, BLOCKS * LEFT * 2, arrival);
            } else {
#pragma unroll
                for (u32 b = 0; b < BLOCKS; b++)
                    copy_stretch(to + b * LEFT, from + (u64)b * blocks * LEFT, LEFT * 2, arrival);
            }
            to += BLOCKS * LEFT;
        }
#pragma unroll
        for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
            for (u32 p = 0; p < Panels; p++) {
                const u16 *from = reinterpret_cast<const u16 *>(walk.input) + part * (u64)walk.values +
                                  ((u64)sources[p] * blocks + block) * (walk.batch * BLOCK);
                copy_stretch(to, from, walk.batch * row_bytes, arrival);
                to += RIGHT;
            }
        if (++block < blocks) return;
        block = 0;
        if (--links > 0) read_entry();
    }

    template <u32> METHOD void multiply_stage(u32 stage) {
        const u16 *left = stage_at(stage) + own_group() * (Deep * LEFT);
        const u16 *right = stage_at(stage) + PARTS<P> * BLOCKS * LEFT;
#pragma unroll
        for (u32 term = 0; term < BLOCK; term += 16)
#pragma unroll
            for (u32 d = 0; d < Deep; d++) {
                auto weights = [&](u32 part) {
                    const u16 *tile = left + (part * BLOCKS + d) * LEFT;
                    if constexpr (D == Direction::Forward) return matrix_of_terms<BLOCK>(tile, term);
                    else return matrix_of_rows(tile, term);
                };
                auto panels = [&](u32 part) { return matrix_of_rows(right + part * (Panels * RIGHT), term); };
                multiply_groups<P, D == Direction::Forward, false>(sums[d], weights, panels);
            }
    }

    /// Adds the products of all links; then z's panels are fetched, if there is such an array.
    METHOD void accumulate(const float *z) {
        this->z = z;
        multiply_fetched(*this, chunks, z ? Panels : 0);
    }

    /// The stage of a panel of what was fetched after the products: `turn` counts the arrays.
    METHOD u32 stage_of(u32 turn, u32 p) const { return (chunks + turn * Panels + p) % STAGES; }
    METHOD void wait_for_z(u32 turn, u32 p) const { wait_for_fetched<WideProduct>(chunks + turn * Panels + p); }

    /// Fetches another array's panels, when all tiles are written.
    METHOD void fetch_again(const float *z) {
        if (thread() > 0) return;
        wait_for_written<0>();
        this->z = z;
        panel = 0;
#pragma unroll
        for (u32 p = 0; p < Panels; p++) fetch_z(stage_of(1, p), arrivals_of<WideProduct>() + stage_of(1, p));
    }

    /// The channel of a thread's sums.
    METHOD u32 channel(u32 d, u32 half) const {
        return first_channel + (own_group() * Deep + d) * BLOCK + own_warp() * ROWS + thread() % LANES / 4 + half * 8;
    }

    /// Where a panel's values of a channel begin, of samples `columns` apart.
    METHOD u64 plain(u32 p, u32, u32 channel) const {
        return (u64)destinations[p] * walk.batch * walk.columns + channel;
    }

    /// Whether there is a panel; and its number, of a thread's channels of either half.
    METHOD bool there(u32 p) const { return destinations[p] != NONE; }
    METHOD bool there(u32 p, u32) const { return there(p); }
    METHOD u32 panel_of(u32 p, u32) const { return destinations[p]; }

    /// Where a warp's matrix of a piece of a channel's samples begins for a thread, in the tiles of a panel.
    METHOD u16 *row_of_tile(u32 stage, u32 d, u32 half) const {
        u32 row = thread() % LANES % 8, eighth = own_warp() * 2 + half;
        return stage_at(stage) + (own_group() * Deep + d) * RIGHT + row * BLOCK + (eighth ^ row) * 8;
    }

    template <class Value> METHOD void put(u32 stage, u32 d, u32 half, Value value) const {
        Base::template put_rows<COLUMNS * BLOCK, BLOCKS * RIGHT>(row_of_tile(stage, d, half), value);
    }
    METHOD void take(float (&to)[2], const u16 *row, u32 piece) const {
        Base::template take_rows<COLUMNS * BLOCK, BLOCKS * RIGHT>(to, row, piece);
    }

    /// Tiles that panels may take in turn; waits until the oldest of so many has been written.
    static constexpr u32 TILES_IN_TURN = STAGES;
    static METHOD void free_tile() {
        if (thread() == 0) wait_for_written<STAGES - 1>();
        barrier();
    }
    static METHOD void finish_writing() {
        if (thread() == 0) wait_for_written<0>();
    }

    /// Starts to write the tiles that all have put, of one panel.
    METHOD void write_tiles(float *to, u32 stage, u32 p) const {
        publish_copies();
        barrier();
        if (thread() > 0 || destinations[p] == NONE) return;
        u16 *first = reinterpret_cast<u16 *>(to) + panel_in_blocks(destinations[p]);
#pragma unroll
        for (u32 part = 0; part < PARTS_OUT; part++)
#pragma unroll
            for (u32 b = 0; b < BLOCKS; b++)
                write_stretch(first + part * values_out() + b * (walk.batch * BLOCK),
                              stage_at(stage) + (part * BLOCKS + b) * RIGHT, walk.batch * (BLOCK * 2));
        commit_written();
    }
};
