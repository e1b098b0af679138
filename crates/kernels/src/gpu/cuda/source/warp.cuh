// Products of few channels: a warp makes a panel by itself. Operands go straight from memory to the registers in which
// instructions take them, so that there is nothing to stage and nobody to wait for.
//
// Which terms a thread holds is free, as long as both operands agree: it takes neighbouring channels of a row, as many of
// 32 (a lump) as are its share, and weights lie in the order in which threads take them (`fragments`).

/// Channels of a row that a warp reads at once: threads 4 r to 4 r + 3 take those of row r.
template <u32 Channels> constexpr u32 LUMP = Channels < 32 ? Channels : 32;

template <u32 Count> DEVICE Words<Count> read_words(const u16 *from) {
    return *reinterpret_cast<const Words<Count> *>(from);
}

/// The product of a panel by a warp: `Columns` columns of `Rows` × 16 rows, of sources of `Channels` channels, both of
/// them cut; weights as fragments.
template <u32 Channels, u32 Columns, u32 Rows, Precision P> struct WarpProduct : Sums<Columns, P, Rows> {
    using Base = Sums<Columns, P, Rows>;
    using Base::walk, Base::at, Base::sums, Base::links, Base::pairs, Base::DOWN, Base::ACROSS;
    static constexpr u32 SHARED = 16;
    static constexpr u32 WORDS = LUMP<Channels> / 8;
    static constexpr u32 LUMPS = Channels / LUMP<Channels>;
    /// Links whose terms fill an instruction.
    static constexpr u32 LINKS = WORDS < 2 ? 2 : 1;

    /// Adds the products of all links.
    METHOD void accumulate() {
        u32 lane = thread() % LANES;
        const u16 *panels = reinterpret_cast<const u16 *>(walk.input) + lane % 4 * (2 * WORDS);
        const u16 *weights = reinterpret_cast<const u16 *>(walk.weight) + lane * (2 * WORDS);
        u32 pieces = walk.columns / COLUMNS, first_piece = at.first_column / COLUMNS;
        u64 plane = (u64)walk.taps * Channels * walk.columns;
        // Rows beyond the panel's stand in the last piece only: they are the panel's last one, and no one's sums.
        u32 rows[DOWN][2];
#pragma unroll
        for (u32 i = 0; i < DOWN; i++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 row = i * ROWS + half * 8 + lane / 4;
                rows[i][half] = (i + 1 < DOWN ? row : smaller(row, walk.batch - 1)) * Channels;
            }
#pragma unroll 1
        for (u32 link = 0; link < links; link += LINKS) {
            u32 tap[LINKS];
            const u16 *source[LINKS];
            bool there[LINKS];
#pragma unroll
            for (u32 n = 0; n < LINKS; n++) {
                there[n] = n == 0 || link + n < links;
                const u32 *pair = pairs + 2 * (there[n] ? link + n : link);
                tap[n] = pair[0];
                source[n] = panels + (u64)pair[1] * walk.batch * Channels;
            }
#pragma unroll
            for (u32 lump = 0; lump < LUMPS; lump++) {
                u32 b[PARTS<P>][ACROSS][LINKS * WORDS];
#pragma unroll
                for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
                    for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                        for (u32 n = 0; n < LINKS; n++) {
                            u32 place = (tap[n] * pieces + first_piece + j) * LUMPS + lump;
                            Words<WORDS> words = read_words<WORDS>(weights + part * plane + place * (LANES * 2 * WORDS));
#pragma unroll
                            for (u32 w = 0; w < WORDS; w++) b[part][j][n * WORDS + w] = there[n] ? words.word[w] : 0;
                        }
#pragma unroll
                for (u32 i = 0; i < DOWN; i++) {
                    Words<WORDS> a[PARTS<P>][LINKS][2];
#pragma unroll
                    for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
                        for (u32 n = 0; n < LINKS; n++)
#pragma unroll
                            for (u32 half = 0; half < 2; half++)
                                a[part][n][half] = read_words<WORDS>(source[n] + part * walk.values + rows[i][half] +
                                                                     lump * LUMP<Channels>);
#pragma unroll
                    for (u32 s = 0; s < LINKS * WORDS; s += 2) {
                        u32 left[PARTS<P>][4], right[PARTS<P>][ACROSS][2];
#pragma unroll
                        for (u32 part = 0; part < PARTS<P>; part++) {
#pragma unroll
                            for (u32 k = 0; k < 4; k++) {
                                u32 word = s + k / 2;
                                left[part][k] = a[part][word / WORDS][k % 2].word[word % WORDS];
                            }
#pragma unroll
                            for (u32 j = 0; j < ACROSS; j++) {
                                right[part][j][0] = b[part][j][s];
                                right[part][j][1] = b[part][j][s + 1];
                            }
                        }
                        multiply_row<P>(sums[i], left, right);
                    }
                }
            }
        }
    }
};

/// Words of fragments: groups, weights, parts, weights that are there, taps, channels, columns, whether the weights of a
/// tap are walked backward. Writes weights as warps take them: `[part, tap, piece of columns, lump, thread, word]`.
DEVICE void fragments(const Arguments &given) {
    const u32 *words = item(given, 8);
    u32 there = words[3], taps = words[4], channels = words[5], columns = words[6];
    bool backward = words[7];
    u32 lump = smaller(channels, 32), share = lump / 8;
    u64 count = (u64)taps * channels * columns;
    u32 word = place();
    if (word >= count / 2) return;
    u32 number = word % share, lane = word / share % LANES, rest = word / (share * LANES);
    u32 lumps = channels / lump, pieces = columns / COLUMNS;
    u32 channel = rest % lumps * lump + lane % 4 * (2 * share) + 2 * number;
    u32 column = rest / lumps % pieces * COLUMNS + lane / 4;
    u32 tap = rest / lumps / pieces;
    const float *weights = given.heap + words[1];
    float two[2];
#pragma unroll
    for (u32 e = 0; e < 2; e++) {
        u32 from = backward ? (tap * columns + column) * channels + channel + e
                            : (tap * channels + channel + e) * columns + column;
        two[e] = from < there ? weights[from] : 0.0f;
    }
    Planes planes = planes_of(given.heap + words[2], count);
    if (given.variant & TWO_PARTS) put_two<2>(planes, 2 * (u64)word, two[0], two[1]);
    else put_two<1>(planes, 2 * (u64)word, two[0], two[1]);
}
