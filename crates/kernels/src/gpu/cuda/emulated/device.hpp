// What kernels call, on the threads of threads.hpp.

namespace emulated {

static inline void check_shared(const void *address, const char *user) {
    size_t offset = reinterpret_cast<size_t>(address) - reinterpret_cast<size_t>(machine->shared);
    if (offset % 16) fail("%s: the shared address is not 16-byte aligned (offset %zd)", user, offset);
    if (offset >= machine->shared_bytes || machine->shared_bytes - offset < 16)
        fail("%s: outside the %zu bytes of shared memory (offset %zd)", user, machine->shared_bytes, offset);
}

// ldmatrix: lane 8m + i gives the address of row i of matrix m.
template <u32 Count, bool Transposed>
static inline void load(u32 (&to)[Count], const void *row, Collective kind) {
    u32 lane = machine->thread % 32;
    Warp &warp = machine->warps[machine->thread / 32];
    Loads &loads = join(warp, kind).loads;
    if (lane < 8 * Count) check_shared(row, Names[kind]);
    loads.rows[lane] = static_cast<const unsigned char *>(row);
    if (arrive(warp, lane))
        for (u32 m = 0; m < Count; ++m)
            for (u32 l = 0; l < 32; ++l) {
                u16 pair[2];
                for (u32 i = 0; i < 2; ++i) {
                    u32 r = Transposed ? l % 4 * 2 + i : l / 4, column = Transposed ? l / 4 : l % 4 * 2 + i;
                    memcpy(&pair[i], loads.rows[8 * m + r] + 2 * column, 2);
                }
                loads.words[l][m] = pair[0] | static_cast<u32>(pair[1]) << 16;
            }
    memcpy(to, loads.words[lane], sizeof to);
}

// c += a b for the first Depth columns of a. Four rows at a time, because a single sum would wait for
// each addition to finish before the next.
template <u32 Depth>
__attribute__((noinline)) static void matrix_product(Product &p) {
    typedef float Vector __attribute__((vector_size(16), may_alias));
    for (u32 column = 0; column < 8; column += 4)
        for (u32 row = 0; row < 16; row += 4) {
            Vector sums[4];
#pragma GCC unroll 4
            for (u32 i = 0; i < 4; ++i) sums[i] = *reinterpret_cast<Vector *>(&p.c[row + i][column]);
            for (u32 k = 0; k < Depth; ++k) {
                Vector b = *reinterpret_cast<Vector *>(&p.b[k][column]);
#pragma GCC unroll 4
                for (u32 i = 0; i < 4; ++i) sums[i] += p.a[row + i][k] * b;
            }
#pragma GCC unroll 4
            for (u32 i = 0; i < 4; ++i) *reinterpret_cast<Vector *>(&p.c[row + i][column]) = sums[i];
        }
}

// `put` unpacks the lane's elements of a and b.
template <u32 Depth, typename Put>
static inline void multiply(float (&sums)[4], Collective kind, Put put) {
    u32 lane = machine->thread % 32, g = lane / 4, t = lane % 4;
    Warp &warp = machine->warps[machine->thread / 32];
    Product &p = join(warp, kind).product;
    put(p, g, t);
    memcpy(&p.c[g][2 * t], &sums[0], 8);
    memcpy(&p.c[g + 8][2 * t], &sums[2], 8);
    if (arrive(warp, lane)) matrix_product<Depth>(p);
    memcpy(&sums[0], &p.c[g][2 * t], 8);
    memcpy(&sums[2], &p.c[g + 8][2 * t], 8);
}

static inline float shuffle(float value, u32 from, Collective kind) {
    Warp &warp = machine->warps[machine->thread / 32];
    Exchange &exchange = join(warp, kind);
    exchange.values[machine->thread % 32] = value;
    arrive(warp, machine->thread % 32);
    return exchange.values[from % 32];
}

} // namespace emulated

// What kernels call.

DEVICE u32 thread() { return emulated::machine->thread; }
DEVICE u32 block_x() { return emulated::machine->block[0]; }
DEVICE u32 block_y() { return emulated::machine->block[1]; }
DEVICE u32 block_z() { return emulated::machine->block[2]; }

// As on the largest devices.
constexpr bool ROOMY = true;

// Filled with 0xFF bytes (NaN) before each block, so that reads of unwritten memory show.
DEVICE unsigned char *shared_memory() { return emulated::machine->shared; }

// __syncthreads. Threads that have returned do not count.
DEVICE void barrier() {
    emulated::Machine &m = *emulated::machine;
    emulated::Warp &warp = m.warps[m.thread / 32];
    u32 bit = 1u << m.thread % 32;
    warp.ready &= ~bit;
    warp.at_barrier |= bit;
    m.waiting += 1;
    if (!emulated::try_barrier(m)) emulated::give_way();
}

DEVICE float shuffle_xor(float value, int mask) {
    return emulated::shuffle(value, thread() ^ static_cast<u32>(mask), emulated::ShuffleXor);
}

// __syncwarp.
DEVICE void warp_barrier() { emulated::shuffle(0.0f, thread(), emulated::WarpBarrier); }

// cvt.rn.bf16x2.f32: to nearest, ties to even.
DEVICE u32 pack_bf16(float low, float high) {
    auto round = [](float value) -> u32 {
        u32 bits = as_bits(value);
        return value != value ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}

DEVICE void load_matrices(u32 (&to)[4], const void *row) {
    emulated::load<4, false>(to, row, emulated::LoadMatrices);
}
DEVICE void load_matrices_transposed(u32 (&to)[4], const void *row) {
    emulated::load<4, true>(to, row, emulated::LoadMatricesTransposed);
}
DEVICE void load_two_matrices(u32 (&to)[2], const void *row) {
    emulated::load<2, false>(to, row, emulated::LoadTwoMatrices);
}
DEVICE void load_two_matrices_transposed(u32 (&to)[2], const void *row) {
    emulated::load<2, true>(to, row, emulated::LoadTwoMatricesTransposed);
}

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulated::multiply<16>(sums, emulated::Multiply, [&](emulated::Product &p, u32 g, u32 t) {
#pragma GCC unroll 4
        for (u32 i = 0; i < 4; ++i) {
            float *pair = &p.a[g + i % 2 * 8][2 * t + i / 2 * 8];
            pair[0] = as_float(a[i] << 16);
            pair[1] = as_float(a[i] & 0xFFFF0000);
        }
#pragma GCC unroll 2
        for (u32 i = 0; i < 2; ++i) {
            p.b[2 * t + 8 * i][g] = as_float(b[i] << 16);
            p.b[2 * t + 8 * i + 1][g] = as_float(b[i] & 0xFFFF0000);
        }
    });
}

// cp.async.cg of 16 bytes, of zeros when not `inside`. On a GPU it happens at any time before the wait
// for it: here its target holds NaN from the start on, and the copy is made at the wait.
DEVICE void copy_async(void *shared, const void *global, bool inside) {
    emulated::check_shared(shared, "copy_async");
    emulated::check_waited("copy_async");
    if (reinterpret_cast<size_t>(global) % 16)
        emulated::fail("copy_async: the global address is not 16-byte aligned");
    memset(shared, 0xFF, 16);
    emulated::Fiber &fiber = emulated::machine->fibers[thread()];
    fiber.copies.push_back({ shared, global, inside, fiber.groups });
}
DEVICE void commit_copies() { emulated::machine->fibers[thread()].groups += 1; }

// Makes this thread's copies, except those of its newest `Left` groups and of the open one.
template <int Left> DEVICE void wait_for_copies() {
    emulated::Fiber &fiber = emulated::machine->fibers[thread()];
    auto copy = fiber.copies.begin();
    for (; copy != fiber.copies.end() && copy->group + Left < fiber.groups; ++copy)
        if (copy->inside) memcpy(copy->to, copy->from, 16);
        else memset(copy->to, 0, 16);
    fiber.copies.erase(fiber.copies.begin(), copy);
}

// Kernels run one after the other here; what copies in the background asks whether it was called.
DEVICE void wait_for_earlier() {
    emulated::machine->waited = emulated::machine->fibers[thread()].waited = true;
}

// KERNEL(name, name of a constant and its bytes of shared memory, threads per block, blocks per multiprocessor, body): a
// C function that runs `body`, a void (Arguments), for all threads of a grid. The body may contain commas.
#define KERNEL(name, bytes_name, bytes, threads, blocks, early, ...)                                          \
    extern "C" __attribute__((visibility("default"))) const u32 bytes_name = bytes;                           \
    extern "C" __attribute__((visibility("default"))) void name(Arguments arguments, u32 grid_x, u32 grid_y,  \
                                                                u32 grid_z, u32 shared_bytes) {               \
        static_assert(std::is_trivially_copyable<Arguments>::value, "the GPU gets a copy of the bytes");      \
        emulated::launch(                                                                                     \
            [](const void *all) {                                                                             \
                if (!early) wait_for_earlier();                                                               \
                __VA_ARGS__(*static_cast<const Arguments *>(all));                                            \
            },                                                                                                \
            &arguments, threads, grid_x, grid_y, grid_z, shared_bytes);                                       \
    }
