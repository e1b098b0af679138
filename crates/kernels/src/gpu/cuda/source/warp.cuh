// Products of few channels: a warp makes a panel by itself. Operands go straight from memory to the registers in which
// instructions take them, so that there is nothing to stage and nobody to wait for.
//
// Which terms a thread holds is free, as long as both operands agree: threads 4 r to 4 r + 3 take the channels of row r,
// each its share of neighbouring ones, and weights lie in the order in which threads take them (`fragments`).

template <u32 Count> DEVICE Words<Count> read_words(const u16 *from) {
    return *reinterpret_cast<const Words<Count> *>(from);
}

/// The product of a panel by a warp, of so many in a work-group: `Columns` columns of `Rows` × 16 rows, of sources of
/// `Channels` channels, both of them cut, and in blocks of eight channels if they lie in `Eights`; weights as fragments.
template <u32 Channels, u32 Columns, u32 Rows, u32 Warps, bool Eights, Precision P>
struct WarpProduct : Sums<Columns, P, Rows, Warps, Eights> {
    using Base = Sums<Columns, P, Rows, Warps, Eights>;
    using Base::walk, Base::at, Base::sums, Base::links, Base::pairs, Base::DOWN, Base::ACROSS;
    static constexpr u32 THREADS = Warps * LANES;
    static constexpr u32 SHARED = 16;
    static constexpr u32 SHARE = Channels / 8;
    /// Links whose terms fill an instruction.
    static constexpr u32 LINKS = SHARE < 2 ? 2 : 1;
    static constexpr u32 TERMS = LINKS * SHARE;
    /// Values from row to row of a source.
    static constexpr u32 ROW_LONG = Eights ? EIGHT : Channels;

    /// A piece of 16 rows: of each part, a thread's words of its upper and of its lower row.
    struct Piece {
        Words<SHARE> word[PARTS<P>][LINKS][2];
    };

    /// Where the terms of a step lie: links are followed two at a time, or one at a time.
    struct Step {
        u32 tap[LINKS];
        const u16 *source[LINKS];
        bool there[LINKS];
    };

    u32 pieces, first_piece, lower_row;
    u64 plane;

    METHOD Step step(u32 link) const {
        Step step;
#pragma unroll
        for (u32 n = 0; n < LINKS; n++) {
            step.there[n] = link + n < links;
            // Beyond the last link, the last one is read again.
            const u32 *pair = pairs + 2 * (step.there[n] ? link + n : links - 1);
            step.tap[n] = pair[0];
            u32 channel = thread() % 4 * (2 * SHARE);
            u32 first = Eights ? channel / EIGHT * walk.batch * EIGHT + channel % EIGHT : channel;
            step.source[n] = reinterpret_cast<const u16 *>(walk.input) + (u64)pair[1] * walk.batch * Channels +
                             (thread() % LANES / 4 * ROW_LONG + first);
        }
        return step;
    }

    METHOD void read(Piece &piece, u32 i, const Step &step) const {
#pragma unroll
        for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
            for (u32 n = 0; n < LINKS; n++)
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    // Rows beyond the panel's stand in the last piece only: there, its last one is read.
                    u32 row = i * ROWS + half * 8;
                    if (i + 1 == DOWN) row = smaller(row, lower_row);
                    piece.word[part][n][half] = read_words<SHARE>(step.source[n] + part * walk.values + row * ROW_LONG);
                }
    }

    METHOD void read_weights(u32 (&to)[PARTS<P>][ACROSS][TERMS], const Step &step) const {
        const u16 *weights = reinterpret_cast<const u16 *>(walk.weight) + thread() % LANES * (2 * SHARE);
#pragma unroll
        for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
            for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                for (u32 n = 0; n < LINKS; n++) {
                    u32 place = step.tap[n] * pieces + first_piece + j;
                    Words<SHARE> words = read_words<SHARE>(weights + part * plane + place * (LANES * 2 * SHARE));
#pragma unroll
                    for (u32 w = 0; w < SHARE; w++) to[part][j][n * SHARE + w] = step.there[n] ? words.word[w] : 0;
                }
    }

    METHOD void multiply_piece(u32 i, const Piece &a, const u32 (&b)[PARTS<P>][ACROSS][TERMS]) {
#pragma unroll
        for (u32 s = 0; s < TERMS; s += 2) {
            u32 left[PARTS<P>][4], right[PARTS<P>][ACROSS][2];
#pragma unroll
            for (u32 part = 0; part < PARTS<P>; part++) {
#pragma unroll
                for (u32 k = 0; k < 4; k++) {
                    u32 term = s + k / 2;
                    left[part][k] = a.word[part][term / SHARE][k % 2].word[term % SHARE];
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

    /// Adds the products of all links: a piece's next terms are on their way as soon as its last ones are multiplied.
    METHOD void accumulate() {
        pieces = walk.columns / COLUMNS;
        first_piece = at.first_column / COLUMNS;
        plane = (u64)walk.taps * Channels * walk.columns;
        u32 row = thread() % LANES / 4;
        lower_row = walk.batch > row ? walk.batch - 1 - row : 0;
        if (links == 0) return;
        Piece a[DOWN];
        u32 b[PARTS<P>][ACROSS][TERMS];
        Step now = step(0);
#pragma unroll
        for (u32 i = 0; i < DOWN; i++) read(a[i], i, now);
        read_weights(b, now);
#pragma unroll 1
        for (u32 link = 0; link < links; link += LINKS) {
            Step next = step(link + LINKS);
            u32 ahead[PARTS<P>][ACROSS][TERMS];
            read_weights(ahead, next);
#pragma unroll
            for (u32 i = 0; i < DOWN; i++) {
                multiply_piece(i, a[i], b);
                read(a[i], i, next);
            }
#pragma unroll
            for (u32 part = 0; part < PARTS<P>; part++)
#pragma unroll
                for (u32 j = 0; j < ACROSS; j++)
#pragma unroll
                    for (u32 w = 0; w < TERMS; w++) b[part][j][w] = ahead[part][j][w];
        }
    }
};

/// Words of fragments: groups, weights, parts, weights that are there, taps, channels, columns, whether the weights of a
/// tap are walked backward. Writes weights as warps take them: `[part, tap, piece of columns, thread, word]`.
DEVICE void fragments(const Arguments &given) {
    const u32 *words = item(given, 8);
    u32 there = words[3], taps = words[4], channels = words[5], columns = words[6];
    bool backward = words[7];
    u32 share = channels / 8, pieces = columns / COLUMNS;
    u64 count = (u64)taps * channels * columns;
    u32 word = place();
    if (word >= count / 2) return;
    u32 lane = word / share % LANES, piece = word / (share * LANES) % pieces;
    u32 channel = lane % 4 * (2 * share) + word % share * 2;
    u32 column = piece * COLUMNS + lane / 4;
    u32 tap = word / (share * LANES) / pieces;
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
