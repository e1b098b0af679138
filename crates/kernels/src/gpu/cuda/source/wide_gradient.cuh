// Weight gradients of panels in blocks.

/// A work-group's share of a gradient: sums over the samples of a part of a tap's links, by groups of warps, of which each
/// holds 64 inputs of all outputs. Panels of `Batch` rows lie in blocks and are read as a whole or in two tiles. Their last
/// samples are read up to a multiple of what an instruction sums over, with zeros.
template <u32 Groups, u32 Outputs, u32 Batch, u32 Tiles, u32 Together, Precision P> struct WideGradient : Part {
    static constexpr u32 THREADS = Groups * GROUP_THREADS;
    static constexpr u32 BLOCKS = Groups + Outputs / BLOCK;
    /// Terms of an instruction, and samples of a tile that is not the last.
    static constexpr u32 TERMS = 16, SAMPLES = ((Batch + Tiles - 1) / Tiles + TERMS - 1) / TERMS * TERMS;
    /// Values of a tile: samples of a block.
    static constexpr u32 TILE = SAMPLES * BLOCK;
    static constexpr u32 STAGE = PARTS<P> * BLOCKS * TILE;
    /// A stage always holds a panel's first samples, or always the rest.
    static constexpr u32 STAGES = STAGES_OF<STAGE, Together> / Tiles * Tiles, KINDS = Tiles;
    static constexpr u32 SHARED = STAGES * STAGE * 2 + MOST_STAGES * 8;
    static_assert(STAGES >= 2, "one stage is filled while another is multiplied");

    float sums[Outputs / COLUMNS][4];
    /// The next link's source and destination.
    u32 source, destination;
    /// The next tile of a panel to be copied.
    u32 tile;

    static METHOD u16 *stage_at(u32 stage) { return reinterpret_cast<u16 *>(shared_memory()) + stage * STAGE; }

    /// Samples of a panel's tile.
    static METHOD constexpr u32 samples(u32 tile) { return tile + 1 < Tiles ? SAMPLES : Batch - tile * SAMPLES; }

    METHOD void read_pair() {
        source = pairs[0];
        destination = pairs[1];
        pairs += 2;
    }

    /// Starts the copies of the next tiles.
    METHOD void fetch(u32 stage, u64 *arrival) {
        u32 bytes = samples(tile) * (BLOCK * 2);
        expect_bytes(arrival, PARTS<P> * BLOCKS * bytes);
        u16 *to = stage_at(stage);
        auto copy = [&](const float *panels, u64 values, u32 panel, u32 channels, u32 first_channel, u32 part, u32 b) {
            u64 at = ((u64)panel * (channels / BLOCK) + first_channel / BLOCK + b) * Batch + tile * SAMPLES;
            copy_stretch(to, reinterpret_cast<const u16 *>(panels) + part * values + at * BLOCK, bytes, arrival);
            to += TILE;
        };
#pragma unroll
        for (u32 part = 0; part < PARTS<P>; part++) {
#pragma unroll
            for (u32 b = 0; b < Groups; b++) copy(input, input_values, source, inputs, first_input, part, b);
#pragma unroll
            for (u32 b = 0; b < Outputs / BLOCK; b++)
                copy(delta, delta_values, destination, outputs, first_output, part, b);
        }
        if (++tile < Tiles) return;
        tile = 0;
        if (--links > 0) read_pair();
    }

    template <u32 Tile> METHOD void multiply_stage(u32 stage) {
        const u16 *left_tile = stage_at(stage) + thread() / GROUP_THREADS * TILE;
        const u16 *right_tiles = stage_at(stage) + Groups * TILE;
#pragma unroll
        for (u32 term = 0; term < samples(Tile); term += TERMS) {
            auto left = [&](u32 part) { return matrix_of_terms<SAMPLES>(left_tile + part * (BLOCKS * TILE), term); };
            auto right = [&](u32 part) { return matrix_of_terms<SAMPLES>(right_tiles + part * (BLOCKS * TILE), term); };
            multiply_groups<P, true, true>(sums, left, right);
        }
    }

    METHOD void accumulate() {
        tile = 0;
#pragma unroll
        for (u32 j = 0; j < Outputs / COLUMNS; j++)
#pragma unroll
            for (u32 k = 0; k < 4; k++) sums[j][k] = 0.0f;
        // What copies never reach.
        for (u32 stage = 0; stage < STAGES; stage++) {
            u32 first = samples(stage % Tiles), last = (first + TERMS - 1) / TERMS * TERMS;
            u32 words = (last - first) * (BLOCK / 2);
            for (u32 at = thread(); at < PARTS<P> * BLOCKS * words; at += THREADS)
                reinterpret_cast<u32 *>(stage_at(stage) + at / words * TILE + first * BLOCK)[at % words] = 0;
        }
        u32 chunks = links * Tiles;
        if (links > 0) read_pair();
        multiply_fetched(*this, chunks, 0);
    }

    /// Writes `scale ·` the sums.
    METHOD void write(float *out, float scale) const {
        u32 row = first_input + thread() / LANES * ROWS + thread() % LANES / 4;
        u32 column = first_output + thread() % 4 * 2;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            if (row + half * 8 >= rows) continue;
            float *to = out + (u64)(row + half * 8) * outputs + column;
#pragma unroll
            for (u32 j = 0; j < Outputs / COLUMNS; j++)
                *reinterpret_cast<Two *>(to + j * COLUMNS) = {{scale * sums[j][2 * half], scale * sums[j][2 * half + 1]}};
        }
    }
};
