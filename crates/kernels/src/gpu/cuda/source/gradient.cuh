// Weight gradients: products over all links of a tap, cut into parts whose sums are added in a fixed order.

/// What a work-group of a gradient sums, and where its sums lie.
struct Part {
    const float *input, *delta;
    /// Values of both.
    u64 input_values, delta_values;
    /// Whether delta lies cut although the input does not.
    bool delta_is_cut;
    u32 batch, inputs, outputs;
    /// Rows of the result.
    u32 rows;
    u32 first_input, first_output;
    /// The part's links (source, destination).
    const u32 *pairs;
    u32 links;
    /// The next samples to be read: a link of the part, and the sample of it.
    u32 link, sample;

    /// Called when what was copied has arrived.
    METHOD static void arrived() {}

    /// The link and sample so many samples after the next.
    METHOD void ahead(u32 samples, u32 &link, u32 &sample) const {
        link = this->link;
        sample = this->sample + samples;
        while (sample >= batch) {
            sample -= batch;
            link++;
        }
    }
};

/// A work-group's share of a gradient: `Inputs` × `Outputs` sums over the samples of a part of a tap's links. Operands go
/// through registers into parts where they are f32, and are copied where they are cut.
template <u32 Inputs, u32 Outputs, Precision P, bool Cut> struct Gradient : Part {
    /// Warps side by side hold other sums; warps behind each other the same sums, of other samples.
    static constexpr u32 WARPS_DOWN = Inputs > 64 ? Inputs / 64 : 1;
    static constexpr u32 WARPS_ACROSS = Outputs > 32 ? Outputs / 32 : 1;
    static constexpr u32 WARPS_DEEP = WARPS / (WARPS_DOWN * WARPS_ACROSS);
    static constexpr u32 DOWN = Inputs / ROWS / WARPS_DOWN;
    static constexpr u32 ACROSS = Outputs / COLUMNS / WARPS_ACROSS;
    /// Samples that are staged at a time.
    static constexpr u32 SAMPLES = 16 * WARPS_DEEP > 32 ? 16 * WARPS_DEEP : 32;
    using Left = typename Either<Cut, Copied<SAMPLES, Inputs>, Block<SAMPLES, Inputs>>::Type;
    using Right = typename Either<Cut, Copied<SAMPLES, Outputs>, Block<SAMPLES, Outputs>>::Type;
    static constexpr u32 STAGE = PARTS<P> * (Left::PART + Right::PART);
    static constexpr u32 AHEAD = Cut ? (ROOMY ? 3 : 2) : STAGES<P>;
    static constexpr u32 STAGED_BYTES = AHEAD * STAGE * 2;
    static constexpr u32 SUMS_BYTES = WARPS_DEEP * Inputs * Outputs * 4;
    static constexpr u32 SHARED = STAGED_BYTES > SUMS_BYTES ? STAGED_BYTES : SUMS_BYTES;

    float sums[DOWN][ACROSS][4];
    Four left[Cut ? 1 : Left::TURNS];
    Four right[Cut ? 1 : Right::TURNS];

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
            u32 link, sample;
            ahead(line, link, sample);
            u64 from = first;
            u32 count = 0;
            if (line < SAMPLES && link < links) {
                from += ((u64)pairs[2 * link + which] * batch + sample) * channels;
                count = there;
            }
            if (which == 1 && delta_is_cut)
                to[turn] = read_four(Planes{(u16 *)panels, delta_values}, from, count, PARTS<P> > 1);
            else
                to[turn] = read_four(panels + from, count, aligned);
        }
    }

    METHOD void read() {
        read_one<Left>(left, input, 0, inputs, first_input);
        read_one<Right>(right, delta, 1, outputs, first_output);
        ahead(SAMPLES, link, sample);
    }

    template <class Block> METHOD void put_one(u16 *stage, const Four (&from)[Block::TURNS]) {
#pragma unroll
        for (u32 turn = 0; turn < Block::TURNS; turn++) {
            u32 line = thread() / Block::QUADS + turn * Block::AT_ONCE;
            if (thread() / Block::QUADS < Block::AT_ONCE && line < SAMPLES)
                put_four<P>(stage + line * Block::STRIDE + thread() % Block::QUADS * 4, Block::PART, from[turn]);
        }
    }

    METHOD void put(u16 *stage) {
        put_one<Left>(stage, left);
        put_one<Right>(stage + PARTS<P> * Left::PART, right);
    }

    METHOD void multiply_stage(const u16 *stage) {
        const u16 *block = stage + PARTS<P> * Left::PART;
#pragma unroll
        for (u32 first = 0; first < SAMPLES; first += 16 * WARPS_DEEP) {
            u32 term = first + deep() * 16;
            u32 b[PARTS<P>][ACROSS][2];
#pragma unroll
            for (u32 part = 0; part < PARTS<P>; part++)
                load_right<Right, true, ACROSS>(b[part], block + part * Right::PART, across() * ACROSS * COLUMNS, term);
#pragma unroll
            for (u32 i = 0; i < DOWN; i++) {
                u32 a[PARTS<P>][4];
#pragma unroll
                for (u32 part = 0; part < PARTS<P>; part++)
                    load_rows_of_terms<Left>(a[part], stage + part * Left::PART, (down() * DOWN + i) * ROWS, term);
                multiply_row<P>(sums[i], a, b);
            }
        }
    }

    /// Copies the next samples of an operand.
    template <class Block>
    METHOD void copy_one(u16 *stage, const float *panels, u64 values, u32 which, u32 channels, u32 first_channel) {
        u32 eighth = thread() % Block::EIGHTS, first = thread() / Block::EIGHTS;
        u32 column = first_channel + 8 * eighth;
        u16 *to = stage + first * Block::STRIDE + 8 * eighth;
#pragma unroll
        for (u32 turn = 0; turn < Block::TURNS; turn++) {
            u32 line = first + turn * Block::AT_ONCE;
            u32 link, sample;
            ahead(line, link, sample);
            bool there = link < links && column < channels;
            const u16 *from = reinterpret_cast<const u16 *>(panels);
            if (there) from += ((u64)pairs[2 * link + which] * batch + sample) * channels + column;
            if (first < Block::AT_ONCE && line < SAMPLES) copy_parts<PARTS<P>>(to, Block::PART, from, values, there);
            to += Block::AT_ONCE * Block::STRIDE;
        }
    }

    METHOD void fetch(u16 *stage) {
        copy_one<Left>(stage, input, input_values, 0, inputs, first_input);
        copy_one<Right>(stage + PARTS<P> * Left::PART, delta, delta_values, 1, outputs, first_output);
        ahead(SAMPLES, link, sample);
    }

    METHOD void accumulate() {
        u16 *stages = reinterpret_cast<u16 *>(shared_memory());
        clear_sums(sums);
        u32 chunks = (links * batch + SAMPLES - 1) / SAMPLES;
        if constexpr (Cut) multiply_copied<AHEAD>(*this, stages, chunks);
        else multiply_read<AHEAD>(*this, stages, chunks);
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
            if (row < rows && column < outputs) out[(u64)row * outputs + column] = scale * sum;
        }
    }
};
