// Cut arrays: what products read lies in memory as parts of bf16, all first parts and then, for f32, all second ones, in
// the bytes of as many values of f32 or half of them.
//
// Panels of many channels lie in blocks of 64: of a panel, all rows of the first 64 channels, then those of the next. The
// eight pieces of eight values of a row of a block are shuffled by the row's number (see wide.cuh). Panels of few channels
// lie in blocks of eight, of which nothing is shuffled (see patch.cuh).

/// Neighbouring values of a thread, two to a word.
template <u32 Count> struct alignas(4 * Count) Words {
    u32 word[Count];
};

/// A cut array of so many values.
struct Planes {
    u16 *first;
    u64 values;
};

DEVICE Planes planes_of(float *array, u64 values) { return {reinterpret_cast<u16 *>(array), values}; }

/// Where the rows of a channel lie in a panel: `first + row · stride`, and pieces of eight channels in shuffled blocks.
struct Lies {
    u32 first, stride, piece, shuffled;

    METHOD u32 at(u32 row) const { return first + row * stride + (piece ^ row & shuffled) * EIGHT; }
};

/// The same, without a branch where a row is looked for, of panels in blocks or plain.
DEVICE Lies lies_of(u32 channel, u32 rows, u32 channels, bool in_blocks, u32 variant) {
    if (!in_blocks) return {channel, channels, 0, 0};
    if (variant & IN_EIGHTS) return {channel / EIGHT * rows * EIGHT + channel % EIGHT, EIGHT, 0, 0};
    return {channel / BLOCK * rows * BLOCK + channel % EIGHT, BLOCK, channel % BLOCK / EIGHT, EIGHT - 1};
}

/// Where a value of panels in blocks lies, as a kernel's variant says.
DEVICE u64 place_in_blocks(u32 panel, u32 row, u32 channel, u32 rows, u32 channels, u32 variant) {
    return (u64)panel * (rows * channels) + lies_of(channel, rows, channels, true, variant).at(row);
}

/// The same by its place among plain values, if a kernel's variant says that they lie in blocks.
DEVICE u32 place_of_plain(u32 at, u32 rows, u32 channels, u32 variant) {
    if (!(variant & IN_BLOCKS)) return at;
    u32 row = at / channels;
    return (u32)place_in_blocks(row / rows, row % rows, at % channels, rows, channels, variant);
}

/// Writes two values side by side, the first of them in an even place.
template <u32 Parts> DEVICE void put_two(Planes planes, u64 at, float first, float second) {
    u32 packed = pack_bf16(first, second);
    *reinterpret_cast<u32 *>(planes.first + at) = packed;
    if (Parts == 1) return;
    u32 left = pack_bf16(what_is_left(first, packed << 16), what_is_left(second, packed & 0xffff0000u));
    *reinterpret_cast<u32 *>(planes.first + planes.values + at) = left;
}

/// Writes eight values, the first of them in a place that is a multiple of eight.
DEVICE void put_eight(Planes planes, u64 at, float (&values)[8], bool two_parts) {
#pragma unroll
    for (u32 part = 0; part < 2; part++) {
        if (part == 1 && !two_parts) return;
        Words<4> words;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            words.word[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
            values[2 * i] = what_is_left(values[2 * i], words.word[i] << 16);
            values[2 * i + 1] = what_is_left(values[2 * i + 1], words.word[i] & 0xffff0000u);
        }
        *reinterpret_cast<Words<4> *>(planes.first + part * planes.values + at) = words;
    }
}

/// Writes one value.
DEVICE void put_one(Planes planes, u64 at, float value, bool two_parts) {
    u32 packed = pack_bf16(value, 0.0f);
    planes.first[at] = (u16)packed;
    if (two_parts) planes.first[planes.values + at] = (u16)pack_bf16(what_is_left(value, packed << 16), 0.0f);
}

/// The value of a cut array at a place; the second part, where there is none, is read from the first ones.
DEVICE float value_of(Planes planes, u64 at, bool two_parts) {
    float first = as_float((u32)planes.first[at] << 16);
    float second = as_float((u32)planes.first[two_parts ? planes.values + at : at] << 16);
    return two_parts ? first + second : first;
}

/// Four values of a cut array side by side, of which `count` are there; `at` is a multiple of four.
DEVICE Four read_four(Planes planes, u64 at, u32 count, bool two_parts) {
    Four four = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (count == 0) return four;
#pragma unroll
    for (u32 n = 0; n < 2; n++) {
        if (n == 1 && !two_parts) break;
        Pair pair = *reinterpret_cast<const Pair *>(planes.first + n * planes.values + at);
        four.value[0] += as_float(pair.low << 16);
        four.value[1] += as_float(pair.low & 0xffff0000u);
        four.value[2] += as_float(pair.high << 16);
        four.value[3] += as_float(pair.high & 0xffff0000u);
    }
    return four;
}
