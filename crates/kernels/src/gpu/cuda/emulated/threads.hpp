// Runs CUDA-style kernels on the CPU, for tests on machines with no GPU.
//
// A kernel's source names no CUDA builtin: it calls the functions in device.hpp. On a GPU
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
#include <map>
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
enum Collective { ShuffleXor, WarpBarrier, LoadMatrices, LoadMatricesTransposed,
                  LoadTwoMatrices, LoadTwoMatricesTransposed, LoadMatrixTransposed,
                  StoreMatrixTransposed, Multiply };
static const char *const Names[] = {
    "shuffle_xor", "warp_barrier", "load_matrices", "load_matrices_transposed",
    "load_two_matrices", "load_two_matrices_transposed", "load_matrix_transposed",
    "store_matrix_transposed", "multiply" };

struct Loads { const unsigned char *rows[32]; u32 words[32][4]; };
struct Product { alignas(64) float a[16][16], b[16][8], c[16][8]; };
union Exchange { float values[32]; Loads loads; Product product; };

// Sets of lanes are bit masks. Each live lane is ready to run, or has arrived at the pending
// collective, or is at the block's barrier, or waits for an arrival of copies.
struct alignas(64) Warp {
    u32 live, ready, arrived, at_barrier, at_arrival;
    Collective pending; // valid while `arrived` is not empty
    // Operands and results. Two, used in turn: the first lanes may enter the next collective while
    // others have yet to read this one's results, but cannot complete it before those arrive.
    u32 phase;
    Exchange exchanges[2];
};

struct Copy { void *to; const void *from; bool inside; u32 group; };

// A product of a group of warps, as one of its threads sees it: sums of `across` pieces of 8 columns.
struct GroupProduct { float *sums; u32 across; u64 a, b; bool left_terms, right_terms; u32 group; };

// A copy of so many bytes, in the background, and what is known of those whose arrival is counted at one place.
struct Stretch { void *to; const void *from; u32 bytes, group; };
struct Arrival { bool announced = false; u32 bytes = 0, phases = 0; std::vector<Stretch> stretches; };

struct Fiber {
    Context context;
    std::vector<Copy> copies;           // asynchronous copies not performed yet
    u32 groups;                         // committed so far
    std::vector<GroupProduct> products; // not performed yet
    u32 product_groups;                 // committed so far
    std::vector<Stretch> written;       // not performed yet
    u32 written_groups;
    bool waited;                        // for the kernels before this one
};

// All that one OS thread needs to run kernels, kept from launch to launch.
struct Machine {
    void (*body)(const void *);
    const void *arguments;
    u32 thread = 0, block[3] = {};      // of the running fiber
    u32 threads, live, waiting;         // in the block, not returned, at its barrier
    u64 barriers = 0;                   // opened so far, and blocks begun
    bool waited;                        // whether a thread of the launch waited for the kernels before
    bool descending;
    unsigned char *shared = nullptr, *stacks = nullptr;
    size_t shared_bytes = 0, shared_capacity = 0, stack_count = 0;
    Context launcher;
    std::vector<Fiber> fibers;
    std::map<const u64 *, Arrival> arrivals;
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

// What other kernels write, or read, must not be touched before they have ended.
static void check_waited(const char *name) {
    if (!machine->fibers[machine->thread].waited) fail("%s: the kernels before may not have ended", name);
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
    m.barriers += 1;
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
    void *memory = aligned_alloc(1024, (bytes + 1023) / 1024 * 1024);
    return memory ? memory : (fail("out of memory"), nullptr);
}

static void run_block(Machine &m) {
    memset(m.shared, 0xFF, m.shared_bytes + GuardBytes);
    for (u32 i = 0; i < m.threads; ++i) {
        unsigned char *stack = m.stacks + i * StackBytes;
        memcpy(stack, &StackEnd, sizeof StackEnd);
        prepare(m.fibers[i].context, stack, run_thread);
        m.fibers[i].copies.clear();
        m.fibers[i].products.clear();
        m.fibers[i].written.clear();
        m.fibers[i].waited = false;
        m.fibers[i].groups = m.fibers[i].product_groups = m.fibers[i].written_groups = 0;
    }
    for (u32 i = 0; i < m.threads / 32; ++i) {
        Warp &warp = m.warps[i];
        warp.live = warp.ready = ~0u;
        warp.arrived = warp.at_barrier = warp.at_arrival = warp.phase = 0;
    }
    m.arrivals.clear();
    m.live = m.threads;
    m.waiting = 0;
    m.barriers += 1;
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
    m.waited = false;
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
    if (!m.waited) fail("no thread waited for the kernels before");
}

} // namespace emulated

#endif
