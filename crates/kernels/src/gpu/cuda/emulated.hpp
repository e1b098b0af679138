// Runs CUDA-style kernels on the CPU, for tests on machines with no GPU.
//
// A kernel's source names no CUDA builtin: it calls the functions at the end of this file. On a GPU
// device.cuh provides them, here they are emulated. Blocks run one after the other on the calling OS
// thread. Each CUDA thread is a fiber with its own stack, which runs until it must wait for others.
//
// With EMULATED_ORDER=descending in the environment, warps and lanes take turns from the last to the
// first. A kernel that lacks a barrier often gives a wrong result in one of the two orders.
#ifndef EMULATED_HPP
#define EMULATED_HPP
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define DEVICE static inline
#define METHOD inline
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

DEVICE float as_float(u32 bits) { float value; memcpy(&value, &bits, 4); return value; }
DEVICE u32 as_bits(float value) { u32 bits; memcpy(&bits, &value, 4); return bits; }

namespace emulated {

// The distance between two stacks is 64 KiB and a bit: at a power of two, the same local variable of
// all fibers would compete for one cache set.
constexpr size_t StackBytes = 65536 + 9 * 64;
constexpr size_t GuardBytes = 128;      // 0xFF bytes behind the shared memory, checked after each block
constexpr u64 StackEnd = 0x5AC4E11D0FF57ACCull; // at the far end of each stack, checked at a thread's end

#ifdef __x86_64__
struct Context { void *stack_pointer; };

// Saves the registers that a call must preserve on the current stack, and continues on the other one.
// noipa: callers must not learn which registers are untouched here, because the other fiber uses all.
__attribute__((naked, noinline, noipa)) static void transfer(Context *, Context *) {
    asm volatile("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
                 "movq %rsp, (%rdi)\n movq (%rsi), %rsp\n"
                 "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}

// Lays out a stack with six saved registers, a return into `entry`, and there the end of the call chain.
static void prepare(Context &context, unsigned char *stack, void (*entry)()) {
    u64 *top = reinterpret_cast<u64 *>(stack + StackBytes) - 1;
    memset(top - 7, 0, 8 * sizeof(u64));
    top[-1] = reinterpret_cast<u64>(entry);
    context.stack_pointer = top - 7;
}
#else
struct Context { ucontext_t registers; };

static void transfer(Context *from, Context *to) { swapcontext(&from->registers, &to->registers); }

static void prepare(Context &context, unsigned char *stack, void (*entry)()) {
    getcontext(&context.registers);
    context.registers.uc_stack.ss_sp = stack + 16; // above the StackEnd mark
    context.registers.uc_stack.ss_size = StackBytes - 16;
    context.registers.uc_link = nullptr;
    makecontext(&context.registers, entry, 0);
}
#endif

// What the lanes of a warp do together. From LoadMatrices on, no lane may have returned.
enum Collective { WarpBarrier, ShuffleXor, ShuffleFrom, LoadMatrices, LoadMatricesTransposed,
                  LoadTwoMatrices, LoadTwoMatricesTransposed, Multiply, MultiplyTf32 };
static const char *const Names[] = {
    "warp_barrier", "shuffle_xor", "shuffle_from", "load_matrices", "load_matrices_transposed",
    "load_two_matrices", "load_two_matrices_transposed", "multiply", "multiply_tf32" };

struct Loads { const unsigned char *rows[32]; u32 words[32][4]; };
struct Product { alignas(64) float a[16][16], b[16][8], c[16][8]; };
union Exchange { float values[32]; Loads loads; Product product; };

// Sets of lanes are bit masks. Each live lane is ready to run, or has arrived at the pending
// collective, or is at the block's barrier.
struct alignas(64) Warp {
    u32 live, ready, arrived, at_barrier;
    Collective pending; // valid while `arrived` is not empty
    // Operands and results. Two, used in turn: the first lanes may enter the next collective while
    // others have yet to read this one's results, but cannot complete it before those arrive.
    u32 phase;
    Exchange exchanges[2];
};

struct Copy { void *to; const void *from; bool inside; u32 group; };

struct Fiber {
    Context context;
    std::vector<Copy> copies; // asynchronous copies not performed yet
    u32 groups;               // committed so far
};

// All that one OS thread needs to run kernels, kept from launch to launch.
struct Machine {
    void (*body)(const void *);
    const void *arguments;
    u32 thread = 0, block[3] = {};      // of the running fiber
    u32 threads, live, waiting;         // in the block, not returned, at its barrier
    bool descending;
    unsigned char *shared = nullptr, *stacks = nullptr;
    size_t shared_bytes = 0, shared_capacity = 0, stack_count = 0;
    Context launcher;
    std::vector<Fiber> fibers;
    Warp *warps = nullptr;
    ~Machine() { free(shared); free(stacks); free(warps); }
};
// A plain pointer, so that an access needs no check whether a constructor has run.
static thread_local Machine *machine = nullptr;

__attribute__((noreturn, noinline, cold, format(printf, 1, 2))) static void fail(const char *format, ...) {
    const Machine &m = *machine;
    fprintf(stderr, "emulated kernel, block (%u, %u, %u), thread %u: ", m.block[0], m.block[1], m.block[2],
            m.thread);
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    abort();
}

// Continues with the warp's next ready lane, else with the next warp that has one, else with the
// launcher, because all threads have returned.
__attribute__((noinline)) static void give_way() {
    Machine &m = *machine;
    u32 from = m.thread, count = m.threads / 32, index = from / 32, lane = from % 32;
    Warp *warp = &m.warps[index];
    u32 later = m.descending ? warp->ready & ((1u << lane) - 1) : warp->ready & ~((2u << lane) - 1);
    if (!warp->ready) {
        if (warp->arrived)
            fail("deadlock in warp %u: lanes %08x wait at %s, lanes %08x at the block's barrier, lanes %08x "
                 "have returned", index, warp->arrived, Names[warp->pending], warp->at_barrier, ~warp->live);
        u32 tried = 0;
        do {
            index = (index + (m.descending ? count - 1 : 1)) % count;
            warp = &m.warps[index];
        } while (!warp->ready && ++tried < count);
        if (!warp->ready) {
            if (m.live) fail("deadlock: no thread of the block can continue");
            transfer(&m.fibers[from].context, &m.launcher);
        }
    }
    u32 candidates = later ? later : warp->ready;
    m.thread = index * 32 + (m.descending ? 31 - __builtin_clz(candidates) : __builtin_ctz(candidates));
    if (m.thread != from) transfer(&m.fibers[from].context, &m.fibers[m.thread].context);
}

// Ends the wait of the lanes at the warp's pending collective. What a shuffle reads from a lane that
// has returned is undefined on a GPU, and NaN here.
static inline void complete(Warp &warp) {
    if (~warp.live)
        for (u32 lane = 0; lane < 32; ++lane)
            if (~warp.live >> lane & 1) warp.exchanges[warp.phase].values[lane] = NAN;
    warp.ready |= warp.arrived;
    warp.arrived = 0;
    warp.phase ^= 1;
}

// Opens the barrier when no live thread is missing.
static inline bool try_barrier(Machine &m) {
    if (m.waiting != m.live) return false;
    for (u32 i = 0; i < m.threads / 32; ++i) {
        m.warps[i].ready |= m.warps[i].at_barrier;
        m.warps[i].at_barrier = 0;
    }
    m.waiting = 0;
    return true;
}

// The first half of a collective: gives the memory in which the lane then puts its operands.
static inline Exchange &join(Warp &warp, Collective kind) {
    if (warp.arrived && warp.pending != kind)
        fail("reached %s while lanes %08x of its warp wait at %s", Names[kind], warp.arrived,
             Names[warp.pending]);
    if (kind >= LoadMatrices && ~warp.live)
        fail("reached %s, but lanes %08x of its warp have returned", Names[kind], ~warp.live);
    warp.pending = kind;
    return warp.exchanges[warp.phase];
}

// The second half: waits for the other lanes. True for the lane that came last, which computes the
// results of all before another one runs.
static inline bool arrive(Warp &warp, u32 lane) {
    warp.arrived |= 1u << lane;
    if (warp.arrived == warp.live) {
        complete(warp);
        return true;
    }
    warp.ready &= ~(1u << lane);
    give_way();
    return false;
}

// Where each fiber starts, and what ends it.
__attribute__((noreturn)) static void run_thread() {
    machine->body(machine->arguments);
    Machine &m = *machine;
    Warp &warp = m.warps[m.thread / 32];
    if (*reinterpret_cast<u64 *>(m.stacks + m.thread * StackBytes) != StackEnd) fail("stack overflow");
    if (warp.arrived && warp.pending >= LoadMatrices)
        fail("returned while lanes %08x of its warp wait at %s", warp.arrived, Names[warp.pending]);
    warp.live &= ~(1u << m.thread % 32);
    warp.ready &= warp.live;
    m.live -= 1;
    if (warp.arrived && warp.arrived == warp.live) complete(warp);
    if (m.live) try_barrier(m);
    give_way();
    abort(); // never resumed
}

static void *allocate(size_t bytes) {
    void *memory = aligned_alloc(128, (bytes + 127) / 128 * 128);
    return memory ? memory : (fail("out of memory"), nullptr);
}

static void run_block(Machine &m) {
    memset(m.shared, 0xFF, m.shared_bytes + GuardBytes);
    for (u32 i = 0; i < m.threads; ++i) {
        unsigned char *stack = m.stacks + i * StackBytes;
        memcpy(stack, &StackEnd, sizeof StackEnd);
        prepare(m.fibers[i].context, stack, run_thread);
        m.fibers[i].copies.clear();
        m.fibers[i].groups = 0;
    }
    for (u32 i = 0; i < m.threads / 32; ++i) {
        Warp &warp = m.warps[i];
        warp.live = warp.ready = ~0u;
        warp.arrived = warp.at_barrier = warp.phase = 0;
    }
    m.live = m.threads;
    m.waiting = 0;
    m.thread = m.descending ? m.threads - 1 : 0;
    transfer(&m.launcher, &m.fibers[m.thread].context);
    for (size_t i = 0; i < GuardBytes; ++i)
        if (m.shared[m.shared_bytes + i] != 0xFF) fail("a thread wrote behind the shared memory");
}

__attribute__((noinline)) static void launch(void (*body)(const void *), const void *arguments, u32 threads,
                                             u32 grid_x, u32 grid_y, u32 grid_z, u32 shared_bytes) {
    static thread_local Machine owned;
    Machine &m = *(machine = &owned);
    const char *order = getenv("EMULATED_ORDER");
    m.descending = order && !strcmp(order, "descending");
    m.body = body;
    m.arguments = arguments;
    m.threads = threads;
    m.shared_bytes = shared_bytes;
    if (threads == 0 || threads > 1024 || threads % 32) fail("a block cannot have %u threads", threads);
    if (m.stack_count < threads) {
        free(m.stacks);
        free(m.warps);
        m.stacks = static_cast<unsigned char *>(allocate(threads * StackBytes));
        m.warps = static_cast<Warp *>(allocate(threads / 32 * sizeof(Warp)));
        m.stack_count = threads;
        m.fibers.resize(threads);
    }
    if (m.shared_capacity < shared_bytes + GuardBytes) {
        free(m.shared);
        m.shared_capacity = shared_bytes + GuardBytes;
        m.shared = static_cast<unsigned char *>(allocate(m.shared_capacity));
    }
    for (m.block[2] = 0; m.block[2] < grid_z; ++m.block[2])
        for (m.block[1] = 0; m.block[1] < grid_y; ++m.block[1])
            for (m.block[0] = 0; m.block[0] < grid_x; ++m.block[0]) run_block(m);
}

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

// The part that both kinds of mma share: `put` unpacks the lane's elements of a and b.
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

DEVICE void warp_barrier() {
    emulated::Warp &warp = emulated::machine->warps[thread() / 32];
    emulated::join(warp, emulated::WarpBarrier);
    emulated::arrive(warp, thread() % 32);
}

DEVICE float shuffle_xor(float value, int mask) {
    return emulated::shuffle(value, thread() ^ static_cast<u32>(mask), emulated::ShuffleXor);
}
DEVICE float shuffle_from(float value, int lane) {
    return emulated::shuffle(value, static_cast<u32>(lane), emulated::ShuffleFrom);
}

// cvt.rn.bf16x2.f32: to nearest, ties to even.
DEVICE u32 pack_bf16(float low, float high) {
    auto round = [](float value) -> u32 {
        u32 bits = as_bits(value);
        return value != value ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}

// cvt.rna.tf32.f32: to nearest, ties away from zero.
DEVICE u32 round_tf32(float value) {
    return value != value ? 0x7FFFE000 : (as_bits(value) + 0x1000) & ~0x1FFFu;
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

// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
DEVICE void multiply_tf32(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulated::multiply<8>(sums, emulated::MultiplyTf32, [&](emulated::Product &p, u32 g, u32 t) {
        for (u32 i = 0; i < 4; ++i) p.a[g + i % 2 * 8][t + i / 2 * 4] = as_float(a[i] & ~0x1FFFu);
        for (u32 i = 0; i < 2; ++i) p.b[t + 4 * i][g] = as_float(b[i] & ~0x1FFFu);
    });
}

// cp.async.cg of 16 bytes, of zeros when not `inside`. On a GPU it happens at any time before the wait
// for it: here its target holds NaN from the start on, and the copy is made at the wait.
DEVICE void copy_async(void *shared, const void *global, bool inside) {
    emulated::check_shared(shared, "copy_async");
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

DEVICE void wait_for_previous_grid() {}
DEVICE void let_next_grid_start() {}

// KERNEL(name, name of a constant and its bytes of shared memory, threads per block, blocks per multiprocessor, body): a
// C function that runs `body`, a void (Arguments), for all threads of a grid. The body may contain commas.
#define KERNEL(name, bytes_name, bytes, threads, blocks, ...)                                                 \
    extern "C" __attribute__((visibility("default"))) const u32 bytes_name = bytes;                           \
    extern "C" __attribute__((visibility("default"))) void name(Arguments arguments, u32 grid_x, u32 grid_y,  \
                                                                u32 grid_z, u32 shared_bytes) {               \
        static_assert(std::is_trivially_copyable<Arguments>::value, "the GPU gets a copy of the bytes");      \
        emulated::launch([](const void *all) { __VA_ARGS__(*static_cast<const Arguments *>(all)); },          \
                         &arguments, threads, grid_x, grid_y, grid_z, shared_bytes);                          \
    }

#endif
