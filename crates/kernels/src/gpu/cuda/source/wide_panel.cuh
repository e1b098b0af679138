// Kernels whose work-groups own panels in blocks: product, norm and activation in one pass.

/// [`product`] of panels in blocks.
template <class Product> DEVICE void product_of_blocks(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 2);
    if (group() >= words[0]) return;
    Product product;
    product.start(given, words + 1);
    wait_for_earlier();
    product.accumulate(nullptr);
    float *out = given.heap + words[1 + WALK_WORDS];
    const float *bias = given.heap + words[2 + WALK_WORDS];
    const Walk &walk = product.walk;
#pragma unroll
    for (u32 d = 0; d < Product::DEEP; d++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 channel = product.channel(d, half);
            float shift = given.variant & BIASED ? bias[channel] : 0.0f;
#pragma unroll
            for (u32 p = 0; p < Product::PANELS; p++) {
                if (!product.there(p, half)) continue;
                float *to = out + product.plain(p, half, channel);
                product.for_each(d, p, half, [&](u32 piece, u32 e, float &sum) {
                    if (product.holds(piece, e)) to[product.sample(piece, e) * walk.columns] = walk.scale * sum + shift;
                });
            }
        }
}

/// Writes the sums of a panel in blocks. Panels take tiles in turn.
template <u32 p, class Product> DEVICE void write_panel(const Product &product, float *to, u32 &stage) {
    product.free_tile();
#pragma unroll
    for (u32 d = 0; d < Product::DEEP; d++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
            product.put(stage, d, half, [&](u32 piece, u32 e) {
                return product.sums[d][p * Product::PIECES + piece][2 * half + e];
            });
    product.write_tiles(to, stage, p);
    stage = stage + 1 == Product::TILES_IN_TURN ? 0 : stage + 1;
}

/// Writes a channel's sums in a panel of f32.
template <u32 p, class Product> DEVICE void write_channel(Product &product, float *to, u32 d, u32 half) {
    if (!product.there(p, half)) return;
    to += product.plain(p, half, product.channel(d, half));
    product.for_each(d, p, half, [&](u32 piece, u32 e, float &sum) {
        if (product.holds(piece, e)) to[product.sample(piece, e) * product.walk.columns] = sum;
    });
}

/// Norm and activation of the `p`-th panel; `words` are z, a, inverse deviations and bias.
template <u32 p, Activation A, class Product>
DEVICE void finish_panel(const Arguments &given, Product &product, const u32 *words, u32 &stage) {
    if (!product.there(p)) return;
    float *z = given.heap + words[0], *a = given.heap + words[1];
    float *inverse_deviation = given.heap + words[2];
    const float *bias = given.heap + words[3];
    const Walk &walk = product.walk;
    bool cut = given.variant & CUT_OUT, wants_z = !(given.variant & NO_Z);
#pragma unroll
    for (u32 d = 0; d < Product::DEEP; d++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 channel = product.channel(d, half);
            float shift = bias[channel], mean = 0.0f;
            product.for_each(d, p, half, [&](u32 piece, u32 e, float &sum) {
                sum = walk.scale * sum + shift;
                mean += product.holds(piece, e) ? sum : 0.0f;
            });
            if (given.variant & NORMALISED) {
                mean = product.over_samples(mean) / (float)walk.batch;
                float squares = 0.0f;
                product.for_each(d, p, half, [&](u32 piece, u32 e, float &sum) {
                    sum -= mean;
                    squares += product.holds(piece, e) ? sum * sum : 0.0f;
                });
                float inverse = 1.0f / sqrtf(product.over_samples(squares) / (float)walk.batch + NORM_EPSILON);
                if (thread() % 4 == 0 && product.there(p, half))
                    inverse_deviation[(u64)product.panel_of(p, half) * walk.columns + channel] = inverse;
                product.for_each(d, p, half, [&](u32, u32, float &sum) { sum *= inverse; });
            }
            if (wants_z && !cut) write_channel<p>(product, z, d, half);
        }
    if (wants_z && cut) write_panel<p>(product, z, stage);
#pragma unroll
    for (u32 d = 0; d < Product::DEEP; d++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            product.for_each(d, p, half, [&](u32, u32, float &sum) { sum = activate<A>(sum); });
            if (!cut) write_channel<p>(product, a, d, half);
        }
    if (cut) write_panel<p>(product, a, stage);
}

/// [`forward_panel`] of panels in blocks.
template <class Product, Activation A> DEVICE void forward_blocks(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 4);
    if (group() >= words[0]) return;
    Product product;
    product.start(given, words + 1);
    wait_for_earlier();
    product.accumulate(nullptr);
    words += 1 + WALK_WORDS;
    u32 stage = 0;
    finish_panel<0, A>(given, product, words, stage);
    if constexpr (Product::PANELS == 2) finish_panel<1, A>(given, product, words, stage);
    product.finish_writing();
}

/// Replaces the sums of the `p`-th panel by ψ: the slope at the path's z, which is fetched as the first array.
template <u32 p, Activation A, class Product> DEVICE void slope_of_panel(Product &product) {
    product.wait_for_z(0, p);
#pragma unroll
    for (u32 d = 0; d < Product::DEEP; d++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u16 *tile = product.row_of_tile(product.stage_of(0, p), d, half);
#pragma unroll
            for (u32 piece = 0; piece < Product::PIECES; piece++) {
                float z[2];
                product.take(z, tile, piece);
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    float &psi = product.sums[d][p * Product::PIECES + piece][2 * half + e];
                    psi = product.holds(piece, e) ? slope<A>(z[e]) * (product.walk.scale * psi) : 0.0f;
                }
            }
        }
}

/// [`land`] of the `p`-th panel: z has been fetched, as the `turn`-th array, and delta takes its place.
template <u32 p, class Product>
DEVICE void land_panel(const Arguments &given, const Product &product, const u32 *words, u32 turn) {
    const float *inverse_deviation = given.heap + words[1];
    float *delta = given.heap + words[2], *sums = given.heap + words[3];
    const Walk &walk = product.walk;
    bool normalised = given.variant & NORMALISED;
    u32 stage = product.stage_of(turn, p);
    product.wait_for_z(turn, p);
    if (!product.there(p)) return;
#pragma unroll
    for (u32 d = 0; d < Product::DEEP; d++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            if (!product.there(p, half)) continue;
            u64 of_panel = (u64)product.panel_of(p, half) * walk.columns + product.channel(d, half);
            const u16 *tile = product.row_of_tile(stage, d, half);
            // Of ψ, and of its products with z.
            float mean = 0.0f, along = 0.0f, inverse = 1.0f;
            if (normalised) {
#pragma unroll
                for (u32 piece = 0; piece < Product::PIECES; piece++) {
                    float at[2];
                    product.take(at, tile, piece);
#pragma unroll
                    for (u32 e = 0; e < 2; e++) {
                        float psi = product.sums[d][p * Product::PIECES + piece][2 * half + e];
                        mean += psi;
                        along += psi * at[e];
                    }
                }
                mean = product.over_samples(mean) / (float)walk.batch;
                along = product.over_samples(along) / (float)walk.batch;
                inverse = inverse_deviation[of_panel];
            }
            float total = 0.0f, at[2] = {0.0f, 0.0f};
            product.put(stage, d, half, [&](u32 piece, u32 e) {
                if (normalised && e == 0) product.take(at, tile, piece);
                float psi = product.sums[d][p * Product::PIECES + piece][2 * half + e];
                float value = product.holds(piece, e) ? inverse * (psi - mean - at[e] * along) : 0.0f;
                total += value;
                return value;
            });
            total = product.over_samples(total);
            if (thread() % 4 == 0) sums[of_panel] = total;
        }
    product.write_tiles(delta, stage, p);
}

template <class Product>
DEVICE void land_blocks(const Arguments &given, const Product &product, const u32 *words, u32 turn) {
    land_panel<0>(given, product, words, turn);
    if constexpr (Product::PANELS == 2) land_panel<1>(given, product, words, turn);
}

/// [`feedback_panel`] of panels in blocks, as z and delta are.
template <class Product, Activation A> DEVICE void feedback_blocks(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 8);
    if (group() >= words[0]) return;
    Product product;
    product.start(given, words + 1);
    wait_for_earlier();
    words += 1 + WALK_WORDS;
    product.accumulate(given.heap + words[0]);
    slope_of_panel<0, A>(product);
    if constexpr (Product::PANELS == 2) slope_of_panel<1, A>(product);
    land_blocks(given, product, words, 0);
    if (given.variant & LOCAL) {
        product.fetch_again(given.heap + words[4]);
        land_blocks(given, product, words + 4, 1);
    }
    product.finish_writing();
}
