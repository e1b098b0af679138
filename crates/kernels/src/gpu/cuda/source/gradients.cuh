// Weight and bias gradients as kernels.

/// Words of a gradient: groups, input, delta, links, out, batch, inputs, outputs, taps, parts, scale, values of the input
/// and of delta, rows of the result: inputs but for those that stand for none, locations.
constexpr u32 GRADIENT_WORDS = 15;

/// `out[part, tap, input, output] = scale · Σ a(source)ᵀ delta(destination)` over the part's links of the tap.
template <u32 Inputs, u32 Outputs, class Sum> DEVICE void gradient_part(const Arguments &given) {
    const u32 *words = item(given, GRADIENT_WORDS);
    if (group() >= words[0]) return;
    Sum part;
    part.input_values = words[11];
    part.delta_values = words[12];
    part.rows = words[13];
    part.delta_is_cut = given.variant & CUT_IN;
    part.link = part.sample = 0;
    part.input = given.heap + words[1];
    part.delta = given.heap + words[2];
    const u32 *starts = given.links + words[3];
    part.batch = words[5];
    part.inputs = words[6];
    part.outputs = words[7];
    u32 taps = words[8], parts = words[9];
    // Inputs fastest, then outputs, then taps, then parts: who works at the same time reads the same panels.
    u32 across = (part.inputs + Inputs - 1) / Inputs;
    u32 down = (part.outputs + Outputs - 1) / Outputs;
    part.first_input = group() % across * Inputs;
    part.first_output = group() / across % down * Outputs;
    u32 slice = group() / (across * down);
    u32 tap = slice % taps, number = slice / taps;
    u32 tap_start = starts[tap];
    u64 count = starts[tap + 1] - tap_start;
    u32 first = tap_start + (u32)(count * number / parts);
    part.links = tap_start + (u32)(count * (number + 1) / parts) - first;
    part.pairs = starts + taps + 1 + 2 * first;
    wait_for_earlier();
    part.accumulate();
    u64 matrix = (u64)(number * taps + tap) * part.rows * part.outputs;
    part.write(given.heap + words[4] + matrix, as_float(words[10]));
}

/// Words of a bias gradient: groups, delta, out, rows, channels, parts, rows of a panel.
constexpr u32 BIAS_WORDS = 7;

/// `out[part, channel] = Σ delta` over the part's rows.
DEVICE void bias_part(const Arguments &given) {
    const u32 *words = item(given, BIAS_WORDS);
    if (group() >= words[0]) return;
    Planes planes = planes_of(given.heap + words[1], (u64)words[3] * words[4]);
    const float *delta = given.heap + words[1];
    bool cut = given.variant & CUT_IN, two_parts = given.variant & TWO_PARTS;
    float *out = given.heap + words[2];
    u32 rows = words[3], channels = words[4], parts = words[5];
    float *shared = reinterpret_cast<float *>(shared_memory());
    u32 row = thread() / SIDE, column = thread() % SIDE;
    u32 c = group() / parts * SIDE + column;
    u32 part = group() % parts;
    u32 first = (u32)((u64)rows * part / parts);
    u32 last = (u32)((u64)rows * (part + 1) / parts);
    float sum = 0.0f;
    // Loops of their own, so that many loads are under way.
    if (c < channels && cut) {
#pragma unroll 8
        for (u32 r = first + row; r < last; r += SIDE) {
            u32 place = place_of_plain(r * channels + c, words[6], channels, given.variant);
            sum += value_of(planes, place, two_parts);
        }
    } else if (c < channels) {
#pragma unroll 8
        for (u32 r = first + row; r < last; r += SIDE) sum += delta[(u64)r * channels + c];
    }
    shared[thread()] = sum;
    barrier();
    if (row == 0 && c < channels) {
        float total = 0.0f;
        for (u32 r = 0; r < SIDE; r++) total += shared[r * SIDE + column];
        out[(u64)part * channels + c] = total;
    }
}

/// Parts that a thread reads at once.
constexpr u32 READ_AT_ONCE = 8;

/// Words of a sum of parts: groups, parts, out, number of parts, values of one, values that a work-group adds; where it
/// `Descends`, gate, weight, rate. `out[i] = Σ_part parts[part, i]`, and `weight −= rate · out` if the gate's value is not 0.
template <bool Descends> DEVICE void add_parts(const Arguments &given) {
    const u32 *words = item(given, Descends ? 9 : 6);
    if (group() >= words[0]) return;
    u32 len = words[4], count = words[3], width = words[5];
    u32 column = thread() % width, row = thread() / width, rows = THREADS / width;
    u32 at = group() * width + column;
    float *shared = reinterpret_cast<float *>(shared_memory());
    const float *parts = given.heap + words[1];
    float sum = 0.0f;
    if (at < len)
        for (u32 first = row; first < count; first += READ_AT_ONCE * rows) {
            float values[READ_AT_ONCE];
#pragma unroll
            for (u32 n = 0; n < READ_AT_ONCE; n++) {
                u32 part = first + n * rows;
                values[n] = part < count ? parts[(u64)part * len + at] : 0.0f;
            }
#pragma unroll
            for (u32 n = 0; n < READ_AT_ONCE; n++) sum += values[n];
        }
    shared[thread()] = sum;
    barrier();
    if (row > 0 || at >= len) return;
    sum = 0.0f;
    for (u32 r = 0; r < rows; r++) sum += shared[r * width + column];
    given.heap[words[2] + at] = sum;
    if (Descends && given.heap[words[6]] != 0.0f) given.heap[words[7] + at] -= as_float(words[8]) * sum;
}
