// Products of few channels on Hopper: neighbouring panels are made together, so that what they share is read once.
//
// Panels lie in blocks of eight channels: of a panel, all rows of the first eight, then those of the next, 16 bytes a row, as
// instructions of groups of warps take them unshuffled, whether rows are samples or terms.
//
// A group of warps holds a *stack*: some panels whose channels, one panel's after the other's, are the 64 rows of an
// instruction. A source is multiplied once for all of them, by the weights of the tap that it has for each, or zeros. In what
// order these stand is the source's *pattern*; patterns are stretches of a *ribbon* of weights, made once a step
// (`patches.rs`). The stacks of a work-group share their sources.

/// What is added to what may be fetched where it may be so only when the chunk has been multiplied.
constexpr u32 AFTERWARDS = 0x80000000u;

/// Multiplies chunk after chunk of what the host planned: each says how much may have been fetched while it is multiplied,
/// of things that are fetched in order, the n-th into stage n % `Stages`.
template <class Sum> DEVICE void multiply_planned(Sum &sum) {
    settle_all(sum.sums);
#pragma unroll 1
    for (u32 chunk = 0; chunk < sum.chunks; chunk++) {
        sum.wait_for_chunk();
        begin_products();
        sum.multiply_chunk();
        commit_products();
        u32 last = sum.limit % AFTERWARDS;
        bool afterwards = sum.limit >= AFTERWARDS;
        if (chunk + 1 < sum.chunks) sum.read_chunk();
        wait_for_products<1>();
        if (last > sum.fetched) {
            if (afterwards) wait_for_products<0>();
            barrier();
            sum.fetch(last);
        }
    }
    wait_for_products<0>();
    settle_all(sum.sums);
    barrier();
}

/// A patch of stacks, one for each group of warps, of panels of so many columns, and sources of so many channels; a ribbon of
/// so many rows; so many sources in shared memory at a time, and so many by which a stack is multiplied in a chunk; `Lands`
/// where z is read.
template <u32 Groups, u32 Channels, u32 Columns, u32 Ribbon, u32 Rows, u32 Stages, u32 Sources, bool Lands, Precision P>
struct PatchProduct : ChannelSums<1, 1, Rows, P> {
    using Base = ChannelSums<1, 1, Rows, P>;
    using Base::walk, Base::sums, Base::own_group, Base::own_warp, Base::values_out, Base::PARTS_OUT;
    static_assert(Stages <= LANES, "each thread of a warp fetches one source at a time");
    static constexpr u32 THREADS = Groups * GROUP_THREADS;
    static constexpr u32 PANELS_OF_A_STACK = STACKED / Columns;
    /// Terms of a source: those of eight channels are multiplied twice, the second time by zeros.
    static constexpr u32 TERMS = Channels < 16 ? 16 : Channels;
    /// Values of a part of a source, and of a stage.
    static constexpr u32 RIGHT = Rows * Channels, STAGE = PARTS<P> * RIGHT;
    /// Values of a part of the ribbon, and of all of it.
    static constexpr u32 LEFT = TERMS * Ribbon, ALL_LEFT = PARTS<P> * LEFT;
    /// Values of a part of the tiles of the result.
    static constexpr u32 TILES = Groups * STACKED * Rows;
    static constexpr u32 WARPS_OF_ALL = Groups * (GROUP_THREADS / LANES);
    /// In shared memory: stages, their arrivals and those of z's tiles, the ribbon, and where it lands z's tiles. Those of
    /// results lie in place of z's, or of operands.
    static constexpr u32 ARRIVALS_AT = Stages * STAGE * 2;
    static constexpr u32 RIBBON_AT = (ARRIVALS_AT + (Stages + WARPS_OF_ALL) * 8 + 15) / 16 * 16;
    static constexpr u32 RIBBON_END = RIBBON_AT + ALL_LEFT * 2, TILE_BYTES = PARTS_OUT * TILES * 2;
    static constexpr u32 TILES_AT = Lands ? RIBBON_END : 0;
    static constexpr u32 SHARED = TILES_AT + TILE_BYTES > RIBBON_END ? TILES_AT + TILE_BYTES : RIBBON_END;
    static constexpr u32 TILES_IN_TURN = 2 * TILE_BYTES <= SHARED - TILES_AT ? 2 : 1;
    /// Words of a chunk of the record (`PatchList`).
    static constexpr u32 CHUNK_WORDS = 1 + Groups * Sources;

    u32 destinations[2];
    /// Sources of the patch, how many there are, and how many have been fetched.
    const u32 *source_list;
    u32 sources, fetched;
    /// The source that a thread fetches next, if it does.
    u32 next_source;
    /// Of the next chunk: what this group multiplies, and up to which source is fetched meanwhile.
    u32 entries[Sources], limit;
    const u32 *chunk_list;
    u32 chunks;

    static METHOD u16 *stage_at(u32 number) { return reinterpret_cast<u16 *>(shared_memory()) + number % Stages * STAGE; }
    static METHOD u16 *ribbon() { return reinterpret_cast<u16 *>(shared_memory() + RIBBON_AT); }
    static METHOD u64 *arrivals() { return reinterpret_cast<u64 *>(shared_memory() + ARRIVALS_AT); }
    static METHOD u64 *arrival_of(u32 number) { return arrivals() + number % Stages; }

    METHOD void start(const Arguments &given, const u32 *words) {
        walk = read_walk(given, words);
        const u32 *record = walk.links + walk.links[1 + group()];
        sources = record[0];
        chunks = record[1];
        const u32 *panels = record + 2;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 slot = (own_warp() * ROWS + half * 8) / Columns;
            destinations[half] = panels[own_group() * PANELS_OF_A_STACK + slot];
        }
        source_list = panels + Groups * PANELS_OF_A_STACK;
        chunk_list = source_list + sources;
        fetched = 0;
        if (chunks > 0) read_chunk();
        read_source();
        clear_sums(sums);
    }

    /// Reads which source this thread fetches next: each of the first warp one of those that follow each other.
    METHOD void read_source() {
        u32 number = fetched + thread();
        if (thread() < LANES && number < sources) next_source = source_list[number];
    }

    /// Reads what the next chunk is.
    METHOD void read_chunk() {
        limit = chunk_list[0];
#pragma unroll
        for (u32 n = 0; n < Sources; n++) entries[n] = chunk_list[1 + own_group() * Sources + n];
        chunk_list += CHUNK_WORDS;
    }

    /// Starts the copies of sources up to the `last`, the ribbon with the first one: the first warp's threads take turns.
    METHOD void fetch(u32 last) {
        u32 bytes = walk.batch * Channels * 2;
        u32 number = fetched + thread();
        if (thread() < LANES && number < last) {
            u64 *arrival = arrival_of(number);
            expect_bytes(arrival, PARTS<P> * bytes + (number == 0 ? ALL_LEFT * 2 : 0));
            if (number == 0) copy_stretch(ribbon(), walk.weight, ALL_LEFT * 2, arrival);
            const u16 *from = reinterpret_cast<const u16 *>(walk.input) + (u64)next_source * walk.batch * Channels;
#pragma unroll
            for (u32 part = 0; part < PARTS<P>; part++)
                copy_stretch(stage_at(number) + part * RIGHT, from + part * (u64)walk.values, bytes, arrival);
        }
        fetched = last;
        read_source();
    }

    METHOD void wait_for_chunk() const {
#pragma unroll
        for (u32 n = 0; n < Sources; n++) {
            u32 number = entries[n] % 256;
            wait_for_arrival(arrival_of(number), number / Stages % 2);
        }
    }

    METHOD void multiply_chunk() {
        u32 terms = Channels < 16 ? 0 : walk.batch * (EIGHT * 2);
#pragma unroll
        for (u32 n = 0; n < Sources; n++) {
            const u16 *left = ribbon() + (entries[n] >> 8) * EIGHT;
            const u16 *right = stage_at(entries[n] % 256);
#pragma unroll
            for (u32 term = 0; term < TERMS; term += 16) {
                auto weights = [&](u32 part) {
                    return plain_matrix(left + part * LEFT + term * Ribbon, Ribbon * (EIGHT * 2), 128);
                };
                auto panel = [&](u32 part) {
                    return plain_matrix(right + part * RIGHT + term * walk.batch, terms, 128);
                };
                multiply_groups<P, false, false>(sums[0], weights, panel);
            }
        }
    }

    /// Where the arrivals of this warp's tiles of z are counted.
    static METHOD u64 *arrival_of_z() { return arrivals() + Stages + thread() / LANES; }

    /// Adds the products of all sources; z's tiles are fetched meanwhile, if there is such an array.
    METHOD void accumulate(const float *z) {
        if (thread() == 0)
            for (u32 stage = 0; stage < Stages; stage++) prepare_arrival(arrival_of(stage));
        if (z && thread() % LANES == 0) prepare_arrival(arrival_of_z());
        publish_arrivals();
        publish_copies();
        barrier();
        fetch(smaller(Stages, sources));
        if (z && thread() % LANES == 0) fetch_z(z);
        // The ribbon comes with the first source, which may be another stack's.
        if (chunks > 0) wait_for_arrival(arrival_of(0), 0);
        multiply_planned(*this);
    }

    /// Bytes of eight channels of a panel, and where they begin in memory.
    METHOD u32 bytes_of_eight() const { return walk.batch * (EIGHT * 2); }
    METHOD u64 eight_in_blocks(u32 half) const {
        u32 eighth = (own_warp() * ROWS + half * 8) % Columns / EIGHT;
        return ((u64)destinations[half] * (Columns / EIGHT) + eighth) * (walk.batch * EIGHT);
    }
    /// Where the same begin in a tile.
    static METHOD u16 *tile_at(u32 tile, u32 half) {
        u16 *tiles = reinterpret_cast<u16 *>(shared_memory() + TILES_AT + tile * TILE_BYTES);
        return tiles + ((own_group() * 4 + own_warp()) * 2 + half) * (Rows * EIGHT);
    }

    /// Starts the copies of this warp's channels of z.
    METHOD void fetch_z(const float *z) {
        u32 panels = (there(0, 0) ? 1 : 0) + (there(0, 1) ? 1 : 0);
        expect_bytes(arrival_of_z(), PARTS_OUT * panels * bytes_of_eight());
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            if (!there(0, half)) continue;
            const u16 *from = reinterpret_cast<const u16 *>(z) + eight_in_blocks(half);
#pragma unroll
            for (u32 part = 0; part < PARTS_OUT; part++)
                copy_stretch(tile_at(0, half) + part * TILES, from + part * values_out(), bytes_of_eight(), arrival_of_z());
        }
    }

    /// z lies in the first tile; `turn` counts the arrays.
    static METHOD u32 stage_of(u32, u32) { return 0; }
    METHOD void wait_for_z(u32 turn, u32) const {
        wait_for_arrival(arrival_of_z(), turn);
        warp_barrier();
    }

    /// Fetches another array's panels, when all tiles are written.
    METHOD void fetch_again(const float *z) {
        warp_barrier();
        if (thread() % LANES > 0) return;
        wait_for_written<0>();
        fetch_z(z);
    }

    /// The channel of a thread's sums.
    METHOD u32 channel(u32, u32 half) const { return (own_warp() * ROWS + thread() % LANES / 4 + half * 8) % Columns; }

    /// Where a panel's values of a channel begin, of samples `columns` apart.
    METHOD u64 plain(u32, u32 half, u32 channel) const {
        return (u64)destinations[half] * walk.batch * walk.columns + channel;
    }

    /// Whether there is a panel of a thread's channels of either half; and its number.
    static METHOD bool there(u32) { return true; }
    METHOD bool there(u32, u32 half) const { return destinations[half] != NONE; }
    METHOD u32 panel_of(u32, u32 half) const { return destinations[half]; }

    METHOD u16 *row_of_tile(u32 tile, u32, u32 half) const { return tile_at(tile, half) + thread() % LANES % 8 * EIGHT; }
    template <class Value> METHOD void put(u32 tile, u32 d, u32 half, Value value) const {
        Base::template put_rows<COLUMNS * EIGHT, TILES>(row_of_tile(tile, d, half), value);
    }
    METHOD void take(float (&to)[2], const u16 *row, u32 piece) const {
        Base::template take_rows<COLUMNS * EIGHT, TILES>(to, row, piece);
    }

    /// Waits until the tile that is next in turn has been written. Warps write for themselves.
    static METHOD void free_tile() {
        if (thread() % LANES == 0) wait_for_written<TILES_IN_TURN - 1>();
        warp_barrier();
    }
    static METHOD void finish_writing() {
        if (thread() % LANES == 0) wait_for_written<0>();
    }

    /// Starts to write this warp's channels.
    METHOD void write_tiles(float *to, u32 tile, u32) const {
        publish_copies();
        warp_barrier();
        if (thread() % LANES > 0) return;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            if (!there(0, half)) continue;
            u16 *first = reinterpret_cast<u16 *>(to) + eight_in_blocks(half);
#pragma unroll
            for (u32 part = 0; part < PARTS_OUT; part++)
                write_stretch(first + part * values_out(), tile_at(tile, half) + part * TILES, bytes_of_eight());
        }
        commit_written();
    }
};

/// Words of a ribbon: groups, weights, parts, weights that are there, channels, columns, taps of the ribbon, where these
/// stand among the links, whether the weights of a tap are walked backward. Writes `[part, eighth of the channels, row,
/// channel]`: of each tap of the ribbon, a row for each column; zeros where there is no tap or channel.
DEVICE void ribbon(const Arguments &given) {
    const u32 *words = item(given, 9);
    u32 there = words[3], channels = words[4], columns = words[5], taps = words[6];
    const u32 *tap_of = given.links + words[7];
    bool backward = words[8];
    u32 rows = taps * columns, eighths = channels < 16 ? 2 : channels / EIGHT;
    u32 row = place() % rows, eighth = place() / rows;
    if (eighth >= eighths) return;
    u32 tap = tap_of[row / columns], column = row % columns;
    const float *weights = given.heap + words[1];
    float values[EIGHT];
#pragma unroll
    for (u32 n = 0; n < EIGHT; n++) {
        u32 channel = eighth * EIGHT + n;
        u32 from = backward ? (tap * columns + column) * channels + channel : (tap * channels + channel) * columns + column;
        values[n] = tap != NONE && channel < channels && from < there ? weights[from] : 0.0f;
    }
    Planes planes = planes_of(given.heap + words[2], (u64)eighths * EIGHT * rows);
    put_eight(planes, (u64)place() * EIGHT, values, given.variant & TWO_PARTS);
}
