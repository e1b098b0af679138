// Products of groups of warps, whose operands are matrices in shared memory (wgmma), and copies of whole stretches.

namespace emulated {

// The first 16 terms of a matrix's rows, and what they were read for.
struct Decoded { u64 matrix; u32 rows; bool terms; u64 barriers; std::vector<float> values; };

// Value of a row and term of a matrix, where the hardware looks for it.
static inline float element(u64 matrix, bool terms, u32 row, u32 term) {
    u32 start = (matrix & 0x3FFF) << 4, block = (matrix >> 16 & 0x3FFF) << 4, eight = (matrix >> 32 & 0x3FFF) << 4;
    u32 at;
    if (matrix >> 62 == 0) {
        at = start + row / 8 * eight + term / 8 * block + (terms ? term % 8 * 16 + row % 8 * 2 : row % 8 * 16 + term % 8 * 2);
    } else {
        at = start + (terms ? row / 64 * block + term / 8 * eight + term % 8 * 128 + row % 64 * 2
                            : row / 8 * eight + row % 8 * 128 + term * 2);
        at ^= (at >> 7 & 7) << 4;
    }
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

DEVICE u64 shared_matrix(const void *at, u32 block, u32 eight) {
    emulated::check_shared(at, "shared_matrix");
    u64 offset = static_cast<const unsigned char *>(at) - emulated::machine->shared;
    return offset >> 4 | static_cast<u64>(block >> 4) << 16 | static_cast<u64>(eight >> 4) << 32 | u64(1) << 62;
}

DEVICE u64 plain_matrix(const void *at, u32 terms, u32 rows) {
    emulated::check_shared(at, "plain_matrix");
    u64 offset = static_cast<const unsigned char *>(at) - emulated::machine->shared;
    return offset >> 4 | static_cast<u64>(terms >> 4) << 16 | static_cast<u64>(rows >> 4) << 32;
}

// wgmma.mma_async: made when it is waited for, so that whoever overwrites its operands before then spoils it.
template <bool LeftTerms, bool RightTerms, u32 Across> DEVICE void multiply_group(float (&sums)[Across][4], u64 a, u64 b) {
    emulated::Fiber &fiber = emulated::machine->fibers[thread()];
    fiber.products.push_back({ &sums[0][0], Across, a, b, LeftTerms, RightTerms, fiber.product_groups });
}

DEVICE void begin_products() {}
DEVICE void commit_products() { emulated::machine->fibers[thread()].product_groups += 1; }

// Makes this thread's products, except those of its newest `Left` groups.
template <int Left> DEVICE void wait_for_products() {
    emulated::Fiber &fiber = emulated::machine->fibers[thread()];
    auto product = fiber.products.begin();
    for (; product != fiber.products.end() && product->group + Left < fiber.product_groups; ++product)
        emulated::run(*product);
    fiber.products.erase(fiber.products.begin(), product);
}
DEVICE void settle(float &) {}
DEVICE void publish_copies() {}

// Arrivals (mbarrier) of stretches, which are copied when somebody waits for them: until then their target holds NaN.

namespace emulated {

static Arrival &arrival_of(const u64 *at) {
    if (reinterpret_cast<size_t>(at) % 8) fail("an arrival at an address that is not 8-byte aligned");
    auto known = machine->arrivals.find(at);
    if (known == machine->arrivals.end()) fail("an arrival that nobody prepared");
    return known->second;
}

static void check_stretch(const void *shared, const void *global, u32 bytes, const char *user) {
    check_shared(shared, user);
    size_t offset = static_cast<const unsigned char *>(shared) - machine->shared;
    if (bytes == 0 || bytes % 16 || reinterpret_cast<size_t>(global) % 16) fail("%s: not a multiple of 16 bytes", user);
    if (machine->shared_bytes - offset < bytes) fail("%s: beyond the shared memory", user);
}

// Whether the phase is over: it is if all that was announced was also copied.
static bool is_over(Arrival &arrival, u32 phase) {
    if (arrival.announced && arrival.bytes == 0) {
        for (const Stretch &stretch : arrival.stretches) memcpy(stretch.to, stretch.from, stretch.bytes);
        arrival.stretches.clear();
        arrival.announced = false;
        arrival.phases += 1;
    }
    return arrival.phases % 2 != phase;
}

// Lets others run until somebody announces or copies something.
static void wait_for_others() {
    Warp &warp = machine->warps[machine->thread / 32];
    u32 bit = 1u << machine->thread % 32;
    warp.ready &= ~bit;
    warp.at_arrival |= bit;
    give_way();
}

static void wake() {
    for (u32 i = 0; i < machine->threads / 32; ++i) {
        machine->warps[i].ready |= machine->warps[i].at_arrival;
        machine->warps[i].at_arrival = 0;
    }
}

} // namespace emulated

DEVICE void prepare_arrival(u64 *at) { emulated::machine->arrivals[at] = {}; }
DEVICE void publish_arrivals() {}

DEVICE void expect_bytes(u64 *at, u32 bytes) {
    emulated::Arrival &arrival = emulated::arrival_of(at);
    if (arrival.announced) emulated::fail("expect_bytes: an arrival is announced while the last one is under way");
    arrival.announced = true;
    arrival.bytes += bytes;
    emulated::wake();
}

DEVICE void copy_stretch(void *shared, const void *global, u32 bytes, u64 *at) {
    emulated::check_stretch(shared, global, bytes, "copy_stretch");
    emulated::check_waited("copy_stretch");
    emulated::Arrival &arrival = emulated::arrival_of(at);
    if (bytes > arrival.bytes) emulated::fail("copy_stretch: more than was announced");
    memset(shared, 0xFF, bytes);
    arrival.stretches.push_back({ shared, global, bytes, 0 });
    arrival.bytes -= bytes;
    emulated::wake();
}

DEVICE void wait_for_arrival(u64 *at, u32 phase) {
    while (!emulated::is_over(emulated::arrival_of(at), phase)) emulated::wait_for_others();
}

// Copied when it is waited for, so that whoever overwrites the shared memory before then spoils it.
DEVICE void write_stretch(void *global, const void *shared, u32 bytes) {
    emulated::check_stretch(shared, global, bytes, "write_stretch");
    emulated::check_waited("write_stretch");
    emulated::Fiber &fiber = emulated::machine->fibers[thread()];
    fiber.written.push_back({ global, shared, bytes, fiber.written_groups });
}
DEVICE void commit_written() { emulated::machine->fibers[thread()].written_groups += 1; }

template <int Left> DEVICE void wait_for_written() {
    emulated::Fiber &fiber = emulated::machine->fibers[thread()];
    auto stretch = fiber.written.begin();
    for (; stretch != fiber.written.end() && stretch->group + Left < fiber.written_groups; ++stretch)
        memcpy(stretch->to, stretch->from, stretch->bytes);
    fiber.written.erase(fiber.written.begin(), stretch);
}

DEVICE void load_matrix_transposed(u32 &to, const void *row) {
    u32 one[1];
    emulated::load<1, true>(one, row, emulated::LoadMatrixTransposed);
    to = one[0];
}

// stmatrix of one transposed matrix: lane i gives the address of its row i.
DEVICE void store_matrix_transposed(void *row, u32 from) {
    using namespace emulated;
    u32 lane = machine->thread % 32;
    Warp &warp = machine->warps[machine->thread / 32];
    Loads &loads = join(warp, StoreMatrixTransposed).loads;
    if (lane < 8) check_shared(row, Names[StoreMatrixTransposed]);
    loads.rows[lane] = static_cast<unsigned char *>(row);
    loads.words[lane][0] = from;
    if (arrive(warp, lane))
        for (u32 l = 0; l < 32; ++l)
            for (u32 i = 0; i < 2; ++i) {
                u16 value = loads.words[l][0] >> 16 * i;
                memcpy(const_cast<unsigned char *>(loads.rows[l % 4 * 2 + i]) + l / 4 * 2, &value, 2);
            }
}
