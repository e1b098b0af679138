// How operands come to the matrix units: read four values at a time, cut into parts of bf16, and staged in shared
// memory; a thread's next values are on their way while the last ones are multiplied.
//
// A value of f32 is two parts, the nearest bf16 and the nearest one of what is left: 16 significant bits. Three products
// of parts stand for one; what is left out is 2^-16 of it. Layers so narrow that the errors of few terms do not cancel
// take three parts, which are all of f32, and six products.

/// What is kept of an operand: all of f32, what two parts hold, 11 bits of that (tf32), or one part.
enum class Precision { Exact, F32, Tf32, Bf16 };

template <Precision P> constexpr u32 PARTS = P == Precision::Bf16 ? 1 : P == Precision::Exact ? 3 : 2;

/// Stages: the next one is filled while the last one is multiplied, but three parts leave no room for two.
template <Precision P> constexpr u32 STAGES = P == Precision::Exact ? 1 : 2;

/// The nearest value of 11 bits, the even one of two.
DEVICE float nearest_tf32(float value) {
    u32 bits = as_bits(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) return value;
    return as_float((bits + 0xfffu + (bits >> 13 & 1u)) & 0xffffe000u);
}

/// Two values side by side.
struct alignas(8) Two {
    float value[2];
};

/// Four values side by side.
struct alignas(16) Four {
    float value[4];
};

/// Four values from `at` on, of which `count` are there.
DEVICE Four read_four(const float *at, u32 count, bool aligned) {
    Four four = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (aligned) {
        if (count > 0) four = *reinterpret_cast<const Four *>(at);
        return four;
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        if (i < count) four.value[i] = at[i];
    return four;
}

/// What a first part, given as f32's bits, leaves of a value. What is left of infinity is nothing.
DEVICE float what_is_left(float value, u32 part) {
    float taken = as_float(part);
    return fabsf(taken) <= 3.4e38f ? value - taken : 0.0f;
}

struct alignas(8) Pair {
    u32 low, high;
};

/// Writes four values at `to`, each part of them `part` values after the one before.
template <Precision P> DEVICE void put_four(u16 *to, u32 part, Four four) {
    if (P == Precision::Tf32)
#pragma unroll
        for (u32 i = 0; i < 4; i++) four.value[i] = nearest_tf32(four.value[i]);
#pragma unroll
    for (u32 n = 0; n < PARTS<P>; n++) {
        u32 packed[2] = {pack_bf16(four.value[0], four.value[1]), pack_bf16(four.value[2], four.value[3])};
        *reinterpret_cast<Pair *>(to + n * part) = {packed[0], packed[1]};
        if (n + 1 == PARTS<P>) break;
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            four.value[i] = what_is_left(four.value[i], i % 2 == 0 ? packed[i / 2] << 16 : packed[i / 2] & 0xffff0000u);
    }
}

/// Products of parts, by the sum of their numbers, that count: of tf32, whose second parts are few bits, all.
template <Precision P> constexpr u32 RANKS = P == Precision::Tf32 ? 3 : PARTS<P>;

/// Adds the products of the parts of two pieces, the smallest first.
template <Precision P>
DEVICE void multiply_parts(float (&sums)[4], const u32 (&a)[PARTS<P>][4], const u32 *const (&b)[PARTS<P>]) {
#pragma unroll
    for (u32 rank = RANKS<P>; rank-- > 0;)
#pragma unroll
        for (u32 left = 0; left <= rank; left++) {
            if (left >= PARTS<P> || rank - left >= PARTS<P>) continue;
            const u32 right[2] = {b[rank - left][0], b[rank - left][1]};
            multiply(sums, a[left], right);
        }
}

/// Adds the products of a piece of 16 rows with pieces side by side.
template <Precision P, u32 Across>
DEVICE void multiply_row(float (&sums)[Across][4], const u32 (&a)[PARTS<P>][4], const u32 (&b)[PARTS<P>][Across][2]) {
#pragma unroll
    for (u32 j = 0; j < Across; j++) {
        const u32 *parts[PARTS<P>];
#pragma unroll
        for (u32 part = 0; part < PARTS<P>; part++) parts[part] = b[part][j];
        multiply_parts<P>(sums[j], a, parts);
    }
}

template <u32 Down, u32 Across> DEVICE void clear_sums(float (&sums)[Down][Across][4]) {
#pragma unroll
    for (u32 i = 0; i < Down; i++)
#pragma unroll
        for (u32 j = 0; j < Across; j++)
#pragma unroll
            for (u32 k = 0; k < 4; k++) sums[i][j][k] = 0.0f;
}

/// Multiplies chunk after chunk of what a sum reads and puts into its stages.
template <u32 Stages, class Sum> DEVICE void multiply_read(Sum &sum, u16 *stages, u32 chunks) {
    if (chunks == 0) return;
    sum.read();
    for (u32 chunk = 0; chunk < chunks; chunk++) {
        u16 *stage = stages + chunk % Stages * Sum::STAGE;
        if (Stages == 1 && chunk > 0) barrier();
        sum.put(stage);
        barrier();
        if (chunk + 1 < chunks) sum.read();
        sum.multiply_stage(stage);
    }
}

/// Multiplies chunk after chunk of what a sum copies into its stages in the background.
template <u32 Stages, class Sum> DEVICE void multiply_copied(Sum &sum, u16 *stages, u32 chunks) {
    for (u32 chunk = 0; chunk + 1 < Stages; chunk++) {
        if (chunk < chunks) sum.fetch(stages + chunk * Sum::STAGE);
        commit_copies();
    }
    u32 stage = 0;
    for (u32 chunk = 0; chunk < chunks; chunk++) {
        wait_for_copies<Stages - 2>();
        sum.arrived();
        barrier();
        // What is fetched lies where all have multiplied what lay there.
        if (chunk + Stages - 1 < chunks) sum.fetch(stages + (stage == 0 ? Stages - 1 : stage - 1) * Sum::STAGE);
        commit_copies();
        sum.multiply_stage(stages + stage * Sum::STAGE);
        stage = stage + 1 == Stages ? 0 : stage + 1;
    }
}

/// A block of an operand as it is staged: `Lines` lines of `Length` values side by side, with a gap between lines so
/// that eight of them lie in different banks.
template <u32 Lines, u32 Length> struct Block {
    static constexpr u32 STRIDE = Length == 8 ? 24 : Length + 8;
    /// Values of one part.
    static constexpr u32 PART = Lines * STRIDE;
    static constexpr u32 QUADS = Length / 4;
    /// Lines that the work-group reads at once.
    static constexpr u32 AT_ONCE = THREADS / QUADS < Lines ? THREADS / QUADS : Lines;
    /// Fours that a thread reads.
    static constexpr u32 TURNS = (Lines + AT_ONCE - 1) / AT_ONCE;
};

/// The piece of 16 rows × 16 terms of an operand whose lines are rows, for [`multiply`].
template <class B> DEVICE void load_rows(u32 (&to)[4], const u16 *block, u32 row, u32 term) {
    u32 lane = thread() % LANES;
    load_matrices(to, block + (row + lane % 16) * B::STRIDE + term + lane / 16 * 8);
}

/// The same where lines are terms.
template <class B> DEVICE void load_rows_of_terms(u32 (&to)[4], const u16 *block, u32 row, u32 term) {
    u32 lane = thread() % LANES;
    load_matrices_transposed(to, block + (term + lane / 16 * 8 + lane % 8) * B::STRIDE + row + lane / 8 % 2 * 8);
}

/// Pieces of 16 terms × 8 columns of an operand whose lines are terms: two side by side.
template <class B> DEVICE void load_columns_of_terms(u32 (&to)[4], const u16 *block, u32 column, u32 term) {
    u32 lane = thread() % LANES;
    load_matrices_transposed(to, block + (term + lane % 16) * B::STRIDE + column + lane / 16 * 8);
}

/// One piece.
template <class B> DEVICE void load_column_of_terms(u32 (&to)[2], const u16 *block, u32 column, u32 term) {
    u32 lane = thread() % LANES;
    load_two_matrices_transposed(to, block + (term + lane % 16) * B::STRIDE + column);
}

/// Pieces of 16 terms × 8 columns of an operand whose lines are columns: two side by side.
template <class B> DEVICE void load_columns(u32 (&to)[4], const u16 *block, u32 column, u32 term) {
    u32 lane = thread() % LANES;
    load_matrices(to, block + (column + lane / 16 * 8 + lane % 8) * B::STRIDE + term + lane / 8 % 2 * 8);
}

/// One piece.
template <class B> DEVICE void load_column(u32 (&to)[2], const u16 *block, u32 column, u32 term) {
    u32 lane = thread() % LANES;
    load_two_matrices(to, block + (column + lane % 8) * B::STRIDE + term + lane / 8 % 2 * 8);
}

/// `Count` pieces of 16 terms × 8 columns side by side, of an operand whose lines are terms or columns.
template <class B, bool LinesAreTerms, u32 Count>
DEVICE void load_right(u32 (&to)[Count][2], const u16 *block, u32 first, u32 term) {
    if constexpr (Count == 1) {
        if (LinesAreTerms) load_column_of_terms<B>(to[0], block, first, term);
        else load_column<B>(to[0], block, first, term);
    } else {
#pragma unroll
        for (u32 j = 0; j < Count; j += 2) {
            u32 two[4];
            if (LinesAreTerms) load_columns_of_terms<B>(two, block, first + j * COLUMNS, term);
            else load_columns<B>(two, block, first + j * COLUMNS, term);
            to[j][0] = two[0];
            to[j][1] = two[1];
            to[j + 1][0] = two[2];
            to[j + 1][1] = two[3];
        }
    }
}
