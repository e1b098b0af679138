// Kernels without a product: copies, gathering, pooling, norms of panels in memory, losses, signs and optimisers.

/// Words of zeros: groups, out, values.
DEVICE void clear(const Arguments &given) {
    const u32 *words = item(given, 3);
    u32 at = place();
    if (at < words[2]) given.heap[words[1] + at] = 0.0f;
}

/// Words of a copy: groups, from, to, values.
DEVICE void copy(const Arguments &given) {
    const u32 *words = item(given, 4);
    u32 at = place();
    if (at < words[3]) given.heap[words[2] + at] = given.heap[words[1] + at];
}

/// Words of a cutting: groups, values, parts, values that are there, values of the parts, rows and channels of a panel.
/// Writes the parts of values, and of zeros where none are there; channels are a multiple of eight.
DEVICE void cut(const Arguments &given) {
    const u32 *words = item(given, 7);
    u32 at = EIGHT * place(), there = words[3], count = words[4];
    if (at >= count) return;
    const float *from = given.heap + words[1] + at;
    float values[EIGHT];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        Four four = read_four(from + 4 * half, at < there ? 4 : 0, true);
#pragma unroll
        for (u32 i = 0; i < 4; i++) values[4 * half + i] = four.value[i];
    }
    u32 to = place_of_plain(at, words[5], words[6], given.variant);
    put_eight(planes_of(given.heap + words[2], count), to, values, given.variant & TWO_PARTS);
}

/// Words of an unfolding: groups, input, out, links, batch, channels, wide, locations, taps. Panels `[location, batch,
/// wide]` of parts, whose rows are the channels of all taps of the location, zeros where it has none, and zeros. Links of
/// a location have different taps, of which there are no more than threads. A work-group makes a panel, a thread sixteen
/// values of a row at once, its neighbours those of the next rows.
DEVICE void unfold(const Arguments &given) {
    const u32 *words = item(given, 9);
    if (group() >= words[0]) return;
    u32 batch = words[4], channels = words[5], wide = words[6], locations = words[7], taps = words[8];
    u32 location = group();
    const u32 *starts = given.links + words[3];
    u32 first_link = starts[location], links = starts[location + 1] - first_link;
    const u32 *pairs = starts + locations + 1 + 2 * first_link;
    // The source of each tap.
    u32 *sources = reinterpret_cast<u32 *>(shared_memory());
    sources[thread()] = NONE;
    barrier();
    if (thread() < links) sources[pairs[2 * thread()]] = pairs[2 * thread() + 1];
    barrier();
    const float *input = given.heap + words[1];
    Planes planes = planes_of(given.heap + words[2], (u64)locations * batch * wide);
    u32 sixteens = (wide + 2 * EIGHT - 1) / (2 * EIGHT);
    for (u32 at = thread(); at < sixteens * batch; at += THREADS) {
        u32 row = at % batch, first = at / batch * 2 * EIGHT;
        u32 tap = first / channels, channel = first % channels;
        float values[2 * EIGHT];
#pragma unroll
        for (u32 n = 0; n < 2 * EIGHT; n++) {
            u32 source = tap < taps ? sources[tap] : NONE;
            values[n] = source != NONE ? input[((u64)source * batch + row) * channels + channel] : 0.0f;
            if (++channel == channels) {
                channel = 0;
                tap++;
            }
        }
#pragma unroll
        for (u32 eight = 0; eight < 2; eight++) {
            u32 column = first + eight * EIGHT;
            if (column >= wide) continue;
            u64 to = ((u64)location * batch + row) * wide + column;
            if (given.variant & IN_BLOCKS) to = place_in_blocks(location, row, column, batch, wide, given.variant);
            float eights[EIGHT];
#pragma unroll
            for (u32 n = 0; n < EIGHT; n++) eights[n] = values[eight * EIGHT + n];
            put_eight(planes, to, eights, given.variant & TWO_PARTS);
        }
    }
}

/// Words of a joining: groups, parts, values, count, rows and channels of a panel. Writes the values of parts.
DEVICE void join(const Arguments &given) {
    const u32 *words = item(given, 6);
    u32 at = place(), count = words[3];
    if (at >= count) return;
    u32 from = place_of_plain(at, words[4], words[5], given.variant);
    given.heap[words[2] + at] = value_of(planes_of(given.heap + words[1], count), from, given.variant & TWO_PARTS);
}

/// Words of a gathering: groups, data, out, places, batch, locations, channels. Panels `[location, batch, channel]` of
/// the samples `[location, channel]` whose numbers stand in the minibatch's row of `places`.
DEVICE void gather(const Arguments &given) {
    const u32 *words = item(given, 7);
    u32 at = place();
    u32 batch = words[4], locations = words[5], channels = words[6];
    if (at >= locations * batch * channels) return;
    u32 channel = at % channels, row = at / channels;
    u32 location = row / batch, b = row % batch;
    u32 sample = given.places[words[3] + *given.step * batch + b];
    given.heap[words[2] + at] = given.heap[words[1] + ((u64)sample * locations + location) * channels + channel];
}

/// Words of pooling: groups, input, out, locations, values of a panel, channels. Mean over locations.
DEVICE void pool(const Arguments &given) {
    const u32 *words = item(given, 6);
    u32 at = place(), size = words[4], locations = words[3];
    if (at >= size) return;
    const float *input = given.heap + words[1];
    Planes planes = planes_of(given.heap + words[1], (u64)locations * size);
    bool cut = given.variant & CUT_IN, two_parts = given.variant & TWO_PARTS;
    float total = 0.0f;
    // Loops of their own, so that many loads are under way.
    if (cut) {
        u32 first = place_of_plain(at, size / words[5], words[5], given.variant);
#pragma unroll 16
        for (u32 location = 0; location < locations; location++)
            total += value_of(planes, (u64)location * size + first, two_parts);
    } else {
#pragma unroll 16
        for (u32 location = 0; location < locations; location++) total += input[(u64)location * size + at];
    }
    given.heap[words[2] + at] = total / (float)locations;
}

/// Words of signs: groups, weight, out, values, scale. `out = scale · sign(weight)`, with sign(0) = 0.
DEVICE void sign(const Arguments &given) {
    const u32 *words = item(given, 5);
    u32 at = place();
    if (at >= words[3]) return;
    float scale = as_float(words[4]);
    float w = given.heap[words[1] + at];
    given.heap[words[2] + at] = w > 0.0f ? scale : w < 0.0f ? -scale : w * 0.0f;
}

/// Words of a step of descent: groups, gate, gradient, weight, values, rate. `weight −= rate · gradient`, if the gate's
/// value is not 0.
DEVICE void sgd(const Arguments &given) {
    const u32 *words = item(given, 6);
    u32 at = place();
    if (at < words[4] && given.heap[words[1]] != 0.0f)
        given.heap[words[3] + at] -= as_float(words[5]) * given.heap[words[2] + at];
}

/// Words of a step of Adam: groups, gate, rates, gradient, first moment, second moment, weight, values, β₁, β₂,
/// 1 − β₁, 1 − β₂ (both rounded once), ε. In TensorFlow's form, if the gate's value is not 0.
DEVICE void adam(const Arguments &given) {
    const u32 *words = item(given, 13);
    u32 at = place();
    if (at >= words[7] || given.heap[words[1]] == 0.0f) return;
    float rate = given.heap[words[2] + *given.step];
    float g = given.heap[words[3] + at];
    float &first = given.heap[words[4] + at], &second = given.heap[words[5] + at];
    float m = as_float(words[8]) * first + as_float(words[10]) * g;
    float v = as_float(words[9]) * second + as_float(words[11]) * g * g;
    first = m;
    second = v;
    given.heap[words[6] + at] -= rate * m / (sqrtf(v) + as_float(words[12]));
}

/// The sum of what each thread of the work-group holds, in a fixed order; known to all.
DEVICE float total(float value) {
    float *shared = reinterpret_cast<float *>(shared_memory());
#pragma unroll
    for (int mask = 1; mask < 32; mask *= 2) value += shuffle_xor(value, mask);
    barrier();
    if (thread() % LANES == 0) shared[thread() / LANES] = value;
    barrier();
    float sum = 0.0f;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) sum += shared[w];
    return sum;
}

/// The sum over all rows of the work-group's columns, `SIDE` of them, of what its threads hold.
DEVICE float sum_over_rows(float value) {
    float *shared = reinterpret_cast<float *>(shared_memory());
    barrier();
    shared[thread()] = value;
    barrier();
    float sum = 0.0f;
    for (u32 r = 0; r < SIDE; r++) sum += shared[r * SIDE + thread() % SIDE];
    return sum;
}

/// The mean of so many rows.
DEVICE float mean_over_rows(float value, u32 rows) { return sum_over_rows(value) / (float)rows; }

/// Words of a normalisation: groups, z, a, inverse deviations, norm groups, rows of one, channels. Replaces
/// pre-activations in z by normalised ones, and writes activations and inverse deviations.
template <Activation A> DEVICE void normalise(const Arguments &given) {
    const u32 *words = item(given, 7);
    if (group() >= words[0]) return;
    u32 count = words[4], rows = words[5], channels = words[6];
    u32 index = group() % count;
    u32 row = thread() / SIDE, c = group() / count * SIDE + thread() % SIDE;
    bool inside = c < channels;
    float *z = given.heap + words[1] + (u64)index * rows * channels + c;
    float *a = given.heap + words[2] + (u64)index * rows * channels + c;
    float mean = 0.0f, inverse = 1.0f;
    if (given.variant & NORMALISED) {
        float sum = 0.0f;
        if (inside)
            for (u32 r = row; r < rows; r += SIDE) sum += z[(u64)r * channels];
        mean = mean_over_rows(sum, rows);
        float squares = 0.0f;
        if (inside)
            for (u32 r = row; r < rows; r += SIDE) {
                float centred = z[(u64)r * channels] - mean;
                squares += centred * centred;
            }
        inverse = 1.0f / sqrtf(mean_over_rows(squares, rows) + NORM_EPSILON);
        if (row == 0 && inside) given.heap[words[3] + (u64)index * channels + c] = inverse;
    }
    if (!inside) return;
    for (u32 r = row; r < rows; r += SIDE) {
        float value = (z[(u64)r * channels] - mean) * inverse;
        z[(u64)r * channels] = value;
        a[(u64)r * channels] = activate<A>(value);
    }
}

/// Words of a landing: groups, signal, the path's z, the network's z, inverse deviations, delta, norm groups, rows of
/// one, channels, rows of the signal (as many as a norm group's, or those of one panel that is repeated), scale, rows of a
/// panel, sums of delta's columns over each norm group.
/// `ψ = scale · σ′(z_path) ⊙ signal`, then `delta = normᵀ(ψ)` with the statistics of the network whose z is given.
template <Activation A> DEVICE void land_signal(const Arguments &given) {
    const u32 *words = item(given, 13);
    if (group() >= words[0]) return;
    const float *signal = given.heap + words[1];
    u32 count = words[6], rows = words[7], channels = words[8], signal_rows = words[9];
    float scale = as_float(words[10]);
    u32 index = group() % count;
    u32 row = thread() / SIDE, c = group() / count * SIDE + thread() % SIDE;
    bool inside = c < channels;
    const float *path_z = given.heap + words[2], *z = given.heap + words[3];
    u64 values = (u64)count * rows * channels;
    float *delta = given.heap + words[5];
    Planes planes = planes_of(delta, values);
    bool cut = given.variant & CUT_OUT, two_parts = given.variant & TWO_PARTS;
    float mean = 0.0f, along = 0.0f, inverse = 1.0f;
    u32 batch = words[11];
    Lies z_lies = lies_of(c, batch, channels, given.variant & Z_IN_BLOCKS, given.variant);
    Lies delta_lies = lies_of(c, batch, channels, given.variant & IN_BLOCKS, given.variant);
    // A norm group is a panel, or all of them.
    auto place = [&](const Lies &lies, u32 r) {
        u32 within = rows == batch ? r : r % batch;
        u32 panel = rows == batch ? index : r / batch;
        return panel * (batch * channels) + lies.at(within);
    };
    // Rows that a thread reads at once. Beyond the last one, the last one is read again.
    constexpr u32 READ = 8;
    float psi[READ], at_z[READ];
    auto row_of = [&](u32 first, u32 n) { return smaller(first + n * SIDE, rows - 1); };
    // Loops of their own, so that many loads are under way.
    auto read_z = [&](float (&to)[READ], const float *from, u32 first) {
        u32 places[READ];
#pragma unroll
        for (u32 n = 0; n < READ; n++) places[n] = place(z_lies, row_of(first, n));
        if (!(given.variant & Z_IN_BLOCKS)) {
#pragma unroll
            for (u32 n = 0; n < READ; n++) to[n] = from[places[n]];
            return;
        }
        const u16 *cut_z = reinterpret_cast<const u16 *>(from);
#pragma unroll
        for (u32 n = 0; n < READ; n++) to[n] = as_float((u32)cut_z[places[n]] << 16);
        if (!two_parts) return;
        cut_z += values;
#pragma unroll
        for (u32 n = 0; n < READ; n++) to[n] += as_float((u32)cut_z[places[n]] << 16);
    };
    auto read = [&](u32 first) {
        if (!inside) return;
#pragma unroll
        for (u32 n = 0; n < READ; n++) {
            u32 r = row_of(first, n);
            u32 from = signal_rows == rows ? r : (index * rows + r) % signal_rows;
            psi[n] = scale * signal[(u64)from * channels + c];
        }
        read_z(at_z, path_z, first);
#pragma unroll
        for (u32 n = 0; n < READ; n++) psi[n] = first + n * SIDE < rows ? slope<A>(at_z[n]) * psi[n] : 0.0f;
        if (z != path_z) read_z(at_z, z, first);
    };
    // What a single reading holds need not be read again.
    bool kept = rows <= READ * SIDE;
    if (kept) read(row);
    if (given.variant & NORMALISED) {
        for (u32 first = row; first < rows && inside; first += READ * SIDE) {
            if (!kept) read(first);
#pragma unroll
            for (u32 n = 0; n < READ; n++) {
                mean += psi[n];
                along += psi[n] * at_z[n];
            }
        }
        mean = mean_over_rows(mean, rows);
        along = mean_over_rows(along, rows);
        if (inside) inverse = given.heap[words[4] + (u64)index * channels + c];
    }
    float total = 0.0f;
    for (u32 first = row; first < rows && inside; first += READ * SIDE) {
        if (!kept) read(first);
#pragma unroll
        for (u32 n = 0; n < READ; n++) {
            u32 r = first + n * SIDE;
            if (r >= rows) continue;
            u32 at = place(delta_lies, r);
            float value = inverse * (psi[n] - mean - at_z[n] * along);
            total += value;
            if (cut) put_one(planes, at, value, two_parts);
            else delta[at] = value;
        }
    }
    total = sum_over_rows(total);
    if (row == 0 && inside) given.heap[words[12] + (u64)index * channels + c] = total;
}

/// Writes 0 into the gate where a loss is not finite.
DEVICE void close_unless_finite(float *gate, float loss) {
    if ((as_bits(loss) & 0x7f800000u) == 0x7f800000u) *gate = 0.0f;
}

/// Words of a loss: groups, output, labels, error, reports, gate, reports of a step, batch, classes, shift. Error, loss
/// and hits of `[batch, class]` outputs against `one-hot(label) − shift`; one work-group.
DEVICE void classification_loss(const Arguments &given) {
    const u32 *words = item(given, 10);
    if (group() >= words[0]) return;
    const float *output = given.heap + words[1];
    const float *labels = given.heap + words[2];
    float *error = given.heap + words[3];
    u32 batch = words[7], classes = words[8];
    float shift = as_float(words[9]);
    float count = (float)(batch * classes);
    float loss = 0.0f, hits = 0.0f;
    for (u32 b = thread(); b < batch; b += THREADS) {
        u32 label = (u32)labels[b], best = 0;
        float largest = output[b * classes];
        for (u32 k = 0; k < classes; k++) {
            float value = output[b * classes + k];
            float difference = value - ((k == label ? 1.0f : 0.0f) - shift);
            error[b * classes + k] = 2.0f * difference / count;
            loss += difference * difference;
            if (value > largest) {
                largest = value;
                best = k;
            }
        }
        hits += best == label ? 1.0f : 0.0f;
    }
    loss = total(loss);
    hits = total(hits);
    if (thread() == 0) {
        float *report = given.heap + words[4] + *given.step * words[6];
        report[0] = loss / count;
        report[1] = hits;
        close_unless_finite(given.heap + words[5], loss / count);
    }
}

/// Words of a sequence's loss: groups, output, targets, error, reports, gate, reports of a step, values, batch. Error
/// and loss of a sequence; one work-group.
DEVICE void sequence_loss(const Arguments &given) {
    const u32 *words = item(given, 9);
    if (group() >= words[0]) return;
    const float *output = given.heap + words[1];
    const float *targets = given.heap + words[2];
    float *error = given.heap + words[3];
    u32 len = words[7];
    float batch = (float)words[8];
    float loss = 0.0f;
    for (u32 at = thread(); at < len; at += THREADS) {
        float difference = output[at] - targets[at];
        error[at] = 2.0f * difference / batch;
        loss += difference * difference;
    }
    loss = total(loss);
    if (thread() == 0) {
        float *report = given.heap + words[4] + *given.step * words[6];
        report[0] = loss / batch;
        close_unless_finite(given.heap + words[5], loss / batch);
    }
}

/// So many minibatches are done, `first_word`: the numbers that stand on the device, `variant` of them, are those that follow.
DEVICE void next_step(const Arguments &given) {
    if (group() == 0 && thread() < given.variant) given.step[thread()] += given.first_word;
}
