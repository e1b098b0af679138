// What kernels use of the device, in CUDA's own words. `emulated` says the same for a CPU.

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

#define DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__

/// KiB of shared memory that a work-group may have, and whether they are many.
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 870
constexpr u32 ROOM = 163;
#elif __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
constexpr u32 ROOM = 227;
#else
constexpr u32 ROOM = 99;
#endif
constexpr bool ROOMY = ROOM > 99;

/// Makes a kernel of a function, with a constant that says how many bytes of shared memory it needs, for work-groups of
/// so many threads of which so many are to share a multiprocessor. One that begins early waits by itself for those before it.
#define KERNEL(name, bytes_name, bytes, threads, groups, early, ...)                                                  \
    extern "C" __constant__ u32 bytes_name = bytes;                                                                   \
    static_assert(bytes <= ROOM * 1024, "a work-group needs more shared memory than it may have");                    \
    extern "C" __global__ void __launch_bounds__(threads, groups) name(const __grid_constant__ Arguments arguments) { \
        if (!early) wait_for_earlier();                                                                               \
        __VA_ARGS__(arguments);                                                                                       \
    }

/// Waits for the kernels that a graph has before this one, whose results it reads; from then on those behind it may begin.
DEVICE void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

DEVICE u32 thread() { return threadIdx.x; }
DEVICE u32 block_x() { return blockIdx.x; }
DEVICE u32 block_y() { return blockIdx.y; }
DEVICE u32 block_z() { return blockIdx.z; }
DEVICE void barrier() { __syncthreads(); }
/// The same for the threads of a warp.
DEVICE void warp_barrier() { __syncwarp(); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 as_bits(float value) { return __float_as_uint(value); }

DEVICE unsigned char *shared_memory() {
    extern __shared__ __align__(1024) unsigned char memory[];
    return memory;
}

DEVICE u32 shared_address(const void *at) { return (u32)__cvta_generic_to_shared(at); }

/// Two values to the nearest bf16, the first in the lower half.
DEVICE u32 pack_bf16(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/// Four 8 × 8 matrices of 16-bit values: thread 8 m + i names row i of matrix m, and receives of each matrix the values
/// 2 (lane % 4) and the next of row lane / 4.
DEVICE void load_matrices(u32 (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// The same of the transposed matrices.
DEVICE void load_matrices_transposed(u32 (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// [`load_matrices`] of two matrices.
DEVICE void load_two_matrices(u32 (&to)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/// [`load_matrices_transposed`] of two matrices.
DEVICE void load_two_matrices_transposed(u32 (&to)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/// Adds a product of 16 × 16 by 16 × 8 values of bf16.
DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Copies 16 bytes to shared memory in the background: zeros where they lie outside, and nothing is read there.
DEVICE void copy_async(void *shared, const void *global, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(inside ? 16 : 0)
                 : "memory");
}

/// The copies since the last call are a group.
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits for this thread's copies, but for those of its newest `Left` groups.
template <int Left> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory"); }

/// A matrix in shared memory as instructions of groups of warps are given it, whose lines are 128 bytes with their pieces of
/// 16 bytes shuffled: where its first eight lines begin, the bytes from there to the next block of 64 rows, and to the next
/// eight lines.
DEVICE u64 shared_matrix(const void *at, u32 block, u32 eight) {
    return (u64)(shared_address(at) >> 4) | (u64)(block >> 4) << 16 | (u64)(eight >> 4) << 32 | (u64)1 << 62;
}

/// The same of lines of 16 bytes, nothing shuffled: eight of them that follow each other are eight terms of a row each, or
/// eight rows of a term each. The bytes from there to the next eight terms, and to the next eight rows.
DEVICE u64 plain_matrix(const void *at, u32 terms, u32 rows) {
    return (u64)(shared_address(at) >> 4) | (u64)(terms >> 4) << 16 | (u64)(rows >> 4) << 32;
}

/// Before a group's products, which are then under way as one, and what waits for them, but for the newest `Left`.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Left> DEVICE void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}

/// A sum is in its register here: the compiler moves none while products are under way, which would make them wait for each
/// other.
DEVICE void settle(float &sum) { asm volatile("" : "+f"(sum)::"memory"); }

/// What this thread wrote to shared memory is seen by products of groups and copies of stretches after the next barrier.
DEVICE void publish_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// A place of shared memory at which arrivals of stretches are counted, one thread announcing them; and what makes it known.
DEVICE void prepare_arrival(u64 *at) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(at)) : "memory");
}
DEVICE void publish_arrivals() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Announces so many bytes.
DEVICE void expect_bytes(u64 *at, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(bytes) : "memory");
}

/// Copies a multiple of 16 bytes to shared memory in the background.
DEVICE void copy_stretch(void *shared, const void *global, u32 bytes, u64 *arrival) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(arrival))
                 : "memory");
}

/// Waits until all that was announced has arrived, for the first time in phase 0, then in phase 1, and so on in turn.
DEVICE void wait_for_arrival(u64 *at, u32 phase) {
    u32 arrived;
    do {
        asm volatile("{.reg .pred done; mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2; selp.u32 %0, 1, 0, done;}"
                     : "=r"(arrived)
                     : "r"(shared_address(at)), "r"(phase)
                     : "memory");
    } while (!arrived);
}

/// Copies a multiple of 16 bytes from shared memory in the background; such copies since the last call of
/// [`commit_written`] are a group.
DEVICE void write_stretch(void *global, const void *shared, u32 bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global), "r"(shared_address(shared)),
                 "r"(bytes)
                 : "memory");
}
DEVICE void commit_written() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/// Waits until this thread's groups of such copies, but for its newest `Left`, have read the shared memory.
template <int Left> DEVICE void wait_for_written() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Left) : "memory");
}

/// [`load_matrices_transposed`] of one matrix.
DEVICE void load_matrix_transposed(u32 &to, const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(to) : "r"(shared_address(row)) : "memory");
}

/// Stores an 8 × 8 matrix of 16-bit values, of which each thread holds what [`load_matrices`] would give it, transposed:
/// thread i names row i of what is stored.
DEVICE void store_matrix_transposed(void *row, u32 from) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(shared_address(row)), "r"(from)
                 : "memory");
}
