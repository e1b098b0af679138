// Weight gradients: products over all links of a tap, cut into parts whose sums are added in a fixed order.

/// Words of a gradient: groups, input, delta, links, out, batch, inputs, outputs, taps, parts, scale.
constexpr u32 GRADIENT_WORDS = 11;

/// A work-group's share of a gradient: `Inputs` × `Outputs` sums over the samples of a part of a tap's links.
template <u32 Inputs, u32 Outputs, Precision P> struct Gradient {
    /// Warps side by side hold other sums; warps behind each other the same sums, of other samples.
    static constexpr u32 WARPS_DOWN = Inputs > 64 ? Inputs / 64 : 1;
    static constexpr u32 WARPS_ACROSS = Outputs > 32 ? Outputs / 32 : 1;
    static constexpr u32 WARPS_DEEP = WARPS / (WARPS_DOWN * WARPS_ACROSS);
    static constexpr u32 DOWN = Inputs / ROWS / WARPS_DOWN;
    static constexpr u32 ACROSS = Outputs / COLUMNS / WARPS_ACROSS;
    /// Samples that are staged at a time.
    static constexpr u32 SAMPLES = 16 * WARPS_DEEP > 32 ? 16 * WARPS_DEEP : 32;
    using Left = Block<SAMPLES, Inputs>;
    using Right = Block<SAMPLES, Outputs>;
    static constexpr u32 STAGE = PARTS<P> * (Left::PART + Right::PART);
    static constexpr u32 STAGED_BYTES = STAGES<P> * STAGE * 2;
    static constexpr u32 SUMS_BYTES = WARPS_DEEP * Inputs * Outputs * 4;
    static constexpr u32 SHARED = STAGED_BYTES > SUMS_BYTES ? STAGED_BYTES : SUMS_BYTES;

    const float *input, *delta;
    u32 batch, inputs, outputs;
    u32 first_input, first_output;
    /// The part's links (source, destination).
    const u32 *pairs;
    u32 links;
    /// The next samples to be read: a link of the part, and the sample of it.
    u32 link, sample;
    float sums[DOWN][ACROSS][4];
    Four left[Left::TURNS];
    Four right[Right::TURNS];

    static METHOD u32 warp() { return thread() / LANES; }
    static METHOD u32 deep() { return warp() / (WARPS_DOWN * WARPS_ACROSS); }
    static METHOD u32 down() { return warp() / WARPS_ACROSS % WARPS_DOWN; }
    static METHOD u32 across() { return warp() % WARPS_ACROSS; }

    /// Reads a thread's values of the next samples of an operand: of links' sources or destinations.
    template <class Block>
    METHOD void read_one(Four (&to)[Block::TURNS], const float *panels, u32 which, u32 channels, u32 first_channel) {
        u32 first = first_channel + thread() % Block::QUADS * 4;
        u32 there = first < channels ? smaller(channels - first, 4) : 0;
        bool aligned = channels % 4 == 0;
#pragma unroll
        for (u32 turn = 0; turn < Block::TURNS; turn++) {
            u32 line = thread() / Block::QUADS + turn * Block::AT_ONCE;
            u32 link = this->link, sample = this->sample + line;
            while (sample >= batch) {
                sample -= batch;
                link++;
            }
            const float *from = panels + first;
            u32 count = 0;
            if (line < SAMPLES && link < links) {
                from += ((u64)pairs[2 * link + which] * batch + sample) * channels;
                count = there;
            }
            to[turn] = read_four(from, count, aligned);
        }
    }

    METHOD void read() {
        read_one<Left>(left, input, 0, inputs, first_input);
        read_one<Right>(right, delta, 1, outputs, first_output);
        sample += SAMPLES;
        while (sample >= batch) {
            sample -= batch;
            link++;
        }
    }

    template <class Block> METHOD void put_one(u16 *stage, const Four (&from)[Block::TURNS]) {
#pragma unroll
        for (u32 turn = 0; turn < Block::TURNS; turn++) {
            u32 line = thread() / Block::QUADS + turn * Block::AT_ONCE;
            if (thread() / Block::QUADS < Block::AT_ONCE && line < SAMPLES)
                put_four<P>(stage + line * Block::STRIDE + thread() % Block::QUADS * 4, Block::PART, from[turn]);
        }
    }

    METHOD void multiply_stage(const u16 *stage) {
        const u16 *block = stage + PARTS<P> * Left::PART;
#pragma unroll
        for (u32 first = 0; first < SAMPLES; first += 16 * WARPS_DEEP) {
            u32 term = first + deep() * 16;
            u32 b[PARTS<P>][ACROSS][2];
#pragma unroll
            for (u32 part = 0; part < PARTS<P>; part++) {
                u32 column = across() * ACROSS * COLUMNS;
                if constexpr (ACROSS == 1) {
                    load_column_of_terms<Right>(b[part][0], block + part * Right::PART, column, term);
                } else {
#pragma unroll
                    for (u32 j = 0; j < ACROSS; j += 2) {
                        u32 two[4];
                        load_columns_of_terms<Right>(two, block + part * Right::PART, column + j * COLUMNS, term);
                        b[part][j][0] = two[0];
                        b[part][j][1] = two[1];
                        b[part][j + 1][0] = two[2];
                        b[part][j + 1][1] = two[3];
                    }
                }
            }
#pragma unroll
            for (u32 i = 0; i < DOWN; i++) {
                u32 a[PARTS<P>][4];
#pragma unroll
                for (u32 part = 0; part < PARTS<P>; part++)
                    load_rows_of_terms<Left>(a[part], stage + part * Left::PART, (down() * DOWN + i) * ROWS, term);
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

    METHOD void accumulate() {
        u16 *stages = reinterpret_cast<u16 *>(shared_memory());
#pragma unroll
        for (u32 i = 0; i < DOWN; i++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 k = 0; k < 4; k++) sums[i][j][k] = 0.0f;
        u32 chunks = (links * batch + SAMPLES - 1) / SAMPLES;
        link = sample = 0;
        if (chunks > 0) read();
        for (u32 chunk = 0; chunk < chunks; chunk++) {
            u16 *stage = stages + chunk % STAGES<P> * STAGE;
            if (STAGES<P> == 1 && chunk > 0) barrier();
            put_one<Left>(stage, left);
            put_one<Right>(stage + PARTS<P> * Left::PART, right);
            barrier();
            if (chunk + 1 < chunks) read();
            multiply_stage(stage);
        }
    }

    /// Writes `scale ·` the sums of all warps, those of the first samples first.
    METHOD void write(float *out, float scale) {
        float *shared = reinterpret_cast<float *>(shared_memory());
        barrier();
        u32 lane = thread() % LANES;
#pragma unroll
        for (u32 i = 0; i < DOWN; i++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 k = 0; k < 4; k++) {
                    u32 row = (down() * DOWN + i) * ROWS + lane / 4 + k / 2 * 8;
                    u32 column = (across() * ACROSS + j) * COLUMNS + lane % 4 * 2 + k % 2;
                    shared[(deep() * Inputs + row) * Outputs + column] = sums[i][j][k];
                }
        barrier();
        for (u32 at = thread(); at < Inputs * Outputs; at += THREADS) {
            float sum = 0.0f;
#pragma unroll
            for (u32 d = 0; d < WARPS_DEEP; d++) sum += shared[d * Inputs * Outputs + at];
            u32 row = first_input + at / Outputs, column = first_output + at % Outputs;
            if (row < inputs && column < outputs) out[(u64)row * outputs + column] = scale * sum;
        }
    }
};

/// `out[part, tap, input, output] = scale · Σ a(source)ᵀ delta(destination)` over the part's links of the tap.
template <u32 Inputs, u32 Outputs, Precision P> DEVICE void gradient_part(const Arguments &given) {
    begin();
    const u32 *words = item(given, GRADIENT_WORDS);
    if (group() >= words[0]) return;
    Gradient<Inputs, Outputs, P> part;
    part.input = given.heap + words[1];
    part.delta = given.heap + words[2];
    const u32 *starts = given.links + words[3];
    part.batch = words[5];
    part.inputs = words[6];
    part.outputs = words[7];
    u32 taps = words[8], parts = words[9];
    // Inputs fastest, then outputs, then parts, then taps.
    u32 across = (part.inputs + Inputs - 1) / Inputs;
    u32 down = (part.outputs + Outputs - 1) / Outputs;
    part.first_input = group() % across * Inputs;
    part.first_output = group() / across % down * Outputs;
    u32 slice = group() / (across * down);
    u32 tap = slice / parts, number = slice % parts;
    u32 tap_start = starts[tap];
    u64 count = starts[tap + 1] - tap_start;
    u32 first = tap_start + (u32)(count * number / parts);
    part.links = tap_start + (u32)(count * (number + 1) / parts) - first;
    part.pairs = starts + taps + 1 + 2 * first;
    part.accumulate();
    u64 matrix = (u64)(number * taps + tap) * part.inputs * part.outputs;
    part.write(given.heap + words[4] + matrix, as_float(words[10]));
}

/// Words of a bias gradient: groups, delta, out, rows, channels, parts.
constexpr u32 BIAS_WORDS = 6;

/// `out[part, channel] = Σ delta` over the part's rows.
DEVICE void bias_part(const Arguments &given) {
    begin();
    const u32 *words = item(given, BIAS_WORDS);
    if (group() >= words[0]) return;
    const float *delta = given.heap + words[1];
    float *out = given.heap + words[2];
    u32 rows = words[3], channels = words[4], parts = words[5];
    float *shared = reinterpret_cast<float *>(shared_memory());
    u32 row = thread() / SIDE, column = thread() % SIDE;
    u32 c = group() / parts * SIDE + column;
    u32 part = group() % parts;
    u32 first = (u32)((u64)rows * part / parts);
    u32 last = (u32)((u64)rows * (part + 1) / parts);
    float sum = 0.0f;
    if (c < channels)
        for (u32 r = first + row; r < last; r += SIDE) sum += delta[(u64)r * channels + c];
    shared[thread()] = sum;
    barrier();
    if (row == 0 && c < channels) {
        float total = 0.0f;
        for (u32 r = 0; r < SIDE; r++) total += shared[r * SIDE + column];
        out[(u64)part * channels + c] = total;
    }
}

/// Words of a sum of parts: groups, parts, out, number of parts, values of one. `out[i] = Σ_part parts[part, i]`.
DEVICE void add_parts(const Arguments &given) {
    begin();
    const u32 *words = item(given, 5);
    u32 at = place(), len = words[4];
    if (at >= len) return;
    const float *parts = given.heap + words[1];
    u32 count = words[3];
    float total = 0.0f;
#pragma unroll 8
    for (u32 part = 0; part < count; part++) total += parts[(u64)part * len + at];
    given.heap[words[2] + at] = total;
}
