// Products of groups of warps, whose operands are matrices in shared memory (wgmma).

constexpr u32 SWIZZLE_128 = 1, SWIZZLE_64 = 2;

namespace emulated {

// The first 16 terms of a matrix's rows, and what they were read for.
struct Decoded { u64 matrix; u32 rows; bool terms; u64 barriers; std::vector<float> values; };

// Value of a row and term of a matrix, where the hardware looks for it.
static inline float element(u64 matrix, bool terms, u32 row, u32 term) {
    u32 start = (matrix & 0x3FFF) << 4, block = (matrix >> 16 & 0x3FFF) << 4, eight = (matrix >> 32 & 0x3FFF) << 4;
    u32 swizzle = matrix >> 62, line = swizzle == SWIZZLE_128 ? 128 : 64;
    u32 at = start + (terms ? row / 64 * block + term / 8 * eight + term % 8 * line + row % 64 * 2
                            : row / 8 * eight + row % 8 * line + term * 2);
    at ^= (at >> 7 & (swizzle == SWIZZLE_128 ? 7 : 3)) << 4;
    if (at + 2 > machine->shared_bytes) fail("multiply_group: a matrix reaches beyond the shared memory (%u)", at);
    u16 value;
    memcpy(&value, machine->shared + at, 2);
    return as_float(static_cast<u32>(value) << 16);
}

// A matrix is read once between two barriers: nothing that products may read changes in between.
static const float *decoded(u64 matrix, bool terms, u32 rows) {
    static thread_local std::vector<Decoded> known;
    u64 now = machine->barriers;
    Decoded *place = nullptr;
    for (Decoded &one : known) {
        if (one.barriers == now && one.matrix == matrix && one.rows == rows && one.terms == terms)
            return one.values.data();
        if (one.barriers != now) place = &one;
    }
    if (!place) place = &known.emplace_back();
    *place = { matrix, rows, terms, now, std::move(place->values) };
    place->values.resize(16 * rows);
    for (u32 term = 0; term < 16; ++term)
        for (u32 row = 0; row < rows; ++row) place->values[term * rows + row] = element(matrix, terms, row, term);
    return place->values.data();
}

static void run(const GroupProduct &product) {
    u32 lane = machine->thread % 32, columns = 8 * product.across;
    u32 row = machine->thread / 32 % 4 * 16 + lane / 4;
    const float *a = decoded(product.a, product.left_terms, 64);
    const float *b = decoded(product.b, product.right_terms, columns);
    for (u32 j = 0; j < product.across; ++j)
        for (u32 i = 0; i < 4; ++i) {
            float sum = product.sums[4 * j + i];
            u32 r = row + i / 2 * 8, column = 8 * j + lane % 4 * 2 + i % 2;
            for (u32 term = 0; term < 16; ++term) sum += a[term * 64 + r] * b[term * columns + column];
            product.sums[4 * j + i] = sum;
        }
}

} // namespace emulated

DEVICE u64 shared_matrix(const void *at, u32 block, u32 eight, u32 swizzle) {
    emulated::check_shared(at, "shared_matrix");
    u64 offset = static_cast<const unsigned char *>(at) - emulated::machine->shared;
    return offset >> 4 | static_cast<u64>(block >> 4) << 16 | static_cast<u64>(eight >> 4) << 32 |
           static_cast<u64>(swizzle) << 62;
}

// wgmma.mma_async: made when it is waited for, so that whoever overwrites its operands before then spoils it.
template <bool LeftTerms, bool RightTerms, u32 Across> DEVICE void multiply_group(float (&sums)[Across][4], u64 a, u64 b) {
    emulated::machine->fibers[thread()].products.push_back({ &sums[0][0], Across, a, b, LeftTerms, RightTerms });
}

DEVICE void begin_products() {}
DEVICE void end_products() {
    auto &products = emulated::machine->fibers[thread()].products;
    for (const emulated::GroupProduct &product : products) emulated::run(product);
    products.clear();
}
DEVICE void publish_copies() {}
