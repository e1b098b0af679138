// Weight gradients of few channels: warps take destinations in turn and hold the sums of all taps, so that a delta is read
// once for all of them. A transposed operand's pairs of samples are put together in registers.

/// The lower halves of two words, and the upper ones.
DEVICE u32 lower_halves(u32 first, u32 second) { return (first & 0xffffu) | second << 16; }
DEVICE u32 upper_halves(u32 first, u32 second) { return first >> 16 | (second & 0xffff0000u); }

/// Samples that an instruction sums over; of them, thread 4 r + t of a warp takes t, t + 4, t + 8 and t + 12.
constexpr u32 SAMPLES = 16;

/// A work-group's share of a gradient: for all taps, `Inputs` × `Outputs` sums over the samples of some destinations.
/// Operands are cut.
template <u32 Inputs, u32 Outputs, u32 Taps, Precision P> struct WarpGradient {
    /// Taps whose inputs are the rows of a piece.
    static constexpr u32 TOGETHER = ROWS / Inputs;
    static constexpr u32 PIECES = (Taps + TOGETHER - 1) / TOGETHER;
    static constexpr u32 ACROSS = Outputs / COLUMNS;
    /// Sums of a thread.
    static constexpr u32 SUMS = PIECES * ACROSS * 4;
    /// Bytes of shared memory: the sums of half of the warps.
    static constexpr u32 SHARED = WARPS / 2 * SUMS * LANES * 4;

    float sums[PIECES][ACROSS][4];

    /// Reads a thread's words of sixteen samples from one on: two channels each, of rows that are there.
    METHOD static void read(u32 (&to)[4], const u16 *from, u32 channels, u32 first, u32 batch, bool there) {
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            u32 row = first + 4 * n;
            to[n] = there && row < batch ? *reinterpret_cast<const u32 *>(from + row * channels) : 0;
        }
    }

    /// Adds what the destinations from `first` to `last` give, a warp's every eighth of them.
    METHOD void accumulate(const u16 *input, u64 input_plane, const u16 *delta, u64 delta_plane, const u32 *starts,
                           u32 locations, u32 batch, u32 inputs, u32 outputs, u32 first, u32 last) {
        const u32 *pairs = starts + locations + 1;
        u32 lane = thread() % LANES, g = lane / 4, t = lane % 4;
        // The rows of a piece are the even channels of a thread's words, then the odd ones; columns likewise where there
        // are two pieces of them.
        input += Inputs == ROWS ? 2 * g : g % 4 * 2;
        delta += ACROSS == 2 ? 2 * g : g / 2 * 2;
#pragma unroll 1
        for (u32 location = first + thread() / LANES; location < last; location += WARPS) {
            u32 link = starts[location], end = starts[location + 1];
            const u16 *from[PIECES];
            bool there[PIECES];
#pragma unroll
            for (u32 piece = 0; piece < PIECES; piece++) {
                from[piece] = input;
                there[piece] = false;
#pragma unroll
                for (u32 n = 0; n < TOGETHER; n++) {
                    if (piece * TOGETHER + n >= Taps || link >= end || pairs[2 * link] != piece * TOGETHER + n) continue;
                    if (TOGETHER == 1 || g / 4 == n) {
                        from[piece] += (u64)pairs[2 * link + 1] * batch * inputs;
                        there[piece] = true;
                    }
                    link++;
                }
            }
            const u16 *to = delta + (u64)location * batch * outputs;
            // Words of the operands; the next samples' are on their way as soon as these are multiplied.
            u32 left[PIECES][PARTS<P>][4], right[PARTS<P>][4];
            auto read_right = [&](u32 sample) {
#pragma unroll
                for (u32 part = 0; part < PARTS<P>; part++)
                    read(right[part], to + part * delta_plane, outputs, sample + t, batch, true);
            };
            auto read_left = [&](u32 piece, u32 sample) {
#pragma unroll
                for (u32 part = 0; part < PARTS<P>; part++)
                    read(left[piece][part], from[piece] + part * input_plane, inputs, sample + t, batch, there[piece]);
            };
            read_right(0);
#pragma unroll
            for (u32 piece = 0; piece < PIECES; piece++) read_left(piece, 0);
#pragma unroll 1
            for (u32 sample = 0; sample < batch; sample += SAMPLES) {
                u32 b[PARTS<P>][ACROSS][2];
#pragma unroll
                for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
                    for (u32 k = 0; k < 2; k++) {
                        u32 low = lower_halves(right[part][2 * k], right[part][2 * k + 1]);
                        u32 high = upper_halves(right[part][2 * k], right[part][2 * k + 1]);
                        if constexpr (ACROSS == 2) {
                            b[part][0][k] = low;
                            b[part][1][k] = high;
                        } else {
                            b[part][0][k] = g % 2 == 0 ? low : high;
                        }
                    }
                read_right(sample + SAMPLES);
#pragma unroll
                for (u32 piece = 0; piece < PIECES; piece++) {
                    u32 a[PARTS<P>][4];
#pragma unroll
                    for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
                        for (u32 k = 0; k < 2; k++) {
                            const u32(&words)[4] = left[piece][part];
                            a[part][2 * k] = lower_halves(words[2 * k], words[2 * k + 1]);
                            a[part][2 * k + 1] = upper_halves(words[2 * k], words[2 * k + 1]);
                        }
                    read_left(piece, sample + SAMPLES);
                    multiply_row<P>(sums[piece], a, b);
                }
            }
        }
    }

    /// Adds the sums of all warps into those of the first: the second half's to the first half's, and so on.
    METHOD void join_warps() {
        float *shared = reinterpret_cast<float *>(shared_memory());
        u32 warp = thread() / LANES, lane = thread() % LANES;
#pragma unroll
        for (u32 half = WARPS / 2; half > 0; half /= 2) {
            if (half < WARPS / 2) barrier();
            float *at = shared + warp % half * (SUMS * LANES) + lane;
            if (warp >= half && warp < 2 * half)
#pragma unroll
                for (u32 i = 0; i < SUMS; i++) at[i * LANES] = (&sums[0][0][0])[i];
            barrier();
            if (warp < half)
#pragma unroll
                for (u32 i = 0; i < SUMS; i++) (&sums[0][0][0])[i] += at[i * LANES];
        }
    }

    /// Writes `scale ·` the sums of the first warp to `[tap, input, output]`, of whose inputs `rows` are there.
    METHOD void write(float *out, float scale, u32 first_input, u32 first_output, u32 rows, u32 outputs) const {
        if (thread() >= LANES) return;
        u32 lane = thread(), g = lane / 4, t = lane % 4;
#pragma unroll
        for (u32 piece = 0; piece < PIECES; piece++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 k = 0; k < 4; k++) {
                    u32 tap = TOGETHER == 1 ? piece : piece * TOGETHER + g / 4;
                    u32 input = first_input + (TOGETHER == 1 ? 2 * g : g % 4 * 2) + k / 2;
                    u32 column = 2 * t + k % 2;
                    u32 output = first_output + (ACROSS == 2 ? 2 * column + j : column);
                    if (tap < Taps && input < rows)
                        out[((u64)tap * rows + input) * outputs + output] = scale * sums[piece][j][k];
                }
    }
};

/// [`gradient_part`] where warps hold all taps: `links` are those of destinations, in the order of their taps, and a part
/// is a stretch of destinations.
template <u32 Inputs, u32 Outputs, class Sum> DEVICE void gradient_of_all_taps(const Arguments &given) {
    const u32 *words = item(given, GRADIENT_WORDS);
    if (group() >= words[0]) return;
    u32 batch = words[5], inputs = words[6], outputs = words[7], taps = words[8], parts = words[9];
    u32 rows = words[13], locations = words[14];
    // Inputs fastest, then outputs, then parts.
    u32 across = inputs / Inputs, down = outputs / Outputs;
    u32 first_input = group() % across * Inputs, first_output = group() / across % down * Outputs;
    u32 number = group() / (across * down);
    Sum sum;
#pragma unroll
    for (u32 i = 0; i < Sum::SUMS; i++) (&sum.sums[0][0][0])[i] = 0.0f;
    wait_for_earlier();
    sum.accumulate(reinterpret_cast<const u16 *>(given.heap + words[1]) + first_input, words[11],
                   reinterpret_cast<const u16 *>(given.heap + words[2]) + first_output, words[12],
                   given.links + words[3], locations, batch, inputs, outputs, (u32)((u64)locations * number / parts),
                   (u32)((u64)locations * (number + 1) / parts));
    sum.join_warps();
    sum.write(given.heap + words[4] + (u64)number * taps * rows * outputs, as_float(words[10]), first_input,
              first_output, rows, outputs);
}
