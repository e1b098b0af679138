// Weight gradients of panels of few channels on Hopper: of all pairs of a stack's panels and their sources at once.
//
// The channels of a stack's deltas (patch.cuh) are the columns of instructions, and those of its sources, some neighbouring
// ones to a *block* of 64 channels, the rows; what is summed over are samples. Sums of a source and a panel belong to the tap
// that the source's pattern has for it, always the same, and are added to those of the same tap at the end. Sources that a
// stack lacks are zeros. A work-group walks from stack to stack, along which most blocks are the next stack's, too, and stay
// in shared memory: the host plans which come when (`walks.rs`). It takes one share of the blocks: shares have no taps in
// common.

/// The sums of a share: by some groups of warps, `Deep` blocks of sources each, over all of a panel's samples or half of them.
/// `Blocks`, `Taps` and `Slots` are the most of a share; `Stages` items, blocks or deltas, are in shared memory at a time.
template <u32 Groups, u32 Deep, u32 Inputs, u32 Outputs, u32 Batch, u32 Halves, u32 Stages, u32 Blocks, u32 Taps, u32 Slots, Precision P>
struct PatchGradient {
    static constexpr u32 THREADS = Groups * GROUP_THREADS;
    static constexpr u32 PANELS = STACKED / Outputs, SOURCES = STACKED / Inputs;
    static constexpr u32 PIECES = STACKED / COLUMNS, EIGHTHS = STACKED / EIGHT;
    static_assert(Groups * Deep >= Blocks, "each block is somebody's");
    /// Samples of a half, and those that instructions sum over: beyond the former there are zeros.
    static constexpr u32 TERMS = 16, HALF = (Batch + Halves - 1) / Halves, SAMPLES = (HALF + TERMS - 1) / TERMS * TERMS;
    /// Values of eight channels of a block, of a part of it, and of a stage.
    static constexpr u32 EIGHT_LONG = SAMPLES * EIGHT, PART = EIGHTHS * EIGHT_LONG, STAGE = PARTS<P> * PART;
    static constexpr u32 ARRIVALS_AT = Stages * STAGE * 2, STAGED = ARRIVALS_AT + Stages * 8;
    /// In the end the slots of sums lie in place of stages, and behind either what the share is.
    static constexpr u32 SUMMED = Slots * Inputs * Outputs * 4;
    static constexpr u32 SHARE_AT = STAGED > SUMMED ? STAGED : SUMMED;
    /// Words of a share (`WalkList`): taps, the taps, the first slot of each and their number, and the slot of each source of a
    /// block and panel. Words that say where a record begins, of an item, and of a chunk.
    static constexpr u32 TAPS_AT = 1, FIRST_SLOTS_AT = TAPS_AT + Taps, SLOTS_AT = FIRST_SLOTS_AT + Taps + 1;
    static constexpr u32 SHARE_WORDS = SLOTS_AT + Blocks * SOURCES * PANELS;
    static constexpr u32 START_WORDS = 3, ITEM_WORDS = 1 + EIGHTHS, CHUNK_WORDS = 2 + Blocks;
    static constexpr u32 SHARED = SHARE_AT + SHARE_WORDS * 4;
    /// Items whose panels are known ahead.
    static constexpr u32 AHEAD = 4;

    const float *input, *delta;
    u64 input_values, delta_values;
    const u16 *zeros;
    /// The first sample, and how many.
    u32 first_sample, samples;
    /// Items, how many there are, and how many have been fetched; whether the next ones are deltas, and a thread's panel.
    const u32 *item_list;
    u32 items, fetched;
    u32 is_delta[AHEAD], panel[AHEAD];
    /// Of the next chunk: the number of its deltas, those of this group's blocks, and up to which item is fetched meanwhile.
    u32 deltas, blocks[Deep], limit;
    const u32 *chunk_list;
    u32 chunks;
    float sums[Deep][PIECES][4];

    static METHOD u16 *stage_at(u32 number) { return reinterpret_cast<u16 *>(shared_memory()) + number % Stages * STAGE; }
    static METHOD u64 *arrival_of(u32 number) {
        return reinterpret_cast<u64 *>(shared_memory() + ARRIVALS_AT) + number % Stages;
    }
    static METHOD u32 *share() { return reinterpret_cast<u32 *>(shared_memory() + SHARE_AT); }
    static METHOD u32 own_group() { return thread() / GROUP_THREADS; }

    /// Reads what the items from the `first` on are: beyond the last one, the first one's.
    METHOD void read_items(u32 first) {
#pragma unroll
        for (u32 n = 0; n < AHEAD; n++) {
            const u32 *words = item_list + (first + n < items ? first + n : 0) * ITEM_WORDS;
            is_delta[n] = words[0];
            panel[n] = words[1 + thread() % EIGHTHS];
        }
    }

    /// Starts the copies of an item: each thread of the first warp has eight channels of a part.
    METHOD void fetch_item(u32 number, bool is_delta, u32 panel) {
        u64 *arrival = arrival_of(number);
        if (thread() == 0) expect_bytes(arrival, PARTS<P> * STACKED * samples * 2);
        warp_barrier();
        u32 part = thread() / EIGHTHS, eighth = thread() % EIGHTHS;
        u32 eighths = (is_delta ? Outputs : Inputs) / EIGHT;
        const u16 *from = is_delta ? reinterpret_cast<const u16 *>(delta) + part * delta_values
                                   : reinterpret_cast<const u16 *>(input) + part * input_values;
        from += (((u64)panel * eighths + eighth % eighths) * Batch + first_sample) * EIGHT;
        if (part < PARTS<P>)
            copy_stretch(stage_at(number) + part * PART + eighth * EIGHT_LONG, panel == NONE ? zeros : from,
                         samples * (EIGHT * 2), arrival);
    }

    /// Starts the copies of items up to the `last`. All threads count.
    METHOD void fetch(u32 last) {
        if (thread() < LANES)
            for (u32 first = fetched; first < last; first += AHEAD) {
#pragma unroll
                for (u32 n = 0; n < AHEAD; n++)
                    if (first + n < last) fetch_item(first + n, is_delta[n], panel[n]);
                read_items(smaller(first + AHEAD, last));
            }
        fetched = last;
    }

    /// Reads what the next chunk is.
    METHOD void read_chunk() {
        limit = chunk_list[0];
        deltas = chunk_list[1];
#pragma unroll
        for (u32 d = 0; d < Deep; d++) {
            // Groups that have fewer blocks than others multiply the last one again.
            u32 block = smaller(own_group() * Deep + d, Blocks - 1);
            blocks[d] = chunk_list[2 + block];
        }
        chunk_list += CHUNK_WORDS;
    }

    METHOD void multiply_chunk() {
        const u16 *right_block = stage_at(deltas);
#pragma unroll
        for (u32 d = 0; d < Deep; d++) {
            const u16 *left_block = stage_at(blocks[d]);
#pragma unroll
            for (u32 term = 0; term < SAMPLES; term += TERMS) {
                auto matrix = [&](const u16 *block, u32 part) {
                    return plain_matrix(block + part * PART + term * EIGHT, 128, EIGHT_LONG * 2);
                };
                auto left = [&](u32 part) { return matrix(left_block, part); };
                auto right = [&](u32 part) { return matrix(right_block, part); };
                multiply_groups<P, true, true>(sums[d], left, right);
            }
        }
    }

    static METHOD void wait_for(u32 number) { wait_for_arrival(arrival_of(number), number / Stages % 2); }
    METHOD void wait_for_chunk() const {
        wait_for(deltas);
#pragma unroll
        for (u32 d = 0; d < Deep; d++) wait_for(blocks[d]);
    }

    /// Sums over the stacks of a part, of half of the samples or all, of a share's blocks, of so many shares and parts.
    METHOD void accumulate(const u32 *list, u32 number, u32 shares, u32 part, u32 parts, u32 half) {
        const u32 *of_share = list + 1 + number * SHARE_WORDS;
        const u32 *start = list + 1 + shares * SHARE_WORDS + (number * parts + part) * START_WORDS;
        zeros = reinterpret_cast<const u16 *>(list + list[0]);
        item_list = list + start[0];
        items = start[1];
        chunks = start[2];
        chunk_list = item_list + items * ITEM_WORDS;
        for (u32 at = thread(); at < SHARE_WORDS; at += THREADS) share()[at] = of_share[at];
        first_sample = half * HALF;
        samples = smaller(HALF, Batch - first_sample);
        fetched = 0;
        clear_sums(sums);
        if (thread() < LANES) read_items(0);
        if (chunks > 0) read_chunk();
        // What copies never reach and sums read.
        u32 beyond = (SAMPLES - samples) * EIGHT;
        for (u32 at = thread(); at < Stages * PARTS<P> * EIGHTHS * beyond; at += THREADS)
            stage_at(0)[at / beyond * EIGHT_LONG + samples * EIGHT + at % beyond] = 0;
        if (thread() == 0)
            for (u32 stage = 0; stage < Stages; stage++) prepare_arrival(arrival_of(stage));
        publish_arrivals();
        publish_copies();
        barrier();
        wait_for_earlier();
        fetch(smaller(Stages, items));
        multiply_planned(*this);
    }

    /// Where a sum lies in a slot: rows are shuffled, so that threads that hold the same columns of several write apart.
    static METHOD u32 place_in_slot(u32 row, u32 column) {
        constexpr u32 BANKS = 32, WIDE = Outputs < BANKS ? Outputs : BANKS;
        return row * Outputs + (column ^ row * WIDE / BANKS % (WIDE / COLUMNS) * COLUMNS);
    }

    /// Adds the slots of each tap, in order, and writes `scale ·` their sums to `[tap, input, output]`, of whose inputs `rows`
    /// are there.
    METHOD void write(float *out, float scale, u32 rows) {
        float *summed = reinterpret_cast<float *>(shared_memory());
#pragma unroll
        for (u32 d = 0; d < Deep; d++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 row = (own_group() * Deep + d) * STACKED + thread() / LANES % 4 * ROWS + half * 8 + thread() % LANES / 4;
                u32 source = row / Inputs;
                if (source >= Blocks * SOURCES) continue;
#pragma unroll
                for (u32 panel = 0; panel < PANELS; panel++) {
                    u32 slot = share()[SLOTS_AT + source * PANELS + panel];
                    if (slot == NONE) continue;
#pragma unroll
                    for (u32 piece = 0; piece < Outputs / COLUMNS; piece++) {
                        const float *from = sums[d][panel * (Outputs / COLUMNS) + piece] + 2 * half;
                        u32 place = place_in_slot(row % Inputs, piece * COLUMNS + thread() % 4 * 2);
                        *reinterpret_cast<Words<2> *>(summed + slot * (Inputs * Outputs) + place) = {as_bits(from[0]), as_bits(from[1])};
                    }
                }
            }
        barrier();
        u32 count = share()[0] * Inputs * Outputs;
        for (u32 at = thread(); at < count; at += THREADS) {
            u32 tap = at / (Inputs * Outputs), input = at / Outputs % Inputs, column = at % Outputs;
            if (input >= rows) continue;
            u32 first = share()[FIRST_SLOTS_AT + tap], last = share()[FIRST_SLOTS_AT + tap + 1];
            float sum = 0.0f;
            for (u32 slot = first; slot < last; slot++)
                sum += summed[slot * (Inputs * Outputs) + place_in_slot(input, column)];
            out[((u64)share()[TAPS_AT + tap] * rows + input) * Outputs + column] = scale * sum;
        }
    }
};

/// [`gradient_part`] of stacks: `links` are a list of walks, and parts are stretches of these, of half of the samples or all.
template <u32 Halves, class Sum> DEVICE void gradient_of_stacks(const Arguments &given) {
    const u32 *words = item(given, GRADIENT_WORDS);
    if (group() >= words[0]) return;
    u32 outputs = words[7], taps = words[8], parts = words[9], rows = words[13];
    u32 shares = words[0] / parts, number = group() / shares;
    Sum sum;
    sum.input = given.heap + words[1];
    sum.delta = given.heap + words[2];
    sum.input_values = words[11];
    sum.delta_values = words[12];
    const u32 *list = given.links + words[3];
    sum.accumulate(list, group() % shares, shares, number / Halves, parts / Halves, number % Halves);
    sum.write(given.heap + words[4] + (u64)number * taps * rows * outputs, as_float(words[10]), rows);
}
