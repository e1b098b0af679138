// One step of a recurrent cell, forward and back through time.

/// Words of a step: groups, walk, z of the step, the state that it makes. `z_t += scale · h_{t−1} W_h`, on top of the
/// drive `x_t W_i + b` that stands there, and `h_t = σ(z_t)`.
template <class Product, Activation A> DEVICE void recur_step(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 2);
    if (group() >= words[0]) return;
    Product product;
    if (!product.start(given, words + 1)) return;
    product.accumulate();
    float *z = given.heap + words[1 + WALK_WORDS];
    float *state = given.heap + words[2 + WALK_WORDS];
#pragma unroll
    for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
#pragma unroll
            for (u32 j = 0; j < product.ACROSS; j++) {
                float value[2];
                product.read_two(z, i, half, j, value);
#pragma unroll
                for (u32 e = 0; e < 2; e++) value[e] += product.walk.scale * product.sums[i][j][2 * half + e];
                product.write_two(z, i, half, j, value[0], value[1]);
                product.write_two(state, i, half, j, activate<A>(value[0]), activate<A>(value[1]));
            }
}

/// Words of a feedback step: groups, walk, then the panels of signal, carried, z, delta, local z and local delta.
/// `carried_t = scale · W_hᵀ δ_{t+1}`, `δ_t = σ′(z_t) ⊙ (signal_t + carried_t)` and, if it is local, the same of
/// `carried_t` alone with a second network's slopes. The last state has no later one, the first no slope.
template <class Product, Activation A> DEVICE void feedback_step(const Arguments &given) {
    const u32 *words = item(given, 1 + WALK_WORDS + 6);
    if (group() >= words[0]) return;
    Product product;
    if (!product.start(given, words + 1)) return;
    if (!(given.variant & LAST)) product.accumulate();
    words += 1 + WALK_WORDS;
    const float *signal = given.heap + words[0];
    float *carried = given.heap + words[1];
    const float *path_z = given.heap + words[2];
    float *delta = given.heap + words[3];
    const float *local_z = given.heap + words[4];
    float *local_delta = given.heap + words[5];
#pragma unroll
    for (u32 i = 0; i < product.DOWN; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
#pragma unroll
            for (u32 j = 0; j < product.ACROSS; j++) {
                float arrived[2], z[2], own[2];
#pragma unroll
                for (u32 e = 0; e < 2; e++) arrived[e] = product.walk.scale * product.sums[i][j][2 * half + e];
                product.write_two(carried, i, half, j, arrived[0], arrived[1]);
                if (given.variant & FIRST) continue;
                product.read_two(path_z, i, half, j, z);
                product.read_two(signal, i, half, j, own);
                product.write_two(delta, i, half, j, slope<A>(z[0]) * (own[0] + arrived[0]),
                                  slope<A>(z[1]) * (own[1] + arrived[1]));
                if (given.variant & LOCAL) {
                    product.read_two(local_z, i, half, j, z);
                    product.write_two(local_delta, i, half, j, slope<A>(z[0]) * arrived[0],
                                      slope<A>(z[1]) * arrived[1]);
                }
            }
}
