// Kernels whose work-groups own a panel: product, norm and activation in one pass.

/// What keeps an inverse deviation finite.
constexpr float NORM_EPSILON = 1e-6f;

/// Words of a product: groups, walk, out, bias. `out = scale · Σ panel(source) · W[tap] + bias`.
template <class Product> DEVICE void product(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 2);
    if (group() >= words[0]) return;
    Product product;
    if (!product.start(given, words + 1)) return;
    wait_for_earlier();
    product.accumulate();
    float *out = given.heap + words[1 + WALK_WORDS];
    const float *bias = given.heap + words[2 + WALK_WORDS];
    float scale = product.walk.scale;
#pragma unroll
    for (u32 j = 0; j < product.ACROSS; j++) {
        u32 column = product.column(j);
        float shift[2] = {0.0f, 0.0f};
        if (given.variant & BIASED)
            for (u32 e = 0; e < 2; e++)
                if (column + e < product.walk.columns) shift[e] = bias[column + e];
#pragma unroll
        for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                const float *sum = product.sums[i][j] + 2 * half;
                product.write_two(out, i, half, j, scale * sum[0] + shift[0],
                                  scale * sum[1] + shift[1]);
            }
    }
}

/// Words of a forward pass: groups, walk, z, a, inverse deviations, bias. Product, norm over the rows, activation.
template <class Product, Activation A> DEVICE void forward_panel(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 4);
    if (group() >= words[0]) return;
    Product product;
    if (!product.start(given, words + 1)) return;
    wait_for_earlier();
    product.accumulate();
    words += 1 + WALK_WORDS;
    float *z = given.heap + words[0];
    float *a = given.heap + words[1];
    float *inverse_deviation = given.heap + words[2];
    const float *bias = given.heap + words[3];
    u32 columns = product.walk.columns;
    float scale = product.walk.scale;
    float means[1][Product::ACROSS][2];
#pragma unroll
    for (u32 j = 0; j < product.ACROSS; j++)
#pragma unroll
        for (u32 e = 0; e < 2; e++) {
            u32 column = product.column(j) + e;
            float shift = column < columns ? bias[column] : 0.0f;
            means[0][j][e] = 0.0f;
#pragma unroll
            for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    float &sum = product.sums[i][j][2 * half + e];
                    sum = scale * sum + shift;
                    if (product.holds(i, half)) means[0][j][e] += sum;
                }
        }
    if (given.variant & NORMALISED) {
        product.mean_over_rows(means);
        float squares[1][Product::ACROSS][2];
#pragma unroll
        for (u32 j = 0; j < product.ACROSS; j++)
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                squares[0][j][e] = 0.0f;
#pragma unroll
                for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
                    for (u32 half = 0; half < 2; half++) {
                        float &sum = product.sums[i][j][2 * half + e];
                        sum -= means[0][j][e];
                        if (product.holds(i, half)) squares[0][j][e] += sum * sum;
                    }
            }
        product.mean_over_rows(squares);
#pragma unroll
        for (u32 j = 0; j < product.ACROSS; j++)
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                u32 column = product.column(j) + e;
                float inverse = 1.0f / sqrtf(squares[0][j][e] + NORM_EPSILON);
                if (thread() % LANES < 4 && product.warp_down() == 0 && column < columns)
                    inverse_deviation[(u64)product.at.location * columns + column] = inverse;
#pragma unroll
                for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
                    for (u32 half = 0; half < 2; half++) product.sums[i][j][2 * half + e] *= inverse;
            }
    }
#pragma unroll
    for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
#pragma unroll
            for (u32 j = 0; j < product.ACROSS; j++) {
                const float *sum = product.sums[i][j] + 2 * half;
                if (!(given.variant & NO_Z)) product.write_z(z, i, half, j, sum[0], sum[1], given.variant);
                product.write_form(a, i, half, j, activate<A>(sum[0]), activate<A>(sum[1]), given.variant);
            }
}

/// The values of a panel that lie where a thread's sums do.
template <class Product> struct Values {
    float at[Product::DOWN][Product::ACROSS][4];

    METHOD void read(const Product &product, const float *from, u32 variant) {
#pragma unroll
        for (u32 i = 0; i < Product::DOWN; i++)
#pragma unroll
            for (u32 half = 0; half < 2; half++)
#pragma unroll
                for (u32 j = 0; j < Product::ACROSS; j++) {
                    float two[2];
                    product.read_z(from, i, half, j, two, variant);
                    at[i][j][2 * half] = two[0];
                    at[i][j][2 * half + 1] = two[1];
                }
    }
};

/// normᵀ of a panel of ψ, which stands in the product's sums, with the statistics of the network whose z, inverse
/// deviations, delta and sums of delta's columns the words name. `z` are the values of its z, if they are at hand.
template <class Product>
DEVICE void land(const Arguments &given, Product &product, const u32 *words, const Values<Product> *values) {
    const float *z = given.heap + words[0];
    const float *inverse_deviation = given.heap + words[1];
    float *delta = given.heap + words[2];
    float *sums = given.heap + words[3];
    bool normalised = given.variant & NORMALISED;
    auto z_at = [&](u32 i, u32 half, u32 j, float(&to)[2]) {
        if (!values) return product.read_z(z, i, half, j, to, given.variant);
        to[0] = values->at[i][j][2 * half];
        to[1] = values->at[i][j][2 * half + 1];
    };
    // Of ψ, and of its products with z.
    float means[2][Product::ACROSS][2];
#pragma unroll
    for (u32 q = 0; q < 2; q++)
#pragma unroll
        for (u32 j = 0; j < Product::ACROSS; j++) means[q][j][0] = means[q][j][1] = 0.0f;
    if (normalised) {
#pragma unroll
        for (u32 i = 0; i < Product::DOWN; i++)
#pragma unroll
            for (u32 half = 0; half < 2; half++)
#pragma unroll
                for (u32 j = 0; j < Product::ACROSS; j++) {
                    float at[2];
                    z_at(i, half, j, at);
#pragma unroll
                    for (u32 e = 0; e < 2; e++) {
                        float psi = product.sums[i][j][2 * half + e];
                        means[0][j][e] += psi;
                        means[1][j][e] += psi * at[e];
                    }
                }
        product.mean_over_rows(means);
    }
    float total[1][Product::ACROSS][2];
#pragma unroll
    for (u32 j = 0; j < Product::ACROSS; j++) {
        u32 column = product.column(j);
        total[0][j][0] = total[0][j][1] = 0.0f;
        float inverse[2] = {1.0f, 1.0f};
#pragma unroll
        for (u32 e = 0; e < 2; e++)
            if (normalised && column + e < product.walk.columns)
                inverse[e] = inverse_deviation[(u64)product.at.location * product.walk.columns + column + e];
#pragma unroll
        for (u32 i = 0; i < Product::DOWN; i++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                float at[2] = {0.0f, 0.0f};
                if (normalised) z_at(i, half, j, at);
                float value[2];
#pragma unroll
                for (u32 e = 0; e < 2; e++)
                    value[e] = inverse[e] *
                               (product.sums[i][j][2 * half + e] - means[0][j][e] - at[e] * means[1][j][e]);
                // Rows beyond the panel's are no part of the sums of its columns.
#pragma unroll
                for (u32 e = 0; e < 2; e++) total[0][j][e] += product.holds(i, half) ? value[e] : 0.0f;
                product.write_form(delta, i, half, j, value[0], value[1], given.variant);
            }
    }
    product.sum_over_rows(total);
    product.write_columns(sums, total[0]);
}

/// Words of a feedback: groups, walk, and (z, inverse deviations, delta, sums of its columns) of the path and of a second
/// network. Product, slope of the path's network, normᵀ of the path's network and, if it is local, of the second one.
template <class Product, Activation A> DEVICE void feedback_panel(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 8);
    if (group() >= words[0]) return;
    Product product;
    if (!product.start(given, words + 1)) return;
    wait_for_earlier();
    product.accumulate();
    words += 1 + WALK_WORDS;
    const float *path_z = given.heap + words[0];
    Values<Product> values;
    if (Product::KEEPS) values.read(product, path_z, given.variant);
#pragma unroll
    for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
#pragma unroll
            for (u32 j = 0; j < product.ACROSS; j++) {
                float z[2] = {values.at[i][j][2 * half], values.at[i][j][2 * half + 1]};
                if (!Product::KEEPS) product.read_z(path_z, i, half, j, z, given.variant);
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    float &psi = product.sums[i][j][2 * half + e];
                    psi = product.holds(i, half) ? slope<A>(z[e]) * (product.walk.scale * psi) : 0.0f;
                }
            }
    // Where registers are few, z is read again.
    land(given, product, words, Product::KEEPS ? &values : nullptr);
    if (given.variant & LOCAL) land<Product>(given, product, words + 4, nullptr);
}
