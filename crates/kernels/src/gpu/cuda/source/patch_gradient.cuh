// Weight gradients of panels of few channels on Hopper: of all pairs of a stack's panels and their sources at once.
//
// The channels of a stack's deltas (patch.cuh) are the columns of instructions, and those of its sources, in the order of
// their patterns, the rows; what is summed over are samples. Sums of a pattern and a panel belong to the tap that the pattern
// has for it, always the same, and are added to those of the same tap at the end. Sources that a stack lacks are zeros. A
// work-group takes one stack after the other, and the patterns of one share: shares have no taps in common.

/// The sums of a share: by some groups of warps, `Deep` times 64 channels of sources each. `Taps` and `Patterns` are the most
/// of a share.
template <u32 Groups, u32 Deep, u32 Inputs, u32 Outputs, u32 Batch, u32 Patterns, u32 Taps, u32 Together, Precision P>
struct PatchGradient {
    static constexpr u32 THREADS = Groups * GROUP_THREADS, FETCHERS = LANES, KINDS = 1;
    static constexpr u32 STACKED = 64, PANELS = STACKED / Outputs, PIECES = STACKED / COLUMNS;
    /// Samples that instructions sum over: beyond the panel's, deltas are zeros.
    static constexpr u32 TERMS = 16, SAMPLES = (Batch + TERMS - 1) / TERMS * TERMS;
    /// Values of a source, of the samples that are read after the last one, and of those of the deltas of eight channels.
    static constexpr u32 SOURCE = Batch * Inputs, BEYOND = (SAMPLES - Batch) * EIGHT, DELTAS = SAMPLES * EIGHT;
    /// Places of sources, of a part of a stage.
    static constexpr u32 PLACES = Groups * Deep * STACKED / Inputs;
    static_assert(PLACES >= Patterns, "as many places as patterns");
    static constexpr u32 DELTAS_AT = PLACES * SOURCE + BEYOND, PART = DELTAS_AT + PIECES * DELTAS;
    static constexpr u32 STAGE = PARTS<P> * PART;
    static constexpr u32 STAGES = STAGES_OF<STAGE, Together>;
    static_assert(STAGES >= 2, "one stage is filled while another is multiplied");
    static constexpr u32 STAGED = STAGES * STAGE * 2 + MOST_STAGES * 8, SUMMED = Taps * Inputs * Outputs * 4;
    static constexpr u32 SHARED = STAGED > SUMMED ? STAGED : SUMMED;
    /// Copies of a thread that fetches.
    static constexpr u32 COPIES = (PARTS<P> * (Patterns + PIECES) + LANES - 1) / LANES;
    /// Words of a share (`ShareList`): patterns, taps, how often one stands there at most, the taps, and for each pattern and
    /// panel the number of its tap and how often that stood before.
    static constexpr u32 SHARE_WORDS = 3 + Taps + 2 * Patterns * PANELS;

    const float *input, *delta;
    u64 input_values, delta_values;
    const u32 *share;
    u32 patterns;
    /// The next stack's panels and sources, and zeros.
    const u32 *panels, *sources;
    const u16 *zeros;
    /// The next panel of each copy.
    u32 next[COPIES];
    float sums[Deep][PIECES][4];

    static METHOD u16 *stage_at(u32 stage) { return reinterpret_cast<u16 *>(shared_memory()) + stage * STAGE; }
    static METHOD u32 own_group() { return thread() / GROUP_THREADS; }

    /// Reads the panels that the next copies are of: of each part, sources, then eight channels of deltas at a time.
    METHOD void read_next() {
#pragma unroll
        for (u32 n = 0; n < COPIES; n++) {
            u32 copy = (n * LANES + thread()) % (patterns + PIECES);
            next[n] = copy < patterns ? sources[copy] : panels[(copy - patterns) / (Outputs / EIGHT)];
        }
        sources += Patterns;
        panels += PANELS;
    }

    /// Starts the copies of the next stack, a warp together.
    METHOD void fetch(u32 stage, u64 *arrival) {
        u32 all = PARTS<P> * (patterns + PIECES);
        if (thread() == 0) expect_bytes(arrival, PARTS<P> * (patterns * SOURCE + STACKED * Batch) * 2);
        warp_barrier();
#pragma unroll
        for (u32 n = 0; n < COPIES; n++) {
            u32 copy = n * LANES + thread();
            if (copy >= all) break;
            u32 part = copy / (patterns + PIECES), place = copy % (patterns + PIECES);
            u16 *to = stage_at(stage) + part * PART;
            const u16 *from;
            u32 values;
            if (place < patterns) {
                to += place * SOURCE;
                from = reinterpret_cast<const u16 *>(input) + part * input_values + (u64)next[n] * SOURCE;
                values = SOURCE;
            } else {
                u32 eighth = (place - patterns) % (Outputs / EIGHT);
                to += DELTAS_AT + (place - patterns) * DELTAS;
                from = reinterpret_cast<const u16 *>(delta) + part * delta_values +
                       ((u64)next[n] * (Outputs / EIGHT) + eighth) * (Batch * EIGHT);
                values = Batch * EIGHT;
            }
            copy_stretch(to, next[n] == NO_PANEL ? zeros : from, values * 2, arrival);
        }
        read_next();
    }

    template <u32> METHOD void multiply_stage(u32 stage) {
#pragma unroll
        for (u32 term = 0; term < SAMPLES; term += TERMS)
#pragma unroll
            for (u32 d = 0; d < Deep; d++) {
                auto left = [&](u32 part) {
                    u32 eighth = (own_group() * Deep + d) * (STACKED / EIGHT);
                    const u16 *from = stage_at(stage) + part * PART + (eighth * Batch + term) * EIGHT;
                    return plain_matrix(from, 128, Batch * EIGHT * 2);
                };
                auto right = [&](u32 part) {
                    const u16 *from = stage_at(stage) + part * PART + DELTAS_AT + term * EIGHT;
                    return plain_matrix(from, 128, DELTAS * 2);
                };
                multiply_groups<P, true, true>(sums[d], left, right);
            }
    }

    METHOD void settle_sums() {
#pragma unroll
        for (u32 d = 0; d < Deep; d++) settle_all(sums[d]);
    }

    /// Sums over stacks from the first to the last, of all that are there.
    METHOD void accumulate(const u32 *list, u32 number, u32 first, u32 last) {
        u32 shares = list[0], stacks = list[1];
        zeros = reinterpret_cast<const u16 *>(list + list[2]);
        share = list + 3 + number * SHARE_WORDS;
        patterns = share[0];
        panels = list + 3 + shares * SHARE_WORDS + first * PANELS;
        sources = list + 3 + shares * SHARE_WORDS + stacks * PANELS + (number * stacks + first) * Patterns;
#pragma unroll
        for (u32 d = 0; d < Deep; d++)
#pragma unroll
            for (u32 j = 0; j < PIECES; j++)
#pragma unroll
                for (u32 k = 0; k < 4; k++) sums[d][j][k] = 0.0f;
        // What copies never reach and sums read: beyond the samples of the last source, and of each eight channels of deltas.
        for (u32 at = thread(); at < STAGES * PARTS<P> * (1 + PIECES) * BEYOND; at += THREADS) {
            u32 stretch = at / BEYOND % (1 + PIECES), part = at / (BEYOND * (1 + PIECES));
            u16 *to = stage_at(0) + part * PART;
            if (stretch == 0) to += patterns * SOURCE;
            else to += DELTAS_AT + stretch * DELTAS - BEYOND;
            to[at % BEYOND] = 0;
        }
        if (thread() < LANES && first < last) read_next();
        multiply_fetched(*this, last - first, 0);
    }

    /// Adds the sums of each tap, in order, and writes `scale ·` them to `[tap, input, output]`, of whose inputs `rows` are
    /// there.
    METHOD void write(float *out, float scale, u32 rows) {
        float *summed = reinterpret_cast<float *>(shared_memory());
        const u32 *taps = share + 3, *places = taps + Taps;
        u32 count = share[1] * Inputs * Outputs;
        for (u32 at = thread(); at < count; at += THREADS) summed[at] = 0.0f;
        for (u32 time = 0; time < share[2]; time++) {
            barrier();
#pragma unroll
            for (u32 d = 0; d < Deep; d++)
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    u32 row = (own_group() * Deep + d) * STACKED + thread() / LANES % 4 * ROWS + half * 8 + thread() % LANES / 4;
                    u32 pattern = row / Inputs;
                    if (pattern >= patterns) continue;
#pragma unroll
                    for (u32 j = 0; j < PIECES; j++) {
                        const u32 *place = places + 2 * (pattern * PANELS + j * COLUMNS / Outputs);
                        if (place[0] == NO_TAP || place[1] != time) continue;
                        float *to = summed + (place[0] * Inputs + row % Inputs) * Outputs;
#pragma unroll
                        for (u32 e = 0; e < 2; e++)
                            to[(j * COLUMNS + thread() % 4 * 2 + e) % Outputs] += sums[d][j][2 * half + e];
                    }
                }
        }
        barrier();
        for (u32 at = thread(); at < count; at += THREADS) {
            u32 input = at / Outputs % Inputs, tap = taps[at / (Inputs * Outputs)];
            if (input < rows) out[((u64)tap * rows + input) * Outputs + at % Outputs] = scale * summed[at];
        }
    }
};

/// [`gradient_part`] of stacks: `links` are a list of shares, and a part is a stretch of stacks.
template <class Sum> DEVICE void gradient_of_stacks(const Arguments &given) {
    const u32 *words = item(given, GRADIENT_WORDS);
    if (group() >= words[0]) return;
    const u32 *list = given.links + words[3];
    u32 outputs = words[7], taps = words[8], parts = words[9], rows = words[13];
    u32 shares = list[0], stacks = list[1], number = group() / shares;
    Sum sum;
    sum.input = given.heap + words[1];
    sum.delta = given.heap + words[2];
    sum.input_values = words[11];
    sum.delta_values = words[12];
    sum.accumulate(list, group() % shares, (u32)((u64)stacks * number / parts), (u32)((u64)stacks * (number + 1) / parts));
    sum.write(given.heap + words[4] + (u64)number * taps * rows * outputs, as_float(words[10]), rows);
}
